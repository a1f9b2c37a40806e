"""Magnitude: whether tokens tell the direction of motion, its length, or both.

Where things move farther in one direction than in another, a token that tells the direction tells something
of the length, too. So it is also measured what tokens tell of lengths among motions of one direction.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from oxcart.train import plots, statistics
from oxcart.train.evaluate import drawing, shares
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategies.flow_tokens import told
from oxcart.train.evaluate.strategy import Context, Figure, Number, Skip, Strategy, absent
from oxcart.train.flow import WEIGHTED
from oxcart.train.statistics import Floats


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """Information in tokens about direction and magnitude, for pairs that move."""
    found = _motion(pairs)
    if isinstance(found, str):
        yield Skip(what="direction and magnitude", because=found)
        return
    what, pairs, values = found
    datasets = statistics.numbered(pairs.dataset)
    directions = shares.directions(values, datasets)
    yield told(
        directions,
        pairs,
        context,
        "hardly any pair moves, or all move the same way",
        name="direction",
        title=f"direction of {what} told by a token",
        read=f"Share of the entropy of the direction of {what} that one token tells, above chance: 0 "
        "nothing, 1 all.",
    )
    moving = directions > 0
    lengths = np.zeros_like(directions)
    lengths[moving] = 1 + shares.magnitudes(values[moving], datasets[moving])
    yield told(
        lengths,
        pairs,
        context,
        "hardly any pair moves, or all move as far",
        name="magnitude",
        title=f"magnitude of {what} told by a token",
        better="high",
        read="The same for how far things move (quarters of the pairs that do). Small beside the "
        "direction: tokens say where to and not how far.",
    )
    yield told(
        lengths,
        pairs,
        context,
        "hardly any pair moves, or all move as far",
        given=directions,
        name="beyond_direction",
        title=f"magnitude of {what} told by a token beyond its direction",
        better="high",
        read="The same among motions of one direction: I(token; magnitude | direction) / H(magnitude | "
        "direction), above chance. 0: a token says no more of how far than its direction does.",
    )


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Figure]:
    """Lengths of motion for each code."""
    found = _motion(pairs)
    if isinstance(found, str):
        return
    what, pairs, values = found
    lengths = np.linalg.norm(values, axis=1)
    places = pairs.codes.shape[1]
    figure, axes = drawing.panels(1, places, 2.9 * places, 2.6)
    for place, axis in enumerate(axes[0]):
        codes = np.sort(drawing.frequent(pairs.codes[:, place]))
        boxes = [lengths[pairs.codes[:, place] == code] for code in codes]
        drawn = axis.boxplot(boxes, showfliers=False, patch_artist=True, widths=0.6)
        for box in drawn["boxes"]:
            box.set(facecolor=plots.COLOURS[0], alpha=0.55, linewidth=0)
        for line in drawn["medians"]:
            line.set(color=plots.INK)
        upright = 90 if pairs.size > 10 else 0
        axis.set_xticks(range(1, len(codes) + 1), [str(code) for code in codes], rotation=upright)
        drawing.tidy(axis, f"token {place}", "code", f"length of {what}" if not place else "")
    yield drawing.finished(
        figure,
        "How far, by token",
        f"Length of {what} of the pairs with each code: median, quartiles, range without outliers.",
    )


def _motion(pairs: GatheredPairs) -> tuple[str, GatheredPairs, Floats] | str:
    """Name of flow, else of motion, pairs that have it, and values [N, 2]; or the reason why there is
    neither."""
    if pairs.flow is not None:
        return "flow", pairs, pairs.flow[:, WEIGHTED]
    if pairs.motion is None:
        return absent(pairs, "flow", "motion")
    known = pairs.having("motion")
    assert known.motion is not None
    return "motion", known, known.motion[:, :2]


STRATEGY = Strategy(
    title="Direction and magnitude",
    about="Do tokens tell in which direction things move, or how far?",
    measure=measure,
    draw=draw,
    place=35,
)
