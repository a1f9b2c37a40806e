"""The scripted expert of the sample kitchens: a policy that sees the whole world, and its demonstrations.

    action = expert(world)                                   # float32 [3], for any world at any step
    worlds = demonstrate(world, 24)                          # 24 steps, at the pace that fills them
    actions(worlds)                                          # float32 [24, 3]
    world = perturb(world, rng)                              # a start in which something went wrong already

The expert comes with open fingers, closes them behind the block, pushes it to the goal, lets go and backs
off. It plans anew at every step from nothing but the world, so it recovers from whatever happened before:
arms that were knocked aside, fingers that closed too early, blocks that were pushed to the wrong place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from oxcart.compile.sample.world import CONTACT, LIMIT, TICKS, Spot, World, move

SPEED = 0.06
"""Distance that the expert moves in a step unless told otherwise, in table units."""

_RUN_UP = CONTACT + 0.06
"""Distance from the middle of the block at which the fingers stop behind it."""
_CLEAR = CONTACT + 0.05
"""Distance from the middle of the block at which the fingers have backed off."""
_ARRIVED = 0.01
"""A block this near to its goal is let go."""

Leg = tuple[Spot, bool]
"""Where the fingertips go in a straight line, and whether they are closed on the way."""


def expert(world: World, speed: float = SPEED) -> NDArray[np.float32]:
    """The expert's action [3] in a world: dx and dy in whole ticks, at most `speed` far, and the gripper."""
    route = _route(world)
    if not route:
        return np.zeros(3, np.float32)
    (x, y), closed = route[0]
    dx, dy = x - world.tip[0], y - world.tip[1]
    share = min(1.0, min(speed, LIMIT) / max(math.hypot(dx, dy), 1e-9))
    return np.array([_whole(dx * share), _whole(dy * share), closed], np.float32)


def demonstrate(world: World, length: int) -> list[World]:
    """`length` steps of the expert from a world on, at the speed with which it ends as they do.

    Where the way is too long for that even at LIMIT, the demonstration is cut off.
    """
    worlds = [world]
    for left in range(length - 1, 0, -1):
        worlds.append(move(worlds[-1], expert(worlds[-1], way(worlds[-1]) / left)))
    return worlds


def way(world: World) -> float:
    """How far the expert still moves the fingertips, in table units."""
    stops = [world.tip, *(stop for stop, _ in _route(world))]
    return math.fsum(math.hypot(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(stops))


def actions(worlds: Sequence[World]) -> NDArray[np.float32]:
    """[T, 3]: the actions that lead from each of T worlds to the next; the last one changes nothing."""
    states = np.stack([world.state for world in worlds])
    following = np.vstack([states[1:], states[-1:]])
    return np.column_stack([following[:, :2] - states[:, :2], following[:, 2]])


def perturb(world: World, rng: Generator) -> World:
    """A start from which the expert has to recover: it acted for a while, then the arm was knocked about.

    The task is not done yet. The named block is on the table, less than 0.06 off its straight way to the
    goal, so what is left to do can be seen.
    """
    while True:
        found = world
        for _ in range(rng.integers(16)):
            found = move(found, expert(found))
        for _ in range(1 + rng.integers(4)):
            found = move(found, (rng.uniform(-LIMIT, LIMIT), rng.uniform(-LIMIT, LIMIT), rng.random()))
        x, y, _ = found.blocks[found.pushed]
        on_table = 0.1 < x < 0.9 and 0.1 < y < 0.9
        if on_table and not found.success and abs(_off(world.start, world.goal, (x, y))) < 0.06:
            return replace(found, step=0)


def _route(world: World) -> list[Leg]:
    """What the fingertips still have to do; nothing once the block has arrived and they are clear of it."""
    gx, gy = tip = world.tip
    bx, by = block = world.blocks[world.pushed][:2]
    goal = world.goal
    apart, far = math.hypot(bx - gx, by - gy), math.hypot(goal[0] - bx, goal[1] - by)
    if far < _ARRIVED:
        ux, uy = ((gx - bx) / apart, (gy - by) / apart) if apart > 0 else (0.0, -1.0)
        backed_off = apart > _CLEAR - 1 / TICKS
        return [] if backed_off else [(_inside(bx + ux * _CLEAR, by + uy * _CLEAR), False)]
    dx, dy = (goal[0] - bx) / far, (goal[1] - by) / far
    behind = _inside(bx - dx * _RUN_UP, by - dy * _RUN_UP)
    last = goal[0] - dx * CONTACT, goal[1] - dy * CONTACT
    back = goal[0] - dx * _CLEAR, goal[1] - dy * _CLEAR
    along = (bx - gx) * dx + (by - gy) * dy
    ready = CONTACT - 0.03 < along < _RUN_UP + 0.02 and abs(_off(block, goal, tip)) < 0.03
    if not ready and math.hypot(behind[0] - gx, behind[1] - gy) > 2 / TICKS:
        return [(behind, False), (last, True), (back, False)]
    if apart < CONTACT + 1 / TICKS:
        # The block moves as the fingers do from here on, wherever they touch it.
        last = gx + goal[0] - bx, gy + goal[1] - by
    return [(last, True), (back, False)]


def _off(start: Spot, end: Spot, spot: Spot) -> float:
    """How far a spot is to the left of the line from start to end."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    return (dx * (spot[1] - start[1]) - dy * (spot[0] - start[0])) / math.hypot(dx, dy)


def _inside(x: float, y: float) -> Spot:
    """The nearest place that the gripper can reach."""
    return min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)


def _whole(distance: float) -> float:
    return round(distance * TICKS) / TICKS
