"""The images of a report: pairs of episodes side by side, and the backgrounds of places that look alike.

Frames are read again for the few pairs that are shown. They are embedded as small JPEGs in `data:` URIs, at
about 3 KB each, so that the page is self-contained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.manifests.audit.episodes import Audited, AuditedEpisode
from oxcart.manifests.audit.features import read_steps, spaced
from oxcart.manifests.show import data_uri, scaled

HEIGHT = 110
"""Height of a frame in the page, in pixels."""
STRIP = 4
"""Aligned frames shown per pair."""
PLACES = 6
"""Maximum number of pairs of places shown."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """An image and its caption."""

    uri: str
    """The image as `data:image/jpeg;base64,…`."""
    caption: str
    """The step of the frame, or what the image shows."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One episode of a pair."""

    environment: str
    """Name of the environment."""
    episode: str
    """Key of the episode."""
    dataset: str
    """Name of the dataset."""
    split: str
    """Split of the episode."""
    instruction: str
    """Instruction of the episode."""
    frames: tuple[Frame, ...]
    """Frames of the episode to show."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Two episodes side by side."""

    score: float
    """Score of the pair after confirmation."""
    note: str
    """Of episodes: which crop, shift or mirroring was undone, and how far the hashes are apart. Of places: by
    how much the held-out one stands out toward the other."""
    suspect: bool = False
    """Whether these may be one place under two names."""
    held: Side
    """The held-out episode."""
    train: Side
    """The train episode."""


@dataclass(frozen=True, kw_only=True)
class ReportImages:
    """All images of a report."""

    pairs: tuple[Shown, ...]
    """Pairs of episodes."""
    places: tuple[Shown, ...]
    """Pairs of backgrounds of places."""


def draw_images(
    datasets: Sequence[Audited],
    episodes: Sequence[AuditedEpisode],
    pairs: Sequence[dict[str, Any]],
    ranking: Sequence[dict[str, Any]],
    frames: int,
) -> ReportImages:
    """Read and encode the images.

    Args:
        datasets: the datasets.
        episodes: episodes to which the indices in `pairs` and `ranking` refer.
        pairs: pairs as `near.pairs` gives them.
        ranking: pairs of places, as in `place.Places.ranking`.
        frames: frames per episode from which its background is made.
    """
    return ReportImages(
        pairs=tuple(_pairs(datasets, episodes, pairs)),
        places=tuple(_places(datasets, episodes, ranking[:PLACES], frames)),
    )


def _pairs(
    datasets: Sequence[Audited], episodes: Sequence[AuditedEpisode], pairs: Sequence[dict[str, Any]]
) -> Iterator[Shown]:
    for pair in pairs:
        at = np.unique(np.linspace(0, len(pair["aligned"]) - 1, STRIP).round().astype(int))
        aligned = [pair["aligned"][i] for i in at]
        sides = []
        for index, which in ((pair["held"], 0), (pair["train"], 1)):
            episode = episodes[index]
            steps = [int(both[which]) for both in aligned]
            read = _read(datasets, episode, steps)
            shown = [_frame(frame, f"step {step}") for frame, step in zip(read, steps, strict=True)]
            sides.append(_side(datasets, episode, shown))
        note = f"{pair['window']}; dHash differs in {pair['dhash_bits']} of 64 bits"
        yield Shown(score=pair["score"], note=note, held=sides[0], train=sides[1])


def _places(
    datasets: Sequence[Audited],
    episodes: Sequence[AuditedEpisode],
    ranking: Sequence[dict[str, Any]],
    frames: int,
) -> Iterator[Shown]:
    for row in ranking:
        sides = []
        for index in (row["held out episode"], row["train episode"]):
            episode = episodes[index]
            steps = spaced(0, episode.row["steps"], frames)
            median = np.median(_read(datasets, episode, steps), axis=0).astype(np.uint8)
            sides.append(_side(datasets, episode, [_frame(median, "background")]))
        excess = row["stands out by"]
        note = "" if excess is None else f"stands out by {excess:.2f}"
        yield Shown(score=row["score"], note=note, suspect=row["twin"], held=sides[0], train=sides[1])


def _read(
    datasets: Sequence[Audited], episode: AuditedEpisode, steps: Sequence[int]
) -> npt.NDArray[np.uint8]:
    return read_steps(datasets[episode.dataset].frames(episode.row), steps)


def _side(datasets: Sequence[Audited], episode: AuditedEpisode, frames: Sequence[Frame]) -> Side:
    return Side(
        environment=episode.row["environment"] or "(unknown)",
        episode=episode.key,
        dataset=datasets[episode.dataset].label,
        split=episode.split,
        instruction=episode.row["instruction"],
        frames=tuple(frames),
    )


def _frame(frame: npt.NDArray[np.uint8], caption: str) -> Frame:
    return Frame(uri=data_uri(scaled(frame, HEIGHT)), caption=caption)
