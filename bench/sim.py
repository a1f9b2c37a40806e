"""What a step of the simulated kitchens costs, beside drawing its frames alone.

    python bench/sim.py                  # 96 pixels, both cameras
    python bench/sim.py --size 128

Calls per second of CPU time of one thread, the most of several rounds in which the ways take turns, so that
whatever else the machine does counts little. An episode of random actions is stepped through
`gymnasium.make(...)` with its wrappers, and drawn again from its worlds alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping

import gymnasium

from oxcart import sim
from oxcart.compile.sample.kitchen import draw_main, draw_wrist

Way = Callable[[int], object]
"""Does something, given the number of the call."""

ROUNDS = 12
STEPS = 60
"""Calls of each way in a round; the last way puts the environment back to where the round began."""


def main() -> None:
    """Measure, and print rates and ratios."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--size", type=int, default=96, help="pixels per side of the main camera")
    options.add_argument("--kitchen", default="toykitchen1")
    chosen = options.parse_args()
    env = gymnasium.make(sim.ID, size=chosen.size, kitchens=(chosen.kitchen,), max_episode_steps=10**9)
    env.action_space.seed(0)
    again = {"kitchen": chosen.kitchen, "session": 0, "episode": 0}
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
