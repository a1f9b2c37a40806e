"""Datasets and loaders as a configuration asks for them, and a rank's share of what is held out."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError
from oxcart.train.config import DataConfig, ValConfig
from oxcart.train.data import Batch, Frames, Loader, Mixture, Pairs
from oxcart.train.data.config import LoaderConfig
from oxcart.train.data.memory import check_fits
from oxcart.train.data.mixture import check_distinct
from oxcart.train.data.order import derive

COPIES = 4
"""Frames in float32 that a step on a CPU holds at the least: those given, those predicted, their errors and
gradients. What the model's layers keep comes on top of it, and depends on the model."""


def open_datasets(data: DataConfig) -> dict[str, Dataset]:
    """The datasets of a configuration by their names, or by their URLs where two have one name.

    Raises:
        ConfigError: there is none, or one is given twice.
    """
    if not data.datasets:
        raise ConfigError("data.datasets: expected at least one dataset, e.g. data.datasets=[bridge]")
    opened = [Dataset.open(url) for url in data.datasets]
    check_distinct("data.datasets", data.datasets, opened)
    names = [one.manifest.dataset["name"] for one in opened]
    return {
        name if names.count(name) == 1 else one.store.url: one
        for name, one in zip(names, opened, strict=True)
    }


def training_loader(
    data: DataConfig,
    datasets: Sequence[Dataset],
    sample: Pairs | Frames,
    *,
    size: int | None,
    seed: int,
    place: tuple[int, int],
    pieces: int | None,
    annotations: Sequence[str] = (),
    quiet: bool = False,
    instructions: bool = False,
) -> Loader:
    """Batches of train.

    Args:
        data: of the configuration.
        datasets: those of `open_datasets`.
        sample: what a row is drawn from.
        size: pixels of a side; None as they are stored.
        seed: of the order.
        place: rank and world size.
        pieces: of a batch that are trained on one after the other in this machine's memory; None on a GPU.
        annotations: files to read values of.
        quiet: do not say how many samples `data.min_motion` leaves.
        instructions: whether to read all that may be said of a sample.

    Raises:
        ConfigError: the datasets lack what is asked for, or no memory of this machine would hold it.
    """
    if size is not None:
        _check_memory(data, sample, (size, size), place[1], pieces)
    config = _loader_config(
        data,
        "train",
        sample=sample,
        batch_size=data.batch_size,
        seed=seed,
        size=size,
        annotations=annotations,
        min_motion=data.min_motion,
        instructions=instructions,
        rank=place[0],
        world_size=place[1],
        lanes=data.lanes,
        window=data.window,
    )
    mixture = Mixture(datasets=datasets, weights=data.mix, epoch=data.epoch)
    loader = Loader(mixture, "train", config)
    _check_memory(data, sample, loader.size, place[1], pieces)
    if data.min_motion is not None and place[0] == 0 and not quiet:
        print(loader, file=sys.stderr)
    return loader


def _check_memory(
    data: DataConfig, sample: Pairs | Frames, size: tuple[int, int], world: int, pieces: int | None
) -> None:
    """Refuse batches that no memory of this machine would hold, with what a step makes of them, on all of its
    ranks."""
    said = os.environ.get("LOCAL_WORLD_SIZE", "")
    ranks = min(world, int(said)) if said.isdecimal() else 1
    rows, batches = -(-data.batch_size // world), data.prefetch + 1
    read = rows * batches
    made = COPIES * 4 * -(-rows // pieces) if pieces else 0
    check_fits(
        "data.batch_size",
        ranks * (read + made) * math.prod((*sample.shape, *size, 3)),
        f"frames of {batches:,} batches (data.prefetch={data.prefetch}) of {rows:,} samples"
        + (", and a step's copies of them," if pieces else "")
        + (f" on {ranks:,} ranks" if ranks > 1 else ""),
        "take a smaller data.batch_size or data.prefetch"
        + (", or a larger train.accumulate" if pieces else ""),
    )


def held_out_loader(data: DataConfig, dataset: Dataset, split: str, **settings: Any) -> Loader:
    """A loader of all samples of one split; `data.lanes` and `data.window` do not change their order.

    Args:
        data: section of the configuration.
        dataset: the dataset.
        split: name of the split.
        settings: fields of `LoaderConfig` that `data` does not decide, such as `sample` and `batch_size`.
    """
    alone = {"rank": 0, "world_size": 1, "repeat": False, "pin": False}
    return Loader(dataset, split, _loader_config(data, split, **alone, **settings))


def _loader_config(data: DataConfig, split: str, **settings: Any) -> LoaderConfig:
    """What a configuration asks of every loader, whatever the loader is for, and settings of this one."""
    return LoaderConfig(
        camera=data.camera,
        limit=data.limit.train if split == "train" else data.limit.val,
        control_rate=data.control_rate,
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
    """Split -> name of the dataset -> loader, where the dataset has the split.

    Args:
        datasets: by name.
        splits: which.
        required: the split that each of them must have, if it is among `splits`.
        open_: makes the loader of a dataset and split.

    Raises:
        ConfigError: the required split is missing.
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
    """What decides the samples that validation scores: scores of others cannot be compared.

    Args:
        data: of the configuration.
        val: of the configuration.
        fingerprints: of the datasets, by URL.
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


def chunks(loader: Loader, samples: int, seed: int, share: tuple[int, int]) -> Iterator[tuple[int, Batch]]:
    """A rank's chunks of a loader's samples: all there are, once, or as many as asked for from anywhere.

    Args:
        loader: of one split.
        samples: how many at most.
        seed: of the draw.
        share: rank and world size.
    """
    rank, world = share
    if loader.epoch_length <= samples:
        for i, batch in enumerate(loader):
            if i % world == rank:
                yield i, batch
        return
    size = loader.config.batch_size
    for i in range(-(-samples // size)):
        if i % world == rank:
            yield i, loader.draw(min(size, samples - i * size), seed=derive(seed, 5, i))
