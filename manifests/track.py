"""A track: the chunks of one camera of one episode, read by range, checked, and decoded."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest

from oxcart.shards.codec import decode
from oxcart.shards.errors import CorruptError
from oxcart.shards.names import stem_of, tar_name
from oxcart.shards.store import Store


@dataclass(frozen=True, kw_only=True)
class Track:
    """Where the chunks of one camera of one episode are, and what they hold."""

    key: str
    camera: str
    shard: str
    """Name of the shard's object."""
    codec: str
    chunk: int
    """Frames of a chunk; the last one may have fewer."""
    shape: tuple[int, int, int, int]
    """[T, H, W, 3]."""
    offsets: npt.NDArray[np.int64]
    """Where each chunk begins in the shard, and where the last one ends."""
    digests: npt.NDArray[np.uint64]
    """xxh3-64 of each chunk."""

    def pieces(self, store: Store, first: int, stop: int) -> list[memoryview]:
        """Chunks `first` to `stop - 1`, read at once and checked.

        Raises:
            CorruptError: one does not match its digest.
            StoreError: the shard cannot be read.
        """
        begin, end = int(self.offsets[first]), int(self.offsets[stop])
        return self.checked(memoryview(store.read_range(self.shard, begin, end - begin)), first, stop)

    def checked(self, data: memoryview, first: int, stop: int) -> list[memoryview]:
        """Chunks `first` to `stop - 1`, which lie in `data` from its beginning on.

        Raises:
            CorruptError: one does not match its digest.
        """
        bounds = (self.offsets[first : stop + 1] - self.offsets[first]).tolist()
        pieces = [data[a:b] for a, b in itertools.pairwise(bounds)]
        for i, piece in enumerate(pieces, first):
            if xxh3_64_intdigest(piece) != int(self.digests[i]):
                raise CorruptError(f"{self._place}, chunk {i} does not match its digest")
        return pieces

    def read(self, store: Store, start: int, stop: int, out: npt.NDArray[np.uint8]) -> None:
        """Write frames `start` to `stop - 1` to `out` [stop - start, H, W, 3] uint8, contiguous.

        Raises:
            CorruptError: a chunk does not match its digest, or cannot be decoded.
            StoreError: the shard cannot be read.
        """
        first = start // self.chunk
        pieces = self.pieces(store, first, -(-stop // self.chunk))
        skipped = start - first * self.chunk
        frames = out if not skipped else np.empty((stop - start + skipped, *self.shape[1:]), np.uint8)
        self.decode(pieces, frames)
        if skipped:
            out[:] = frames[skipped:]

    def decode(self, pieces: Sequence[memoryview], out: npt.NDArray[np.uint8]) -> None:
        """Decode a run of chunks that are checked to `out` [n, H, W, 3] uint8, contiguous.

        Raises:
            CorruptError: one cannot be decoded.
        """
        try:
            decode(self.codec, pieces, self.chunk, out)
        except CorruptError as error:
            raise CorruptError(f"{self._place}: {error}") from error

    @property
    def _place(self) -> str:
        return f"{stem_of(self.shard)}: {self.key}, camera {self.camera}"


def track(row: Mapping[str, Any], camera: str, pixels: Mapping[str, Any], chunks: pa.Table) -> Track:
    """The track of a camera.

    Args:
        row: the episode's row of `episodes.parquet`.
        camera: its name.
        pixels: of the manifest.
        chunks: the chunk table of the episode's shard.

    Raises:
        CorruptError: the chunk table does not list the camera's chunks.
    """
    shard = tar_name(row["shard"])
    shape = (row["steps"], row[f"{camera}.height"], row[f"{camera}.width"], 3)
    number = -(-row["steps"] // pixels["chunk"])
    mine = chunks.filter(pc.and_(pc.equal(chunks["key"], row["key"]), pc.equal(chunks["camera"], camera)))
    digests = pc.list_flatten(mine["digests"]).to_numpy()
    frame = shape[1] * shape[2] * 3
    if pixels["codec"] == "raw":
        sizes = np.full(number, frame, np.int64)
    else:
        sizes = pc.list_flatten(mine["sizes"]).to_numpy().astype(np.int64)
    if len(digests) != number or len(sizes) != number:
        raise CorruptError(f"{shard}: no digest and size for each chunk of {row['key']}, camera {camera}")
    return Track(
        key=row["key"],
        camera=camera,
        shard=shard,
        codec=pixels["codec"],
        chunk=pixels["chunk"],
        shape=shape,
        offsets=row[f"{camera}.offset"] + np.concatenate([[0], np.cumsum(sizes)]),
        digests=digests,
    )
