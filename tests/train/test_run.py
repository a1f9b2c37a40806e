"""Runs of a task end to end: what they show of themselves, and what ends them in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from oxcart.shards.errors import ConfigError, OxcartError
from oxcart.train.config import TrainConfig
from oxcart.train.device import make_accelerator
from oxcart.train.laq.task import LaqTask
from oxcart.train.report import RunLog
from tiny_laq import trained


@pytest.mark.parametrize(
    ("part", "key"),
    [("__init__", "data.batch_size"), ("loss", "data.batch_size"), ("validate", "val.batch_size")],
)
def test_too_little_memory_is_said_of_the_batch_that_took_it(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, key: str
) -> None:
    def take(*given: Any) -> None:
        torch.empty(1 << 60)

    monkeypatch.setattr(LaqTask, part, take)
    with pytest.raises(OxcartError, match=f"^{key}: out of memory .*; take a smaller batch"):
        trained(tmp_path / "run", kitchen, "train.steps=1", "val.every=1", "val.probes=false")


def test_an_environment_that_accelerate_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "nonsense")
    with pytest.raises(ConfigError, match=r"^environment: accelerate cannot begin: "):
        make_accelerator(TrainConfig(device="cpu"))


@pytest.mark.parametrize("ranks", ["1", "1000"])
def test_too_few_cores_for_the_ranks_of_a_machine_are_one_line(
    kitchen: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ranks: str,
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    trained(tmp_path / "run", kitchen, "train.steps=1")
    found = [line for line in capsys.readouterr().err.splitlines() if "cores" in line]
    if ranks == "1":
        assert found == []
    else:
        (line,) = found
        assert line.startswith("oxcart: warning: 1000 ranks share ")
        assert "--cpus-per-task" in line


def test_the_figures_of_each_validation_are_shown(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, list[str]]] = []

    def images(log: RunLog, step: int) -> None:
        shown.append((step, sorted(path.name for path in (tmp_path / "run").glob("*.png"))))

    monkeypatch.setattr(RunLog, "images", images)
    trained(tmp_path / "run", kitchen, "train.steps=2", "val.every=1", "val.probes=false")
    assert shown == [(1, ["samples.png"]), (2, ["samples.png"])]
