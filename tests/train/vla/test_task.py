"""Training end to end: exact to resume, on two ranks, and what a run leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from oxcart.manifests.annotation import read_annotation
from oxcart.shards.errors import ConfigError, CorruptError, OxcartError, StoreError
from oxcart.train.data import Batch, Frames, Loader
from oxcart.train.laq.label import label, open_run
from oxcart.train.loaders import chunks
from oxcart.train.statistics import make_units
from oxcart.train.task import BatchSlice
from oxcart.train.vla import policy as policies
from oxcart.train.vla.config import vla_config
from oxcart.train.vla.emit import emit
from oxcart.train.vla.policy import load_policy, save_policy
from oxcart.train.vla.predict import predict
from oxcart.train.vla.processor import load_processor
from oxcart.train.vla.task import VlaTask
from tiny_laq import assert_same_checkpoints, lines, weights
from tiny_laq import trained as trained_laq
from tiny_vla import CODES, TOKENS, policy, scored, small, trained, write_codes


@pytest.mark.system
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

    def finish(self: VlaTask, model: nn.Module, run: Path, weights: Any) -> None:
        original(self, model, run, weights)
        assert self._policy is not None
        frames = torch.full((2, 32, 32, 3), 90, dtype=torch.uint8)
        model.eval()
        seen.append(emit(self._policy, frames, ["push", "lift"]))

    monkeypatch.setattr(VlaTask, "finish", finish)
    run = tmp_path / "run"
    trained(small(qwen, kitchen, codes, run, f"vla.head={head}", f"vla.tune={tune}", "train.lr=0.01"))
    reloaded, _ = load_policy(run, "cpu")
    again = emit(reloaded, torch.full((2, 32, 32, 3), 90, dtype=torch.uint8), ["push", "lift"])
    if tune == "full":
        assert torch.equal(again[0], seen[0][0])
        assert torch.equal(again[1], seen[0][1])
    else:
        torch.testing.assert_close(again[1], seen[0][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("vlm", "head", "tune"),
    [
        ("qwen25", "tokens", "lora"),
        ("qwen25", "tokens", "full"),
        ("smol", "tokens", "lora"),
        ("smol", "head", "full"),
    ],
)
def test_a_model_of_every_family_comes_back_as_it_was_saved(
    vlm: str, head: str, tune: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(vlm)
    made = policy(model, f"vla.head={head}", f"vla.tune={tune}")
    if tune == "lora":
        with torch.no_grad():
            for name, one in made.model.named_parameters():
                if "lora_B" in name or "trainable_tokens_delta" in name:
                    one += 0.05 * torch.randn(one.shape, generator=torch.Generator().manual_seed(0))
    made.model.eval()
    frames = torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8)
    about = {"frames": [32, 32], "producer": "a" * 64, "laq": None, "lora": tune == "lora"}
    before = emit(made, frames, ["push", "lift"])
    save_policy(made, load_processor(str(model)), tmp_path, str(model), about)
    assert torch.equal(emit(made, frames, ["push", "lift"])[1], before[1]), "saving leaves it as it was"
    again = emit(load_policy(tmp_path, "cpu")[0], frames, ["push", "lift"])
    torch.testing.assert_close(again[1], before[1], rtol=1e-4, atol=1e-5)


def test_a_model_is_saved_through_no_link_and_with_the_mode_that_the_umask_leaves(
    qwen: Path, tmp_path: Path
) -> None:
    run, others = tmp_path / "run", tmp_path / "others"
    for folder in (run, others):
        folder.mkdir()
    (others / "config.json").write_bytes(b"precious")
    (run / ".model").symlink_to(others)
    (run / "model").symlink_to(others)
    about = {"frames": [32, 32], "producer": "a" * 64, "laq": None, "lora": False}
    save_policy(policy(qwen), load_processor(str(qwen)), run, str(qwen), about)
    assert [(path.name, path.read_bytes()) for path in others.iterdir()] == [("config.json", b"precious")]
    assert [path.name for path in run.iterdir()] == ["model"]
    plain = (others / "config.json").stat().st_mode
    assert {path.stat().st_mode for path in (run / "model").iterdir()} == {plain}


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(28, "No space left on device"), True),
        (SafetensorError("I/O error: No space left on device"), True),
        (Exception("No space left on device (os error 28)"), True),
        (TypeError("no such argument"), False),
        (RuntimeError("can't allocate memory"), False),
    ],
)
def test_a_mistake_while_a_model_is_saved_is_not_called_a_full_disk(
    qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, full: bool
) -> None:
    def fail(*given: Any) -> None:
        raise error

    monkeypatch.setattr(policies, "save_processor", fail)
    about = {"frames": [32, 32], "producer": "a" * 64, "laq": None, "lora": False}
    with pytest.raises(StoreError if full else type(error), match=str(error.args[-1])[:15]) as caught:
        save_policy(policy(qwen), load_processor(str(qwen)), tmp_path, str(qwen), about)
    assert ("make room" in str(caught.value)) == full
    assert list(tmp_path.iterdir()) == [], "what was written of it is gone"


def test_a_model_on_disk_that_is_incomplete_or_not_finite_is_refused(qwen: Path, tmp_path: Path) -> None:
    about = {"frames": [32, 32], "producer": "a" * 64, "laq": None, "lora": False}
    folder = save_policy(policy(qwen), load_processor(str(qwen)), tmp_path, str(qwen), about)
    path, described = folder / "model.safetensors", json.loads((folder / "action.json").read_text())
    tensors = load_file(path)
    name = next(one for one in tensors if one.endswith("layernorm.weight"))
    spoiled = tensors[name].clone()
    spoiled[0] = float("nan")
    for changed, said in (
        ({**tensors, name: spoiled}, f"{name} holds numbers that are not finite"),
        ({one: value for one, value in tensors.items() if one != name}, f"lacks the weights {name}"),
        ({**tensors, name: torch.ones(3)}, "cannot be read as a vision-language model"),
    ):
        save_file(changed, path, {"format": "pt"})
        with pytest.raises(
            OxcartError, match=f"^(model: )?{re.escape(str(folder))}.*{re.escape(said)}"
        ) as error:
            load_policy(tmp_path, "cpu")
        assert "\n" not in str(error.value)
    for changed in ({"frames": [1 << 40, 32]}, {"producer": None}, {"laq": 5}, {"shape": 5}):
        (folder / "action.json").write_text(json.dumps({**described, **changed}))
        with pytest.raises(CorruptError, match=r"action\.json: cannot be read: "):
            load_policy(tmp_path, "cpu")


@pytest.mark.system
def test_a_model_that_a_kill_left_unwritten_is_made_up_for(
    qwen: Path, kitchen: Path, codes: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    trained(small(qwen, kitchen, codes, run, "val.every=4"))
    AcceleratorState._reset_state(reset_partial_state=True)
    frames = torch.full((1, 32, 32, 3), 90, dtype=torch.uint8)
    before = emit(load_policy(run, "cpu")[0], frames, ["push"])[1]
    shutil.rmtree(run / "model")
    trained([f"run.dir={run}"], resume=True)
    assert torch.equal(emit(load_policy(run, "cpu")[0], frames, ["push"])[1], before)


@pytest.mark.system
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
    trained(small(qwen, kitchen, codes, run, "val.every=4", "val.samples=1000", "val.baselines=1000"))
    (last,) = lines(run, "val")

    def whole(split: str) -> Batch:
        (batch,) = Loader(
            str(kitchen),
            split,
            sample=Frames(per_episode="all", leave=2),
            batch_size=1000,
            annotations=[str(codes)],
            repeat=False,
        )
        return batch

    known = whole("train").annotations["codes"].long()
    shares = np.stack([np.bincount(known[:, i], minlength=CODES) + 0.5 for i in range(TOKENS)])
    shares /= shares.sum(1, keepdims=True)
    for split in ("val", "val_seen"):
        batch = whole(split)
        made = load_policy(run, "cpu")[0]
        true = batch.annotations["codes"].long()
        said = emit(made, batch.frames, batch.instruction)[0]
        assert last[f"{split}/samples"] == len(true)
        assert last[f"{split}/accuracy"] == pytest.approx((said == true).float().mean().item())
        assert last[f"{split}/exact"] == pytest.approx((said == true).all(1).float().mean().item())
        with torch.no_grad():
            nll = scored(made, batch.frames, batch.instruction, true)[1].item()
        assert last[f"{split}/nll"] == pytest.approx(nll, rel=1e-4)
        by_frequency = -np.log(shares[np.arange(TOKENS), true]).mean()
        assert last[f"{split}/unigram_nll"] == pytest.approx(by_frequency), "of train"
        assert len(last[f"{split}/confusion"]) == CODES
        if split == "val":
            assert last["val/accuracy_low"] <= last["val/accuracy"] <= last["val/accuracy_high"]
        else:
            assert last["val_seen/accuracy_low"] is None, "two episodes are too few"
        assert last[f"{split}/intervals_over"] == "episodes", "there are five kitchens in all"
    assert {"samples.png", "report.md", "config.yaml"} <= {path.name for path in run.iterdir()}


@pytest.mark.system
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
    given = "data.codes=[" + str(codes) + "]", f"data.laq={laq}"
    ways = [
        VlaTask(vla_config([*online, *some, "val.every=4"]), torch.device("cpu"))
        for some in (given, given[1:])
    ]
    found: list[dict[tuple[str, int], list[int]]] = []
    for task in ways:
        every: dict[tuple[str, int], list[int]] = {}
        for loader in task._open(["train", "val"]).values():
            for batch in loader[next(iter(loader))]:
                own = task._labels.of(batch, torch.device("cpu")).tolist()
                every |= dict(zip(zip(batch.key, batch.t.tolist(), strict=True), own, strict=True))
        found.append(every)
    assert len(found[0]) > 100
    assert found[0] == found[1], "code by code"
    first, other = (lines(tmp_path / name, "val")[0] for name in ("run", "online"))
    for name in ("unigram_nll", "unigram_exact", "samples"):
        assert first[f"val/{name}"] == pytest.approx(other[f"val/{name}"])
    Image.new("RGB", (50, 70), "red").save(tmp_path / "a.png")
    made = predict(run, tmp_path / "a.png", "", None, "cpu")
    assert made.frame.shape == (32, 32, 3)
    assert len(made.codes) == 2
    laq.rename(tmp_path / "moved")
    alone = predict(run, tmp_path / "a.png", "", None, "cpu")
    assert (alone.codes, alone.frame) == (made.codes, None)
    assert alone.missing == f"{laq} is not there"
    assert predict(run, tmp_path / "a.png", "", tmp_path / "moved", "cpu").frame is not None
    trained_laq(tmp_path / "other", kitchen, "train.steps=1", "model.image_size=32")
    with pytest.raises(ConfigError, match=r"--laq: .* is the model .* but the codes come from"):
        predict(run, tmp_path / "a.png", "", tmp_path / "other", "cpu")
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(ConfigError, match=r"data\.laq: .* is the model .* but the codes come from"):
        trained(small(qwen, kitchen, codes, tmp_path / "b", f"data.laq={tmp_path / 'other'}"))


def test_codes_of_several_datasets_come_from_their_own_annotations(
    qwen: Path, kitchen: Path, unsplit: Path, codes: Path, tmp_path: Path
) -> None:
    other = write_codes(unsplit, tmp_path / "other.parquet")
    both = f"data.datasets=[{kitchen},{unsplit}]"
    task = VlaTask(
        vla_config(small(qwen, kitchen, codes, tmp_path / "run", both, f"data.codes=[{other},{codes}]")),
        torch.device("cpu"),
    )
    loader = task.loader(0, 1)
    known = {one.dataset: one.values for one in (read_annotation(str(path)) for path in (codes, other))}
    said = {}
    for stream in loader.streams:
        table = stream.index.dataset.table("episodes.parquet", ["key", "instruction"]).to_pylist()
        said[stream.index.dataset.manifest.fingerprint] = {row["key"]: row["instruction"] for row in table}
    seen = set()
    for _, batch in zip(range(12), loader, strict=False):
        found = task._labels.of(batch, torch.device("cpu")).tolist()
        rows = zip(batch.key, batch.instruction, batch.t.tolist(), found, strict=True)
        for key, instruction, t, own in rows:
            of = [name for name, texts in said.items() if texts.get(key) == instruction]
            if len(of) == 1:  # the two samples have some keys in common
                assert own == known[of[0]][key][t].tolist()
                seen.add(of[0])
    assert seen == set(said)
    with pytest.raises(ConfigError, match=r"data\.codes: none is of .*; make one: oxcart label"):
        trained(small(qwen, kitchen, codes, tmp_path / "run", both))
    of_another = write_codes(unsplit, tmp_path / "third.parquet", producer="c" * 64)
    with pytest.raises(ConfigError, match="expected codes of one latent-action model"):
        trained(small(qwen, kitchen, codes, tmp_path / "run", both, f"data.codes=[{codes},{of_another}]"))


@pytest.fixture
def task(qwen: Path, kitchen: Path, codes: Path, tmp_path: Path) -> VlaTask:
    """One that is about to train."""
    made = VlaTask(vla_config(small(qwen, kitchen, codes, tmp_path / "run")), torch.device("cpu"))
    made.build()
    return made


def several(batch: Batch) -> Batch:
    """A batch whose samples have instructions of many lengths."""
    texts = [[], ["push"], ["lift the bowl", "pick up the bowl, then put it down onto the plate"]]
    return replace(batch, instructions=[texts[i % 3] for i in range(len(batch))])


def test_one_of_several_instructions_is_drawn_by_seed_step_and_place(task: VlaTask) -> None:
    batch = several(next(iter(task.loader(0, 1))))
    rows = torch.arange(8)
    said = [task._drawn(batch, BatchSlice(step, rows, 8)) for step in range(40)]
    assert said == [task._drawn(batch, BatchSlice(step, rows, 8)) for step in range(40)]
    assert batch.instructions is not None
    for i, texts in enumerate(batch.instructions):
        assert {one[i] for one in said} == (set(texts) or {""}), "each of them, sooner or later"
    parts = [rows[:3], rows[3:], rows[1::2]]  # of accumulation and of ranks
    for part in parts:
        own = task._drawn(batch.take(part), BatchSlice(7, part, 8))
        assert own == [said[7][i] for i in part.tolist()]


def test_pieces_of_a_batch_are_of_like_length(task: VlaTask) -> None:
    batch = several(next(iter(task.loader(0, 1))))
    place = BatchSlice(3, torch.arange(8), 8)
    order = task.together(batch, place)
    assert order is not None
    assert sorted(order.tolist()) == list(range(8))
    said = task._drawn(batch, place)
    assert task._policy is not None
    lengths = task._policy.prompter.lengths([said[i] for i in order.tolist()])
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_samples_of_validation_say_where_they_come_from(
    qwen: Path, kitchen: Path, codes: Path, tmp_path: Path
) -> None:
    given = small(qwen, kitchen, codes, tmp_path / "run", "val.every=4")
    task = VlaTask(vla_config(given), torch.device("cpu"))
    task.build()
    (loader,) = task._known.values()
    units = task._look(loader, 24, Accelerator(cpu=True), model=False)[0].units
    batches = [batch for _, batch in chunks(loader, 24, task._config.val.seed, (0, 1))]
    places = [name for batch in batches for name in batch.environment]
    keys = [key for batch in batches for key in batch.key]
    steps = np.concatenate([batch.t.numpy() for batch in batches])
    for name, expected in vars(make_units(places, keys, steps)).items():
        assert (getattr(units, name) == expected).all(), name
    assert len(set(places)) > 1


def test_accumulation_equals_the_big_batch(qwen: Path, kitchen: Path, codes: Path, tmp_path: Path) -> None:
    for pieces in (1, 4):
        more = ("augment.shift=0.1", "augment.light=0.2", f"train.accumulate={pieces}", "train.lr=0.01")
        trained(small(qwen, kitchen, codes, tmp_path / str(pieces), *more))
        AcceleratorState._reset_state(reset_partial_state=True)
    one, other = (lines(tmp_path / name) for name in ("1", "4"))
    for name in ("loss", "accuracy", "grad_norm"):
        assert [line[name] for line in other] == pytest.approx([line[name] for line in one], rel=1e-3)


def test_frames_change_by_seed_step_and_place_and_codes_stay(
    qwen: Path, kitchen: Path, codes: Path, tmp_path: Path
) -> None:
    made = {}
    for name in ("shift", "light"):
        given = small(qwen, kitchen, codes, tmp_path / "run", f"augment.{name}=0.2")
        made[name] = VlaTask(vla_config(given), torch.device("cpu"))
    batch = next(iter(made["shift"].loader(0, 1)))
    rows = torch.arange(8)
    for task in made.values():
        whole = task._changed(batch.frames, BatchSlice(2, rows, 8))
        assert whole.dtype == torch.uint8
        assert whole.shape == batch.frames.shape
        assert not torch.equal(whole, batch.frames)
        assert torch.equal(task._changed(batch.frames[3:5], BatchSlice(2, rows[3:5], 8)), whole[3:5])
        assert not torch.equal(task._changed(batch.frames, BatchSlice(3, rows, 8)), whole)
    grey = torch.full((8, 32, 32, 3), 90, dtype=torch.uint8)
    assert torch.equal(made["shift"]._changed(grey, BatchSlice(2, rows, 8)), grey), "moved, nothing else"
    lit = made["light"]._changed(grey, BatchSlice(2, rows, 8))
    assert torch.equal(lit, lit[:, :1, :1].expand_as(lit)), "one light for all of a frame"


def _drop(values: dict[str, Any]) -> None:
    values.pop(sorted(values)[0])


def _blank(values: dict[str, Any]) -> None:
    for one in values.values():
        one[0] = -1


@pytest.mark.parametrize(
    ("changed", "more", "said"),
    [
        ({"name": "motion"}, (), "holds 'motion', expected codes of oxcart label"),
        ({"dataset": "b" * 64}, (), "belongs to the dataset bbbbbbbbbbbb, expected"),
        ({"values": _drop}, (), "has no values for episode"),
        ({"values": _blank}, (), r"has codes \[-1, -1, -1\] at step 0, expected 0 to 3; label it again"),
        ({"codes": 2}, (), "expected 0 to 1"),
        ({}, ("data.offset=7",), r"data\.offset: the codes have an offset of 2, got 7"),
        ({}, ("data.codes=[]",), r"data\.codes: expected labels of each dataset"),
        ({}, ("model=''",), "model: expected a vision-language model"),
        ({}, ("vla.prompt=none",), r"vla\.prompt: 'none' is neither a file nor one of robot"),
        ({}, ("vla.head=heads",), r"vla\.head: expected one of tokens, head; got 'heads'"),
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
    with pytest.raises(ConfigError, match=r"the run has another model: codes\.of"):
        trained([f"run.dir={run}", f"data.codes=[{other}]", "train.steps=2"], resume=True)


def test_an_image_that_is_none_and_a_run_without_a_model_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no model/action\.json in it"):
        predict(tmp_path, tmp_path / "a.png", "push", None)
