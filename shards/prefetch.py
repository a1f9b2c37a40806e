"""Read before it is wanted: ranges that are read at once, and blocks that are read ahead.

A connection to a bucket gives tens of MB/s after tens of milliseconds, so several are needed, and requests
that are neither tiny nor endless.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple, TypeVar

GAP_BYTES = 256 << 10
"""Ranges that are no farther apart are read as one: the gap takes less time than another request."""
PIECE_BYTES = 4 << 20
"""The largest request."""

_TICK_S = 0.2

Result = TypeVar("Result")

_thread = threading.local()


class Span(NamedTuple):
    """A part of an object, and the ranges in it."""

    start: int
    end: int
    ranges: list[int]
    """Their places in the list that was asked for."""


def spans(ranges: Sequence[tuple[int, int]], gap: int = GAP_BYTES) -> list[Span]:
    """Join ranges (offset, length) that overlap or are at most `gap` bytes apart; sorted."""
    found: list[Span] = []
    for place in sorted(range(len(ranges)), key=lambda one: ranges[one]):
        start, length = ranges[place]
        if found and start <= found[-1].end + gap:
            last = found[-1]
            found[-1] = Span(last.start, max(last.end, start + length), [*last.ranges, place])
        else:
            found.append(Span(start, start + length, [place]))
    return found


def pieces(start: int, end: int, largest: int = PIECE_BYTES) -> list[tuple[int, int]]:
    """Cut a span into ranges (offset, length) of at most `largest` bytes; of nothing, one of no bytes."""
    return [(at, min(largest, end - at)) for at in range(start, max(end, start + 1), largest)]


def prefetch(
    pool: ThreadPoolExecutor, calls: Iterable[Callable[[], Result]], depth: int | None = None
) -> Generator[Result, None, None]:
    """Results of the calls in their order, while up to `depth` later ones run; None is all of them.

    What has not begun when the caller stops, or when a call fails, is not done; what runs then is told by
    `unwanted`.
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
    """As `prefetch`, in threads of its own; a request that still hangs at the end is not waited for."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield from prefetch(pool, calls, depth)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _result(future: Future[Result]) -> Result:
    """The result, when it is there. A Ctrl-C that came just before a wait without end would not end it."""
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
    """Set when nobody waits any more for the call that this thread runs; None where it runs none."""
    return getattr(_thread, "ended", None)
