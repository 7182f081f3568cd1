"""Losses of physics under refinement: `python benchmarks/refinement.py` prints how steep they are at h, h/2 and h/4.

One domain of the diffusion set on three meshes. The field is the solution and an error of 1 % of it, smooth or as noise
of single nodes; what is printed is the derivative of the root of the loss along that error, over its value at h. The
gradients of noise grow like 1/h, and so does its energy norm; ‖M⁻¹r‖ grows like 1/h²: it would push at noise alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from data import dataset
from physics import PROBLEMS, solved
from torch import Tensor

from gno.graph import SampleSpec, build_sample, collate
from gno.physics.losses import excess_energy, residual_norm
from gno.physics.multilevel import prepare
from gno.train import Case, Data, Training
from gno.train.case import Physics
from gno.train.physics import problem_of

SPACINGS = (0.128, 0.064, 0.032)
NAME = "diffusion_smooth"


def main() -> None:
    slopes: dict[tuple[str, str], list[float]] = {}
    for spacing in SPACINGS:
        for loss, error, slope in measured(spacing):
            slopes.setdefault((loss, error), []).append(slope)
    print("| loss | error | h | h/2 | h/4 |\n|---|---|--:|--:|--:|")
    for (loss, error), values in slopes.items():
        print(f"| {loss} | {error} | {' | '.join(f'{value / values[0]:.2f}' for value in values)} |")


def measured(spacing: float) -> Iterator[tuple[str, str, float]]:
    """Loss, kind of error, and the derivative along it, on one mesh."""
    mesh = solved(dataset(NAME, "test", 1, spacing, workers=1)[0], NAME)
    case = Case(data=Data(targets=["u"]), training=Training(epochs=1), physics=Physics(**PROBLEMS[NAME]["physics"]))
    problem = problem_of(mesh, case)
    sample = build_sample(mesh, SampleSpec.fit([mesh], inputs=["conductivity"], targets=["u"]), torch.float64)
    sample.physics = prepare(problem, sample)
    batch, u = collate([sample]), sample.y

    def plain(v: Tensor) -> Tensor:
        r = problem.reduce(problem.residual(problem.lift(v)))
        return (r.square() / sample.mass_0[:, None]).sum()

    losses: dict[str, Callable[[Tensor], Tensor]] = {
        "energy": lambda v: excess_energy(batch.physics, v, batch, 0).sum(),
        "residual, preconditioned": lambda v: residual_norm(batch.physics, v, batch, 0).sum(),
        "residual, ‖M⁻¹r‖²": plain,
    }
    noise = torch.randn(u.shape, generator=torch.Generator().manual_seed(0), dtype=u.dtype)
    for error, shape in (("smooth", u * (3 * sample.pos_0).sin().prod(1, keepdim=True)), ("noise", noise)):
        size = 0.01 * (u.square().mean() / shape.square().mean()).sqrt()
        for name, loss in losses.items():
            share = torch.ones((), dtype=u.dtype, requires_grad=True)
            (excess := loss(u + share * size * shape) - loss(u)).backward()
            yield name, error, float(share.grad / (2 * excess.detach().clamp(min=0).sqrt()))


if __name__ == "__main__":
    main()
