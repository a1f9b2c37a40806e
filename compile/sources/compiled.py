"""A compiled dataset as a source: the same episodes, to be stored differently.

    bridge/
      manifest.json        name, version, cameras, how the original source was read
      episodes.parquet     one census row per episode: where it came from, its environment, its steps
      rejected.parquet     the episodes that were not compiled
      shards/              metadata, arrays and frames, every piece checked against its digest

Everything that the dataset says about its source is passed on. So a transcoded dataset equals one that was
compiled from that source, and transcoding there and back gives the same bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oxcart.compile.images import Frame, Resize, resize_into
from oxcart.compile.sources.base import (
    Camera,
    CensusRow,
    Film,
    Images,
    Source,
    SourceConfig,
    SourceEpisode,
    census_schema,
)
from oxcart.manifests.columns import ARRAYS, parse_columns
from oxcart.manifests.dataset import Dataset, read_chunks
from oxcart.manifests.episode import Track, naming, read_arrays, read_metadata, track
from oxcart.manifests.manifest import NAME
from oxcart.manifests.metadata import attribution_of, instructions_of
from oxcart.manifests.tables import ATTRIBUTION, EPISODES
from oxcart.shards.codec import IVF_HEADER, VIDEO_EXTENSIONS, Encoded
from oxcart.shards.errors import CorruptError
from oxcart.shards.names import stem_of, tar_name

_PIECES = (
    *("shard", "offset", "bytes", "json.digest"),
    *(f"{name}.{what}" for name in ARRAYS for what in ("offset", "digest")),
)
"""Columns that locate an episode in the dataset."""
_MADE = ("instructions", "duplicate", "sketch", "rejected", "detail")
"""Columns of a census that a dataset does not store."""


class CompiledSource(Source):
    """The episodes of a compiled dataset.

    Raises:
        ConfigError: there is no dataset, or its format is unknown.
        CorruptError: the manifest cannot be parsed, or the episode table does not match its digest.
    """

    def __init__(self, config: SourceConfig) -> None:
        self.dataset = Dataset.open(config.url)
        self.remote = self.dataset.store.remote
        manifest = self.dataset.manifest
        self.name, self.version = manifest.dataset["name"], manifest.dataset["version"]
        self.origin = manifest.dataset["kind"]
        self.licence, self.citation = manifest.dataset["licence"], manifest.dataset["citation"]
        self.cameras = tuple(
            Camera(name=one["name"], field=one["source"], role=one["role"], channels=one["channels"])
            for one in manifest.cameras
        )
        self.array_sizes = {name: tuple(one["sizes"]) if one else () for name, one in manifest.arrays.items()}
        self.array_columns = {name: parse_columns(one) for name, one in manifest.arrays.items()}
        self.no_action = tuple(manifest.no_action)
        self.control_rate = manifest.control_rate
        self._reading = threading.Lock()
        self._chunks = lru_cache(maxsize=4)(self._read_chunks)

    @property
    def expected(self) -> int:
        """Number of compiled episodes, from the manifest."""
        return int(self.dataset.manifest.counts["compiled"])

    def describe(self) -> dict[str, Any]:
        """How the original source was read."""
        return dict(self.dataset.manifest.config["source"])

    def files(self) -> list[str]:
        """The shards."""
        return [shard["name"] for shard in self.dataset.manifest.shards]

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of the manifest and every shard."""
        return self.dataset.store.sizes([NAME, *self.files()])

    def table(self) -> pa.Table:
        """Census rows of all episodes, in plan order, with the columns `split` and those that `read` needs.

        The table is read and made by columns, and tasks get their rows from the plan: as Python objects, the
        rows of a large dataset would take more memory than its frames.
        """
        names = [camera.name for camera in self.cameras]
        pieces = [*_PIECES, *(f"{name}.offset" for name in names)]
        columns_of_census = census_schema(tuple(names)).names
        same = [one for one in columns_of_census if one not in _MADE]
        found = self.dataset.table(EPISODES, ["split", "instruction", *same, *pieces])
        columns = {name: found[name] for name in [*same, "split", *pieces]}
        columns["instructions"] = _lists(found["instruction"].combine_chunks())
        columns["duplicate"] = pa.array(np.zeros(found.num_rows, np.uint64))
        columns["sketch"] = pa.nulls(found.num_rows, pa.list_(pa.uint32()))
        columns["rejected"] = columns["detail"] = pa.nulls(found.num_rows, pa.string())
        return pa.table({name: columns[name] for name in [*columns_of_census, "split", *pieces]})

    def census(self, file: str) -> Iterator[CensusRow]:
        """One row per episode of a shard."""
        table = self.table()
        for row in table.filter(pc.equal(table["shard"], stem_of(file))).to_pylist():
            yield CensusRow(
                **{name: row[name] for name in CensusRow.__dataclass_fields__ if name in row},
                heights=tuple(row[f"{one.name}.height"] for one in self.cameras),
                widths=tuple(row[f"{one.name}.width"] for one in self.cameras),
            )

    def attribution(self, census: pa.Table, keys: pa.ChunkedArray) -> pa.Table | None:
        """Authors and licences of the given episodes, one row per key; None if the dataset has none."""
        if ATTRIBUTION not in self.dataset.manifest.tables:
            return None
        table = self.dataset.table(ATTRIBUTION)
        return table.take(pc.index_in(keys, table["key"]))

    def read(self, row: Mapping[str, Any]) -> SourceEpisode:
        """Read the episode of a row of `table` in one request, and check every piece."""
        shard, first = tar_name(row["shard"]), row["offset"]
        data = memoryview(self.dataset.store.read_range(shard, first, row["bytes"]))

        def read(offset: int, size: int) -> memoryview:
            return data[offset - first :][:size]

        with naming(row):
            metadata = read_metadata(read, first, row["json.digest"])
            instructions, attribution = instructions_of(metadata), attribution_of(metadata)
        arrays = read_arrays(read, row, self.dataset.manifest.widths)
        return SourceEpisode(
            images={one["name"]: self._images(row, one, data) for one in self.dataset.manifest.cameras},
            action=arrays.get("action"),
            state=arrays.get("state"),
            reward=arrays.get("reward"),
            instructions=instructions,
            attribution=attribution,
        )

    def _read_chunks(self, name: str) -> pa.Table:
        shard = next(one for one in self.dataset.manifest.shards if one["name"] == name)
        return read_chunks(self.dataset.store, shard)

    def _images(self, row: Mapping[str, Any], camera: Mapping[str, Any], data: memoryview) -> Images:
        """Frames [T, H, W, 3] uint8; with codec `jpeg`, the unchanged JPEGs."""
        with self._reading:  # threads that want the same table wait for the first of them
            chunks = self._chunks(tar_name(row["shard"]))
        found = track(row, camera, chunks)
        begin, end = (int(found.offsets[i]) - row["offset"] for i in (0, -1))
        pieces = found.checked(data[begin:end], 0, len(found.digests))
        if found.codec == "jpeg":
            return pieces
        if found.codec in VIDEO_EXTENSIONS:
            header = b""
            if VIDEO_EXTENSIONS[found.codec] == "ivf":
                header = bytes(data[begin - IVF_HEADER : begin])
                _check_header(found, header)
            lengths = np.diff(found.starts).tolist()
            return _film(found, Encoded(header=header, chunks=pieces, frames=lengths))
        if found.codec == "raw":
            return np.frombuffer(data[begin:end], np.uint8).reshape(found.shape)
        frames = np.empty(found.shape, np.uint8)
        found.decode(pieces, frames)
        return frames


