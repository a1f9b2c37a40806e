"""Chunks of episodes to one MP4 file, as LeRobot keeps videos: nothing is encoded anew.

Frame n of the file is shown at exactly n / rate seconds. Where frames are coded in another order than they
are shown in, that order is what the decoder finds.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import chain
from typing import Any

import av

from oxcart.shards.codec import VIDEO_EXTENSIONS
from oxcart.shards.video.annexb import SYNTAX
from oxcart.shards.video.decode import presentation
from oxcart.shards.video.ivf import ivf_header
from oxcart.shards.video.wrap import access_units


def write_mp4(
    file: Any,
    codec: str,
    members: Iterable[Sequence[bytes | memoryview]],
    size: tuple[int, int],
    rate: Fraction,
) -> int:
    """Write the videos of episodes, one after the other, and return the number of frames.

    Args:
        file: a path, or a file that is open for writing bytes and can seek.
        codec: one of `VIDEO_EXTENSIONS`.
        members: all chunks of each episode.
        size: height and width in pixels.
        rate: frames per second.

    Raises:
        ValueError: a chunk is damaged, there is none, or one holds frames back for longer than the first.
    """
    chunks = (chunk for member in members for chunk in member)
    first = next(chunks, None)
    if first is None:
        raise ValueError("has no frames")
    head = b"" if codec in SYNTAX else ivf_header(codec, size, rate, 0)
    try:
        with (
            av.open(io.BytesIO(head + first), format=VIDEO_EXTENSIONS[codec]) as sample,
            av.open(file, "w", format="mp4") as out,
        ):
            template = sample.streams.video[0]
            held = template.codec_context.reorder_depth
            stream = out.add_stream_from_template(template, opaque=True)
            stream.time_base = 1 / rate
            number = 0
            for chunk in chain([first], chunks):
                units = access_units(codec, chunk)
                places = presentation(codec, units) if codec in SYNTAX else range(len(units))
                if any(place + held < i for i, place in enumerate(places)):
                    raise ValueError("holds frames back for longer than its first group says")
                for i, (unit, place) in enumerate(zip(units, places, strict=True)):
                    packet = av.Packet(unit)
                    packet.stream, packet.time_base = stream, 1 / rate
                    packet.pts, packet.dts, packet.duration = number + place, number + i - held, 1
                    packet.is_keyframe = i == 0
                    out.mux(packet)
                number += len(units)
    except av.FFmpegError as error:
        raise ValueError(f"cannot be written as MP4: {error.strerror}") from error
    return number
