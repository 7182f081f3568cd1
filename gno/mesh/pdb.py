"""Structures of the Protein Data Bank (.pdb), read with ASE: elements and residues as point sets."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gno.mesh.mesh import Mesh, MeshError
from gno.mesh.particles import INSTALL, kinds, particles, remembered

_FIELDS = {"occupancy": "occupancy", "bfactor": "bfactor", "residuenumbers": "residue"}


def pdb_times(path: Path) -> list[float]:
    """The numbers of the models."""
    return [float(k) for k in range(len(_models(path)))]


def read_pdb(path: Path, step: int) -> Mesh:
    """Read one model; positions in Å.

    Raises:
        MeshError: no atoms, or no ASE.
    """
    models = _models(path)
    atoms, box = models[step], np.asarray(models[0].cell)  # the line of the box stands before the first model
    names = atoms.arrays
    sets = kinds(atoms.get_chemical_symbols())
    sets.update(kinds(names.get("residuenames", ()), "residue "))
    return particles(
        atoms.positions,
        box=None if (np.diag(box) <= 1).all() else box,  # 1 × 1 × 1 stands for none
        source=str(path),
        point_fields={ours: names[theirs] for theirs, ours in _FIELDS.items() if theirs in names},
        point_sets=sets,
    )


@remembered
def _models(path: Path) -> list[Any]:
    try:
        from ase.io.proteindatabank import read_proteindatabank
    except ImportError as error:
        raise MeshError(f"PDB is read with ASE, which is not installed: {INSTALL}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of arrays that it leaves out
        models = [model for model in read_proteindatabank(str(path), index=slice(None)) if len(model)]
    if not models:
        raise MeshError("expected lines ATOM or HETATM, got none")
    return models
