"""Kill commands while they change a directory, at a point that a test chooses.

The command runs in a process group of its own, and every Python process in it runs the `WATCH` below: it
counts changes of the directory, over all processes, and kills the whole group at event N, or in the middle
of a file once that has B bytes. So a kill is keyed to what was written, not to the clock.

    run(watch_folder(tmp_path / "watch"), ["compile", source, out], out, at=7)

The command is forked from a process that has imported what it needs, which saves the imports each time; its
own workers are new processes as usual. `fresh=True` starts a new process, as a shell does.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

LONGEST_S = 120
"""Seconds granted to a command, and to processes that outlive it."""
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
"""A `sitecustomize` with an audit hook, which runs before the operation that it reports."""
WARM = """
import json, os, runpy, sys
import oxcart.cli.compile, oxcart.cli.main, oxcart.compile.extend, oxcart.compile.pipeline

for line in sys.stdin:
    arguments, environment, folder, said = json.loads(line)
    child = os.fork()
    if not child:
        os.setsid()
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(os.open(said, os.O_WRONLY | os.O_APPEND), stream)
        os.environ.update(environment)
        runpy.run_path(os.path.join(folder, "sitecustomize.py"))
        sys.argv = ["oxcart", *arguments]
        oxcart.cli.main.main()
        sys.exit()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Forks a command for every line that it reads; prints the process and, once it has ended, its exit code."""


@dataclass(frozen=True)
class Run:
    """The outcome of a command that ran in a process group of its own."""

    code: int
    events: int
    """Number of changes of the output directory."""
    err: str


def watch_folder(folder: Path) -> Path:
    """Write the `sitecustomize` into a new folder."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WATCH)
    return folder


def living(group: int) -> list[int]:
    """Processes of a group that still run; zombies do not count."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except ProcessLookupError:
            continue
    return found


@functools.cache
def warm() -> subprocess.Popen[str]:
    """The process from which commands are forked; it ends with this one."""
    started = subprocess.Popen(
        [sys.executable, "-c", WARM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(started.communicate)
    return started


def run(
    watch: Path,
    arguments: Sequence[object],
    out: Path,
    *,
    at: int = 0,
    size: int = 0,
    whom: str = "group",
    fresh: bool = False,
) -> Run:
    """Run `oxcart` with these arguments, killed at event `at` of `out` or when a file passes `size` bytes.

    No process of the group survives. `whom` is `group`, `parent` or `worker`; `fresh` starts a new process.
    """
    counter = out.with_name(f"{out.name}.events")
    counter.unlink(missing_ok=True)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(watch), os.environ.get("PYTHONPATH", "")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CRASH_OUT": str(out),
        "CRASH_COUNTER": str(counter),
        "CRASH_AT": str(at),
        "CRASH_BYTES": str(size),
        "CRASH_WHOM": whom,
    }
    how = _start if fresh else _fork
    with tempfile.NamedTemporaryFile("r", dir=watch) as said:
        code = how([str(argument) for argument in arguments], environment, watch, said.name)
        return Run(code, counter.stat().st_size, said.read())


def _start(arguments: list[str], environment: dict[str, str], folder: Path, said: str) -> int:
    """Run a command as a shell does, and return its exit code."""
    with open(said, "a") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "oxcart.cli.main", *arguments],
            env={**os.environ, **environment},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    with _none_left(process.pid):
        return process.wait()


def _fork(arguments: list[str], environment: dict[str, str], folder: Path, said: str) -> int:
    """Run a command in a fork of the warm process, and return its exit code."""
    process = warm()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([arguments, environment, str(folder), said]) + "\n")
    process.stdin.flush()
    with _none_left(int(process.stdout.readline())):
        return int(process.stdout.readline())


@contextlib.contextmanager
def _none_left(group: int) -> Iterator[None]:
    """Check that no process of the group is left after the block; one that does not end is an error."""
    alarm = threading.Timer(LONGEST_S, os.killpg, (group, signal.SIGKILL))
    alarm.start()
    try:
        yield
        assert alarm.is_alive(), "the command never ended"
        deadline = time.monotonic() + LONGEST_S
        while living(group):
            assert time.monotonic() < deadline, f"alive after the kill: {living(group)}"
            time.sleep(0.01)
    finally:
        alarm.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
