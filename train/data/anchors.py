"""The steps of each episode at which a sample may be taken: where all that it asks for exists, and moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.shards.errors import ConfigError
from oxcart.train.data.activity import ActiveSteps, open_active
from oxcart.train.data.config import LoaderConfig
from oxcart.train.data.index import SplitIndex
from oxcart.train.data.sampling import RelativeSteps, TooShortError, Window, ends_of

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """The anchors of every episode of one dataset."""

    first: Int64
    """[N]: first anchor of each episode, if it has any."""
    room: Int64
    """[N]: number of anchors of each episode."""
    active: ActiveSteps | None
    """The anchors at which something happens; None means all of them."""

    @classmethod
    def of(cls, index: SplitIndex, config: LoaderConfig, relative: RelativeSteps) -> Anchors:
        """The anchors of a dataset.

        Args:
            index: episodes of the dataset.
            config: settings of the loader.
            relative: its window in steps of this dataset.

        Raises:
            TooShortError: no episode is long enough for a sample.
            ConfigError: no sample moves enough, or an annotation that says so is missing.
        """
        window = config.sample.window
        first, room = _whole(index, window, relative)
        room = np.maximum(room - window.leave, 0)
        active = open_active(
            index,
            config.motion,
            config.thresholds,
            config.idle,
            first,
            room,
            relative.seen,
            window.leave,
        )
        room = room if active is None else active.room
        if room.any():
            return cls(first=first, room=room, active=active)
        where = f"{index.dataset.store.url}, {index.split}"
        if active is not None and active.before:
            names = ", ".join(f"min_{name}" for name in config.thresholds)
            raise ConfigError(
                f"{names}: none of the {active.before:,} steps of {where} is among {active.said}; "
                "choose a lower threshold"
            )
        raise TooShortError(_too_short(index, window, relative, where))

    def at(self, episodes: Int64, numbers: Int64) -> Int64:
        """The steps of anchors, each given by its episode and its number among those of the episode."""
        if self.active is not None:
            return self.active.at(episodes, numbers)
        return self.first[episodes] + numbers


def reach(window: Window, relative: RelativeSteps, *, scored: bool) -> list[Any]:
    """How far a window reaches from t, as plain JSON: part of what decides the order.

    Args:
        window: the window.
        relative: its steps.
        scored: whether samples are chosen by what happens between their first frame and their last.
    """
    seen = [list(relative.seen)] if scored else []
    if window.pad == "repeat":
        return seen
    action = [] if relative.action is None else list(ends_of([relative.action]))
    return [*seen, list(_kept(relative)), action]


def _kept(relative: RelativeSteps) -> tuple[int, int]:
    """First and last step of frames and states."""
    state = [] if relative.state is None else [relative.state]
    return ends_of([*relative.frames.values(), *state])


def _whole(index: SplitIndex, window: Window, relative: RelativeSteps) -> tuple[Int64, Int64]:
    """First anchor and number of anchors of each episode, whatever moves."""
    steps = index.steps.astype(np.int64)
    if window.pad == "repeat":
        return np.broadcast_to(np.int64(0), steps.shape), steps
    low, high = _kept(relative)
    first, stop = np.full(len(steps), max(0, -low)), steps - max(0, high)
    if relative.action is not None:
        assert index.acts is not None
        low, high = ends_of([relative.action])
        first = np.maximum(first, index.acts[:, 0] - low)
        stop = np.minimum(stop, index.acts[:, 1] - high)
    return first, np.maximum(stop - first, 0)


def _too_short(index: SplitIndex, window: Window, relative: RelativeSteps, where: str) -> str:
    low, high = _kept(relative)
    action = relative.action
    if action is not None:
        ends = ends_of([action])
        low, high = min(low, ends[0]), max(high, ends[1])
    long = max(high, 0) - min(low, 0) + 1 + window.leave
    acting = "" if action is None or window.pad == "repeat" else " and an action wherever one is asked for"
    return (
        f"sample: needs {long:,} steps in a row{acting}, which no episode of {where} has; "
        f"the longest has {index.steps.max():,}"
    )
