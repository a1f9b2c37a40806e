"""The order of samples that takes turns among groups of episodes, such as those of one instruction.

Each round of the sequence takes one sample of every group, in an order that a hash decides. So after any
number of positions, no group is more than one sample ahead of another. Within a group, each pass takes every
sample once, in an order of its own; a small group begins its next pass while a large one is in its first. Any
position is found by arithmetic: nothing is stored for a group but where its samples lie.

The trade-off: neighbouring samples are of episodes that lie anywhere, so nothing that was read for one of
them is of use to the next.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from oxcart.train.data.order import Samples, derive, splitmix64

Int64 = npt.NDArray[np.int64]
Uint64 = npt.NDArray[np.uint64]

ROUNDS = 8
"""Rounds of the Feistel network. Four look random (Luby and Rackoff 1988), but not of a dozen numbers."""


class BalancedOrder:
    """The endless sequence of samples.

    Args:
        key: seed of the order.
        counts: [N], samples of each episode.
        groups: [N], number of each episode's group.
    """

    def __init__(self, key: int, counts: Int64, groups: Int64) -> None:
        self._key, self.counts = key, counts
        some = np.flatnonzero(counts)
        self._episodes = some[np.argsort(groups[some], kind="stable")]
        """Episodes that have samples, group by group."""
        self._counts = counts[self._episodes]
        self._ends = np.cumsum(self._counts)
        _, firsts = np.unique(groups[self._episodes], return_index=True)
        self._starts = self._ends[firsts] - self._counts[firsts]
        """[G]: number of each group's first sample among all samples."""
        self._sizes = np.diff(self._starts, append=len(self))

    def __len__(self) -> int:
        """Samples per epoch: as many as there are, though not each of them once."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def groups(self) -> int:
        """Number of groups that have samples."""
        return len(self._sizes)

    def at(self, positions: Int64) -> Samples:
        """The samples at positions, in any order."""
        rounds, turns = np.divmod(positions, self.groups)
        keys = _mixed(np.uint64(derive(self._key, 6)), rounds)
        group = permuted(turns, np.full_like(turns, self.groups), keys)
        passes, numbers = np.divmod(rounds, self._sizes[group])
        keys = _mixed(np.uint64(derive(self._key, 7)), group, passes)
        samples = self._starts[group] + permuted(numbers, self._sizes[group], keys)
        place = np.searchsorted(self._ends, samples, side="right")
        draws = samples - (self._ends[place] - self._counts[place])
        return Samples(passes, self._episodes[place], draws)


def permuted(numbers: Int64, sizes: Int64, keys: Uint64) -> Int64:
    """Where a permutation of 0 to size - 1 takes each number; a permutation for each size and key.

    A Feistel network over the next power of four, repeated until it falls below the size.

    Args:
        numbers: [n], each from 0 to its size - 1.
        sizes: [n], at least 1.
        keys: [n].
    """
    bits = np.maximum(1, (np.frexp((sizes - 1).astype(np.float64))[1] + 1) // 2).astype(np.uint64)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    found, left = numbers.astype(np.uint64), np.arange(len(numbers))
    while len(left):
        half, low = bits[left], mask[left]
        one, two = found[left] >> half, found[left] & low
        for i in range(ROUNDS):
            one, two = two, one ^ (splitmix64(two ^ splitmix64(keys[left] + np.uint64(i))) & low)
        found[left] = (one << half) | two
        left = left[found[left] >= sizes[left].astype(np.uint64)]
    return found.astype(np.int64)


def _mixed(key: np.uint64, *parts: Int64) -> Uint64:
    """A hash of a key and numbers."""
    hashes = np.array(key, np.uint64)
    for part in parts:
        hashes = splitmix64(hashes ^ splitmix64(part.astype(np.uint64)))
    return hashes
