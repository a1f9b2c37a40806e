"""The episodes of one split of a compiled dataset, as arrays that the loader keeps in memory.

Only scalar columns, and texts as dictionaries: a million episodes take about 80 MB. The chunk tables
(`shards/*.chunks.parquet`) are read together with their shards, and dropped when others need the room.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from oxcart.manifests.dataset import Dataset, Read, read_chunks, read_whole
from oxcart.manifests.episode import place_chunks
from oxcart.manifests.roles import stored_bgr
from oxcart.manifests.tables import EPISODES, as_arrow, episodes_schema, numbers
from oxcart.shards.codec import VIDEO_EXTENSIONS
from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.shards.names import tar_name
from oxcart.train.data.recent import Recent
from oxcart.train.data.selection import ALL, Selection

Int64 = npt.NDArray[np.int64]

TEXTS = ("environment", "instruction")
ACTS = ("action.start", "action.stop")
CHUNK_TABLE_BYTES = 64 << 20
"""Size limit of the chunk tables of a split in memory, in bytes; those of the shard in use always stay."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """A column of texts, many of which are equal."""

    codes: npt.NDArray[np.int32]
    """Index in `values` of each episode's text; -1 if there is none."""
    values: list[str]

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Texts:
        """Convert a column of strings, plain or dictionary-encoded."""
        coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        pieces = coded.unify_dictionaries().chunks
        none = [as_arrow(np.full(len(piece), -1, np.int32)) for piece in pieces]
        codes = [
            numbers(pc.coalesce(one.indices, missing)) for one, missing in zip(pieces, none, strict=True)
        ]
        values = pieces[0].dictionary.to_pylist() if pieces else []
        return cls(codes=np.concatenate([np.empty(0, np.int32), *codes]), values=values)

    @property
    def nbytes(self) -> int:
        """Memory of the column, in bytes."""
        return self.codes.nbytes + sys.getsizeof(self.values) + sum(map(sys.getsizeof, self.values))

    def equal(self, text: str) -> npt.NDArray[np.bool_]:
        """Which episodes have a given text."""
        of_code = np.array([value == text for value in [*self.values, None]])  # -1 is the last one
        found: npt.NDArray[np.bool_] = of_code[self.codes]
        return found

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
    starts: Int64 | None
    """Number of each chunk's first frame among all frames of the table, and the number of all frames; None
    if all chunks but the last of an episode hold equally many frames."""

    def chunk(self, place: int) -> StoredChunk:
        """The chunk at an index of the table."""
        return StoredChunk(place, int(self.offsets[place]), int(self.sizes[place]), int(self.digests[place]))

    def find(self, episodes: Int64, steps: Int64) -> Int64:
        """Number of the chunk, among those of its episode, that holds each of some frames."""
        assert self.starts is not None
        firsts = self.firsts[episodes - self.start]
        places: Int64 = np.searchsorted(self.starts, self.starts[firsts] + steps, "right") - 1
        return places - firsts

    def frames(self, place: int) -> int:
        """Number of frames of a chunk, where chunks vary."""
        assert self.starts is not None
        return int(self.starts[place + 1] - self.starts[place])

    @property
    def nbytes(self) -> int:
        """Memory of the table, in bytes."""
        starts = self.starts.nbytes if self.starts is not None else 0
        return starts + sum(a.nbytes for a in (self.firsts, self.offsets, self.sizes, self.digests))


class ShardChunks(dict[str, ChunkTable]):
    """Name of each camera -> its chunks in one shard."""

    @property
    def nbytes(self) -> int:
        """Memory of the tables, in bytes."""
        return sum(one.nbytes for one in self.values())


