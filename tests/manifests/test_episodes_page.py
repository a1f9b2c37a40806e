"""The examples of docs/episodes.md run as they are printed, with the dataset at another place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from oxcart.manifests.dataset import Dataset

PAGE = Path(__file__).parents[2] / "docs" / "episodes.md"


def test_the_examples_run(
    windowed: Mapping[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    longest = max(Dataset.open(str(windowed["zstd"])), key=len)
    places = {'"bridge"': repr(str(windowed["zstd"])), "bridge_dataset-train-00000-000007": longest.key}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, Any] = {}
    for block in blocks:
        for written, there in places.items():
            block = block.replace(written, there)
        exec(compile(block, str(PAGE), "exec"), names)
    assert capsys.readouterr().out.startswith("Dataset(arm 1.0.0: 8 episodes")
    assert names["episode"].key == longest.key
    assert sum(names["lengths"]) == sum(len(episode) for episode in names["dataset"])
    assert len(names["ten"]) == 0
    assert (tmp_path / "out.mp4").stat().st_size > 500
    assert {len(episode) for episode in names["chosen"]} == {5, 9, 20, 7}
