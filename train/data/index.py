"""The episodes of one split of a compiled dataset, as arrays that the loader keeps in memory.

Only scalar columns, and texts as dictionaries: a million episodes take about 120 MB. The chunk tables
(`shards/*.chunks.parquet`) are read together with their shards, and dropped when others need the room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from oxcart.manifests.dataset import Dataset, Read, read_chunks, read_whole
from oxcart.manifests.episode import place_chunks
from oxcart.manifests.tables import EPISODES
from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.shards.names import tar_name
from oxcart.train.data.recent import Recent

Int64 = npt.NDArray[np.int64]

TEXTS = ("environment", "instruction")
ACTS = ("action.start", "action.stop")
CHUNK_TABLE_BYTES = 64 << 20
"""Size limit of a camera's chunk tables in memory, in bytes; the table in use always stays."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """A column of texts, many of which are equal."""

    codes: npt.NDArray[np.int32]
    """Index in `values` of each episode's text; -1 if there is none."""
    values: list[str]

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Texts:
        """Convert a column of strings, plain or dictionary-encoded."""
        whole = column.unify_dictionaries().combine_chunks()
        if isinstance(whole, pa.ChunkedArray):
            whole = (
                whole.chunk(0) if whole.num_chunks else pa.array([], pa.dictionary(pa.int32(), pa.string()))
            )
        coded = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        return cls(codes=codes, values=coded.dictionary.to_pylist())

    def at(self, episodes: Int64) -> list[str | None]:
        """The texts of given episodes."""
        return [self.values[code] if code >= 0 else None for code in self.codes[episodes].tolist()]


@dataclass(frozen=True, kw_only=True)
class ArrayPlace:
    """Location of the action or state of each episode."""

    size: int
    """Values per step."""
    offsets: Int64
    digests: npt.NDArray[np.uint64]


class StoredChunk(NamedTuple):
    """One chunk, as a chunk table lists it."""

    place: int
    """Index of the chunk in the table."""
    offset: int
    """Offset of the chunk in the shard, in bytes."""
    size: int
    """Size of the chunk, in bytes."""
    digest: int
    """xxh3-64 of the chunk's bytes."""


@dataclass(frozen=True, kw_only=True)
class ChunkTable:
    """The chunks of one camera in one shard, episode by episode."""

    start: int
    """Index in the split of the shard's first episode."""
    firsts: Int64
    """Index of each episode's first chunk in the arrays below."""
    offsets: Int64
    """Offset of each chunk in the shard, in bytes."""
    sizes: Int64
    """Size of each chunk, in bytes."""
    digests: npt.NDArray[np.uint64]
    """xxh3-64 of each chunk."""

    def chunk(self, place: int) -> StoredChunk:
        """The chunk at an index of the table."""
        return StoredChunk(place, int(self.offsets[place]), int(self.sizes[place]), int(self.digests[place]))

    @property
    def nbytes(self) -> int:
        """Memory of the table, in bytes."""
        return sum(a.nbytes for a in (self.firsts, self.offsets, self.sizes, self.digests))


