"""A table beside a LeRobot dataset says where its episodes were recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_writer import IMAGES, RobotTake, write_lerobot

from oxcart.compile.sources.lerobot.environments import read_environments
from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError
from sample_compile import census_of, cli, complaint, one_line

TABLE = 'episode_index,environment,session\n1,"kitchen, big",\n0,lab,monday\n2,,\n'
PLACES = {0: ("lab", "monday"), 1: ("kitchen, big", None), 2: (None, None)}


def csv(tmp_path: Path, text: str = TABLE) -> str:
    (tmp_path / "places.csv").write_text(text)
    return str(tmp_path / "places.csv")


def test_a_table_is_csv_or_parquet(tmp_path: Path) -> None:
    assert read_environments(csv(tmp_path)) == PLACES
    columns: dict[str, Any] = {
        "episode_index": list(PLACES),
        "environment": [place for place, _ in PLACES.values()],
        "session": [session for _, session in PLACES.values()],
        "other": [1, 2, 3],
    }
    pq.write_table(pa.table(columns), tmp_path / "places.parquet")
    assert read_environments(str(tmp_path / "places.parquet")) == PLACES
    assert read_environments(csv(tmp_path, "environment,episode_index\n7,3\n")) == {3: ("7", None)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("episode_index,place\n0,lab\n", "there is no column environment, only episode_index, place"),
        ("episode_index,environment\n0,lab\n0,lab\n", "expected each episode_index once, got 0 in row 1"),
        ("episode_index,environment\n-1,lab\n", "expected each episode_index once, got -1 in row 0"),
        ("episode_index,environment\n,lab\n", "expected each episode_index once, got None in row 0"),
        ("episode_index,environment\none,lab\n", "expected Parquet or CSV with episode_index"),
        ("", "expected Parquet or CSV with episode_index"),
    ],
)
def test_another_table_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read_environments(csv(tmp_path, text))
    one_line(caught.value)
    (tmp_path / "places.parquet").write_bytes(text.encode())
    with pytest.raises(ConfigError, match="expected Parquet or CSV"):
        read_environments(str(tmp_path / "places.parquet"))


def test_episodes_are_split_by_the_table_and_a_longer_one_extends(tmp_path: Path) -> None:
    root, out = tmp_path / "set", tmp_path / "out"
    options = ("--workers", 1, "--quiet")
    write_lerobot(root, [RobotTake()] * 3, cameras=IMAGES)
    census = census_of(root, kind="lerobot", environments=PLACES).table.to_pylist()
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
    assert "expected a source of lerobot, got --environment beside it" in both
    (tmp_path / "videos").mkdir()
    assert "got one of rlds" in complaint(cli("scan", tmp_path / "videos", *table))
