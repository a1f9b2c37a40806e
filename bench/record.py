"""How fast recordings are written, compared with encoding the same frames alone. Ratios of one run.

    python bench/record.py                # two cameras of 480x640 pixels, 8 episodes of 60 steps per codec
    python bench/record.py --steps 200 --folder /mnt/robot

Every frame of both sides is the same memory. `encoding alone` is one thread that encodes all frames of an
episode and drops the result. `writing` is `add_episode`, durable at its return: checks, a pool of threads
that encodes, the digest, the file, its fsync and its rename. Codec `raw` has nothing to encode, so its other
side is a plain file of the same bytes, written and fsynced. The two sides take turns, and each number is the
least of the episodes; the bar is 85%. On a machine with other work, CPU time (of all threads) says more.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import oxcart
from oxcart.shards.codec import CODECS, Encoding, encode

BAR = 0.85


def main() -> None:
    """Measure every codec, and print one line for each."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--steps", type=int, default=60)
    options.add_argument("--episodes", type=int, default=8)
    options.add_argument("--folder", type=Path, default=Path("scratch/bench/record"))
    chosen = options.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    frames = {"image_0": moving(chosen.steps, seed=0), "wrist": moving(chosen.steps, seed=1)}
    size = sum(one.nbytes for one in frames.values())
    for codec in CODECS:
        alone, writing = measure(codec, frames, chosen.folder, chosen.episodes)
        what = "a plain file" if codec == "raw" else "encoding alone"
        share, of_cpu = alone.wall / writing.wall, alone.cpu / writing.cpu
        print(
            f"{codec:5} {what} {size / alone.wall / 1e6:5.0f} MB/s, "
            f"writing {size / writing.wall / 1e6:5.0f} MB/s: {share:.0%} "
            f"({'meets' if share >= BAR else 'misses'} the bar of {BAR:.0%}); by CPU time {of_cpu:.0%}"
        )


def moving(steps: int, seed: int) -> npt.NDArray[np.uint8]:
    """Frames [T, 480, 640, 3] uint8 of a smooth scene that moves, with the noise of a camera."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(128, 40, (40, 60, 3))
    scene = np.kron(coarse, np.ones((16, 16, 1)))[: 480 + steps, : 640 + steps]
    frames = [
        scene[t : t + 480, t : t + 640] + rng.normal(0, 1.5, (480, 640, 1)) for t in np.arange(steps) % 150
    ]
    return np.clip(np.stack(frames), 0, 255).astype(np.uint8)


class Seconds(NamedTuple):
    """Time that an episode took."""

    wall: float
    cpu: float
    """CPU time of all threads."""


def measure(
    codec: str, frames: dict[str, npt.NDArray[np.uint8]], folder: Path, episodes: int
) -> tuple[Seconds, Seconds]:
    """Least time of an episode: of encoding alone (of a plain file with codec `raw`), and of writing."""
    action = np.zeros((len(frames["image_0"]), 7), np.float32)
    place = folder / codec
    shutil.rmtree(place, ignore_errors=True)

    def alone() -> None:
        if codec == "raw":
            plain(folder / "plain", frames)
            return
        for one in frames.values():
            encode(one, Encoding(codec=codec))

    with oxcart.create(place, cameras=list(frames), action=[f"a{i}" for i in range(7)], codec=codec) as out:

        def writing() -> None:
            out.add_episode(frames=frames, action=action, environment="bench")

        rounds = [(timed(alone), timed(writing)) for _ in range(episodes)]
    shutil.rmtree(place)
    least = [Seconds(*map(min, zip(*side, strict=True))) for side in zip(*rounds, strict=True)]
    return least[0], least[1]


def timed(call: Callable[[], None]) -> Seconds:
    """Time that a call takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def plain(path: Path, frames: dict[str, npt.NDArray[np.uint8]]) -> None:
    """Write all frames to one file, durably."""
    with open(path, "wb") as file:
        for one in frames.values():
            file.write(one.reshape(-1).data)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


if __name__ == "__main__":
    main()
