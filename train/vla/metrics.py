"""Metrics of emitted codes, beside baselines that need no model.

    accuracy            share of codes that are right; exact: of whole actions
    nll                 mean negative log-probability of a code among codes, in nats
    unigram_*           the most frequent code at each place (exact: the most frequent action)
    instruction_*       the same among samples of train with the same instruction
    nearest_*           the codes of the sample of train whose frame is nearest, among those with the same
                        instruction where there are any

Intervals hold with 95% confidence, over environments if there are five, else episodes (`intervals_over`).
A gain is that of the model over a baseline on the same samples: `*_gain` in codes that are right,
`*_nll_gain` in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oxcart.train.statistics import Floats, Ints, Units, jackknife

SMOOTH = 0.5
"""Pseudo-count added to every count, so that no code has probability 0."""


@dataclass(frozen=True, kw_only=True)
class CodedSamples:
    """Samples of one dataset and split."""

    codes: Ints
    """[N, n]: true codes."""
    thumbs: Floats
    """[N, D]: pixels of small frames."""
    instructions: list[str]
    """Instruction of each sample."""
    units: Units
    """Where each sample comes from."""


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Guesses of a baseline for some samples."""

    codes: Ints
    """[N, n]: best guess for each code separately."""
    whole: Ints
    """[N, n]: best guess of whole actions."""
    nll: Floats | None
    """[N, n]: negative log-probability of the true codes; None where the baseline has no probabilities."""


def guesses(train: CodedSamples, held_out: CodedSamples, size: int) -> dict[str, Guess]:
    """Guesses of every baseline.

    Args:
        train: samples from which baselines are made.
        held_out: samples to guess.
        size: entries of the codebook.
    """
    everything = np.arange(len(train.codes))
    said, asked = np.array(train.instructions), np.array(held_out.instructions)
    groups = []
    for text in np.unique(asked):
        own = np.flatnonzero(said == text)
        groups.append((np.flatnonzero(asked == text), own if len(own) else everything))
    nearest = np.empty(len(asked), np.int64)
    for mine, own in groups:
        for row in mine:  # exact, so that of equal frames the first one is the nearest
            nearest[row] = own[((train.thumbs[own] - held_out.thumbs[row]) ** 2).sum(1).argmin()]
    copied = train.codes[nearest]
    return {
        "unigram": _frequent(train, [(np.arange(len(asked)), everything)], held_out, size),
        "instruction": _frequent(train, groups, held_out, size),
        "nearest": Guess(codes=copied, whole=copied, nll=None),
    }


def _frequent(
    train: CodedSamples, groups: Sequence[tuple[Ints, Ints]], held_out: CodedSamples, size: int
) -> Guess:
    """The most frequent codes, given rows of `held_out` and the rows of `train` that speak of them."""
    true = held_out.codes
    codes, whole, nll = np.empty_like(true), np.empty_like(true), np.empty(true.shape)
    for mine, own in groups:
        counts = np.stack([np.bincount(place, minlength=size) for place in train.codes[own].T]) + SMOOTH
        actions, times = np.unique(train.codes[own], axis=0, return_counts=True)
        shares = counts / counts.sum(1, keepdims=True)
        codes[mine], whole[mine] = counts.argmax(1), actions[times.argmax()]
        nll[mine] = -np.log(shares[np.arange(len(shares)), true[mine]])
    return Guess(codes=codes, whole=whole, nll=nll)


def measure(
    held_out: CodedSamples, codes: Ints, nll: Floats, baselines: dict[str, Guess], size: int
) -> dict[str, Any]:
    """Metrics of one dataset and split.

    Args:
        held_out: the samples.
        codes: codes [N, n] that the model emits.
        nll: negative log-probabilities of the true codes, [N, n].
        baselines: of `guesses`.
        size: entries of the codebook.
    """
    true, clusters = held_out.codes, held_out.units.clusters

    def mean(name: str, values: Floats) -> dict[str, float | None]:
        """The mean of values [N], with its interval."""
        low, high = jackknife(lambda rows: float(values[rows].mean()), clusters) or (None, None)
        return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}

    right, exact = (codes == true).mean(1), (codes == true).all(1).astype(np.float64)
    found: dict[str, Any] = {
        "nll": float(nll.mean()),
        **mean("accuracy", right),
        **mean("exact", exact),
        "samples": len(true),
        "intervals_over": held_out.units.over,
    }
    for name, guess in baselines.items():
        own = (guess.codes == true).mean(1)
        whole = (guess.whole == true).all(1).astype(np.float64)
        found[f"{name}_accuracy"], found[f"{name}_exact"] = float(own.mean()), float(whole.mean())
        if guess.nll is not None:
            found[f"{name}_nll"] = float(guess.nll.mean())
            found |= mean(f"{name}_nll_gain", (guess.nll - nll).mean(1))
        found |= mean(f"{name}_gain", right - own)
    found["confusion"] = confusion(true, codes, size).tolist()
    for name, some in (("predicted", codes), ("true", true)):
        found[name] = [np.bincount(some[:, i], minlength=size).tolist() for i in range(some.shape[1])]
    return found


def confusion(true: Ints, codes: Ints, size: int) -> Ints:
    """Counts [K, K] of true codes [row] taken for codes [column], over all places."""
    return np.bincount(true.ravel() * size + codes.ravel(), minlength=size * size).reshape(size, size)
