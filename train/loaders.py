"""Open the datasets and loaders of a configuration, and divide validation among ranks."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from oxcart.manifests.dataset import Dataset
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError
from oxcart.train.config import DataConfig, ValConfig
from oxcart.train.data import Batch, Frames, Loader, Mixture, Pairs, Window
from oxcart.train.data.config import LoaderConfig, rate_given
from oxcart.train.data.memory import check_fits
from oxcart.train.data.mixture import check_distinct
from oxcart.train.data.order import derive
from oxcart.train.data.workers import local_ranks

COPIES = 4
"""Copies of the frames in float32 that a step on a CPU holds at least: inputs, predictions, errors and
gradients. The activations of the model come on top."""


def open_datasets(data: DataConfig) -> dict[str, Dataset]:
    """Open the datasets of a configuration, by name, or by URL if two have the same name.

    Raises:
        ConfigError: no dataset is given, or one is given twice.
    """
    if not data.datasets:
        raise ConfigError("data.datasets: expected at least one dataset, e.g. data.datasets=[bridge]")
    opened = [Dataset.open(url) for url in data.datasets]
    check_distinct("data.datasets", data.datasets, opened)
    names = [one.manifest.dataset["name"] for one in opened]
    for name in data.control_rate if isinstance(data.control_rate, Mapping) else ():
        one_of("data.control_rate", name, names)
    return named(opened)


def named(datasets: Sequence[Dataset]) -> dict[str, Dataset]:
    """Datasets by name, or by URL if two have the same name."""
    names = [one.manifest.dataset["name"] for one in datasets]
    return {
        name if names.count(name) == 1 else one.store.url: one
        for name, one in zip(names, datasets, strict=True)
    }


def training_loader(
    data: DataConfig,
    datasets: Sequence[Dataset] | Mixture,
    sample: Pairs | Frames | Window,
    *,
    size: int | None,
    seed: int,
    place: tuple[int, int],
    pieces: int | None,
    annotations: Sequence[str] = (),
    quiet: bool = False,
    instructions: bool = False,
) -> Loader:
    """A loader of the training split.

    Args:
        data: section of the configuration.
        datasets: the opened datasets; a mixture has weights of its own, in place of `data.mix`.
        sample: kind of sample.
        size: side of the frames, in pixels; None keeps the stored size.
        seed: seed of the order.
        place: rank and world size.
        pieces: pieces into which a step on the CPU splits the batch of a rank; None on a GPU.
        annotations: annotations whose values are read.
        quiet: do not report how many samples a selection leaves.
        instructions: read every instruction of a sample.

    Raises:
        ConfigError: the datasets lack something that is requested, or batches do not fit into memory.
    """
    if size is not None:
        _check_memory(data, sample.window.count * size * size * 3, place[1], pieces)
    config = _loader_config(
        data,
        "train",
        sample=sample,
        control_rate=data.control_rate,
        batch_size=data.batch_size,
        seed=seed,
        size=size,
        annotations=annotations,
        min_motion=data.min_motion,
        min_action=data.min_action,
        idle=data.idle,
        where=data.where,
        keys=data.keys,
        balance=data.balance,
        instructions=instructions,
        rank=place[0],
        world_size=place[1],
        lanes=data.lanes,
        block=data.block,
    )
    mixture = datasets
    if not isinstance(mixture, Mixture):
        mixture = Mixture(datasets=mixture, weights=data.mix, epoch=data.epoch)
    loader = Loader(mixture, "train", config)
    _check_memory(data, sum(map(math.prod, loader.frame_shapes.values())), place[1], pieces)
    chosen = (data.min_motion, data.min_action, data.where, data.keys, data.balance, data.limit.train)
    parts = mixture.parts is not None
    if (parts or any(one is not None for one in chosen)) and place[0] == 0 and not quiet:
        print(loader, file=sys.stderr)
    return loader


def _check_memory(data: DataConfig, pixels: int, world: int, pieces: int | None) -> None:
    """Refuse batches that, with a step's copies of them, do not fit into the memory of this machine, given
    the bytes of a sample's frames."""
    ranks = min(world, local_ranks())
    rows, batches = -(-data.batch_size // world), data.prefetch + 1
    read = rows * batches
    made = COPIES * 4 * -(-rows // pieces) if pieces else 0
    check_fits(
        "data.batch_size",
        ranks * (read + made) * pixels,
        f"frames of {batches:,} batches (data.prefetch={data.prefetch}) of {rows:,} samples"
        + (", and a step's copies of them," if pieces else "")
        + (f" on {ranks:,} ranks" if ranks > 1 else ""),
        "take a smaller data.batch_size or data.prefetch"
        + (", or a larger train.accumulate" if pieces else ""),
    )


def held_out_loader(data: DataConfig, dataset: Dataset, split: str, **settings: Any) -> Loader:
    """A loader of all samples of one split; `data.lanes` and `data.block` do not change their order.

    Args:
        data: section of the configuration.
        dataset: the dataset.
        split: name of the split.
        settings: fields of `LoaderConfig` that `data` does not decide, such as `sample` and `batch_size`.
    """
    alone = {"rank": 0, "world_size": 1, "repeat": False, "pin": False}
    rate = rate_given(dataset.manifest, data.control_rate)
    return Loader(dataset, split, _loader_config(data, split, control_rate=rate, **alone, **settings))


def _loader_config(data: DataConfig, split: str, **settings: Any) -> LoaderConfig:
    """The settings that a configuration gives to every loader, and the settings of this one."""
    return LoaderConfig(
        camera=data.camera,
        limit=data.limit.train if split == "train" else data.limit.val,
        read_mode=data.read_mode,
        memory=data.memory_mb << 20,
        prefetch=data.prefetch,
        threads=data.threads,
        cache=data.cache,
        cache_bytes=int(data.cache_gb * 1e9),
        **settings,
    )


def open_splits(
    datasets: dict[str, Dataset], splits: Sequence[str], required: str, open_: Callable[..., Loader]
) -> dict[str, dict[str, Loader]]:
    """Split -> name of the dataset -> loader, for every dataset that has the split.

    Args:
        datasets: datasets by name.
        splits: names of the splits.
        required: split that every dataset must have, if it is among `splits`.
        open_: opens the loader of a dataset and split.

    Raises:
        ConfigError: a dataset lacks the required split.
    """
    found: dict[str, dict[str, Loader]] = {}
    for split in splits:
        for name, dataset in datasets.items():
            if dataset.manifest.splits.get(split, {}).get("episodes"):
                found.setdefault(split, {})[name] = open_(dataset, split)
            elif split == required:
                raise ConfigError(
                    f"val.splits: {dataset.store.url} has no {split!r}; compile it with --val-fraction 0.1, "
                    "or train without validation: val.every=0"
                )
    return found


def scored(data: DataConfig, val: ValConfig, fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """Everything that determines which samples are scored; scores of other samples are not comparable.

    Args:
        data: section of the configuration.
        val: section of the configuration.
        fingerprints: fingerprint of each dataset, by URL.
    """
    return {
        "split": val.splits[0],
        "samples": val.samples,
        "batch_size": val.batch_size,
        "seed": val.seed,
        "limit": data.limit.val,
        "offset": data.offset,
        "seconds": data.seconds,
        "control_rate": data.control_rate,
        "datasets": dict(fingerprints),
    }


def chunks(
    loader: Loader, samples: int, seed: int, share: tuple[int, int], *, even: bool = False
) -> Iterator[tuple[int, Batch]]:
    """The numbered batches that one rank scores in validation: all samples once, or a random draw.

    Args:
        loader: loader of one split.
        samples: number of samples to draw, if the split has more.
        seed: seed of the draw.
        share: rank and world size.
        even: give each rank as many batches as the others: one that has fewer begins with
            a sample that does not count, numbered -1.
    """
    rank, world = share
    size = loader.config.batch_size
    count = -(-min(samples, loader.epoch_length) // size)
    if even and rank >= count % world > 0:
        yield -1, loader.draw(1, seed=seed)
    for i in range(rank, count, world):
        if loader.epoch_length <= samples:
            yield i, loader.at(np.arange(i * size, min((i + 1) * size, loader.epoch_length)))
        else:
            yield i, loader.draw(min(size, samples - i * size), seed=derive(seed, 5, i))
