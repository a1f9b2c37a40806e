"""Names of a shard's files.

Each is made from the shard's stem, which joins its split and its number:

    train-00000                          the stem, as in the column `shard` of `episodes.parquet`
    shards/train-00000.tar               the shard
    shards/train-00000.chunks.parquet    its chunk table
    .oxcart/rows/train-00000.parquet     its rows of the tables, until the compile is committed
"""

from __future__ import annotations

import re

from oxcart.shards.directory import WORK

SHARDS = "shards"
"""Folder of all shards and chunk tables of a dataset."""

_FILE = re.compile(rf"{SHARDS}/[a-z_]+-[0-9]{{5,}}\.(tar|chunks\.parquet)")


def make_stem(split: str, number: int) -> str:
    """The stem of a split's shard: `train-00000`."""
    return f"{split}-{number:05d}"


def parse_stem(stem: str) -> tuple[str, int]:
    """Split and number of a stem."""
    split, _, number = stem.rpartition("-")
    return split, int(number)


def stem_of(tar: str) -> str:
    """The stem of the shard `shards/train-00000.tar`."""
    return tar.removeprefix(f"{SHARDS}/").removesuffix(".tar")


def tar_name(stem: str) -> str:
    """The name of the shard."""
    return f"{SHARDS}/{stem}.tar"


def chunks_name(stem: str) -> str:
    """The name of the shard's chunk table."""
    return f"{SHARDS}/{stem}.chunks.parquet"


def rows_name(stem: str) -> str:
    """The name of the rows that mark the shard as written."""
    return f"{WORK}/rows/{stem}.parquet"


def is_shard_file(name: str) -> bool:
    """Whether a file is named as a shard or a chunk table is."""
    return _FILE.fullmatch(name) is not None
