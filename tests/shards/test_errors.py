"""Errors keep their kin, their one line and their attributes, also across a process boundary."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest

from oxcart.shards.errors import ConfigError, CorruptError, OxcartError, SourceError, StoreError
from worker_tasks import fail_with

ERRORS = [
    OxcartError("one"),
    ConfigError("size: expected 1, got 2"),
    CorruptError("x.tar: key k: chunk 3"),
    StoreError("/x: write: No space left on device"),
    SourceError("is cut off"),
    SourceError("is cut off", file="a.tfrecord", record=0, offset=0),
    SourceError("is cut off", record=7),
    SourceError("has: colons, and commas", file="f", offset=1 << 40),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_a_pickled_error_keeps_type_message_and_attributes(error: OxcartError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - what a process pool does to it
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_an_error_raised_in_another_process_arrives_whole() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for error in ERRORS:
            with pytest.raises(type(error)) as caught:
                pool.submit(fail_with, error).result()
            assert str(caught.value) == str(error)
            for name, value in vars(error).items():
                assert getattr(caught.value, name) == value


def test_every_error_is_an_oxcart_error_and_a_config_error_a_value_error() -> None:
    assert all(isinstance(error, OxcartError) for error in ERRORS)
    assert {type(error) for error in ERRORS if isinstance(error, ValueError)} == {ConfigError}


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({}, "is bad"),
        ({"file": "f"}, "f: is bad"),
        ({"record": 0}, "record 0: is bad"),
        ({"offset": 0}, "byte 0: is bad"),
        ({"file": "f", "record": 3, "offset": 99}, "f, record 3, byte 99: is bad"),
    ],
)
def test_a_source_error_says_the_place_it_knows(place: dict[str, object], message: str) -> None:
    error = SourceError("is bad", **place)  # type: ignore[arg-type]
    assert str(error) == message
    assert error.reason == "is bad"
    assert (error.file, error.record, error.offset) == tuple(
        place.get(k) for k in ("file", "record", "offset")
    )
