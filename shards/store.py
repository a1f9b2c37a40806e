"""A store: named objects under one root, read by range and written atomically.

A store is a directory. Names are relative and use "/". A write goes to a temporary name under
`.oxcart/` of the same root, is fsynced, and is renamed into place: a reader sees the whole object or none,
and whatever a crash leaves behind lies in one folder that the commit of a compile removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from oxcart.shards.behind import BehindWriter
from oxcart.shards.errors import ConfigError, StoreError

WORK = ".oxcart"
"""Folder of all work in progress, inside the root."""


class Store:
    """Objects under the directory `root`.

    Raises:
        ConfigError: `url` names a scheme that is not a directory.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        text = os.fspath(url)
        if "://" in text:
            raise ConfigError(f"store {text!r}: expected a directory; copy the data to one")
        self.root = Path(text)
        self.url = text

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def exists(self, name: str) -> bool:
        """Whether the object is there."""
        with self._explain("stat", name):
            return self._path(name).is_file()

    def size(self, name: str) -> int:
        """Bytes of the object."""
        with self._explain("stat", name):
            return self._path(name).stat().st_size

    def list(self, folder: str = "") -> list[str]:
        """Names of all objects under `folder`, at any depth, sorted; without work in progress."""
        with self._explain("list", folder):
            root = self._path(folder)
            found = [p.relative_to(self.root).as_posix() for p in root.rglob("*") if p.is_file()]
        return sorted(n for n in found if folder or not n.startswith(WORK + "/"))

    def read(self, name: str) -> bytes:
        """The whole object."""
        with self._explain("read", name):
            return self._path(name).read_bytes()

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`; an object that ends before that is a StoreError."""
        with self._explain("read", name), open(self._path(name), "rb", buffering=0) as file:
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
        """Write an object atomically, replacing one of that name."""
        with self.writer(name) as file:
            file.write(data)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object atomically unless one of that name exists; says whether it was written."""
        with self._explain("create", name):
            temporary = self._temporary(name)
            try:
                _write_durably(temporary, data)
                os.link(temporary, self._path(name))
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            _fsync_directory(self._path(name).parent)
        return True

    @contextlib.contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """A file to write; it becomes the object when the block ends well and vanishes when it does not."""
        with self._explain("write", name):
            temporary = self._temporary(name)
            try:
                with open(temporary, "xb", buffering=0) as file:
                    behind = BehindWriter(file)
                    try:
                        yield behind  # type: ignore[misc]
                        behind.finish()
                    finally:
                        behind.stop()
                os.replace(temporary, self._path(name))
                _fsync_directory(self._path(name).parent)
            finally:
                temporary.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Remove an object; none of that name is fine."""
        with self._explain("delete", name), contextlib.suppress(FileNotFoundError):
            self._path(name).unlink()
            _fsync_directory(self._path(name).parent)

    def delete_folder(self, folder: str) -> None:
        """Remove everything under a folder; none of that name is fine."""
        path = self._path(folder)
        with self._explain("delete", folder):
            for last in (False, False, False, True):
                try:
                    shutil.rmtree(path)
                except OSError as error:  # others may write to it or delete it at the same time
                    if last and error.errno in (errno.ENOENT, errno.ENOTEMPTY):
                        return
                    if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                        raise
                if not path.exists():
                    return

    def _path(self, name: str) -> Path:
        return self.root / name

    def _temporary(self, name: str) -> Path:
        """A fresh name under the work folder, which it makes together with the object's own folder."""
        self._path(name).parent.mkdir(parents=True, exist_ok=True)
        work = self.root / WORK
        work.mkdir(exist_ok=True)
        return work / f"{Path(name).name}.{uuid.uuid4().hex[:12]}.tmp"

    @contextlib.contextmanager
    def _explain(self, operation: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename2 or error.filename or self._path(name)
            raise StoreError(f"{where}: {operation}: {error.strerror or error}") from error


def _write_durably(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
