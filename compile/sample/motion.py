"""The motion of an episode, as numbers and words: which block the arm pushes where, and the instruction.

    task = pick_task(rng, ("red", "blue", "green"), "bowl")            # push_red_block_near_bowl, say
    motion = perform(rng, task, colours, landmark, landmark_at, 24)    # states, actions, blocks, instruction

Nothing here draws or imports drawing code. Table coordinates: x to the right and y away from the main camera,
both in [0, 1] where blocks may be; z up. There is no physics: a block sticks to closed fingers that move
towards it, on a path so fine that no contact is missed.

The fingertips stay at one height, so that an action tells everything that moves: to a camera, fingers that
rise look like fingers that move away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Spot = tuple[float, float]

TICKS = 1024
"""Positions are whole 1/1024ths of the table, so float32 states and actions add up exactly."""

HALF_BLOCK = 0.052
"""Half the length of a block's side, in table units."""

FINGERTIPS = 0.015
"""Height (z) of the fingertips, in table units."""

NOISE_SHIFTS = 64
"""Positions along x, and along y, at which a frame's part of the noise may begin."""

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

_MOMENTS = 320
"""Intervals of an episode's path, however many steps the episode has."""


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
class Motion:
    """The motion in an episode of T steps with N blocks."""

    state: NDArray[np.float32]
    """[T, 3]: x and y of the gripper in table units, and 1 where it is closed."""
    action: NDArray[np.float32]
    """[T, 3]: dx and dy in table units, and the gripper's state at the next step."""
    blocks: NDArray[np.float64]
    """[T, N, 3]: x, y and angle of each block."""
    pushed: int
    """Index of the block that the task names."""
    task: PushTask
    instruction: str
    shifts: NDArray[np.int64]
    """[T, 4]: which parts of the noise the frames of the two cameras take, each in [0, NOISE_SHIFTS)."""


def pick_task(rng: Generator, colours: tuple[str, ...], landmark: str) -> PushTask:
    """A random kind of task for a random block."""
    kind = list(PARAPHRASES)[rng.integers(len(PARAPHRASES))]
    return PushTask(kind, colours[rng.integers(len(colours))], landmark)


def perform(
    rng: Generator,
    task: PushTask | None,
    colours: tuple[str, ...],
    landmark: str,
    landmark_at: Spot,
    steps: int,
) -> Motion:
    """An episode of about `steps` steps: up to a quarter more or less, at least 2.

    Args:
        rng: random stream of the episode.
        task: what the arm does; None draws any task.
        colours: colours of the blocks on the table.
        landmark: thing on the table that a task may name.
        landmark_at: where the landmark stands.
        steps: steps on average.
    """
    length = max(2, round(steps * rng.uniform(0.75, 1.25)))
    task = task or pick_task(rng, colours, landmark)
    pushed = colours.index(task.colour)
    start, goal = _set_blocks(rng, task, pushed, len(colours), landmark_at)
    path, blocks = _push(rng, start, pushed, goal)
    at = [round(t * _MOMENTS / (length - 1)) for t in range(length)]
    state = np.column_stack([np.round(path[at, :2] * TICKS) / TICKS, path[at, 2]])
    following = np.vstack([state[1:], state[-1:]])
    action = np.column_stack([following[:, :2] - state[:, :2], following[:, 2]])
    return Motion(
        state=state.astype(np.float32),
        action=action.astype(np.float32),
        blocks=blocks[at],
        pushed=pushed,
        task=task,
        instruction=_say(rng, task),
        shifts=rng.integers(0, NOISE_SHIFTS, (length, 4)),
    )


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
) -> tuple[list[list[float]], Spot]:
    """First place (x, y, angle) of each block, and the goal of one, with nothing in its way."""
    while True:
        blocks = [
            [rng.uniform(0.15, 0.85), rng.uniform(0.16, 0.78), rng.uniform(0, 1.57)] for _ in range(count)
        ]
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


def _push(
    rng: Generator, blocks: list[list[float]], pushed: int, goal: Spot
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gripper [_MOMENTS + 1, 3] (x, y, closed) and blocks [_MOMENTS + 1, N, 3] (x, y, angle).

    The arm comes with open fingers, closes them behind the block, pushes it to the goal, opens them and
    retreats. A block sticks to closed fingers that move towards it.
    """
    x, y = blocks[pushed][:2]
    far = math.hypot(goal[0] - x, goal[1] - y)
    dx, dy = (goal[0] - x) / far, (goal[1] - y) / far
    gap = HALF_BLOCK + 0.028
    home = (rng.uniform(0.35, 0.65), rng.uniform(0.45, 0.65))
    behind = (x - dx * (gap + 0.06), y - dy * (gap + 0.06))
    last = (goal[0] - dx * gap, goal[1] - dy * gap)
    back = (last[0] - dx * 0.05, last[1] - dy * 0.05)
    bow, wobble = rng.uniform(-0.09, 0.09), rng.uniform(-0.012, 0.012)
    # Per phase: beginning and duration as parts of the episode; from, to, bow to the side; closed.
    phases = (
        (0.0, 0.38, home, behind, bow, 0),
        (0.38, 0.08, behind, behind, 0.0, 1),
        (0.46, 0.44, behind, last, wobble, 1),
        (0.9, 0.1, last, back, 0.0, 0),
    )
    gx, gy = home
    path, moved = [], []
    for f in (k / _MOMENTS for k in range(_MOMENTS + 1)):
        begin, duration, a, b, side, closed = [phase for phase in phases if phase[0] <= f][-1]
        u = (f - begin) / duration
        u = u * u * (3 - 2 * u)
        curve = side * 4 * u * (1 - u)
        nx, ny = a[0] + (b[0] - a[0]) * u - dy * curve, a[1] + (b[1] - a[1]) * u + dx * curve
        mx, my = nx - gx, ny - gy
        for block in blocks if closed else ():
            bx, by = block[0] - gx, block[1] - gy
            if math.hypot(bx, by) < gap and mx * bx + my * by > 0:
                block[0] += mx
                block[1] += my
                block[2] += (mx * by - my * bx) / gap * 2
        gx, gy = nx, ny
        path.append((gx, gy, closed))
        moved.append([tuple(block) for block in blocks])
    return np.array(path), np.array(moved)
