"""The box of a domain, and the grids of voxels that fill it."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from gno.mesh import torus_of
from gno.mesh.lattice import Frame
from gno.mesh.periodic import Images, seam, wrapped

# Fewer anchors than this around a coordinate that repeats could not tell one side from the other; there is one then.
LEAST_AROUND = 4


@dataclasses.dataclass(frozen=True)
class Box:
    """The box of a domain, which voxels fill.

    Args:
        low, high: lowest and highest coordinates, along the vectors of a cell if there is a ``frame``.
        period: length after which coordinates repeat, 0 where they do not, or the vectors of a cell; None if none does.
        step: where meshes are graded, a spacing whose doubles and halves are wanted: along coordinates that repeat
            their grids are then halves of each other. 0 where one grid is enough.
    """

    low: Float[np.ndarray, " dim"]
    high: Float[np.ndarray, " dim"]
    period: Float[np.ndarray, "*r dim"] | None = None
    step: float = 0.0
    frame: Frame | None = None

    @staticmethod
    def of(
        points: Float[np.ndarray, "n dim"],
        mass: Float[np.ndarray, " n"],
        period: Float[np.ndarray, "*r dim"] | None = None,
    ) -> Box:
        """Around the nodes that have mass, around all if none has. A coordinate that repeats is cut open where there
        is most room, so that the box moves with the nodes."""
        frame = Frame.of(period) if period is not None and period.ndim == 2 else None
        inside = points[mass > 0] if mass.any() else points
        inside = frame.coordinates(inside) if frame else inside
        low, high = inside.min(0), inside.max(0)
        if period is not None:
            around = np.where(frame.repeats, 1.0, 0.0) if frame else period
            for axis in np.flatnonzero(around):
                low[axis] = seam(inside[:, axis], around[axis])
                high[axis] = low[axis] + around[axis]
        return Box(low, high, period, frame=frame)

    @property
    def length(self) -> Float[np.ndarray, " dim"]:
        """Distance of opposite faces."""
        return (self.high - self.low) * (self.frame.heights if self.frame else 1.0)

    @property
    def around(self) -> Bool[np.ndarray, " dim"]:
        """Which coordinates repeat."""
        if self.period is None:
            return np.zeros(len(self.low), bool)
        return self.frame.repeats if self.frame else self.period > 0

    def shape(self, spacing: float) -> Int[np.ndarray, " dim"]:
        """A whole number of voxels per axis, so that none at the far side is a sliver."""
        n = np.maximum(1, np.round(self.length / spacing)).astype(np.int64)
        if self.step:
            n = np.where(self.around & (n >= LEAST_AROUND), self._halved(spacing), n)
        few = self.around & (n < LEAST_AROUND)
        if self.frame:  # of vectors that are not square on each other, to be alone along one is to be alone along all
            few |= self.frame.joined & (few & self.frame.joined).any()
        return np.where(few, 1, n)

    def _halved(self, spacing: float) -> Int[np.ndarray, " dim"]:
        """Voxels per axis of the coarsest grid of the ladder that has enough of them, doubled until they are of that
        spacing."""
        length = self.length
        across = np.where(length > 0, length, 1.0) / self.step
        doubled = np.floor(np.log2(across / (LEAST_AROUND - 0.5)) + 1e-9)
        fewest = np.round(across / 2**doubled)
        halvings = np.round(np.log2(across * self.step / (fewest * spacing)))
        return (fewest * 2 ** np.maximum(halvings, 0)).astype(np.int64)

    def voxels(
        self, points: Float[np.ndarray, "n dim"], spacing: float | Float[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """Number of the voxel of each node; of grids with several spacings, each node is in that with its own."""
        if isinstance(spacing, np.ndarray):
            voxel, first = np.empty(len(points), np.int64), 0
            for own in np.unique(spacing):
                here = spacing == own
                voxel[here] = first + self.voxels(points[here], float(own))
                first += int(self.shape(float(own)).prod())
            return voxel
        shape, offset = self.shape(spacing), self._inside(points) - self.low
        size = np.where(self.high > self.low, (self.high - self.low) / shape, 1.0)
        # The tiny shift keeps nodes that lie on a voxel face on one side of it in spite of round-off.
        cell = np.clip(np.floor(offset / size + 1e-9).astype(np.int64), 0, shape - 1)
        return np.ravel_multi_index(tuple(cell.T), tuple(shape))

    def _inside(self, points: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n dim"]:
        """Coordinates of the images that are in the box."""
        if self.frame:
            return wrapped(self.frame.coordinates(points), self.low, self.frame.repeats)
        return wrapped(points, self.low, self.period)

    def torus(self, spacing: float | Float[np.ndarray, " n"] = 0.0) -> Images | None:
        """How offsets are measured among places that far apart; of several spacings, a row for each place."""
        if self.period is None:
            return None
        if isinstance(spacing, np.ndarray):
            own, which = np.unique(spacing, return_inverse=True)
            alone = np.stack([self.shape(float(x)) == 1 for x in own])[which]
        else:
            alone = (self.shape(spacing) == 1) if spacing else np.zeros(len(self.low), bool)
        alone = alone & self.around
        if self.frame:  # along axes of space
            alone = (alone[..., None] & (self.frame.vectors != 0)).any(-2)
        return torus_of(self.period, np.where(alone, 0.0, 1.0))
