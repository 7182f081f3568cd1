"""[physics] with [time]: a step of the equation has no residual where a solver made it, and its losses teach."""

import copy
import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import splu
from test_physics_losses import grid

from gno.physics import (
    advection_diffusion,
    build_problem,
    diffusion,
    elasticity,
    gray_scott,
    navier_stokes,
    neo_hookean,
    plane_strain,
    plane_stress,
    solve,
)
from gno.physics.stepping import at_step, build_step, law_of_step
from gno.train import Case, Data, Model, Training, train
from gno.train.blueprint import Blueprint
from gno.train.case import Physics, Time
from gno.train.dynamics import Evolution
from gno.train.physics import collate
from gno.train.physics_in_time import step_terms
from gno.train.sources import fit_spec, trajectories_of
from gno.train.trajectory import state_columns

STEP = 0.02


def heat(seed, n_frames=6, theta=0.5, wall=True, n=None, source=None):
    """u_t = ∇·(k ∇u) + f by linear elements and the θ rule: in time the frames are exact, to round-off."""
    rng = np.random.default_rng(seed)
    mesh = grid(int(n or rng.integers(5, 8)), skew=rng.uniform(0, 0.5))
    k, f, (a, b) = 0.5 + rng.uniform(), rng.normal(), rng.uniform(1, 3, 2)
    f = f if source is None else source
    start = np.sin(a * mesh.points[:, 0]) * np.cos(b * mesh.points[:, 1])
    whole = build_problem(mesh, diffusion, {"conductivity": k, "source": f})
    one = build_step(mesh, diffusion, {"conductivity": k, "source": f}, [], 2)
    zero = torch.zeros(mesh.n_nodes, 1, dtype=torch.float64)
    K, load = whole.tangent(zero), -whole.residual(zero)[:, 0].numpy()
    M = at_step(one, zero, torch.ones(1).double()).tangent(zero) - K
    edge = np.isin(np.arange(mesh.n_nodes), boundary(mesh)) if wall else np.zeros(mesh.n_nodes, bool)
    free, u = ~edge, np.where(edge, 0.25, start)
    left = splu((sp.csc_array(M + theta * STEP * K))[free][:, free])
    frames = []
    for t in range(n_frames):
        fields = {"point_fields": {"u": u}, "global_fields": {"k": np.array([k]), "f": np.array([f])}}
        frames.append(mesh.replace(time=STEP * t, source=f"heat {seed}", **fields))
        change = left.solve((STEP * (load - K @ u))[free])
        u = u.copy()
        u[free] += change
    return frames


def boundary(mesh):
    from gno.mesh import boundary_facets

    return np.unique(boundary_facets(mesh))


def case(physics=None, time=None, data=None, **training):
    given = {
        "equation": "diffusion",
        "parameters": {"conductivity": "k", "source": "f"},
        "dirichlet": {"boundary": 0.25},
    }
    return Case(
        data=Data(**{"inputs": ["k", "f"], "targets": ["u"], **(data or {})}),
        model=Model(width=16, n_blocks=1, n_heads=1),
        training=Training(**{"epochs": 2, "batch_size": 4, "device": "cpu", **training}),
        physics=Physics(**{**given, **(physics or {})}),
        time=time or Time(unroll=2, gradient=2),
    )


def trajectories(series, case):
    spec = fit_spec(case, series)
    return trajectories_of(series, spec, case, to_train=True), spec


@pytest.mark.parametrize("theta", [0.5, 1.0])
def test_frames_of_the_same_rule_leave_nothing(theta):
    settings = case({"theta": theta, "conserve": {"balance": 1.0}, "dirichlet": {}})
    (one,), _ = trajectories([heat(0, theta=theta, wall=False)], settings)
    assert one.floors["intra"].sqrt().max() < 1e-6 and one.floors["balance"].max() < 1e-9
    other, _ = trajectories([heat(0, theta=1.5 - theta, wall=False)], settings)
    assert other[0].floors["intra"].sqrt().min() > 1e-3


def test_a_closed_system_without_a_source_has_the_size_of_what_moves_in_it():
    settings = case({"conserve": {"balance": 1.0, "work": 1.0}, "dirichlet": {}})
    (closed,), _ = trajectories([heat(0, wall=False, source=0.0)], settings)
    (fed,), _ = trajectories([heat(0, wall=False, source=1.0)], settings)
    for name in ("balance", "work"):
        there, here = (float(t.samples[0][f"size_{name}"]) for t in (fed, closed))
        assert 0.01 < here / there < 10, name


