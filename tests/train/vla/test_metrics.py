"""What codes are worth: shares, intervals and baselines, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from oxcart.train.statistics import make_units
from oxcart.train.vla.metrics import CodedSamples, confusion, guesses, measure


def some(codes: list[list[int]], instructions: list[str], thumbs: list[float]) -> CodedSamples:
    """Samples of four episodes by turns."""
    count = len(codes)
    return CodedSamples(
        codes=np.array(codes),
        thumbs=np.array(thumbs)[:, None],
        instructions=instructions,
        units=make_units([None] * count, [f"e{i % 4}" for i in range(count)], np.arange(count)),
    )


TRAIN = some(
    [[0, 1], [0, 2], [0, 1], [3, 3], [3, 3]], ["push", "push", "push", "lift", "lift"], [0, 1, 2, 0, 9]
)
HELD = some([[0, 1], [3, 1], [3, 3], [0, 2]], ["push", "lift", "lift", "turn"], [2.2, 0.1, 8, 1.2])


def test_baselines_know_what_train_says() -> None:
    found = guesses(TRAIN, HELD, size=4)
    assert found["unigram"].codes.tolist() == [[0, 1]] * 4
    assert found["unigram"].whole.tolist() == [[0, 1]] * 4, "[0, 1] and [3, 3] are as frequent; the first"
    assert found["instruction"].codes.tolist() == [[0, 1], [3, 3], [3, 3], [0, 1]], "turn is not known"
    assert found["nearest"].codes.tolist() == [[0, 1], [3, 3], [3, 3], [0, 2]], "of the same instruction"
    nll = found["unigram"].nll
    assert nll is not None
    assert nll[0].tolist() == pytest.approx(-np.log([3.5 / 7, 2.5 / 7]))
    assert found["nearest"].nll is None


SAID = np.array([[0, 1], [3, 3], [1, 3], [0, 2]])
"""Right: both, the first, the second, both."""
NLL = np.array([[0.1, 0.2], [0.3, 0.9], [1.5, 0.4], [0.2, 0.4]])


def test_shares_gains_and_counts() -> None:
    baselines = guesses(TRAIN, HELD, 4)
    found = measure(HELD, SAID, NLL, baselines, size=4)
    assert found["accuracy"] == pytest.approx(6 / 8)
    assert found["exact"] == pytest.approx(2 / 4)
    assert found["nll"] == pytest.approx(NLL.mean())
    for name, right, exact in (("unigram", 4, 1), ("instruction", 6, 2), ("nearest", 7, 3)):
        assert found[f"{name}_accuracy"] == pytest.approx(right / 8)
        assert found[f"{name}_exact"] == pytest.approx(exact / 4)
        assert found[f"{name}_gain"] == pytest.approx((6 - right) / 8)
    for name in ("unigram", "instruction"):
        nll = baselines[name].nll
        assert nll is not None
        assert found[f"{name}_nll"] == pytest.approx(nll.mean())
        assert found[f"{name}_nll_gain"] == pytest.approx(nll.mean() - NLL.mean())
    assert "nearest_nll" not in found
    assert found["samples"] == 4
    assert found["intervals_over"] == "episodes"
    assert found["predicted"] == [[2, 1, 0, 1], [0, 1, 1, 2]]
    assert found["true"] == [[2, 0, 0, 2], [0, 2, 1, 1]]
    assert found["confusion"] == confusion(HELD.codes, SAID, 4).tolist()
    assert np.array(found["confusion"]).sum() == 8


def test_intervals_are_students_over_episodes() -> None:
    baselines = guesses(TRAIN, HELD, 4)
    found = measure(HELD, SAID, NLL, baselines, size=4)
    right = np.array([1, 0.5, 0.5, 1])
    nll = baselines["unigram"].nll
    assert nll is not None
    for name, values in (
        ("accuracy", right),
        ("exact", np.array([1, 0, 0, 1])),
        ("unigram_gain", right - [1, 0.5, 0, 0.5]),
        ("unigram_nll_gain", (nll - NLL).mean(1)),
    ):
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx((low, high), abs=1e-4), name


def test_a_confusion_has_true_codes_in_rows() -> None:
    assert confusion(np.array([[0, 1]]), np.array([[2, 1]]), 3).tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_the_most_frequent_action_is_not_that_of_the_most_frequent_codes() -> None:
    train = some([[0, 1], [0, 1], [2, 3], [3, 3], [1, 3]], ["go"] * 5, [0.0] * 5)
    held = some([[0, 1], [0, 3], [0, 1], [2, 1]], ["go"] * 4, [0.0] * 4)
    baselines = guesses(train, held, size=4)
    assert baselines["unigram"].codes[0].tolist() == [0, 3]
    assert baselines["unigram"].whole[0].tolist() == [0, 1]
    found = measure(held, held.codes, np.zeros((4, 2)), baselines, size=4)
    assert found["unigram_exact"] == pytest.approx(2 / 4)
    assert found["unigram_accuracy"] == pytest.approx(4 / 8)
