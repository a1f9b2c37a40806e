"""Build a latent-action model of a configuration, and say what its weights are."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from oxcart.train.laq.config import FlowConfig, LaqConfig, ModelConfig, QuantizerConfig
from oxcart.train.laq.lapa import Lapa
from oxcart.train.laq.model import LatentActionModel
from oxcart.train.laq.quantize import NSVQ, Quantizer, build_quantizer, width_of
from oxcart.train.laq.space_time import SpaceTime


def build_model(model: ModelConfig, quantizer: QuantizerConfig, flow: FlowConfig) -> LatentActionModel:
    """Build the network of `model.kind` with its quantizer, and a flow decoder if there is a teacher."""
    return _network(model, build_quantizer(quantizer), flow)


def shapes_of(model: ModelConfig, quantizer: QuantizerConfig, flow: FlowConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight but the quantizer's; allocates none of them."""
    with torch.device("meta"):
        book = NSVQ(QuantizerConfig(tokens=quantizer.tokens, dim=width_of(quantizer)))
        weights = _network(model, book, flow).state_dict()
    return {
        name: tuple(weight.shape) for name, weight in weights.items() if not name.startswith("quantizer.")
    }


def identity_of(config: LaqConfig) -> dict[str, Any]:
    """Plain JSON of everything that decides the form of the model."""
    shape = {**asdict(config.model)}
    shape.pop("checkpointing")
    kept = ("kind", "tokens", "codes", "dim", "shared", "bound")
    quantizer = {name: value for name, value in asdict(config.quantizer).items() if name in kept}
    return {
        "model": shape,
        "quantizer": quantizer,
        "flow": config.flow.teacher,
        "camera": config.data.camera,
    }


def parameter_groups(model: nn.Module, decay: float, rate: float) -> list[dict[str, object]]:
    """AdamW's parameter groups: weight decay only on matrices, not on biases, norms, embeddings, queries and
    codebooks.

    Args:
        model: the model.
        decay: weight decay of matrices.
        rate: learning rate of codebooks, as a multiple of that of the others.
    """
    kept: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    codes: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        leaf = name.rpartition(".")[2]
        matrix = parameter.ndim >= 2 and leaf == "weight"
        (codes if leaf == "codebook" else decayed if matrix else kept).append(parameter)
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    if codes:
        groups.append({"params": codes, "weight_decay": 0.0, "rate": rate})
    return groups


def _network(model: ModelConfig, quantizer: Quantizer, flow: FlowConfig) -> LatentActionModel:
    return (Lapa if model.kind == "lapa" else SpaceTime)(model, quantizer, flow)
