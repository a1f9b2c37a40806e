"""The action compass: the mean motion of each token as an arrow, and whether arrows agree between places."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.patches import Ellipse
from scipy import stats

from oxcart.train import plots, statistics
from oxcart.train.evaluate import apart, drawing, shares
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import (
    Context,
    Figure,
    Number,
    Skip,
    Strategy,
    Table,
    environments,
    groupings,
    widest,
)
from oxcart.train.statistics import Floats, Ints
from oxcart.train.trained_on import HELD_OUT

PANELS = 8
"""Number of codes drawn per place, most frequent first."""
LISTED = 256
"""Maximum number of rows in the table."""


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """Cosines of arrows between environments, between datasets, and between held out and seen."""
    held, pairs = pairs, pairs.having("motion")
    for found in groupings(pairs):
        if isinstance(found, Skip):
            yield found
            continue
        kind, names = found
        one = kind.removesuffix("s")
        yield _agreement(
            pairs.take(names != ""),
            names[names != ""],
            context,
            name=f"cosine_{kind}",
            title=f"arrows agree between {kind}",
            read=f"Cosine of a token's mean motion in one {one} with that in all others: 1 means the same "
            "direction everywhere, 0 chance, -1 the opposite. Tokens count by their evidence.",
        )
        if kind == "environments":
            yield _held_out(held, context)


def _held_out(pairs: GatheredPairs, context: Context) -> Number | Skip:
    title = "arrows of held-out environments agree with those seen"
    if context.seen is None:
        return Skip(what=title, because="environments are not both seen and held out")
    both = pairs.joined(context.seen).having("motion")
    both = both.take(both.environment != "")
    names = environments(both)
    unseen = np.unique(names[both.place == HELD_OUT])
    if not len(unseen) or np.isin(names, unseen).all():
        return Skip(what=title, because="environments are not both seen and held out")
    return _agreement(
        both,
        names,
        context,
        name="cosine_held_out",
        title=title,
        read="The same cosine, of each environment that training never saw with all that it saw: 1 means "
        "that tokens keep their direction in a new place.",
        unseen=unseen,
    )


def _agreement(
    pairs: GatheredPairs, names: Any, context: Context, unseen: Any = None, **about: Any
) -> Number | Skip:
    groups = statistics.numbered(names)
    values = shares.standardised(_plane(pairs), groups, together=True)
    mine = None if unseen is None else np.isin(np.unique(names), unseen)

    def statistic(rows: Any) -> float:
        sums, counts = shares.arrows(values[rows], pairs.codes[rows], pairs.size, groups[rows])
        # Rows that were left out may hold the last group.
        chosen = None if mine is None else mine[: len(sums)]
        return shares.agreement(sums, counts, chosen)

    units = pairs.units
    if unseen is not None and len(unseen) < statistics.FEWEST_ENVIRONMENTS:
        units = units.by_episode()  # however many environments are seen, the statement is about the unseen
    return context.estimate(units, statistic, by=statistics.jackknife_cosine, better="high", **about)


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Figure | Table]:
    """A compass of each place, every token by dataset or environment, and the motions behind the arrows."""
    pairs = pairs.having("motion")
    yield _compass(pairs)
    if (way := widest(pairs)) is not None:
        yield _by_group(pairs, *way)
    yield drawing.scatter(
        pairs,
        drawing.by_dataset(pairs, _plane(pairs)),
        [one.label for one in pairs.motion_columns],
        "Motion by token",
        "The motion of each pair along x and y.",
    )
    yield _actions_by_token(pairs)


def _actions_by_token(pairs: GatheredPairs) -> Table:
    rows: list[list[Any]] = []
    motion = pairs.motion
    assert motion is not None
    for dataset, place, code in itertools.product(
        np.unique(pairs.dataset), range(pairs.codes.shape[1]), range(pairs.size)
    ):
        mine = (pairs.dataset == dataset) & (pairs.codes[:, place] == code)
        if mine.sum() > 1 and len(rows) < LISTED:
            values = motion[mine]
            covariance = np.atleast_2d(np.cov(values.T)).round(6).tolist()
            mean = values.mean(0).round(6).tolist()
            rows.append([dataset, f"{place}:{code}", int(mine.sum()), mean, covariance])
    named = ", ".join(one.label for one in pairs.motion_columns)
    columns = ("dataset", "token", "pairs", f"mean {named}", "covariance")
    return Table(title="Motion of each token", columns=columns, rows=rows)


def _compass(pairs: GatheredPairs) -> Figure:
    plt, places = plots.pyplot(), pairs.codes.shape[1]
    groups = statistics.numbered(pairs.dataset)
    values = shares.standardised(_plane(pairs), groups, together=True)
    sums, counts = shares.arrows(values, pairs.codes, pairs.size, groups * 0)
    means = sums[0] / np.maximum(counts[0], 1)[..., None]
    reach = max(1e-9, float(np.abs(means).max())) * 1.25
    figure, axes = drawing.panels(1, places, 2.9 * places, 3.1)
    colours = plt.get_cmap("hsv")
    for place, axis in enumerate(axes[0]):
        _frame(axis, reach, f"token {place}")
        for code in drawing.frequent(pairs.codes[:, place]):
            x, y = means[place, code]
            colour = colours((np.arctan2(y, x) / (2 * np.pi)) % 1)
            width = 0.6 + 2.6 * np.sqrt(counts[0, place, code] / counts[0, place].max())
            style = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "mutation_scale": 11}
            axis.annotate("", (x, y), (0, 0), arrowprops={**style, "shrinkA": 0, "shrinkB": 0})
            apart.write(axis, [code], np.array([[x * 1.16, y * 1.16]]), fontsize=8)
    return drawing.finished(
        figure,
        "What each code means",
        "Mean motion along x and y of the pairs that have a code in this place, as a deviation from the mean "
        "motion of the dataset and in units of its deviation. Width is how often the code is used; the "
        f"{drawing.LABELLED} most frequent.",
    )


def _by_group(pairs: GatheredPairs, kind: str, names: Any) -> Figure:
    plt, places = plots.pyplot(), pairs.codes.shape[1]
    shown = drawing.largest(names)
    pairs, names = pairs.take(np.isin(names, shown)), names[np.isin(names, shown)]
    groups = np.array([shown.index(name) for name in names])
    values = shares.standardised(_plane(pairs), groups, together=True)
    sums, counts = shares.arrows(values, pairs.codes, pairs.size, groups)
    means = sums / np.maximum(counts, 1)[..., None]
    enough = counts >= 5
    reach = float(np.abs(means[enough]).max(initial=0.1)) * 1.3
    columns = min(pairs.size, PANELS)
    figure, axes = drawing.panels(places, columns, 1.45 * columns, 1.55 * places + 0.6)
    colours = plt.get_cmap("tab10").colors
    for place in range(places):
        codes = np.sort(np.argsort(-counts[:, place].sum(0), kind="stable")[:columns])
        for axis, code in zip(axes[place], codes, strict=True):
            _frame(axis, reach, f"{place}:{code}")
            for group in range(len(shown)):
                if not enough[group, place, code]:
                    continue
                mine = (groups == group) & (pairs.codes[:, place] == code)
                x, y = means[group, place, code]
                axis.plot([0, x], [0, y], color=colours[group], linewidth=1.3)
                axis.plot([x], [y], "o", color=colours[group], markersize=2.5)
                _ellipse(axis, values[mine], pairs.units[mine].clusters, colours[group])
    handles = [plt.Line2D([], [], color=colours[i], label=name) for i, name in enumerate(shown)]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(4, len(shown)), frameon=False, fontsize=8
    )
    return drawing.finished(
        figure,
        f"The same token in different {kind}",
        f"place:code. One arrow for each of the largest {kind} with at least five pairs; ellipses hold the "
        "tip with 95% confidence, over environments or episodes. Arrows of one panel that point together "
        "mean the same.",
    )


def _ellipse(axis: Any, values: Floats, clusters: Ints, colour: Any) -> None:
    """Draw the region in which the mean of values [N, 2] lies, by Hotelling's T2 of a jackknife."""
    number = int(clusters.max()) + 1
    if number <= statistics.LEAST:
        return
    sums = np.stack([np.bincount(clusters, column) for column in values.T], 1)
    counts = np.bincount(clusters)[:, None]
    without = (sums.sum(0) - sums) / (counts.sum() - counts)
    lengths, axes = np.linalg.eigh(np.cov(without.T, bias=True) * (number - 1))
    reach = 2 * (number - 1) / (number - 2) * stats.f.ppf(statistics.LEVEL, 2, number - 2)
    width, height = 2 * np.sqrt(np.maximum(lengths, 0) * reach)
    angle = float(np.degrees(np.arctan2(axes[1, 0], axes[0, 0])))
    axis.add_patch(Ellipse(values.mean(0), width, height, angle=angle, color=colour, alpha=0.16, linewidth=0))


def _frame(axis: Any, reach: float, title: str) -> None:
    drawing.tidy(axis, title)
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-reach, reach)
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.axhline(0, color=plots.FAINT, linewidth=0.6)
    axis.axvline(0, color=plots.FAINT, linewidth=0.6)
    axis.spines[["left", "bottom"]].set_visible(False)


def _plane(pairs: GatheredPairs) -> Floats:
    """Motion along x and y, [N, 2]."""
    assert pairs.motion is not None
    return pairs.motion[:, :2]


STRATEGY = Strategy(
    title="Action compass",
    about="Does a token mean one direction everywhere? Its mean motion in each environment or dataset is an "
    "arrow; arrows of one token should point together.",
    needs=("motion",),
    measure=measure,
    draw=draw,
    place=10,
)
