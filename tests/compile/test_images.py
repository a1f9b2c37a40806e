"""Pixels are Pillow's, for every kind of JPEG and PNG, and whatever is no image is refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from oxcart.compile.images import MAX_PIXELS, ImageError, Resize, decode_into, image_size
from oxcart.shards.errors import ConfigError
from rlds_builder import jpeg, noisy_frame, png

PIXELS = noisy_frame(1, 24, 32)
RGB = Image.fromarray(PIXELS)
KEEP = Resize()


def decode(data: bytes, size: tuple[int, int] = (24, 32), resize: Resize = KEEP, fill: int = 0) -> np.ndarray:
    """The frame, in a buffer that held `fill` before."""
    out = np.full((*resize.output_size(*size), 3), fill, np.uint8)
    decode_into(out, data, size, resize)
    return out


def one_line(error: Exception) -> None:
    """A message must be one line."""
    assert len(str(error).splitlines()) == 1


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG file whose header claims a size and whose data is short."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def test_png_is_exact() -> None:
    np.testing.assert_array_equal(decode(png(RGB)), PIXELS)


@pytest.mark.parametrize("options", [{}, {"quality": 40}, {"progressive": True}, {"subsampling": 0}], ids=str)
def test_jpeg_is_what_pillow_makes_of_it(options: dict) -> None:
    data = jpeg(RGB, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data), expected)
    assert np.abs(decode(data).astype(int) - PIXELS).mean() < 25


@pytest.mark.parametrize("kind", [png, jpeg])
def test_grey_becomes_three_equal_channels(kind) -> None:
    frame = decode(kind(RGB.convert("L")))
    grey = np.asarray(RGB.convert("L")).astype(int)
    assert (frame == frame[:, :, :1]).all()
    assert np.abs(frame[:, :, 0] - grey).max() <= (0 if kind is png else 40)


def test_transparency_is_dropped_and_colours_stay() -> None:
    alpha = np.dstack([PIXELS, noisy_frame(2, 24, 32)[:, :, 0]])
    np.testing.assert_array_equal(decode(png(Image.fromarray(alpha))), PIXELS)
    np.testing.assert_array_equal(decode(png(RGB, transparency=tuple(PIXELS[0, 0].tolist()))), PIXELS)
    grey = RGB.convert("LA")
    np.testing.assert_array_equal(decode(png(grey))[:, :, 0], np.asarray(grey)[:, :, 0])


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(200))], ids=["opaque", "one", "table"])
def test_a_palette_is_looked_up(transparency: int | bytes | None) -> None:
    palette = RGB.quantize(64)
    options = {} if transparency is None else {"transparency": transparency}
    np.testing.assert_array_equal(decode(png(palette, **options)), np.asarray(palette.convert("RGB")))


def test_black_and_white_becomes_0_and_255() -> None:
    frame = decode(png(RGB.convert("1")))
    assert set(np.unique(frame)) == {0, 255}


def test_a_cmyk_jpeg_is_converted() -> None:
    data = jpeg(RGB.convert("CMYK"))
    frame = decode(data)
    np.testing.assert_array_equal(frame, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert np.abs(frame.astype(int) - PIXELS).mean() < 30


def test_16_bit_grey_keeps_its_high_byte() -> None:
    grey = (np.arange(24 * 32, dtype=np.uint16) * 85).reshape(24, 32)
    frame = decode(png(grey))
    np.testing.assert_array_equal(frame, np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2))


def test_16_bit_colour_keeps_its_high_byte() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (24, 32, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", 32, 24, 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    frame = decode(b"\x89PNG\r\n\x1a\n" + data)
    np.testing.assert_array_equal(frame, (deep >> 8).astype(np.uint8))


def test_the_orientation_in_exif_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    np.testing.assert_array_equal(decode(jpeg(RGB, exif=exif)), decode(jpeg(RGB)))


@pytest.mark.parametrize("kind", [png, jpeg])
@pytest.mark.parametrize("size", [(1, 1), (24, 32), (7, 300)])
def test_the_size_is_height_and_width_from_the_header(kind, size: tuple[int, int]) -> None:
    assert image_size(kind(noisy_frame(0, *size))) == size


def test_the_size_needs_no_pixel() -> None:
    assert image_size(png(RGB)[:60]) == image_size(jpeg(RGB)[:-100]) == (24, 32)


@pytest.mark.parametrize("kind", [png, jpeg])
def test_an_image_cut_anywhere_is_refused_unless_all_its_pixels_are_there(kind) -> None:
    data = kind(RGB)
    pixels, refused = decode(data), 0
    for length in range(len(data)):
        try:
            np.testing.assert_array_equal(decode(data[:length]), pixels)
        except ImageError as error:
            refused += 1
            one_line(error)
    assert refused >= len(data) - 21  # the last bytes hold no pixel: checksums, end of image


def damaged() -> list[tuple[str, bytes]]:
    """Images of many kinds."""
    return [
        ("png", png(RGB.resize((8, 8)))),
        ("jpeg", jpeg(RGB.resize((8, 8)))),
        ("progressive", jpeg(RGB.resize((8, 8)), progressive=True)),
        ("cmyk", jpeg(RGB.resize((8, 8)).convert("CMYK"))),
        ("palette", png(RGB.resize((8, 8)).quantize(8), transparency=bytes(8))),
        ("grey16", png(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)),
        ("animated", png(RGB.resize((8, 8)), save_all=True, append_images=[RGB.resize((8, 8)).rotate(90)])),
    ]


@pytest.mark.parametrize(("name", "data"), damaged(), ids=[name for name, _ in damaged()])
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of broken metadata, and goes on
def test_no_flipped_byte_is_more_than_an_image_error(name: str, data: bytes) -> None:
    errors = 0
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 0xFF
        for read in (image_size, lambda broken: decode(broken, (8, 8))):
            try:
                read(bytes(broken))
            except ImageError as error:
                errors += 1
                one_line(error)
    assert errors


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"not an image at all",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a" + bytes(30),
        b"RIFF\x10\0\0\0WEBPVP8 " + bytes(30),
        bytes(1000),
    ],
    ids=repr,
)
def test_what_is_no_jpeg_or_png_is_refused(data: bytes) -> None:
    for read in (image_size, decode):
        with pytest.raises(ImageError, match=r"neither JPEG nor PNG|cannot be decoded") as caught:
            read(data)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_other_formats_that_pillow_knows_are_refused(kind: str) -> None:
    buffer = io.BytesIO()
    RGB.save(buffer, kind)
    with pytest.raises(ImageError, match="is neither JPEG nor PNG"):
        decode(buffer.getvalue())


@pytest.mark.parametrize(
    ("width", "height"),
    [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (8193, 8192), (10_000, 10_000), (1, MAX_PIXELS + 1)],
)
def test_a_bomb_is_refused_from_its_header(width: int, height: int) -> None:
    for read in (image_size, lambda data: decode(data, (24, 32))):
        with pytest.raises(ImageError, match=r"pixels.* refused") as caught:
            read(png_claiming(width, height))
        assert len(str(caught.value).splitlines()) == 1


def test_the_largest_size_is_not_refused() -> None:
    assert image_size(png_claiming(8192, 8192)) == (8192, 8192)


def test_an_image_of_another_size_is_refused_also_when_it_would_be_resized() -> None:
    for resize in (KEEP, Resize(size=(10, 10)), Resize(size=(32, 24), fit="crop")):
        with pytest.raises(ImageError, match="is 24x32 pixels where the episode has 32x24"):
            decode(png(RGB), (32, 24), resize)


SIZES = [(12, 16), (24, 24), (8, 31), (48, 64), (100, 3), (1, 1), (23, 32), (24, 31)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_stretch_is_pillows_bilinear_resize(size: tuple[int, int]) -> None:
    expected = RGB.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode(png(RGB), resize=Resize(size=size)), np.asarray(expected))


@pytest.mark.parametrize("source", [(24, 32), (32, 24), (25, 25)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_crop_cuts_the_middle_out_and_then_resizes(source: tuple[int, int], size: tuple[int, int]) -> None:
    image, aspect = Image.fromarray(noisy_frame(3, *source)), size[1] / size[0]
    height, width = source
    if width / height > aspect:
        cut = max(1, round(height * size[1] / size[0]))
        left = (width - cut) // 2
        image = image.crop((left, 0, left + cut, height))
    else:
        cut = max(1, round(width * size[0] / size[1]))
        top = (height - cut) // 2
        image = image.crop((0, top, width, top + cut))
    expected = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    found = decode(png(noisy_frame(3, *source)), source, Resize(size=size, fit="crop"))
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_crop_sees_nothing_of_what_it_cuts_off() -> None:
    pixels = np.full((10, 30, 3), 255, np.uint8)
    pixels[:, 10:20] = 0
    assert (decode(png(pixels), (10, 30), Resize(size=(7, 7), fit="crop")) == 0).all()


def test_a_size_that_is_the_sources_changes_no_pixel() -> None:
    for fit in ("stretch", "crop"):
        np.testing.assert_array_equal(decode(png(RGB), resize=Resize(size=(24, 32), fit=fit)), PIXELS)


@pytest.mark.parametrize("resize", [KEEP, Resize(size=(9, 14)), Resize(size=(9, 9), fit="crop")], ids=str)
@pytest.mark.parametrize("data", [png(RGB), jpeg(RGB), png(RGB.convert("L"))], ids=["png", "jpeg", "grey"])
def test_all_of_the_buffer_is_written_and_always_the_same(data: bytes, resize: Resize) -> None:
    first = decode(data, resize=resize, fill=0)
    for fill in (1, 255):
        np.testing.assert_array_equal(decode(data, resize=resize, fill=fill), first)


def test_frames_are_written_in_place_into_a_larger_buffer() -> None:
    buffer = np.full((3, 24, 32, 3), 9, np.uint8)
    decode_into(buffer[1], png(RGB), (24, 32), KEEP)
    np.testing.assert_array_equal(buffer[1], PIXELS)
    assert (buffer[[0, 2]] == 9).all()


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5), (8193, 5)])
def test_an_impossible_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="1 to 8192 pixels"):
        Resize(size=size)


def test_an_unknown_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="stretch, crop; got 'pad'"):
        Resize(fit="pad")


def test_the_description_is_plain() -> None:
    assert Resize(size=(2, 3), fit="crop").describe() == {"size": [2, 3], "fit": "crop", "filter": "bilinear"}
    assert KEEP.describe() == {"size": None, "fit": None, "filter": None}
    assert Resize(fit="crop").describe() == KEEP.describe()
    assert KEEP.output_size(5, 7) == (5, 7)
    assert Resize(size=(2, 3)).output_size(5, 7) == (2, 3)
