"""Pairs whose codes are known to mean one thing, and a decoder whose codes are known to move frames.

pairs = planted("direction")
number = measured("compass", pairs)["cosine_environments"]
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from oxcart.manifests.columns import Column
from oxcart.train.evaluate import strategies
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import Context, Number, Skip, lacking
from oxcart.train.flow import FlowMeter

ENVIRONMENTS, EPISODES, PAIRS = 6, 6, 20
"""Environments, three in each of two datasets; episodes of each; pairs of an episode."""
SIZE = 8
"""Codes."""
STEP = 3
"""Pixels that a code moves an image."""
SIDE = 48


def planted(kind: str, seed: int = 0, places: int = 1) -> GatheredPairs:
    """720 pairs that move in eight directions and by four lengths, independent of where they are.

    Args:
        kind: what the codes say: `direction`, `magnitude`, `environment`, `noise`, `own` (directions, turned
            by another angle in each environment), or `instruction`.
        seed: of the motions.
        places: codes of a pair; they repeat.
    """
    generator = np.random.default_rng(seed)
    count = ENVIRONMENTS * EPISODES * PAIRS
    environment = np.repeat(np.arange(ENVIRONMENTS), EPISODES * PAIRS)
    episode = np.repeat(np.arange(ENVIRONMENTS * EPISODES), PAIRS)
    direction = generator.integers(0, 8, count)
    # As many of each length in each dataset, so that their quarters are known.
    length = np.concatenate([generator.permutation(np.arange(count // 2) % 4) for _ in range(2)])
    angle = direction * np.pi / 4 + generator.uniform(-0.05, 0.05, count)
    motion = np.stack([np.cos(angle), np.sin(angle)], 1) * (1 + 0.25 * length[:, None])
    asked = generator.integers(0, 4, ENVIRONMENTS * EPISODES)[episode]
    codes = {
        "direction": direction,
        "magnitude": length,
        "environment": environment,
        "noise": generator.integers(0, SIZE, count),
        "own": (direction + np.array([0, 3, 6, 1, 4, 7])[environment]) % 8,
        "instruction": asked,
    }[kind]
    return GatheredPairs(
        codes=np.repeat(codes[:, None], places, 1).astype(np.int64),
        size=SIZE,
        dataset=np.where(environment < ENVIRONMENTS // 2, "left", "right"),
        split=np.where(environment % 3 == 0, "train", "val"),
        place=np.where(environment % 3 == 0, "seen", "held out"),
        environment=np.array([f"kitchen{i}" for i in range(ENVIRONMENTS)])[environment],
        key=np.array([f"episode{i}" for i in range(ENVIRONMENTS * EPISODES)])[episode],
        t=np.tile(np.arange(PAIRS), ENVIRONMENTS * EPISODES),
        instruction=np.array(["push red block", "open drawer", "wipe table", "lift green cup"])[asked],
        actions=motion,
        columns=tuple(Column(name=name, kind="delta") for name in ("dx", "dy")),
        state=generator.normal(size=(count, 3)),
        state_columns=tuple(Column(name=name, kind="absolute") for name in ("x", "y", "z")),
        flow=np.repeat(4 * motion[:, None], 3, 1),
        features=generator.normal(size=(count, 12)).astype(np.float32),
    )


def with_frames(pairs: GatheredPairs, count: int = 48, seed: int = 0) -> GatheredPairs:
    """The pairs with frames of some pairs, in which code c moves an image in direction c."""
    generator = np.random.default_rng(seed + 1000)  # not the numbers of the motions
    framed = np.sort(generator.permutation(len(pairs))[:count])
    coarse = generator.integers(0, 256, (count, SIDE // 4, SIDE // 4, 3)).astype(np.uint8)
    first = torch.from_numpy(coarse).permute(0, 3, 1, 2).float()
    first = nn.functional.interpolate(first, size=(SIDE, SIDE), mode="bicubic").clamp(0, 255).round()
    noise = torch.from_numpy(generator.integers(-2, 3, first.shape))  # no reconstruction is exact
    second = (moved(first, torch.from_numpy(pairs.codes[framed])) + noise).clamp(0, 255)
    frames = torch.stack([first, second], 1).permute(0, 1, 3, 4, 2).to(torch.uint8).numpy()
    return replace(pairs, frames=frames, framed=framed)


def moved(first: Tensor, codes: Tensor) -> Tensor:
    """Frames [F, 3, H, W], each moved by its codes [F, n]: direction by the first, as far as the rest."""
    found = []
    for image, code in zip(first, codes.tolist(), strict=True):
        angle = code[0] * np.pi / 4
        step = (-round(STEP * np.sin(angle)), round(STEP * np.cos(angle)))  # y is down
        found.append(torch.roll(image, step, (1, 2)))
    return torch.stack(found)


class Mover(nn.Module):
    """A model whose code c moves an image in direction c; or one that ignores its codes."""

    bf16 = False

    def __init__(self, ignores: bool = False, shared: bool = True) -> None:
        super().__init__()
        self._ignores = ignores
        self.layered = not ignores
        self.quantizer = Book(shared)

    def latents(self, frames: Tensor) -> Tensor:
        """Near the vector of the direction in which an image was moved, in each of four places."""
        ways = torch.arange(SIZE)[:, None]
        errors = [
            (moved(one[:1].expand(SIZE, -1, -1, -1), ways) - one[1]).square().mean((1, 2, 3))
            for one in frames
        ]
        vectors = self.quantizer.lookup(torch.stack(errors).argmin(1)[:, None])
        noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
        return (vectors + 0.05 * noise).expand(-1, 4, -1)

    def decode(self, first: Tensor, codes: Tensor) -> Tensor:
        return first if self._ignores else moved(first, codes)


class Book(nn.Module):
    """Eight vectors in a circle."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.shared = shared

    def lookup(self, codes: Tensor) -> Tensor:
        angle = codes.double() * np.pi / 4
        return torch.stack([angle.cos(), angle.sin(), 0 * angle], -1)

    def bounded(self, z: Tensor) -> Tensor:
        return z


def context(
    meter: FlowMeter | None = None, *, ignores: bool = False, shared: bool = True, quick: bool = False
) -> Context:
    model: Any = Mover(ignores, shared)
    return Context(model=model, meter=meter, quick=quick)


def found(name: str, pairs: GatheredPairs, given: Context | None = None) -> list[Number | Skip]:
    """All that a strategy measures; what needs pairs that are seen is of those that are held out."""
    strategy = strategies.load([name])[name]
    assert lacking(pairs, strategy.needs) is None
    given = given or context()
    beside = replace(given, seen=pairs.at("seen"))
    if name == "probe":
        return list(strategy.measure(pairs.at("held out"), beside))
    taken = list(strategy.measure(pairs, given))
    if name == "compass" and (pairs.place == "held out").any():
        names = [one.name for one in taken if isinstance(one, Number)]
        for one in strategy.measure(pairs.at("held out"), beside):
            if isinstance(one, Number) and one.name not in names:
                taken.append(one)
    return taken


def measured(name: str, pairs: GatheredPairs, given: Context | None = None) -> dict[str, Number]:
    """Its numbers by name."""
    return {one.name: one for one in found(name, pairs, given) if isinstance(one, Number)}


def skipped(name: str, pairs: GatheredPairs, given: Context | None = None) -> dict[str, str]:
    """What it skips, and why."""
    return {one.what: one.because for one in found(name, pairs, given) if isinstance(one, Skip)}
