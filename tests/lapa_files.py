"""Checkpoints as LAPA's own code saves them, of small random models.

write_lapa(tmp_path / "laq.pt", laq_config([*SMALL_LAPA]))
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from oxcart.train.laq.build import build_model
from oxcart.train.laq.config import LaqConfig
from oxcart.train.laq.model import LatentActionModel

SMALL_LAPA = (
    "model.image_size=16",
    "model.patch=2",
    "model.width=16",
    "model.heads=2",
    "model.spatial_depth=1",
    "model.temporal_depth=1",
    "model.decoder_depth=1",
    "quantizer.dim=6",
    "data.offset=2",
)
"""Sizes for the preset `lapa`."""


def small_lapa(config: LaqConfig) -> LatentActionModel:
    """A model with random weights, none of which has its first value."""
    torch.manual_seed(3)
    model = build_model(config.model, config.quantizer, config.flow).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def lapa_names(model: LatentActionModel) -> dict[str, Tensor]:
    """Its weights under LAPA's names, with those that LAPA's code never uses."""
    found = {name: one.clone() for name, one in model.state_dict().items() if name != "quantizer.used"}
    found["vq.codebooks"] = found.pop("quantizer.codebook")[0]
    for name in list(found):
        if name.endswith(".gamma"):
            found[name.replace("gamma", "beta")] = torch.zeros_like(found[name])
        if re.search(r"layers\.\d+\.1\.norm\.gamma$", name):
            part = name.removesuffix("norm.gamma")
            found[f"{part}null_kv"] = torch.empty(2, 0, 8)
            found[f"{part}context_norm.gamma"] = torch.ones_like(found[name])
            found[f"{part}context_norm.beta"] = torch.zeros_like(found[name])
    return found


def write_lapa(file: Path, config: LaqConfig) -> LatentActionModel:
    """Write a checkpoint, and return the model that it is of."""
    model = small_lapa(config)
    torch.save(lapa_names(model), file)
    return model
