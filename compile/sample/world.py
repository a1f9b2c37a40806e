"""The table of an episode, a world that is stepped: what is where, how actions move it, what counts as done.

    world = new_world(rng, key="0/toykitchen1/0/7", task=task, landmark_at=landmark_at, colours=colours)
    world = move(world, (0.05, -0.02, 1.0))                   # one step of 0.1 s: dx, dy, and 1 to close
    world.state, world.instruction, world.success

Nothing here draws or imports drawing code. Table coordinates: x to the right and y away from the main camera,
both in [0, 1] where the gripper may be; z up. There is no physics: a block sticks to closed fingers that move
towards it. The fingers move in a straight line, so the moment of contact is solved for instead of sampled,
and no contact is missed at any speed.

The fingertips stay at one height, so that an action tells everything that moves: to a camera, fingers that
rise look like fingers that move away.

The gripper's place is counted in whole ticks, and blocks move in plain Python floats by nothing but sums,
products, quotients and square roots, so the same actions lead to the same world on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from oxcart.shards.errors import ConfigError

Spot = tuple[float, float]
Pose = tuple[float, float, float]
"""x, y and angle of a block."""

RATE_HZ = 10
"""Steps per second."""

TICKS = 1024
"""The gripper moves by whole 1/1024ths of the table, so float32 states and actions add up exactly."""

LIMIT = 0.125
"""The furthest that the gripper moves along x, and along y, in a step, in table units."""

HALF_BLOCK = 0.052
"""Half the length of a block's side, in table units."""

CONTACT = HALF_BLOCK + 0.028
"""Distance between fingertips and the middle of a block at which they touch, in table units."""

FINGERTIPS = 0.015
"""Height (z) of the fingertips, in table units."""

COLOURS = {
    "red": (222, 40, 36),
    "green": (48, 170, 72),
    "blue": (38, 92, 220),
    "yellow": (248, 208, 32),
    "orange": (248, 124, 24),
    "purple": (144, 64, 184),
}

PARAPHRASES = {
    "left": ("push the {c} block to the left", "move the {c} block left", "slide the {c} cube to the left"),
    "right": (
        "push the {c} block to the right",
        "move the {c} block right",
        "slide the {c} cube to the right",
    ),
    "back": ("push the {c} block away", "move the {c} block to the back", "slide the {c} cube to the back"),
    "front": ("pull the {c} block closer", "move the {c} block to the front", "bring the {c} cube closer"),
    "near": (
        "move the {c} block next to the {t}",
        "push the {c} block to the {t}",
        "put the {c} cube by the {t}",
    ),
}
"""Instructions of each kind of task; {c} is the colour of the block, {t} the landmark."""

_DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "back": (0.0, 1.0), "front": (0.0, -1.0)}

_ALONG, _ACROSS, _NEAR = 0.2, 0.1, 0.24
"""A block must move further than the first along the direction that the task names and less than the second
across it, or be nearer to the landmark than the third."""


class PushTask(NamedTuple):
    """Push one block somewhere."""

    kind: str
    colour: str
    landmark: str

    @property
    def name(self) -> str:
        """Name of the task in the paths of the dataset: `push_red_block_left`."""
        return f"push_{self.colour}_block_" + (f"near_{self.landmark}" if self.kind == "near" else self.kind)


@dataclass(frozen=True, kw_only=True)
class World:
    """The table with N blocks at one step of an episode, and what the arm was asked to do."""

    key: str
    """Names the episode among all; the sensor's noise follows from it and the step."""
    task: PushTask
    instruction: str
    pushed: int
    """Index of the block that the task names."""
    start: Spot
    """Where the named block was put at first; success is measured from there."""
    goal: Spot
    """A place for the named block that has nothing in its way; the expert pushes it there."""
    landmark_at: Spot
    step: int = 0
    """Number of actions taken so far."""
    at: tuple[int, int]
    """x and y of the gripper in ticks, 0 to TICKS."""
    closed: bool = False
    """Whether the gripper is closed."""
    blocks: tuple[Pose, ...]

    @property
    def tip(self) -> Spot:
        """x and y of the fingertips in table units."""
        return self.at[0] / TICKS, self.at[1] / TICKS

    @property
    def state(self) -> NDArray[np.float32]:
        """[3]: x and y of the gripper in table units, and 1 where it is closed."""
        return np.array([*self.tip, self.closed], np.float32)

    @property
    def success(self) -> bool:
        """Whether the named block is where the task wants it."""
        x, y, _ = self.blocks[self.pushed]
        if self.task.kind == "near":
            return math.hypot(x - self.landmark_at[0], y - self.landmark_at[1]) < _NEAR
        (dx, dy), mx, my = _DIRECTIONS[self.task.kind], x - self.start[0], y - self.start[1]
        return mx * dx + my * dy > _ALONG and abs(mx * dy - my * dx) < _ACROSS


def tasks(colours: Sequence[str], landmark: str) -> list[PushTask]:
    """Everything that may be asked on a table with these blocks and this landmark."""
    return [PushTask(kind, colour, landmark) for kind in PARAPHRASES for colour in colours]


