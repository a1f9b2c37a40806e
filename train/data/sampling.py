"""Kinds of samples, and the steps of an episode at which they may be taken.

    Window(frames={"primary": (-4, 0), "wrist": 0}, action=range(16), pad="repeat")
    Pairs(frames=5)        # Window(frames=(0, 5))
    Frames()               # Window(frames=0)

A sample is taken at a step t, its *anchor*, and everything in it lies at steps relative to t. The anchors of
an episode come from a counter-based hash of (key, epoch, episode, draw): there is no state, the order of
calls does not matter, and an episode gives the same anchors whatever other episodes there are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError
from oxcart.shards.text import cut
from oxcart.train.data.order import Samples, derive, splitmix64

Int64 = npt.NDArray[np.int64]

MOST = 1 << 20
"""Maximum number of draws per episode and epoch, and of steps relative to t."""
PADS = ("drop", "repeat")
SHOWN = 60
"""Maximum letters of a wrong value in a message."""


class TooShortError(ConfigError):
    """No episode of a split is long enough for one sample."""


@dataclass(frozen=True, init=False)
class Seconds:
    """Offsets from t in seconds, for a stream of a `Window`.

    They are rounded to steps of each dataset's control rate; what is not 0 is at least one step.

    Raises:
        ConfigError: no offset is given, one is not a finite number, or they do not rise.
    """

    offsets: tuple[float, ...]

    def __init__(self, *offsets: float) -> None:
        numbers = all(isinstance(one, Real) and math.isfinite(one) for one in offsets)
        if not offsets or not numbers or _not_rising(offsets):
            got = cut(", ".join(map(repr, offsets)), SHOWN) or "nothing"
            raise ConfigError(f"seconds: expected numbers that rise, such as Seconds(-0.5, 0), got {got}")
        object.__setattr__(self, "offsets", tuple(map(float, offsets)))


Steps: TypeAlias = int | Sequence[int] | Seconds
"""Steps relative to t: one, which gives a batch no axis of steps, or several that rise, or seconds."""


@dataclass(frozen=True, kw_only=True)
class RelativeSteps:
    """A window in steps of one dataset, relative to t: each stream int64 [k], or [] for a single step."""

    frames: Mapping[str, Int64]
    """Name or role of each camera -> steps of its frames."""
    state: Int64 | None
    action: Int64 | None

    @property
    def seen(self) -> tuple[int, int]:
        """First and last step of the frames; 0 and 0 if there are none."""
        return ends_of(self.frames.values())


@dataclass(frozen=True, kw_only=True)
class Window:
    """Frames of some cameras, states and actions, each at its own steps relative to t.

    Raises:
        ConfigError: nothing is asked for; steps do not rise or mix with seconds; `pad` is unknown;
            `per_episode` is neither a positive number nor "all"; `leave` is not a number of steps.
    """

    frames: Mapping[str, Steps] | Steps | None = 0
    """Name or role of each camera -> its steps; steps alone are of `LoaderConfig.camera`; None reads none."""
    state: Steps | None = None
    """Steps of the state; None reads none."""
    action: Steps | None = None
    """Steps of the action; None reads none."""
    pad: str = "drop"
    """`drop`: t is an anchor only if all that is asked for exists: frames and states in the episode, actions
    at steps that hold one. `repeat`: every t is an anchor, and what is missing repeats the first or last that
    exists. `Batch.frames_is_pad`, `state_is_pad` and `action_is_pad` say what was repeated."""
    per_episode: int | str = 1
    """Anchors per episode and epoch, drawn at random; "all" takes each once."""
    leave: int = 0
    """Steps to leave out at the end of each episode, such as those without codes."""

    def __post_init__(self) -> None:
        check_per_episode("per_episode", self.per_episode)
        one_of("pad", self.pad, PADS)
        if not isinstance(self.leave, int) or not 0 <= self.leave <= MOST:
            raise ConfigError(f"leave: expected a whole number from 0 to {MOST:,}, got {self.leave!r}")
        nameless = isinstance(self.frames, Mapping) and not self.frames
        if self.frames is self.state is self.action is None or nameless:
            raise ConfigError("window: expected frames, a state or an action, got none")
        for name, steps in self.cameras("the camera").items():
            _check_steps(f"frames of {name}", steps)
        for name, asked in (("state", self.state), ("action", self.action)):
            if asked is not None:
                _check_steps(name, asked)

    @property
    def window(self) -> Window:
        """This window, as `Pairs` and `Frames` have one."""
        return self

    @property
    def count(self) -> int:
        """Frames of a sample, over all cameras."""
        steps = self.cameras("").values()
        return sum(
            1 if isinstance(one, int) else len(one.offsets if isinstance(one, Seconds) else one)
            for one in steps
        )

    def cameras(self, camera: str) -> dict[str, Steps]:
        """Name or role of each camera -> its steps; `camera` is the one of frames that name none."""
        if self.frames is None:
            return {}
        return dict(self.frames) if isinstance(self.frames, Mapping) else {camera: self.frames}

    def relative(self, camera: str, control_rate: Mapping[str, Any] | None, where: str) -> RelativeSteps:
        """The window in steps of one dataset.

        Args:
            camera: the camera of frames that name none.
            control_rate: `hz` and `verified` of the dataset; None if it is unknown.
            where: the dataset, for errors.

        Raises:
            ConfigError: steps are given in seconds and the rate is unknown or not verified, or they are more
                than `MOST` steps.
        """

        def resolve(steps: Steps) -> Int64:
            return _resolve(steps, control_rate, where)

        return RelativeSteps(
            frames={name: resolve(steps) for name, steps in self.cameras(camera).items()},
            state=None if self.state is None else resolve(self.state),
            action=None if self.action is None else resolve(self.action),
        )

    def describe(self) -> dict[str, Any]:
        """As plain JSON: part of what decides the order."""
        left = {"leave": self.leave} if self.leave else {}
        return {"sample": "window", "pad": self.pad, "per_episode": self.per_episode, **left}


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Single frames: `Window(frames=0)`.

    Raises:
        ConfigError: `per_episode` is neither a positive number nor "all"; `leave` is not a number of steps.
    """

    per_episode: int | str = 1
    """Draws per episode and epoch; "all" takes every step once."""
    leave: int = 0
    """Steps to leave out at the end of each episode, such as those without codes."""

    def __post_init__(self) -> None:
        _ = self.window  # checks

    @cached_property
    def window(self) -> Window:
        """The same as a window."""
        return Window(frames=0, per_episode=self.per_episode, leave=self.leave)

    def describe(self) -> dict[str, Any]:
        """As plain JSON: part of what decides the order."""
        left = {"leave": self.leave} if self.leave else {}
        return {"sample": "frames", "per_episode": self.per_episode, **left}


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of frames t and t + k of one episode: `Window(frames=(0, k))`.

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

    def __post_init__(self) -> None:
        if (self.frames is None) == (self.seconds is None):
            raise ConfigError("pairs: expected an offset in frames or in seconds, one of them")
        if self.frames is not None and self.frames < 1:
            raise ConfigError(f"pairs.frames: expected at least 1, got {self.frames}")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise ConfigError(f"pairs.seconds: expected more than 0, got {self.seconds}")
        _ = self.window  # checks

    @cached_property
    def window(self) -> Window:
        """The same as a window."""
        steps = Seconds(0, self.seconds) if self.seconds is not None else (0, self.frames or 0)
        return Window(frames=steps, per_episode=self.per_episode)

    def describe(self) -> dict[str, Any]:
        """As plain JSON: part of what decides the order."""
        return {
            "sample": "pairs",
            "frames": self.frames,
            "seconds": self.seconds,
            "per_episode": self.per_episode,
        }


