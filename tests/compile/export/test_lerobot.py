"""Exports to LeRobot: what the files hold, what is refused, and that nothing unfinished looks finished."""

from __future__ import annotations

import dataclasses
import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from lerobot_writer import TOP, RobotTake, write_lerobot
from PIL import Image

from oxcart.compile.export import files
from oxcart.compile.export.features import frame_rate, make_features
from oxcart.compile.export.lerobot import ExportConfig, export, prepare
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.ownership import EXPORT, EXPORTING
from oxcart.manifests.split import SplitRule
from oxcart.shards.codec import Encoding
from oxcart.shards.errors import ConfigError, CorruptError
from sample_compile import CAMERAS, Compiled, compiled, one_line, tree, tree_of
from servers import BUCKET, Server

DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"


def exported(dataset: Path, out: Path, **options: Any) -> Path:
    export(prepare(ExportConfig(dataset=str(dataset), out=str(out), **{"workers": 1, **options})))
    return out


@pytest.fixture(scope="module")
def images(six_episodes: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(six_episodes.out, tmp_path_factory.mktemp("images") / "out", images=True)


@pytest.fixture(scope="module")
def videos(six_episodes: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(six_episodes.out, tmp_path_factory.mktemp("videos") / "out")


@pytest.fixture(scope="module")
def dataset(six_episodes: Compiled) -> Dataset:
    return Dataset.open(str(six_episodes.out))


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / name).to_pylist()
    return found


def info(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "meta/info.json").read_bytes())
    return found


def test_each_split_holds_its_episodes_in_plan_order(images: Path, dataset: Dataset) -> None:
    for split, counts in dataset.manifest.splits.items():
        mine = [episode for episode in dataset if episode.split == split]
        listed = rows(images / split, EPISODES)
        assert [row["oxcart/key"] for row in listed] == [episode.key for episode in mine]
        assert [row["oxcart/environment"] for row in listed] == [one.environment for one in mine]
        assert {row["oxcart/split"] for row in listed} == {split}
        assert [row["length"] for row in listed] == [episode.steps for episode in mine]
        ends = np.cumsum([0, *(episode.steps for episode in mine)])
        assert [row["dataset_from_index"] for row in listed] == ends[:-1].tolist()
        assert [row["dataset_to_index"] for row in listed] == ends[1:].tolist()
        said = info(images / split)
        assert said["codebase_version"] == "v3.0"
        assert (said["total_episodes"], said["total_frames"]) == (counts["episodes"], counts["steps"])
        assert said["total_tasks"] == len(rows(images / split, "meta/tasks.parquet"))
        assert said["fps"] == 10


def test_images_actions_and_tasks_are_exact(images: Path, dataset: Dataset) -> None:
    for split in dataset.manifest.splits:
        steps = rows(images / split, DATA)
        tasks = [row["task"] for row in rows(images / split, "meta/tasks.parquet")]
        index = 0
        for number, episode in enumerate(one for one in dataset if one.split == split):
            mine = steps[index : index + episode.steps]
            assert [row["index"] for row in mine] == list(range(index, index + episode.steps))
            assert {row["episode_index"] for row in mine} == {number}
            assert [row["frame_index"] for row in mine] == list(range(episode.steps))
            times = np.float32(np.arange(episode.steps) / 10)
            assert [row["timestamp"] for row in mine] == times.tolist()
            assert {tasks[row["task_index"]] for row in mine} == {episode.instruction}
            np.testing.assert_array_equal([row["action"] for row in mine], episode.action)
            np.testing.assert_array_equal([row["observation.state"] for row in mine], episode.state)
            assert episode.reward is not None
            assert [row["next.reward"] for row in mine] == episode.reward[:, 0].tolist()
            assert [row["next.done"] for row in mine] == [False] * (episode.steps - 1) + [
                episode.row["terminal"]
            ]
            for camera in CAMERAS:
                pngs = [row[f"observation.images.{camera}"]["bytes"] for row in mine]
                decoded = [np.asarray(Image.open(io.BytesIO(one))) for one in pngs]
                np.testing.assert_array_equal(decoded, episode.frames(camera)[:])
            index += episode.steps
        assert index == len(steps)


def test_a_video_has_each_episode_where_the_metadata_says(videos: Path, dataset: Dataset) -> None:
    for split in dataset.manifest.splits:
        listed = rows(videos / split, EPISODES)
        for camera in CAMERAS:
            feature = f"observation.images.{camera}"
            name = videos / split / f"videos/{feature}/chunk-000/file-000.mp4"
            with av.open(str(name)) as container:
                stream = container.streams.video[0]
                assert stream.average_rate == 10
                times = [packet.pts * packet.time_base for packet in container.demux() if packet.size]
            with av.open(str(name)) as container:
                decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            assert times == [Fraction(step, 10) for step in range(len(decoded))]
            first = 0
            for row, episode in zip(listed, (one for one in dataset if one.split == split), strict=True):
                assert row[f"videos/{feature}/from_timestamp"] == first / 10
                assert row[f"videos/{feature}/to_timestamp"] == (first + episode.steps) / 10
                off = np.abs(np.float32(decoded[first : first + episode.steps]) - episode.frames(camera)[:])
                assert off.mean() < 12
                first += episode.steps
            assert first == len(decoded)
        assert not any(name.startswith("observation.images") for name in rows(videos / split, DATA)[0])


