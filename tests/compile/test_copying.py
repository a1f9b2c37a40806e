"""Videos that are stored as they are: the frames of a decoding compile, in chunks that each decode alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot_writer import IMAGES, TOP, VIDEOS, RobotTake, write_lerobot

from oxcart.compile import extend
from oxcart.compile.images import Resize
from oxcart.compile.pipeline import execute, prepare
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.transcode import TranscodeConfig
from oxcart.compile.transcode import prepare as prepare_transcode
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import Manifest
from oxcart.manifests.split import SplitRule
from oxcart.manifests.verify import verify
from oxcart.shards.codec import Encoding
from oxcart.shards.errors import ConfigError, CorruptError, SourceError
from sample_compile import compiled, config_of, rows_of, tree

TAKES = [RobotTake(steps=steps) for steps in (5, 6, 2, 4, 12)]
ENCODERS: Mapping[str, tuple[str, dict[str, str]]] = {
    "av1": ("libsvtav1", {"g": "2", "crf": "30", "preset": "12"}),
    "h264": ("libx264", {"g": "4", "bf": "2", "crf": "12"}),
    "vp9": ("libvpx-vp9", {"g": "3", "crf": "20"}),
}
"""Codec -> an encoder of it, and its options; H.264 codes frames in another order than it shows them."""
CAMERAS = ("top", "wrist")
COPY = Encoding(codec="video")
LONG = {"g": "12", "bf": "0", "sc_threshold": "0"}
"""Options of an encoder that makes key frames twelve frames apart, and no others."""


def source(root: Path, **options: Any) -> SourceConfig:
    return SourceConfig(url=str(root), kind="lerobot", cameras=CAMERAS, **options)


def compile_videos(root: Path, out: Path, **changes: Any) -> Dataset:
    changes = {"rule": SplitRule(by="episode", val=0.3), "shard_size": 60_000, **changes}
    compiled(root, out, **{"source": source(root), **changes})
    return Dataset.open(str(out))


def transcoded(dataset: Path, out: Path, **options: Any) -> Manifest:
    options = {"shard_size": 60_000, "workers": 1, **options}
    return execute(prepare_transcode(TranscodeConfig(dataset=str(dataset), out=str(out), **options)))


@pytest.fixture(scope="module", params=list(ENCODERS))
def codec(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if ENCODERS[name][0] not in av.codecs_available:
        pytest.skip(f"this PyAV has no {ENCODERS[name][0]}")
    return name


@pytest.fixture(scope="module")
def root(codec: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoder, options = ENCODERS[codec]
    folder = tmp_path_factory.mktemp(codec) / "set"
    return write_lerobot(folder, TAKES, codec=encoder, options=options, apart=True)


@pytest.fixture(scope="module")
def both(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A compile that decodes, and one that copies."""
    folder = tmp_path_factory.mktemp("both")
    compile_videos(root, folder / "raw")
    compile_videos(root, folder / "video", encoding=COPY)
    return folder / "raw", folder / "video"


def test_frames_are_those_of_a_compile_that_decodes(codec: str, both: tuple[Path, Path]) -> None:
    raw, video = (Dataset.open(str(one)) for one in both)
    assert [camera["codec"] for camera in video.manifest.cameras] == [codec, codec]
    assert [camera["quality"] for camera in video.manifest.cameras] == [None, None]
    assert verify(video, decode=True) == []
    for decoded in raw:
        for camera in CAMERAS:
            wanted, found = decoded.frames(camera)[:], video[decoded.key].frames(camera)
            assert np.array_equal(found[:], wanted)
            assert np.array_equal(np.stack(list(found)), wanted)
            for step in reversed(range(len(wanted))):
                assert np.array_equal(found[step], wanted[step]), step
            assert np.array_equal(found[1:3], wanted[1:3])


def test_chunks_are_groups_of_one_episode(codec: str, both: tuple[Path, Path]) -> None:
    _, video = both
    steps = {row["key"]: row["steps"] for row in rows_of(video)}
    most = int(ENCODERS[codec][1]["g"])
    for table in sorted((video / "shards").glob("*.chunks.parquet")):
        for row in pq.read_table(table).to_pylist():
            assert sum(row["frames"]) == steps[row["key"]]
            assert len(row["frames"]) == len(row["sizes"]) == len(row["digests"])
            assert max(row["frames"]) <= most


def test_ffmpeg_plays_a_member(codec: str, both: tuple[Path, Path], tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    _, video = both
    steps = {row["key"]: row["steps"] for row in rows_of(video)}
    with tarfile.open(video / "shards/train-00000.tar") as shard:
        key, _, suffix = shard.getnames()[-1].partition(".")
        (tmp_path / f"one.{suffix}").write_bytes(shard.extractfile(f"{key}.{suffix}").read())  # type: ignore[union-attr]
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / f"one.{suffix}"), "-fps_mode", "passthrough"]
    played = subprocess.run([*command, "-f", "framecrc", "-"], capture_output=True, check=True, text=True)
    assert played.stderr == ""
    assert sum(not line.startswith("#") for line in played.stdout.splitlines()) == steps[key]


