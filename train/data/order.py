"""The order of samples: a pure function of a key, the numbers of samples, the lanes and the block.

An epoch lists all samples shard by shard, with the shards in the order of a hash. It cuts the list into
contiguous *lanes*, whose lengths differ by at most one and which a hash numbers, and permutes each lane
*block* by block. The first block of lane l is shorter by l / lanes, so that the lanes begin their blocks
one after another and episodes are needed at a steady rate.
Position P of the endless sequence is sample i of lane l of epoch e, where P = e * N + i * lanes + l. So every
sample comes once per epoch, a batch mixes samples of all lanes, and a lane reads one shard after another.
Nothing is drawn from a library's random stream: orders come from splitmix64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Uint64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

LANES, BLOCK = 16, 128
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def splitmix64(values: Uint64) -> Uint64:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014): a bijection that looks random."""
    values = values + np.uint64(_GOLDEN)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def derive(key: int, *parts: int) -> int:
    """Another key, from a key and numbers; different numbers, or another order of them, give another key."""
    for part in parts:
        mixed = splitmix64(np.array([(key ^ (part * _GOLDEN)) & _MASK], np.uint64))
        key = int(mixed[0])
    return key


class Samples(NamedTuple):
    """Samples, each given by one entry of every array."""

    epoch: Int64
    episode: Int64
    """Index of the episode in `counts`."""
    draw: Int64
    """Number of the sample among those of its episode."""


@dataclass(frozen=True)
class Order:
    """The endless sequence of samples.

    Args:
        key: seed of the order.
        counts: samples of each episode; the episodes of a shard stand together.
        shards: number of each episode's shard, never falling.
        lanes: number of lanes.
        block: samples of a lane that are permuted together.
    """

    key: int
    counts: Int64
    shards: Int64
    lanes: int = LANES
    block: int = BLOCK
    _blocks: dict[tuple[int, int], Int64] = field(default_factory=dict, init=False, repr=False, compare=False)
    _layouts: dict[int, tuple[Int64, Int64]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        """Samples per epoch."""
        return self._total

    @cached_property
    def _total(self) -> int:
        return int(self._ends[-1])

    @cached_property
    def _ends(self) -> Int64:
        """Number of samples up to the end of each episode, in plan order."""
        return np.cumsum(self.counts, dtype=np.int64)

    def samples(self, start: int, stop: int) -> Samples:
        """The samples at positions `start` to `stop - 1` of the sequence."""
        return self.at(np.arange(start, stop, dtype=np.int64))

    def at(self, positions: Int64) -> Samples:
        """The samples at positions, in any order."""
        epochs, inside = np.divmod(positions, len(self))
        rows, lanes = np.divmod(inside, self.lanes)
        blocks = self.block_of(rows, lanes)
        rows = rows - np.maximum(0, blocks * self.block - self._shifts[lanes])
        episodes, draws = np.empty_like(inside), np.empty_like(inside)
        for epoch, block in dict.fromkeys(zip(epochs.tolist(), blocks.tolist(), strict=True)):
            mine = (epochs == epoch) & (blocks == block)
            laid = self._mixed(epoch, block)[lanes[mine], rows[mine]]
            ends, shifts = self._layout(epoch)
            planned = laid + shifts[np.searchsorted(ends, laid, side="right")]
            found = np.searchsorted(self._ends, planned, side="right")
            episodes[mine] = found
            draws[mine] = planned - (self._ends[found] - self.counts[found])
        return Samples(epochs, episodes, draws)

    def block_of(self, rows: Int64, lanes: Int64) -> Int64:
        """The block of its lane that a sample is in, given its number in the lane."""
        found: Int64 = (rows + self._shifts[lanes]) // self.block
        return found

    def positions_of(self, epoch: int, lane: int, block: int) -> Int64:
        """The positions of one block of one lane."""
        first = block * self.block - int(self._shifts[lane])
        last = min(first + self.block, int(self._lengths[lane]))
        rows = np.arange(max(0, first), last, dtype=np.int64)
        return epoch * len(self) + rows * self.lanes + lane

    @cached_property
    def _shifts(self) -> Int64:
        """Samples by which each lane's first block is shorter."""
        return np.arange(self.lanes, dtype=np.int64) * self.block // self.lanes

    @cached_property
    def _lengths(self) -> Int64:
        short, longer = divmod(len(self), self.lanes)
        return short + (np.arange(self.lanes, dtype=np.int64) < longer)

    def _starts(self, epoch: int) -> Int64:
        """Where each lane begins in the layout; a hash decides the order of the lanes."""
        lanes = np.arange(self.lanes, dtype=np.uint64)
        order = np.argsort(splitmix64(lanes ^ np.uint64(derive(self.key, epoch, 2))), kind="stable")
        starts = np.empty(self.lanes, np.int64)
        starts[order] = np.cumsum(self._lengths[order]) - self._lengths[order]
        return starts

    def _layout(self, epoch: int) -> tuple[Int64, Int64]:
        """Where the samples of each shard end in an epoch's layout, and how far they lie from plan order.

        The place of a sample in the layout, plus the second number, is its place in plan order.
        """
        if epoch not in self._layouts:
            _keep_few(self._layouts)
            numbers, begins, sizes = self._of_shards
            hashes = splitmix64(numbers.astype(np.uint64) ^ np.uint64(derive(self.key, epoch, 0)))
            order = np.argsort(hashes, kind="stable")
            ends = np.cumsum(sizes[order])
            self._layouts[epoch] = ends, begins[order] - (ends - sizes[order])
        return self._layouts[epoch]

    @cached_property
    def _of_shards(self) -> tuple[Int64, Int64, Int64]:
        """Number of each shard, where its samples begin in plan order, and how many they are."""
        firsts = np.flatnonzero(np.append(True, self.shards[1:] != self.shards[:-1]))
        bounds = np.append(self._ends[firsts] - self.counts[firsts], len(self))
        return self.shards[firsts], bounds[:-1], np.diff(bounds)

    def _mixed(self, epoch: int, block: int) -> Int64:
        """Places in the layout of one block of every lane, [lanes, block], shuffled; padding comes last."""
        if (epoch, block) not in self._blocks:
            _keep_few(self._blocks)
            first = block * self.block - self._shifts
            begin, end = np.maximum(first, 0), np.minimum(first + self.block, self._lengths)
            inner = begin[:, None] + np.arange(max(0, int((end - begin).max())))
            places = inner + self._starts(epoch)[:, None]
            hashes = splitmix64(places.astype(np.uint64) ^ np.uint64(derive(self.key, epoch, 1)))
            hashes[inner >= end[:, None]] = _MASK  # of a shorter block; a stable sort leaves them last
            mixed = np.take_along_axis(places, np.argsort(hashes, axis=1, kind="stable"), axis=1)
            self._blocks[epoch, block] = mixed
        return self._blocks[epoch, block]


def _keep_few(cache: dict[Any, Any]) -> None:
    """Drop the oldest of four entries; a batch seldom needs more than two."""
    if len(cache) >= 4:
        cache.pop(next(iter(cache)))
