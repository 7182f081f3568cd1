"""The size of an operator, in one frozen value that is saved with the weights."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Size = Literal["small", "medium", "large"]

PRESETS: dict[str, dict[str, int]] = {
    "small": {"width": 64, "n_blocks": 4, "n_heads": 4},
    "medium": {"width": 96, "n_blocks": 6, "n_heads": 6},
    "large": {"width": 192, "n_blocks": 8, "n_heads": 8},
}


@dataclasses.dataclass(frozen=True)
class OperatorConfig:
    """Args:
    dim: dimension of space. n_inputs, n_geometry, n_outputs: columns of the sample.
    n_levels: scales, the mesh included; 1 is the mesh alone.
    width: channels. n_blocks: rounds of message passing between the scales. n_heads: attention heads.
    key_level: finest level whose anchors other anchors attend to; all coarser ones are attended to, too.
    mesh_key_level: finest level whose anchors the nodes of the mesh attend to; all coarser ones too.
    learned_pooling: weights of the anchors are learned (else geometric). attention: scales attend to each other.
    conduction: anchors are also joined by conductors, learned, whose network is solved: for what is in balance, as
        heat is, where coefficients vary by factors.
    checkpoint: layers keep their input and are computed again on the way back: less memory, a third more time.
    n_stencils: layers at the entrance and at the exit that read the Laplacian on the mesh, for reaction and diffusion.
    n_substeps: in time, steps of a local law within each step from frame to frame, for reaction and diffusion between
        frames that lie far apart; 0 for none.
    dropout: share of the channels that are left out behind the activation of every network at a node, for samples.
    variational: weights that are Gaussian, for samples: ``none``, of the ``heads``, of all networks at the ``nodes``,
        or ``all``.
    noise_head: whether heads also say how large the noise of the data is.
    n_near: layers at the entrance and at the exit that read the near field, in n_shells distances.
    n_globals: columns of ``batch.parameters``, numbers of a whole mesh that every scale is conditioned on.

    Raises:
        ValueError: heads too many for the width, or two rules for the same weights.
    """

    dim: int
    n_inputs: int
    n_geometry: int
    n_outputs: int
    n_levels: int
    width: int = 64
    n_blocks: int = 4
    n_heads: int = 4
    key_level: int = 1
    mesh_key_level: int = 1
    learned_pooling: bool = True
    attention: bool = True
    conduction: bool = False
    checkpoint: bool = False
    n_stencils: int = 0
    n_substeps: int = 0
    dropout: float = 0.0
    variational: Literal["none", "heads", "nodes", "all"] = "none"
    noise_head: bool = dataclasses.field(default_factory=bool)  # no knob: it follows from the loss
    n_near: int = dataclasses.field(default_factory=int)  # no knobs of their own: they are those of the samples
    n_shells: int = dataclasses.field(default_factory=int)
    n_globals: int = dataclasses.field(default_factory=int)  # no knob: it follows from the data, as n_inputs does

    def __post_init__(self) -> None:
        if self.n_levels < 1:
            raise ValueError(f"n_levels: expected at least 1, got {self.n_levels}")
        for name in ("key_level", "mesh_key_level"):
            if self.n_levels > 1 and not 1 <= getattr(self, name) < self.n_levels:
                raise ValueError(f"{name}: expected 1 to {self.n_levels - 1}, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a share from 0 to below 1, got {self.dropout}")
        if self.dropout and self.variational != "none":
            raise ValueError(f"variational: expected none beside dropout, got {self.variational}")
        if self.width % self.n_heads or self.head_width <= self.n_levels + self.dim:
            raise ValueError(
                f"width {self.width} in {self.n_heads} heads: expected a whole number of channels per head, more than "
                f"{self.n_levels + self.dim} (levels + dimension), got {self.width / self.n_heads:g}"
            )

    @property
    def head_width(self) -> int:
        return self.width // self.n_heads

    @staticmethod
    def preset(size: Size, **values: Any) -> OperatorConfig:
        """One dial; any knob can be given besides."""
        return OperatorConfig(**{**PRESETS[size], **values})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> OperatorConfig:
        return OperatorConfig(**values)
