"""Videos that tests encode themselves, and what PyAV reads of them one frame after another."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from oxcart.shards.video import CodedFrame, decode_group

Frames = npt.NDArray[np.uint8]

RATE = Fraction(10)
CODECS: Mapping[str, tuple[str, Mapping[str, str], str]] = {
    "av1": ("libsvtav1", {"g": "2", "preset": "12", "svtav1-params": "lp=1"}, "mp4"),
    "vp9": ("libvpx-vp9", {"g": "4"}, "webm"),
    "h264": ("libx264", {"x264-params": "keyint=8:bframes=3:b-adapt=0:scenecut=0"}, "mp4"),
    "hevc": (
        "libx265",
        {"x265-params": "keyint=8:bframes=3:b-adapt=0:scenecut=0:open-gop=0:log-level=none"},
        "mp4",
    ),
}
"""Codec -> encoder with options that close each group, and a container."""
os.environ.setdefault("SVT_LOG", "0")  # or the encoder reports its settings


class Shot(NamedTuple):
    """An encoded video."""

    packets: list[CodedFrame]
    """In decoding order."""
    extradata: bytes
    size: tuple[int, int]
    frames: Frames
    """[T, H, W, 3] as PyAV reads them in sequence."""
    file: bytes


def drawn(count: int, size: tuple[int, int]) -> Frames:
    """Frames [T, H, W, 3] that all differ."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    images = [
        np.stack([rows * 3 + 9 * i, columns * 2 + 5 * i, rows + columns + 40 * (i % 2)], -1)
        for i in range(count)
    ]
    return (np.stack(images) % 256).astype(np.uint8)


def shoot(
    encoder: str,
    options: Mapping[str, str],
    *,
    count: int = 12,
    size: tuple[int, int] = (64, 80),
    container: str = "mp4",
    **settings: Any,
) -> Shot:
    """Encode frames that all differ.

    libx265 corrupts memory if frames have fewer than 64 rows.

    Args:
        encoder: FFmpeg's name of the encoder.
        options: its options.
        count: number of frames.
        size: height and width in pixels.
        container: FFmpeg's name of the container.
        settings: more attributes of the encoder.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(encoder, rate=RATE, options=dict(options))
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.thread_count = 1
        for name, value in settings.items():
            setattr(stream, name, value)
        for image in drawn(count, size):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        out.mux(stream.encode())
    return read(file.getvalue())


def read(file: bytes) -> Shot:
    """The packets and frames of a file."""
    with av.open(io.BytesIO(file)) as source:
        stream = source.streams.video[0]
        size = stream.height, stream.width
        extradata = stream.codec_context.extradata or b""
        packets = [
            CodedFrame(bytes(one), one.pts, one.is_keyframe) for one in source.demux(stream) if one.size
        ]
    with av.open(io.BytesIO(file)) as source:
        frames = np.stack([one.to_ndarray(format="rgb24") for one in source.decode(video=0)])
    return Shot(packets, extradata, size, frames, file)


def decoded(codec: str, chunk: bytes, count: int, size: tuple[int, int]) -> Frames:
    """The first frames [n, H, W, 3] of a chunk."""
    out = np.zeros((count, *size, 3), np.uint8)
    decode_group(codec, chunk, out)
    return out
