"""Windows of two cameras, of states and of actions: part `windows` of bench/read.py.

A sample is what policies ask for: two frames of each of two cameras of 256x256, the state, and 16 actions,
padded at the ends of episodes; every step of every episode is a sample. The second camera of the simulated
episodes is the one on the wrist, resized to 256x256 when the dataset is compiled.

    pairs        the loader on `Pairs` of the first camera alone, the same two frames of it
    once, each   decoding from memory on as many threads: every chunk once, and every frame that a sample has
"""

from __future__ import annotations

import itertools
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import read_lerobot
from read_lerobot import ACTIONS, BACK

import oxcart
from oxcart.compile.images import Resize
from oxcart.compile.pipeline import CompileConfig, execute
from oxcart.compile.pipeline import prepare as plan
from oxcart.compile.plan import Settings
from oxcart.compile.sources.base import SourceConfig
from oxcart.shards.codec import Encoding
from oxcart.train.data import Loader, Pairs, Window
from oxcart.train.data.workers import Workers

CAMERAS = ("image_0", "wrist")
SIZE = 256
BATCH = 64
ARRAYS_BATCH = 1024
STEPS = (-BACK, 0)
WINDOW = Window(
    frames=dict.fromkeys(CAMERAS, STEPS), state=0, action=range(ACTIONS), pad="repeat", per_episode="all"
)
PAIRS = Pairs(frames=BACK, per_episode="all")
ARRAYS = Window(frames=None, state=0, action=range(ACTIONS), pad="repeat", per_episode="all")
DECODED = 20
"""Episodes whose chunks are decoded, each into the same memory of its thread."""


def compile_both(source: Path, out: Path, codec: str) -> Path:
    """A dataset of both cameras in one size, in the page cache."""
    config = SourceConfig(url=str(source), cameras=CAMERAS)
    settings = Settings(
        encoding=Encoding(codec=codec), resize=Resize(size=(SIZE, SIZE)), shard_size=128 << 20
    )
    execute(plan(CompileConfig(source=config, out=str(out), settings=settings)))
    for file in out.rglob("*.tar"):
        with open(file, "rb") as opened:
            while opened.read(1 << 24):
                pass
    return out


def compare(
    datasets: dict[str, Path], lerobot: str | None, scratch: Path, seconds: float, rounds: int
) -> None:
    """Print a line for each codec, interleaved rounds of the loader and its limits, and the best of each."""
    found = None
    if lerobot:
        folder = read_lerobot.prepare(datasets["raw"], scratch, lerobot)
        found = read_lerobot.measure(folder, lerobot, seconds)
        stored, decoder, workers = found["way"]
        how = f"{stored}, {decoder}, {workers} workers"
        print(f"LeRobotDataset: {found['samples_per_s']:,.0f} samples/s ({how})", flush=True)
        for way, tried in found["tried"].items():
            print(f"    {way}: {tried:,.1f}")
    for codec, path in datasets.items():
        ours, pairs, decoded = [], [], []
        for _ in range(rounds):
            ours.append(rate(Loader(str(path), sample=WINDOW, batch_size=BATCH), seconds))
            if codec == "raw":
                pairs.append(rate(Loader(str(path), sample=PAIRS, batch_size=BATCH), seconds))
            else:
                decoded.append(decode_rate(path, seconds))
        best, each = max(ours), len(STEPS) * len(CAMERAS)
        line = f"{codec}: {best:,.0f} windows/s, {best * each:,.0f} frames/s"
        if pairs:
            line += f"; pairs {2 * max(pairs):,.0f} frames/s: {best * each / 2 / max(pairs):.0%} (bar 90%)"
        else:
            line += (
                f"; decoding each {max(decoded):,.0f} frames/s: {best * each / max(decoded):.0%} (bar 85%), "
                f"once: {best * len(CAMERAS) / max(decoded):.0%}"
            )
        if found:
            bar = 15 if codec == "raw" else 3
            line += f"; {best / found['samples_per_s']:.1f} x LeRobotDataset (bar {bar})"
        print(line, flush=True)


def arrays(path: Path, seconds: float, rounds: int) -> None:
    """Print how fast states and actions are read where no frames are, and the memory that it takes."""
    process = psutil.Process()
    before = process.memory_info().rss
    found = max(
        rate(Loader(str(path), sample=ARRAYS, batch_size=ARRAYS_BATCH), seconds) for _ in range(rounds)
    )
    grown = (process.memory_info().rss - before) / 1e6
    print(
        f"arrays alone: {found:,.0f} samples/s (bar 200,000) in batches of {ARRAYS_BATCH}; "
        f"the process grew by {grown:,.0f} MB",
        flush=True,
    )


def rate(loader: Loader, seconds: float) -> float:
    """Samples per second from the ninth batch on."""
    batches = iter(loader)
    for _ in itertools.islice(batches, 8):
        pass
    began, number, passed = time.perf_counter(), 0, 0.0
    while passed < seconds:
        number += len(next(batches))
        passed = time.perf_counter() - began
    return number / passed


def decode_rate(path: Path, seconds: float) -> float:
    """Frames per second of decoding every chunk once from memory, on as many threads as the loader has."""
    chunks = []
    for episode in itertools.islice(oxcart.open(str(path)), DECODED):
        for camera in CAMERAS:
            track = (stored := episode.frames(camera)).track
            for i, piece in enumerate(stored.pieces(0, len(track.digests))):
                chunks.append((track, piece, min(track.chunk, len(stored) - i * track.chunk)))
    threads = Loader(str(path), sample=PAIRS, batch_size=BATCH).threads
    workers = Workers(threads)
    frames = sum(count for _, _, count in chunks)

    def work(thread: int) -> None:
        out = np.empty((max(count for _, _, count in chunks), SIZE, SIZE, 3), np.uint8)
        for track, piece, count in chunks[thread::threads]:
            track.decode([piece], out[:count])

    began, passes = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        workers.start([partial(work, i) for i in range(threads)]).wait()
        passes += 1
    workers.close()
    return passes * frames / (time.perf_counter() - began)