class SplitIndex:
    """Episodes of one split, in plan order, and where the frames of some cameras are.

    Args:
        dataset: the compiled dataset.
        split: name of the split, such as `train`.
        cameras: names or roles of cameras.
        selection: which of the episodes; by default all.
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
        selection: Selection = ALL,
        arrays: tuple[str, ...] = (),
        metadata: bool = False,
        read: Read = read_whole,
    ) -> None:
        self.dataset, self.split, self._read = dataset, split, read
        self._places: npt.NDArray[np.int32] | None = None
        """[N]: number of each episode among those of its shard, where some are left out."""
        self.left: list[tuple[str, int]] = []
        """Each step of the selection, and the number of episodes that it left."""
        self._selection = selection
        self.first = selection.part[0]
        """Number of episodes of the selection that come before those of this index."""
        self._chunks: Recent[int, ShardChunks] = Recent(CHUNK_TABLE_BYTES)
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
        schema = episodes_schema(manifest.camera_names)
        asked = selection.where.columns(schema) if selection.where is not None else []
        columns = list(dict.fromkeys([*columns, *asked]))
        texts = [one for one in columns if pa.types.is_string(schema.field(one).type) and one != "key"]
        table = dataset.table(EPISODES, columns, coded=texts, read=read)
        self.known_keys: pa.ChunkedArray | None = table["key"] if selection.file is not None else None
        """Keys of all splits, if some of them are asked for."""
        table = self._rows_of_split(table, selection)
        keys = pc.cast(table["key"], pa.large_string())
        self.keys: pa.Array = keys.chunk(0) if keys.num_chunks == 1 else keys.combine_chunks()
        self.steps = numbers(table["steps"])
        self.texts = {name: Texts.of(table[name]) for name in TEXTS}
        number = {shard["name"]: i for i, shard in enumerate(manifest.shards)}
        shards = Texts.of(table["shard"])
        try:
            of_code = np.array([number[tar_name(name)] for name in shards.values], np.int32)
        except KeyError as error:
            raise CorruptError(f"{url}/{EPISODES}: shard {error} is not in the manifest") from error
        self.shards = of_code[shards.codes]
        if (self.shards[1:] < self.shards[:-1]).any():
            raise CorruptError(f"{url}/{EPISODES}: episodes of one shard are not in consecutive rows")
        self.acts: Int64 | None = None
        """[N, 2]: first step of each episode that holds an action, and the step after the last one."""
        if "action" in arrays:
            self.acts = np.stack([numbers(table[name]) for name in ACTS], axis=1, dtype=np.int64)
        self.arrays = {
            name: ArrayPlace(
                size=getattr(manifest, name)["size"],
                offsets=numbers(table[f"{name}.offset"]),
                digests=numbers(table[f"{name}.digest"]),
            )
            for name in arrays
        }
        self.metadata = tuple(numbers(table[name]) for name in told)
        """Offset of each episode's `KEY.json` in its shard, header included, and digest of `KEY.json`."""
        self.cameras = {name: CameraIndex(self, entry, table) for name, entry in entries.items()}
        """Name of each camera, as it was asked for -> where its frames are."""
        del table
        pa.default_memory_pool().release_unused()  # reading took more than the columns do

    def _rows_of_split(self, table: pa.Table, selection: Selection) -> pa.Table:
        """The chosen rows of the split; all of its rows stand together, since plan order is by split."""
        manifest, url = self.dataset.manifest, self.dataset.store.url
        mine = Texts.of(table["split"]).equal(self.split)
        count = int(np.count_nonzero(mine))
        stated = manifest.splits[self.split]["episodes"]
        if count != stated:
            has = f"has {count} episodes of {self.split}, the manifest says {stated}"
            raise CorruptError(f"{url}/{manifest.file(EPISODES)}: {has}")
        first = int(mine.argmax())
        if not mine[first : first + count].all():
            raise CorruptError(f"{url}/{EPISODES}: episodes of one split are not in consecutive rows")
        whole = table.slice(first, count)
        rows, self.left = selection.rows(whole, f"{url}, {self.split}")
        scattered = len(rows) and int(rows[-1]) >= len(rows)
        if scattered:
            codes = Texts.of(whole["shard"]).codes
            begins = np.flatnonzero(np.diff(codes, prepend=-1))
            self._places = (rows - begins[np.searchsorted(begins, rows, side="right") - 1]).astype(np.int32)
        if scattered or 2 * len(rows) < table.num_rows:  # else a few rows would keep the whole table
            return table.take(as_arrow(first + rows))
        return whole.slice(0, len(rows))

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def nbytes(self) -> int:
        """Memory of the columns, in bytes."""
        texts = sum(one.nbytes for one in self.texts.values())
        told = sum(one.nbytes for one in self.metadata)
        arrays = sum(one.offsets.nbytes + one.digests.nbytes for one in self.arrays.values())
        arrays += self.acts.nbytes if self.acts is not None else 0
        frames = sum(one.nbytes for one in self.cameras.values())
        return int(self.keys.nbytes + self.steps.nbytes + self.shards.nbytes) + texts + told + arrays + frames

    def key(self, episode: int) -> str:
        """Key of an episode."""
        return str(self.keys[episode].as_py())

    def chunks(self, shard: int) -> ShardChunks:
        """The chunk tables of all cameras in a shard, read by the first thread that asks for one.

        Raises:
            CorruptError: the table does not match its digest, or lists other episodes.
        """
        return self._chunks.get(shard, lambda: self._read_chunks(shard))

    def _read_chunks(self, shard: int) -> ShardChunks:
        entry = self.dataset.manifest.shards[shard]
        table = read_chunks(self.dataset.store, entry, self._read)
        of_row = Texts.of(table["camera"])
        rows = slice(self.first_episode(shard), self.first_episode(shard + 1))
        found = ShardChunks()
        for camera in self.cameras.values():
            mine = np.flatnonzero(of_row.equal(camera.name))
            try:
                mine = self._chosen(mine, rows)
                found[camera.name] = camera.place(table.take(as_arrow(mine)), rows)
            except CorruptError as error:
                raise CorruptError(f"{entry['chunks']}: {error}") from error
        return found

    def _chosen(self, mine: Int64, rows: slice) -> Int64:
        """Those rows of a shard's chunk table that are of episodes of this index."""
        if self._places is None:
            return mine[: rows.stop - rows.start]
        places = self._places[rows]
        if places.max(initial=-1) >= len(mine):
            raise CorruptError("is not of the episodes that episodes.parquet lists")
        return mine[places]

    def keys_at(self, episodes: Int64) -> list[str]:
        """Keys of given episodes."""
        found: list[str] = self.keys.take(as_arrow(episodes)).to_pylist()
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
            **self._selection.describe(),
        }


