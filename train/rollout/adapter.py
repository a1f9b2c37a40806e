"""How a policy sees and moves a Gymnasium environment: an adapter, which is a small Python file.

    ID = "gym_pusht/PushT-v0"                             # what `make` is given in place of --env
    CONTROL_RATE = 10                                     # steps per second
    ACTION = (("x", "absolute"), ("y", "absolute"))       # name and kind of each value of an action

    def make(env, **options): ...                         # the environment of an id
    def observe(observation, info): ...                   # images by camera, state or None, instruction
    def action(values): ...                               # what env.step takes, from a policy's float32 [A]
    def success(info, terminated): ...                    # whether the world says that the task is done
    def task(info): ...                                   # what a table of successes goes by
    def options(environment): ...                         # options of env.reset that choose an environment
    def sized(cameras): ...                               # options of make that give cameras these sizes

All of these may be left out, as this module has each. `kitchens` is the adapter of the sample kitchens, and
examples/pusht.py that of gym-pusht. Success is for the world to decide: nothing here asks the policy.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from oxcart.manifests.columns import Column
from oxcart.shards.errors import ConfigError
from oxcart.train.rollout import kitchens

Frame = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]
Info = Mapping[str, Any]

KITCHENS = "kitchens"
"""Short name of the environment of the sample kitchens."""
_STATES = ("state", "agent_pos")
"""Keys of an observation that may hold the state."""


class Observed(NamedTuple):
    """What a policy is shown at a step."""

    images: Mapping[str, Frame]
    """Name of a camera -> uint8 [H, W, 3]."""
    state: Values | None
    """float32 [S]; None if there is none."""
    instruction: str


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """The functions and facts of an adapter; the docstring of the module says what each is."""

    env: str
    """Id of the environment."""
    make: Callable[..., Any]
    observe: Callable[[Any, Info], tuple[Mapping[str, Frame], Values | None, str]]
    action: Callable[[Values], Any]
    success: Callable[[Info, bool], bool]
    task: Callable[[Info], str]
    options: Callable[[str], Mapping[str, Any]]
    sized: Callable[[Mapping[str, tuple[int, int]]], Mapping[str, Any]]
    columns: tuple[Column, ...] | None
    """Columns of an action; None if they are not known."""
    control_rate: float | None
    """Steps per second; None takes what the environment says, if it says anything."""


def make(env: str, **options: Any) -> Any:
    """Make an environment by its id.

    Raises:
        ConfigError: Gymnasium is missing, there is no such environment, or it takes no such options.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise ConfigError(
            "--env: needs Gymnasium, which is not installed: pip install -c constraints.txt '.[sim]'"
        ) from error
    try:
        return gymnasium.make(env, disable_env_checker=True, **options)  # it warns
    except (gymnasium.error.Error, ImportError) as error:
        raise ConfigError(f"--env: {env!r} is not there: {error}") from error
    except TypeError as error:
        raise ConfigError(f"--env-option: {env!r} does not take these: {error}") from error


def observe(observation: Any, info: Info) -> Observed:
    """Every uint8 array [H, W, 3] of an observation is an image, under its own key.

    `state` or `agent_pos` is the state, and `info["instruction"]` the instruction. An observation that is an
    image itself is `image_0`.
    """
    if not isinstance(observation, Mapping):
        observation = {"image_0": observation}
    images = {name: value for name, value in observation.items() if _is_image(value)}
    state = next((observation[name] for name in _STATES if name in observation), None)
    values = None if state is None else np.asarray(state, np.float32)
    return Observed(images, values, str(info.get("instruction", "")))


def action(values: Values) -> Any:
    """The values as they are."""
    return values


def success(info: Info, terminated: bool) -> bool:
    """`info["is_success"]`; without it, no episode succeeds that the environment did not end."""
    return bool(info.get("is_success", terminated))


def task(info: Info) -> str:
    """`info["task"]`, or else the instruction."""
    return str(info.get("task", info.get("instruction", "")))


def options(environment: str) -> Mapping[str, Any]:
    """No options."""
    return {}


def sized(cameras: Mapping[str, tuple[int, int]]) -> Mapping[str, Any]:
    """No options."""
    return {}


def load_adapter(env: str, path: Path | None) -> Adapter:
    """The adapter in a file, that of the sample kitchens, or the one that this module is.

    Raises:
        ConfigError: the file is no Python, or ACTION or CONTROL_RATE is not what it should be.
    """
    module = _module(path) if path is not None else kitchens if env == KITCHENS else None
    here = globals()
    found: dict[str, Any] = {
        one.name: getattr(module, one.name, here.get(one.name))
        for one in fields(Adapter)
        if one.name not in ("env", "columns", "control_rate")
    }
    named, rate = getattr(module, "ACTION", None), getattr(module, "CONTROL_RATE", None)
    try:
        columns = None if named is None else tuple(Column(name=name, kind=kind) for name, kind in named)
        control_rate = None if rate is None else float(rate)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"--adapter: {path}: ACTION is pairs of name and kind, CONTROL_RATE a number: {error}"
        ) from error
    return Adapter(env=getattr(module, "ID", env), **found, columns=columns, control_rate=control_rate)


def control_rate_of(adapter: Adapter, env: Any) -> float | None:
    """Steps per second of an environment: as its adapter says, or the rate at which it is rendered."""
    rate = env.metadata.get("render_fps") if adapter.control_rate is None else adapter.control_rate
    return None if rate is None else float(rate)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"adapter_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"--adapter: expected a Python file, got {str(path)!r}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"--adapter: {path}: {type(error).__name__}: {error}") from error
    return module


def _is_image(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.shape[2:] == (3,)
