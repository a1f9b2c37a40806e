"""The sample kitchens as a Gymnasium environment: `oxcart/Kitchens-v0`, which `import oxcart.sim` registers.

    env = gymnasium.make("oxcart/Kitchens-v0", kitchens=("toykitchen1",), size=96)
    observation, info = env.reset(seed=0, options={"task": "left", "perturbed": True})
    observation, reward, terminated, truncated, info = env.step((0.05, 0.0, 1.0))

A thin coat over `world` and the drawing of `kitchen`, in which `oxcart sample rlds` records as well: kitchen,
session and episode of a recording name its first step, and its actions lead to the same pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from oxcart.compile.sample.kitchen import (
    Session,
    begin,
    build_kitchen,
    draw_main,
    draw_wrist,
    is_kitchen,
    kitchen_names,
    open_session,
)
from oxcart.compile.sample.world import LIMIT, RATE_HZ, PushTask, World, move, tasks
from oxcart.shards.errors import ConfigError

MAX_STEPS = 60
"""Steps after which `gymnasium.make` truncates an episode by default; the expert needs at most 25."""

FIRST_EPISODE = 1 << 20
"""Episodes that a reset draws have numbers from here on, so none begins as a recorded one does."""

Observation = dict[str, Any]

_OPTIONS = ("kitchen", "session", "episode", "task", "perturbed")


class KitchensEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """Push the named block where the instruction says, in any of the sample's kitchens.

    An episode terminates, with reward 1, when the world says that the task is done. Stepping on is allowed.
    Every `info` has `instruction`, `kitchen`, `session`, `episode`, `task` (its name), `kind` and
    `is_success`. The instruction is no observation because Gymnasium's AsyncVectorEnv reads a text from its
    shared memory only once.

    Args:
        kitchens: kitchens of which a reset draws one; by default the first 12.
        sessions: a reset draws one of the first so many sessions of the kitchen.
        size: side of the main camera's frames, in pixels; the wrist camera's is half as long.
        sample_seed: seed of the sample; another one gives other kitchens under the same names.
        render_mode: `rgb_array` or None.

    Raises:
        ConfigError: there is no such kitchen, or a number is too small.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": RATE_HZ}  # noqa: RUF012  as Gymnasium has it

    def __init__(
        self,
        *,
        kitchens: Sequence[str] = tuple(kitchen_names(12)),
        sessions: int = 2,
        size: int = 96,
        sample_seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        if not kitchens:
            raise ConfigError("kitchens: expected at least one name, got none; kitchen_names(12) lists some")
        for name in kitchens:
            _need_kitchen("kitchens", name)
        for argument, got, least in (("sessions", sessions, 1), ("size", size, 32)):
            if got < least:
                raise ConfigError(f"{argument}: expected at least {least}, got {got}")
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode: expected rgb_array or None, got {render_mode!r}")
        self.kitchens, self.sessions = tuple(kitchens), sessions
        self.size, self.sample_seed = size, sample_seed
        self.render_mode = render_mode
        self.observation_space = spaces.Dict(
            {
                "image_0": spaces.Box(0, 255, (size, size, 3), np.uint8),
                "wrist": spaces.Box(0, 255, (size // 2, size // 2, 3), np.uint8),
                "state": spaces.Box(0, 1, (3,), np.float32),
            }
        )
        low, high = np.array([-LIMIT, -LIMIT, 0], np.float32), np.array([LIMIT, LIMIT, 1], np.float32)
        self.action_space = spaces.Box(low, high, dtype=np.float32)

    @property
    def world(self) -> World:
        """All that there is to know, for the expert: `expert(env.unwrapped.world)`."""
        return self._world

    @property
    def session(self) -> Session:
        """The session of the episode, with which `draw_main` and `draw_wrist` draw any world of it."""
        return self._session

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: seed of what is drawn here and in later resets without one.
            options: what not to draw: `kitchen` (any of the sample, not only of `kitchens`), `session`,
                `episode` (below FIRST_EPISODE: as the sample records it), `task` (a name such as
                `push_red_block_left`, or a kind such as `left`), and `perturbed` (True: begin after something
                went wrong).

        Raises:
            ConfigError: an option is unknown, or its value is impossible.
        """
        super().reset(seed=seed)
        chosen = dict(options or {})
        for option in chosen:
            if option not in _OPTIONS:
                raise ConfigError(f"options: expected any of {', '.join(_OPTIONS)}, got {option!r}")
        # Everything is drawn always, so that an option changes nothing but what it names.
        drawn = {
            "kitchen": self.kitchens[self.np_random.integers(len(self.kitchens))],
            "session": int(self.np_random.integers(self.sessions)),
            "episode": int(self.np_random.integers(FIRST_EPISODE, 1 << 31)),
        }
        turn = int(self.np_random.integers(1 << 31))
        at = {**drawn, **chosen}
        _need_kitchen("options['kitchen']", at["kitchen"])
        for option in ("session", "episode"):
            if not isinstance(at[option], int | np.integer) or at[option] < 0:
                raise ConfigError(f"options[{option!r}]: expected an integer from 0 on, got {at[option]!r}")
        perturbed = at.get("perturbed", False)
        if not isinstance(perturbed, bool | np.bool):
            raise ConfigError(f"options['perturbed']: expected True or False, got {perturbed!r}")
        session = _session(at["kitchen"], int(at["session"]), self.size, self.sample_seed)
        task = None if at.get("task") is None else _task(session, at["task"], turn)
        self._session, self._place = session, {name: at[name] for name in drawn}
        self._world = begin(session, episode=int(at["episode"]), task=task, perturbed=bool(perturbed))
        return self._observe(), self._info()

    def step(
        self, action: NDArray[np.float32] | Sequence[float]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take an action: dx and dy in table units, at most LIMIT each, and more than 0.5 to close.

        Raises:
            ConfigError: the action is not three finite numbers.
        """
        self._world = move(self._world, action)
        done = self._world.success
        return self._observe(), float(done), done, False, self._info()

    def render(self) -> NDArray[np.uint8] | None:
        """The main camera's frame [size, size, 3] uint8."""
        return np.array(draw_main(self._session, self._world)) if self.render_mode else None

    def _observe(self) -> Observation:
        return {
            "image_0": np.array(draw_main(self._session, self._world)),
            "wrist": np.array(draw_wrist(self._session, self._world)),
            "state": self._world.state,
        }

    def _info(self) -> dict[str, Any]:
        world = self._world
        told = {"instruction": world.instruction, "task": world.task.name, "kind": world.task.kind}
        return {**self._place, **told, "is_success": world.success}


@lru_cache(maxsize=64)
def _session(kitchen: str, number: int, size: int, seed: int) -> Session:
    """A session, kept because to draw its background costs as much as a dozen steps."""
    return open_session(build_kitchen(kitchen, size=size, seed=seed), number)


def _task(session: Session, wanted: object, turn: int) -> PushTask:
    """A task of that name, or the one of all tasks of that kind whose turn it is."""
    known = tasks(session.colours, session.landmark)
    fitting = [task for task in known if wanted in (task.name, task.kind)]
    if not fitting:
        names = dict.fromkeys(name for task in known for name in (task.kind, task.name))
        raise ConfigError(f"options['task']: expected one of {', '.join(names)}, got {wanted!r}")
    return fitting[turn % len(fitting)]


def _need_kitchen(argument: str, name: object) -> None:
    if not (isinstance(name, str) and is_kitchen(name)):
        known = kitchen_names(13)
        raise ConfigError(
            f"{argument}: expected a kitchen of the sample ({known[0]}, ..., {known[-1]}, ...), got {name!r}"
        )
