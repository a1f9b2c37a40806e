"""Play episodes: a group of them side by side, with one forward pass of the policy for all.

    group(stage, starts, lambda episodes, size: None)     # an outcome for each start

A group is the unit of work. Its episodes are acted for in one batch, which keeps its size until the last has
ended (those that have ended are shown their last observation), and PyTorch has one thread. So outcomes are
bit for bit the same on a CPU however many processes share the groups. The price is the work on rows that have
ended, about a third of the forward passes where half of the episodes fail.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from blake3 import blake3
from PIL import Image

from oxcart.manifests.video import write_video
from oxcart.shards.errors import ConfigError, NotFiniteError
from oxcart.train.rollout.adapter import Adapter, Frame, Observed, Values, control_rate_of, load_adapter

LANES = 8
"""Episodes per group."""
SHOWN = 8
"""Most frames of a strip."""
FPS = 10.0
"""Frames per second of a film where nobody knows the control rate."""


class Acts(Protocol):
    """A policy, as `oxcart.load_policy` opens it.

    Copies share its weights, and `reset` gives a copy a memory of its own.
    """

    spec: Any
    """A `PolicySpec`."""
    fingerprint: str
    """Identifies everything that actions depend on."""

    def reset(self, count: int = 1) -> None:
        """Forget all episodes; `count` are acted for from now on."""

    def act_batch(
        self,
        images: Mapping[str, Frame],
        state: Values | None,
        instructions: Sequence[str],
        fresh: npt.NDArray[np.bool_] | None = None,
    ) -> Values:
        """Actions [B, A] for images [B, H, W, 3] by camera, states [B, S] and B instructions."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where an episode begins: the same for every policy."""

    environment: str | None
    """Name of the environment; None if the id of Gymnasium has but one."""
    place: str
    """Where the environment stands for the run: one of `oxcart.train.trained_on.PLACES`."""
    number: int
    """Number of the episode in its environment, from 0."""
    seed: int
    """Seed of the reset."""

    @property
    def name(self) -> str:
        """Such as `toykitchen2, episode 3`."""
        return f"{self.environment}, episode {self.number}" if self.environment else f"episode {self.number}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an episode ended."""

    start: Start
    task: str
    instruction: str
    success: bool
    """Whether the world says that the task was done before time ran out."""
    steps: int
    """Number of actions."""
    reward: float
    """Sum of rewards."""
    actions: str
    """BLAKE3 of the actions, float32 [steps, A]; equal for equal rollouts."""
    strip: bytes
    """JPEG of at most SHOWN frames of the first camera, evenly spaced, the last one among them."""
    film: str | None
    """File name of the film; None if none was asked for."""
    act_s: float
    """Seconds that this episode waited for actions; it shares these with those of its group."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """Everything that is the same for all episodes of a rollout; goes to every process that plays."""

    policy: Callable[[], Acts]
    """Opens the policy; importable by name, or a `functools.partial` of what is."""
    env: str
    """Id of the environment, or `kitchens`."""
    adapter: Path | None = None
    """File of the adapter."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of `gymnasium.make`."""
    films: Path | None = None
    """Folder for a film of each episode; None films nothing."""


class Opened:
    """What a process needs to play: policy, adapter, environments; opened once per stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.policy = stage.policy()
        self.adapter: Adapter = load_adapter(stage.env, stage.adapter)
        self.sizes = self.adapter.sized(dict(self.policy.spec.cameras))
        """Options of the environment that give cameras the sizes of the policy's."""
        self._envs: list[Any] = []

    def envs(self, count: int) -> list[Any]:
        """So many environments."""
        while len(self._envs) < count:
            self._envs.append(self.adapter.make(self.adapter.env, **{**self.sizes, **self.stage.options}))
        return self._envs[:count]


@lru_cache(maxsize=1)
def opened(stage: Stage) -> Opened:
    """The stage, as this process has it open."""
    return Opened(stage)


