"""The small policy: convolutions that an instruction steers, places in the frames, and a trunk.

    frames of each camera -> features at a quarter and an eighth of the size, scaled and shifted by the
    instruction (FiLM, Perez et al. 2018) -> where each of n maps is brightest (spatial softmax, Levine et al.
    2016), and the mean features -> trunk, with the state and the instruction -> one vector per action

Where things are decides what to do, so a camera leaves the network as places. The instruction acts before
them: the same map finds the red block or the blue one. A row's result depends on no other row, since all
norms are within a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from oxcart.train.policy.config import SmallConfig
from oxcart.train.policy.words import LONGEST, NOTHING

GROUPS = 4
"""Groups of channels that are normalised together."""


class SmallBackbone(nn.Module):
    """See the module.

    Args:
        config: sizes.
        cameras: names of the cameras.
        frames: frames of each camera.
        words: number of words that may occur.
        state: columns of the state; 0 if it is not read.
        horizon: actions that are predicted at once.
    """

    def __init__(
        self,
        config: SmallConfig,
        *,
        cameras: Sequence[str],
        frames: int,
        words: int,
        state: int,
        horizon: int,
    ) -> None:
        super().__init__()
        self.width, self._cameras = config.width, tuple(cameras)
        self.instruction = InstructionEncoder(words, config.words)
        self.cameras = nn.ModuleList(CameraEncoder(config, frames) for _ in cameras)
        told = sum(camera.width for camera in self.cameras)  # type: ignore[misc]
        self.state = nn.Linear(state, config.words) if state else None
        told += config.words * (2 if state else 1)
        self.enter = nn.Linear(int(told), config.width)
        self.trunk = nn.Sequential(*(Residual(config.width) for _ in range(config.layers)))
        self.places = nn.Parameter(0.02 * torch.randn(horizon, config.width))

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the policy knows, from inputs of `PolicyData`.

        Returns:
            A vector for each row [B, D], and one for each action [B, K, D].
        """
        words = self.instruction(inputs["words"])
        told = [words]
        for name, camera in zip(self._cameras, self.cameras, strict=True):
            told.append(camera(to_float(inputs[f"frames.{name}"]), words))
        if self.state is not None:
            told.append(self.state(inputs["state"]) * inputs["known"][:, None])
        knows = self.trunk(self.enter(torch.cat(told, 1)))
        return knows, knows[:, None] + self.places


class CodesBackbone(nn.Module):
    """A decoder of codes: what the policy knows is the codes of a step, and the state.

    Args:
        config: sizes; without layers it is linear.
        codes: codes of a step, and entries of their codebook.
        state: columns of the state; 0 if it is not read.
        horizon: actions that are predicted at once.
    """

    def __init__(self, config: SmallConfig, *, codes: tuple[int, int], state: int, horizon: int) -> None:
        super().__init__()
        self.width, self._entries, self._horizon = config.width, codes[1], horizon
        self.enter = nn.Linear(codes[0] * codes[1] + state, config.width)
        self.trunk = nn.Sequential(*(Residual(config.width) for _ in range(config.layers)))
        self.queries = nn.Linear(config.width, horizon * config.width)

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """As that of `SmallBackbone`."""
        codes = inputs["codes"].clamp_min(0)
        told = [functional.one_hot(codes, self._entries).flatten(1).float()]
        if "state" in inputs:
            told.append(inputs["state"])
        knows = self.trunk(self.enter(torch.cat(told, 1)))
        return knows, self.queries(knows).unflatten(1, (self._horizon, -1))


class InstructionEncoder(nn.Module):
    """A vector [B, D] from the numbers of an instruction's words, by one layer of attention."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.places = nn.Parameter(0.02 * torch.randn(LONGEST, width))
        self.attend = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, words: Tensor) -> Tensor:
        nothing = words == NOTHING
        nothing = torch.cat([torch.zeros_like(nothing[:, :1]), nothing[:, 1:]], 1)  # "" has a word as well
        found = self.attend(self.embed(words) + self.places, src_key_padding_mask=nothing)
        kept = (~nothing)[..., None].to(found.dtype)
        return (found * kept).sum(1) / kept.sum(1)  # type: ignore[no-any-return]


class CameraEncoder(nn.Module):
    """A vector [B, `width`] from frames [B, 3 k, H, W] of one camera and an instruction [B, D]."""

    def __init__(self, config: SmallConfig, frames: int) -> None:
        super().__init__()
        first, second, third = (times * config.channels for times in (1, 2, 3))
        self.stem = nn.Sequential(
            nn.Conv2d(3 * frames, first, 5, stride=2, padding=2),
            nn.GroupNorm(GROUPS, first),
            nn.SiLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.GroupNorm(GROUPS, second),
            nn.SiLU(),
        )
        self.fine = Steered(second, config.words)
        self.down = nn.Conv2d(second, third, 3, stride=2, padding=1)
        self.coarse = Steered(third, config.words)
        self.fine_maps = nn.Conv2d(second, config.keypoints, 1)
        self.coarse_maps = nn.Conv2d(third, config.keypoints, 1)
        self.width = 4 * config.keypoints + third

    def forward(self, frames: Tensor, words: Tensor) -> Tensor:
        fine = self.fine(self.stem(frames.contiguous(memory_format=torch.channels_last)), words)
        coarse = self.coarse(self.down(fine), words)
        found = [brightest(self.fine_maps(fine)), brightest(self.coarse_maps(coarse))]
        return torch.cat([*found, coarse.mean((2, 3))], 1)


class Steered(nn.Module):
    """A residual block whose channels an instruction scales and shifts."""

    def __init__(self, channels: int, words: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.first_norm = nn.GroupNorm(GROUPS, channels)
        self.steer = nn.Linear(words, 2 * channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.second_norm = nn.GroupNorm(GROUPS, channels)

    def forward(self, features: Tensor, words: Tensor) -> Tensor:
        scale, shift = self.steer(words)[:, :, None, None].chunk(2, 1)
        found = functional.silu(self.first_norm(self.first(features)) * (1 + scale) + shift)
        return functional.silu(features + self.second_norm(self.second(found)))


class Residual(nn.Module):
    """A residual layer [B, D] -> [B, D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, values: Tensor) -> Tensor:
        return values + self.layers(values)  # type: ignore[no-any-return]


def brightest(maps: Tensor) -> Tensor:
    """The mean place of each map under its softmax: [B, 2 n] in [-1, 1], from [B, n, H, W]."""
    batch, count, height, width = maps.shape
    share = maps.reshape(batch, count, -1).softmax(-1).reshape(maps.shape)
    across = share.sum(2) @ torch.linspace(-1, 1, width, device=maps.device, dtype=maps.dtype)
    down = share.sum(3) @ torch.linspace(-1, 1, height, device=maps.device, dtype=maps.dtype)
    return torch.cat([across, down], 1)


def to_float(frames: Tensor) -> Tensor:
    """uint8 [B, k, H, W, 3] as float [B, 3 k, H, W] in [-1, 1]."""
    return frames.permute(0, 1, 4, 2, 3).flatten(1, 2).float() / 127.5 - 1
