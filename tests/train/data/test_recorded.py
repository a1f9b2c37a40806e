"""`Pairs` and `Frames` give the samples that `recorded_samples.json` lists, position by position.

The list was written by an older version of the loader. `python tests/train/data/test_recorded.py` writes it
anew, which is right only where the order of samples is meant to change.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from once import Once
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.annotation import MOTION, Annotation, beside, write_annotation
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule
from oxcart.manifests.tables import EPISODES
from oxcart.train.data import Frames, Loader, Mixture, Pairs
from rlds_builder import encode, noisy_frame, write_dataset
from sample_compile import compiled
from toy_rlds import FEATURES, episode

RECORDED = Path(__file__).with_name("recorded_samples.json")
POSITIONS = 60
FEW: dict[str, Any] = {"lanes": 4, "block": 8}
CASES: dict[str, dict[str, Any]] = {
    "a pair of each episode": {"sample": Pairs(frames=3), **FEW},
    "every pair": {"sample": Pairs(frames=2, per_episode="all"), "seed": 5},
    "three pairs, in seconds": {
        "sample": Pairs(seconds=0.5, per_episode=3),
        "control_rate": 5.0,
        "seed": 1,
    },
    "a frame of each episode": {"sample": Frames(), **FEW},
    "every frame but the last two": {"sample": Frames(per_episode="all", leave=2), "seed": 2},
    "pairs that move": {"sample": Pairs(frames=2, per_episode=4), "min_motion": 4.0, "seed": 3},
    "frames that move": {"sample": Frames(per_episode="all"), "min_motion": 6.0, "seed": 4},
    "few episodes": {"sample": Pairs(frames=1, per_episode=2), "limit": 5, "seed": 6},
}


def compile_both(folder: Path) -> Mapping[str, Path]:
    """Two datasets of episodes of 3 to 14 steps, with motion annotations beside them."""
    found = {}
    for name, count in (("many", 12), ("few", 5)):
        first = 100 if name == "few" else 0
        episodes = [_episode(first + i, 3 + (i * 5) % 12) for i in range(count)]
        source = write_dataset(folder / "source", FEATURES, episodes, name=name, files=2)
        config = SourceConfig(url=str(source), cameras=("image",))
        compiled(source, folder / name, source=config, shard_size=8_000, rule=SplitRule(val=None))
        found[name] = folder / name
        dataset = Dataset.open(str(folder / name))
        rows = dataset.table(EPISODES).to_pylist()
        values = {
            row["key"]: np.array([(row["steps"] * 3 + t * 7) % 11 for t in range(row["steps"])], np.float32)
            for row in rows
        }
        mark = dataset.manifest.fingerprint
        annotation = Annotation(
            name="motion", producer="0" * 64, dataset=mark, parameters={"camera": "image"}, values=values
        )
        write_annotation(beside(str(folder / name), MOTION), annotation)
    return found


def _episode(seed: int, steps: int) -> dict[str, Any]:
    return episode(seed, steps=steps, image=lambda t: encode(noisy_frame(100 * seed + t), "PNG"))


def samples_of(loader: Loader) -> list[str]:
    """Dataset, key, step and offset at the first positions, and of a draw."""
    batches = [loader.at(np.arange(POSITIONS)), loader.draw(8, seed=1)]
    return [
        f"{name} {key} {t} {offset}"
        for batch in batches
        for name, key, t, offset in zip(
            batch.dataset, batch.key, batch.t.tolist(), batch.offset.tolist(), strict=True
        )
    ]


def all_samples(datasets: Mapping[str, Path]) -> dict[str, list[str]]:
    found = {
        case: samples_of(Loader(str(datasets["many"]), batch_size=4, **settings))
        for case, settings in CASES.items()
    }
    mixture = Mixture(datasets=[str(one) for one in datasets.values()], weights=[2, 1], epoch="all")
    loader = Loader(mixture, sample=Pairs(frames=2, per_episode="all"), batch_size=4, seed=7, **FEW)
    return {**found, "a mixture": samples_of(loader)}


def orders(datasets: Mapping[str, Path]) -> dict[str, str]:
    return {name: Dataset.open(str(path)).manifest.order for name, path in datasets.items()}


@pytest.fixture(scope="module")
def both(once: Once) -> Mapping[str, Path]:
    found: Mapping[str, Path] = once("recorded", compile_both)
    return found


@pytest.mark.parametrize("case", [*CASES, "a mixture"])
def test_samples_are_those_that_were_recorded(both: Mapping[str, Path], case: str) -> None:
    recorded = json.loads(RECORDED.read_text())
    assert orders(both) == recorded["orders"], "the datasets differ from those of the record"
    assert all_samples(both)[case] == recorded["samples"][case]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        made = compile_both(Path(name))
        RECORDED.write_text(
            json.dumps({"orders": orders(made), "samples": all_samples(made)}, indent=0) + "\n"
        )
