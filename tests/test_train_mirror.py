"""Mirror images in time: windows, and the losses of rollouts, are those of mirrored series."""

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from test_graded_periods import dense
from test_physics_losses import grid as skewed
from time_cases import case, grid

from gno.graph import SampleSpec, build_sample, collate
from gno.graph.mirror import WithImages, image, image_of_mesh, signs_of
from gno.mesh import CellBlock, Mesh
from gno.nn import NeuroScale, OperatorConfig
from gno.train import train
from gno.train.blueprint import Blueprint
from gno.train.case import Case, Physics, Time
from gno.train.dynamics import Evolution, Unrolled, fit_normalisation, operator_sizes
from gno.train.losses import data_terms
from gno.train.physics import with_physics
from gno.train.physics_in_time import with_step_physics
from gno.train.predict import in_precision
from gno.train.sources import fit_spec, prepare
from gno.train.task import task_of, terms_of
from gno.train.trajectory import Windows, build_trajectory

# Wind, as a whole and at nodes, is known at all times, and the force is a vector that stays.
NAMES = {"inputs": ["a", "force", "wind", "gust"], "targets": ["u", "w"]}
FORCING = ("wind", "gust")
VECTORS = ("w", "gust", "wind", "force")


def series(meshes: Sequence[Mesh]) -> list[Mesh]:
    """Scalars and vectors that go round a box with the time, on a mesh for each; in a mirror nothing stays the same."""
    frames = []
    for k, mesh in enumerate(meshes):
        angle = 2 * np.pi * mesh.points / np.ptp(mesh.points, axis=0)
        wave = np.stack([np.sin(angle[:, 0] + 0.3 * k), np.cos(angle[:, 1] - 0.2 * k)], axis=1)
        fields = {"a": np.sin(angle[:, 0] + 0.5), "u": wave.sum(1), "w": 0.5 + wave, "gust": k + wave[:, ::-1]}
        whole = {"wind": np.array([1.0 + k, 0.5]), "force": np.array([2.0, -1.0])}
        frames.append(mesh.replace(point_fields=fields, global_fields=whole, time=0.1 * k, source=f"frame {k}"))
    return frames


def reflected(mesh: Mesh, axis: int) -> Mesh:
    """The mesh in a mirror, its cells turned the right way round again, with its vectors."""
    sign = np.where(np.arange(2) == axis, -1.0, 1.0)
    blocks = tuple(CellBlock(block.type, block.nodes[:, ::-1]) for block in mesh.cells)
    stores = (mesh.point_fields, mesh.global_fields)
    point, whole = ({k: v * sign if k in VECTORS else v for k, v in store.items()} for store in stores)
    return mesh.replace(points=mesh.points * sign, cells=blocks, point_fields=point, global_fields=whole)


def windows_of(frames: list[Mesh], spec: SampleSpec, horizon: int, normalisation=None):
    """Windows of a normalised trajectory, and the normalisation; fitted with its images if there is none."""
    trajectory = build_trajectory(frames, spec, FORCING)
    normalisation = normalisation or fit_normalisation([trajectory], spec, FORCING, [0, 1])
    trajectory = trajectory.normalised(normalisation, [3, 4, 5, 6], torch.float64)
    return Windows([trajectory], 2, horizon), normalisation


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("period", [(1.0, 1.5), (1.0, 0.0)])
def test_the_losses_of_rollouts_on_images_are_those_on_mirrored_series(axis, period):
    """On graded meshes; a box that repeats along one coordinate has a boundary, but no corners with several normals."""
    frames = series([dense(12, period=period)] * 5)
    spec = SampleSpec.fit(frames[:1], **NAMES, n_levels=3, first_step=2.0, graded=True)
    windows, normalisation = windows_of(frames, spec, 3)
    expected, _ = windows_of([reflected(mesh, axis) for mesh in frames], spec, 3, normalisation)
    images = WithImages(windows, signs_of(spec, [axis], FORCING))
    assert len(images) == 2 and images[0].past.data_ptr() == windows[0].past.data_ptr()
    assert images[1].link_0 is windows.trajectories[0].samples[0].link_0
    time = Time(history=2, unroll=3, gradient=3, noise=0, forcing=FORCING)
    sizes = {"n_geometry": windows[0].geometry.shape[1], "n_outputs": 3, **operator_sizes(spec, time)}
    torch.manual_seed(0)
    config = OperatorConfig(dim=2, n_levels=3, width=16, n_heads=2, n_blocks=1, **sizes)
    evolution = Evolution(NeuroScale(config).double(), normalisation, spec, FORCING)
    unrolled = Unrolled(evolution, data_terms(spec.targets, normalisation.targets), time, 3)
    losses = [unrolled(collate([window])).detach() for window in (windows[0], images[1], expected[0])]
    torch.testing.assert_close(losses[1], losses[2], rtol=1e-6, atol=0)
    assert (losses[0] - losses[1]).abs().max() > 1e-3  # the operator itself has no symmetry


