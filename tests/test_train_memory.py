"""Pages of large tensors: kept within a pass, given back after it, and nothing else changes."""

import resource
from pathlib import Path

import pytest
import torch

from gno.train import memory
from gno.train.memory import LARGE, pages_kept

glibc = pytest.mark.skipif(memory._glibc() is None, reason="the C library is not glibc")


def faults(times: int, megabytes: int = 64) -> int:
    """Pages that the system had to hand out for tensors that live one after the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(megabytes << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@glibc
def test_pages_are_taken_once_and_given_back():
    outside, before = faults(10), resident()
    with pages_kept(torch.empty(LARGE)):
        faults(1)
        assert faults(10) < outside / 5
    assert resident() - before < 32 << 20
    assert faults(10) > outside / 2


@glibc
def test_small_passes_change_nothing():
    outside = faults(5)
    with pages_kept(torch.empty(LARGE - 1)):
        assert faults(5) > outside / 2


def test_other_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with pages_kept(torch.empty(LARGE)):
        assert torch.ones(3).sum() == 3
