"""[physics] in training: problems of the meshes, given values in the output, losses without labels."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.data import Batch

from gno.graph import FieldSpec, MeshData, SampleSpec, collate
from gno.graph.batch import measure
from gno.graph.fields import find_field
from gno.graph.mirror import turned
from gno.mesh import Mesh
from gno.nn import NeuroScale, OperatorConfig, Output
from gno.physics import equations, losses, weights
from gno.physics.conditions import BoundaryTerm, Dirichlet, Neumann, Robin
from gno.physics.forms import Energy, Law, Weak, n_components
from gno.physics.galerkin import coarse_space
from gno.physics.multilevel import load_share, prepare
from gno.physics.problem import Problem, build_problem
from gno.physics.quadrature import build_domain
from gno.train.case import Case
from gno.train.evaluate import with_mean
from gno.train.explain import did_you_mean
from gno.train.losses import Term
from gno.train.normalise import Scale, columns_of, fit_scale
from gno.train.sections import Physics, Value
from gno.train.trajectory import Trajectory

WEIGHTINGS: dict[str, weights.Weighting] = {
    "fixed": weights.Fixed(),
    "gradient_norm": weights.GradientNorm(),
    "inverse_dirichlet": weights.InverseDirichlet(),
    "relobralo": weights.ReLoBRaLo(),
}
# What can be conserved, what it is known to be, and whether it is compared over the scales.
CONSERVED: Mapping[str, tuple[losses.Functional, float | None, bool]] = {
    "integral": (losses.integral, None, True),
    "balance": (losses.balance, 0.0, False),
    "work": (losses.work, 0.0, False),
}
FREE = "free"
# Targets that belong to so many times the loads, or to so small a share, are in other units.
FAR = 10.0
# Nor does a solid move by so many times its own size.
VERY_FAR = 100.0


class Lifted(NeuroScale):
    """The operator with given values where the batch has them, ``u_0 = g + χ û``, and in balance where it can be.

    Args:
        config: sizes of the operator.
        units: of the unknowns; a batch with a ``coarse_space`` has its field corrected there, and then in float64.
        consistent: whether coarser fields are the restrictions of the finer ones, ``u_{s+1} = R u_s``, given values
            included; else they are left as the operator's own heads say.
    """

    def __init__(self, config: OperatorConfig, units: losses.Units, consistent: bool = False) -> None:
        super().__init__(config)
        self.units, self.consistent = units, consistent

    def forward(self, batch: Batch, *, return_attention: bool = False) -> Output:
        output = super().forward(batch, return_attention=return_attention)
        fields = list(output.fields)
        if "fixed" in batch:
            fields[0] = torch.where(batch.fixed, batch.given.to(fields[0].dtype), fields[0])
        if "coarse_space" in batch:
            u = batch.coarse_space.correct(self.units.physical(turned_back(fields[0], batch, batch.pos_0_batch)))
            fields[0] = turned_back(self.units.normalised(fields[0], u), batch, batch.pos_0_batch)
        if self.consistent:  # as targets are restricted: the pooling must not learn to make errors look small
            for s, transfer in enumerate(output.transfers):
                fields[s + 1] = transfer.detach().restrict(fields[s].to(transfer.weights.dtype))
        return dataclasses.replace(output, fields=tuple(fields))


def turned_back(
    u: Float[Tensor, "n n_targets"], batch: Batch, graph: Int[Tensor, " n"]
) -> Float[Tensor, "n n_targets"]:
    """A field on the mirror images in a batch as one on their meshes, or the other way; on any scale."""
    return u * batch.turn.index_select(0, graph).to(u) if "turn" in batch else u


def law_of(physics: Physics, folder: Path) -> Law:
    """The law that a case names: a built-in one, or ``module:name`` (a file beside the case, or importable).

    Raises:
        ValueError: no such law.
    """
    module, colon, name = physics.equation.rpartition(":")
    known = vars(_module(module, folder)) if colon else vars(equations)
    laws = {key: value for key, value in known.items() if isinstance(value, Energy | Weak)}
    if name not in laws and isinstance(known.get(name), FunctionType):
        raise ValueError(
            f"physics.equation '{physics.equation}': expected a law, got a function that makes one; write "
            f'law = {name}(…) into a module of your own and name it, equation = "module:law"'
        )
    if name not in laws:
        raise ValueError(f"physics.equation: {did_you_mean(name, sorted(laws), 'equation')}")
    return laws[name]


def _module(name: str, folder: Path) -> Any:
    path = folder / f"{name}.py"
    if not path.is_file():
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise ValueError(f"physics.equation: expected the module '{name}' or {path}, got {error}") from None
    return _module_of_file(name, path, path.stat().st_mtime_ns)


@functools.cache  # laws of one batch must be the same
def _module_of_file(name: str, path: Path, changed: int) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a .py file has a loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dirichlet(physics: Physics) -> list[Dirichlet]:
    """The given values of a case.

    Raises:
        ValueError: a component that is neither a number nor "free".
    """
    found = []
    for name, value in physics.dirichlet.items():
        if not isinstance(value, tuple):
            found.append(Dirichlet(name, value))
            continue
        if odd := [v for v in value if isinstance(v, str) and v != FREE]:
            raise ValueError(f"physics.dirichlet.{name}: expected numbers or '{FREE}', got '{odd[0]}'")
        chosen = [k for k, v in enumerate(value) if v != FREE]
        found.append(Dirichlet(name, [float(value[k]) for k in chosen], chosen))
    return found


def conditions(physics: Physics) -> list[Dirichlet | BoundaryTerm]:
    """All boundary conditions of a case."""
    flux = [Neumann(name, as_given(value)) for name, value in physics.neumann.items()]
    exchange = [Robin(name, *value) for name, value in physics.robin.items()]
    return [*dirichlet(physics), *flux, *exchange]


def as_given(value: Value) -> Any:
    """A value of a case as the problem takes it: components as a list."""
    return [float(v) for v in value] if isinstance(value, tuple) else value


def target_specs(case: Case, spec: SampleSpec, meshes: Sequence[Mesh]) -> tuple[FieldSpec, ...]:
    """The targets: as the first mesh has them that has any, else at the nodes with as many components as the law says.

    Raises:
        ValueError: nobody says how many components a target has, or they do not fit the law.
    """
    assert case.physics is not None
    names, expected = unknowns(case), n_components(law_of(case.physics, case.data.folder), spec.dim)
    found = []
    for name in case.data.targets:
        labelled = next((mesh for mesh in meshes if name in mesh.point_fields or name in mesh.cell_fields), None)
        if labelled is not None:
            found.append(find_field(labelled, name))
            continue
        n = case.physics.components.get(name, expected if names == (name,) else None)
        if n is None:
            raise ValueError(f"physics.components: expected the number of components of '{name}', got none")
        found.append(FieldSpec(name, "point", n))
    got = sum(field.n_components for field in found if field.name in names)
    if got != (expected or got):
        raise ValueError(f"physics.unknowns: expected {expected} components for the equation, got {got} ({names})")
    return tuple(found)


def unknowns(case: Case) -> tuple[str, ...]:
    """Names of the targets that are the unknowns of the equation, in its order."""
    return (case.physics.unknowns if case.physics else ()) or case.data.targets


def unknown_columns(case: Case, spec: SampleSpec) -> Tensor:
    """Columns of the targets that are the unknowns of the equation, in its order."""
    place = {field.name: columns for columns, field in columns_of(spec.targets)}
    chosen = [place[name] for name in unknowns(case)]
    return torch.tensor([k for columns in chosen for k in range(columns.start, columns.stop)])


def problem_of(mesh: Mesh, case: Case) -> Problem:
    """The problem that a case states on a mesh."""
    physics = case.physics
    assert physics is not None
    law = law_of(physics, case.data.folder)
    return build_problem(mesh, law, {k: as_given(v) for k, v in physics.parameters.items()}, conditions(physics))


def with_given(sample: MeshData, mesh: Mesh, case: Case, spec: SampleSpec) -> MeshData:
    """The sample with what a prediction needs of the physics, physical units.

    That is ``fixed`` and ``given``, (n_0, n_targets), and ``coarse_space``, if predictions are to be in balance.
    """
    physics = case.physics
    if physics is None:
        return sample
    if physics.conservative:
        return _with_problem(sample, problem_of(mesh, case), case, spec)
    if not physics.dirichlet:
        return sample
    n = len(unknown_columns(case, spec))
    fixed, values = (np.zeros((mesh.n_nodes, n), kind) for kind in (bool, np.float64))
    domain = build_domain(mesh)
    for condition in dirichlet(physics):
        condition.apply(mesh, domain, fixed, values)
    return _with_columns(sample, torch.from_numpy(fixed), torch.from_numpy(values), unknown_columns(case, spec), spec)


def _with_problem(sample: MeshData, problem: Problem, case: Case, spec: SampleSpec) -> MeshData:
    assert case.physics is not None
    if case.physics.dirichlet:
        _with_columns(sample, problem.fixed, problem.values, unknown_columns(case, spec), spec)
    if case.physics.conservative:
        sample.coarse_space = coarse_space(problem, sample)
    return sample


def _with_columns(sample: MeshData, fixed: Tensor, values: Tensor, columns: Tensor, spec: SampleSpec) -> MeshData:
    sample.fixed = torch.zeros(len(fixed), spec.n_targets, dtype=torch.bool)
    sample.given = torch.zeros(len(fixed), spec.n_targets, dtype=torch.float64)
    sample.fixed[:, columns], sample.given[:, columns] = fixed, values
    return sample


def with_physics(sample: MeshData, mesh: Mesh, case: Case, spec: SampleSpec) -> MeshData:
    """The sample with all that training needs: the problem, sizes, and the floors that its reference leaves."""
    physics = case.physics
    assert physics is not None
    problem = problem_of(mesh, case)
    sample = _with_problem(sample, problem, case, spec)
    sample.physics = prepare(problem, sample)
    _check_units(sample, mesh, case, spec)
    sample.labelled = torch.tensor([sample.y is not None])
    if case.data.mirror:
        sample.turn = torch.ones(1, spec.n_targets)
    for name in physics.conserve:
        sample[f"size_{name}"] = losses.size_of(CONSERVED[name][0], sample.physics)
    _measure_floors(sample, case, spec)
    if sample.y is None:
        sample.y = torch.zeros(mesh.n_nodes, spec.n_targets)
    return sample


def _check_units(sample: MeshData, mesh: Mesh, case: Case, spec: SampleSpec) -> None:
    """That loads, parameters, lengths and targets go together, as far as one mesh can tell.

    Raises:
        ValueError: targets that belong to quite other loads; a solid that leaves its place.
    """
    physics, question = sample.physics, f"are the units of loads, parameters and lengths the same? ({mesh.source})"
    share = None if sample.y is None else load_share(physics, sample.y[:, unknown_columns(case, spec)].double())
    if share is not None and not 1 / FAR <= share <= FAR:
        raise ValueError(
            f"physics: expected targets that belong to the loads, got some that belong to {share:.3g} times them; "
            + question
        )
    if getattr(physics.problem.law, "kernel", None) is equations.rigid_motions:
        ratio = float(physics.guess.abs().max()) / float(np.ptp(mesh.points, axis=0).max())
        if ratio > VERY_FAR:
            raise ValueError(
                f"physics: expected displacements smaller than the body, got {ratio:.3g} times its size in a rough "
                f"solution; {question}"
            )


def _measure_floors(sample: MeshData, case: Case, spec: SampleSpec) -> None:
    """What the reference of a labelled mesh leaves of each loss: ``floor_<name>``, (1,); zero without a reference."""
    columns = unknown_columns(case, spec)
    u = None if sample.y is None else sample.y[:, columns].double()
    physical = losses.Units(torch.zeros(len(columns)), torch.ones(len(columns)), columns)
    batch = None if u is None else collate([sample])
    with torch.no_grad():
        for loss in with_floor(case, physical):
            floor = torch.zeros(1).double() if u is None else loss.of_field(batch, u)
            sample[f"floor_{loss.name}"] = floor.clamp(min=0)


def with_floor(case: Case, units: losses.Units) -> list[losses.Intra | losses.Conserved]:
    """The losses that a reference has a say in."""
    physics = case.physics
    assert physics is not None
    found: list[losses.Intra | losses.Conserved] = []
    if physics.intra:
        found.append(losses.Intra(units, measure_of(case), physics.coarse))
    for name in physics.conserve:
        functional, goal, scales = CONSERVED[name]
        found.append(losses.Conserved(name, functional, units, goal, scales))
    return found


def floors_of(samples: Sequence[Any], terms: Sequence[Term]) -> dict[str, float]:
    """What the reference solutions leave of each loss, by its name: a mean over labelled meshes, or over all steps of
    trajectories, in its units."""
    found = {}
    for term in terms:
        values = [value for sample in samples for value in _floors_in(sample, term.name)]
        if values:
            is_square = term.name == "intra"
            found[term.name] = sum(v**0.5 if is_square else v for v in values) / len(values)
    return found


def _floors_in(sample: MeshData | Trajectory, name: str) -> list[float]:
    if isinstance(sample, Trajectory):
        return sample.floors[name].tolist() if name in sample.floors else []
    return [float(sample[f"floor_{name}"])] if f"floor_{name}" in sample and is_labelled(sample) else []


def measure_of(case: Case) -> losses.Measure:
    """What says how wrong a field is: the excess of its energy, or its residual."""
    physics = case.physics
    assert physics is not None
    has_energy = isinstance(law_of(physics, case.data.folder), Energy)
    if case.time is not None:  # the smallest energy of a step depends on where a rollout has come to
        return losses.residual_norm
    if physics.loss == "energy" and not has_energy:
        raise ValueError(f"physics.loss: expected residual, since '{physics.equation}' has no energy, got energy")
    return losses.residual_norm if physics.loss == "residual" or not has_energy else losses.excess_energy


def physics_terms(case: Case, spec: SampleSpec, scale: Scale) -> list[Term]:
    """The losses that [physics] asks for."""
    physics = case.physics
    if physics is None:
        return []
    units = units_of(case, spec, scale)
    wanted: dict[str, float] = {"intra": physics.intra, **{str(k): v for k, v in physics.conserve.items()}}
    terms = [Term(loss.name, loss, wanted[loss.name]) for loss in with_floor(case, units)]
    return terms + ([Term("inter", losses.Inter(), physics.inter)] if physics.inter else [])


def units_of(case: Case, spec: SampleSpec, scale: Scale) -> losses.Units:
    """Units of the unknowns, of the scale of all targets."""
    columns = unknown_columns(case, spec)
    return losses.Units(scale.mean[columns], scale.std[columns], columns)


def target_scale(samples: Sequence[MeshData], spec: SampleSpec, case: Case) -> Scale:
    """Units of the targets: of the labelled meshes, else of rough solutions on the anchors; or as the case says.

    Raises:
        ValueError: a target that nothing is known of.
    """
    labelled = [sample for sample in samples if is_labelled(sample)]
    mirrored = turned(spec.targets, spec.dim, case.data.mirror_axes)
    if labelled:
        scale = fit_scale(labelled, "y", spec.targets, mirrored)
    else:
        if odd := sorted(set(case.data.targets) - set(unknowns(case))):
            raise ValueError(f"field '{odd[0]}': expected in some training mesh, since it is no unknown of [physics]")
        scale = fit_scale([_guessed(sample, case, spec) for sample in samples], "y", spec.targets, mirrored)
    given = case.physics.scale if case.physics else {}
    for columns, field in columns_of(spec.targets):
        if field.name in given:
            scale.std[columns] = given[field.name]
            scale.rms[columns] = given[field.name] * field.n_components**0.5
    return scale


def _guessed(sample: MeshData, case: Case, spec: SampleSpec) -> MeshData:
    y = torch.zeros(len(sample.mass_0), spec.n_targets, dtype=torch.float64)
    y[:, unknown_columns(case, spec)] = sample.physics.guess
    return MeshData(y=y, mass_0=measure(sample, 0, sample.mass_0))


def is_labelled(sample: MeshData) -> bool:
    """Whether the sample has its targets."""
    return bool(sample.labelled) if "labelled" in sample else sample.y is not None


@torch.inference_mode()
def physics_scores(
    model: torch.nn.Module, samples: Sequence[MeshData], terms: Sequence[Term], batch_size: int
) -> dict[str, float]:
    """Validation without labels: the mean of each loss over some samples, the first one as ``score``."""
    device = next(model.parameters()).device
    model.eval()
    sums = torch.zeros(len(terms), dtype=torch.float64)
    for k in range(0, len(samples), batch_size):
        group = samples[k : k + batch_size]
        batch = collate(group).to(device)
        output = model(batch)
        sums += len(group) * torch.stack([term.loss(batch, output) for term in terms]).double().cpu()
    values = (sums / len(samples)).tolist()
    return with_mean({term.name: value for term, value in zip(terms, values, strict=True)}, values[0])