class SplitIndex:
    """Episodes of one split, in plan order, and where the frames of some cameras are.

    Args:
        dataset: the compiled dataset.
        split: name of the split, such as `train`.
        cameras: names or roles of cameras.
        limit: number of episodes to keep, from the first in plan order; None keeps all.
        arrays: which of `action` and `state` will be read.
        metadata: whether `KEY.json` will be read.
        read: reads the bytes of tables.

    Raises:
        ConfigError: the dataset has no such split, camera or array.
        CorruptError: a table does not match its digest.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        cameras: Sequence[str] = ("primary",),
        limit: int | None = None,
        arrays: tuple[str, ...] = (),
        metadata: bool = False,
        read: Read = read_whole,
    ) -> None:
        self.dataset, self.split = dataset, split
        manifest, url = dataset.manifest, dataset.store.url
        entries = {name: manifest.camera(name) for name in cameras}
        if not manifest.splits.get(split, {}).get("episodes"):
            have = ", ".join(f"{name} {counts['episodes']}" for name, counts in manifest.splits.items())
            raise ConfigError(f"split {split!r}: {url} has no episodes in it, but {have}")
        for name in arrays:
            if getattr(manifest, name) is None:
                raise ConfigError(f"{name}: {url} has none; leave it out, or compile it with --{name}")
        places = [f"{name}.{what}" for name in arrays for what in ("offset", "digest")]
        places += ACTS if "action" in arrays else ()
        found = dict.fromkeys(entry["name"] for entry in entries.values())
        pixels = [one for name in found for one in camera_columns(name)]
        told = ["offset", "json.digest"] if metadata else []
        columns = ["key", "split", "shard", "steps", *TEXTS, *pixels, *places, *told]
        table = dataset.table(EPISODES, columns, coded=("split", "shard", *TEXTS), read=read)
        splits = Texts.of(table["split"])
        wanted = [code for code, name in enumerate(splits.values) if name == split]
        table = table.filter(pa.array(np.isin(splits.codes, wanted))).drop_columns("split")
        stated = manifest.splits[split]["episodes"]
        if table.num_rows != stated:
            has = f"has {table.num_rows} episodes of {split}, the manifest says {stated}"
            raise CorruptError(f"{url}/{manifest.file(EPISODES)}: {has}")
        table = table.slice(0, limit)
        self.keys: pa.Array = pc.cast(table["key"], pa.large_string()).combine_chunks()
        self.steps = table["steps"].to_numpy().astype(np.int32)
        self.texts = {name: Texts.of(table[name]) for name in TEXTS}
        numbers = {shard["name"]: i for i, shard in enumerate(manifest.shards)}
        shards = Texts.of(table["shard"])
        try:
            of_code = np.array([numbers[tar_name(name)] for name in shards.values], np.int32)
        except KeyError as error:
            raise CorruptError(f"{url}/{EPISODES}: shard {error} is not in the manifest") from error
        self.shards = of_code[shards.codes]
        if (np.diff(self.shards) < 0).any():
            raise CorruptError(f"{url}/{EPISODES}: episodes of one shard are not in consecutive rows")
        self.acts: Int64 | None = None
        """[N, 2]: first step of each episode that holds an action, and the step after the last one."""
        if "action" in arrays:
            self.acts = np.stack([table[name].to_numpy().astype(np.int64) for name in ACTS], axis=1)
        self.arrays = {
            name: ArrayPlace(
                size=getattr(manifest, name)["size"],
                offsets=table[f"{name}.offset"].to_numpy().astype(np.int64),
                digests=table[f"{name}.digest"].to_numpy(),
            )
            for name in arrays
        }
        self.metadata = tuple(table[name].to_numpy() for name in told)
        """Offset of each episode's `KEY.json` in its shard, header included, and digest of `KEY.json`."""
        self.cameras = {name: CameraIndex(self, entry, table, read) for name, entry in entries.items()}
        """Name of each camera, as it was asked for -> where its frames are."""

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def nbytes(self) -> int:
        """Memory of the columns, in bytes."""
        texts = sum(one.codes.nbytes for one in self.texts.values())
        arrays = sum(one.offsets.nbytes + one.digests.nbytes for one in self.arrays.values())
        arrays += self.acts.nbytes if self.acts is not None else 0
        frames = sum(one.nbytes for one in self.cameras.values())
        return int(self.keys.nbytes + self.steps.nbytes + self.shards.nbytes) + texts + arrays + frames

    def key(self, episode: int) -> str:
        """Key of an episode."""
        return str(self.keys[episode].as_py())

    def keys_at(self, episodes: Int64) -> list[str]:
        """Keys of given episodes."""
        found: list[str] = self.keys.take(pa.array(episodes)).to_numpy(zero_copy_only=False).tolist()
        return found

    def shard_name(self, shard: int) -> str:
        """Name of a shard in the store."""
        return str(self.dataset.manifest.shards[shard]["name"])

    def first_episode(self, shard: int) -> int:
        """Index of the first episode of a shard."""
        return int(np.searchsorted(self.shards, shard))

    def describe(self) -> dict[str, Any]:
        """Identity of the split, as plain JSON; it is part of what determines the order."""
        return {
            "dataset": self.dataset.manifest.dataset["name"],
            "fingerprint": self.dataset.manifest.fingerprint,
            "order": self.dataset.manifest.order,
            "split": self.split,
        }


