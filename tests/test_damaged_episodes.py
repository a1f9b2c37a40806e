"""A changed byte in any piece of a stored episode is found, and named, by whatever reads the episode."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broken_dataset import flipped, holding
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.sources.compiled import CompiledSource
from oxcart.manifests.audit.episodes import draw, open_datasets
from oxcart.manifests.audit.integrity import check_shards, read_arrays
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.verify import verify
from oxcart.shards.errors import CorruptError
from oxcart.shards.tar import BLOCK
from oxcart.train.data import Loader, Pairs
from sample_compile import CAMERAS, rows_of


def place(row: dict[str, Any], piece: str) -> int:
    """Where a byte of a piece lies in its shard."""
    size_in_header = 124
    places = {"header": row["offset"] + size_in_header, "json": row["offset"] + BLOCK + 5}
    return int(places.get(piece) or row[f"{piece}.offset"] + 5)


def by_verify(root: Path) -> str:
    return " ".join(one.reason for one in verify(Dataset.open(str(root))))


def by_audit(root: Path) -> str:
    found = check_shards(open_datasets([str(root)]), 1, sampled=False)
    return found.summary if found.status == "failed" else ""


def by_audit_of_arrays(root: Path) -> str:
    datasets = open_datasets([str(root)])
    return error_of(partial(read_arrays, datasets, draw(datasets, None, 0), 1))


def by_transcode(root: Path) -> str:
    source = CompiledSource(SourceConfig(url=str(root)))
    return error_of(lambda: [source.read(row) for row in source.table().to_pylist()])


def by_loader(root: Path) -> str:
    def read_all() -> None:
        for camera in CAMERAS:
            sample = Pairs(frames=1, per_episode="all")
            settings: dict[str, Any] = {
                "action": "steps",
                "state": True,
                "instructions": True,
                "repeat": False,
            }
            list(Loader(root, sample=sample, batch_size=64, camera=camera, threads=1, **settings))

    return error_of(read_all)


def error_of(read: Callable[[], object]) -> str:
    try:
        read()
    except CorruptError as error:
        return str(error)
    return ""


ARRAYS = ("action", "state")
PIECES = ("header", "json", *ARRAYS, *CAMERAS)
READERS = [by_verify, by_audit, by_audit_of_arrays, by_transcode, by_loader]
CASES = [(r, piece) for r in READERS for piece in (ARRAYS if r is by_audit_of_arrays else PIECES)]


@pytest.mark.parametrize(("reader", "piece"), CASES)
def test_a_changed_byte_is_found_and_named(intact: Path, reader: Callable[[Path], str], piece: str) -> None:
    row = next(row for row in rows_of(intact) if row["split"] == "train")
    shard = intact / f"shards/{row['shard']}.tar"
    with holding(shard, flipped(shard.read_bytes(), place(row, piece))):
        said = reader(intact)
    assert row["key"] in said
    assert (f"camera {piece}, chunk 0 " if piece in CAMERAS else f" {piece}") in said


@pytest.mark.parametrize("reader", READERS)
def test_an_intact_dataset_is_read_by_all(intact: Path, reader: Callable[[Path], str]) -> None:
    assert reader(intact) == ""
