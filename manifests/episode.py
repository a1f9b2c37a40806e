"""The one reader of a stored episode: its metadata, its arrays and the chunks of its cameras, all checked.

    KEY.json           begins at `offset`, behind its tar header, which alone says how long it is
    KEY.action.npy     float32 [T, A] from `action.offset` on, behind NumPy's own header
    KEY.state.npy      float32 [T, S] from `state.offset` on
    KEY.reward.npy     float32 [T, 1] from `reward.offset` on
    KEY.CAMERA.EXT     the chunks of a camera end to end, from `CAMERA.offset` on

A row of `episodes.parquet` says where these are, and a chunk table where the chunks end. Callers
bring their own way to get bytes, so caching, retrying and prefetching are left to them. A piece that is cut
short or does not match its digest is a CorruptError, and nothing of it is returned.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest

from oxcart.manifests.canonical import read_json
from oxcart.manifests.roles import stored_bgr
from oxcart.manifests.tables import numbers
from oxcart.shards.codec import VIDEO_EXTENSIONS, decode
from oxcart.shards.errors import CorruptError
from oxcart.shards.names import chunks_name, stem_of, tar_name
from oxcart.shards.tar import BLOCK

Bytes = bytes | memoryview
Floats = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

ReadRange = Callable[[int, int], Bytes]
"""Reads a range of a shard, given its offset and size in bytes; callers detect short or wrong bytes."""

METADATA_BYTES = 16 << 20
"""Size limit of `KEY.json`, in bytes."""
CHUNK_BYTES = (1 << 31) - 1
"""Size limit of a chunk as it is stored, in bytes."""


def read_metadata(read: ReadRange, offset: int, digest: int) -> dict[str, Any]:
    """Read `KEY.json` of the episode that begins at `offset`.

    Raises:
        CorruptError: its tar header is damaged, it does not match its digest, or it is not a JSON object.
    """
    _, size = parse_header(read(offset, BLOCK))
    if size > METADATA_BYTES:  # before memory is taken for it
        raise CorruptError(f"json: has {size} bytes, expected at most {METADATA_BYTES}")
    data = _read_checked(read, offset + BLOCK, size, digest, "json")
    try:
        value = read_json(bytes(data))
    except ValueError as error:
        raise CorruptError(f"json: cannot be parsed: {error}") from error
    if not isinstance(value, dict):
        raise CorruptError(f"json: expected an object, got {type(value).__name__}")
    return value


def read_array(read: ReadRange, name: str, offset: int, shape: tuple[int, int], digest: int) -> Floats:
    """Read the actions or states of an episode, float32 [T, A].

    Args:
        read: reads ranges of its shard.
        name: name of the array, for errors.
        offset: where the values begin in the shard.
        shape: steps, and values per step.
        digest: xxh3-64 of the values.

    Raises:
        CorruptError: the values do not match their digest.
    """
    data = _read_checked(read, offset, 4 * math.prod(shape), digest, name)
    return np.frombuffer(data, "<f4").reshape(shape)


def read_arrays(read: ReadRange, row: Mapping[str, Any], widths: Mapping[str, int]) -> dict[str, Floats]:
    """Read the arrays that an episode has, float32 [T, A], by name.

    Args:
        read: reads ranges of its shard.
        row: the episode's row of `episodes.parquet`.
        widths: values per step of each array that the dataset has.

    Raises:
        CorruptError: one does not match its digest.
    """
    with naming(row):
        return {
            name: read_array(read, name, offset, (row["steps"], width), row[f"{name}.digest"])
            for name, width in widths.items()
            if (offset := row[f"{name}.offset"]) is not None
        }


@contextlib.contextmanager
def naming(row: Mapping[str, Any]) -> Iterator[None]:
    """Add the episode of a row to any CorruptError raised inside."""
    try:
        yield
    except CorruptError as error:
        raise CorruptError(f"{row['shard']}: {row['key']}: {error}") from error


def parse_header(block: Bytes) -> tuple[str, int]:
    """Name and size of the member described by a tar header.

    Raises:
        CorruptError: the header is damaged, or is not that of a plain file.
    """
    try:
        header = tarfile.TarInfo.frombuf(bytes(block), "utf-8", "strict")
    except (tarfile.TarError, ValueError):
        header = None
    if header is None or header.type != tarfile.REGTYPE or header.size < 0:
        raise CorruptError("a tar header is damaged")
    return header.name, header.size


def members(data: Bytes, key: str) -> dict[str, tuple[int, memoryview]]:
    """The members of an episode: suffix -> (offset of the member's data in `data`, its data).

    Raises:
        CorruptError: a tar header is damaged, or names another episode.
    """
    found: dict[str, tuple[int, memoryview]] = {}
    position = 0
    while position < len(data) or not found:
        member, size = parse_header(data[position : position + BLOCK])
        name, _, suffix = member.partition(".")
        start = position + BLOCK
        position = start + size + -size % BLOCK
        if name != key or suffix in found or position > len(data):
            raise CorruptError("a tar header is damaged")
        found[suffix] = start, memoryview(data)[start : start + size]
    return found


class Chunks(NamedTuple):
    """Positions of the chunks of one camera, episode by episode."""

    offsets: Int64
    """[N]: offset of each chunk in its shard, in bytes."""
    sizes: Int64
    """[N]: size of each chunk, in bytes."""
    digests: UInt64
    """[N]: xxh3-64 of each chunk."""
    counts: Int64
    """[E]: number of chunks of each episode."""
    frames: Int64
    """[N]: frames of each chunk."""


def place_chunks(
    table: pa.Table,
    starts: Int64,
    steps: npt.NDArray[Any],
    frame_bytes: npt.NDArray[Any],
    camera: Mapping[str, Any],
) -> Chunks:
    """Locate the chunks of one camera, for E episodes of a shard.

    Args:
        table: E rows of the shard's chunk table: the rows of the camera, in the order of the episodes.
        starts: [E], offset of each episode's first chunk.
        steps: [E], steps of each episode.
        frame_bytes: [E], bytes of a decoded frame of each episode.
        camera: the camera's entry of the manifest.

    Raises:
        CorruptError: the table does not have one digest and one size per chunk, or its chunks do not have a
            frame per step.
    """
    steps = np.asarray(steps, np.int64)
    counts, frames = _lengths(table, steps, camera)
    digests = _values(table, "digest", counts)
    if camera["codec"] == "raw":
        sizes = np.repeat(np.asarray(frame_bytes, np.int64), counts)
    else:
        sizes = _values(table, "size", counts).astype(np.int64)
    if len(sizes) and sizes.max() > CHUNK_BYTES:
        raise CorruptError(f"has a chunk of {sizes.max()} bytes, an impossible size")
    before = np.cumsum(sizes) - sizes
    firsts = np.cumsum(counts) - counts
    return Chunks(before + np.repeat(starts - before[firsts], counts), sizes, digests, counts, frames)


@dataclass(frozen=True, kw_only=True)
class Track:
    """Position and contents of the chunks of one camera of one episode."""

    key: str
    camera: str
    shard: str
    """Name of the shard's object."""
    codec: str
    bgr: bool
    """Whether decoding gives blue where others give red, and red for blue: a video of such a source."""
    starts: npt.NDArray[np.int64]
    """[N + 1]: the first frame of each chunk, and the number of all frames."""
    shape: tuple[int, int, int, int]
    """Shape of the decoded frames, [T, H, W, 3]."""
    offsets: npt.NDArray[np.int64]
    """[N + 1]: offset of each chunk in the shard, and the end of the last one, in bytes."""
    digests: npt.NDArray[np.uint64]
    """[N]: xxh3-64 of each chunk."""

    def checked(self, data: memoryview, first: int, stop: int) -> list[memoryview]:
        """Check chunks `first` to `stop - 1`, which `data` holds, and return them.

        Raises:
            CorruptError: one does not match its digest.
        """
        bounds = (self.offsets[first : stop + 1] - self.offsets[first]).tolist()
        pieces = [data[a:b] for a, b in itertools.pairwise(bounds)]
        for i, piece in enumerate(pieces, first):
            if xxh3_64_intdigest(piece) != int(self.digests[i]):
                raise CorruptError(f"{self._place}, chunk {i} does not match its digest")
        return pieces

    def find(self, start: int, stop: int) -> tuple[int, int]:
        """The first chunk that holds one of some frames, and the chunk after the last one."""
        first = int(np.searchsorted(self.starts, start, "right")) - 1
        return first, int(np.searchsorted(self.starts, stop, "left"))

    def decode(self, pieces: Sequence[memoryview], out: npt.NDArray[np.uint8], first: int = 0) -> None:
        """Decode a run of checked chunks, from chunk `first` on, into contiguous `out` [n, H, W, 3] uint8.

        Raises:
            CorruptError: a chunk cannot be decoded.
        """
        lengths = np.diff(self.starts[first : first + len(pieces) + 1]).tolist()
        try:
            decode(self.codec, pieces, lengths, out)
        except CorruptError as error:
            raise CorruptError(f"{self._place}: {error}") from error
        if self.bgr:
            swap(out)

    @property
    def _place(self) -> str:
        return f"{stem_of(self.shard)}: {self.key}, camera {self.camera}"


def track(row: Mapping[str, Any], camera: Mapping[str, Any], chunks: pa.Table) -> Track:
    """The track of one camera of an episode.

    Args:
        row: the episode's row of `episodes.parquet`.
        camera: the camera's entry of the manifest.
        chunks: the chunk table of the episode's shard.

    Raises:
        CorruptError: the chunk table does not list the camera's chunks.
    """
    name = camera["name"]
    shape = (row["steps"], row[f"{name}.height"], row[f"{name}.width"], 3)
    mine = chunks.filter(pc.and_(pc.equal(chunks["key"], row["key"]), pc.equal(chunks["camera"], name)))
    try:
        found = place_chunks(
            mine,
            np.array([row[f"{name}.offset"]], np.int64),
            np.array([row["steps"]]),
            np.array([math.prod(shape[1:])]),
            camera,
        )
    except CorruptError as error:
        where = f"{chunks_name(row['shard'])}: {row['key']}, camera {name}"
        raise CorruptError(f"{where}: {error}") from error
    return Track(
        key=row["key"],
        camera=name,
        shard=tar_name(row["shard"]),
        codec=camera["codec"],
        bgr=stored_bgr(camera),
        starts=np.append(0, np.cumsum(found.frames)),
        shape=shape,
        offsets=np.append(found.offsets, found.offsets[-1] + found.sizes[-1]),
        digests=found.digests,
    )


def _lengths(table: pa.Table, steps: Int64, camera: Mapping[str, Any]) -> tuple[Int64, Int64]:
    """Chunks of each episode, and frames of each chunk: of videos stated, of other codecs all but the last
    of an episode hold as many as the manifest says."""
    most, lists = camera["chunk"], table["frames"].combine_chunks()
    if camera["codec"] not in VIDEO_EXTENSIONS:
        if lists.null_count < len(lists):
            raise CorruptError(f"states frames of chunks, which codec {camera['codec']} does not")
        counts = -(-steps // most)
        frames = np.full(int(counts.sum()), most, np.int64)
        frames[np.cumsum(counts) - 1] = steps - (counts - 1) * most
        return counts, frames
    counts = numbers(pc.fill_null(lists.value_lengths(), 0)).astype(np.int64)
    frames = numbers(lists.flatten()).astype(np.int64)
    if len(counts) != len(steps) or not counts.all() or not ((frames >= 1) & (frames <= most)).all():
        raise CorruptError(f"does not state 1 to {most} frames for each chunk")
    if (np.add.reduceat(frames, np.cumsum(counts) - counts) != steps).any():
        raise CorruptError("does not state a frame for each step")
    return counts, frames


def swap(frames: npt.NDArray[np.uint8]) -> None:
    """Exchange red and blue of frames [..., 3], in place."""
    frames[:] = frames[..., ::-1].copy()


def _values(table: pa.Table, what: str, counts: Int64) -> npt.NDArray[Any]:
    """[N]: the `digest` or `size` of each chunk, end to end, where each row must have as many as `counts`."""
    lists = table[f"{what}s"].combine_chunks()
    if lists.null_count or not np.array_equal(numbers(lists.value_lengths()), counts):
        raise CorruptError(f"has no {what} for each chunk")
    return numbers(lists.flatten())


def _read_checked(read: ReadRange, offset: int, size: int, digest: int, name: str) -> Bytes:
    data = read(offset, size)
    if len(data) != size or xxh3_64_intdigest(data) != digest:
        raise CorruptError(f"{name} does not match its digest")
    return data
