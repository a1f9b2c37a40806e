"""Shares of variance and agreement of arrows, against sums over all pairs of rows and values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from oxcart.train.evaluate import shares
from oxcart.train.statistics import Floats, Ints, Units


def some(places: int = 2) -> tuple[Floats, Ints, Ints, Units]:
    """Values, codes, groups and units of 60 rows: two groups of three environments of two episodes each."""
    generator = np.random.default_rng(0)
    episode = np.repeat(np.arange(12), 5)
    codes = generator.integers(0, 3, (60, places))
    values = np.stack([codes[:, 0] * 1.0, codes.sum(1) * 0.5], 1) + generator.normal(size=(60, 2))
    return values, codes, episode // 6, Units(environment=episode // 2, episode=episode, t=np.arange(60))


def product(values: Floats, cells: Ints, apart: Ints) -> float:
    """Mean over columns, and over cells by their rows, of the mean product of two rows of a cell that are
    apart."""
    found, weights = [], []
    for cell in np.unique(cells):
        mine = np.flatnonzero(cells == cell)
        pairs = [(i, j) for i in mine for j in mine if apart[i] != apart[j]]
        if pairs:
            found.append(np.mean([(values[i] * values[j]).mean() for i, j in pairs]))
            weights.append(len(mine))
    return float(np.average(found, weights=weights))


def test_values_are_in_deviations_of_their_group() -> None:
    values, _, groups, _ = some()
    found = shares.standardised(np.column_stack([values, np.ones(60)]), groups)
    for group in (0, 1):
        mine = groups == group
        assert found[mine] == pytest.approx(StandardScaler().fit_transform(values[mine]))
    together = shares.standardised(values, groups, together=True)
    for group in (0, 1):
        mine = groups == group
        centred = values[mine] - values[mine].mean(0)
        assert together[mine] == pytest.approx(centred / math.sqrt(centred.var(0).sum()))


def test_what_is_told_within_groups_is_the_product_of_independent_rows_of_one_code() -> None:
    values, codes, groups, units = some()
    scaled = shares.standardised(values, groups)
    clusters = units.clusters
    of_place = [
        product(scaled, groups * 3 + codes[:, place], clusters) - product(scaled, groups, clusters)
        for place in range(2)
    ]
    tally = shares.tally(scaled, codes, 3, groups, units)
    found = tally.within(np.arange(len(tally.counts)))
    assert found == pytest.approx(np.mean(of_place))
    assert found > 0.1


def test_where_a_group_is_a_cluster_its_episodes_are_independent() -> None:
    values, codes, _, units = some(places=1)
    groups = units.environment
    scaled = shares.standardised(values, groups)
    tally = shares.tally(scaled, codes, 3, groups, units)
    expected = product(scaled, groups * 3 + codes[:, 0], units.episode)
    expected -= product(scaled, groups, units.episode)
    assert tally.within(np.arange(len(tally.counts))) == pytest.approx(expected)


def test_what_is_told_across_groups_is_the_product_of_rows_of_different_groups() -> None:
    values, codes, _, units = some(places=1)
    groups = units.environment
    scaled = shares.standardised(values, groups)
    tally = shares.tally(scaled, codes, 3, groups, units)
    found = tally.across(np.arange(len(tally.counts)))
    assert found == pytest.approx(product(scaled, codes[:, 0], groups))


def test_agreement_is_the_cosine_of_a_groups_arrows_with_those_of_the_others() -> None:
    east, north, west = (1.0, 0.0), (0.0, 2.0), (-1.0, 0.0)
    values = np.array([east, east, north, east, north, west])
    codes = np.array([[0], [0], [0], [1], [1], [1]])
    groups = np.array([0, 0, 1, 0, 0, 1])
    sums, counts = shares.arrows(values, codes, 2, groups)
    assert sums[:, 0].tolist() == [[[2, 0], [1, 2]], [[0, 2], [-1, 0]]]
    assert counts[:, 0].tolist() == [[2, 2], [1, 1]]
    # Code 0: (1, 0) of two rows and (0, 2) of one, a right angle. Code 1: (0.5, 1) of two and (-1, 0) of one.
    product_, lengths = 3 * -0.5, 3 * 2 + 3 * math.hypot(0.5, 1)
    assert shares.agreement(sums, counts) == pytest.approx(product_ / lengths)
    mine = np.array([False, True])
    assert shares.agreement(sums, counts, mine) == pytest.approx(-0.5 / (2 + math.hypot(0.5, 1)))
    three = np.concatenate([sums, 4 * sums[:1]]), np.concatenate([counts, counts[:1]])
    rest = np.array([[5 * 2 / 4, 0], [5 / 4, 10 / 4]])  # of the first and the third, (sums) / (rows)
    own = np.array([[0, 2], [-1, 0]])
    expected = (own * rest).sum() / (np.linalg.norm(own, axis=1) * np.linalg.norm(rest, axis=1)).sum()
    assert shares.agreement(*three, np.array([False, True, False])) == pytest.approx(expected)
    assert math.isnan(shares.agreement(sums[:1], counts[:1]))


def test_magnitudes_are_quarters_of_their_dataset() -> None:
    lengths = np.array([1.0, 2, 3, 4, 10, 20, 30, 40])
    values = np.stack([lengths * 0.6, -lengths * 0.8], 1)
    found = shares.magnitudes(values, np.repeat([0, 1], 4))
    assert found.tolist() == [0, 1, 2, 3] * 2
