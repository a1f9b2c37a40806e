"""TFRecord framing: what is delivered without an error is what was written, whatever happens to the file."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oxcart.compile.sources.rlds.tfrecord import BLOCK, OVERHEAD, read_record, scan, write_record
from oxcart.shards.errors import SourceError, StoreError
from oxcart.shards.store import Store

RECORDS = [b"first record", b"", b"x" * 40, b"\0\1\2", b"the last"]
STARTS = [sum(len(r) + OVERHEAD for r in RECORDS[:i]) for i in range(len(RECORDS))]


def pack(records: list[bytes]) -> bytes:
    """A TFRecord file."""
    file = io.BytesIO()
    for record in records:
        write_record(file, record)
    return file.getvalue()


def masked(data: bytes) -> bytes:
    """The masked checksum, by the definition of the format."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) % 2**32 + 0xA282EAD8) % 2**32)


class OneFile:
    """A store that holds one file, `f`."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.path = root / "f"

    def scan(self, data: bytes) -> list[tuple[int, bytes, str | None, bool]]:
        self.path.write_bytes(data)
        return [(r.offset, r.data, r.error, r.last) for r in scan(self.store, "f")]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> OneFile:
    return OneFile(tmp_path_factory.mktemp("tfrecord"))


def test_the_bytes_are_those_of_the_format() -> None:
    header = struct.pack("<Q", 5)
    assert pack([b"hello"]) == header + masked(header) + b"hello" + masked(b"hello")
    assert pack([b"hello"]).startswith(bytes.fromhex("0500000000000000 eab2043e"))  # as TensorFlow writes it


@given(records=st.lists(st.binary(max_size=200), max_size=8))
def test_what_is_written_is_scanned_and_read_by_offset(one: OneFile, records: list[bytes]) -> None:
    found = one.scan(pack(records))
    assert [data for _, data, _, _ in found] == records
    assert not any(error or last for _, _, error, last in found)
    for i, (offset, data, _, _) in enumerate(found):
        assert read_record(one.store, "f", offset, len(data), i) == data


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_no_flipped_byte_delivers_wrong_data(one: OneFile, mask: int) -> None:
    whole = pack(RECORDS)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= mask
        found = one.scan(bytes(damaged))
        hit = max(i for i, start in enumerate(STARTS) if start <= position)
        assert [f[:2] for f in found[:hit]] == list(zip(STARTS[:hit], RECORDS, strict=False))
        assert found[hit][2] is not None
        assert found[hit][0] == STARTS[hit]
        if position - STARTS[hit] < 12:  # the length or its checksum: the framing is lost
            assert [f[3] for f in found[hit:]] == [True]
        else:  # the data or its checksum: one record is lost
            assert not found[hit][3]
            assert [f[1] for f in found[hit + 1 :]] == RECORDS[hit + 1 :]
            assert not any(f[2] for f in found[hit + 1 :])


def test_no_flipped_bit_makes_reading_by_offset_deliver_wrong_data(one: OneFile) -> None:
    whole = pack(RECORDS)
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            one.path.write_bytes(damaged)
            hit = max(i for i, start in enumerate(STARTS) if start <= position)
            for i, (start, record) in enumerate(zip(STARTS, RECORDS, strict=True)):
                if i != hit or 8 <= position - start < 12:  # the length's own checksum alone
                    assert read_record(one.store, "f", start, len(record), i) == record
                    continue
                with pytest.raises(SourceError) as caught:
                    read_record(one.store, "f", start, len(record), i)
                error = caught.value
                assert (error.file, error.record, error.offset) == ("f", i, start)


def test_a_file_cut_anywhere_delivers_the_whole_records_and_says_that_it_is_cut(one: OneFile) -> None:
    whole = pack(RECORDS)
    ends = [*STARTS[1:], len(whole)]
    for length in range(len(whole)):
        found = one.scan(whole[:length])
        complete = sum(end <= length for end in ends)
        assert [f[1] for f in found[:complete]] == RECORDS[:complete]
        assert not any(f[2] for f in found[:complete])
        if length in (0, *ends):
            assert len(found) == complete
        else:
            ((offset, data, error, last),) = found[complete:]
            assert (offset, data, last) == (STARTS[complete], b"", True)
            assert error is not None
            assert error.startswith("cut off: ")


def test_a_record_cut_off_since_is_an_error_of_the_source(one: OneFile) -> None:
    whole = pack(RECORDS)
    for length in range(STARTS[4], len(whole)):
        one.path.write_bytes(whole[:length])
        assert read_record(one.store, "f", STARTS[3], len(RECORDS[3]), 3) == RECORDS[3]
        with pytest.raises(SourceError, match=r"^f, record 4, byte 119: cut off: ") as caught:
            read_record(one.store, "f", STARTS[4], len(RECORDS[4]), 4)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("length", [2**60, 2**63, 2**64 - 1, 2**64 - 16, 2**32, 100])
def test_an_absurd_length_with_a_right_checksum_is_refused_without_memory(one: OneFile, length: int) -> None:
    header = struct.pack("<Q", length)
    found = one.scan(pack([b"good"]) + header + masked(header) + b"little data")
    assert found[0][1] == b"good"
    assert found[1] == (20, b"", f"cut off: the record has {length + 16} bytes, the file 23 more", True)
    assert len(found) == 2
    with pytest.raises(SourceError, match="cut off"):
        read_record(one.store, "f", 20, length, 1)


@pytest.mark.parametrize("length", [3, 2**60, 0])
def test_an_absurd_length_with_a_wrong_checksum_is_refused(one: OneFile, length: int) -> None:
    found = one.scan(struct.pack("<Q", length) + b"\0\0\0\0" + bytes(100))
    assert found == [(0, b"", "checksum of the record's length does not match", True)]


def test_records_around_and_beyond_a_block_come_whole(one: OneFile) -> None:
    block = BLOCK
    # ends: in a header, at a frame's end, and within the data of a record that is larger than a block
    sizes = [block - OVERHEAD - 5, 10, 2 * block + 3, 0, block - 29 - OVERHEAD, block, 7]
    records = [bytes([i]) * size for i, size in enumerate(sizes)]
    found = one.scan(pack(records))
    assert [len(f[1]) for f in found] == sizes
    assert [f[1] for f in found] == records
    assert not any(f[2] for f in found)


def test_a_file_of_nothing_holds_no_record(one: OneFile) -> None:
    assert one.scan(b"") == []


def test_reading_with_another_length_is_another_record(one: OneFile) -> None:
    one.path.write_bytes(pack(RECORDS))
    for length in (0, 11, 13):
        with pytest.raises(SourceError, match=r"^f, record 0, byte 0: holds another record than the census"):
            read_record(one.store, "f", 0, length, 0)


def test_reading_at_another_offset_is_an_error(one: OneFile) -> None:
    one.path.write_bytes(pack(RECORDS))
    for offset in range(1, STARTS[1]):
        with pytest.raises(SourceError):
            read_record(one.store, "f", offset, len(RECORDS[0]), 0)


def test_a_file_that_is_not_there_is_an_error_of_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(StoreError, match="No such file"):
        list(scan(store, "none"))
    with pytest.raises(StoreError, match="No such file"):
        read_record(store, "none", 0, 1, 0)
