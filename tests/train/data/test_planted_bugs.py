"""Slips of one line in windows: for each, a test against what tarfile and NumPy find must fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from planted_bugs import Bug, Run, check_noticed, check_passing, check_up_to_date, forked

STREAM, ANCHORS = "train/data/stream.py", "train/data/anchors.py"
LOADER, SAMPLING = "train/data/loader.py", "train/data/sampling.py"
BY_HAND = "train/data/test_window.py::test_datasets_of_other_columns_and_cameras_are_mixed"
REPEATING, WHOLE, SECONDS = (f"{BY_HAND}[{case}]" for case in ("repeating", "whole", "in seconds"))

BUGS = [
    Bug(
        "frames beyond the end repeat the last but one",
        STREAM,
        "last = _along(self.index.steps[episodes] - 1,",
        "last = _along(self.index.steps[episodes] - 2,",
        REPEATING,
    ),
    Bug(
        "frames that are padding are said to be none",
        STREAM,
        "self._outside(wanted, view.steps, *ends) if",
        "~self._outside(wanted, view.steps, *ends) if",
        REPEATING,
    ),
    Bug(
        "every camera shows the first one",
        STREAM,
        "self.index.cameras[name], self._config",
        "[*self.index.cameras.values()][0], self._config",
        REPEATING,
    ),
    Bug(
        "the state is that of t, whatever was asked for",
        STREAM,
        '"state": self.relative.state}',
        '"state": None if self.relative.state is None else self.relative.state * 0}',
        REPEATING,
    ),
    Bug(
        "an anchor may lack its actions",
        ANCHORS,
        "if relative.action is not None:\n        assert",
        "if False:\n        assert",
        WHOLE,
    ),
    Bug(
        "an anchor may lack the frames before it",
        ANCHORS,
        "max(0, -low)",
        "max(0, low)",
        WHOLE,
    ),
    Bug(
        "what is left out at the end of an episode is not",
        ANCHORS,
        "room - window.leave, 0)",
        "room, 0)",
        SECONDS,
    ),
    Bug(
        "actions that should repeat are zero",
        STREAM,
        "if self._repeat:",
        "if not self._repeat:",
        REPEATING,
    ),
    Bug(
        "a last step that holds no action counts",
        STREAM,
        "self.index.acts[episodes, 0], self.index.acts[episodes, 1]",
        "self.index.acts[episodes, 0], self.index.steps[episodes]",
        REPEATING,
    ),
    Bug(
        "a short time is no step",
        SAMPLING,
        "np.maximum(found, 1)",
        "np.maximum(found, 0)",
        SECONDS,
    ),
    Bug(
        "an annotation of the last step sees one step further",
        LOADER,
        "ahead >= stream",
        "ahead > stream",
        REPEATING,
    ),
    Bug(
        "the offset is counted from t",
        STREAM,
        "self.offset = last - first",
        "self.offset = last",
        REPEATING,
    ),
    Bug(
        "a camera that a dataset lacks is not black",
        STREAM,
        "_of(batch.frames, name)[wanted.rows] = 0",
        "_of(batch.frames, name)[wanted.rows] = 1",
        REPEATING,
    ),
    Bug(
        "a camera that a dataset lacks is not padding",
        LOADER,
        "pads[name] = torch.ones(",
        "pads[name] = torch.zeros(",
        REPEATING,
    ),
]

every_bug = pytest.mark.parametrize("bug", BUGS, ids=[bug.what for bug in BUGS])


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with forked("torch") as run:
        yield run


@every_bug
def test_a_bug_is_up_to_date(bug: Bug) -> None:
    check_up_to_date(bug)


@pytest.mark.system
def test_without_a_bug_the_tests_pass(tmp_path: Path, run: Run) -> None:
    check_passing(BUGS, tmp_path, run)


@pytest.mark.system
@every_bug
def test_a_bug_is_noticed(bug: Bug, tmp_path: Path, run: Run) -> None:
    check_noticed(bug, tmp_path, run)
