"""A raw member is a NumPy array whose frames start at known offsets."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from oxcart.shards.codec import encode_raw, npy_header

SHAPES = [(1, 1, 1, 3), (2, 5, 7, 3), (3, 64, 64, 3), (1000, 1, 2, 3)]


def frames(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_numpy_loads_the_member(shape: tuple[int, ...]) -> None:
    encoded = encode_raw(frames(shape))
    member = encoded.header + b"".join(encoded.chunks)
    loaded = np.load(io.BytesIO(member), allow_pickle=False)
    assert encoded.extension == "npy"
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, frames(shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_frame_i_is_chunk_i_and_starts_i_frames_after_the_header(shape: tuple[int, ...]) -> None:
    encoded = encode_raw(frames(shape))
    member, size = encoded.header + b"".join(encoded.chunks), int(np.prod(shape[1:]))
    assert len(encoded.chunks) == shape[0]
    for i, frame in enumerate(frames(shape)):
        start = len(encoded.header) + i * size
        assert member[start : start + size] == bytes(encoded.chunks[i]) == frame.tobytes()


def test_each_digest_is_the_xxh3_of_its_chunk() -> None:
    encoded = encode_raw(frames((4, 6, 8, 3)))
    assert encoded.digests() == [xxh3_64_intdigest(frame.tobytes()) for frame in frames((4, 6, 8, 3))]
    changed = frames((4, 6, 8, 3))
    changed[2, 5, 7, 2] ^= 1
    differs = [a != b for a, b in zip(encoded.digests(), encode_raw(changed).digests(), strict=True)]
    assert differs == [False, False, True, False]


def test_contiguous_frames_are_not_copied() -> None:
    array = frames((2, 3, 4, 3))
    chunks = encode_raw(array).chunks
    array[1] = 7
    assert bytes(chunks[1]) == bytes([7]) * 36


def test_frames_in_another_order_of_memory_give_the_same_bytes() -> None:
    array = frames((3, 5, 7, 3))
    for other in (np.asfortranarray(array), np.repeat(array, 2, axis=2)[:, :, ::2], array[::-1][::-1]):
        assert b"".join(encode_raw(other).chunks) == array.tobytes()


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 100_000), max_size=5).map(tuple),
    st.sampled_from([np.uint8, np.float32, np.int64, np.bool_]),
)
def test_a_header_is_what_numpy_reads_and_a_multiple_of_64(shape: tuple[int, ...], kind: type) -> None:
    header = npy_header(shape, np.dtype(kind))
    assert len(header) % 64 == 0
    assert header[:8] == b"\x93NUMPY\x01\x00"
    assert struct.unpack_from("<H", header, 8)[0] == len(header) - 10
    file = io.BytesIO(header)
    assert np.lib.format.read_magic(file) == (1, 0)
    assert np.lib.format.read_array_header_1_0(file) == (shape, False, np.dtype(kind))
    assert file.tell() == len(header)
