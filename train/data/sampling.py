"""Kinds of samples (a pair of frames of one episode, or a single frame), and the step at which each begins.

Steps come from a counter-based hash of (key, epoch, episode, draw): there is no state, the order of calls
does not matter, and an episode gives the same steps whatever other episodes there are. A pair never leaves
its episode and is never clamped; an episode that is too short gives no sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from oxcart.shards.errors import ConfigError
from oxcart.train.data.order import Samples, derive, splitmix64

Int64 = npt.NDArray[np.int64]

MOST = 1 << 20
"""Maximum number of draws per episode and epoch."""


class TooShortError(ConfigError):
    """No episode of a split is long enough for one sample."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Single frames.

    Raises:
        ConfigError: `per_episode` is neither a positive number nor "all"; `leave` is negative.
    """

    per_episode: int | str = 1
    """Draws per episode and epoch; "all" takes every step once."""
    leave: int = 0
    """Steps to leave out at the end of each episode, such as those without codes."""
    shape: ClassVar[tuple[int, ...]] = ()
    """Shape of a sample, without the axes of a frame."""

    def __post_init__(self) -> None:
        check_per_episode("per_episode", self.per_episode)
        if self.leave < 0:
            raise ConfigError(f"frames.leave: expected at least 0, got {self.leave}")

    def describe(self) -> dict[str, Any]:
        """As plain JSON: part of what decides the order."""
        left = {"leave": self.leave} if self.leave else {}
        return {"sample": "frames", "per_episode": self.per_episode, **left}

    def offset(self, control_rate: Mapping[str, Any] | None) -> int:
        """Steps between the frames of a sample: none."""
        return 0

    def counts(self, steps: Int64, offset: int) -> Int64:
        """Samples per epoch of each episode, given its number of steps."""
        return _counts(self.per_episode, steps, self.leave)

    def steps(self, key: int, samples: Samples, lengths: Int64, offset: int) -> Int64:
        """The step of each sample, given the number of steps of its episode."""
        return _steps(self.per_episode, key, samples, lengths - self.leave)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of frames t and t + k of one episode.

    Raises:
        ConfigError: not exactly one of `frames` and `seconds` is given, or one of them is not positive;
            `per_episode` is neither a positive number nor "all".
    """

    frames: int | None = None
    """Offset k between the frames, in steps."""
    seconds: float | None = None
    """Offset k between the frames in seconds, rounded to steps of the control rate, at least one step."""
    per_episode: int | str = 1
    """Draws per episode and epoch; "all" takes every t once."""
    shape: ClassVar[tuple[int, ...]] = (2,)
    """Shape of a sample, without the axes of a frame."""

    def __post_init__(self) -> None:
        check_per_episode("per_episode", self.per_episode)
        if (self.frames is None) == (self.seconds is None):
            raise ConfigError("pairs: expected an offset in frames or in seconds, one of them")
        if self.frames is not None and self.frames < 1:
            raise ConfigError(f"pairs.frames: expected at least 1, got {self.frames}")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise ConfigError(f"pairs.seconds: expected more than 0, got {self.seconds}")

    def describe(self) -> dict[str, Any]:
        """As plain JSON: part of what decides the order."""
        return {
            "sample": "pairs",
            "frames": self.frames,
            "seconds": self.seconds,
            "per_episode": self.per_episode,
        }

    def offset(self, control_rate: Mapping[str, Any] | None) -> int:
        """The offset k, in steps.

        Args:
            control_rate: `hz` and `verified` of the dataset.

        Raises:
            ConfigError: k is given in seconds and the rate is unknown or not verified.
        """
        if self.frames is not None:
            return self.frames
        assert self.seconds is not None
        if control_rate is None or not control_rate["verified"]:
            known = "unknown" if control_rate is None else f"said to be {control_rate['hz']:g} Hz, unverified"
            raise ConfigError(
                f"pairs.seconds: the control rate is {known}; give the offset in frames, or the rate"
            )
        return max(1, round(self.seconds * float(control_rate["hz"])))

    def counts(self, steps: Int64, offset: int) -> Int64:
        """Samples per epoch of each episode, given its number of steps."""
        return _counts(self.per_episode, steps, offset)

    def steps(self, key: int, samples: Samples, lengths: Int64, offset: int) -> Int64:
        """The first step of each sample, given the number of steps of its episode."""
        return _steps(self.per_episode, key, samples, lengths - offset)


def check_per_episode(name: str, value: Any) -> None:
    """Refuse a value that is neither a number of draws nor "all".

    Raises:
        ConfigError: the value is neither; the message calls it `name`.
    """
    if value != "all" and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST):
        raise ConfigError(f'{name}: expected a whole number from 1 to {MOST:,} or "all", got {value!r}')


def _counts(per_episode: int | str, steps: Int64, offset: int) -> Int64:
    room = np.maximum(steps.astype(np.int64) - offset, 0)
    return room if isinstance(per_episode, str) else np.where(room > 0, per_episode, 0).astype(np.int64)


def _steps(per_episode: int | str, key: int, samples: Samples, room: Int64) -> Int64:
    """One of `room` steps for each sample: the draw itself if every step is drawn, else a hash of it."""
    if isinstance(per_episode, str):
        return samples.draw
    hashes = np.full(len(room), derive(key, 2), np.uint64)
    for part in (samples.epoch, samples.episode, samples.draw):
        hashes = splitmix64(hashes ^ splitmix64(part.astype(np.uint64)))
    unit = (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53  # in [0, 1), exact
    return np.floor(unit * room).astype(np.int64)
