"""Tiny models of the real classes, and codes of the trainers' dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
"""Four tokens of a picture."""


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # for processes that are started
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tied, with spare rows, padding on the right."""
    folder = tmp_path_factory.mktemp("vlm") / "qwen"
    write_vlm(folder, VlmConfig(spare=16, tied=True, **SMALL))
    return folder


@pytest.fixture(scope="session")
def smol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untied, without spare rows, padding on the left."""
    folder = tmp_path_factory.mktemp("vlm") / "smol"
    write_vlm(folder, VlmConfig(family="smolvlm", spare=0, tied=False, padding="left", **SMALL))
    return folder


@pytest.fixture(scope="session")
def qwen25(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untied, with spare rows, padding on the right."""
    folder = tmp_path_factory.mktemp("vlm") / "qwen25"
    write_vlm(folder, VlmConfig(family="qwen2.5-vl", spare=4, tied=False, **SMALL))
    return folder


@pytest.fixture(scope="session")
def codes(kitchen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the kitchens."""
    return write_codes(kitchen, tmp_path_factory.mktemp("codes") / "codes.parquet")
