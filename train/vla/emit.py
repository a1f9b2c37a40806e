"""Emit codes from a model: one after the other, or all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import LogitsProcessor

from oxcart.train.device import autocast
from oxcart.train.pieces import to_device
from oxcart.train.vla.model import ActionModel, Shape, code_logits, code_loss
from oxcart.train.vla.prompt import Prompter


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Everything that turns a frame and an instruction into codes."""

    model: ActionModel
    prompter: Prompter
    """Makes the inputs of the model, with its ids."""
    shape: Shape
    device: torch.device
    bf16: bool = False
    """Whether codes are emitted in bf16."""


def score(
    policy: Policy, inputs: dict[str, Tensor], codes: Tensor, forward: nn.Module
) -> tuple[Tensor, Tensor, Tensor]:
    """Score known codes, each given those before it unless decoding is parallel.

    Args:
        policy: the policy.
        inputs: inputs of the prompter with room for codes, on the device.
        codes: int64 [B, n], on the device.
        forward: the policy's model, or accelerate's wrapper of it.

    Returns:
        The training loss, the cross-entropy among codes alone, and the logits of codes [B, n, K].
    """
    shape, ids = policy.shape, policy.model.codes
    if shape.decoding != "parallel":
        told = inputs["input_ids"].clone()
        told[:, -shape.tokens - 1 : -1] = ids[codes]
        inputs = {**inputs, "input_ids": told}
    logits = forward(inputs, keep=policy.prompter.keep)[:, : shape.tokens]
    loss, among = code_loss(logits, codes, ids, shape.head)
    return loss, among, code_logits(logits, ids)


def emit(policy: Policy, frames: Tensor, instructions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Emit the likeliest codes; no other token can be generated.

    Args:
        policy: the policy, its model in eval mode.
        frames: uint8 [B, H, W, 3].
        instructions: instruction for each frame.

    Returns:
        codes int64 [B, n], and the probabilities float32 [B, n, K] among codes that each was chosen from;
        autoregressive ones are given the codes chosen before.
    """
    return emit_from(policy, to_device(policy.prompter.encode(frames, instructions), policy.device))


@torch.no_grad()
def emit_from(policy: Policy, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Emit codes as `emit` does, from inputs that the prompter made, on the device."""
    with autocast(policy.bf16, policy.device):
        scores = _scores(policy, inputs)
    return scores.argmax(-1), scores.softmax(-1)


def _scores(policy: Policy, inputs: dict[str, Tensor]) -> Tensor:
    """Logits float32 [B, n, K] among codes."""
    shape, ids = policy.shape, policy.model.codes
    if shape.decoding == "parallel":
        logits = policy.model(inputs, keep=policy.prompter.keep)[:, : shape.tokens]
        return code_logits(logits, ids)

    # A class, since transformers looks up the signature of a function for every code.
    class Constrain(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            kept = torch.full_like(scores, float("-inf"))
            kept[:, ids] = scores[:, ids]
            return kept

    if isinstance(policy.model.backbone, FSDPModule):
        policy.model.backbone.unshard()  # generation enters the vision tower without the model around it
    made = policy.model.backbone.generate(  # type: ignore[operator]
        **inputs,
        logits_processor=[Constrain()],
        max_new_tokens=shape.tokens,
        do_sample=False,
        repetition_penalty=1.0,
        pad_token_id=policy.prompter.pad,
        output_scores=True,
        return_dict_in_generate=True,
    )
    return code_logits(torch.stack(made.scores, 1), ids)
