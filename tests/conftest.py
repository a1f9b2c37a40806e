"""Compiled samples that several modules read; each is made once a session (once a process of xdist)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from oxcart.compile.sample.rlds import SampleConfig
from oxcart.manifests.split import SplitRule
from sample_compile import CAMERAS, Compiled, compile_sample


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Four episodes in each of five kitchens, one of which is val; one camera."""
    sample = SampleConfig(kitchens=5, sessions=2, episodes=2, steps=4, size=32, files=2)
    return compile_sample(tmp_path_factory.mktemp("whole"), sample)


@pytest.fixture(scope="session")
def six_episodes(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Two episodes in each of three kitchens, one of which is val; two cameras, three shards."""
    sample = SampleConfig(kitchens=3, sessions=1, episodes=2, steps=4, size=32, files=2)
    folder = tmp_path_factory.mktemp("six")
    return compile_sample(folder, sample, cameras=CAMERAS, rule=SplitRule(val=0.34))


@pytest.fixture(scope="module")
def intact(six_episodes: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of six episodes, a module's own: whoever breaks it mends it again."""
    return Path(shutil.copytree(six_episodes.out, tmp_path_factory.mktemp("intact") / "dataset"))


@pytest.fixture
def root(six_episodes: Compiled, tmp_path: Path) -> Path:
    """The dataset of six episodes, a test's own: to break."""
    return Path(shutil.copytree(six_episodes.out, tmp_path / "copy"))
