"""What LeRobot datasets get wrong is found by the census: an error, or a rejected episode with its reason."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_writer import (
    DATA,
    EPISODES,
    FPS,
    IMAGES,
    TASKS,
    TOP,
    RobotTake,
    drawn,
    edit_info,
    edit_table,
    write_lerobot,
    write_video,
)

from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import SourceConfig
from oxcart.shards.errors import OxcartError
from sample_compile import census_of, cli, complaint, one_line

TAKES = [
    RobotTake(steps=5),
    RobotTake(steps=4, tasks=("open", "close")),
    RobotTake(steps=6),
    RobotTake(steps=3),
]
VIDEO = f"videos/{TOP}/chunk-000/file-000.mp4"
"""Video of the first three episodes, 15 frames in all."""
SECOND = "data/chunk-000/file-001.parquet"

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sound")
    return {
        "v3": write_lerobot(folder / "v3" / "set", TAKES, cameras={TOP: "video"}),
        "v2": write_lerobot(folder / "v2" / "set", TAKES, cameras={TOP: "video"}, version="v2.1"),
        "images": write_lerobot(folder / "images" / "set", TAKES, cameras=IMAGES),
    }


def table(file: str, column: str, change: Callable[[list[Any]], list[Any]]) -> Damage:
    return lambda root: edit_table(root / file, column, change)


def put(place: int, value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [*values[:place], value, *values[place + 1 :]]


def without(file: str) -> Damage:
    return lambda root: (root / file).unlink()


def info(**changes: Any) -> Damage:
    return lambda root: edit_info(root, **changes)


def text(file: str, content: str) -> Damage:
    return lambda root: (root / file).write_text(content)


def short(frames: int, rate: int = FPS) -> Damage:
    def write(root: Path) -> None:
        many = (drawn(TOP, 0, step) for step in range(frames))
        write_video(root / VIDEO, many, rate, {"g": "2", "bf": "0"})

    return write


def cut_off(root: Path) -> None:
    """The table of packets comes first and is whole, but the last packets are missing."""
    frames = (drawn(TOP, 0, step) for step in range(15))
    write_video(root / VIDEO, frames, FPS, {"g": "2", "bf": "0"}, muxer={"movflags": "faststart"})
    (root / VIDEO).write_bytes((root / VIDEO).read_bytes()[:-200])


def fewer_rows(root: Path) -> None:
    pq.write_table(pq.read_table(root / DATA).slice(0, 8), root / DATA)


def dropped(file: str, column: str) -> Damage:
    return lambda root: pq.write_table(pq.read_table(root / file).drop_columns([column]), root / file)


def no_bytes(root: Path) -> None:
    found = pq.read_table(root / DATA)
    images = [{"bytes": None, "path": "0.png"}, *found[TOP].to_pylist()[1:]]
    place = found.schema.get_field_index(TOP)
    pq.write_table(found.set_column(place, TOP, pa.array(images, found.schema.field(TOP).type)), root / DATA)


START = f"videos/{TOP}/from_timestamp"
WHOLE: list[tuple[str, Damage, str]] = [
    ("v3", info(codebase_version="v1.6"), "expected a LeRobot dataset of version v3.0 or v2.1, got 'v1.6'"),
    ("v3", info(codebase_version="v2.0"), "of version v3.0 or v2.1, got 'v2.0'"),
    ("v3", info(codebase_version="v4.0"), "of version v3.0 or v2.1, got 'v4.0'"),
    ("v3", info(fps=3.75), "meta/info.json: fps: expected a whole number of steps per second, got 3.75"),
    ("v3", info(fps=0), "fps: expected a whole number of steps per second, got 0"),
    ("v3", info(fps=float("nan")), "fps: expected a whole number of steps per second, got nan"),
    ("v3", info(fps=float("inf")), "fps: expected a whole number of steps per second, got inf"),
    ("v3", info(data_path="a\n{chunk_index}"), "expected the name of a file, got 'a.*n0'"),
    ("v3", info(total_frames="1\n2"), "info.json: says total_frames '1.*n2', its tables hold 18"),
    ("v3", info(fps=None), "meta/info.json: has no 'fps'"),
    ("v3", info(features=None), "meta/info.json: has no 'features'"),
    ("v3", info(data_path="../{chunk_index}"), "cannot be read: '../0' lies outside of the dataset"),
    ("v3", info(data_path="{chunk_index.__class__}"), "data_path: expected a path such as"),
    ("v3", info(data_path="{nothing}"), "cannot be read: has no 'nothing'"),
    ("v3", info(total_episodes=5), "meta/info.json: says total_episodes 5, its tables hold 4"),
    ("v3", info(total_frames=17), "meta/info.json: says total_frames 17, its tables hold 18"),
    ("v2", info(total_tasks=2), "meta/info.json: says total_tasks 2, its tables hold 3"),
    ("v3", table(TASKS, "task_index", lambda v: v[::-1]), f"{TASKS}: tasks are out of order: .* in row 0"),
    ("v2", text("meta/tasks.jsonl", '{"task_index": 1, "task": "a"}'), "tasks.jsonl: tasks are out of order"),
    ("v3", table(EPISODES, "episode_index", put(2, 1)), "out of order: expected episode_index 2, got 1"),
    ("v2", text("meta/episodes.jsonl", "[]\n"), "episodes.jsonl: cannot be parsed: expected an object"),
    ("v3", without(TASKS), f"{TASKS}: is missing"),
    ("v3", without(EPISODES), "meta/episodes: holds no table of episodes"),
    ("v2", without("meta/episodes.jsonl"), "meta/episodes.jsonl: is missing"),
    ("v3", text(EPISODES, "PAR1"), f"{EPISODES}: cannot be parsed"),
    ("v3", dropped(EPISODES, "length"), f"{EPISODES}: cannot be read: has no 'length'"),
]
"""Version, damage to the whole dataset, and what is said."""

EPISODE: list[tuple[str, Damage, dict[int, str]]] = [
    ("v3", table(DATA, "index", put(1, 7)), {0: "index is 7 at step 1, expected 1"}),
    ("v3", table(DATA, "frame_index", put(6, 0)), {1: "frame_index is 0 at step 1, expected 1"}),
    ("v3", table(DATA, "episode_index", put(5, 0)), {1: "episode_index is 0 at step 0, expected 1"}),
    ("v3", table(DATA, "task_index", put(0, 3)), {0: "task_index is 3 at step 0; there are 3 tasks"}),
    (
        "v3",
        table(DATA, "task_index", put(0, 2)),
        {0: "its task at step 0, 'close', is none of those of its metadata"},
    ),
    ("v3", table(DATA, "timestamp", put(3, float("nan"))), {0: "timestamp nan at step 3"}),
    ("v3", table(EPISODES, START, put(1, float("nan"))), {1: "from_timestamp nan s is not at its first"}),
    ("v3", table(DATA, "timestamp", put(3, 0.37)), {0: "timestamp 0.37.* at step 3: at 10 fps .* 0.300"}),
    (
        "v3",
        table(EPISODES, "dataset_from_index", put(2, 8)),
        {2: "dataset_from_index 8: 9 steps are before it"},
    ),
    (
        "v3",
        table(EPISODES, START, put(1, 0.56)),
        {1: "from_timestamp 0.560 s is not at its first frame, which is number 5 of .* shown at 0.500 s"},
    ),
    (
        "v3",
        table(EPISODES, "data/file_index", put(2, 0)),
        {2: f"{DATA} has 9 rows; its steps end in row 14", 3: "episode_index is 2 at step 0, expected 3"},
    ),
    (
        "v3",
        short(13),
        {
            0: f"{VIDEO} has 13 frames, its episodes 15 steps, so frames are missing",
            1: f"{VIDEO} has 13 frames",
            2: f"its frames end with number 14 of {VIDEO}, which has 13",
        },
    ),
    ("v3", cut_off, dict.fromkeys(range(3), f"{VIDEO} is cut off: .* of its 15 frames lie beyond its")),
    ("v3", short(15, 5), dict.fromkeys(range(3), f"of {VIDEO} is shown at .* s, at 10 fps it would be at")),
    ("v3", without(VIDEO), dict.fromkeys(range(3), f"{VIDEO} is missing")),
    ("v3", text(VIDEO, "no video"), dict.fromkeys(range(3), f"{VIDEO} is not a video that FFmpeg can open")),
    ("v3", without(SECOND), dict.fromkeys((2, 3), f"{SECOND} is missing")),
    ("v3", text(SECOND, "PAR1"), dict.fromkeys((2, 3), f"{SECOND} cannot be read")),
    ("v3", fewer_rows, {1: f"{DATA} has 8 rows; its steps end in row 8"}),
    ("v3", dropped(DATA, "action"), dict.fromkeys((0, 1), f"{DATA} has no column action")),
    (
        "v3",
        table(DATA, "action", put(2, [0.0, float("nan"), 0.0])),
        {0: "action is NaN .* at step 2"},
    ),
    (
        "v3",
        table(DATA, "observation.state", put(6, [1.0])),
        {1: "state has steps of .* expected 2"},
    ),
    (
        "v2",
        without("videos/chunk-000/observation.images.top/episode_000001.mp4"),
        {1: "_000001.mp4 is missing"},
    ),
    ("v2", without("data/chunk-000/episode_000003.parquet"), {3: "episode_000003.parquet is missing"}),
    ("images", no_bytes, {0: f"{TOP} holds no image at step 0"}),
]
"""Version, damage to some episodes, and why each of them is rejected."""


def damaged(sound: dict[str, Path], version: str, damage: Damage, tmp_path: Path) -> Path:
    root = tmp_path / "set"
    shutil.copytree(sound[version], root)
    damage(root)
    return root


@pytest.mark.parametrize(("version", "damage", "said"), WHOLE, ids=[said for _, _, said in WHOLE])
def test_what_is_wrong_with_the_whole_dataset_is_an_error(
    version: str, damage: Damage, said: str, sound: dict[str, Path], tmp_path: Path
) -> None:
    root = damaged(sound, version, damage, tmp_path)
    with pytest.raises(OxcartError, match=said) as caught:
        open_source(SourceConfig(url=str(root), kind="lerobot"))
    one_line(caught.value)


@pytest.mark.parametrize(
    ("version", "damage", "why"), EPISODE, ids=[next(iter(why.values())) for _, _, why in EPISODE]
)
def test_what_is_wrong_with_an_episode_rejects_it(
    version: str, damage: Damage, why: dict[int, str], sound: dict[str, Path], tmp_path: Path
) -> None:
    root = damaged(sound, version, damage, tmp_path)
    rows = census_of(root, kind="lerobot").table.to_pylist()
    rejected = {row["source_record"]: row["rejected"] for row in rows if row["rejected"]}
    assert rejected.keys() == why.keys(), rejected
    for number, said in why.items():
        assert re.search(said, rejected[number]), rejected[number]
        assert len(rejected[number].splitlines()) == 1


NONSENSE = [None, True, -1, 0, 3, 1e300, 1.5, "", "x", "{a}", "../x", [], [1], {}, {"a": 1}, [[]]]


@pytest.mark.parametrize("version", ["v3", "v2"])
def test_nonsense_in_the_description_is_an_error_of_one_line(
    version: str, sound: dict[str, Path], tmp_path: Path
) -> None:
    root = damaged(sound, version, lambda _: None, tmp_path)
    content = (root / "meta/info.json").read_text()
    whole = json.loads(content)
    paths = [(name,) for name in whole] + [("features", TOP, name) for name in whole["features"][TOP]]
    read = 0
    for path in paths:
        for value in NONSENSE:
            changed = json.loads(content)
            functools.reduce(dict.__getitem__, path[:-1], changed)[path[-1]] = value
            (root / "meta/info.json").write_text(json.dumps(changed))
            try:
                open_source(SourceConfig(url=str(root), kind="lerobot"))
                read += 1
            except OxcartError as error:
                one_line(error)
    assert 0 < read < len(paths) * len(NONSENSE) / 2


def test_sound_datasets_have_no_rejected_episode(sound: dict[str, Path]) -> None:
    for root in sound.values():
        assert census_of(root, kind="lerobot").rejected.num_rows == 0


def test_scan_shows_what_is_wrong_and_compile_refuses_or_rejects_it(
    sound: dict[str, Path], tmp_path: Path
) -> None:
    root = damaged(sound, "v3", table(EPISODES, START, put(1, 0.9)), tmp_path)
    result = cli("scan", root, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert "from_timestamp 0.900 s is not at its first frame" in result.output
    options = ("--split-by", "episode", "--val", "none", "--workers", 1, "--quiet")
    assert "from_timestamp 0.900 s" in complaint(cli("compile", root, tmp_path / "out", *options))
    result = cli("compile", root, tmp_path / "out", *options, "--on-error", "reject")
    assert result.exit_code == 0, result.output
    assert len(pq.read_table(tmp_path / "out" / "rejected.parquet")) == 1


@pytest.mark.parametrize("names", [{"x\ny": 0, "b": 1, "c": 2}, {"": 0, "b": 1, "c": 2}, ["x\ny", "b", "c"]])
def test_names_that_are_no_names_are_left_out(names: Any, sound: dict[str, Path], tmp_path: Path) -> None:
    root = damaged(sound, "v3", lambda _: None, tmp_path)
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features["action"]["names"] = names
    edit_info(root, features=features)
    source = open_source(SourceConfig(url=str(root), kind="lerobot"))
    assert [one.name for one in source.array_columns["action"]] == ["action[0]", "action[1]", "action[2]"]
    features["action"]["names"] = {"gripper": 2, "x": 0, "y": 1}
    edit_info(root, features=features)
    source = open_source(SourceConfig(url=str(root), kind="lerobot"))
    assert [one.name for one in source.array_columns["action"]] == ["x", "y", "gripper"]


@pytest.mark.parametrize("shape", [[-3], [-1, -3], [0]])
def test_a_shape_that_holds_nothing_is_refused(
    shape: list[int], sound: dict[str, Path], tmp_path: Path
) -> None:
    root = damaged(sound, "v3", lambda _: None, tmp_path)
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features["action"]["shape"] = shape
    edit_info(root, features=features)
    with pytest.raises(OxcartError, match="action 'action': expected numbers") as caught:
        open_source(SourceConfig(url=str(root), kind="lerobot"))
    one_line(caught.value)
