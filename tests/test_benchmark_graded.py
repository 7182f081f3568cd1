"""The flows of benchmarks/graded.py are those of the equations."""

import sys
from pathlib import Path

import numpy as np
from scipy.optimize import brentq

from gno.graph import SampleSpec
from gno.mesh import CellBlock, Mesh, repeats

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import graded_cascade
import graded_ellipsoid


def test_flow_through_a_row_of_small_circles_is_that_of_a_row_of_doublets():
    mesh = graded_cascade.cascade(0)
    assert mesh.period == (0.0, 1.0) and SampleSpec.fit([mesh], inputs=["inflow"], targets=["pressure"]).graded_dim
    velocity, place = mesh.point_fields["velocity"], repeats(mesh)
    assert len(np.unique(place)) < mesh.n_nodes and np.array_equal(velocity, velocity[place])
    angle, outline = np.linspace(0, 2 * np.pi, 100, endpoint=False), graded_cascade._passage()
    circle = 0.1 * np.stack([np.cos(angle), -np.sin(angle)], axis=1)
    points, triangles = graded_cascade.triangulate(outline, [circle])
    found = graded_cascade.flow(Mesh(points, (CellBlock("triangle", triangles),)), np.array([1.0, 0.0]), 1.0)
    z = points @ [1, 1j]
    exact = 1 - (0.1 * np.pi / np.sinh(np.pi * z)) ** 2
    error = np.abs(found @ [1, -1j] - exact)
    assert error[np.abs(z) > 0.2].max() < 0.015  # the body of these doublets is not quite a circle
    assert np.abs(exact - 1)[np.abs(z) > 0.2].max() > 0.2


def test_flow_around_an_ellipsoid_passes_along_it_and_has_no_sources():
    axes, inflow = np.array([1.0, 0.5, 2.0]), np.array([0.6, 0.64, 0.48])
    place = graded_ellipsoid._directions(np.random.default_rng(0)) * axes
    velocity = graded_ellipsoid.around(place, np.zeros(len(place)), axes, inflow)
    normal = place / axes**2
    assert np.abs((velocity * normal).sum(1) / np.linalg.norm(normal, axis=1)).max() < 1e-12
    assert np.linalg.norm(velocity, axis=1).max() > 1.2

    def at(x):
        grown = [brentq(lambda s, p=p: (p**2 / (axes**2 + s)).sum() - 1, 0.0, 1e7) for p in x]
        return graded_ellipsoid.around(x, np.array(grown), axes, inflow)

    h, place = 1e-4, 1.5 * place[::20]
    slope = np.stack([(at(place + h * e) - at(place - h * e)) / (2 * h) for e in np.eye(3)], axis=2)
    assert np.abs(np.trace(slope, axis1=1, axis2=2)).max() < 1e-6 * np.abs(slope).max()
    assert np.abs(slope - slope.transpose(0, 2, 1)).max() < 1e-6 * np.abs(slope).max()
    assert np.abs(at(1e3 * place) - inflow).max() < 1e-8
    mesh = graded_ellipsoid.ellipsoid(0)
    assert SampleSpec.fit([mesh], inputs=["inflow"], targets=["pressure"]).graded_dim == 3
