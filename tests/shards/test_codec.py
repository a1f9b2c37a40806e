"""Frames come back from every codec as they were, or as the JPEGs say; what is damaged is refused."""

from __future__ import annotations

import io
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from depth import depth
from oxcart.shards.codec import (
    CHUNK_FRAMES,
    IMAGE_CODECS,
    Encoded,
    Encoding,
    decode,
    encode,
    encode_zstd,
    npy_header,
)
from oxcart.shards.errors import ConfigError, CorruptError

SHAPES = [(1, 1, 1, 3), (2, 5, 7, 3), (3, 64, 64, 3), (1000, 1, 2, 3)]


RAW, ZSTD = Encoding(), Encoding(codec="zstd")


def frames(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_numpy_loads_the_member(shape: tuple[int, ...]) -> None:
    encoded = encode(frames(shape), RAW)
    member = encoded.header + b"".join(encoded.chunks)
    loaded = np.load(io.BytesIO(member), allow_pickle=False)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, frames(shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_frame_i_is_chunk_i_and_starts_i_frames_after_the_header(shape: tuple[int, ...]) -> None:
    encoded = encode(frames(shape), RAW)
    member, size = encoded.header + b"".join(encoded.chunks), int(np.prod(shape[1:]))
    assert len(encoded.chunks) == shape[0]
    for i, frame in enumerate(frames(shape)):
        start = len(encoded.header) + i * size
        assert member[start : start + size] == bytes(encoded.chunks[i]) == frame.tobytes()


def test_each_digest_is_the_xxh3_of_its_chunk() -> None:
    encoded = encode(frames((4, 6, 8, 3)), RAW)
    assert encoded.digests() == [xxh3_64_intdigest(frame.tobytes()) for frame in frames((4, 6, 8, 3))]
    changed = frames((4, 6, 8, 3))
    changed[2, 5, 7, 2] ^= 1
    differs = [a != b for a, b in zip(encoded.digests(), encode(changed, RAW).digests(), strict=True)]
    assert differs == [False, False, True, False]


def test_contiguous_frames_are_not_copied() -> None:
    array = frames((2, 3, 4, 3))
    chunks = encode(array, RAW).chunks
    array[1] = 7
    assert bytes(chunks[1]) == bytes([7]) * 36


def test_frames_in_another_order_of_memory_give_the_same_bytes() -> None:
    array = frames((3, 5, 7, 3))
    for other in (np.asfortranarray(array), np.repeat(array, 2, axis=2)[:, :, ::2], array[::-1][::-1]):
        assert b"".join(encode(other, RAW).chunks) == array.tobytes()


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


def smooth(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Frames with little noise and little motion, as a camera makes them."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[1], : shape[2]]
    image = np.stack([rows + columns, 2 * rows, 255 - columns], axis=-1)
    noise = random.integers(0, 3, shape)
    return (image + np.arange(shape[0])[:, None, None, None] + noise).astype(np.uint8)


@depth(60)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 20), st.just(3)),
    chunk=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
    noisy=st.booleans(),
)
def test_zstd_gives_back_every_frame_and_every_beginning(
    shape: tuple[int, ...], chunk: int, seed: int, noisy: bool
) -> None:
    random = np.random.default_rng(seed)
    array = random.integers(0, 256, shape, np.uint8) if noisy else smooth(shape, seed)
    encoded = encode_zstd(array, chunk)
    assert len(encoded.chunks) == -(-shape[0] // chunk)
    assert encoded.sizes() == [len(one) for one in encoded.chunks]
    for stop in range(1, shape[0] + 1):
        out = np.full((stop, *shape[1:]), 99, np.uint8)
        decode("zstd", encoded.chunks[: -(-stop // chunk)], chunk, out)
        np.testing.assert_array_equal(out, array[:stop])
    for i, one in enumerate(encoded.chunks):  # each can be read alone
        out = np.empty_like(array[i * chunk : (i + 1) * chunk])
        decode("zstd", [one], chunk, out)
        np.testing.assert_array_equal(out, array[i * chunk : (i + 1) * chunk])


@depth(30)
@given(shape=st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20), st.just(3)))
def test_raw_gives_back_every_frame(shape: tuple[int, ...]) -> None:
    out = np.empty(shape, np.uint8)
    decode("raw", encode(frames(shape), RAW).chunks, 1, out)
    np.testing.assert_array_equal(out, frames(shape))


def test_what_zstd_stores_is_as_the_format_says() -> None:
    array = frames((3, 35, 4, 3))
    first, second = encode_zstd(array, 2).chunks
    residuals = np.frombuffer(zstandard.decompress(first), np.uint8).reshape(2, 35, 4, 3)
    for row in range(35):
        above = array[0, row - 1] if row % 16 else np.zeros((4, 3), np.uint8)
        np.testing.assert_array_equal(residuals[0, row], array[0, row] - above)
    np.testing.assert_array_equal(residuals[1], array[1] - array[0])
    np.testing.assert_array_equal(
        np.frombuffer(zstandard.decompress(second), np.uint8).reshape(35, 4, 3)[::16], array[2, ::16]
    )


def test_zstd_is_smaller_where_frames_are_alike() -> None:
    array = smooth((8, 64, 64, 3))
    assert sum(map(len, encode(array, ZSTD).chunks)) < array.nbytes / 2


def test_zstd_of_frames_in_another_order_of_memory_is_the_same() -> None:
    array = frames((5, 18, 7, 3))
    for other in (np.asfortranarray(array), np.repeat(array, 2, axis=2)[:, :, ::2]):
        assert encode(other, ZSTD).chunks == encode(array, ZSTD).chunks


@pytest.mark.parametrize("codec", IMAGE_CODECS)
def test_threads_share_the_work_and_get_what_one_gets(codec: str) -> None:
    members = [encode(smooth((6, 32, 32, 3), seed), Encoding(codec=codec)) for seed in range(12)]

    def read(member: object) -> np.ndarray:
        out = np.empty((6, 32, 32, 3), np.uint8)
        decode(codec, member.chunks, CHUNK_FRAMES, out)  # type: ignore[attr-defined]
        return out

    alone = [read(member) for member in members]
    with ThreadPoolExecutor(4) as pool:
        for a, b in zip(alone, pool.map(read, members), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("codec", ["zstd", "jpeg"])
def test_a_chunk_cut_anywhere_is_refused(codec: str) -> None:
    array = smooth((2, 16, 16, 3))
    chunk, *_ = encode(array, Encoding(codec=codec)).chunks
    out = np.empty_like(array[:CHUNK_FRAMES])
    decode(codec, [chunk], CHUNK_FRAMES, out)
    for length in range(0, len(chunk) - 2, 7):
        with pytest.raises(CorruptError, match=f"codec {codec}, chunk 0 of 1 "):
            decode(codec, [chunk[:length]], CHUNK_FRAMES, out)


def test_a_chunk_of_another_size_is_refused() -> None:
    wide, small = smooth((1, 16, 32, 3)), smooth((1, 8, 8, 3))
    for codec in IMAGE_CODECS:
        for array, other in ((small, wide), (wide, small)):
            if codec == "zstd" and other is small:
                continue  # the beginning of a chunk is what may be asked for
            with pytest.raises(CorruptError):
                decode(codec, encode(array, Encoding(codec=codec)).chunks, 1, np.empty_like(other))


def test_a_jpeg_member_is_its_images_end_to_end_and_ffmpeg_plays_it(tmp_path: Path) -> None:
    array = smooth((7, 48, 64, 3))
    encoded = encode(array, Encoding(codec="jpeg", quality=90))
    path = tmp_path / "front.mjpeg"
    path.write_bytes(encoded.header + b"".join(encoded.chunks))
    with av.open(str(path)) as container:
        played = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(played) == 7
    out = np.empty_like(array)
    decode("jpeg", encoded.chunks, 1, out)
    for mine, theirs, frame in zip(out, played, array, strict=True):
        assert np.abs(mine.astype(int) - frame).mean() < 3
        assert np.abs(mine.astype(int) - theirs).mean() < 3


def test_joined_jpegs_are_not_touched() -> None:
    images = [b"\xff\xd8one", b"\xff\xd8two"]
    encoded = Encoded(chunks=images)
    assert (encoded.header, list(encoded.chunks), encoded.sizes()) == (b"", images, [5, 5])


def test_a_better_quality_is_larger() -> None:
    sizes = [
        sum(map(len, encode(frames((2, 32, 32, 3)), Encoding(codec="jpeg", quality=quality)).chunks))
        for quality in (10, 50, 95, 100)
    ]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codec": "mpeg4"}, "codec: expected one of raw, zstd, jpeg, av1, .*; got 'mpeg4'"),
        ({"codec": "vp9", "anew": True}, "codec vp9: a source's own videos, which are not encoded; use av1"),
        ({"codec": "av1", "quality": 64}, "av1 quality: expected 1 to 63, got 64"),
        ({"codec": "jpeg", "group": 2}, "max gop: codec jpeg has no groups; .*"),
        ({"codec": "av1", "group": 257}, "max gop: expected 1 to 256 frames, got 257"),
        ({"codec": "zstd", "quality": 90}, "jpeg quality: codec zstd has none; .*"),
        ({"codec": "jpeg", "quality": 0}, "jpeg quality: expected 1 to 100, got 0"),
        ({"codec": "jpeg", "quality": 101}, "jpeg quality: expected 1 to 100, got 101"),
    ],
)
def test_an_impossible_encoding_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Encoding(**options)
