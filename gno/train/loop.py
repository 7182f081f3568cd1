"""The training loop, to be read in one sitting: batch, losses, step, average, validate, save."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch_geometric.data import Batch

from gno.graph import MeshData, collate
from gno.physics.weights import Fixed, Weighting, gradients_of
from gno.train.checkpoint import optimiser_state, restore_optimiser
from gno.train.interrupt import Interrupted, Stop
from gno.train.losses import Term
from gno.train.optimisers import OPTIMISERS, Optimiser
from gno.train.report import Report
from gno.train.sections import Training

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Parts = dict[str, Mapping[str, Tensor]]
Save = Callable[[str, Parts, dict[str, Any]], None]

# Of a budget of minutes, validation may take this much.
SCORING_SHARE = 0.1


@dataclasses.dataclass
class Progress:
    """Where a training stands; with the tensors of a checkpoint, all that a resumed run needs.

    Shuffling draws from a generator seeded by (seed, epoch) and dropout from one seeded by (seed, step, process),
    so the position below is the whole state of the random numbers, on any number of devices.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    validations: int = 0
    best: float | None = None


class Objective(nn.Module):
    """The model and its losses as one module, so that gradients are synchronised wherever a loss reaches."""

    def __init__(self, model: nn.Module, terms: Sequence[Term]) -> None:
        super().__init__()
        self.model, self.terms = model, tuple(terms)

    def forward(self, batch: Batch, share: float) -> Tensor:
        output = self.model(batch)
        with torch.autocast(batch.mass_0.device.type, enabled=False):  # sums over nodes stay in full precision
            return torch.stack([term.loss(batch, output) for term in self.terms])


