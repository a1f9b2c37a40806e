"""Tiny random vision-language models of the real classes, for tests and the demo; nothing is downloaded.

    write_vlm(Path("scratch/vlm"), VlmConfig(family="qwen3-vl"))        # or: oxcart sample vlm scratch/vlm

    DIR/
        config.json  generation_config.json  model.safetensors
        tokenizer.json  tokenizer_config.json  chat_template.jinja
        processor_config.json  video_preprocessor_config.json

The folder has the files of a hub repository of the family, so it is read as a real model is. The tokenizer is
a byte-level BPE trained on a few sentences, followed by the family's special tokens. The weights are random.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from oxcart.manifests.ownership import MODEL, check_directory
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError
from oxcart.train.vla.processor import build_processor, quieten, save_processor

FAMILIES = ("qwen3-vl", "qwen2.5-vl", "smolvlm")
WORDS = 512
"""Maximum number of entries of the BPE, single bytes included."""
SENTENCES = [
    f"{verb} the {colour} {thing} {where}"
    for verb in ("push", "slide", "move", "lift", "pick up", "put down")
    for colour in ("red", "blue", "green", "yellow", "white")
    for thing in ("block", "cup", "bowl", "spoon", "towel")
    for where in ("left", "right", "up", "down", "to the corner", "into the sink", "onto the plate")
]
CHATTER = (
    "You are a robot policy. Reply only with action tokens.",
    "system user assistant: System: User: Assistant:\n",
)
QWEN_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
SMOL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<global-img>",
    "<image>",
    "<video>",
)
QWEN_CHAT = (
    "{%- for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['content'] is string %}{{ message['content'] }}{%- else %}"
    "{%- for part in message['content'] %}{%- if part['type'] == 'image' %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{%- else %}{{ part['text'] }}{%- endif %}"
    "{%- endfor %}{%- endif %}{{ '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)
SMOL_CHAT = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'] is string %}{{ ': ' + message['content'] }}{% else %}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class VlmConfig:
    """Configuration of the model to write.

    Raises:
        ConfigError: a value is invalid.
    """

    family: str = "qwen3-vl"
    """`qwen3-vl`, `qwen2.5-vl` or `smolvlm`."""
    width: int = 64
    """Width of text and image tokens; a multiple of 32."""
    layers: int = 2
    """Layers of the language model."""
    vision_layers: int = 2
    """Layers of the vision tower."""
    image_size: int = 64
    """Side of images, in pixels; a multiple of `patch * merge`."""
    patch: int = 16
    """Side of a patch, in pixels."""
    merge: int = 4
    """Side, in patches, of the part of an image that becomes one token. By default the whole image does: in
    minutes, a model learns where things are from one token, but hardly by attention to many (docs/lab.md)."""
    spare: int = 16
    """Rows of the embedding without a token; published Qwen models have hundreds."""
    tied: bool = True
    """Whether the input and output matrices of tokens are tied."""
    padding: str = "right"
    """Side on which the tokenizer pads by default."""
    seed: int = 0
    """Seed of the weights."""

    def __post_init__(self) -> None:
        one_of("family", self.family, FAMILIES)
        one_of("padding", self.padding, ("left", "right"))
        for name, least in (("layers", 1), ("vision_layers", 1), ("patch", 1), ("merge", 1), ("spare", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        token = self.patch * self.merge
        for name, value, of in (("width", self.width, 32), ("image_size", self.image_size, token)):
            if value < of or value % of:
                raise ConfigError(f"{name}: expected a multiple of {of}, got {value}")


def write_vlm(directory: Path, config: VlmConfig) -> int:
    """Write a model, its tokenizer and its processor; returns the number of weights.

    Raises:
        ConfigError: the directory exists and is not empty.
    """
    check_directory("directory", directory, MODEL)
    if directory.is_dir() and any(directory.iterdir()):
        raise ConfigError(f"directory: {directory} is not empty; name another one")
    quieten()
    smol = config.family == "smolvlm"
    tokenizer = _tokenizer(SMOL_TOKENS if smol else QWEN_TOKENS, config.padding, smol)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = (_smolvlm if smol else _qwen)(config, tokenizer)
        _draw(model)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    side, chat = config.image_size, SMOL_CHAT if smol else QWEN_CHAT
    if smol:
        images: Any = SmolVLMImageProcessorPil(
            size={"longest_edge": side}, max_image_size={"longest_edge": side}, do_image_splitting=False
        )
        tokens = (side // config.patch // config.merge) ** 2
        processor = build_processor(SmolVLMProcessor, images, tokenizer, chat, image_seq_len=tokens)
        video: dict[str, Any] = {
            "video_processor_type": "SmolVLMVideoProcessor",
            "size": {"longest_edge": side},
        }
    else:
        least = (config.patch * config.merge) ** 2
        size: dict[str, Any] = {"shortest_edge": least, "longest_edge": (2 * side) ** 2}
        shape = {"patch_size": config.patch, "merge_size": config.merge, "temporal_patch_size": 2}
        images = Qwen2VLImageProcessorPil(size=size, **shape)
        three = config.family == "qwen3-vl"
        name = "Qwen3VL" if three else "Qwen2_5_VL"
        processor = build_processor(getattr(transformers, f"{name}Processor"), images, tokenizer, chat)
        kind = "Qwen3VLVideoProcessor" if three else "Qwen2VLVideoProcessor"
        video = {"video_processor_type": kind, "size": size, **shape}
    save_processor(processor, directory, source=None)
    (directory / "video_preprocessor_config.json").write_text(json.dumps(video, indent=2) + "\n", "utf-8")
    return sum(one.numel() for one in model.parameters())


def _tokenizer(special: tuple[str, ...], padding: str, smol: bool) -> Any:
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    words.train_from_iterator([*SENTENCES, *CHATTER], trainer)
    words.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=special[0],
        eos_token=special[2],
        bos_token=special[1] if smol else None,
        padding_side=padding,
    )


@torch.no_grad()
def _draw(model: nn.Module) -> None:
    """Draw the matrices so that signals keep their size.

    The families' own 0.02 is for models thirty times as wide; here hardly any of an image would reach a code.
    """
    written = model.get_output_embeddings()  # type: ignore[operator]
    tied = written.weight is model.get_input_embeddings().weight  # type: ignore[operator]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            module.weight.normal_(0, 0.5 if "pos" in name else 0.1)
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d) and not (tied and module is written):
            module.weight.normal_(0, module.weight[0].numel() ** -0.5)


def _text(config: VlmConfig, tokenizer: Any) -> dict[str, Any]:
    heads = config.width // 16
    return {
        "vocab_size": len(tokenizer) + config.spare,
        "hidden_size": config.width,
        "intermediate_size": 3 * config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": config.tied,
    }


def _qwen(config: VlmConfig, tokenizer: Any) -> Any:
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in QWEN_TOKENS}
    vision: dict[str, Any] = {
        "depth": config.vision_layers,
        "hidden_size": config.width,
        "intermediate_size": 3 * config.width,
        "num_heads": config.width // 16,
        "patch_size": config.patch,
        "spatial_merge_size": config.merge,
        "out_hidden_size": config.width,
    }
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    common = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": config.tied,
    }
    text = {**_text(config, tokenizer), "rope_parameters": rope}
    if config.family == "qwen3-vl":
        positions = (config.image_size // config.patch) ** 2
        last = config.vision_layers - 1
        vision |= {"num_position_embeddings": positions, "deepstack_visual_indexes": [last]}
        text["rope_parameters"] = {**rope, "mrope_interleaved": True}
        return Qwen3VLForConditionalGeneration(
            Qwen3VLConfig(text_config=text, vision_config=vision, **common)
        )
    text.pop("head_dim")
    window = 2 * config.patch * config.merge
    vision |= {"window_size": window, "fullatt_block_indexes": [config.vision_layers - 1]}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision, **common)
    )


def _smolvlm(config: VlmConfig, tokenizer: Any) -> Any:
    vision = {
        "hidden_size": config.width,
        "intermediate_size": 3 * config.width,
        "num_hidden_layers": config.vision_layers,
        "num_attention_heads": config.width // 16,
        "image_size": config.image_size,
        "patch_size": config.patch,
    }
    text = {"model_type": "llama", **_text(config, tokenizer)}
    return SmolVLMForConditionalGeneration(
        SmolVLMConfig(
            text_config=text,
            vision_config=vision,
            scale_factor=config.merge,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=config.tied,
        )
    )
