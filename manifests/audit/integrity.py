"""Do the shards match the manifest, and do its statistics come only from train?

Every other conclusion rests on the files, so they must be what the manifest says. Without `--sample`, every
byte is read and hashed. With it, only the chunks that are read anyway are checked, and the report says so.
The statistics are recomputed from the actions and states of train, in float64, and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from oxcart.manifests.audit.episodes import Audited, AuditedEpisode
from oxcart.manifests.audit.exact import Moves, trajectory
from oxcart.manifests.audit.result import Check, Criterion, count, some
from oxcart.manifests.columns import ARRAYS
from oxcart.manifests.episode import read_arrays as episode_arrays
from oxcart.manifests.values import PERCENTS, counted, merged, quantiles
from oxcart.manifests.verify import verify
from oxcart.shards.names import tar_name
from oxcart.shards.prefetch import in_threads

SHARDS = Criterion("shards", "Bytes of the shards, against the manifest")
STATISTICS = Criterion("statistics", "Statistics of the manifest, against train")

TOLERANCE = 1e-5
"""Tolerance of statistics, relative to the standard deviation or the value."""
BIN = 2.0**-10
"""The same of quantiles, which the format knows to within a bin."""
PARTS = 512
"""Episodes whose bins are held before they are merged."""

Arrays = dict[str, npt.NDArray[np.float32]]


def check_shards(
    datasets: Sequence[Audited],
    workers: int,
    *,
    sampled: bool,
    report: Callable[[int], None] = lambda done: None,
) -> Check:
    """Check that the bytes of all shards match the manifest."""
    if sampled:
        return SHARDS.unchecked("only the chunks that the sample reads are compared with their digests")
    rows, before = [], 0
    for dataset in datasets:
        total = sum(shard["frames"] for shard in dataset.manifest.shards)
        damage = verify(
            dataset.opened,
            workers=workers,
            report=lambda done, size, before=before: report(before + done),  # type: ignore[misc]
        )
        rows += [{"dataset": dataset.label, "file": one.file, "reason": one.reason} for one in damage]
        before += total
    if rows:
        text = f"{rows[0]['file']}: {rows[0]['reason']}"
        more = f" and {len(rows) - 1:,} more" if len(rows) > 1 else ""
        return SHARDS.failed(f"damaged, see oxcart verify: {text}{more}", rows)
    shards = sum(len(dataset.manifest.shards) for dataset in datasets)
    return SHARDS.passed(f"{count(shards, 'shard')}, every byte matches its digest")


def read_arrays(
    datasets: Sequence[Audited],
    episodes: Sequence[AuditedEpisode],
    workers: int,
    report: Callable[[int], None] = lambda done: None,
) -> tuple[list[Moves | None], list[dict[str, _Moments]]]:
    """The moves of each episode, and the moments of train's arrays of each dataset.

    Raises:
        CorruptError: an array does not match its digest.
        StoreError: a shard cannot be read.
    """
    moves: list[Moves | None] = []
    moments: list[dict[str, _Moments]] = [{} for _ in datasets]

    def calls() -> Iterator[Callable[[], Arrays]]:
        for episode in episodes:
            dataset = datasets[episode.dataset]
            read = partial(dataset.store.read_range, tar_name(episode.row["shard"]))
            yield partial(episode_arrays, read, episode.row, dataset.manifest.widths)

    for done, arrays in enumerate(in_threads(workers, calls(), depth=8 * workers), 1):
        episode = episodes[done - 1]
        moves.append(trajectory([arrays[name] for name in ("action", "state") if name in arrays]))
        if episode.split == "train":
            acts = slice(episode.row["action.start"], episode.row["action.stop"])
            for name, values in arrays.items():
                told = values[acts] if name == "action" else values
                if len(told):
                    moments[episode.dataset].setdefault(name, _Moments(name)).add(told)
        report(done)
    return moves, moments


def check_statistics(
    datasets: Sequence[Audited], moments: Sequence[dict[str, _Moments]], *, sampled: bool
) -> Check:
    """Check that the manifest's statistics are those of train."""
    if sampled:
        return STATISTICS.unchecked("a sample of train does not tell its statistics")
    rows, compared = [], 0
    for dataset, found in zip(datasets, moments, strict=True):
        for name in ARRAYS:
            stated = getattr(dataset.manifest, name)
            if stated is None or (stated["statistics"] is None and name not in found):
                continue
            compared += 1
            wrong = _differing(stated["statistics"], found.get(name))
            rows += [{"dataset": dataset.label, "array": name, **row} for row in wrong]
    if rows:
        text = some([f"{row['array']} {row['what']}" for row in rows])
        return STATISTICS.failed(f"not those of train: {text}", rows)
    if not compared:
        return STATISTICS.unchecked("no dataset has actions or states in train")
    return STATISTICS.passed(f"computed again for {count(compared, 'array')}, and equal")


class _Moments:
    """Count, mean, squares around it (Chan, Golub and LeVeque, 1979), least, largest and bins of values."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: list[pa.Table] = []
        self.count = 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0
        self.low: Any = np.inf
        self.high: Any = -np.inf

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Add values [T, A]."""
        exact = values.astype(np.float64)
        mean = exact.mean(0)
        total = self.count + len(exact)
        delta = mean - self.mean
        self.mean = self.mean + delta * (len(exact) / total)
        self.squares = (
            self.squares + ((exact - mean) ** 2).sum(0) + delta**2 * (self.count * len(exact) / total)
        )
        self.low, self.high = np.minimum(self.low, exact.min(0)), np.maximum(self.high, exact.max(0))
        self.count = total
        self.parts.append(counted(self.name, values))
        if len(self.parts) == PARTS:
            self.parts = [merged(self.parts)]


def _differing(stated: dict[str, Any] | None, found: _Moments | None) -> list[dict[str, Any]]:
    if stated is None or found is None:
        has = "statistics" if stated else "none"
        return [{"what": "count", "manifest": has, "train": found.count if found else 0}]
    if stated["count"] != found.count:
        return [{"what": "count", "manifest": stated["count"], "train": found.count}]
    std = np.sqrt(found.squares / found.count)
    again = {"mean": found.mean, "std": std, "min": found.low, "max": found.high}
    again |= quantiles(merged(found.parts), found.name, len(std))
    wrong = []
    for what, values in again.items():
        said = np.array(stated[what], np.float64)
        if said.shape != np.shape(values):
            wrong.append({"what": what, "manifest": len(said), "train": len(values)})
            continue
        tolerance = BIN if what in PERCENTS else TOLERANCE
        far = np.abs(said - values) > tolerance * np.maximum(std, np.abs(values)) + 1e-9
        wrong += [
            {"what": f"{what}[{i}]", "manifest": float(said[i]), "train": float(values[i])}
            for i in np.flatnonzero(far)
        ]
    return wrong