@pytest.mark.parametrize("axis", [0, 1])
def test_windows_on_a_mesh_that_changes_have_images(axis):
    frames = series([grid(5 + k) for k in range(4)])
    spec = SampleSpec.fit(frames[:1], **NAMES)
    windows, normalisation = windows_of(frames, spec, 1)
    expected, _ = windows_of([reflected(mesh, axis) for mesh in frames], spec, 1, normalisation)
    images = WithImages(windows, signs_of(spec, [axis], FORCING))
    assert len(images) == 4 and len(images[2].pos_0) == 64
    for found, wanted in zip(images[2:], expected, strict=True):
        for key in ("past", "future", "forcing", "x", "pos_0", "mass_0", "steps"):
            torch.testing.assert_close(found[key], wanted[key], rtol=1e-6, atol=1e-6)


def mirrored(*axes: str, **options) -> Case:
    """A case in time that learns from images."""
    plain = case(Time(unroll=2, forcing=FORCING), **{"inputs": NAMES["inputs"], "targets": NAMES["targets"], **options})
    return plain.model_copy(update={"data": plain.data.model_copy(update={"mirror": axes})})


def test_a_case_in_time_learns_from_images_and_holds_none(tmp_path):
    meshes = {"train": [series([grid(5 + k)] * 4) for k in range(2)], "validation": [series([grid(6)] * 4)]}
    wanted = mirrored("x", "y", epochs=1, validations=1)
    prepared = prepare(wanted, meshes, progress=False)
    blueprint = Blueprint.fit(wanted, prepared.spec, prepared.samples["train"])
    task = task_of(blueprint, prepared.samples, blueprint.model())
    assert len(prepared.samples["train"]) == 2 and len(task.samples) == 4 * 2 * 2
    states, inputs = blueprint.normalisation.states, blueprint.normalisation.inputs
    assert states.mean.bool().tolist() == [True, False, False]  # what a mirror turns has no mean
    assert inputs.mean.bool().tolist() == [True, *[False] * 6]
    run = train(wanted, tmp_path, meshes=meshes, prepared=prepared, progress=False)
    assert run.evaluate_rollouts(meshes["validation"]).curve("relative_l2", "u")[0] > 0


@pytest.mark.parametrize("name", ["w", "gust"])
def test_vectors_of_all_times_must_be_known_in_a_mirror(name):
    frames = [mesh.with_point_fields(**{name: padded(mesh.point_fields[name])}) for mesh in series([grid(5)] * 3)]
    prepare(mirrored("x"), {"train": [frames]}, progress=False)
    frames[2] = frames[2].with_point_fields(**{name: frames[2].point_fields[name] + 1})
    with pytest.raises(ValueError, match=f"a third that is zero, got '{name}'"):
        prepare(mirrored("x"), {"train": [frames]}, progress=False)


def padded(vectors: np.ndarray) -> np.ndarray:
    return np.pad(vectors, ((0, 0), (0, 1)))


