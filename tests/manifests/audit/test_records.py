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


def with_column(source: Audited, name: str, values: list[str | None]) -> Audited:
    table = source.table
    if name in table.column_names:
        return replace(
            source,
            table=table.set_column(table.column_names.index(name), name, pa.array(values, pa.string())),
        )
    return replace(source, table=table.append_column(name, pa.array(values, pa.string())))


def of_kind(source: Audited, kind: str) -> Audited:
    manifest = replace(source.dataset.manifest, dataset={**source.dataset.manifest.dataset, "kind": kind})
    return replace(source, dataset=replace(source.dataset, manifest=manifest))


@pytest.fixture
def source(clean: Path) -> Audited:
    return open_datasets([str(clean)])[0]


@pytest.fixture
def splits(source: Audited) -> list[str]:
    found: list[str] = source.table["split"].to_pylist()
    return found


@pytest.mark.parametrize("name", ["keys", "records"])
def test_an_episode_in_two_splits_is_a_duplicate(clean_audit: Audit, mixed_audit: Audit, name: str) -> None:
    assert status(clean_audit, name) == "passed"
    found = check(mixed_audit, name)
    assert (found.status, found.duplicate) == ("failed", True)
    assert len(found.evidence) == 8, "four episodes of either kitchen"


def test_equal_bytes_under_another_name_are_a_duplicate(source: Audited, splits: list[str]) -> None:
    digests = source.table["source_digest"].to_pylist()
    digests[splits.index("val")] = digests[splits.index("train")]
    at = source.table.column_names.index("source_digest")
    changed = replace(
        source, table=source.table.set_column(at, "source_digest", pa.array(digests, pa.uint64()))
    )
    found = records.check_records([changed])
    assert (found.status, found.duplicate) == ("failed", True)
    assert "record of bytes" in found.evidence[0]["source record"]


def test_a_file_counts_where_it_is_a_recording(source: Audited, splits: list[str]) -> None:
    assert records.check_files([source]).status == "not checked"
    assert records.check_files([of_kind(source, "video")]).status == "failed"
    apart = with_column(source, "source_file", [f"{split}.mp4" for split in splits])
    assert records.check_files([of_kind(apart, "video")]).status == "passed"


def test_sessions(clean_audit: Audit, leaky_audit: Audit, source: Audited, splits: list[str]) -> None:
    assert status(clean_audit, "sessions") == "passed"
    assert status(leaky_audit, "sessions") == "failed"
    assert (
        records.check_sessions([with_column(source, "session", [None] * len(splits))]).status == "not checked"
    )


def test_one_time_under_two_names_is_suspicious(source: Audited, splits: list[str]) -> None:
    dated = with_column(source, "session", [f"{split}_kitchen/2022-11-25_10-07-30" for split in splits])
    found = records.check_sessions([dated])
    assert (found.status, found.evidence[0]["time"]) == ("suspicious", "2022-11-25_10-07-30")


def test_instructions_are_information(clean_audit: Audit, source: Audited, splits: list[str]) -> None:
    assert status(clean_audit, "instructions") == "passed"
    same = with_column(source, "instruction", ["Open the drawer!"] * len(splits))
    assert records.check_instructions([same]).summary == "1 of 1 instruction held out are in train too"
    none = with_column(source, "instruction", [""] * len(splits))
    assert records.check_instructions([none]).status == "not checked"


@pytest.mark.parametrize("column", ["video_id", "channel_id"])
def test_videos_and_channels(source: Audited, splits: list[str], column: str) -> None:
    assert records.check_videos([source]).status == "not checked"
    assert records.check_videos([with_column(source, column, splits)]).status == "passed"
    assert records.check_videos([with_column(source, column, ["one"] * len(splits))]).status == "failed"


def without_bytes(source: Audited) -> Audited:
    """The same names, and other bytes in each record."""
    at = source.table.column_names.index("source_digest")
    other = pa.array([digest ^ 1 for digest in source.table["source_digest"].to_pylist()], pa.uint64())
    return replace(source, table=source.table.set_column(at, "source_digest", other))


def test_the_same_names_in_another_dataset_are_no_duplicate(clean: Path, other: Path) -> None:
    sources = open_datasets([str(clean), str(other)])
    changed = [sources[0], without_bytes(sources[1])]
    for check_names in (records.check_keys, records.check_records):
        found = check_names(changed)
        assert (found.status, found.duplicate) == ("suspicious", False)
        assert found.summary.startswith("same name, other bytes: 8 ")
        assert check_names(sources).duplicate
    assert records.duplicate_pairs(changed) == []


def test_pairs_of_one_key_and_of_one_record(clean: Path, other: Path, source: Audited) -> None:
    pairs = records.duplicate_pairs(open_datasets([str(clean), str(other)]))
    assert len(pairs) == 8
    assert all(pair.one[1] == pair.other[1] and pair.one[0] != pair.other[0] for pair in pairs)
    splits = source.table["split"].to_pylist()
    keys = source.table["key"].to_pylist()
    at = source.table.column_names.index("source_digest")
    same = replace(
        source, table=source.table.set_column(at, "source_digest", pa.array([7] * len(keys), pa.uint64()))
    )
    pairs = records.duplicate_pairs([same])
    assert {key for pair in pairs for _, key in (pair.one, pair.other)} == set(keys), "all are tied"
    assert len(pairs) < len(keys), "and not by all pairs"
    split_of = dict(zip(keys, splits, strict=True))
    assert all((split_of[p.one[1]], split_of[p.other[1]]) == ("val", "train") for p in pairs)


def test_a_column_that_was_not_checked_masks_none_that_failed(source: Audited, splits: list[str]) -> None:
    empty = with_column(source, "video_id", [None] * len(splits))
    found = records.check_videos([with_column(empty, "channel_id", ["one"] * len(splits))])
    assert found.status == "failed"
    assert records.check_videos([with_column(empty, "channel_id", splits)]).status == "not checked"
    named = with_column(source, "channel_id", [f"{i}" for i in range(len(splits))])
    assert records.check_videos([with_column(named, "channel", ["one"] * len(splits))]).status == "suspicious"
    assert records.check_videos([with_column(source, "channel", ["one"] * len(splits))]).status == "failed"
    assert records.check_videos([with_column(source, "video", ["one"] * len(splits))]).status == "failed"


def test_videos_are_read_from_the_table_of_attributions(source: Audited) -> None:
    class WithOwners:
        manifest = replace(source.dataset.manifest, tables={episodes.ATTRIBUTION: {}})

        def table(self, name: str) -> pa.Table:
            keys = source.table["key"].to_pylist()[::-1]
            owners = {"key": keys, "video": keys, "channel_id": ["one"] * len(keys)}
            return pa.table(owners) if name == episodes.ATTRIBUTION else source.table

    table = episodes._table(cast(Dataset, WithOwners()))
    assert table["video"].to_pylist() == table["key"].to_pylist()
    assert records.check_videos([replace(source, table=table)]).status == "failed"


def test_one_dataset_under_two_names_is_refused(clean: Path) -> None:
    with pytest.raises(ConfigError, match="is the same as"):
        open_datasets([str(clean), f"{clean}/"])
