"""What codes are worth: shares, intervals and baselines, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

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


def test_shares_gains_and_counts() -> None:
    said = np.array([[0, 1], [3, 3], [1, 3], [0, 2]])
    found = measure(HELD, said, np.full((4, 2), 0.5), guesses(TRAIN, HELD, 4), size=4)
    assert found["accuracy"] == pytest.approx(6 / 8)
    assert found["exact"] == pytest.approx(2 / 4)
    assert found["nll"] == 0.5
    assert found["unigram_accuracy"] == pytest.approx(4 / 8)
    assert found["unigram_gain"] == pytest.approx(2 / 8)
    assert found["unigram_nll_gain"] == pytest.approx(found["unigram_nll"] - 0.5)
    assert found["unigram_nll_gain_low"] <= found["unigram_nll_gain"] <= found["unigram_nll_gain_high"]
    assert found["nearest_exact"] == pytest.approx(3 / 4)
    assert found["samples"] == 4
    assert found["predicted"] == [[2, 1, 0, 1], [0, 1, 1, 2]]
    assert found["true"] == [[2, 0, 0, 2], [0, 2, 1, 1]]
    assert np.array(found["confusion"]).sum() == 8
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]


def test_a_confusion_has_true_codes_in_rows() -> None:
    assert confusion(np.array([[0, 1]]), np.array([[2, 1]]), 3).tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]
