"""How fast LeRobotDataset yields pairs of frames in the order of oxcart's loader: see bench/lerobot.py.

    python -P bench/lerobot_pairs.py DIR ORDER.npy torchcodec 2    # in LeRobot's environment

With -P, `lerobot` is LeRobot and not bench/lerobot.py; so nothing of this folder is imported there.

What is generous to LeRobot: frames stay uint8, batches repeat forever, and of both decoders of video and 0 or
2 worker processes the best counts, by a short trial of each.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 64


def main() -> None:
    """Measure a dataset."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("dir", nargs="?", type=Path, help="a LeRobot dataset")
    options.add_argument("order", nargs="?", type=Path, help="indices of the first frames of pairs")
    options.add_argument("decoder", nargs="?", default="torchcodec")
    options.add_argument("workers", nargs="?", type=int, default=2)
    options.add_argument("--offset", type=int, default=8, help="steps from the first frame to the second")
    options.add_argument("--seconds", type=float, default=5.0)
    chosen = options.parse_args()
    if chosen.order is None:  # `make bench` runs every script without arguments
        options.print_help()
        return
    found = batches(chosen.dir, np.load(chosen.order), chosen.offset, chosen.decoder, chosen.workers)
    for batch in itertools.islice(found, 1 + 2 * chosen.workers):  # more than workers hold ready
        frames = next(value for name, value in batch.items() if name.startswith("observation.images."))
        assert tuple(frames.shape[:2]) == (BATCH, 2), frames.shape
    began, number, passed = time.perf_counter(), 0, 0.0
    while passed < chosen.seconds:
        next(found)
        number += 1
        passed = time.perf_counter() - began
    print(number * BATCH / passed)


def measure(directory: Path, order: Path, offset: int, python: str, seconds: float) -> dict[str, Any]:
    """Try every way for a moment, and measure the best, each in a process of LeRobot's interpreter.

    Returns:
        pairs_per_s and `way`, the best one, and `tried`: pairs per second of each.
    """
    from read_lerobot import DECODERS, PATIENCE_S, TRIAL, quiet

    def run(way: tuple[str, int], seconds: float) -> float:
        command = [python, "-P", __file__, str(directory), str(order), *map(str, way)]
        command += ["--offset", str(offset), "--seconds", str(seconds)]
        limit = seconds + PATIENCE_S
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=quiet(), timeout=limit)
        except subprocess.TimeoutExpired:
            return 0.0
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
        return float(done.stdout.splitlines()[-1])

    tried = {way: run(way, seconds * TRIAL) for way in itertools.product(DECODERS, (0, 2))}
    way = max(tried, key=lambda way: tried[way])
    return {"pairs_per_s": run(way, seconds), "way": way, "tried": tried}


def batches(directory: Path, order: Any, offset: int, decoder: str, workers: int) -> Iterator[dict[str, Any]]:
    """Endless batches of pairs."""
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata

    about = LeRobotDatasetMetadata("local/pairs", root=directory)
    dataset = LeRobotDataset(
        repo_id="local/pairs",
        root=directory,
        delta_timestamps={name: [0.0, offset / about.fps] for name in about.camera_keys},
        video_backend=decoder,
        return_uint8=True,
    )
    every = itertools.cycle(order.tolist())
    return iter(torch.utils.data.DataLoader(dataset, batch_size=BATCH, sampler=every, num_workers=workers))


if __name__ == "__main__":
    main()
