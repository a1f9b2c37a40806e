"""Benchmark of reading on this machine: the loader, and each of its stages by itself.

Every stage runs on as many threads as the loader, on samples of the same kind, for the same time:

    fetch    only reads the bytes: the raw link, or the page cache
    check    only computes the digests, of bytes in memory
    decode   only decodes chunks in memory
    copy     only copies batches of the same size from memory to memory

The slowest stage limits the loader. The forecast for another codec follows from its size and decoding speed
on frames of this dataset, by arithmetic that is shown.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from xxhash import xxh3_64_intdigest

from oxcart.shards.codec import IMAGE_CODECS, Encoding, decode, encode
from oxcart.train.data.loader import Loader
from oxcart.train.data.reader import FrameReader
from oxcart.train.data.workers import Workers

TRIED_EPISODES = 4
"""Episodes encoded with each codec, to measure it."""
COPIERS = 4
"""Maximum number of threads that copy batches: each holds two batches, and four saturate the memory bus."""


@dataclass(frozen=True, kw_only=True)
class StageRate:
    """Speed of one stage by itself, on all threads."""

    name: str
    samples_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Forecast of the speed of a codec on this machine."""

    codec: str
    frame_bytes: float
    """Stored bytes per frame."""
    read_bytes: float
    """Bytes read per sample."""
    decode_frames_per_s: float
    """Frames decoded per second, by all threads together."""
    link_samples_per_s: float
    decode_samples_per_s: float
    samples_per_s: float
    """Samples per second: the smaller of the two rates, limited by the rate of copying."""


@dataclass(frozen=True, kw_only=True)
class ReadReport:
    """All measurements of the benchmark."""

    codec: str
    threads: int
    remote: bool
    batch_size: int
    sample_bytes: int
    """Uncompressed bytes of the frames of one sample."""
    loader_samples_per_s: float
    loader_bytes_per_s: float
    first_batch_s: float
    stages: list[StageRate]
    limit: str
    """Name of the slowest stage."""
    forecasts: list[Forecast]
    best: str
    """Name of the codec with the highest forecast."""
    latency_s: float
    """Duration of one small request, in seconds."""
    prefetch: int
    """Recommended number of batches to prefetch: latency times rate."""


def measure(loader: Loader, seconds: float) -> ReadReport:
    """Measure for about `seconds` seconds, half of them the loader itself.

    Args:
        loader: loader of pairs or single frames of one dataset, not yet iterated.
        seconds: duration of all measurements together.
    """
    stream, threads, batch_size = loader.streams[0], loader.threads, loader.config.batch_size
    began = time.perf_counter()
    batches = iter(loader)
    first = next(batches)
    first_s = time.perf_counter() - began
    for _ in itertools.islice(batches, loader.config.prefetch):
        pass
    began, number = time.perf_counter(), 0
    while time.perf_counter() - began < seconds / 2:
        number += len(next(batches))
    loader_rate = number / (time.perf_counter() - began)
    batches.close()  # type: ignore[attr-defined]

    workers = Workers(threads)
    per_s = partial(calls_per_s, workers, seconds / 10)
    sample_bytes = first.frames[0].numel()
    view = stream.views[0]
    relative = view.steps.reshape(-1).tolist()
    chunks = [
        SampleChunks(view.reader, episode, [t + step for step in relative])
        for episode, t in loader.locate_random(256)
    ]
    chunk_bytes = sum(len(data) for one in chunks for data in one.data) / len(chunks)
    batch = first.frames.numpy()
    copies = [partial(np.copyto, np.empty_like(batch), batch.copy()) for _ in range(min(threads, COPIERS))]
    measured = [
        ("fetch", per_s(threads, [one.fetch for one in chunks]), chunk_bytes),
        ("check", per_s(threads, [one.check for one in chunks]), chunk_bytes),
        ("copy", per_s(len(copies), copies) * len(first), sample_bytes),
    ]
    if view.camera.codec != "raw":
        measured.insert(2, ("decode", per_s(threads, [one.decode for one in chunks]), sample_bytes))
    stages = [
        StageRate(name=name, samples_per_s=rate, bytes_per_s=rate * size) for name, rate, size in measured
    ]
    latency = min(_timed(one.fetch) for one in chunks[:5])
    forecasts = _forecasts(loader, partial(per_s, threads), stages, len(relative))
    workers.close()
    return ReadReport(
        codec=view.camera.codec,
        threads=threads,
        remote=stream.index.dataset.store.remote,
        batch_size=batch_size,
        sample_bytes=sample_bytes,
        loader_samples_per_s=loader_rate,
        loader_bytes_per_s=loader_rate * sample_bytes,
        first_batch_s=first_s,
        stages=stages,
        limit=min(stages, key=lambda stage: stage.samples_per_s).name,
        forecasts=forecasts,
        best=max(forecasts, key=lambda one: one.samples_per_s).codec,
        latency_s=latency,
        prefetch=max(2, math.ceil(latency * loader_rate / batch_size) + 1),
    )


