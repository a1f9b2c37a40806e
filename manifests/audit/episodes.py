"""The input of an audit: compiled datasets, opened together, and the episodes that are examined.

The datasets of a mixture count as one: all their train episodes on one side, all their held-out episodes on
the other. An environment is identified by its name and the name of its dataset, so two compiles of one source
share their environments and two sources do not. Aliases of the split rule count as one place. Tables stay
Arrow tables; only the episodes that are examined become Python values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest

from oxcart.manifests.columns import ARRAYS
from oxcart.manifests.dataset import Dataset, Episode
from oxcart.manifests.frames import CameraFrames
from oxcart.manifests.manifest import Manifest
from oxcart.manifests.places import place_names
from oxcart.manifests.split import SPLITS
from oxcart.manifests.tables import ATTRIBUTION, EPISODES
from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.shards.store import Store

HELD = ("val", "test")
"""Splits whose environments train must not have seen."""
UNKNOWN = -1
"""Place of an episode whose environment is unknown."""


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A dataset of the audit."""

    url: str
    """Directory or URL of the dataset, as it was given."""
    label: str
    """Name of the dataset in the report."""
    opened: Dataset
    """The opened dataset."""
    table: pa.Table
    """`episodes.parquet`, with the columns of `attribution.parquet` if the dataset has one."""
    aliases: Mapping[str, str]
    """Name of an environment -> the name that stands for its place, for places with several names."""

    @property
    def manifest(self) -> Manifest:
        """The dataset's manifest."""
        return self.opened.manifest

    @property
    def store(self) -> Store:
        """The store that holds the dataset."""
        return self.opened.store

    @property
    def family(self) -> str:
        """Name of the source dataset."""
        name: str = self.manifest.dataset["name"]
        return name

    def frames(self, row: Mapping[str, Any], camera: str = "primary") -> CameraFrames:
        """The frames of one camera of the episode of a row; see `Episode.frames`."""
        return Episode(dataset=self.opened, row=row).frames(camera)

    def environment(self, name: str) -> tuple[str, str]:
        """The name that stands for an environment's place."""
        return self.family, self.aliases.get(name, name)


class AuditedEpisode(NamedTuple):
    """An episode that is examined."""

    dataset: int
    """Index of the episode's dataset."""
    row: dict[str, Any]
    """The columns of its row of `episodes.parquet` that the audit needs."""
    place: int
    """Number of the episode's environment, the same across datasets; `UNKNOWN` if it is unknown."""

    @property
    def split(self) -> str:
        """One of `SPLITS`."""
        split: str = self.row["split"]
        return split

    @property
    def key(self) -> str:
        """Key of the episode."""
        key: str = self.row["key"]
        return key


def open_datasets(urls: Sequence[str]) -> list[Audited]:
    """Open the datasets.

    Raises:
        ConfigError: one of them is not a dataset, or is given twice, under one name or two.
        CorruptError: a manifest or a table does not match its digest.
    """
    repeated = [url for i, url in enumerate(urls) if url in urls[:i]]
    if repeated:
        raise ConfigError(f"dataset {repeated[0]!r}: is given twice; name it once")
    opened = [Dataset.open(url) for url in urls]
    first: dict[str, str] = {}
    for url, one in zip(urls, opened, strict=True):
        if first.setdefault(one.manifest.fingerprint, url) != url:
            same = first[one.manifest.fingerprint]
            raise ConfigError(f"dataset {url!r}: is the same as {same!r}, by its fingerprint; name it once")
    names = [one.manifest.dataset["name"] for one in opened]
    datasets = []
    for url, name, dataset in zip(urls, names, opened, strict=True):
        datasets.append(
            Audited(
                url=url,
                label=name if names.count(name) == 1 else f"{name} ({url})",
                opened=dataset,
                table=_table(dataset),
                aliases=place_names(dataset),
            )
        )
    return datasets


def _table(dataset: Dataset) -> pa.Table:
    """The episode table, joined with the columns of `ATTRIBUTION` if the dataset has that table."""
    table = dataset.table(EPISODES)
    if pc.count_distinct(table["key"]).as_py() != table.num_rows:
        raise CorruptError(f"{dataset.store.url}/{dataset.manifest.file(EPISODES)}: lists an episode twice")
    if ATTRIBUTION not in dataset.manifest.tables:
        return table
    owners = dataset.table(ATTRIBUTION)
    row_of = pc.index_in(table["key"], value_set=owners["key"])
    for name in owners.column_names:
        if name not in table.column_names:
            table = table.append_column(name, owners[name].take(row_of))
    return table


def draw(datasets: Sequence[Audited], sample: int | None, seed: int) -> list[AuditedEpisode]:
    """The episodes to look at, split by split: of each dataset all, or the first in hash order.

    Args:
        datasets: the datasets.
        sample: most episodes of each split of a dataset; None is all.
        seed: changes which episodes are drawn.
    """
    found: list[AuditedEpisode] = []
    place_of: dict[tuple[str, str], int] = {}
    for split in SPLITS:
        for index, dataset in enumerate(datasets):
            table = dataset.table
            at = np.flatnonzero(pc.equal(table["split"], split).to_numpy())
            if sample is not None and len(at) > sample:
                keys = table["key"].take(at).to_pylist()
                order = np.argsort(
                    [xxh3_64_intdigest(f"{seed}/{key}".encode()) for key in keys], kind="stable"
                )
                at = np.sort(at[order[:sample]])
            for row in table.select(_columns(dataset)).take(at).to_pylist():
                name = row["environment"]
                place = UNKNOWN
                if name is not None:
                    place = place_of.setdefault(dataset.environment(name), len(place_of))
                found.append(AuditedEpisode(index, row, place))
    return found


def _columns(dataset: Audited) -> list[str]:
    """Columns that the audit needs of an episode; few, because rows become Python values."""
    camera = dataset.manifest.camera("primary")["name"]
    arrays = [f"{name}.{what}" for name in ARRAYS for what in ("offset", "digest")]
    frames = [f"{camera}.{what}" for what in ("offset", "height", "width")]
    arrays += ["action.start", "action.stop"]
    return ["key", "split", "shard", "environment", "instruction", "steps", *arrays, *frames]


def names_by_side(datasets: Sequence[Audited], column: str) -> dict[str, set[tuple[str, str]]]:
    """Split -> (name of the dataset, value) of every episode that has a value in the column."""
    sides: dict[str, set[tuple[str, str]]] = {split: set() for split in SPLITS}
    for dataset in datasets:
        pairs = dataset.table.select(["split", column]).group_by(["split", column]).aggregate([])
        for row in pairs.to_pylist():
            if row[column] not in (None, "") and row["split"] in sides:
                sides[row["split"]].add((dataset.family, str(row[column])))
    return sides
