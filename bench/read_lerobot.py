"""How fast LeRobotDataset yields the windows that bench/read.py asks of the loader.

    python3.12 -m venv /tmp/peers-lerobot && /tmp/peers-lerobot/bin/pip install 'lerobot[dataset]==0.6.1'
    python -P bench/read_lerobot.py scratch/lerobot video torchcodec 2    # in that environment

`prepare` hands the episodes of a compiled dataset of codec raw to LeRobot's own writer, which stores them
once as videos (AV1, its default) and once as images (PNG). `measure` runs the second line, which prints
samples per second, with the interpreter of that environment; -P keeps bench/lerobot.py from being taken for
LeRobot. A sample is what `delta_timestamps` gives: two frames of each camera, the state, and 16 actions. What
is generous to LeRobot on purpose: frames stay uint8, epochs have no end, and of both ways to store frames,
both decoders of video, and 0 or 2 worker processes the best counts, by a short trial of each.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

BATCH, BACK, ACTIONS = 64, 4, 16
TRIAL = 0.5
"""Share of the seconds spent trying each way."""
STORED, DECODERS = ("video", "image"), ("torchcodec", "pyav")
"""How frames are stored, and what may decode video."""
Way: TypeAlias = tuple[str, str, int]
"""How frames are stored, what decodes them, and the number of worker processes."""
WAYS: tuple[Way, ...] = tuple(
    (stored, decoder, workers)
    for stored, decoder in (*(("video", decoder) for decoder in DECODERS), ("image", "pillow"))
    for workers in (0, 2)
)
PATIENCE_S = 60.0
"""Seconds of a trial beyond those that it measures, after which its rate counts as 0."""
INFO = "peer.json"
"""Name of the file that is written last into a prepared folder."""


def main() -> None:
    """Measure a prepared folder, or write one."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("dir", nargs="?", type=Path, help="folder that prepare made")
    options.add_argument("stored", nargs="?", choices=STORED, default="video")
    options.add_argument("decoder", nargs="?", choices=(*DECODERS, "pillow"), default="torchcodec")
    options.add_argument("workers", nargs="?", type=int, default=0)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--write", action="store_true", help="write the folder, from standard input")
    chosen = options.parse_args()
    if chosen.dir is None:  # `make bench` runs every script without arguments
        options.print_help()
    elif chosen.write:
        write(chosen.dir, sys.stdin.buffer)
    else:
        info = json.loads((chosen.dir / INFO).read_text())
        found = batches(chosen.dir, info, chosen.stored, chosen.decoder, chosen.workers)
        print(timed(found, info, chosen.seconds, 1 + 2 * chosen.workers))


def prepare(dataset: Path, scratch: Path, python: str) -> Path:
    """Write the train episodes of a compiled dataset of codec raw as LeRobot does, once; returns the folder.

    Args:
        dataset: the compiled dataset; all of its cameras are written.
        scratch: where the folder goes.
        python: interpreter that has LeRobot.
    """
    import oxcart

    opened = oxcart.open(str(dataset))
    manifest = opened.manifest
    episodes = [episode for episode in opened if episode.split == "train"]
    cameras = episodes[0].cameras
    info = {
        "fingerprint": manifest.fingerprint,
        "hz": round(manifest.control_rate["hz"]),
        "cameras": {name: list(episodes[0].frames(name).shape[1:]) for name in cameras},
        "widths": {"action": manifest.action["size"], "state": manifest.state["size"]},
        "episodes": len(episodes),
    }
    out, text = scratch / "lerobot", json.dumps(info)
    if (out / INFO).exists() and (out / INFO).read_text() == text:
        return out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    command = [python, "-P", __file__, str(out), "--write"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=sys.stderr, env=quiet(), stderr=subprocess.DEVNULL
    ) as writer:
        assert writer.stdin is not None
        writer.stdin.write(text.encode() + b"\n")
        for episode in episodes:
            told = {"steps": len(episode), "task": episode.instruction}
            writer.stdin.write(json.dumps(told).encode() + b"\n")
            writer.stdin.write(episode.action.tobytes() + episode.state.tobytes())
            for name in cameras:
                writer.stdin.write(episode.frames(name)[:].tobytes())
    if writer.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {writer.returncode}")
    (out / INFO).write_text(text)
    return out


