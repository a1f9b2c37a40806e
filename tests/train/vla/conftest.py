"""Tiny models of the real classes, and codes of the trainers' dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from once import Once
from oxcart.train.vla.tiny import VlmConfig, write_vlm
from tiny_vla import write_codes

SMALL: dict[str, Any] = {
    "width": 32,
    "layers": 1,
    "vision_layers": 1,
    "image_size": 32,
    "patch": 8,
    "merge": 2,
}
"""Four tokens of a image."""


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # for processes that are started
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def written(once: Once, name: str, config: VlmConfig) -> Path:
    def write(folder: Path) -> Path:
        write_vlm(folder / name, config)
        return folder / name

    return Path(once(name, write))


@pytest.fixture(scope="session")
def qwen(once: Once) -> Path:
    """Tied, with spare rows, padding on the right."""
    return written(once, "qwen", VlmConfig(spare=16, tied=True, **SMALL))


@pytest.fixture(scope="session")
def smol(once: Once) -> Path:
    """Untied, without spare rows, padding on the left."""
    return written(once, "smol", VlmConfig(family="smolvlm", spare=0, tied=False, padding="left", **SMALL))


@pytest.fixture(scope="session")
def qwen25(once: Once) -> Path:
    """Untied, with spare rows, padding on the right."""
    return written(once, "qwen25", VlmConfig(family="qwen2.5-vl", spare=4, tied=False, **SMALL))


@pytest.fixture(scope="session")
def codes(kitchen: Path, once: Once) -> Path:
    """Of the kitchens."""
    return Path(once("codes", lambda folder: write_codes(kitchen, folder / "codes.parquet")))
