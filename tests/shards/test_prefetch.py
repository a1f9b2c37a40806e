"""Ranges are joined and cut as said, and a bounded number of calls run before their results are wanted."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oxcart.shards.prefetch import pieces, prefetch, spans


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 100))), st.integers(0, 50))
def test_spans_cover_their_ranges_and_lie_apart(ranges: list[tuple[int, int]], gap: int) -> None:
    found = spans(ranges, gap)
    assert sorted(place for span in found for place in span.ranges) == list(range(len(ranges)))
    for span in found:
        inside = [ranges[place] for place in span.ranges]
        assert span.start == min(offset for offset, _ in inside)
        assert span.end == max(offset + length for offset, length in inside)
    for one, two in itertools.pairwise(found):
        assert two.start - one.end > gap


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 99))
def test_pieces_lie_end_to_end(start: int, length: int, largest: int) -> None:
    found = pieces(start, start + length, largest)
    assert found[0][0] == start
    assert sum(size for _, size in found) == length
    assert all(size <= largest for _, size in found)
    assert all(one[0] + one[1] == two[0] for one, two in itertools.pairwise(found))
    assert len(found) == max(1, -(-length // largest))


def test_results_come_in_order_and_no_more_than_asked_for_are_begun() -> None:
    begun: list[int] = []

    def call(number: int) -> int:
        begun.append(number)
        return number

    with ThreadPoolExecutor(1) as pool:
        results = prefetch(pool, (partial(call, number) for number in range(100)), 3)
        assert [next(results) for _ in range(10)] == list(range(10))
        assert len(begun) <= 13
        results.close()
    assert len(begun) <= 13
    with ThreadPoolExecutor(8) as pool:
        assert list(prefetch(pool, [partial(pow, number, 2) for number in range(50)])) == [
            number**2 for number in range(50)
        ]


def test_a_failure_ends_it_and_what_waits_is_not_begun() -> None:
    first, begun = threading.Event(), []

    def fail() -> int:
        first.wait(10)
        raise ValueError("no")

    def call() -> int:
        begun.append(1)
        return 1

    with ThreadPoolExecutor(1) as pool:
        results = prefetch(pool, [fail, call, call, call], 2)
        first.set()
        with pytest.raises(ValueError, match="no"):
            list(results)
    assert len(begun) <= 2
