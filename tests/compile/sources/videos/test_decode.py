"""Frames of a file: seeks are exact, and what no step shows is not decoded."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from oxcart.compile.images import Resize
from oxcart.compile.sample.videos import damage, write_video
from oxcart.compile.sources.videos.decode import Reel, VideoError, play
from oxcart.shards.store import Store
from video_sources import SIZE, scenes

BFRAMES = {"bf": "3", "b-pyramid": "normal", "refs": "3"}
NEEDY = {
    "open.mp4": "open-gop=1:bframes=3",
    "open.mkv": "open-gop=1:bframes=3",
    "refresh.mp4": "intra-refresh=1",
}
"""Key frames that need what is before them."""
QUIET = {"x265-params": "log-level=none"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scene in several containers, with frames that are stored in another order than shown."""
    folder = tmp_path_factory.mktemp("reels")
    for name in ("a.mp4", "a.mkv", "a.ts", "a.mov"):
        write_video(folder / name, scenes("reel", 60), fps=30, keys=24, options=BFRAMES)
    for name, how in NEEDY.items():
        write_video(folder / name, scenes("reel", 60), fps=30, keys=20, options={"x264-params": how})
    write_video(
        folder / "hevc.ts",
        scenes("reel", 60),
        fps=30,
        codec="libx265",
        keys=24,
        options=QUIET,
    )
    for name, codec in (("vp9.webm", "libvpx-vp9"), ("mpeg2.ts", "mpeg2video"), ("mpeg4.avi", "mpeg4")):
        more = {"bf": "2"} if codec != "libvpx-vp9" else {"crf": "30", "b": "0"}
        write_video(folder / name, scenes("reel", 60), fps=30, codec=codec, keys=24, options=more)
    return folder


FILES = ("a.mp4", "a.mkv", "a.ts", "a.mov", *NEEDY, "hevc.ts", "vp9.webm", "mpeg2.ts", "mpeg4.avi")


def pixels(frame: Any) -> bytes:
    return frame.to_ndarray().tobytes()


@pytest.mark.parametrize("name", FILES)
def test_a_seek_gives_the_frames_that_decoding_all_does(folder: Path, name: str) -> None:
    with Reel(Store(folder), name) as reel:
        all_of_it = {frame.pts: pixels(frame) for frame in reel.frames()}
    stamps = sorted(all_of_it)
    assert len(stamps) == 60
    for start, stop in ((0, 7), (1, 2), (23, 25), (24, 48), (37, 60), (59, 60)):
        with Reel(Store(folder), name) as reel:
            behind = stamps[stop] if stop < 60 else None
            found = {frame.pts: pixels(frame) for frame in reel.frames(stamps[start], behind)}
            assert found == {pts: all_of_it[pts] for pts in stamps[start:stop]}
            again = {frame.pts: pixels(frame) for frame in reel.frames(stamps[start], stamps[stop - 1] + 1)}
            assert again == found
            assert {one.pts for one in reel.packets} >= found.keys()


def test_a_frame_after_the_last_possible_one_is_not_decoded(folder: Path, tmp_path: Path) -> None:
    with Reel(Store(folder), "vp9.webm") as reel:
        whole = {frame.pts: pixels(frame) for frame in reel.frames()}
        packets = reel.packets
    data = bytearray((folder / "vp9.webm").read_bytes())
    damaged = packets[8]
    data[damaged.position + 8 : damaged.position + damaged.size] = bytes(damaged.size - 8)
    (tmp_path / "vp9.webm").write_bytes(data)
    start, stop = packets[3].pts, packets[7].pts
    with Reel(Store(tmp_path), "vp9.webm") as reel:
        assert [pixels(one) for one in reel.frames(start, stop + 1)] == [*whole.values()][3:8]
        with pytest.raises(VideoError, match="cannot be"):
            list(reel.frames(start, stop + 2))


@pytest.mark.parametrize("name", FILES)
def test_frames_that_no_step_shows_are_spared_and_the_others_are_the_same(folder: Path, name: str) -> None:
    with Reel(Store(folder), name) as reel:
        stamps = [frame.pts for frame in reel.frames() if frame.pts is not None]
    gap = max(np.diff(stamps).tolist())
    for start, stop in ((0, 59), (5, 41), (30, 55)):
        decoded = {}
        for longest in (0, gap):
            with Reel(Store(folder), name) as reel:
                length = (stamps[stop] - stamps[start]) * reel.time_base
                frames = np.zeros((int(length * 10), *SIZE, 3), np.uint8)
                play(reel, stamps[start], stamps[stop], longest, Fraction(10), Resize(), frames)
                decoded[longest] = frames
                read = {one.pts for one in reel.packets}
            assert read >= set(stamps[start:stop])
        assert np.array_equal(decoded[0], decoded[gap])


def test_half_of_the_frames_of_common_video_are_spared(folder: Path) -> None:
    with Reel(Store(folder), "a.mp4") as reel:
        stamps = sorted(one.pts for one in reel.index())
        came = list(reel.frames(stamps[0], None, wanted=lambda pts: pts in stamps[::6]))
    assert {frame.pts for frame in came} >= set(stamps[::6])
    assert len(came) <= 45


def test_a_rate_above_the_videos_own_repeats_its_frames(folder: Path) -> None:
    frames = np.zeros((24, *SIZE, 3), np.uint8)
    with Reel(Store(folder), "a.mp4") as reel:
        stamps = sorted(one.pts for one in reel.index())
        play(reel, stamps[0], stamps[6], stamps[1] - stamps[0], Fraction(120), Resize(), frames)
    same = [np.array_equal(one, other) for one, other in pairwise(frames)]
    assert same == [(i + 1) % 4 != 0 for i in range(23)]


def test_a_frame_that_is_not_there_is_said_to_be_missing(folder: Path) -> None:
    with Reel(Store(folder), "a.mp4") as reel:
        first, second, *_ = sorted(one.pts for one in reel.index())
        with pytest.raises(VideoError, match="has no frame at"):
            list(reel.frames((first + second) // 2))


def test_a_video_that_begins_before_zero_or_late_is_whole(tmp_path: Path) -> None:
    for name, first in (("late.mkv", 5000), ("early.ts", 0)):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
            stream.options = BFRAMES
            for i, image in enumerate(scenes("late", 25)):
                frame = av.VideoFrame.from_ndarray(image, "rgb24")
                frame.pts, frame.time_base = first + i, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        with Reel(Store(tmp_path), name) as reel:
            stamps = [frame.pts for frame in reel.frames() if frame.pts is not None]
            reel.check_whole(25, stamps[-1] + stamps[1] - stamps[0])
            assert sorted(one.pts for one in reel.index()) == stamps
        assert len(stamps) == 25


def test_damage_is_an_error_and_not_an_image(tmp_path: Path) -> None:
    write_video(tmp_path / "bad.mp4", scenes("bad", 60))
    damage(tmp_path / "bad.mp4")
    with Reel(Store(tmp_path), "bad.mp4") as reel, pytest.raises(VideoError, match="cannot be decoded at"):
        list(reel.frames())


def test_a_last_image_may_be_held_for_long(tmp_path: Path) -> None:
    """As recordings of screens end."""
    times = [round(i * 1000 / 30) for i in range(60)]
    write_video(tmp_path / "held.mp4", scenes("reel", 60), times_ms=times)
    with Reel(Store(tmp_path), "held.mp4") as reel:
        frames = list(reel.frames())
        assert frames[-1].pts is not None
        reel.check_whole(len(frames), frames[-1].pts + 1)  # however early the last one is thought to end
