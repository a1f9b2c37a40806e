"""`Batch.lerobot()` is what LeRobot's policies read: names, shapes, dtypes, ranges and masks.

Three modules stand in for ACT, diffusion policy and SmolVLA of LeRobot 0.6: they read the same keys, stack,
mask and pad them likewise, and learn. `bench/lerobot_policies.py` trains the real ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from oxcart.shards.errors import ConfigError
from oxcart.train.data import Loader, Mixture, Pairs, Window

Datasets = Mapping[str, Path]
Inputs = dict[str, Any]
PRIMARY, WRIST = "observation.images.primary", "observation.images.wrist"
CHUNK = range(8)
ONE = Window(frames={"primary": 0, "wrist": 0}, state=0, action=CHUNK, pad="repeat", per_episode="all")


def encoder() -> nn.Module:
    """Images [B, 3, H, W] -> features [B, 16]."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())


def masked(error: Tensor, is_pad: Tensor) -> Tensor:
    """Mean error [B, K, A] of the steps that are not padding."""
    valid = ~is_pad.unsqueeze(-1)
    return (error * valid).sum() / (valid.sum() * error.shape[-1]).clamp_min(1)


class Act(nn.Module):
    """One observation of two cameras -> a chunk of actions, as ACT; masked L1."""

    def __init__(self) -> None:
        super().__init__()
        self.see = encoder()
        self.act = nn.Linear(2 * 16 + 3, len(CHUNK) * 4)

    def forward(self, batch: Inputs) -> Tensor:
        images = [batch[key] for key in (PRIMARY, WRIST)]
        assert all(image.ndim == 4 for image in images)
        features = [*map(self.see, images), batch["observation.state"]]
        actions = self.act(torch.cat(features, dim=-1)).view_as(batch["action"])
        return masked((batch["action"] - actions).abs(), batch["action_is_pad"])


class Diffusion(nn.Module):
    """Two observations of one camera -> a horizon of actions, as diffusion policy; masked squares."""

    def __init__(self) -> None:
        super().__init__()
        self.see = encoder()
        self.denoise = nn.Linear(2 * (16 + 3) + 8 * 4, 8 * 4)

    def forward(self, batch: Inputs) -> Tensor:
        images = torch.stack([batch[key] for key in (PRIMARY,)], dim=-4)
        assert set(batch) >= {"observation.state", "action", "action_is_pad"}
        count, observed, cameras = images.shape[:3]
        assert (observed, cameras) == (2, 1)
        seen = self.see(images.flatten(0, 2)).view(count, observed, -1)
        given = torch.cat([seen, batch["observation.state"]], dim=-1).flatten(1)
        noise = torch.randn(batch["action"].shape, generator=torch.Generator().manual_seed(0))
        noisy = (batch["action"] + noise).flatten(1)
        made = self.denoise(torch.cat([given, noisy], dim=-1)).view_as(noise)
        return masked((made - noise) ** 2, batch["action_is_pad"])


class SmolVla(nn.Module):
    """The last frame of each camera and the task -> a chunk of padded actions, as SmolVLA."""

    def __init__(self) -> None:
        super().__init__()
        self.see = encoder()
        self.read = nn.Embedding(256, 8)
        self.act = nn.Linear(2 * 16 + 8 + 32, len(CHUNK) * 32)

    def forward(self, batch: Inputs) -> Tensor:
        features = []
        for key in (PRIMARY, WRIST):
            image = batch[key][:, -1] if batch[key].ndim == 5 else batch[key]
            mask = batch[f"{key}_padding_mask"].bool()
            features.append(self.see(image * 2 - 1) * mask[:, None])
        words = [torch.tensor([*f"{text}\n".encode()]) for text in batch["task"]]
        features.append(torch.stack([self.read(some).mean(0) for some in words]))
        state = batch["observation.state"]
        state = state[:, -1, :] if state.ndim > 2 else state
        features.append(functional.pad(state, (0, 32 - state.shape[-1])))
        actions = functional.pad(batch["action"], (0, 32 - batch["action"].shape[-1]))
        made = self.act(torch.cat(features, dim=-1)).view_as(actions)
        return masked((made - actions) ** 2, batch["action_is_pad"])


WINDOWS = {
    Act: ONE,
    Diffusion: replace(ONE, frames={"primary": (-1, 0)}, state=(-1, 0), action=range(-1, 7)),
    SmolVla: replace(ONE, frames={"primary": (0,), "wrist": (0,)}, state=(0,)),
}


