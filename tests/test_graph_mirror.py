"""Mirror images of samples are the samples of mirrored meshes."""

import numpy as np
import pytest
import torch
from graph_cases import spec_of, square
from train_cases import case, squares

from gno.graph import SampleSpec, build_sample
from gno.graph.mirror import with_images
from gno.mesh import CellBlock, Mesh
from gno.train.blueprint import Blueprint
from gno.train.case import Case
from gno.train.sources import prepare


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
    assert len(images) == 2 ** len(axes) * 2 and images[:2] == samples
    mirrors = [(0,), (1,), (0, 1)] if dim == 2 else [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    for k, mirror in enumerate(mirrors):
        for mesh, image in zip(meshes, images[2 * (k + 1) :], strict=False):
            expected = build_sample(reflected(mesh, mirror), spec, torch.float64)
            smooth = (np.isin(mesh.points, (0, 1)).sum(1) < 2).nonzero()[0]  # at edges there are several normals
            for key in ("x", "y", "geometry", "pos_0", "mass_0"):
                torch.testing.assert_close(image[key][smooth], expected[key][smooth], rtol=1e-9, atol=1e-9)


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
        odd = mesh.replace(point_fields={**mesh.point_fields, "s": values})
        spec = SampleSpec.fit([odd], inputs=["a"], targets=["s"], n_levels=3, first_step=2.0)
        with pytest.raises(ValueError, match=says):
            with_images([build_sample(odd, spec)], spec, [0])
    padded = mesh.replace(point_fields={**mesh.point_fields, "s": stress * [1, 1, 0]})
    spec = SampleSpec.fit([padded], inputs=["a"], targets=["s"], n_levels=3, first_step=2.0)
    image = with_images([build_sample(padded, spec)], spec, [0])[1]
    assert image.y[0].tolist() == [-1, 1, 0]
    with pytest.raises(ValueError, match="axes of 2-D meshes, got z"):
        with_images([build_sample(mesh, spec_of(mesh))], spec_of(mesh), [2])


def test_a_case_learns_from_images_and_evaluates_without():
    mirrored = case().model_copy(update={"data": case().data.model_copy(update={"mirror": ("y", "x")})})
    meshes = {"train": squares(3), "validation": squares(1)}
    plain, ready = prepare(case(), meshes, progress=False), prepare(mirrored, meshes, progress=False)
    assert [len(ready.samples[key]) for key in ("train", "validation")] == [12, 1] and len(plain.samples["train"]) == 3
    # what a mirror turns has no mean
    means = [
        Blueprint.fit(case(), prepared.spec, prepared.samples["train"]).normalisation.targets.mean
        for prepared in (plain, ready)
    ]
    assert means[0][:2].abs().min() > 0.1 and means[1][:2].abs().max() < 1e-6


@pytest.mark.parametrize("section", [{"physics": {"equation": "diffusion"}}, {"time": {}}])
def test_equations_and_series_have_no_images(section):
    with pytest.raises(ValueError, match=r"data.mirror: expected none in a case with \[(physics|time)\], got y"):
        Case.model_validate({"data": {"targets": ["u"], "mirror": "y"}, "training": {"epochs": 1}, **section})
