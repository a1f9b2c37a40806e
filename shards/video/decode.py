"""Frames of a chunk: a closed group of pictures, decoded by PyAV.

Each thread keeps its decoders, one per codec, since opening one takes as long as decoding a small frame. A
decoder has one thread of its own and stops at the first error. Nothing of one group is left in it when the
next one begins, so what a chunk shows does not depend on what was decoded before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

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
        codec: one of `VIDEO_EXTENSIONS`.
        chunk: the chunk.
        out: [n, H, W, 3] uint8; the chunk may hold more than n frames.

    Raises:
        ValueError: the chunk does not hold n frames of that size.
        ConfigError: this PyAV has no decoder of the codec.
    """
    decode_frames(codec, chunk, dict(enumerate(out)))


def decode_frames(codec: str, chunk: bytes | memoryview, wanted: Mapping[int, Frames]) -> None:
    """Decode some frames of a chunk; frames between them are decoded too, but not converted to RGB.

    Args:
        codec: one of `VIDEO_EXTENSIONS`.
        chunk: the chunk.
        wanted: number of a frame, in the order in which they are shown -> its memory, [H, W, 3] uint8.

    Raises:
        ValueError: the chunk does not hold these frames, of that size.
        ConfigError: this PyAV has no decoder of the codec.
    """
    count, made = max(wanted, default=-1) + 1, 0
    for made, frame in enumerate(islice(_shown(codec, access_units(codec, chunk)), count), 1):
        out = wanted.get(made - 1)
        if out is None:
            continue
        if (frame.height, frame.width) != out.shape[:2]:
            found, expected = f"{frame.height}x{frame.width}", f"{out.shape[0]}x{out.shape[1]}"
            raise ValueError(f"is {found} pixels where the episode has {expected}")
        paint(frame, out)
    if made < count:
        raise ValueError(f"shows {made} frames, expected {count}")


def presentation(codec: str, units: Sequence[bytes]) -> list[int]:
    """The place of each packet of a chunk in the order in which their frames are shown.

    Args:
        codec: one of `VIDEO_EXTENSIONS`.
        units: packets in decoding order, as `access_units` gives them.

    Raises:
        ValueError: the packets do not show one frame each.
    """
    shown = [frame.pts for frame in _shown(codec, units)]
    if set(shown) != set(range(len(units))) or len(shown) != len(units):
        raise ValueError(f"shows {len(shown)} frames, expected {len(units)}")
    return [shown.index(number) for number in range(len(units))]


def _shown(codec: str, units: Sequence[bytes]) -> Iterator[VideoFrame]:
    """The frames of packets as they are shown; the pts of a frame is the number of its packet."""
    decoder = _decoder(codec)
    try:
        for number, unit in enumerate((*units, None)):  # None asks for frames that are held back
            packet = None if unit is None else av.Packet(unit)
            if packet is not None:
                packet.pts = number
            for frame in decoder.decode(packet):
                if frame.is_corrupt:
                    raise ValueError("has a damaged frame")
                yield frame
    except (av.FFmpegError, ValueError) as error:
        del _local.decoders[codec]
        if isinstance(error, av.FFmpegError):
            error = ValueError(f"cannot be decoded: {error.strerror or type(error).__name__}")
        raise error from None


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
