"""Folders of a LeRobot dataset per split: an export compiles back to the same keys, splits and contents."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot_writer import IMAGES, RobotTake, write_lerobot

from oxcart.compile.export.lerobot import ExportConfig, export, prepare
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import Source, SourceConfig
from oxcart.compile.sources.kinds import recognise
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.diff import diff
from oxcart.manifests.ownership import EXPORT, EXPORT_FORMAT, EXPORTING
from oxcart.shards.errors import ConfigError, OxcartError, SourceError
from sample_compile import Compiled, census_of, cli, one_line, rows_of

KEPT = (
    *("key", "split", "environment", "environment_known", "session", "instruction"),
    *("steps", "control_rate", "success", "terminal"),
)
"""Columns of `episodes.parquet` that an export keeps."""
ONE = ("--workers", 1, "--quiet")


@pytest.fixture(scope="module")
def exported(six_episodes: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "out"
    export(prepare(ExportConfig(dataset=str(six_episodes.out), out=str(out), images=True, workers=1)))
    return out


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two datasets that oxcart knows nothing of, in the folders of splits."""
    for split, steps in (("train", (4, 5)), ("val", (3,))):
        takes = [RobotTake(steps=count) for count in steps]
        write_lerobot(tmp_path / "two" / split, takes, cameras=IMAGES)
    return tmp_path / "two"


def opened(root: Path, **options: Any) -> Source:
    kind, url = recognise(str(root))
    return open_source(SourceConfig(url=url, kind=kind, **options))


def told(out: Path) -> list[dict[str, Any]]:
    rows = [{name: row[name] for name in KEPT} for row in rows_of(out)]
    return sorted(rows, key=lambda row: str(row["key"]))


def test_an_export_compiles_back_to_the_same_dataset(
    six_episodes: Compiled, exported: Path, tmp_path: Path
) -> None:
    result = cli("compile", exported, tmp_path / "back", "--environment", "oxcart/environment", *ONE)
    assert result.exit_code == 0, result.output
    assert told(tmp_path / "back") == told(six_episodes.out)
    before, after = Dataset.open(str(six_episodes.out)), Dataset.open(str(tmp_path / "back"))
    for episode in before:
        again = after[episode.key]
        for name in ("action", "state", "reward"):
            np.testing.assert_array_equal(getattr(again, name), getattr(episode, name))
        assert [(one.step, one.text) for one in again.instructions] == [
            (one.step, one.text) for one in episode.instructions
        ]
        for camera in before.manifest.camera_names:
            np.testing.assert_array_equal(again.frames(camera)[:], episode.frames(camera)[:])
    for name in ("licence", "citation", "name"):
        assert after.manifest.dataset[name] == before.manifest.dataset[name]
    assert after.manifest.control_rate == before.manifest.control_rate
    assert [one["role"] for one in after.manifest.cameras] == [one["role"] for one in before.manifest.cameras]
    assert after.manifest.action is not None
    assert before.manifest.action is not None
    assert after.manifest.action["columns"] == before.manifest.action["columns"]
    assert diff(str(six_episodes.out), str(tmp_path / "back")).changes == ()


def test_one_split_alone_and_a_rule_that_is_given(
    six_episodes: Compiled, exported: Path, tmp_path: Path
) -> None:
    assert cli("compile", exported / "val", tmp_path / "val", *ONE).exit_code == 0
    mine = [row for row in told(six_episodes.out) if row["split"] == "val"]
    assert told(tmp_path / "val") == mine
    options = ("--val-fraction", 0.34, *ONE)
    assert cli("compile", exported, tmp_path / "split", *options).exit_code == 0
    assert Dataset.open(str(tmp_path / "split")).manifest.config["split"]["by"] == "environment"
    source = opened(exported, source_splits=("val",))
    assert source.expected == len(mine)
    assert source.describe()["source_splits"] == ["val"]


def test_datasets_of_others_get_keys_that_differ(two: Path) -> None:
    census = census_of(two, kind="lerobot").table
    assert census["key"].to_pylist() == ["two-train-000000", "two-train-000001", "two-val-000000"]
    assert census["source_split"].to_pylist() == ["train", "train", "val"]
    assert census["source_file"].to_pylist()[2] == "val/data/chunk-000/file-000.parquet"
    source = opened(two)
    for row in census.to_pylist():
        assert len(source.read(row).images["top"]) == row["steps"]
    assert set(census["source_file"].to_pylist()) <= source.sizes().keys()


