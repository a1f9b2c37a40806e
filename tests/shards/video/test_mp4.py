"""What is written as MP4 shows frame n at exactly n / rate seconds, and holds the same packets."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from films import CODECS, read, shoot
from oxcart.shards.video import wrap, write_mp4


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("rate", [Fraction(10), Fraction(15, 4), Fraction(30000, 1001)], ids=str)
def test_every_frame_is_shown_at_its_number_by_the_rate(codec: str, rate: Fraction) -> None:
    encoder, options, container = CODECS[codec]
    shot = shoot(encoder, options, container=container)
    member = wrap(codec, shot.packets, shot.extradata, shot.size, rate, 8)
    file = io.BytesIO()
    assert write_mp4(file, codec, [member.chunks, member.chunks], shot.size, rate) == 24

    again = read(file.getvalue())
    assert np.array_equal(again.frames, np.concatenate([shot.frames, shot.frames]))
    with av.open(io.BytesIO(file.getvalue())) as source:
        stream = source.streams.video[0]
        times = [frame.pts * stream.time_base for frame in source.decode(video=0)]
        assert stream.duration * stream.time_base == 24 / rate
    assert times == [n / rate for n in range(24)]
    assert member.frames is not None
    starts = np.cumsum([0, *member.frames, *member.frames])[:-1].tolist()
    assert [i for i, packet in enumerate(again.packets) if packet.key] == starts
    for start in (0, 12):
        part = again.packets[start : start + 12]
        assert wrap(codec, part, again.extradata, again.size, rate, 8).chunks == member.chunks


def test_no_frames_are_no_file() -> None:
    with pytest.raises(ValueError, match="no frames"):
        write_mp4(io.BytesIO(), "av1", [[]], (64, 64), Fraction(10))


def test_a_group_in_another_order_than_the_header_says_is_refused() -> None:
    encoder, options, container = CODECS["hevc"]
    shot = shoot(encoder, options, container=container)
    plain = shoot(encoder, {"x265-params": "keyint=4:bframes=0:log-level=none"})
    groups = [
        wrap("hevc", one.packets, one.extradata, one.size, Fraction(10), 8).chunks for one in (plain, shot)
    ]
    with pytest.raises(ValueError, match="holds frames back for longer"):
        write_mp4(io.BytesIO(), "hevc", groups, shot.size, Fraction(10))
    assert write_mp4(io.BytesIO(), "hevc", groups[::-1], shot.size, Fraction(10)) == 24
