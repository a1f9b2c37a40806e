"""Compare runs: differences of their configurations, and their last validations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oxcart.shards.errors import ConfigError
from oxcart.train import plots
from oxcart.train.config import CONFIG, leaves, saved_config
from oxcart.train.report import last_validation, read_metrics

METRICS = (
    "held_out (%)",
    "accuracy",
    "exact",
    "nll",
    "unigram_accuracy",
    "instruction_accuracy",
    "nearest_accuracy",
    "copy_ratio",
    "constant_ratio",
    "usage",
    "probe_r2",
)
"""Metrics of validation that are shown, in this order, where a run has them."""
QUANTITIES = {
    "accuracy": "share of codes that are right",
    "exact": "share of actions that are right",
    "nll": "nats per code",
    "copy_ratio": "error / error of the copy-frame baseline",
    "constant_ratio": "error / error of the copy-frame baseline",
}
"""Metrics of validation that are drawn -> what the axis says."""
APART = ("run.", "train.steps", "preset")
"""Keys of the configuration whose differences are not shown."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A table of runs, and the curves behind it."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    split: str
    names: list[str]
    lines: list[list[dict[str, Any]]]
    """Lines of metrics.jsonl of each run."""


def compare_runs(paths: Sequence[Path]) -> Compared:
    """Compare runs by their directories.

    Raises:
        ConfigError: a directory is not a run, or its run was never validated.
    """
    configs, lasts = [], []
    for path in paths:
        config, last = saved_config(path), last_validation(path)
        if config is None:
            raise ConfigError(f"RUN: {path} has no {CONFIG}, so it is not a run")
        if last is None:
            raise ConfigError(f"RUN: {path} was never validated; train it with val.every=N")
        configs.append(leaves(config))
        lasts.append(last)
    first = configs[0]
    split = str(first["val.splits"][0])
    keys = dict.fromkeys(
        key
        for config in configs[1:]
        for key in {**first, **config}
        if first.get(key) != config.get(key) and not key.startswith(APART)
    )
    metrics = [name for name in METRICS if any(f"{split}/{name}" in last for last in lasts)]
    names = [path.name for path in paths]
    names = names if len(set(names)) == len(names) else [str(path) for path in paths]
    rows = []
    for name, config, last in zip(names, configs, lasts, strict=True):
        own = [_setting(config.get(key)) for key in keys]
        values = [_number(last.get(f"{split}/{metric}")) for metric in metrics]
        rows.append((name, *own, f"{last['step']:,}", *values))
    columns = ("run", *keys, "step", *(f"{split}/{metric}" for metric in metrics))
    return Compared(
        columns=columns, rows=rows, split=split, names=names, lines=[read_metrics(path) for path in paths]
    )


def draw(path: Path, found: Compared) -> None:
    """Draw metrics of all runs over steps."""
    merged = [
        {"kind": line["kind"], "step": line["step"], **{f"{name}: {key}": v for key, v in line.items()}}
        for name, lines in zip(found.names, found.lines, strict=True)
        for line in lines
    ]
    panels = [
        plots.Curves(
            title="training: loss",
            quantity="loss of each run",
            kind="train",
            lines=[(f"{name}: loss", name) for name in found.names],
        )
    ]
    panels += [
        plots.Curves(
            title=f"{found.split}: {metric}",
            quantity=quantity,
            kind="val",
            lines=[(f"{name}: {found.split}/{metric}", name) for name in found.names],
            ends=(0, None),
        )
        for metric, quantity in QUANTITIES.items()
    ]
    plots.curves(path, merged, panels)


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else ""
