"""Keys, records, files, sessions, instructions, videos: on tables that pass each check and that fail it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from audited import check, status
from oxcart.manifests.audit import records
from oxcart.manifests.audit.episodes import Source, open_sources
from oxcart.manifests.audit.run import Audit


def with_column(source: Source, name: str, values: list[str | None]) -> Source:
    table = source.table
    if name in table.column_names:
        return replace(
            source,
            table=table.set_column(table.column_names.index(name), name, pa.array(values, pa.string())),
        )
    return replace(source, table=table.append_column(name, pa.array(values, pa.string())))


def of_kind(source: Source, kind: str) -> Source:
    manifest = replace(source.dataset.manifest, dataset={**source.dataset.manifest.dataset, "kind": kind})
    return replace(source, dataset=replace(source.dataset, manifest=manifest))


@pytest.fixture
def source(clean: Path) -> Source:
    return open_sources([str(clean)])[0]


@pytest.fixture
def splits(source: Source) -> list[str]:
    found: list[str] = source.table["split"].to_pylist()
    return found


@pytest.mark.parametrize("name", ["keys", "records"])
def test_an_episode_in_two_splits_is_a_duplicate(clean_audit: Audit, mixed_audit: Audit, name: str) -> None:
    assert status(clean_audit, name) == "passed"
    found = check(mixed_audit, name)
    assert (found.status, found.duplicate) == ("failed", True)
    assert len(found.evidence) == 8, "four episodes of either kitchen"


def test_equal_bytes_under_another_name_are_a_duplicate(source: Source, splits: list[str]) -> None:
    digests = source.table["source_digest"].to_pylist()
    digests[splits.index("val")] = digests[splits.index("train")]
    at = source.table.column_names.index("source_digest")
    changed = replace(
        source, table=source.table.set_column(at, "source_digest", pa.array(digests, pa.uint64()))
    )
    found = records.check_records([changed])
    assert (found.status, found.duplicate) == ("failed", True)
    assert "record of bytes" in found.evidence[0]["source record"]


def test_a_file_counts_where_it_is_a_recording(source: Source, splits: list[str]) -> None:
    assert records.check_files([source]).status == "not checked"
    assert records.check_files([of_kind(source, "video")]).status == "failed"
    apart = with_column(source, "source_file", [f"{split}.mp4" for split in splits])
    assert records.check_files([of_kind(apart, "video")]).status == "passed"


def test_sessions(clean_audit: Audit, leaky_audit: Audit, source: Source, splits: list[str]) -> None:
    assert status(clean_audit, "sessions") == "passed"
    assert status(leaky_audit, "sessions") == "failed"
    assert (
        records.check_sessions([with_column(source, "session", [None] * len(splits))]).status == "not checked"
    )


def test_one_time_under_two_names_is_suspicious(source: Source, splits: list[str]) -> None:
    dated = with_column(source, "session", [f"{split}_kitchen/2022-11-25_10-07-30" for split in splits])
    found = records.check_sessions([dated])
    assert (found.status, found.evidence[0]["time"]) == ("suspicious", "2022-11-25_10-07-30")


def test_instructions_are_information(clean_audit: Audit, source: Source, splits: list[str]) -> None:
    assert status(clean_audit, "instructions") == "passed"
    same = with_column(source, "instruction", ["Open the drawer!"] * len(splits))
    assert records.check_instructions([same]).summary == "1 of 1 instruction held out are in train too"
    none = with_column(source, "instruction", [""] * len(splits))
    assert records.check_instructions([none]).status == "not checked"


@pytest.mark.parametrize("column", ["video_id", "channel_id"])
def test_videos_and_channels(source: Source, splits: list[str], column: str) -> None:
    assert records.check_videos([source]).status == "not checked"
    assert records.check_videos([with_column(source, column, splits)]).status == "passed"
    assert records.check_videos([with_column(source, column, ["one"] * len(splits))]).status == "failed"
