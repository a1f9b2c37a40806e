"""What is made ahead comes in order, raises in order, and leaves no thread behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from oxcart.compile.ahead import map_ahead


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_results_come_in_order_whatever_finishes_first() -> None:
    gates = [threading.Event() for _ in range(4)]
    gates[3].set()

    def work(i: int) -> int:
        if i < 3:  # each waits for a later one
            gates[i + 1].wait(30)
        gates[i].set()
        return i * i

    assert list(map_ahead(work, range(4), [1] * 4, budget=100, workers=4)) == [0, 1, 4, 9]


@pytest.mark.parametrize(("budget", "most"), [(0, 1), (25, 2), (10**9, 4)])
def test_the_budget_bounds_what_is_made_ahead(budget: int, most: int) -> None:
    begun: list[int] = []
    for i, item in enumerate(
        map_ahead(lambda i: begun.append(i) or i, range(20), [10] * 20, budget=budget, workers=3)
    ):
        assert item == i
        assert len(begun) <= i + most
    assert sorted(begun) == list(range(20))


def test_an_error_of_one_result_comes_in_its_turn_and_the_rest_is_left() -> None:
    def work(i: int) -> int:
        if i == 2:
            raise ValueError("third")
        return i

    coming = map_ahead(work, range(1000), [1] * 1000, budget=10, workers=2)
    assert [next(coming), next(coming)] == [0, 1]
    with pytest.raises(ValueError, match="third"):
        next(coming)


def test_a_consumer_that_stops_ends_the_threads() -> None:
    coming = map_ahead(lambda i: i, range(10**6), [1] * 10**6, budget=10, workers=4)
    assert next(coming) == 0
    coming.close()
