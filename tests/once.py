"""Results that are made once per test run, by whichever process of xdist asks first.

    @pytest.fixture(scope="session")
    def whole(once: Once) -> Compiled:
        return once("whole", lambda folder: compile_sample(folder, sample))

Results are read-only: a test that changes one makes a copy first.
"""

from __future__ import annotations

import fcntl
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Once:
    """Calls a function once per name, in a folder of its own, and returns its result to every caller."""

    root: Path
    """Folder shared by all processes of the run, so that nothing outlives the run."""

    def __call__(self, name: str, make: Callable[[Path], Any]) -> Any:
        mine = self.root / name
        mine.mkdir(parents=True, exist_ok=True)
        folder, made = mine / "folder", mine / "made.pickle"
        with open(mine / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed to make it
                folder.mkdir()
                data = pickle.dumps(make(folder))
                made.write_bytes(data)
        return pickle.loads(made.read_bytes())  # noqa: S301  this run wrote it
