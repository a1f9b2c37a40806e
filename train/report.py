"""The reports of a run: metrics.jsonl and a live line always, TensorBoard and W&B on request.

metrics.jsonl has one object per line: `{"kind": "train", "step": 10, "loss": ...}` for training, and the same
with the kind `val` for a validation. A run that resumes from a checkpoint first drops the lines of later
steps, so that no step occurs twice. Rates are of the steps since the line before. They leave out the first
ten of a run, in which memory is allocated and kernels are chosen.

TensorBoard and W&B, through accelerate's trackers, get the numbers under the same names. A name without a
split has its kind before it: `train/loss`, `val/seconds`, but `val/nll` and `val_seen/nll` as they are.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import TensorBoardTracker, WandBTracker
from PIL import Image
from rich.console import Console
from rich.live import Live
from rich.text import Text

from oxcart.shards.errors import ConfigError
from oxcart.shards.files import naming, write_file

METRICS = "metrics.jsonl"
WARMING = 10
"""Number of initial steps that rates leave out."""
LINE_EVERY_S = 10.0
"""Seconds between two lines where stderr is not a terminal."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Times of some steps."""

    steps: int = 0
    samples: int = 0
    waited_s: float = 0.0
    """Seconds spent waiting for data."""
    busy_s: float = 0.0
    """Seconds in all."""

    @property
    def known(self) -> bool:
        """Whether any step was measured."""
        return self.busy_s > 0

    @property
    def throughput(self) -> float:
        """Samples per second."""
        return self.samples / self.busy_s if self.known else 0.0

    @property
    def waiting(self) -> float:
        """Percent of the time that was spent waiting for data."""
        return 100 * self.waited_s / self.busy_s if self.known else 0.0

    @property
    def step_s(self) -> float:
        """Seconds per step."""
        return self.busy_s / self.steps if self.known else math.nan


class Clock:
    """Measures how long steps take, and how long they wait for data."""

    def __init__(self) -> None:
        self._begun = 0
        self.whole = Rates()
        """Rates of all steps."""
        self._window = Rates()

    def add(self, samples: int, waited_s: float, took_s: float) -> None:
        """Add a step: the time that it waited for data, and its total time, in seconds."""
        self._begun += 1
        if self._begun > WARMING:
            step = Rates(steps=1, samples=samples, waited_s=waited_s, busy_s=took_s)
            self.whole, self._window = _sum(self.whole, step), _sum(self._window, step)

    def window(self) -> Rates:
        """Rates of the steps since the last call."""
        found, self._window = self._window, Rates()
        return found


def _sum(one: Rates, other: Rates) -> Rates:
    return Rates(**{name: value + getattr(other, name) for name, value in vars(one).items()})


