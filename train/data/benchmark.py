"""Where the time of reading goes on this machine: the loader, and each thing that it does, alone.

Every stage runs on as many threads as the loader, on samples of the same kind, for the same time:

    fetch    only the bytes: the raw link, or the page cache
    check    only the digests, of bytes in memory
    decode   only the decoding, of chunks in memory
    copy     only memory to memory, of batches of that size

The slowest of them is what limits the loader. What another codec would do follows from its size and decoding
speed on frames of this very dataset, by arithmetic that is shown.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from oxcart.shards.codec import CODECS, Encoded, Encoding, decode, encode
from oxcart.train.data.loader import Loader
from oxcart.train.data.reader import FrameReader
from oxcart.train.data.sampling import Pairs
from oxcart.train.data.workers import Workers

Frames = npt.NDArray[np.uint8]

TRIED_EPISODES = 4
"""Whose frames are encoded to find out what each codec would do."""
COPIERS = 4
"""Threads that copy batches, at most: each has two in memory, and so many fill the memory bus."""


@dataclass(frozen=True, kw_only=True)
class StageRate:
    """One thing alone, on all threads."""

    name: str
    samples_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a codec would do here."""

    codec: str
    frame_bytes: float
    """Of one frame, as stored."""
    read_bytes: float
    """Read for one sample."""
    decode_frames_per_s: float
    """Of all threads."""
    link_samples_per_s: float
    decode_samples_per_s: float
    samples_per_s: float
    """The smaller of the two, and no more than copying allows."""


@dataclass(frozen=True, kw_only=True)
class ReadReport:
    """What was measured."""

    codec: str
    threads: int
    remote: bool
    batch_size: int
    sample_bytes: int
    """Of frames, uncompressed, in one sample."""
    loader_samples_per_s: float
    loader_bytes_per_s: float
    first_batch_s: float
    stages: list[StageRate]
    limit: str
    """The slowest stage."""
    forecasts: list[Forecast]
    best: str
    """The codec whose forecast is highest."""
    latency_s: float
    """Of one small request."""
    prefetch: int
    """Batches to read ahead, by latency times rate."""

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def measure(loader: Loader, seconds: float) -> ReadReport:
    """Measure for about `seconds` seconds, half of them the loader itself.

    Args:
        loader: of one dataset, not yet begun.
        seconds: in all.
    """
    stream = loader.streams[0]
    index, reader = stream.index, stream.reader
    began = time.perf_counter()
    batches = iter(loader)
    first = next(batches)
    first_s = time.perf_counter() - began
    for _ in itertools.islice(batches, 4):  # what was read ahead
        pass
    began, number = time.perf_counter(), 0
    while time.perf_counter() - began < seconds / 2:
        number += len(next(batches))
    loader_rate = number / (time.perf_counter() - began)
    batches.close()  # type: ignore[attr-defined]

    threads = loader.threads
    workers = Workers(threads)
    drawn = loader.locate_random(256)
    share = seconds / 10
    sample_bytes = first.frames[0].numel()
    chunks = [
        _SampleChunks(reader, e, t, stream.offset, isinstance(loader.config.sample, Pairs)) for e, t in drawn
    ]
    chunk_bytes = sum(len(data) for one in chunks for data in one.data) / len(chunks)
    stages = [
        _stage("fetch", workers, threads, [one.fetch for one in chunks], share, chunk_bytes),
        _stage("check", workers, threads, [one.check for one in chunks], share, chunk_bytes),
    ]
    if index.codec != "raw":
        stages.append(_stage("decode", workers, threads, [one.decode for one in chunks], share, sample_bytes))
    copies = [_Copy(first.frames.numpy()) for _ in range(min(threads, COPIERS))]
    copied = _stage("copy", workers, len(copies), [one.copy for one in copies], share, first.frames.numel())
    per_batch = len(first)
    stages.append(
        StageRate(name="copy", samples_per_s=copied.samples_per_s * per_batch, bytes_per_s=copied.bytes_per_s)
    )
    latency = min(_timed(chunks[i].fetch) for i in range(5))
    forecasts = _forecasts(loader, workers, threads, stages, sample_bytes, share)
    workers.close()
    limit = min(stages, key=lambda stage: stage.samples_per_s)
    best = max(forecasts, key=lambda one: one.samples_per_s)
    return ReadReport(
        codec=index.codec,
        threads=threads,
        remote=index.dataset.store.remote,
        batch_size=loader.config.batch_size,
        sample_bytes=sample_bytes,
        loader_samples_per_s=loader_rate,
        loader_bytes_per_s=loader_rate * sample_bytes,
        first_batch_s=first_s,
        stages=stages,
        limit=limit.name,
        forecasts=forecasts,
        best=best.codec,
        latency_s=latency,
        prefetch=max(2, math.ceil(latency * loader_rate / loader.config.batch_size) + 1),
    )


