"""The loop is exact: resumed and accumulated; and it stops as it should."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from depth import few
from laq_process import AUGMENTED, PATCHED, asked, ended, started
from oxcart.shards.errors import ConfigError, CorruptError, NotFiniteError, OxcartError, StoreError
from oxcart.train import checkpoint as checkpoints
from oxcart.train import loop
from oxcart.train.laq.task import LaqTask
from oxcart.train.task import BatchSlice
from tiny_laq import (
    assert_same_checkpoints,
    contents,
    lines,
    rewritten,
    saved,
    small,
    step_of,
    trained,
    weights,
)

STEPS = 5
FIRST = "encoder.stem.stages.0.0.weight"
"""The first weight of the optimizer."""
MOMENT = f"optimizer/{FIRST}"


@pytest.fixture(scope="module")
def whole(kitchen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    run = tmp_path_factory.mktemp("whole") / "run"
    trained(run, kitchen, *AUGMENTED, f"train.steps={STEPS}", "val.every=2")
    return run


KILLED = (
    PATCHED
    + """
from oxcart.train import checkpoint

finish, calls = checkpoint._Storage.finish, []

def killed(*given, **named):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)  # all is written but the name
    finish(*given, **named)

checkpoint._Storage.finish = killed
train_laq(laq_config(sys.argv[1:]))
"""
)


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send this process SIGTERM during a step."""
    original = LaqTask.loss

    def loss(self: LaqTask, model: nn.Module, inputs: dict[str, Tensor], piece: BatchSlice) -> Any:
        if piece.step + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, model, inputs, piece)

    monkeypatch.setattr(LaqTask, "loss", loss)


@pytest.mark.parametrize("step", few(range(1, STEPS), 1, 2))
def test_a_run_that_a_signal_stopped_goes_on_bit_for_bit(
    kitchen: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, step)
        result = trained(run, kitchen, *AUGMENTED, f"train.steps={STEPS}", "val.every=2")
    assert (result.stopped, result.step) == (True, step)
    assert step_of(run) == step
    result = trained(run, kitchen, resume=True)
    assert (result.stopped, result.step) == (False, STEPS)
    assert_same_checkpoints(run, whole)
    kept = ("step", "loss", "grad_norm", "lr")
    mine, theirs = ([{name: line[name] for name in kept} for line in lines(one)] for one in (run, whole))
    assert mine == theirs
    of_val = [[{**line, "seconds": 0} for line in lines(one, "val")] for one in (run, whole)]
    assert of_val[0] == of_val[1]


