"""Sentences as vectors, by a language model that the user names.

    model = SentenceModel.load("models/all-MiniLM-L6-v2", device)
    vectors = model.embed(["push the red block", "shove the brick"])         # float64 [2, D], of length 1

A vector is the mean of the last layer over the tokens of a sentence, which is how most sentence-transformers
are trained to be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from oxcart.shards.errors import ConfigError
from oxcart.train.statistics import Floats

AT_ONCE = 64
"""Number of sentences embedded together."""


@dataclass(frozen=True, kw_only=True)
class SentenceModel:
    """A language model that embeds sentences."""

    name: str
    """Directory or hub id, as the user gave it."""
    tokenizer: Any
    encoder: Any

    @classmethod
    def load(cls, name: str, device: torch.device) -> SentenceModel:
        """Load a model of transformers, and embed one sentence to see that it can.

        Args:
            name: directory, or id on the Hugging Face hub.
            device: device of the model.

        Raises:
            ConfigError: transformers is not installed, or the model cannot be used.
        """
        if find_spec("transformers") is None:
            raise ConfigError(
                "text_model: needs transformers, which is not installed: "
                "pip install -c constraints.txt '.[vla]'"
            )
        from transformers import AutoModel, AutoTokenizer  # of the extra `vla`
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.eos_token
            encoder = AutoModel.from_pretrained(name, dtype=torch.float32).to(device).eval()
            made = cls(name=name, tokenizer=tokenizer, encoder=encoder)
            sound = bool(np.isfinite(made.embed(["lift"])).all())
        except Exception as error:  # whatever a file or a repository of others makes transformers raise
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                "text_model: expected a directory with a text encoder of transformers, or the id of one that "
                f"this machine has or can download from the Hugging Face hub; got {name!r}: {reason}"
            ) from error
        if not sound:
            raise ConfigError(f"text_model: {name} makes vectors that are not finite; choose another model")
        return made

    @torch.no_grad()
    def embed(self, sentences: Sequence[str]) -> Floats:
        """Vectors [N, D] of length 1."""
        found = []
        for begin in range(0, len(sentences), AT_ONCE):
            some = list(sentences[begin : begin + AT_ONCE])
            tokens = self.tokenizer(some, padding=True, truncation=True, return_tensors="pt")
            tokens = tokens.to(self.encoder.device)
            states = self.encoder(**tokens).last_hidden_state.double()
            there = tokens["attention_mask"][..., None].double()
            found.append(((states * there).sum(1) / there.sum(1)).cpu().numpy())
        vectors = np.concatenate(found)
        made: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return made


def describe(model: SentenceModel | None) -> str:
    """What instructions are compared by."""
    return "words, not meaning (TF-IDF)" if model is None else f"the sentence vectors of {model.name}"