def test_a_step_of_gray_scott_solved_leaves_nothing():
    mesh, parameters = grid(5), {"feed": 0.04, "kill": 0.06, "diffusivity": (2e-3, 1e-3)}
    before = torch.rand(mesh.n_nodes, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = at_step(build_step(mesh, gray_scott, parameters, [], 2), before, torch.tensor([3.0]).double())
    middle = solve(step).values
    assert step.residual(middle).norm() < 1e-9 * step.residual(before).norm()
    after = before + 2 * (middle - before)  # the midpoint rule over a step of 6
    rest = build_problem(mesh, gray_scott, parameters)
    lhs = at_step(step, before, torch.tensor([6.0]).double()).residual(after) - rest.residual(after)  # M (u⁺ − u)/6
    assert torch.allclose(lhs, -rest.residual((before + after) / 2), atol=1e-10)


def output_of(batch):
    """Rates at random at every scale, with transfers of the geometric weights."""
    from gno.nn import NeuroScale, OperatorConfig

    sizes = {"n_inputs": batch.x.shape[1], "n_geometry": batch.geometry.shape[1], "n_outputs": 1, "n_levels": 3}
    config = OperatorConfig(dim=2, width=8, n_blocks=1, n_heads=1, n_globals=batch.parameters.shape[1], **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NeuroScale(config).double()(batch)


def ready(series, settings, only=slice(None)):
    """A batch as it is when the losses see it, the losses, and the rates that lead to the truth."""
    found, spec = trajectories(series, settings)
    blueprint = Blueprint.fit(settings, spec, found)
    forced = state_columns(spec, settings.time.forcing)
    normal = [t.normalised(blueprint.normalisation, forced, torch.float64) for t in found]
    batch = collate([t.window(0, 1, 2) for t in normal[only]])
    evolution = Evolution(torch.nn.Identity(), blueprint.normalisation, spec, settings.time.forcing)
    now = evolution.batch(batch, batch.past, batch.forcing[:, :2], batch.steps[:, :1])
    now.state, now.step, now.forcing = batch.past[:, -1], batch.steps[:, 0], batch.forcing[:, :2]
    now.change = evolution.changes(now.step, torch.float64)
    for name in found[0].floors:
        now[f"floor_{name}"] = 0 * batch[f"floors_{name}"][:, 0]
    truth = (batch.future[:, 0] - batch.past[:, 0]) / evolution.change(now.step, batch, torch.float64)
    return now, step_terms(settings, spec, blueprint.normalisation), truth


EVERYTHING = {
    "consistent": False,
    "intra": 1.0,
    "coarse": 0.5,
    "inter": 0.1,
    "conserve": {"balance": 0.1, "integral": 0.1, "work": 0.1},
}


def test_the_right_rate_has_no_loss_and_no_rate_has_one():
    batch, terms, truth = ready([heat(0), heat(1)], case())
    output = output_of(batch)
    right = dataclasses.replace(output, fields=(truth, *output.fields[1:]))
    still = dataclasses.replace(output, fields=(0 * truth, *output.fields[1:]))
    assert [term.name for term in terms] == ["intra"]
    assert terms[0].loss(batch, right) < 2e-4 and 0.3 < terms[0].loss(batch, still) < 5


def test_gradients_are_those_of_the_losses():
    batch, terms, _ = ready([heat(0, 3, n=5)], case(EVERYTHING))
    terms = [term for term in terms if term.name != "integral"]  # kept by construction: |0| has no derivative
    output = output_of(batch)

    def of_rates(*rates):
        answer = dataclasses.replace(output, fields=rates)
        return torch.stack([term.weight * term.loss(batch, answer) for term in terms]).sum()

    def of_state(state):
        now = copy.copy(batch)
        now.state = state
        return torch.stack([term.loss(now, output) for term in alone]).sum()

    alone = ready([heat(0, 3, n=5)], case({"conserve": {"balance": 1.0}}))[1]  # coarse states carry no gradient
    rates = [x.detach().clone().requires_grad_() for x in output.fields]
    output = dataclasses.replace(output, fields=tuple(x.detach() for x in output.fields))
    assert torch.autograd.gradcheck(of_rates, rates, fast_mode=True)
    assert torch.autograd.gradcheck(of_state, batch.state.clone().requires_grad_(), fast_mode=True)


def test_a_batch_is_its_meshes():
    settings, series = case(EVERYTHING), [heat(0), heat(1), heat(2)]
    batch, terms, _ = ready(series, settings)
    whole = output_of(batch)
    parts = torch.zeros(len(terms)).double()
    for g in range(3):
        one, rows = ready(series, settings, slice(g, g + 1))[0], [graph == g for graph in whole.batch]
        alone = dataclasses.replace(output_of(one), fields=tuple(u[r] for u, r in zip(whole.fields, rows, strict=True)))
        parts += torch.stack([term.loss(one, alone) for term in terms]) / 3
    assert torch.allclose(parts, torch.stack([term.loss(batch, whole) for term in terms]), rtol=1e-6)


def test_training_with_the_equation_lowers_its_loss_and_holds_given_values(tmp_path):
    series = {"train": [heat(s, 5, n=5) for s in range(4)], "validation": [heat(20, 5)]}
    settings = case({"conserve": {"work": 0.01}}, epochs=8, lr=1e-2, log_every=1, validations=1)
    run = train(settings, tmp_path / "run", meshes=series, progress=False)
    rows = [line.split(",") for line in (tmp_path / "run" / "log.csv").read_text().splitlines()]
    column, floor = rows[0].index("loss intra"), rows[0].index("floor intra")
    values = [float(row[column]) for row in rows[1:] if row[column]]
    assert np.mean(values[-5:]) < 0.6 * np.mean(values[:5])
    assert float(rows[1][floor]) < 1e-4
    rollout = run.roll_out(heat(30), tmp_path / "out.pvd", n_steps=3)
    from gno.mesh import read_series

    last = read_series(rollout.path)[-1]
    edge = np.isin(np.arange(last.n_nodes), boundary(last))
    assert (last.point_fields["predicted_u"][edge] == 0.25).all()
    assert not np.isclose(last.point_fields["predicted_u"][~edge], 0.25).all()
    assert run.evaluate_rollouts([heat(30)]).curve("relative_l2", "u")[0] < 1


def test_a_source_that_changes_with_time_is_that_of_the_step():
    """u_t = f(t) without anything else: the mean of f at both ends is the midpoint rule's."""
    mesh, times = grid(4), np.array([0.0, 0.1, 0.3, 0.4])
    level = np.array([1.0, 2.0, -1.0, 0.5])
    u = np.concatenate([[0], np.cumsum(np.diff(times) * (level[1:] + level[:-1]) / 2)])
    frames = [
        mesh.replace(point_fields={"u": np.full(mesh.n_nodes, a), "f": np.full(mesh.n_nodes, b)}, time=float(t))
        for a, b, t in zip(u, level, times, strict=True)
    ]
    physics = {"parameters": {"conductivity": 1.0, "source": "f"}, "dirichlet": {}, "conserve": {"balance": 1.0}}
    settings = case(physics, Time(unroll=1, forcing=["f"]), {"inputs": ["f"]})
    (one,), _ = trajectories([frames], settings)
    assert one.floors["intra"].max() < 1e-20 and one.floors["balance"].max() < 1e-12
    batch, terms, truth = ready([frames, frames], settings)
    output = output_of(batch)
    right = dataclasses.replace(output, fields=(truth, *output.fields[1:]))
    assert all(term.loss(batch, right) < 2e-4 for term in terms)


@pytest.mark.parametrize(
    ("physics", "message"),
    [
        ({"equation": "allen_cahn", "parameters": {"conductivity": 1.0}}, r"'diffusivity'\]: expected by the law"),
        ({"equation": "reaction_diffusion"}, "a function that makes one"),
        ({"parameters": {"conductivity": "k"}, "dirichlet": {"boundary": 0.5}}, "given values must not change"),
        ({"parameters": {"source": "f"}}, r"'conductivity'\]: expected by the law"),
    ],
)
def test_what_cannot_be_is_said(tmp_path, physics, message):
    with pytest.raises(ValueError, match=message):
        train(case(physics), tmp_path, meshes={"train": [heat(0, 3)]}, progress=False)


def test_laws_that_hold_at_every_instant_have_no_step():
    for law in (elasticity, plane_strain, plane_stress, neo_hookean):
        with pytest.raises(ValueError, match="rate of change"):
            law_of_step(law, 2)
    assert law_of_step(navier_stokes, 2) is navier_stokes and law_of_step(advection_diffusion, 2) is advection_diffusion
    assert law_of_step(law_of_step(diffusion, 2), 2) is law_of_step(diffusion, 2) is not diffusion


def test_an_energy_in_time_is_refused_by_the_case():
    with pytest.raises(ValueError, match=r"physics.loss: expected residual"):
        case({"loss": "energy"})


@pytest.mark.parametrize(
    ("law", "parameters"),
    [
        (diffusion, {"conductivity": "k"}),
        (advection_diffusion, {"conductivity": "k", "velocity": [1.0, -0.5]}),
        (navier_stokes, {"viscosity": "k", "load": [0.0, 1.0]}),
        (gray_scott, {"feed": 0.04, "kill": 0.06, "diffusivity": (2e-3, 1e-3)}),
    ],
)
def test_a_step_of_each_mesh_is_one_of_that_length(law, parameters):
    mesh, steps = grid(4, skew=0.3), (0.5, 0.2)
    one = build_step(mesh, law, parameters, [], 2)
    u, before = torch.rand(2, *one.values.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = type(one).join([one, one])
    both = at_step(both, torch.cat([before, before]), torch.tensor(steps, dtype=torch.float64))
    stepped, given = law_of_step(law, 2), {**parameters, "previous": before}
    alone = [build_problem(mesh, stepped, {**given, "step": step}) for step in steps]
    expected = torch.cat([problem.residual(u) for problem in alone])
    torch.testing.assert_close(both.residual(torch.cat([u, u])), expected, rtol=1e-9, atol=1e-12)
    tangents = (at_step(one, before, torch.tensor([0.5]).double()).tangent(u) - alone[0].tangent(u)).toarray()
    assert np.abs(tangents).max() < 1e-12
