"""The interface of an evaluation strategy: the data it needs, the numbers it measures, the figures it draws.

    # strategies/mine.py
    def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
        yield context.estimate(pairs, lambda rows: ..., name="mine", title="...", better="high", read="...")

    STRATEGY = Strategy(title="...", about="...", needs=("actions",), measure=measure)

`measure` is called with the codes of the trained model, with those of one that was not trained, and several
times with codes that were shuffled between the pairs: the same function gives a number, its baseline and its
null. `draw` is called once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from oxcart.shards.errors import NotFiniteError
from oxcart.train import statistics
from oxcart.train.device import autocast
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.sentences import SentenceModel
from oxcart.train.flow import FlowMeter
from oxcart.train.laq.model import LatentActionModel, to_float, to_uint8
from oxcart.train.statistics import Floats, Ints, Strings

Better = Literal["high", "low", "none"]

AT_ONCE = 64
"""Number of frames decoded together."""
FEW = 24
"""Minimum number of pairs for a number to be meaningful."""


@dataclass(frozen=True, kw_only=True)
class Number:
    """A measured number with its interval."""

    name: str
    """Name of the number, unique in its strategy."""
    title: str
    """Heading in the table, in a few words."""
    value: float
    low: float | None = None
    """Lower bound of the 95% interval; None if there are too few clusters."""
    high: float | None = None
    """Upper bound of the 95% interval; None if there are too few clusters."""
    over: statistics.Over = "episodes"
    """Clusters that the interval goes by; with `episodes`, the number is of these environments alone."""
    clusters: int = 0
    """Number of those clusters."""
    better: Better = "none"
    """Direction in which a model is better; `none` for a number that only describes."""
    read: str
    """How to interpret the number, in a sentence."""
    unit: str = ""
    of: str = ""
    """Name of the action value that the number is about; "" if it is about no single one."""
    null_is_best: bool = False
    """Whether chance is the best result, because codes should contain nothing about the question."""


@dataclass(frozen=True, kw_only=True)
class Skip:
    """A number, or a whole strategy, that cannot be measured, with the reason."""

    what: str
    because: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of the page."""

    title: str
    png: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Numbers behind the figures."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[Any]]


@dataclass(frozen=True, kw_only=True)
class Context:
    """Resources for a strategy besides the pairs."""

    model: LatentActionModel
    """The model that coded the pairs, in eval mode."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Device of the model."""
    meter: FlowMeter | None = None
    """Flow meter; None if the pairs have no flow either."""
    sentences: SentenceModel | None = None
    """Embeds instructions; None if they are compared by their words."""
    seed: int = 0
    """Seed of all random draws."""
    quick: bool = False
    """Whether to leave out intervals."""
    seen: GatheredPairs | None = None
    """Pairs of environments that the run was trained on, as coded by the same model, for what is fitted on
    them and judged on those that are measured; None if those that are measured are not held out."""

    @torch.no_grad()
    def decode(self, first: npt.NDArray[np.uint8], codes: Ints) -> npt.NDArray[np.uint8]:
        """Frames t + k, uint8 [F, H, W, 3], from frames t of that shape and codes [F, n]."""
        made = []
        for begin in range(0, len(first), AT_ONCE):
            some = slice(begin, begin + AT_ONCE)
            frames = to_float(torch.from_numpy(first[some])[:, None].to(self.device))[:, 0]
            given = torch.from_numpy(codes[some]).to(self.device)
            pixels = self.model.decode(frames, given).clamp(-1, 1)
            if not pixels.isfinite().all():
                raise NotFiniteError("frames that the model decodes are not finite")
            made.append(to_uint8(pixels[:, None])[:, 0].cpu().numpy())
        return np.concatenate(made) if made else first.copy()

    @torch.no_grad()
    def latents(self, frames: npt.NDArray[np.uint8]) -> Floats:
        """Latents [F, n, d], as they are compared with code vectors, of frames uint8 [F, 2, H, W, 3]."""
        found = []
        for begin in range(0, len(frames), AT_ONCE):
            pixels = to_float(torch.from_numpy(frames[begin : begin + AT_ONCE]).to(self.device))
            with autocast(self.model.bf16, self.device):
                latents = self.model.latents(pixels).float()
            found.append(self.model.quantizer.bounded(latents).cpu().double().numpy())
        return np.concatenate(found)

    def estimate(
        self,
        units: statistics.Units,
        statistic: statistics.Statistic,
        *,
        by: Callable[[statistics.Statistic, Ints, int], statistics.Interval | None] = statistics.jackknife,
        title: str,
        **about: Any,
    ) -> Number | Skip:
        """Compute a number with its interval; a Skip if the pairs do not determine it.

        Args:
            units: [N]: where each row comes from, such as `pairs.units`.
            statistic: of rows; see `oxcart.train.statistics`.
            by: `jackknife`, or `jackknife_cosine` for a number between -1 and 1.
            title: heading of the number.
            about: other fields of the number.
        """
        value = statistic(np.arange(len(units)))
        if not math.isfinite(value):
            return Skip(what=title, because="these pairs do not determine it")
        clusters = units.clusters
        found = None if self.quick else by(statistic, clusters, self.seed)
        low, high = found or (None, None)
        over, number = units.over, int(clusters.max()) + 1
        return Number(title=title, value=value, low=low, high=high, over=over, clusters=number, **about)


