"""Datasets for the trainers' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from once import Once
from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.manifests.split import SplitRule
from sample_compile import compile_sample
from tiny_laq import alone

SAMPLE = RldsSampleConfig(kitchens=5, sessions=2, episodes=2, steps=9, size=32, files=2)


@pytest.fixture(scope="session")
def kitchen(once: Once) -> Path:
    """Twenty episodes of five kitchens, one of which is val; sessions of the others are val_seen."""
    rule = SplitRule(val=0.2, val_seen=0.1)
    made = once("kitchen", lambda folder: compile_sample(folder, SAMPLE, cameras=("image_0",), rule=rule))
    return Path(made.out)


@pytest.fixture(scope="session")
def unsplit(once: Once) -> Path:
    """The like of it, all of it train."""
    sample = RldsSampleConfig(kitchens=2, sessions=1, episodes=2, steps=6, size=32, files=1)
    rule = SplitRule(val=None)
    made = once("unsplit", lambda folder: compile_sample(folder, sample, cameras=("image_0",), rule=rule))
    return Path(made.out)


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """What accelerate and torch keep between runs in one process is forgotten."""
    with alone():
        yield
