"""The page of scenes: what each looks like, how alike scenes are, and where the threshold lies.

`oxcart.manifests.page` says what makes the page safe to open and to mail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from oxcart.compile.images import ImageError
from oxcart.compile.scenes.backgrounds import HEIGHT, middle_frame
from oxcart.compile.scenes.infer import BINS, Scenes, scene_name
from oxcart.compile.sources.base import Source
from oxcart.manifests.page import render
from oxcart.manifests.show import data_uri, scaled
from oxcart.shards.errors import SourceError

SHOWN = 200
"""Scenes that are shown, the largest first."""
MEMBERS = 4
"""Episodes shown of a scene: its medoid, and those least like it, where mistakes are."""
PAIRS = 6
"""Pairs of scenes that are shown side by side."""
WIDTH, TALL = 760, 150
"""Size of a histogram, in SVG units."""

Report = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A frame of an episode, and what is said of it."""

    uri: str
    key: str
    fit: float


def drawn_in_all(scenes: Scenes) -> int:
    """Frames that `page` decodes."""
    return len(_episodes(scenes))


def page(scenes: Scenes, source: Source, command: str, report: Report = lambda done: None) -> bytes:
    """The page, in UTF-8; frames are read from the source again.

    Args:
        scenes: what was inferred.
        source: where it was inferred from.
        command: the command line.
        report: called with the number of frames drawn so far.
    """
    pictures: dict[int, Picture] = {}
    for done, episode in enumerate(_episodes(scenes), 1):
        row = scenes.rows[episode]
        try:
            uri = data_uri(scaled(middle_frame(source, row), HEIGHT))
        except (ImageError, SourceError):
            uri = ""
        pictures[episode] = Picture(uri=uri, key=row["key"], fit=float(scenes.fit[episode]))
        report(done)
    cards = [_card(scenes, scene, pictures) for scene in _largest(scenes)]
    return render(
        "oxcart.compile.scenes",
        "scenes.html",
        scenes=scenes,
        names=[scene_name(one) for one in range(scenes.count)],
        cards=cards,
        rest=scenes.count - len(cards),
        pairs=[
            (a, b, score, pictures[scenes.medoids[a]], pictures[scenes.medoids[b]])
            for a, b, score in scenes.closest[:PAIRS]
        ],
        plot=_plot(scenes),
        unseen=int((scenes.labels < 0).sum()),
        command=command,
    )


def _largest(scenes: Scenes) -> list[int]:
    sizes = np.bincount(scenes.labels[scenes.labels >= 0], minlength=scenes.count)
    order: list[int] = np.argsort(-sizes, kind="stable")[:SHOWN].tolist()
    return order


def _shown(scenes: Scenes, scene: int) -> list[int]:
    """The medoid of a scene, and the members least like it, the least first."""
    others = [one for one in scenes.members(scene)[::-1].tolist() if one != scenes.medoids[scene]]
    return [scenes.medoids[scene], *others[: MEMBERS - 1]]


def _episodes(scenes: Scenes) -> list[int]:
    """The episodes that are shown, in the order of the source."""
    of_pairs = (scenes.medoids[one] for a, b, _ in scenes.closest[:PAIRS] for one in (a, b))
    of_cards = (one for scene in _largest(scenes) for one in _shown(scenes, scene))
    return sorted({*of_pairs, *of_cards})


def _card(scenes: Scenes, scene: int, pictures: dict[int, Picture]) -> dict[str, Any]:
    members = scenes.members(scene)
    known = sorted({scenes.rows[i]["environment"] for i in members.tolist()} - {None})
    return {
        "name": scene_name(scene),
        "episodes": len(members),
        "least": float(scenes.fit[members].min()),
        "known": known,
        "pictures": [pictures[one] for one in _shown(scenes, scene)],
    }


def _plot(scenes: Scenes) -> dict[str, Any]:
    """Histograms of the likeness of pairs, each as shares of its own pairs, and the threshold."""
    left, top, wide, tall = 20, 20, WIDTH - 40, TALL - 44
    shares = {"null": scenes.between, "held": scenes.within}
    peak = max(max(counts) / max(sum(counts), 1) for counts in shares.values())
    bars = [
        {
            "x": round(left + i * wide / BINS, 2),
            "y": round(top + tall * (1 - count / sum(counts) / peak), 2),
            "width": round(wide / BINS - 0.8, 2),
            "height": round(tall * count / sum(counts) / peak, 2),
            "kind": kind,
            "title": f"{count:,} of {sum(counts):,} pairs from {i / BINS:.2f}",
        }
        for kind, counts in shares.items()
        for i, count in enumerate(counts)
        if count
    ]
    return {
        "bars": bars,
        "ticks": [(round(left + tick / 10 * wide, 1), f"{tick / 10:.1f}") for tick in range(0, 11, 2)],
        "limit": round(left + scenes.threshold * wide, 1),
        "base": top + tall,
        "left": left,
        "right": left + wide,
        "width": WIDTH,
        "height": TALL,
    }
