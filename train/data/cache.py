"""A local cache of remote shards and tables: a sparse file for each, with the bytes read so far in place.

    CACHE/oxcart-cache-1/<BLAKE3 of the shard or table>.part

A look-up reads the file and compares the bytes with their digest: a hole, a chunk cut off by a crash and a
flipped bit all look the same, and are fetched. So there is no index that could be wrong, and the processes of
one user may share the directory. When the files exceed the size limit, whole files are removed, those unused
for the longest time first; only files of that name in that folder are ever removed.

Only this user may access the folder, because the digests of chunks guard against damage, not against somebody
who chooses the bytes (`oxcart.shards.files`).
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import OrderedDict
from pathlib import Path

from blake3 import blake3
from xxhash import xxh3_64_intdigest

from oxcart.manifests.dataset import read_whole
from oxcart.manifests.ownership import check_directory
from oxcart.shards.files import open_private, private_folder
from oxcart.shards.store import Store

FOLDER = "oxcart-cache-1"
_NAME = re.compile(r"[0-9a-f]{64}\.part")
_CHECK_BYTES = 64 << 20
"""Bytes read and written between two checks of the size limit."""
_OPEN = 64


class Cache:
    """A cache of tables and parts of shards on this machine.

    Args:
        directory: any directory; the cache makes a folder of its own inside.
        limit: size limit, in bytes.

    Raises:
        ConfigError: the folder cannot be created, lies in a dataset or a source, or is writable by others.
    """

    def __init__(self, directory: str | os.PathLike[str], limit: int) -> None:
        folder = Path(directory, FOLDER)
        check_directory("cache", folder, "cache")
        self._folder = _Opened(private_folder(folder, "cache"))
        self._limit = limit
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._lock = threading.Lock()
        self._moved = 0
        self._trim()

    def read(self, shard: str, offset: int, buffer: memoryview, digest: int) -> bool:
        """Fill the buffer, and return whether the cache had the right bytes."""
        right = self.peek(shard, offset, buffer) and xxh3_64_intdigest(buffer) == digest
        if right:
            self._count(len(buffer))
        return right

    def peek(self, shard: str, offset: int, buffer: memoryview) -> bool:
        """Fill the buffer without checking the bytes, and return whether the cache had enough of them."""
        file = self._file(shard)
        try:
            return file is not None and os.preadv(file.descriptor, [buffer], offset) == len(buffer)
        except OSError:
            return False

    def write(self, shard: str, offset: int, data: bytes | memoryview) -> None:
        """Put bytes into the cache; if the disk is full, they are silently left out."""
        file = self._file(shard)
        if file is None:
            return
        with contextlib.suppress(OSError):
            left = memoryview(data)
            while left:  # one call of the system takes 2 GiB at most
                count = os.pwrite(file.descriptor, left, offset)
                left, offset = left[count:], offset + count
        self._count(len(data))

    def read_whole(self, store: Store, name: str, digest: str) -> bytes:
        """`oxcart.manifests.dataset.read_whole` through the cache."""
        file = self._file(digest)
        with contextlib.suppress(OSError):
            if file is not None:
                data = _read(file.descriptor)
                if blake3(data).hexdigest() == digest:
                    self._count(len(data))
                    return data
                os.ftruncate(file.descriptor, 0)
        data = read_whole(store, name, digest)
        self.write(digest, 0, data)
        return data

    def _count(self, size: int) -> None:
        with self._lock:
            self._moved += size
            due = self._moved >= min(_CHECK_BYTES, self._limit // 8)
            if due:
                self._moved = 0
        if due:
            self._trim()

    def _file(self, digest: str) -> _File | None:
        name = f"{digest}.part"
        with self._lock:
            found = self._files.get(name)
            if found is None:
                try:
                    found = _File(open_private(self._folder.descriptor, name))
                    _touch(found.descriptor)
                except OSError:
                    return None
                self._files[name] = found
                if len(self._files) > _OPEN:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(name)
            found.used = True
            return found

    def _trim(self) -> None:
        """Remove files until the rest is within the limit."""
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
            folder, held = self._folder.descriptor, []
            try:
                names = [name for name in os.listdir(folder) if _NAME.fullmatch(name)]
            except OSError:  # somebody has removed the folder
                return
            for name in names:
                with contextlib.suppress(OSError):
                    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    held.append((found.st_mtime_ns, name, found.st_blocks * 512))
            total = sum(size for _, _, size in held)
            for _, name, size in sorted(held):
                if total <= self._limit:
                    break
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=folder)
                self._files.pop(name, None)
                total -= size


def _read(descriptor: int) -> bytes:
    """Read all bytes of a file; one system call returns at most 2 GiB."""
    size, at = os.fstat(descriptor).st_size, 0
    pieces: list[bytes] = []
    while piece := os.pread(descriptor, max(0, size - at), at):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def _touch(descriptor: int) -> None:
    now = time.time_ns()  # the system's own idea of now may be the same for many milliseconds
    os.utime(descriptor, ns=(now, now))


class _Opened:
    """A file descriptor, closed when the last reference to it is gone."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class _File(_Opened):
    used = True
    """Whether the file was used since its time stamp was last renewed."""
