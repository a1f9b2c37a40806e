"""Frames of large videos have the colours that LeRobot sees, and groups of pictures are those of FFmpeg."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import lerobot_writer
import numpy as np
import pytest
from lerobot_writer import TOP, Frame, RobotTake, write_lerobot

from oxcart.compile.images import Resize
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import Film, SourceConfig
from oxcart.compile.sources.lerobot import films
from oxcart.compile.sources.lerobot.mp4 import SampleTable
from oxcart.shards.codec import decode
from oxcart.shards.store import Store
from sample_compile import census_of


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    monkeypatch.setattr(lerobot_writer, "SIZE", (720, 736))
    return lerobot_writer.SIZE


def test_a_video_that_names_no_standard_is_bt_601_at_any_size(large: tuple[int, int], tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "set", [RobotTake(steps=2)], cameras={TOP: "video"})
    source = open_source(SourceConfig(url=str(root), kind="lerobot"))
    (row,) = source.census(source.files()[0])
    film = source.read(vars(row)).images["top"]
    assert isinstance(film, Film)
    found: Frame = np.empty((2, *large, 3), np.uint8)
    film.play(found, Resize())
    with av.open(str(next(root.rglob("*.mp4")))) as container:
        expected = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.array_equal(found, expected)


def passing(root: Path) -> list[tuple[str, int | None, str | None]]:
    """Codec and longest group of the videos of camera `top` of each episode, or why there is none."""
    rows = census_of(root, kind="lerobot").table.to_pylist()
    videos = [json.loads(row["detail"])["videos"]["top"] for row in rows]
    return [(one["codec"], one["group"], one["why"]) for one in videos]


def test_the_census_says_which_episodes_are_whole_groups_of_pictures(tmp_path: Path) -> None:
    takes = [RobotTake(steps=steps) for steps in (5, 6, 3, 4, 7)]
    options = {"g": "2", "bf": "0", "sc_threshold": "0"}
    root = write_lerobot(tmp_path / "set", takes, options=options)
    inside = ("h264", None, "it begins inside a group of pictures")
    assert passing(root) == [("h264", 2, None), inside, inside, ("h264", 2, None), ("h264", 2, None)]


@pytest.mark.parametrize("opened", ["0", "1"])
def test_a_group_is_closed_if_no_later_packet_is_shown_before_its_key(opened: str, tmp_path: Path) -> None:
    options = {"g": "6", "bf": "2", "sc_threshold": "0", "x264-params": f"open-gop={opened}"}
    root = write_lerobot(tmp_path / "set", [RobotTake(steps=36)], options=options)
    with av.open(str(root / "videos" / TOP / "chunk-000/file-000.mp4")) as container:
        packets = [(one.pts, one.is_keyframe) for one in container.demux(video=0) if one.size]
    heads = [
        place
        for place, (pts, key) in enumerate(packets)
        if key and all(later > pts for later, _ in packets[place + 1 :])
    ]
    assert sum(key for _, key in packets) >= 6
    assert (len(heads) == 6) == (opened == "0")
    longest = max(after - before for before, after in pairwise([*heads, 36]))
    assert passing(root) == [("h264", longest, None)]


def test_an_episode_that_ends_between_frames_that_refer_to_each_other_is_no_whole_group(
    tmp_path: Path,
) -> None:
    options = {"g": "20", "bf": "3", "b_strategy": "0", "sc_threshold": "0"}
    takes = [RobotTake(steps=2), RobotTake(steps=18)]
    root = write_lerobot(tmp_path / "set", takes, options=options)
    assert [why for _, _, why in passing(root)] == [
        "it ends inside a group of pictures that is not shown in order",
        "it begins inside a group of pictures",
    ]


def test_a_container_that_only_ffmpeg_can_read_is_the_same_source(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "set", [RobotTake(steps=6), RobotTake(steps=4)], cameras={TOP: "video"})
    usual = census_of(root, kind="lerobot").table
    path = next(root.rglob("*.mp4")).rename(tmp_path / "usual.mp4")
    options = {"movflags": "frag_keyframe+empty_moov"}
    with (
        av.open(str(path)) as before,
        av.open(str(root / "videos" / TOP / "chunk-000/file-000.mp4"), "w", options=options) as after,
    ):
        stream = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = stream
                after.mux(packet)
    assert census_of(root, kind="lerobot").table.equals(usual)


def test_packets_of_such_a_container_are_copied_in_the_order_of_decoding(tmp_path: Path) -> None:
    options = {"g": "6", "bf": "2", "b_strategy": "0", "sc_threshold": "0"}
    muxer = {"movflags": "frag_keyframe+empty_moov"}
    root = write_lerobot(
        tmp_path / "set", [RobotTake(steps=12)], cameras={TOP: "video"}, options=options, muxer=muxer
    )
    source = open_source(SourceConfig(url=str(root), kind="lerobot"))
    (row,) = source.census(source.files()[0])
    film = source.read(vars(row)).images["top"]
    assert isinstance(film, Film)
    assert film.copy is not None
    encoded = film.copy(6)
    assert encoded is not None
    assert encoded.frames == [6, 6]
    played, stored = (np.zeros((12, *lerobot_writer.SIZE, 3), np.uint8) for _ in range(2))
    film.play(played, Resize())
    decode("h264", encoded.chunks, encoded.frames, stored)
    assert np.array_equal(stored, played)


def test_a_key_amid_frames_that_are_not_shown_in_order_is_no_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is the third to be decoded and the third to be shown, but one before it is shown later."""
    samples = SampleTable(
        pts=np.array([0, 30, 20, 10, 40]),
        sizes=np.full(5, 7),
        places=np.arange(5) * 7,
        keys=np.array([True, False, True, False, True]),
        time_base=Fraction(1, 100),
        codec="h264",
        extradata=b"",
        height=32,
        width=48,
    )
    monkeypatch.setattr(films, "list_samples", lambda store, file: samples)
    index = films.read_index(Store("."), "a.mp4", 10)
    assert (index.heads, index.lengths) == ([0, 4], [4, 1])
    assert index.ends.tolist() == [True, True, False, False, True, True]
