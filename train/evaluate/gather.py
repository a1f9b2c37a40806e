"""Gather drawn pairs in one pass, for all strategies, so that none reads the datasets again.

    gathered = gather(config, {"bridge": Dataset.open("bridge")}, [model, untrained], Draw(samples=4096))

Each dataset and split has its own draw: all of its pairs if there are few, else the requested number, without
repetition, by a hash of the seed. Codes, actions, mean flow and texts are kept for every pair, at most 2 KB
each. Frames are kept only for some pairs, spread evenly over datasets and splits. So memory is bounded by
`Draw`, not by the datasets. All models see the same pairs: the gathered data differ only in the codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from oxcart.manifests.columns import Column, motion_columns
from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError
from oxcart.train import frame_baseline, statistics
from oxcart.train.config import DataConfig
from oxcart.train.data import Loader, Pairs
from oxcart.train.data.order import derive, splitmix64
from oxcart.train.data.sampling import TooShortError
from oxcart.train.data.summing import known_actions, summed, summed_actions
from oxcart.train.finite import refuse
from oxcart.train.flow import FlowMeter
from oxcart.train.laq.model import NONE, LatentActionModel, to_float
from oxcart.train.loaders import held_out_loader, named
from oxcart.train.ranks import ALONE, Ranks, gathered
from oxcart.train.statistics import Floats, Ints, Strings, Units, make_units
from oxcart.train.trained_on import UNKNOWN, TrainedOn

T = TypeVar("T")

FIELDS = (
    *("codes", "dataset", "split", "place", "environment", "key", "t", "instruction"),
    *("actions", "state", "flow", "features"),
)
"""Fields of `GatheredPairs` that have a value for each pair."""

SPLITS = ("train", "val_seen", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Which pairs are drawn, and how much data is kept of them.

    Raises:
        ConfigError: a number is too small.
    """

    samples: int = 2048
    """Maximum number of pairs per dataset and split."""
    frames: int = 256
    """Number of pairs whose frames are kept, over all datasets and splits."""
    batch_size: int = 64
    """Number of pairs per batch."""
    seed: int = 0
    """Random seed of the draw."""

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("frames", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class GatheredPairs:
    """N pairs, with their codes from one model."""

    codes: Ints
    """[N, n]: codes of each pair, 0 to `size` - 1."""
    size: int
    """Number of entries of the codebook."""
    dataset: Strings
    """[N]: name of the dataset."""
    split: Strings
    """[N]: split of the pair."""
    place: Strings
    """[N]: `held out`, `seen` or `unknown`: whether the run was trained on the pair's environment."""
    environment: Strings
    """[N]: environment of the pair; "" if it is unknown."""
    key: Strings
    """[N]: key of the episode."""
    t: Ints
    """[N]: step of frame t in the episode."""
    instruction: Strings
    """[N]: instruction of the episode; "" if there is none."""
    actions: Floats | None = None
    """[N, A]: what the actions of a pair change together, in the columns that any dataset has, by name; NaN
    where a dataset lacks a column or a step holds no action."""
    columns: tuple[Column, ...] = ()
    """The A columns of the actions, as `oxcart.train.data.summing.summed` has them."""
    state: Floats | None = None
    """[N, S]: state at t, in the columns that any dataset has, by name; NaN where a dataset lacks one."""
    state_columns: tuple[Column, ...] = ()
    """The S columns of the state."""
    flow: Floats | None = None
    """[N, 3, 2]: mean optical flow, one for each of `oxcart.train.flow.VARIANTS`."""
    features: npt.NDArray[np.float32]
    """[N, D]: `frame_baseline.features` of frame t."""
    frames: npt.NDArray[np.uint8] | None = None
    """[F, 2, H, W, 3]: both frames of some pairs."""
    framed: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """[F]: rows of the pairs whose `frames` are kept."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Name of each field that is None -> the reason."""
    _kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """Values cached by `keep`."""

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def episodes(self) -> Ints:
        """[N]: number of the pair's episode."""

        return self.units.episode

    def at(self, place: str) -> GatheredPairs:
        """The pairs of one place: `held out`, `seen` or `unknown`."""
        return self.take(self.place == place)

    def joined(self, other: GatheredPairs) -> GatheredPairs:
        """These pairs and then others, coded by the same model; without frames."""
        both: dict[str, Any] = {}
        for name in FIELDS:
            one, two = getattr(self, name), getattr(other, name)
            both[name] = None if one is None or two is None else np.concatenate([one, two])
        return replace(self, **both, frames=None, framed=np.zeros(0, np.int64), _kept={})

    def having(self, name: str) -> GatheredPairs:
        """The pairs that have a `motion`, or `actions` or a `state` in the columns that all of these have."""
        if name == "motion":
            assert self.motion is not None
            return self.take(np.flatnonzero(np.isfinite(self.motion).all(1)))
        values: Floats = getattr(self, name)
        known, shared = np.isfinite(values), shared_columns(values, self.dataset)
        rows = np.flatnonzero(known[:, shared].all(1) & known.any(1))
        columns = self.columns if name == "actions" else self.state_columns
        kept: dict[str, Any] = {
            name: values[rows][:, shared],
            "columns" if name == "actions" else "state_columns": tuple(columns[i] for i in shared.tolist()),
        }
        return replace(self.take(rows), **kept, _kept={})

    @property
    def motion(self) -> Floats | None:
        """[N, 2 or 3]: how far actions move along x, y and, if all datasets say so, z; else NaN."""
        if self.actions is None or not (axes := self.motion_columns):
            return None
        return self.actions[:, [self.columns.index(one) for one in axes]]

    @property
    def motion_columns(self) -> tuple[Column, ...]:
        """Columns of `motion`."""
        found = motion_columns(self.columns)
        if "z" in found and self.actions is not None:
            moves = np.isfinite(self.actions[:, found["x"]])
            if found["z"] not in shared_columns(self.actions[moves], self.dataset[moves]):
                found.pop("z")
        return tuple(self.columns[i] for i in found.values())

    @property
    def units(self) -> Units:
        """Where the pairs come from: what a number's interval goes by."""

        def compute() -> Units:
            places, keys = (
                np.char.add(np.char.add(self.dataset, "\n"), one) for one in (self.environment, self.key)
            )
            return make_units(np.where(self.environment == "", "", places), keys, self.t)

        return self.keep("units", compute)

    def take(self, rows: Ints | npt.NDArray[np.bool_]) -> GatheredPairs:
        """Select some of the pairs."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        place = np.full(len(self), -1)
        place[rows] = np.arange(len(rows))
        framed = place[self.framed]
        kept = framed >= 0
        picked: dict[str, Any] = {
            name: None if (value := getattr(self, name)) is None else value[rows] for name in FIELDS
        }
        frames = None if self.frames is None else self.frames[kept]
        return replace(self, **picked, frames=frames, framed=framed[kept], _kept={})

    def keep(self, name: str, compute: Callable[[], T]) -> T:
        """A value that does not depend on codes, computed once for these pairs, whatever codes they get."""
        if name not in self._kept:
            self._kept[name] = compute()
        found: T = self._kept[name]
        return found

    def shuffled(self, seed: int, *, anywhere: bool = False) -> GatheredPairs:
        """The same pairs with the codes of others, as a null; see `oxcart.train.statistics.shuffles`.

        Args:
            seed: seed of the shuffle.
            anywhere: whether an episode gets the codes of any episode, so that codes tell nothing of their
                place; else a cluster of pairs gets those of another cluster of its dataset.
        """
        if anywhere:
            return replace(self, codes=self.codes[statistics.shuffles(self.units.by_episode(), 1, seed)[0]])
        codes = np.empty_like(self.codes)
        for dataset in np.unique(self.dataset):
            rows = np.flatnonzero(self.dataset == dataset)
            codes[rows] = self.codes[rows[statistics.shuffles(self.units[rows], 1, seed)[0]]]
        return replace(self, codes=codes)


def shared_columns(values: Floats, dataset: Strings) -> Ints:
    """Columns of values [N, A] that every dataset [N] has, of those that have any; NaN is no value."""
    known = np.isfinite(values)
    there = [known[dataset == one].any(0) for one in np.unique(dataset)]
    some = [one for one in there if one.any()]
    return np.flatnonzero(np.all(some, axis=0)) if some else np.zeros(0, np.int64)


def name_datasets(datasets: Sequence[Dataset]) -> dict[str, Dataset]:
    """Datasets by name, or by URL if two have the same name.

    Raises:
        ConfigError: one is given twice.
    """
    found = named(datasets)
    if len(found) < len(datasets):
        raise ConfigError(f"datasets: {', '.join(one.store.url for one in datasets)}: one is given twice")
    return found


def open_splits(
    datasets: Mapping[str, Dataset], data: DataConfig, image_size: int, batch_size: int
) -> dict[tuple[str, str], Loader]:
    """(dataset, split) -> a loader of its pairs, if there are any.

    Args:
        datasets: by name.
        data: offset, camera and limits of the pairs.
        image_size: side of frames, in pixels.
        batch_size: pairs that are read together.

    Raises:
        ConfigError: no dataset has an episode long enough for a pair, or a dataset lacks what is asked for.
    """
    found: dict[tuple[str, str], Loader] = {}
    short: list[str] = []
    for name, dataset in datasets.items():
        manifest = dataset.manifest
        for split in SPLITS:
            if not manifest.splits.get(split, {}).get("episodes"):
                continue
            try:
                found[name, split] = held_out_loader(
                    data,
                    dataset,
                    split,
                    sample=Pairs(frames=data.offset, seconds=data.seconds, per_episode="all"),
                    size=image_size,
                    seed=0,
                    batch_size=batch_size,
                    **summed_actions(manifest),
                    state=manifest.state is not None,
                )
            except TooShortError as error:
                short.append(str(error).removeprefix("sample: "))
    if not found:
        why = short[0] if short else f"none of the splits {', '.join(SPLITS)} has an episode"
        raise ConfigError(f"datasets: no pairs to evaluate: {why}")
    return found


def count_pairs(loaders: Mapping[tuple[str, str], Loader], draw: Draw) -> int:
    """Number of pairs that `gather` will read."""
    return sum(min(draw.samples, loader.epoch_length) for loader in loaders.values())


@torch.no_grad()
def gather(
    loaders: Mapping[tuple[str, str], Loader],
    models: Sequence[LatentActionModel],
    draw: Draw,
    device: torch.device,
    meter: FlowMeter | str,
    record: TrainedOn | None,
    report: Callable[[int], None] = lambda done: None,
    ranks: Ranks = ALONE,
) -> list[GatheredPairs]:
    """Read the pairs once, and run them through every model. Every rank gets what all have read.

    Args:
        loaders: those of `open_splits`.
        models: models in eval mode, on the device.
        draw: which pairs are read.
        device: device of the models.
        meter: measures flow; or the reason why there is no flow.
        record: what the run was trained on; None makes all places unknown.
        report: is told the pairs done.
        ranks: the processes that share the work.

    Returns:
        The pairs as coded by each model.
    """
    drawn = [
        draw_positions(loader.epoch_length, draw.samples, derive(draw.seed, 41, i))
        for i, loader in enumerate(loaders.values())
    ]
    columns: dict[str, list[tuple[Column, ...]]] = {"actions": [], "state": []}
    for loader in loaders.values():
        own = loader.streams[0].columns
        columns["actions"].append(summed(own.get("action", ())))
        columns["state"].append(own.get("state", ()))
    table = _Table(sum(map(len, drawn)), columns)
    framed = 0
    for number, ((_, loader), chosen) in enumerate(zip(loaders.items(), drawn, strict=True)):
        # What is left of the frames, spread evenly over what is left of the splits.
        with_frames = chosen[: -(-(draw.frames - framed) // (len(loaders) - number))]
        framed += len(with_frames)
        wanted, done = np.sort(chosen), len(table)  # neighbours are read together
        for begin in range(0, len(wanted), ranks.num_processes * draw.batch_size):
            first = begin + ranks.process_index * draw.batch_size
            positions = wanted[first : first + draw.batch_size]
            shown = np.flatnonzero(np.isin(positions, with_frames))
            work = partial(_measure, done + first, loader, positions, shown, models, device, meter)
            for start, measured in gathered(work, ranks):
                table.add(start, number, measured)
            report(len(table))
    return _pairs(table, loaders, list(map(len, drawn)), models, meter, record)


def _pairs(
    table: _Table,
    loaders: Mapping[tuple[str, str], Loader],
    counts: Sequence[int],
    models: Sequence[LatentActionModel],
    meter: FlowMeter | str,
    record: TrainedOn | None,
) -> list[GatheredPairs]:
    """The pairs in a full table, of which each loader has a count, as coded by each model."""
    places = [_places(record, loader) for loader in loaders.values()]
    of = np.repeat(np.arange(len(counts)), counts)
    environments, frames = table.texts["environment"], np.concatenate(table.frames)
    missing = {name: f"no dataset has {name}" for name, found in table.columns.items() if not found}
    if "actions" in missing:
        missing["actions"] += " of known kind"
    if not motion_columns(table.columns["actions"]):
        missing["motion"] = "no dataset has a motion: actions with columns dx and dy, or x and y"
    if isinstance(meter, str):
        missing["flow"] = meter
    if not len(frames):
        missing["frames"] = "no frames are kept (--frames 0)"
    shared: dict[str, Any] = {
        **{name: np.array(texts) for name, texts in table.texts.items()},
        **{name: values for name, values in table.arrays.items() if not name.startswith("codes")},
        "columns": table.columns["actions"],
        "state_columns": table.columns["state"],
        "dataset": np.repeat([name for name, _ in loaders], counts),
        "split": np.repeat([split for _, split in loaders], counts),
        "place": np.array([places[i][name or None] for i, name in zip(of, environments, strict=True)]),
        "frames": frames if len(frames) else None,
        "framed": np.concatenate(table.framed),
        "missing": missing,
        "_kept": {},
    }
    return [
        GatheredPairs(codes=table.arrays[f"codes {i}"], size=model.quantizer.codes, **shared)
        for i, model in enumerate(models)
    ]


def _places(record: TrainedOn | None, loader: Loader) -> dict[str | None, str]:
    """Environment of a loader's pairs -> its place, for every environment that there may be."""
    index = loader.streams[0].index
    names = [*index.texts["environment"].values, None]
    places = [UNKNOWN] * len(names) if record is None else record.places(index.dataset, names).tolist()
    return dict(zip(names, places, strict=True))


def draw_positions(length: int, count: int, key: int) -> Ints:
    """`count` distinct numbers below `length`, or all if there are fewer, in the order of a hash."""
    count = min(count, length)
    if 2 * count > length:
        hashes = splitmix64(np.arange(length, dtype=np.uint64) ^ np.uint64(key))
        return np.argsort(hashes, kind="stable")[:count]
    found = np.zeros(0, np.int64)
    asked = 2 * count
    while len(found) < count:
        hashes = splitmix64(np.arange(asked, dtype=np.uint64) ^ np.uint64(key))
        numbers = (hashes % np.uint64(length)).astype(np.int64)
        _, firsts = np.unique(numbers, return_index=True)
        found = numbers[np.sort(firsts)]
        asked *= 2
    return found[:count]


class _Table:
    """What is kept of all pairs, in the columns that any dataset has.

    Arrays are allocated whole at the first batch. Small arrays kept batch by batch would lie between large
    ones that are freed, and would keep the memory from being used again.

    Args:
        count: number of pairs.
        columns: `actions` and `state` -> the columns of each loader.
    """

    def __init__(self, count: int, columns: Mapping[str, Sequence[tuple[Column, ...]]]) -> None:
        self._count = count
        self.arrays: dict[str, npt.NDArray[Any]] = {}
        self.columns: dict[str, tuple[Column, ...]] = {}
        self._at: dict[str, list[list[int]]] = {}
        for name, own in columns.items():
            kinds: dict[tuple[str, str], Column] = {}
            for one in (one for some in own for one in some):
                same = kinds.setdefault((one.name, one.kind), one)
                unit = one.unit if one.unit == same.unit else None
                frame = one.frame if one.frame == same.frame else None
                kinds[one.name, one.kind] = replace(same, unit=unit, frame=frame)
            self.columns[name] = tuple(named_apart(list(kinds.values())))
            self._at[name] = [[list(kinds).index((one.name, one.kind)) for one in some] for some in own]
            if kinds:
                self.arrays[name] = np.full((count, len(kinds)), np.nan)
        self.texts: dict[str, list[str]] = {"environment": [], "key": [], "instruction": []}
        self.frames: list[npt.NDArray[np.uint8]] = []
        self.framed: list[Ints] = []

    def __len__(self) -> int:
        return len(self.texts["key"])

    def add(self, begin: int, loader: int, measured: _Measured) -> None:
        """Take the values of a batch of a loader, given by its number: rows from `begin`."""
        rows = slice(begin, begin + len(measured.texts["key"]))
        for name, value in measured.arrays.items():
            if name in self._at:
                self.arrays[name][rows, self._at[name][loader]] = value
                continue
            if name not in self.arrays:
                self.arrays[name] = np.empty((self._count, *value.shape[1:]), value.dtype)
            self.arrays[name][rows] = value
        for name, texts in measured.texts.items():
            self.texts[name] += texts
        self.frames.append(measured.frames)
        self.framed.append(measured.shown + begin)


class _Measured(NamedTuple):
    """What is kept of one batch."""

    arrays: dict[str, npt.NDArray[Any]]
    texts: dict[str, list[str]]
    frames: npt.NDArray[np.uint8]
    """Frames of the rows in `shown`."""
    shown: Ints


def _measure(
    begin: int,
    loader: Loader,
    positions: Ints,
    shown: Ints,
    models: Sequence[LatentActionModel],
    device: torch.device,
    meter: FlowMeter | str,
) -> list[tuple[int, _Measured]]:
    """Run a batch through the models, keep the frames of the rows in `shown`, and number it `begin`."""
    if not len(positions):
        return []
    batch = loader.at(positions)
    frames = to_float(batch.frames.to(device))
    pixels: npt.NDArray[np.uint8] = batch.frames.numpy()
    found: dict[str, Any] = {f"codes {i}": model.encode(frames).cpu() for i, model in enumerate(models)}
    for codes in found.values():
        refuse((codes == NONE).any(1), batch, "latents")
    found |= {"t": batch.t, "actions": known_actions(batch), "state": batch.state}
    found["features"] = frame_baseline.features(frames[:, 0])
    found["flow"] = None if isinstance(meter, str) else torch.from_numpy(meter(pixels))
    measured = _Measured(
        arrays={name: value.cpu().numpy() for name, value in found.items() if value is not None},
        texts={
            "environment": [one or "" for one in batch.environment],
            "key": list(batch.key),
            "instruction": list(batch.instruction),
        },
        frames=pixels[shown].copy(),
        shown=shown,
    )
    return [(begin, measured)]


def named_apart(columns: Sequence[Column]) -> list[Column]:
    """Columns with names that differ: of several kinds of one name, all but one add their kind."""
    vague = ("other", "unknown")
    keeps: dict[str, Column] = {}
    for one in sorted(columns, key=lambda one: one.kind in vague):
        keeps.setdefault(one.name, one)
    return [
        one if one is keeps[one.name] else replace(one, name=f"{one.name} ({one.kind})") for one in columns
    ]
