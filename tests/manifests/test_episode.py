"""Episodes are read as they were written, and what is not as the format says is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from xxhash import xxh3_64_intdigest

from oxcart.manifests import episode
from oxcart.manifests.episode import (
    Chunks,
    members,
    parse_header,
    place_chunks,
    read_arrays,
    read_metadata,
)
from oxcart.shards.errors import CorruptError
from oxcart.shards.tar import TarWriter

ROW = {"shard": "train-00000", "key": "k", "steps": 2}


class File(bytearray):
    def write(self, data: bytes | memoryview) -> None:
        self.extend(data)

    def read(self, offset: int, size: int) -> memoryview:
        return memoryview(self)[offset : offset + size]


def tar_of(**parts: bytes) -> File:
    file = File()
    writer = TarWriter(file)  # type: ignore[arg-type]
    for name, data in parts.items():
        writer.add(name.replace("_", "."), [data])
    return file


def test_members_are_those_that_were_written() -> None:
    file = tar_of(k_json=b"{}", k_action_npy=b"1" * 600)
    found = members(bytes(file), "k")
    assert {suffix: bytes(data) for suffix, (_, data) in found.items()} == {
        "json": b"{}",
        "action.npy": b"1" * 600,
    }
    assert {suffix: start for suffix, (start, _) in found.items()} == {"json": 512, "action.npy": 1536}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(512),
        bytes(tar_of(k_json=b"{}"))[:700],
        bytes(tar_of(other_json=b"{}")),
        bytes(tar_of(k_json=b"{}") + tar_of(k_json=b"{}")),
    ],
)
def test_members_that_are_not_those_of_an_episode_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptError, match=r"^a tar header is damaged$"):
        members(data, "k")


def test_every_bit_of_a_header_counts() -> None:
    header = bytes(tar_of(k_json=b"{}"))[:512]
    assert parse_header(header) == ("k.json", 2)
    for at in range(0, 512, 7):
        with pytest.raises(CorruptError):
            parse_header(header[:at] + bytes([header[at] ^ 1]) + header[at + 1 :])


def test_metadata_is_read_from_the_offset_of_its_episode() -> None:
    file = tar_of(j_json=b"{}", k_json=b'{"steps": 2}')
    assert read_metadata(file.read, 1024, xxh3_64_intdigest(b'{"steps": 2}')) == {"steps": 2}
    with pytest.raises(CorruptError, match=r"^json does not match its digest$"):
        read_metadata(file.read, 0, xxh3_64_intdigest(b'{"steps": 2}'))


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff", b"null", b"[" * 100_000])
def test_metadata_that_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptError, match=r"^json: [^\n]+$"):
        read_metadata(tar_of(k_json=data).read, 0, xxh3_64_intdigest(data))


def test_large_metadata_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episode, "METADATA_BYTES", 4)
    file, asked = tar_of(k_json=b"[1,2]"), []

    def read(offset: int, size: int) -> memoryview:
        asked.append(size)
        return file.read(offset, size)

    with pytest.raises(CorruptError, match=r"^json: has 5 bytes, expected at most 4$"):
        read_metadata(read, 0, 0)
    assert asked == [512]


def test_arrays_are_those_that_the_row_has() -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    file = File(b"npy header" + values.tobytes())
    row = ROW | {"action.offset": 10, "action.digest": xxh3_64_intdigest(values), "state.offset": None}
    (found,) = read_arrays(file.read, row, {"action": 3, "state": 4}).values()
    np.testing.assert_array_equal(found, values)
    for width in (2, 4):  # of other bytes, and of more than there are
        with pytest.raises(CorruptError, match=r"^train-00000: k: action does not match its digest$"):
            read_arrays(file.read, row, {"action": width})


# Chunks


def chunk_table(
    digests: list[list[int]], sizes: list[list[int] | None], frames: list[list[int] | None] | None = None
) -> pa.Table:
    numbers = pa.list_(pa.uint32())
    return pa.table(
        {
            "digests": pa.array(digests, pa.list_(pa.uint64())),
            "sizes": pa.array(sizes, numbers),
            "frames": pa.array(frames or [None] * len(digests), numbers),
        }
    )


def placed(table: pa.Table, steps: list[int], **camera: Any) -> Chunks:
    starts = np.array([100, 1000][: len(steps)])
    return place_chunks(table, starts, np.array(steps), np.full(len(steps), 12), camera)


def test_chunks_of_raw_are_frames_end_to_end() -> None:
    found = placed(chunk_table([[7, 8], [9]], [None, None]), [2, 1], codec="raw", chunk=1)
    assert [one.tolist() for one in found] == [[100, 112, 1000], [12, 12, 12], [7, 8, 9], [2, 1], [1, 1, 1]]


def test_coded_chunks_are_as_long_as_their_table_says() -> None:
    found = placed(chunk_table([[7, 8], [9]], [[5, 6], [4]]), [3, 2], codec="zstd", chunk=2)
    assert [one.tolist() for one in found] == [[100, 105, 1000], [5, 6, 4], [7, 8, 9], [2, 1], [2, 1, 2]]


def test_chunks_of_videos_hold_as_many_frames_as_their_table_says() -> None:
    table = chunk_table([[7, 8], [9]], [[5, 6], [4]], [[1, 3], [2]])
    found = placed(table, [4, 2], codec="av1", chunk=3)
    assert [one.tolist() for one in found] == [[100, 105, 1000], [5, 6, 4], [7, 8, 9], [2, 1], [1, 3, 2]]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (None, "does not state 1 to 3 frames for each chunk"),
        ([], "does not state 1 to 3 frames for each chunk"),
        ([4, 0], "does not state 1 to 3 frames for each chunk"),
        ([1, 4], "does not state 1 to 3 frames for each chunk"),
        ([1, 2], "does not state a frame for each step"),
        ([1, 2, 1], "has no digest for each chunk"),
    ],
)
def test_frames_that_do_not_fit_the_steps_are_refused(frames: list[int] | None, message: str) -> None:
    with pytest.raises(CorruptError, match=f"^{message}$"):
        placed(chunk_table([[7, 8]], [[5, 6]], [frames]), [4], codec="av1", chunk=3)


@pytest.mark.parametrize("rows", [0, 2])
def test_a_video_is_listed_once_for_each_episode(rows: int) -> None:
    table = chunk_table([[7, 8]] * rows, [[5, 6]] * rows, [[1, 3]] * rows)
    with pytest.raises(CorruptError, match=r"^does not state 1 to 3 frames for each chunk$"):
        placed(table, [4], codec="av1", chunk=3)


def test_chunks_of_images_state_no_frames() -> None:
    with pytest.raises(CorruptError, match=r"^states frames of chunks, which codec raw does not$"):
        placed(chunk_table([[7, 8]], [None], [[1, 1]]), [2], codec="raw", chunk=1)


def test_no_episodes_have_no_chunks() -> None:
    for codec in ("raw", "zstd", "av1"):
        assert [len(one) for one in placed(chunk_table([], []), [], codec=codec, chunk=1)] == [0] * 5


@pytest.mark.parametrize(
    ("digests", "sizes", "message"),
    [
        ([[7]], [[5]], "has no digest for each chunk"),
        ([[7, 8], [9]], [[5, 6], [4]], "has no digest for each chunk"),
        ([[7, 8]], [[5]], "has no size for each chunk"),
        ([[7, 8]], [None], "has no size for each chunk"),
        ([[7, 8]], [[5, 1 << 31]], "has a chunk of 2147483648 bytes, an impossible size"),
    ],
)
def test_a_chunk_table_of_other_episodes_is_refused(
    digests: list[list[int]], sizes: list[list[int] | None], message: str
) -> None:
    with pytest.raises(CorruptError, match=f"^{message}$"):
        placed(chunk_table(digests, sizes), [3], codec="zstd", chunk=2)


def test_sizes_that_belong_to_another_episode_are_refused() -> None:
    table = chunk_table([[7, 8, 9], [4, 5]], [[1, 1], [1, 1, 1]])  # as many sizes as digests in all
    with pytest.raises(CorruptError, match=r"^has no size for each chunk$"):
        placed(table, [3, 2], codec="zstd", chunk=1)
