"""The source that the commands are tried on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from once import Once
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from sample_compile import cli


@pytest.fixture(scope="session")
def source(once: Once) -> Path:
    """Ten episodes in five kitchens."""
    sample = RldsSampleConfig(kitchens=5, sessions=1, episodes=2, steps=3, size=32, files=3)
    return Path(once("cli", lambda folder: write_rlds(folder, sample)))


@pytest.fixture
def compile_(source: Path, tmp_path: Path) -> Callable[..., Result]:
    """`oxcart compile` of the source into `tmp_path / "out"`."""

    def compiled(*options: object, quiet: bool = True) -> Result:
        return cli("compile", source, tmp_path / "out", "--workers", 1, *options, *(["--quiet"] * quiet))

    return compiled
