"""A table beside a source tells its environments: a list, or the census of what it is a copy of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_port import write_port
from lerobot_writer import IMAGES, RobotTake, write_lerobot

from oxcart.compile.census import load
from oxcart.compile.environment_table import read_places
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.sources.places import NOWHERE, CensusPlaces, EpisodePlace, ListedPlaces
from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError
from sample_compile import census_of, cli, complaint, one_line, rows_of

TABLE = 'episode_index,environment,session\n1,"kitchen, big",\n0,lab,monday\n2,,\n'
PLACES = {
    0: EpisodePlace("lab", "monday"),
    1: EpisodePlace("kitchen, big"),
    2: NOWHERE,
}
LISTED = ListedPlaces(by="episode_index", places=PLACES)


def csv(tmp_path: Path, text: str = TABLE) -> str:
    (tmp_path / "places.csv").write_text(text)
    return str(tmp_path / "places.csv")


def test_a_table_is_csv_or_parquet(tmp_path: Path) -> None:
    assert read_places(csv(tmp_path)) == LISTED
    columns: dict[str, Any] = {
        "episode_index": list(PLACES),
        "environment": [place.environment for place in PLACES.values()],
        "session": [place.session for place in PLACES.values()],
        "other": [1, 2, 3],
    }
    pq.write_table(pa.table(columns), tmp_path / "places.parquet")
    assert read_places(str(tmp_path / "places.parquet")) == LISTED
    assert read_places(csv(tmp_path, "environment,episode_index\n7,3\n")) == ListedPlaces(
        by="episode_index", places={3: EpisodePlace("7")}
    )
    by_key = "key,environment,environment_known\nset-0,7,inferred\nset-1,,inferred\nset-2,8,\n"
    assert read_places(csv(tmp_path, by_key)) == ListedPlaces(
        by="key",
        places={
            "set-0": EpisodePlace("7", None, "inferred"),
            "set-1": NOWHERE,
            "set-2": EpisodePlace("8", None, "declared"),
        },
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("episode_index,place\n0,lab\n", "there is no column environment, only episode_index, place"),
        ("episode_index,environment\n0,lab\n0,lab\n", "expected each episode_index once, got 0 in row 1"),
        ("episode_index,environment\n-1,lab\n", "expected each episode_index once, got -1 in row 0"),
        ("episode_index,environment\n,lab\n", "expected each episode_index once, got None in row 0"),
        ("episode_index,environment\none,lab\n", "expected Parquet or CSV with episode_index"),
        ("environment\nlab\n", "there is no column key, only environment"),
        ("key,environment,environment_known\na,b,maybe\n", "environment_known: expected one of declared"),
        ("key,environment,environment\na,b,c\n", "there are several columns environment"),
        ("key,key,environment\na,b,c\n", "there are several columns key"),
        ('key,environment\n"a\nb",c\n"a\nb",c\n', "expected each key once, got 'a.*nb' in row 1"),
        ("", "expected Parquet or CSV with episode_index"),
    ],
)
def test_another_table_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read_places(csv(tmp_path, text))
    one_line(caught.value)
    (tmp_path / "places.parquet").write_bytes(text.encode())
    with pytest.raises(ConfigError, match="expected Parquet or CSV"):
        read_places(str(tmp_path / "places.parquet"))


def test_episodes_are_split_by_the_table_and_a_longer_one_extends(tmp_path: Path) -> None:
    root, out = tmp_path / "set", tmp_path / "out"
    options = ("--workers", 1, "--quiet")
    write_lerobot(root, [RobotTake()] * 3, cameras=IMAGES)
    census = census_of(root, kind="lerobot", environments=LISTED).table.to_pylist()
    assert [(row["environment"], row["session"], row["environment_known"]) for row in census] == [
        ("lab", "monday", "declared"),
        ("kitchen, big", None, "declared"),
        (None, None, "unknown"),
    ]
    table = ("--environment-table", csv(tmp_path))
    result = cli("compile", root, out, *table, "--val-fraction", "0.5", *options)
    assert result.exit_code == 0, result.output
    write_lerobot(root, [RobotTake()] * 4, cameras=IMAGES)
    assert "was compiled with --environment-table" in complaint(
        cli("compile", root, out, "--extend", *options)
    )
    longer = ("--environment-table", csv(tmp_path, f"{TABLE}3,lab,\n"))
    result = cli("compile", root, out, "--extend", *longer, *options)
    assert result.exit_code == 0, result.output
    rows = Dataset.open(str(out)).episodes.to_pylist()
    split = {row["key"]: row["split"] for row in rows}
    assert split["set-000003"] == split["set-000000"] != split["set-000001"]


def test_a_table_that_does_not_fit_the_source_is_refused(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "set", [RobotTake()] * 2, cameras=IMAGES)
    table = ("--environment-table", csv(tmp_path))
    assert "expected episodes up to 1, got 2" in complaint(cli("scan", root, *table))
    both = complaint(cli("scan", root, *table, "--environment", "index"))
    assert "expected alone, got --environment beside it" in both


KITCHENS = RldsSampleConfig(kitchens=4, sessions=1, episodes=3, steps=8, size=32, files=1, duplicates=1)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], str]:
    """An RLDS dataset, its episodes in another order, and the file of its census."""
    root = write_rlds(tmp_path_factory.mktemp("rlds"), KITCHENS)
    found = census_of(root)
    file = root.parent / "census.parquet"
    file.write_bytes(found.to_bytes())
    return root, found.table.to_pylist()[::-1], str(file)


def port(root: Path, original: tuple[Path, list[dict[str, Any]], str], **changes: Any) -> Path:
    rlds, rows, _ = original
    write_port(root, open_source(SourceConfig(url=str(rlds))), rows, **changes)
    return root


def copied(rows: list[dict[str, Any]]) -> set[int]:
    """PlaceTable of the episodes that are in two kitchens."""
    twice = {one["duplicate"] for one in rows if [r["duplicate"] for r in rows].count(one["duplicate"]) > 1}
    return {i for i, one in enumerate(rows) if one["duplicate"] in twice}


def turned(numbers: dict[str, Any]) -> dict[str, Any]:
    """As converters do: the gripper turned around, two columns of rotation changed, the state padded."""
    action, state = numbers["action"].copy(), numbers["state"]
    action[:, -1] = 1 - action[:, -1]
    action[:, 3:5] = action[:, 4:2:-1] * 0.5
    return {"action": action, "state": np.concatenate([state, np.zeros_like(state)], axis=1)}


@pytest.mark.parametrize("changes", [{}, {"convert": turned}, {"first": 1}])
def test_the_episodes_of_a_port_are_found_in_the_census_of_its_original(
    changes: dict[str, Any],
    original: tuple[Path, list[dict[str, Any]], str],
    tmp_path: Path,
) -> None:
    _, rows, file = original
    root = port(tmp_path / "port", original, **changes)
    census = census_of(root, kind="lerobot", environments=read_places(file)).table.to_pylist()
    unsure = copied(rows)
    assert len(unsure) == 2
    for i, (row, was) in enumerate(zip(census, rows, strict=True)):
        wanted = NOWHERE
        if i not in unsure:
            wanted = EpisodePlace(was["environment"], was["session"], was["environment_known"])
        assert EpisodePlace(row["environment"], row["session"], row["environment_known"]) == wanted
    said = cli("scan", root, "--environment-table", file).output
    assert "11 of 13 episodes are episodes of oxcart_kitchens; 2 ambiguous, whose" in said


def test_other_episodes_are_not_found(
    original: tuple[Path, list[dict[str, Any]], str], tmp_path: Path
) -> None:
    rlds, _, _ = original
    other = write_rlds(tmp_path, replace(KITCHENS, seed=1, duplicates=0))
    (tmp_path / "census.parquet").write_bytes(census_of(other).to_bytes())
    root = port(tmp_path / "port", original)
    said = cli("scan", root, "--environment-table", tmp_path / "census.parquet").output
    assert "0 of 13 episodes are episodes of oxcart_kitchens; 13 not found, whose environments stay" in said
    both = ("--environment-table", original[2])
    assert "expected a list of episodes for a source of rlds" in complaint(cli("scan", rlds, *both))


def test_a_list_of_keys_fits_any_source(
    original: tuple[Path, list[dict[str, Any]], str], tmp_path: Path
) -> None:
    rlds, rows, _ = original
    table = f"key,environment,environment_known\n{rows[0]['key']},here,inferred\nelsewhere,there,\n"
    places = ("--environment-table", csv(tmp_path, table))
    out = tmp_path / "out"
    result = cli("compile", rlds, out, *places, "--val", "none", "--workers", 1, "--quiet")
    assert result.exit_code == 0, result.output
    assert "lists 1 keys that no episode has, such as elsewhere" in result.output
    found = {row["key"]: row["environment"] for row in rows_of(out)}
    assert {key for key, name in found.items() if name} == {rows[0]["key"]}
    assert "environment_table" in Dataset.open(str(out)).manifest.config["source"]
    numbers = ("--environment-table", csv(tmp_path))
    assert "expected a column key for a source of rlds" in complaint(cli("scan", rlds, *numbers))


def test_a_census_is_of_one_table(original: tuple[Path, list[dict[str, Any]], str], tmp_path: Path) -> None:
    root, rows = port(tmp_path / "port", original), original[1]
    kitchens = read_places(original[2])
    assert isinstance(kitchens, CensusPlaces)
    other = replace(kitchens, rows=kitchens.rows.slice(1))
    lists = [
        ListedPlaces(by="key", places={row["key"]: EpisodePlace(name)}) for row in rows[:2] for name in "ab"
    ]
    digests = [one.describe() for one in (LISTED, *lists, kitchens, other)]
    assert len(set(digests)) == len(digests)
    census = tmp_path / "census.parquet"
    census.write_bytes(census_of(root, kind="lerobot", environments=kitchens).to_bytes())
    with pytest.raises(ConfigError, match="census: taken with environment_table"):
        load(str(census), open_source(SourceConfig(url=str(root), kind="lerobot", environments=other)))
