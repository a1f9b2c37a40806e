"""A vision-language-action model small enough for a test, and ways to train it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from oxcart.manifests.annotation import Annotation, write_annotation
from oxcart.manifests.dataset import Dataset
from oxcart.train.loop import Result
from oxcart.train.vla.config import vla_config
from oxcart.train.vla.emit import Policy, score
from oxcart.train.vla.model import Shape, build
from oxcart.train.vla.processor import load_processor
from oxcart.train.vla.prompt import Prompter, read_prompt
from oxcart.train.vla.task import train_vla

TOKENS, CODES, K = 3, 4, 2
SMALL = (
    "preset=tiny",
    "data.batch_size=8",
    "data.lanes=4",
    "data.block=8",
    "data.threads=1",
    "data.image_size=null",
    "augment.light=0",
    "train.steps=4",
    "train.threads=1",
    "train.warmup=2",
    "train.log_every=1",
    "train.save_every=100",
    "train.device=cpu",
    "val.every=0",
    "val.samples=16",
    "val.batch_size=8",
    "val.baselines=16",
    "val.images=2",
    "run.quiet=true",
)


def write_codes(kitchen: Path, path: Path, **changed: Any) -> Path:
    """An annotation of codes that a hash of the step makes; `changed` are parameters, or other fields."""
    opened = Dataset.open(str(kitchen))
    values = {}
    for row in opened.table("episodes.parquet").to_pylist():
        steps = np.arange(row["steps"])[:, None]
        codes = ((steps // 3 + np.arange(TOKENS) + len(row["instruction"] or "")) % CODES).astype(np.int32)
        codes[-K:] = -1
        values[row["key"]] = codes
    about = {"offset": K, "tokens": TOKENS, "codes": CODES, "none": -1}
    about |= {name: value for name, value in changed.items() if name in about}
    if "values" in changed:
        changed["values"](values)
    annotation = Annotation(
        name=changed.get("name", "codes"),
        producer=changed.get("producer", "a" * 64),
        dataset=changed.get("dataset", opened.manifest.fingerprint),
        parameters=about,
        values=values,
    )
    write_annotation(str(path), annotation)
    return path


def small(model: Path, dataset: Path, codes: Path, run: Path, *overrides: str) -> list[str]:
    """Overrides of a small run."""
    asked = (
        *SMALL,
        f"model={model}",
        f"data.datasets=[{dataset}]",
        f"data.codes=[{codes}]",
        f"run.dir={run}",
        *overrides,
    )
    return list({text.partition("=")[0]: text for text in asked}.values())


def trained(overrides: list[str], *, resume: bool = False, allow_changes: bool = False) -> Result:
    """Train it."""
    config = vla_config(overrides, resume=resume)
    with mock.patch("oxcart.train.plots.curves"):  # takes longer than all the rest
        return train_vla(config, resume=resume, allow_changes=allow_changes)


def scored(
    made: Policy, frames: torch.Tensor, texts: list[str], codes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a policy makes of known codes: `score`."""
    return score(made, made.prompter.encode(frames, texts, room=True), codes, made.model)


def policy(model: Path, *overrides: str, shape: Mapping[str, Any] | None = None) -> Policy:
    """A model at the beginning of training."""
    config = vla_config(["preset=tiny", f"model={model}", *overrides])
    processor = load_processor(config.model)
    made = Shape(
        **{
            "head": config.vla.head,
            "decoding": config.vla.decoding,
            "tokens": TOKENS,
            "codes": CODES,
            **(shape or {}),
        }
    )
    built = build(config, processor, made)
    prompter = Prompter(
        processor, read_prompt("robot"), built.ids, config.vla.decoding, made.tokens, config.model
    )
    return Policy(model=built, prompter=prompter, shape=made, device=torch.device("cpu"))