def pick_task(rng: Generator, colours: Sequence[str], landmark: str) -> PushTask:
    """A random kind of task for a random block."""
    kind = list(PARAPHRASES)[rng.integers(len(PARAPHRASES))]
    return PushTask(kind, colours[int(rng.integers(len(colours)))], landmark)


def new_world(
    rng: Generator, *, key: str, task: PushTask, colours: Sequence[str], landmark_at: Spot
) -> World:
    """The first step of an episode: the arm is at home, and blocks lie where the task can be done.

    Args:
        rng: random stream of the episode.
        key: name of the episode.
        task: what the arm is asked to do.
        colours: colours of the blocks on the table.
        landmark_at: where the landmark stands.
    """
    pushed = colours.index(task.colour)
    blocks, goal = _set_blocks(rng, task, pushed, len(colours), landmark_at)
    home = rng.uniform(0.35, 0.65), rng.uniform(0.45, 0.65)
    return World(
        key=key,
        task=task,
        instruction=_say(rng, task),
        pushed=pushed,
        start=blocks[pushed][:2],
        goal=goal,
        landmark_at=landmark_at,
        at=(round(home[0] * TICKS), round(home[1] * TICKS)),
        blocks=blocks,
    )


def move(world: World, action: Sequence[float] | NDArray[np.float32]) -> World:
    """The world one step later. The fingers close or open first, and then move in a straight line.

    Args:
        world: the world before the step.
        action: dx and dy in table units, cut off at LIMIT either way and rounded to ticks, and more than 0.5
            to close the gripper. The gripper stops at the edges of the table.

    Raises:
        ConfigError: the action is not three finite numbers.
    """
    if len(action) != 3 or not all(math.isfinite(part) for part in action):
        raise ConfigError(f"action: expected 3 finite numbers (dx, dy, gripper), got {list(action)}")
    x, y = (min(max(a + _ticks(d), 0), TICKS) for a, d in zip(world.at, action, strict=False))
    closed, blocks = bool(action[2] > 0.5), world.blocks
    if closed:
        by = (x - world.at[0]) / TICKS, (y - world.at[1]) / TICKS
        blocks = tuple(_carried(block, world.tip, by) for block in blocks)
    return replace(world, step=world.step + 1, at=(x, y), closed=closed, blocks=blocks)


def _ticks(distance: float) -> int:
    return round(min(max(float(distance), -LIMIT), LIMIT) * TICKS)


def _carried(block: Pose, tip: Spot, by: Spot) -> Pose:
    """A block after closed fingers have moved from `tip` by `by`."""
    (x, y, angle), (mx, my) = block, by
    bx, by_ = x - tip[0], y - tip[1]
    ahead, square = mx * bx + my * by_, mx * mx + my * my
    if ahead <= 0:
        return block
    outside = bx * bx + by_ * by_ - CONTACT * CONTACT
    if outside > 0:
        # The fingers touch after the share t of the way at which |b - t m| = CONTACT, and carry for the rest.
        root = ahead * ahead - square * outside
        if root <= 0 or (t := (ahead - math.sqrt(root)) / square) >= 1:
            return block
        bx, by_ = bx - t * mx, by_ - t * my
        mx, my = (1 - t) * mx, (1 - t) * my
    return x + mx, y + my, angle + (mx * by_ - my * bx) / CONTACT * 2


def _say(rng: Generator, task: PushTask) -> str:
    """An instruction for a task; like instructions by people, it varies in case, full stops and articles."""
    phrases = PARAPHRASES[task.kind]
    text = phrases[rng.integers(len(phrases))].format(c=task.colour, t=task.landmark)
    style = rng.integers(5)
    if style == 0:
        return text.capitalize() + "."
    return text.replace("the ", "") if style == 1 else text


def _set_blocks(
    rng: Generator, task: PushTask, pushed: int, count: int, landmark_at: Spot
) -> tuple[tuple[Pose, ...], Spot]:
    """First place of each block, and the goal of one, with nothing in its way."""
    while True:
        blocks = tuple(
            (rng.uniform(0.15, 0.85), rng.uniform(0.16, 0.78), rng.uniform(0, 1.57)) for _ in range(count)
        )
        x, y = blocks[pushed][:2]
        if task.kind == "near":
            (tx, ty), reach = landmark_at, 0.19
            away = math.hypot(x - tx, y - ty)
            goal = (tx + (x - tx) / away * reach, ty + (y - ty) / away * reach)
        else:
            reach, (dx, dy) = rng.uniform(0.26, 0.36), _DIRECTIONS[task.kind]
            goal = (x + dx * reach, y + dy * reach)
        path = [(x + (goal[0] - x) * f, y + (goal[1] - y) * f) for f in (-0.4, 0.0, 0.25, 0.5, 0.75, 1.0)]
        others = [(block[0], block[1]) for n, block in enumerate(blocks) if n != pushed]
        pairs = [*product(others, path), *combinations(others, 2)]
        clear = all(math.hypot(a[0] - b[0], a[1] - b[1]) > 0.17 for a, b in pairs)
        on_table = 0.12 <= goal[0] <= 0.88 and 0.1 <= goal[1] <= 0.82
        if clear and on_table and math.hypot(goal[0] - x, goal[1] - y) > 0.2:
            return blocks, goal
