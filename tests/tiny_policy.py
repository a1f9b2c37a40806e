"""A policy small enough for a test, and ways to train it."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

from oxcart.train.loop import Result
from oxcart.train.policy.config import policy_config
from oxcart.train.policy.task import train_policy

SMALL = (
    "preset=small",
    "data.batch_size=8",
    "data.lanes=4",
    "data.block=8",
    "data.threads=1",
    "policy.horizon=4",
    "policy.execute=2",
    "policy.denoise=3",
    "small.channels=4",
    "small.keypoints=2",
    "small.words=8",
    "small.width=16",
    "small.layers=1",
    "augment.shift=0",
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
    "run.quiet=true",
)


def small(dataset: Path, run: Path, *overrides: str) -> list[str]:
    """Overrides of a small run."""
    asked = (*SMALL, f"data.datasets=[{dataset}]", f"run.dir={run}", *overrides)
    return list({text.partition("=")[0]: text for text in asked}.values())


def trained(overrides: list[str], *, resume: bool = False, allow_changes: bool = False) -> Result:
    """Train it."""
    config = policy_config(overrides, resume=resume)
    with mock.patch("oxcart.train.plots.curves"):  # takes longer than all the rest
        return train_policy(config, resume=resume, allow_changes=allow_changes)
