"""Tars depend on names and contents alone, and every tar reader reads them."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from oxcart.shards.errors import ConfigError
from oxcart.shards.tar import BLOCK, TarWriter

Members = list[tuple[str, list[bytes]]]


def write(members: Members) -> tuple[bytes, list[int], str]:
    """The archive, the offsets of its members' data and its digest."""
    file = io.BytesIO()
    tar = TarWriter(file)
    offsets = [tar.add(name, parts) for name, parts in members]
    digest = tar.finish()
    assert tar.offset == len(file.getvalue())
    return file.getvalue(), offsets, digest


PARTS = st.lists(st.binary(max_size=1200), max_size=4)
NAMES = st.lists(st.text("abcXYZ0189-_. ä", min_size=1, max_size=40), max_size=6, unique=True)


@given(NAMES.flatmap(lambda names: st.tuples(*(st.tuples(st.just(name), PARTS) for name in names))))
def test_any_members_are_read_back_from_where_they_are_said_to_be(members: Members) -> None:
    data, offsets, digest = write(members)
    assert digest == blake3(data).hexdigest()
    assert len(data) % BLOCK == 0
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        found = tar.getmembers()
        assert [info.name for info in found] == [name for name, _ in members]
        for info, (_, parts), offset in zip(found, members, offsets, strict=True):
            content = b"".join(parts)
            assert info.isreg()
            assert info.size == len(content)
            assert info.offset_data == offset
            assert data[offset : offset + info.size] == content


def test_headers_hold_no_time_user_or_host() -> None:
    data, _, _ = write([("a.json", [b"{}"]), ("b.npy", [b"1", b"2"])])
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for info in tar.getmembers():
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")
            assert info.mode == 0o644
    assert data[257:265] == b"ustar\x0000"


@given(st.text("abcXYZ0189-_./ ä", min_size=1, max_size=100), st.integers(0, 3000))
def test_headers_are_those_of_the_library(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    try:
        expected = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError:
        return
    assert write([(name, [bytes(size)])])[0][:BLOCK] == expected


def test_equal_members_give_equal_bytes_however_they_are_cut() -> None:
    content = bytes(range(256)) * 10
    cut = [content[:1], b"", content[1:700], memoryview(content)[700:]]
    assert write([("x", [content])]) == write([("x", cut)])  # type: ignore[list-item]


def test_parts_count_by_bytes_and_not_by_items() -> None:
    numbers = memoryview(bytes(range(64))).cast("I")
    data, (offset,), _ = write([("x", [numbers])])  # type: ignore[list-item]
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        assert tar.getmembers()[0].size == 64
    assert data[offset : offset + 64] == bytes(range(64))


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024])
def test_data_is_padded_to_blocks(size: int) -> None:
    data, (offset,), _ = write([("x", [b"x" * size])])
    assert offset == BLOCK
    assert len(data) == BLOCK + -(-size // BLOCK) * BLOCK + 2 * BLOCK
    assert data.rstrip(b"\0").endswith(b"x" * size) or not size


def test_an_archive_without_members_is_one() -> None:
    data, _, _ = write([])
    assert data == bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        assert tar.getmembers() == []


LONG = ["k" * 100, "d" * 50 + "/" + "k" * 99, "d" * 155 + "/" + "k" * 100, "/".join(["ab"] * 80) + "/x"]


@pytest.mark.parametrize("name", LONG, ids=len)
def test_long_names_fit_where_they_can_be_split(name: str) -> None:
    data, _, _ = write([(name, [b"1"])])
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        assert tar.getnames() == [name]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("k" * 101, 1),
        ("d" * 156 + "/" + "k", 1),
        ("d/" + "k" * 101, 1),
        ("x" * 300, 1),
        ("ä" * 51, 1),
        ("\ud800", 1),
    ],
    ids=["no slash", "prefix", "name", "both", "bytes not characters", "no text"],
)
def test_a_name_that_ustar_cannot_hold_is_refused_before_a_byte_is_written(name: str, size: int) -> None:
    file = io.BytesIO()
    tar = TarWriter(file)
    tar.add("before", [b"1"])
    length = tar.offset
    with pytest.raises(ConfigError, match="tar member") as caught:
        tar.add(name, [b"1" * size])
    assert len(str(caught.value).splitlines()) == 1
    assert tar.offset == len(file.getvalue()) == length
    assert tar.finish() == blake3(file.getvalue()).hexdigest()


def test_a_member_of_8_gib_is_refused_before_a_byte_is_written() -> None:
    file = io.BytesIO()
    mebibyte = memoryview(bytes(1 << 20))
    with pytest.raises(ConfigError, match="8589934592 bytes"):
        TarWriter(file).add("x", [mebibyte] * 8192)
    assert file.getvalue() == b""


def test_the_tar_of_the_system_lists_and_extracts_it(tmp_path: Path) -> None:
    members: Members = [("a.json", [b"{}"]), (LONG[1], [b"long", b"er"]), ("b.cam.npy", [bytes(5000)])]
    (tmp_path / "x.tar").write_bytes(write(members)[0])
    listed = subprocess.run(["tar", "tf", "x.tar"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert listed.stdout.splitlines() == [name for name, _ in members]
    assert listed.stderr == ""
    subprocess.run(["tar", "xf", "x.tar"], cwd=tmp_path, check=True)
    for name, parts in members:
        assert (tmp_path / name).read_bytes() == b"".join(parts)