def plate(k: int) -> Mesh:
    """With a conductivity, and a load that has a direction."""
    mesh = skewed(6 + k, skew=0.4)
    load = np.stack([mesh.points[:, 1], 1 + mesh.points[:, 0]], axis=1)
    return mesh.with_point_fields(load=load).replace(point_sets={"low": np.flatnonzero(mesh.points[:, 1] == 0)})


ALL = {"consistent": False, "inter": 0.1, "coarse": 0.1, "conserve": {"integral": 0.1, "balance": 0.1, "work": 0.1}}
DIFFUSION = {"equation": "diffusion", "parameters": {"conductivity": "k", "source": 1.0}, "dirichlet": {"low": 2.0}}
ELASTICITY = {"equation": "plane_stress", "parameters": {"young": "k", "poisson": 0.3, "load": "load"}}
ELASTICITY |= {"dirichlet": {"low": "load"}}


def with_equation(physics: dict, axes: tuple[str, ...] = ("x", "y"), **options) -> Case:
    plain = case(None, ["u"], ["k", "load"])
    wanted = {**physics, "components": {"u": 2 if physics["equation"] == "plane_stress" else 1}, **options}
    data = plain.data.model_copy(update={"mirror": axes})
    return plain.model_copy(update={"time": None, "data": data, "physics": Physics(**wanted)})


@pytest.mark.parametrize(
    "physics",
    [
        {**DIFFUSION, **ALL},
        {**ELASTICITY, **ALL},
        {**DIFFUSION, "loss": "residual"},
        {**ELASTICITY, "conservative": True},
    ],
)
def test_what_physics_says_of_images_is_what_it_says_of_mirrored_problems(physics):
    wanted, plain, mesh = with_equation(physics), with_equation(physics, ()), plate(0)
    prepared = prepare(wanted, {"train": [plate(0), plate(1)]}, progress=False)
    blueprint = Blueprint.fit(wanted, prepared.spec, prepared.samples["train"])
    assert blueprint.normalisation.targets.mean.any() == (physics["equation"] == "diffusion")
    model = blueprint.model().double()
    terms = [
        terms_of(dataclasses.replace(blueprint, case=c), prepared.samples["train"], model) for c in (wanted, plain)
    ]
    raw = build_sample(mesh, prepared.spec, torch.float64)
    for axis, signs in enumerate(signs_of(prepared.spec, [0, 1])[:2]):
        other = with_physics(image(copy.copy(raw), signs), image_of_mesh(mesh, axis), plain, prepared.spec)
        normalise = blueprint.normalisation.apply
        found = WithImages([normalise(with_physics(copy.copy(raw), mesh, wanted, prepared.spec))], [signs])[1]
        batches = [collate([in_precision(s, torch.float64)]) for s in (found, normalise(other))]
        outputs = [model(batch) for batch in batches]
        torch.testing.assert_close(outputs[0].fields, outputs[1].fields, rtol=1e-9, atol=1e-9)
        for term, expected in zip(*terms, strict=True):
            values = term.loss(batches[0], outputs[0]), expected.loss(batches[1], outputs[1])
            torch.testing.assert_close(*values, rtol=1e-7, atol=1e-9)


CARRIED = {
    "equation": "advection_diffusion",
    "parameters": {"conductivity": "a", "velocity": "gust"},
    "unknowns": ["u"],
}
FLOW = {"equation": "navier_stokes", "parameters": {"viscosity": "a", "load": "gust"}, "unknowns": ["w", "u"]}


