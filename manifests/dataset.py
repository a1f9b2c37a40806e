"""An opened dataset and its episodes, for people and for code.

    dataset = Dataset.open("bridge")             reads the manifest, and nothing else
    dataset.episodes                             `episodes.parquet`, as an Arrow table
    for episode in dataset: ...                  every episode, in plan order
    episode = dataset["KEY"]                     one of them; also dataset[3] and dataset[-1]
    episode.action, episode.instruction          float32 [T, A], and text
    episode.frames("wrist")[3]                   one frame, [H, W, 3] uint8

An episode is its row of `episodes.parquet`; all else of it is read when it is first used, so a million
episodes take no more memory than the table. Of the shards, as many chunk tables and open files are kept as
random access needs.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, overload

import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from oxcart.manifests.columns import Column, parse_columns
from oxcart.manifests.episode import Floats, naming, read_arrays, read_metadata, track
from oxcart.manifests.frames import CameraFrames
from oxcart.manifests.manifest import Manifest, read_manifest
from oxcart.manifests.metadata import instructions_of
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
from oxcart.manifests.video import write_video
from oxcart.shards.choices import did_you_mean
from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.shards.names import tar_name
from oxcart.shards.store import Reader, Store
from oxcart.shards.text import cut

KEPT_SHARDS = 32
"""Maximum number of shards whose chunk table stays in memory, and of those that stay open."""
LIKE = 5_000
"""Maximum number of keys that are compared with one that is not there."""
FPS = 10
"""Frames per second of the video of an episode whose control rate is unknown."""


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A compiled dataset in a store: a sequence of its episodes, which can be found by key as well."""

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

    @cached_property
    def episodes(self) -> pa.Table:
        """`episodes.parquet`, one row per episode in plan order, read when it is first used.

        Raises:
            CorruptError: the file does not match the manifest, or is not such a table.
        """
        return self.table(EPISODES)

    def __len__(self) -> int:
        """Number of episodes, by the manifest."""
        return int(self.manifest.counts["compiled"])

    def __iter__(self) -> Iterator[Episode]:
        """Every episode, in plan order."""
        return (Episode(dataset=self, row=row) for row in rows_of(self.episodes))

    def __contains__(self, key: object) -> bool:
        """Whether there is an episode of this key."""
        return isinstance(key, str) and self._place(key) >= 0

    @overload
    def __getitem__(self, which: str | int) -> Episode: ...

    @overload
    def __getitem__(self, which: slice) -> list[Episode]: ...

    def __getitem__(self, which: str | int | slice) -> Episode | list[Episode]:
        """The episode of a key or at an index in plan order, or the episodes of a slice.

        Raises:
            ConfigError: there is no episode of this key.
            IndexError: there is no episode at this index.
            CorruptError: the episode table does not match its digest.
        """
        count = self.episodes.num_rows
        if isinstance(which, slice):
            rows = rows_of(self.episodes.take(pa.array(range(count)[which], pa.int64())))
            return [Episode(dataset=self, row=row) for row in rows]
        if isinstance(which, str):
            index = self._place(which)
            if index < 0:
                hint = did_you_mean(which, self._like(which), "oxcart inspect --episodes lists all of them")
                raise ConfigError(f"episode {which!r}: the dataset has no such key{hint}")
        else:
            index = operator.index(which)
            if not -count <= index < count:
                raise IndexError(f"episode {index}: the dataset has {count:,}, numbered from 0")
        return Episode(dataset=self, row=self.episodes.slice(index % count, 1).to_pylist()[0])

    def _place(self, key: str) -> int:
        """Index of the episode of a key; -1 if there is none."""
        return int(pc.index(self.episodes["key"], key).as_py())

    def _like(self, key: str) -> list[str]:
        """Keys of which one may have been meant: all, or in a large dataset those with the longest beginning
        in common."""
        keys = self.episodes["key"]
        for size in range(len(key) if len(keys) > LIKE else 0, 0, -1):
            some = keys.filter(pc.starts_with(keys, key[:size]))
            if len(some):
                return list(some.slice(0, LIKE).to_pylist())
        return list(keys.slice(0, LIKE).to_pylist())

    def __repr__(self) -> str:
        named = self.manifest.dataset
        splits = (f"{name} {counts['episodes']:,}" for name, counts in self.manifest.splits.items())
        cameras = cut(", ".join(self.manifest.camera_names), 60)
        head = cut(f"{named['name']} {named['version']}", 60)
        return f"Dataset({head}: {len(self):,} episodes ({', '.join(splits)}); {cameras})"

    def _repr_html_(self) -> str:
        # Drawn in notebooks alone; that module shows datasets, so it imports this one.
        from oxcart.manifests.notebook import dataset_html

        return dataset_html(self)

    def __getstate__(self) -> dict[str, Any]:
        """Leave tables and open files behind; the receiver reads its own."""
        return {"store": self.store, "manifest": self.manifest}

    def shard(self, stem: str) -> dict[str, Any]:
        """The manifest's entry of a shard.

        Args:
            stem: as in the column `shard` of `episodes.parquet`.

        Raises:
            CorruptError: the manifest has no such shard.
        """
        name = tar_name(stem)
        if name not in self._shards:
            raise CorruptError(f"{name}: is not in the manifest")
        return self._shards[name]

    def chunks(self, stem: str) -> pa.Table:
        """The chunk table of a shard. Those used last are kept.

        Raises:
            CorruptError: the manifest has no such shard, or its chunk table does not match its digest.
        """
        return self._chunks(self.shard(stem)["name"])

    def reader(self, shard: str) -> Reader:
        """A shard, open for reading. Those used last stay open.

        Args:
            shard: name of the shard in the store.
        """
        return self._readers(shard)

    @cached_property
    def _shards(self) -> dict[str, dict[str, Any]]:
        return {shard["name"]: shard for shard in self.manifest.shards}

    # What is kept refers to the store and not to the dataset, so files are closed when the dataset goes.

    @cached_property
    def _chunks(self) -> Callable[[str], pa.Table]:
        store, shards = self.store, self._shards
        return lru_cache(KEPT_SHARDS)(lambda name: read_chunks(store, shards[name]))

    @cached_property
    def _readers(self) -> Callable[[str], Reader]:
        return lru_cache(KEPT_SHARDS)(self.store.open)


class Instruction(NamedTuple):
    """A text that says what an episode is about, from one step on."""

    step: int
    """Step at which it begins."""
    text: str
    field: str
    """Field of the source that it comes from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """One episode of a dataset. What is not in its row is read when it is first used, and checked."""

    dataset: Dataset
    """The dataset that holds it."""
    row: Mapping[str, Any]
    """Its row of `episodes.parquet`."""

    @property
    def key(self) -> str:
        """Its key, which no other episode of the dataset has."""
        return str(self.row["key"])

    @property
    def split(self) -> str:
        """`train`, `val`, `test` or `val_seen`."""
        return str(self.row["split"])

    @property
    def steps(self) -> int:
        """Number of steps, T."""
        return int(self.row["steps"])

    def __len__(self) -> int:
        return self.steps

    @property
    def environment(self) -> str | None:
        """Where it was recorded; None if that is unknown."""
        found: str | None = self.row["environment"]
        return found

    @property
    def session(self) -> str | None:
        """The recording session; None if it is unknown."""
        found: str | None = self.row["session"]
        return found

    @property
    def success(self) -> bool | None:
        """Whether it succeeded; None if the source does not say."""
        found: bool | None = self.row["success"]
        return found

    @property
    def control_rate(self) -> float | None:
        """Steps per second; None if it is unknown."""
        found: float | None = self.row["control_rate"]
        return found

    @property
    def instruction(self) -> str:
        """Its first instruction; "" if there is none."""
        return str(self.row["instruction"])

    @cached_property
    def instructions(self) -> list[Instruction]:
        """Every instruction and the step at which it begins, field by field, the preferred field first.

        A field that never says anything is left out; a text "" ends the one before it.

        Raises:
            CorruptError: the metadata does not match its digest.
        """
        with naming(self.row):
            metadata = read_metadata(self._read_range, self.row["offset"], self.row["json.digest"])
            found = instructions_of(metadata)
        said = {field: texts for field, texts in found.items() if any(text for _, text in texts)}
        return [Instruction(step, text, field) for field, texts in said.items() for step, text in texts]

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras, the order of the manifest."""
        return tuple(self.dataset.manifest.camera_names)

    @property
    def columns(self) -> dict[str, tuple[Column, ...]]:
        """Each array that the dataset has, `action`, `state`, `reward` -> what its columns mean."""
        arrays = self.dataset.manifest.arrays
        return {name: parse_columns(entry) for name, entry in arrays.items() if entry is not None}

    @cached_property
    def action(self) -> Floats | None:
        """float32 [T, A]; None if the dataset has no actions.

        Raises:
            CorruptError: the values do not match their digest.
        """
        return self._array("action")

    @cached_property
    def state(self) -> Floats | None:
        """float32 [T, S]; None if the dataset has no states.

        Raises:
            CorruptError: the values do not match their digest.
        """
        return self._array("state")

    @cached_property
    def reward(self) -> Floats | None:
        """float32 [T, 1]; None if the dataset has no rewards.

        Raises:
            CorruptError: the values do not match their digest.
        """
        return self._array("reward")

    def frames(self, camera: str = "primary") -> CameraFrames:
        """The frames of one camera: a sequence that reads what is asked for.

        Args:
            camera: its name or role.

        Raises:
            ConfigError: there is no such camera.
            CorruptError: the shard is not in the manifest, its chunk table does not match its digest, or
                lacks the camera.
        """
        entry = self.dataset.manifest.camera(camera)
        found = self._frames.get(entry["name"])
        if found is None:
            place = track(self.row, entry, self.dataset.chunks(self.row["shard"]))
            found = self._frames[entry["name"]] = CameraFrames(dataset=self.dataset, track=place)
        return found

    def video(
        self, path: str | os.PathLike[str], *, camera: str = "primary", fps: float | None = None
    ) -> Path:
        """Write the frames of one camera to an MP4 file that browsers play. Needs the extra `video`.

        Args:
            path: the file, which is replaced if it exists.
            camera: its name or role.
            fps: frames per second; None takes the control rate, or 10 if that is unknown.

        Returns:
            The path.

        Raises:
            ConfigError: there is no such camera, `fps` is not positive, or PyAV is not installed.
            CorruptError: a chunk does not match its digest.
            StoreError: the file cannot be written.
        """
        rate = self.control_rate if fps is None else fps
        return write_video(path, self.frames(camera), FPS if rate is None else rate)

    def __repr__(self) -> str:
        where = "unknown environment" if self.environment is None else cut(self.environment, 60)
        said = f": {cut(self.instruction, 80)!r}" if self.instruction else ""
        return f"Episode({self.key}, {self.split}, {where}, {self.steps} steps{said})"

    def _repr_html_(self) -> str:
        # Drawn in notebooks alone; that module shows episodes, so it imports this one.
        from oxcart.manifests.notebook import episode_html

        return episode_html(self)

    @cached_property
    def _frames(self) -> dict[str, CameraFrames]:
        return {}

    def _read_range(self, offset: int, size: int) -> bytes:
        shard = self.dataset.shard(self.row["shard"])
        return self.dataset.store.read_range(shard["name"], offset, size)

    def _array(self, name: str) -> Floats | None:
        width = self.dataset.manifest.widths.get(name)
        if width is None:
            return None
        found = read_arrays(self._read_range, self.row, {name: width})
        return found[name].copy()  # which, unlike the bytes that were read, may be changed


def read_chunks(store: Store, shard: Mapping[str, Any], read: Read = read_whole) -> pa.Table:
    """Read the chunk table of a shard.

    Args:
        store: the store of the dataset.
        shard: the shard's entry of the manifest; its counts bound what the table may take in memory.
        read: reads the bytes of the table.

    Raises:
        CorruptError: the table does not match the manifest.
    """
    data = read(store, shard["chunks"], shard["chunks_blake3"])
    chunks = most_chunks(shard)
    # A digest and a size take less than 32 bytes for each, and an episode has one at least.
    most = CHUNKS_BYTES + ROW_BYTES * min(shard["episodes"], chunks) + 32 * chunks
    most = min(most, max(CHUNKS_LARGE, CHUNKS_FOLD * len(data)))
    where = f"{store.url}/{shard['chunks']}"
    return conforming(parse_table(data, shard["chunks"], most=most), CHUNKS_SCHEMA, where)


def most_chunks(shard: Mapping[str, Any]) -> int:
    """Maximum number of chunks of a shard: each holds at least one frame, and three bytes."""
    return int(min(shard["frames"], shard["bytes"] // 3))
