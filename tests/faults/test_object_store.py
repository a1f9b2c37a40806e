"""A compile from a bucket into a bucket, through a server that fails again and again.

The requests pass a proxy that spoils every so many of them, on their way to an S3 API.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from oxcart.compile.engines import Part
from oxcart.compile.pipeline import CompileConfig, execute, execute_part, finish, prepare
from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.compile.sources.base import SourceConfig
from oxcart.shards import retry
from oxcart.shards.errors import OxcartError, StoreError
from sample_compile import SHARD_SIZE, Compiled, compile_sample, config_of, one_line, tree_of, uploaded
from servers import Server


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Six episodes in four shards."""
    sample = RldsSampleConfig(kitchens=3, sessions=1, episodes=2, steps=4, size=32, files=2)
    return compile_sample(tmp_path_factory.mktemp("few"), sample, shard_size=SHARD_SIZE // 2)


@pytest.fixture
def config(few: Compiled, remote: str, waits: list[float]) -> CompileConfig:
    """From a bucket into a bucket; retries come at once."""
    source = uploaded(few.source, f"{remote}/source/1.0.0")
    found = config_of(few.source, Path("out"), source=SourceConfig(url=source), shard_size=SHARD_SIZE // 2)
    return replace(found, out=f"{remote}/out")


@pytest.fixture
def proxy(bucket: Server) -> Iterator[Callable[..., list[tuple[str, str]]]]:
    """Spoils every n-th of the requests that fit; returns those that it spoiled so far."""

    def spoil(what: str, every: int, *, method: str = "", name: str = "") -> list[tuple[str, str]]:
        numbers, lock = itertools.count(1), threading.Lock()
        spoiled: list[tuple[str, str]] = []

        def decide(its_method: str, path: str) -> str:
            if method not in ("", its_method) or name not in path:
                return ""
            with lock:
                hit = next(numbers) % every == 0
            if hit:
                spoiled.append((its_method, path))
            return what if hit else ""

        bucket.faults.every = decide
        return spoiled

    yield spoil
    bucket.faults.every = None


Spoil = Callable[..., list[tuple[str, str]]]


@pytest.mark.parametrize(
    ("what", "every"),
    [
        ("503", 3),
        pytest.param("drop", 10, marks=pytest.mark.system),
        pytest.param("cut", 3, marks=pytest.mark.system),
        pytest.param("500", 3, marks=pytest.mark.system),
        pytest.param("429", 4, marks=pytest.mark.system),
        pytest.param("lost", 4, marks=pytest.mark.system),
    ],
)
def test_failures_of_every_so_many_requests_change_no_byte(
    few: Compiled, config: CompileConfig, proxy: Spoil, bucket: Server, what: str, every: int
) -> None:
    spoiled = proxy(what, every)
    assert execute(prepare(config)) == few.manifest
    assert len(spoiled) > 5
    bucket.faults.every = None
    assert tree_of(config.out) == few.tree


@pytest.mark.system
def test_a_server_that_stalls_is_asked_again(
    few: Compiled, config: CompileConfig, proxy: Spoil, bucket: Server, cloud: pytest.MonkeyPatch
) -> None:
    cloud.setenv("OXCART_STORE_TIMEOUT_S", "0.3")
    spoiled = proxy("stall", 20)
    assert execute(prepare(config)) == few.manifest
    assert len(spoiled) > 2
    bucket.faults.every = None
    assert tree_of(config.out) == few.tree


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("500", "HTTP 500 Injected"),
        pytest.param("drop", "the connection", marks=pytest.mark.system),
        pytest.param("429", "HTTP 429 Injected", marks=pytest.mark.system),
        pytest.param("stall", "no answer for 0.2 s", marks=pytest.mark.system),
    ],
)
def test_a_server_that_never_recovers_is_one_line_and_what_was_done_is_gone_on_with(
    few: Compiled,
    config: CompileConfig,
    proxy: Spoil,
    bucket: Server,
    cloud: pytest.MonkeyPatch,
    what: str,
    says: str,
) -> None:
    if what == "stall":
        cloud.setenv("OXCART_STORE_TIMEOUT_S", "0.2")
    proxy(what, 1, method="PUT", name="train-00001.tar")
    with pytest.raises(StoreError) as caught:
        execute(prepare(config))
    message = one_line(caught.value)
    assert message.startswith(f"{config.out}/shards/train-00001.tar: write: ")
    assert says in message
    assert message.endswith(f", {retry.ATTEMPTS} attempts")
    bucket.faults.every = None
    assert "manifest.json" not in tree_of(config.out)
    assert execute(prepare(config)) == few.manifest
    assert tree_of(config.out) == few.tree


@pytest.mark.system
def test_a_bit_that_turns_on_the_way_to_the_bucket_is_sent_again(
    few: Compiled, config: CompileConfig, proxy: Spoil, bucket: Server
) -> None:
    spoiled = proxy("flip", 3, method="PUT")
    assert execute(prepare(config)) == few.manifest
    assert len(spoiled) > 5
    bucket.faults.every = None
    assert tree_of(config.out) == few.tree


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("rows/train-00000", "commit"),
        pytest.param("rows/train-00000", "compile", marks=pytest.mark.system),
        pytest.param("census.parquet", "commit", marks=pytest.mark.system),
        pytest.param("census.parquet", "compile", marks=pytest.mark.system),
        pytest.param("plan.json", "commit", marks=pytest.mark.system),
        pytest.param("plan.json", "compile", marks=pytest.mark.system),
    ],
)
def test_a_bit_that_turns_on_the_way_from_the_bucket_never_reaches_the_dataset(
    few: Compiled, config: CompileConfig, proxy: Spoil, bucket: Server, name: str, by: str
) -> None:
    """Whatever was read wrongly is read again, made again, or said."""
    execute_part(prepare(replace(config, part=Part(0, 1))))
    spoiled = proxy("flip", 1, method="GET", name=name)
    try:
        execute(prepare(config)) if by == "compile" else finish(config.out)
    except OxcartError as error:
        one_line(error)
    assert spoiled
    bucket.faults.every = None
    assert execute(prepare(config)) == few.manifest
    assert tree_of(config.out) == few.tree


def test_a_bit_that_turns_in_a_record_is_said_and_nothing_is_compiled_of_it(
    few: Compiled, config: CompileConfig, proxy: Spoil, bucket: Server
) -> None:
    spoiled = proxy("flip", 3, method="GET", name="tfrecord")
    with pytest.raises(
        OxcartError, match=r"tfrecord-.*record.*(checksum|another record|framing|cut off)"
    ) as caught:
        execute(prepare(config))
    one_line(caught.value)
    assert spoiled
    bucket.faults.every = None
    assert execute(prepare(config)) == few.manifest
    assert tree_of(config.out) == few.tree