@pytest.mark.parametrize("policy", WINDOWS, ids=[one.__name__ for one in WINDOWS])
def test_a_policy_learns_from_it(windowed: Datasets, policy: type[nn.Module]) -> None:
    loader = Loader(str(windowed["zstd"]), sample=WINDOWS[policy], batch_size=16, size=16)
    torch.manual_seed(0)
    model = policy()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    inputs = next(iter(loader)).lerobot()
    losses = []
    for _ in range(30):
        loss = model(inputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_single_steps_have_no_axis(windowed: Datasets) -> None:
    batch = next(iter(Loader(str(windowed["raw"]), sample=ONE, batch_size=4)))
    found = batch.lerobot()
    assert [*found] == [
        PRIMARY,
        f"{PRIMARY}_padding_mask",
        WRIST,
        f"{WRIST}_padding_mask",
        "observation.state",
        "action",
        "action_is_pad",
        "task",
    ]
    for key, camera, size in ((PRIMARY, "primary", (12, 16)), (WRIST, "wrist", (8, 10))):
        image = found[key]
        assert (image.dtype, image.shape) == (torch.float32, (4, 3, *size))
        assert image.is_contiguous()
        assert torch.equal(image, batch.frames[camera].permute(0, 3, 1, 2).float() / 255)
        assert image.max() <= 1
        assert image.max() > 0.5
        assert found[f"{key}_padding_mask"].tolist() == [True] * 4
    assert torch.equal(found["observation.state"], batch.state)
    assert torch.equal(found["action"], batch.action)
    assert torch.equal(found["action_is_pad"], batch.action_is_pad)
    assert found["action_is_pad"].any()
    assert found["task"] == batch.instruction


def test_several_steps_have_an_axis_and_say_which_are_padding(windowed: Datasets) -> None:
    window = replace(ONE, frames={"primary": (-3, 0), "wrist": (-1,)}, state=(-2, -1, 0))
    batch = next(iter(Loader(str(windowed["raw"]), sample=window, batch_size=32)))
    found = batch.lerobot()
    assert found[PRIMARY].shape == (32, 2, 3, 12, 16)
    assert found[WRIST].shape == (32, 1, 3, 8, 10)
    assert torch.equal(found[PRIMARY], batch.frames["primary"].permute(0, 1, 4, 2, 3).float() / 255)
    assert found[PRIMARY].is_contiguous()
    t = batch.t[:, None]
    assert torch.equal(found[f"{PRIMARY}_is_pad"], t + torch.tensor([-3, 0]) < 0)
    assert torch.equal(found["observation.state_is_pad"], t + torch.tensor([-2, -1, 0]) < 0)
    assert found[f"{PRIMARY}_padding_mask"].all()
    assert torch.equal(found[f"{WRIST}_padding_mask"], batch.t > 0), "all that it has is padding"


def test_a_camera_that_a_dataset_lacks_is_masked(windowed: Datasets) -> None:
    mixture = Mixture(datasets=[str(windowed["raw"]), str(windowed["legged"])], weights="equal")
    batch = next(iter(Loader(mixture, sample=ONE, batch_size=16, pad_to=6)))
    found = batch.lerobot()
    has = torch.tensor([name == "arm" for name in batch.dataset])
    assert 0 < has.sum() < 16
    assert torch.equal(found[f"{WRIST}_padding_mask"], has)
    assert found[f"{PRIMARY}_padding_mask"].all()
    assert not found[WRIST][~has].any()
    assert found[WRIST][has].any(dim=-1).any(dim=-1).all()
    assert found["action"].shape == (16, 8, 6)
    assert found["observation.state"].shape == (16, 6)


def test_frames_of_one_camera_are_called_after_it(windowed: Datasets) -> None:
    pairs = Loader(str(windowed["raw"]), sample=Pairs(frames=1), batch_size=4, camera="hand")
    found = next(iter(pairs)).lerobot()
    key = "observation.images.hand"
    assert [*found] == [key, f"{key}_is_pad", f"{key}_padding_mask", "task"]
    assert found[key].shape == (4, 2, 3, 8, 10)


def test_what_was_not_read_has_no_key(windowed: Datasets) -> None:
    window = Window(frames=None, action=0)
    found = next(iter(Loader(str(windowed["raw"]), sample=window, batch_size=4))).lerobot()
    assert [*found] == ["action", "action_is_pad", "task"]
    assert found["action"].shape == (4, 4)
    assert found["action_is_pad"].shape == (4,)


def test_the_task_is_the_instruction_in_force_if_that_was_read(windowed: Datasets) -> None:
    loader = Loader(str(windowed["raw"]), sample=ONE, batch_size=40, instructions=True)
    batch = next(iter(loader))
    task = batch.lerobot()["task"]
    assert {text.split()[0] for text in task if text} == {"do", "then"}
    for text, t, first in zip(task, batch.t.tolist(), batch.instruction, strict=True):
        assert text == (first if t < 3 else first.replace("do", "then"))


def test_sums_of_actions_are_refused_in_a_line(windowed: Datasets) -> None:
    loader = Loader(str(windowed["raw"]), sample=Pairs(frames=2), batch_size=4, action="sum")
    with pytest.raises(ConfigError, match="lerobot: expected the actions of steps, got sums; use Window"):
        next(iter(loader)).lerobot()
