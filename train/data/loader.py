"""The loader: batches of samples of compiled datasets, in an order that is a pure function of the position.

    loader = Loader("bridge", sample=Pairs(frames=5), batch_size=64, seed=1)
    for batch in loader:
        batch.frames                       # uint8 [64, 2, H, W, 3]

Threads read, check and decode straight into the batch, some batches in advance; there are no worker
processes, and no copies between them. Threads, and the memory for what is needed again, are shared by all
loaders of the process. The trade-off: Python spends about 10 microseconds per frame under the
interpreter's lock, so even tiny frames on many cores are read at a hundred thousand per second at most.

The position is the number of samples handed out so far, over all ranks. Nothing else is state.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.utils.data

from oxcart.manifests.dataset import Dataset, read_whole
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError
from oxcart.train.data.anchors import reach
from oxcart.train.data.annotations import StepValues, by_name
from oxcart.train.data.balance import BalancedOrder
from oxcart.train.data.batch import Batch
from oxcart.train.data.cache import Cache
from oxcart.train.data.config import LoaderConfig
from oxcart.train.data.index import SplitIndex
from oxcart.train.data.memory import batch_memory, check_fits
from oxcart.train.data.mixture import Mixture, Schedule, check_distinct
from oxcart.train.data.order import derive
from oxcart.train.data.reuse import Budget, process_budget
from oxcart.train.data.sampling import Window
from oxcart.train.data.stacking import cameras_of, columns_of, common_size, common_width
from oxcart.train.data.state import check_state, make_state
from oxcart.train.data.stream import DatasetStream, Wanted
from oxcart.train.data.workers import CallGroup, Workers, own_cores, process_workers

REMOTE_THREADS = 32
"""Minimum number of reading threads if a dataset is remote."""
PLAN_SAMPLES = 1024
"""Number of samples located together."""

Int64 = npt.NDArray[np.int64]
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Loader(torch.utils.data.IterableDataset[Batch]):
    """Batches of one split.

    Args:
        datasets: a compiled dataset (directory, URL, or opened), several of them, or a `Mixture`.
        split: name of the split.
        config: settings; by default only the keyword arguments.
        settings: fields of `LoaderConfig`, which override those of `config`.

    Raises:
        ConfigError: a setting is invalid, or the datasets lack something that is requested.
    """

    def __init__(
        self,
        datasets: str | Dataset | Sequence[str | Dataset] | Mixture,
        split: str = "train",
        config: LoaderConfig | None = None,
        **settings: Any,
    ) -> None:
        config = replace(config, **settings) if config else LoaderConfig(**settings)
        self.config, self.split = config, split
        self.rank, self.world_size = _place(config)
        mixture = datasets if isinstance(datasets, Mixture) else Mixture(datasets=_listed(datasets))
        if config.balance == "dataset":
            mixture = mixture.equal()
        used, parts = zip(*mixture.used, strict=True)
        opened = [one if isinstance(one, Dataset) else Dataset.open(os.fspath(one)) for one in used]
        check_distinct("datasets", [one.store.url for one in opened], opened, parts)
        if isinstance(config.control_rate, Mapping) and len(opened) == len(mixture.datasets):
            for name in config.control_rate:
                one_of("control_rate", name, [one.manifest.dataset["name"] for one in opened])
        kept = Cache(config.cache, config.cache_bytes) if config.cache is not None else None
        caches = [kept if one.store.remote else None for one in opened]
        selection = config.selection
        indexes = [
            SplitIndex(
                one,
                split,
                cameras,
                replace(selection, part=part),
                config.arrays,
                config.instructions,
                own.read_whole if own else read_whole,
            )
            for one, own, cameras, part in zip(opened, caches, cameras_of(opened, config), parts, strict=True)
        ]
        selection.check_known([keys for one in indexes if (keys := one.known_keys) is not None])
        for index in indexes:
            index.known_keys = None  # of all splits, which are not needed any more
        self.sizes = {name: config.resize(name) or common_size(indexes, name) for name in config.cameras}
        """Camera, as it was asked for -> height and width of its frames."""
        self._annotations = by_name(
            [one for url in config.annotations for one in StepValues.open(url, indexes)], indexes
        )
        self._budget = Budget(config.memory, process_budget(config.memory))
        self.streams = [
            DatasetStream(index, config, sizes=self.sizes, budget=self._budget, cache=own)
            for index, own in zip(indexes, caches, strict=True)
        ]
        self.columns = columns_of(self.streams)
        """Name of each dataset -> `action`, `state` -> the columns that are read."""
        self._widths = {name: common_width(self.streams, name, config) for name in config.arrays}
        frames = [int(index.steps.sum(dtype=np.int64)) for index in indexes]
        self._schedule = Schedule(mixture.shares(list(map(len, indexes)), frames))
        self.epoch_length = self._schedule.epoch([len(one.order) for one in self.streams], mixture.epoch)
        """Samples per epoch, over all ranks."""
        self._check_memory()
        self._order: dict[str, Any] = {
            "datasets": [index.describe() for index in indexes],
            "weights": self._schedule.parts,
            "sample": config.sample.describe(),
            "offsets": [
                reach(config.sample, one.relative, scored=bool(config.thresholds))
                if isinstance(config.sample, Window)
                else one.offset
                for one in self.streams
            ],
            "episodes": [len(index) for index in indexes],
            "seed": config.seed,
            "lanes": config.lanes,
            "block": config.block,
        }
        if config.balance is not None:
            self._order["balance"] = config.balance
        for name in config.thresholds:
            self._order[f"min_{name}"] = [
                one.anchors.active.described[name] for one in self.streams if one.anchors.active
            ]
        self._position = 0
        self._resumed = False
        remote = any(one.store.remote for one in opened)
        cores = own_cores()
        self.threads = config.threads or (max(REMOTE_THREADS, cores) if remote else cores)
        """Threads that read; other loaders of the process use the same."""
        self._slices = self.threads if remote else 2 * self.threads
        self._memory = {
            name: batch_memory(torch.cuda.is_available() if config.pin is None else config.pin, shape)
            for name, shape in (
                *self._array_shapes.items(),
                *((f"frames of {name}", shape) for name, shape in self.frame_shapes.items()),
            )
        }

    def _check_memory(self) -> None:
        """Refuse batches that do not fit into the memory of this machine."""
        size, prefetch = self.config.batch_size, self.config.prefetch
        samples, count = size, prefetch + 1
        if not self.config.repeat:
            samples, count = min(size, self.epoch_length), min(count, len(self))
        rows = -(-samples // self.world_size)
        frames = sum(math.prod(shape) for shape in self.frame_shapes.values())
        arrays = 4 * sum(math.prod(shape) for shape in self._array_shapes.values())
        what = "frames, actions and states" if arrays else "frames"
        check_fits(
            "batch_size",
            rows * count * (frames + arrays),
            f"{what} of {count:,} batches (prefetch={prefetch}) of {rows:,} samples",
            "take a smaller batch_size or prefetch",
        )

    @cached_property
    def _array_shapes(self) -> dict[str, tuple[int, ...]]:
        """`action`, `state` -> shape of the array of a sample."""
        found = {}
        for name, width in self._widths.items():
            steps = max((one.arrays[name].shape for one in self.streams if name in one.arrays), default=())
            found[name] = (*steps, width)
        return found

    @cached_property
    def frame_shapes(self) -> dict[str, tuple[int, ...]]:
        """Camera, as it was asked for -> shape of the frames of a sample."""
        steps = self.streams[0].relative.frames
        return {name: (*steps[name].shape, *size, 3) for name, size in self.sizes.items()}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames of the only camera."""
        (only,) = self.sizes.values()
        return only

    def __len__(self) -> int:
        """Batches per epoch, including a smaller last one."""
        return (self.epoch_length + self.config.batch_size - 1) // self.config.batch_size

    @cached_property
    def _workers(self) -> Workers:
        return process_workers(self.threads)

    @property
    def position(self) -> int:
        """Samples handed out so far, over all ranks."""
        return self._position

    def annotation(self, name: str, dataset: int) -> StepValues:
        """The values of an annotation for one of the datasets."""
        return self._annotations[name][dataset]

    @property
    def bytes_read(self) -> int:
        """Bytes of frames that this process has read from stores; the cache does not count."""
        return sum(stream.episodes.bytes_read for stream in self.streams)

    def state_dict(self, position: int | None = None) -> dict[str, Any]:
        """A position, by default that after the last batch handed out, and everything on which the order of
        samples depends, as plain data."""
        at = self._position if position is None else position
        return make_state(at, self._order, self.config.batch_size, self.world_size)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; batch size and world size may differ.

        Raises:
            ConfigError: the order of samples differs from that of the state; the message says how.
        """
        self._position = check_state(state, self._order)
        self._resumed = True
        for name, mine in (("batch_size", self.config.batch_size), ("world_size", self.world_size)):
            if state.get(name) != mine:
                _log.warning(
                    "%s was %s and is %s now; the samples stay the same", name, state.get(name), mine
                )

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the current position; without `repeat`, from the start unless a state was loaded."""
        return _batches_of(self.ahead(lambda number, batch: None))

    def ahead(self, work: Callable[[int, Batch], T]) -> Iterator[tuple[Batch, T, int]]:
        """Batches from where `__iter__` begins, each with what `work` makes of it and the position after it.

        Args:
            work: called in a reading thread, ahead of the batch's use, with the number of the batch in this
                iteration and the batch.
        """
        if torch.utils.data.get_worker_info() is not None:
            raise ConfigError("num_workers: the loader reads in threads of its own; pass num_workers=0")
        if not self.config.repeat and not self._resumed:
            self._position = 0
        self._resumed = False
        return self._batches(work)

    def _batches(self, work: Callable[[int, Batch], T]) -> Iterator[tuple[Batch, T, int]]:
        start = self._position
        end = sys.maxsize if self.config.repeat else self.epoch_length
        kept = [
            stream.begin(self.rank, self.world_size, self._schedule, i, start, end)
            for i, stream in enumerate(self.streams)
        ]
        running: deque[tuple[CallGroup, Batch, int]] = deque()
        plans, numbers = self._plans(start, end), itertools.count()
        try:
            while True:
                while len(running) <= self.config.prefetch and (plan := next(plans, None)):
                    wanted, after = plan
                    batch, calls = self._make(wanted, expected=True)
                    group = self._workers.start(calls, partial(work, next(numbers), batch))
                    running.append((group, batch, after))
                if not running:
                    return
                group, batch, after = running.popleft()
                made = group.wait()
                self._position = after
                yield batch, made, after
                del group, batch, made  # the memory may be used for the next one
        finally:
            for group, _, _ in running:
                group.cancel()
            for reuse in itertools.chain.from_iterable(kept):
                reuse.close()

    def _plans(self, start: int, end: int) -> Iterator[tuple[list[Wanted], int]]:
        """The samples of each batch, dataset by dataset, and the position after the batch."""
        group = max(1, PLAN_SAMPLES // self.config.batch_size)
        while start < end:
            stops = [min(end, start + (i + 1) * self.config.batch_size) for i in range(group)]
            stops = list(dict.fromkeys(stops))
            first = start + (self.rank - start) % self.world_size
            positions = np.arange(first, stops[-1], self.world_size, dtype=np.int64)
            wanted = self._locate(positions)
            bounds = [max(0, -(-(stop - first) // self.world_size)) for stop in stops]
            begin = 0
            for stop, bound in zip(stops, bounds, strict=True):
                yield [one.between(begin, bound) for one in wanted], stop
                begin = max(begin, bound)
            start = stops[-1]

    def _locate(self, positions: Int64, *, drawn: bool = False) -> list[Wanted]:
        datasets, own = self._schedule.at(positions)
        found = []
        for i, stream in enumerate(self.streams):
            places = np.flatnonzero(datasets == i)
            locate = stream.find if drawn else stream.want
            found.append(locate(own[places], places))
        return found

    def _make(self, wanted: list[Wanted], *, expected: bool) -> tuple[Batch, list[Any]]:
        """A batch without the data in shards, and the calls that read these data."""
        config = self.config
        batch = self._empty(sum(len(one.rows) for one in wanted))
        calls: list[Any] = []
        for i, (stream, one) in enumerate(zip(self.streams, wanted, strict=True)):
            if not len(one.rows):
                continue
            stream.describe(one, batch)
            for name, own in self._annotations.items():
                batch.annotations[name].numpy()[one.rows] = own[i].at(one.episodes, one.steps)
                beyond = one.steps + own[i].ahead >= stream.index.steps[one.episodes]
                batch.annotations_is_pad[name].numpy()[one.rows] = beyond
            reuses = {view.name: view.reader.reuse for view in stream.views} if expected else {}
            share = -(-len(one.rows) // self._slices)
            slices = [one.slice(begin, begin + share) for begin in range(0, len(one.rows), share)]
            if config.cameras:
                calls += [partial(stream.fill_frames, some, batch, reuses) for some in slices]
            if config.arrays or config.instructions:
                # Samples of an episode share its arrays, unless each has to be waited for.
                remote = stream.index.dataset.store.remote
                calls += [partial(stream.fill_values, some, batch) for some in (slices if remote else [one])]
        return batch, calls

    def _empty(self, count: int) -> Batch:
        """A batch of a number of samples, nothing of which is known yet."""
        config, sample = self.config, self.config.sample
        frames, pads = {}, {}
        for name, shape in self.frame_shapes.items():
            frames[name] = self._memory[f"frames of {name}"].take((count, *shape))
            pads[name] = torch.ones((count, *shape[:-3]), dtype=torch.bool)
        named = isinstance(sample.window.frames, Mapping)
        arrays: dict[str, torch.Tensor] = {}
        for name, shape in self._array_shapes.items():
            arrays[name] = self._memory[name].take((count, *shape), torch.float32)
            arrays[name].numpy().fill(0)
            if name == "action" and config.action == "sum":
                arrays["action_mask"] = torch.zeros((count, *shape), dtype=torch.bool)
            else:
                arrays[f"{name}_is_pad"] = torch.ones((count, *shape[:-1]), dtype=torch.bool)
        return Batch(
            frames=frames if named else frames.get(config.camera),
            frames_is_pad=pads if named else pads.get(config.camera),
            cameras=config.cameras,
            t=torch.empty(count, dtype=torch.int64),
            offset=torch.empty(count, dtype=torch.int64),
            dataset=[""] * count,
            key=[""] * count,
            environment=[None] * count,
            instruction=[""] * count,
            columns=self.columns,
            instructions=[[] for _ in range(count)] if config.instructions else None,
            annotations={
                name: torch.from_numpy(own[0].empty(count)) for name, own in self._annotations.items()
            },
            annotations_is_pad={name: torch.ones(count, dtype=torch.bool) for name in self._annotations},
            **arrays,
        )

    def draw(self, count: int, seed: int = 0) -> Batch:
        """Random samples of the first epoch, the same for the same seed; the position does not change."""
        hashes = np.array([derive(seed, 3, i) for i in range(count)], np.uint64)
        return self.at((hashes % np.uint64(self.epoch_length)).astype(np.int64))

    def at(self, positions: Int64) -> Batch:
        """The samples at given positions of the sequence, in that order; the position does not change."""
        batch, calls = self._make(self._locate(positions, drawn=True), expected=False)
        self._workers.start(calls).wait()
        return batch

    def locate_random(self, count: int) -> list[tuple[int, int]]:
        """Episode and step of random samples of the first dataset."""
        stream = self.streams[0]
        hashes = np.array([derive(self.config.seed, 4, i) for i in range(count)], np.uint64)
        found = stream.find((hashes % np.uint64(len(stream.order))).astype(np.int64))
        return list(zip(found.episodes.tolist(), found.steps.tolist(), strict=True))

    def table(self) -> list[dict[str, Any]]:
        """One row per dataset: counts, weight, and passes through the dataset in an epoch."""
        return [
            {
                "dataset": stream.name,
                "episodes": len(stream.index),
                "frames": int(stream.index.steps.sum(dtype=np.int64)),
                "samples": len(stream.order),
                "offset": stream.offset,
                "weight": share,
                "passes": share * self.epoch_length / len(stream.order),
            }
            for stream, share in zip(self.streams, self._schedule.shares, strict=True)
        ]

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        head = ("dataset", "episodes", "frames", "samples", "offset", "weight", "passes")
        rows = [
            [
                f"{v:,}" if isinstance(v, int) else f"{v:.4g}" if isinstance(v, float) else v
                for v in row.values()
            ]
            for row in self.table()
        ]
        widths = [max(len(row[i]) for row in [list(head), *rows]) for i in range(len(head))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in [list(head), *rows]
        ]
        for stream in self.streams:
            if stream.index.left:
                left = "; ".join(f"{step} leaves {count:,}" for step, count in stream.index.left)
                lines.append(f"{stream.name}: {left} episodes")
            if isinstance(stream.order, BalancedOrder):
                turns = f"{stream.order.groups:,} {self.config.balance}s"
                lines.append(f"{stream.name}: samples are taken in turn from {turns}")
            if (active := stream.anchors.active) is not None:
                taken = int(active.room.sum())
                lines.append(
                    f"{stream.name}: samples are taken at {taken:,} of {active.before:,} steps, {active.said}"
                )
            if missing := [name for name in self.sizes if name not in stream.index.cameras]:
                lines.append(
                    f"{stream.name}: has no camera {', '.join(missing)}; those frames are 0, and masked"
                )
        epoch = f"{self.epoch_length:,} samples, {len(self):,} batches of {self.config.batch_size}"
        return "\n".join([*lines, f"{self.split}: an epoch is {epoch}"])


def _batches_of(ahead: Iterator[tuple[Batch, Any, int]]) -> Iterator[Batch]:
    """The batches alone, none of them held longer than it is in use."""
    while (item := next(ahead, None)) is not None:
        batch = item[0]
        del item
        yield batch
        del batch


def _listed(datasets: str | Dataset | Sequence[str | Dataset]) -> Sequence[str | Dataset]:
    return [datasets] if isinstance(datasets, str | Dataset | os.PathLike) else list(datasets)


def _place(config: LoaderConfig) -> tuple[int, int]:
    """Rank and world size."""
    if config.rank is not None and config.world_size is not None:
        rank, world = config.rank, config.world_size
    elif torch.distributed.is_available() and torch.distributed.is_initialized():
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    else:
        rank, world = 0, 1
    for name, number in (("batch_size", config.batch_size), ("lanes", config.lanes)):
        if number % world:
            raise ConfigError(f"{name}: expected a multiple of the world size {world}, got {number}")
    return rank, world
