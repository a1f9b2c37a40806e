"""What is not finite is found, and named."""

from __future__ import annotations

import pytest
import torch

from oxcart.train.finite import filled, lost, not_finite, samples, some

BAD = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("bad", BAD)
def test_the_first_tensor_that_is_not_finite_is_named(bad: float) -> None:
    good = {
        "a": torch.ones(3),
        "none": torch.zeros(0),
        "whole": torch.arange(3),
        "half": torch.ones(2).half(),
    }
    assert not_finite(good) is None
    assert not_finite({**good, "b": torch.tensor([1.0, bad]), "c": torch.tensor(bad)}) == "b"


@pytest.mark.parametrize("bad", [*BAD, 1e38])
def test_rows_are_lost_and_filled_by_themselves(bad: float) -> None:
    values = torch.ones(3, 2, 2)
    values[1, 0, 1] = bad
    rows = lost(values)
    assert rows.tolist() == [False, True, False]
    assert torch.equal(filled(values, rows, 5.0)[1], torch.full((2, 2), 5.0))
    assert torch.equal(filled(values, rows, 5.0)[::2], values[::2])


def test_samples_are_named_and_some_of_many_shown() -> None:
    assert samples(["a", "b"], torch.tensor([3, 0])) == ["a t=3", "b t=0"]
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdef")) == "a, b, c, d and 2 more"