def quiet() -> dict[str, str]:
    """The environment of a process of LeRobot: no GPU, no network, no warnings."""
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


def measure(directory: Path, python: str, seconds: float = 5.0) -> dict[str, Any]:
    """Try every way for a moment, and measure the best, each in a process of LeRobot's interpreter.

    Returns:
        samples_per_s and `way`, the best one, and `tried`: samples per second of each.
    """

    def run(way: Way, seconds: float) -> float:
        command = [python, "-P", __file__, str(directory), *map(str, way), "--seconds", str(seconds)]
        limit = seconds + PATIENCE_S
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=quiet(), timeout=limit)
        except subprocess.TimeoutExpired:
            return 0.0
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
        return float(done.stdout.splitlines()[-1])

    tried = {way: run(way, seconds * TRIAL) for way in WAYS}
    way = max(tried, key=lambda way: tried[way])
    return {"samples_per_s": run(way, seconds), "way": way, "tried": tried}


def write(out: Path, stream: BinaryIO) -> None:
    """Write one dataset per way to store frames, from what `prepare` sends."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    info = json.loads(stream.readline())
    datasets = []
    for stored in STORED:
        arrays = {"action": info["widths"]["action"], "observation.state": info["widths"]["state"]}
        features: dict[str, Any] = {
            name: {"dtype": "float32", "shape": (size,), "names": None} for name, size in arrays.items()
        }
        for name, shape in info["cameras"].items():
            names = ["height", "width", "channels"]
            features[f"observation.images.{name}"] = {
                "dtype": stored,
                "shape": tuple(shape),
                "names": names,
            }
        datasets.append(
            LeRobotDataset.create(
                repo_id=f"local/{stored}",
                root=out / stored,
                fps=info["hz"],
                features=features,
                use_videos=stored == "video",
                streaming_encoding=stored == "video",
            )
        )
    while line := stream.readline():
        told = json.loads(line)
        steps = told["steps"]
        values = {
            name: np.frombuffer(stream.read(4 * steps * size), np.float32).reshape(steps, size)
            for name, size in info["widths"].items()
        }
        frames = {
            name: np.frombuffer(stream.read(steps * int(np.prod(shape))), np.uint8).reshape(steps, *shape)
            for name, shape in info["cameras"].items()
        }
        for dataset in datasets:
            for t in range(steps):
                images = {f"observation.images.{name}": data[t] for name, data in frames.items()}
                arrays = {"action": values["action"][t], "observation.state": values["state"][t]}
                dataset.add_frame({**images, **arrays, "task": told["task"]})
            dataset.save_episode()
    for dataset in datasets:
        dataset.finalize()


def batches(directory: Path, info: Any, stored: str, decoder: str, workers: int) -> Iterator[dict[str, Any]]:
    """Endless batches of windows."""
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    step = 1 / info["hz"]
    deltas = {f"observation.images.{name}": [-BACK * step, 0.0] for name in info["cameras"]}
    deltas |= {"observation.state": [0.0], "action": [i * step for i in range(ACTIONS)]}
    dataset = LeRobotDataset(
        repo_id=f"local/{stored}",
        root=directory / stored,
        delta_timestamps=deltas,
        video_backend=decoder if decoder in DECODERS else None,
        return_uint8=True,
    )
    order = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=1 << 40)
    return iter(torch.utils.data.DataLoader(dataset, batch_size=BATCH, sampler=order, num_workers=workers))


def timed(iterator: Iterator[dict[str, Any]], info: Any, seconds: float, ready: int) -> float:
    """Samples per second, from the moment that more batches have come than workers hold ready."""
    for batch in itertools.islice(iterator, ready):
        for name, (height, width, _) in info["cameras"].items():
            frames = batch[f"observation.images.{name}"]
            assert tuple(frames.shape) == (BATCH, 2, 3, height, width), frames.shape
        assert tuple(batch["action"].shape[:2]) == (BATCH, ACTIONS), batch["action"].shape
    began, number, passed = time.perf_counter(), 0, 0.0
    while passed < seconds:
        next(iterator)
        number += 1
        passed = time.perf_counter() - began
    return number * BATCH / passed


if __name__ == "__main__":
    main()
