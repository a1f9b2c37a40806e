"""Validation, labels, evaluation and prediction compute in the precision of the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

import tiny_laq
import tiny_vla
from oxcart.train.device import in_bf16, use_tf32
from oxcart.train.evaluate.strategy import Context
from oxcart.train.laq.label import imagine, open_run
from oxcart.train.laq.model import LatentActionModel
from oxcart.train.laq.space_time import SpaceTime
from oxcart.train.vla.emit import emit
from oxcart.train.vla.model import ActionModel
from oxcart.train.vla.policy import load_policy
from oxcart.train.vla.tiny import VlmConfig, write_vlm

CPU = torch.device("cpu")


def types(model: torch.nn.Module) -> list[torch.dtype]:
    """Gathers the types of what its linear layers compute."""
    found: list[torch.dtype] = []
    for one in model.modules():
        if isinstance(one, torch.nn.Linear):
            one.register_forward_hook(lambda module, given, out: found.append(out.dtype))
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_codebooks_start_from_latents_in_the_precision_of_the_run(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    seen: list[bool] = []
    original = SpaceTime.latents

    def latents(self: SpaceTime, frames: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return original(self, frames)

    monkeypatch.setattr(SpaceTime, "latents", latents)
    given = ("train.steps=1", f"train.precision={precision}")
    tiny_laq.trained(tmp_path / "kmeans", kitchen, *given)
    assert set(seen) == {precision == "bf16"}
    with_start = len(seen)
    AcceleratorState._reset_state(reset_partial_state=True)
    tiny_laq.trained(tmp_path / "normal", kitchen, *given, "quantizer.start=normal")
    assert len(seen) == 2 * with_start - 1, "a codebook that is drawn needs no latents"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_latent_action_model_computes_in_the_precision_of_its_run(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    seen: list[bool] = []
    original = LatentActionModel.encode

    def encode(self: LatentActionModel, frames: torch.Tensor) -> torch.Tensor:
        seen.append(self.bf16)
        return original(self, frames)

    monkeypatch.setattr(LatentActionModel, "encode", encode)
    given = ("train.steps=1", "val.every=1", f"train.precision={precision}")
    tiny_laq.trained(tmp_path / "run", kitchen, *given)
    assert set(seen) == {precision == "bf16"}, "validation"
    labeller = open_run(tmp_path / "run", device="cpu")
    wanted = torch.bfloat16 if precision == "bf16" else torch.float32
    found = types(labeller.model)
    frames = torch.randint(256, (2, 2, 16, 16, 3), dtype=torch.uint8)
    codes = labeller.model.encode(frames.permute(0, 1, 4, 2, 3) / 127.5 - 1)
    imagine(labeller, frames[:, 0], codes)
    context = Context(model=labeller.model, device=CPU, meter=None, sentences=None)
    assert context.latents(frames.numpy()).dtype == np.float64
    assert wanted in found
    assert torch.bfloat16 not in set(found) - {wanted}


def test_a_policy_emits_codes_in_the_precision_of_its_run(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write_vlm(tmp_path / "vlm", VlmConfig(width=32, layers=1, vision_layers=1, image_size=32, patch=8))
    codes = tiny_vla.write_codes(kitchen, tmp_path / "codes.parquet")
    given = tiny_vla.small(tmp_path / "vlm", kitchen, codes, tmp_path / "run", "train.steps=1")
    tiny_vla.trained([*given, "train.precision=bf16"])
    policy, _ = load_policy(tmp_path / "run", "cpu")
    assert isinstance(policy.model, ActionModel)
    found = types(policy.model)
    _, probabilities = emit(policy, torch.zeros(1, 32, 32, 3, dtype=torch.uint8), ["push"])
    assert set(found) == {torch.bfloat16}
    assert probabilities.dtype == torch.float32


def test_auto_is_bf16_on_a_gpu_alone() -> None:
    assert not in_bf16("auto", CPU)
    assert in_bf16("auto", torch.device("cuda"))
    assert not in_bf16("fp32", torch.device("cuda"))
    assert in_bf16("bf16", CPU)


@pytest.fixture
def _flags() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.usefixtures("_flags")
def test_tf32_is_turned_on_and_off() -> None:
    for on in (True, False):
        use_tf32(on)
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == on
