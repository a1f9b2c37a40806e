"""Instructions as numbers: a vocabulary of the words of train, kept with the weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

LONGEST = 24
"""Words of an instruction that are read."""
MOST = 1 << 14
"""Most words of a vocabulary; the rarest are left out."""
NOTHING, UNKNOWN = 0, 1
"""Numbers of no word, and of every word that is not in the vocabulary."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Vocabulary:
    """The known words, in the order of their numbers, which begin after `UNKNOWN`."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """The words of some instructions."""
        counts: dict[str, int] = {}
        for text in texts:
            for word in split(text):
                counts[word] = counts.get(word, 0) + 1
        kept = sorted(counts, key=lambda word: (-counts[word], word))[:MOST]
        return cls(tuple(sorted(kept)))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: UNKNOWN + 1 + i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        """Different numbers that `encode` may give."""
        return len(self.words) + UNKNOWN + 1

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Instructions as int64 [B, LONGEST], with `NOTHING` after the last word."""
        found = torch.full((len(texts), LONGEST), NOTHING)
        known = {text: self._encode(text) for text in dict.fromkeys(texts)}
        for row, text in enumerate(texts):
            numbers = known[text]
            found[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        return found

    def _encode(self, text: str) -> list[int]:
        return [self._numbers.get(word, UNKNOWN) for word in split(text)[:LONGEST]]


def split(text: str) -> list[str]:
    """The words of an instruction, in lower case and without punctuation."""
    return _WORD.findall(text.lower())
