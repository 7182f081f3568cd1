"""What a training tells while it runs: a progress bar, a CSV log, TensorBoard where it is installed."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch

from gno.mesh.files import atomic
from gno.progress import counter as counter  # a training is reported by its bars, too
from gno.train.sections import Training

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from gno.train.loop import Progress


class Shown(Protocol):
    """What shows a training while it runs: how far it is, and lines that stay."""

    def show(self, share: float, *, losses: str, rate: str, memory: str) -> None: ...

    def say(self, line: str) -> None: ...


class Line:
    """One training in a bar of :func:`bars`, and what it says above it."""

    def __init__(self, bar: Bar, title: str) -> None:
        self.bar, self.task = bar, bar.add_task(title, total=1.0, losses="", rate="", memory="")

    def show(self, share: float, *, losses: str, rate: str, memory: str) -> None:
        self.bar.update(self.task, completed=share, losses=losses, rate=rate, memory=memory)

    def say(self, line: str) -> None:
        self.bar.console.print(line, highlight=False, markup=False, soft_wrap=True)


def bars() -> Bar:
    """A bar with a line for each training, of which there is none yet."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),  # brackets in names, as of units, are no markup
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[losses]}", markup=False),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[memory]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    return Progress(*columns, console=Console(stderr=True), refresh_per_second=4)


@contextlib.contextmanager
def shown_by(progress: bool | Shown, title: str) -> Iterator[Shown | None]:
    """What shows a training: a bar of its own, what is given, or nothing."""
    if progress is not True:
        yield progress or None
        return
    with bars() as bar:
        yield Line(bar, title or "train")


class Report:
    """Writes ``log.csv`` (one row per report) and TensorBoard events, and shows how far the training is.

    Args:
        folder: of the run; None reports nothing (processes other than the first).
        settings: for the share of the budget.
        losses: names of the loss terms.
        scores: names of the validation scores.
        step: rows after this step are dropped from an existing log, for they will be written again.
        n_samples: training meshes, for the rate.
        floors: what reference solutions leave of some losses; in each row of losses, to compare with.
        shown: what shows the training while it runs, and its title there.
    """

    def __init__(
        self,
        folder: Path | None,
        settings: Training,
        losses: Sequence[str],
        scores: Sequence[str],
        *,
        step: int,
        n_samples: int,
        shown: Shown | None = None,
        title: str = "",
        floors: Mapping[str, float] | None = None,
    ) -> None:
        self.settings, self.n_samples, self.first_step = settings, n_samples, step
        self.columns = ["step", "epoch", "seconds", "lr", "gradient_norm", "memory_mb"]
        self.columns += [f"{what} {name}" for what in ("loss", "weight") for name in losses]
        self.floors = {f"floor {name}": value for name, value in (floors or {}).items()}
        self.columns += [*self.floors, *(f"validation {name}" for name in scores)]
        self.path = folder / "log.csv" if folder else None
        self.shown, self.title = shown, title
        self.events = _tensorboard(folder) if folder else None
        self.last = ""
        self.clock, self.rate = (step, 0.0), ""
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _keep_rows(self.path, self.columns, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.events:
            self.events.close()

    def losses(
        self, progress: Progress, losses: Mapping[str, float], norm: float, lr: float, weights: Mapping[str, float]
    ) -> None:
        """A row of training losses, before their weights, and of these."""
        values = {f"loss {name}": value for name, value in losses.items()}
        values |= {f"weight {name}": value for name, value in weights.items()} | self.floors
        self._write(progress, {"lr": lr, "gradient_norm": norm, "memory_mb": memory_mb(), **values})
        self.last = " ".join(f"{name} {value:.3g}" for name, value in losses.items())
        self._draw(progress)

    def scores(self, progress: Progress, scores: Mapping[str, float]) -> None:
        """A row of validation scores."""
        self._draw(progress)
        if not scores:
            return
        self._write(progress, {f"validation {name}": value for name, value in scores.items()})
        if self.shown:
            on_mesh = {name: value for name, value in scores.items() if name.rpartition("@")[0] not in scores}
            text = "  ".join(f"{name} {value:.2%}" for name, value in on_mesh.items())
            title = f"{self.title}  " if self.title else ""
            self.shown.say(f"{title}step {progress.step:6d}  {progress.seconds:6.0f} s  validation  {text}")

    def _write(self, progress: Progress, values: Mapping[str, float]) -> None:
        if not self.path:
            return
        row: dict[str, Any] = {"step": progress.step, "epoch": progress.epoch, "seconds": f"{progress.seconds:.2f}"}
        row |= {name: f"{value:.6g}" for name, value in values.items()}
        with self.path.open("r+", newline="") as handle:  # and not "a": a log that is gone is to be noticed
            handle.seek(0, os.SEEK_END)
            csv.DictWriter(handle, self.columns).writerow(row)
        if self.events:
            for name, value in values.items():
                self.events.add_scalar(name.replace(" ", "/"), value, progress.step)

    def _draw(self, progress: Progress) -> None:
        if not self.shown:
            return
        settings = self.settings
        per_epoch = -(-self.n_samples // settings.batch_size)
        steps = (settings.epochs or 0) * per_epoch
        share = progress.step / steps if steps else progress.seconds / (60 * (settings.minutes or 1))
        step, seconds = self.clock
        if progress.step > step and progress.seconds > seconds:
            self.rate = f"{(progress.step - step) / (progress.seconds - seconds):.1f} steps/s"
            self.clock = (progress.step, progress.seconds)
        self.shown.show(min(1.0, share), losses=self.last, rate=self.rate, memory=f"{memory_mb():.0f} MB")


def memory_mb() -> float:
    """Peak memory: of the accelerator where there is one, of this process elsewhere."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:  # Windows has no such call
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _tensorboard(folder: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))


def _keep_rows(path: Path, columns: list[str], step: int) -> None:
    rows: list[dict[str, str]] = []
    if step and path.is_file():
        with path.open(newline="") as handle:
            rows = [row for row in csv.DictReader(handle) if _step(row) <= step]
    with atomic(path) as temporary, temporary.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _step(row: Mapping[str, str]) -> int:
    try:
        return int(row["step"])
    except (KeyError, TypeError, ValueError):  # a line that a kill cut short
        return sys.maxsize
