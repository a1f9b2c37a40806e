"""Run calls before their results are wanted, and join and split ranges into requests of a good size.

A connection to a bucket delivers tens of MB/s after tens of milliseconds, so several must run at once, with
requests that are neither tiny nor huge.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple, TypeVar

GAP_BYTES = 256 << 10
"""Largest gap between ranges that are read as one, in bytes: it takes less time than another request."""
PIECE_BYTES = 4 << 20
"""Size of the largest request, in bytes."""

_TICK_S = 0.2
"""Interval at which a wait notices Ctrl-C, in seconds."""

Result = TypeVar("Result")

_thread = threading.local()


class Span(NamedTuple):
    """A part of an object that covers some of the requested ranges."""

    start: int
    """First byte."""
    end: int
    """First byte after the span."""
    ranges: list[int]
    """Positions of the covered ranges in the list of requested ranges."""


def spans(ranges: Sequence[tuple[int, int]], gap: int = GAP_BYTES) -> list[Span]:
    """Sorted spans that join ranges (offset, length) which overlap or are at most `gap` bytes apart."""
    starts, ends, covered = list[int](), list[int](), list[list[int]]()
    for place in sorted(range(len(ranges)), key=ranges.__getitem__):
        start, length = ranges[place]
        if ends and start <= ends[-1] + gap:
            ends[-1] = max(ends[-1], start + length)
            covered[-1].append(place)
        else:
            starts.append(start)
            ends.append(start + length)
            covered.append([place])
    return list(map(Span, starts, ends, covered))


def pieces(start: int, end: int, largest: int = PIECE_BYTES) -> list[tuple[int, int]]:
    """Ranges (offset, length) of at most `largest` bytes that make up a span; one for an empty span."""
    return [(at, min(largest, end - at)) for at in range(start, max(end, start + 1), largest)]


def prefetch(
    pool: ThreadPoolExecutor, calls: Iterable[Callable[[], Result]], depth: int | None = None
) -> Generator[Result, None, None]:
    """Results of the calls in their order, while up to `depth` later calls run; None means all of them.

    When the caller stops or a call fails, calls that have not begun are cancelled, and running ones learn it
    from `unwanted`.
    """
    running: deque[Future[Result]] = deque()
    ended = threading.Event()
    try:
        for call in calls:
            running.append(pool.submit(_run, call, ended))
            if depth is not None and len(running) > depth:
                yield _result(running.popleft())
        while running:
            yield _result(running.popleft())
    finally:
        ended.set()
        for left in running:
            left.cancel()


def in_threads(
    workers: int, calls: Iterable[Callable[[], Result]], depth: int | None = None
) -> Generator[Result, None, None]:
    """Do the same as `prefetch` in own threads; requests that still hang at the end are abandoned."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield from prefetch(pool, calls, depth)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _result(future: Future[Result]) -> Result:
    """The result of a call. The wait has a timeout, since Ctrl-C just before an endless one would be lost."""
    while not future.done():
        wait([future], timeout=_TICK_S)
    return future.result()


def _run(call: Callable[[], Result], ended: threading.Event) -> Result:
    _thread.ended = ended
    try:
        return call()
    finally:
        del _thread.ended


def unwanted() -> threading.Event | None:
    """Event that is set when this thread's call is no longer awaited; None outside of such a call."""
    return getattr(_thread, "ended", None)
