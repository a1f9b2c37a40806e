"""A store: named objects under one root, read by range and written atomically.

    Store("bridge")                          a directory
    Store("gs://bucket/bridge")              Google Cloud Storage; public buckets need no credentials
    Store("s3://bucket/bridge")              S3, of any endpoint
    Store("az://container/bridge")           Azure
    Store("https://example.org/bridge")      a web server that serves ranges, for reading only
    Store("hf://datasets/owner/bridge")      a dataset repository of the Hugging Face Hub, for reading only

Names are relative and use "/". A reader sees the whole object or none: in a directory, a write is a temporary
file under `.oxcart/` that is renamed into place; in a bucket, it is one atomic put. All work in progress lies
under `.oxcart/`, which the commit of a compile removes.

obstore, which reads buckets, is imported only when the first bucket is opened, and huggingface_hub when the
first repository of the Hub is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO, Protocol

from oxcart.shards.directory import WORK, Directory
from oxcart.shards.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from oxcart.shards.bucket import Bucket

__all__ = ["BLOCK_BYTES", "WORK", "Reader", "Store"]

BLOCK_BYTES = 8 << 20
"""Default size of the blocks of a stream, in bytes."""
_REPOSITORY = re.compile("hf://datasets/[^/]+/[^/]+")
"""URL of a whole repository of the Hub."""


class Reader(Protocol):
    """An object that any number of threads may read by range at once."""

    def read_into(self, ranges: Sequence[tuple[int, memoryview]]) -> None:
        """Fill each buffer from its offset; in a bucket, ranges that lie near each other are one request.

        Raises:
            StoreError: the object ends too early or cannot be read.
        """
        ...

    def will_need(self, offset: int, length: int) -> None:
        """Tell the system that these bytes are wanted soon, so that it may fetch them in advance."""
        ...


class Store:
    """Objects under the directory or URL `url`. A store is pickled as its URL.

    Every method raises a `StoreError` if the store cannot be reached, read or written. Its message is one
    line with the URL, the operation, the reason, and the number of attempts if there were several.

    Raises:
        ConfigError: `url` has an unknown scheme, names no bucket, or contains a secret; or the environment
            holds a wrong setting for the store.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self._place = _open(os.fspath(url))
        self.url = self._place.url
        """Directory or URL of the store, without a secret. On the Hub it names a commit, so that everyone who
        gets it reads the same files."""
        self.remote = self._place.remote
        """Whether each call is a round trip to a server, so that many at once are faster than one by one."""
        self.writable = self._place.writable
        """Whether objects can be written; a web server and the Hub are for reading only."""
        self.listable = self._place.listable
        """Whether the store can list its objects; a web server cannot."""

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        """Leave connections behind."""
        return Store, (self.url,)

    @property
    def folder(self) -> str:
        """Name of the innermost folder of the URL; that of a repository has no revision."""
        url = self.url.partition("@")[0] if _REPOSITORY.fullmatch(self.url) else self.url
        return url.rstrip("/").rpartition("/")[2]

    @property
    def _target(self) -> Directory | Bucket:
        if not self.writable and self.url.startswith("hf://"):
            raise ConfigError(
                f"{self.url}: the Hub is for reading; expected a directory or a bucket, and then oxcart push"
            )
        if not self.writable:
            raise ConfigError(f"{self.url}: a web server is for reading; expected a directory or a bucket")
        return self._place

    def check_writable(self) -> None:
        """Check that objects can be written, before long work. Nothing is left behind.

        Raises:
            ConfigError: the store is a web server, a file, or a directory without permission to write.
            StoreError: the bucket does not exist or refuses an object.
        """
        self._target.check_writable()

    def found(self, names: Sequence[str]) -> dict[str, int]:
        """Name -> bytes of the given objects that exist, in few round trips."""
        return self._place.found(names)

    def missing(self, names: Sequence[str]) -> list[str]:
        """The given names that do not exist, in few round trips."""
        there = self.found(names)
        return [name for name in names if name not in there]

    def exists(self, name: str) -> bool:
        """Whether the object exists."""
        return not self.missing([name])

    def sizes(self, names: Sequence[str]) -> dict[str, int]:
        """Name -> bytes of the objects, all of which must exist, in few round trips."""
        there = self.found(names)
        for name in names:
            if name not in there:
                reason = "no such object" if self.remote else "No such file or directory"
                raise StoreError(f"{self.url}/{name}: stat: {reason}")
        return {name: there[name] for name in names}

    def size(self, name: str) -> int:
        """Bytes of the object."""
        return self.sizes([name])[name]

    def read(self, name: str, most: int | None = None) -> bytes:
        """The whole object. If it has more than `most` bytes, a StoreError is raised before reading any."""
        return self._place.read(name, most)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. If the object ends earlier, a StoreError is raised."""
        return self._place.read_range(name, offset, length)

    def open(self, name: str) -> Reader:
        """The object, to be read often; in a directory, a file that stays open while the result lives."""
        return self._place.open(name)

    def stream(self, name: str, block_bytes: int = BLOCK_BYTES, size: int | None = None) -> Iterator[bytes]:
        """The object from start to end in blocks of `block_bytes`, the last of which may be shorter.

        In a bucket, a few blocks are prefetched. A known `size` of the object saves a round trip; if it is
        wrong, a StoreError is raised.
        """
        return self._place.stream(name, block_bytes, size)

    def put(self, name: str, data: bytes) -> None:
        """Write an object atomically, replacing any object of that name."""
        self._target.put(name, data)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object atomically unless one of that name exists, and return whether it was written."""
        return self._target.create(name, data)

    def writer(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A file to write, which becomes the object if the block succeeds and vanishes if it fails."""
        return self._target.writer(name)

    def delete(self, *names: str) -> None:
        """Remove the given objects that exist; in a directory, in the given order."""
        self._target.delete(names)

    def delete_folder(self, folder: str) -> None:
        """Remove everything under a folder, if it exists."""
        self._target.delete_folder(folder)

    def list(self, folder: str = "", limit: int | None = None) -> list[str]:
        """Sorted names of all objects under `folder`, at any depth, without work in progress.

        Args:
            folder: name of the folder; "" is the root.
            limit: maximum number of names; None means all.
        """
        return self._place.names(folder, limit)


def store_of(file: str) -> tuple[Store, str]:
    """The store that is the folder of a file or URL, and the name of the file there."""
    folder, slash, name = file.rpartition("/")
    return Store(folder or ("/" if slash else ".")), name


def _open(url: str) -> Directory | Bucket:
    if not url:
        raise ConfigError("store: expected a directory or URL, got ''")
    if "://" not in url:
        if slip := re.match(r"(?i)(s3|gs|az|hf|https?):/", url):
            remedy = f"{slip[0]}/{url[slip.end() :]} for a URL, ./{url} for a directory"
            raise ConfigError(f"store {url!r}: a URL has two slashes; expected {remedy}")
        return Directory(url)
    from oxcart.shards.bucket import Bucket  # a directory does without obstore
    from oxcart.shards.endpoint import connect

    if url.lower().startswith("hf://"):
        try:
            from oxcart.shards.hub_files import HubFiles  # huggingface_hub is an extra
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"store {url!r}: the Hub needs the package {error.name}; pip install 'oxcart[hub]'"
            ) from error
        return HubFiles(url)
    return Bucket(connect(url))