@pytest.mark.system
def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint_bit_for_bit(
    kitchen: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    given = asked(kitchen, run, *AUGMENTED, f"train.steps={STEPS}", "val.every=2", "train.save_every=3")
    ((code, err),) = ended([started(["-c", KILLED], *given)])
    assert code == -signal.SIGKILL, err
    assert step_of(run) == 3
    folder = run / "checkpoints"
    left = [path for path in folder.iterdir() if path.name.startswith(".")]
    assert len(left) == 1, "it was killed while it wrote"
    assert lines(run)[-1]["step"] == 4
    trained(run, kitchen, resume=True)
    assert_same_checkpoints(run, whole)
    assert [line["step"] for line in lines(run)] == list(range(1, STEPS + 1))
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_finished_run_says_again_how_it_ended(kitchen: Path, tmp_path: Path) -> None:
    first = trained(tmp_path / "run", kitchen, "train.steps=2", "val.every=2")
    again = trained(tmp_path / "run", kitchen, resume=True)
    assert again.step == 2
    assert again.metrics["val/copy_ratio"] == first.metrics["val/copy_ratio"]


def test_a_score_of_other_pairs_does_not_keep_best(kitchen: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained(run, kitchen, "train.steps=2", "val.every=2", "train.lr=0")
    # Without learning the score stays the same, so nothing is better than before.
    trained(run, kitchen, "train.steps=4", "train.lr=0", resume=True)
    assert step_of(run, "best") == 2
    trained(run, kitchen, "train.steps=6", "train.lr=0", "val.samples=5", resume=True)
    assert step_of(run, "best") == 6


def test_replaced_codes_are_added_up_between_lines(kitchen: Path, tmp_path: Path) -> None:
    more = ("train.steps=9", "quantizer.codes=8", "quantizer.replace_every=1", "quantizer.replace_below=0.9")
    for name, every in (("each", 1), ("few", 9)):
        trained(tmp_path / name, kitchen, *more, f"train.log_every={every}")
    total = sum(line.get("codes_replaced", 0) for line in lines(tmp_path / "each"))
    assert [line["codes_replaced"] for line in lines(tmp_path / "few")] == [total]
    assert total > 0


def test_the_same_seed_gives_the_same_run_and_another_another(
    kitchen: Path, whole: Path, tmp_path: Path
) -> None:
    trained(tmp_path / "same", kitchen, *AUGMENTED, f"train.steps={STEPS}", "val.every=2")
    assert_same_checkpoints(tmp_path / "same", whole)
    trained(tmp_path / "other", kitchen, *AUGMENTED, f"train.steps={STEPS}", "val.every=2", "train.seed=1")
    assert not torch.equal(weights(tmp_path / "other")["encoder.queries"], weights(whole)["encoder.queries"])


@pytest.mark.system
def test_accumulation_equals_the_big_batch(kitchen: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained(run, kitchen, *AUGMENTED, f"train.steps={STEPS}", "val.every=2", "train.accumulate=4")
    losses = [line["loss"] for line in lines(whole)]
    assert [line["loss"] for line in lines(run)] == pytest.approx(losses, rel=1e-4)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(run)[name], tensor, rtol=1e-2, atol=1e-4)
    assert torch.equal(weights(run)["quantizer.used"], weights(whole)["quantizer.used"])


def test_gradients_are_clipped_after_the_backward_pass(kitchen: Path, tmp_path: Path) -> None:
    trained(tmp_path / "free", kitchen, "train.steps=1", "train.clip=0")
    trained(tmp_path / "tight", kitchen, "train.steps=1", "train.clip=0.001")
    free, tight = (lines(tmp_path / name)[0]["grad_norm"] for name in ("free", "tight"))
    assert free == tight > 0.001, "the norm that is reported is the one before clipping"
    moments = contents(tmp_path / "tight", "optimizer/")
    # Adam's first moment after one step is a tenth of the gradient.
    firsts = [value.reshape(-1) for name, value in moments.items() if name.endswith("/exp_avg")]
    norm = torch.cat(firsts).norm() / 0.1
    assert norm.item() == pytest.approx(0.001, rel=1e-3)


def test_weight_decay_is_for_matrices_alone(kitchen: Path, tmp_path: Path) -> None:
    config = small(kitchen, tmp_path)
    task = LaqTask(config, torch.device("cpu"))
    model = task.build()
    decayed, kept, codes = task.groups(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert decayed["weight_decay"] == config.train.weight_decay
    assert kept["weight_decay"] == 0
    for parameter in decayed["params"]:
        assert parameter.ndim >= 2
    free = {names[id(parameter)] for parameter in kept["params"]}
    assert [names[id(parameter)] for parameter in codes["params"]] == ["quantizer.codebook"]
    assert codes["weight_decay"] == 0
    assert {"encoder.position", "encoder.queries", "decoder.position"} <= free
    assert len(free) + len(decayed["params"]) + 1 == len(names)


def test_the_learning_rate_of_every_step_is_the_schedules(kitchen: Path, whole: Path) -> None:
    config = small(kitchen, whole, *AUGMENTED, f"train.steps={STEPS}").train
    assert [line["lr"] for line in lines(whole)] == [
        loop.learning_rate(step, config) for step in range(STEPS)
    ]


def test_a_loss_that_is_not_finite_stops_with_step_keys_and_checkpoint(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = LaqTask.loss

    def loss(
        self: LaqTask, model: nn.Module, batch: Any, piece: BatchSlice
    ) -> tuple[Tensor, dict[str, Tensor]]:
        value, metrics = original(self, model, batch, piece)
        return (value * float("nan") if piece.step == 3 else value), metrics

    monkeypatch.setattr(LaqTask, "loss", loss)
    run = tmp_path / "run"
    with pytest.raises(OxcartError) as error:
        trained(run, kitchen, "train.save_every=2", "train.log_every=2")
    said = str(error.value)
    assert said.startswith("step 4: the loss is nan")
    assert "batch of oxcart_kitchens-train-0" in said
    assert f"the last checkpoint is {run}/checkpoints/last-000000002; try" in said
    assert "\n" not in said
    assert step_of(run) == 2
    assert all(tensor.isfinite().all() for tensor in weights(run).values())


@pytest.mark.parametrize(
    "form",
    [
        ("model.kind=layered",),
        ("model.kind=residual", "train.clip=1"),
        ("model.kind=layered", "train.precision=bf16", "train.accumulate=2"),
        ("model.kind=plain", "quantizer.kind=fsq"),
    ],
    ids=",".join,
)
def test_a_run_that_diverges_ends_in_one_line_and_saves_nothing(
    kitchen: Path, tmp_path: Path, form: tuple[str, ...]
) -> None:
    if "quantizer.kind=fsq" in form:
        pytest.importorskip("vector_quantize_pytorch")
    run = tmp_path / "run"
    much = ("train.lr=1e8", "train.warmup=0", "train.clip=0", "train.log_every=100")
    with pytest.raises(
        NotFiniteError, match=r"^step \d: .*; batch of .* t=\d.*; none was saved; try"
    ) as error:
        trained(run, kitchen, *much, *form)
    assert "\n" not in str(error.value)
    assert not (run / "checkpoints").exists()


@pytest.mark.parametrize("what", ["weights", "moments"])
def test_weights_that_an_update_spoils_are_neither_validated_nor_saved(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Loss and gradient of the step were finite, and nothing of the next one has been seen."""
    update = torch.optim.AdamW.step
    steps = 0

    def step(self: torch.optim.AdamW, closure: Any = None) -> None:
        nonlocal steps
        steps += 1
        update(self, closure)
        first = self.param_groups[0]["params"][0]
        spoiled = first.data if what == "weights" else self.state[first]["exp_avg_sq"]
        spoiled.view(-1)[0] = float("inf") if steps == 4 else spoiled.view(-1)[0]

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    run = tmp_path / "run"
    with pytest.raises(NotFiniteError) as error:
        trained(run, kitchen, "train.steps=4", "train.save_every=2", "val.every=4")
    assert str(error.value).startswith(
        "step 4: model/" if what == "weights" else f"step 4: optimizer/{FIRST}/exp_avg_sq"
    )
    assert "is not finite after its update; batch of oxcart_kitchens-train-0" in str(error.value)
    assert "/last-000000002; " in str(error.value)
    assert lines(run, "val") == []
    assert step_of(run) == 2


def test_a_last_step_that_validation_refuses_does_not_replace_the_checkpoint_before_it(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are finite, and what they make of frames is not."""
    update, validate = torch.optim.AdamW.step, LaqTask.validate
    steps, huge = 0, 0.0

    def step(self: torch.optim.AdamW, closure: Any = None) -> None:
        nonlocal steps
        steps += 1
        update(self, closure)
        if steps == 4:
            for group in self.param_groups:
                for one in group["params"]:
                    one.data.mul_(1e25)

    def validated(self: LaqTask, model: nn.Module, now: int, *rest: Any) -> dict[str, Any]:
        nonlocal huge
        huge = max(one.abs().max().item() for one in model.parameters())
        return validate(self, model, now, *rest)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        patch.setattr(LaqTask, "validate", validated)
        with pytest.raises(
            NotFiniteError, match=r"^step 4, validation: .* are not finite; the last "
        ) as error:
            trained(run, kitchen, "train.steps=4", "train.save_every=2", "val.every=4")
    assert 1e20 < huge < float("inf")
    assert f"the last checkpoint is {saved(run)}" in str(error.value)
    assert step_of(run) == 2
    assert trained(run, kitchen, resume=True).step == 4


def test_a_last_validation_that_fails_costs_no_step(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def validate(self: LaqTask, model: nn.Module, step: int, *rest: Any) -> dict[str, Any]:
        torch.rand(1)
        raise StoreError("the store is gone")

    run = tmp_path / "run"
    given = ("train.steps=3", "val.every=3")
    with monkeypatch.context() as patch:
        patch.setattr(LaqTask, "validate", validate)
        with pytest.raises(StoreError, match="the store is gone"):
            trained(run, kitchen, *given)
    assert step_of(run) == 3
    assert lines(run, "val") == []
    assert trained(run, kitchen, resume=True).step == 3
    assert [line["step"] for line in lines(run, "val")] == [3]
    trained(tmp_path / "whole", kitchen, *given)
    assert_same_checkpoints(run, tmp_path / "whole")


def test_a_run_is_not_begun_where_one_is(kitchen: Path, whole: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.dir: .* holds a run; pass --resume auto"):
        trained(whole, kitchen)


def test_resume_without_a_run_begins_one(kitchen: Path, tmp_path: Path) -> None:
    config = small(kitchen, tmp_path / "run", "train.steps=1")
    from oxcart.train.laq.task import train_laq

    assert train_laq(config, resume=True).step == 1


def test_a_resumed_run_may_go_on_for_longer_but_not_shorter(kitchen: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained(run, kitchen, "train.steps=2")
    assert trained(run, kitchen, "train.steps=4", resume=True).step == 4
    with pytest.raises(ConfigError, match=r"train\.steps: the run has done 4 already, got 3"):
        trained(run, kitchen, "train.steps=3", resume=True)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.batch_size=4", "batch_size was 8, is 4"),
        ("data.limit.train=3", r"episodes was \[\d+\], is \[3\]"),
        ("data.offset=3", "sample.frames was 2, is 3"),
        ("train.seed=5", "seed was 0, is 5"),
    ],
)
def test_other_data_is_refused_with_what_differs_unless_allowed(
    kitchen: Path, tmp_path: Path, override: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    trained(run, kitchen, "train.steps=1")
    with pytest.raises(ConfigError, match=f"the run would resume with other data: .*{said}.*--allow-changes"):
        trained(run, kitchen, "train.steps=2", override, resume=True)
    given = ("train.steps=2", "run.quiet=false", override)
    assert trained(run, kitchen, *given, resume=True, allow_changes=True).step == 2
    anew = "their epochs begin anew at step 1" in capsys.readouterr().err
    assert anew == (not override.startswith("data.batch_size")), "a place in the same order is kept"


def test_a_resumed_run_takes_the_decay_and_betas_that_are_asked_for_now(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, groups = tmp_path / "run", []
    update = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, closure: Any = None) -> None:
        groups.append([{**group} for group in self.param_groups])
        update(self, closure)

    trained(run, kitchen, "train.steps=1")
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    trained(run, kitchen, "train.steps=2", "train.weight_decay=0.5", "train.betas=[0.5,0.6]", resume=True)
    (used,) = groups
    assert [group["weight_decay"] for group in used] == [0.5, 0.0, 0.0]
    assert all(tuple(group["betas"]) == (0.5, 0.6) for group in used)


def test_another_dataset_is_refused(kitchen: Path, unsplit: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained(run, kitchen, "train.steps=1")
    with pytest.raises(ConfigError, match=r"the run would resume with other data: .*fingerprint was"):
        trained(run, kitchen, "train.steps=2", f"data.datasets=[{unsplit}]", resume=True)


def test_another_model_is_refused_even_so(kitchen: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained(run, kitchen, "train.steps=1")
    with pytest.raises(ConfigError, match=r"another model: model\.width was 16, is 32"):
        trained(run, kitchen, "train.steps=2", "model.width=32", resume=True, allow_changes=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda about: about["state"].pop("identity"), "identity: expected dict, got 'None'"),
        (lambda about: about["state"].pop("loader"), "loader: expected dict, got 'None'"),
        (lambda about: about["state"]["loader"].pop("order"), "order: expected dict, got 'None'"),
        (lambda about: about["state"]["loader"].update(position="far"), "position: expected int, got 'far'"),
        (lambda about: about["state"].pop("validated"), "validated: expected int, got 'None'"),
        (lambda about: about["state"].update(best="low"), "best: expected float, got 'low'"),
        (
            lambda about: about["state"]["loader"].update(position=-5),
            "loader: state: .* position -5",
        ),
        (
            lambda about: about["state"]["loader"].update(position=10**30),
            "loader: state: .* position 10{30}",
        ),
        (
            lambda about: about["state"]["loader"].update(version=7),
            "loader: state: .* got version 7, ",
        ),
        (lambda about: about.update(version=1), "version 1, expected 2"),
        (lambda about: about.pop("files"), "not a checkpoint, or cut off: 'files'"),
        (
            lambda about: about["files"].update({"shard-2.safetensors": 9}),
            "not a checkpoint, or cut off: .*No ",
        ),
    ],
)
def test_a_run_does_not_go_on_from_a_header_that_is_wrong(
    kitchen: Path, whole: Path, tmp_path: Path, change: Any, said: str
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    path = rewritten(saved(whole), saved(tmp_path / "run"), change)
    with pytest.raises(CorruptError, match=f"^{re.escape(str(path))}: {said}"):
        trained(tmp_path / "run", kitchen, resume=True)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("model/decoder.motion.bias", "gone"),
        ("model/decoder.motion.bias", "wide"),
        (f"optimizer/{FIRST}/exp_avg", "wide"),
        ("random/0/cpu", "wide"),
    ],
)
def test_a_run_does_not_go_on_from_tensors_of_another_model(
    kitchen: Path, whole: Path, tmp_path: Path, name: str, how: str
) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        tensor = tensors.pop(name)
        if how == "wide":
            tensors[name] = torch.zeros(*tensor.shape[:-1], tensor.shape[-1] + 1, dtype=tensor.dtype)

    shutil.copytree(whole, tmp_path / "run")
    path = rewritten(saved(whole), saved(tmp_path / "run"), lambda about: None, spoil)
    with pytest.raises(CorruptError, match=f"^{re.escape(str(path))}: "):
        trained(tmp_path / "run", kitchen, resume=True)


def filled(name: str, number: float) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors[name].fill_(number)


def without(start: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith(start)]


def put(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors.update({name: tensor})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without(f"{MOMENT}/step"), rf"{MOMENT}/step: expected \[\], got none"),
        (without(f"{MOMENT}/exp_avg_sq"), rf"{MOMENT}/exp_avg_sq: expected \[.+\], got none"),
        (without("optimizer/"), "there is no moment of the optimizer"),
        (without("random/"), "there is no random/0/cpu, the random state of rank 0"),
        (put(f"{MOMENT}/exp_avg", torch.zeros(())), rf"{MOMENT}/exp_avg: expected \[.+\], got \[\]"),
        (put(f"{MOMENT}/exp_avg", torch.full((9,), float("nan"))), rf"{MOMENT}/exp_avg: .* got \[9\]"),
        (put(f"{MOMENT}/more", torch.ones(())), rf"{MOMENT}/more: expected none, got \[\]"),
        (put("optimizer/nobody/step", torch.ones(())), "optimizer/nobody belongs to no weight of the model"),
        (put(f"{MOMENT}/step", torch.ones((), dtype=torch.int64)), f"{MOMENT}/step holds torch.int64"),
        (filled(f"{MOMENT}/exp_avg", float("nan")), f"{MOMENT}/exp_avg holds numbers that are not finite"),
        (filled(f"{MOMENT}/step", -1), f"{MOMENT}/step: expected at least 1, got -1"),
        (filled(f"{MOMENT}/exp_avg_sq", -1), f"{MOMENT}/exp_avg_sq holds numbers below 0"),
    ],
)
def test_a_run_does_not_go_on_from_moments_that_no_optimizer_makes(
    kitchen: Path, whole: Path, tmp_path: Path, spoil: Callable[[dict[str, Tensor]], Any], said: str
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    path = rewritten(saved(whole), saved(tmp_path / "run"), lambda about: None, spoil)
    with pytest.raises(CorruptError, match=f"^{re.escape(str(path))}: {said}") as error:
        trained(tmp_path / "run", kitchen, resume=True)
    assert "\n" not in str(error.value)


def test_a_batch_that_cannot_be_shared_out_is_refused(kitchen: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.batch_size: expected a multiple of 3 \(1 ranks x "):
        trained(tmp_path / "run", kitchen, "train.accumulate=3")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_gpu_is_said(kitchen: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.device: cuda is requested, but torch sees no GPU"):
        trained(tmp_path / "run", kitchen, "train.device=cuda")


def test_a_disk_that_fills_leaves_the_last_checkpoint(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    trained(run, kitchen, "train.steps=2")
    before = contents(run)

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._Storage, "write_data", full)
    with pytest.raises(StoreError, match="No space left on device"):
        trained(run, kitchen, "train.steps=4", resume=True)
    assert step_of(run) == 2
    assert all(torch.equal(one, before[name]) for name, one in contents(run).items())


def test_metrics_have_the_fields_names(whole: Path) -> None:
    (last,) = lines(whole)[-1:]
    assert {"loss", "mse", "grad_norm", "lr"} <= set(last)
    trained_long = [line for line in lines(whole) if "throughput" in line]
    assert trained_long == [], "the first ten steps are in no rate"


def test_rates_come_after_ten_steps(kitchen: Path, tmp_path: Path) -> None:
    trained(tmp_path / "run", kitchen, "train.steps=12")
    last = lines(tmp_path / "run")[-1]
    assert {"throughput", "data_loading (%)", "tflops"} <= set(last)
    assert last["mfu (%)"] is None, "nobody states the FLOP/s of a CPU"


def test_the_run_says_what_it_was_made_of(kitchen: Path, whole: Path) -> None:
    about = json.loads((whole / "run.json").read_text())
    manifest = json.loads((kitchen / "manifest.json").read_text())
    assert about["datasets"] == {str(kitchen): manifest["fingerprint"]}
    assert {"torch", "accelerate", "numpy"} <= set(about["versions"])
    assert about["world_size"] == 1
    assert (whole / "config.yaml").read_text().startswith("preset: tiny\n")


def test_checkpointing_and_bf16_train(kitchen: Path, tmp_path: Path) -> None:
    given = ("train.steps=3", "quantizer.start=normal")  # k-means may part on a rounding
    trained(tmp_path / "plain", kitchen, *given)
    trained(tmp_path / "again", kitchen, *given, "model.checkpointing=true")
    plain, again = ([line["loss"] for line in lines(tmp_path / name)] for name in ("plain", "again"))
    assert again == pytest.approx(plain, rel=1e-5)
    AcceleratorState._reset_state(reset_partial_state=True)
    trained(tmp_path / "half", kitchen, *given, "train.precision=bf16")
    half = [line["loss"] for line in lines(tmp_path / "half")]
    assert half == pytest.approx(plain, rel=0.05)
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights(tmp_path / "half").values())


@pytest.mark.parametrize("kind", ["vq", "diveq", "fsq"])
def test_the_packages_quantizers_train_and_resume_bit_for_bit(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pytest.importorskip("vector_quantize_pytorch")
    given = ("train.steps=3", f"quantizer.kind={kind}")
    trained(tmp_path / "whole", kitchen, *given)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert trained(tmp_path / "run", kitchen, *given).step == 2
    trained(tmp_path / "run", kitchen, resume=True)
    assert_same_checkpoints(tmp_path / "run", tmp_path / "whole")
