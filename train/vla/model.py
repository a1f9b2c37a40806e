"""A vision-language model that emits codes.

    model = build(config, processor, labels)        # or load_policy, of a run
    logits = model(inputs, keep=6)                   # [B, 6, V], at the last positions
    codes, probabilities = emit(model, prompter, frames, instructions)

Prompts are padded on the left, whatever the tokenizer's default. Codes are then the last positions of every
row, logits of other positions are never computed, and generation starts where prompts end.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForImageTextToText

from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.train.data.order import derive
from oxcart.train.finite import some
from oxcart.train.vla.config import LoraConfig, VlaConfig
from oxcart.train.vla.ids import (
    ActionIds,
    OwnRows,
    add_tokens,
    begin_rows,
    embedding_of,
    writing_of,
)
from oxcart.train.vla.processor import not_there, quieten

TOWERS = ("visual", "vision_model", "vision_tower")
JOINTS = ("merger", "deepstack_merger_list", "connector", "multi_modal_projector")
"""Parts of a tower that stay trainable: they pass its features to the language model."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Form of the emitted codes."""

    head: str
    decoding: str
    tokens: int
    """Codes per action."""
    codes: int
    """Entries of the codebook."""


class ActionModel(nn.Module):
    """A model of transformers and the ids of its codes.

    Args:
        backbone: `AutoModelForImageTextToText`, or one with adapters of PEFT.
        ids: ids of codes and of the tokens around them.
        own: vectors of ids beyond the backbone's embedding.
    """

    codes: Tensor
    """int64 [K]: id of each code, on the device of the model."""

    def __init__(self, backbone: nn.Module, ids: ActionIds, own: OwnRows | None) -> None:
        super().__init__()
        self.backbone, self.own, self.ids = backbone, own, ids
        self.register_buffer("codes", torch.tensor(ids.codes), persistent=False)
        if own is not None:
            own.attach(backbone)

    def positions(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Inputs, with the positions of tokens where the family counts images in them.

        Its forward pass would count row by row, and wait for the device in each; here inputs are on the CPU.
        """
        count = next((one.get_rope_index for one in self.modules() if hasattr(one, "get_rope_index")), None)
        if count is None:
            return inputs
        known = inspect.signature(count).parameters  # type: ignore[arg-type]
        found = count(**{name: value for name, value in inputs.items() if name in known})  # type: ignore[operator]
        return {**inputs, "position_ids": found[0]}

    def forward(self, inputs: dict[str, Tensor], keep: int) -> Tensor:
        """Logits [B, keep, V] of the last `keep` positions."""
        out = self.backbone(**inputs, logits_to_keep=keep, use_cache=False)
        return out.logits  # type: ignore[no-any-return]


class PatchProduct(nn.Conv3d):
    """A convolution that is given one patch at a time, as the matrix product that it then is.

    Qwen's towers begin with one. As a convolution it took four fifths of a small model's step on a CPU.
    """

    def forward(self, patches: Tensor) -> Tensor:
        """Features [N, D, 1, 1, 1] of patches [N, C, T, H, W]."""
        if patches.shape[2:] != self.kernel_size:
            return super().forward(patches)
        features = functional.linear(patches.flatten(1), self.weight.flatten(1), self.bias)
        return features[..., None, None, None]


def multiply_patches(backbone: nn.Module) -> None:
    """Turn the convolutions of single patches into `PatchProduct`, in place."""
    for module in backbone.modules():
        if type(module) is nn.Conv3d and module.groups == 1 and not any(module.padding):
            module.__class__ = PatchProduct


def load_backbone(model: str, *, whole: bool = False) -> nn.Module:
    """The weights of a vision-language model in float32.

    Args:
        model: hub id or directory.
        whole: whether to refuse a model with missing weights, which would start at random.

    Raises:
        ConfigError: the model cannot be found, or is not a vision-language model.
        CorruptError: weights are missing.
    """
    quieten()
    try:
        found, about = AutoModelForImageTextToText.from_pretrained(
            model, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # whatever a file or a repository of others makes transformers raise
        raise not_there(model, error) from error
    if whole and (missing := sorted(about["missing_keys"])):
        raise CorruptError(f"{model}: lacks the weights {some(missing)}; they would be random")
    multiply_patches(found)
    return found  # type: ignore[no-any-return]


def build(config: VlaConfig, processor: Any, shape: Shape) -> ActionModel:
    """The model at the start of training; its processor gets the added tokens.

    Raises:
        ConfigError: `load_backbone` or `adapt` refuses the configuration.
    """
    backbone = load_backbone(config.model)
    tokenizer = processor.tokenizer
    real, seed = len(tokenizer), derive(config.train.seed, 41) >> 1
    own = None
    if shape.head == "tokens":
        ids, fresh = add_tokens(backbone, tokenizer, shape.codes, shape.tokens)
        begin_rows(backbone, fresh, real, config.vla.noise, seed)
    else:
        ids, own = own_rows(backbone, shape.codes, shape.tokens)
        own.begin(backbone, real, config.vla.noise, seed)
    if config.vla.tune == "lora":
        backbone = adapt(backbone, config.lora, [] if own is not None else ids.all)
    elif config.vla.tune == "frozen_vision":
        for name, parameter in backbone.named_parameters():
            if in_tower(name):
                parameter.requires_grad_(False)
    if own is not None and writing_of(backbone).weight is not embedding_of(backbone).weight:
        writing_of(backbone).weight.requires_grad_(False)  # nothing reads its scores
    if config.vla.checkpointing:
        backbone.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        # That call makes inputs require gradients, which this kind of checkpointing does not need: the
        # backward pass would run through frozen weights.
        backbone.disable_input_require_grads()  # type: ignore[operator]
    return ActionModel(backbone, ids, own)


def own_rows(backbone: nn.Module, codes: int, places: int) -> tuple[ActionIds, OwnRows]:
    """Ids beyond the embedding, and their vectors."""
    first, width = embedding_of(backbone).weight.shape
    count = codes + 2 + places
    return ActionIds.of(range(first, first + count), codes), OwnRows(first, count, width)


def in_tower(name: str) -> bool:
    """Whether a weight is of the vision tower, by its name; JOINTS are not."""
    parts = name.split(".")
    return any(part in TOWERS for part in parts) and not any(part in JOINTS for part in parts)


def adapt(backbone: nn.Module, config: LoraConfig, ids: list[int]) -> nn.Module:
    """Add low-rank adapters to every linear layer of the language model; the rows of `ids` learn directly.

    Raises:
        ConfigError: PEFT is not installed.
    """
    try:
        from peft import LoraConfig as PeftConfig
        from peft import get_peft_model
    except ImportError as error:
        raise ConfigError("vla.tune: lora needs PEFT: pip install -c constraints.txt '.[lora]'") from error
    reads, writes = embedding_of(backbone), writing_of(backbone)
    names = {id(module): name for name, module in backbone.named_modules()}
    targets = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear)
        and module is not writes
        and not any(part in (*TOWERS, *JOINTS) for part in name.split("."))
    ]
    tied = reads.weight is writes.weight
    rows = {names[id(reads)]: ids} if tied else {names[id(reads)]: ids, names[id(writes)]: ids}
    return get_peft_model(  # type: ignore[no-any-return]
        backbone,
        PeftConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=targets,
            trainable_token_indices=rows if ids else None,
        ),
    )


def groups(model: ActionModel, decay: float, new_rate: float) -> list[dict[str, Any]]:
    """AdamW's parameter groups: decay on matrices alone, not on biases, norms and embeddings; new rows at
    their rate.

    A matrix with some new rows is one parameter; `rows` are those that learn at `rows_rate`.
    """
    reads, writes = embedding_of(model.backbone), writing_of(model.backbone)
    embeddings = {id(reads.weight), id(writes.weight)}
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    lists: dict[str, list[nn.Parameter]] = {"decayed": [], "kept": [], "rows": [], "new": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("own.") or "trainable_tokens" in name:
            kind = "new"
        elif id(parameter) in embeddings:
            kind = "rows" if model.own is None else "kept"
        else:
            matrix = parameter.ndim >= 2 and name.endswith("weight") and id(parameter) not in tables
            kind = "decayed" if matrix else "kept"
        lists[kind].append(parameter)
    made: list[dict[str, Any]] = [
        {"params": lists["decayed"], "weight_decay": decay},
        {"params": lists["kept"], "weight_decay": 0.0},
        {"params": lists["rows"], "weight_decay": 0.0, "rows": model.ids.all, "rows_rate": new_rate},
        {"params": lists["new"], "weight_decay": 0.0, "rate": new_rate},
    ]
    return [group for group in made if group["params"]]


def code_logits(logits: Tensor, ids: Tensor) -> Tensor:
    """Select the logits float32 [B, n, K] of codes, by their ids [K], from logits [B, n, V]."""
    return logits[..., ids].float()


def code_loss(logits: Tensor, codes: Tensor, ids: Tensor, head: str) -> tuple[Tensor, Tensor]:
    """Mean cross-entropies of codes [B, n] given logits [B, n, V]: the training loss, and that among codes
    alone, whose ids [K] are given.

    A separate head scores nothing but codes, so the two are equal.
    """
    among = functional.cross_entropy(code_logits(logits, ids).flatten(0, 1), codes.flatten())
    if head == "head":
        return among, among
    targets = ids[codes]
    return functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten()), among
