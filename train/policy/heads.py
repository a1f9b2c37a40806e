"""From what a policy knows to a chunk of actions: regression, or flow matching.

error = head.error(queries, target, noise, time)      # [B, K, A]: what training makes small
chunk = head.act(queries, noise)                      # [B, K, A], scaled as the targets are
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Regression(nn.Module):
    """Actions as a function of what the policy knows; the error is absolute (OpenVLA-OFT, ACT)."""

    def __init__(self, width: int, columns: int, *, linear: bool = False) -> None:
        super().__init__()
        last = nn.Linear(width, columns)
        deep = [nn.LayerNorm(width), nn.Linear(width, width), nn.GELU()]
        self.layers = nn.Sequential(*([] if linear else deep), last)

    def error(self, queries: Tensor, target: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Errors [B, K, A] of actions [B, K, A], from queries [B, K, D]; noise and time are not used."""
        return functional.l1_loss(self.layers(queries), target, reduction="none")

    def act(self, queries: Tensor, noise: Tensor) -> Tensor:
        """Actions [B, K, A] from queries [B, K, D]."""
        return self.layers(queries)  # type: ignore[no-any-return]


class Flow(nn.Module):
    """Actions drawn from noise by flow matching (Lipman et al. 2023; pi0, SmolVLA).

    Between noise e and actions a lies x = (1 - t) e + t a, and the network learns the velocity a - e. Acting
    follows it from t = 0 to 1 in equal steps.

    Args:
        width: width of the queries.
        columns: columns of an action.
        steps: steps from noise to actions.
    """

    def __init__(self, width: int, columns: int, steps: int) -> None:
        super().__init__()
        self._steps = steps
        self.enter = nn.Linear(columns, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(2)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, columns))

    def velocity(self, queries: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        """Velocity [B, K, A] at noisy actions [B, K, A] and times [B]."""
        values = queries + self.enter(noisy) + self.time(waves(time, queries.shape[-1]))[:, None]
        for layer in self.layers:
            values = layer(values)
        return self.leave(values)  # type: ignore[no-any-return]

    def error(self, queries: Tensor, target: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Squared errors [B, K, A] of the velocity at times [B], from queries [B, K, D]."""
        share = time[:, None, None]
        found = self.velocity(queries, (1 - share) * noise + share * target, time)
        return functional.mse_loss(found, target - noise, reduction="none")

    def act(self, queries: Tensor, noise: Tensor) -> Tensor:
        """Actions [B, K, A] from queries [B, K, D] and normal noise [B, K, A]."""
        for i in range(self._steps):
            time = torch.full_like(noise[:, 0, 0], i / self._steps)
            noise = noise + self.velocity(queries, noise, time) / self._steps
        return noise


def waves(time: Tensor, width: int) -> Tensor:
    """Times [B] in [0, 1] as sines and cosines [B, D] of many frequencies."""
    rates = torch.exp(torch.linspace(0, math.log(1000), width // 2, device=time.device))
    angles = time[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)