@pytest.mark.parametrize("physics", [CARRIED, FLOW])
def test_what_physics_says_of_images_in_time_is_what_it_says_of_mirrored_series(physics):
    """Velocity and load are forcing; images have the anchors of their mesh, so its trajectory is turned here, too."""
    frames = [mesh.with_point_fields(a=1.5 + mesh.point_fields["a"]) for mesh in series([skewed(6, skew=0.4)] * 4)]
    law = Physics(**physics, coarse=0.1, consistent=False)
    cases = [mirrored(*axes).model_copy(update={"physics": law}) for axes in (("x", "y"), ())]
    spec = fit_spec(cases[0], [frames])
    raw = build_trajectory(frames, spec, FORCING)
    trajectory = with_step_physics(raw, frames, cases[0], spec)
    blueprint = Blueprint.fit(cases[0], spec, [trajectory])
    model, scales = blueprint.model().double(), blueprint.normalisation
    evolution = Evolution(model, scales, spec, FORCING)
    for axis, signs in enumerate(signs_of(spec, [0, 1], FORCING)[:2]):
        other = dataclasses.replace(
            raw,
            samples=(image(raw.samples[0], signs),),
            states=raw.states * signs["y"],
            forcing=raw.forcing * signs["forcing"],
        )
        other = with_step_physics(other, [image_of_mesh(mesh, axis) for mesh in frames], cases[1], spec)
        losses = []
        for known, wanted, mirrors in ((trajectory, cases[0], [signs]), (other, cases[1], [])):
            floors = {name: torch.zeros_like(values) for name, values in known.floors.items()}  # or they would be met
            ready = dataclasses.replace(known, floors=floors).normalised(scales, [3, 4, 5, 6], torch.float64)
            terms = terms_of(dataclasses.replace(blueprint, case=wanted), [known], model)
            unrolled = Unrolled(evolution, terms, Time(unroll=2, gradient=2, noise=0), 2, tuple(floors))
            losses.append(unrolled(collate([WithImages(Windows([ready], 1, 2), mirrors)[-1]])).detach())
        assert losses[0][-1] > 1e-3
        torch.testing.assert_close(*losses, rtol=1e-6, atol=0)


def test_physics_with_a_direction_of_its_own_has_no_images():
    meshes, held = {"train": [plate(0)]}, {"low": 0.0}
    light = {**ELASTICITY["parameters"], "load": [0.0, -1e-9]}
    falling = {**ELASTICITY, "parameters": light, "dirichlet": held}
    shifted = {**ELASTICITY, "dirichlet": {"low": (0.0, 0.1)}}
    flow = {"conductivity": 1.0, "velocity": [0.0, 2.0]}
    blown = {"equation": "advection_diffusion", "parameters": flow, "dirichlet": held}
    for physics in (falling, shifted, blown):
        prepare(with_equation(physics, ("x",)), meshes, progress=False)
        with pytest.raises(
            ValueError, match=r"expected \[physics\] that is the same in a mirror, .* in y of grid 6; num"
        ):
            prepare(with_equation(physics), meshes, progress=False)


def test_a_run_in_time_learns_from_images_and_their_equation(tmp_path):
    frames = [mesh.with_point_fields(a=1.5 + mesh.point_fields["a"]) for mesh in series([grid(5)] * 4)]
    wanted = mirrored("x", "y", epochs=1, validations=1).model_copy(update={"physics": Physics(**FLOW)})
    train(wanted, tmp_path, meshes={"train": [frames] * 2}, progress=False)
    head, *rows = (line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines())
    assert float(rows[-1][head.index("loss intra")]) > 0
    stored = Physics(equation="diffusion", parameters={"conductivity": "a", "capacity": 2.0}, unknowns=["u"])
    prepare(wanted.model_copy(update={"physics": stored}), {"train": [frames]}, progress=False)
    falling = Physics(**{**FLOW, "parameters": {"viscosity": "a", "load": [0.0, -1.0]}})
    with pytest.raises(ValueError, match=r"expected \[physics\] that is the same in a mirror, .* in y of frame 0; num"):
        prepare(wanted.model_copy(update={"physics": falling}), {"train": [frames]}, progress=False)


def test_a_run_learns_from_images_without_labels(tmp_path):
    wanted = with_equation(ELASTICITY).with_training(epochs=8, lr=0.01, log_every=1)
    train(wanted, tmp_path, meshes={"train": [plate(k) for k in range(2)], "validation": [plate(3)]}, progress=False)
    rows = [line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines()]
    losses = [float(row[rows[0].index("loss intra")]) for row in rows[1:] if row[rows[0].index("loss intra")]]
    assert len(losses) == 8 * 2 and sum(losses[-4:]) < 0.95 * sum(losses[:4])  # two meshes and six images a pass
