"""The loader: batches of samples of compiled datasets, in an order that is a pure function of the position.

    loader = Loader("bridge", sample=Pairs(frames=5), batch_size=64, seed=1)
    for batch in loader:
        batch.frames                       # uint8 [64, 2, H, W, 3]

Threads read, check and decode straight into the batch, some batches ahead; no worker process copies anything.
The trade-off: a batch costs Python about 10 microseconds a frame, under the interpreter's lock, so very small
frames are read at a hundred thousand a second at most, whatever the number of cores.

The position is the number of samples that have been handed out, over all ranks. Nothing else is state.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.utils.data

from oxcart.manifests.dataset import Dataset, read_whole
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError
from oxcart.train.data.annotations import StepValues, by_name
from oxcart.train.data.batch import Batch
from oxcart.train.data.cache import Cache
from oxcart.train.data.index import SplitIndex
from oxcart.train.data.memory import BatchMemory, check_fits
from oxcart.train.data.mixture import Mixture, Schedule, check_distinct
from oxcart.train.data.moving import open_moving
from oxcart.train.data.order import LANES, WINDOW, derive
from oxcart.train.data.reuse import Budget
from oxcart.train.data.sampling import Frames, Pairs
from oxcart.train.data.state import check_state, make_state
from oxcart.train.data.stream import DatasetStream, Wanted
from oxcart.train.data.workers import THREADS, CallGroup, Workers

ACTIONS = (None, "steps", "sum")
READ_MODES = ("auto", "sparse", "sequential")
REMOTE_THREADS = 32
MEMORY = 1 << 30
PLAN_SAMPLES = 1024
"""Samples whose places are worked out together."""

Int64 = npt.NDArray[np.int64]

_log = logging.getLogger(__name__)


class Loader(torch.utils.data.IterableDataset[Batch]):
    """Batches of one split.

    Args:
        datasets: a compiled dataset (directory, URL, or open), several of them, or a `Mixture`.
        split: which split.
        sample: `Pairs(...)` or `Frames(...)`.
        batch_size: samples of a batch, over all ranks.
        seed: another seed, another order.
        size: height and width that frames are resized to (bilinear); needed where they differ.
        camera: a camera's name, or `primary`.
        action: `steps` for those between the frames, `sum` for their sum, None for none.
        state: whether to read the state at t.
        instructions: whether to read all that may be said at t, not the episode's first instruction alone.
        annotations: files or URLs of annotations, of each name one for every dataset; their values at t.
        min_motion: leave out samples that move less from step to step, by the motion annotation of each
            dataset: what `oxcart annotate motion` measured, in its unit.
        motion: files or URLs of those annotations; none is where that command writes them.
        limit: the first so many episodes of each dataset, by the hash of their keys; what an extension added
            comes behind.
        control_rate: steps a second, where the datasets' own is not verified.
        rank, world_size: which share of each batch this process reads; None is what torch.distributed says.
        repeat: go on with the next epoch for ever; else end with the epoch, with a smaller last batch.
        lanes, window: of the shuffle; see `oxcart.train.data.order`.
        read_mode: `sparse` reads chunk by chunk, `sequential` in large pieces; `auto` decides by the share of
            bytes that are needed.
        check: hold every chunk against its digest.
        memory: bytes that may be kept of chunks that are wanted again soon.
        prefetch: batches that are read before they are wanted.
        threads: that read; None is one a core, 32 where a dataset is remote.
        cache: a directory of this machine for what is read of remote datasets.
        cache_bytes: size limit of the cache.
        pin: batches in memory that a GPU copies from by itself; None: where there is a GPU.

    Raises:
        ConfigError: an argument is impossible, or the datasets do not have what is asked for.
    """

    def __init__(
        self,
        datasets: str | Dataset | Sequence[str | Dataset] | Mixture,
        split: str = "train",
        *,
        sample: Pairs | Frames,
        batch_size: int,
        seed: int = 0,
        size: int | tuple[int, int] | None = None,
        camera: str = "primary",
        action: str | None = None,
        state: bool = False,
        instructions: bool = False,
        annotations: Sequence[str] = (),
        min_motion: float | None = None,
        motion: Sequence[str] = (),
        limit: int | None = None,
        control_rate: float | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        repeat: bool = True,
        lanes: int = LANES,
        window: int = WINDOW,
        read_mode: str = "auto",
        check: bool = True,
        memory: int = MEMORY,
        prefetch: int = 4,
        threads: int | None = None,
        cache: str | os.PathLike[str] | None = None,
        cache_bytes: int = 100 << 30,
        pin: bool | None = None,
    ) -> None:
        one_of("action", action, ACTIONS)
        one_of("read_mode", read_mode, READ_MODES)
        positive = {
            "batch_size": batch_size,
            "lanes": lanes,
            "window": window,
            "prefetch": prefetch,
            "memory": memory,
            "limit": limit,
            "threads": threads,
        }
        for name, value in positive.items():
            if value is not None and value < 1:
                raise ConfigError(f"{name}: expected at least 1, got {value}")
        if threads is not None and threads > THREADS:
            raise ConfigError(f"threads: expected at most {THREADS}, got {threads}")
        self.rank, self.world_size = _rank(rank, world_size)
        for name, number in (("batch_size", batch_size), ("lanes", lanes)):
            if number % self.world_size:
                raise ConfigError(
                    f"{name}: expected a multiple of the world size {self.world_size}, got {number}"
                )
        mixture = datasets if isinstance(datasets, Mixture) else Mixture(datasets=_listed(datasets))
        self.split, self.sample, self.batch_size, self.seed, self.repeat = (
            split,
            sample,
            batch_size,
            seed,
            repeat,
        )
        self._prefetch = prefetch
        self._action, self._state, self._instructions = action, state, instructions
        wanted = tuple(name for name, on in (("action", action is not None), ("state", state)) if on)
        weights = mixture.weights if not isinstance(mixture.weights, str) else None
        on = [one for i, one in enumerate(mixture.datasets) if weights is None or weights[i]]
        opened = [one if isinstance(one, Dataset) else Dataset.open(os.fspath(one)) for one in on]
        check_distinct("datasets", [one.store.url for one in opened], opened)
        kept = Cache(cache, cache_bytes) if cache is not None else None
        caches = [kept if one.store.remote else None for one in opened]
        indexes = [
            SplitIndex(one, split, camera, limit, wanted, instructions, own.read_whole if own else read_whole)
            for one, own in zip(opened, caches, strict=True)
        ]
        self._size = _common_size(indexes, (size, size) if isinstance(size, int) else size)
        _check_widths(indexes, wanted)
        self._budget = Budget(memory)
        self._annotations = by_name([StepValues.open(url, indexes) for url in annotations], indexes)
        self.streams = [
            DatasetStream(
                index,
                sample,
                key=derive(seed, int(index.dataset.manifest.fingerprint[:16], 16)),
                control_rate=control_rate,
                lanes=lanes,
                window=window,
                size=self._size,
                check=check,
                read_mode=read_mode,
                budget=self._budget,
                cache=own,
                moving=None if min_motion is None else partial(open_moving, index, motion, min_motion),
            )
            for index, own in zip(indexes, caches, strict=True)
        ]
        if weights is not None:
            shares = [weight for weight in weights if weight]
        elif mixture.weights == "equal":
            shares = [1.0] * len(self.streams)
        elif mixture.weights == "episodes":
            shares = [float(len(stream.index)) for stream in self.streams]
        else:
            shares = [float(stream.index.steps.sum(dtype=np.int64)) for stream in self.streams]
        self._schedule = Schedule(shares)
        self.epoch_length = self._schedule.epoch(
            [len(stream.order) for stream in self.streams], mixture.epoch
        )
        """Samples of an epoch, over all ranks."""
        self._check_memory(prefetch)
        self._settings: dict[str, Any] = {
            "datasets": [index.describe() for index in indexes],
            "weights": self._schedule.parts,
            "sample": sample.describe(),
            "offsets": [stream.offset for stream in self.streams],
            "episodes": [len(index) for index in indexes],
            "seed": seed,
            "lanes": lanes,
            "window": window,
        }
        if min_motion is not None:
            self._settings["min_motion"] = [
                stream.moving.described for stream in self.streams if stream.moving
            ]
        self._position = 0
        self._resumed = False
        remote = any(stream.index.dataset.store.remote for stream in self.streams)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._threads = threads or (max(REMOTE_THREADS, cores) if remote else cores)
        self._slices = self._threads if remote else 2 * self._threads
        self._workers: Workers | None = None
        self._memory = BatchMemory(torch.cuda.is_available() if pin is None else pin)

    def _check_memory(self, prefetch: int) -> None:
        """Refuse batches that no memory of this machine would hold."""
        samples = self.batch_size if self.repeat else min(self.batch_size, self.epoch_length)
        rows = -(-samples // self.world_size)
        size = rows * math.prod((*self.sample.shape, *self._size, 3))
        count = prefetch + 1 if self.repeat else min(prefetch + 1, len(self))
        check_fits(
            "batch_size",
            size * count,
            f"frames of {count:,} batches (prefetch={prefetch}) of {rows:,} samples",
            "take a smaller batch_size or prefetch",
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of frames."""
        return self._size

    def __len__(self) -> int:
        """Batches of an epoch; the last one is smaller where the epoch is not a multiple of the batch."""
        return (self.epoch_length + self.batch_size - 1) // self.batch_size

    @property
    def position(self) -> int:
        """Samples handed out so far, over all ranks."""
        return self._position

    def annotation(self, name: str, dataset: int) -> StepValues:
        """The values of an annotation for one of the datasets."""
        return self._annotations[name][dataset]

    @property
    def bytes_read(self) -> int:
        """Bytes of frames that this process has read from the stores."""
        return sum(stream.reader.bytes_read for stream in self.streams)

    def state_dict(self) -> dict[str, Any]:
        """Plain data that says which sample comes next, and what the order depends on."""
        return make_state(self._position, self._settings, self.batch_size, self.world_size)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state was taken; another batch size or world size is fine.

        Raises:
            ConfigError: the order is another one; says what differs.
        """
        self._position = check_state(state, self._settings)
        self._resumed = True
        for name, mine in (("batch_size", self.batch_size), ("world_size", self.world_size)):
            if state.get(name) != mine:
                _log.warning(
                    "%s was %s and is %s now; the samples stay the same", name, state.get(name), mine
                )

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the position on; without `repeat`, from the beginning unless a state was loaded."""
        if torch.utils.data.get_worker_info() is not None:
            raise ConfigError("num_workers: the loader reads in threads of its own; pass num_workers=0")
        if not self.repeat and not self._resumed:
            self._position = 0
        self._resumed = False
        return self._batches()

    def _batches(self) -> Iterator[Batch]:
        start = self._position
        end = sys.maxsize if self.repeat else self.epoch_length
        kept = [
            stream.begin(self.rank, self.world_size, self._schedule, i, start, end)
            for i, stream in enumerate(self.streams)
        ]
        if self._workers is None:
            self._workers = Workers(self._threads)
        running: deque[tuple[CallGroup, Batch, int]] = deque()
        plans = self._plans(start, end)
        try:
            while True:
                while len(running) <= self._prefetch:
                    plan = next(plans, None)
                    if plan is None:
                        break
                    running.append(self._begin(*plan))
                if not running:
                    return
                group, batch, after = running.popleft()
                group.wait()
                self._position = after
                yield batch
                del group, batch  # the memory may be used for the next one
        finally:
            for group, _, _ in running:
                group.cancel()
            for reuse in kept:
                reuse.close()

    def _plans(self, start: int, end: int) -> Iterator[tuple[list[Wanted], int]]:
        """What is wanted of each dataset in each batch, and the position behind it."""
        group = max(1, PLAN_SAMPLES // self.batch_size)
        while start < end:
            stops = [min(end, start + (i + 1) * self.batch_size) for i in range(group)]
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

    def _begin(self, wanted: list[Wanted], after: int) -> tuple[CallGroup, Batch, int]:
        """Make the batch and have it filled."""
        assert self._workers is not None
        batch, tasks = self._make(wanted, expected=True)
        return self._workers.start(tasks), batch, after

    def _make(self, wanted: list[Wanted], *, expected: bool) -> tuple[Batch, list[Any]]:
        count = sum(len(one.rows) for one in wanted)
        shape = (*self.sample.shape, *self._size, 3)
        frames, view = self._memory.take((count, *shape))
        t, offset = np.empty(count, np.int64), np.empty(count, np.int64)
        texts: dict[str, list[Any]] = {
            name: [None] * count for name in ("dataset", "key", "environment", "instruction")
        }
        width = max(stream.actions for stream in self.streams)
        action = mask = state = None
        if self._action:
            size = self.streams[0].index.arrays["action"].size
            action = np.zeros((count, width, size) if self._action == "steps" else (count, size), np.float32)
            mask = np.zeros((count, width), bool) if self._action == "steps" else None
        if self._state:
            state = np.zeros((count, self.streams[0].index.arrays["state"].size), np.float32)
        said: list[list[str]] | None = [[] for _ in range(count)] if self._instructions else None
        notes = {name: own[0].empty(count) for name, own in self._annotations.items()}
        tasks = []
        for i, one in enumerate(wanted):
            if not len(one.rows):
                continue
            stream = self.streams[i]
            t[one.rows], offset[one.rows] = one.steps, stream.offset
            stream.describe(one, texts)
            for name, own in self._annotations.items():
                notes[name][one.rows] = own[i].at(i, one.episodes, one.steps)
            reuse = stream.reader.reuse if expected else None
            share = -(-len(one.rows) // self._slices)
            for begin in range(0, len(one.rows), share):
                some = one.slice(begin, begin + share)
                tasks.append(partial(stream.fill, some, view, action, mask, state, said, reuse))
        batch = Batch(
            frames=frames,
            t=torch.from_numpy(t),
            offset=torch.from_numpy(offset),
            action=None if action is None else torch.from_numpy(action),
            action_mask=None if mask is None else torch.from_numpy(mask),
            state=None if state is None else torch.from_numpy(state),
            instructions=said,
            annotations={name: torch.from_numpy(values) for name, values in notes.items()},
            **texts,
        )
        return batch, tasks

    def draw(self, count: int, seed: int = 0) -> Batch:
        """Samples from anywhere in the epoch, for pictures: the same for the same seed; moves nothing."""
        hashes = np.array([derive(seed, 3, i) for i in range(count)], np.uint64)
        return self.at((hashes % np.uint64(self.epoch_length)).astype(np.int64))

    def at(self, positions: Int64) -> Batch:
        """The samples at positions of the sequence, in the order given; moves nothing."""
        batch, tasks = self._make(self._locate(positions, drawn=True), expected=False)
        if self._workers is None:
            self._workers = Workers(self._threads)
        self._workers.start(tasks).wait()
        return batch

    @property
    def threads(self) -> int:
        """That read."""
        return self._threads

    @property
    def pair(self) -> bool:
        """Whether a sample is two frames."""
        return isinstance(self.sample, Pairs)

    def locate_random(self, count: int) -> list[tuple[int, int]]:
        """Episode of the first dataset, and step, of samples from anywhere."""
        order = self.streams[0].order
        hashes = np.array([derive(self.seed, 4, i) for i in range(count)], np.uint64)
        found = self.streams[0].find((hashes % np.uint64(len(order))).astype(np.int64))
        return list(zip(found.episodes.tolist(), found.steps.tolist(), strict=True))

    def table(self) -> list[dict[str, Any]]:
        """A row for each dataset: counts, weight, and passes through it in an epoch."""
        return [
            {
                "dataset": stream.index.dataset.manifest.dataset["name"],
                "episodes": len(stream.index),
                "frames": int(stream.index.steps.sum(dtype=np.int64)),
                "samples": len(stream.order),
                "offset": stream.offset,
                "weight": share,
                "passes": share * self.epoch_length / len(stream.order),
            }
            for stream, share in zip(self.streams, self._schedule.shares, strict=True)
        ]

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
            if stream.moving is not None:
                least, kept = stream.moving.described["at_least"], len(stream.moving.steps)
                name = stream.index.dataset.manifest.dataset["name"]
                lines.append(
                    f"{name}: samples may begin at {kept:,} of {stream.moving.before:,} steps, "
                    f"those that move by {least:g}"
                )
        epoch = f"{self.epoch_length:,} samples, {len(self):,} batches of {self.batch_size}"
        return "\n".join([*lines, f"{self.split}: an epoch is {epoch}"])


def _listed(datasets: str | Dataset | Sequence[str | Dataset]) -> Sequence[str | Dataset]:
    return [datasets] if isinstance(datasets, str | Dataset | os.PathLike) else list(datasets)


def _rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise ConfigError("rank, world_size: expected both or none of them")
    if rank is None or world_size is None:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank: expected 0 to {world_size - 1}, got {rank}")
    return rank, world_size


def _common_size(indexes: Sequence[SplitIndex], size: tuple[int, int] | None) -> tuple[int, int]:
    if size is not None:
        if min(size) < 1:
            raise ConfigError(f"size: expected at least 1 pixel, got {size[0]}x{size[1]}")
        return size
    sizes = {index.dataset.store.url: index.uniform for index in indexes}
    found = set(sizes.values())
    if len(found) == 1 and None not in found:
        (only,) = found
        assert only is not None
        return only
    said = "; ".join(f"{url} {f'{one[0]}x{one[1]}' if one else 'of several'}" for url, one in sizes.items())
    raise ConfigError(f"size: frames differ in size ({said}); pass size=, e.g. 224")


def _check_widths(indexes: Sequence[SplitIndex], names: Sequence[str]) -> None:
    for name in names:
        widths = {index.dataset.store.url: index.arrays[name].size for index in indexes}
        if len(set(widths.values())) > 1:
            said = ", ".join(f"{url} {width}" for url, width in widths.items())
            raise ConfigError(
                f"{name}: datasets have different numbers of values ({said}); mix those that agree"
            )
