"""Chunks that several samples want soon: read and decoded once, kept until the last has had its frame.

Within a window of a lane (`oxcart.train.data.order`) it is known beforehand how often each chunk will be
wanted. What is kept is bounded by a budget in bytes: what finds no room is read again when it is wanted
again, so memory decides the speed and never the order.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]


@dataclass
class Kept:
    """The decoded frames of a chunk, or that somebody is decoding them."""

    frames: Frames | None = None
    decoding: threading.Lock = field(default_factory=threading.Lock)
    """Held by the thread that decodes them."""
    holders: int = 0
    """Threads that copy from it now: until the last has, its memory is not used again."""


@dataclass
class SharedRead:
    """Chunks that lie near each other in a shard, read with one request."""

    shard: int
    start: int
    length: int
    left: int
    """Chunks of it that somebody still wants."""
    data: memoryview | None = None
    reading: threading.Lock = field(default_factory=threading.Lock)


class Reuse:
    """What is kept of one camera of one split while it is iterated; `budget` is shared with others."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._wanted: dict[int, int] = {}
        self._kept: dict[int, Kept] = {}
        self._spans: dict[int, SharedRead] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def expects(self) -> bool:
        """Whether any chunk is expected to be wanted."""
        return bool(self._wanted)

    def expect(self, chunks: npt.NDArray[np.int64], times: npt.NDArray[np.int64]) -> None:
        """These chunks will be wanted so many times, beside what was expected before."""
        with self._lock:
            for chunk, count in zip(chunks.tolist(), times.tolist(), strict=True):
                self._wanted[chunk] = self._wanted.get(chunk, 0) + count

    def expect_span(self, span: SharedRead, chunks: list[int]) -> None:
        """These chunks lie in one span."""
        with self._lock:
            mine = [chunk for chunk in chunks if chunk not in self._spans]
            span.left = len(mine)
            self._spans |= dict.fromkeys(mine, span)

    def close(self) -> None:
        """Keep nothing any more; what threads hold now is given back when they are done."""
        with self._lock:
            self._closed = True
            kept, self._kept = self._kept, {}
            spans = {id(span): span for span in self._spans.values()}
            self._wanted, self._spans = {}, {}
            for one in kept.values():
                self._give_back(one)
            for span in spans.values():
                self._drop(span)

    def encoded(
        self, chunk: int, read: Callable[[SharedRead], memoryview]
    ) -> tuple[SharedRead, memoryview] | None:
        """The bytes of the span that the chunk lies in; None where it lies in none, or there is no room."""
        with self._lock:
            span = self._spans.get(chunk)
        if span is None:
            return None
        with span.reading:
            data = span.data
            if data is None:
                if not self._budget.take(span.length):
                    return None
                try:
                    data = read(span)
                except BaseException:
                    self._budget.give(span.length)
                    raise
                with self._lock:
                    if self._closed or not span.left:
                        self._budget.give(span.length)
                    else:
                        span.data = data
            return span, data

    def forget_bytes(self, span: SharedRead) -> None:
        """The span's bytes were wrong; whoever wants them next reads them anew."""
        with self._lock:
            self._drop(span)

    def frames(
        self,
        chunk: int,
        uses: int,
        shape: tuple[int, ...],
        decode: Callable[[Frames], None],
        *,
        plain: bool,
    ) -> Kept | None:
        """The decoded frames of a chunk, for `uses` of its expected uses; None where they are not kept.

        Whoever has had the frames calls `done`. `plain` says that decoding them is no work, so that the
        bytes of their span are enough to keep.
        """
        size = math.prod(shape)
        with self._lock:
            kept = self._kept.get(chunk)
            mine = kept is None
            if kept is None:
                rare = self._wanted.get(chunk, 0) <= uses
                if rare or (plain and chunk in self._spans) or not self._budget.take(size):
                    return None
                kept = self._kept[chunk] = Kept()
                kept.decoding.acquire()
            kept.holders += 1
        if not mine:
            with kept.decoding:
                pass
            if kept.frames is None:  # whoever decoded them has failed, and says so
                with self._lock:
                    kept.holders -= 1
                return None
            return kept
        try:
            frames = self._budget.memory(size).reshape(shape)
            decode(frames)
            kept.frames = frames
        except BaseException:
            with self._lock:
                kept.holders -= 1
                if self._kept.get(chunk) is kept:
                    del self._kept[chunk]
            self._budget.give(size)
            raise
        finally:
            kept.decoding.release()
        return kept

    def done(self, chunk: int, uses: int, kept: Kept | None) -> None:
        """So many of the expected uses of a chunk have had their frames, those of `kept` if it was."""
        with self._lock:
            left = self._wanted.get(chunk, 0) - uses
            if left > 0:
                self._wanted[chunk] = left
            elif chunk in self._wanted:
                del self._wanted[chunk]
                last = self._kept.pop(chunk, None)
                if last is not None and last is not kept:
                    self._give_back(last)
                span = self._spans.pop(chunk, None)
                if span is not None:
                    span.left -= 1
                    if not span.left:
                        self._drop(span)
            if kept is not None:
                kept.holders -= 1
                if self._kept.get(chunk) is not kept:
                    self._give_back(kept)

    def _give_back(self, kept: Kept) -> None:
        """Give back what nobody holds and nobody will find any more; once."""
        if not kept.holders and kept.frames is not None:
            self._budget.give(kept.frames.nbytes, kept.frames)
            kept.frames = None

    def _drop(self, span: SharedRead) -> None:
        if span.data is not None:
            span.data = None
            self._budget.give(span.length)


class Budget:
    """Bytes that may be kept, and memory that is used again."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._left = size
        self._free: dict[int, list[Frames]] = {}
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes that are kept now."""
        return self.size - self._left

    def take(self, size: int) -> bool:
        """Whether there was room for so many bytes; they are taken then."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def memory(self, size: int) -> Frames:
        """Bytes, perhaps used before."""
        with self._lock:
            free = self._free.get(size)
            if free:
                return free.pop()
            if len(self._free) > 4:  # of frames of many sizes
                self._free.clear()
        return np.empty(size, np.uint8)

    def give(self, size: int, memory: Frames | None = None) -> None:
        """Bytes that are not kept any more."""
        with self._lock:
            self._left += size
            free = sum(key * len(arrays) for key, arrays in self._free.items())
            if memory is not None and free + size <= self._left // 2:
                self._free.setdefault(size, []).append(memory.reshape(-1))
