"""A file whose bytes are stored in the background and do not pass through the page cache.

Written bytes are gathered in a few blocks of memory, and a thread stores each full block. Where the system
allows it (O_DIRECT, on Linux), the disk fetches the block itself: copying a byte into the page cache takes
more CPU time than hashing it, and would evict the source from memory for a shard that nobody reads now.
Elsewhere the thread writes as usual. Either way it syncs to disk all along, so that the end is quick.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

BLOCK = 8 << 20
"""Size of a block, in bytes."""
BLOCKS = 4
"""Number of memory blocks: one is filled while the others are stored."""

_DIRECT = getattr(os, "O_DIRECT", 0)
_store = getattr(os, "fdatasync", os.fsync)


class WriteBehindFile:
    """A writer to a new file, which it does not close and which nobody else may write to.

    It takes up to `BLOCKS` times `BLOCK` bytes of memory.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._descriptor = file.fileno()
        self._direct = False
        self._pool: ThreadPoolExecutor | None = None
        self._storing: deque[tuple[Future[None], mmap.mmap]] = deque()
        self._block: mmap.mmap | None = None
        self._filled = 0
        self._offset = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data`, and return its size in bytes.

        Raises:
            OSError: bytes that were written before cannot be stored.
        """
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            if self._block is None:
                self._block = self._next_block()
            length = min(BLOCK - self._filled, len(view) - done)
            self._block[self._filled : self._filled + length] = view[done : done + length]
            self._filled += length
            done += length
            if self._filled == BLOCK:
                self._begin(self._block)
        return done

    def finish(self) -> None:
        """Wait until every byte is stored.

        Raises:
            OSError: a byte cannot be stored.
        """
        while self._storing:
            self._storing.popleft()[0].result()
        self._set_direct(False)
        if self._block is not None:
            self._put(memoryview(self._block)[: self._filled], self._offset)
        os.fsync(self._descriptor)

    def stop(self) -> None:
        """End the thread; blocks that it has not begun to store are lost."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _next_block(self) -> mmap.mmap:
        """Memory that may be filled, in whole pages, as O_DIRECT requires."""
        if len(self._storing) < BLOCKS - 1:
            return mmap.mmap(-1, BLOCK)
        future, block = self._storing.popleft()
        future.result()
        return block

    def _begin(self, block: mmap.mmap) -> None:
        """Have the thread store a full block."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1)
            self._set_direct(True)
        self._storing.append((self._pool.submit(self._store_block, block, self._offset), block))
        self._offset += BLOCK
        self._block, self._filled = None, 0

    def _store_block(self, block: mmap.mmap, offset: int) -> None:
        self._put(memoryview(block), offset)
        if (offset // BLOCK + 1) % BLOCKS == 0:
            _store(self._descriptor)

    def _put(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            try:
                done += os.pwrite(self._descriptor, view[done:], offset + done)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._direct:
                    raise
                self._set_direct(False)  # a file system that requires another alignment

    def _set_direct(self, direct: bool) -> None:
        """Bypass the page cache from here on, if the system can, or use it again."""
        if direct == self._direct or not _DIRECT:
            return
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | _DIRECT if direct else flags & ~_DIRECT)
        except OSError:
            return  # a file system without O_DIRECT
        self._direct = direct
