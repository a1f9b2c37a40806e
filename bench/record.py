"""How fast recordings are written, compared with encoding the same frames alone. Ratios of one run.

    python bench/record.py                # two cameras of 480x640 pixels, 8 episodes of 60 steps per codec
    python bench/record.py --steps 200 --folder /mnt/robot

Every frame of both sides is the same memory. `encoding alone` is one thread that encodes all frames of an
episode and drops the result. `writing` is `add_episode`, durable at its return: checks, a pool of threads
that encodes, the digest, the file, its fsync and its rename. Codec `raw` has nothing to encode, so its other
side is a plain file of the same bytes, written and fsynced. The two sides take turns, and each number is the
least of the episodes; the bar is 85%.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path

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
        share = alone / writing
        print(
            f"{codec:5} {what} {size / alone / 1e6:5.0f} MB/s, writing {size / writing / 1e6:5.0f} MB/s: "
            f"{share:.0%} ({'meets' if share >= BAR else 'misses'} the bar of {BAR:.0%})"
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


def measure(
    codec: str, frames: dict[str, npt.NDArray[np.uint8]], folder: Path, episodes: int
) -> tuple[float, float]:
    """Seconds per episode of encoding alone (of a plain file with codec `raw`), and of writing."""
    action = np.zeros((len(frames["image_0"]), 7), np.float32)
    alone, writing = [], []
    place = folder / codec
    shutil.rmtree(place, ignore_errors=True)
    with oxcart.create(place, cameras=list(frames), action=[f"a{i}" for i in range(7)], codec=codec) as out:
        for _ in range(episodes):
            began = time.perf_counter()
            if codec == "raw":
                plain(folder / "plain", frames)
            else:
                for one in frames.values():
                    encode(one, Encoding(codec=codec))
            alone.append(time.perf_counter() - began)
            began = time.perf_counter()
            out.add_episode(frames=frames, action=action, environment="bench")
            writing.append(time.perf_counter() - began)
    shutil.rmtree(place)
    return min(alone), min(writing)


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
