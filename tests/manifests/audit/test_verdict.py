"""The threshold, how many may exceed it, and the word that follows from them and from the other checks."""

from __future__ import annotations

import itertools
import math
import statistics
from fractions import Fraction

import numpy as np
import pytest

from oxcart.manifests.audit.result import Check, Criterion
from oxcart.manifests.audit.verdict import (
    LEAST_SPREAD,
    Verdict,
    at_least,
    beyond,
    bound,
    decide,
    exceeds,
    threshold,
)


def scores_of(rng: np.random.Generator, environments: int, each: int, own: float) -> np.ndarray:
    """Honest best scores [environments, each]: those of one environment move together by `own`."""
    middle = rng.normal(0.6, own, (environments, 1))
    return np.tanh(middle + rng.normal(0, 0.05, (environments, each))).astype(np.float32)


def of_each(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return scores.reshape(-1), np.repeat(np.arange(len(scores)), scores.shape[1])


def test_the_threshold_is_exceeded_by_a_thousandth() -> None:
    null = np.tile(np.linspace(0, 0.8, 50), 100).astype(np.float32)
    null[:5] = 0.9
    limit = threshold(null, np.arange(5000) % 100)
    assert limit.value >= 0.8
    assert (limit.null, limit.beyond) == (5000, 5) if limit.value < 0.9 else limit.beyond == 0


@pytest.mark.parametrize("environments", [2, 3, 5, 11, 25, 100])
@pytest.mark.parametrize("own", [0.0, 0.1])
def test_honest_environments_are_seldom_called_a_leak(environments: int, own: float) -> None:
    rng, called = np.random.default_rng(environments), 0
    for _ in range(200):
        limit = threshold(*of_each(scores_of(rng, environments, 20, own)))
        held = scores_of(rng, 3, 20, own).reshape(-1)
        called += int(exceeds(held, limit.value).sum() > bound(60, limit.null, limit.beyond))
    assert called <= 4


def test_one_place_under_two_names_in_train_does_not_hide_another_in_val() -> None:
    scores = scores_of(np.random.default_rng(0), 11, 8, 0.05)
    honest = threshold(*of_each(scores))
    scores[3:5] = 0.92
    limit = threshold(*of_each(scores))
    assert limit.apart == (3, 4)
    assert limit.value < 0.85
    assert abs(limit.value - honest.value) < 0.1


def test_the_bound_holds_for_new_draws_although_the_threshold_is_one_of_a_sample() -> None:
    rng = np.random.default_rng(0)
    for null, number in ((1000, 1000), (1000, 10_000), (80, 16)):
        scores = np.sort(rng.random((400, null)), axis=1)
        beyond = null // 1000
        limit = scores[:, -1 - beyond]
        exceeding = rng.binomial(number, 1 - limit)
        assert (exceeding > bound(number, null, beyond)).mean() <= 0.03
    assert bound(16, 80, 0) == 2
    assert bound(5, 1, 0) == 5
    assert bound(100_000, 4000, 4) < 500


def test_recall_has_its_uncertainty() -> None:
    assert at_least(0, 10) == 0
    assert at_least(10, 10) == pytest.approx(0.05 ** (1 / 10), abs=1e-6)
    assert at_least(64, 64) > 0.95


def test_a_thousandth_of_the_null_exceeds_the_threshold_and_no_more() -> None:
    # With one environment there is no bound for another, so the quantile decides alone.
    null = np.linspace(0, 0.6, 3001, dtype=np.float32)
    limit = threshold(null, np.zeros(len(null), np.int64))
    assert (limit.beyond, limit.null) == (3, 3001)
    assert limit.value == round(float(null[-4]), 4)


def test_the_threshold_is_the_prediction_bound_for_one_more_environment() -> None:
    peaks = (0.20, 0.32, 0.26, 0.38)
    limit = threshold(np.array([*peaks, *[0.1] * 4], np.float32), np.array([0, 1, 2, 3] * 2))
    fisher = [math.atanh(peak) for peak in peaks]
    # Student's t for a rate of 0.1% with 3 degrees of freedom is 10.215.
    reach = statistics.mean(fisher) + 10.215 * statistics.stdev(fisher) * math.sqrt(1 + 1 / 4)
    assert limit.value == pytest.approx(math.tanh(reach), abs=2e-4)
    assert "one more environment, from 4 of train" in limit.how


def test_few_environments_that_are_equally_alike_do_not_make_a_low_threshold() -> None:
    # Two pairs of rooms that resemble each other have two highest scores, which may be equal by chance.
    limit = threshold(np.array([0.5, 0.5, 0.5, 0.5], np.float32), np.arange(4))
    reach = math.atanh(0.5) + 10.215 * LEAST_SPREAD * math.sqrt(1 + 1 / 4)
    assert limit.value == pytest.approx(math.tanh(reach), abs=2e-4)


def test_only_digits_that_are_reported_exceed_the_threshold() -> None:
    scores = np.array([0.8122, 0.8123, 0.81234, 0.8124, 0.9], np.float32)
    assert exceeds(scores, 0.8123).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("number", [1, 5, 40])
@pytest.mark.parametrize("null", [2, 20, 300])
@pytest.mark.parametrize("beyond", [0, 1])
def test_the_bound_is_the_smallest_number_that_suffices(number: int, null: int, beyond: int) -> None:
    shares = [
        Fraction(
            math.comb(most + beyond, beyond) * math.comb(number - most + null - beyond - 1, number - most),
            math.comb(number + null, number),
        )
        for most in range(number + 1)
    ]
    assert sum(shares) == 1
    enough = [most for most, total in enumerate(itertools.accumulate(shares)) if total >= Fraction("0.99")]
    assert bound(number, null, beyond) == enough[0]


NEAR = Criterion("near", "near")
DUPLICATE = Criterion("keys", "keys").failed("1 key in two splits", duplicate=True)
SESSIONS = Criterion("sessions", "sessions").failed("1 session in train and held out")
DAMAGED = Criterion("shards", "shards").failed("damaged")


def decided(*checks: Check, exceeding: int | None = 0, **more: list[str]) -> Verdict:
    """The verdict on sixteen episodes, two of which may exceed the threshold."""
    return decide(checks, exceeding, 2, 16, **more)


def test_more_than_may_exceed_the_threshold_are_a_leak() -> None:
    assert [decided(exceeding=number).word for number in (0, 2, 3, 16)] == ["clean", "clean", "leak", "leak"]


def test_too_many_in_one_split_of_a_dataset_are_a_leak() -> None:
    found = decided(exceeding=2, groups=["2 of 3 in test of dataset 1 exceed the threshold"])
    assert (found.word, found.because) == ("leak", ("2 of 3 in test of dataset 1 exceed the threshold",))


def test_one_exact_duplicate_is_a_leak() -> None:
    found = decided(DUPLICATE, SESSIONS)
    assert found.word == "leak"
    assert found.because == ("1 key in two splits", "sessions: 1 session in train and held out")


@pytest.mark.parametrize("worse", [DAMAGED, NEAR.unchecked("no null")], ids=["damaged", "no threshold"])
@pytest.mark.parametrize("blind", [[], ["exact"]], ids=["sees", "blind"])
def test_a_leak_outranks_what_could_not_be_checked(worse: Check, blind: list[str]) -> None:
    for exceeding in (None, 0, 3):
        assert decided(DUPLICATE, worse, exceeding=exceeding, blind=blind).word == "leak"
    assert decided(worse, exceeding=3, blind=blind).word == "leak"


def suspicious(name: str) -> Check:
    return Criterion(name, name).suspicious(f"{name} says so", settle=f"look at {name}")


@pytest.mark.parametrize("name", ["places", "near", "copy-ahead"])
def test_evidence_against_the_split_is_suspicious_and_says_what_would_settle_it(name: str) -> None:
    found = decided(suspicious(name), SESSIONS)
    assert found.word == "suspicious"
    assert found.because[0] == f"{name}: {name} says so"
    assert found.because[1] == f"to settle it, look at {name}"
    assert found.because[2].startswith("if they show different places, the split can stand")
    assert found.because[3].startswith("sessions: ")


@pytest.mark.parametrize("name", ["recall", "alike", "environments", "frames"])
def test_evidence_of_the_audit_or_of_train_is_not(name: str) -> None:
    assert decided(suspicious(name)).word == "clean"


def test_the_clearest_suspicion_is_said_first() -> None:
    found = decided(suspicious("copy-ahead"), suspicious("near"), suspicious("places"))
    assert [sentence.partition(":")[0] for sentence in found.because[:3]] == ["places", "near", "copy-ahead"]
    assert found.because[3].startswith("to settle it, look at places")


def test_a_suspicion_outranks_what_could_not_be_compared_but_no_leak_and_no_damage() -> None:
    suspect = suspicious("places")
    assert decided(suspect, NEAR.unchecked("too few"), exceeding=None).word == "suspicious"
    assert decided(suspect, blind=["exact"]).word == "suspicious"
    assert decided(suspect, DAMAGED).word == "not checked"
    assert decided(suspect, exceeding=3).word == "leak"
    assert decided(suspect, DUPLICATE).word == "leak"


def test_a_suspicion_does_not_hide_what_else_is_wrong_nor_damage_a_suspicion() -> None:
    suspect = suspicious("places")
    found = decided(suspect, NEAR.unchecked("too few"), exceeding=None, blind=["exact"])
    assert found.because[3:] == ("too few", "this audit is blind here: it misses planted copies (exact)")
    assert decided(suspect, DAMAGED).because[1] == "places: places says so"


def test_all_scores_must_lie_beyond_the_null_by_more_than_few_environments_explain() -> None:
    null, environments = np.tanh(np.array([0.3, 0.5, 0.4, 0.5], np.float32)), np.array([0, 0, 1, 1])
    limit = threshold(null, environments)
    for held, number in (([0.9, 1.2], 0.8), ([1.2, 0.9], 0.8), ([0.2, 1.5], -0.6), ([0.5, 0.5], 0)):
        found = beyond(np.tanh(np.array(held, np.float32)), null, environments, limit)
        assert found == pytest.approx(number, abs=1e-3), "two environments: twice the distance"


def test_environments_that_are_left_out_of_the_null_do_not_hide_what_lies_beyond() -> None:
    scores = scores_of(np.random.default_rng(0), 11, 8, 0.02)
    scores[3:5] = 0.92
    null, environments = of_each(scores)
    limit = threshold(null, environments)
    highest = math.atanh(float(np.delete(scores, (3, 4), 0).max()))
    found = beyond(np.array([0.85], np.float32), null, environments, limit)
    assert found == pytest.approx(9 * (math.atanh(0.85) - highest), abs=1e-3)


def test_what_was_not_seen_is_not_clean() -> None:
    assert decided(DAMAGED).word == "not checked"
    assert decided(NEAR.unchecked("no null")).word == "not checked"
    assert decided(exceeding=None).word == "not checked"
    found = decided(blind=["exact", "brightened"])
    assert found.word == "not checked"
    assert "misses planted copies (exact, brightened)" in found.because[0]
