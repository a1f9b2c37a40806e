"""What is made ahead comes in order, raises in order, and leaves no thread behind."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from oxcart.compile.ahead import ahead, map_ahead


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_items_come_in_order(depth: int) -> None:
    assert list(ahead(iter(range(100)), depth)) == list(range(100))
    assert list(ahead(iter(()), depth)) == []


@pytest.mark.parametrize("depth", [1, 2])
def test_no_more_is_made_than_the_depth_and_the_one_in_the_making(depth: int) -> None:
    made: list[int] = []
    waiting = threading.Event()

    def items() -> Iterator[int]:
        for i in range(10):
            made.append(i)
            if i == depth + 1:
                waiting.set()
            yield i

    with contextlib.closing(ahead(items(), depth)) as coming:
        for i, item in enumerate(coming):
            assert item == i
            if i == 0:
                assert waiting.wait(30), "nothing is made while the consumer works"
            assert len(made) <= i + depth + 2


def test_depth_0_makes_an_item_when_it_is_wanted_in_the_same_thread() -> None:
    threads = []

    def items() -> Iterator[int]:
        for i in range(3):
            threads.append((i, threading.current_thread()))
            yield i

    for i in ahead(items(), 0):
        assert threads[-1] == (i, threading.current_thread())
        assert len(threads) == i + 1


@pytest.mark.parametrize("depth", [0, 1])
def test_an_error_comes_after_the_items_before_it(depth: int) -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("third")

    coming = ahead(items(), depth)
    assert [next(coming), next(coming)] == [1, 2]
    with pytest.raises(ValueError, match="third"):
        next(coming)


def test_a_consumer_that_stops_ends_the_maker_and_closes_its_source() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.append(threading.current_thread())

    coming = ahead(items(), 1)
    assert next(coming) == 0
    coming.close()
    assert len(closed) == 1


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