class RunLog:
    """Writes the metrics of a run to all configured places.

    Raises:
        ConfigError: TensorBoard or W&B is requested but not installed.
    """

    def __init__(
        self,
        run: Path,
        *,
        step: int,
        steps: int,
        label: str,
        active: bool = True,
        quiet: bool = False,
        tensorboard: bool = False,
        wandb: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._run, self._active, self._quiet, self._steps, self._label = run, active, quiet, steps, label
        self._written = time.monotonic()
        self._live: Any = None
        self._board: Any = None
        self._wandb: Any = None
        if not active:
            return
        _cut(run / METRICS, step)
        if tensorboard:
            self._board = _tensorboard(run, step)
        if wandb:
            self._wandb = _wandb(wandb, run, config or {})
        if not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._live = Live(console=Console(file=sys.stderr), refresh_per_second=4, redirect_stdout=False)
            self._live.start()

    def metrics(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write a line of metrics."""
        if not self._active:
            return
        line = json.dumps({"kind": kind, "step": step, **{name: _plain(v) for name, v in values.items()}})
        path = self._run / METRICS
        with naming(path), open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        numbers = {
            name if "/" in name else f"{kind}/{name}": v
            for name, v in values.items()
            if isinstance(v, int | float)
        }
        if self._board is not None:
            self._board.log(numbers, step=step)
        if self._wandb is not None:
            self._wandb.log({**numbers, "step": step})

    def images(self, step: int) -> None:
        """Show the figures in the directory of the run in TensorBoard and W&B."""
        if self._board is None and self._wandb is None:
            return
        shown = {}
        for path in sorted(self._run.glob("*.png")):
            with Image.open(path) as image:
                shown[path.stem] = np.asarray(image.convert("RGB"))[None]
        if self._board is not None:
            self._board.log_images(shown, step=step, dataformats="NHWC")
        if self._wandb is not None:
            self._wandb.log_images(shown)

    def line(self, step: int, loss: float, rates: Rates) -> None:
        """Show the progress of the run, and the rates of its last steps."""
        if not self._active or self._quiet:
            return
        parts = [f"{self._label}: step {step:,}/{self._steps:,}", f"loss {loss:.4g}"]
        if rates.known:
            left = (self._steps - step) * rates.step_s
            parts += [
                f"{rates.throughput:,.0f} samples/s",
                f"data_loading {rates.waiting:.1f}%",
                f"{timedelta(seconds=round(left))} left",
            ]
        text = ", ".join(parts)
        if self._live is not None:
            self._live.update(Text(text))
        elif step == self._steps or time.monotonic() - self._written >= LINE_EVERY_S:
            self._written = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Print a line above the live line, unless the run is quiet."""
        if not self._quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """Print a warning as one line above the live line."""
        self._print(f"oxcart: warning: {text}")

    def _print(self, text: str) -> None:
        if not self._active:
            return
        if self._live is not None:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Release the terminal and close the trackers, if that was not done before."""
        if self._live is not None:
            self._live.stop()
        for tracker in (self._board, self._wandb):
            if tracker is not None:
                tracker.finish()
        self._board = self._wandb = None


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, without a truncated last one."""
    path = run / METRICS
    if not path.exists():
        return []
    return list(_lines(path))


def last_validation(run: Path) -> dict[str, Any] | None:
    """The metrics of the last validation of a run; None if there was none."""
    return next((line for line in read_metrics(run)[::-1] if line["kind"] == "val"), None)


def by_split(split: str, by_dataset: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Metrics of a split under their names in metrics.jsonl.

    Those of a single dataset are kept as they are. Of several datasets come first the means of the numbers
    that all of them have, except bounds of intervals, and then the metrics of each dataset.

    Args:
        split: name of the split.
        by_dataset: name of each dataset -> its metrics.
    """
    every = list(by_dataset.values())
    if len(every) == 1:
        return {f"{split}/{key}": value for key, value in every[0].items()}
    names = [
        name
        for name in every[0]
        if all(isinstance(one.get(name), int | float) for one in every)
        and not name.endswith(("_low", "_high"))
    ]
    means = {f"{split}/{name}": math.fsum(one[name] for one in every) / len(every) for name in names}
    own = {
        f"{split}/{name}/{key}": value for name, found in by_dataset.items() for key, value in found.items()
    }
    return {**means, **own}


def describe(
    last: Mapping[str, Any],
    datasets: Mapping[str, Sequence[str]],
    page: str,
    images: Sequence[str] = ("loss.png", "samples.png"),
    warnings: Sequence[str] = (),
) -> str:
    """The text of report.md: the last validation, with a column per split and, if there are several, dataset.

    Args:
        last: a line of metrics.jsonl.
        datasets: split -> names of the datasets that have it.
        page: page of the documentation that explains the rows.
        images: files beside the report to show.
        warnings: lines of a validation that stand above the table.
    """
    columns = {}
    for split, names in datasets.items():
        columns[split] = f"{split}/"
        if len(names) > 1:
            columns |= {f"{split}: {name}": f"{split}/{name}/" for name in names}
    lines = [f"# Validation at step {last['step']:,}", ""]
    for warning in warnings:
        lines += [f"> **Warning**: {warning}", ""]
    lines.append(f"| | {' | '.join(columns)} |")
    lines.append("| --- |" + " --- |" * len(columns))
    splits = tuple(columns.values())
    numbers = [
        key for key, value in last.items() if isinstance(value, int | float | str) and key.startswith(splits)
    ]
    for name in dict.fromkeys(key.rpartition("/")[2] for key in numbers):
        cells = [last.get(f"{before}{name}") for before in columns.values()]
        said = [f"{cell:.4g}" if isinstance(cell, int | float) else cell or "" for cell in cells]
        lines.append(f"| {name} | {' | '.join(said)} |")
    shown = " ".join(f"![]({name})" for name in images)
    return "\n".join([*lines, "", f"{page} says what each means. {shown}", ""])


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def _cut(path: Path, step: int) -> None:
    """Drop the lines of steps after `step`, which will be run again."""
    if not path.exists():
        return
    kept = [line for line in _lines(path) if line["step"] <= step]
    write_file(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


def _plain(value: Any) -> Any:
    """A value that JSON can hold: null for NaN and infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tensorboard(run: Path, step: int) -> Any:
    tracker = TensorBoardTracker("tensorboard", run, purge_step=step + 1)
    try:
        tracker.start()
    except ImportError as error:
        raise ConfigError("run.tensorboard: TensorBoard is not installed: pip install tensorboard") from error
    return tracker


def _wandb(project: str, run: Path, config: Mapping[str, Any]) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("run.wandb: Weights & Biases is not installed: pip install wandb") from error
    name = run / "wandb-id"  # so that a resumed run continues the same one
    if not name.exists():
        write_file(name, uuid.uuid4().hex[:12].encode())
    tracker = WandBTracker(project, name=run.name, id=name.read_text(), dir=str(run), resume="allow")
    try:
        tracker.start()
    except wandb.Error as error:
        raise ConfigError(f"run.wandb: {' '.join(str(error).split())}") from error
    # W&B's own count of calls only grows, but a resumed run takes steps again.
    tracker.tracker.define_metric("*", step_metric="step", step_sync=True)
    tracker.store_init_configuration(dict(config))
    return tracker
