"""The operator through torch.compile, on batches of few shapes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch_geometric.data import Batch

from gno.graph.padding import with_rows
from gno.nn.output import Output


class Compiled(nn.Module):
    """An operator, compiled once for each shape of ``batch.padded``; what it returns is of the batch itself.

    Where shapes outnumber what torch keeps (``torch._dynamo.config.recompile_limit``), the rest runs as it is written.

    Args:
        operator: maps a batch to an output.
        options: of ``torch.compile``; ``mode="reduce-overhead"`` records CUDA graphs.
    """

    def __init__(self, operator: nn.Module, **options: Any) -> None:
        super().__init__()
        self.operator = operator
        self._run = torch.compile(operator.forward, dynamic=False, **options)

    def forward(self, batch: Batch) -> Output:
        padded = copy.copy(batch.padded)
        # what may change from call to call, as in a rollout, is filled up here
        padded.x = with_rows(batch.x, len(padded.mass_0))
        if "parameters" in batch:
            padded.parameters = with_rows(batch.parameters, padded.num_graphs)
        sizes = [len(batch[f"pos_{s}"]) for s in range(batch.n_levels)]
        return self._run(padded).first(sizes)
