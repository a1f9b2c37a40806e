"""A shard's stem and the names of its files."""

from __future__ import annotations

import pytest

from oxcart.shards.names import (
    chunks_name,
    is_shard_file,
    make_stem,
    parse_stem,
    rows_name,
    stem_of,
    tar_name,
)


@pytest.mark.parametrize(
    ("split", "number", "stem"),
    [("train", 0, "train-00000"), ("val_seen", 7, "val_seen-00007"), ("val", 123456, "val-123456")],
)
def test_every_name_of_a_shard_leads_back_to_its_stem(split: str, number: int, stem: str) -> None:
    assert make_stem(split, number) == stem
    assert parse_stem(stem) == (split, number)
    assert stem_of(tar_name(stem)) == stem


def test_the_files_of_a_shard() -> None:
    assert tar_name("val-00003") == "shards/val-00003.tar"
    assert chunks_name("val-00003") == "shards/val-00003.chunks.parquet"
    assert rows_name("val-00003") == ".oxcart/rows/val-00003.parquet"


@pytest.mark.parametrize(
    "name",
    [
        "train-00000.tar",
        "shards/train-0000.tar",
        "shards/train-00000.tar\n",
        "shards/train-00000.parquet",
        "shards/../train-00000.tar",
        "shards/train-\u0661\u0661\u0661\u0661\u0661.tar",
        "/shards/train-00000.tar",
        "shards/notes.txt",
    ],
)
def test_only_shards_and_chunk_tables_are_named_as_shard_files(name: str) -> None:
    assert is_shard_file("shards/train-00000.tar")
    assert is_shard_file("shards/val_seen-123456.chunks.parquet")
    assert not is_shard_file(name)
