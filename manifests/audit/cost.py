"""Forecast how long an audit will take: two short measurements, scaled to the work ahead.

Decoding time grows in proportion to the episodes that are examined. Comparison grows faster, because each
held-out episode and each episode of the null is compared with all of train. Both are timed on a few episodes,
on the machine and the store that will do the work. The forecast does not appear in the report.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import numpy as np

from oxcart.manifests.audit.episodes import Audited, AuditedEpisode
from oxcart.manifests.audit.features import GRID, read_features
from oxcart.manifests.audit.match import QUERY_BLOCK, Matcher
from oxcart.manifests.audit.near import compared_in_all
from oxcart.shards.errors import OxcartError

FEW = 1000
"""Number of episodes up to which no forecast is made, since measuring would take as long as the audit."""
LONG_S = 120.0
"""Forecast, in seconds, above which `--sample` is recommended."""
_DECODED, _GALLERY = 16, 512
"""Episodes decoded, and episodes compared with, for the measurement."""


def foretold(
    datasets: Sequence[Audited],
    episodes: Sequence[AuditedEpisode],
    frames: int,
    workers: int,
    sample: int | None,
) -> str | None:
    """One line on how long the audit of these episodes will take; None if they are few.

    Args:
        datasets: the datasets.
        episodes: episodes whose frames are decoded.
        frames: frames that are decoded per episode.
        workers: threads.
        sample: episodes of each split of a dataset, where not all are looked at.
    """
    if len(episodes) <= FEW:
        return None
    train = sum(episode.split == "train" for episode in episodes)
    queries = compared_in_all(episodes)
    seconds = _comparing(queries, train, frames, workers)
    with contextlib.suppress(OxcartError):  # the audit itself will say it
        seconds += _decoding(datasets, episodes, frames, workers)
    less = max(1, (sample or train) // 4)
    advice = f"; --sample {less} looks at fewer of each split" if seconds > LONG_S else ""
    return (
        f"{len(episodes):,} episodes to decode {frames} frames of, {queries:,} to compare with {train:,} of "
        f"train: {queries * train:,} pairs, about {_spoken(seconds)} besides reading every byte{advice}"
    )


def _decoding(
    datasets: Sequence[Audited], episodes: Sequence[AuditedEpisode], frames: int, workers: int
) -> float:
    few = [episodes[i] for i in np.linspace(0, len(episodes) - 1, _DECODED).astype(int)]
    began = time.perf_counter()
    read_features(datasets, few, frames, workers)
    return (time.perf_counter() - began) * len(episodes) / len(few)


def _comparing(queries: int, train: int, frames: int, workers: int) -> float:
    """Seconds for these searches through all of train, timed on noise, which takes as long as images do."""
    noise = np.random.default_rng(0).integers(0, 256, (_GALLERY, frames, GRID, GRID, 3), np.uint8)
    gallery = Matcher(noise)
    block = noise[:QUERY_BLOCK]
    gallery.search(block)  # makes the vectors
    began = time.perf_counter()
    gallery.scores(block)
    searched = time.perf_counter()
    gallery.search(block)
    whole = time.perf_counter() - searched
    search = searched - began
    each = search * train / _GALLERY + max(whole - search, 0.0)
    return each * queries / QUERY_BLOCK / workers


def _spoken(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
