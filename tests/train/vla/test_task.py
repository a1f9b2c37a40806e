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
from PIL import Image
from torch import nn

from oxcart.shards.errors import ConfigError
from oxcart.train.laq.label import label, open_run
from oxcart.train.vla.emit import emit
from oxcart.train.vla.policy import load_policy
from oxcart.train.vla.predict import predict
from oxcart.train.vla.task import VlaTask
from tiny_laq import assert_same_checkpoints, lines, weights
from tiny_laq import trained as trained_laq
from tiny_vla import CODES, small, trained, write_codes


def test_a_run_that_a_signal_stopped_goes_on_bit_for_bit(
    qwen: Path, kitchen: Path, codes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("vla.new_rate=2", "train.accumulate=2", "val.every=2")
    trained(small(qwen, kitchen, codes, tmp_path / "whole", *more))
    AcceleratorState._reset_state(reset_partial_state=True)
    original = VlaTask.after_step

    def after_step(self: VlaTask, model: nn.Module, now: int, accelerator: Any) -> dict[str, float]:
        if now == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, model, now, accelerator)

    with monkeypatch.context() as patch:
        patch.setattr(VlaTask, "after_step", after_step)
        assert trained(small(qwen, kitchen, codes, tmp_path / "cut", *more)).stopped
    AcceleratorState._reset_state(reset_partial_state=True)
    trained([f"run.dir={tmp_path / 'cut'}"], resume=True)
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(("head", "tune"), [("tokens", "full"), ("head", "full"), ("tokens", "lora")])
def test_a_reloaded_run_predicts_what_the_run_did(
    qwen: Path,
    kitchen: Path,
    codes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    head: str,
    tune: str,
) -> None:
    seen: list[Any] = []
    original = VlaTask.finish

    def finish(self: VlaTask, model: nn.Module, run: Path) -> None:
        original(self, model, run)
        assert self._policy is not None
        frames = torch.full((2, 32, 32, 3), 90, dtype=torch.uint8)
        model.eval()
        seen.append(emit(self._policy, frames, ["push", "lift"]))

    monkeypatch.setattr(VlaTask, "finish", finish)
    run = tmp_path / "run"
    trained(small(qwen, kitchen, codes, run, f"vla.head={head}", f"vla.tune={tune}", "train.lr=0.01"))
    policy, _ = load_policy(run, "cpu")
    again = emit(policy, torch.full((2, 32, 32, 3), 90, dtype=torch.uint8), ["push", "lift"])
    if tune == "full":
        assert torch.equal(again[0], seen[0][0])
        assert torch.equal(again[1], seen[0][1])
    else:
        torch.testing.assert_close(again[1], seen[0][1], rtol=1e-4, atol=1e-5)


