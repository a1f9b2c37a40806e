"""Flow and tokens: the mean optical flow of a pair beside its token. It needs no actions, so it suits
video."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from oxcart.train import statistics
from oxcart.train.evaluate import drawing, shares
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import FEW, Context, Figure, Number, Skip, Strategy
from oxcart.train.flow import STILL, VARIANTS, WEIGHTED
from oxcart.train.statistics import Ints


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """Information in tokens about the direction of flow, for each kind of mean flow."""
    assert pairs.flow is not None
    datasets = statistics.numbered(pairs.dataset)
    for number in (WEIGHTED, *(i for i in range(len(VARIANTS)) if i != WEIGHTED)):
        yield told(
            shares.directions(pairs.flow[:, number], datasets),
            pairs,
            context,
            "hardly any pair moves, or all move the same way",
            name=f"direction_{VARIANTS[number]}",
            title=f"direction of flow told by a token, {VARIANTS[number]} mean",
            better="high",
            read="Share of the entropy of the direction (eight sectors) of what moves that one token tells, "
            "above chance: 0 nothing, 1 all of it.",
        )


def told(
    labels: Ints,
    pairs: GatheredPairs,
    context: Context,
    otherwise: str,
    *,
    given: Ints | None = None,
    **about: Any,
) -> Number | Skip:
    """Share of the entropy of labels [N] that one token tells; label 0 marks pairs to leave out.

    Args:
        labels: from 0.
        pairs: the pairs of the labels.
        context: makes the interval.
        otherwise: reason to give if too few pairs have a label, or all have the same.
        given: [N]: a label beyond which tokens have to tell.
        about: fields of the number.
    """
    known = labels > 0
    codes, own = pairs.codes[known], labels[known]
    if len(own) < FEW or len(np.unique(own)) < 2:
        return Skip(what=about["title"], because=otherwise)
    units, before = pairs.units[known], None if given is None else given[known]
    statistic = statistics.told(codes, own, units, context.seed, given=before)
    return context.estimate(units, statistic, **about)


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Figure]:
    """A scatter of each of the three means."""
    assert pairs.flow is not None
    every = np.arange(len(pairs))
    yield drawing.scatter(
        pairs,
        {variant: (every, pairs.flow[:, i]) for i, variant in enumerate(VARIANTS)},
        ("% of the width", "% up"),
        "Mean flow of each pair, by token",
        "Plain: of all pixels; weighted: by how far each moves; "
        f"thresholded: of those that move by {STILL:g}% of the width.",
    )


STRATEGY = Strategy(
    title="Flow and tokens",
    about="What moves in the frame, and in which direction? Optical flow needs no action labels, so this "
    "works for video.",
    needs=("flow",),
    measure=measure,
    draw=draw,
    place=30,
)
