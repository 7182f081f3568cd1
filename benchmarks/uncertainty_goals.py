"""What is read off a field, of samples as a whole: heat and energy of a conductor, stress and reactions of a plate.

Each goal is made of parts that are linear in the field, so that those of widened samples follow without another pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from data import CACHE

from gno.demo.parallel import map_processes
from gno.demo.plates import MODULUS, POISSON, plate
from gno.mesh import Mesh, node_mass, read, write
from gno.post.reactions import nodal_forces
from gno.post.recovery import patch_recovery
from gno.post.stress import Elastic, stress
from gno.post.tensors import von_mises
from gno.uq import Spread, Uncertain

PLATE_SPACING = 0.1  # about 400 nodes
PLATE_FIELD = "displacement"
MATERIAL = Elastic(MODULUS, POISSON, "stress")
Parts = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Goal:
    """One or several numbers that follow from the field of a mesh, (n,), with the truth and the weight of each."""

    quantity: Uncertain
    truth: np.ndarray
    weight: np.ndarray


@dataclasses.dataclass(frozen=True)
class Goals:
    """What follows from the field of one mesh.

    Args:
        samples: parts that are linear in the field, of each sample. truth: the same, of the true one, as one sample.
        values: of such parts, by name, (n_samples, n). weights: by name; one number has none.
    """

    samples: Parts
    truth: Parts
    values: Callable[[Parts], Parts]
    weights: Parts

    def widened(self, spread: Spread) -> dict[str, Goal]:
        """Of samples with this spread, around what follows from their mean."""
        known = {name: Uncertain(part) for name, part in self.samples.items()}
        wide, mean, truth = (
            self.values(parts)
            for parts in (
                {name: spread.widen(part).samples for name, part in known.items()},
                {name: part.mean[None] for name, part in known.items()},
                self.truth,
            )
        )
        one = np.ones(1)
        return {
            n: Goal(Uncertain(x).centred(mean[n][0]), truth[n][0], self.weights.get(n, one)) for n, x in wide.items()
        }


def of_conductor(mesh: Mesh, samples: np.ndarray, truth: np.ndarray) -> Goals:
    """Mean, energy, heat through half of the boundary and flux of temperatures (n_samples, n_nodes, 1)."""
    weights = {"flux at cells": areas(mesh)}
    values = partial(_conducted, mesh)
    return Goals({"u": samples[..., 0]}, {"u": truth.T}, lambda parts: values(parts["u"]), weights)


def areas(mesh: Mesh) -> np.ndarray:
    """Of the triangles."""
    a, b, c = mesh.points[mesh.cells[0].nodes.T]
    return np.abs(np.linalg.det(np.stack([b - a, c - a], axis=1))) / 2


def _conducted(mesh: Mesh, fields: np.ndarray) -> Parts:
    nodes, area = mesh.cells[0].nodes, areas(mesh)
    conductivity, source = (mesh.point_fields[name][nodes] for name in ("conductivity", "source"))
    corners = np.concatenate([np.ones((len(nodes), 3, 1)), mesh.points[nodes]], axis=2)
    slopes = np.linalg.inv(corners)[:, 1:]  # (n_cells, 2, 3)
    flux = -conductivity.mean(1)[:, None] * np.einsum("cdn,kcn->kcd", slopes, fields[:, nodes])
    energy = ((flux**2).sum(2) / conductivity.mean(1)) @ area / 2
    made = area[:, None] / 12 * (source.sum(1, keepdims=True) + source)
    half = np.isin(nodes, mesh.point_sets["outside"]) & (mesh.points[nodes][..., 0] > 0)
    leaving = np.einsum("kcd,cdn->kcn", flux, slopes) * area[:, None] + made
    return {
        "mean": (fields[:, nodes].mean(2) @ area / area.sum())[:, None],
        "energy": energy[:, None],
        "heat through half": (leaving * half).sum((1, 2))[:, None],
        "flux, RMS": np.sqrt((flux**2).sum(2) @ area / area.sum())[:, None],
        "flux at cells": np.linalg.norm(flux, axis=2),
    }


def of_plate(mesh: Mesh, samples: np.ndarray, truth: np.ndarray) -> Goals:
    """Von Mises stress at the nodes and its largest, reaction of the support, energy, of displacements (n_samples,
    n_nodes, 2); stress and forces are those that `gno post` finds."""
    mass, weights = node_mass(mesh), {"reaction": np.ones(2)}
    parts = [_bent(mesh, u) for u in samples]
    together = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    true = {name: part[None] for name, part in _bent(mesh, truth).items()}
    return Goals(together, true, partial(_held, mesh.point_sets["left"]), {**weights, "von Mises": mass})


def _bent(mesh: Mesh, displacement: np.ndarray) -> Parts:
    """Displacement, recovered stress and the forces that hold the nodes."""
    sigma = stress(mesh.with_point_fields(u=displacement), "u", MATERIAL)
    return {"u": displacement, "stress": patch_recovery(sigma), "force": nodal_forces(sigma)}


def _held(support: np.ndarray, parts: Parts) -> Parts:
    equivalent = von_mises(parts["stress"])
    return {
        "von Mises": equivalent,
        "largest von Mises": equivalent.max(1, keepdims=True),
        "reaction": parts["force"][:, support].sum(1),
        "energy": (parts["force"] * parts["u"]).sum((1, 2))[:, None] / 2,
    }


def plates(n: int, *, first: int = 0) -> list[Mesh]:
    """Plates number `first` to `first + n − 1` with holes of random shape, solved into the cache where they lack."""
    directory = CACHE / f"plates-{PLATE_SPACING:g}"
    directory.mkdir(parents=True, exist_ok=True)
    paths = {seed: directory / f"{seed:07d}.vtu" for seed in range(first, first + n)}
    missing = [seed for seed, path in paths.items() if not path.exists()]
    map_processes(partial(_solve, directory), missing, workers=1, description="plates")
    return [read(path) for path in paths.values()]


def _solve(directory: Path, seed: int) -> None:
    write(plate(seed, PLATE_SPACING), directory / f"{seed:07d}.vtu")
