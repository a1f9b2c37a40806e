"""Intervals hold as often as they say, where environments differ as much as episodes do."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from depth import few
from oxcart.train import statistics
from oxcart.train.evaluate import shares
from oxcart.train.statistics import Floats, Ints, Statistic, Units

DRAWS = 400
CODES = 8
Drawn = tuple[Statistic, Callable[[Statistic, Ints, int], statistics.Interval | None]]


def draw_units(environments: int, generator: np.random.Generator) -> Units:
    """Environments of three to five episodes of three to six pairs."""
    environment = np.repeat(np.arange(environments), generator.integers(3, 6, environments))
    episode = np.repeat(np.arange(len(environment)), generator.integers(3, 7, len(environment)))
    return Units(environment=environment[episode], episode=episode, t=np.arange(len(episode)))


def effects(units: Units, generator: np.random.Generator) -> Floats:
    """Values [N] that differ by environment, by episode and by pair, each with a variance of 1."""
    found: Floats = generator.standard_normal(len(units))
    for numbers in (units.environment, units.episode):
        found = found + generator.standard_normal(int(numbers.max()) + 1)[numbers]
    return found


def mean(units: Units, generator: np.random.Generator) -> Drawn:
    values = effects(units, generator)
    return lambda rows: float(values[rows].mean()), statistics.jackknife


def ratio(units: Units, generator: np.random.Generator) -> Drawn:
    """Of sums of squared errors: those with other codes, which are larger where codes matter, over own."""
    own = np.exp(0.2 * effects(units, generator))
    other = own * np.exp(0.2 * effects(units, generator))
    return lambda rows: float(other[rows].sum() / own[rows].sum()), statistics.jackknife


def cosine(units: Units, generator: np.random.Generator) -> Drawn:
    """Of arrows: codes are directions, turned in each environment and episode, and motions drift."""
    codes = generator.integers(0, CODES, (len(units), 1))
    angle = codes[:, 0] * 2 * np.pi / CODES + 0.3 * effects(units, generator)
    motion = np.stack([np.cos(angle), np.sin(angle)], 1)
    motion += 0.3 * np.stack([effects(units, generator) for _ in range(2)], 1)
    values = shares.standardised(motion, units.environment, together=True)

    def agreement(rows: Ints) -> float:
        return shares.agreement(*shares.arrows(values[rows], codes[rows], CODES, units.environment[rows]))

    return agreement, statistics.jackknife_cosine


def information(units: Units, generator: np.random.Generator) -> Drawn:
    """Codes tell a label more often in some environments and episodes than in others."""
    codes = generator.integers(0, 4, len(units))
    right = generator.random(len(units)) < 1 / (1 + np.exp(-effects(units, generator)))
    labels = np.where(right, codes, generator.integers(0, 4, len(units)))
    return statistics.told(codes[:, None], labels, units, 0), statistics.jackknife


KINDS = {one.__name__: one for one in (mean, ratio, cosine, information)}
CASES = [(kind, number) for kind in KINDS for number in (5, 10, 30)]


def truth(kind: str) -> float:
    """The value for many environments."""
    if kind == "mean":
        return 0.0
    if kind == "ratio":
        return math.exp(0.5 * 0.04 * 3)
    generator = np.random.default_rng(0)
    units = draw_units(3000, generator)
    return KINDS[kind](units, generator)[0](np.arange(len(units)))


@pytest.mark.parametrize(
    ("kind", "environments"),
    few(CASES, *[case for case in CASES if case[1] == 5 or case[0] in ("mean", "ratio")]),
)
def test_an_interval_over_environments_holds_the_value_of_unseen_ones(kind: str, environments: int) -> None:
    value, held = truth(kind), 0
    for seed in range(DRAWS):
        generator = np.random.default_rng([environments, seed])
        units = draw_units(environments, generator)
        statistic, by = KINDS[kind](units, generator)
        found = by(statistic, units.clusters, seed)
        held += found is not None and found.low <= value <= found.high
    assert 0.92 <= held / DRAWS <= 0.98
