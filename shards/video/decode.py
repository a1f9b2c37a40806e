"""Frames of a chunk: a closed group of pictures, decoded by PyAV.

Each thread keeps its decoders, one per codec, since opening one takes as long as decoding a small frame. A
decoder has one thread of its own and stops at the first error. Nothing of one group is left in it when the
next one begins, so what a chunk shows does not depend on what was decoded before.
"""

from __future__ import annotations

import threading

import av
import numpy as np
import numpy.typing as npt
from av.codec.codec import UnknownCodecError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from oxcart.shards.errors import ConfigError
from oxcart.shards.video.pixels import paint
from oxcart.shards.video.wrap import access_units

Frames = npt.NDArray[np.uint8]

DECODERS = {"av1": "libdav1d", "h264": "h264", "hevc": "hevc", "vp9": "vp9"}
"""Codec -> FFmpeg's name of its decoder."""
MAX_PIXELS = 1 << 26
"""Maximum number of pixels of a frame; a decoder refuses larger ones before it takes memory."""
_OPTIONS = {
    "err_detect": "explode",
    "max_pixels": str(MAX_PIXELS),
    "strict": "strict",  # or H.264 would guess how many frames to hold back, from those it saw before
}


def decode_group(codec: str, chunk: bytes | memoryview, out: Frames) -> None:
    """Decode the first frames of a chunk, in the order in which they are shown.

    Args:
        codec: one of `VIDEO_CODECS`.
        chunk: the chunk.
        out: [n, H, W, 3] uint8; the chunk may hold more than n frames.

    Raises:
        ValueError: the chunk does not hold n frames of that size.
        ConfigError: this PyAV has no decoder of the codec.
    """
    units, made = access_units(codec, chunk), 0
    decoder = _decoder(codec)
    try:
        for packet in (*map(av.Packet, units), None):  # None asks for frames that are held back
            for frame in decoder.decode(packet):
                if made < len(out):
                    _check(frame, out.shape[1:3])
                    paint(frame, out[made])
                made += 1
            if made >= len(out):
                break
    except (av.FFmpegError, ValueError) as error:
        del _local.decoders[codec]
        if not isinstance(error, av.FFmpegError):
            raise
        raise ValueError(f"cannot be decoded: {_reason(error)}") from error
    if made < len(out):
        raise ValueError(f"shows {made} frames, expected {len(out)}")


def _check(frame: VideoFrame, size: tuple[int, ...]) -> None:
    if frame.is_corrupt:
        raise ValueError("has a damaged frame")
    if (frame.height, frame.width) != size:
        raise ValueError(f"is {frame.height}x{frame.width} pixels where the episode has {size[0]}x{size[1]}")


_local = threading.local()


def _decoder(codec: str) -> VideoCodecContext:
    """This thread's decoder of a codec, with nothing of other chunks in it.

    Raises:
        ConfigError: this PyAV has none.
    """
    decoders: dict[str, VideoCodecContext] = _local.__dict__.setdefault("decoders", {})
    decoder = decoders.get(codec)
    if decoder is not None:
        decoder.flush_buffers()
        return decoder
    try:
        opened = av.CodecContext.create(DECODERS[codec], "r")
    except UnknownCodecError as error:
        raise ConfigError(
            f"codec {codec}: this PyAV has no decoder {DECODERS[codec]}; use the wheel from PyPI"
        ) from error
    assert isinstance(opened, VideoCodecContext)
    opened.thread_count = 1
    opened.options = _OPTIONS | ({"max_frame_delay": "1"} if codec == "av1" else {})
    opened.open()
    decoders[codec] = opened
    return opened


def _reason(error: av.FFmpegError) -> str:
    return (error.strerror or type(error).__name__).splitlines()[0]
