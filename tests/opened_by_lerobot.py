"""Whether LeRobot itself opens what `oxcart export lerobot` writes: `make test-lerobot`.

python tests/opened_by_lerobot.py /tmp/peers-lerobot/bin/python

compiles a few generated datasets and exports them as images, as videos that are encoded anew, and with the
coded frames that they have. The interpreter of LeRobot's environment then opens each split with all cameras
and `delta_timestamps`, and compares every item with the compiled dataset: images, actions, states and tasks
are equal; coded frames have the pixels of oxcart's own reader; frames that are encoded anew are near. The
statistics are compared with those that LeRobot computes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

NEAR = 8.0
"""Largest mean difference of a frame that is encoded anew, in grey levels."""
FAR = 1 / 2000
"""Largest difference of a statistic, as a share of the range: two bins of LeRobot's histograms."""
EXPECTED = "expected.npz"


def main() -> None:
    """Write the exports and let LeRobot open them; or, as LeRobot's interpreter, open those in a folder."""
    if sys.argv[1:2] == ["--open"]:
        for folder in sorted(Path(sys.argv[2]).iterdir()):
            for split in sorted(folder.glob("*/meta")):
                check(split.parent)
        return
    if len(sys.argv) != 2:
        sys.exit("usage: opened_by_lerobot.py PYTHON (the interpreter of an environment with LeRobot)")
    with tempfile.TemporaryDirectory(prefix="oxcart-") as scratch:
        os.environ.setdefault("SVT_LOG", "1")  # errors only
        write(Path(scratch))
        settings = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": f"{scratch}/hf"}
        command = [sys.argv[1], __file__, "--open", f"{scratch}/exports"]
        sys.exit(subprocess.run(command, env=settings, check=False).returncode)


def write(scratch: Path) -> None:
    """Write the exports into `scratch/exports`, each split with what it must give."""
    from lerobot_writer import RobotTake, write_lerobot

    from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
    from oxcart.compile.sources.base import SourceConfig
    from oxcart.manifests.split import SplitRule
    from oxcart.shards.codec import Encoding
    from sample_compile import compiled

    kitchens = write_rlds(
        scratch, RldsSampleConfig(kitchens=3, sessions=1, episodes=2, steps=12, size=96, files=2)
    )
    config = SourceConfig(url=str(kitchens), cameras=("image_0", "wrist"))
    compiled(kitchens, scratch / "kitchens", source=config, rule=SplitRule(val=0.34))
    takes = [RobotTake(steps=8), RobotTake(steps=12, tasks=("open", "close")), RobotTake(steps=5)]
    ways = {
        "h264": ("libx264", {"g": "4", "bf": "2", "crf": "18", "x264-params": "open-gop=0:scenecut=0"}),
        "av1": ("libsvtav1", {"g": "2", "crf": "30", "preset": "12"}),
    }
    for codec, (encoder, options) in ways.items():
        source = write_lerobot(scratch / f"{codec}-source", takes, codec=encoder, options=options)
        config = SourceConfig(url=str(source), kind="lerobot", cameras=("top", "wrist"))
        changes = {"rule": SplitRule(val=None), "encoding": Encoding(codec="video")}
        compiled(source, scratch / codec, source=config, **changes)
    for name, images in (("kitchens", True), ("kitchens", False), ("h264", False), ("av1", False)):
        _export(scratch / name, scratch / "exports" / f"{name}-{'images' if images else 'videos'}", images)


