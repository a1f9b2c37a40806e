"""Run strategies: numbers for the trained model, beside those for an untrained model and for shuffled codes.

    analysis = evaluate(trained, untrained, strategies.load(["compass"]))

A `Subject` is gathered pairs with the model that coded them. What counts are the pairs that are held out
from the run: each strategy measures those of both subjects, with intervals, and the trained one's again with
shuffled codes, several times: that is the null, with its mean and 95% range. The same number of the pairs
that the run has seen stands beside it. What cannot be measured is listed once, with the reason.

Where no pair is held out, the numbers are of those that are seen, or of which nobody knows. Then they judge
nothing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from threadpoolctl import threadpool_limits

from oxcart.shards.errors import ConfigError
from oxcart.train import statistics
from oxcart.train.data.order import derive
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import Context, Figure, Number, Skip, Strategy, Table, lacking
from oxcart.train.evaluate.subsets import Subset
from oxcart.train.ranks import ALONE, Ranks, gathered
from oxcart.train.trained_on import HELD_OUT, PLACES, SEEN

SHUFFLES, SHUFFLES_DECODED = 20, 8
"""Number of shuffles of the codes for the null; the second is for strategies that run the decoder."""
LEAST_SHUFFLES = 3
"""Minimum number of shuffles of a null, to estimate their spread."""

Verdict = Literal["clear", "not told apart", "on the wrong side", "describes", "not held out"]
TONES: dict[Verdict, str] = {
    "clear": "good",
    "not told apart": "odd",
    "on the wrong side": "bad",
    "describes": "none",
    "not held out": "none",
}
"""Every verdict, and the tone that gives it its colour."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Gathered pairs, and the model that coded them."""

    pairs: GatheredPairs
    context: Context


@dataclass(frozen=True, kw_only=True)
class Null:
    """Value of a number for shuffled codes."""

    value: float
    low: float
    """Lower bound of the 95% range of one more shuffle."""
    high: float
    """Upper bound of the 95% range of one more shuffle."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A number beside the values with which it is compared."""

    strategy: str
    number: Number
    """The number of the pairs of `Analysis.place`."""
    seen: Number | None
    """The number of the pairs that the run has seen; None if it cannot be taken, or nothing is held out."""
    untrained: Number | None
    null: Null | None
    verdict: Verdict
    """`clear`: the interval lies beyond the untrained model's, and beyond the null, on the better side;
    `on the wrong side`: beyond one of them on the other side; `not told apart`: neither; `describes`: the
    number does not judge; `not held out`: the pairs are not held out, so it cannot."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """The results of one strategy."""

    name: str
    title: str
    """The strategy's heading."""
    about: str
    """The question that it answers."""
    rows: list[Row]
    skips: list[Skip]
    figures: list[Figure]
    tables: list[Table]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many pairs of a place there are."""

    pairs: int
    episodes: int
    environments: int


@dataclass(frozen=True, kw_only=True)
class SubsetNumbers:
    """Numbers of only the pairs of a subset."""

    subset: Subset
    place: str
    """Place of the pairs: `held out` if the subset has any, else `seen` or `unknown`."""
    pairs: int
    numbers: dict[tuple[str, str], Number]
    """Numbers of the subset, by (strategy, name)."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The results of an evaluation."""

    sections: list[Section]
    subsets: list[SubsetNumbers]
    place: str
    """Place of the pairs that are measured: `held out` if there are any, else `seen` or `unknown`."""
    counts: dict[str, Counts]
    """Place -> its pairs, episodes and environments, for places that have pairs."""
    about: dict[str, Any] = field(default_factory=dict)
    """The subject and the settings of the evaluation, as plain JSON."""

    def rows(self) -> list[Row]:
        """Rows of all sections."""
        return [row for section in self.sections for row in section.rows]

    def scalars(self) -> dict[str, float]:
        """`strategy/name` -> value, for metrics; with the place before it if nothing is held out."""
        before = "" if self.place == HELD_OUT else f"{self.place}/"
        return {f"{before}{row.strategy}/{row.number.name}": row.number.value for row in self.rows()}


