"""Flow as a target."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from oxcart.shards.errors import ConfigError
from oxcart.train.flow import build_teacher, dis_flow, flow_loss
from tiny_laq import lines, trained

CPU = torch.device("cpu")


def test_dis_finds_a_shift() -> None:
    pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    small = torch.from_numpy(rng.random((1, 1, 12, 12), np.float32))
    big = torch.nn.functional.interpolate(small, size=(64, 64), mode="bicubic").clamp(0, 1)[0, 0]
    first = (big.numpy() * 255).astype(np.uint8)[..., None].repeat(3, -1)
    second = np.roll(first, 3, axis=1)
    found = dis_flow(first, second)[16:48, 16:48]
    assert found[..., 0].mean() == pytest.approx(3, abs=0.5)
    assert found[..., 1].mean() == pytest.approx(0, abs=0.5)


def test_the_teacher_sees_every_pair_of_a_batch() -> None:
    pytest.importorskip("cv2")
    teacher = build_teacher("dis", None, CPU)
    assert teacher is not None
    frames = torch.randint(256, (3, 2, 32, 32, 3), dtype=torch.uint8)
    found = teacher(frames, torch.zeros(3, 2, 3, 32, 32))
    assert found.shape == (3, 2, 32, 32)
    alone = dis_flow(frames[1, 0].numpy(), frames[1, 1].numpy())
    assert torch.equal(found[1].permute(1, 2, 0), torch.from_numpy(alone))


def test_the_loss_is_a_distance_in_widths() -> None:
    target = torch.zeros(1, 2, 8, 8)
    target[:, 0] = 4.0
    assert flow_loss(torch.zeros(1, 2, 2, 2), target).item() == pytest.approx(0.5, abs=1e-3)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ConfigError, match="dis needs OpenCV"):
        build_teacher("dis", None, CPU)
    with pytest.raises(ConfigError, match="raft needs torchvision; install it, or use"):
        build_teacher("raft", None, CPU)
    assert build_teacher("none", None, CPU) is None


def test_a_flow_decoder_trains(kitchen: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    trained(
        tmp_path / "run",
        kitchen,
        "train.steps=3",
        "model.kind=residual",
        "flow.teacher=dis",
        "flow.warmup=2",
        "quantizer.follow=0",
    )
    found = lines(tmp_path / "run")
    assert all(line["flow"] > 0 for line in found)
    weights = [(line["loss"] - 4 * line["mse"]) / line["flow"] for line in found]
    assert weights == pytest.approx([0, 2.5, 5], abs=1e-3), "the weight rises from nothing"
