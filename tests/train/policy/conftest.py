"""Codes of the trainers' dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from once import Once
from tiny_vla import write_codes


@pytest.fixture(scope="session")
def codes(kitchen: Path, once: Once) -> Path:
    """Of the kitchens."""
    return Path(once("codes", lambda folder: write_codes(kitchen, folder / "codes.parquet")))
