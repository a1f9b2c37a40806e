"""Bugs of one line, planted in a copy of the package, where the tests that they name must fail.

    with forked("torch") as run:
        check_noticed(bug, tmp_path, run)

What tests need of other packages is imported once, and each bug has a process forked from there. So a bug
costs the time of its test and of importing the copy.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
ROOMS = ("shards", "manifests", "compile", "train", "cli")
FAILS = ("assert ", "AssertionError", "Failed: DID NOT RAISE")
"""How the message of a test begins that fails, rather than breaks."""


PACKAGES = (
    "cv2",
    "hypothesis",
    "moto.server",
    "pyarrow.parquet",
    "tensorflow_datasets.proto",
    "xxhash",
    "yaml",
)
"""What the fixtures of all tests import."""


class Bug(NamedTuple):
    """A slip of one line. To add one, add a line to the list; a test that is fast keeps the list cheap."""

    what: str
    """What goes wrong, in a phrase."""
    file: str
    """File of the code, from the root of the repository."""
    old: str
    """Piece of the code, which occurs once in its file."""
    new: str
    """What replaces it."""
    test: str
    """The test that must fail, from the folder of the tests; of several cases, every one."""


class Outcome(NamedTuple):
    """What tests did with a package."""

    failures: dict[str, str]
    """Each case -> why it failed; "" if it passed."""
    imported: set[str]
    """Files of the package that were imported, from its root."""


Run = Callable[[Path, Iterable[str]], Outcome]
"""Runs tests with the package in a folder."""


def with_bug(bug: Bug) -> str:
    """The text of the bug's file with the bug in it."""
    text = (ROOT / bug.file).read_text(encoding="utf-8")
    assert text.count(bug.old) == 1, f"out of date: {bug.file} does not have {bug.old!r} once"
    return text.replace(bug.old, bug.new)


def check_up_to_date(bug: Bug) -> None:
    """The bug is a change of code that can be compiled, and its test is there."""
    assert bug.old != bug.new
    compile(with_bug(bug), bug.file, "exec")
    file, *names = bug.test.partition("[")[0].split("::")
    assert f"def {names[-1]}(" in (TESTS / file).read_text(encoding="utf-8")


def check_noticed(bug: Bug, folder: Path, run: Run) -> None:
    """The test of the bug fails with the bug in the code."""
    file = package(folder, {bug.file.split("/")[0]}) / bug.file
    file.write_text(with_bug(bug), encoding="utf-8")
    # What was compiled of the file without the bug may have its size and its time.
    Path(importlib.util.cache_from_source(file)).unlink(missing_ok=True)
    found = run(folder, [bug.test])
    assert bug.file in found.imported, f"the test does not import {bug.file}"
    for case, why in found.failures.items():
        assert why.startswith(FAILS), f"{case}: {why or 'passes'}"


def check_passing(bugs: Iterable[Bug], folder: Path, run: Run) -> None:
    """The tests of all bugs pass with a copy of the package without a bug."""
    package(folder, ROOMS)
    assert set(run(folder, sorted({bug.test for bug in bugs})).failures.values()) == {""}


def package(folder: Path, copied: Collection[str]) -> Path:
    """A package `oxcart` in a folder, of which some rooms are copies and the others links."""
    made = folder / "oxcart"
    made.mkdir()
    for room in ROOMS:
        if room in copied:
            shutil.copytree(ROOT / room, made / room)
        else:
            (made / room).symlink_to(ROOT / room)
    return made


@contextlib.contextmanager
def forked(*packages: str) -> Iterator[Run]:
    """Run tests in processes that have imported PACKAGES and more, and nothing of ours."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    settings |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, __file__, *PACKAGES, *packages]
    with subprocess.Popen(
        command, cwd=ROOT, env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        asks, answers = parent.stdin, parent.stdout

        def run(folder: Path, tests: Iterable[str]) -> Outcome:
            asks.write(json.dumps([str(folder), [str(TESTS / test) for test in tests]]) + "\n")
            asks.flush()
            code = int(answers.readline())
            said = (folder / "said").read_text(encoding="utf-8")
            assert code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), said
            return _outcome(folder, said)

        yield run
        asks.close()


def _outcome(folder: Path, said: str) -> Outcome:
    failures = {}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        assert case.find("error") is None, said
        assert case.find("skipped") is None, said
        failure = case.find("failure")
        why = "" if failure is None else failure.get("message", "")
        failures[f"{case.get('classname')}.{case.get('name')}"] = why
    assert failures, said
    home = f"{folder / 'oxcart'}{os.sep}"
    files = json.loads((folder / "imported.json").read_text(encoding="utf-8"))
    assert all(file.startswith(home) for file in files), f"not the copy is imported: {files}"
    return Outcome(failures, {file.removeprefix(home) for file in files})


def _serve(packages: Sequence[str]) -> None:
    """Answer each line of stdin, a folder and tests, with the exit code of pytest in a process of its own."""
    for name in packages:
        importlib.import_module(name)
    assert "oxcart" not in sys.modules
    gc.freeze()  # pytest collects garbage twice in each process, which need not look at all this
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _test(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _test(folder: str, tests: list[str]) -> None:
    """Run tests with the package in a folder, note which of its files were imported, and end."""
    code = 70
    try:
        said = os.open(f"{folder}/said", os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.environ["PYTHONPATH"] = folder  # of what the tests start
        sys.path.insert(0, folder)
        options = ["-p", "no:cacheprovider", f"--basetemp={folder}/run", f"--junitxml={folder}/report.xml"]
        code = int(pytest.main([*options, *tests]))
        ours = [module for name, module in sys.modules.items() if name.startswith("oxcart.")]
        files = [file for module in ours if (file := getattr(module, "__file__", None))]
        Path(folder, "imported.json").write_text(json.dumps(files), encoding="utf-8")
        sys.stdout.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1:])
