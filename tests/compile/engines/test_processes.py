"""Workers give every result, die with their parent and with the first error, and are replaced when killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import worker_tasks
from oxcart.compile.engines.processes import ATTEMPTS, default_workers, run
from oxcart.shards.errors import OxcartError, SourceError


class Progress:
    """What was reported."""

    def __init__(self) -> None:
        self.all: list[tuple[int, int]] = []

    def __call__(self, count: int, size: int) -> None:
        self.all.append((count, size))


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Fail unless the processes end; zombies have ended."""
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_gives_its_result_once(workers: int) -> None:
    items = list(range(1, 8))
    found = list(run(worker_tasks.double, 5, items, workers=workers, report=Progress()))
    assert sorted(found) == [(i, 2 * item + 5) for i, item in enumerate(items)]


@pytest.mark.parametrize("workers", [1, 3])
def test_progress_never_falls_and_ends_with_the_sums(workers: int) -> None:
    progress = Progress()
    items = list(range(1, 8))
    for _ in run(worker_tasks.double, 0, items, workers=workers, report=progress):
        pass
    assert progress.all == sorted(progress.all)
    assert progress.all[-1] == (sum(items), 10 * sum(items))


@pytest.mark.parametrize("workers", [1, 3])
def test_without_items_nothing_happens(workers: int) -> None:
    progress = Progress()
    assert list(run(worker_tasks.double, 0, [], workers=workers, report=progress)) == []
    assert progress.all == []


def test_one_item_runs_in_this_process() -> None:
    here = os.getpid()

    def pid(config: object, item: int, advance: object) -> int:
        return os.getpid()  # a local function: it could not be sent to another process

    assert list(run(pid, None, [0], workers=3, report=Progress())) == [(0, here)]
    assert [p for _, p in run(pid, None, [0, 1], workers=1, report=Progress())] == [here, here]


def test_an_error_of_a_task_arrives_whole_and_the_other_workers_stop(tmp_path: Path) -> None:
    """The others would run for ever: that this test ends shows that they do not."""
    with pytest.raises(SourceError) as caught:
        list(run(worker_tasks.fail_once_all_wait, str(tmp_path), [0, 1, 2], workers=3, report=Progress()))
    assert str(caught.value) == "a.tfrecord, record 0, byte 12: is cut off"
    assert caught.value.offset == 12
    pids = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_bug_in_a_task_is_not_disguised() -> None:
    with pytest.raises(TypeError, match="a bug"):
        list(run(worker_tasks.raise_type_error, None, [0, 1], workers=2, report=Progress()))


def test_a_caller_who_stops_early_leaves_no_worker() -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    results = run(worker_tasks.double, 0, list(range(20)), workers=2, report=Progress())
    next(results)
    workers = [
        p
        for p in psutil.Process().children(recursive=True)
        if p.pid not in before and not any("resource_tracker" in part for part in p.cmdline())
    ]
    results.close()  # type: ignore[attr-defined]
    assert workers
    wait_until_gone(workers)


def test_a_killed_worker_is_replaced_and_its_progress_is_not_counted_twice(tmp_path: Path) -> None:
    progress = Progress()
    items = [0, 1, 2, 3]
    found = sorted(run(worker_tasks.die_first, str(tmp_path), items, workers=2, report=progress))
    assert found == [(i, i) for i in items]
    assert (tmp_path / "died").exists()
    assert progress.all[-1] == (40, 400)


def test_a_worker_killed_while_it_reports_does_not_block_the_others(tmp_path: Path) -> None:
    found = sorted(
        run(worker_tasks.die_within_advance, str(tmp_path), [0, 1, 2], workers=2, report=Progress())
    )
    assert found == [(0, 0), (1, 1), (2, 2)]


def test_a_task_that_kills_its_worker_every_time_is_an_error_after_three_attempts(tmp_path: Path) -> None:
    with pytest.raises(OxcartError, match=r"died 3 times .*--workers") as caught:
        list(run(worker_tasks.die_always, str(tmp_path), [0, 1, 2], workers=2, report=Progress()))
    assert len(str(caught.value).splitlines()) == 1
    assert len(list(tmp_path.glob("died-*"))) == ATTEMPTS == 3


def test_workers_vanish_when_their_parent_is_killed(tmp_path: Path) -> None:
    code = f"import worker_tasks; worker_tasks.start_waiting({str(tmp_path)!r})"
    path = os.pathsep.join([str(Path(worker_tasks.__file__).parent), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    try:
        worker_tasks.await_files(tmp_path, "pid-*", 2)
        workers = [psutil.Process(int(p.name.removeprefix("pid-"))) for p in tmp_path.glob("pid-*")]
        assert parent.poll() is None
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_until_gone(workers)


def test_an_interrupt_of_the_parent_ends_the_workers(tmp_path: Path) -> None:
    """SIGINT reaches the parent alone; the workers, which ignore it, go with it."""
    code = (
        "import signal, worker_tasks\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"worker_tasks.start_waiting({str(tmp_path)!r})"
    )
    path = os.pathsep.join([str(Path(worker_tasks.__file__).parent), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE
    )
    with parent:
        worker_tasks.await_files(tmp_path, "pid-*", 2)
        workers = [psutil.Process(int(p.name.removeprefix("pid-"))) for p in tmp_path.glob("pid-*")]
        parent.send_signal(signal.SIGINT)
        _, errors = parent.communicate()
    assert b"KeyboardInterrupt" in errors
    wait_until_gone(workers)


def test_the_default_is_at_least_one_worker() -> None:
    assert 1 <= default_workers() <= (os.cpu_count() or 1)
