"""The learning rate of every step."""

from __future__ import annotations

import pytest

from oxcart.train.config import TrainConfig
from oxcart.train.optimizer import learning_rate


def test_it_warms_up_in_a_line_and_then_stays() -> None:
    config = TrainConfig(lr=1.0, warmup=4, steps=10, schedule="constant")
    assert [learning_rate(step, config) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_cosine_falls_from_the_peak_to_its_end() -> None:
    config = TrainConfig(lr=2.0, warmup=2, steps=12, schedule="cosine", final_lr=0.1)
    rates = [learning_rate(step, config) for step in range(2, 13)]
    assert rates[0] == 2.0
    assert rates[5] == pytest.approx(2.0 * 0.55)
    assert rates[-1] == pytest.approx(0.2)
    assert rates == sorted(rates, reverse=True)


def test_without_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert learning_rate(0, TrainConfig(lr=1.0, warmup=0, steps=3, schedule="constant")) == 1.0
