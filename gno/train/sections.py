"""The sections of a case: their keys, with defaults, bounds and what they mean."""

from __future__ import annotations

import dataclasses
import glob
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import Field

from gno.mesh.address import split_address
from gno.mesh.index import without_parts
from gno.mesh.io import each_frame
from gno.train.explain import did_you_mean
from gno.train.splits import SPLITS, split_items


def _as_tuple(value: Any) -> Any:
    value = (value,) if isinstance(value, str) else value
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"expected a string or a list of strings, got {value!r}")
    return tuple(value)


def _as_split(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != len(SPLITS):
        raise ValueError(f"expected three fractions, for {', '.join(SPLITS)}, as [0.8, 0.1, 0.1], got {value!r}")
    return value


Names = Annotated[tuple[str, ...], pydantic.BeforeValidator(_as_tuple)]
Mirrors = Annotated[tuple[Literal["x", "y", "z"], ...], pydantic.BeforeValidator(_as_tuple)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Split = Annotated[tuple[Fraction, Fraction, Fraction], pydantic.BeforeValidator(_as_split)]
Value = float | str | tuple[float | str, ...]
Named = dict[str, Value]


class Part(pydantic.BaseModel):
    """One section of a case: frozen, and no key that is not declared."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class Data(Part):
    """[data]: which files, which fields go in, which come out.

    Args:
        inputs: names of the fields that are known beforehand (point, cell or global).
        targets: names of the fields to learn.
        log: those inputs whose logarithm is to be used: coefficients that vary by factors.
        sets: named sets whose nearness, distance and direction the operator may see; all that the
            training meshes share if absent, none of point clouds.
        train, validation, test: globs, relative to ``folder``.
        files: one glob instead, split at random.
        split: fractions for train, validation and test.
        seed: of the split.
        period: length after which each coordinate repeats, 0 where it does not: ``[0.6, 0]`` along x only. For files
            that do not say; the nodes on both sides of such a mesh are the same unknowns.
        mirror: axes, of ``x``, ``y`` and ``z``, in whose mirror the problem is the same: every training mesh, or
            series, is learned from as it is and as its image, with vectors and tensors turned. Named sets move along;
            leave those out of ``sets`` that only tell one side from the other.
        folder: where relative globs start; the folder of the TOML file if absent.
        cache: folder for prepared samples, relative to ``folder``; empty for none.
    """

    inputs: Names = ()
    targets: Names
    log: Names = ()
    sets: Names | None = None
    train: Names = ()
    validation: Names = ()
    test: Names = ()
    files: Names = ()
    split: Split = (0.8, 0.1, 0.1)
    seed: int = 0
    period: tuple[Annotated[float, Field(ge=0)], ...] = ()
    mirror: Mirrors = ()
    folder: Path = Path()
    cache: str = ".gno"

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        for key in ("inputs", "targets"):
            names = getattr(self, key)
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise ValueError(f"{key}: expected every name once, got '{twice}' twice")
        if odd := sorted(set(self.log) - set(self.inputs)):
            raise ValueError(f"log: expected names of inputs ({', '.join(self.inputs)}), got '{odd[0]}'")
        if not self.targets:
            raise ValueError("targets: expected at least one field, got none")
        if leak := set(self.inputs) & set(self.targets):
            raise ValueError(f"inputs: expected no target among them, got '{min(leak)}' in both inputs and targets")
        if self.files and (self.train or self.validation or self.test):
            raise ValueError("files: expected either files (with split) or train/validation/test, got both")
        if not 0.999 < sum(self.split) < 1.001 or self.split[0] <= 0:
            raise ValueError(f"split: expected three fractions that sum to 1, the first > 0, got {list(self.split)}")
        return self

    @property
    def mirror_axes(self) -> list[int]:
        """The axes of ``mirror`` as numbers."""
        return sorted({"xyz".index(axis) for axis in self.mirror})

    def paths(self, group: Callable[[Path], Path] | None = None) -> dict[str, list[Path]]:
        """The files of each split, sorted; a file belongs to one split only.

        Args:
            group: what to take in place of each file.

        Raises:
            ValueError: a glob without files, or a file in two splits.
        """
        if self.files:
            return split_items(self._expand("files", self.files, group), self.split, self.seed)
        if not self.train:
            raise ValueError("data.train: expected a glob of training files (or data.files), got none")
        found = {key: self._expand(key, getattr(self, key), group) for key in SPLITS}
        for earlier, later in (("train", "validation"), ("train", "test"), ("validation", "test")):
            if both := sorted(set(found[earlier]) & set(found[later])):
                raise ValueError(f"data.{later}: expected files that are not in data.{earlier}, got {both[0]} in both")
        return found

    def _expand(self, key: str, patterns: tuple[str, ...], group: Callable[[Path], Path] | None) -> list[Path]:
        paths: list[Path] = []
        for pattern in patterns:
            full, frames = split_address(self.folder / pattern)
            wanted = pattern if frames is None else pattern[: -1 - len(frames)]
            # a name with brackets may be one, and those of the folder are no part of the pattern
            names = [wanted] if full.exists() else glob.glob(wanted, root_dir=self.folder, recursive=True)  # noqa: PTH207
            hits = [(self.folder / name).resolve() for name in names]
            if not hits:
                raise ValueError(f"data.{key}: expected files, got none that match '{self.folder / pattern}'")
            named = hits if frames is None else [hit.with_name(f"{hit.name}@{frames}") for hit in hits]
            paths += [frame for hit in named for frame in each_frame(hit)]
        paths = without_parts(paths)
        return sorted(set(map(group, paths) if group else paths))


class Model(Part):
    """[model]: one size dial, and any knob of the operator or of its hierarchy by name.

    The knobs are those of :class:`gno.nn.OperatorConfig` (``width``, ``n_blocks``, …) and of
    :meth:`gno.graph.SampleSpec.fit` (``n_levels``, ``first_step``, …).

    >>> Model(size="small", width=32, n_levels=4).operator
    {'width': 32}
    """

    model_config = pydantic.ConfigDict(extra="allow")

    size: Literal["small", "medium", "large"] = "small"

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if not self.knobs:  # types of knobs stand in modules that load torch
            return self
        known = {**hierarchy_knobs(), **operator_knobs()}
        for key, value in self.knobs.items():
            if key not in known:
                raise ValueError(f"{key}: {did_you_mean(key, ['size', *known])}")
            try:
                pydantic.TypeAdapter(known[key]).validate_python(value, strict=True)
            except pydantic.ValidationError:
                kind = getattr(known[key], "__name__", known[key])
                raise ValueError(f"{key}: expected {kind}, got {value!r}") from None
        return self

    @property
    def knobs(self) -> dict[str, Any]:
        """All overrides by name."""
        return dict(self.model_extra or {})

    @property
    def hierarchy(self) -> dict[str, Any]:
        """Overrides of the hierarchy."""
        return {key: value for key, value in self.knobs.items() if key in hierarchy_knobs()}

    @property
    def operator(self) -> dict[str, Any]:
        """Overrides of the operator."""
        return {key: value for key, value in self.knobs.items() if key in operator_knobs()}


def hierarchy_knobs() -> dict[str, Any]:
    """Types of the knobs of the hierarchy, by name."""
    from gno.graph import SampleSpec

    hints = typing.get_type_hints(SampleSpec.fit)
    of_data = ("meshes", "inputs", "targets", "log", "sets", "period", "edges", "return")
    return {key: hints[key] for key in hints if key not in of_data}


def operator_knobs() -> dict[str, Any]:
    """Types of the knobs of the operator, by name: those that have a default."""
    from gno.nn import OperatorConfig

    hints = typing.get_type_hints(OperatorConfig)
    fields = dataclasses.fields(OperatorConfig)
    return {field.name: hints[field.name] for field in fields if field.default is not dataclasses.MISSING}


class Training(Part):
    """[training]: the budget (``epochs`` or ``minutes``, exactly one) and how it is spent.

    Args:
        epochs: passes over the training files.
        minutes: wall time instead; warm-up and decay follow the clock.
        batch_size: meshes per step, over all devices together.
        optimiser: ``muon`` (matrices by Muon, the rest by AdamW) or ``adamw``.
        lr: peak learning rate, after warm-up.
        final_lr: share of it that is left at the end.
        warmup: share of the budget over which the rate rises to its peak.
        weight_decay: of matrices only.
        clip: largest gradient norm.
        ema: decay of the averaged weights that validation and prediction use.
        coarse_weight: weight of the coarse levels together, against 1 for the mesh itself.
        curriculum: share of the budget that is spent on coarser versions of the meshes, twice the spacing, before the
            meshes themselves.
        precision: ``32``, ``bf16``, ``16`` (mixed) or ``64``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        devices: number of devices.
        seed: of weights and shuffling.
        validations: how often, over the budget, to validate and save.
        save_minutes: save at least this often.
        log_every: steps between rows of the log.
        compile: whether the operator goes through ``torch.compile``, on batches filled up to few sizes; with CUDA
            graphs on a GPU. Minutes of compilation for each size, for a tenth less time per step on a CPU.
    """

    epochs: Annotated[int, Field(ge=1)] | None = None
    minutes: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 8
    optimiser: Literal["adamw", "muon"] = "muon"
    lr: Annotated[float, Field(gt=0)] = 3e-3
    final_lr: Fraction = 0.01
    warmup: Fraction = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    clip: Annotated[float, Field(gt=0)] = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    coarse_weight: Annotated[float, Field(ge=0)] = 0.3
    curriculum: Fraction = 0.0
    precision: Literal["32", "bf16", "16", "64"] = "32"
    device: str = "auto"
    devices: Annotated[int, Field(ge=1)] = 1
    seed: int = 0
    validations: Annotated[int, Field(ge=1)] = 20
    save_minutes: Annotated[float, Field(gt=0)] = 5.0
    log_every: Annotated[int, Field(ge=1)] = 10
    compile: bool = False

    @pydantic.field_validator("precision", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @pydantic.field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
            raise ValueError(f"expected auto, cpu, cuda, cuda:1 or mps, got '{value}'")
        return value

    @pydantic.model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.epochs is None) == (self.minutes is None):
            got = "neither" if self.epochs is None else "both"
            raise ValueError(f"expected exactly one of epochs and minutes, got {got}")
        return self


class Physics(Part):
    """[physics]: the equation that the targets obey; with it meshes without the targets can be learned from.

    Args:
        equation: a law of ``gno.physics`` by name (``diffusion``, ``plane_stress``, …), or ``module:name`` of your own.
        parameters: of the equation, by name: a number, one number per component, or the name of a field of the mesh.
        dirichlet: given values by point set (``boundary`` is all of it): a number, one per component (``"free"`` for a
            component that is not given), or the name of a point field; they are met to the bit, in predictions too.
        neumann: given flux or traction by point set, likewise.
        robin: exchange with the surroundings by point set: coefficient and outer value.
        unknowns: those targets that are the unknowns of the equation, in its order; all targets if absent.
        components: number of components of targets that the meshes lack; not needed where the unknown is one target.
        scale: usual size of each unknown; from rough solutions on the anchors, or from labelled meshes, if absent.
        loss: ``energy`` (how far its energy is from the smallest), ``residual`` (of the weak form, preconditioned), or
            ``auto``: energy where there is one.
        intra: weight of the equation on the mesh.
        coarse: weight of the equation on the coarse scales together, relative to the mesh.
        inter: weight of the agreement between scales.
        consistent: coarse fields are the restrictions of the finer ones, so that scales agree without a loss for it; if
            false, the operator's own.
        conservative: fields are corrected on the anchors, so that fluxes or forces balance, on the whole and on every
            anchor's patch, and the work of the loads is stored; in predictions too, on scales that are consistent. For
            linear equations with an energy.
        conserve: weights of what must be conserved, by name: ``integral`` (on all scales), ``balance`` (of forces or
            fluxes), ``work`` (of the loads, against the energy stored).
        theta: in time, the state between two frames that the equation is asked of, u_n + θ (u_{n+1} − u_n): 0.5 is the
            midpoint rule, 1 backward Euler.
        weights: how the weights adapt: ``fixed``, ``gradient_norm``, ``inverse_dirichlet``, ``relobralo``.
    """

    equation: str
    parameters: Named = {}
    dirichlet: Named = {}
    neumann: Named = {}
    robin: dict[str, tuple[float | str, float | str]] = {}
    unknowns: Names = ()
    components: dict[str, Annotated[int, Field(ge=1)]] = {}
    scale: dict[str, Annotated[float, Field(gt=0)]] = {}
    loss: Literal["auto", "energy", "residual"] = "auto"
    intra: Annotated[float, Field(ge=0)] = 1.0
    coarse: Annotated[float, Field(ge=0)] = 0.0
    inter: Annotated[float, Field(ge=0)] = 0.0
    consistent: bool = True
    conservative: bool = False
    conserve: dict[Literal["integral", "balance", "work"], Annotated[float, Field(ge=0)]] = {}
    theta: Annotated[float, Field(gt=0, le=1)] = 0.5
    weights: Literal["fixed", "gradient_norm", "inverse_dirichlet", "relobralo"] = "fixed"

    @pydantic.model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        kept = {"inter", "integral"} if self.consistent or self.conservative else set()
        kept |= {"balance", "work"} if self.conservative else set()
        asked: dict[str, float] = {"inter": self.inter, **{str(k): v for k, v in self.conserve.items()}}
        for name, weight in asked.items():
            if weight and name in kept:
                how = "conservative" if name in ("balance", "work") else "consistent"
                raise ValueError(
                    f"{name}: expected no weight for what {how} fields keep by construction, got {weight:g}"
                )
        return self


class Time(Part):
    """[time]: the targets evolve; with it every file is a series of frames, and a step from frame to frame is learned.

    Args:
        forcing: those inputs that change with time; they are known beforehand, for all frames.
        history: frames that the operator sees, the present one included.
        stride: every how many frames of a file are taken.
        step: time between the frames taken, where the files do not say.
        unroll: steps of the longest rollout in training; it starts with one and grows over the budget.
        gradient: last steps of a rollout that gradients pass through.
        noise: of the states that a rollout starts from, in usual changes per step; it fades to none over the training.
        conserve: targets whose integral over the mesh stays as it is, in a closed system: every step keeps it exactly.
    """

    forcing: Names = ()
    history: Annotated[int, Field(ge=1)] = 1
    stride: Annotated[int, Field(ge=1)] = 1
    step: Annotated[float, Field(gt=0)] | None = None
    unroll: Annotated[int, Field(ge=1)] = 1
    gradient: Annotated[int, Field(ge=1)] = 1
    noise: Annotated[float, Field(ge=0)] = 0.3
    conserve: Names = ()


class Uncertainty(Part):
    """[uncertainty]: how sure a prediction is; with it a run answers with several equally likely samples.

    Args:
        method: where the samples come from: ``ensemble`` (operators from several seeds), or one operator with
            ``dropout`` (channels left out), ``variational`` (Gaussian weights), or ``laplace`` (its last weights, after
            training).
        members: operators of an ensemble.
        share: of the budget that each member trains for; n of them cost n · share trainings.
        common: share of the budget that members have in common, 0 for independent ones; n of them then cost
            1 + (n − 1)(1 − common) trainings.
        at_once: members that train at the same time, each in a process of its own; 0 for as many as there are cores,
            and for one on an accelerator, whose memory they would share.
        samples: drawn from one operator by the other methods; an even number.
        noise: of the data, as large as the operator finds it at every node: ``none``, or learned by the score
            ``beta_nll`` (a likelihood) or ``crps``, which take the place of the relative error.
    """

    method: Literal["ensemble", "dropout", "variational", "laplace"] = "ensemble"
    members: Annotated[int, Field(ge=1)] = 5
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    common: Annotated[float, Field(ge=0, lt=1)] = 0.0
    at_once: Annotated[int, Field(ge=0)] = 0
    samples: Annotated[int, Field(ge=2, multiple_of=2)] = 32
    noise: Literal["none", "beta_nll", "crps"] = "none"

    @property
    def operator(self) -> dict[str, Any]:
        """What the operator needs for it; knobs of [model] stand above."""
        knobs: dict[str, dict[str, Any]] = {"dropout": {"dropout": 0.02}, "variational": {"variational": "heads"}}
        return {**knobs.get(self.method, {}), "noise_head": self.noise != "none"}

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.method == "laplace" and self.noise != "none":
            raise ValueError(f"noise: expected none with laplace, which finds the noise itself, got {self.noise}")
        return self
