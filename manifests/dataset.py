"""An opened dataset: its manifest, its tables, and the frames of one episode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from oxcart.manifests.episode import Track, track
from oxcart.manifests.manifest import Manifest, read_manifest
from oxcart.manifests.tables import (
    ATTRIBUTION_SCHEMA,
    CHUNKS_BYTES,
    CHUNKS_FOLD,
    CHUNKS_LARGE,
    CHUNKS_SCHEMA,
    EPISODES,
    FILE_BYTES,
    REJECTED,
    REJECTED_SCHEMA,
    ROW_BYTES,
    SMALL_BYTES,
    VALUES,
    VALUES_SCHEMA,
    conforming,
    episodes_schema,
    parse_table,
    rows_of,
)
from oxcart.manifests.values import problem
from oxcart.shards.choices import did_you_mean
from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.shards.names import tar_name
from oxcart.shards.store import Store


def read_whole(store: Store, name: str, digest: str) -> bytes:
    """Read an object of a dataset and check it.

    Args:
        store: the store that holds it.
        name: name of the object.
        digest: its BLAKE3, as the manifest states it.

    Raises:
        CorruptError: the object does not match its digest.
    """
    data = store.read(name, FILE_BYTES)
    if blake3(data).hexdigest() != digest:
        raise CorruptError(f"{store.url}/{name}: does not match its digest in the manifest")
    return data


Read = Callable[[Store, str, str], bytes]
"""Reads an object: `read_whole`, or another way to the same bytes, such as a cache."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A compiled dataset in a store."""

    store: Store
    manifest: Manifest

    @classmethod
    def open(cls, url: str) -> Dataset:
        """Open the dataset at `url`.

        Raises:
            ConfigError: there is no dataset, or its format is unknown.
            CorruptError: the manifest cannot be parsed.
        """
        store = Store(url)
        return cls(store=store, manifest=read_manifest(store))

    def table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        coded: Sequence[str] = (),
        read: Read = read_whole,
    ) -> pa.Table:
        """Read a table, or some of its columns, and check its digest.

        Args:
            name: name of the table.
            columns: names of the columns to read; None reads all.
            coded: columns that are read as dictionaries.
            read: reads the bytes of the file.

        Raises:
            CorruptError: the file does not match the manifest, or is not such a table.
        """
        file = self.manifest.file(name)
        stated = self.manifest.tables[name]
        data = read(self.store, file, stated["blake3"])
        table = parse_table(data, file, columns, coded, SMALL_BYTES + ROW_BYTES * stated["rows"])
        table = conforming(table, self._schema(name), f"{self.store.url}/{file}", columns)
        for array, entry in self.manifest.arrays.items():
            if f"{array}.offset" not in table.column_names:
                continue
            lacking = table[f"{array}.offset"].null_count
            if lacking != (0 if entry is not None else table.num_rows):
                raise CorruptError(
                    f"{self.store.url}/{file}: {lacking} of {table.num_rows} episodes have no {array}, but "
                    f"the manifest says that {'none' if entry is None else 'all'} have it"
                )
        return table

    def _schema(self, name: str) -> pa.Schema:
        if name == EPISODES:
            return episodes_schema(self.manifest.camera_names)
        return {REJECTED: REJECTED_SCHEMA, VALUES: VALUES_SCHEMA}.get(name, ATTRIBUTION_SCHEMA)

    def values(self) -> pa.Table:
        """`values.parquet`, checked against the statistics of the manifest.

        Raises:
            CorruptError: the table does not match the manifest, or is not such a table.
        """
        table = self.table(VALUES)
        if wrong := problem(table, self.manifest.arrays):
            raise CorruptError(f"{self.store.url}/{self.manifest.file(VALUES)}: {wrong}")
        return table

    def episode(self, key: str | None) -> dict[str, Any]:
        """The row of one episode; without a key, the first episode of val, or else of train.

        Raises:
            ConfigError: there is no such episode.
        """
        episodes = self.table(EPISODES)
        if key is None:
            held_out = pc.index(episodes["split"], "val").as_py()
            return dict(episodes.slice(max(held_out, 0), 1).to_pylist()[0])
        found = pc.index(episodes["key"], key).as_py()
        if found < 0:
            keys = episodes["key"].to_pylist()
            hint = did_you_mean(key, keys, "oxcart inspect --episodes lists all of them")
            raise ConfigError(f"episode {key!r}: the dataset has no such key{hint}")
        return dict(episodes.slice(found, 1).to_pylist()[0])

    def frames(self, row: Mapping[str, Any], camera: str, steps: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Read frames of an episode, each separately and checked against its digest.

        Args:
            row: the episode's row of `episodes.parquet`.
            camera: name or role of the camera.
            steps: the n steps to read.

        Returns:
            [n, H, W, 3] uint8.

        Raises:
            ConfigError: there is no such camera or step.
            CorruptError: a chunk or the chunk table does not match its digest.
        """
        for step in steps:
            if not 0 <= step < row["steps"]:
                raise ConfigError(f"step {step}: episode {row['key']} has steps 0 to {row['steps'] - 1}")
        found = self.track(row, camera)
        frames = np.empty((len(steps), *found.shape[1:]), np.uint8)
        for i, step in enumerate(steps):
            found.read(self.store, step, step + 1, frames[i : i + 1])
        return frames

    def track(self, row: Mapping[str, Any], camera: str) -> Track:
        """Locate the frames of one camera of an episode.

        Args:
            row: the episode's row of `episodes.parquet`.
            camera: its name or role.

        Raises:
            ConfigError: there is no such camera.
            CorruptError: the shard is not in the manifest, its chunk table does not match its digest, or
                lacks the camera.
        """
        (found,) = self.tracks(camera, [row])
        return found

    def tracks(self, camera: str, rows: Iterable[Mapping[str, Any]] | None = None) -> Iterator[Track]:
        """Locate the frames of one camera, episode by episode.

        Args:
            camera: its name or role.
            rows: of `episodes.parquet`; those of one shard should come together, since the chunk table of a
                shard is read when it begins. None is all of them.

        Raises:
            ConfigError: there is no such camera.
            CorruptError: a shard is not in the manifest, its chunk table does not match its digest, or lacks
                the camera of an episode.
        """
        entry = self.manifest.camera(camera)
        entries = {shard["name"]: shard for shard in self.manifest.shards}
        for stem, some in groupby(
            rows_of(self.table(EPISODES)) if rows is None else rows, key=itemgetter("shard")
        ):
            if tar_name(stem) not in entries:
                raise CorruptError(f"{tar_name(stem)}: is not in the manifest")
            chunks = read_chunks(self.store, entries[tar_name(stem)])
            for row in some:
                yield track(row, entry, chunks)


def read_chunks(store: Store, shard: Mapping[str, Any], read: Read = read_whole) -> pa.Table:
    """Read the chunk table of a shard.

    Args:
        store: the store of the dataset.
        shard: the shard's entry of the manifest; its counts bound what the table may take in memory.
        read: reads the bytes of the table.

    Raises:
        ConfigError: chunks of a camera hold other numbers of frames than its codec's, as only later versions
            write them.
        CorruptError: the table does not match the manifest.
    """
    data = read(store, shard["chunks"], shard["chunks_blake3"])
    chunks = most_chunks(shard)
    # A digest and a size take less than 32 bytes for each, and an episode has one at least.
    most = CHUNKS_BYTES + ROW_BYTES * min(shard["episodes"], chunks) + 32 * chunks
    most = min(most, max(CHUNKS_LARGE, CHUNKS_FOLD * len(data)))
    where = f"{store.url}/{shard['chunks']}"
    table = conforming(parse_table(data, shard["chunks"], most=most), CHUNKS_SCHEMA, where)
    if table["frames"].null_count < table.num_rows:
        raise ConfigError(f"{where}: chunks differ in frames, expected as many in each; update oxcart")
    return table


def most_chunks(shard: Mapping[str, Any]) -> int:
    """Maximum number of chunks of a shard: each holds at least one frame, and three bytes."""
    return int(min(shard["frames"], shard["bytes"] // 3))
