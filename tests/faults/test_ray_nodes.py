"""A node that goes away from a Ray cluster while a compile runs on it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import worker_tasks
from oxcart.compile.engines.ray import run
from oxcart.compile.pipeline import execute, ignore, prepare
from sample_compile import Compiled, config_of, tree

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.system


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head node of one CPU, to which nodes can be added; workers find what the tests share."""
    from ray.cluster_utils import Cluster

    folders = (str(Path(worker_tasks.__file__).parent), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))
    ray.shutdown()
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


def test_what_a_lost_node_was_doing_is_done_again_elsewhere(cluster: Any, tmp_path: Path) -> None:
    """Both nodes have a task that waits; one node goes, and its task runs on the other."""
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    found: list[tuple[int, int]] = []

    def drive() -> None:
        options = {"workers": 2, "report": ignore, "address": cluster.address}
        found.extend(run(worker_tasks.wait_for_go, str(tmp_path), list(range(4)), **options))

    thread = threading.Thread(target=drive)
    thread.start()
    worker_tasks.await_files(tmp_path, "begun-*", 2)
    cluster.remove_node(node)
    (tmp_path / "go").touch()
    thread.join(120)
    assert not thread.is_alive()
    assert sorted(found) == [(i, i) for i in range(4)]
    assert len(list(tmp_path.glob("begun-*"))) > 4, "one of them began twice"


def test_a_compile_that_loses_a_node_leaves_the_same_tree(
    whole: Compiled, cluster: Any, tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    out = tmp_path / "out"
    config = config_of(whole.source, out, engine="ray", ray_address=cluster.address, workers=2, shard_size=1)
    alone = config_of(whole.source, tmp_path / "alone", shard_size=1)
    manifest = execute(prepare(alone))
    prepared, removed = prepare(config), []

    def remove(frames: int, size: int) -> None:
        if not removed and list((out / ".oxcart/rows").glob("*")):
            removed.append(True)
            cluster.remove_node(node)

    assert execute(prepared, remove) == manifest
    assert removed
    assert tree(out) == tree(tmp_path / "alone")
