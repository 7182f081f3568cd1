"""RMSNorm with a gradient of its own: on a CPU torch makes it of a dozen passes over the features."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """``y = g x / √(mean_c x² + ε)``, as torch's, whose kernel is taken on a GPU."""

    def forward(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        if x.is_cuda or x.dtype.itemsize < 4:
            return super().forward(x)
        return _RMSNorm.apply(x, self.weight, torch.finfo(x.dtype).eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gain, eps):
        mean = torch.linalg.vector_norm(x, dim=1, keepdim=True).square_().div_(x.shape[1])
        scale = mean.add_(eps).rsqrt_()
        ctx.save_for_backward(x, gain, scale)
        return (x * scale).mul_(gain)

    @staticmethod
    def backward(ctx, grad):
        x, gain, scale = ctx.saved_tensors
        unit = x * scale
        by_gain = grad * unit
        along = (by_gain @ gain)[:, None] / x.shape[1]  # what of the gradient would only change the length of x
        return torch.addcmul(grad * gain, unit, along, value=-1).mul_(scale), by_gain.sum(0), None