def _export(dataset: Path, out: Path, images: bool) -> None:
    """Export a dataset, and put what each split must give beside it."""
    from oxcart.compile.export.lerobot import ExportConfig, export, prepare
    from oxcart.manifests.dataset import Dataset

    export(prepare(ExportConfig(dataset=str(dataset), out=str(out), images=images)))
    opened = Dataset.open(str(dataset))
    anew = not images and opened.manifest.cameras[0]["codec"] == "raw"
    for split in opened.manifest.splits:
        mine = [episode for episode in opened if episode.split == split]
        tasks = []
        for episode in mine:
            runs = {one.step: one.text for one in episode.instructions}
            for step in range(episode.steps):
                tasks.append(runs[max(start for start in runs if start <= step)])
        arrays: dict[str, Any] = {
            "episode": np.concatenate([np.full(one.steps, i) for i, one in enumerate(mine)]),
            "task": np.array(tasks),
            "anew": anew,
            "action": np.concatenate([one.action for one in mine]),
        }
        if opened.manifest.state:
            arrays["observation.state"] = np.concatenate([one.state for one in mine])
        for camera in opened.manifest.camera_names:
            frames = np.concatenate([one.frames(camera)[:] for one in mine])
            arrays[f"observation.images.{camera}"] = frames
        np.savez(out / split / EXPECTED, **arrays)


def check(folder: Path) -> None:
    """Open a split in LeRobot, and compare all that it gives."""
    from lerobot.datasets import LeRobotDataset

    expected = dict(np.load(folder / EXPECTED))
    episode, task, anew = expected.pop("episode"), expected.pop("task"), bool(expected.pop("anew"))
    cameras = [name for name in expected if name.startswith("observation.images.")]
    fps = json.loads((folder / "meta/info.json").read_bytes())["fps"]
    deltas = {name: [-1, 0] if name in cameras else [0, 1, 2] for name in expected}
    dataset = LeRobotDataset(
        "local/export",
        root=folder,
        return_uint8=True,
        delta_timestamps={name: [step / fps for step in steps] for name, steps in deltas.items()},
    )
    assert (len(dataset), dataset.num_episodes) == (len(episode), episode[-1] + 1)
    worst = 0.0
    for index in range(len(dataset)):
        item = dataset[index]
        first, last = np.flatnonzero(episode == episode[index])[[0, -1]]
        assert item["task"] == task[index], (index, item["task"], task[index])
        assert item["episode_index"] == episode[index]
        for name, steps in deltas.items():
            wanted = expected[name][[min(max(index + step, first), last) for step in steps]]
            found = item[name].numpy()
            if name not in cameras:
                assert np.array_equal(found, wanted), (name, index)
                continue
            found = np.moveaxis(found, 1, -1)
            if found.dtype != np.uint8:
                found = np.rint(found * 255)
            off = np.abs(np.float32(found) - wanted).mean()
            assert off <= (NEAR if anew else 0), (name, index, off)
            worst = max(worst, float(off))
            outside = [not first <= index + step <= last for step in steps]
            assert item[f"{name}_is_pad"].tolist() == outside
    compared = _compare_statistics(dataset.meta.stats, expected, episode, cameras)
    print(
        f"{folder.parent.name}/{folder.name}: {len(dataset)} items of {dataset.num_episodes} episodes, "
        f"{len(cameras)} cameras with delta_timestamps: actions, states and tasks equal, frames "
        f"{f'within {worst:.2f} grey levels on average' if anew else 'equal'}; "
        f"{compared} statistics near LeRobot's own"
    )


def _compare_statistics(
    found: dict[str, Any], expected: dict[str, Any], episode: Any, cameras: list[str]
) -> int:
    """Compare with what LeRobot computes of each episode and merges."""
    from lerobot.datasets.compute_stats import aggregate_feature_stats, get_feature_stats

    compared = 0
    for name, values in expected.items():
        each = []
        for number in range(episode[-1] + 1):
            mine = values[episode == number]
            if name in cameras:
                own = get_feature_stats(mine.transpose(0, 3, 1, 2), axis=(0, 2, 3), keepdims=True)
                each.append({what: one if what == "count" else one[0] / 255 for what, one in own.items()})
            else:
                each.append(get_feature_stats(mine, axis=0, keepdims=False))
        own = aggregate_feature_stats(each)
        assert found[name].keys() == own.keys(), (found[name].keys(), own.keys())
        span = float(np.max(own["max"] - own["min"]))
        for what, one in own.items():
            assert np.shape(found[name][what]) == np.shape(one), (name, what)
            off = float(np.abs(found[name][what] - one).max())
            assert off <= (0 if what == "count" else FAR * span), (name, what, off)
            compared += 1
    return compared


if __name__ == "__main__":
    main()
