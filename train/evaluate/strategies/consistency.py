"""Cross-dataset consistency: how much of the meaning of codes in one dataset or environment holds in others.

The ratio of variance within a token to variance across datasets would not do: meaningless codes have no
variance across datasets either, and would win. Here codes first have to tell something.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from oxcart.train import statistics
from oxcart.train.evaluate import shares
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import (
    FEW,
    Context,
    Number,
    Skip,
    Strategy,
    Table,
    absent,
    groupings,
    widest,
)
from oxcart.train.flow import WEIGHTED
from oxcart.train.statistics import Floats, Ints, Strings

LISTED = 64
"""Maximum number of tokens in the table, most frequent first."""


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """Shares of variance within and across environments and datasets, of actions and of flow."""
    for what, part, values in _kinds(pairs):
        if isinstance(values, str):
            yield Skip(what=f"of {what}", because=values)
            continue
        for found in groupings(part):
            if isinstance(found, Skip):
                yield Skip(what=f"of {what} {found.what}", because=found.because)
            else:
                yield from _shares(what, part, values, found, context)


def _shares(
    what: str, pairs: GatheredPairs, values: Floats, found: tuple[str, Strings], context: Context
) -> Iterator[Number | Skip]:
    kind, names = found
    known = names != ""
    groups, codes, units = statistics.numbered(names[known]), pairs.codes[known], pairs.units[known]
    scaled = shares.standardised(values[known], groups)
    if not scaled.shape[1]:
        yield Skip(what=f"of {what} between {kind}", because=f"{what} never varies")
        return
    one = kind.removesuffix("s")
    apart = "episode" if kind == "environments" else units.over.removesuffix("s")

    sums = shares.tally(scaled, codes, pairs.size, groups, units)
    inside = context.estimate(
        sums.units,
        sums.within,
        name=f"{what}_within_{kind}",
        title=f"{what} told by a token, in its own {one}",
        better="high",
        read=f"Share of the variance of {what} that one token tells among pairs of one {one}, from {apart} "
        f"to {apart}: 0 by chance.",
    )
    yield context.estimate(
        sums.units,
        sums.across,
        name=f"{what}_across_{kind}",
        title=f"{what} told by a token, in other {kind}",
        better="high",
        read=f"Share of the variance of {what} that a token tells by what it means in other {kind}: 0 by "
        f"chance, as large as in its own {one} where it means the same everywhere.",
    )
    yield inside
    title = f"share of what a token tells of {what} that holds in other {kind}"
    if isinstance(inside, Skip) or inside.low is None or inside.low <= 0:
        yield Skip(what=title, because=f"tokens tell nothing of {what} in any one {one}")
        return
    yield context.estimate(
        sums.units,
        lambda rows: sums.across(rows) / sums.within(rows),
        name=f"{what}_kept_{kind}",
        title=title,
        read=f"The first share over the second: 1 means that a token means the same in all {kind}, 0 that "
        "each has a meaning of its own. It says nothing of how much tokens tell.",
    )


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Table]:
    """The variance of each token within and between datasets, else environments."""
    for what, part, values in _kinds(pairs):
        way = widest(part)
        if isinstance(values, str) or way is None:
            continue
        kind, names = way
        known = names != ""
        groups = statistics.numbered(names[known])
        scaled = shares.standardised(values[known], groups)
        if not scaled.shape[1]:
            continue
        rows = _variances(scaled, part.codes[known], part.size, groups)
        if rows:
            columns = ("token", "pairs", f"within {kind}", f"between {kind}", "between / within")
            yield Table(title=f"Variance of {what} given a token", columns=columns, rows=rows)


def _variances(values: Floats, codes: Ints, size: int, groups: Ints) -> list[list[Any]]:
    """Rows of token, pairs, and variances within groups and between their means, as shares of the whole
    variance.

    The part of the variance between means that noise adds is subtracted, so it can be below 0.
    """
    sums, counts = shares.arrows(values, codes, size, groups)
    squares, _ = shares.arrows(values**2, codes, size, groups)
    total = values.var(0).sum()
    found = []
    order = np.argsort(-counts.sum(0).ravel(), kind="stable")[:LISTED]
    for token in np.sort(order):
        place, code = divmod(int(token), size)
        own = counts[:, place, code]
        mine = own > 1
        if mine.sum() < 2:
            continue
        number = own[mine]
        means = sums[mine, place, code] / number[:, None]
        spread = (squares[mine, place, code] / number[:, None] - means**2) * (number / (number - 1))[:, None]
        within = float(np.average(spread.sum(1), weights=number))
        between = float(means.var(0, ddof=1).sum() - (spread.sum(1) / number).mean())
        ratio = round(between / within, 4) if within > 0 else None
        row = [f"{place}:{code}", int(own.sum()), round(within / total, 4), round(between / total, 4), ratio]
        found.append(row)
    return found


def _kinds(pairs: GatheredPairs) -> Iterator[tuple[str, GatheredPairs, Floats | str]]:
    """Name, pairs that have values, and the values; or the reason why there are none."""
    if pairs.actions is None:
        yield "actions", pairs, absent(pairs, "actions")
    else:
        known = pairs.having("actions")
        assert known.actions is not None
        why = "" if known.columns else "datasets have no column of actions in common"
        why = why if len(known) >= FEW else f"{len(known)} pairs have actions; at least {FEW} are needed"
        yield "actions", known, why or known.actions
    if pairs.flow is None:
        yield "flow", pairs, absent(pairs, "flow")
    else:
        yield "flow", pairs, pairs.flow[:, WEIGHTED]


STRATEGY = Strategy(
    title="Consistency across datasets",
    about="How much of what a token tells of actions, or of optical flow, in one environment or dataset "
    "still holds in the others?",
    measure=measure,
    draw=draw,
    place=20,
)
