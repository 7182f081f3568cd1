"""What follows from a prediction that comes as samples: the same post-processing of each, then mean and spread."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gno.post.report import Report
from gno.uncertain import Uncertain

STD = "std_"
PREDICTED = "predicted_"
# Facts that are places or counts, not quantities.
_PLACES = ("node", "position", "n_nodes", "about")


def sample_folder(path: Path) -> Path:
    """Where the samples of a predicted file lie."""
    return path.with_name(f"{path.stem}_samples")


def sample_files(path: Path) -> list[Path]:
    """The samples that were written beside a predicted file, in their order."""
    numbered = [file for file in sample_folder(path).glob("*.vtu") if file.stem.isdigit()]
    return sorted(numbered, key=lambda file: int(file.stem))


def with_spread(report: Report, samples: Sequence[Report]) -> Report:
    """The report of the mean, with the standard deviation of what the samples say.

    All entries of one sample belong together, so that sums and differences keep the correlations between nodes: for a
    linear functional the variance is ``cᵀ Cov c``. What is quadratic is too large on the mean of widened samples, so
    that the value of the mean prediction is the one to take.

    Args:
        report: of the mean prediction. samples: the same of each sample, at least two.

    Returns:
        ``std_<name>`` beside every derived field ``<name>`` or ``predicted_<name>``, the fact ``samples`` with the mean
        over them and std by name, and a line for each.

    Raises:
        ValueError: fewer than two samples, or one of another mesh.
    """
    if len(samples) < 2:
        raise ValueError(f"samples: expected at least two, got {len(samples)}")
    if odd := [s for s in samples if s.mesh.n_nodes != report.mesh.n_nodes]:
        raise ValueError(f"{odd[0].mesh.source}: expected {report.mesh.n_nodes} nodes, got {odd[0].mesh.n_nodes}")
    value, known = flat(report.facts), [flat(s.facts) for s in samples]
    spread = {name: Uncertain(np.array([facts[name] for facts in known])) for name in known[0]}
    facts = {name: {"mean": float(u.mean), "std": float(u.std)} for name, u in spread.items()}
    lines = [f"{'':2}{name:<32} {value[name]:.6g} ± {float(f'{u.std:.2g}'):g}" for name, u in spread.items()]
    found = report.on(report.mesh.replace(**_stds(report, samples)))
    return dataclasses.replace(
        found,
        facts={**report.facts, "samples": {"n": len(samples), **facts}},
        lines=(*report.lines, f"with the standard deviation of {len(samples)} samples:", *lines),
    )


def flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """All quantities among nested facts, by the way to them.

    >>> flat({"reaction left": {"force": [1.0, 2.0], "n_nodes": 3}})
    {'reaction left force x': 1.0, 'reaction left force y': 2.0}
    """
    found: dict[str, float] = {}
    for name, value in facts.items():
        if name in _PLACES:
            continue
        way = f"{prefix} {name}".strip()
        if isinstance(value, Mapping):
            found |= flat(value, way)
        elif isinstance(value, Sequence):
            axes = "xyz" if len(value) > 1 else " "
            found |= {f"{way} {axes[k]}".strip(): float(x) for k, x in enumerate(value)}
        else:
            found[way] = float(value)
    return found


def _stds(report: Report, samples: Sequence[Report]) -> dict[str, dict[str, np.ndarray]]:
    """Stores of the mesh with a standard deviation for every field that differs between the samples."""
    stores = {}
    for kind in ("point_fields", "cell_fields"):
        own = getattr(report.mesh, kind)
        stds = {}
        for name in own:
            values = [getattr(sample.mesh, kind).get(name) for sample in samples]
            if all(v is not None and v.dtype.kind == "f" for v in values) and not _equal(values):
                stds[STD + name.removeprefix(PREDICTED)] = Uncertain(np.stack(values)).std
        stores[kind] = {**own, **stds}
    return stores


def _equal(values: Sequence[Any]) -> bool:
    return all(np.array_equal(values[0], value, equal_nan=True) for value in values[1:])
