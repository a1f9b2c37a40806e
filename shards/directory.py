"""A store that is a directory.

A write goes to a temporary file under `.oxcart/` in the same root, is fsynced, and is renamed into place: a
reader sees the whole object or none, and whatever a crash leaves behind lies in one folder that the commit of
a compile removes. That folder is never a link, so that what is written, listed and deleted there stays in the
root.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.files import new_file, sync_folder
from oxcart.shards.write_behind import WriteBehindFile

WORK = ".oxcart"
"""Folder of all work in progress, inside the root of a store."""
_TRIES = 4
"""Attempts to delete a folder to which others write at the same time."""


class Directory:
    """Objects under the directory `url`; the methods are those of `oxcart.shards.store.Store`."""

    writable = True
    listable = True
    remote = False

    def __init__(self, url: str) -> None:
        self.root = Path(url)
        self.url = url

    def found(self, names: Sequence[str]) -> dict[str, int]:
        sizes = {}
        for name in names:
            with self._explain("stat", name):  # a pipe exists, and whoever reads it is told what it is
                path = self._path(name)
                if path.exists() and not path.is_dir():
                    sizes[name] = path.stat().st_size
        return sizes

    def names(self, folder: str, limit: int | None) -> list[str]:
        above = f"{folder}/" if folder else ""
        with self._explain("list", folder):
            return list(itertools.islice(_walk(str(self._path(folder)), above, WORK + "/"), limit))

    def read(self, name: str, most: int | None = None) -> bytes:
        with self._explain("read", name), self._open(name) as file:
            size = os.fstat(file.fileno()).st_size
            if most is not None and size > most:  # before memory is taken for it
                raise StoreError(f"{self._path(name)}: read: has {size} bytes, expected at most {most}")
            return file.read()

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        with self._explain("read", name), self._open(name) as file:
            return self._read(name, file, offset, length)

    def open(self, name: str) -> OpenFile:
        with self._explain("read", name):
            return OpenFile(str(self._path(name)))

    def stream(self, name: str, block_bytes: int, size: int | None) -> Iterator[bytes]:
        with self._explain("read", name):
            file = self._open(name)
        with file:
            end = os.fstat(file.fileno()).st_size
            if size not in (None, end):
                raise StoreError(f"{self._path(name)}: read: has changed from {size} to {end} bytes")
            for offset in range(0, end, block_bytes):
                with self._explain("read", name):
                    block = self._read(name, file, offset, min(block_bytes, end - offset))
                yield block

    def _open(self, name: str) -> BinaryIO:
        return open(self._path(name), "rb", buffering=0, opener=_regular)

    def _read(self, name: str, file: BinaryIO, offset: int, length: int) -> bytes:
        end = os.fstat(file.fileno()).st_size
        if offset + length > end:  # before memory is taken for it
            raise StoreError(f"{self._path(name)}: read: ends at byte {end}, before {offset + length}")
        parts, left = [], length
        while left:
            part = os.pread(file.fileno(), left, offset + length - left)
            if not part:
                raise StoreError(f"{self._path(name)}: read: ends at byte {offset + length - left}")
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def put(self, name: str, data: bytes) -> None:
        with self.writer(name) as file:
            file.write(data)

    def create(self, name: str, data: bytes) -> bool:
        with self._explain("create", name):
            with new_file(self._work(name)) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                try:
                    os.link(file.name, self._path(name))
                except FileExistsError:
                    return False
            sync_folder(self._path(name).parent)
        return True

    @contextlib.contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        with self._explain("write", name):
            with new_file(self._work(name)) as file:
                target = WriteBehindFile(file)
                try:
                    yield target  # type: ignore[misc]
                    target.finish()
                finally:
                    target.stop()
                os.replace(file.name, self._path(name))
            sync_folder(self._path(name).parent)

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            with self._explain("delete", name), contextlib.suppress(FileNotFoundError):
                self._path(name).unlink()
                sync_folder(self._path(name).parent)

    def delete_folder(self, folder: str) -> None:
        path = self._path(folder)
        with self._explain("delete", folder):
            for _ in range(_TRIES):
                try:
                    shutil.rmtree(path)
                except OSError as error:  # others may write to it or delete it at the same time
                    if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                        raise
                if not path.exists():
                    return

    def check_writable(self) -> None:
        if self.root.is_file():
            raise ConfigError(f"{self.url}: is a file, expected a directory")
        above = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise ConfigError(f"{self.url}: {above} is not a directory that can be written")

    def _path(self, name: str) -> Path:
        if name == WORK or name.startswith(f"{WORK}/"):
            self._check_work()
        return self.root / name

    def _work(self, name: str) -> Path:
        """The work folder. It is created, and the object's own folder as well."""
        self._path(name).parent.mkdir(parents=True, exist_ok=True)
        work = self.root / WORK
        with contextlib.suppress(FileExistsError):
            work.mkdir()
        self._check_work()
        return work

    def _check_work(self) -> None:
        """Refuse a work folder through which other users decide where or what we write."""
        work = self.root / WORK
        try:
            found = work.lstat()
        except OSError:
            return  # it does not exist
        if not stat.S_ISDIR(found.st_mode):
            what = "a link" if stat.S_ISLNK(found.st_mode) else "a file"
            raise StoreError(f"{work}: is {what}, expected a folder; remove it or choose another directory")
        above = self.root.stat()
        if above.st_mode & stat.S_IWOTH and found.st_uid not in (os.geteuid(), above.st_uid):
            raise StoreError(
                f"{work}: belongs to user {found.st_uid}, and anyone may write beside it; "
                "remove it or choose another directory"
            )

    @contextlib.contextmanager
    def _explain(self, operation: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename2 or error.filename or self._path(name)
            raise StoreError(f"{where}: {operation}: {error.strerror or error}") from error


class OpenFile:
    """A file that any number of threads may read at once; it is closed when the last reference goes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = _regular(path)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # `os` is gone when Python ends
        if hasattr(self, "_descriptor"):
            close(self._descriptor)

    def read_into(self, ranges: Sequence[tuple[int, memoryview]]) -> None:
        for offset, out in ranges:
            done = 0
            while done < len(out):
                try:
                    read = os.preadv(self._descriptor, [out[done:] if done else out], offset + done)
                except OSError as error:
                    raise StoreError(f"{self._path}: read: {error.strerror or error}") from error
                if not read:
                    end = os.fstat(self._descriptor).st_size
                    raise StoreError(f"{self._path}: read: ends at byte {end}, before {offset + len(out)}")
                done += read

    def will_need(self, offset: int, length: int) -> None:
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):  # it is a hint
                os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_WILLNEED)


def _regular(path: str, flags: int = os.O_RDONLY) -> int:
    """Open a file to read. Pipes and devices are refused: one would wait for a writer, the other never end.

    Raises:
        StoreError: the file is not a regular file.
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise StoreError(f"{path}: read: is not a regular file")
    os.set_blocking(descriptor, True)
    return descriptor


def _walk(folder: str, above: str, without: str) -> Iterator[str]:
    """Sorted names of the files under a folder, each with `above` in front, without the folder `without`."""
    try:
        with os.scandir(folder) as inside:
            entries = {entry.name + "/" * entry.is_dir(follow_symlinks=False): entry for entry in inside}
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for name in sorted(entries):
        if not name.endswith("/"):
            if entries[name].is_file():
                yield above + name
        elif above + name != without:
            yield from _walk(entries[name].path, above + name, without)
