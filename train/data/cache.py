"""A local cache of remote shards: one sparse file for each, with the chunks that were read in their places.

    CACHE/oxcart-cache-1/<BLAKE3 of the shard>.part

What is there is found by reading it and holding it against its digest: a hole, a chunk that a crash cut off
and a flipped bit all look the same, and are fetched. So there is no index that could be wrong, and several
processes may share the directory. Files are removed whole, the longest unused by any of them first, when
there are more bytes than allowed; only files of that name in that folder ever are.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import OrderedDict
from pathlib import Path

from xxhash import xxh3_64_intdigest

from oxcart.shards.errors import ConfigError

FOLDER = "oxcart-cache-1"
_NAME = re.compile(r"[0-9a-f]{64}\.part")
_CHECK_BYTES = 64 << 20
"""Read and written between two looks at how full the directory is."""
_OPEN = 64


class Cache:
    """Chunks on this machine.

    Args:
        directory: any; the cache makes a folder of its own inside.
        limit: bytes at most.

    Raises:
        ConfigError: the directory cannot be written.
    """

    def __init__(self, directory: str | os.PathLike[str], limit: int) -> None:
        if limit < 1:
            raise ConfigError(f"cache_bytes: expected at least 1, got {limit}")
        self._folder = Path(directory) / FOLDER
        self._limit = limit
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._lock = threading.Lock()
        self._moved = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cache: {self._folder}: {error.strerror or error}") from error
        self._trim()

    def read(self, shard: str, offset: int, buffer: memoryview, digest: int) -> bool:
        """Fill the buffer; says whether the right bytes were there."""
        file = self._file(shard)
        if file is None:
            return False
        try:
            found = os.preadv(file.descriptor, [buffer], offset)
        except OSError:
            return False
        right = found == len(buffer) and xxh3_64_intdigest(buffer) == digest
        if right:
            self._count(found)
        return right

    def write(self, shard: str, offset: int, data: memoryview) -> None:
        """Keep the bytes; a disk that is full is no error, they are not kept then."""
        file = self._file(shard)
        if file is None:
            return
        with contextlib.suppress(OSError):
            os.pwrite(file.descriptor, data, offset)
        self._count(len(data))

    def _count(self, size: int) -> None:
        with self._lock:
            self._moved += size
            due = self._moved >= min(_CHECK_BYTES, self._limit // 8)
            if due:
                self._moved = 0
        if due:
            self._trim()

    def _file(self, shard: str) -> _File | None:
        name = f"{shard}.part"
        with self._lock:
            found = self._files.get(name)
            if found is None:
                path = self._folder / name
                try:
                    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
                    _touch(descriptor)
                except OSError:
                    return None
                found = self._files[name] = _File(descriptor)
                if len(self._files) > _OPEN:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(name)
            found.used = True
            return found

    def _trim(self) -> None:
        """Remove files until no more bytes are taken than allowed."""
        with self._lock:
            for name, file in list(self._files.items()):
                try:
                    removed = not os.fstat(file.descriptor).st_nlink  # by another process
                    if file.used and not removed:
                        _touch(file.descriptor)
                        file.used = False
                except OSError:
                    removed = True
                if removed:
                    del self._files[name]
            held = []
            try:
                paths = [path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]
            except OSError:  # somebody has removed the folder
                return
            for path in paths:
                with contextlib.suppress(OSError):
                    stat = path.stat()
                    held.append((stat.st_mtime_ns, path, stat.st_blocks * 512))
            total = sum(size for _, _, size in held)
            for _, path, size in sorted(held):
                if total <= self._limit:
                    break
                with contextlib.suppress(OSError):
                    path.unlink()
                self._files.pop(path.name, None)
                total -= size


def _touch(descriptor: int) -> None:
    now = time.time_ns()  # the system's own idea of now may be the same for many milliseconds
    os.utime(descriptor, ns=(now, now))


class _File:
    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.used = True
        """Since the other processes were last told."""

    def __del__(self) -> None:
        os.close(self.descriptor)
