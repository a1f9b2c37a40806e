"""A latent-action model small enough for a test, and ways to train it.

run, result = trained(tmp_path / "run", dataset, "train.steps=6")
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import Tensor

from oxcart.train import checkpoint as checkpoints
from oxcart.train.laq.config import LaqConfig, laq_config
from oxcart.train.laq.task import train_laq
from oxcart.train.loop import Result

SMALL = (
    "preset=tiny",
    "model.image_size=16",
    "model.patch=8",
    "model.width=16",
    "model.heads=2",
    "model.decoder_depth=1",
    "quantizer.tokens=2",
    "quantizer.codes=4",
    "quantizer.dim=3",
    "data.offset=2",
    "data.batch_size=8",
    "data.lanes=4",
    "data.block=8",
    "data.threads=1",
    "train.steps=6",
    "train.threads=1",
    "train.warmup=2",
    "train.log_every=1",
    "train.save_every=100",
    "train.device=cpu",
    "val.every=0",
    "val.samples=16",
    "val.batch_size=8",
    "val.probe_samples=16",
    "val.images=2",
    "run.quiet=true",
)


def small(dataset: Path | str, run: Path, *overrides: str, resume: bool = False) -> LaqConfig:
    """A configuration of it."""
    asked = (*SMALL, f"data.datasets=[{dataset}]", f"run.dir={run}", *overrides)
    given = {text.partition("=")[0]: text for text in asked}
    if resume:
        kept = [text for text in overrides if not text.startswith("preset=")]
        return laq_config([*kept, given["run.dir"]], resume=True)
    return laq_config(list(given.values()))


def trained(
    run: Path, dataset: Path | str, *overrides: str, resume: bool = False, allow_changes: bool = False
) -> Result:
    """Train it."""
    config = small(dataset, run, *overrides, resume=resume)
    with mock.patch("oxcart.train.plots.curves"):  # takes longer than all the rest
        return train_laq(config, resume=resume, allow_changes=allow_changes)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One thread inside; what accelerate and torch keep between runs in one process is forgotten after."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)


def saved(run: Path, name: str = "last") -> Path:
    """A checkpoint of a run."""
    path = checkpoints.find(run, name)
    assert path is not None
    return path


def step_of(run: Path, name: str = "last") -> int:
    """Of a checkpoint."""
    return checkpoints.read_header(saved(run, name)).step


def contents(run: Path, kind: str = "", name: str = "last") -> dict[str, Tensor]:
    """The tensors of a checkpoint whose names begin so."""
    path = saved(run, name)
    return checkpoints.read(path, checkpoints.read_header(path), kind)


def weights(run: Path, name: str = "last") -> dict[str, Tensor]:
    """Of a checkpoint."""
    return contents(run, "model/", name)


def rewritten(
    path: Path,
    other: Path,
    change: Callable[[dict[str, Any]], Any],
    spoil: Callable[[dict[str, Tensor]], Any] = lambda tensors: None,
) -> Path:
    """A copy of a checkpoint of one rank with another header and other tensors."""
    (file,) = path.glob("*.safetensors")
    about, tensors = json.loads((path / "about.json").read_text()), load_file(str(file))
    spoil(tensors)
    other.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(other / file.name))
    about["files"][file.name] = (other / file.name).stat().st_size
    change(about)
    (other / "about.json").write_text(json.dumps(about))
    return other


def lines(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    """Of metrics.jsonl."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


def assert_same_checkpoints(one: Path, other: Path) -> None:
    """Bit for bit: weights, optimizer, random states, and where the loader is."""
    a, b = (checkpoints.read_header(saved(run)) for run in (one, other))
    assert a.step == b.step
    mine, theirs = contents(one), contents(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name
    assert a.state["loader"] == b.state["loader"]
