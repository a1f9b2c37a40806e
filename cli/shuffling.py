"""Measure how well lanes and blocks mix batches, compared with a perfect shuffle.

All numbers follow from the order; no frame is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from oxcart.train.data.order import Order, splitmix64
from oxcart.train.plots import pyplot, save

Int64 = npt.NDArray[np.int64]

MOST = 200_000
"""Maximum number of samples measured."""


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Measures of how well the batches of one order are mixed."""

    lanes: int
    """Number of lanes; 0 is the perfect shuffle."""
    block: int
    episodes: float
    """Distinct episodes per batch, on average."""
    environments: float
    """Distinct environments per batch, on average."""
    correlation: float
    """Rank correlation of consecutive samples (Spearman): 1 without a shuffle, 0 with a perfect one."""
    memory: int
    """Number of samples from which a batch can be drawn: lanes times block."""


def mixing(
    order: Order, environments: Int64, batch_size: int, lanes: Sequence[int], blocks: Sequence[int]
) -> list[Mixing]:
    """Measure combinations of lanes and blocks, and a perfect shuffle last.

    Args:
        order: order of a loader, whose lanes and block are replaced.
        environments: number of each episode's environment.
        batch_size: samples per batch.
        lanes: numbers of lanes to try.
        blocks: block sizes to try, in samples.
    """
    count = min(len(order), MOST)
    starts = np.concatenate([[0], np.cumsum(order.counts)])
    found = []
    for lane in lanes:
        for block in blocks:
            tried = Order(order.key, order.counts, order.shards, lane, block)
            samples = tried.samples(0, count)
            places = starts[samples.episode] + samples.draw
            found.append(_measure(places, samples.episode, environments, batch_size, lane, block))
    everything = np.arange(len(order), dtype=np.uint64)
    places = np.argsort(splitmix64(everything ^ np.uint64(order.key)), kind="stable")[:count]
    episodes = np.searchsorted(starts, places, side="right") - 1
    found.append(_measure(places, episodes, environments, batch_size, 0, len(order)))
    return found


def _measure(
    places: Int64, episodes: Int64, environments: Int64, batch_size: int, lanes: int, block: int
) -> Mixing:
    whole = max(1, len(episodes) // batch_size)
    size = min(batch_size, len(episodes))
    batches = episodes[: whole * size].reshape(whole, size)
    ranks = np.argsort(np.argsort(places)).astype(np.float64)
    flat = len(ranks) < 3
    return Mixing(
        lanes=lanes,
        block=block,
        episodes=float(np.mean([len(set(batch)) for batch in batches.tolist()])),
        environments=float(np.mean([len(set(batch)) for batch in environments[batches].tolist()])),
        correlation=0.0 if flat else float(np.corrcoef(ranks[:-1], ranks[1:])[0, 1]),
        memory=max(1, lanes) * block if lanes else block,
    )


def plot(found: Sequence[Mixing], batch_size: int, title: str, path: Path) -> None:
    """Plot distinct episodes per batch and rank correlation over the block, one line per number of lanes."""
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    perfect = found[-1]
    for lanes in dict.fromkeys(one.lanes for one in found[:-1]):
        mine = [one for one in found[:-1] if one.lanes == lanes]
        blocks = [one.block for one in mine]
        axes[0].plot(blocks, [one.episodes for one in mine], "o-", label=f"{lanes} lanes")
        axes[1].plot(blocks, [one.correlation for one in mine], "o-", label=f"{lanes} lanes")
    for axis, value in ((axes[0], perfect.episodes), (axes[1], perfect.correlation)):
        axis.axhline(value, color="black", linestyle="--", label="perfect shuffle")
        axis.set_xscale("log", base=2)
        axis.set_xlabel("block (samples)")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"distinct episodes in a batch of {batch_size}")
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylabel("rank correlation of consecutive samples")
    axes[0].legend()
    figure.suptitle(title)
    save(figure, path, dpi=110)
