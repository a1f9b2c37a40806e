"""TFRecord framing, without TensorFlow.

    uint64 length | uint32 masked crc32c(length) | data | uint32 masked crc32c(data)      little-endian

A flipped bit in the data spoils one record; one in the length, or a cut, loses the framing and so every
record after it. `scan` tells the two apart. No length is believed before its own checksum and the size of
the file agree with it, so a damaged header never takes memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import google_crc32c

from oxcart.shards.errors import SourceError, StoreError
from oxcart.shards.store import Store

OVERHEAD = 16
"""Bytes of framing around the data of a record: 12 before, 4 after."""

_BLOCK = 8 << 20


class Record(NamedTuple):
    """One record of a file; `error` says what is wrong with it, and then `data` is empty."""

    offset: int
    """Byte offset of the record's frame in the file."""
    length: int
    """Bytes of data, without the framing."""
    data: bytes
    error: str | None = None
    last: bool = False
    """The framing is lost here: what follows in the file cannot be read."""


def write_record(file: BinaryIO, data: bytes) -> None:
    """Append one record."""
    header = struct.pack("<Q", len(data))
    file.write(header + struct.pack("<I", _masked_crc(header)) + data + struct.pack("<I", _masked_crc(data)))


def scan(store: Store, name: str) -> Iterator[Record]:
    """Every record of a file in order, reading it once in blocks of 8 MiB.

    A damaged record comes with its `error` and the scan goes on; where the framing is lost, a record whose
    `last` is set ends it.

    Raises:
        StoreError: the file cannot be read.
    """
    size = store.size(name)
    position = 0
    block, start = b"", 0

    def take(offset: int, length: int) -> bytes:
        nonlocal block, start
        if offset + length > start + len(block):
            block, start = store.read_range(name, offset, min(max(length, _BLOCK), size - offset)), offset
        return block[offset - start : offset - start + length]

    while position < size:
        left = size - position
        if left < OVERHEAD:
            yield Record(position, 0, b"", f"cut off: {left} bytes left where a record begins", last=True)
            return
        header = take(position, 12)
        length = struct.unpack_from("<Q", header)[0]
        if struct.unpack_from("<I", header, 8)[0] != _masked_crc(header[:8]):
            yield Record(position, 0, b"", "checksum of the record's length does not match", last=True)
            return
        if length + OVERHEAD > left:
            reason = f"cut off: the record has {length + OVERHEAD} bytes, the file {left} more"
            yield Record(position, 0, b"", reason, last=True)
            return
        data = take(position + 12, length + 4)
        yield _checked(position, length, data)
        position += length + OVERHEAD


def read_record(store: Store, name: str, offset: int, length: int, record: int) -> bytes:
    """Data of the record whose frame begins at `offset` and holds `length` bytes.

    Raises:
        SourceError: the frame there is damaged, cut off or holds another length.
        StoreError: the file cannot be read.
    """
    try:
        frame = store.read_range(name, offset, length + OVERHEAD)
    except StoreError as error:
        size = store.size(name)  # not before: where the store is a bucket that is a round trip
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


def _checked(offset: int, length: int, data: bytes) -> Record:
    if struct.unpack_from("<I", data, length)[0] != _masked_crc(data[:length]):
        return Record(offset, length, b"", "checksum of the record's data does not match")
    return Record(offset, length, data[:length])


def _masked_crc(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
