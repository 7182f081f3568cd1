from itertools import pairwise

import numpy as np
import pytest
from graph_cases import square

from gno.graph import build_hierarchy
from gno.graph.hierarchy import NEVER, cluster
from gno.mesh import CellBlock, Mesh, mesh_edges, node_mass


def hierarchy(mesh, spacings=(0.25, 0.5), **options):
    return build_hierarchy(mesh.points, node_mass(mesh), mesh_edges(mesh), spacings, **options)


def test_anchors_are_centroids_and_masses_add_up():
    mesh = square(17)
    levels = hierarchy(mesh).levels
    total = node_mass(mesh) @ mesh.points
    for level in levels:
        np.testing.assert_allclose(level.mass.sum(), 1.0, rtol=1e-13)
        np.testing.assert_allclose(level.mass @ level.position, total, rtol=1e-12)
    assert len(levels[1].mass) == 16 and len(levels[2].mass) == 4


def test_anchors_come_from_the_domain_not_from_the_mesh():
    coarse, fine = hierarchy(square(17)).levels[1], hierarchy(square(65, seed=1)).levels[1]
    assert len(coarse.mass) == len(fine.mass)
    nearest = np.linalg.norm(coarse.position[:, None] - fine.position[None], axis=2).min(1)
    assert nearest.max() < 0.2 * 0.25


@pytest.mark.parametrize("n", [10, 20, 40, 80])
def test_a_finer_mesh_has_as_many_anchors_on_every_level(n):
    """Of cells five times as large at one end as at the other the anchors' own box is 1.49 voxels wide, or 1.52."""
    x = (5 ** np.linspace(0, 1, n + 1) - 1) / 4
    points = np.stack([a.ravel() for a in np.meshgrid(x, x, indexing="ij")], axis=1)
    i = np.arange((n + 1) ** 2).reshape(n + 1, n + 1)
    quads = np.stack([i[:-1, :-1], i[1:, :-1], i[1:, 1:], i[:-1, 1:]], -1).reshape(-1, 4)
    assert [len(level.mass) for level in hierarchy(Mesh(points, (CellBlock("quad", quads),))).levels[1:]] == [16, 4]


def test_two_parts_share_no_anchor_and_no_link():
    one = square(9)
    points = np.concatenate([one.points, one.points + np.array([1.02, 0.0])])
    cells = np.concatenate([one.cells[0].nodes, one.cells[0].nodes + one.n_nodes])
    levels = hierarchy(Mesh(points, (CellBlock("triangle", cells),)), (0.3, 0.6)).levels
    part = np.repeat([0, 1], one.n_nodes)
    for fine, coarse in pairwise(levels):
        owner = np.full(len(coarse.mass), -1)
        owner[fine.link[:, 0]] = part
        used = fine.log_b > NEVER
        assert (owner[fine.link] == part[:, None])[used].all()
        assert (owner[coarse.edges[0]] == owner[coarse.edges[1]]).all()
        part = owner


def slit_square(n: int = 33) -> Mesh:
    """A square cut along x = 1/2 from the bottom to 3/4 of its height; the banks touch, but share no node."""
    points = np.stack(np.meshgrid(*[np.linspace(0, 1, n)] * 2, indexing="ij"), -1).reshape(-1, 2)
    on = np.flatnonzero((points[:, 0] == 0.5) & (points[:, 1] < 0.75))
    i = np.arange(n * n).reshape(n, n)
    quads = np.stack([i[:-1, :-1], i[1:, :-1], i[1:, 1:], i[:-1, 1:]], -1).reshape(-1, 4)
    twin = {node: len(points) + k for k, node in enumerate(on)}
    right = points[quads].mean(1)[:, 0] > 0.5
    quads = np.array([[twin.get(k, k) if r else k for k in q] for q, r in zip(quads, right, strict=True)])
    return Mesh(np.concatenate([points, points[on]]), (CellBlock("quad", quads),))


def test_nothing_leaks_through_a_slit():
    mesh = slit_square()
    side = np.where(mesh.points[:, 0] < 0.5, -1, 1)
    twins = np.arange(33 * 33, mesh.n_nodes)
    bank = np.flatnonzero((mesh.points[:, 0] == 0.5) & (mesh.points[:, 1] < 0.75))
    side[bank] = -1
    side[twins] = 1
    low = mesh.points[:, 1] < 0.5  # away from the tip of the slit, round which a path is short
    for spacing in (0.1, 0.15, 0.25):
        level = hierarchy(mesh, (spacing,)).levels[0]
        owner = cluster(mesh.points, node_mass(mesh), mesh_edges(mesh), spacing)
        side_of = np.zeros(owner.max() + 1)
        np.add.at(side_of, owner[low], side[low])
        mixed = np.bincount(owner[low]) != np.abs(side_of[: owner[low].max() + 1])
        assert not mixed.any(), "an anchor has nodes of both banks"
        used = (level.log_b > NEVER) & low[:, None]
        reached = np.sign(side_of[level.link])
        assert (reached * side[:, None] >= 0)[used].all()


def test_single_node_components_work():
    mesh = square(5)
    alone = Mesh(np.concatenate([mesh.points, [[2.0, 2.0]]]), mesh.cells)
    for level in hierarchy(alone).levels[:-1]:
        assert np.isfinite(level.log_b).all() and (level.log_b[-1] > NEVER).sum() >= 1
    assert (hierarchy(alone).levels[0].log_b[-1] > NEVER).sum() == 1


def test_no_neighbour_within_reach_is_left_out():
    levels = hierarchy(square(33), (0.06, 0.12)).levels
    for level in levels[1:]:
        away = np.linalg.norm(level.position[:, None] - level.position[None], axis=2)
        close = (away <= 1.2 * level.spacing) & (away > 0)  # nearer than two steps along the mesh can fail to reach
        found = np.zeros_like(close)
        found[level.edges[1], level.edges[0]] = True
        assert found[close].all() and (np.diff(level.edges[1]) >= 0).all()


def test_candidates_are_the_nearest_and_sorted():
    level = hierarchy(square(17), n_candidates=4).levels[0]
    assert (np.diff(level.log_b, axis=1) <= 1e-12).all()
    anchors = hierarchy(square(17)).levels[1].position
    away = np.linalg.norm(level.position[:, None] - anchors[None], axis=2)
    np.testing.assert_array_equal(level.link[:, 0], away.argmin(1))


def test_a_permutation_of_nodes_changes_nothing():
    mesh = square(17)
    order = np.random.default_rng(0).permutation(mesh.n_nodes)
    back = np.argsort(order)
    turned = Mesh(mesh.points[order], (CellBlock("triangle", back[mesh.cells[0].nodes]),))
    one, two = hierarchy(mesh).levels, hierarchy(turned).levels
    np.testing.assert_allclose(one[1].position, two[1].position, atol=1e-12)
    np.testing.assert_array_equal(one[0].link[order], two[0].link)


@pytest.mark.parametrize("spacings", [(0.0,), (0.5, 0.25)])
def test_bad_spacings(spacings):
    with pytest.raises(ValueError, match="positive and ascending"):
        hierarchy(square(5), spacings)


def test_the_table_lists_every_level():
    text = str(hierarchy(square(17)))
    assert "289" in text and "16" in text and "complexity" in text
