"""[physics] in training: no labels at all, some, given values to the bit, resumed as never stopped."""

import signal

import numpy as np
import pytest
import torch
from test_physics_losses import grid
from test_train_resume import assert_same_end, stop_after

from gno.mesh import node_mass
from gno.physics import Dirichlet, build_problem, diffusion, solve
from gno.physics.losses import balance, work
from gno.train import Case, Data, Interrupted, Model, Run, Training, load_case, train
from gno.train.case import Physics
from gno.train.losses import Term
from gno.train.physics import problem_of


def domain(seed, labelled=False):
    rng = np.random.default_rng(seed)
    mesh = grid(int(rng.integers(6, 9)), skew=rng.uniform(0, 0.5))
    mesh = mesh.with_point_fields(k=mesh.point_fields["k"] ** rng.uniform(0.3, 1.0), wall=mesh.points[:, 0] / 100)
    mesh = mesh.replace(source=f"domain {seed}")
    if not labelled:
        return mesh
    problem = build_problem(mesh, diffusion, {"conductivity": "k", "source": 1.0}, [Dirichlet("boundary", "wall")])
    return mesh.with_point_fields(u=solve(problem).values[:, 0].numpy())


def case(physics=None, **training):
    given = {
        "equation": "diffusion",
        "parameters": {"conductivity": "k", "source": 1.0},
        "dirichlet": {"boundary": "wall"},
    }
    return Case(
        data=Data(inputs=["k"], log=["k"], targets=["u"]),
        model=Model(width=16, n_blocks=1, n_heads=1),
        training=Training(**{"epochs": 3, "batch_size": 4, "device": "cpu", **training}),
        physics=Physics(**{**given, **(physics or {})}),
    )


ALL = {"consistent": False, "inter": 0.1, "coarse": 0.1, "conserve": {"integral": 0.1, "balance": 0.01, "work": 0.01}}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    meshes = {"train": [domain(seed) for seed in range(12)], "validation": [domain(50), domain(51)]}
    return train(case(epochs=24, lr=1e-2), folder, meshes=meshes, progress=False)


def test_it_learns_without_a_single_label(alone):
    unseen = [domain(seed, labelled=True) for seed in range(100, 104)]
    assert alone.evaluate(unseen).mean["u"] < 0.4
    rows = [line.split(",") for line in (alone.directory / "log.csv").read_text().splitlines()]
    assert {"loss intra", "weight intra", "validation score", "validation intra"} <= set(rows[0])
    scores = [
        float(row[rows[0].index("validation score")]) for row in rows[1:] if row[rows[0].index("validation score")]
    ]
    assert scores[-1] < 0.5 * scores[0]


def test_given_values_are_met_to_the_bit_by_a_run_that_was_loaded(alone):
    mesh = domain(100)
    for run in (alone, Run.load(alone.directory)):
        u = run.predict(mesh).mesh.point_fields["predicted_u"]
        x = mesh.points
        edge = (x[:, 0] == 0) | (x[:, 0] == 1) | (x[:, 1] == x[:, 1].min()) | (x[:, 1] == x[:, 1].max())
        assert np.array_equal(u[edge], mesh.point_fields["wall"][edge])
        assert not np.isclose(u[~edge], mesh.point_fields["wall"][~edge]).any()


@pytest.mark.parametrize("kind", ["gradient_norm", "relobralo"])
def test_resumed_with_weights_that_adapt_it_ends_to_the_bit(tmp_path, kind):
    meshes = {"train": [domain(s, labelled=s < 2) for s in range(6)], "validation": [domain(50, labelled=True)]}
    wanted = case({**ALL, "weights": kind}, epochs=2, log_every=1, validations=2)
    whole, parts = tmp_path / f"{kind} whole", tmp_path / f"{kind} parts"
    train(wanted, whole, meshes=meshes, progress=False)
    with pytest.raises(Interrupted):
        ctrl_c = stop_after(3, lambda: signal.raise_signal(signal.SIGINT))
        train(wanted, parts, meshes=meshes, progress=False, optimiser=ctrl_c)
    train(wanted, parts, meshes=meshes, progress=False, resume=True)
    assert_same_end(whole, parts)
    rows = [line.split(",") for line in (whole / "log.csv").read_text().splitlines()]
    weights = {name: row for name, row in zip(rows[0], rows[-3], strict=True) if name.startswith("weight")}
    assert len(weights) == 6
    assert {"floor intra", "floor work", "floor balance"} <= set(rows[0])