def check_per_episode(name: str, value: Any) -> None:
    """Refuse a value that is neither a number of draws nor "all".

    Raises:
        ConfigError: the value is neither; the message calls it `name`.
    """
    if value != "all" and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST):
        raise ConfigError(f'{name}: expected a whole number from 1 to {MOST:,} or "all", got {value!r}')


def count_draws(per_episode: int | str, room: Int64) -> Int64:
    """Samples per epoch of each episode, given its number of anchors."""
    return room if isinstance(per_episode, str) else np.where(room > 0, per_episode, 0).astype(np.int64)


def draw_anchors(per_episode: int | str, key: int, samples: Samples, room: Int64) -> Int64:
    """For each sample one of the `room` anchors of its episode: its draw if all are drawn, else by a hash."""
    if isinstance(per_episode, str):
        return samples.draw
    hashes = np.full(len(room), derive(key, 2), np.uint64)
    for part in (samples.epoch, samples.episode, samples.draw):
        hashes = splitmix64(hashes ^ splitmix64(part.astype(np.uint64)))
    unit = (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53  # in [0, 1), exact
    return np.floor(unit * room).astype(np.int64)


def ends_of(steps: Iterable[Int64]) -> tuple[int, int]:
    """First and last of some steps; 0 and 0 if there are none."""
    found = [one.reshape(-1) for one in steps]
    return (min(int(one[0]) for one in found), max(int(one[-1]) for one in found)) if found else (0, 0)


def _resolve(steps: Steps, control_rate: Mapping[str, Any] | None, where: str) -> Int64:
    if not isinstance(steps, Seconds):
        return np.array(steps, np.int64)
    if control_rate is None or not control_rate["verified"]:
        known = "unknown" if control_rate is None else f"said to be {control_rate['hz']:g} Hz, unverified"
        raise ConfigError(f"seconds: the control rate of {where} is {known}; give steps, or control_rate")
    found = [round(abs(one) * float(control_rate["hz"])) for one in steps.offsets]
    if max(found) > MOST:
        raise ConfigError(f"seconds: expected at most {MOST:,} steps of {where}, got {max(found):,}")
    return np.maximum(found, 1) * np.sign(steps.offsets).astype(np.int64)


def _check_steps(name: str, steps: Any) -> None:
    if isinstance(steps, Seconds):
        return
    found, got = [steps] if isinstance(steps, int) else steps, cut(repr(steps), SHOWN)
    if not isinstance(found, Sequence) or isinstance(found, str) or not 0 < len(found) <= 2 * MOST + 1:
        raise ConfigError(f"{name}: expected steps, such as 0, (-4, 0) or range(16), got {got}")
    if any(not isinstance(one, int) or isinstance(one, bool) for one in found):
        raise ConfigError(
            f"{name}: expected whole steps, got {got}; for seconds use Seconds(...), not mixed with steps"
        )
    if _not_rising(found) or max(map(abs, (found[0], found[-1]))) > MOST:
        raise ConfigError(f"{name}: expected steps that rise, from -{MOST:,} to {MOST:,}, got {got}")


def _not_rising(values: Sequence[float]) -> bool:
    return any(later <= earlier for earlier, later in itertools.pairwise(values))
