"""The drawn videos: the same bytes for the same configuration, and what they are said to hold."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import av
import pytest

from oxcart.compile.sample.videos import SPECIAL, VideoSampleConfig, variable_times, write_videos
from oxcart.shards.errors import ConfigError
from sample_compile import tree

SMALL = VideoSampleConfig(channels=2, videos=1, shots=1, seconds=0.5, height=32)


def test_the_same_configuration_writes_the_same_bytes(tmp_path: Path) -> None:
    done: list[int] = []
    write_videos(tmp_path / "a", SMALL, done.append)
    write_videos(tmp_path / "b", SMALL)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert done == list(range(1, SMALL.total + 1))
    assert len(list((tmp_path / "a").glob("*.mp4"))) == SMALL.total == 2 + SPECIAL


def test_every_video_has_its_info_and_the_frames_that_were_drawn(tmp_path: Path) -> None:
    write_videos(tmp_path, SMALL)
    for path in tmp_path.glob("*.mp4"):
        info = json.loads(path.with_suffix(".info.json").read_text())
        assert f"[{info['id']}]" in path.name
        assert len(info["id"]) == 11
    with av.open(str(next(tmp_path.glob("*[[]ckitchen000].mp4")))) as container:
        assert [frame.pts is not None for frame in container.decode(video=0)] == [True] * 12


def test_what_is_planted_at_the_names_of_files_is_replaced_and_never_written_through(tmp_path: Path) -> None:
    write_videos(tmp_path / "free", SMALL)
    (tmp_path / "taken").mkdir()
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    for name in tree(tmp_path / "free"):
        (tmp_path / "taken" / name).symlink_to(target)
    write_videos(tmp_path / "taken", SMALL)
    assert target.read_bytes() == b"precious"
    assert tree(tmp_path / "taken") == tree(tmp_path / "free")


def test_times_of_a_phone_vary() -> None:
    times = variable_times("t", 50)
    gaps = [b - a for a, b in pairwise(times)]
    assert times[0] == 0
    assert min(gaps) >= 15
    assert max(gaps) < 100
    assert len(set(gaps)) > 10


@pytest.mark.parametrize("wrong", [{"channels": 1}, {"height": 8}, {"seconds": 0.1}])
def test_an_impossible_value_is_refused(wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"^{name}: expected "):
        VideoSampleConfig(**wrong)  # type: ignore[arg-type]