class CameraIndex:
    """Where the frames of one camera are, for every episode of a split.

    Args:
        index: the episodes.
        entry: the camera's entry of the manifest.
        table: rows of `episodes.parquet`, one per episode, with the camera's columns.
    """

    def __init__(self, index: SplitIndex, entry: Mapping[str, Any], table: pa.Table) -> None:
        self.index, self._entry = index, entry
        self.name: str = entry["name"]
        self.codec: str = entry["codec"]
        self.chunk: int = entry["chunk"]
        """Frames per chunk, of which the last chunk of an episode may have fewer; the most if chunks vary."""
        self.varying = self.codec in VIDEO_EXTENSIONS
        """Whether the chunk tables say how many frames each chunk holds."""
        self.bgr = stored_bgr(entry)
        """Whether decoded frames hold BGR."""
        offsets, height, width = (numbers(table[one]) for one in camera_columns(self.name))
        self.offsets: Int64 = offsets
        """[N]: offset of each episode's first chunk in its shard."""
        self.uniform: tuple[int, int] | None = None
        """Height and width of all frames; None where they differ."""
        if height.min() == height.max() and width.min() == width.max():
            self.uniform = int(height[0]), int(width[0])
            self.sizes = np.broadcast_to(np.array(self.uniform, np.int32), (len(height), 2))
        else:
            self.sizes = np.stack([height, width], axis=1)
        """[N, 2]: height and width of each episode's frames."""
        self.bases: Int64 = np.zeros(len(index.steps) + 1, np.int64)
        """[N + 1]: name of each episode's first chunk: chunks of the split are numbered, with gaps where only
        the chunk tables say how many there are."""
        np.cumsum(index.steps if self.varying else -(-index.steps // self.chunk), out=self.bases[1:])

    @property
    def nbytes(self) -> int:
        """Memory of the columns, in bytes."""
        sizes = self.sizes.nbytes if self.uniform is None else 0
        return self.offsets.nbytes + sizes + self.bases.nbytes

    def chunks(self, shard: int) -> ChunkTable:
        """The chunk table of a shard, read by the first thread that asks for one of its cameras.

        Raises:
            CorruptError: the table does not match its digest, or lists other episodes.
        """
        return self.index.chunks(shard)[self.name]

    def chunks_of(self, episodes: Int64, steps: Int64) -> Int64:
        """The chunk that holds each frame: its number among those of its episode.

        Args:
            episodes: [n], the episode of each frame.
            steps: [n], the step of each frame.
        """
        if not self.varying:
            whole: Int64 = steps // self.chunk
            return whole
        found, shards = np.empty_like(steps), self.index.shards[episodes]
        for shard in np.unique(shards).tolist():
            table, mine = self.chunks(shard), shards == shard
            found[mine] = table.find(episodes[mine], steps[mine])
        return found

    def locate(self, table: ChunkTable, first: int, step: int) -> tuple[int, int]:
        """The chunk of an episode that holds a frame, and the frame's number in the chunk.

        Args:
            table: the chunk table of the episode's shard.
            first: index of the episode's first chunk in the table.
            step: step of the frame.
        """
        if table.starts is None:
            return divmod(step, self.chunk)
        frame = int(table.starts[first]) + step
        place = int(np.searchsorted(table.starts, frame, "right")) - 1
        return place - first, frame - int(table.starts[place])

    def place(self, table: pa.Table, rows: slice) -> ChunkTable:
        """Locate the chunks of a shard's episodes.

        Args:
            table: the camera's rows of the shard's chunk table.
            rows: the episodes.

        Raises:
            CorruptError: the table does not have the chunks of these episodes.
        """
        index = self.index
        keys = pc.cast(table["key"], pa.large_string()).combine_chunks()
        if not keys.equals(index.keys.slice(rows.start, rows.stop - rows.start)):
            raise CorruptError(f"is not of the episodes that {EPISODES} lists")
        frame_bytes = self.sizes[rows].astype(np.int64).prod(axis=1) * 3
        found = place_chunks(table, self.offsets[rows], index.steps[rows], frame_bytes, self._entry)
        return ChunkTable(
            start=rows.start,
            firsts=np.cumsum(found.counts) - found.counts,
            offsets=found.offsets,
            sizes=found.sizes,
            digests=found.digests,
            starts=np.append(0, np.cumsum(found.frames)) if self.varying else None,
        )


def camera_columns(camera: str) -> list[str]:
    """Columns of `episodes.parquet` that say where the frames of a camera are, and their size."""
    return [f"{camera}.{what}" for what in ("offset", "height", "width")]
