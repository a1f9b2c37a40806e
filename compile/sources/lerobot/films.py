"""Frames of episodes in the videos of a LeRobot dataset: found by their number, never by their time.

The n-th frame that a video shows is its n-th frame. Times are only checked: with a constant rate, frame n is
shown n / fps seconds after the first. A video where that fails, or with fewer frames than its episodes have
steps, may show another moment than its actions are of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from oxcart.compile.images import Frame, Resize, resize_into
from oxcart.compile.sources.lerobot.metadata import VideoSpan
from oxcart.compile.sources.videos.decode import Packet, Reel, VideoError, clip_digest
from oxcart.shards.store import Store
from oxcart.shards.video.pixels import paint

OFF = 0.5
"""Frames by which a time may be wrong before it means another frame."""


@dataclass(frozen=True, kw_only=True)
class VideoIndex:
    """The frames of a video, none of them decoded."""

    packets: Sequence[Packet]
    """A packet per frame, in the order in which they are shown."""
    time_base: Fraction
    height: int
    width: int


def read_index(store: Store, file: str) -> VideoIndex:
    """The frames of a video.

    Raises:
        ValueError: the video is missing or cannot be read.
    """
    if not store.exists(file):
        raise ValueError(f"{file} is missing")
    try:
        with Reel(store, file) as reel:
            context = reel.stream.codec_context
            return VideoIndex(
                packets=reel.index(), time_base=reel.time_base, height=context.height, width=context.width
            )
    except VideoError as error:
        raise ValueError(f"{file} {error}") from error


def find_span(index: VideoIndex, span: VideoSpan, steps: int, fps: int) -> tuple[int, int, list[Packet]]:
    """Times (pts) of the first frame of an episode and after its last, and its packets.

    Raises:
        ValueError: the metadata does not fit the video.
    """
    count, end = len(index.packets), span.first + steps
    if end > count:
        raise ValueError(f"its frames end with number {end - 1} of {span.file}, which has {count}")
    if span.needed > count:
        raise ValueError(
            f"{span.file} has {count} frames, its episodes {span.needed} steps, so frames are missing "
            "that may lie before it"
        )
    if span.said is not None and not abs(span.said * fps - span.first) <= OFF:
        raise ValueError(
            f"from_timestamp {span.said:.3f} s is not at its first frame, which is number {span.first} of "
            f"{span.file} and shown at {span.first / fps:.3f} s"
        )
    packets = list(index.packets[span.first : end])
    stamps = np.array([one.pts for one in packets], np.int64) - index.packets[0].pts
    seconds = stamps * float(index.time_base)
    ideal = np.arange(span.first, end) / fps
    wrong = np.flatnonzero(np.abs(seconds - ideal) * fps > OFF)
    if wrong.size:
        one = int(wrong[0])
        raise ValueError(
            f"frame {span.first + one} of {span.file} is shown at {seconds[one]:.3f} s, at {fps} fps it "
            f"would be at {ideal[one]:.3f} s"
        )
    return packets[0].pts, packets[-1].pts + 1, packets


def play_span(
    store: Store, file: str, span: tuple[int, int], digest: int, frames: Frame, resize: Resize
) -> bool:
    """Fill `frames` [T, H, W, 3] uint8 with the frames between two times (pts).

    Returns whether the packets were those of the digest.

    Raises:
        VideoError: the file cannot be decoded.
    """
    (start, stop), made = span, 0
    with Reel(store, file) as reel:
        for frame in reel.frames(start, stop):
            if made < len(frames):
                size = frame.height, frame.width
                whole = frames[made] if frames.shape[1:3] == size else np.empty((*size, 3), np.uint8)
                paint(frame, whole)
                if whole.shape != frames.shape[1:]:
                    resize_into(frames[made], whole, resize)
            made += 1
        same = clip_digest(sorted(reel.packets), start, stop) == digest
    if same and made != len(frames):
        raise VideoError(f"{file} shows {made} frames of the episode, expected {len(frames)}")
    return same
