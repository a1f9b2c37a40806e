"""TFRecord framing, without TensorFlow.

    uint64 length | uint32 masked crc32c(length) | data | uint32 masked crc32c(data)      little-endian

A flipped bit in the data spoils one record. A flipped bit in the length, or a cut, loses the framing and so
every record that follows; `scan` tells the two apart. No length is believed before its own checksum and the
size of the file agree with it, so a damaged header never takes memory.

A record that lies within one block is a view of that block: a source is read at the speed of memory, where
copying each record would take a good part of the time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, BinaryIO, NamedTuple

import google_crc32c
import numpy as np

from oxcart.shards.errors import SourceError, StoreError
from oxcart.shards.store import Store

OVERHEAD = 16
"""Bytes of framing around the data of a record: 12 before, 4 after."""

BLOCK = 4 << 20
"""Bytes read at once; twice as many no longer fit in the caches and take a fifth longer."""

_NOTHING = memoryview(b"")

# The C extension takes no memoryview, but an array over one; the Python version takes only a memoryview.
_readable: Callable[[memoryview], Any] = np.asarray if google_crc32c.implementation == "c" else memoryview


class Record(NamedTuple):
    """One record of a file; `error` says what is wrong with it, and then `data` is empty."""

    offset: int
    """Byte offset of the record's frame in the file."""
    length: int
    """Bytes of data, without the framing."""
    data: memoryview
    """The record's bytes, which live as long as this view and are never written again."""
    error: str | None = None
    last: bool = False
    """Whether the framing is lost here, so that the rest of the file cannot be read."""


def write_record(file: BinaryIO, data: bytes) -> None:
    """Append one record."""
    header = struct.pack("<Q", len(data))
    crcs = (struct.pack("<I", _masked_crc(memoryview(part))) for part in (header, data))
    file.write(header + next(crcs) + data + next(crcs))


def scan(store: Store, name: str, size: int | None = None) -> Iterator[Record]:
    """Yield every record of a file in order, reading it once in blocks.

    A damaged record comes with its `error`, and the scan continues. If the framing is lost, a record with
    `last` ends the scan. A file whose `size` is given is not asked for it.

    Raises:
        StoreError: the file cannot be read.
    """
    _keep_memory()
    if size is None:
        size = store.size(name)
    pieces = _Pieces(store.stream(name, BLOCK, size), name)
    position = 0
    while position < size:
        left = size - position
        if left < OVERHEAD:
            yield _lost(position, f"cut off: {left} bytes left where a record begins")
            return
        header = pieces.take(12)
        length = struct.unpack_from("<Q", header)[0]
        if struct.unpack_from("<I", header, 8)[0] != _masked_crc(header[:8]):
            yield _lost(position, "checksum of the record's length does not match")
            return
        if length + OVERHEAD > left:
            reason = f"cut off: the record has {length + OVERHEAD} bytes, the file {left} more"
            yield _lost(position, reason)
            return
        yield _checked(position, length, pieces.take(length + 4))
        position += length + OVERHEAD


@cache
def _keep_memory() -> None:
    """Have malloc use the memory of one block for the next, which saves a fifth of a scan's time.

    glibc returns freed blocks of this size to the system, which fills new ones with zeros, until a larger
    block was freed. The larger block here is never touched, so it takes no memory.
    """
    bytes(24 << 20)


class _Pieces:
    """Takes pieces of any length from the blocks of the file `name`, in order."""

    def __init__(self, blocks: Iterator[bytes], name: str) -> None:
        self._blocks = blocks
        self._name = name
        self._left = _NOTHING

    def take(self, length: int) -> memoryview:
        """The next bytes: a view of a block, or a copy if they lie in several blocks."""
        parts, missing = [], length
        while missing > len(self._left):
            parts.append(self._left)
            missing -= len(self._left)
            self._left = memoryview(next(self._blocks, b""))
            if not self._left:
                raise SourceError("has become shorter while it was read", file=self._name)
        last, self._left = self._left[:missing], self._left[missing:]
        return memoryview(b"".join([*parts, last])) if any(parts) else last


def read_record(store: Store, name: str, offset: int, length: int, record: int) -> memoryview:
    """Read the data of the record of `length` bytes whose frame begins at `offset`.

    Raises:
        SourceError: the frame is damaged, is cut off, or holds another length.
        StoreError: the file cannot be read.
    """
    try:
        frame = memoryview(store.read_range(name, offset, length + OVERHEAD))
    except StoreError as error:
        size = store.size(name)  # only now, as a bucket takes a round trip to answer
        if offset + length + OVERHEAD <= size:
            raise
        raise SourceError(
            f"cut off: the record has {length + OVERHEAD} bytes, the file {max(0, size - offset)} more",
            file=name,
            record=record,
            offset=offset,
        ) from error
    if struct.unpack_from("<Q", frame)[0] != length:
        raise SourceError("holds another record than the census saw", file=name, record=record, offset=offset)
    found = _checked(offset, length, frame[12:])
    if found.error is not None:
        raise SourceError(found.error, file=name, record=record, offset=offset)
    return found.data


def _lost(offset: int, reason: str) -> Record:
    return Record(offset, 0, _NOTHING, reason, last=True)


def _checked(offset: int, length: int, data: memoryview) -> Record:
    if struct.unpack_from("<I", data, length)[0] != _masked_crc(data[:length]):
        return Record(offset, length, _NOTHING, "checksum of the record's data does not match")
    return Record(offset, length, data[:length])


def _masked_crc(data: memoryview) -> int:
    crc: int = google_crc32c.value(_readable(data))
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
