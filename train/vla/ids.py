"""Ids that stand for codes, and the vectors of new ids.

    tokens   `<ACT_0>` ... and their wrappers join the vocabulary
    head     ids beyond the embedding, with their own vectors for reading and writing

All work is on ids, never on strings: a byte-level BPE may join neighbours.

An embedding often has more rows than the tokenizer has tokens (267 more in Qwen3-VL-2B). Spare rows are used
first, and the embedding only ever grows. New rows begin at the mean of the real rows plus a little noise, in
the input matrix and, unless it is tied, in the output matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import AddedToken
from torch import nn

OPEN, CLOSE = "<ACTION>", "</ACTION>"
"""Tokens around the codes."""


@dataclass(frozen=True, kw_only=True)
class ActionIds:
    """Ids of codes and of the tokens around them."""

    codes: list[int]
    """Id of each code."""
    open: int
    close: int
    blanks: list[int]
    """Ids that ask for codes decoded in parallel. There is one for each place; else a model would tell places
    apart only by their distance from the opening token."""

    @property
    def all(self) -> list[int]:
        """All ids."""
        return [*self.codes, self.open, self.close, *self.blanks]

    @classmethod
    def of(cls, ids: Sequence[int], codes: int) -> ActionIds:
        """The ids given in the order of `all`, of which the first `codes` are codes."""
        return cls(
            codes=list(ids[:codes]), open=ids[codes], close=ids[codes + 1], blanks=list(ids[codes + 2 :])
        )


def names_of(codes: int, places: int) -> list[str]:
    """Names of the added tokens, in the order of `ActionIds.all`."""
    return [*(f"<ACT_{i}>" for i in range(codes)), OPEN, CLOSE, *(f"<ACT_AT_{i}>" for i in range(places))]


def add_tokens(model: nn.Module, tokenizer: Any, codes: int, places: int) -> tuple[ActionIds, list[int]]:
    """Add the tokens to the vocabulary.

    Args:
        model: model of transformers; its embedding grows if needed.
        tokenizer: tokenizer that gets the tokens.
        codes: number of codes.
        places: codes per action.

    Returns:
        The ids, and the new ones among them.
    """
    names = names_of(codes, places)
    known = tokenizer.get_vocab()
    fresh = [name for name in names if name not in known]
    tokenizer.add_tokens(
        [AddedToken(name, special=True, normalized=False) for name in fresh], special_tokens=True
    )
    rows = len(embedding_of(model).weight)
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)  # type: ignore[operator]
    ids = tokenizer.convert_tokens_to_ids(names)
    return ActionIds.of(ids, codes), tokenizer.convert_tokens_to_ids(fresh)


def spell(tokenizer: Any, ids: Sequence[int], taken: frozenset[int]) -> list[int]:
    """Ids of a text, with the names of action tokens spelt in letters."""
    if taken.isdisjoint(ids):
        return list(ids)
    found: list[int] = []
    for i in ids:
        if i in taken:
            found += tokenizer.convert_tokens_to_ids(list(tokenizer.convert_ids_to_tokens(i)))
        else:
            found.append(i)
    return found


def embedding_of(model: nn.Module) -> nn.Embedding:
    """The input matrix of tokens."""
    return model.get_input_embeddings()  # type: ignore[operator,no-any-return]


def writing_of(model: nn.Module) -> nn.Linear:
    """The output matrix of tokens; the input matrix if the two are tied."""
    return model.get_output_embeddings()  # type: ignore[operator,no-any-return]


@torch.no_grad()
def begin_rows(model: nn.Module, ids: Sequence[int], real: int, noise: float, seed: int) -> None:
    """Set new rows to the mean of the real rows plus noise.

    Args:
        model: model of transformers.
        ids: rows to set.
        real: number of rows with tokens of the original tokenizer; other rows were never trained.
        noise: standard deviation of the noise, as a share of that of the real rows in each dimension.
        seed: seed of the noise.
    """
    reads, writes = embedding_of(model).weight, writing_of(model).weight
    matrices = [reads] if reads is writes else [reads, writes]
    fresh = frozenset(ids)
    for number, matrix in enumerate(matrices):
        kept = matrix[torch.tensor([i for i in range(real) if i not in fresh])].float()
        generator = torch.Generator().manual_seed(seed + number)
        random = torch.randn(len(ids), matrix.shape[1], generator=generator)
        rows = kept.mean(0) + noise * kept.std(0) * random.to(kept.device)
        matrix[torch.tensor(list(ids))] = rows.to(matrix.dtype)


class OwnRows(nn.Module):
    """Vectors of ids beyond the embedding: input vectors, and an untied head that scores the hidden state
    (LAPA, arXiv:2410.11758).

    The model itself is unchanged: hooks widen its inputs and outputs.

    Args:
        first: the first id; the number of rows of the embedding.
        count: number of ids.
        width: width of the hidden state.
    """

    def __init__(self, first: int, count: int, width: int) -> None:
        super().__init__()
        self.first = first
        self.read = nn.Parameter(torch.zeros(count, width))
        self.write = nn.Parameter(torch.zeros(count, width))
        self._ids = torch.empty(0, dtype=torch.int64)

    @torch.no_grad()
    def begin(self, model: nn.Module, real: int, noise: float, seed: int) -> None:
        """Set the input vectors as new rows would be set, and the head to small numbers."""
        kept = embedding_of(model).weight[:real].float()
        generator = torch.Generator().manual_seed(seed)
        random = torch.randn(self.read.shape, generator=generator)
        self.read.copy_(kept.mean(0) + noise * kept.std(0) * random)
        self.write.copy_(0.02 * torch.randn(self.write.shape, generator=generator))

    def attach(self, model: nn.Module) -> None:
        """Add hooks to a model that widen its inputs and outputs."""
        embedding, writing = embedding_of(model), writing_of(model)

        def before(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            self._ids = given[0]
            return (given[0].clamp(max=self.first - 1), *given[1:])

        def after(module: nn.Module, given: tuple[Any, ...], out: torch.Tensor) -> torch.Tensor:
            own = (self._ids - self.first).clamp(min=0)
            return torch.where((self._ids >= self.first)[..., None], self.read.to(out.dtype)[own], out)

        def widen(module: nn.Module, given: tuple[Any, ...], out: torch.Tensor) -> torch.Tensor:
            scores = nn.functional.linear(given[0], self.write.to(given[0].dtype))
            return torch.cat([out, scores.to(out.dtype)], -1)

        embedding.register_forward_pre_hook(before)
        embedding.register_forward_hook(after)
        writing.register_forward_hook(widen)
