"""Success rates and paired differences against SciPy, against formulas by hand, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from oxcart.train.rollout.rates import design_effect, difference_of, rate_of, sign_flip, wilson
from oxcart.train.statistics import student

TEN = tuple(f"kitchen{i}" for i in range(10))


@pytest.mark.parametrize(
    ("successes", "episodes"), [(0, 7), (1, 7), (7, 7), (31, 50), (199, 200), (0, 1), (1, 1)]
)
def test_an_interval_of_independent_episodes_is_that_of_scipy(successes: int, episodes: int) -> None:
    expected = stats.binomtest(successes, episodes).proportion_ci(method="wilson")
    assert wilson(successes, episodes) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_ends_of_an_interval_are_exact_where_all_episodes_end_alike() -> None:
    assert wilson(0, 49).low == 0
    assert wilson(49, 49).high == 1


def test_fewer_than_five_environments_speak_of_themselves_alone() -> None:
    success = np.array([True, False, True, True] * 4)
    found = rate_of(success, ["a", "b", "c", "d"] * 4)
    assert (found.over, found.environments, found.value) == ("episodes", 4, 0.75)
    assert found.interval == wilson(12, 16)


def test_environments_that_differ_widen_an_interval_as_the_formula_says() -> None:
    # Five kitchens of four episodes: 4, 4, 4, 0 and 0 successes.
    success = np.repeat([True, True, True, False, False], 4)
    names = np.repeat(["a", "b", "c", "d", "e"], 4).tolist()
    share = 12 / 20
    variance = 5 / 4 * (3 * (4 - 4 * share) ** 2 + 2 * (4 * share) ** 2) / 20**2
    effect = variance / (share * (1 - share) / 20)
    assert design_effect(success, np.repeat(np.arange(5), 4)) == pytest.approx((effect, 4))
    assert effect == pytest.approx(5)  # episodes of a kitchen end alike; and 5 / 4 since the mean is fitted
    found = rate_of(success, names)
    assert found.over == "environments"
    assert found.interval == pytest.approx(wilson(12 / effect, 20 / effect, student(4)))
    assert found.interval.low < wilson(12, 20).low
    assert found.interval.high > wilson(12, 20).high


def test_environments_that_are_alike_do_not_narrow_an_interval() -> None:
    success = np.tile([True, False], 20)
    found = rate_of(success, np.repeat(TEN, 4).tolist())
    assert found.interval == pytest.approx(wilson(20, 40, student(9)))


def test_order_and_names_of_environments_change_nothing() -> None:
    generator = np.random.default_rng(0)
    success, place = generator.random(60) < 0.5, generator.integers(0, 6, 60)
    found = rate_of(success, [TEN[i] for i in place])
    order = generator.permutation(60)
    assert rate_of(success[order], [f"x{5 - place[i]}" for i in order]).interval == pytest.approx(
        found.interval
    )


def test_clustered_intervals_cover_the_truth_where_plain_ones_do_not() -> None:
    generator = np.random.default_rng(1)
    names = np.repeat([f"k{i}" for i in range(20)], 10).tolist()
    clustered = plain = 0
    for _ in range(400):
        success = generator.random(200) < np.repeat(generator.beta(1.2, 0.8, 20), 10)
        low, high = rate_of(success, names).interval
        clustered += low <= 0.6 <= high
        low, high = wilson(int(success.sum()), 200)
        plain += low <= 0.6 <= high
    assert 0.92 < clustered / 400 < 0.985
    assert plain / 400 < 0.8


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (3, 0), (9, 2), (5, 5), (0, 12), (40, 25)])
def test_mcnemars_test_is_the_binomial_test_of_discordant_episodes(only_a: int, only_b: int) -> None:
    a = np.array([True] * only_a + [False] * only_b + [True, False] * 5)
    b = np.array([False] * only_a + [True] * only_b + [True, False] * 5)
    found = difference_of(a, b, [None] * len(a))
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert found.mcnemar == pytest.approx(expected)
    assert found.flipped == found.mcnemar  # of episodes, for want of environments
    assert (found.only_a, found.only_b, found.over) == (only_a, only_b, "episodes")
    assert found.value == pytest.approx(a.mean() - b.mean())


def test_the_sign_flip_test_is_scipys_permutation_test() -> None:
    differences = np.array([3, -1, 0, 4, 2, -2, 1, 5])
    expected = stats.permutation_test(
        (differences.astype(float),),
        np.sum,
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="two-sided",
    )
    assert sign_flip(differences) == pytest.approx(expected.pvalue)
    assert sign_flip(-differences) == pytest.approx(expected.pvalue)


def test_the_sign_flip_test_goes_over_environments() -> None:
    # A wins all four episodes of three kitchens, B all of two: 20 episodes speak for A, 5 kitchens do not.
    wins = np.repeat([True, True, True, True, False], 4)
    found = difference_of(wins, ~wins, np.repeat(TEN[:5], 4).tolist())
    assert found.over == "environments"
    assert found.mcnemar == pytest.approx(stats.binomtest(16, 20).pvalue)
    assert found.flipped == pytest.approx(stats.binomtest(4, 5).pvalue)


def test_the_interval_of_a_difference_is_students_of_the_means_of_equal_environments() -> None:
    generator = np.random.default_rng(2)
    a, b = generator.random(80) < 0.7, generator.random(80) < 0.4
    found = difference_of(a, b, np.repeat(TEN, 8).tolist())
    means = (a.astype(float) - b).reshape(10, 8).mean(1)
    expected = stats.t.interval(0.95, 9, means.mean(), means.std(ddof=1) / math.sqrt(10))
    assert found.interval == pytest.approx(expected)


def test_policies_that_never_differ_have_no_interval_of_their_difference() -> None:
    same = np.array([True, False] * 6)
    found = difference_of(same, same, list("aabbccddeeff"))
    assert (found.value, found.interval, found.mcnemar, found.flipped) == (0, None, 1, 1)