def test_two_ranks_equal_one(qwen: Path, kitchen: Path, codes: Path, tmp_path: Path) -> None:
    more = ("train.steps=3", "val.every=3")
    trained(small(qwen, kitchen, codes, tmp_path / "one", *more))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "oxcart.cli.main", "train", "vla"]
    command += small(qwen, kitchen, codes, tmp_path / "two", *more)
    ranks = [
        subprocess.Popen(
            command,
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
    val = [lines(tmp_path / name, "val")[0]["val/nll"] for name in ("one", "two")]
    assert val[1] == pytest.approx(val[0], rel=1e-3)


def test_new_rows_learn_at_their_own_rate(qwen: Path, kitchen: Path, codes: Path, tmp_path: Path) -> None:
    found = []
    for rate in (0, 1):
        run = tmp_path / str(rate)
        trained(small(qwen, kitchen, codes, run, f"vla.new_rate={rate}", "train.steps=1", "train.warmup=0"))
        AcceleratorState._reset_state(reset_partial_state=True)
        found.append(weights(run)["backbone.model.language_model.embed_tokens.weight"])
    ids = load_policy(run, "cpu")[0].model.ids.all
    others = [i for i in range(len(found[0])) if i not in ids]
    assert torch.equal(found[0][others], found[1][others])
    assert not torch.isclose(found[0][ids], found[1][ids]).all()


def test_validation_stands_beside_baselines(qwen: Path, kitchen: Path, codes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained(small(qwen, kitchen, codes, run, "val.every=4"))
    (last,) = lines(run, "val")
    for split in ("val", "val_seen"):
        for name in ("accuracy", "exact", "unigram_accuracy", "instruction_exact", "nearest_accuracy"):
            assert 0 <= last[f"{split}/{name}"] <= 1
        assert len(last[f"{split}/confusion"]) == CODES
        assert last[f"{split}/accuracy_low"] <= last[f"{split}/accuracy"] <= last[f"{split}/accuracy_high"]
    assert {"samples.png", "report.md", "config.yaml"} <= {path.name for path in run.iterdir()}


def test_codes_made_while_training_are_those_of_the_annotation(
    qwen: Path, kitchen: Path, tmp_path: Path
) -> None:
    laq = tmp_path / "laq"
    trained_laq(laq, kitchen, "train.steps=2", "model.image_size=32")
    AcceleratorState._reset_state(reset_partial_state=True)
    codes = tmp_path / "codes.parquet"
    label(str(kitchen), open_run(laq), str(codes))
    run = tmp_path / "run"
    trained(small(qwen, kitchen, codes, run, f"data.laq={laq}", "val.every=4"))
    AcceleratorState._reset_state(reset_partial_state=True)
    online = [text for text in small(qwen, kitchen, codes, tmp_path / "online") if "data.codes" not in text]
    trained([*online, f"data.laq={laq}", "val.every=4"])
    AcceleratorState._reset_state(reset_partial_state=True)
    first, other = (lines(tmp_path / name, "val")[0] for name in ("run", "online"))
    for name in ("unigram_nll", "unigram_exact", "samples"):
        assert first[f"val/{name}"] == pytest.approx(other[f"val/{name}"])
    Image.new("RGB", (50, 70), "red").save(tmp_path / "a.png")
    made = predict(run, tmp_path / "a.png", "", None, "cpu")
    assert made.frame.shape == (32, 32, 3)
    assert len(made.codes) == 2
    trained_laq(tmp_path / "other", kitchen, "train.steps=1", "model.image_size=32")
    with pytest.raises(ConfigError, match=r"--laq: .* is the model .* and the codes are of"):
        predict(run, tmp_path / "a.png", "", tmp_path / "other", "cpu")
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(ConfigError, match=r"data\.laq: .* is the model .* and the codes are of"):
        trained(small(qwen, kitchen, codes, tmp_path / "b", f"data.laq={tmp_path / 'other'}"))


def _drop(values: dict[str, Any]) -> None:
    values.pop(sorted(values)[0])


def _blank(values: dict[str, Any]) -> None:
    for one in values.values():
        one[0] = -1


@pytest.mark.parametrize(
    ("changed", "more", "said"),
    [
        ({"name": "motion"}, (), "holds 'motion', expected codes of oxcart label"),
        ({"dataset": "b" * 64}, (), "is of the dataset bbbbbbbbbbbb, expected"),
        ({"values": _drop}, (), "has no values for episode"),
        ({"values": _blank}, (), r"has codes \[-1, -1, -1\] at step 0, expected 0 to 3; label it again"),
        ({"codes": 2}, (), "expected 0 to 1"),
        ({}, ("data.offset=7",), r"data\.offset: codes reach 2 steps ahead, got 7"),
        ({}, ("data.codes=[]",), r"data\.codes: expected an annotation of each dataset"),
        ({}, ("model=''",), "model: expected a vision-language model"),
        ({}, ("vla.prompt=none",), r"vla\.prompt: 'none' is neither a file nor one of robot"),
        ({}, ("vla.head=heads",), r"vla\.head: expected tokens, replace, head; got 'heads'"),
    ],
)
def test_bad_input_is_one_clear_line(
    qwen: Path, kitchen: Path, tmp_path: Path, changed: dict[str, Any], more: tuple[str, ...], said: str
) -> None:
    codes = write_codes(kitchen, tmp_path / "codes.parquet", **changed)
    with pytest.raises(ConfigError, match=said) as caught:
        trained(small(qwen, kitchen, codes, tmp_path / "run", "val.every=4", *more))
    assert "\n" not in str(caught.value)


def test_codes_of_another_model_are_refused_on_resume(
    qwen: Path, kitchen: Path, codes: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    trained(small(qwen, kitchen, codes, run, "train.steps=1"))
    AcceleratorState._reset_state(reset_partial_state=True)
    other = write_codes(kitchen, tmp_path / "other.parquet", producer="c" * 64)
    with pytest.raises(ConfigError, match=r"the run is of another model: codes\.of"):
        trained([f"run.dir={run}", f"data.codes=[{other}]", "train.steps=2"], resume=True)


def test_a_picture_that_is_none_and_a_run_without_a_model_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no model/action\.json in it"):
        predict(tmp_path, tmp_path / "a.png", "push", None)
