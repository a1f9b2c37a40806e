"""Rollouts side by side: success of each, and what pairs of episodes from the same starts say.

    compare_rollouts([Path("cloned.json"), Path("codes.json")])

Each rollout is compared with the first, place by place, over the starts that both have. Whoever compares many
finds a small p-value by chance; nothing here corrects for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.train.rollout.rates import Paired, SuccessRate, difference_of, rate_of
from oxcart.train.rollout.results import read_rollout
from oxcart.train.trained_on import PLACES

Key = tuple[str | None, int, int]
"""Environment, number and seed of a start."""

SAME = ("env", "options", "adapter")
"""What two rollouts must have in common for their starts to be the same."""


@dataclass(frozen=True, kw_only=True)
class Against:
    """A rollout in one place, and how it differs from the first rollout there."""

    name: str
    place: str
    rate: SuccessRate
    difference: Paired | None
    """This rollout less the first; None for the first itself, and where they share no start."""


def compare_rollouts(paths: Sequence[Path]) -> list[Against]:
    """Compare rollouts by their JSON.

    Raises:
        ConfigError: a file is not the JSON of a rollout, or the worlds or all of the starts differ.
        CorruptError: a file is damaged.
    """
    read = [read_rollout(path) for path in paths]
    try:
        abouts, episodes = [one["about"] for one in read], [_episodes(one) for one in read]
        names = [Path(about["run"]).name for about in abouts]
        for path, about in zip(paths, abouts, strict=True):
            for name in SAME:
                if about[name] != abouts[0][name]:
                    raise ConfigError(
                        f"RUN: {path} was played in another world than {paths[0]}: {name} is "
                        f"{about[name]!r}, not {abouts[0][name]!r}"
                    )
        names = names if len(set(names)) == len(names) else [str(path) for path in paths]
        for path, own in zip(paths[1:], episodes[1:], strict=True):
            if not own.keys() & episodes[0].keys():
                raise ConfigError(
                    f"RUN: {path} and {paths[0]} share no start; play both with one --seed and --split"
                )
        return [
            _against(name, place, own, episodes[0], first=number == 0)
            for place in PLACES
            for number, (name, own) in enumerate(zip(names, episodes, strict=True))
            if any(one["place"] == place for one in own.values())
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise CorruptError(f"RUN: one of {', '.join(map(str, paths))} is damaged: {error!r}") from error


def _episodes(read: Mapping[str, Any]) -> dict[Key, Mapping[str, Any]]:
    return {(one["environment"], int(one["number"]), int(one["seed"])): one for one in read["episodes"]}


def _against(
    name: str,
    place: str,
    own: Mapping[Key, Mapping[str, Any]],
    others: Mapping[Key, Mapping[str, Any]],
    *,
    first: bool,
) -> Against:
    here = {key: bool(one["success"]) for key, one in own.items() if one["place"] == place}
    shared = [key for key in here if key in others]
    return Against(
        name=name,
        place=place,
        rate=rate_of(np.array(list(here.values())), [environment for environment, _, _ in here]),
        difference=None
        if first or not shared
        else difference_of(
            np.array([here[key] for key in shared]),
            np.array([bool(others[key]["success"]) for key in shared]),
            [environment for environment, _, _ in shared],
        ),
    )
