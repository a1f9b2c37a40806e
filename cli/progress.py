"""The progress of long work: a bar on a terminal, a line every ten seconds elsewhere, nothing when quiet.

    with progress("compiling", total=frames, unit="frames", quiet=quiet) as report:
        report(done, bytes_done)

Everything goes to stderr, because stdout is for results. Rates are means since the work began.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

EVERY_S = 10.0
"""Seconds between two lines where stderr is not a terminal."""


class ProgressReport(Protocol):
    """Takes how many units are done in all, and how many bytes this process has handled for them."""

    def __call__(self, done: int, bytes_done: int = 0, /) -> None: ...


@contextlib.contextmanager
def progress(
    label: str, *, total: int | None, unit: str, quiet: bool = False, start: int = 0
) -> Iterator[ProgressReport]:
    """Show the progress of the work inside the block.

    Args:
        label: what is being done: "compiling".
        total: units of the whole work; None if it is not known yet.
        unit: what is counted, in the plural: "frames".
        quiet: show nothing.
        start: units that an earlier run has done; they count as done, but not in the rate.
    """
    if quiet:
        yield lambda done, bytes_done=0, /: None
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _bar(label, total, unit, start) as report:
            yield report
    else:
        with _lines(label, total, unit, start) as report:
            yield report


def stages(quiet: bool) -> Callable[[str, int, str], contextlib.AbstractContextManager[ProgressReport]]:
    """Opens the progress of each stage of work that has several, from its label, total and unit."""
    return lambda label, total, unit: progress(label, total=total, unit=unit, quiet=quiet)


@contextlib.contextmanager
def _bar(label: str, total: int | None, unit: str, start: int) -> Iterator[ProgressReport]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
    )
    # Standard output stays as it is: it may be a pipe that expects results.
    with Progress(*columns, console=Console(file=sys.stderr), redirect_stdout=False) as bar:
        began = time.monotonic()
        task = bar.add_task(label, total=total, completed=start, state=_state(start, total, unit, 0, 0, 0))

        def report(done: int, bytes_done: int = 0, /) -> None:
            state = _state(done, total, unit, done - start, bytes_done, time.monotonic() - began)
            bar.update(task, completed=done, state=state)

        yield report


@contextlib.contextmanager
def _lines(label: str, total: int | None, unit: str, start: int) -> Iterator[ProgressReport]:
    began = written = time.monotonic()
    last = (start, 0)

    def write(now: float, end: str = "") -> None:
        state = _state(last[0], total, unit, last[0] - start, last[1], now - began)
        print(f"{label}: {state}{end}", file=sys.stderr, flush=True)

    def report(done: int, bytes_done: int = 0, /) -> None:
        nonlocal last, written
        last = (done, bytes_done)
        now = time.monotonic()
        if now - written >= EVERY_S:
            written = now
            write(now)

    yield report
    now = time.monotonic()
    write(now, f", {_clock(now - began)} in all")


def _state(done: int, total: int | None, unit: str, fresh: int, bytes_done: int, elapsed_s: float) -> str:
    """Such as "1,200/9,000 frames, 2,345 frames/s, 12.3 MB/s, 0:00:03 left": what is known of it."""
    parts = [f"{done:,}{f'/{total:,}' if total is not None else ''} {unit}"]
    if fresh > 0 and elapsed_s > 0:
        rate = fresh / elapsed_s
        parts.append(f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s")
        if bytes_done > 0:
            parts.append(f"{bytes_done / elapsed_s / 1e6:,.1f} MB/s")
        if total is not None and done < total:
            parts.append(f"{_clock((total - done) / rate)} left")
    return ", ".join(parts)


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"
