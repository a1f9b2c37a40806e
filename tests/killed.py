"""Commands that are killed while they change a directory, wherever a test says.

The command runs in a process group of its own, and every Python process in it loads the `sitecustomize`
below: it counts what changes the directory, over all processes, and kills the whole group at event N, or in
the middle of a file once that has B bytes. So a kill is keyed to what was written, not to the clock.

    run(watch_folder(tmp_path / "watch"), ["compile", source, out], out, at=7)
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

WATCH = """
import os, resource, signal, sys

out, at, size = os.environ["CRASH_OUT"], int(os.environ["CRASH_AT"]), int(os.environ["CRASH_BYTES"])
whom = os.environ["CRASH_WHOM"]
counter = os.open(os.environ["CRASH_COUNTER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
folder_of = {"os.remove": 1, "os.rmdir": 1, "shutil.rmtree": 1, "os.mkdir": 2, "os.rename": 2, "os.link": 2}


def kill(*_):
    if whom == "group":
        os.killpg(0, signal.SIGKILL)
    elif whom == "parent":
        os.kill(os.getpgid(0), signal.SIGKILL)
    elif "--multiprocessing-fork" in sys.orig_argv:
        os.kill(os.getpid(), signal.SIGKILL)


def watch(event, arguments):
    if event == "open":
        path, _, flags = arguments
        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) or isinstance(path, int):
            return
    elif event in folder_of:
        path, folder = arguments[0], arguments[folder_of[event]]
        if folder is not None and folder >= 0:
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
    else:
        return
    path = os.fsdecode(path)
    if path == out or path.startswith(out + "/"):
        os.write(counter, b".")
        if os.lseek(counter, 0, os.SEEK_CUR) == at:
            kill()


sys.addaudithook(watch)
if size:
    signal.signal(signal.SIGXFSZ, kill)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
"""
"""The audit hook runs before the operation that it is told of."""


@dataclass(frozen=True)
class Run:
    """How a command in a process group of its own ended."""

    code: int
    events: int
    """Changes of the output directory."""
    err: str


def watch_folder(folder: Path) -> Path:
    """Write the `sitecustomize` into a new folder."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WATCH)
    return folder


def living(group: int) -> list[int]:
    """Processes of a group that are neither gone nor about to be buried."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except ProcessLookupError:
            continue
    return found


def run(
    watch: Path,
    arguments: Sequence[object],
    out: Path,
    *,
    at: int = 0,
    size: int = 0,
    whom: str = "group",
) -> Run:
    """`oxcart` with these arguments, killed at event `at` of `out` or where a file passes `size` bytes.

    Nobody of it lives on. `whom` is `group`, `parent` or `worker`.
    """
    counter = out.with_name(f"{out.name}.events")
    counter.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "oxcart.cli.main", *map(str, arguments)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(watch), os.environ.get("PYTHONPATH", "")]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CRASH_OUT": str(out),
            "CRASH_COUNTER": str(counter),
            "CRASH_AT": str(at),
            "CRASH_BYTES": str(size),
            "CRASH_WHOM": whom,
        },
        cwd=watch,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        err, _ = process.communicate(timeout=120)  # ends when the last process that holds the pipe does
        deadline = time.monotonic() + 60
        while living(process.pid):
            assert time.monotonic() < deadline, f"alive after the kill: {living(process.pid)}"
            time.sleep(0.01)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return Run(process.returncode, counter.stat().st_size, err)
