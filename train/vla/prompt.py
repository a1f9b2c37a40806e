"""Prompts: from frames and instructions to inputs of the model.

The family's own processor makes the part with the image, so that all image tokens are counted. Texts of the
template file and the episode are tokenized as plain text, so that no instruction can write a chat or action
token. The parts are joined as ids.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from yaml import YAMLError

from oxcart.shards.errors import ConfigError
from oxcart.train.vla.ids import ActionIds, spell

PROMPTS = Path(__file__).parents[1] / "configs" / "prompts"
MARK = "\u241eINSTRUCTION\u241e"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt template."""

    system: str
    """System message; "" for none."""
    user: str
    """Message beside the image; `{instruction}` stands for the instruction of the episode."""
    unasked: str
    """Instruction for an episode that has none."""

    def text(self, instruction: str) -> str:
        """Message of the user."""
        return self.user.replace("{instruction}", instruction.strip() or self.unasked)


def read_prompt(name: str) -> Prompt:
    """Read a template by its name or from a file.

    Raises:
        ConfigError: there is no such template, or it has other keys.
    """
    path = PROMPTS / f"{name}.yaml"
    if not path.exists():
        path = Path(name)
    if not path.is_file():
        have = ", ".join(sorted(one.stem for one in PROMPTS.glob("*.yaml")))
        raise ConfigError(f"vla.prompt: {name!r} is neither a file nor one of {have}")
    try:
        found = OmegaConf.to_container(OmegaConf.load(path))
        prompt = Prompt(**found)  # type: ignore[arg-type]
    except (OmegaConfBaseException, YAMLError, TypeError) as error:
        raise ConfigError(f"vla.prompt: {path}: expected system, user and unasked: {error}") from error
    for name, text in asdict(prompt).items():
        if not isinstance(text, str):
            raise ConfigError(f"vla.prompt: {path}: {name}: expected a text, got {text!r}")
    if "{instruction}" not in prompt.user:
        raise ConfigError(f"vla.prompt: {path}: user: expected {{instruction}} in it, got {prompt.user!r}")
    return prompt


