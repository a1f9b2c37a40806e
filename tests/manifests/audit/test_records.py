"""Keys, records, files, sessions, instructions, videos: on tables that pass each check and that fail it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pyarrow as pa
import pytest

from audited import check, status
from oxcart.manifests.audit import episodes, records
from oxcart.manifests.audit.audit import Audit
from oxcart.manifests.audit.episodes import Audited, open_datasets
from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError


def with_column(dataset: Audited, name: str, values: list[str | None]) -> Audited:
    table = dataset.table
    if name in table.column_names:
        return replace(
            dataset,
            table=table.set_column(table.column_names.index(name), name, pa.array(values, pa.string())),
        )
    return replace(dataset, table=table.append_column(name, pa.array(values, pa.string())))


def of_kind(dataset: Audited, kind: str) -> Audited:
    manifest = replace(dataset.manifest, dataset={**dataset.manifest.dataset, "kind": kind})
    return replace(dataset, opened=replace(dataset.opened, manifest=manifest))


@pytest.fixture
def dataset(clean: Path) -> Audited:
    return open_datasets([str(clean)])[0]


@pytest.fixture
def splits(dataset: Audited) -> list[str]:
    found: list[str] = dataset.table["split"].to_pylist()
    return found


@pytest.mark.parametrize("name", ["keys", "records"])
def test_an_episode_in_two_splits_is_a_duplicate(clean_audit: Audit, mixed_audit: Audit, name: str) -> None:
    assert status(clean_audit, name) == "passed"
    found = check(mixed_audit, name)
    assert (found.status, found.duplicate) == ("failed", True)
    assert len(found.evidence) == 8, "four episodes of either kitchen"


def test_equal_bytes_under_another_name_are_a_duplicate(dataset: Audited, splits: list[str]) -> None:
    digests = dataset.table["source_digest"].to_pylist()
    digests[splits.index("val")] = digests[splits.index("train")]
    at = dataset.table.column_names.index("source_digest")
    changed = replace(
        dataset, table=dataset.table.set_column(at, "source_digest", pa.array(digests, pa.uint64()))
    )
    found = records.check_records([changed])
    assert (found.status, found.duplicate) == ("failed", True)
    assert "record of bytes" in found.evidence[0]["source record"]


def test_a_file_counts_where_it_is_a_recording(dataset: Audited, splits: list[str]) -> None:
    assert records.check_files([dataset]).status == "not checked"
    assert records.check_files([of_kind(dataset, "video")]).status == "failed"
    apart = with_column(dataset, "source_file", [f"{split}.mp4" for split in splits])
    assert records.check_files([of_kind(apart, "video")]).status == "passed"


def test_sessions(clean_audit: Audit, leaky_audit: Audit, dataset: Audited, splits: list[str]) -> None:
    assert status(clean_audit, "sessions") == "passed"
    assert status(leaky_audit, "sessions") == "failed"
    assert (
        records.check_sessions([with_column(dataset, "session", [None] * len(splits))]).status
        == "not checked"
    )


@pytest.mark.parametrize("split", ["val", "test", "val_seen"])
def test_what_train_shares_with_any_split_that_is_held_out(
    dataset: Audited, splits: list[str], split: str
) -> None:
    held = with_column(dataset, "split", [split if one == "val" else one for one in splits])
    apart = with_column(held, "session", [f"session of {one}" for one in splits])
    assert records.check_sessions([apart]).status == "passed"
    shared = with_column(held, "session", ["one"] * len(splits))
    assert records.check_sessions([shared]).status == "failed"
    video = of_kind(with_column(held, "source_file", ["one.mp4"] * len(splits)), "video")
    assert records.check_files([video]).status == "failed"
    assert records.check_videos([with_column(held, "video_id", ["one"] * len(splits))]).status == "failed"


@pytest.mark.parametrize("split", ["val", "test", "val_seen"])
def test_instructions_of_val_and_test_are_counted(dataset: Audited, splits: list[str], split: str) -> None:
    held = with_column(dataset, "split", [split if one == "val" else one for one in splits])
    found = records.check_instructions([with_column(held, "instruction", ["Open the drawer!"] * len(splits))])
    if split == "val_seen":
        assert found.status == "not checked"
    else:
        assert found.summary == "1 of 1 instruction held out are in train too"


def test_one_time_under_two_names_is_suspicious(dataset: Audited, splits: list[str]) -> None:
    dated = with_column(dataset, "session", [f"{split}_kitchen/2022-11-25_10-07-30" for split in splits])
    found = records.check_sessions([dated])
    assert (found.status, found.evidence[0]["time"]) == ("suspicious", "2022-11-25_10-07-30")


def test_instructions_are_information(clean_audit: Audit, dataset: Audited, splits: list[str]) -> None:
    assert status(clean_audit, "instructions") == "passed"
    same = with_column(dataset, "instruction", ["Open the drawer!"] * len(splits))
    assert records.check_instructions([same]).summary == "1 of 1 instruction held out are in train too"
    none = with_column(dataset, "instruction", [""] * len(splits))
    assert records.check_instructions([none]).status == "not checked"


@pytest.mark.parametrize("column", ["video_id", "channel_id"])
def test_videos_and_channels(dataset: Audited, splits: list[str], column: str) -> None:
    assert records.check_videos([dataset]).status == "not checked"
    assert records.check_videos([with_column(dataset, column, splits)]).status == "passed"
    assert records.check_videos([with_column(dataset, column, ["one"] * len(splits))]).status == "failed"


def without_bytes(dataset: Audited) -> Audited:
    """The same names, and other bytes in each record."""
    at = dataset.table.column_names.index("source_digest")
    other = pa.array([digest ^ 1 for digest in dataset.table["source_digest"].to_pylist()], pa.uint64())
    return replace(dataset, table=dataset.table.set_column(at, "source_digest", other))


def test_the_same_names_in_another_dataset_are_no_duplicate(clean: Path, other: Path) -> None:
    datasets = open_datasets([str(clean), str(other)])
    changed = [datasets[0], without_bytes(datasets[1])]
    for check_names in (records.check_keys, records.check_records):
        found = check_names(changed)
        assert (found.status, found.duplicate) == ("suspicious", False)
        assert found.summary.startswith("same name, other bytes: 8 ")
        assert check_names(datasets).duplicate
    assert records.duplicate_pairs(changed) == []


def test_pairs_of_one_key_and_of_one_record(clean: Path, other: Path, dataset: Audited) -> None:
    pairs = records.duplicate_pairs(open_datasets([str(clean), str(other)]))
    assert len(pairs) == 8
    assert all(pair.one[1] == pair.other[1] and pair.one[0] != pair.other[0] for pair in pairs)
    splits = dataset.table["split"].to_pylist()
    keys = dataset.table["key"].to_pylist()
    at = dataset.table.column_names.index("source_digest")
    same = replace(
        dataset, table=dataset.table.set_column(at, "source_digest", pa.array([7] * len(keys), pa.uint64()))
    )
    pairs = records.duplicate_pairs([same])
    assert {key for pair in pairs for _, key in (pair.one, pair.other)} == set(keys), "all are tied"
    assert len(pairs) < len(keys), "and not by all pairs"
    split_of = dict(zip(keys, splits, strict=True))
    assert all((split_of[p.one[1]], split_of[p.other[1]]) == ("val", "train") for p in pairs)


def test_a_column_that_was_not_checked_masks_none_that_failed(dataset: Audited, splits: list[str]) -> None:
    empty = with_column(dataset, "video_id", [None] * len(splits))
    found = records.check_videos([with_column(empty, "channel_id", ["one"] * len(splits))])
    assert found.status == "failed"
    assert records.check_videos([with_column(empty, "channel_id", splits)]).status == "not checked"
    named = with_column(dataset, "channel_id", [f"{i}" for i in range(len(splits))])
    assert records.check_videos([with_column(named, "channel", ["one"] * len(splits))]).status == "suspicious"
    assert records.check_videos([with_column(dataset, "channel", ["one"] * len(splits))]).status == "failed"
    assert records.check_videos([with_column(dataset, "video", ["one"] * len(splits))]).status == "failed"


def test_videos_are_read_from_the_table_of_attributions(dataset: Audited) -> None:
    class WithOwners:
        manifest = replace(dataset.manifest, tables={episodes.ATTRIBUTION: {}})

        def table(self, name: str) -> pa.Table:
            keys = dataset.table["key"].to_pylist()[::-1]
            owners = {"key": keys, "video": keys, "channel_id": ["one"] * len(keys)}
            return pa.table(owners) if name == episodes.ATTRIBUTION else dataset.table

    table = episodes._table(cast(Dataset, WithOwners()))
    assert table["video"].to_pylist() == table["key"].to_pylist()
    assert records.check_videos([replace(dataset, table=table)]).status == "failed"


def test_one_dataset_under_two_names_is_refused(clean: Path) -> None:
    with pytest.raises(ConfigError, match="is the same as"):
        open_datasets([str(clean), f"{clean}/"])
