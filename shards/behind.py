"""A file whose bytes go to the disk while more are being made.

A system keeps written bytes in memory until it is told to store them. Told only at the end, the disk would
idle first and everybody would wait for it last. So a thread tells it all along, and the end waits for little.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

STEP = 16 << 20
"""Bytes after which the disk is told again, once it has done what it was told before."""
MOST = 128 << 20
"""Bytes that may wait for the disk."""

_store = getattr(os, "fdatasync", os.fsync)


class BehindWriter:
    """Writes to an unbuffered file, which it does not close."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pool: ThreadPoolExecutor | None = None
        self._storing: Future[None] | None = None
        self._waiting = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data`; returns how many bytes that is.

        Raises:
            OSError: the file cannot be written, or what was written before cannot be stored.
        """
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += self._file.write(view[done:])
        self._waiting += done
        if self._waiting >= STEP and (self._storing is None or self._storing.done()):
            self._begin()
        elif self._waiting >= MOST and self._storing is not None:
            self._storing.result()
        return done

    def finish(self) -> None:
        """Return when every byte is stored."""
        self.stop()
        os.fsync(self._file.fileno())

    def stop(self) -> None:
        """End the thread."""
        if self._pool is not None:
            self._pool.shutdown()
        if self._storing is not None:
            self._storing.result()

    def _begin(self) -> None:
        if self._storing is not None:
            self._storing.result()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1)
        self._waiting = 0
        self._storing = self._pool.submit(_store, self._file.fileno())
