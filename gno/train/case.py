"""Case: everything one training needs, read from a TOML file and checked before anything is computed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Self

import pydantic

from gno.train.explain import did_you_mean, explain
from gno.train.sections import Data, Model, Part, Physics, Time, Training, Uncertainty
from gno.train.splits import series_of


class Case(Part):
    """What to learn, from which files, with which model and budget.

    >>> case = Case(data=Data(inputs=["load"], targets=["u"], files="*.vtu"), training=Training(epochs=10))
    >>> case.model.size
    'small'
    """

    data: Data
    model: Model = Model()
    training: Training
    physics: Physics | None = None
    time: Time | None = None
    uncertainty: Uncertainty | None = None

    @pydantic.model_validator(mode="after")
    def _time_of_inputs(self) -> Self:
        if odd := sorted(set(self.time.forcing if self.time else ()) - set(self.data.inputs)):
            raise ValueError(f"time.forcing: {did_you_mean(odd[0], self.data.inputs, 'input')}")
        if odd := sorted(set(self.time.conserve if self.time else ()) - set(self.data.targets)):
            raise ValueError(f"time.conserve: {did_you_mean(odd[0], self.data.targets, 'target')}")
        if self.time and self.time.conserve and self.physics and self.physics.dirichlet:
            raise ValueError(
                "time.conserve: expected none with given values (physics.dirichlet), which let something in"
            )
        if self.time and self.physics and self.physics.loss == "energy":
            raise ValueError("physics.loss: expected residual (or auto) in a case with [time], got energy")
        if self.time and self.physics and self.physics.conservative:
            raise ValueError("physics.conservative: expected false in a case with [time], got true")
        return self

    @pydantic.model_validator(mode="after")
    def _laplacian_on_the_mesh(self) -> Self:
        if self.training.compile and (reader := self._reads_laplacian):
            raise ValueError(f"training.compile: expected false with {reader}, which are not filled up, got true")
        if self.training.compile and self.physics and self.physics.conservative:
            raise ValueError("training.compile: expected false with physics.conservative, made for each mesh, got true")
        if self.time is None and (n := self.model.knobs.get("n_substeps")):
            raise ValueError(f"model.n_substeps: expected 0 in a case without [time], got {n}")
        return self

    @property
    def _reads_laplacian(self) -> str | None:
        """The knob, if any, for which samples have the Laplacian on the mesh."""
        return next((f"model.{key}" for key in ("n_stencils", "n_substeps") if self.model.knobs.get(key)), None)

    @pydantic.model_validator(mode="after")
    def _samples_of_operator(self) -> Self:
        method, knobs = self.uncertainty.method if self.uncertainty else None, self.model.knobs
        for name, off in (("dropout", 0.0), ("variational", "none")):
            if method == name and knobs.get(name) == off:
                raise ValueError(f"model.{name}: expected other than {off} for uncertainty.method {method}, got {off}")
        if self.time and self.uncertainty and self.uncertainty.noise != "none":
            raise ValueError(f"uncertainty.noise: expected none in a case with [time], got {self.uncertainty.noise}")
        return self

    @pydantic.model_validator(mode="after")
    def _coarse_meshes(self) -> Self:
        others = {
            "[physics], which needs cells": self.physics is not None,
            f"{self._reads_laplacian}, which needs cells": self._reads_laplacian is not None,
            "training.compile, which wants one size": self.training.compile,
        }
        if self.training.curriculum and any(others.values()):
            other = next(name for name, wanted in others.items() if wanted)
            raise ValueError(f"training.curriculum: expected 0 with {other}, got more")
        return self

    @pydantic.model_validator(mode="after")
    def _targets_of_physics(self) -> Self:
        for key in ("unknowns", "components", "scale"):
            for name in getattr(self.physics, key, ()):
                if name not in self.data.targets:
                    raise ValueError(f"physics.{key}: {did_you_mean(name, self.data.targets, 'target')}")
        return self

    def paths(self) -> dict[str, list[Path]]:
        """The files of each split; in time the series, numbered files as the pattern that they match."""
        return self.data.paths(series_of if self.time else None)

    def with_training(self, **changes: Any) -> Case:
        """A copy with some settings of the training exchanged, checked anew.

        Raises:
            ValueError: one line with key, expected and got.
        """
        try:
            return self.model_copy(update={"training": Training(**{**self.training.model_dump(), **changes})})
        except pydantic.ValidationError as error:
            raise ValueError(f"training.{explain(error, Training)}") from None


def load_case(path: str | Path) -> Case:
    """Read and check a TOML file; relative globs start at its folder.

    Args:
        path: the file, with sections ``[data]``, ``[model]`` (optional) and ``[training]``.

    Returns:
        The case, frozen.

    Raises:
        ValueError: one line with file, key, expected and got; an unknown key comes with the known ones.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors of Windows begin with a mark
    except OSError as error:
        got = "a folder" if path.is_dir() else "none" if not path.exists() else error.strerror or error
        raise ValueError(f"{path}: expected a TOML file, got {got}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected TOML, which is text in UTF-8, got something else") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: expected TOML, got {error}") from None
    if isinstance(table.get("data"), dict):
        table["data"]["folder"] = path.parent.resolve() / table["data"].get("folder", "")
    try:
        return Case.model_validate(table)
    except pydantic.ValidationError as error:
        raise ValueError(f"{path}: {explain(error, Case)}") from None
