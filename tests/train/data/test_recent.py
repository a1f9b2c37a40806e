"""Values read once and kept: how many, how long, and by how many threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from oxcart.train.data.recent import ENTRY_BYTES, Recent

Bytes = npt.NDArray[np.uint8]


def counting(read: list[int], key: int, size: int = 1000) -> Callable[[], Bytes]:
    def make() -> Bytes:
        read.append(key)
        return np.full(size, key % 256, np.uint8)

    return make


def test_the_values_used_last_stay_within_the_limit() -> None:
    limit = 3 * (1000 + ENTRY_BYTES)
    recent: Recent[int, Bytes] = Recent(limit)
    read: list[int] = []
    for key in (0, 1, 2, 0, 3, 0, 2, 1):  # 3 takes the place of 1, and 1 that of 3
        assert recent.get(key, counting(read, key))[0] == key
        assert recent.nbytes <= limit
    assert read == [0, 1, 2, 3, 1]


def test_a_value_larger_than_the_limit_stays_until_the_next() -> None:
    recent: Recent[int, Bytes] = Recent(2000)
    read: list[int] = []
    for key in (0, 0, 1, 1, 0):
        recent.get(key, counting(read, key, size=5000))
        assert recent.nbytes == 5000 + ENTRY_BYTES
    assert read == [0, 1, 0]


def test_threads_that_ask_at_once_wait_for_one_read() -> None:
    recent: Recent[int, Bytes] = Recent(1 << 20)
    asking, reading = threading.Barrier(2), threading.Barrier(2)
    read: list[int] = []

    def slow() -> Bytes:
        with contextlib.suppress(threading.BrokenBarrierError):
            reading.wait(timeout=0.1)  # the other thread comes only if it reads too
        return counting(read, 0)()

    def ask() -> Bytes:
        asking.wait()
        return recent.get(0, slow)

    with ThreadPoolExecutor(2) as pool:
        first, second = (one.result() for one in [pool.submit(ask) for _ in range(2)])
    assert first is second
    assert read == [0]


def test_a_value_that_could_not_be_read_is_read_again() -> None:
    recent: Recent[int, Bytes] = Recent(1 << 20)

    def fail() -> Bytes:
        raise OSError("cut off")

    for _ in range(2):
        with pytest.raises(OSError, match="cut off"):
            recent.get(0, fail)
    assert recent.get(0, lambda: np.ones(1, np.uint8))[0] == 1
