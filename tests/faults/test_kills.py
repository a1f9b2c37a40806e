"""SIGKILL of the driver and of workers at random moments leaves the tree of a compile that nobody disturbed.

`tests/compile/test_crash.py` kills at every kind of change of the output; here the clock decides, so the kill
comes amid a decode, a census or the start of a worker as well. The moments are drawn with a seed, but what
runs at them is the machine's affair: whatever it was, the assertions hold.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from oxcart.compile.sample.rlds import RldsSampleConfig
from sample_compile import SHARD_SIZE, Compiled, compile_sample, tree

KILLS = 50
WHOM = ("group", "driver", "worker")
LONGEST_S = 120


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """One whose shards take a moment."""
    sample = RldsSampleConfig(kitchens=6, sessions=2, episodes=2, steps=40, size=128, files=3)
    return compile_sample(tmp_path_factory.mktemp("larger"), sample, shard_size=SHARD_SIZE * 64)


@contextlib.contextmanager
def running(source: Path, out: Path) -> Iterator[psutil.Popen]:
    """A compile by two workers, in a process group of its own of which nothing stays."""
    command = [sys.executable, "-m", "oxcart.cli.main", "compile", str(source), str(out), "--quiet"]
    command += ["--val-fraction", "0.2", "--shard-size", str(SHARD_SIZE * 64), "--workers", "2"]
    process = psutil.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def workers_of(driver: psutil.Popen) -> list[psutil.Process]:
    """Its worker processes, which are not the helpers that Python starts beside them."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in driver.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "--multiprocessing-fork" in child.cmdline():
                    found.append(child)
    return found


def wait_for(path: Path, driver: psutil.Popen) -> None:
    """Return when a file is there or the driver has ended."""
    deadline = time.monotonic() + LONGEST_S
    while driver.poll() is None and not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.002)


def wait_until_gone(workers: list[psutil.Process]) -> None:
    """Workers die with their driver; zombies are dead."""
    deadline = time.monotonic() + LONGEST_S
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            while worker.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline, "a worker outlives its driver"
                time.sleep(0.002)


def killed(source: Path, out: Path, choose: random.Random) -> str:
    """Run a compile and kill one of it at a random moment; what happened."""
    whom = choose.choice(WHOM)
    after_claim, delay_s, which = choose.random() < 0.8, choose.uniform(0, 2.5), choose.random()
    with running(source, out) as driver:
        if after_claim:
            wait_for(out / ".oxcart/plan.json", driver)
        with contextlib.suppress(psutil.TimeoutExpired):
            driver.wait(delay_s)
        if whom == "worker":
            found = workers_of(driver)
            if found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    found[int(which * len(found))].kill()
            else:
                whom = "nobody"
            _, said = driver.communicate(timeout=LONGEST_S)
            assert (driver.returncode, said) == (0, ""), "a worker that dies is replaced"
        elif driver.poll() is None:
            if whom == "group":
                os.killpg(driver.pid, signal.SIGKILL)
            else:
                driver.kill()
            alive = workers_of(driver)
            driver.wait(LONGEST_S)
            wait_until_gone(alive)
        else:
            whom = "nobody"
            assert driver.returncode == 0
    return whom


def survive(larger: Compiled, folder: Path, seed: int, kills: int) -> list[str]:
    """Kill compiles into one output until so many were; begin anew where one has finished."""
    choose, happened, round_ = random.Random(seed), [], 0
    while len(happened) < kills:
        out = folder / f"out-{seed}-{round_}"
        whom = killed(larger.source, out, choose)
        if whom != "nobody":
            happened.append(whom)
        if out.exists():
            found = {name: one for name, one in tree(out).items() if not name.startswith(".oxcart/")}
            assert found.items() <= larger.tree.items(), "whatever has its name has its bytes"
        if (out / "manifest.json").exists():
            round_ += 1
    with running(larger.source, out) as driver:
        _, said = driver.communicate(timeout=LONGEST_S)
        assert (driver.returncode, said) == (0, "")
    assert tree(out) == larger.tree
    return happened


@pytest.mark.system
@pytest.mark.parametrize("seed", range(5))
def test_random_kills(larger: Compiled, tmp_path: Path, seed: int) -> None:
    assert len(survive(larger, tmp_path, seed, KILLS // 5)) == KILLS // 5
