"""The written directory is a TFDS dataset: it parses, counts agree, and the bytes repeat."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.example_parser import ExampleParserNp

import oxcart.compile.sample.rlds as rlds
from oxcart.compile.sample.expert import way
from oxcart.compile.sample.kitchen import begin, build_kitchen, draw_main, draw_wrist, open_session
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sample.world import move
from oxcart.compile.sources.rlds.tfrecord import scan
from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.store import Store

SMALL: dict[str, int] = {"kitchens": 3, "sessions": 2, "episodes": 3, "steps": 4, "size": 32, "files": 2}


def parsed(root: Path) -> dict[str, list[Mapping[str, Any]]]:
    """Records of each split, in file order."""
    features = tfds.features.FeaturesDict.from_json(json.loads((root / "features.json").read_text()))
    parser = ExampleParserNp(features.get_serialized_info())
    store, found = Store(root), {}
    for split in ("train", "val"):
        names = [name for name in store.list() if f"-{split}.tfrecord" in name]
        found[split] = [parser.parse_example(r.data) for name in names for r in scan(store, name)]
    return found


def seen(image: Image.Image, kind: str, **options: int) -> bytes:
    """A frame as the sample encodes it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rlds(tmp_path_factory.mktemp("source"), RldsSampleConfig(**SMALL))


@pytest.fixture(scope="module")
def doubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rlds(tmp_path_factory.mktemp("source"), RldsSampleConfig(**SMALL, duplicates=4))


def test_files(small: Path) -> None:
    assert small.parts[-2:] == ("oxcart_kitchens", "1.0.0")
    assert sorted(tree(small)) == [
        "dataset_info.json",
        "features.json",
        "oxcart_kitchens-train.tfrecord-00000-of-00002",
        "oxcart_kitchens-train.tfrecord-00001-of-00002",
        "oxcart_kitchens-val.tfrecord-00000-of-00001",
    ]
    assert {p.name for p in small.iterdir()} == set(tree(small))


def test_same_configuration_same_bytes(small: Path, tmp_path: Path) -> None:
    again = write_rlds(tmp_path / "again", RldsSampleConfig(**SMALL))
    assert tree(again) == tree(small)
    other = write_rlds(tmp_path / "other", RldsSampleConfig(**SMALL, seed=1))
    assert tree(other) != tree(small)


def test_more_kitchens_keep_the_earlier_ones(small: Path, tmp_path: Path) -> None:
    def images(root: Path) -> set[bytes]:
        return {e["steps"]["observation"]["image_0"][0] for part in parsed(root).values() for e in part}

    more = write_rlds(tmp_path, RldsSampleConfig(**{**SMALL, "kitchens": 4, "episodes": 4}))
    assert images(small) < images(more)


def test_records_parse(small: Path) -> None:
    episodes = [e for part in parsed(small).values() for e in part]
    assert len(episodes) == 18
    for episode in episodes:
        steps = episode["steps"]
        count = len(steps["action"])
        assert 3 <= count <= 5
        assert steps["action"].shape == steps["observation"]["state"].shape == (count, 3)
        assert steps["action"].dtype == steps["observation"]["state"].dtype == np.float32
        assert steps["is_first"].tolist() == [True] + [False] * (count - 1)
        assert steps["is_last"].tolist() == [False] * (count - 1) + [True]
        assert steps["discount"].tolist() == [1.0] * count
        assert len(set(steps["language_instruction"].tolist())) == 1
        assert steps["language_instruction"][0].decode()
        state, action = steps["observation"]["state"], steps["action"]
        np.testing.assert_array_equal(action[:, :2].sum(axis=0), state[-1, :2] - state[0, :2])
        for camera, kind, side in (("image_0", "JPEG", 32), ("wrist", "PNG", 16)):
            assert len(steps["observation"][camera]) == count
            for encoded in steps["observation"][camera]:
                image = Image.open(io.BytesIO(encoded))
                assert (image.format, image.mode, image.size) == (kind, "RGB", (side, side))


@pytest.mark.parametrize(("perturbed", "mean"), [(0.0, 18), (1.0, 18), (0.0, 8)])
def test_replayed_actions_give_the_recorded_bytes(tmp_path: Path, perturbed: float, mean: int) -> None:
    config = {"kitchens": 1, "sessions": 2, "episodes": 2, "steps": mean, "size": 32, "files": 1, "seed": 5}
    root = write_rlds(tmp_path, RldsSampleConfig(**config, perturbed=perturbed))
    recorded = {e["steps"]["observation"]["image_0"][0]: e for part in parsed(root).values() for e in part}
    kitchen = build_kitchen("toykitchen1", size=32, seed=5)
    for number in range(2):
        session = open_session(kitchen, number)
        for episode in range(2):
            now = begin(session, episode=episode, perturbed=bool(perturbed))
            steps = recorded.pop(seen(draw_main(session, now), "JPEG", quality=90))["steps"]
            for t, action in enumerate(steps["action"]):
                observation = {
                    "image_0": seen(draw_main(session, now), "JPEG", quality=90),
                    "wrist": seen(draw_wrist(session, now), "PNG", compress_level=1),
                    "state": now.state.tolist(),
                }
                assert {k: v[t] for k, v in steps["observation"].items() if k != "state"} == {
                    k: v for k, v in observation.items() if k != "state"
                }
                assert steps["observation"]["state"][t].tolist() == observation["state"]
                assert steps["language_instruction"][t].decode() == now.instruction
                now = move(now, action)
            assert steps["reward"][-1] == steps["is_terminal"][-1] == now.success
            assert now.success or mean == 8
    assert not recorded