def told(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Names of the action values that codes tell, and of those that they do not.

    A value is told if the intervals of all numbers about it lie above 0: codes predict it better than the
    mean does, and better than the frame does.
    """
    lowest: dict[str, list[float]] = {}
    for number in (row.number for row in rows if row.number.of):
        lowest.setdefault(number.of, []).append(-math.inf if number.low is None else number.low)
    found = [name for name, lows in lowest.items() if min(lows) > 0]
    return found, [name for name in lowest if name not in found]


def evaluate(
    trained: Subject,
    untrained: Subject | None,
    chosen: Mapping[str, Strategy],
    *,
    subsets: Sequence[Subset] = (),
    figures: bool = True,
    shuffles: int = SHUFFLES,
    report: Callable[[int], None] = lambda done: None,
    ranks: Ranks = ALONE,
) -> Analysis:
    """Run strategies.

    Args:
        trained: pairs as coded by the trained model.
        untrained: the same pairs as coded by an untrained model; None leaves the comparison out.
        chosen: strategies by name.
        subsets: parts of the pairs to report as well.
        figures: whether to draw figures.
        shuffles: shuffles of the codes; 0 gives no null.
        report: is told the strategies done.
        ranks: the processes that share the strategies; each gets all results.

    Raises:
        ConfigError: a subset holds no pair.
    """
    place = place_of(trained.pairs)
    masks = [(subset, subset.mask(trained.pairs)) for subset in subsets]
    for subset, mask in masks:
        if not mask.any():
            raise ConfigError(f"subset {subset.name!r}: no pair of {' and '.join(subset.rules)}")
    measured, other = _at(trained, place), None if untrained is None else _at(untrained, place)
    beside = measured.context.seen
    seen = None if beside is None else Subject(pairs=beside, context=trained.context)
    parts = [(subset, trained.pairs.take(mask)) for subset, mask in masks]
    places = [place_of(part) for _, part in parts]
    names = list(chosen)

    def run(first: int) -> list[tuple[int, Any]]:
        """The results of this rank's strategy, of those that start at `first`."""
        number = first + ranks.process_index
        if number >= len(names):
            return []
        name, strategy = names[number], chosen[names[number]]
        section = _section(name, strategy, measured, seen, other, figures, shuffles)
        of_parts = [
            [
                one
                for one in _measure(strategy, Subject(pairs=part.at(where), context=measured.context))[0]
                if one.better != "none"
            ]
            for (_, part), where in zip(parts, places, strict=True)
        ]
        return [(number, (section, of_parts))]

    found: list[Any] = []
    for first in range(0, len(names), ranks.num_processes):
        found += [result for _, result in gathered(partial(run, first), ranks)]
        report(len(found))
    return Analysis(
        sections=[section for section, _ in found],
        subsets=[
            SubsetNumbers(
                subset=subset,
                place=places[i],
                pairs=int((part.place == places[i]).sum()),
                numbers={
                    (name, number.name): number
                    for name, (_, of_parts) in zip(names, found, strict=True)
                    for number in of_parts[i]
                },
            )
            for i, (subset, part) in enumerate(parts)
        ],
        place=place,
        counts={
            name: _counts(trained.pairs.at(name)) for name in PLACES if (trained.pairs.place == name).any()
        },
    )


def place_of(pairs: GatheredPairs) -> str:
    """The place whose pairs are measured: `held out` if there are any, else `seen`, else `unknown`."""
    return next(name for name in PLACES if (pairs.place == name).any())


def _at(subject: Subject, place: str) -> Subject:
    """The subject's pairs of a place; for those held out, beside the pairs that the run has seen."""
    pairs = subject.pairs
    seen = pairs.at(SEEN) if place == HELD_OUT and (pairs.place == SEEN).any() else None
    return Subject(pairs=pairs.at(place), context=replace(subject.context, seen=seen))


def _counts(pairs: GatheredPairs) -> Counts:
    environments = {*zip(pairs.dataset.tolist(), pairs.environment.tolist(), strict=True)}
    return Counts(
        pairs=len(pairs),
        episodes=len(np.unique(pairs.episodes)),
        environments=sum(bool(name) for _, name in environments),
    )


def _section(
    name: str,
    strategy: Strategy,
    trained: Subject,
    seen: Subject | None,
    untrained: Subject | None,
    figures: bool,
    shuffles: int,
) -> Section:
    held_out = (trained.pairs.place == HELD_OUT).all()
    numbers, skips = _measure(strategy, trained)
    of_seen = {} if seen is None else {one.name: one for one in _measure(strategy, seen)[0]}
    others = {} if untrained is None else {one.name: one for one in _measure(strategy, untrained)[0]}
    nulls = _nulls(strategy, trained, shuffles) if numbers and strategy.shuffles else {}
    rows = []
    for number in numbers:
        other, null = others.get(number.name), nulls.get(number.name)
        verdict = _verdict(number, [other, None if number.null_is_best else null])
        if verdict != "describes" and not held_out:
            verdict = "not held out"
        rows.append(
            Row(
                strategy=name,
                number=number,
                seen=of_seen.get(number.name),
                untrained=other,
                null=null,
                verdict=verdict,
            )
        )
    drawn: list[Figure | Table | Skip] = []
    if figures and lacking(trained.pairs, strategy.needs) is None:
        drawn = list(strategy.draw(trained.pairs, trained.context))
    return Section(
        name=name,
        title=strategy.title,
        about=strategy.about,
        rows=rows,
        skips=skips + [one for one in drawn if isinstance(one, Skip)],
        figures=[one for one in drawn if isinstance(one, Figure)],
        tables=[one for one in drawn if isinstance(one, Table)],
    )


def _measure(strategy: Strategy, subject: Subject) -> tuple[list[Number], list[Skip]]:
    """Measured numbers, all of them finite, and skipped measurements."""
    why = lacking(subject.pairs, strategy.needs)
    if why is not None:
        return [], [Skip(what=strategy.title, because=why)]
    # Threads of BLAS and k-means cost more than they save at this size; torch keeps its own for decoding.
    with contextlib.nullcontext() if strategy.decodes else threadpool_limits(1):
        found = list(strategy.measure(subject.pairs, subject.context))
    numbers = [one for one in found if isinstance(one, Number)]
    assert all(math.isfinite(one.value) for one in numbers), strategy.title
    return numbers, [one for one in found if isinstance(one, Skip)]


def _nulls(strategy: Strategy, trained: Subject, shuffles: int) -> dict[str, Null]:
    """Name of each number -> its value for codes of other pairs."""
    values: dict[str, list[float]] = {}
    for i in range(min(shuffles, SHUFFLES_DECODED) if strategy.decodes else shuffles):
        seed = derive(trained.context.seed, 43, i)
        within = _measure(strategy, _shuffled(trained, seed))[0]
        if any(number.null_is_best for number in within):
            # Only a shuffle of single episodes removes what codes say of their environment and dataset.
            other = _shuffled(trained, seed, anywhere=True)
            anywhere = {number.name: number for number in _measure(strategy, other)[0]}
            within = [anywhere.get(one.name, one) if one.null_is_best else one for one in within]
        for number in within:
            values.setdefault(number.name, []).append(number.value)
    found = {}
    for name, drawn in values.items():
        if len(drawn) < LEAST_SHUFFLES:
            continue
        mean = float(np.mean(drawn))
        # The range of one more shuffle: few shuffles tell little of how far they spread.
        factor = statistics.student(len(drawn) - 1) * math.sqrt(1 + 1 / len(drawn))
        spread = factor * float(np.std(drawn, ddof=1))
        found[name] = Null(value=mean, low=mean - spread, high=mean + spread)
    return found


def _shuffled(subject: Subject, seed: int, *, anywhere: bool = False) -> Subject:
    """The subject with codes of other episodes, measured without intervals."""
    seen = subject.context.seen
    context = replace(
        subject.context, quick=True, seen=None if seen is None else seen.shuffled(seed, anywhere=anywhere)
    )
    return Subject(pairs=subject.pairs.shuffled(seed, anywhere=anywhere), context=context)


def _verdict(number: Number, others: Sequence[Number | Null | None]) -> Verdict:
    """Compare a number with other values; those that are None are left out."""
    if number.better == "none":
        return "describes"
    sign = 1 if number.better == "high" else -1
    bounds = []
    for one in (number, *(other for other in others if other is not None)):
        if one.low is None or one.high is None:
            return "not told apart"
        bounds.append(sorted((sign * one.low, sign * one.high)))
    (low, high), *beside = bounds
    if beside and all(low > bound[1] for bound in beside):
        return "clear"
    return "on the wrong side" if any(high < bound[0] for bound in beside) else "not told apart"