def _draw_nothing(pairs: GatheredPairs, context: Context) -> Iterator[Figure | Table | Skip]:
    return iter(())


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A question about codes that evaluation answers; see the module."""

    title: str
    """Heading of the section."""
    about: str
    """The question that the strategy answers, in a sentence or two."""
    needs: tuple[str, ...] = ()
    """Data that the pairs must have: `actions`, `motion`, `state`, `flow`, `frames`, `instruction`."""
    measure: Callable[[GatheredPairs, Context], Iterator[Number | Skip]]
    """Function that yields numbers; it is called many times."""
    draw: Callable[[GatheredPairs, Context], Iterator[Figure | Table | Skip]] = _draw_nothing
    """Function that yields figures and tables, or why there is none; it is called once."""
    place: int = 100
    """Position in the report; smaller values come first."""
    shuffles: bool = True
    """Whether shuffled codes can give other numbers."""
    decodes: bool = False
    """Whether measuring runs the decoder, which is slow, so that fewer shuffles are measured."""


def lacking(pairs: GatheredPairs, needs: Sequence[str]) -> str | None:
    """Reason why a strategy cannot use the pairs; None if it can."""
    for need in needs:
        if need == "instruction":
            if not (pairs.instruction != "").any():
                return "no pair has an instruction"
        elif getattr(pairs, need) is None:
            return absent(pairs, need)
        elif need in ("actions", "motion", "state"):
            some = pairs.having(need)
            if len(some) < FEW:
                return f"{len(some)} pairs have {need}; at least {FEW} are needed"
            if need == "state" and not some.state_columns:
                return "datasets have no column of states in common"
    if len(pairs) < FEW:
        return f"{len(pairs)} pairs are too few; at least {FEW} are needed"
    if (pairs.codes == pairs.codes[0]).all():
        return "all pairs have the same codes, so the codes say nothing"
    return None


def absent(pairs: GatheredPairs, *names: str) -> str:
    """Reason why the pairs lack the given data."""
    of = {"motion": pairs.missing.get("actions", "no dataset has a motion")}
    return ", and ".join(pairs.missing.get(name, of.get(name, f"there are no {name}")) for name in names)


def environments(pairs: GatheredPairs) -> Strings:
    """Name of the environment of each pair, with that of its dataset if there are several; "" if unknown."""
    if len(np.unique(pairs.dataset)) == 1:
        return pairs.environment
    named = np.char.add(np.char.add(pairs.dataset, ": "), pairs.environment)
    found: Strings = np.where(pairs.environment == "", "", named)
    return found


def groupings(pairs: GatheredPairs) -> Iterator[tuple[str, Strings] | Skip]:
    """Ways to group pairs: kind (`environments`, `datasets`) and the group of each pair, "" where unknown.

    A way with fewer than two groups is a Skip.
    """
    several = len(np.unique(pairs.dataset)) > 1
    places = environments(pairs)
    known = np.unique(places[places != ""])
    if len(known) > 1:
        yield "environments", places
    else:
        what = f"only {known[0]} is known" if len(known) else "none is known"
        yield Skip(what="between environments", because=f"of environments {what}")
    if several:
        yield "datasets", pairs.dataset
    else:
        yield Skip(what="between datasets", because=f"there is one dataset, {pairs.dataset[0]}")


def widest(pairs: GatheredPairs) -> tuple[str, Strings] | None:
    """The widest of `groupings`: datasets if there are several, else environments; None if neither."""
    found = [way for way in groupings(pairs) if not isinstance(way, Skip)]
    return found[-1] if found else None