def test_lengths_vary_by_a_quarter_around_the_mean(tmp_path: Path) -> None:
    config = RldsSampleConfig(kitchens=4, sessions=2, episodes=4, steps=24, size=32, files=1)
    episodes = [e["steps"] for part in parsed(write_rlds(tmp_path, config)).values() for e in part]
    lengths = [len(steps["action"]) for steps in episodes]
    assert 18 <= min(lengths) < 21
    assert 27 < max(lengths) <= 30
    assert 22 < np.mean(lengths) < 26
    for steps in episodes:
        ending = [0] * (len(steps["action"]) - 1) + [1]
        assert steps["reward"].tolist() == steps["is_terminal"].tolist() == ending


def test_a_demonstration_that_is_cut_off_is_not_rewarded(small: Path) -> None:
    episodes = [e["steps"] for part in parsed(small).values() for e in part]
    assert all(steps["is_last"].sum() == 1 for steps in episodes)
    assert np.mean([steps["is_terminal"].any() for steps in episodes]) < 0.2
    assert all(steps["is_terminal"].tolist() == steps["reward"].tolist() for steps in episodes)


def test_perturbed_episodes_have_the_pace_of_others() -> None:
    session = open_session(build_kitchen("toykitchen1", size=32), 0)
    lengths = []
    for episode in range(20):
        (plain, length), (perturbed, other) = (
            rlds._start(session, episode, RldsSampleConfig(steps=200, perturbed=share)) for share in (0, 1)
        )
        assert way(perturbed) / other == pytest.approx(way(plain) / length, rel=0.05)
        lengths.append(other / length)
    assert min(lengths) < 0.7


def test_perturbed_episodes_are_a_share_and_the_others_stay(tmp_path: Path) -> None:
    config = {"kitchens": 4, "sessions": 1, "episodes": 8, "steps": 2, "size": 32, "files": 1}

    def firsts(perturbed: float) -> set[bytes]:
        root = write_rlds(tmp_path / str(perturbed), RldsSampleConfig(**config, perturbed=perturbed))
        return {
            e["steps"]["observation"]["state"][0].tobytes() for part in parsed(root).values() for e in part
        }

    none, some, most = firsts(0.0), firsts(0.25), firsts(1.0)
    assert 18 <= len(none & some) <= 29
    assert some <= none | most
    assert len(none & most) < 3


def test_counts_and_sizes_in_dataset_info(small: Path) -> None:
    info = json.loads((small / "dataset_info.json").read_text())
    assert (info["name"], info["version"], info["fileFormat"]) == ("oxcart_kitchens", "1.0.0", "tfrecord")
    store = Store(small)
    assert [split["name"] for split in info["splits"]] == ["train", "val"]
    for split in info["splits"]:
        assert split["filepathTemplate"] == "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        files = [list(scan(store, name)) for name in store.list() if f"-{split['name']}.tfrecord" in name]
        assert split["shardLengths"] == [str(len(records)) for records in files]
        assert split["numBytes"] == str(sum(r.length for records in files for r in records))
        assert all(record.error is None for records in files for record in records)


def test_tfds_reads_the_directory(small: Path) -> None:
    builder = tfds.builder_from_directory(small)
    assert builder.info.splits["train"].num_examples + builder.info.splits["val"].num_examples == 18
    assert builder.info.features["steps"]["observation"]["image_0"].shape == (32, 32, 3)
    assert (small / "features.json").read_text() == json.dumps(
        json.loads((small / "features.json").read_text()), indent=4, sort_keys=True
    )


def test_paths_are_bridges(small: Path) -> None:
    sessions: dict[str, set[str]] = {}
    for split, episodes in parsed(small).items():
        ids: dict[str, list[int]] = {}
        for episode in episodes:
            path = episode["episode_metadata"]["file_path"].decode()
            ids.setdefault(path, []).append(episode["episode_metadata"]["episode_id"])
            _, data, kitchens, bridge, environment, _task, number, folder, name = path.split("/")
            assert (data, kitchens, bridge, name) == ("data", "kitchens", "bridge_data_v2", "out.npy")
            assert folder == split
            sessions.setdefault(environment, set()).add(number)
        assert all(sorted(found) == list(range(len(found))) for found in ids.values())
    assert sessions == {name: {"00", "01"} for name in ("toykitchen1", "toykitchen2", "toysink1")}


def test_val_is_drawn_within_sessions() -> None:
    config = RldsSampleConfig(kitchens=30, sessions=2, episodes=8, files=1)
    val = rlds._val_episodes(config)
    assert 0.06 < len(val) / 480 < 0.14
    assert max(Counter((name, session) for name, session, _ in val).values()) < 8
    assert len({name for name, _, _ in val}) > 15


