"""One dataset of a loader: the order of its samples, and how they are read into rows of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oxcart.manifests.columns import Column, parse_columns
from oxcart.shards.choices import did_you_mean
from oxcart.shards.errors import ConfigError
from oxcart.train.data.batch import Batch
from oxcart.train.data.cache import Cache
from oxcart.train.data.config import LoaderConfig
from oxcart.train.data.index import SplitIndex
from oxcart.train.data.mixture import Schedule
from oxcart.train.data.moving import open_moving
from oxcart.train.data.order import Order, Samples, derive
from oxcart.train.data.reader import EpisodeReader, FrameReader
from oxcart.train.data.reuse import Budget, Reuse
from oxcart.train.data.sampling import Frames, Pairs, TooShortError
from oxcart.train.data.summing import Floats, Summing

Int64 = npt.NDArray[np.int64]

DENSE = 0.5
"""Share of the chunks needed per epoch at or above which `auto` reads them in sequence."""


@dataclass(frozen=True)
class Wanted:
    """Samples of one dataset in one batch."""

    rows: Int64
    """Row of each sample in the batch."""
    episodes: Int64
    steps: Int64

    def slice(self, begin: int, end: int) -> Wanted:
        """The samples from one index to another."""
        return Wanted(self.rows[begin:end], self.episodes[begin:end], self.steps[begin:end])

    def between(self, first: int, stop: int) -> Wanted:
        """The samples of rows `first` to `stop - 1`, whose rows are then counted from `first`."""
        begin, end = np.searchsorted(self.rows, [first, stop])
        return Wanted(self.rows[begin:end] - first, self.episodes[begin:end], self.steps[begin:end])


class DatasetStream:
    """The samples of one dataset of a loader.

    Args:
        index: episodes of the dataset's split.
        config: settings of the loader.
        size: height and width of the frames in a batch.
        budget: memory for chunks that are needed again soon, shared by the datasets of the loader.
        cache: local cache of the dataset; None reads only from its store.

    Raises:
        TooShortError: no episode is long enough for a sample.
        ConfigError: the offset in seconds cannot be determined, or no sample moves enough.
    """

    def __init__(
        self,
        index: SplitIndex,
        config: LoaderConfig,
        *,
        size: tuple[int, int],
        budget: Budget,
        cache: Cache | None,
    ) -> None:
        self.index, self._config, self._sample = index, config, config.sample
        manifest, store = index.dataset.manifest, index.dataset.store
        given = {"hz": config.control_rate, "verified": True} if config.control_rate else None
        self.offset = self._sample.offset(given or manifest.control_rate)
        """Steps between the frames of a pair; 0 for single frames."""
        self.moving = open_moving(index, config.motion, config.min_motion, self.offset)
        """The steps at which samples may begin; None means all."""
        lengths = index.steps if self.moving is None else self.moving.room + self.offset
        self._lengths: Int64 = lengths.astype(np.int64)
        counts = self._sample.counts(self._lengths, self.offset)
        if not counts.any() and self.moving is not None and self.moving.before:
            raise ConfigError(
                f"min_motion: {config.min_motion:g} is more than the motion of each of the "
                f"{self.moving.before:,} steps of {store.url}, {index.split}; choose a lower threshold"
            )
        if not counts.any():
            short = self._sample.leave if isinstance(self._sample, Frames) else self.offset
            raise TooShortError(
                f"sample: an offset of {short} steps is longer than every episode of "
                f"{store.url}, {index.split}; the longest has {index.steps.max()}"
            )
        self._key = derive(config.seed, int(manifest.order[:16], 16))
        self.order = Order(self._key, counts, index.shards.astype(np.int64), config.lanes, config.window)
        self.actions = max(1, self.offset)
        """Actions per sample."""
        self.columns = chosen_columns(index, config)
        """`action`, `state` -> columns that are read, if the array is."""
        self._chosen: slice | list[int] = slice(None)
        if config.action_columns is not None:
            names = [one.name for one in parse_columns(manifest.action)]
            self._chosen = [names.index(one.name) for one in self.columns["action"]]
        self._sum = Summing(self.columns["action"], store.url) if config.action == "sum" else None
        (self.camera,) = index.cameras.values()
        self.episodes = EpisodeReader(index, check=config.check, cache=cache)
        self.reader = FrameReader(self.episodes, self.camera, size=size, budget=budget)
        self._pair = isinstance(self._sample, Pairs)
        wanted = len(self.order) * (2 if self._pair else 1)
        dense = wanted >= DENSE * int(self.camera.bases[-1])
        self._dense = dense if config.read_mode == "auto" else config.read_mode == "sequential"
        # The system's page cache keeps raw frames of a directory better than a copy of them would.
        self._reuses = (dense or self._dense) and (
            store.remote or self.camera.codec != "raw" or size != self.camera.uniform
        )
        self._budget = budget
        self._begun: dict[int, tuple[int, int]] = {}
        self._share: tuple[int, int, Schedule, int, int, int] | None = None

    def begin(self, rank: int, world: int, schedule: Schedule, me: int, start: int, end: int) -> Reuse:
        """Begin an iteration over the samples of one rank, from position `start` of the mixture to `end`."""
        self._share = rank, world, schedule, me, start, end
        self._begun.clear()
        return self.reader.begin()

    def want(self, positions: Int64, rows: Int64) -> Wanted:
        """The samples at positions of this dataset's own sequence, announced as needed soon in a batch."""
        if self._share is not None and (self._reuses or self._dense):
            self._expect(positions)
        return self.find(positions, rows)

    def find(self, positions: Int64, rows: Int64 | None = None) -> Wanted:
        """The samples at positions of this dataset's own sequence, without announcing their chunks."""
        samples = self.order.at(positions)
        rows = np.arange(len(positions)) if rows is None else rows
        return Wanted(rows, samples.episode, self._steps(samples))

    def _steps(self, samples: Samples) -> Int64:
        lengths = self._lengths[samples.episode]
        steps = self._sample.steps(self._key, samples, lengths, self.offset)
        return steps if self.moving is None else self.moving.at(samples.episode, steps)

    def _expect(self, positions: Int64) -> None:
        """Announce the chunks of every window that the positions enter."""
        order = self.order
        epochs, inside = np.divmod(positions, len(order))
        rows, lanes = np.divmod(inside, order.lanes)
        windows = order.window_of(rows, lanes)
        for epoch, lane, window in dict.fromkeys(
            zip(epochs.tolist(), lanes.tolist(), windows.tolist(), strict=True)
        ):
            if self._begun.get(lane, (-1, -1)) < (epoch, window):
                self._begun[lane] = epoch, window
                self._begin_window(order.positions_of(epoch, lane, window))

    def _begin_window(self, own: Int64) -> None:
        assert self._share is not None
        rank, world, schedule, me, start, end = self._share
        places = schedule.where(me, own)
        own = own[(places % world == rank) & (places >= start) & (places < end)]
        samples = self.order.at(own)
        steps = self._steps(samples)
        episodes = np.concatenate([samples.episode, samples.episode]) if self._pair else samples.episode
        steps = np.concatenate([steps, steps + self.offset]) if self._pair else steps
        chunks = steps // self.camera.chunk
        names, firsts, times = np.unique(
            self.camera.bases[episodes] + chunks, return_index=True, return_counts=True
        )
        if self._reuses:
            self.reader.reuse.expect(names, times)
        if not self._dense:
            return
        if not self.index.dataset.store.remote:
            self.reader.will_need(np.unique(episodes))
        elif self._reuses:
            lanes = self.order.lanes // (1 if len(schedule.parts) > 1 else world)  # that this rank reads
            self.reader.plan_reads(episodes[firsts], chunks[firsts], self._budget.size // 2 // lanes)

    def describe(self, wanted: Wanted, batch: Batch) -> None:
        """Fill the samples' rows with data already in memory: step, offset, dataset, key and texts."""
        index, rows = self.index, wanted.rows.tolist()
        batch.t.numpy()[wanted.rows] = wanted.steps
        batch.offset.numpy()[wanted.rows] = self.offset
        name = index.dataset.manifest.dataset["name"]
        environments = index.texts["environment"].at(wanted.episodes)
        instructions = index.texts["instruction"].at(wanted.episodes)
        datasets, keys, places, texts = batch.dataset, batch.key, batch.environment, batch.instruction
        for row, episode, environment, instruction in zip(
            rows, wanted.episodes.tolist(), environments, instructions, strict=True
        ):
            datasets[row], keys[row] = name, index.key(episode)
            places[row], texts[row] = environment, instruction or ""

    def fill(self, wanted: Wanted, batch: Batch, reuse: Reuse | None) -> None:
        """Read frames, arrays and instructions of some samples into their rows, in a thread."""
        frames, steps = batch.frames.numpy(), wanted.steps[:, None]
        if self._pair:
            steps = np.concatenate([steps, steps + self.offset], axis=1)
        shape = len(frames), steps.shape[1], *frames.shape[-3:]
        self.reader.read(wanted.episodes, steps, frames.reshape(shape), wanted.rows, reuse)
        if not self._config.arrays and batch.instructions is None:
            return
        action, mask, state = (
            None if tensor is None else tensor.numpy()
            for tensor in (batch.action, batch.action_mask, batch.state)
        )
        for row, episode, t in zip(
            wanted.rows.tolist(), wanted.episodes.tolist(), wanted.steps.tolist(), strict=True
        ):
            if action is not None and mask is not None:
                self._act(action, mask, row, episode, t)
            if state is not None:
                state[row] = self.episodes.array("state", episode)[t]
            if batch.instructions is not None:
                batch.instructions[row] = self.episodes.instructions(episode, t)

    def _act(self, action: Floats, mask: npt.NDArray[np.bool_], row: int, episode: int, t: int) -> None:
        """Fill the action and the mask of one sample; steps that hold no action stay zero."""
        assert self.index.acts is not None
        start, stop = self.index.acts[episode].tolist()
        values = self.episodes.array("action", episode)
        if self._sum is not None:
            low = max(t - 1, 0)  # a sum needs the step before its first
            some = values[low : t + self.actions, self._chosen]  # not the whole episode: it may be a copy
            self._sum.fill(action[row], mask[row], some, t - low, self.actions, (start - low, stop - low))
            return
        first, end = max(t, start), min(t + self.actions, stop)
        if first < end:
            action[row, first - t : end - t] = values[first:end, self._chosen]
            mask[row, first - t : end - t] = True


def chosen_columns(index: SplitIndex, config: LoaderConfig) -> dict[str, tuple[Column, ...]]:
    """`action`, `state` -> the columns that are read, for each array that is.

    Raises:
        ConfigError: the dataset lacks a column that is asked for.
    """
    manifest = index.dataset.manifest
    found = {name: parse_columns(getattr(manifest, name)) for name in config.arrays}
    if config.action_columns is not None:
        there = {one.name: one for one in found["action"]}
        for name in config.action_columns:
            if name not in there:
                raise ConfigError(
                    f"action_columns: {index.dataset.store.url} has no column {name!r}, but "
                    f"{', '.join(there)}{did_you_mean(name, there)}"
                )
        found["action"] = tuple(there[name] for name in config.action_columns)
    return found