class Loop:
    """One training.

    Args:
        fabric: device, precision and processes; already launched.
        model: maps a batch to an output; initialised.
        samples: normalised training samples.
        coarse: the same ones on coarser meshes, for the first part of the budget (``settings.curriculum``).
        terms: the losses; their weighted sum is minimised.
        validate: scores of a model by name; ``"score"`` decides which weights are the best.
        settings: the budget and how it is spent.
        save: writes tensors and progress under a name (``last``, ``best``).
        report: is told of losses and scores.
        stop: whether somebody asked to stop.
        optimiser: makes the optimiser of a module; the one that the settings name by default.
        clock: seconds that a budget of minutes is measured with; ``time.process_time`` is fair on a busy machine.
        weighting: how the weights of the terms adapt; those that the terms have are multiplied by it.
        until: share of the budget after which to stop, and to save; the rate is that of the whole budget.
        objective: losses of a batch and the share of the budget that is spent; those of one pass of the model by
            default.
        collate: makes a batch of samples.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        samples: Sequence[MeshData],
        terms: Sequence[Term],
        validate: Callable[[nn.Module], dict[str, float]],
        settings: Training,
        *,
        save: Save,
        report: Report,
        stop: Stop,
        optimiser: Optimiser | None = None,
        clock: Callable[[], float] = time.monotonic,
        weighting: Weighting | None = None,
        until: float = 1.0,
        objective: nn.Module | None = None,
        collate: Callable[[Sequence[MeshData]], Batch] = collate,
        coarse: Sequence[MeshData] = (),
    ) -> None:
        self.coarse = coarse
        self.fabric, self.model, self.samples, self.terms = fabric, model, samples, tuple(terms)
        self.validate, self.settings, self.save, self.report, self.stop = validate, settings, save, report, stop
        self.optimiser = (optimiser or OPTIMISERS[settings.optimiser])(model, settings)
        for group in self.optimiser.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.objective, self.stepper = fabric.setup(objective or Objective(model, terms), self.optimiser)
        self.average = copy.deepcopy(model).requires_grad_(False).eval()
        self.weights = torch.tensor([term.weight for term in terms], device=fabric.device)
        self.shares = torch.tensor([term.share for term in terms], device=fabric.device)
        self.weighting, self.collate = weighting or Fixed(), collate
        self.balance = self.weighting.start(len(terms), fabric.device)
        self.sums = torch.zeros(len(terms) + 1, device=fabric.device)  # losses and gradient norm since the last row
        self.summed = 0  # steps in these sums
        self.progress = Progress()
        self.clock, self.resumed_seconds, self.started, self.saved = clock, 0.0, clock(), clock()
        self.scoring, self.stopping, self.until = 0.0, False, until

    def restore(self, tensors: dict[str, dict[str, Tensor]], progress: Progress) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(tensors["model"])
        self.average.load_state_dict(tensors["average"])
        restore_optimiser(self.optimiser, tensors["optimiser"])
        self.balance = {name: tensors["weights"][name].to(value) for name, value in self.balance.items()}
        self.progress, self.resumed_seconds = progress, progress.seconds

    def run(self) -> nn.Module:
        """Train until the budget is spent; returns the model with averaged weights.

        Raises:
            ValueError: the loss became infinite or undefined.
            Interrupted: stopped on request, after saving.
        """
        self.model.train()
        for batch in self.batches():
            share = self.look()
            if share >= self.until:
                break
            if self.stopping:
                self.checkpoint()
                raise Interrupted(f"stopped after {self.progress.step} steps")
            if int(share * self.settings.validations) > self.progress.validations:
                self.progress.validations = int(share * self.settings.validations)
                if not self.scoring_too_long():
                    self.score()
                self.checkpoint()
            elif self.clock() - self.saved > 60 * self.settings.save_minutes:
                self.checkpoint()
            self.step(batch, share)
        self.score()
        self.checkpoint()
        return self.average

    def step(self, batch: Batch, share: float) -> None:
        """One step of the optimiser; nothing here waits for the device."""
        settings, progress = self.settings, self.progress
        torch.manual_seed(mix(settings.seed, progress.step, self.fabric.global_rank))
        for group in self.optimiser.param_groups:
            group["lr"] = group["initial_lr"] * rate(share, settings)
        losses = self.objective(batch, share)
        self.adapt(losses)
        self.fabric.backward(losses @ (self.weights * self.balance["weights"]).to(losses.dtype))
        norm: Any = self.fabric.clip_gradients(
            self.objective, self.stepper, max_norm=settings.clip, error_if_nonfinite=False
        )
        self.stepper.step()
        self.stepper.zero_grad()
        blend(self.average, self.model, min(settings.ema, (1 + progress.step) / (10 + progress.step)))
        self.sums += torch.cat([losses.detach().float(), norm.detach().float().reshape(1)])
        progress.step += 1
        self.summed += 1
        if progress.step % settings.log_every == 0:
            self.log()

    def adapt(self, losses: Tensor) -> None:
        """Let the weights of the terms follow; all processes hold the mean of what each would choose."""
        every, gradients = self.weighting.every, None
        if every and self.progress.step % every == 0:
            trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            gradients = gradients_of(losses / self.shares.to(losses), trained)
        self.balance = self.weighting.update(self.balance, losses.detach(), gradients)
        if self.fabric.world_size > 1:
            self.balance = {name: self.fabric.all_reduce(value) for name, value in self.balance.items()}  # type: ignore[misc]

    def batches(self) -> Iterator[Batch]:
        """Batches on the device, epoch after epoch, from where the training stands."""
        while True:
            order, coarse = self.order(self.progress.epoch)[self.progress.batch :], self.is_coarse()
            samples = self.coarse if coarse else self.samples
            loader: Any = DataLoader(samples, batch_sampler=order, collate_fn=self.collate)  # type: ignore[arg-type]
            for batch in self.fabric.setup_dataloaders(loader, use_distributed_sampler=False):
                yield batch
                self.progress.batch += 1
                if coarse and not self.is_coarse():
                    break  # the rest of the epoch is on the meshes themselves
            if self.progress.batch == len(self.order(self.progress.epoch)):
                self.progress.epoch, self.progress.batch = self.progress.epoch + 1, 0

    def order(self, epoch: int) -> list[list[int]]:
        """Sample numbers of each batch of an epoch, for this process."""
        fabric, settings = self.fabric, self.settings
        return epoch_batches(
            len(self.samples), settings.batch_size, mix(settings.seed, epoch), fabric.global_rank, fabric.world_size
        )

    def look(self) -> float:
        """Look at the clock and for signals; returns the share of the budget that is spent.

        All processes take the view of the first one, since they must leave the loop at the same step.
        """
        progress, settings, several = self.progress, self.settings, self.fabric.world_size > 1
        if not several or progress.step % settings.log_every == 0:
            seconds = self.resumed_seconds + self.clock() - self.started
            view = (seconds, self.stop.requested)
            progress.seconds, self.stopping = self.fabric.broadcast(view) if several else view
        return self.share()

    def share(self) -> float:
        """Share of the budget that was spent at the last look."""
        if self.settings.minutes is not None:
            return self.progress.seconds / (60 * self.settings.minutes)
        return self.progress.step / steps_in_budget(len(self.samples), self.settings)

    def is_coarse(self) -> bool:
        """Whether the curriculum is still on the coarser meshes."""
        return self.share() < self.settings.curriculum

    def scoring_too_long(self) -> bool:
        """Whether validation takes more than its share of a budget of minutes."""
        return self.settings.minutes is not None and self.scoring > SCORING_SHARE * self.progress.seconds

    def score(self) -> None:
        """Validate the averaged weights and keep the best ones; without validation files the latest are the best."""
        self.log()
        start = self.clock()
        if self.fabric.is_global_zero:
            scores = self.validate(self.average)
            self.report.scores(self.progress, scores)
            score, best = scores.get("score"), self.progress.best
            if score is None or best is None or score < best:
                self.progress.best = score
                self.save("best", {"average": self.average.state_dict()}, dataclasses.asdict(self.progress))
        self.fabric.barrier()
        self.scoring += self.clock() - start

    def checkpoint(self) -> None:
        """Save all that is needed to go on."""
        self.log()
        self.keep(self.save)
        self.saved = self.clock()

    def keep(self, save: Save) -> None:
        """The same without a report."""
        if self.fabric.is_global_zero:
            parts: Parts = {
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": optimiser_state(self.optimiser),
                "weights": self.balance,
            }
            save("last", parts, dataclasses.asdict(self.progress))

    def log(self) -> None:
        """Report the mean losses since the last row; a loss that is not a number ends the training."""
        if not self.summed:
            return
        *losses, norm = (self.sums / self.summed).tolist()
        self.sums.zero_()
        self.summed = 0
        for term, loss in zip(self.terms, losses, strict=True):
            if not math.isfinite(loss):
                saved = "the last save is good, " if self.progress.validations else ""
                raise ValueError(
                    f"loss of '{term.name}': expected a finite number, got {loss} before step {self.progress.step}; "
                    f"{saved}try training.lr below {self.settings.lr:g}"
                )
        named = {term.name: loss for term, loss in zip(self.terms, losses, strict=True)}
        weights = (self.weights * self.balance["weights"]).tolist()
        shown = {term.name: weight for term, weight in zip(self.terms, weights, strict=True)}
        self.report.losses(self.progress, named, norm, self.optimiser.param_groups[0]["lr"], shown)


def steps_in_budget(n_samples: int, settings: Training) -> int:
    """Steps of all epochs.

    >>> steps_in_budget(5, Training(epochs=2, batch_size=4))
    4
    """
    return -(-n_samples // settings.batch_size) * (settings.epochs or 1)


def rate(share: float, settings: Training) -> float:
    """Learning rate relative to its peak: linear warm-up, then a cosine, over the share of the budget.

    >>> [round(rate(s, Training(epochs=1, warmup=0.1)), 3) for s in (0.0, 0.1, 0.55, 1.0)]
    [0.01, 1.0, 0.505, 0.01]
    """
    low = settings.final_lr
    if share < settings.warmup:
        return low + (1 - low) * share / settings.warmup
    angle = math.pi * (share - settings.warmup) / max(1e-9, 1 - settings.warmup)
    return low + (1 - low) * (1 + math.cos(min(angle, math.pi))) / 2


@torch.no_grad()
def blend(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average ← decay · average + (1 − decay) · model, parameter by parameter; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), [p.detach() for p in model.parameters()], 1 - decay)
    for mine, theirs in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(theirs)


def epoch_batches(n_samples: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """A random order cut into batches; every process takes its share of each batch.

    Raises:
        ValueError: a batch size that the processes cannot share equally.

    >>> sorted(sum(epoch_batches(5, 2, seed=0), []))
    [0, 1, 2, 3, 4]
    """
    if batch_size % world:
        raise ValueError(f"training.batch_size: expected a multiple of {world} devices, got {batch_size}")
    order = torch.randperm(n_samples, generator=torch.Generator().manual_seed(seed)).tolist()
    batches = [order[k : k + batch_size] for k in range(0, n_samples, batch_size)]
    # equal shares need equal counts: a short batch is filled from the start of the order
    batches[-1] += [order[k % n_samples] for k in range(-len(batches[-1]) % world)]
    return [batch[rank::world] for batch in batches]


def mix(*numbers: int) -> int:
    """One seed of several numbers.

    >>> mix(0, 1) != mix(1, 0)
    True
    """
    seed = 0
    for number in numbers:
        seed = (seed * 6364136223846793005 + number + 1442695040888963407) % 2**63
    return seed
