"""metrics.jsonl and the live line."""

from __future__ import annotations

import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState
from PIL import Image

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
    for name in ("torch.utils.tensorboard", "tensorboardX", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    PartialState(cpu=True)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        RunLog(tmp_path, step=0, steps=1, label="x", quiet=True, tensorboard=True)
    with pytest.raises(ConfigError, match="pip install wandb"):
        RunLog(tmp_path, step=0, steps=1, label="x", quiet=True, wandb="project")


def report_twice(run: Path, **trackers: Any) -> None:
    """A run that logs three steps and its figures, and begins again after the second of them."""
    PartialState(cpu=True)
    Image.new("RGB", (8, 4), (200, 0, 0)).save(run / "samples.png")
    for begun in (0, 2):
        log = RunLog(run, step=begun, steps=3, label="x", quiet=True, config={"train": {"lr": 1}}, **trackers)
        for step in range(begun + 1, 4):
            log.metrics("train", step, {"loss": step + begun / 10, "note": "text"})
        log.metrics("val", 3, {"val/nll": 0.5, "seconds": 2.0, "val/true": [[1]]})
        log.images(3)
        log.close()


def test_tensorboard_gets_each_number_once_under_one_name_and_the_figures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report_twice(tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["train/loss", "val/nll", "val/seconds"]
    found = [(one.step, round(one.value, 3)) for one in events.Scalars("train/loss")]
    assert found == [(1, 1.0), (2, 2.0), (3, 3.2)], "what was drawn beyond the checkpoint goes"
    (image,) = events.Images("samples")
    assert (image.step, image.width, image.height) == (3, 8, 4)


def test_wandb_gets_one_run_under_its_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    report_twice(tmp_path, wandb="robots")
    written = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert [path.name for path in written] == [f"run-{(tmp_path / 'wandb-id').read_text()}.wandb"] * 2
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/samples_*.png"))) == 2
    for path in written:
        data = path.read_bytes()
        for name in (b"robots", b"train/loss", b"val/nll", b"val/seconds", b"step"):
            assert name in data
        assert b"val/val" not in data


def test_wandb_is_told_the_step_of_each_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `wandb.init` and `log` are called with, whether or not wandb is installed."""
    begun: list[dict[str, Any]] = []
    said: list[Any] = []
    run = types.SimpleNamespace(
        log=lambda values, step: said.append((values, step)),
        define_metric=lambda name, **given: said.append((name, given)),
        finish=lambda: said.append("finished"),
    )
    wandb = types.ModuleType("wandb")
    given = {
        "Error": RuntimeError,
        "Image": lambda pixels: pixels.shape,
        "config": types.SimpleNamespace(update=lambda values, allow_val_change: said.append(values)),
        "init": lambda **given: begun.append(given) or run,
    }
    vars(wandb).update(given)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    report_twice(tmp_path, wandb="robots")
    assert said[: said.index("finished") + 1] == [
        ("*", {"step_metric": "step", "step_sync": True}),
        {"train": {"lr": 1}},
        ({"train/loss": 1.0, "step": 1}, None),
        ({"train/loss": 2.0, "step": 2}, None),
        ({"train/loss": 3.0, "step": 3}, None),
        ({"val/nll": 0.5, "val/seconds": 2.0, "step": 3}, None),
        ({"samples": [(4, 8, 3)]}, None),
        "finished",
    ]
    assert begun[0] == begun[1], "the same run"
    assert begun[0]["project"] == "robots"
    assert begun[0]["resume"] == "allow"


def test_wandb_that_refuses_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**given: Any) -> None:
        raise RuntimeError("No API key configured.\nUse `wandb login`")

    wandb = types.ModuleType("wandb")
    vars(wandb).update({"Error": RuntimeError, "init": refuse})
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    PartialState(cpu=True)
    with pytest.raises(ConfigError, match=r"^run\.wandb: No API key configured\. Use `wandb login`$"):
        RunLog(tmp_path, step=0, steps=1, label="x", quiet=True, wandb="robots")


def test_numbers_of_several_datasets_are_means_and_bounds_are_their_own() -> None:
    one = {"accuracy": 0.2, "accuracy_low": 0.1, "accuracy_high": 0.3, "true": [[1]]}
    two = {"accuracy": 0.4, "accuracy_low": 0.3, "accuracy_high": 0.5, "true": [[2]]}
    found = by_split("val", {"a": one, "b": two})
    assert found["val/accuracy"] == pytest.approx(0.3)
    assert "val/accuracy_low" not in found
    assert found["val/a/accuracy_low"] == 0.1
    assert by_split("val", {"a": one})["val/accuracy_low"] == 0.1