def test_what_was_merged_keeps_what_its_columns_say(tmp_path: Path) -> None:
    told_before = [
        {"key": "b-2", "split": "val", "environment": "attic", "known": "inferred", "session": "monday"},
        {"key": "a-1", "split": "train", "environment": None, "known": "unknown", "session": None},
        {"key": "no key", "split": "val_seen", "environment": "cellar", "known": "wrong", "session": None},
    ]
    names = {"known": "environment_known"}
    takes = [
        RobotTake(columns={f"oxcart/{names.get(name, name)}": value for name, value in one.items()})
        for one in told_before
    ]
    source = write_lerobot(tmp_path / "set", takes, cameras=IMAGES)
    assert cli("compile", source, tmp_path / "out", *ONE).exit_code == 0
    columns = ("key", "split", "environment", "environment_known", "session")
    assert [tuple(row[name] for name in columns) for row in told(tmp_path / "out")] == [
        ("a-1", "train", None, "unknown", None),
        ("b-2", "val", "attic", "inferred", "monday"),
        ("set-000002", "val_seen", "cellar", "declared", None),
    ]


@pytest.mark.parametrize("session", [3, 0.5, ["monday"]])
def test_a_session_that_is_no_text_is_none(session: object, tmp_path: Path) -> None:
    told_before = {"oxcart/split": "train", "oxcart/environment": "attic", "oxcart/session": session}
    source = write_lerobot(tmp_path / "set", [RobotTake(columns=told_before)], cameras=IMAGES)
    (row,) = census_of(source, kind="lerobot").table.to_pylist()
    assert (row["environment"], row["session"]) == ("attic", None)


def test_splits_that_differ_are_refused(two: Path) -> None:
    shutil.rmtree(two / "val")
    write_lerobot(two / "val", [RobotTake(steps=3)], cameras=IMAGES, fps=5)
    with pytest.raises(SourceError, match="differs from train in control_rate") as caught:
        opened(two)
    one_line(caught.value)


def test_what_is_no_folder_of_splits_is_refused(exported: Path, two: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--source-split"):
        opened(two, source_splits=("test",))
    unfinished = tmp_path / "unfinished"
    shutil.copytree(exported, unfinished)
    (unfinished / EXPORTING).parent.mkdir()
    (unfinished / EXPORTING).touch()
    with pytest.raises(ConfigError, match="its export has not finished"):
        opened(unfinished)
    shutil.rmtree((unfinished / EXPORTING).parent)
    about = json.loads((unfinished / EXPORT).read_bytes())
    del about["columns"]
    for changed, said in (
        (about, "columns: is missing"),
        (about | {"format": "oxcart-export/9"}, "'oxcart-export/9'"),
    ):
        (unfinished / EXPORT).write_text(json.dumps(changed))
        with pytest.raises(SourceError, match=f"cannot be parsed: .*{said}") as caught:
            opened(unfinished)
        one_line(caught.value)


@pytest.mark.parametrize("field", ["dataset", "control_rate", "cameras", "columns", "no_action"])
def test_nonsense_in_what_an_export_says_is_an_error_of_one_line(field: str, two: Path) -> None:
    about: dict[str, Any] = {
        "format": EXPORT_FORMAT,
        "dataset": {"name": "two", "licence": None, "citation": None},
        "control_rate": None,
        "cameras": [{"name": "top", "role": None}],
        "columns": {},
        "no_action": [],
    }
    (two / EXPORT).write_text(json.dumps(about))
    assert opened(two).expected == 3
    rate = {"hz": float("nan"), "verified": True, "source": "a list"}
    nonsense = ("x", 3, [3], [[]], [{}], {"a": 1}, {"name": 3}, [{"name": ["top"], "role": None}], rate)
    for value in nonsense:
        (two / EXPORT).write_text(json.dumps(about | {field: value}))
        with pytest.raises(OxcartError) as caught:
            opened(two)
        one_line(caught.value)
    (two / EXPORT).write_text("3")
    with pytest.raises(SourceError, match="expected an object, got 3"):
        opened(two)


def test_a_table_of_environments_names_episodes_by_key(exported: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("episode_index,environment\n0,kitchen\n")
    result = cli("scan", exported, "--environment-table", table, "--quiet")
    assert "expected a column key, got episode_index, which begins anew in train and val" in result.stderr
    key = census_of(exported, kind="lerobot").table["key"][0].as_py()
    table.write_text(f"key,environment\n{key},attic\n")
    told = json.loads(cli("scan", exported, "--environment-table", table, "--quiet", "--json").stdout)
    assert {one["name"]: one["episodes"] for one in told["environments"]} == {"attic": 1, None: 5}


def test_a_rate_that_the_export_could_not_say_comes_back(six_episodes: Compiled, tmp_path: Path) -> None:
    dataset = Dataset.open(str(six_episodes.out))
    config = ExportConfig(
        dataset=str(six_episodes.out), out=str(tmp_path / "out"), images=True, fps=8, workers=1
    )
    export(prepare(config))
    assert opened(tmp_path / "out").control_rate == dataset.manifest.control_rate
