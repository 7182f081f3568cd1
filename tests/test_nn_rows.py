"""Predictions on large meshes part by part: the same answers, and nothing whole that need not be."""

from __future__ import annotations

import pytest
import torch
from graph_cases import operator_for, samples_of, square

from gno.graph import collate
from gno.nn import rows
from gno.nn.rows import by_rows


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(rows, "TILE", 7)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


@pytest.mark.parametrize("options", [{}, {"learned_pooling": False}, {"attention": False}, {"noise_head": True}])
@pytest.mark.parametrize("n_meshes", [1, 2])
@pytest.mark.parametrize("period", [(), (1.0, 0.0)])
def test_parts_answer_as_the_whole(options, n_meshes, period):
    samples = samples_of(*(square(seed=k).replace(period=period) for k in range(n_meshes)))
    batch, model = collate(samples), operator_for(samples[0], **options)
    whole = model(batch)
    with torch.inference_mode():
        parts = model(batch)
    for a, b in zip(whole.fields, parts.fields, strict=True):
        torch.testing.assert_close(a.detach(), b, rtol=1e-12, atol=1e-12)


def test_what_is_between_is_as_long_as_a_part():
    x, lengths = torch.arange(40.0).view(20, 2), []

    def doubled(a, b):
        lengths.append((len(a), len(b)))
        return a + b

    with torch.inference_mode():
        answer = by_rows(doubled, x, lambda part: x[part])
    assert lengths == [(7, 7), (7, 7), (6, 6)] and torch.equal(answer, 2 * x)
    lengths.clear()
    assert torch.equal(by_rows(doubled, x, lambda part: x[part]), 2 * x) and lengths == [(20, 20)]


def test_an_answer_takes_the_memory_of_what_nobody_needs_if_it_fits():
    x, spare = torch.arange(40.0).view(20, 2), torch.zeros(20, 2)
    with torch.inference_mode():
        fits = by_rows(lambda a, b: a + b, x, spare, into=spare)
        wider = by_rows(lambda a: torch.cat([a, a], 1), x, into=x)
        longer = by_rows(lambda a: a.double(), x, into=x)
    assert fits.data_ptr() == spare.data_ptr() and torch.equal(spare, x)
    assert wider.shape == (20, 4) and longer.dtype == torch.float64
    assert torch.equal(x, torch.arange(40.0).view(20, 2))
