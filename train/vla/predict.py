"""What a trained model would do: codes of a picture and an instruction, and the frame that would follow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from oxcart.shards.errors import ConfigError
from oxcart.train.laq.label import open_run
from oxcart.train.vla.emit import emit
from oxcart.train.vla.policy import load_policy


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Of one picture."""

    codes: list[int]
    probabilities: list[list[float]]
    """Of every entry of the codebook, for each code."""
    frame: Any
    """uint8 [H, W, 3]: what the latent-action model makes of it; None where none is named."""


def predict(run: Path, image: Path, instruction: str, laq: Path | None, device: str = "auto") -> Prediction:
    """Predict.

    Args:
        run: directory of the run.
        image: a picture of any size; it is resized as training's frames were.
        instruction: may be empty.
        laq: run of the latent-action model that the codes are of; None takes the one of training.
        device: `cpu`, `cuda`, or `auto`.

    Raises:
        ConfigError: the run, the picture or the latent-action model cannot be used.
    """
    from oxcart.train.vla.task import imagine

    policy, about = load_policy(run, device)
    height, width = about["frames"]
    try:
        with Image.open(image) as opened:
            picture = opened.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError) as error:
        raise ConfigError(f"--image: {image} cannot be read as a picture: {error}") from error
    frames = torch.from_numpy(np.array(picture))[None]
    codes, probabilities = emit(policy, frames, [instruction])
    named = laq if laq is not None else about["laq"]
    drawn = None
    if named is not None:
        labeller = open_run(Path(named), device=policy.device.type)
        if labeller.fingerprint != about["producer"]:
            raise ConfigError(
                f"--laq: {named} is the model {labeller.fingerprint[:12]}, and the codes are of "
                f"{about['producer'][:12]}; give the run that labelled them"
            )
        drawn = imagine(labeller, frames, codes)[0]
    return Prediction(codes=codes[0].tolist(), probabilities=probabilities[0].tolist(), frame=drawn)


def write_png(path: Path, frame: Any) -> None:
    """Write a frame, uint8 [H, W, 3], whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    Image.fromarray(np.ascontiguousarray(frame)).save(temporary, "png")
    temporary.replace(path)
