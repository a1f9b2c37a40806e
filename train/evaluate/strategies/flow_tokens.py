"""Flow and tokens: the mean optical flow of a pair beside its token. It needs no actions, so it suits
video."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from oxcart.train import plots, statistics
from oxcart.train.evaluate import apart, shares
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import (
    FEW,
    LABELLED,
    Context,
    Figure,
    Number,
    Skip,
    Strategy,
    frequent,
    panels,
    tidy,
    to_png,
)
from oxcart.train.flow import STILL, VARIANTS, WEIGHTED
from oxcart.train.statistics import Floats, Ints

POINTS = 4000
"""Maximum number of points in a scatter plot."""
PANELS = 8
SECTORS = 16


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
    """Scatters of the three means, and an angular histogram of each token."""
    assert pairs.flow is not None
    yield _scatter(pairs, pairs.flow)
    yield _roses(pairs, pairs.flow[:, WEIGHTED])


def _scatter(pairs: GatheredPairs, flow: Floats) -> Figure:
    places = pairs.codes.shape[1]
    shown = np.linspace(0, len(pairs) - 1, min(len(pairs), POINTS)).astype(np.int64)
    figure, axes = panels(len(VARIANTS), places, 2.9 * places, 2.7 * len(VARIANTS))
    for number, variant in enumerate(VARIANTS):
        values = flow[shown, number]
        reach = max(float(np.quantile(np.abs(values), 0.99)), 1e-6)
        for place, axis in enumerate(axes[number]):
            codes = pairs.codes[shown, place]
            axis.scatter(*values.T, c=codes, cmap="tab10", s=4, alpha=0.6, linewidths=0)
            used = frequent(codes)
            means = np.stack([values[codes == code].mean(0) for code in used])
            apart.write(axis, used, means, fontsize=9, fontweight="bold")
            axis.set_xlim(-reach, reach)
            axis.set_ylim(-reach, reach)
            tidy(axis, f"token {place}, {variant}", "% of the width", "" if place else "% up")
    apart.keep_apart(figure)
    return Figure(
        title="Mean flow of each pair, by token",
        png=to_png(figure),
        caption=f"One point per pair ({len(shown):,} of {len(pairs):,}), coloured by its code; bold numbers "
        f"stand at the mean of their code, for the {LABELLED} most frequent. {apart.CAPTION} Plain: of all "
        "pixels; weighted: by how far each moves; "
        f"thresholded: of those that move by {STILL:g}% of the width.",
    )


def _roses(pairs: GatheredPairs, flow: Floats) -> Figure:
    places = pairs.codes.shape[1]
    moving = shares.directions(flow, statistics.numbered(pairs.dataset)) > 0
    angles = np.arctan2(flow[:, 1], flow[:, 0])
    columns = min(pairs.size, PANELS)
    polar = {"projection": "polar"}
    figure, axes = panels(places, columns, 1.4 * columns, 1.55 * places, subplot_kw=polar)
    edges = np.linspace(-np.pi, np.pi, SECTORS + 1)
    everyone, _ = np.histogram(angles[moving], edges)
    everyone = everyone / max(1, everyone.sum())
    for place in range(places):
        counts = np.bincount(pairs.codes[:, place], minlength=pairs.size)
        codes = np.sort(np.argsort(-counts, kind="stable")[:columns])
        for axis, code in zip(axes[place], codes, strict=True):
            own, _ = np.histogram(angles[moving & (pairs.codes[:, place] == code)], edges)
            share = own / max(1, own.sum())
            width = 2 * np.pi / SECTORS
            axis.bar(edges[:-1] + width / 2, everyone, width, color=plots.FAINT, alpha=0.6)
            axis.bar(edges[:-1] + width / 2, share, width, color=plots.COLOURS[0], alpha=0.8)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines["polar"].set_color(plots.FAINT)
            axis.set_title(f"{place}:{code}  {int(own.sum())}", fontsize=8, color=plots.INK, pad=2)
    return Figure(
        title="Where things move, by token",
        png=to_png(figure),
        caption="place:code and its moving pairs. Blue: directions of the weighted mean flow of pairs with "
        "that code; grey: those of all pairs. A code that means a direction has one lobe.",
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
