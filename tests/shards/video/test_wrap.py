"""Every frame of a source's video is found by itself, whatever the codec."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
import numpy.typing as npt
import pytest

from oxcart.shards.codec import Encoded
from oxcart.shards.video import CodedFrame, decode_group, wrap

Frames = npt.NDArray[np.uint8]
RATE = Fraction(10)


class Film(NamedTuple):
    """A video that a test encoded: its packets, and its frames as PyAV reads them one after another."""

    packets: list[CodedFrame]
    extradata: bytes
    size: tuple[int, int]
    frames: Frames


def film(
    encoder: str,
    options: dict[str, str],
    *,
    count: int = 12,
    size: tuple[int, int] = (64, 80),
    container: str = "mp4",
) -> Film:
    """Encode frames that all differ, and read the file."""
    file = io.BytesIO()
    rows, columns = np.mgrid[: size[0], : size[1]]
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(encoder, rate=RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.thread_count = 1
        for i in range(count):
            image = np.stack([rows * 3 + 9 * i, columns * 2 + 5 * i, rows + columns + 40 * (i % 2)], -1) % 256
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image.astype(np.uint8))))
        out.mux(stream.encode())
    file.seek(0)
    with av.open(file) as source:
        stream = source.streams.video[0]
        packets = [
            CodedFrame(bytes(one), one.pts, one.is_keyframe) for one in source.demux(stream) if one.size
        ]
        extradata = stream.codec_context.extradata or b""
    file.seek(0)
    with av.open(file) as source:
        frames = np.stack([one.to_ndarray(format="rgb24") for one in source.decode(video=0)])
    assert len(frames) == len(packets) == count
    return Film(packets, extradata, size, frames)


def check(codec: str, film: Film, encoded: Encoded) -> None:
    """Each frame, decoded from its chunk alone, is the one that is read in sequence."""
    assert encoded.frames is not None
    assert sum(encoded.frames) == len(film.frames)
    start = 0
    for chunk, count in zip(encoded.chunks, encoded.frames, strict=True):
        for wanted in range(1, count + 1):
            out = np.zeros((wanted, *film.frames.shape[1:]), np.uint8)
            decode_group(codec, chunk, out)
            assert np.array_equal(out, film.frames[start : start + wanted])
        start += count


SVT = {"g": "2", "preset": "12", "svtav1-params": "lp=1"}
CASES = [
    ("av1", "libsvtav1", SVT, "mp4"),
    ("vp9", "libvpx-vp9", {"g": "4"}, "webm"),
    ("h264", "libx264", {"g": "4", "bf": "2"}, "mp4"),
    ("hevc", "libx265", {"x265-params": "keyint=4:bframes=2:open-gop=0:log-level=none"}, "mp4"),
]


@pytest.mark.parametrize(("codec", "encoder", "options", "container"), CASES, ids=[one[0] for one in CASES])
def test_every_frame_is_decoded_alone_as_in_sequence(
    codec: str, encoder: str, options: dict[str, str], container: str
) -> None:
    made = film(encoder, options, container=container)
    encoded = wrap(codec, made.packets, made.extradata, made.size, RATE, 4)
    assert len(encoded.chunks) >= 3
    check(codec, made, encoded)
