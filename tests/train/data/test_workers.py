"""The threads of the loader: how many a rank gets, and that they end with the process, whatever they hold."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from oxcart.train.data.workers import own_cores, too_few_cores

PROGRAM = """
import threading, time
from functools import partial
from oxcart.train.data.workers import Workers

class Held:
    def __del__(self):
        time.sleep(0.05)  # lets go of the interpreter, as freeing a tensor does
        print("freed", flush=True)

def call(begun, gate, held):
    begun.set()
    gate.wait()

begun, gate = threading.Event(), threading.Event()
workers = Workers(1)
workers.start([partial(call, begun, gate, Held())])
begun.wait()
gate.set()
"""


@pytest.mark.system
def test_a_thread_frees_what_a_call_holds_before_the_process_ends() -> None:
    """A tensor that is freed while the interpreter is torn down aborts the process."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert run.stdout == "freed\n"


@pytest.mark.parametrize(
    ("seen", "ranks", "own", "few"),
    [
        (96, 1, 96, False),
        (96, 8, 12, False),
        (12, 8, 12, False),
        (4, 8, 4, False),
        (48, 8, 6, False),
        (14, 16, 1, True),
        (96, 1000, 1, True),
    ],
    ids=["alone", "shared", "bound", "bound to few", "half of them", "too few", "too many ranks"],
)
def test_ranks_divide_the_cores_of_a_machine_unless_each_is_bound_to_its_own(
    monkeypatch: pytest.MonkeyPatch, seen: int, ranks: int, own: int, few: bool
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 96)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(seen)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert own_cores() == own
    assert (too_few_cores() is not None) == few
