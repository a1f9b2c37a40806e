"""Ray gives what processes give: every result once, errors as they were, and the same bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import worker_tasks
from grown_source import Growth
from oxcart.compile import extend
from oxcart.compile.engines.processes import ATTEMPTS
from oxcart.compile.engines.ray import run
from oxcart.compile.pipeline import execute, prepare
from oxcart.shards.errors import ConfigError, OxcartError, SourceError
from sample_compile import Compiled, config_of, tree

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    """One cluster on this machine, for all of these tests, whose workers find what the tests share."""
    folders = (str(Path(worker_tasks.__file__).parent), os.environ.get("PYTHONPATH", ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))
        list(run(worker_tasks.double, 0, [1], workers=2, report=lambda count, size: None))
    yield
    ray.shutdown()


class Progress:
    """What was reported."""

    def __init__(self) -> None:
        self.all: list[tuple[int, int]] = []

    def __call__(self, count: int, size: int) -> None:
        self.all.append((count, size))


def test_every_item_gives_its_result_once_and_is_counted_once() -> None:
    progress, items = Progress(), list(range(1, 8))
    found = list(run(worker_tasks.double, 5, items, workers=2, report=progress))
    assert sorted(found) == [(i, 2 * item + 5) for i, item in enumerate(items)]
    assert progress.all[-1] == (sum(items), 10 * sum(items))


def test_an_error_of_a_task_arrives_whole_and_a_bug_is_not_disguised(tmp_path: Path) -> None:
    (tmp_path / "pid-1").touch()
    (tmp_path / "pid-2").touch()
    with pytest.raises(SourceError) as caught:
        list(run(worker_tasks.fail_once_all_wait, str(tmp_path), [0], workers=2, report=Progress()))
    assert str(caught.value) == "a.tfrecord, record 0, byte 12: is cut off"
    assert caught.value.offset == 12
    with pytest.raises(TypeError, match="a bug"):
        list(run(worker_tasks.raise_type_error, None, [0, 1], workers=2, report=Progress()))


def test_a_killed_worker_is_replaced_and_its_progress_is_not_counted_twice(tmp_path: Path) -> None:
    progress, items = Progress(), [0, 1, 2, 3]
    found = sorted(run(worker_tasks.die_first, str(tmp_path), items, workers=2, report=progress))
    assert found == [(i, i) for i in items]
    assert (tmp_path / "died").exists()
    assert progress.all[-1] == (40, 400)


def test_a_task_that_kills_its_worker_every_time_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OxcartError, match=r"was lost 3 times .*--workers") as caught:
        list(run(worker_tasks.die_always, str(tmp_path), [1], workers=2, report=Progress()))
    assert len(str(caught.value).splitlines()) == 1
    assert len(list(tmp_path.glob("died-*"))) == ATTEMPTS


def test_a_compile_on_ray_gives_the_same_tree(each: Compiled, tmp_path: Path) -> None:
    config = each.config(tmp_path / "out", engine="ray", workers=2)
    assert execute(prepare(config)) == each.manifest
    assert tree(tmp_path / "out") == each.tree


def test_an_extension_on_ray_gives_the_same_tree(growth: Growth, tmp_path: Path) -> None:
    first = growth.write(tmp_path / "first", growth.first)
    grown = growth.write(tmp_path / "grown", growth.first + growth.later)
    for engine in ("processes", "ray"):
        config = config_of(first, tmp_path / engine)
        execute(prepare(config))
        config = replace(config_of(grown, tmp_path / engine), engine=engine, workers=2)
        execute(extend.prepare(extend.adopt(config, {})))
    assert tree(tmp_path / "ray") == tree(tmp_path / "processes")


def test_an_address_without_a_cluster_is_said() -> None:
    ray.shutdown()
    with pytest.raises(ConfigError, match=r"--ray-address: no Ray cluster answers at 127\.0\.0\.1:1"):
        list(run(worker_tasks.double, 0, [1], workers=1, report=Progress(), address="127.0.0.1:1"))
