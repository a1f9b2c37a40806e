"""Counts agree with a loop that anyone can read."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oxcart.manifests.counts import frame_size, per_environment, per_split
from oxcart.manifests.split import SPLITS

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("environment", pa.string()),
        ("environment_known", pa.string()),
        ("steps", pa.int32()),
        ("bytes", pa.int64()),
        ("front.height", pa.int32()),
        ("front.width", pa.int32()),
    ]
)

EPISODE = st.fixed_dictionaries(
    {
        "key": st.text(),
        "split": st.sampled_from(SPLITS),
        "environment": st.none() | st.sampled_from(["", "b", "a", "Ä", "a "]),
        "environment_known": st.sampled_from(["declared", "inferred", "unknown"]),
        "steps": st.integers(0, 2**31 - 1),
        "bytes": st.integers(0, 2**50),
        "front.height": st.sampled_from([4, 6]),
        "front.width": st.sampled_from([4, 6]),
    }
)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


def count(rows: list[dict[str, Any]], cameras: int) -> dict[str, int]:
    total = {"episodes": 0, "steps": 0, "frames": 0, "bytes": 0}
    for row in rows:
        total["episodes"] += 1
        total["steps"] += row["steps"]
        total["frames"] += row["steps"] * cameras
        total["bytes"] += row["bytes"]
    return total


@given(st.lists(EPISODE, max_size=12), st.integers(1, 5))
def test_counts_are_those_of_a_loop(rows: list[dict[str, Any]], cameras: int) -> None:
    splits = per_split(table(rows), cameras)
    assert list(splits) == [split for split in SPLITS if any(row["split"] == split for row in rows)]
    for split, found in splits.items():
        assert found == count([row for row in rows if row["split"] == split], cameras)

    environments = per_environment(table(rows), cameras)
    names = {(row["environment"], row["environment_known"]) for row in rows}
    assert [(one["name"], one["known"]) for one in environments] == sorted(
        names, key=lambda name: (name[0] is None, name[0] or "", name[1])
    )
    for one in environments:
        mine = [
            row
            for row in rows
            if (row["environment"], row["environment_known"]) == (one["name"], one["known"])
        ]
        assert list(one["splits"]) == [s for s in SPLITS if any(row["split"] == s for row in mine)]
        for split, found in one["splits"].items():
            assert found == count([row for row in mine if row["split"] == split], cameras)


@given(st.lists(EPISODE, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_episodes_does_not_matter(rows: list[dict[str, Any]], random: Any) -> None:
    shuffled = random.sample(rows, len(rows))
    assert per_split(table(rows), 2) == per_split(table(shuffled), 2)
    assert per_environment(table(rows), 2) == per_environment(table(shuffled), 2)


@given(st.lists(EPISODE, max_size=6))
def test_the_size_of_frames_is_null_unless_all_agree(rows: list[dict[str, Any]]) -> None:
    sizes = {(row["front.height"], row["front.width"]) for row in rows}
    same = sizes.pop() if len(sizes) == 1 else (None, None)
    assert frame_size(table(rows), "front") == {"height": same[0], "width": same[1]}


def test_sums_beyond_32_bits_are_exact() -> None:
    row = {"key": "a", "split": "train", "environment": "a", "environment_known": "declared"}
    rows = [{**row, "steps": 2**31 - 1, "bytes": 2**60 + 1, "front.height": 1, "front.width": 1}] * 3
    assert per_split(table(rows), 4) == {
        "train": {
            "episodes": 3,
            "steps": 3 * (2**31 - 1),
            "frames": 12 * (2**31 - 1),
            "bytes": 3 * (2**60 + 1),
        }
    }


@pytest.mark.parametrize("chunks", [1, 3])
def test_no_episodes(chunks: int) -> None:
    empty = pa.concat_tables([table([])] * chunks)
    assert per_split(empty, 2) == {}
    assert per_environment(empty, 2) == []
    assert frame_size(empty, "front") == {"height": None, "width": None}


def test_unknown_environments_are_null_and_last_and_apart_from_one_without_letters() -> None:
    row = {"key": "a", "split": "val", "steps": 2, "bytes": 512, "front.height": 1, "front.width": 1}
    rows = [
        {**row, "environment": name, "environment_known": known}
        for name, known in ((None, "unknown"), ("~", "declared"), ("", "declared"), (None, "inferred"))
    ]
    found = [(one["name"], one["known"]) for one in per_environment(table(rows), 1)]
    assert found == [("", "declared"), ("~", "declared"), (None, "inferred"), (None, "unknown")]
