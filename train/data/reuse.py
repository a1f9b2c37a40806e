"""Reuse of chunks that several samples need soon: read and decoded once, kept until the last use.

Within a block of a lane (`oxcart.train.data.order`) it is known in advance how often each chunk will be
needed. A budget in bytes limits what is kept: a chunk that finds no room is read again when it is needed
again, so memory decides the speed and never the order. All loaders of a process share one budget, as large as
the largest that one of them asks for.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]


@dataclass
class Kept:
    """The decoded frames of a chunk, or a note that a thread is decoding them."""

    frames: Frames | None = None
    decoding: threading.Lock = field(default_factory=threading.Lock)
    """Lock held by the thread that decodes the frames."""
    holders: int = 0
    """Number of threads copying frames; the memory is not reused before the last of them is done."""


@dataclass
class SharedRead:
    """One request for chunks that lie close together in a shard."""

    shard: int
    start: int
    length: int
    left: int = 0
    """Number of chunks of the request that are still expected to be needed."""
    data: memoryview | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Reuse:
    """Chunks of one camera of one split that are kept during an iteration, within a shared budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._wanted: dict[int, int] = {}
        self._kept: dict[int, Kept] = {}
        self._reads: dict[int, SharedRead] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def expects(self) -> bool:
        """Whether any chunk is expected to be needed."""
        return bool(self._wanted)

    def expect(self, chunks: npt.NDArray[np.int64], times: npt.NDArray[np.int64]) -> None:
        """Announce how many more times each chunk will be needed."""
        with self._lock:
            for chunk, count in zip(chunks.tolist(), times.tolist(), strict=True):
                self._wanted[chunk] = self._wanted.get(chunk, 0) + count

    def expect_read(self, shared: SharedRead, chunks: list[int]) -> None:
        """Announce that these chunks can be read with one request."""
        with self._lock:
            mine = [chunk for chunk in chunks if chunk not in self._reads]
            shared.left = len(mine)
            self._reads |= dict.fromkeys(mine, shared)

    def close(self) -> None:
        """Stop keeping chunks; those that threads hold are given back when the threads are done."""
        with self._lock:
            self._closed = True
            kept, self._kept = self._kept, {}
            reads = {id(shared): shared for shared in self._reads.values()}
            self._wanted, self._reads = {}, {}
            for one in kept.values():
                self._give_back(one)
            for shared in reads.values():
                self._drop(shared)

    def encoded(
        self, chunk: int, read: Callable[[SharedRead], memoryview]
    ) -> tuple[SharedRead, memoryview] | None:
        """The shared read that has a chunk, and its bytes; None if there is none, or no room for it."""
        with self._lock:
            shared = self._reads.get(chunk)
        if shared is None:
            return None
        with shared.lock:
            data = shared.data
            if data is None:
                if not self._budget.take(shared.length):
                    return None
                try:
                    data = read(shared)
                except BaseException:
                    self._budget.give(shared.length)
                    raise
                with self._lock:
                    if self._closed or not shared.left:
                        self._budget.give(shared.length)
                    else:
                        shared.data = data
            return shared, data

    def forget_bytes(self, shared: SharedRead) -> None:
        """Drop the bytes of a read, because some are wrong; whoever needs them next reads them again."""
        with self._lock:
            self._drop(shared)

    def frames(
        self,
        chunk: int,
        uses: int,
        shape: tuple[int, ...],
        decode: Callable[[Frames], None],
        *,
        plain: bool,
    ) -> Kept | None:
        """The decoded frames of a chunk, for `uses` of its expected uses; None if they are not kept.

        The caller calls `done` afterwards. `plain` says that decoding costs nothing, so that keeping the
        bytes of the shared read is enough.
        """
        size = math.prod(shape)
        with self._lock:
            kept = self._kept.get(chunk)
            mine = kept is None
            if kept is None:
                rare = self._wanted.get(chunk, 0) <= uses
                if rare or (plain and chunk in self._reads) or not self._budget.take(size):
                    return None
                kept = self._kept[chunk] = Kept()
                kept.decoding.acquire()
            kept.holders += 1
        if not mine:
            with kept.decoding:
                pass
            if kept.frames is None:  # the thread that decoded them failed, and raises the error
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
        """Count uses of a chunk as done; `kept` is what `frames` gave for them."""
        with self._lock:
            left = self._wanted.get(chunk, 0) - uses
            if left > 0:
                self._wanted[chunk] = left
            elif chunk in self._wanted:
                del self._wanted[chunk]
                last = self._kept.pop(chunk, None)
                if last is not None and last is not kept:
                    self._give_back(last)
                shared = self._reads.pop(chunk, None)
                if shared is not None:
                    shared.left -= 1
                    if not shared.left:
                        self._drop(shared)
            if kept is not None:
                kept.holders -= 1
                if self._kept.get(chunk) is not kept:
                    self._give_back(kept)

    def _give_back(self, kept: Kept) -> None:
        """Give back, once, frames that no thread holds and that can no longer be found."""
        if not kept.holders and kept.frames is not None:
            self._budget.give(kept.frames.nbytes, kept.frames)
            kept.frames = None

    def _drop(self, shared: SharedRead) -> None:
        if shared.data is not None:
            shared.data = None
            self._budget.give(shared.length)


class Budget:
    """A limit on the bytes that are kept, and memory for reuse.

    Args:
        size: the limit, in bytes.
        whole: a budget that this one is a part of; bytes are taken from both.
    """

    def __init__(self, size: int, whole: Budget | None = None) -> None:
        self.size = size
        self._whole = whole
        self._left = size
        self._free: dict[int, list[Frames]] = {}
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Number of bytes kept at the moment."""
        return self.size - self._left

    def take(self, size: int) -> bool:
        """Take bytes from the budget if it has that many left, and return whether it had."""
        with self._lock:
            if size > self._left or not (self._whole is None or self._whole.take(size)):
                return False
            self._left -= size
            return True

    def memory(self, size: int) -> Frames:
        """An array of bytes, possibly one that was given back."""
        if self._whole is not None:
            return self._whole.memory(size)
        with self._lock:
            free = self._free.get(size)
            if free:
                return free.pop()
            if len(self._free) > 4:  # of frames of many sizes
                self._free.clear()
        return np.empty(size, np.uint8)

    def give(self, size: int, memory: Frames | None = None) -> None:
        """Give bytes back to the budget, and their memory for reuse."""
        with self._lock:
            self._left += size
            free = sum(key * len(arrays) for key, arrays in self._free.items())
            if self._whole is not None:
                self._whole.give(size, memory)
            elif memory is not None and free + size <= self._left // 2:
                self._free.setdefault(size, []).append(memory.reshape(-1))

    def grow(self, size: int) -> None:
        """Allow at least so many bytes."""
        with self._lock:
            more = max(0, size - self.size)
            self.size += more
            self._left += more


_budgets: weakref.WeakValueDictionary[int, Budget] = weakref.WeakValueDictionary()
"""Process -> its budget, while a loader uses it."""
_budgets_lock = threading.Lock()


def process_budget(size: int) -> Budget:
    """The budget of this process, of at least so many bytes."""
    with _budgets_lock:
        budget = _budgets.get(os.getpid()) or Budget(size)
        budget.grow(size)
        _budgets[os.getpid()] = budget
    return budget
