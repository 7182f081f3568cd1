"""Symmetric tensors: their components as files keep them, and the invariants that engineers read."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

# Order in which a symmetric tensor is written, that of ParaView: xx, yy, zz, xy, yz, xz.
_ROW, _COLUMN = [0, 1, 2, 0, 1, 0], [0, 1, 2, 1, 2, 2]


def components(tensor: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 6"]:
    """The six components xx, yy, zz, xy, yz, xz of the symmetric part; shears of a strain are those of the tensor.

    >>> components(np.arange(9.0).reshape(3, 3)).tolist()
    [0.0, 4.0, 8.0, 2.0, 6.0, 4.0]
    """
    return (tensor[..., _ROW, _COLUMN] + tensor[..., _COLUMN, _ROW]) / 2


def tensor_of(values: Float[np.ndarray, "*n 6"]) -> Float[np.ndarray, "*n 3 3"]:
    """The symmetric tensor with components xx, yy, zz, xy, yz, xz.

    >>> tensor_of(np.arange(6.0)).tolist()
    [[0.0, 3.0, 5.0], [3.0, 1.0, 4.0], [5.0, 4.0, 2.0]]
    """
    tensor = np.empty((*values.shape[:-1], 3, 3), values.dtype)
    tensor[..., _ROW, _COLUMN] = values
    tensor[..., _COLUMN, _ROW] = values
    return tensor


def von_mises(stress: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, " *n"]:
    """Equivalent stress √(3/2 s:s), s the deviator of the stress.

    >>> von_mises(np.diag([2.0, 0.0, 0.0])).item()
    2.0
    """
    xx, yy, zz, xy, yz, xz = np.moveaxis(components(stress), -1, 0)
    normal = (xx - yy) ** 2 + (yy - zz) ** 2 + (zz - xx) ** 2
    return np.sqrt(normal / 2 + 3 * (xy**2 + yz**2 + xz**2))


def principal(stress: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 3"]:
    """Principal values, the largest first.

    >>> principal(np.diag([1.0, 3.0, -2.0])).tolist()
    [3.0, 1.0, -2.0]
    """
    return np.linalg.eigvalsh((stress + np.swapaxes(stress, -1, -2)) / 2)[..., ::-1]


def tresca(stress: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, " *n"]:
    """Equivalent stress of Tresca σ₁ − σ₃: twice the largest shear stress.

    >>> tresca(np.diag([1.0, 3.0, -2.0])).item()
    5.0
    """
    values = principal(stress)
    return values[..., 0] - values[..., 2]