def test_a_transcode_decodes_as_a_compile_does_and_keeps_what_it_may(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    raw, video = both
    transcoded(video, tmp_path / "kept")
    assert tree(tmp_path / "kept") == tree(video)
    manifest = transcoded(video, tmp_path / "raw", codec="raw")
    assert "transcoded_from" in manifest.config
    again = Dataset.open(str(tmp_path / "raw"))
    for decoded in Dataset.open(str(raw)):
        assert np.array_equal(again[decoded.key].frames("wrist")[:], decoded.frames("wrist")[:])
    transcoded(video, tmp_path / "small", codec="raw", resize=Resize(size=(16, 24)))
    assert Dataset.open(str(tmp_path / "small"))[0].frames("top")[:].shape[1:] == (16, 24, 3)


def test_a_changed_bit_of_a_video_is_found(both: tuple[Path, Path], tmp_path: Path) -> None:
    _, video = both
    shutil.copytree(video, tmp_path / "out")
    shard = tmp_path / "out/shards/train-00000.tar"
    row = next(row for row in rows_of(video) if row["shard"] == "train-00000")
    data = bytearray(shard.read_bytes())
    data[row["wrist.offset"] + 20] ^= 4
    shard.write_bytes(data)
    damage = verify(Dataset.open(str(tmp_path / "out")))
    assert any("camera wrist, chunk 0 does not match its digest" in one.reason for one in damage)


def test_a_changed_bit_of_the_header_of_a_video_is_not_copied(
    codec: str, both: tuple[Path, Path], tmp_path: Path
) -> None:
    if codec == "h264":
        pytest.skip("its members have no header")
    _, video = both
    row = next(row for row in rows_of(video) if row["shard"] == "train-00000")
    for place in (0, 12, 20, 24):  # file type, width, units of time per frame, frames
        shutil.copytree(video, tmp_path / f"{place}")
        shard = tmp_path / f"{place}/shards/train-00000.tar"
        data = bytearray(shard.read_bytes())
        data[row["wrist.offset"] - 32 + place] ^= 1
        shard.write_bytes(data)
        with pytest.raises(CorruptError, match=r"camera wrist has a damaged header of its video$"):
            transcoded(tmp_path / f"{place}", tmp_path / f"{place}-out")


def refused(root: Path, out: Path, **changes: Any) -> str:
    with pytest.raises((ConfigError, SourceError)) as caught:
        compile_videos(root, out, **{"encoding": COPY, **changes})
    assert not out.exists()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("options", "apart", "said"),
    [
        (
            LONG,
            True,
            "a key frame only every 12 frames, --max-gop is 8; use --codec jpeg",
        ),
        (
            {**LONG, "g": "2"},
            False,
            "its video cannot be copied: .*group.*; use --codec jpeg",
        ),
        ({"g": "4", "bf": "2", "x264-params": "open-gop=1:scenecut=0"}, False, "cannot be copied|only every"),
    ],
)
def test_a_video_whose_groups_do_not_fit_is_refused(
    options: dict[str, str], apart: bool, said: str, tmp_path: Path
) -> None:
    root = write_lerobot(tmp_path / "set", TAKES, options=options, apart=apart, cameras={TOP: "video"})
    config = SourceConfig(url=str(root), kind="lerobot")
    message = refused(root, tmp_path / "out", source=config)
    assert re.search(said, message), message
    if apart:
        longer = Encoding(codec="video", group=12)
        assert len(compile_videos(root, tmp_path / "out", source=config, encoding=longer)) == 5


def test_episodes_that_cannot_be_copied_may_be_left_out(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "set", TAKES, options=LONG, apart=True, cameras={TOP: "video"})
    config = SourceConfig(url=str(root), kind="lerobot")
    dataset = compile_videos(root, tmp_path / "out", source=config, encoding=COPY, on_error="reject")
    (left,) = rows_of(tmp_path / "out", "rejected.parquet")
    assert left["source_record"] == 4
    assert "a key frame only every 12 frames" in left["reason"]
    assert len(dataset) == 4


FIRST, THIRD = (f"videos/chunk-000/{TOP}/episode_{number:06d}.mp4" for number in (0, 2))


def write_mixed(root: Path, others: str, *files: str) -> SourceConfig:
    """Five episodes in a video each: H.264, but for some files, which another encoder writes."""
    for folder, encoder in ((root, "libx264"), (root.with_name("others"), others)):
        options = {"g": "2", "bf": "0"} if encoder == "libx264" else {"g": "2"}
        one = {"codec": encoder, "options": options, "apart": True, "cameras": {TOP: "video"}}
        write_lerobot(folder, TAKES, version="v2.1", **one)  # type: ignore[arg-type]
    for file in files:
        shutil.copy(root.with_name("others") / file, root / file)
    return SourceConfig(url=str(root), kind="lerobot")


