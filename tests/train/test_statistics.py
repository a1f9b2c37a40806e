"""Probes, mutual information and intervals, on data whose answer is known."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from oxcart.train import statistics


def codes(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (count, 2))


def test_a_linear_relation_is_found_and_noise_is_not() -> None:
    train, val = codes(400, 0), codes(200, 1)
    table = np.random.default_rng(2).standard_normal((4, 2))
    x, x_val = statistics.one_hot(train, 4), statistics.one_hot(val, 4)
    found = statistics.probe(x, table[train[:, 0]], x_val, table[val[:, 0]])
    assert (found > 0.98).all()
    noise = np.random.default_rng(3).standard_normal((600, 2))
    assert (statistics.probe(x, noise[:400], x_val, noise[400:]) < 0.1).all()


def test_a_value_that_never_varies_has_no_r2() -> None:
    x = statistics.one_hot(codes(50, 0), 4)
    assert np.isnan(statistics.probe(x, np.ones((50, 1)), x, np.ones((50, 1)))).all()


def test_one_hot_keeps_the_places_apart() -> None:
    assert statistics.one_hot(np.array([[0, 1]]), 2).tolist() == [[1, 0, 0, 1]]


def test_nmi_is_one_for_the_same_and_zero_for_a_constant() -> None:
    a = np.array([0, 1, 2, 0, 1, 2])
    assert statistics.nmi(a, a + 7) == pytest.approx(1)
    assert statistics.nmi(a, np.zeros(6, np.int64)) == 0
    assert statistics.nmi(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])) == pytest.approx(0, abs=1e-12)


def test_information_stands_out_from_chance_only_where_there_is_some() -> None:
    episodes = [f"e{i // 10}" for i in range(200)]
    one = codes(200, 0)
    found = statistics.information(one, statistics.joint(one[:, :1]), episodes)
    assert found.excess == pytest.approx(found.value - found.shuffled)
    assert 0.2 < found.low <= found.excess <= found.high < 0.9
    chance = statistics.information(one, codes(200, 5)[:, 0], episodes)
    assert chance.value == pytest.approx(chance.shuffled, abs=0.05)


@pytest.mark.parametrize("values", [4, 8, 64])
def test_the_interval_of_unrelated_codes_holds_nothing(values: int) -> None:
    generator = np.random.default_rng(values)
    episodes = [f"e{i // 12}" for i in range(480)]
    inside = 0
    for seed in range(10):
        one, labels = generator.integers(0, values, (480, 2)), generator.integers(0, 9, 480)
        found = statistics.information(one, labels, episodes, seed=seed)
        inside += found.low <= 0 <= found.high
    assert inside >= 8


def test_one_episode_says_nothing_of_others() -> None:
    assert statistics.information(codes(50, 0), codes(50, 1)[:, 0], ["only"] * 50).low == -np.inf


def test_directions_are_sectors_and_stillness() -> None:
    actions = np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [1, 1], [0.001, 0]])
    found = statistics.directions(actions)
    assert found.tolist() == [1, 3, 5, 7, 2, 0]
    assert len(set(statistics.directions(np.array([[1.0], [-1.0], [2.0]])).tolist())) == 2


def test_joint_numbers_tell_whole_actions_apart() -> None:
    assert len(set(statistics.joint(np.array([[0, 1], [1, 0], [0, 1]])).tolist())) == 2


def test_intervals_of_means_draw_whole_episodes() -> None:
    keys = ["a"] * 50 + ["b"] * 50
    values = np.array([0.0] * 50 + [1.0] * 50)
    draws = statistics.mean_resamples(keys)
    assert set(draws.sum(1)) == {100.0}
    assert all(len(set(draw[:50])) == 1 for draw in draws)
    assert statistics.mean_interval(values, draws) == (0.0, 1.0), (
        "two episodes say little, however long they are"
    )
    many = statistics.mean_resamples([str(i) for i in range(100)])
    low, high = statistics.mean_interval(values, many)
    assert 0.35 < low < 0.5 < high < 0.65


def test_only_strategies_need_the_packages_of_evaluation() -> None:
    """Training and its validation must run with the extra `train` alone."""
    root = Path(statistics.__file__).parent
    need = {
        str(file.relative_to(root))
        for file in root.rglob("*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and ast.unparse(node).split()[1].partition(".")[0] in {"scipy", "sklearn", "cv2"}
    }
    assert need
    assert all(name.startswith(("evaluate/shares.py", "evaluate/strategies/")) for name in need), need
