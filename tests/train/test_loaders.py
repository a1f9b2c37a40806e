"""Loaders as a configuration asks for them: a mixture of robot data and web video, and samples that move."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import servers
from oxcart.compile.images import Resize
from oxcart.compile.sample.videos import CC_BY, write_info, write_video
from oxcart.manifests.annotation import MOTION, beside, write_annotation
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.motion import measure
from oxcart.manifests.split import SplitRule
from oxcart.shards.errors import ConfigError
from oxcart.train.config import DataConfig
from oxcart.train.data import Pairs, memory
from oxcart.train.laq.task import LaqTask
from oxcart.train.loaders import training_loader
from tiny_laq import alone, small, trained
from video_sources import compile_videos, scenes


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of two videos of unlike sizes, compiled as they are: no actions, frames of two shapes."""
    folder = tmp_path_factory.mktemp("mixture")
    for name, size in (("a", (48, 64)), ("b", (60, 50))):
        (folder / "vids").mkdir(exist_ok=True)
        path = folder / "vids" / f"{name}.mp4"
        write_video(path, scenes(name, 48, 48, size=size))
        write_info(path, name, name, f"channel {name}", CC_BY)
    compile_videos(folder / "vids", folder / "clips", rule=SplitRule(val=0.5), resize=Resize())
    return folder / "clips"


def test_robot_data_and_web_video_train_together(kitchen: Path, clips: Path, tmp_path: Path) -> None:
    both = f"data.datasets=[{kitchen},{clips}]"
    task = LaqTask(small(kitchen, tmp_path, both, "data.mix=equal"), torch.device("cpu"))
    loader = task.loader(0, 1)
    batch = next(iter(loader))
    assert {batch.dataset.count(name) for name in set(batch.dataset)} == {len(batch.dataset) // 2}
    with alone():
        result = trained(tmp_path / "run", kitchen, both, "data.mix=equal", "train.steps=2")
    assert result.step == 2


def test_what_hardly_moves_is_left_out_and_counted(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "kitchen"
    shutil.copytree(kitchen, dataset)
    config = small(dataset, tmp_path / "run", "data.min_motion=0.5")
    with pytest.raises(ConfigError, match="run oxcart annotate motion"):
        LaqTask(config, torch.device("cpu")).loader(0, 1)
    motion = measure(Dataset.open(str(dataset)))
    write_annotation(beside(str(dataset), MOTION), motion)
    values = np.concatenate(list(motion.values.values()))
    least = float(np.median(values))
    config = small(dataset, tmp_path / "run", f"data.min_motion={least}", "run.quiet=false")
    LaqTask(config, torch.device("cpu")).loader(0, 1)
    said = capsys.readouterr().err.splitlines()
    (line,) = [one for one in said if "samples are taken at " in one]
    kept, before = (int(text.replace(",", "")) for text in re.findall(r"[\d,]*\d", line)[:2])
    assert 0 < kept < before
    assert line.endswith(f"those that move by {least:g} as camera image_0 sees it")


def test_validation_keeps_to_the_size_of_the_cache(kitchen: Path, tmp_path: Path) -> None:
    """The last validation comes after the last step, so what it leaves behind is what lies on the disk."""
    cache, limit = tmp_path / "cache", 100_000
    settings = f"data.cache={cache}", f"data.cache_gb={limit / 1e9}", "train.steps=1", "val.every=1"
    with servers.web(kitchen.parent) as server, alone():
        trained(tmp_path / "run", f"{server.url}/{kitchen.name}", *settings)
    held = sum(path.stat().st_blocks * 512 for path in cache.rglob("*.part"))
    assert 0 < held < 2 * limit


def test_a_dataset_that_is_given_twice_is_refused(kitchen: Path, tmp_path: Path) -> None:
    """By another spelling, or as a copy: it is the fingerprint that tells."""
    copy = tmp_path / "copy"
    shutil.copytree(kitchen, copy)
    for other in (f"{kitchen}/", f"{kitchen}/../{kitchen.name}", str(copy)):
        with pytest.raises(ConfigError) as error:
            LaqTask(small(kitchen, tmp_path, f"data.datasets=[{kitchen},{other}]"), torch.device("cpu"))
        assert str(error.value).startswith(f"data.datasets: '{kitchen}' and '{other}' are one dataset, of ")


def test_a_batch_that_no_memory_would_hold_is_refused_with_both_numbers(
    kitchen: Path, tmp_path: Path
) -> None:
    config = small(kitchen, tmp_path, "data.batch_size=10000000000")
    with pytest.raises(
        ConfigError, match=r"^data\.batch_size: .* would take 322,.* GB, and this machine has \d"
    ):
        LaqTask(config, torch.device("cpu")).loader(0, 1)
    config = small(kitchen, tmp_path, "val.batch_size=10000000000", "val.every=1")
    LaqTask(config, torch.device("cpu"))  # as many as there are


@pytest.mark.parametrize(
    ("given", "local", "gigabytes"),
    [
        ((), "1", 10 * 1536 * (5 + 16)),
        (("train.accumulate=2",), "1", 10 * 1536 * (5 + 8)),
        (("data.prefetch=1",), "1", 10 * 1536 * (2 + 16)),
        ((), "2", 10 * 1536 * (5 + 16)),
        ((), "nonsense", 5 * 1536 * (5 + 16)),
    ],
)
def test_a_step_is_counted_with_its_batches_and_with_the_other_ranks_of_the_machine(
    kitchen: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[str, ...],
    local: str,
    gigabytes: int,
) -> None:
    """1,536 bytes are two frames of 16 x 16 pixels; a step on a CPU takes 16 times that of each sample."""
    world = 1 if local == "1" else 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    task = LaqTask(small(kitchen, tmp_path, "data.batch_size=10000000000", *given), torch.device("cpu"))
    with pytest.raises(ConfigError, match=f"would take {gigabytes:,}.0 GB") as error:
        task.loader(0, world)
    assert ("on 2 ranks" in str(error.value)) == (local == "2")


def test_a_batch_that_is_read_for_a_gpu_is_counted_without_the_step(
    kitchen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its copies are in the memory of the GPU, which says by itself that it is full."""
    data = DataConfig(datasets=[str(kitchen)], batch_size=8, lanes=4, block=8, threads=1)
    asked: dict[str, Any] = {"size": None, "seed": 0, "place": (0, 1)}
    frames = 8 * 5 * 2 * 32 * 32 * 3
    monkeypatch.setattr(memory, "total_memory", lambda: frames)
    opened = [Dataset.open(str(kitchen))]
    training_loader(data, opened, Pairs(frames=2), pieces=None, **asked)
    with pytest.raises(ConfigError, match=r"^data\.batch_size: .* or a larger train\.accumulate$"):
        training_loader(data, opened, Pairs(frames=2), pieces=8, **asked)
