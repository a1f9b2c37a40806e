"""Frames by episode and step: where they lie, reading them into the batch, checking and decoding them.

Frames of codec `raw` go from the file into the batch, each with one system call and no copy between. Of the
other codecs, a chunk is decoded once for all samples that want it soon (`oxcart.train.data.reuse`). Every
chunk is held against its digest; one that does not match is read anew before that is an error.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from oxcart.manifests.episode import ReadRange, instructions_of, read_array, read_metadata
from oxcart.shards.codec import decode
from oxcart.shards.errors import CorruptError
from oxcart.shards.names import stem_of
from oxcart.shards.prefetch import GAP_BYTES, PIECE_BYTES, spans
from oxcart.shards.resize import resize_into
from oxcart.shards.store import Reader as OpenShard
from oxcart.train.data.cache import Cache
from oxcart.train.data.index import ChunkTable, SplitIndex
from oxcart.train.data.reuse import Budget, Reuse, SharedRead

Frame = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]

KNOWN_TEXTS = 4096
"""Episodes whose instructions are kept."""
OPEN_SHARDS = 64
"""That stay open; the others are opened again when they are wanted."""

_Piece = TypeVar("_Piece")
_thread = threading.local()


class FrameReader:
    """Reads the frames of one camera of one split; any number of threads may use it at once.

    Args:
        index: the split.
        size: height and width that frames are resized to; None keeps theirs.
        check: hold every chunk against its digest.
        budget: for what is kept of chunks that are wanted again soon.
        cache: where what is read of a remote dataset is kept on this machine.
    """

    def __init__(
        self,
        index: SplitIndex,
        *,
        size: tuple[int, int] | None,
        check: bool,
        budget: Budget,
        cache: Cache | None = None,
    ) -> None:
        self.index = index
        self._budget = budget
        self.reuse = Reuse(budget)
        """Of the iteration that goes on."""
        self._size = size
        self._check = check
        self._cache = cache
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._texts: OrderedDict[int, list[list[tuple[int, str]]]] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes_read = 0
        """Of frames, from the store: those of the cache are not counted."""
        self._plain = index.codec == "raw" and index.chunk == 1 and size in (None, index.uniform)

    def read(
        self, episodes: Int64, steps: Int64, frames: Frame, rows: Int64, reuse: Reuse | None = None
    ) -> None:
        """Write frames of some samples to their rows.

        Args:
            episodes: [n], of each sample.
            steps: [n, k], of its frames.
            frames: uint8 [B, k, H, W, 3], contiguous.
            rows: [n], of `frames`, one for each sample.
            reuse: where these frames were expected; None for those that nobody spoke of before.

        Raises:
            CorruptError: a chunk does not match its digest or cannot be decoded.
            StoreError: the shard cannot be read.
        """
        index = self.index
        plain = self._plain and (reuse is None or not reuse.expects)
        size, memory = frames[0, 0].nbytes, _flat(frames)
        for row, episode, shard, mine in zip(
            rows.tolist(), episodes.tolist(), index.shards[episodes].tolist(), steps.tolist(), strict=True
        ):
            table = index.chunks(shard)
            first = int(table.firsts[episode - table.start])
            if plain:
                begin = row * len(mine) * size
                buffers = [memory[at : at + size] for at in range(begin, begin + len(mine) * size, size)]
                self._read_raw(episode, shard, table, [first + step for step in mine], buffers)
                continue
            wanted: dict[int, list[tuple[int, Frame]]] = {}
            for step, out in zip(mine, frames[row], strict=True):
                wanted.setdefault(step // index.chunk, []).append((step % index.chunk, out))
            for chunk, some in wanted.items():
                self._read_chunk(episode, shard, table, first, chunk, some, reuse)

    def _read_raw(
        self,
        episode: int,
        shard: int,
        table: ChunkTable,
        places: Sequence[int],
        buffers: Sequence[memoryview],
    ) -> None:
        if self.index.dataset.store.remote:
            self._fetch(episode, shard, table, places, buffers)
            return
        # One by one: each is checked while it is in the processor's cache. A few microseconds matter here.
        file, check = self.shard(shard), self._check
        self._count(sum(map(len, buffers)))
        for place, buffer in zip(places, buffers, strict=True):
            file.read_into(((int(table.offsets[place]), buffer),))
            if check and xxh3_64_intdigest(buffer) != int(table.digests[place]):
                self._fetch(episode, shard, table, (place,), (buffer,))

    def begin(self) -> Reuse:
        """Begin an iteration: nothing is expected, and what the last one kept is not."""
        self.reuse.close()
        self.reuse = Reuse(self._budget)
        return self.reuse

    def read_as_they_are(self, episode: int, steps: Sequence[int], outs: Sequence[Frame]) -> None:
        """Read frames in the size in which they are stored."""
        index = self.index
        shard = int(index.shards[episode])
        table = index.chunks(shard)
        first = int(table.firsts[episode - table.start])
        for step, out in zip(steps, outs, strict=True):
            frames = [(step % index.chunk, out)]
            self._read_chunk(episode, shard, table, first, step // index.chunk, frames, None)

    def _read_chunk(
        self,
        episode: int,
        shard: int,
        table: ChunkTable,
        first: int,
        chunk: int,
        frames: Sequence[tuple[int, Frame]],
        reuse: Reuse | None,
    ) -> None:
        index = self.index
        height, width = index.sizes[episode].tolist()
        number = min(index.chunk, int(index.steps[episode]) - chunk * index.chunk)
        name = int(index.bases[episode]) + chunk
        place = first + chunk

        def decode_all(out: Frame) -> None:
            self._decode(episode, shard, table, place, name, out, reuse)

        shape = (number, height, width, 3)
        uses = len(frames)
        plain = index.codec == "raw"
        kept = reuse.frames(name, uses, shape, decode_all, plain=plain) if reuse is not None else None
        if kept is not None:
            assert kept.frames is not None
            found = kept.frames
        else:
            last = max(step for step, _ in frames)
            direct = last == 0 and frames[0][1].shape == shape[1:]
            found = frames[0][1][None] if direct else _scratch("frames", (last + 1, height, width, 3))
            decode_all(found)
            frames = frames[1:] if direct else frames
        for step, out in frames:
            if out.shape == found.shape[1:]:
                np.copyto(out, found[step])
            else:
                resize_into(out, found[step])
        if reuse is not None:
            reuse.done(name, uses, kept)

    def _decode(
        self,
        episode: int,
        shard: int,
        table: ChunkTable,
        place: int,
        name: int,
        out: Frame,
        reuse: Reuse | None,
    ) -> None:
        """Decode the first frames of a chunk into `out` [n, H, W, 3]."""
        index, size = self.index, int(table.sizes[place])
        whole = index.codec == "raw" and out.nbytes == size
        buffer = _flat(out) if whole else _scratch("bytes", (size,)).data
        offset, digest = int(table.offsets[place]), int(table.digests[place])
        found = None
        if not self._cached(shard, offset, buffer, digest):
            found = reuse.encoded(name, self._read_span) if reuse is not None else None
            if found is None:
                self._fetch(episode, shard, table, [place], [buffer])
        if found is not None and reuse is not None:
            span, data = found
            data = data[offset - span.start :][:size]
            if not self._check or xxh3_64_intdigest(data) == digest:
                self._keep(shard, offset, data)
                if whole:
                    np.copyto(out.reshape(-1), np.frombuffer(data, np.uint8))
                else:
                    buffer = data
            else:
                reuse.forget_bytes(span)
                self._fetch(episode, shard, table, [place], [buffer])
        if whole:
            return
        try:
            decode(index.codec, [buffer], index.chunk, out)
        except CorruptError as error:
            raise CorruptError(f"{self._place(episode, shard, table, place)}: {error}") from error

    def _fetch(
        self,
        episode: int,
        shard: int,
        table: ChunkTable,
        places: Sequence[int],
        buffers: Sequence[memoryview],
    ) -> None:
        """Fill buffers with the bytes of chunks, checked."""
        if self._plain and self._cache is not None:
            missing = [
                i
                for i, (place, buffer) in enumerate(zip(places, buffers, strict=True))
                if not self._cached(shard, int(table.offsets[place]), buffer, int(table.digests[place]))
            ]
            places, buffers = [places[i] for i in missing], [buffers[i] for i in missing]
        for attempt in (1, 2):
            offsets = [int(table.offsets[place]) for place in places]
            ranges = list(zip(offsets, buffers, strict=True))
            self.shard(shard).read_into(ranges)
            self._count(sum(map(len, buffers)))
            if not self._check:
                return
            wrong = []
            for place, one in zip(places, ranges, strict=True):
                if xxh3_64_intdigest(one[1]) == int(table.digests[place]):
                    self._keep(shard, *one)
                else:
                    wrong.append((place, one[1]))
            if not wrong:
                return
            places, buffers = [place for place, _ in wrong], [buffer for _, buffer in wrong]
            if attempt == 1:
                self._reopen(shard)
        raise CorruptError(f"{self._place(episode, shard, table, places[0])} does not match its digest")

    def _count(self, size: int) -> None:
        with self._lock:
            self.bytes_read += size

    def _cached(self, shard: int, offset: int, buffer: memoryview, digest: int) -> bool:
        """Fill the buffer from the cache, if the right bytes are there."""
        if self._cache is None:
            return False
        return self._cache.read(self._digest(shard), offset, buffer, digest)

    def _keep(self, shard: int, offset: int, data: memoryview) -> None:
        """Put bytes that have been checked into the cache, if there is one."""
        if self._cache is not None and self._check:
            self._cache.write(self._digest(shard), offset, data)

    def _digest(self, shard: int) -> str:
        return str(self.index.dataset.manifest.shards[shard]["blake3"])

    def _read_span(self, span: SharedRead) -> memoryview:
        data = memoryview(bytearray(span.length))
        self.shard(span.shard).read_into([(span.start, data)])
        self._count(span.length)
        return data

    def span_bytes(self, episodes: Int64, chunks: Int64) -> int:
        """Bytes of some chunks, given their episodes and their numbers among the chunks of those."""
        index = self.index
        of_shard = index.shards[episodes]
        total = 0
        for shard in np.unique(of_shard).tolist():
            table = index.chunks(shard)
            mine = np.flatnonzero(of_shard == shard)
            total += int(table.sizes[table.firsts[episodes[mine] - table.start] + chunks[mine]].sum())
        return total

    def plan_spans(self, episodes: Int64, chunks: Int64) -> None:
        """Have the chunks of one window read in spans, as many bytes at a time as a request should be.

        Args:
            episodes: of each chunk.
            chunks: number of each among the chunks of its episode.
        """
        index = self.index
        of_shard = index.shards[episodes]
        for shard in np.unique(of_shard).tolist():
            table = index.chunks(shard)
            mine = np.flatnonzero(of_shard == shard)
            places = table.firsts[episodes[mine] - table.start] + chunks[mine]
            names = index.bases[episodes[mine]] + chunks[mine]
            ranges = list(zip(table.offsets[places].tolist(), table.sizes[places].tolist(), strict=True))
            for joined in spans(ranges, GAP_BYTES):
                part: list[int] = []
                start = joined.start
                end = start
                for at in joined.ranges:
                    offset, size = ranges[at]
                    if part and offset + size - start > PIECE_BYTES:
                        self.reuse.expect_span(SharedRead(shard, start, end - start, len(part)), part)
                        part, start = [], offset
                    part.append(int(names[at]))
                    end = max(end, offset + size)
                self.reuse.expect_span(SharedRead(shard, start, end - start, len(part)), part)

    def array(self, name: str, episode: int) -> npt.NDArray[np.float32]:
        """Action or state of an episode, [T, A] float32, checked."""
        place = self.index.arrays[name]
        offset, digest = int(place.offsets[episode]), int(place.digests[episode])
        shape = int(self.index.steps[episode]), place.size
        return self._read_piece(episode, lambda read: read_array(read, name, offset, shape, digest))

    def instructions(self, episode: int, step: int) -> list[str]:
        """What may be said at a step: of each field with instructions the text in force, each text once."""
        with self._lock:
            fields = self._texts.get(episode)
        if fields is None:
            offsets, digests = self.index.metadata
            offset, digest = int(offsets[episode]), int(digests[episode])
            told = self._read_piece(
                episode, lambda read: instructions_of(read_metadata(read, offset, digest))
            )
            fields = [runs for _, runs in sorted(told.items())]
            with self._lock:
                self._texts[episode] = fields
                if len(self._texts) > KNOWN_TEXTS:
                    self._texts.popitem(last=False)
        now = (max((run for run in runs if run[0] <= step), default=(0, "")) for runs in fields)
        return list(dict.fromkeys(text for _, text in now if text))

    def _read_piece(self, episode: int, get: Callable[[ReadRange], _Piece]) -> _Piece:
        """What `get` reads of an episode: from the cache, else from the store, twice if it is damaged."""
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
            self._reopen(shard)
        try:
            return self._read_stored(shard, get)
        except CorruptError as error:
            where = f"{self.index.shard_name(shard)}: {self.index.key(episode)}"
            raise CorruptError(f"{where}: {error}") from error

    def _read_stored(self, shard: int, get: Callable[[ReadRange], _Piece]) -> _Piece:
        """What `get` reads of a shard in the store; its bytes are kept if nothing is wrong with them."""
        pieces: list[tuple[int, memoryview]] = []

        def read(offset: int, size: int) -> memoryview:
            pieces.append((offset, memoryview(bytearray(size))))
            self.shard(shard).read_into(pieces[-1:])
            return pieces[-1][1]

        found = get(read)
        for offset, data in pieces:
            self._keep(shard, offset, data)
        return found

    def shard(self, shard: int) -> OpenShard:
        """A shard, to be read; a few stay open."""
        with self._lock:
            found = self._open.get(shard)
            if found is None:
                found = self.index.dataset.store.open(self.index.shard_name(shard))
                self._open[shard] = found
                if len(self._open) > OPEN_SHARDS:
                    self._open.popitem(last=False)
            else:
                self._open.move_to_end(shard)
            return found

    def _reopen(self, shard: int) -> None:
        with self._lock:
            self._open.pop(shard, None)

    def will_need(self, episodes: Int64) -> None:
        """Tell the system that these episodes, some of a row, are wanted soon."""
        shards = self.index.shards[episodes]
        for shard in np.unique(shards).tolist():
            mine = episodes[shards == shard]
            table = self.index.chunks(shard)
            low = int(table.firsts[int(mine.min()) - table.start])
            last = int(mine.max()) - table.start + 1
            high = int(table.firsts[last]) if last < len(table.firsts) else len(table.offsets)
            start = int(table.offsets[low])
            end = int(table.offsets[high - 1] + table.sizes[high - 1])
            self.shard(shard).will_need(start, end - start)

    def _place(self, episode: int, shard: int, table: ChunkTable, place: int) -> str:
        chunk = place - int(table.firsts[episode - table.start])
        stem = stem_of(self.index.shard_name(shard))
        return f"{stem}: {self.index.key(episode)}, camera {self.index.camera}, chunk {chunk}"


def _flat(array: npt.NDArray[np.uint8]) -> memoryview:
    return array.reshape(-1).data


def _scratch(what: str, shape: tuple[int, ...]) -> Frame:
    """Memory of this thread, at least of that shape, overwritten by the next call."""
    size = math.prod(shape)
    found: Frame | None = getattr(_thread, what, None)
    if found is None or found.size < size:
        found = np.empty(size, np.uint8)
        setattr(_thread, what, found)
    return found[:size].reshape(shape)
