"""Coarser meshes first: a sample on clusters of its nodes means the same, and training begins on it."""

import signal

import numpy as np
import pytest
import torch
from test_physics_losses import grid
from test_train_resume import assert_same_end, stop_after
from time_cases import case as case_in_time
from time_cases import decay, moving

from gno.graph import SampleSpec, build_sample
from gno.graph.coarsen import clusters, coarsened
from gno.train import Case, Data, Interrupted, Model, Run, Training, train
from gno.train.case import Time


def sine(seed):
    mesh = grid(12, skew=0.3)
    k = float(np.random.default_rng(seed).uniform(1, 2))
    u = np.sin(k * mesh.points[:, 0]) * mesh.points[:, 1]
    return mesh.replace(point_fields={"a": np.cos(k * mesh.points[:, 0]), "u": u}, source=f"sine {seed}")


def case(**training):
    return Case(
        data=Data(inputs=["a"], targets=["u"]),
        model=Model(width=16, n_blocks=1, n_heads=1),
        training=Training(**{"epochs": 4, "batch_size": 2, "device": "cpu", "curriculum": 0.45, **training}),
    )


def test_a_coarser_sample_has_the_same_integrals_and_fewer_nodes():
    mesh = sine(0)
    spec = SampleSpec.fit([mesh], inputs=["a"], targets=["u"], edges=True)
    sample = build_sample(mesh, spec, torch.float64)
    coarse = coarsened(sample, spec, clusters(sample))
    assert len(coarse.mass_0) < 0.4 * len(sample.mass_0) and coarse.n_levels == sample.n_levels
    for key in ("x", "y", "geometry", "pos_0"):
        assert torch.allclose(coarse.mass_0 @ coarse[key], sample.mass_0 @ sample[key], atol=1e-12)
    assert coarse.edge_index_0.shape[1] > 2 * len(coarse.mass_0)


def sizes_of(monkeypatch):
    """Nodes of every batch that a training sees."""
    from gno.train.loop import Loop

    seen, step = [], Loop.step

    def watched(self, batch, share):
        seen.append(len(batch.mass_0))
        step(self, batch, share)

    monkeypatch.setattr(Loop, "step", watched)
    return seen


def test_training_begins_on_coarser_meshes_and_resumes_to_the_bit(tmp_path, monkeypatch):
    seen, meshes = sizes_of(monkeypatch), {"train": [sine(s) for s in range(6)]}
    train(case(), tmp_path / "whole", meshes=meshes, progress=False)
    assert len(seen) == 12 and len(set(seen[:6])) == len(set(seen[6:])) == 1  # 0.45 of 12 steps, each with two meshes
    assert seen[0] < 0.4 * seen[-1]
    check_coarse_fields(Run.load(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        ctrl_c = stop_after(7, lambda: signal.raise_signal(signal.SIGINT))
        train(case(), tmp_path / "parts", meshes=meshes, progress=False, optimiser=ctrl_c)
    train(case(), tmp_path / "parts", meshes=meshes, progress=False, resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def check_coarse_fields(run):
    """The coarse levels alone are those of the whole prediction."""
    levels, alone = run.predict(sine(9)).levels, run.predict_coarse(sine(9))
    for level, one in zip(levels, alone, strict=True):
        for name in ("mass", "predicted_u"):
            assert np.allclose(level.point_fields[name], one.point_fields[name], atol=1e-6)
        assert np.allclose(level.points, one.points, atol=1e-6)
    row = run.evaluate([sine(9)]).rows[0]
    assert [scale.nodes for scale in row.scales] == [level.n_nodes for level in levels]
    assert all(0 < scale.seconds != row.seconds for scale in row.scales)  # a coarse answer has a cost of its own


def test_in_time_the_states_are_averaged(tmp_path, monkeypatch):
    seen, series = sizes_of(monkeypatch), {"train": [decay(s, n=10) for s in range(2)]}
    train(case_in_time(Time(unroll=2), curriculum=0.5), tmp_path / "run", meshes=series, progress=False)
    assert seen[0] < 0.4 * seen[-1]
    with pytest.raises(ValueError, match=r"training.curriculum: expected 0 where the mesh changes"):
        train(case_in_time(curriculum=0.5), tmp_path / "no", meshes={"train": [moving(0, 4)]}, progress=False)
    with pytest.raises(ValueError, match=r"training.curriculum: expected 0 with \[physics\]"):
        Case(data=Data(targets="u"), training=Training(epochs=1, curriculum=0.1), physics={"equation": "diffusion"})