class _Lane:
    """An episode that is played."""

    def __init__(self, adapter: Adapter, env: Any, start: Start) -> None:
        self.adapter, self.env, self.start = adapter, env, start
        chosen = None if start.environment is None else dict(adapter.options(start.environment))
        observation, self.info = env.reset(seed=start.seed, options=chosen)
        self.seen = seen(adapter, observation, self.info)
        self.instruction = self.seen.instruction
        self.frames: list[Frame] = [self._frame()]
        self.actions: list[Values] = []
        self.success = self.done = False
        self.reward = self.act_s = 0.0

    def step(self, action: Values, act_s: float) -> None:
        if not np.isfinite(action).all():
            raise NotFiniteError(
                f"the policy's action {len(self.actions)} in {self.start.name} is not finite"
            )
        observation, reward, terminated, truncated, self.info = self.env.step(self.adapter.action(action))
        self.seen = seen(self.adapter, observation, self.info)
        self.frames.append(self._frame())
        self.actions.append(action)
        self.reward += float(reward)
        self.act_s += act_s
        self.success = self.adapter.success(self.info, bool(terminated))
        self.done = bool(terminated or truncated or self.success)

    def _frame(self) -> Frame:
        return np.array(next(iter(self.seen.images.values())))

    def outcome(self, films: Path | None) -> Outcome:
        film = None
        if films is not None:
            word = "success" if self.success else "failure"
            where = "".join(
                letter if letter.isalnum() else "-" for letter in self.start.environment or "episode"
            )
            film = f"{where}-{self.start.number:03}-{word}.mp4"
            write_video(films / film, np.stack(self.frames), control_rate_of(self.adapter, self.env) or FPS)
        return Outcome(
            start=self.start,
            task=self.adapter.task(self.info),
            instruction=self.instruction,
            success=self.success,
            steps=len(self.actions),
            reward=self.reward,
            actions=blake3(np.stack(self.actions).tobytes()).hexdigest(),
            strip=strip(self.frames),
            film=film,
            act_s=self.act_s,
        )


def group(stage: Stage, starts: Sequence[Start], advance: Callable[[int, int], None]) -> list[Outcome]:
    """Play a group of episodes.

    Args:
        stage: what they are played with.
        starts: where they begin.
        advance: called with 1 and 0 when one has ended.

    Raises:
        NotFiniteError: the policy returns NaN or infinity.
        ConfigError: an environment or an option is not there, or actions do not fit the environment.
    """
    here = opened(stage)
    with one_thread():
        lanes = [
            _Lane(here.adapter, env, start) for env, start in zip(here.envs(len(starts)), starts, strict=True)
        ]
        here.policy.reset(len(lanes))
        while not all(lane.done for lane in lanes):
            began = time.perf_counter()
            actions = here.policy.act_batch(*batch_of([lane.seen for lane in lanes]))
            act_s = (time.perf_counter() - began) / sum(not lane.done for lane in lanes)
            for lane, action in zip(lanes, actions, strict=True):
                if not lane.done:
                    lane.step(np.array(action, np.float32), act_s)
                    if lane.done:
                        advance(1, 0)
        return [lane.outcome(stage.films) for lane in lanes]


def batch_of(seen: Sequence[Observed]) -> tuple[dict[str, Frame], Values | None, list[str], None]:
    """Arguments of `Acts.act_batch`."""
    images = {name: np.stack([one.images[name] for one in seen]) for name in seen[0].images}
    states = [one.state for one in seen if one.state is not None]
    return images, np.stack(states) if states else None, [one.instruction for one in seen], None


def seen(adapter: Adapter, observation: Any, info: Mapping[str, Any]) -> Observed:
    """What a policy is shown of an observation.

    Raises:
        ConfigError: there are no pixels in it.
    """
    found = Observed(*adapter.observe(observation, info))
    if not found.images:
        kind = (
            f"keys {', '.join(map(str, observation))}"
            if isinstance(observation, Mapping)
            else f"{type(observation).__name__} {getattr(observation, 'shape', '')}".strip()
        )
        raise ConfigError(
            f"--env: {adapter.env!r} has no pixels in its observations ({kind}); expected uint8 arrays "
            "[H, W, 3]; write an --adapter whose make() and observe() give them"
        )
    return found


def strip(frames: Sequence[Frame]) -> bytes:
    """JPEG of some of the frames side by side."""
    at = np.unique(np.linspace(0, len(frames) - 1, SHOWN).round().astype(int))
    gap = np.full((frames[0].shape[0], 2, 3), 255, np.uint8)
    parts = [part for i in at for part in (frames[i], gap)][:-1]
    data = io.BytesIO()
    Image.fromarray(np.concatenate(parts, 1)).save(data, "JPEG", quality=85)
    return data.getvalue()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch have one thread inside the block, since sums of several may differ in the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
