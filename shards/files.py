"""New files and private folders, safe where other users may write.

In a folder that others write to, such as /tmp or a node's scratch disk, a name can be taken before we use it:
by a link, through which we would overwrite the file that it points to; by a FIFO, which would keep us
waiting; by a file whose bytes somebody else chose. So a new file never existed before (O_EXCL, which follows
no link) and has a name that cannot be guessed; it takes its final name by a rename, which replaces a link and
does not follow it. A private folder belongs to this user alone, and each file in it is looked at before it is
used.
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
"""What images and plots say of themselves, so that a later one may take their place."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
UNFINISHED = ".oxcart.*.tmp"
"""Pattern of the names that new files have until they are renamed; a process that is killed leaves them.

The final name is no part of it, since that may be as long as the system allows.
"""
_TRIES = 8
"""Attempts to open a file that other processes make and remove at the same time."""


@contextlib.contextmanager
def new_file(folder: Path) -> Iterator[BinaryIO]:
    """A new file in a folder that exists, removed at the end of the block unless it has been renamed."""
    path = folder / UNFINISHED.replace("*", os.urandom(6).hex())
    with open(path, "xb") as file:
        try:
            yield file
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that durably takes the place of `path` if the block ends well, and vanishes if it does not.

    The folder of `path` must exist. A link at `path` is replaced, and what it points to stays as it is.
    """
    with new_file(path.parent) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        os.replace(file.name, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the path in whatever the system refuses inside the block; of an open file it names none.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: write: {error.strerror or error}") from error


def write_file(path: Path, data: bytes) -> None:
    """Write a file as `replacing` does, and make its folder.

    Raises:
        StoreError: it cannot be written; what was there before is whole.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(data)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; of a link the link alone. None is fine."""
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
    """A descriptor of a folder that is this user's alone, made with mode 0700 if it is not there.

    Where other users may read one, it is closed to them; where they may write, somebody else may have chosen
    what is in it.

    Args:
        path: of the folder.
        argument: what the user calls the place, for the error.

    Raises:
        ConfigError: the folder is a link, belongs to somebody else, lets others write, or cannot be made.
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
    """A descriptor of a file in a private folder, to read and write; the file is made if it is not there.

    What has that name and is not a regular file of this user's alone (a link, a file with a second name, a
    FIFO, a device, somebody else's file) is removed: the name goes, and what it pointed to stays as it is.

    Args:
        folder: descriptor of a `private_folder`.
        name: of the file.

    Raises:
        OSError: it cannot be opened, or what has the name cannot be removed.
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
    """Whether a file is regular, has one name, belongs to this user, and lets no other user write."""
    alone = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    return alone and found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE
