"""What a rollout found: its outcomes, their success rates, and the same as JSON.

The JSON holds every episode with its start, so that `compare` can pair it with another rollout from the same
starts. On a CPU it is equal for equal rollouts, but for `timing`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oxcart.manifests.canonical import pretty_json
from oxcart.shards.errors import ConfigError
from oxcart.train.rollout.play import Outcome
from oxcart.train.rollout.rates import METHOD, SuccessRate, rate_of
from oxcart.train.trained_on import PLACES

FORMAT = "oxcart-rollout/1"


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A policy's episodes, and what they were played with."""

    about: Mapping[str, Any]
    """Run, policy, environment, options, seed and the like, as JSON."""
    outcomes: Sequence[Outcome]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Success of some of the episodes: a row of a table."""

    name: str
    place: str
    """Place of the environments, as the run knows them."""
    rate: SuccessRate
    steps: float | None
    """Mean number of steps of the successes; None if there are none."""


def totals(outcomes: Sequence[Outcome]) -> list[Line]:
    """A line for each place: held out, seen, unknown."""
    return _lines(outcomes, lambda one: one.start.place)


def by_environment(outcomes: Sequence[Outcome]) -> list[Line]:
    """A line for each environment of each place; none if there are no environments."""
    named = [one for one in outcomes if one.start.environment is not None]
    return _lines(named, lambda one: str(one.start.environment))


def by_task(outcomes: Sequence[Outcome]) -> list[Line]:
    """A line for each task in each place."""
    return _lines(outcomes, lambda one: one.task)


def rollout_json(found: Rollout) -> bytes:
    """The rollout as JSON."""
    episodes = [
        {
            "environment": one.start.environment,
            "place": one.start.place,
            "number": one.start.number,
            "seed": one.start.seed,
            "task": one.task,
            "instruction": one.instruction,
            "success": one.success,
            "steps": one.steps,
            "reward": one.reward,
            "actions": one.actions,
            "film": one.film,
        }
        for one in found.outcomes
    ]
    lines = {
        "places": totals(found.outcomes),
        "environments": by_environment(found.outcomes),
        "tasks": by_task(found.outcomes),
    }
    return pretty_json(
        {
            "format": FORMAT,
            "about": dict(found.about),
            "method": METHOD,
            **{name: [_plain(line) for line in some] for name, some in lines.items()},
            "timing": {"act_ms": act_ms(found.outcomes)},
            "episodes": episodes,
        }
    )


def read_rollout(path: Path) -> dict[str, Any]:
    """The JSON of a rollout.

    Raises:
        ConfigError: the file is not one.
    """
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ConfigError(f"RUN: {path} is not the JSON of a rollout; write one with: oxcart rollout --json")
    return found


def act_ms(outcomes: Sequence[Outcome]) -> float:
    """Mean time of the policy per step of an episode, in milliseconds; a chunk's is shared by its steps."""
    return 1000 * sum(one.act_s for one in outcomes) / sum(one.steps for one in outcomes)


def _lines(outcomes: Sequence[Outcome], key: Callable[[Outcome], str]) -> list[Line]:
    groups: dict[tuple[int, str], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((PLACES.index(one.start.place), key(one)), []).append(one)
    lines = []
    for (place, name), some in sorted(groups.items()):
        steps = [one.steps for one in some if one.success]
        lines.append(
            Line(
                name=name,
                place=PLACES[place],
                rate=rate_of(
                    np.array([one.success for one in some]), [one.start.environment for one in some]
                ),
                steps=float(np.mean(steps)) if steps else None,
            )
        )
    return lines


def _plain(line: Line) -> dict[str, Any]:
    return {
        "name": line.name,
        "place": line.place,
        "success": line.rate.value,
        "low": line.rate.interval.low,
        "high": line.rate.interval.high,
        "over": line.rate.over,
        "successes": line.rate.successes,
        "episodes": line.rate.episodes,
        "environments": line.rate.environments,
        "steps": line.steps,
    }