def test_records_are_shuffled_over_files(tmp_path: Path) -> None:
    root = write_rlds(
        tmp_path, RldsSampleConfig(kitchens=4, sessions=1, episodes=4, steps=2, size=32, files=2)
    )
    places = [e["episode_metadata"]["file_path"].split(b"/")[4] for e in parsed(root)["train"]]
    assert places != sorted(places)
    changes = sum(a != b for a, b in pairwise(places))
    assert changes > 4


def test_one_episode_is_a_dataset_without_val(tmp_path: Path) -> None:
    one = RldsSampleConfig(kitchens=1, sessions=1, episodes=1, steps=2, size=32, files=1)
    root = write_rlds(tmp_path, one)
    assert [split["name"] for split in json.loads((root / "dataset_info.json").read_text())["splits"]] == [
        "train"
    ]
    assert len(parsed(root)["train"]) == 1


def test_duplicates_repeat_the_steps_and_nothing_else_changes(small: Path, doubled: Path) -> None:
    def contents(episode: Mapping[str, Any]) -> tuple[Any, ...]:
        steps = episode["steps"]
        return (*steps["observation"]["image_0"], *steps["observation"]["wrist"], steps["action"].tobytes())

    def places(episode: Mapping[str, Any]) -> tuple[str, int]:
        return episode["episode_metadata"]["file_path"].decode(), episode["episode_metadata"]["episode_id"]

    before, after = ([e for part in parsed(root).values() for e in part] for root in (small, doubled))
    assert len(after) == len(before) + 4
    copies = Counter(contents(e) for e in after)
    assert sorted(copies.values()) == [1] * 14 + [2] * 4
    assert set(copies) == {contents(e) for e in before}
    assert len({places(e) for e in after}) == len(after)
    assert {places(e) for e in before} < {places(e) for e in after}
    for content, count in copies.items():
        kitchens = {places(e)[0].split("/")[4] for e in after if contents(e) == content}
        assert len(kitchens) == count


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kitchens": 0}, "kitchens: expected at least 1, got 0"),
        ({"sessions": 0}, "sessions: expected at least 1, got 0"),
        ({"episodes": -1}, "episodes: expected at least 1, got -1"),
        ({"steps": 1}, "steps: expected at least 2, got 1"),
        ({"size": 8}, "size: expected at least 32, got 8"),
        ({"files": 0}, "files: expected at least 1, got 0"),
        ({"duplicates": -1}, "duplicates: expected at least 0, got -1"),
        ({"perturbed": 1.5}, "perturbed: expected a share from 0 to 1, got 1.5"),
        ({"perturbed": float("nan")}, "perturbed: expected a share from 0 to 1, got nan"),
        ({"kitchens": 1, "duplicates": 9}, "duplicates: expected at most the 8 episodes, got 9"),
        ({"kitchens": 1, "files": 9}, "files: expected at most the "),
    ],
)
def test_impossible_values(values: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}") as raised:
        RldsSampleConfig(**values)
    assert "\n" not in str(raised.value)
    assert "; ask for" in str(raised.value)


def test_refuses_a_directory_with_content(small: Path) -> None:
    before = tree(small)
    with pytest.raises(ConfigError, match="got a dataset; remove it"):
        write_rlds(small.parent.parent, RldsSampleConfig(**SMALL))
    assert tree(small) == before


def test_progress_counts_every_episode(tmp_path: Path) -> None:
    calls: list[int] = []
    config = RldsSampleConfig(kitchens=1, sessions=1, episodes=3, steps=2, size=32, files=1, duplicates=2)
    write_rlds(tmp_path, config, calls.append)
    assert calls == [1, 2, 3, 4, 5]


def test_interrupted_while_drawing_leaves_room_for_another_try(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    config = RldsSampleConfig(**SMALL)
    with pytest.raises(KeyboardInterrupt):
        write_rlds(tmp_path, config, stop)
    assert tree(tmp_path) == {}
    assert (write_rlds(tmp_path, config) / "dataset_info.json").exists()


def test_interrupted_while_writing_is_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def broken(file: Any, data: bytes) -> None:
        written.append(len(data))
        if len(written) == 12:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(rlds, "write_record", broken)
    config = RldsSampleConfig(**SMALL)
    with pytest.raises(StoreError, match="No space left on device"):
        write_rlds(tmp_path, config)
    assert not (tmp_path / "oxcart_kitchens/1.0.0/dataset_info.json").exists()
    assert not any(name.endswith("00001-of-00002") for name in tree(tmp_path))
    with pytest.raises(ConfigError, match="files of a write that was cut off; remove it"):
        write_rlds(tmp_path, config)


def test_an_unwritable_place_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        write_rlds(tmp_path / "file", RldsSampleConfig(**SMALL))


def test_imports_neither_tensorflow_nor_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds\n"
        "config = RldsSampleConfig(kitchens=1, sessions=1, episodes=2, steps=2, size=32, files=1);"
        "write_rlds(Path(sys.argv[1]), config);"
        "print(sorted({'tensorflow', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert result.stdout.strip() == "[]"
