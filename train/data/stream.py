"""One dataset of a loader: the order of its samples, and how they are read into rows of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from oxcart.manifests.columns import Column, parse_columns
from oxcart.shards.choices import did_you_mean
from oxcart.shards.errors import ConfigError
from oxcart.train.data.anchors import Anchors
from oxcart.train.data.balance import BalancedOrder
from oxcart.train.data.batch import Batch
from oxcart.train.data.cache import Cache
from oxcart.train.data.config import LoaderConfig, rate_of
from oxcart.train.data.index import TEXTS, CameraIndex, SplitIndex
from oxcart.train.data.mixture import Schedule
from oxcart.train.data.order import Order, Samples, derive
from oxcart.train.data.reader import EpisodeReader, FrameReader
from oxcart.train.data.reuse import Budget, Reuse
from oxcart.train.data.sampling import count_draws, draw_anchors
from oxcart.train.data.summing import Summing

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

    @property
    def columns(self) -> tuple[Int64, Int64, Int64]:
        """Rows, episodes and steps."""
        return self.rows, self.episodes, self.steps

    def slice(self, begin: int, end: int) -> Wanted:
        """The samples from one index to another."""
        return Wanted(self.rows[begin:end], self.episodes[begin:end], self.steps[begin:end])

    def between(self, first: int, stop: int) -> Wanted:
        """The samples of rows `first` to `stop - 1`, whose rows are then counted from `first`."""
        begin, end = np.searchsorted(self.rows, [first, stop])
        return Wanted(self.rows[begin:end] - first, self.episodes[begin:end], self.steps[begin:end])


@dataclass(frozen=True)
class View:
    """One camera of a dataset, as a stream reads it."""

    name: str
    """The camera, as it was asked for."""
    steps: Int64
    """Steps of its frames relative to t: [k], or [] for a single step."""
    camera: CameraIndex
    reader: FrameReader
    dense: bool
    """Whether chunks are read in sequence."""
    reuses: bool
    """Whether chunks are kept for the samples that need them next."""


class DatasetStream:
    """The samples of one dataset of a loader.

    Args:
        index: episodes of the dataset's split, with those of the cameras that the dataset has.
        config: settings of the loader.
        sizes: camera, as it was asked for -> height and width of its frames in a batch.
        budget: memory for chunks that are needed again soon, shared by the datasets of the loader.
        cache: local cache of the dataset; None reads only from its store.

    Raises:
        TooShortError: no episode is long enough for a sample.
        ConfigError: seconds cannot be turned into steps, no sample moves enough, or a column is missing.
    """

    def __init__(
        self,
        index: SplitIndex,
        config: LoaderConfig,
        *,
        sizes: Mapping[str, tuple[int, int]],
        budget: Budget,
        cache: Cache | None,
    ) -> None:
        self.index, self._config = index, config
        manifest, store = index.dataset.manifest, index.dataset.store
        self.name = str(manifest.dataset["name"])
        window, rate = config.sample.window, rate_of(manifest, config.control_rate)
        self.relative = window.relative(config.camera, rate, store.url)
        """The window in steps of this dataset."""
        self.anchors = Anchors.of(index, config, self.relative)
        first, last = self.relative.seen
        self.offset = last - first
        """Steps from the first frame of a sample to the last."""
        key = derive(config.seed, int(manifest.order[:16], 16))
        self._key = derive(key, 6, index.first) if index.first else key
        counts = count_draws(window.per_episode, self.anchors.room)
        self.order: Order | BalancedOrder
        if config.balance in TEXTS:
            self.order = BalancedOrder(self._key, counts, index.texts[config.balance].codes.astype(np.int64))
        else:
            self.order = Order(self._key, counts, index.shards.astype(np.int64), config.lanes, config.block)
        self.columns = chosen_columns(index, config)
        """`action`, `state` -> columns that are read, if the array is."""
        self._chosen: slice | list[int] = slice(None)
        if config.action_columns is not None:
            names = [one.name for one in parse_columns(manifest.action)]
            self._chosen = [names.index(one.name) for one in self.columns["action"]]
        self._sum = Summing(self.columns["action"], store.url) if config.action == "sum" else None
        self.arrays = self._array_steps()
        """`action`, `state` -> its steps relative to t, if the array is read as it is."""
        self._repeat = window.pad == "repeat"
        self.episodes = EpisodeReader(index, check=config.check, cache=cache)
        self._budget = budget
        self.views = [
            self._view(name, steps, sizes[name])
            for name, steps in self.relative.frames.items()
            if name in index.cameras
        ]
        """The cameras that the dataset has, of those that were asked for."""
        self._begun: dict[int, tuple[int, int]] = {}
        self._share: tuple[int, int, Schedule, int, int, int] | None = None

    def _array_steps(self) -> dict[str, Int64]:
        config, span = self._config, max(1, self.offset)
        found = {"action": self.relative.action, "state": self.relative.state}
        if config.action == "steps":
            found["action"] = np.arange(span)
        if config.state:
            found["state"] = np.array(0)
        return {name: steps for name, steps in found.items() if steps is not None}

    def _view(self, name: str, steps: Int64, size: tuple[int, int]) -> View:
        camera, mode = self.index.cameras[name], self._config.read_mode
        needed = len(self.order) * steps.size >= DENSE * int(camera.bases[-1])
        dense = needed if mode == "auto" else mode == "sequential"
        if isinstance(self.order, BalancedOrder):  # no two samples that follow each other are close
            needed = dense = False
        # The system's page cache keeps raw frames of a directory better than a copy of them would.
        worth = self.index.dataset.store.remote or camera.codec != "raw" or size != camera.uniform
        reader = FrameReader(self.episodes, camera, size=size, budget=self._budget)
        return View(name, steps, camera, reader, dense, (needed or dense) and worth)

    def begin(self, rank: int, world: int, schedule: Schedule, me: int, start: int, end: int) -> list[Reuse]:
        """Begin an iteration over the samples of one rank, from position `start` of the mixture to `end`."""
        self._share = rank, world, schedule, me, start, end
        self._begun.clear()
        return [view.reader.begin() for view in self.views]

    def want(self, positions: Int64, rows: Int64) -> Wanted:
        """The samples at positions of this dataset's own sequence, announced as needed soon in a batch."""
        if self._share is not None and any(view.reuses or view.dense for view in self.views):
            self._expect(positions)
        return self.find(positions, rows)

    def find(self, positions: Int64, rows: Int64 | None = None) -> Wanted:
        """The samples at positions of this dataset's own sequence, without announcing their chunks."""
        samples = self.order.at(positions)
        rows = np.arange(len(positions)) if rows is None else rows
        return Wanted(rows, samples.episode, self._steps(samples))

    def _steps(self, samples: Samples) -> Int64:
        per_episode, room = self._config.sample.window.per_episode, self.anchors.room[samples.episode]
        numbers = draw_anchors(per_episode, self._key, samples, room)
        return self.anchors.at(samples.episode, numbers)

    def _expect(self, positions: Int64) -> None:
        """Announce the chunks of every block that the positions enter."""
        order = self.order
        assert isinstance(order, Order)
        epochs, inside = np.divmod(positions, len(order))
        rows, lanes = np.divmod(inside, order.lanes)
        blocks = order.block_of(rows, lanes)
        for epoch, lane, block in dict.fromkeys(
            zip(epochs.tolist(), lanes.tolist(), blocks.tolist(), strict=True)
        ):
            if self._begun.get(lane, (-1, -1)) < (epoch, block):
                self._begun[lane] = epoch, block
                self._begin_block(order.positions_of(epoch, lane, block))

    def _begin_block(self, own: Int64) -> None:
        assert self._share is not None
        rank, world, schedule, me, start, end = self._share
        places = schedule.where(me, own)
        own = own[(places % world == rank) & (places >= start) & (places < end)]
        samples = self.order.at(own)
        steps = self._steps(samples)
        for view in self.views:
            self._announce(view, samples.episode, steps, world, schedule)

    def _announce(self, view: View, episodes: Int64, steps: Int64, world: int, schedule: Schedule) -> None:
        """Announce the chunks of one camera that samples need soon."""
        wanted = self._clipped(episodes, steps, view.steps).reshape(len(episodes), -1)
        episodes = np.repeat(episodes, wanted.shape[1])
        chunks = view.camera.chunks_of(episodes, wanted.reshape(-1))
        names, firsts, times = np.unique(
            view.camera.bases[episodes] + chunks, return_index=True, return_counts=True
        )
        if view.reuses:
            view.reader.reuse.expect(names, times)
        if not view.dense:
            return
        if not self.index.dataset.store.remote:
            view.reader.will_need(np.unique(episodes))
        elif view.reuses and isinstance(self.order, Order):
            lanes = self.order.lanes // (1 if len(schedule.parts) > 1 else world)  # that this rank reads
            limit = self._budget.size // 2 // lanes // len(self.views)
            view.reader.plan_reads(episodes[firsts], chunks[firsts], limit)

    def _clipped(self, episodes: Int64, t: Int64, relative: Int64) -> Int64:
        """Steps [n] or [n, k] of the episodes, those beyond the ends moved to them."""
        last = _along(self.index.steps[episodes] - 1, relative)
        clipped: Int64 = np.clip(_along(t, relative) + relative, 0, last)
        return clipped

    def describe(self, wanted: Wanted, batch: Batch) -> None:
        """Fill the samples' rows with data already in memory: steps, masks, dataset, key and texts."""
        index, rows, episodes = self.index, wanted.rows, wanted.episodes
        batch.t.numpy()[rows] = wanted.steps
        batch.offset.numpy()[rows] = self.offset
        for view in self.views:
            ends = np.zeros_like(episodes), index.steps[episodes]
            _of(batch.frames_is_pad, view.name)[rows] = (
                self._outside(wanted, view.steps, *ends) if self._repeat else False
            )
        for name, steps in self.arrays.items():
            outside = self._outside(wanted, steps, *self._held(name, episodes))
            mask = batch.action_is_pad if name == "action" else batch.state_is_pad
            assert mask is not None
            _part(mask, steps.shape)[rows] = outside
        environments = index.texts["environment"].at(episodes)
        instructions = [text or "" for text in index.texts["instruction"].at(episodes)]
        lists: tuple[list[Any], ...] = (batch.dataset, batch.key, batch.environment, batch.instruction)
        values: tuple[list[Any], ...] = (
            [self.name] * len(rows),
            index.keys_at(episodes),
            environments,
            instructions,
        )
        for into, some in zip(lists, values, strict=True):
            if len(some) == len(into):  # of one dataset, the rows are in order
                into[:] = some
            else:
                for row, value in zip(rows.tolist(), some, strict=True):
                    into[row] = value

    def _held(self, array: str, episodes: Int64) -> tuple[Int64, Int64]:
        """First step of each episode that holds an array, and the step after the last one."""
        if array == "action":
            assert self.index.acts is not None
            return self.index.acts[episodes, 0], self.index.acts[episodes, 1]
        return np.zeros_like(episodes), self.index.steps[episodes].astype(np.int64)

    def _outside(self, wanted: Wanted, relative: Int64, start: Int64, stop: Int64) -> npt.NDArray[np.bool_]:
        """Which steps of samples lie before `start` or from `stop` on."""
        steps = _along(wanted.steps, relative) + relative
        outside: npt.NDArray[np.bool_] = (steps < _along(start, relative)) | (steps >= _along(stop, relative))
        return outside

    def fill_frames(self, wanted: Wanted, batch: Batch, reuses: Mapping[str, Reuse]) -> None:
        """Read the frames of some samples into their rows, in a thread.

        Args:
            wanted: the samples.
            batch: the batch.
            reuses: camera -> the iteration in which its frames were expected; empty if they were not.
        """
        for view in self.views:
            frames = _of(batch.frames, view.name)
            steps = self._clipped(wanted.episodes, wanted.steps, view.steps).reshape(len(wanted.rows), -1)
            frames = frames.reshape(len(frames), steps.shape[1], *frames.shape[-3:])
            view.reader.read(wanted.episodes, steps, frames, wanted.rows, reuses.get(view.name))
        for name in self.relative.frames.keys() - {view.name for view in self.views}:
            _of(batch.frames, name)[wanted.rows] = 0

    def fill_values(self, wanted: Wanted, batch: Batch) -> None:
        """Read arrays and instructions of some samples into their rows, in a thread."""
        for name, steps in self.arrays.items():
            self._fill_array(name, steps, wanted, batch)
        if self._sum is not None:
            self._fill_sums(self._sum, wanted, batch)
        if batch.instructions is not None:
            for row, episode, t in zip(*map(np.ndarray.tolist, wanted.columns), strict=True):
                batch.instructions[row] = self.episodes.instructions(episode, t)

    def _fill_array(self, name: str, relative: Int64, wanted: Wanted, batch: Batch) -> None:
        """Fill the rows of `action` or `state`; the steps beyond the ends repeat, or stay 0."""
        episodes = wanted.episodes
        start, stop = self._held(name, episodes)
        steps = _along(wanted.steps, relative) + relative
        inside = np.clip(steps, _along(start, relative), _along(np.maximum(stop - 1, start), relative))
        inside = np.minimum(inside, _along(self.index.steps[episodes] - 1, relative))
        values = self.episodes.gather(name, episodes, inside.reshape(len(episodes), -1))
        values = values.reshape(*inside.shape, values.shape[-1])
        if name == "action":
            values = values[..., self._chosen]
        missing = self._outside(wanted, relative, start, stop)
        if self._repeat:  # only episodes without any action have nothing to repeat
            missing = np.broadcast_to(_along(stop, relative) <= _along(start, relative), steps.shape)
        if missing.any():
            values = np.where(missing[..., None], np.float32(0), values)
        out = batch.action if name == "action" else batch.state
        assert out is not None
        _part(out, values.shape[1:])[wanted.rows] = values

    def _fill_sums(self, summing: Summing, wanted: Wanted, batch: Batch) -> None:
        """Fill the sums of actions and their masks; a sum that is not known stays 0."""
        assert self.index.acts is not None
        assert batch.action is not None
        assert batch.action_mask is not None
        count, width = max(1, self.offset), len(self.columns["action"])
        action, mask = batch.action.numpy()[:, :width], batch.action_mask.numpy()[:, :width]
        for row, episode, t in zip(*map(np.ndarray.tolist, wanted.columns), strict=True):
            start, stop = self.index.acts[episode].tolist()
            low = max(t - 1, 0)  # a sum needs the step before its first
            # Not the columns of the whole episode: that would be a copy.
            some = self.episodes.array("action", episode)[low : t + count, self._chosen]
            summing.fill(action[row], mask[row], some, t - low, count, (start - low, stop - low))


def _along(values: Int64, relative: Int64) -> Int64:
    """Values [n] of samples, shaped so that they go with steps [k] or []."""
    return values.reshape(-1, *[1] * relative.ndim)


def _part(tensor: Tensor, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The array [B, ...] of a tensor, cut to the first values of each further axis."""
    part: npt.NDArray[Any] = tensor.numpy()[(slice(None), *(slice(size) for size in shape))]
    return part


def _of(tensors: Any, camera: str) -> npt.NDArray[Any]:
    """The array of a camera, of a batch's frames or their masks."""
    found: npt.NDArray[Any] = (tensors[camera] if isinstance(tensors, dict) else tensors).numpy()
    return found


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
