"""A sketch tells episodes apart, and outlives what converters do to their numbers."""

from __future__ import annotations

import numpy as np
import pytest

from oxcart.compile.sources.base import Floats
from oxcart.compile.sources.sketch import KEPT, sketch


def wandering(seed: int, steps: int = 30, columns: int = 7) -> Floats:
    steady = np.random.Generator(np.random.PCG64(seed)).normal(0, 0.1, (steps, columns))
    return steady.astype(np.float32)


def shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return len(set(one) & set(other))


def test_each_column_keeps_a_few_hashes_and_others_share_none() -> None:
    sketches = [sketch([wandering(seed)]) for seed in range(50)]
    assert {len(one) for one in sketches} == {7 * KEPT}
    assert all(list(one) == sorted(one) for one in sketches)
    assert all(shared(one, other) == 0 for i, one in enumerate(sketches) for other in sketches[:i])


def test_a_column_counts_wherever_it_stands() -> None:
    array = wandering(0)
    assert sketch([array[:, :3], array[:, 3:]]) == sketch([array[:, ::-1]]) == sketch([array])
    padded = np.concatenate([array, np.zeros_like(array)], axis=1)
    assert sketch([padded]) == sketch([array])
    turned = np.concatenate([array[:, :6], 1 - array[:, 6:]], axis=1)
    assert shared(sketch([turned]), sketch([array])) == 6 * KEPT


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_the_last_digits_and_the_sign_of_zero_do_not_count(kind: type) -> None:
    array = wandering(1)
    array[::4] = 0
    other = (array.astype(kind) / 3 * 3).astype(np.float32)
    other[other == 0] = -0.0
    assert shared(sketch([array]), sketch([other])) >= 6 * KEPT


def test_steps_dropped_at_the_ends_leave_most_of_it() -> None:
    for seed in range(20):
        array = wandering(seed)
        assert shared(sketch([array]), sketch([array[1:-1]])) >= 14


def test_what_does_not_move_has_no_sketch() -> None:
    assert sketch([]) == sketch([np.ones((9, 4), np.float32)]) == sketch([wandering(0)[:2]]) == ()
    assert sketch([np.zeros((9, 0), np.float32)]) == ()
