"""A group is closed where presentation times say so, whatever the container flags."""

from __future__ import annotations

import pytest

from films import RATE, decoded, shoot
from oxcart.shards.video import CodedFrame, group, wrap

OPEN = "open-gop=1:keyint=8:min-keyint=8:bframes=3:b-adapt=0:scenecut=0"
OPENED = {
    "h264": ("libx264", {"x264-params": OPEN}),
    "hevc": ("libx265", {"x265-params": f"{OPEN}:log-level=none"}),
}


def packets(times: str, keys: str) -> list[CodedFrame]:
    """Packets with these presentation times in decoding order; keys are marked with `K`."""
    return [
        CodedFrame(b"", int(time), key == "K") for time, key in zip(times.split(), keys.split(), strict=True)
    ]


@pytest.mark.parametrize(
    ("times", "keys", "sizes"),
    [
        ("0 1 2 3", "K . K .", [2, 2]),
        ("0 3 1 2 4 7 5 6", "K . . . K . . .", [4, 4]),
        ("0 3 1 2 6 4 5", "K . . . K . .", [7]),
        ("0 4 2 1 3 8 6 5 7 9 10", "K . . . . K . . . K .", [9, 2]),
        ("5 6 9", "K K K", [1, 1, 1]),
        ("0 3 2 1", "K . K .", [4]),
        ("0 5 1 4 6", "K . . K .", [5]),
    ],
)
def test_a_group_begins_where_all_before_is_shown_before(times: str, keys: str, sizes: list[int]) -> None:
    frames = packets(times, keys)
    groups = group(frames, 16)
    assert [len(one) for one in groups] == sizes
    assert [frame for one in groups for frame in one] == frames


@pytest.mark.parametrize(
    ("times", "keys", "said"),
    [
        ("0 1", ". .", "begins inside a group of pictures"),
        ("0 1", ". K", "begins inside a group of pictures"),
        ("2 0 1", "K . .", "begins inside a group of pictures"),
        ("0 1 2 3 4", "K . . . .", "has 5 frames from one closed key frame to the next, more than 4"),
        ("0 0", "K K", "two frames with one presentation time"),
        ("", "", "no frames"),
    ],
)
def test_what_cannot_be_divided_is_refused_in_one_line(times: str, keys: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        group(packets(times, keys), 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("codec", OPENED)
def test_open_groups_are_not_cut_at_their_flagged_key_frames(codec: str) -> None:
    encoder, options = OPENED[codec]
    shot = shoot(encoder, options, count=25)
    assert sum(frame.key for frame in shot.packets) >= 3
    encoded = wrap(codec, shot.packets, shot.extradata, shot.size, RATE, 32)
    assert encoded.frames == [25]
    assert (decoded(codec, bytes(encoded.chunks[0]), 25, shot.size) == shot.frames).all()
    with pytest.raises(ValueError, match="has 25 frames from one closed key frame to the next, more than 8"):
        wrap(codec, shot.packets, shot.extradata, shot.size, RATE, 8)


@pytest.mark.parametrize("codec", OPENED)
def test_an_episode_that_begins_in_an_open_group_is_refused(codec: str) -> None:
    encoder, options = OPENED[codec]
    shot = shoot(encoder, options, count=25)
    second = [i for i, frame in enumerate(shot.packets) if frame.key][1]
    with pytest.raises(ValueError, match="begins inside a group of pictures"):
        wrap(codec, shot.packets[second:], shot.extradata, shot.size, RATE, 32)


def test_a_point_of_recovery_that_is_no_idr_picture_begins_no_group() -> None:
    options = {"x264-params": "keyint=8:bframes=0:scenecut=0:intra-refresh=1"}
    shot = shoot("libx264", options, count=25)
    flagged = [i for i, frame in enumerate(shot.packets) if frame.key]
    assert len(flagged) >= 3
    assert len(group(shot.packets, 32)) == len(flagged)
    assert wrap("h264", shot.packets, shot.extradata, shot.size, RATE, 32).frames == [25]


def test_a_flag_on_a_frame_that_is_no_key_frame_begins_no_group() -> None:
    shot = shoot("libsvtav1", {"g": "6", "preset": "12", "svtav1-params": "lp=1"})
    flagged = [frame._replace(key=True) for frame in shot.packets]
    assert wrap("av1", flagged, shot.extradata, shot.size, RATE, 8).frames == [6, 6]
    bare = [frame._replace(key=False) for frame in shot.packets]
    assert wrap("av1", bare, shot.extradata, shot.size, RATE, 8).frames == [6, 6]