@pytest.mark.parametrize("file", [FIRST, THIRD])
def test_the_codec_is_that_of_most_videos_whichever_comes_first(file: str, tmp_path: Path) -> None:
    config = write_mixed(tmp_path / "set", "mpeg4", file)
    said = refused(tmp_path / "set", tmp_path / "out", source=config)
    assert "camera top: its video cannot be copied: its codec is mpeg4" in said
    dataset = compile_videos(
        tmp_path / "set", tmp_path / "out", source=config, encoding=COPY, on_error="reject"
    )
    assert [camera["codec"] for camera in dataset.manifest.cameras] == ["h264"]
    (left,) = rows_of(tmp_path / "out", "rejected.parquet")
    assert f"episode_{left['source_record']:06d}.mp4" in file
    assert verify(dataset, decode=True) == []


def test_a_codec_that_a_source_does_not_have_is_refused(root: Path, codec: str, tmp_path: Path) -> None:
    said = refused(root, tmp_path / "out", source=source(root), encoding=Encoding(codec="hevc"))
    assert f"camera top: is {codec}, expected hevc as in all episodes; use --codec jpeg" in said


def test_episodes_of_a_dataset_stay_when_most_of_its_source_are_of_another_codec(tmp_path: Path) -> None:
    copied = {"codec": "libx264", "options": {"g": "2", "bf": "0"}, "apart": True, "cameras": {TOP: "video"}}
    root = write_lerobot(tmp_path / "set", TAKES[:2], version="v2.1", **copied)  # type: ignore[arg-type]
    config = SourceConfig(url=str(root), kind="lerobot")
    compile_videos(root, tmp_path / "out", source=config, encoding=COPY)
    shutil.rmtree(root)
    places = [f"videos/chunk-000/{TOP}/episode_{number:06d}.mp4" for number in (2, 3, 4)]
    write_mixed(root, "mpeg4", *places)
    grown = config_of(root, tmp_path / "out", source=config, on_error="reject")
    manifest = execute(extend.prepare(extend.adopt(grown, {})))
    assert [manifest.counts[name] for name in ("source", "compiled", "rejected")] == [5, 2, 3]


def test_a_transcode_that_copies_keeps_the_size(codec: str, both: tuple[Path, Path], tmp_path: Path) -> None:
    _, video = both
    with pytest.raises(ConfigError, match=r"^size: codec video copies the videos of camera top .*; use --c"):
        transcoded(video, tmp_path / "out", codec="video", resize=Resize(size=(16, 24)))
    manifest = transcoded(video, tmp_path / "out", resize=Resize(size=(32, 48)))
    assert [(one["codec"], one["quality"]) for one in manifest.cameras] == [(codec, None)] * 2
    assert {one.name: one.read_bytes() for one in (tmp_path / "out/shards").iterdir()} == {
        one.name: one.read_bytes() for one in (video / "shards").iterdir()
    }


def test_what_is_no_video_or_another_size_is_refused(root: Path, tmp_path: Path) -> None:
    images = write_lerobot(tmp_path / "images", TAKES, cameras=IMAGES)
    said = refused(images, tmp_path / "out", source=source(images))
    assert said.startswith("codec video: the source has no videos of camera top to copy; use --codec jpeg")
    said = refused(root, tmp_path / "out", resize=Resize(size=(16, 16)))
    assert said.startswith("size 16x16: the videos of camera top are 32x48 and would be copied; ")
    raw = tmp_path / "raw"
    compile_videos(images, raw, source=source(images))
    with pytest.raises(ConfigError, match=r"codec video: .* holds raw, no videos to copy; use av1"):
        transcoded(raw, tmp_path / "copy", codec="video")


def test_a_dataset_of_videos_grows(tmp_path: Path) -> None:
    encoder = {"options": {"g": "2", "bf": "0"}, "apart": True, "cameras": VIDEOS}
    root = write_lerobot(tmp_path / "set", TAKES[:3], **encoder)  # type: ignore[arg-type]
    compile_videos(root, tmp_path / "out", encoding=COPY)
    shutil.rmtree(root)
    write_lerobot(root, TAKES, **encoder)  # type: ignore[arg-type]
    config = extend.adopt(config_of(root, tmp_path / "out", source=source(root)), {"codec": "video"})
    execute(extend.prepare(config))
    dataset = Dataset.open(str(tmp_path / "out"))
    assert len(dataset) == 5
    assert verify(dataset, decode=True) == []
    assert {camera["codec"] for camera in dataset.manifest.cameras} == {"h264"}


def test_a_plan_says_which_videos_it_copies(root: Path, codec: str, tmp_path: Path) -> None:
    rule = SplitRule(by="episode", val=0.3)
    plan = prepare(config_of(root, tmp_path / "out", source=source(root), encoding=COPY, rule=rule)).plan
    assert {encoding.codec for encoding in plan.encodings.values()} == {codec}
    assert not (tmp_path / "out").exists()
