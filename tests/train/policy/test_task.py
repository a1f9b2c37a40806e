"""Training end to end: exact to resume, on two ranks, and what a run leaves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from oxcart.shards.errors import ConfigError
from oxcart.train.policy.task import PolicyTask
from tiny_laq import assert_same_checkpoints, lines, weights
from tiny_policy import small, trained

AUGMENTED = ("augment.shift=0.1", "augment.light=0.2")


@pytest.mark.parametrize("loss", ["l1", "flow"])
def test_a_run_that_a_signal_stopped_goes_on_bit_for_bit(
    kitchen: Path, codes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    more = (
        f"policy.loss={loss}",
        f"data.codes=[{codes}]",
        "data.actions=3",
        "train.accumulate=2",
        *AUGMENTED,
    )
    trained(small(kitchen, tmp_path / "whole", *more))
    AcceleratorState._reset_state(reset_partial_state=True)
    original = PolicyTask.after_step

    def after_step(self: PolicyTask, model: nn.Module, now: int, accelerator: Any) -> dict[str, float]:
        if now == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, model, now, accelerator)

    with monkeypatch.context() as patch:
        patch.setattr(PolicyTask, "after_step", after_step)
        assert trained(small(kitchen, tmp_path / "cut", *more)).stopped
    AcceleratorState._reset_state(reset_partial_state=True)
    trained([f"run.dir={tmp_path / 'cut'}"], resume=True)
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "cut")


def test_other_labelled_episodes_are_another_run(kitchen: Path, tmp_path: Path) -> None:
    trained(small(kitchen, tmp_path / "run", "data.actions=2"))
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(ConfigError, match="the run has another model: "):
        trained([f"run.dir={tmp_path / 'run'}", "data.actions=3", "train.steps=6"], resume=True)


@pytest.mark.parametrize("loss", ["l1", "flow"])
def test_pieces_add_up_to_the_whole_batch(kitchen: Path, codes: Path, tmp_path: Path, loss: str) -> None:
    found = []
    for pieces in (1, 4):
        run = tmp_path / str(pieces)
        more = (f"policy.loss={loss}", f"data.codes=[{codes}]", "data.actions=3", *AUGMENTED)
        trained(small(kitchen, run, *more, f"train.accumulate={pieces}"))
        AcceleratorState._reset_state(reset_partial_state=True)
        found.append([line["loss"] for line in lines(run)])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.system
def test_two_ranks_equal_one(kitchen: Path, codes: Path, tmp_path: Path) -> None:
    more = (f"data.codes=[{codes}]", "data.actions=3", "train.steps=3", "val.every=3")
    trained(small(kitchen, tmp_path / "one", *more))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "oxcart.cli.main", "train", "policy"]
    ranks = [
        subprocess.Popen(
            command + small(kitchen, tmp_path / "two", *more),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    for process in ranks:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    one, two = lines(tmp_path / "one"), lines(tmp_path / "two")
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)
    val = [lines(tmp_path / name, "val")[0]["val/l1"] for name in ("one", "two")]
    assert val[1] == pytest.approx(val[0], rel=1e-3)


def test_validation_stands_beside_baselines(kitchen: Path, codes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained(small(kitchen, run, f"data.codes=[{codes}]", "val.every=4", "val.samples=1000"))
    (last,) = lines(run, "val")
    for name in ("l1", "l1_first", "mean_l1", "nearest_l1", "code_nll", "code_accuracy"):
        assert 0 <= last[f"val/{name}"] < 10, name
    assert last["val/held_out (%)"] == 100
    assert {"report.md", "config.yaml", "checkpoints"} <= {path.name for path in run.iterdir()}


def test_an_action_loss_of_no_weight_leaves_the_head_as_it_began(
    kitchen: Path, codes: Path, tmp_path: Path
) -> None:
    found = []
    for steps in (1, 3):
        run = tmp_path / str(steps)
        more = (f"data.codes=[{codes}]", "policy.action_weight=0", "train.weight_decay=0")
        trained(small(kitchen, run, *more, f"train.steps={steps}"))
        AcceleratorState._reset_state(reset_partial_state=True)
        found.append(weights(run))
    head = [name for name in found[0] if name.startswith("head.")]
    assert head
    assert all(torch.equal(found[0][name], found[1][name]) for name in head)
    assert not all(torch.equal(found[0][name], found[1][name]) for name in found[0])
