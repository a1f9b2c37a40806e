"""Read frames by episode and step: find them, read them into the batch, check and decode them.

Frames of codec `raw` go from the file into the batch, each with one system call and no copy in between. With
the other codecs, a chunk is decoded once for all samples that need it soon (`oxcart.train.data.reuse`). Every
chunk is compared with its digest; a chunk that does not match is read once more before that is an error.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from oxcart.manifests.episode import ReadRange, read_array, read_metadata, swap
from oxcart.manifests.metadata import instructions_of
from oxcart.shards.codec import decode
from oxcart.shards.errors import CorruptError
from oxcart.shards.names import stem_of
from oxcart.shards.prefetch import GAP_BYTES, PIECE_BYTES, spans
from oxcart.shards.resize import resize_into
from oxcart.train.data.cache import Cache
from oxcart.train.data.index import CameraIndex, ChunkTable, SplitIndex, StoredChunk
from oxcart.train.data.recent import Recent
from oxcart.train.data.reuse import Budget, Reuse, SharedRead

Frame = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

ARRAY_BYTES = 64 << 20
"""Size limit of the actions and states of a split in memory, in bytes; the array in use always stays."""
KNOWN_TEXTS = 4096
"""Number of episodes whose instructions stay in memory."""
OPEN_SHARDS = 64
"""Number of shards that stay open."""

_Piece = TypeVar("_Piece")
_thread = threading.local()


class _Place(NamedTuple):
    """Location of the chunks of an episode."""

    episode: int
    shard: int
    table: ChunkTable
    first: int
    """Index of the episode's first chunk in the table."""


