"""The threads of the loader end with the process, whatever they hold."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
