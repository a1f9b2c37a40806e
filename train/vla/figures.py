"""Figures of a vision-language-action model: its metrics, its codes, and what they do to a frame."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from oxcart.train import plots
from oxcart.train.laq.label import Labeller, imagine
from oxcart.train.vla.predict import Prediction


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Validation samples drawn in samples.png."""

    frames: Tensor
    """uint8 [N, H, W, 3]."""
    true: Tensor
    """int64 [N, n]: true codes."""
    predicted: Tensor
    """int64 [N, n]: emitted codes."""
    instructions: list[str]
    """Instruction of each sample."""


def draw_curves(path: Path, metrics: list[dict[str, Any]], splits: list[str]) -> None:
    """Draw loss.png: the loss, and the share of codes that are right beside the baselines."""
    first = splits[0] if splits else "val"
    rates = [(f"{first}/accuracy", f"{first}, model")]
    rates += [
        (f"{first}/unigram_accuracy", "most frequent"),
        (f"{first}/instruction_accuracy", "by instruction"),
        (f"{first}/nearest_accuracy", "by nearest frame"),
    ]
    rates += [(f"{split}/accuracy", f"{split}, model") for split in splits[1:]]
    exact = [(name.replace("accuracy", "exact"), label) for name, label in rates]
    panels = [
        plots.Curves(
            title="training loss",
            quantity="nats per code",
            kind="train",
            lines=[("loss", "among all that the head can say"), ("nll", "among codes")],
        ),
        plots.Curves(
            title="held-out loss",
            quantity="nats per code",
            kind="val",
            lines=[(f"{split}/nll", split) for split in splits],
            ends=(0, None),
        ),
        plots.Curves(
            title="codes that are right", quantity="share of codes", kind="val", lines=rates, ends=(0, None)
        ),
        plots.Curves(
            title="actions that are right",
            quantity="share of actions",
            kind="val",
            lines=exact,
            ends=(0, None),
        ),
    ]
    plots.curves(path, metrics, panels)


def draw_codes(path: Path, last: Mapping[str, Any]) -> None:
    """Draw codes.png: true codes against emitted codes, for each split and dataset."""
    rows = [
        (name, last[f"{name}/confusion"], last[f"{name}/predicted"], last[f"{name}/true"])
        for name in (key.removesuffix("/confusion") for key in last if key.endswith("/confusion"))
    ]
    plots.codes(path, rows)


def draw_panel(path: Path, panel: Panel, laq: Labeller | None, split: str, last: Mapping[str, Any]) -> None:
    """Draw samples.png: frames, and the next frames that the latent-action model draws for true and predicted
    codes."""
    columns = [("frame", panel.frames.numpy())]
    caption = "Left: the instruction, the true codes, and those predicted from the frame and the instruction."
    if laq is not None:
        columns += [
            (f"{name} codes", imagine(laq, panel.frames, codes))
            for name, codes in (("true", panel.true), ("predicted", panel.predicted))
        ]
        caption += " Right: the next frames that the latent-action model draws from either codes."
    codes = zip(panel.instructions, panel.true.tolist(), panel.predicted.tolist(), strict=True)
    rows = [f"{_asked(text)}\ntrue {joined(true)}\npredicted {joined(said)}" for text, true, said in codes]
    rate = last.get(f"{split}/accuracy")
    said = f", {rate:.0%} of codes right" if rate is not None else ""
    plots.grid(path, columns, rows, f"{split}, step {last['step']:,}{said}", caption)


def draw_prediction(path: Path, found: Prediction) -> None:
    """Draw predicted.png: a frame, its instruction, predicted codes, and the next frame if there is one."""
    columns = [("frame", found.image[None])]
    caption = f"The codes {joined(found.codes)} are predicted from the frame and the instruction."
    if found.frame is not None:
        columns.append(("next frame", found.frame[None]))
        caption += " The latent-action model draws the next frame from the frame and these codes."
    plots.grid(path, columns, [f"{_asked(found.instruction)}\npredicted {joined(found.codes)}"], "", caption)


def joined(codes: Sequence[int]) -> str:
    """Codes joined by dashes."""
    return "-".join(map(str, codes))


def _asked(instruction: str) -> str:
    return "\n".join(textwrap.wrap(instruction or "(no instruction)", 24)[:3])