def test_names_of_columns_and_statistics_are_those_of_the_dataset(images: Path, dataset: Dataset) -> None:
    features = info(images / "train")["features"]
    assert dataset.manifest.action is not None
    columns = [one["name"] for one in dataset.manifest.action["columns"]]
    assert features["action"] == {"dtype": "float32", "shape": [3], "names": columns}
    statistics = json.loads((images / "train/meta/stats.json").read_bytes())
    assert statistics.keys() == features.keys()
    actions = np.concatenate([one.action for one in dataset if one.split == "train"])
    for name in ("min", "max"):
        np.testing.assert_allclose(statistics["action"][name], getattr(actions, name)(axis=0), rtol=1e-6)
    frames = sum(one["steps"] for split, one in dataset.manifest.splits.items() if split == "train")
    assert statistics["action"]["count"] == [frames]
    assert np.shape(statistics["observation.images.image_0"]["q99"]) == (3, 1, 1)
    row = rows(images / "train", EPISODES)[0]
    assert {f"stats/{name}/{what}" for name in features for what in statistics[name]} <= row.keys()


def test_the_same_bytes_come_from_any_number_of_threads(
    six_episodes: Compiled, videos: Path, images: Path, tmp_path: Path
) -> None:
    for name, before in (("videos", videos), ("images", images)):
        out = exported(six_episodes.out, tmp_path / name, images=name == "images", workers=3)
        assert tree(out) == tree(before)


