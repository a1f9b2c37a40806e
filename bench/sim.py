"""What a step of the simulated kitchens costs, beside drawing its frames, and how often the expert succeeds.

    python bench/sim.py                  # 96 pixels, both cameras
    python bench/sim.py --size 128

Calls per second of CPU time of one thread, the most of several rounds in which the ways take turns, so that
whatever else the machine does counts little. An episode of random actions is stepped through
`gymnasium.make(...)` with its wrappers, and drawn again from its worlds alone.

Then the successes within MAX_STEPS steps, without drawing, of the expert and of random actions: in 50
kitchens, from plain and from perturbed starts.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from oxcart import sim
from oxcart.compile.sample.kitchen import begin, build_kitchen, draw_main, draw_wrist, open_session
from oxcart.compile.sample.world import PARAPHRASES, PushTask

Action = NDArray[Any]
Way = Callable[[int], object]
"""Does something, given the number of the call."""

ROUNDS = 12
STEPS = 60
"""Calls of each way in a round; the last way puts the environment back to where the round began."""


def main() -> None:
    """Measure, and print two tables."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--size", type=int, default=96, help="pixels per side of the main camera")
    options.add_argument("--kitchen", default="toykitchen1")
    chosen = options.parse_args()
    print_speed(chosen.size, chosen.kitchen)
    print()
    print_success()


def print_speed(size: int, kitchen: str) -> None:
    """Calls per CPU second, beside drawing."""
    env = gymnasium.make(sim.ID, size=size, kitchens=(kitchen,), max_episode_steps=10**9)
    env.action_space.seed(0)
    again = {"kitchen": kitchen, "session": 0, "episode": 0}
    env.reset(options=again)
    base = env.unwrapped
    assert isinstance(base, sim.KitchensEnv)
    taken = [env.action_space.sample() for _ in range(STEPS)]
    worlds = [base.world]
    for action in taken:
        worlds.append(sim.move(worlds[-1], action))
    ways: dict[str, Way] = {
        "draw both cameras": lambda i: (
            draw_main(base.session, worlds[i]),
            draw_wrist(base.session, worlds[i]),
        ),
        "env.step": lambda i: env.step(taken[i]),
        "move": lambda i: sim.move(worlds[i], taken[i]),
        "expert": lambda i: sim.expert(worlds[i]),
        "env.reset to an open session": lambda i: env.reset(options=again),
    }
    best = measured(ways)
    drawing, *_ = best.values()
    print(f"{'':34}{'per CPU second':>16}{'of drawing':>12}")
    for name, rate in best.items():
        print(f"{name:34}{rate:16,.0f}{rate / drawing:12.2f}")


def print_success() -> None:
    """Successes of the expert and of random actions, by kind of task."""
    print(f"{'':34}{'expert':>16}{'random':>12}")
    low, high, rng = (-sim.LIMIT, -sim.LIMIT, 0), (sim.LIMIT, sim.LIMIT, 1), np.random.default_rng(0)

    def random(world: sim.World) -> Action:
        return rng.uniform(low, high)

    for perturbed, kind in itertools.product((False, True), PARAPHRASES):
        starts = list(worlds_of(kind, perturbed))
        by_expert = [acted(world, sim.expert) for world in starts]
        by_chance = [acted(world, random) for world in starts]
        counts = (f"{sum(world.success for world in ends)}/{len(ends)}" for ends in (by_expert, by_chance))
        name = f"{kind}{', perturbed' if perturbed else ''}"
        print(f"{name:34}{next(counts):>16}{next(counts):>12}  in {max(end.step for end in by_expert)} steps")


def worlds_of(kind: str, perturbed: bool) -> Iterator[sim.World]:
    """First steps of 6 episodes in each of 50 kitchens."""
    for number, name in enumerate(sim.kitchen_names(50)):
        session = open_session(build_kitchen(name, size=32), number % 2)
        for episode in range(sim.FIRST_EPISODE, sim.FIRST_EPISODE + 6):
            task = PushTask(kind, session.colours[episode % 3], session.landmark)
            yield begin(session, episode=episode, task=task, perturbed=perturbed)


def acted(world: sim.World, policy: Callable[[sim.World], Action]) -> sim.World:
    """The last world of an episode."""
    while not world.success and world.step < sim.MAX_STEPS:
        world = sim.move(world, policy(world))
    return world


def measured(ways: Mapping[str, Way]) -> dict[str, float]:
    """Most calls per CPU second of each way."""
    most = dict.fromkeys(ways, 0.0)
    for _ in range(ROUNDS):
        for name, way in ways.items():
            before = time.thread_time()
            for i in range(STEPS):
                way(i)
            most[name] = max(most[name], STEPS / (time.thread_time() - before))
    return most


if __name__ == "__main__":
    main()