class CameraIndex:
    """Where the frames of one camera are, for every episode of a split.

    Args:
        index: the episodes.
        entry: the camera's entry of the manifest.
        table: rows of `episodes.parquet`, one per episode, with the camera's columns.
        read: reads the bytes of chunk tables.
    """

    def __init__(self, index: SplitIndex, entry: Mapping[str, Any], table: pa.Table, read: Read) -> None:
        self.index, self._entry, self._read = index, entry, read
        self.name: str = entry["name"]
        self.codec: str = entry["codec"]
        self.chunk: int = entry["chunk"]
        """Frames per chunk; the last chunk of an episode may have fewer."""
        offsets, *sides = (table[one].to_numpy() for one in camera_columns(self.name))
        self.offsets: Int64 = offsets.astype(np.int64)
        """[N]: offset of each episode's first chunk in its shard."""
        self.sizes = np.stack([one.astype(np.int32) for one in sides], axis=1)
        """[N, 2]: height and width of each episode's frames."""
        self.uniform: tuple[int, int] | None = None
        """Height and width of all frames; None where they differ."""
        if (self.sizes == self.sizes[:1]).all():
            self.uniform = int(self.sizes[0, 0]), int(self.sizes[0, 1])
            self.sizes = np.broadcast_to(self.sizes[:1].copy(), self.sizes.shape)
        self.bases: Int64 = np.zeros(len(index.steps) + 1, np.int64)
        """[N + 1]: number of each episode's first chunk among all chunks of the split."""
        np.cumsum(-(-index.steps // self.chunk), out=self.bases[1:])
        self._tables: Recent[int, ChunkTable] = Recent(CHUNK_TABLE_BYTES)

    @property
    def nbytes(self) -> int:
        """Memory of the columns, in bytes."""
        return self.offsets.nbytes + self.bases.nbytes

    def chunks(self, shard: int) -> ChunkTable:
        """The chunk table of a shard, read by the first thread that asks for it.

        Raises:
            CorruptError: the table does not match its digest, or lists other episodes.
        """
        return self._tables.get(shard, lambda: self._read_chunks(shard))

    def _read_chunks(self, shard: int) -> ChunkTable:
        index = self.index
        entry = index.dataset.manifest.shards[shard]
        table = read_chunks(index.dataset.store, entry, self._read)
        table = table.filter(pc.equal(table["camera"], self.name))
        start, stop = index.first_episode(shard), index.first_episode(shard + 1)
        count = stop - start
        keys = pc.cast(table["key"].slice(0, count), pa.large_string()).combine_chunks()
        if not keys.equals(index.keys.slice(start, count)):
            raise CorruptError(f"{entry['chunks']}: is not of the episodes that {EPISODES} lists")
        rows = slice(start, stop)
        frame_bytes = self.sizes[rows].astype(np.int64).prod(axis=1) * 3
        try:
            found = place_chunks(
                table.slice(0, count), self.offsets[rows], index.steps[rows], frame_bytes, self._entry
            )
        except CorruptError as error:
            raise CorruptError(f"{entry['chunks']}: {error}") from error
        firsts = self.bases[rows] - self.bases[start]
        return ChunkTable(start=start, firsts=firsts, **found._asdict())


def camera_columns(camera: str) -> list[str]:
    """Columns of `episodes.parquet` that say where the frames of a camera are, and their size."""
    return [f"{camera}.{what}" for what in ("offset", "height", "width")]
