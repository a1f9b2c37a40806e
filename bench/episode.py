"""What looking at frames one by one costs, in bare reads of the same bytes. Ratios of one run.

    python bench/episode.py                     # simulated kitchens, 256x256, codec raw
    python bench/episode.py DATASET             # a directory, whose primary camera is of codec raw

The page cache is warm. A bare read is `os.preadv` into one buffer that is used again and again; whatever
oxcart reads is a new array each time, checked against its digest. Seconds are CPU time of one thread, the
least of several rounds in which the ways take turns, so that whatever else the machine does counts little.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

import oxcart
from oxcart.compile.pipeline import CompileConfig, execute, prepare
from oxcart.compile.plan import Settings
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources.base import SourceConfig

Way = Callable[[int], object]
"""Reads something, given the number of the call."""

ROUNDS = 15
CALLS = 300
"""Calls of each way in a round."""
RUN = 8
"""Frames of a range."""


def main() -> None:
    """Measure, and print microseconds and ratios."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("dataset", nargs="?", type=Path)
    folder = options.parse_args().dataset or simulated(Path("scratch/bench/episode"))
    dataset = oxcart.open(str(folder))
    episode = max(dataset, key=len)
    frames = episode.frames()
    track = frames.track
    if track.codec != "raw":
        raise SystemExit(f"{folder}: camera {frames.camera} is of codec {track.codec}, expected raw")
    descriptor = os.open(folder / track.shard, os.O_RDONLY)
    one, some = (np.empty((count, *frames.shape[1:]), np.uint8) for count in (1, RUN))
    steps = [random.Random(i).randrange(len(frames) - RUN) for i in range(CALLS)]
    offsets = [int(track.offsets[step]) for step in steps]
    keys = random.Random(0).choices(dataset.episodes["key"].to_pylist(), k=CALLS)
    single: dict[str, Way] = {
        "preadv of one frame": lambda i: os.preadv(descriptor, [one], offsets[i]),
        "frames[i]": lambda i: frames[steps[i]],
        "episode.frames()[i]": lambda i: episode.frames()[steps[i]],
        "dataset[KEY]": lambda i: dataset[keys[i]],
        "dataset[KEY].frames()[0]": lambda i: dataset[keys[i]].frames()[0],
    }
    ranges: dict[str, Way] = {
        f"preadv of {RUN} frames": lambda i: os.preadv(descriptor, [some], offsets[i]),
        f"frames[i : i + {RUN}]": lambda i: frames[steps[i] : steps[i] + RUN],
    }
    print(f"{folder}: {len(dataset):,} episodes, frames of {one.nbytes:,} bytes")
    print(f"{'':26}{'us':>8}{'bare reads':>12}")
    for ways in (single, ranges):
        least = timed(ways)
        bare, *_ = least.values()
        for name, seconds in least.items():
            print(f"{name:26}{1e6 * seconds:8.1f}{seconds / bare:12.2f}")


def simulated(folder: Path) -> Path:
    """A compiled dataset of simulated kitchens, made once."""
    out = folder / "out"
    if not (out / "manifest.json").exists():
        config = RldsSampleConfig(kitchens=8, sessions=1, episodes=6, steps=38, size=256, files=1)
        source = SourceConfig(url=str(write_rlds(folder, config)), cameras=("image_0",))
        settings = Settings(shard_size=64 << 20)
        execute(prepare(CompileConfig(source=source, out=str(out), settings=settings)))
    return out


def timed(ways: Mapping[str, Way]) -> dict[str, float]:
    """Least CPU seconds of a call of each way."""
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            before = time.thread_time()
            for i in range(CALLS):
                way(i)
            least[name] = min(least[name], (time.thread_time() - before) / CALLS)
    return least


if __name__ == "__main__":
    main()
