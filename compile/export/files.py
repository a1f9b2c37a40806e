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
from typing import Any, BinaryIO, Generic, NamedTuple, Protocol, Self, TypeVar

import av
import pyarrow as pa
import pyarrow.parquet as pq

from oxcart.compile.export.features import FILES_PER_FOLDER
from oxcart.shards.errors import StoreError
from oxcart.shards.store import WORK, Store

TIME_BASE = 1 << 9
"""Units of time per frame of a video."""


class Sample(NamedTuple):
    """A coded frame of a video, in decoding order."""

    data: bytes
    shown: int
    """Place among the frames of its episode, as they are shown."""
    key: bool
    """Whether decoding can start with it."""


class Writer(Protocol):
    """What writes one file."""

    def close(self) -> None:
        """Complete the file."""
        ...


Kind = TypeVar("Kind", bound=Writer)


class Steps:
    """A Parquet file; each table that is added is a row group."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(file, schema, compression="snappy")

    def add(self, table: pa.Table) -> None:
        """Append the rows of a table."""
        self._writer.write_table(table)

    def close(self) -> None:
        """Write the end of the file."""
        self._writer.close()


class Film:
    """An MP4 file of coded frames, shown at a constant rate.

    Args:
        file: where it is written.
        codec: one of `VIDEO_CODECS`.
        size: height and width of the frames, in pixels.
        fps: frames per second.
    """

    def __init__(self, file: BinaryIO, codec: str, size: tuple[int, int], fps: int) -> None:
        self.frames = 0
        """Frames that it holds."""
        self._base = Fraction(1, fps * TIME_BASE)
        self._container = av.open(file, "w", format="mp4", options={"fflags": "+bitexact"})
        self._stream: Any = self._container.add_mux_stream(codec, rate=fps, width=size[1], height=size[0])
        self._stream.time_base = self._base

    def add(self, samples: Sequence[Sample]) -> None:
        """Append the coded frames of an episode."""
        late = max(place - sample.shown for place, sample in enumerate(samples))
        for place, sample in enumerate(samples):
            packet = av.Packet(sample.data)
            packet.stream, packet.time_base = self._stream, self._base
            packet.pts = (self.frames + sample.shown) * TIME_BASE
            packet.dts = (self.frames + place - late) * TIME_BASE
            packet.duration, packet.is_keyframe = TIME_BASE, sample.key
            self._container.mux_one(packet)
        self.frames += len(samples)

    def close(self) -> None:
        """Write the index of the file."""
        self._container.close()


class Series(Generic[Kind]):
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
                self._writer.close()

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
            folder = None if self._store.remote else f"{self._store.url}/{WORK}"
            with contextlib.ExitStack() as opened:
                file = opened.enter_context(tempfile.TemporaryFile(dir=folder, prefix="oxcart-"))
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
            except (OSError, av.error.FFmpegError) as error:
                raise StoreError(f"{self._store.url}/{name}: write: {error.strerror or error}") from error