class EpisodeReader:
    """Reads arrays and instructions of one split; any number of threads may use it at once.

    Args:
        index: episodes of the split.
        check: compare every chunk of frames with its digest; arrays and instructions always are.
        cache: local cache of data from a remote dataset.
    """

    def __init__(self, index: SplitIndex, *, check: bool = True, cache: Cache | None = None) -> None:
        self.index, self.check = index, check
        self._cache = cache
        store = index.dataset.store
        self.shard = lru_cache(maxsize=OPEN_SHARDS)(lambda shard: store.open(index.shard_name(shard)))
        """Opens a shard for reading; the last ones used stay open."""
        self._arrays: Recent[tuple[str, int], Floats] = Recent(ARRAY_BYTES)
        self._texts: OrderedDict[int, list[list[tuple[int, str]]]] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes_read = 0
        """Bytes of frames read from the store; reads from the cache do not count."""

    def gather(self, name: str, episodes: Int64, steps: Int64) -> Floats:
        """Read the actions or states of many samples; the arrays of the last episodes stay in memory.

        Args:
            name: `action` or `state`.
            episodes: [n], the episode of each sample; at least one.
            steps: [n, k], the steps of each sample, all of them in its episode.

        Returns:
            [n, k, A] float32.

        Raises:
            CorruptError: an array does not match its digest.
            IndexError: a step lies outside its episode.
        """
        order = np.argsort(episodes, kind="stable")
        bounds = np.flatnonzero(np.diff(episodes[order], prepend=-1, append=-1))  # between two episodes
        numbers, firsts = episodes[order[bounds[:-1]]], bounds[:-1]
        low = np.minimum.reduceat(steps.min(axis=1)[order], firsts)
        high = np.maximum.reduceat(steps.max(axis=1)[order], firsts) + 1
        if (low < 0).any() or (high > self.index.steps[numbers]).any():
            raise IndexError(f"{name}: a step lies outside its episode")
        needed = [
            self._kept(name, episode)[begin:end]
            for episode, begin, end in zip(numbers.tolist(), low.tolist(), high.tolist(), strict=True)
        ]
        places = np.empty_like(episodes)
        places[order] = np.repeat(np.cumsum(high - low) - high, np.diff(bounds))
        # One call for all samples: other threads run meanwhile, and none waits for another per episode.
        found: Floats = np.concatenate(needed).take(places[:, None] + steps, axis=0)
        return found

    def _kept(self, name: str, episode: int) -> Floats:
        def read() -> Floats:
            values = self.array(name, episode)
            values.flags.writeable = False
            return values

        return self._arrays.get((name, episode), read)

    def array(self, name: str, episode: int) -> Floats:
        """Read the action or state of an episode, [T, A] float32, and check it."""
        place = self.index.arrays[name]
        offset, digest = int(place.offsets[episode]), int(place.digests[episode])
        shape = int(self.index.steps[episode]), place.size
        return self._read_piece(episode, lambda read: read_array(read, name, offset, shape, digest))

    def instructions(self, episode: int, step: int) -> list[str]:
        """Every instruction in force at a step, the preferred first: one per field, no text twice."""
        with self._lock:
            fields = self._texts.get(episode)
        if fields is None:
            offsets, digests = self.index.metadata
            offset, digest = int(offsets[episode]), int(digests[episode])
            told = self._read_piece(
                episode, lambda read: instructions_of(read_metadata(read, offset, digest))
            )
            fields = list(told.values())
            with self._lock:
                self._texts[episode] = fields
                if len(self._texts) > KNOWN_TEXTS:
                    self._texts.popitem(last=False)
        now = (max((run for run in runs if run[0] <= step), default=(0, "")) for runs in fields)
        return list(dict.fromkeys(text for _, text in now if text))

    def _read_piece(self, episode: int, get: Callable[[ReadRange], _Piece]) -> _Piece:
        """Read with `get` from the cache, else from the store; damaged bytes are read once more."""
        shard, cache = int(self.index.shards[episode]), self._cache
        if cache is not None:

            def cached(offset: int, size: int) -> memoryview:
                data = memoryview(bytearray(size))
                return data if cache.peek(self._digest(shard), offset, data) else data[:0]

            with contextlib.suppress(CorruptError):
                return get(cached)
        try:
            return self._read_stored(shard, get)
        except CorruptError:
            self.shard.cache_clear()
        try:
            return self._read_stored(shard, get)
        except CorruptError as error:
            where = f"{self.index.shard_name(shard)}: {self.index.key(episode)}"
            raise CorruptError(f"{where}: {error}") from error

    def _read_stored(self, shard: int, get: Callable[[ReadRange], _Piece]) -> _Piece:
        """Read with `get` from a shard in the store; correct bytes are put into the cache."""
        pieces: list[tuple[int, memoryview]] = []

        def read(offset: int, size: int) -> memoryview:
            pieces.append((offset, memoryview(bytearray(size))))
            self.shard(shard).read_into(pieces[-1:])
            return pieces[-1][1]

        found = get(read)
        for offset, data in pieces:
            self.keep(shard, offset, data)
        return found

    def cached(self, shard: int, chunk: StoredChunk, buffer: memoryview) -> bool:
        """Fill the buffer from the cache, if the right bytes are there."""
        cache = self._cache
        return cache is not None and cache.read(self._digest(shard), chunk.offset, buffer, chunk.digest)

    def keep(self, shard: int, offset: int, data: memoryview) -> None:
        """Put checked bytes into the cache, if there is one."""
        if self._cache is not None and self.check:
            self._cache.write(self._digest(shard), offset, data)

    def _digest(self, shard: int) -> str:
        return str(self.index.dataset.manifest.shards[shard]["blake3"])

    def count(self, size: int) -> None:
        """Add to the bytes of frames that were read."""
        with self._lock:
            self.bytes_read += size


