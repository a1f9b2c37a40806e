"""Mixtures of datasets by weight: the dataset from which each position of the sequence takes its sample.

The schedule is that of Pfair scheduling on one processor (Baruah et al. 1996): sample j of a dataset of
weight w may come no earlier than position floor(j / w) and no later than ceil((j + 1) / w), and the earliest
deadline goes first. So after any number of positions, every dataset is within one sample of its share.
Weights are rounded to parts of `PERIOD`, so that the schedule repeats and any position is a table look-up.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.manifests.dataset import Dataset
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError

Int64 = npt.NDArray[np.int64]

PERIOD = 1 << 14
WEIGHTS = ("frames", "episodes", "equal")
EPOCHS = ("largest", "smallest", "all")
MOST = 1e18
"""Largest weight."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Datasets, and how often each is drawn from.

    Raises:
        ConfigError: the weights are unknown, negative, all 0, or not one per dataset.
    """

    datasets: Sequence[str | Dataset]
    """Directories or URLs of compiled datasets, or opened datasets."""
    weights: str | Sequence[float] = "frames"
    """`frames` or `episodes` of the split, `equal`, or one number per dataset; 0 leaves a dataset out."""
    epoch: str = "largest"
    """An epoch is one pass through the `largest` dataset, through the `smallest`, or through `all`."""
    parts: Sequence[tuple[int, int | None]] | None = None
    """Of each dataset, the first of its chosen episodes to read, in plan order, and the one after the last;
    None reads all. So a dataset may come twice, in parts that do not overlap, with a weight for each."""

    def __post_init__(self) -> None:
        if not self.datasets:
            raise ConfigError("mixture: expected at least one dataset, got none")
        one_of("mixture.epoch", self.epoch, EPOCHS)
        check_weights("mixture.weights", self.weights)
        if self.parts is not None and len(self.parts) != len(self.datasets):
            raise ConfigError(
                f"mixture.parts: expected one for each of {len(self.datasets)} datasets, "
                f"got {len(self.parts)}"
            )
        if isinstance(self.weights, str):
            return
        if len(self.weights) != len(self.datasets):
            raise ConfigError(
                f"mixture.weights: expected one for each of {len(self.datasets)} datasets, "
                f"got {len(self.weights)}"
            )

    @property
    def used(self) -> list[tuple[str | Dataset, tuple[int, int | None]]]:
        """The datasets whose weight is not 0, each with its part."""
        every = list(zip(self.datasets, self.parts or [(0, None)] * len(self.datasets), strict=True))
        if isinstance(self.weights, str):
            return every
        return [one for one, weight in zip(every, self.weights, strict=True) if weight]

    def equal(self) -> Mixture:
        """The same datasets, drawn from equally often.

        Raises:
            ConfigError: the weights are numbers.
        """
        if not isinstance(self.weights, str):
            raise ConfigError(
                f"balance: the mixture has weights, {list(self.weights)}; leave one of them out"
            )
        return replace(self, weights="equal")

    def shares(self, episodes: Sequence[int], frames: Sequence[int]) -> list[float]:
        """The weight of each dataset that is used, given its episodes and frames in the split."""
        if not isinstance(self.weights, str):
            return [weight for weight in self.weights if weight]
        counts = {"equal": [1] * len(frames), "episodes": episodes, "frames": frames}
        return list(map(float, counts[self.weights]))


def check_weights(name: str, weights: Any) -> None:
    """Refuse weights that do not say how often each dataset is drawn from.

    Raises:
        ConfigError: the weights are neither a known word nor non-negative numbers, or all are 0.
    """
    if isinstance(weights, str) or not isinstance(weights, Sequence):
        if weights not in WEIGHTS:
            known = ", ".join(WEIGHTS)
            raise ConfigError(f"{name}: expected {known} or numbers, got {weights!r}")
        return
    numbers = [one for one in weights if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(numbers) < len(weights) or not all(0 <= one <= MOST for one in numbers):
        raise ConfigError(f"{name}: expected numbers from 0 to {MOST:g}, got {list(weights)}")
    if not any(numbers):
        raise ConfigError(f"{name}: all are 0; at least one dataset must have a weight")


def check_distinct(
    name: str,
    given: Sequence[str],
    datasets: Sequence[Dataset],
    parts: Sequence[tuple[int, int | None]] | None = None,
) -> None:
    """Refuse a dataset that is given twice: under another spelling, as a copy, or stored in another way.

    Datasets of one `order` hold the same episodes, and would be drawn from in lockstep.

    Args:
        name: the argument.
        given: names or URLs under which the datasets were given.
        datasets: the opened datasets.
        parts: the part of each that is read; None reads all. Parts that do not overlap are distinct.

    Raises:
        ConfigError: two datasets are the same; the message names both.
    """
    orders = [one.manifest.order for one in datasets]
    own = parts or [(0, None)] * len(datasets)
    for i, order in enumerate(orders):
        same = (j for j in range(i) if orders[j] == order and _overlap(own[i], own[j]))
        if (first := next(same, None)) is not None:
            marks = {one.manifest.fingerprint[:12] for one in (datasets[first], datasets[i])}
            what = "the same episodes compiled or stored in two ways" if len(marks) > 1 else "one dataset"
            remedy = "; compile all cameras into one dataset" if len(marks) > 1 else ""
            raise ConfigError(
                f"{name}: {given[first]!r} and {given[i]!r} are {what}, of order {order[:12]}, and would be "
                f"drawn in step; give it once, and set its share by its weight{remedy}"
            )


def _overlap(one: tuple[int, int | None], other: tuple[int, int | None]) -> bool:
    """Whether two parts of a dataset have an episode in common."""
    ends = [stop for _, stop in (one, other) if stop is not None]
    return not ends or max(one[0], other[0]) < min(ends)


class Schedule:
    """The order in which datasets take turns.

    Args:
        weights: weight of each dataset, more than 0.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.parts = round_to_parts(weights, PERIOD if len(weights) > 1 else 1)
        """Positions of each dataset in a period."""
        self.period = sum(self.parts)
        turns = earliest_deadline_first(self.parts)
        self._turns = np.array(turns, np.int64)
        ranks = np.empty(self.period, np.int64)
        self._places = []
        for dataset in range(len(self.parts)):
            places = np.flatnonzero(self._turns == dataset)
            ranks[places] = np.arange(len(places))
            self._places.append(places)
        self._ranks = ranks

    @cached_property
    def shares(self) -> list[float]:
        """The weights in effect, after rounding; their sum is 1."""
        return [part / self.period for part in self.parts]

    def at(self, positions: Int64) -> tuple[Int64, Int64]:
        """The dataset of each position, and the position in that dataset's own sequence."""
        periods, inside = np.divmod(positions, self.period)
        datasets = self._turns[inside]
        return datasets, periods * np.array(self.parts)[datasets] + self._ranks[inside]

    def where(self, dataset: int, own: Int64) -> Int64:
        """The positions of samples, given their positions in a dataset's own sequence; inverse of `at`."""
        periods, inside = np.divmod(own, self.parts[dataset])
        return periods * self.period + self._places[dataset][inside]

    def epoch(self, lengths: Sequence[int], kind: str) -> int:
        """Positions per epoch, given the number of samples of each dataset."""
        ends = [int(self.where(i, np.array([length - 1]))[0]) + 1 for i, length in enumerate(lengths)]
        if kind == "all":
            return max(ends)
        pick = max if kind == "largest" else min
        return ends[lengths.index(pick(lengths))]


def round_to_parts(weights: Sequence[float], period: int) -> list[int]:
    """Positive integers in the proportion of the weights, with a sum of `period` or slightly more."""
    total = float(sum(weights))
    exact = [weight / total * period for weight in weights]
    parts = [max(1, int(one)) for one in exact]
    left = period - sum(parts)
    for i in sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))[: max(0, left)]:
        parts[i] += 1
    return parts


def earliest_deadline_first(parts: Sequence[int]) -> list[int]:
    """The dataset at each position of a period; every prefix is within one of the proportion of `parts`."""
    period = sum(parts)
    released: list[list[int]] = [[] for _ in range(period)]
    for dataset in range(len(parts)):
        released[0].append(dataset)
    done = [0] * len(parts)
    ready: list[tuple[int, int]] = []
    turns = []
    for now in range(period):
        for dataset in released[now]:
            deadline = -(-(done[dataset] + 1) * period // parts[dataset])
            heapq.heappush(ready, (deadline, dataset))
        _, dataset = heapq.heappop(ready)
        turns.append(dataset)
        done[dataset] += 1
        if done[dataset] < parts[dataset]:
            earliest = max(now + 1, done[dataset] * period // parts[dataset])
            released[earliest].append(dataset)
    return turns
