"""Mirror images of samples are the samples of mirrored meshes."""

import numpy as np
import pytest
import torch
from graph_cases import operator_for, spec_of, square
from test_lattice import CELLS, cloud
from train_cases import case, squares

from gno.graph import SampleSpec, build_sample, collate
from gno.graph.mirror import WithImages, signs_of
from gno.mesh import CellBlock, Mesh
from gno.train.blueprint import Blueprint
from gno.train.case import Case
from gno.train.normalise import fit_scale
from gno.train.sources import prepare
from gno.train.task import task_of


def domain(dim: int, seed: int = 0) -> Mesh:
    """With a vector and a full tensor, two named sets, and two scalars."""
    mesh = square(7 if dim == 2 else 4, dim=dim, seed=seed)
    w = mesh.point_fields["w"]
    fields = {"s": np.einsum("ni,nj->nij", w, w) + w[:, :1, None], "load": np.arange(1.0, dim + 1)}
    top = {"top": np.flatnonzero(mesh.points[:, 1] == 1)}
    return mesh.replace(
        point_fields={**mesh.point_fields, "s": fields["s"]},
        global_fields={"load": fields["load"]},
        point_sets={**mesh.point_sets, **top},
    )


def with_images(samples, spec, axes):
    return WithImages(samples, signs_of(spec, axes))


def reflected(mesh: Mesh, axes: tuple[int, ...]) -> Mesh:
    """The mesh itself in a mirror, with its cells turned the right way round again."""
    sign = np.ones(mesh.dim)
    sign[list(axes)] = -1
    nodes = mesh.cells[0].nodes
    nodes = nodes[:, [1, 0, *range(2, nodes.shape[1])]] if len(axes) % 2 else nodes
    fields = dict(mesh.point_fields)
    fields |= {"w": fields["w"] * sign, "s": fields["s"] * sign[:, None] * sign}
    return mesh.replace(
        points=mesh.points * sign,
        cells=(CellBlock(mesh.cells[0].type, nodes),),
        point_fields=fields,
        global_fields={"load": mesh.global_fields["load"] * sign},
    )


@pytest.mark.parametrize("coordinates", [True, False])
@pytest.mark.parametrize(("dim", "graded"), [(2, False), (2, True), (3, False)])
def test_images_are_the_samples_of_mirrored_meshes(dim, graded, coordinates):
    meshes = [domain(dim, seed) for seed in range(2)]
    options = {"n_levels": 3, "first_step": 2.0, "graded": graded, "coordinates": coordinates}
    spec = SampleSpec.fit(meshes, inputs=["a", "load"], targets=["u", "w", "s"], **options)
    samples = [build_sample(mesh, spec, torch.float64) for mesh in meshes]
    axes = (0, 1) if dim == 2 else (0, 1, 2)
    images = with_images(samples, spec, axes)
    assert len(images) == 2 ** len(axes) * 2 and list(images[:2]) == samples
    mirrors = [(0,), (1,), (0, 1)] if dim == 2 else [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    for k, mirror in enumerate(mirrors):
        for mesh, image in zip(meshes, images[2 * (k + 1) : 2 * (k + 2)], strict=True):
            expected = build_sample(reflected(mesh, mirror), spec, torch.float64)
            smooth = (np.isin(mesh.points, (0, 1)).sum(1) < 2).nonzero()[0]  # at edges there are several normals
            for key in ("x", "y", "geometry", "pos_0", "mass_0"):
                torch.testing.assert_close(image[key][smooth], expected[key][smooth], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["triclinic", "slab"])
def test_images_of_oblique_cells_lie_in_mirrored_cells(name):
    cell = CELLS[name]
    mesh = cloud(cell)
    spec = spec_of(mesh, first_step=1.2)
    operator = operator_for(build_sample(mesh, spec, torch.float64), n_near=spec.n_near, n_shells=spec.n_shells)
    for axis, image in enumerate(with_images([build_sample(mesh, spec, torch.float64)], spec, [0, 1, 2])[1:4]):
        sign = np.where(np.arange(3) == axis, -1.0, 1.0)
        other = mesh.replace(points=mesh.points * sign, period=cell * sign)
        samples = (image, build_sample(other, spec, torch.float64))
        found, expected = (operator(collate([sample])).fields[0].detach() for sample in samples)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_an_image_shares_what_a_mirror_leaves_and_returns_in_the_mirror():
    mesh = domain(2)
    spec = SampleSpec.fit([mesh], inputs=["a", "load"], targets=["w"], n_levels=3, first_step=2.0)
    sample = build_sample(mesh, spec)
    _, image = with_images([sample], spec, [1])
    assert image.link_0 is sample.link_0 and image.mass_0 is sample.mass_0
    assert not torch.equal(image.pos_1, sample.pos_1) and torch.equal(image.pos_1[:, 0], sample.pos_1[:, 0])
    again = with_images([image], spec, [1])[1]
    assert all(torch.equal(again[key], sample[key]) for key in ("x", "y", "geometry", "pos_0", "pos_1", "pos_2"))


def test_components_that_do_not_say_what_they_are_are_refused():
    mesh = square(5)
    stress = np.ones((mesh.n_nodes, 3))
    for values, says in ((stress, "a third that is zero, got 's'"), (np.ones((mesh.n_nodes, 6)), "'s' of 6")):
        with pytest.raises(ValueError, match=says):
            prepare(mirrored("x", inputs=["a"], targets=["s"]), {"train": [mesh.with_point_fields(s=values)]})
    padded = mesh.with_point_fields(s=stress * [1, 1, 0])
    spec = SampleSpec.fit([padded], inputs=["a"], targets=["s"], n_levels=3, first_step=2.0)
    image = with_images([build_sample(padded, spec)], spec, [0])[1]
    assert image.y[0].tolist() == [-1, 1, 0]
    with pytest.raises(ValueError, match="axes of 2-D meshes, got z"):
        with_images([build_sample(mesh, spec_of(mesh))], spec_of(mesh), [2])


def mirrored(*axes: str, **data) -> Case:
    return case().model_copy(update={"data": case().data.model_copy(update={"mirror": axes, **data})})


def test_a_case_learns_from_images_and_evaluates_without():
    cases, meshes = (case(), mirrored("y", "x")), {"train": squares(3), "validation": squares(1)}
    plain, ready = (prepare(c, meshes, progress=False) for c in cases)
    blueprints = [Blueprint.fit(c, p.spec, p.samples["train"]) for c, p in zip(cases, (plain, ready), strict=True)]
    tasks = [task_of(b, p.samples, b.model()) for b, p in zip(blueprints, (plain, ready), strict=True)]
    assert [len(task.samples) for task in tasks] == [3, 12] and len(ready.samples["train"]) == 3
    scales = [blueprint.normalisation.targets for blueprint in blueprints]
    assert scales[0].mean[:2].abs().min() > 0.1 and not scales[1].mean[:2].any()  # what a mirror turns has no mean
    # units are those of the images, too, which are those of their meshes
    images = with_images(ready.samples["train"], ready.spec, [0, 1])
    torch.testing.assert_close(fit_scale(images, "y", ready.spec.targets).std, scales[1].std, rtol=1e-6, atol=0)
    normalise = blueprints[1].normalisation.apply
    for image, learned in zip(images, tasks[1].samples, strict=True):
        for key in ("x", "y", "geometry", "pos_1"):
            torch.testing.assert_close(normalise(image)[key], learned[key], rtol=1e-6, atol=1e-6)
