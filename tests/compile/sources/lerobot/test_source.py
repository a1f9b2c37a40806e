"""A LeRobot dataset compiles like any other source: frames, actions and tasks are those of its own reader."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_writer import (
    DATA,
    FPS,
    IMAGES,
    SIZE,
    TOP,
    VIDEOS,
    WRIST,
    Frame,
    RobotTake,
    action_of,
    drawn,
    edit_info,
    edit_table,
    task_at,
    write_lerobot,
    write_video,
)
from PIL import Image

from oxcart.compile.images import ImageError, Resize
from oxcart.compile.pipeline import execute, prepare
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import (
    EnvironmentRule,
    Film,
    Source,
    SourceConfig,
    SourceEpisode,
    SuccessRule,
)
from oxcart.compile.sources.kinds import recognise
from oxcart.compile.sources.videos.decode import Reel
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule
from oxcart.shards.errors import ConfigError, SourceError
from sample_compile import census_of, cli, config_of, one_line, rows_of, tree, uploaded
from servers import web

TAKES = [
    RobotTake(steps=5),
    RobotTake(steps=6, tasks=("open", "close")),
    RobotTake(steps=3, tasks=("close",)),
    RobotTake(steps=4),
    RobotTake(steps=7, tasks=("open", "pick")),
]
"""Five episodes: three files of steps, two videos per camera, and some begin between two key frames."""
REAL = Path(__file__).parents[4].parent / "shared/data/lerobot"


@pytest.fixture(scope="module", params=["v3.0 videos", "v2.1 videos", "v3.0 images", "v2.1 images"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    version, kind = request.param.split()
    cameras = VIDEOS if kind == "videos" else IMAGES
    return write_lerobot(tmp_path_factory.mktemp("lerobot") / "set", TAKES, version=version, cameras=cameras)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lerobot(tmp_path_factory.mktemp("lerobot") / "set", TAKES)


def opened(root: Path | str, **options: Any) -> Source:
    return open_source(SourceConfig(url=str(root), kind="lerobot", **options))


def rows(root: Path, **options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = census_of(root, kind="lerobot", **options).table.to_pylist()
    return found


def frames_of(episode: SourceEpisode, camera: str) -> Frame:
    images = episode.images[camera]
    if isinstance(images, Film):
        frames = np.empty((len(images), *SIZE, 3), np.uint8)
        images.play(frames, Resize())
        return frames
    return np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in images])


def decoded(path: Path) -> Frame:
    """Every frame of a video, one after another, as swscale converts it."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_every_frame_action_and_task_is_that_of_its_step(root: Path) -> None:
    assert recognise(str(root)) == ("lerobot", str(root))
    cameras = ("wrist", "top")
    source, census = opened(root, cameras=cameras), rows(root, cameras=cameras)
    assert [row["key"] for row in census] == [f"set-{number:06d}" for number in range(5)]
    assert [row["rejected"] for row in census] == [None] * 5
    for number, (row, take) in enumerate(zip(census, TAKES, strict=True)):
        episode = source.read(row)
        assert row["steps"] == take.steps
        assert row["terminal"] is True
        assert (row["top.height"], row["top.width"]) == SIZE
        assert isinstance(episode.action, np.ndarray)
        assert isinstance(episode.state, np.ndarray)
        assert isinstance(episode.reward, np.ndarray)
        expected = np.array([action_of(number, step) for step in range(take.steps)], np.float32)
        assert np.array_equal(episode.action, expected)
        assert np.array_equal(episode.state, expected[:, :2])
        assert np.array_equal(episode.reward[:, 0], np.arange(take.steps))
        runs = dict(episode.instructions["task"])
        at = ""
        for step in range(take.steps):
            at = runs.get(step, at)
            assert at == task_at(take, step)
        for field, name in ((TOP, "top"), (WRIST, "wrist")):
            found = frames_of(episode, name).astype(int)
            wanted = np.stack([drawn(field, number, step) for step in range(take.steps)])
            exact = not isinstance(episode.images[name], Film)
            assert np.abs(found - wanted).mean() <= (0 if exact else 4)
            nearest = [np.abs(found - one).mean(axis=(1, 2, 3)).argmin() for one in wanted]
            assert nearest == list(range(take.steps)), "frames of other steps"


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", None),
        ("libx264", {"g": "12", "bf": "3", "crf": "12"}),
        ("libsvtav1", {"g": "2", "crf": "30", "preset": "12"}),
    ],
)
def test_frames_equal_sequential_decoding(
    codec: str, options: Mapping[str, str] | None, tmp_path: Path
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    root = write_lerobot(tmp_path / "set", TAKES, cameras={TOP: "video"}, codec=codec, options=options)
    every = np.concatenate([decoded(path) for path in sorted((root / "videos").rglob("*.mp4"))]).astype(int)
    source = opened(root)
    found = np.concatenate([frames_of(source.read(row), "top") for row in reversed(rows(root))][::-1])
    assert found.shape == every.shape
    assert np.abs(found - every).max() <= 4


def test_a_video_of_av1_is_opened_once_for_its_episodes_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("this PyAV has no libsvtav1")
    options = {"g": "2", "crf": "30", "preset": "12"}
    root = write_lerobot(tmp_path / "set", TAKES, cameras={TOP: "video"}, codec="libsvtav1", options=options)
    census = rows(root)
    alone = [frames_of(opened(root).read(row), "top") for row in census]
    source, names, real = opened(root), list[str](), Reel.__init__

    def counting(reel: Reel, store: Any, name: str, **more: Any) -> None:
        names.append(name)
        real(reel, store, name, **more)

    monkeypatch.setattr(Reel, "__init__", counting)
    for number in (3, 0, 4, 2, 1, 1, 4, 0):
        assert np.array_equal(frames_of(source.read(census[number]), "top"), alone[number])
    assert sorted(names) == [str(path.relative_to(root)) for path in sorted(root.glob("videos/*/*/*"))]


@pytest.mark.parametrize("options", [None, {"g": "12", "bf": "3", "crf": "12"}, {"g": "100", "bf": "0"}])
def test_picked_frames_are_those_that_are_played(options: Mapping[str, str] | None, tmp_path: Path) -> None:
    takes = [RobotTake(steps=13), RobotTake(steps=9)]
    root = write_lerobot(tmp_path / "set", takes, cameras={TOP: "video"}, options=options)
    source = opened(root)
    for row in rows(root):
        film = source.read(row).images["top"]
        assert isinstance(film, Film)
        assert film.pick is not None
        played = np.empty((len(film), 16, 24, 3), np.uint8)
        film.play(played, Resize(size=(16, 24)))
        for steps in ([0], [3, 3, 8], list(range(len(film)))[::-1]):
            picked = np.empty((len(steps), 16, 24, 3), np.uint8)
            film.pick(steps, picked, Resize(size=(16, 24)))
            assert np.array_equal(picked, played[steps])
    for path in (root / "videos").rglob("*.mp4"):
        write_video(path, (drawn(TOP, 9, 40 - step) for step in range(22)), FPS, {"g": "2", "bf": "0"})
    film = opened(root).read(row).images["top"]
    assert isinstance(film, Film)
    assert film.pick is not None
    with pytest.raises(SourceError, match="has changed since the census"):
        film.pick([1], np.empty((1, *SIZE, 3), np.uint8), Resize())


def test_a_file_of_one_row_group_is_read_as_well(videos: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(videos, tmp_path / "set"))
    edit_table(root / DATA, "index", lambda values: values)
    assert rows(root) == rows(videos)


def test_episodes_read_many_at_a_time_are_those_read_one_by_one(root: Path) -> None:
    source, census = opened(root), rows(root)
    for order in ([3, 0, 4], [1], [4, 2, 3, 1, 0]):
        chosen = [census[number] for number in order]
        for row, episode in zip(chosen, source.read_many(chosen), strict=True):
            alone = source.read(row)
            assert episode.instructions == alone.instructions
            assert all(np.array_equal(array, alone.arrays[name]) for name, array in episode.arrays.items())
            assert np.array_equal(frames_of(episode, "top"), frames_of(alone, "top"))


def test_a_row_group_of_many_episodes_is_read_once_for_them(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(videos, tmp_path / "set"))
    for path in sorted(root.glob("data/*/*")):
        pq.write_table(pq.read_table(path), path)
    census, source, read = rows(root), opened(root), list[tuple[int, ...]]()
    real = pq.ParquetFile.read_row_groups

    def counting(file: pq.ParquetFile, groups: list[int], *rest: Any, **more: Any) -> pa.Table:
        read.append(tuple(groups))
        return real(file, groups, *rest, **more)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", counting)
    assert len([*source.read_many(census[::-1] + census)]) == 2 * len(census)
    assert read == [(0,)] * len({row["source_file"] for row in census})


def test_an_episode_that_has_changed_ends_those_read_with_it_at_its_turn(
    videos: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(videos, tmp_path / "set"))
    census = rows(root)
    edit_table(root / DATA, "frame_index", lambda values: [*values[:7], 9, *values[8:]])
    (broken,) = [row["source_record"] for row in rows(root) if row["rejected"]]
    episodes = opened(root).read_many([census[number] for number in (2, 4, broken, 3)])
    assert [len(next(episodes).images["top"]) for _ in range(2)] == [TAKES[2].steps, TAKES[4].steps]
    with pytest.raises(SourceError, match="frame_index is 9 at step") as error:
        next(episodes)
    assert error.value.record == broken


def compiled(root: Path, out: Path, workers: int = 1, **options: Any) -> Dataset:
    """A compile into several shards."""
    source = SourceConfig(url=str(root), kind="lerobot", **options)
    rule = SplitRule(by="episode", val=0.3)
    config = config_of(root, out, source=source, rule=rule, shard_size=30_000, workers=workers)
    assert len(execute(prepare(config)).shards) > 2
    assert cli("verify", out, "--quiet", "--decode", "--workers", 1).exit_code == 0
    return Dataset.open(str(out))


def test_a_compiled_dataset_says_where_it_is_from(root: Path, tmp_path: Path) -> None:
    dataset = compiled(root, tmp_path / "out", 1)
    manifest = dataset.manifest
    assert manifest.dataset["kind"] == "lerobot"
    assert [(one["name"], one["role"]) for one in manifest.cameras] == [("top", "primary")]
    columns = [(one["name"], one["kind"]) for one in manifest.arrays["action"]["columns"]]
    assert columns == [("dx", "unknown"), ("dy", "unknown"), ("grip", "unknown")]
    assert manifest.control_rate == {"hz": FPS, "verified": True, "source": "meta/info.json: fps"}
    source, census = opened(root), rows(root)
    for row in census:
        frames = np.asarray(dataset[row["key"]].frames("top"))
        assert np.array_equal(frames, frames_of(source.read(row), "top"))


def test_frames_of_a_camera_that_holds_bgr_become_rgb(root: Path, tmp_path: Path) -> None:
    plain, swapped = compiled(root, tmp_path / "plain"), compiled(root, tmp_path / "out", bgr=("top",))
    assert [one["channels"] for one in swapped.manifest.cameras] == ["bgr"]
    for key in swapped.episodes["key"].to_pylist():
        frames = [np.asarray(dataset[key].frames("top")) for dataset in (plain, swapped)]
        assert np.array_equal(frames[0], frames[1][..., ::-1])
        assert not np.array_equal(*frames)


@pytest.mark.system
def test_a_compile_is_the_same_for_any_number_of_workers(videos: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        compiled(videos, tmp_path / str(workers), workers)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def test_a_dataset_that_has_grown_extends_what_was_compiled(tmp_path: Path) -> None:
    root, out = tmp_path / "set", tmp_path / "out"
    options = ("--workers", 1, "--quiet")

    def digests() -> dict[str, str]:
        table = Dataset.open(str(out)).episodes
        return dict(zip(table["key"].to_pylist(), table["digest"].to_pylist(), strict=True))

    write_lerobot(root, TAKES[:3])
    result = cli("compile", root, out, "--split-by", "episode", "--val-fraction", "0.3", *options)
    assert result.exit_code == 0, result.output
    before = digests()
    write_lerobot(root, TAKES)
    result = cli("compile", root, out, "--extend", *options)
    assert result.exit_code == 0, result.output
    assert len(digests()) == 5
    assert before.items() <= digests().items()


def same_there(root: Path, url: str) -> None:
    """The dataset at a URL is that in a directory."""
    assert recognise(url) == ("lerobot", url)
    here, there = (census_of(place, kind="lerobot") for place in (root, url))
    assert there.table.drop_columns(["key"]).equals(here.table.drop_columns(["key"]))
    row, other = (census.table.to_pylist()[1] for census in (here, there))
    frames = [frames_of(opened(root).read(row), "top"), frames_of(opened(url).read(other), "top")]
    assert np.array_equal(*frames)


def test_a_dataset_in_a_bucket_is_the_same_source(root: Path, remote: str) -> None:
    same_there(root, uploaded(root, remote))


def test_a_dataset_on_a_web_server_is_the_same_source(root: Path, cloud: pytest.MonkeyPatch) -> None:
    with web(root.parent) as server:
        same_there(root, f"{server.url}/{root.name}")


def test_a_web_server_without_a_table_of_episodes_is_refused(
    cloud: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = write_lerobot(tmp_path / "set", TAKES)
    edit_info(root, total_episodes=6)
    with web(tmp_path) as server, pytest.raises(SourceError, match=r"chunk-000/file-001.parquet: is missing"):
        opened(f"{server.url}/set")


@pytest.mark.parametrize("cameras", [VIDEOS, IMAGES], ids=["videos", "images"])
def test_a_census_from_afar_reads_each_file_in_few_requests(
    cameras: Mapping[str, str], cloud: pytest.MonkeyPatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one per row group, nor one per column: there are 20 groups in each file."""
    monkeypatch.setattr("lerobot_writer.PER_FILE", 20)
    monkeypatch.setattr("lerobot_writer.PER_VIDEO", 20)
    write_lerobot(tmp_path / "set", [RobotTake(steps=3)] * 40, cameras=cameras)
    with web(tmp_path) as server:
        census = census_of(f"{server.url}/set", kind="lerobot")
        requests = Counter(path for _, path in server.faults.requests if "/meta" not in path)
    assert census.rejected.num_rows == 0
    assert len(requests) == (4 if cameras == VIDEOS else 2)
    assert max(requests.values()) <= 4, requests


def test_a_missing_file_is_asked_for_once(
    cloud: pytest.MonkeyPatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lerobot_writer.PER_FILE", 20)
    root = write_lerobot(tmp_path / "set", [RobotTake(steps=3)] * 20, cameras=IMAGES)
    (root / DATA).unlink()
    with web(tmp_path) as server:
        census = census_of(f"{server.url}/set", kind="lerobot")
        requests = [path for _, path in server.faults.requests if path.endswith(DATA)]
    assert set(census.table["rejected"].to_pylist()) == {f"{DATA} is missing"}
    assert len(requests) == 2, "its size, and whether it is there"


def test_roles_follow_names_and_the_first_other_camera_is_primary(videos: Path) -> None:
    def roles(**options: Any) -> dict[str, str | None]:
        return {camera.name: camera.role for camera in opened(videos, **options).cameras}

    assert roles() == {"top": "primary"}
    assert roles(cameras=("wrist", "top")) == {"wrist": "wrist", "top": "primary"}
    assert roles(cameras=(WRIST,), roles={WRIST: "primary"}) == {"wrist": "primary"}


def test_a_camera_of_depth_is_left_out_with_a_note(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "set", TAKES[:2], cameras=IMAGES)
    features = opened_features(root)
    features[WRIST] |= {"info": {"is_depth_map": True}}
    edit_info(root, features=features)
    result = cli("scan", root)
    assert result.exit_code == 0, result.output
    assert f"{WRIST}: holds depth, which is left out" in result.output
    with pytest.raises(ConfigError, match="camera 'wrist': no such feature"):
        opened(root, cameras=("wrist",))


def opened_features(root: Path) -> dict[str, Any]:
    import json

    features: dict[str, Any] = json.loads((root / "meta/info.json").read_text())["features"]
    return features


def test_arrays_may_be_named_cut_and_joined(videos: Path) -> None:
    source = opened(videos, action=("action[:2]", "state"), state=(), action_kinds=("dx=delta",))
    columns = [(one.name, one.kind) for one in source.array_columns["action"]]
    assert columns == [("dx", "delta"), ("dy", "unknown"), ("x", "unknown"), ("y", "unknown")]
    episode = source.read(rows(videos, action=("action[:2]", "state"), state=())[1])
    assert episode.state is None
    expected = [action_of(1, step)[:2] * 2 for step in range(6)]
    assert episode.action is not None
    assert np.allclose(episode.action, np.array(expected, np.float32))


def test_a_feature_of_absurdly_many_numbers_is_refused(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "set", TAKES, cameras=IMAGES)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["action"]["shape"] = [10**18]
    edit_info(root, features=info["features"])
    with pytest.raises(ConfigError, match="action: expected at most 65,536 numbers per step"):
        opened(root)


def test_subtasks_are_instructions_if_they_are_asked_for(tmp_path: Path) -> None:
    takes = [RobotTake(frame_columns={"subtask_index": some}) for some in ([-1, 1, 1, 0, 0], [2] * 5)]
    root = write_lerobot(tmp_path / "set", takes, cameras=IMAGES)
    table = pa.table({"subtask_index": [0, 1], "subtask": ["lift", "reach"]})
    pq.write_table(table, root / "meta/subtasks.parquet")
    first, second = rows(root, instruction=("task", "subtask"))
    assert opened(root, instruction=("task", "subtask")).read(first).instructions == {
        "task": [(0, "pick")],
        "subtask": [(0, ""), (1, "reach"), (3, "lift")],
    }
    assert second["rejected"] == "subtask_index is 2 at step 0; there are 2 subtasks"
    assert [row["instructions"] for row in rows(root)] == [["pick"], ["pick"]]


PLACES = [
    RobotTake(columns={"lab": "A-1", "ok": True}, frame_columns={"scene": [7] * 5, "success": [0] * 4 + [1]}),
    RobotTake(columns={"lab": "B-2", "ok": False}, frame_columns={"scene": [8] * 5, "success": [0] * 5}),
    RobotTake(
        columns={"lab": None, "ok": None}, frame_columns={"scene": [8, 8, 8, 9, 9], "success": [0] * 5}
    ),
]


def test_the_environment_is_a_column_of_episodes_or_of_steps(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "set", PLACES, cameras=IMAGES)

    def places(rule: str) -> list[tuple[str | None, str]]:
        found = rows(root, environment=EnvironmentRule.parse(rule))
        return [(row["environment"], row["environment_known"]) for row in found]

    assert places("lab") == [("A-1", "declared"), ("B-2", "declared"), (None, "unknown")]
    assert places("lab~(.)-") == [("A", "declared"), ("B", "declared"), (None, "unknown")]
    assert places("=my lab") == [("my lab", "declared")] * 3
    assert places("scene")[:2] == [("7", "declared"), ("8", "declared")]
    changing = rows(root, environment=EnvironmentRule.parse("scene"))[2]
    assert changing["rejected"] == "environment changes from '8' to '9' at step 3"
    with pytest.raises(ConfigError, match=r"environment 'labs': expected a column .*did you mean lab"):
        opened(root, environment=EnvironmentRule.parse("labs"))
    options = ("--environment", "lab", "--val-fraction", "0.5", "--workers", 1, "--quiet")
    assert cli("compile", root, tmp_path / "out", *options).exit_code == 0
    assert {(row["environment"], row["split"]) for row in rows_of(tmp_path / "out")} >= {(None, "train")}


def test_success_is_a_flag_of_steps_or_of_episodes(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "set", PLACES, cameras=IMAGES)
    assert [row["success"] for row in rows(root)] == [True, False, False]
    by_lab = rows(root, success=SuccessRule.parse("lab~B"))
    assert [row["success"] for row in by_lab] == [False, True, None]
    assert [row["success"] for row in rows(root, success=SuccessRule(field="ok"))] == [True, False, None]


def test_an_episode_that_has_changed_since_the_census_is_refused(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "set", TAKES)
    census = rows(root)
    for path in (root / "videos" / TOP).rglob("*.mp4"):
        write_video(path, (drawn(TOP, 9, 40 - step) for step in range(14)), FPS, {"g": "2", "bf": "0"})
    with pytest.raises(SourceError, match=r"file-000.mp4 has changed since the census"):
        frames_of(opened(root).read(census[0]), "top")
    edit_table(root / DATA, "next.reward", lambda values: [one + 1 for one in values])
    with pytest.raises(SourceError, match=r"record 0, byte 0: has changed since the census"):
        opened(root).read(census[0])


def test_a_damaged_video_fails_where_it_is_damaged(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "set", TAKES)
    source, census = opened(root), rows(root)
    path = root / "videos" / TOP / "chunk-000/file-000.mp4"
    data = bytearray(path.read_bytes())
    with Reel(source._store, str(path.relative_to(root))) as reel:  # type: ignore[attr-defined]
        packet = reel.index()[7]
    data[packet.position + 4 : packet.position + packet.size] = bytes(packet.size - 4)
    path.write_bytes(data)
    assert frames_of(source.read(census[0]), "top").any()
    with pytest.raises((ImageError, SourceError)):
        frames_of(source.read(census[1]), "top")


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"cameras": ("topp",)}, "camera 'topp': no such feature"),
    ({"action": ("actoin",)}, "action 'actoin': no such feature.*did you mean"),
    ({"action": ("action[2:9]",)}, "expected a part of 3 values"),
    ({"action": (TOP,)}, "expected numbers, the source has video"),
    ({"reward": ("action",)}, "reward: expected one number per step, got 3"),
    ({"source_splits": ("train",)}, "--source-split: a LeRobot dataset has one split only"),
    ({"instruction": ("action",)}, "instruction 'action': expected one of task"),
    ({"action_names": ("a",)}, "--action-names: expected a name for each of 3 columns"),
    ({"no_action": ("middle",)}, "--no-action"),
]


@pytest.mark.parametrize(("options", "said"), OPTIONS)
def test_an_option_that_names_what_is_not_there_is_refused(
    options: dict[str, Any], said: str, videos: Path
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        opened(videos, **options)
    one_line(caught.value)


@pytest.mark.parametrize("name", ["web_video", "bridge_video", "bridge_images"])
def test_real_datasets_are_read_as_by_lerobot(name: str) -> None:
    if not (REAL / name).is_dir():
        pytest.skip("the real datasets are not here")
    camera = "image_0" if name == "web_video" else "image_1"
    source, census = opened(REAL / name, cameras=(camera,)), rows(REAL / name, cameras=(camera,))
    expected = np.load(REAL / f"expected_{name}.npz")
    assert [row["steps"] for row in census] == ([38] * 24 if name == "web_video" else [10] * 25)
    assert not any(row["rejected"] for row in census)
    for place, number in enumerate(expected["episode"].tolist()):
        step, row = int(expected["frame"][place]), census[number]
        episode = source.read(row)
        images = episode.images[camera]
        assert isinstance(episode.action, np.ndarray)
        assert isinstance(episode.state, np.ndarray)
        assert np.array_equal(episode.action[step], expected["action"][place])
        assert np.array_equal(episode.state[step], expected["state"][place])
        assert [text for start, text in episode.instructions["task"] if start <= step][-1] == str(
            expected["task"][place]
        )
        if isinstance(images, Film):
            frames = np.empty((row["steps"], row[f"{camera}.height"], row[f"{camera}.width"], 3), np.uint8)
            images.play(frames, Resize())
        else:
            frames = frames_of(episode, camera)
        off = np.abs(frames[step].astype(int) - expected["frames"][place])
        assert not off.any()