def test_terms_can_be_composed(tmp_path):
    seen = []

    def compose(terms, blueprint):
        seen.extend(term.name for term in terms)
        return [*terms, Term("size", lambda batch, output: output.fields[0].square().mean(), 0.5)]

    meshes = {"train": [domain(s, labelled=s < 1) for s in range(4)]}
    train(case(ALL, epochs=1), tmp_path, meshes=meshes, progress=False, terms=compose)
    assert seen == ["u", "intra", "integral", "balance", "work", "inter"]
    assert "loss size" in (tmp_path / "log.csv").read_text()


def test_a_law_beside_the_case(tmp_path):
    (tmp_path / "heat.py").write_text(
        "from gno.physics import Energy, inner\n"
        "law = Energy(lambda u, grad, x, p: p['k'] / 2 * inner(grad, grad) - u[..., 0])\n"
    )
    (tmp_path / "case.toml").write_text(
        '[data]\ninputs=["k"]\ntargets=["u"]\n[training]\nepochs=1\ndevice="cpu"\n'
        '[physics]\nequation="heat:law"\nparameters={k="k"}\ndirichlet={boundary=0.0}\n'
    )
    meshes = {"train": [domain(0), domain(1)]}  # two, so that a batch has the law of both
    run = train(load_case(tmp_path / "case.toml"), tmp_path / "run", meshes=meshes, progress=False)
    assert np.isfinite(run.predict(domain(1)).mesh.point_fields["predicted_u"]).all()