class _SampleChunks:
    """The chunks of one sample, in memory and where they lie."""

    def __init__(self, reader: FrameReader, episode: int, t: int, offset: int, pair: bool) -> None:
        index = reader.index
        table = index.chunks(int(index.shards[episode]))
        first = int(table.firsts[episode - table.start])
        steps = (t, t + offset) if pair else (t,)
        places = sorted({first + step // index.chunk for step in steps})
        self._shard = reader.shard(int(index.shards[episode]))
        self._offsets = table.offsets[places].tolist()
        self.data = [bytearray(size) for size in table.sizes[places].tolist()]
        self._codec, self._chunk = index.codec, index.chunk
        height, width = index.sizes[episode].tolist()
        numbers = [min(index.chunk, int(index.steps[episode]) - (p - first) * index.chunk) for p in places]
        self._frames = [np.empty((number, height, width, 3), np.uint8) for number in numbers]
        self.fetch()

    def fetch(self) -> None:
        self._shard.read_into([(o, memoryview(d)) for o, d in zip(self._offsets, self.data, strict=True)])

    def check(self) -> None:
        for data in self.data:
            xxh3_64_intdigest(data)

    def decode(self) -> None:
        for data, frames in zip(self.data, self._frames, strict=True):
            decode(self._codec, [memoryview(data)], self._chunk, frames)


class _Copy:
    """Copying one batch."""

    def __init__(self, batch: Frames) -> None:
        self._source, self._target = batch.copy(), np.empty_like(batch)

    def copy(self) -> None:
        np.copyto(self._target, self._source)


def _timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _stage(
    name: str,
    workers: Workers,
    threads: int,
    calls: Sequence[Callable[[], None]],
    seconds: float,
    bytes_each: float,
) -> StageRate:
    """Make the calls again and again on all threads."""
    done = [0] * threads
    until = time.perf_counter() + seconds

    def work(thread: int) -> None:
        mine = calls[thread::threads] or calls
        for call in itertools.cycle(mine):
            call()
            done[thread] += 1
            if time.perf_counter() >= until:
                return

    began = time.perf_counter()
    workers.start([lambda thread=i: work(thread) for i in range(threads)]).wait()  # type: ignore[misc]
    rate = sum(done) / (time.perf_counter() - began)
    return StageRate(name=name, samples_per_s=rate, bytes_per_s=rate * bytes_each)


def _forecasts(
    loader: Loader,
    workers: Workers,
    threads: int,
    stages: Sequence[StageRate],
    sample_bytes: int,
    seconds: float,
) -> list[Forecast]:
    """What each codec would do, from its size and speed on some episodes of this dataset."""
    stream = loader.streams[0]
    rates = {stage.name: stage for stage in stages}
    link = rates["fetch"].bytes_per_s
    episodes = [_episode(stream.reader, e) for e, _ in loader.locate_random(TRIED_EPISODES)]
    frames_each = 2 if isinstance(loader.config.sample, Pairs) else 1
    found = []
    for codec in CODECS:
        encoding = Encoding(codec=codec)
        described = encoding.describe()["chunk"]
        assert isinstance(described, int)
        encoded = [encode(frames, encoding) for frames in episodes]
        frame_bytes = sum(len(c) for one in encoded for c in one.chunks) / sum(map(len, episodes))
        read = frame_bytes * described * frames_each
        rate = math.inf
        if codec != "raw":
            calls = _decodings(codec, described, episodes, encoded)
            rate = _stage(codec, workers, threads, calls, seconds, 1).samples_per_s
        by_link, by_decode = link / read, rate / frames_each
        found.append(
            Forecast(
                codec=codec,
                frame_bytes=frame_bytes,
                read_bytes=read,
                decode_frames_per_s=rate * described,
                link_samples_per_s=by_link,
                decode_samples_per_s=by_decode,
                samples_per_s=min(by_link, by_decode, rates["copy"].samples_per_s),
            )
        )
    return found


def _decodings(
    codec: str, chunk: int, episodes: Sequence[Frames], encoded: Sequence[Encoded]
) -> list[Callable[[], None]]:
    """A call for every chunk that decodes it into memory of its own."""
    calls: list[Callable[[], None]] = []
    for frames, one in zip(episodes, encoded, strict=True):
        for j, data in enumerate(one.chunks):
            out = np.empty_like(frames[j * chunk : (j + 1) * chunk])
            calls.append(partial(decode, codec, [data], chunk, out))
    return calls


def _episode(reader: FrameReader, episode: int) -> Frames:
    index = reader.index
    height, width = index.sizes[episode].tolist()
    frames = np.empty((int(index.steps[episode]), height, width, 3), np.uint8)
    for chunk in range(-(-len(frames) // index.chunk)):
        steps = range(chunk * index.chunk, min(len(frames), (chunk + 1) * index.chunk))
        reader.read_as_they_are(episode, list(steps), [frames[step] for step in steps])
    return frames
