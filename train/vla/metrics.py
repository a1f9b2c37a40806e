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
    groups: dict[str, Ints] = {}
    for name in dict.fromkeys(train.instructions):
        groups[name] = np.array([i for i, one in enumerate(train.instructions) if one == name])
    own = [groups.get(name, everything) for name in held_out.instructions]
    nearest = np.array(
        [
            rows[((train.thumbs[rows] - thumb) ** 2).sum(1).argmin()]
            for rows, thumb in zip(own, held_out.thumbs, strict=True)
        ]
    )
    copied = train.codes[nearest]
    return {
        "unigram": _frequent(train, [everything] * len(own), held_out, size),
        "instruction": _frequent(train, own, held_out, size),
        "nearest": Guess(codes=copied, whole=copied, nll=None),
    }


def _frequent(train: CodedSamples, rows: Sequence[Ints], held_out: CodedSamples, size: int) -> Guess:
    known: dict[int, tuple[Ints, Ints, Floats]] = {}
    codes, whole, nll = [], [], []
    places = np.arange(train.codes.shape[1])
    for some, true in zip(rows, held_out.codes, strict=True):
        if id(some) not in known:
            own = train.codes[some]
            counts = np.stack([np.bincount(own[:, i], minlength=size) for i in places]) + SMOOTH
            actions, times = np.unique(own, axis=0, return_counts=True)
            shares = counts / counts.sum(1, keepdims=True)
            known[id(some)] = counts.argmax(1), actions[times.argmax()], shares
        best, action, shares = known[id(some)]
        codes.append(best)
        whole.append(action)
        nll.append(-np.log(shares[places, true]))
    return Guess(codes=np.stack(codes), whole=np.stack(whole), nll=np.stack(nll))


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
