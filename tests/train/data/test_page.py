"""The examples of docs/loading.md run as they are printed, with the datasets at other places."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "loading.md"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset closes nothing
def test_the_examples_run(
    datasets: Mapping[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)  # else it counts what is loaded, over the net
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    raw = datasets["raw"]
    last = max(raw.glob("shards/train-*.tar")).stem.removeprefix("train-")
    places = {
        "bridge/shards/train-*": f"{raw}/shards/train-*",
        "droid/shards/train-*": f"{datasets['small']}/shards/train-*",
        '"bridge"': repr(str(raw)),
        '"s3://bucket/droid"': repr(str(datasets["small"])),
        "bridge/shards/train-{00000..00007}": f"{raw}/shards/train-{{00000..{last}}}",
    }
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 6
    names: dict[str, Any] = {}
    for block in blocks:
        for written, there in places.items():
            block = block.replace(written, there)
        exec(compile(block, str(PAGE), "exec"), names)
    assert "episodes" in capsys.readouterr().out
    assert names["drawn"].frames.shape == (16, 2, 32, 32, 3)
    assert names["mixed"].draw(2).frames.shape == (2, 2, 224, 224, 3)
    assert names["again"].position == names["loader"].position
    (pairs, keys), *_ = names["dataset"]
    assert {row["json"]["dataset"] for row in names["rows"]} == {"oxcart_kitchens"}
    assert pairs.shape[1:] == (2, 32, 32, 3)
    assert len(keys) == len(pairs)