def test_a_full_file_is_followed_by_another(
    six_episodes: Compiled, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oxcart.compile.export.features.DATA_MB", 0)
    monkeypatch.setattr("oxcart.compile.export.features.VIDEO_MB", 0)
    monkeypatch.setattr(files, "FILES_PER_FOLDER", 3)
    out = exported(six_episodes.out, tmp_path / "out") / "train"
    row = rows(out, "meta/episodes/chunk-000/file-000.parquet")[3]
    place = {"chunk_index": 1, "file_index": 0}
    for kind in ("data", "videos/observation.images.wrist"):
        assert {name: row[f"{kind}/{name}"] for name in place} == place
    assert row["videos/observation.images.wrist/from_timestamp"] == 0
    found = pq.read_table(out / "data/chunk-001/file-000.parquet")
    assert found["episode_index"].unique().to_pylist() == [3]
    whole = pq.read_table(videos / "train" / DATA)
    assert found.equals(whole.filter(pc.equal(whole["episode_index"], 3)))


def test_rates_that_lerobot_cannot_say_are_refused() -> None:
    assert frame_rate([5.0, 5.0], None) == 5
    assert frame_rate([3.75], 4) == 4
    for rates, said in (
        ([3.75], "3.75 Hz, and LeRobot needs one whole number .* --fps 4 keeps all frames .* wrong by 7%"),
        ([None, 5.0], "unknown for some episodes"),
        ([None], "unknown for some episodes"),
        ([5.0, 10.0], "from 5 to 10 Hz"),
        ([0.25], "--fps 1"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            frame_rate(rates, None)
        one_line(caught.value)


def test_datasets_that_lerobot_cannot_hold_are_refused(dataset: Dataset) -> None:
    manifest = dataset.manifest
    with pytest.raises(ConfigError, match="has no actions"):
        make_features(dataclasses.replace(manifest, action=None), fps=5, images=True, done=True)
    cameras = [{**camera, "height": None, "width": None} for camera in manifest.cameras]
    with pytest.raises(ConfigError, match=r"camera image_0: episodes differ in the size .* transcode --size"):
        make_features(dataclasses.replace(manifest, cameras=cameras), fps=5, images=True, done=True)


def test_a_wrong_rate_is_told(six_episodes: Compiled, tmp_path: Path) -> None:
    prepared = prepare(ExportConfig(dataset=str(six_episodes.out), out=str(tmp_path / "out"), fps=8))
    assert prepared.warnings == ("control rate: 10 Hz, and the export says 8: times are wrong by 20%",)
    assert f"Note: {prepared.warnings[0]}." in prepared.card


def test_an_interrupted_export_opens_nowhere_and_starts_anew(
    six_episodes: Compiled, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prepared = prepare(ExportConfig(dataset=str(six_episodes.out), out=str(out), images=True, workers=1))

    def stop(done: int, size: int) -> None:
        if done == prepared.frames:  # all that is left is to say so
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(prepared, stop)
    assert (out / EXPORTING).exists()
    assert not [*out.rglob("info.json"), *out.rglob(EXPORT), *out.rglob("README.md")]
    assert tree(exported(six_episodes.out, out, images=True)) == tree(images)


def test_a_damaged_dataset_ends_the_export(root: Path, tmp_path: Path) -> None:
    (shard, *_) = sorted(root.glob("shards/val-*.tar"))
    data = bytearray(shard.read_bytes())
    data[-4096] ^= 1
    shard.write_bytes(data)
    out = tmp_path / "out"
    with pytest.raises(CorruptError) as caught:
        exported(root, out, images=True, workers=2)
    one_line(caught.value)
    assert not [*out.rglob("info.json"), *out.rglob(EXPORT)]


def test_only_an_export_is_replaced(six_episodes: Compiled, images: Path, tmp_path: Path) -> None:
    out = exported(six_episodes.out, tmp_path / "out", images=True)
    with pytest.raises(ConfigError, match=r"holds an export; .* --overwrite"):
        exported(six_episodes.out, out)
    (out / "train/data/chunk-000/file-001.parquet").write_bytes(b"of a longer one")
    assert tree(exported(six_episodes.out, out, images=True, overwrite=True)) == tree(images)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    for wrong, said in (
        (other, "holds notes.txt, which no export wrote"),
        (six_episodes.out, "is the dataset itself"),
        (six_episodes.out / "lerobot", "is inside the dataset"),
        (six_episodes.source, "holds .* which no export wrote"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            exported(six_episodes.out, wrong, overwrite=True)
        one_line(caught.value)
    assert tree(other).keys() == {"notes.txt"}


def test_the_card_is_that_of_the_dataset(images: Path, dataset: Dataset) -> None:
    text = (images / "README.md").read_text()
    assert dataset.manifest.fingerprint in text
    assert "Not audited" in text
    assert "train/data/*/*.parquet" in text


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LeRobot dataset of H.264 with frames that are coded in another order than shown."""
    folder = tmp_path_factory.mktemp("coded")
    takes = [RobotTake(steps=8), RobotTake(steps=12, tasks=("open", "close")), RobotTake(steps=4)]
    options = {"g": "4", "bf": "2", "crf": "18", "x264-params": "open-gop=0:scenecut=0:keyint_min=4"}
    return write_lerobot(folder / "set", takes, options=options)


def copied(source: Path, out: Path, **options: Any) -> Dataset:
    """A dataset with the video of a source as it is."""
    config = SourceConfig(url=str(source), kind="lerobot", **options)
    compiled(source, out, source=config, rule=SplitRule(val=None), encoding=Encoding(codec="video"))
    return Dataset.open(str(out))


def test_a_dataset_of_videos_keeps_its_coded_frames(coded: Path, tmp_path: Path) -> None:
    before = copied(coded, tmp_path / "before")
    out = exported(tmp_path / "before", tmp_path / "out")
    assert info(out / "train")["features"][TOP]["info"]["video.codec"] == "h264"
    after = copied(out, tmp_path / "after")
    for episode in before:
        again = after[episode.key].frames("top")
        assert [bytes(one) for one in again.pieces(0, len(again.track.digests))] == [
            bytes(one) for one in episode.frames("top").pieces(0, len(again.track.digests))
        ]
        np.testing.assert_array_equal(again[:], episode.frames("top")[:])
    tasks = [row["tasks"] for row in rows(out / "train", EPISODES)]
    assert sorted(tasks) == [["open", "close"], ["pick"], ["pick"]]
    said = {one.text: one.step for one in after[max(after, key=len).key].instructions}
    assert said == {"open": 0, "close": 6}


def test_a_video_that_holds_bgr_is_encoded_anew(coded: Path, tmp_path: Path) -> None:
    before = copied(coded, tmp_path / "before", bgr=("top",))
    out = exported(tmp_path / "before", tmp_path / "out")
    assert info(out / "train")["features"][TOP]["info"]["video.codec"] == "av1"
    after = copied(out, tmp_path / "after")
    for episode in before:
        off = np.abs(np.float32(episode.frames("top")[:]) - after[episode.key].frames("top")[:])
        assert off.mean() < 12


def test_an_export_goes_to_a_bucket(
    six_episodes: Compiled, images: Path, videos: Path, bucket: Server
) -> None:
    for before in (images, videos):
        url = f"s3://{BUCKET}/export-{before.parent.name}"
        config = ExportConfig(dataset=str(six_episodes.out), out=url, images=before is images, workers=2)
        export(prepare(config))
        assert tree_of(url) == tree(before)
