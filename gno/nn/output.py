"""What an operator answers: fields at every scale, with what carries them from scale to scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from gno.nn.pooling import Transfer


def restricted(values: Float[Tensor, "n_0 c"], transfers: Sequence[Transfer]) -> list[Float[Tensor, "n_s c"]]:
    """Values of level 0 at every scale; their gradient passes, none reaches the pooling."""
    levels = [values]
    for transfer in transfers:
        levels.append(transfer.detach().restrict(levels[-1]))
    return levels


@dataclasses.dataclass(frozen=True)
class Output:
    """Fields at every scale s, finest first, in the units of the (normalised) targets.

    Args:
        fields: (n_s, n_outputs). mass: (n_s,), one per mesh in sum. position: (n_s, dim), in units of the case.
        batch: mesh of each node, (n_s,). transfers: between level s and s + 1.
        attention: α_{s,s′}, (n_s, n_levels), if asked for: of the anchors of scale s in the last block, and on the mesh
            of the anchors of level 1 that a node hears, P α_1.
    """

    fields: tuple[Tensor, ...]
    mass: tuple[Tensor, ...]
    position: tuple[Tensor, ...]
    batch: tuple[Tensor, ...]
    transfers: tuple[Transfer, ...]
    attention: tuple[Tensor, ...] | None = None

    def restrict(self, values: Float[Tensor, "n_0 c"]) -> list[Float[Tensor, "n_s c"]]:
        """Values of level 0 at every scale, by the pooling's own restriction; no gradient reaches the pooling."""
        return restricted(values.detach(), self.transfers)

    def first(self, sizes: Sequence[int]) -> Output:
        """The first n_s nodes of every scale, which the rest of the nodes have nothing to do with."""
        cut = {
            name: tuple(x[:n] for x, n in zip(values, sizes, strict=True))
            for name, values in vars(self).items()
            if values and name != "transfers"
        }
        transfers = tuple(t.first(n, m) for t, n, m in zip(self.transfers, sizes[:-1], sizes[1:], strict=True))
        return dataclasses.replace(self, **cut, transfers=transfers)


@dataclasses.dataclass(frozen=True)
class NoisyOutput(Output):
    """An output that also says how large the noise of the data is.

    Args:
        variance: σ² at every scale, (n_s, n_outputs), in normalised units.
    """

    variance: tuple[Tensor, ...] = ()
