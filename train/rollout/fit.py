"""Whether a policy fits an environment: cameras, sizes, state, action and control rate, before anything is
played. Nothing is resized or reordered here: a policy that sees other pixels than it was trained on fails
quietly, and its success rate would say nothing.
"""

from __future__ import annotations

from typing import Any

from oxcart.manifests.columns import Column
from oxcart.shards.errors import ConfigError
from oxcart.train.rollout.adapter import Adapter, Observed, control_rate_of
from oxcart.train.rollout.play import Opened, Stage, Start, opened, seen

_KNOWN = 0.01
"""Share by which control rates may differ."""


def check_fit(stage: Stage, start: Start) -> None:
    """Refuse a policy that does not fit the environment.

    Args:
        stage: the policy and the environment.
        start: a start that is played, to look at what the environment shows there.

    Raises:
        ConfigError: they do not fit; the message says what differs, and how to change it.
    """
    here = opened(stage)
    adapter, (env,) = here.adapter, here.envs(1)
    chosen = None if start.environment is None else dict(adapter.options(start.environment))
    observation, info = env.reset(seed=start.seed, options=chosen)
    check_seen(here.policy.spec, seen(adapter, observation, info), adapter.env)
    _check_action(here, adapter, env)
    rate, own = control_rate_of(adapter, env), here.policy.spec.control_rate
    if rate and own and abs(rate / own - 1) > _KNOWN:
        raise ConfigError(
            f"--env: {adapter.env} takes {rate:g} actions a second, and the policy was trained on {own:g}: "
            f"each action would last {own / rate:g} times as long as it should; train on a dataset of "
            f"{rate:g} steps per second, or set CONTROL_RATE in an --adapter that repeats or skips actions"
        )


def check_seen(spec: Any, found: Observed, env: str) -> None:
    """Refuse observations that lack what a policy reads.

    Args:
        spec: the `PolicySpec`.
        found: what is observed.
        env: name of what observes, for the message.

    Raises:
        ConfigError: a camera or the state is missing or of another size.
    """
    for name, (height, width) in spec.cameras:
        if name not in found.images:
            raise ConfigError(
                f"cameras: the policy sees {name!r}, and {env} has {', '.join(map(repr, found.images))}; "
                "rename one in observe() of an --adapter"
            )
        shape = found.images[name].shape
        if shape != (height, width, 3):
            got = "x".join(map(str, shape[:2]))
            raise ConfigError(
                f"cameras: the policy sees {name!r} in {height}x{width} pixels, and {env} shows {got}; "
                "make it of that size with --env-option, such as size=96"
            )
    if not spec.state:
        return
    got = "none" if found.state is None else f"{found.state.size} values"
    if found.state is None or found.state.shape != (len(spec.state),):
        raise ConfigError(
            f"state: the policy reads {len(spec.state)} values ({', '.join(spec.state)}), and {env} has {got}"
        )


def _check_action(here: Opened, adapter: Adapter, env: Any) -> None:
    own: tuple[Column, ...] = here.policy.spec.action
    theirs = adapter.columns
    shape = getattr(env.action_space, "shape", None)
    width = len(theirs) if theirs is not None else shape[0] if shape else None
    names = f" ({', '.join(column.name for column in theirs)})" if theirs else ""
    if width is not None and width != len(own):
        raise ConfigError(
            f"action: the policy gives {len(own)} values ({', '.join(column.name for column in own)}), and "
            f"{adapter.env} takes {width}{names}; translate them in action() of an --adapter"
        )
    for mine, other in zip(own, theirs or (), strict=False):
        if mine.kind != other.kind and "unknown" not in (mine.kind, other.kind):
            raise ConfigError(
                f"action: the policy's {mine.name!r} is {mine.kind}, and {other.name!r} of {adapter.env} is "
                f"{other.kind}; translate it in action() of an --adapter"
            )
