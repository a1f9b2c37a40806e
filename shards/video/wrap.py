"""Coded frames of a source to chunks, and back."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from oxcart.shards.codec import Encoded
from oxcart.shards.video.annexb import SYNTAX, split_annexb, wrap_annexb
from oxcart.shards.video.groups import CodedFrame
from oxcart.shards.video.ivf import split_ivf, wrap_ivf


def wrap(
    codec: str,
    frames: Sequence[CodedFrame],
    extradata: bytes,
    size: tuple[int, int],
    rate: Fraction,
    most: int,
) -> Encoded:
    """Store the frames of an episode as they are coded, one closed group per chunk.

    Which frames are key frames is read from the packets, since containers say it of too many.

    Args:
        codec: one of `VIDEO_EXTENSIONS`.
        frames: every packet of the episode and none of another, in decoding order.
        extradata: what the container says of the whole stream.
        size: height and width in pixels.
        rate: frames per second.
        most: most frames of a chunk.

    Raises:
        ValueError: why the frames cannot be stored as they are.
    """
    if codec in SYNTAX:
        return wrap_annexb(codec, frames, extradata, most)
    return wrap_ivf(codec, frames, extradata, size, rate, most)


def access_units(codec: str, chunk: bytes | memoryview) -> list[bytes]:
    """The packets of a chunk, one per frame, in decoding order.

    Raises:
        ValueError: the chunk is damaged.
    """
    return split_annexb(codec, chunk) if codec in SYNTAX else split_ivf(chunk)
