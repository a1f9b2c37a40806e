"""The page of a rollout: success where it was seen and where not, per environment and task, and what failed.

`oxcart.manifests.page` says what makes the page safe to open and to mail. Strips are part of the page; films
are links to the files beside it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from urllib.parse import quote

from oxcart.manifests.page import render
from oxcart.train.rollout.play import Outcome
from oxcart.train.rollout.rates import METHOD, SuccessRate
from oxcart.train.rollout.results import Line, Rollout, act_ms, by_environment, by_task, totals
from oxcart.train.statistics import FEWEST_ENVIRONMENTS
from oxcart.train.trained_on import HELD_OUT, SEEN

MOST_FAILURES, MOST_SUCCESSES = 24, 6
"""Strips that the page shows."""
GOOD, BAD = 0.8, 0.3
"""Success above and below which the headline is green or red."""


def rollout_page(found: Rollout, *, films: str | None) -> bytes:
    """The page, in UTF-8.

    Args:
        found: the rollout.
        films: address of the folder of films, as the page has it; None if there are none.
    """
    outcomes, lines = found.outcomes, totals(found.outcomes)
    failures = [one for one in outcomes if not one.success]
    successes = [one for one in outcomes if one.success]
    return render(
        "oxcart.train.rollout",
        "rollout.html",
        about=found.about,
        headline=_headline(lines),
        tone=_tone(lines[0]),
        because=_because(lines, found),
        totals=lines,
        tables=[
            (title, some)
            for title, some in (("Task", by_task(outcomes)), ("Environment", by_environment(outcomes)))
            if some
        ],
        strips=[
            (title, some[:most], len(some))
            for title, some, most in (
                ("Failures", _spread(failures), MOST_FAILURES),
                ("Successes", _spread(successes), MOST_SUCCESSES),
            )
            if some
        ],
        method=METHOD,
        percent=percent,
        interval=interval,
        image=lambda data: "data:image/jpeg;base64," + base64.b64encode(data).decode(),
        film=lambda one: None if films is None or one.film is None else f"{films}/{quote(one.film)}",
    )


def percent(share: float) -> str:
    """A share with one decimal, or none where there are few digits to it: `62.5%`, `100%`."""
    return f"{100 * share:.1f}".removesuffix(".0") + "%"


def interval(rate: SuccessRate) -> str:
    """The interval of a success rate: `55.1% to 68.9%`."""
    return f"{percent(rate.interval.low)} to {percent(rate.interval.high)}"


def _headline(lines: Sequence[Line]) -> str:
    first, *rest = lines
    text = f"{percent(first.rate.value)} success"
    if first.place in (HELD_OUT, SEEN):
        text += f" in environments {'never seen' if first.place == HELD_OUT else 'of its training'}"
    seen = [line for line in rest if line.place == SEEN]
    return f"{text}, {percent(seen[0].rate.value)} in those it was trained in" if seen else text


def _tone(line: Line) -> str:
    value = line.rate.value
    return "good" if value >= GOOD else "bad" if value < BAD else "odd"


def _because(lines: Sequence[Line], found: Rollout) -> list[str]:
    said = []
    for line in lines:
        rate = line.rate
        where = f" in {rate.environments:,} environments" if rate.environments else ""
        steps = "" if line.steps is None else f"; a success takes {line.steps:.1f} steps"
        said.append(f"{line.place}: {rate.successes:,} of {rate.episodes:,} episodes{where}{steps}")
    few = lines[0].rate
    if few.environments and few.over == "episodes":
        said.append(
            f"intervals are of these environments alone: {few.environments} are fewer than "
            f"{FEWEST_ENVIRONMENTS}"
        )
    said.append(f"the policy takes {act_ms(found.outcomes):.1f} ms per step of an episode")
    return said


def _spread(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """One outcome of each environment, then a second one of each, and so on."""
    turns: dict[str | None, int] = {}
    numbered = []
    for one in outcomes:
        turn = turns[one.start.environment] = turns.get(one.start.environment, -1) + 1
        numbered.append((turn, one))
    return [one for _, one in sorted(numbered, key=lambda pair: pair[0])]