class Prompter:
    """Makes the inputs of a model.

    Args:
        processor: a processor of `load_processor`.
        prompt: the template.
        ids: ids of codes and of the tokens around them.
        decoding: `autoregressive` or `parallel`.
        tokens: codes per action.
        model: name of the model, for messages.

    Raises:
        ConfigError: the chat template leaves out the image or the instruction.
    """

    def __init__(
        self, processor: Any, prompt: Prompt, ids: ActionIds, decoding: str, tokens: int, model: str
    ) -> None:
        self._processor, self._tokenizer, self._prompt = processor, processor.tokenizer, prompt
        self._ids, self._parallel, self._tokens = ids, decoding == "parallel", tokens
        self._taken = frozenset(ids.all)
        said = {"role": "system", "content": [{"type": "text", "text": prompt.system}]}
        asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": MARK}]}
        chat = [said, asked] if prompt.system else [asked]
        text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        parts = text.split(MARK)
        with_image = [i for i, part in enumerate(parts) if processor.image_token in part]
        if len(parts) != 2 or len(with_image) != 1:
            raise ConfigError(
                f"model: the chat template of {model} does not show one image and the text of the user, "
                "once each; choose another model, or fix its chat_template.jinja"
            )
        self._parts, self._with_image = parts, with_image[0]
        self._other = self._plain(parts[1 - self._with_image], split=False)
        pad = self._tokenizer.pad_token_id
        self.pad: int = self._tokenizer.eos_token_id if pad is None else pad
        """Id that pads shorter rows."""
        self._lock = threading.Lock()  # of what follows, and of the tokenizer, which changes when it is used
        self._texts: dict[str, list[int]] = {}
        self._known: dict[tuple[int, ...], tuple[list[int], list[int], list[str]]] = {}
        defaults = getattr(type(processor), "images_kwargs", None) or {}
        self._image_options = {**defaults, "input_data_format": "channels_last"}
        if hasattr(processor.image_processor, "do_image_splitting"):
            # SmolVLM would enlarge a frame and cut it up into a thousand tokens.
            self._image_options["do_image_splitting"] = False

    @property
    def keep(self) -> int:
        """Number of last positions of `encode`'s rows whose logits are needed; the first `tokens` are of
        codes."""
        return self._tokens + (1 if self._parallel else 2)

    def encode(self, frames: Tensor, instructions: Sequence[str], *, room: bool = False) -> dict[str, Tensor]:
        """Inputs of one forward pass. Several threads may encode at once.

        Args:
            frames: uint8 [B, H, W, 3].
            instructions: instruction for each frame.
            room: leave room for the codes that autoregressive decoding is given, which are written there when
                they are known; else ask for the first. Parallel decoding asks for all codes by the blank of
                each place.

        Returns:
            `input_ids`, `attention_mask` [B, L], and the images in the family's form.
        """
        ids = self._ids
        if self._parallel:
            tail = [ids.open, *ids.blanks, ids.close]
        else:
            tail = [ids.open, *([ids.codes[0]] * self._tokens), ids.close] if room else [ids.open]
        arrays = frames.numpy()
        with self._lock:
            before, after, names = self._around(arrays[0])
            said = [self._user(instruction) for instruction in instructions]
        rows = [[*before, *user, *after, *tail] for user in said]
        made = self._processor.image_processor([[frame] for frame in arrays], **self._image_options)
        longest = max(map(len, rows))
        padded = np.full((len(rows), longest), self.pad, np.int64)
        mask = np.zeros((len(rows), longest), np.int64)
        for i, row in enumerate(rows):
            padded[i, longest - len(row) :] = row
            mask[i, longest - len(row) :] = 1
        inputs = {"input_ids": torch.from_numpy(padded), "attention_mask": torch.from_numpy(mask)}
        for name in names:
            if name == "mm_token_type_ids":
                kinds = (padded == self._processor.image_token_id) & (mask == 1)
                inputs[name] = torch.from_numpy(kinds.astype(np.int64))
            else:
                inputs[name] = torch.from_numpy(np.ascontiguousarray(made[name]))
        return inputs

    def _around(self, frame: Any) -> tuple[list[int], list[int], list[str]]:
        """Ids before and after the user's message, and names of further inputs, as the family's processor
        makes them.

        They depend on the size of the image alone, so they are made once for each size.
        """
        if frame.shape not in self._known:
            made = self._processor(
                text=[self._parts[self._with_image]],
                images=[[frame]],
                add_special_tokens=False,
                images_kwargs=dict(self._image_options),
            )
            image = spell(self._tokenizer, list(made["input_ids"][0]), self._taken)
            before, after = (image, self._other) if self._with_image == 0 else (self._other, image)
            names = [name for name in made if name not in ("input_ids", "attention_mask")]
            self._known[frame.shape] = before, after, names
        return self._known[frame.shape]

    def lengths(self, instructions: Sequence[str]) -> list[int]:
        """Tokens of the user's message, for each instruction."""
        with self._lock:
            return [len(self._user(one)) for one in instructions]

    def _user(self, instruction: str) -> list[int]:
        found = self._texts.get(instruction)
        if found is None:
            found = self._plain(self._prompt.text(instruction), split=True)
            self._texts[instruction] = found
        return found

    def _plain(self, text: str, *, split: bool) -> list[int]:
        """Ids of a text; `split` reads text that looks like a chat token as letters."""
        if not split:
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            return spell(self._tokenizer, ids, self._taken)
        # split_special_tokens does not split added tokens that are not marked special, as <think> in Qwen.
        backend = self._tokenizer.backend_tokenizer
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        words = [text]
        if backend.pre_tokenizer is not None:
            words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        return [token.id for word in words for token in backend.model.tokenize(word)]

    def describe(self) -> dict[str, Any]:
        """The template as plain JSON."""
        return asdict(self._prompt)