@pytest.mark.parametrize(
    ("physics", "message"),
    [
        ({"equation": "diffusoin"}, "did you mean 'diffusion'"),
        ({"equation": "plane_stress"}, r"parameters\['young'\]: expected by the law, got conductivity"),
        ({"dirichlet": {"wal": 0.0}}, "'wal'"),
        ({"parameters": {"conductivity": "kk"}}, "'?kk'?"),
        (
            {
                "equation": "advection_diffusion",
                "loss": "energy",
                "parameters": {"conductivity": 1.0, "velocity": [1.0, 0.0]},
            },
            "has no energy",
        ),
        ({"dirichlet": {"boundary": ["fre"]}}, "'free', got 'fre'"),
        (
            {"equation": "advection_diffusion", "parameters": {"conductivity": 1.0, "velocity": [1.0, 0.0]}}
            | {"conservative": True},
            "conservative: expected a linear equation that has an energy, got one without an energy",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, physics, message):
    with pytest.raises(ValueError, match=message):
        train(case(physics), tmp_path, meshes={"train": [domain(0)]}, progress=False)


def test_loads_in_other_units_than_the_targets_are_said(tmp_path):
    rng, mesh = np.random.default_rng(0), domain(0, labelled=True)
    flat = {"dirichlet": {"boundary": 0.0}}
    u = mesh.point_fields["u"] - mesh.point_fields["wall"]
    for noise in (0.0, 0.3):  # measured fields need not be smooth
        noisy = mesh.with_point_fields(u=u + noise * u.std() * rng.normal(size=len(u)))
        train(case(flat, epochs=1), tmp_path / f"{noise}", meshes={"train": [noisy]}, progress=False)
        kilo = {**flat, "parameters": {"conductivity": "k", "source": 1000.0}}
        with pytest.raises(ValueError, match=r"belong to 0\.00\d+ times them; are the units of loads, .*\(domain 0\)"):
            train(case(kilo, epochs=1), tmp_path / "kilo", meshes={"train": [noisy]}, progress=False)
    giga = {
        "equation": "plane_stress",
        "parameters": {"young": 210.0, "poisson": 0.3, "load": [0.0, -1e6]},
        "dirichlet": {"boundary": [0.0, 0.0]},
    }
    with pytest.raises(ValueError, match=r"smaller than the body, got .* times its size in a rough solution"):
        train(case(giga, epochs=1), tmp_path / "giga", meshes={"train": [domain(0)]}, progress=False)


@pytest.mark.parametrize(
    ("physics", "message"),
    [
        ({"inter": 0.1}, "inter: expected no weight for what consistent fields keep by construction, got 0.1"),
        ({"conserve": {"integral": 1}}, "integral: expected no weight for what consistent fields keep"),
        ({"conservative": True, "conserve": {"work": 1}}, "work: expected no weight for what conservative fields keep"),
    ],
)
def test_what_is_kept_by_construction_needs_no_loss(physics, message):
    with pytest.raises(ValueError, match=message):
        case(physics)


def test_what_would_train_without_its_correction_is_refused():
    with pytest.raises(ValueError, match=r"training.compile: expected false with physics.conservative"):
        case({"conservative": True}, compile=True)


def test_unknown_targets_are_refused_at_once():
    with pytest.raises(ValueError, match=r"unknowns.*did you mean 'u'"):
        Case(
            data=Data(targets=["u"]),
            training=Training(epochs=1),
            physics=Physics(equation="diffusion", unknowns=["uu"]),
        )


def test_a_vector_field_without_labels(tmp_path):
    elastic = {
        "equation": "plane_stress",
        "parameters": {"young": "k", "poisson": 0.3, "load": [0.0, -1.0]},
        "dirichlet": {"boundary": [0.0, "free"]},
    }
    meshes = {"train": [domain(0).with_point_fields(pin=np.zeros(domain(0).n_nodes))]}
    run = train(case(elastic, epochs=1), tmp_path, meshes=meshes, progress=False)
    u = run.predict(domain(1)).mesh.point_fields["predicted_u"]
    assert u.shape[1] == 2 and (u[domain(1).points[:, 0] == 0, 0] == 0).all() and (u[:, 1] != 0).all()
    assert torch.isfinite(torch.from_numpy(u)).all()


def test_conservative_predictions_are_in_balance_on_all_scales(tmp_path):
    meshes = {"train": [domain(s, labelled=s < 2) for s in range(5)], "validation": [domain(50)]}
    wanted = case({"conservative": True}, epochs=2)
    run = train(wanted, tmp_path, meshes=meshes, progress=False)
    unseen = [domain(seed, labelled=True) for seed in (7, 8, 9)]
    together = list(run.predict_many(unseen))
    evaluation = run.evaluate(unseen)
    assert evaluation.mean["u"] < 0.3
    # coarse fields that follow from the one on the mesh cost as much
    assert all(scale.seconds == row.seconds for row in evaluation.rows for scale in row.scales)
    for mesh, prediction in zip(unseen, together, strict=True):
        problem = problem_of(mesh, wanted)
        u = torch.from_numpy(prediction.mesh.point_fields["predicted_u"])[:, None]
        here, load = torch.zeros(len(u), dtype=torch.long), problem.residual(problem.lift(torch.zeros_like(u)))
        assert torch.equal(u, problem.lift(u))
        for functional in (balance, work):
            assert abs(float(functional(problem, u, here))) < 1e-12 * float(load.abs().sum())
        whole = node_mass(mesh) @ u.numpy()[:, 0]
        for level in prediction.levels:
            assert level.point_fields["mass"] @ level.point_fields["predicted_u"] == pytest.approx(whole, rel=1e-5)
    alone = run.predict(unseen[1]).mesh.point_fields["predicted_u"]
    np.testing.assert_allclose(alone, together[1].mesh.point_fields["predicted_u"], atol=1e-5)


def test_consistent_scales_are_restrictions_of_what_has_its_given_values(tmp_path):
    meshes = {"train": [domain(s) for s in range(4)]}
    gaps = []
    for consistent in (False, True):
        folder = tmp_path / str(consistent)
        run = train(case({"consistent": consistent}, epochs=1), folder, meshes=meshes, progress=False)
        prediction = Run.load(folder).predict(domain(9))
        whole = node_mass(domain(9)) @ prediction.mesh.point_fields["predicted_u"]
        parts = [level.point_fields["mass"] @ level.point_fields["predicted_u"] for level in prediction.levels]
        gaps.append(max(abs(part / whole - 1) for part in parts))
        assert run.model.consistent == consistent
    assert gaps[1] < 1e-5 < 1e-3 < gaps[0]
