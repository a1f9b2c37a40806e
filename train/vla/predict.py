"""Predict latent codes for an image and an instruction, and the frame that would follow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from oxcart.shards.errors import ConfigError, CorruptError, NotFiniteError
from oxcart.train.laq.label import Labeller, imagine, open_producer
from oxcart.train.vla.emit import emit
from oxcart.train.vla.policy import load_policy


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Prediction for one image."""

    image: Any
    """uint8 [H, W, 3]: the image as the model sees it."""
    instruction: str
    codes: list[int]
    probabilities: list[list[float]]
    """Probabilities of all entries of the codebook, for each code."""
    frame: Any
    """uint8 [H, W, 3]: the next frame that the latent-action model draws; None where there is no model."""
    missing: str
    """Reason why there is no frame; "" if there is one."""


def predict(run: Path, image: Path, instruction: str, laq: Path | None, device: str = "auto") -> Prediction:
    """Predict codes for an image and an instruction.

    Args:
        run: directory of the run.
        image: an image of any size; it is resized as the frames of training were.
        instruction: the instruction; may be empty.
        laq: run of the latent-action model that made the codes; None takes that of training, if it still
            exists.
        device: `cpu`, `cuda`, or `auto`.

    Raises:
        ConfigError: the run, the image or the latent-action model cannot be used.
        NotFiniteError: logits or the drawn frame are not finite.
    """
    policy, about = load_policy(run, device)
    height, width = about["frames"]
    try:
        with Image.open(image) as opened:
            resized = opened.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError) as error:
        raise ConfigError(f"--image: {image} cannot be read as an image: {error}") from error
    frames = torch.from_numpy(np.array(resized))[None]
    codes, probabilities = emit(policy, frames, [instruction])
    if not probabilities.isfinite().all():
        raise NotFiniteError(f"{run}: the logits of {image} are not finite; the model has diverged")
    named = laq if laq is not None else about["laq"]
    drawn, missing = None, ""
    try:
        drawn = imagine(_maker(named, about["producer"], policy.device.type), frames, codes)[0]
    except (ConfigError, CorruptError) as error:
        if laq is not None:
            raise ConfigError(f"--laq: {error}; give the run that made the codes") from error
        missing = str(error)
    return Prediction(
        image=frames[0].numpy(),
        instruction=instruction,
        codes=codes[0].tolist(),
        probabilities=probabilities[0].tolist(),
        frame=drawn,
        missing=missing,
    )


def _maker(named: str | Path | None, producer: str, device: str) -> Labeller:
    """The latent-action model that made the codes."""
    if named is None:
        raise ConfigError("training had no data.laq")
    if not Path(named).is_dir():
        raise ConfigError(f"{named} is not there")
    labeller = open_producer(Path(named), producer, device)
    if labeller.fingerprint != producer:
        raise ConfigError(
            f"{named} is the model {labeller.fingerprint[:12]}, but the codes come from {producer[:12]}"
        )
    return labeller
