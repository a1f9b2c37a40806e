"""New files and private folders that are safe where other users may write.

In a folder that others write to, such as /tmp or a node's scratch disk, a name can be taken before we use it:
by a link, through which we would overwrite the file that it points to; by a FIFO, which would block us; by a
file whose content somebody else chose. So a new file never existed before (O_EXCL, which follows no link) and
has a name that cannot be guessed. It takes its final name by a rename, which replaces a link and does not
follow it. A private folder belongs to this user alone, and each file in it is checked before it is used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from oxcart.shards.errors import ConfigError, StoreError

WRITTEN_BY = "written by oxcart"
"""Mark inside images and plots, by which a later run knows that it may replace them."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
UNFINISHED = ".oxcart.*.tmp"
"""Pattern of the names of new files until they are renamed; a process that is killed leaves them behind.

The final name is no part of it, since that may be as long as the system allows.
"""
_TRIES = 8
"""Attempts to open a file that other processes create and remove at the same time."""


@contextlib.contextmanager
def new_file(folder: Path) -> Iterator[BinaryIO]:
    """A new file in an existing folder, removed at the end of the block unless it was renamed."""
    path = folder / UNFINISHED.replace("*", os.urandom(6).hex())
    with open(path, "xb") as file:
        try:
            yield file
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that durably replaces `path` if the block succeeds, and vanishes if it fails.

    The folder of `path` must exist. A link at `path` is replaced; the file that it points to stays unchanged.
    """
    with new_file(path.parent) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        os.replace(file.name, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the path in errors of the system inside the block, which do not name an open file.

    Raises:
        StoreError: the system refused an operation inside the block.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: write: {error.strerror or error}") from error


def write_file(path: Path, data: bytes) -> None:
    """Write a file durably and atomically, and create its folder.

    Raises:
        StoreError: the file cannot be written; what was there before is unchanged.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(data)


def remove(path: Path) -> None:
    """Remove a file, a link (not what it points to), or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_folder(path: Path, argument: str) -> int:
    """A descriptor of a folder for this user alone, created with mode 0700 if it does not exist.

    A folder that other users may read is closed to them. One that they may write to is refused, since its
    content may be theirs.

    Args:
        path: path of the folder.
        argument: name of the option or field that holds the path, for the error.

    Raises:
        ConfigError: the folder is a link, belongs to another user, lets others write, or cannot be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        if path.is_symlink():
            raise ConfigError(
                f"{argument}: {path} is a link, expected a folder; remove it or choose another place"
            )
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{argument}: {path}: {error.strerror or error}") from error
    found = os.fstat(descriptor)
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != os.geteuid():
        wrong = f" belongs to user {found.st_uid}, expected {os.geteuid()}; choose another place"
    elif mode & _OTHERS_WRITE:
        wrong = f" lets other users write (mode {mode:o}); chmod 700 it or choose another place"
    else:
        try:
            if mode & _OTHERS:
                os.fchmod(descriptor, mode & ~_OTHERS)
            return descriptor
        except OSError as error:
            wrong = f": chmod: {error.strerror or error}"
    os.close(descriptor)
    raise ConfigError(f"{argument}: {path}{wrong}")


def open_private(folder: int, name: str) -> int:
    """A descriptor of a file in a private folder, to read and write; the file is created if it is missing.

    Whatever else has that name (a link, a file with a second name, a FIFO, a device, another user's file) is
    removed: the name goes, and what it pointed to stays unchanged.

    Args:
        folder: descriptor of a `private_folder`.
        name: name of the file.

    Raises:
        OSError: the file cannot be opened, or what has its name cannot be removed.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            try:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                return os.open(name, _OPEN | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
            if not _is_own(found):
                os.unlink(name, dir_fd=folder)
                continue
            descriptor = os.open(name, _OPEN, dir_fd=folder)
            if _is_own(os.fstat(descriptor)):
                return descriptor
            os.close(descriptor)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def _is_own(found: os.stat_result) -> bool:
    """Whether a file is regular, has one name, belongs to this user, and cannot be written by others."""
    alone = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    return alone and found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE
