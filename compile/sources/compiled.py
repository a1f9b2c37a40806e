"""A compiled dataset as a source: the same episodes, to be stored in another way.

    bridge/
      manifest.json        name, version, cameras, how the original source was read
      episodes.parquet     a census row an episode: where it came from, its environment, its steps
      rejected.parquet     the episodes that were not compiled
      shards/              metadata, arrays and frames, every piece checked against its digest

Whatever the dataset says of its own source is handed on, so nobody can tell from a transcoded dataset that it
was not compiled anew, and transcoding there and back gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64_intdigest

from oxcart.compile.sources.base import Camera, CensusRow, Episode, Floats, Images, SourceConfig
from oxcart.manifests.dataset import Dataset, read_chunks
from oxcart.manifests.manifest import NAME
from oxcart.manifests.tables import EPISODES
from oxcart.manifests.track import Track, track
from oxcart.shards.errors import CorruptError, SourceError
from oxcart.shards.tar import BLOCK


class CompiledSource:
    """The episodes of a compiled dataset.

    Raises:
        ConfigError: there is none, or one of an unknown format.
        CorruptError: its manifest cannot be parsed, or its table does not match its digest.
    """

    def __init__(self, config: SourceConfig) -> None:
        self._dataset = dataset = Dataset.open(config.url)
        self.remote = dataset.store.remote
        manifest = dataset.manifest
        self.name, self.version = manifest.dataset["name"], manifest.dataset["version"]
        self.kind = manifest.dataset["kind"]
        self.cameras = tuple(Camera(name=one["name"], field=one["source"]) for one in manifest.cameras)
        self.action_sizes = tuple((manifest.action or {"sizes": ()})["sizes"])
        self.state_sizes = tuple((manifest.state or {"sizes": ()})["sizes"])
        self.control_rate = manifest.control_rate
        self.aliases: Mapping[str, tuple[str, ...]] = {}
        self._chunks = lru_cache(maxsize=4)(self._read_chunks)
        self._rows: dict[str, dict[str, Any]] | None = None

    @property
    def dataset(self) -> Dataset:
        """The dataset itself."""
        return self._dataset

    @property
    def expected(self) -> int:
        """Episodes that the manifest counts."""
        return int(self._dataset.manifest.counts["compiled"])

    def describe(self) -> dict[str, Any]:
        """How the original source was read."""
        return dict(self._dataset.manifest.config["source"])

    def files(self) -> list[str]:
        """The shards."""
        return [shard["name"] for shard in self._dataset.manifest.shards]

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of the manifest and every shard."""
        store = self._dataset.store
        return {NAME: store.size(NAME), **{name: store.size(name) for name in self.files()}}

    def census(self, file: str) -> Iterator[CensusRow]:
        """A row for each episode of one shard."""
        shard = file.removeprefix("shards/").removesuffix(".tar")
        for row in self._episodes().values():
            if row["shard"] == shard:
                sizes = [[row[f"{one.name}.{side}"] for one in self.cameras] for side in ("height", "width")]
                same = {name: row[name] for name in CensusRow.__dataclass_fields__ if name in row}
                yield CensusRow(
                    **same,
                    instructions=(row["instruction"],) if row["instruction"] else (),
                    duplicate=0,
                    heights=tuple(sizes[0]),
                    widths=tuple(sizes[1]),
                    rejected=None,
                )

    def read(self, row: Mapping[str, Any]) -> Episode:
        """The episode of a census row, every piece of it checked."""
        mine = self._episodes().get(row["key"])
        if mine is None or mine["source_digest"] != row["source_digest"]:
            raise SourceError(f"{self._dataset.store.url}: episode {row['key']} has changed since the census")
        metadata = self._metadata(mine)
        return Episode(
            images={camera.name: self._images(mine, camera.name) for camera in self.cameras},
            action=self._array(mine, "action", self.action_sizes),
            state=self._array(mine, "state", self.state_sizes),
            instructions={
                field: [(step, text) for step, text in runs]
                for field, runs in metadata["instructions"].items()
            },
        )

    def _episodes(self) -> dict[str, dict[str, Any]]:
        """Key -> row of `episodes.parquet`."""
        if self._rows is None:
            self._rows = {row["key"]: row for row in self._dataset.table(EPISODES).to_pylist()}
        return self._rows

    def _read_chunks(self, name: str) -> pa.Table:
        shard = next(one for one in self._dataset.manifest.shards if one["name"] == name)
        return read_chunks(self._dataset.store, shard)

    def _track(self, row: Mapping[str, Any], camera: str) -> Track:
        chunks = self._chunks(f"shards/{row['shard']}.tar")
        return track(row, camera, self._dataset.manifest.pixels, chunks)

    def _images(self, row: Mapping[str, Any], camera: str) -> Images:
        """Frames [T, H, W, 3]; with codec jpeg the JPEGs as they are."""
        found, store = self._track(row, camera), self._dataset.store
        if found.codec == "jpeg":
            return found.pieces(store, 0, found.shape[0])
        frames = np.empty(found.shape, np.uint8)
        found.read(store, 0, found.shape[0], frames)
        return frames

    def _metadata(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """`KEY.json`; it is the first member, right behind its header."""
        store, shard, start = self._dataset.store, f"shards/{row['shard']}.tar", row["offset"]
        head = store.read_range(shard, start, BLOCK)
        try:
            size = int(head[124:136].strip(b" \0"), 8)
        except ValueError as error:
            raise CorruptError(f"{row['shard']}: {row['key']}: a tar header is damaged") from error
        if size > row["bytes"]:
            raise CorruptError(f"{row['shard']}: {row['key']}: a tar header is damaged")
        data = store.read_range(shard, start + BLOCK, size)
        self._check(row, "json", data, row["json.digest"])
        value: dict[str, Any] = json.loads(data)
        return value

    def _array(self, row: Mapping[str, Any], name: str, sizes: tuple[int, ...]) -> Floats | None:
        """[T, A] float32."""
        start = row[f"{name}.offset"]
        if start is None:
            return None
        shape = row["steps"], sum(sizes)
        data = self._dataset.store.read_range(f"shards/{row['shard']}.tar", start, 4 * shape[0] * shape[1])
        self._check(row, name, data, row[f"{name}.digest"])
        return np.frombuffer(data, "<f4").reshape(shape)

    def _check(self, row: Mapping[str, Any], name: str, data: bytes, digest: int) -> None:
        if xxh3_64_intdigest(data) != digest:
            raise CorruptError(f"{row['shard']}: {row['key']}: {name} does not match its digest")
