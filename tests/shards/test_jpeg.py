"""JPEGs decode to Pillow's pixels, fast or not, and a header says the size without decoding."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from oxcart.shards.jpeg import decode_jpeg, encode_jpeg, jpeg_size
from rlds_builder import jpeg, noisy_frame

PIXELS = noisy_frame(1, 24, 40)
RGB = Image.fromarray(PIXELS)


def decoded(data: bytes | memoryview, size: tuple[int, int] = (24, 40)) -> np.ndarray:
    out = np.full((*size, 3), 7, np.uint8)
    decode_jpeg(data, out)
    return out


KINDS = {
    "plain": jpeg(RGB),
    "best": jpeg(RGB, quality=100, subsampling=0),
    "progressive": jpeg(RGB, progressive=True),
    "grey": jpeg(RGB.convert("L")),
    "cmyk": jpeg(RGB.convert("CMYK")),
    "comment": jpeg(RGB, comment=b"x" * 3000),
    "restarts": jpeg(RGB, restart_marker_blocks=2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_are_those_of_pillow(kind: str) -> None:
    expected = np.asarray(Image.open(io.BytesIO(KINDS[kind])).convert("RGB"))
    np.testing.assert_array_equal(decoded(KINDS[kind]), expected)
    np.testing.assert_array_equal(decoded(memoryview(KINDS[kind])), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_comes_from_the_header(kind: str) -> None:
    assert jpeg_size(KINDS[kind]) == jpeg_size(memoryview(KINDS[kind])) == (24, 40)


def test_what_is_no_whole_jpeg_has_no_size() -> None:
    data = KINDS["plain"]
    for length in range(len(data)):
        assert jpeg_size(data[:length]) is None
    png = io.BytesIO()
    RGB.save(png, "PNG")
    assert jpeg_size(png.getvalue()) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "more", [b"\0\0", b"\n", b"\xff", b"\xff\xd8", bytes(5000)], ids=["nul", "line", "ff", "start", "long"]
)
def test_what_follows_the_end_changes_nothing(kind: str, more: bytes) -> None:
    data = KINDS[kind] + more
    assert jpeg_size(data) == jpeg_size(memoryview(data)) == (24, 40)
    np.testing.assert_array_equal(decoded(data), decoded(KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_an_end_within_a_segment_is_not_the_end(kind: str) -> None:
    data = KINDS[kind]
    thumbnail = b"\xff\xe1\x00\x0aExif\xff\xd9\xff\xd9"
    cut = data[:2] + thumbnail + data[2:-2]
    assert jpeg_size(cut) is jpeg_size(cut + b"\0\0") is None
    assert jpeg_size(cut + b"\xff\xd9\0\0") == (24, 40)


def test_a_header_that_no_decoder_knows_is_refused_in_the_same_words_each_time() -> None:
    errors = set()
    for data in (b"\xff\xd8" + bytes(40), b"\xff\xd8\xff"):
        with pytest.raises(ValueError, match="cannot be decoded") as caught:
            decoded(data)
        errors.add(str(caught.value))
    assert errors == {"cannot be decoded: its header is no JPEG's"}


def test_a_header_may_be_padded() -> None:
    data = KINDS["plain"]
    padded = data[:2] + b"\xff\xff\xff" + data[2:]
    assert jpeg_size(padded) == (24, 40)
    np.testing.assert_array_equal(decoded(padded), decoded(data))


@pytest.mark.parametrize("size", [(24, 39), (25, 40), (12, 20), (48, 80), (40, 24)])
def test_another_size_is_refused_and_named(size: tuple[int, int]) -> None:
    message = f"is 24x40 pixels where the episode has {size[0]}x{size[1]}"
    for kind in ("plain", "cmyk"):
        with pytest.raises(ValueError, match=message):
            decoded(KINDS[kind], size)


def test_a_damaged_image_is_what_pillow_makes_of_it() -> None:
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(KINDS["plain"])
        data[random.integers(2, len(data))] ^= 1 << random.integers(8)
        try:
            expected = np.asarray(Image.open(io.BytesIO(data), formats=("JPEG",)).convert("RGB"))
        except (OSError, SyntaxError):
            expected = None
        if expected is None or expected.shape != (24, 40, 3):
            refused += 1
            with pytest.raises(ValueError, match=r"cannot be decoded|is .* pixels where"):
                decoded(bytes(data))
        else:
            np.testing.assert_array_equal(decoded(bytes(data)), expected)
    assert 0 < refused < 300


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (24, 40)])
def test_an_encoded_frame_is_a_jpeg_of_its_size(size: tuple[int, int]) -> None:
    data = encode_jpeg(noisy_frame(2, *size), 95)
    assert jpeg_size(data) == size
    assert encode_jpeg(np.asfortranarray(noisy_frame(2, *size)), 95) == data