class FrameReader:
    """Reads the frames of one camera of one split; any number of threads may use it at once.

    Args:
        episodes: reads the shards.
        camera: where the frames are.
        size: height and width that frames are resized to; None keeps the stored size.
        budget: memory for chunks that are needed again soon.
    """

    def __init__(
        self,
        episodes: EpisodeReader,
        camera: CameraIndex,
        *,
        size: tuple[int, int] | None,
        budget: Budget,
    ) -> None:
        self.index, self.camera, self._episodes = episodes.index, camera, episodes
        self.shard = episodes.shard
        self._budget = budget
        self.reuse = Reuse(budget)
        """Chunks kept for the iteration in progress."""
        self._plain = camera.codec == "raw" and camera.chunk == 1 and size in (None, camera.uniform)

    def begin(self) -> Reuse:
        """Begin an iteration, dropping whatever the last one expected and kept."""
        self.reuse.close()
        self.reuse = Reuse(self._budget)
        return self.reuse

    def read(
        self, episodes: Int64, steps: Int64, frames: Frame, rows: Int64, reuse: Reuse | None = None
    ) -> None:
        """Write the frames of some samples to their rows.

        Args:
            episodes: [n], the episode of each sample.
            steps: [n, k], the steps of its frames.
            frames: uint8 [B, k, H, W, 3], contiguous.
            rows: [n], the row of each sample in `frames`.
            reuse: the iteration in which these frames were expected; None if they were not.

        Raises:
            CorruptError: a chunk does not match its digest or cannot be decoded.
            StoreError: the shard cannot be read.
        """
        plain = self._plain and (reuse is None or not reuse.expects)
        size, memory = frames[0, 0].nbytes, _flat(frames)
        for row, episode, mine in zip(rows.tolist(), episodes.tolist(), steps.tolist(), strict=True):
            at = self._find(episode)
            if plain:
                begin = row * len(mine) * size
                buffers = [memory[i : i + size] for i in range(begin, begin + len(mine) * size, size)]
                self._read_raw(at, [at.first + step for step in mine], buffers)
            else:
                self._read_frames(at, mine, frames[row], reuse)

    def read_episode(self, episode: int) -> Frame:
        """Read all frames of an episode, uint8 [T, H, W, 3], in their stored size."""
        steps, (height, width) = int(self.index.steps[episode]), self.camera.sizes[episode].tolist()
        frames = np.empty((steps, height, width, 3), np.uint8)
        self._read_frames(self._find(episode), range(steps), frames, None)
        return frames

    def _find(self, episode: int) -> _Place:
        shard = int(self.index.shards[episode])
        table = self.camera.chunks(shard)
        return _Place(episode, shard, table, int(table.firsts[episode - table.start]))

    def _read_raw(self, at: _Place, places: Sequence[int], buffers: Sequence[memoryview]) -> None:
        table = at.table
        if self.index.dataset.store.remote:
            self._fetch(at, [(table.chunk(place), out) for place, out in zip(places, buffers, strict=True)])
            return
        # One by one: each is checked while it is in the processor's cache. A few microseconds matter here.
        file, check = self.shard(at.shard), self._episodes.check
        self._episodes.count(sum(map(len, buffers)))
        for place, buffer in zip(places, buffers, strict=True):
            file.read_into(((int(table.offsets[place]), buffer),))
            if check and xxh3_64_intdigest(buffer) != int(table.digests[place]):
                self._fetch(at, [(table.chunk(place), buffer)])

    def _read_frames(
        self, at: _Place, steps: Sequence[int], outs: Sequence[Frame] | Frame, reuse: Reuse | None
    ) -> None:
        wanted: dict[int, list[tuple[int, Frame]]] = {}
        for step, out in zip(steps, outs, strict=True):
            chunk, number = self.camera.locate(at.table, at.first, step)
            wanted.setdefault(chunk, []).append((number, out))
        for chunk, frames in wanted.items():
            self._read_chunk(at, chunk, frames, reuse)

    def _read_chunk(
        self, at: _Place, chunk: int, frames: Sequence[tuple[int, Frame]], reuse: Reuse | None
    ) -> None:
        """Write frames of one chunk, each given by its number in the chunk, to their memory."""
        camera = self.camera
        height, width = camera.sizes[at.episode].tolist()
        if camera.varying:
            number = at.table.frames(at.first + chunk)
        else:
            number = min(camera.chunk, int(self.index.steps[at.episode]) - chunk * camera.chunk)
        name, shape, uses = int(camera.bases[at.episode]) + chunk, (number, height, width, 3), len(frames)

        def decode_all(out: Frame) -> None:
            self._decode(at, chunk, out, reuse)

        kept = None
        found: Mapping[int, Frame] | Frame
        if reuse is not None:
            kept = reuse.frames(name, uses, shape, decode_all, plain=camera.codec == "raw")
        if kept is not None:
            assert kept.frames is not None
            found = kept.frames
        elif camera.varying:
            found = self._decode_video(at, chunk, frames, shape[1:], reuse)
        else:
            last = max(step for step, _ in frames)
            direct = last == 0 and frames[0][1].shape == shape[1:]
            found = frames[0][1][None] if direct else _scratch("frames", (last + 1, height, width, 3))
            decode_all(found)
            frames = frames[1:] if direct else frames
        for step, out in frames:
            if out.shape != shape[1:]:
                resize_into(out, found[step])
            elif out is not found[step]:
                np.copyto(out, found[step])
        if reuse is not None:
            reuse.done(name, uses, kept)

    def _decode(self, at: _Place, chunk: int, out: Frame, reuse: Reuse | None) -> None:
        """Decode the first frames of a chunk into `out` [n, H, W, 3]."""
        camera, place = self.camera, at.first + chunk
        stored = at.table.chunk(place)
        whole = camera.codec == "raw" and out.nbytes == stored.size
        buffer = _flat(out) if whole else _scratch("bytes", (stored.size,)).data
        data = self._chunk_bytes(at, chunk, stored, buffer, reuse)
        if whole:
            if data is not buffer:
                np.copyto(out.reshape(-1), np.frombuffer(data, np.uint8))
            return
        try:
            decode(camera.codec, [data], len(out) if camera.varying else camera.chunk, out)
        except CorruptError as error:
            raise CorruptError(f"{self._name(at, place)}: {error}") from error
        if camera.bgr:
            swap(out)

    def _decode_video(
        self,
        at: _Place,
        chunk: int,
        frames: Sequence[tuple[int, Frame]],
        shape: tuple[int, ...],
        reuse: Reuse | None,
    ) -> Mapping[int, Frame]:
        """Decode frames of a chunk of a video, each straight into its memory if that has their shape."""
        from oxcart.shards.video import decode_frames  # PyAV is an extra

        stored = at.table.chunk(at.first + chunk)
        data = self._chunk_bytes(at, chunk, stored, _scratch("bytes", (stored.size,)).data, reuse)
        wanted: dict[int, Frame] = {}
        for step, out in frames:
            wanted.setdefault(step, out if out.shape == shape else np.empty(shape, np.uint8))
        try:
            decode_frames(self.camera.codec, data, wanted)
        except ValueError as error:
            raise CorruptError(f"{self._name(at, stored.place)} {error}") from error
        for found in wanted.values() if self.camera.bgr else ():
            swap(found)
        return wanted

    def _chunk_bytes(
        self, at: _Place, chunk: int, stored: StoredChunk, buffer: memoryview, reuse: Reuse | None
    ) -> memoryview:
        """The bytes of a chunk: in the buffer, or in memory that several chunks share."""
        if self._episodes.cached(at.shard, stored, buffer):
            return buffer
        name = int(self.camera.bases[at.episode]) + chunk
        data = self._shared(at.shard, stored, name, reuse) if reuse is not None else None
        if data is None:
            self._fetch(at, [(stored, buffer)])
            return buffer
        return data

    def _shared(self, shard: int, stored: StoredChunk, name: int, reuse: Reuse) -> memoryview | None:
        """The bytes of a chunk from a read that it shares; None if there is none, or the bytes are wrong."""
        found = reuse.encoded(name, self._read_shared)
        if found is None:
            return None
        shared, data = found
        data = data[stored.offset - shared.start :][: stored.size]
        if self._episodes.check and xxh3_64_intdigest(data) != stored.digest:
            reuse.forget_bytes(shared)
            return None
        self._episodes.keep(shard, stored.offset, data)
        return data

    def _read_shared(self, shared: SharedRead) -> memoryview:
        data = memoryview(bytearray(shared.length))
        self.shard(shared.shard).read_into([(shared.start, data)])
        self._episodes.count(shared.length)
        return data

    def _fetch(self, at: _Place, wanted: list[tuple[StoredChunk, memoryview]]) -> None:
        """Fill each chunk's buffer with its bytes, checked."""
        if self._plain:
            wanted = [
                (chunk, out) for chunk, out in wanted if not self._episodes.cached(at.shard, chunk, out)
            ]
        for _ in range(2):
            self.shard(at.shard).read_into([(chunk.offset, out) for chunk, out in wanted])
            self._episodes.count(sum(len(out) for _, out in wanted))
            if not self._episodes.check:
                return
            wrong = []
            for chunk, out in wanted:
                if xxh3_64_intdigest(out) == chunk.digest:
                    self._episodes.keep(at.shard, chunk.offset, out)
                else:
                    wrong.append((chunk, out))
            if not wrong:
                return
            wanted = wrong
            self.shard.cache_clear()
        raise CorruptError(f"{self._name(at, wanted[0][0].place)} does not match its digest")

    def plan_reads(self, episodes: Int64, chunks: Int64, limit: int) -> None:
        """Plan to read the chunks of one block together with their neighbours, if they fit into a limit.

        Args:
            episodes: [n], the episode of each chunk.
            chunks: [n], the number of each chunk among those of its episode.
            limit: maximum bytes of all of them together.
        """
        camera, found, total = self.camera, [], 0
        of_shard = self.index.shards[episodes]
        for shard in np.unique(of_shard).tolist():
            table, mine = camera.chunks(shard), of_shard == shard
            places = table.firsts[episodes[mine] - table.start] + chunks[mine]
            names = camera.bases[episodes[mine]] + chunks[mine]
            found.append(
                (shard, names.tolist(), table.offsets[places].tolist(), table.sizes[places].tolist())
            )
            total += sum(found[-1][3])
        if total > limit:
            return
        for shard, names, offsets, sizes in found:
            for joined in spans(list(zip(offsets, sizes, strict=True)), GAP_BYTES):
                some: list[int] = []
                start = end = joined.start
                for i in joined.ranges:
                    stop = offsets[i] + sizes[i]
                    if some and stop - start > PIECE_BYTES:
                        self.reuse.expect_read(SharedRead(shard, start, end - start), some)
                        some, start = [], offsets[i]
                    some.append(names[i])
                    end = max(end, stop)
                self.reuse.expect_read(SharedRead(shard, start, end - start), some)

    def will_need(self, episodes: Int64) -> None:
        """Tell the system that these episodes, which lie close together, are needed soon."""
        shards = self.index.shards[episodes]
        for shard in np.unique(shards).tolist():
            mine = episodes[shards == shard]
            table = self.camera.chunks(shard)
            low = int(table.firsts[int(mine.min()) - table.start])
            last = int(mine.max()) - table.start + 1
            high = int(table.firsts[last]) if last < len(table.firsts) else len(table.offsets)
            start = int(table.offsets[low])
            end = int(table.offsets[high - 1] + table.sizes[high - 1])
            self.shard(shard).will_need(start, end - start)

    def _name(self, at: _Place, place: int) -> str:
        """Name of a chunk in messages."""
        stem = stem_of(self.index.shard_name(at.shard))
        return f"{stem}: {self.index.key(at.episode)}, camera {self.camera.name}, chunk {place - at.first}"


def _flat(array: npt.NDArray[np.uint8]) -> memoryview:
    return array.reshape(-1).data


def _scratch(what: str, shape: tuple[int, ...]) -> Frame:
    """Scratch memory of this thread with a given shape; the next call overwrites it."""
    size = math.prod(shape)
    found: Frame | None = getattr(_thread, what, None)
    if found is None or found.size < size:
        found = np.empty(size, np.uint8)
        setattr(_thread, what, found)
    return found[:size].reshape(shape)
