"""Files of an export: Parquet and MP4, each of which takes episode after episode until it is full.

A file is written in a temporary one first, because both formats need to go back in it, and is then put into
the store. Nothing in it depends on the clock or the machine.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from types import TracebackType
from typing import BinaryIO, Generic, Protocol, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from oxcart.compile.export.features import FILES_PER_FOLDER
from oxcart.shards.errors import StoreError
from oxcart.shards.store import WORK, Store

GROUP_BYTES, GROUP_ROWS = 4 << 20, 2000
"""Size of a row group, by one or the other: a reader keeps a few, and the footer has a page for each."""


class FileWriter(Protocol):
    """What writes one file."""

    def close(self) -> None:
        """Complete the file."""
        ...

    def drop(self) -> None:
        """Give the file up."""
        ...


Kind = TypeVar("Kind", bound=FileWriter)
Chunk = bytes | memoryview
"""A closed group of coded frames, as codecs of videos store it."""


class RowFile:
    """A Parquet file whose row groups hold one table that was added, or several small ones."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(file, schema, compression="snappy")
        self._waiting: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Append the rows of a table."""
        self._waiting.append(table)
        size, rows = (sum(getattr(one, what) for one in self._waiting) for what in ("nbytes", "num_rows"))
        if size >= GROUP_BYTES or rows >= GROUP_ROWS:
            self._write()

    def _write(self) -> None:
        if self._waiting:
            table = pa.concat_tables(self._waiting)
            self._writer.write_table(table, row_group_size=table.num_rows)
            self._waiting = []

    def close(self) -> None:
        """Write the end of the file."""
        self._write()
        self._writer.close()

    def drop(self) -> None:
        """Close the writer, which would complain otherwise."""
        self._writer.close()


class VideoFile:
    """An MP4 file of coded frames, shown at a constant rate.

    Chunks are kept in a temporary file beside it until the file is complete, so they take no memory.

    Args:
        file: where it is written.
        codec: one of `VIDEO_EXTENSIONS`.
        size: height and width of the frames, in pixels.
        fps: frames per second.
        folder: folder of the temporary file; None is the system's.
    """

    def __init__(
        self, file: BinaryIO, codec: str, size: tuple[int, int], fps: int, folder: str | None
    ) -> None:
        self.frames = 0
        """Frames that it holds."""
        self._file, self._codec, self._size, self._rate = file, codec, size, Fraction(fps)
        self._sizes: list[int] = []
        self._chunks = tempfile.TemporaryFile(prefix="oxcart-", dir=folder)  # noqa: SIM115  closed with the film

    def add(self, chunks: Sequence[Chunk], frames: int) -> None:
        """Append the chunks of an episode, which hold so many frames."""
        for chunk in chunks:
            self._chunks.write(chunk)
            self._sizes.append(len(chunk))
        self.frames += frames

    def close(self) -> None:
        """Write the file.

        Raises:
            ValueError: the chunks do not hold a frame per step.
        """
        from oxcart.shards.video import write_mp4  # PyAV is an extra

        with self._chunks as kept:
            kept.seek(0)
            members = ([kept.read(size)] for size in self._sizes)
            found = write_mp4(self._file, self._codec, members, self._size, self._rate)
        if found != self.frames:
            raise ValueError(f"holds {found} frames, expected {self.frames}")

    def drop(self) -> None:
        """Forget the chunks."""
        self._chunks.close()


def temporary_folder(store: Store) -> str | None:
    """Folder of temporary files: with the work in progress of a directory; None is the system's."""
    return None if store.remote else f"{store.url}/{WORK}"


class FileSeries(Generic[Kind]):
    """Files of one kind: chunk-000/file-000, and others when one is full.

    Args:
        store: where they go.
        name: name of a file, with `chunk_index` and `file_index` in braces.
        most: size that a file grows to, in bytes; an episode is never divided.
        begin: opens the writer of a file.
    """

    def __init__(self, store: Store, name: str, most: int, begin: Callable[[BinaryIO], Kind]) -> None:
        self._store, self._name, self._most, self._begin = store, name, most, begin
        self._number = self._size = 0
        self._file: BinaryIO | None = None
        self._writer: Kind | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        elif self._writer is not None and self._file is not None:
            with self._file:
                self._writer.drop()

    @property
    def place(self) -> tuple[int, int]:
        """Folder and file that is written now."""
        return divmod(self._number, FILES_PER_FOLDER)

    def room(self, size: int) -> Kind:
        """The writer of the file that takes so many more bytes."""
        if self._writer is not None and self._size + size > self._most:
            self._finish()
            self._number += 1
        if self._writer is None:
            with contextlib.ExitStack() as opened:
                folder = temporary_folder(self._store)
                file = opened.enter_context(tempfile.TemporaryFile(prefix="oxcart-", dir=folder))
                self._writer = self._begin(file)
                opened.pop_all()
            self._file, self._size = file, 0
        self._size += size
        return self._writer

    def _finish(self) -> None:
        """Complete the file and put it into the store."""
        writer, file = self._writer, self._file
        if writer is None or file is None:
            return
        self._writer = self._file = None
        folder, number = self.place
        name = self._name.format(chunk_index=folder, file_index=number)
        with file:
            try:
                writer.close()
                file.seek(0)
                with self._store.writer(name) as target:
                    shutil.copyfileobj(file, target, 1 << 20)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise StoreError(f"{self._store.url}/{name}: write: {reason}") from error