def _check_header(track: Track, header: bytes) -> None:
    """Check the header of a video, which is in no chunk and so in no digest but that of the shard."""
    from oxcart.shards.video.ivf import check_header  # PyAV is an extra

    steps, height, width, _ = track.shape
    try:
        check_header(header, track.codec, (height, width), steps)
    except ValueError as error:
        raise CorruptError(f"{stem_of(track.shard)}: {track.key}, camera {track.camera} {error}") from error


def _film(track: Track, stored: Encoded) -> Film:
    """A stored video, to be copied or to be decoded."""

    def play(frames: Frame, resize: Resize) -> None:
        every = frames if frames.shape == track.shape else np.empty(track.shape, np.uint8)
        track.decode([memoryview(chunk) for chunk in stored.chunks], every)
        if every is not frames:
            for frame, out in zip(every, frames, strict=True):
                resize_into(out, frame, resize)

    return Film(steps=track.shape[0], play=play, copy=lambda most: stored)


def _lists(texts: pa.Array) -> pa.Array:
    """Each text as a list of one text, and an empty text as an empty list."""
    told = pc.not_equal(texts, "")
    ends = np.cumsum(told.to_numpy(zero_copy_only=False), dtype=np.int32)
    starts = np.concatenate([np.zeros(1, np.int32), ends])
    return pa.ListArray.from_arrays(pa.array(starts), texts.filter(told))
