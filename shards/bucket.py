"""A store that is a bucket of S3, Google Cloud Storage or Azure, or, for reading only, a web server.

obstore speaks the protocols; this module adds retries, parallel requests and messages in plain words.

An object is written to a temporary file on this machine and uploaded when it is complete, in one request or
in parts that become an object only together: no reader sees half of it, and a failed upload is simply
repeated. obstore retries a failed part before the upload counts as failed. The price is room in TMPDIR for
one object per writer. A process that is killed between the parts of a large object leaves them in the bucket,
invisible; a lifecycle rule that aborts incomplete uploads clears them away.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, TypeVar

import obstore

from oxcart.shards import retry
from oxcart.shards.directory import WORK
from oxcart.shards.endpoint import Endpoint
from oxcart.shards.errors import StoreError
from oxcart.shards.prefetch import pieces, prefetch, spans

REQUESTS = 16
"""Concurrent requests per store."""
PREFETCH = 4
"""Blocks of a stream that are requested in advance."""
WHOLE_BYTES = 16 << 20
"""Size of the largest object that is read or written in one request, in bytes."""
MANY = 16
"""Number of names in one folder above which the folder is listed instead of looking up each name."""

Result = TypeVar("Result")


class Bucket:
    """Objects under a URL; the methods are those of `oxcart.shards.store.Store`."""

    remote = True

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.url = endpoint.url
        self.writable = self.listable = endpoint.scheme not in ("http", "https")
        self._pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="oxcart-store")

    def found(self, names: Sequence[str]) -> dict[str, int]:
        folders: dict[str, list[str]] = {}
        for name in names:
            folders.setdefault(name.rpartition("/")[0], []).append(name)
        sizes: dict[str, int | None] = {}
        for folder, inside in folders.items():
            if self.listable and len(inside) > MANY:
                listed = self._listed(folder)
                sizes |= {name: listed.get(name) for name in inside} if listed is not None else {}
        left = [name for name in names if name not in sizes]
        calls = [partial(self._size, name) for name in left]
        # A single request needs no other thread.
        sizes |= zip(left, [calls[0]()] if len(calls) == 1 else prefetch(self._pool, calls), strict=True)
        return {name: size for name, size in sizes.items() if size is not None}

    def names(self, folder: str, limit: int | None) -> list[str]:
        if not self.listable:
            raise StoreError(f"{self._at(folder)}: list: a web server cannot list its files")

        def call(attempt: int) -> list[str]:
            entries = itertools.chain.from_iterable(obstore.list(self._endpoint.reader, folder or None))
            names = (entry["path"] for entry in entries)
            return sorted(
                itertools.islice((n for n in names if folder or not n.startswith(WORK + "/")), limit)
            )

        return self._do("list", folder, call)

    def read(self, name: str, most: int | None = None) -> bytes:
        whole = WHOLE_BYTES if most is None else min(WHOLE_BYTES, most)

        def call(attempt: int) -> bytes | int:
            result = self._get(name)
            size = int(result.meta["size"])
            return _body(result, size) if size <= whole else size

        found = self._do("read", name, call)
        if isinstance(found, bytes):
            return found
        if most is not None and found > most:
            raise StoreError(f"{self._at(name)}: read: has {found} bytes, expected at most {most}")
        return self._read_pieces(name, 0, found, found)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        if length > WHOLE_BYTES:  # before memory is taken for it
            self._check_end(name, self._known_size(name), offset + length)
        return self._read_pieces(name, offset, offset + length)

    def _read_pieces(self, name: str, start: int, end: int, size: int | None = None) -> bytes:
        calls = [partial(self._range, name, offset, length, size) for offset, length in pieces(start, end)]
        return calls[0]() if len(calls) == 1 else b"".join(prefetch(self._pool, calls))

    def open(self, name: str) -> OpenObject:
        return OpenObject(self, name)

    def stream(self, name: str, block_bytes: int, size: int | None) -> Iterator[bytes]:
        end = self._known_size(name) if size is None else size
        calls = (
            partial(self._range, name, start, min(block_bytes, end - start), end)
            for start in range(0, end, block_bytes)
        )
        yield from prefetch(self._pool, calls, PREFETCH)

    def _range(self, name: str, offset: int, length: int, size: int | None = None) -> bytes:
        """Read a range in one request; a `size` other than that of the whole object is an error."""

        def call(attempt: int) -> tuple[bytes, int]:
            result = self._get(name, (offset, offset + length))
            end = int(result.meta["size"])
            return _body(result, min(length, end - offset)), end

        try:
            found = self._do("read", name, call) if length else None
        except _RequestError as error:
            if error.failure.status != 416:
                raise
            found = None
        data, end = found or (b"", self._known_size(name))
        if size not in (None, end):
            raise StoreError(f"{self._at(name)}: read: has changed from {size} to {end} bytes")
        self._check_end(name, end, offset + length)
        return data

    def _get(self, name: str, span: tuple[int, int] | None = None) -> Any:
        """obstore's answer to one request for an object, or for its bytes from a start to an end."""
        return obstore.get(self._endpoint.reader, name, options={"range": span} if span else {})

    def _known_size(self, name: str) -> int:
        size = self._size(name)
        if size is None:
            raise StoreError(f"{self._at(name)}: stat: no such object (HTTP 404 Not Found)")
        return size

    def _check_end(self, name: str, end: int, wanted: int) -> None:
        if wanted > end:
            raise StoreError(f"{self._at(name)}: read: ends at byte {end}, before {wanted}")

    def put(self, name: str, data: bytes) -> None:
        self._do("write", name, lambda attempt: obstore.put(self._endpoint.writer, name, data))

    def create(self, name: str, data: bytes) -> bool:
        def call(attempt: int) -> bool:
            try:
                obstore.put(self._endpoint.writer, name, data, mode="create")
            except obstore.exceptions.AlreadyExistsError:
                # An attempt whose answer was lost may have written it.
                return attempt > 1 and bytes(obstore.get(self._endpoint.reader, name).bytes()) == data
            return True

        return self._do("create", name, call)

    @contextlib.contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        with contextlib.ExitStack() as opened:
            with self._explain_file(name):
                file = opened.enter_context(tempfile.TemporaryFile(prefix="oxcart-"))
            yield _Spool(file, partial(self._explain_file, name))  # type: ignore[misc]
            with self._explain_file(name):
                size = file.seek(0, io.SEEK_END)

            def call(attempt: int) -> None:
                file.seek(0)
                if size <= WHOLE_BYTES:
                    obstore.put(self._endpoint.writer, name, file.read())
                else:
                    obstore.put(self._endpoint.uploader, name, file, chunk_size=WHOLE_BYTES)

            self._do("write", name, call)

    def delete(self, names: Sequence[str]) -> None:
        if not names:
            return
        try:
            self._do("delete", names[0], lambda _: obstore.delete(self._endpoint.reader, list(names)))
        except _RequestError as error:
            if error.failure.status != 404 or error.failure.code == "NoSuchBucket":
                raise
            # Some stores stop at a name that does not exist.
            for _ in prefetch(self._pool, [partial(self._delete, name) for name in names]):
                pass

    def _delete(self, name: str) -> None:
        def call(attempt: int) -> None:
            with contextlib.suppress(FileNotFoundError):
                obstore.delete(self._endpoint.reader, name)

        self._do("delete", name, call)

    def delete_folder(self, folder: str) -> None:
        self.delete(self.names(folder, None))

    def check_writable(self) -> None:
        name = f"{WORK}/probe-{uuid.uuid4().hex[:12]}"
        self.put(name, b"")
        self.delete([name])

    def _listed(self, folder: str) -> dict[str, int] | None:
        """Name -> bytes of the objects directly in a folder; None if listing is not allowed."""

        def call(attempt: int) -> dict[str, int]:
            found = obstore.list_with_delimiter(self._endpoint.reader, prefix=folder or None)
            return {entry["path"]: int(entry["size"]) for entry in found["objects"]}

        try:
            return self._do("list", folder, call)
        except _RequestError as error:
            if error.failure.status in (401, 403):
                return None
            raise

    def _size(self, name: str) -> int | None:
        def call(attempt: int) -> int | None:
            try:
                return int(obstore.head(self._endpoint.reader, name)["size"])
            except retry.ERRORS as error:
                if not self.writable and retry.headless(error):
                    return first_byte()
                if isinstance(error, FileNotFoundError):
                    return None
                raise

        def first_byte() -> int | None:
            try:
                result = self._get(name, (0, 1))
            except FileNotFoundError:
                return None
            except retry.ERRORS as error:
                if retry.judge(error, self._endpoint.timeout_s).status != 416:
                    raise
                return 0  # there is no first byte
            return int(result.meta["size"])

        return self._do("stat", name, call)

    def _do(self, operation: str, name: str, call: Callable[[int], Result]) -> Result:
        """Make a call with retries, and return its result.

        Raises:
            _RequestError: the call did not succeed.
        """
        endpoint = self._endpoint
        attempt = partial(retry.attempt, call, host=endpoint.host, timeout_s=endpoint.timeout_s)
        try:
            if threading.current_thread() is not threading.main_thread():
                return attempt()
            # obstore blocks Ctrl-C in the main thread; waiting for another thread does not.
            return next(prefetch(self._pool, [attempt]))
        except retry.FailedError as error:
            raise self._explain(operation, name, error) from error

    def _explain(self, operation: str, name: str, error: retry.FailedError) -> _RequestError:
        return _RequestError(
            f"{self._at(name)}: {operation}: {self._reason(operation, error)}", error.failure
        )

    def _reason(self, operation: str, error: retry.FailedError) -> str:
        """Why a request failed, after how many attempts, and what can be done."""
        failure, endpoint = error.failure, self._endpoint
        reason = failure.reason
        if failure.status == 404 and operation in ("write", "create"):
            reason = reason.replace("no such object", "there is no such bucket or upload")
        if failure.token:
            reason += f"; {endpoint.unsigned}=true reads a public bucket without"
        elif failure.status in (401, 403) and endpoint.credentials:
            reason += (
                f"; no credentials were found, set {endpoint.credentials}"
                if endpoint.anonymous
                else "; the credentials do not allow it"
            )
            if operation == "stat" and endpoint.scheme == "s3":
                reason += "; without s3:ListBucket it may be missing as well"
        if failure.status is None and not failure.token and endpoint.server:
            reason += f" by {endpoint.server}"
        if error.attempts > 1:
            reason += f", {error.attempts} attempts"
        return reason

    @contextlib.contextmanager
    def _explain_file(self, name: str) -> Iterator[None]:
        """Explain a failure of the temporary file."""
        try:
            yield
        except OSError as error:
            reason = f"{error.strerror or error} in {tempfile.gettempdir()}, where it is put together"
            raise StoreError(f"{self._at(name)}: write: {reason}; set TMPDIR") from error

    def _at(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url


@dataclass(frozen=True)
class OpenObject:
    """An object that any number of threads may read at once, each with its own requests."""

    bucket: Bucket
    name: str

    def read_into(self, ranges: Sequence[tuple[int, memoryview]]) -> None:
        for span in spans([(offset, len(out)) for offset, out in ranges]):
            data = memoryview(self.bucket._range(self.name, span.start, span.end - span.start))
            for place in span.ranges:
                offset, out = ranges[place]
                out[:] = data[offset - span.start : offset - span.start + len(out)]

    def will_need(self, offset: int, length: int) -> None:
        """Do nothing: no system reads a bucket in advance."""


class _RequestError(StoreError):
    """A request failed, after all of its attempts."""

    def __init__(self, message: str, failure: retry.Failure) -> None:
        super().__init__(message)
        self.failure = failure

    def __reduce__(self) -> tuple[object, ...]:
        """Cross a process boundary as a plain StoreError."""
        return StoreError, self.args


class _Spool:
    """A temporary file whose failures are explained, while those of its user are not."""

    def __init__(
        self, file: BinaryIO, explain: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        self._file, self._explain = file, explain

    def write(self, data: bytes | memoryview) -> int:
        with self._explain():
            return self._file.write(data)


def _body(result: Any, length: int) -> bytes:
    """The body of a response, which must have `length` bytes."""
    data: bytes = result.bytes().to_bytes()
    if len(data) != length:
        raise retry.CutError(f"the body has {len(data)} of {length} bytes")
    return data
