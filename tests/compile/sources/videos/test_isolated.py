"""A process that calls what it is told to: answers, errors and death come back, and it starts again."""

from __future__ import annotations

import os

import pytest

from oxcart.compile.sources.videos.isolated import DiedError, Isolated
from oxcart.shards.errors import SourceError
from worker_tasks import die, fail_with


def test_it_answers_from_another_process_that_stays() -> None:
    beside = Isolated()
    try:
        assert beside.call(sum, [1, 2]) == 3
        assert beside.call(os.getpid) == beside.call(os.getpid) != os.getpid()
    finally:
        beside.close()


def test_what_it_raises_is_raised_here() -> None:
    beside = Isolated()
    try:
        with pytest.raises(SourceError, match="a: is odd"):
            beside.call(fail_with, SourceError("is odd", file="a"))
        with pytest.raises(RuntimeError, match="ValueError: other"):
            beside.call(fail_with, ValueError("other"))
    finally:
        beside.close()


def test_its_death_is_an_answer_and_the_next_call_starts_another() -> None:
    beside = Isolated()
    try:
        with pytest.raises(DiedError, match="SIGKILL"):
            beside.call(die)
        with pytest.raises(DiedError, match="exit code 3"):
            beside.call(os._exit, 3)
        assert beside.call(sum, [4]) == 4
    finally:
        beside.close()
