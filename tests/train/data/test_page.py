"""The examples of three pages of docs/ run as they are printed, on other datasets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from oxcart.train.data import Normalizer
from sample_compile import cli

DOCS = Path(__file__).parents[3] / "docs"


def run(page: str, places: Mapping[str, str], names: dict[str, Any], count: int) -> None:
    """Run the blocks of a page, each after the other."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert len(blocks) == count
    for block in blocks:
        for written, there in places.items():
            block = block.replace(written, there)
        exec(compile(block, page, "exec"), names)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset closes nothing
def test_the_examples_run(
    datasets: Mapping[str, Path],
    windowed: Mapping[str, Path],
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
        '"aloha"': repr(str(windowed["raw"])),
        '"s3://bucket/droid"': repr(str(datasets["small"])),
        "bridge/shards/train-{00000..00007}": f"{raw}/shards/train-{{00000..{last}}}",
    }
    names: dict[str, Any] = {}
    run("loading.md", places, names, count=8)
    assert "episodes" in capsys.readouterr().out
    assert names["drawn"].frames.shape == (16, 2, 32, 32, 3)
    assert names["mixed"].draw(2).frames.shape == (2, 2, 224, 224, 3)
    robots = names["robots"].draw(8)
    assert {*robots.dataset} == {"arm", "oxcart_kitchens"}
    assert robots.frames_is_pad["wrist"].tolist() == [name == "oxcart_kitchens" for name in robots.dataset]
    assert names["scaled"].shape == robots.action.shape == (8, 16, 14)
    assert names["again"].position == names["loader"].position
    (pairs, keys), *_ = names["dataset"]
    assert {row["json"]["dataset"] for row in names["rows"]} == {"oxcart_kitchens"}
    assert pairs.shape[1:] == (2, 32, 32, 3)
    assert len(keys) == len(pairs)


def test_the_shapes_of_a_window_are_those_that_are_printed(windowed: Mapping[str, Path]) -> None:
    block = re.findall(r"```python\n(window = .*?)```", (DOCS / "loading.md").read_text(), re.DOTALL)[0]
    names: dict[str, Any] = {}
    exec("from oxcart import Loader, Window", names)
    exec(block.replace('"aloha"', repr(str(windowed["raw"]))), names)
    batch = names["batch"]
    assert batch.frames["primary"].shape == (8, 2, 224, 224, 3)
    assert batch.frames["wrist"].shape == (8, 96, 128, 3)
    assert batch.frames_is_pad["primary"].shape == (8, 2)
    assert (batch.state.shape, batch.state_is_pad.shape) == ((8, 3), (8,))
    assert (batch.action.shape, batch.action_is_pad.shape) == ((8, 16, 4), (8, 16))


def test_the_choices_leave_what_they_say(
    datasets: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bridge").symlink_to(datasets["raw"])
    for what in ("motion", "action"):
        assert cli("annotate", what, tmp_path / "bridge", "--quiet").exit_code == 0
    names: dict[str, Any] = {}
    run("selection.md", {'"bridge"': repr(str(tmp_path / "bridge"))}, names, count=2)
    said = capsys.readouterr().out
    assert "limit=100 leaves " in said
    assert "samples are taken in turn from " in said
    assert " as camera image_0 sees it or those whose action moves by 0.01" in said


def test_the_recipes_run_and_resume(
    datasets: Mapping[str, Path],
    windowed: Mapping[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {'"bridge"': repr(str(datasets["raw"])), '"aloha"': repr(str(windowed["raw"]))}
    names: dict[str, Any] = {}
    run("trainers.md", places, names, count=4)
    assert names["inputs"]["observation.images.wrist"].shape == (8, 3, 240, 320)
    assert names["inputs"]["action"].shape == (8, 100, 4)
    assert names["action"].shape == (16, 3)
    assert {*names["prompts"]} != {""}
    assert 1 <= names["bins"].min() <= names["bins"].max() <= 256
    saved = torch.load("runs/plain.pt")
    assert Normalizer.from_json(saved["normalizer"]) == names["normalizer"]
    assert names["loader"].position == 160
    weights = [one.clone() for one in names["model"].parameters()]
    places["10 * 16"] = "11 * 16"  # one step more
    run("trainers.md", places, names, count=4)
    assert names["loader"].position == 176
    assert saved["loader"]["position"] == 160
    assert not all(map(torch.equal, weights, names["model"].parameters()))