class SampleChunks:
    """The chunks of one sample, in memory and in the store.

    Args:
        reader: reads the frames.
        episode: the episode of the sample.
        steps: the steps of its frames.
    """

    def __init__(self, reader: FrameReader, episode: int, steps: Sequence[int]) -> None:
        self._codec, camera = reader.camera.codec, reader.camera
        shard = int(reader.index.shards[episode])
        table = camera.chunks(shard)
        first = int(table.firsts[episode - table.start])
        lengths: dict[int, int] = {}  # frames to decode of each chunk: up to the last one that is wanted
        for step in steps:
            number, inside = camera.locate(table, first, step)
            lengths[number] = max(lengths.get(number, 0), inside + 1)
        stored = [table.chunk(first + number) for number in lengths]
        self.data = [bytearray(chunk.size) for chunk in stored]
        ranges = [(chunk.offset, memoryview(data)) for chunk, data in zip(stored, self.data, strict=True)]
        self.fetch = partial(reader.shard(shard).read_into, ranges)
        size = camera.sizes[episode].tolist()
        self._frames = [np.empty((count, *size, 3), np.uint8) for count in lengths.values()]
        self.fetch()

    def check(self) -> None:
        """Compute the digests of what is in memory."""
        for data in self.data:
            xxh3_64_intdigest(data)

    def decode(self) -> None:
        """Decode what is in memory."""
        for data, frames in zip(self.data, self._frames, strict=True):
            decode(self._codec, [memoryview(data)], len(frames), frames)


def _timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def calls_per_s(workers: Workers, seconds: float, threads: int, calls: Sequence[Callable[[], None]]) -> float:
    """Calls per second of all threads, which repeat the calls for some seconds."""
    done = [0] * threads
    until = time.perf_counter() + seconds

    def work(thread: int) -> None:
        for call in itertools.cycle(calls[thread::threads] or calls):
            call()
            done[thread] += 1
            if time.perf_counter() >= until:
                return

    began = time.perf_counter()
    workers.start([partial(work, i) for i in range(threads)]).wait()
    return sum(done) / (time.perf_counter() - began)


def _forecasts(
    loader: Loader,
    per_s: Callable[[Sequence[Callable[[], None]]], float],
    stages: Sequence[StageRate],
    frames_each: int,
) -> list[Forecast]:
    """Forecast for each codec, from its size and speed on some episodes of this dataset."""
    rates = {stage.name: stage for stage in stages}
    reader = loader.streams[0].views[0].reader
    episodes = [reader.read_episode(episode) for episode, _ in loader.locate_random(TRIED_EPISODES)]
    found = []
    for codec in IMAGE_CODECS:
        encoding = Encoding(codec=codec)
        length = encoding.describe()["chunk"]
        assert isinstance(length, int)
        chunks = [
            (data, np.empty_like(frames[i * length : (i + 1) * length]))
            for frames in episodes
            for i, data in enumerate(encode(frames, encoding).chunks)
        ]
        frame_bytes = sum(len(data) for data, _ in chunks) / sum(map(len, episodes))
        read = frame_bytes * length * frames_each
        rate = math.inf
        if codec != "raw":
            rate = per_s([partial(decode, codec, [data], length, out) for data, out in chunks])
        by_link, by_decode = rates["fetch"].bytes_per_s / read, rate / frames_each
        found.append(
            Forecast(
                codec=codec,
                frame_bytes=frame_bytes,
                read_bytes=read,
                decode_frames_per_s=rate * length,
                link_samples_per_s=by_link,
                decode_samples_per_s=by_decode,
                samples_per_s=min(by_link, by_decode, rates["copy"].samples_per_s),
            )
        )
    return found
