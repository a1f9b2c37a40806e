"""States: whether tokens depend on where the robot is."""

from __future__ import annotations

from collections.abc import Iterator

from oxcart.manifests.columns import Column
from oxcart.train import statistics
from oxcart.train.evaluate import drawing, shares
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import Context, Figure, Number, Skip, Strategy


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """Share of the variance of the state at t that a token tells."""
    pairs = pairs.having("state")
    assert pairs.state is not None
    groups = statistics.numbered(pairs.dataset)
    scaled = shares.standardised(pairs.state, groups)
    if not scaled.shape[1]:
        yield Skip(what="states told by a token", because="states never vary")
        return

    sums = shares.tally(scaled, pairs.codes, pairs.size, groups, pairs.units)
    yield context.estimate(
        sums.units,
        sums.within,
        name="told",
        title="states told by a token",
        read="Share of the variance of the state at t that one token tells: 0 "
        "where tokens say what is done and not where. Actions depend on the place, so a little is no fault.",
    )


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Figure]:
    """The state of every pair, by code."""
    pairs = pairs.having("state")
    assert pairs.state is not None
    shown = [*pairs.state_columns, Column(name="nothing else")][:2]
    yield drawing.scatter(
        pairs,
        drawing.by_dataset(pairs, statistics.plane(pairs.state)),
        [one.label for one in shown],
        "States by token",
        "The state at t. Well mixed: the code does not depend on where the robot is.",
    )


STRATEGY = Strategy(
    title="States",
    about="Do tokens depend on where the robot is?",
    needs=("state",),
    measure=measure,
    draw=draw,
    place=45,
)
