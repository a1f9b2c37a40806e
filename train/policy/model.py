"""A policy's network: a backbone, a head for actions, and one for codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from oxcart.train.policy.config import PolicyConfig
from oxcart.train.policy.heads import Flow, Regression
from oxcart.train.policy.network import CodesBackbone, SmallBackbone
from oxcart.train.policy.spec import PolicySpec


class PolicyModel(nn.Module):
    """A backbone and its heads.

    Args:
        backbone: gives a vector for each row [B, D] and one for each action [B, K, D].
        head: makes actions of the latter.
        tokens: codes of a row; 0 if none are learned.
        codes: entries of the codebook.
    """

    def __init__(
        self, backbone: SmallBackbone | CodesBackbone, head: Regression | Flow, tokens: int, codes: int
    ) -> None:
        super().__init__()
        self.backbone, self.head, self._tokens = backbone, head, tokens
        self.codes: nn.Module | None = None
        if tokens:
            self.codes = nn.Sequential(
                nn.LayerNorm(backbone.width), nn.Linear(backbone.width, tokens * codes)
            )

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Errors of actions [B, K, A] and logits of codes [B, n, C], for training."""
        knows, queries = self.backbone(inputs)
        error = self.head.error(queries, inputs["action"], inputs["noise"], inputs["time"])
        return error, self.logits(knows)

    @torch.no_grad()
    def act(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Scaled actions [B, K, A] and logits of codes [B, n, C]."""
        knows, queries = self.backbone(inputs)
        return self.head.act(queries, inputs["noise"]), self.logits(knows)

    def logits(self, knows: Tensor) -> Tensor | None:
        """Logits of codes [B, n, C]; None if none are learned."""
        if self.codes is None:
            return None
        return self.codes(knows).unflatten(1, (self._tokens, -1)).float()  # type: ignore[no-any-return]


def build_model(config: PolicyConfig, spec: PolicySpec, words: int) -> PolicyModel:
    """The model at the start of training.

    Args:
        config: configuration of the run.
        spec: what goes in and out.
        words: number of words that may occur.
    """
    decodes, width, columns = config.policy.backbone == "codes", config.small.width, len(spec.action)
    backbone: SmallBackbone | CodesBackbone
    if decodes:
        backbone = CodesBackbone(config.small, codes=spec.codes, state=len(spec.state), horizon=spec.horizon)
    else:
        backbone = SmallBackbone(
            config.small,
            cameras=[name for name, _ in spec.cameras],
            frames=len(spec.frames),
            words=words,
            state=len(spec.state),
            horizon=spec.horizon,
        )
    head: Regression | Flow = Regression(width, columns, linear=decodes and not config.small.layers)
    if config.policy.loss == "flow":
        head = Flow(width, columns, config.policy.denoise)
    return PolicyModel(backbone, head, *((0, 0) if decodes else spec.codes))


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """AdamW's parameter groups: decay on matrices alone, not on biases, norms and embeddings."""
    tables = {id(one.weight) for one in model.modules() if isinstance(one, nn.Embedding)}
    lists: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []
    for name, parameter in model.named_parameters():
        decayed = parameter.ndim >= 2 and name.endswith("weight") and id(parameter) not in tables
        lists[not decayed].append(parameter)
    return [{"params": lists[0], "weight_decay": decay}, {"params": lists[1], "weight_decay": 0.0}]
