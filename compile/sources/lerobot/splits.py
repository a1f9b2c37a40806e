"""A folder that holds a LeRobot dataset for each split, as `oxcart export lerobot` writes it.

ROOT/
  oxcart-export.json               if oxcart wrote it: the dataset's name, licence and citation
  train/meta/info.json, ...        a LeRobot dataset
  val/meta/info.json, ...          another, with the same features
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import pyarrow as pa

from oxcart.compile.sources.base import CensusRow, CodedVideo, Source, SourceConfig, SourceEpisode, clean
from oxcart.compile.sources.lerobot.source import LerobotSource
from oxcart.compile.sources.places import INDEX, KEY, OPTION, ListedPlaces
from oxcart.manifests.columns import parse_columns
from oxcart.manifests.licence import check_licence
from oxcart.manifests.ownership import EXPORT, EXPORT_FORMAT, EXPORTING
from oxcart.manifests.schema import export_problems
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError, SourceError
from oxcart.shards.store import Store

MOST_BYTES = 4 << 20
"""Size limit of `oxcart-export.json`, in bytes."""
_KEPT = ("cameras", "control_rate", "no_action")
"""Fields of it that are read back as they are."""


class LerobotSplits(Source):
    """The episodes of several LeRobot datasets, whose folders are named after splits.

    Raises:
        ConfigError: an option names something that they do not have, or their export has not finished.
        SourceError: one is damaged, or they differ in what is read of them.
    """

    origin = "lerobot"
    keeps_splits = True

    def __init__(self, config: SourceConfig, splits: Sequence[str]) -> None:
        store = Store(config.url)
        self.remote, root = store.remote, store.url.rstrip("/")
        if store.exists(EXPORTING):
            raise ConfigError(f"{root}: its export has not finished; run it again")
        for split in config.source_splits or ():
            one_of("--source-split", split, splits)
        if isinstance(config.environments, ListedPlaces) and config.environments.by == INDEX:
            raise ConfigError(
                f"{OPTION}: expected a column {KEY}, got {INDEX}, which begins anew in {' and '.join(splits)}"
            )
        about = _read_export(store)
        config = _adopted(config, about)
        self._parts = {
            split: LerobotSource(replace(config, url=f"{root}/{split}", source_splits=None))
            for split in splits
            if split in (config.source_splits or splits)
        }
        self._first = first = next(iter(self._parts.values()))
        told = {split: {**part.describe(), "name": ""} for split, part in self._parts.items()}
        expected, *others = told.items()
        for split, found in others:
            differ = [name for name, value in found.items() if value != expected[1][name]]
            if differ:
                raise SourceError(
                    f"differs from {expected[0]} in {', '.join(differ)}", file=f"{root}/{split}"
                )
        self.name = clean(str(about.get("name") or store.folder)) or "lerobot"
        licence = config.licence or about.get("licence")
        self.licence = check_licence(licence) if licence is not None else None
        self.citation = about.get("citation")
        self.control_rate = about["control_rate"] if about else first.control_rate
        self.version, self.cameras, self.no_action = first.version, first.cameras, first.no_action
        self.array_sizes, self.array_columns = first.array_sizes, first.array_columns

    @property
    def at_once(self) -> int:
        """Number of small files of which a process takes the census at once, each in a thread."""
        return self._first.at_once

    @property
    def expected(self) -> int:
        """Number of episodes that the metadata lists."""
        return sum(part.expected for part in self._parts.values())

    def describe(self) -> dict[str, Any]:
        """Everything that determines the census rows and episodes, as plain JSON."""
        own = {"name": self.name, "licence": self.licence, "control_rate": self.control_rate}
        cited = {"citation": self.citation} if self.citation else {}
        return {**self._first.describe(), **own, **cited, "source_splits": list(self._parts)}

    def files(self) -> list[str]:
        """The Parquet files of steps, split by split."""
        return [f"{split}/{file}" for split, part in self._parts.items() for file in part.files()]

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of all files that are read; 0 if one is missing."""
        return {
            f"{split}/{name}": size
            for split, part in self._parts.items()
            for name, size in part.sizes().items()
        }

    def census(self, file: str) -> Iterator[CensusRow]:
        """One row per episode of a file of steps."""
        split, _, name = file.partition("/")
        part = self._parts[split]
        for row in part.census(name):
            again = row.key == part.key_of(
                row.source_record
            )  # which the episodes of other splits have as well
            yield replace(
                row,
                key=f"{self.name}-{row.key}" if again else row.key,
                source_split=split,
                source_file=f"{split}/{row.source_file}",
            )

    def join(self, table: pa.Table) -> pa.Table:
        """Compare the cameras of all episodes, whatever their split."""
        return self._first.join(table)

    def warnings(self, table: pa.Table) -> list[str]:
        """A line for each camera of depth, which is not read."""
        return self._first.warnings(table)

    def read(self, row: Mapping[str, Any]) -> SourceEpisode:
        """Read the episode of a census row; frames in videos are decoded when they are played."""
        return self._part(row).read(_within(row))

    def read_many(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[SourceEpisode]:
        """Read the episodes of census rows; those of one split that follow each other many at a time."""
        for split, some in groupby(rows, lambda row: row["source_split"]):
            yield from self._parts[split].read_many([_within(row) for row in some])

    def videos(self, row: Mapping[str, Any]) -> dict[str, CodedVideo]:
        """Camera -> the video that holds the episode of a census row."""
        return self._part(row).videos(_within(row))

    def _part(self, row: Mapping[str, Any]) -> LerobotSource:
        return self._parts[row["source_split"]]


def _within(row: Mapping[str, Any]) -> dict[str, Any]:
    """The census row as the dataset of its split has it."""
    return {**row, "source_file": row["source_file"].partition("/")[2]}


def _read_export(store: Store) -> dict[str, Any]:
    """What `oxcart-export.json` says of the dataset; nothing if there is none.

    Raises:
        SourceError: it is damaged.
    """
    if not store.exists(EXPORT):
        return {}
    try:
        found = json.loads(store.read(EXPORT, MOST_BYTES))
        if isinstance(found, dict) and found.get("format") != EXPORT_FORMAT:
            raise ValueError(f"format {found.get('format')!r:.40}, expected {EXPORT_FORMAT!r}")
        if problem := next(export_problems(found), None):
            raise ValueError(problem)
        about = {**found["dataset"], **{name: found[name] for name in _KEPT}}
        about["columns"] = {name: parse_columns(entry) for name, entry in found["columns"].items()}
    except (ValueError, RecursionError) as error:
        raise SourceError(f"cannot be parsed: {error}; export anew", file=f"{store.url}/{EXPORT}") from error
    return about


def _adopted(config: SourceConfig, about: Mapping[str, Any]) -> SourceConfig:
    """The configuration with what an export says of cameras and columns, where it says nothing itself."""
    if not about:
        return config
    roles = {one["name"]: one["role"] for one in about["cameras"] if one["role"] is not None}
    cameras = config.cameras or tuple(one["name"] for one in about["cameras"])
    columns = {
        name: found
        for name, found in about["columns"].items()
        if getattr(config, name) is None and name not in config.known_columns
    }
    return replace(
        config,
        cameras=cameras,
        roles={**{name: role for name, role in roles.items() if name in cameras}, **config.roles},
        no_action=about["no_action"] if config.no_action is None else config.no_action,
        known_columns={**config.known_columns, **columns},
    )
