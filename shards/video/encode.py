"""Frames to AV1, for sources whose frames are images, or videos with too few key frames.

libsvtav1 encodes on one thread, as LeRobot's writer has it encode (preset 12, yuv420p), so the same frames
give the same bytes with any number of processors. Levels are those of BT.601 between 16 and 235, and the
stream says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain

import av
import numpy as np
import numpy.typing as npt
from av.codec.codec import UnknownCodecError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from oxcart.shards.codec import Encoded
from oxcart.shards.errors import ConfigError
from oxcart.shards.video.groups import CodedFrame
from oxcart.shards.video.wrap import wrap

Frames = npt.NDArray[np.uint8]

ENCODER = "libsvtav1"
PRESET = 12
RATE = Fraction(30)
"""Frames per second that the encoder is told and the member says; the manifest has the true rate."""
_EXACT = Interpolation.BICUBIC | Interpolation.BITEXACT | Interpolation.ACCURATE_RND


def encode_av1(frames: Frames, quality: int, most: int) -> Encoded:
    """Encode the frames of an episode.

    Args:
        frames: [T, H, W, 3] uint8.
        quality: constant rate factor of 1 to 63; less is better.
        most: frames from one key frame to the next.

    Raises:
        ValueError: the encoder cannot hold frames of this size.
        ConfigError: this PyAV has no encoder of AV1.
    """
    height, width = frames.shape[1:3]
    os.environ.setdefault("SVT_LOG", "0")  # or it reports its settings for every episode
    try:
        encoder = av.CodecContext.create(ENCODER, "w")
    except UnknownCodecError as error:
        raise ConfigError(
            f"codec av1: this PyAV has no encoder {ENCODER}; use the wheel from PyPI, or codec jpeg"
        ) from error
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = 1 / RATE, RATE
    encoder.gop_size, encoder.thread_count = most, 1
    encoder.colorspace, encoder.color_range = int(Colorspace.ITU601), int(ColorRange.MPEG)
    encoder.options = {"preset": str(PRESET), "crf": str(quality), "svtav1-params": "lp=1"}
    coded: list[CodedFrame] = []
    try:
        for frame in chain(_planes(frames), (None,)):
            for packet in encoder.encode(frame):
                assert packet.pts is not None
                coded.append(CodedFrame(bytes(packet), packet.pts, packet.is_keyframe))
    except av.FFmpegError as error:
        raise ValueError(
            f"cannot be encoded as AV1 at {height}x{width} pixels: {error.strerror}; use codec jpeg"
        ) from error
    return wrap("av1", coded, encoder.extradata or b"", (height, width), RATE, most)


def _planes(frames: Frames) -> Iterator[VideoFrame]:
    """Frames as YUV, numbered."""
    convert = VideoReformatter()
    for number, rgb in enumerate(frames):
        frame = convert.reformat(
            VideoFrame.from_numpy_buffer(np.ascontiguousarray(rgb), "rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            interpolation=_EXACT,
            threads=1,
        )
        frame.pts, frame.time_base = number, 1 / RATE
        yield frame
