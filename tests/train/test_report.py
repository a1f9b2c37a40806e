"""metrics.jsonl and the live line."""

from __future__ import annotations

import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from oxcart.shards.errors import ConfigError
from oxcart.train import report as module
from oxcart.train.report import WARMING, Clock, Rates, RunLog, by_split, read_metrics


def test_a_run_that_goes_on_drops_the_steps_that_it_takes_again(tmp_path: Path) -> None:
    first = RunLog(tmp_path, step=0, steps=4, label="x", quiet=True)
    for step in (1, 2, 3):
        first.metrics("train", step, {"loss": float(step)})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "st')
    again = RunLog(tmp_path, step=2, steps=4, label="x", quiet=True)
    again.metrics("train", 3, {"loss": 9.0})
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 9.0)]


def test_what_is_not_a_number_is_null(tmp_path: Path) -> None:
    RunLog(tmp_path, step=0, steps=1, label="x", quiet=True).metrics("val", 1, {"a": math.nan, "b": 1.5})
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"kind": "val", "step": 1, "a": None, "b": 1.5}


def test_rates_leave_out_the_first_steps() -> None:
    clock = Clock()
    for _ in range(WARMING):
        clock.add(8, 100.0, 100.0)
    assert not clock.whole.known
    assert not clock.window().known
    for _ in range(4):
        clock.add(8, 0.25, 1.0)
    assert (clock.whole.throughput, clock.whole.waiting, clock.whole.step_s) == (8.0, 25.0, 1.0)


def test_rates_of_a_line_are_those_since_the_line_before() -> None:
    clock = Clock()
    for _ in range(WARMING + 5):
        clock.add(8, 0.0, 1.0)
    assert clock.window().throughput == 8
    for _ in range(5):
        clock.add(8, 2.0, 4.0)
    last = clock.window()
    assert (last.throughput, last.waiting, last.step_s) == (2.0, 50.0, 4.0)
    assert clock.whole.step_s == 2.5
    assert not clock.window().known


def test_the_line_says_loss_rate_waiting_and_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINE_EVERY_S", 0.0)
    clock = Clock()
    for _ in range(WARMING + 2):
        clock.add(64, 0.1, 1.0)
    report = RunLog(tmp_path, step=0, steps=100, label="laq")
    report.line(40, 0.25, clock.window())
    report.close()
    line = "laq: step 40/100, loss 0.25, 64 samples/s, data_loading 10.0%, 0:01:00 left\n"
    assert capsys.readouterr() == ("", line)


def test_other_ranks_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = RunLog(tmp_path, step=0, steps=1, label="x", active=False)
    report.metrics("train", 1, {"loss": 1.0})
    report.line(1, 1.0, Rates())
    report.say("hello")
    report.close()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_a_reporter_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        RunLog(tmp_path, step=0, steps=1, label="x", quiet=True, tensorboard=True)
    with pytest.raises(ConfigError, match="pip install wandb"):
        RunLog(tmp_path, step=0, steps=1, label="x", quiet=True, wandb="project")


def test_reporters_that_are_installed_get_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            said.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            said.append((name, value, step))

        def close(self) -> None:
            said.append("closed")

    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    wandb = types.ModuleType("wandb")
    begun: list[dict[str, object]] = []

    def init(**given: object) -> types.SimpleNamespace:
        begun.append(given)
        return types.SimpleNamespace(
            log=lambda values, step: said.append((values, step)), finish=lambda: said.append("finished")
        )

    wandb.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    report = RunLog(tmp_path, step=0, steps=1, label="x", quiet=True, tensorboard=True, wandb="project")
    report.metrics("train", 1, {"loss": 2.0, "note": "text"})
    report.close()
    assert said == [
        (str(tmp_path / "tensorboard"), 1),
        ("train/loss", 2.0, 1),
        ({"train/loss": 2.0}, 1),
        "closed",
        "finished",
    ]
    RunLog(tmp_path, step=4, steps=9, label="x", quiet=True, tensorboard=True, wandb="project").close()
    assert said[5] == (str(tmp_path / "tensorboard"), 5), "what was drawn beyond the checkpoint goes"
    assert begun[0]["id"] == begun[1]["id"]
    assert begun[1]["resume"] == "allow"


def test_numbers_of_several_datasets_are_means_and_bounds_are_their_own() -> None:
    one = {"accuracy": 0.2, "accuracy_low": 0.1, "accuracy_high": 0.3, "true": [[1]]}
    two = {"accuracy": 0.4, "accuracy_low": 0.3, "accuracy_high": 0.5, "true": [[2]]}
    found = by_split("val", {"a": one, "b": two})
    assert found["val/accuracy"] == pytest.approx(0.3)
    assert "val/accuracy_low" not in found
    assert found["val/a/accuracy_low"] == 0.1
    assert by_split("val", {"a": one})["val/accuracy_low"] == 0.1
