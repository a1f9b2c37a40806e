"""Closed groups of pictures: the pieces of a video that decode alone.

A container flags the packets at which a decoder can be started, but frames that follow such a packet in the
file may be shown before it and refer to what is before it (an open group). So a group begins at a flagged
packet only where presentation times part, too: every packet before it is shown earlier, and every packet
after it later.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple


class CodedFrame(NamedTuple):
    """One packet of a video: what codes one frame."""

    data: bytes
    pts: int
    """Time at which the frame is shown, in any unit."""
    key: bool
    """Whether the container says that decoding can start here."""


def group(frames: Sequence[CodedFrame], most: int) -> list[list[CodedFrame]]:
    """Divide the frames of an episode, in decoding order, into closed groups.

    Args:
        frames: every packet of the episode and none of another, in decoding order.
        most: most frames of a group.

    Raises:
        ValueError: the episode does not begin with a closed group, or a group has more frames.
    """
    if not frames:
        raise ValueError("has no frames")
    if len({frame.pts for frame in frames}) != len(frames):
        raise ValueError("has two frames with one presentation time")
    before = list(accumulate((frame.pts for frame in frames), max))
    after = list(accumulate((frame.pts for frame in reversed(frames)), min))[::-1]
    starts = [
        i
        for i, frame in enumerate(frames)
        if frame.key and after[i] == frame.pts and (i == 0 or before[i - 1] < frame.pts)
    ]
    if not starts or starts[0] != 0:
        raise ValueError("begins inside a group of pictures: its first frame needs frames that are before it")
    groups = [list(frames[i:j]) for i, j in zip(starts, [*starts[1:], len(frames)], strict=True)]
    longest = max(map(len, groups))
    if longest > most:
        raise ValueError(f"has {longest} frames from one closed key frame to the next, more than {most}")
    return groups
