"""How much faster two processes roll out a policy than one, and what a step of an episode costs.

    python bench/rollout.py                            # an untrained policy of preset=small, 200 episodes
    python bench/rollout.py --run runs/policy --episodes 400

One and two processes take turns. Wall time is what one waits for, if the cores have nothing else to do. The
speed-up of CPU time does not mind what else they do: the time of one process, divided by half of that of two
with their start-up.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from oxcart.compile.engines import processes
from oxcart.train.policy.controller import load_policy
from oxcart.train.rollout.play import Stage, opened
from oxcart.train.rollout.results import act_ms
from oxcart.train.rollout.rollout import dataset_of, places_of, plan, rollout

ROUNDS = 2


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="run of a policy; by default an untrained one")
    parser.add_argument("--episodes", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = given.run or untrained(Path(folder))
        stage = Stage(policy=partial(load_policy, run, device="cpu"), env="kitchens")
        starts = plan(places_of(run, dataset_of(run, None), "train"), episodes=given.episodes, seed=0)
        opened(stage)  # so that one process, which is this one, does not open it either
        print("processes  wall (s)  CPU (s)  ms of the policy per step")
        cpu: dict[int, list[float]] = {1: [], 2: []}
        wall: dict[int, list[float]] = {1: [], 2: []}
        for workers in (1, 2) * ROUNDS:
            began, used = time.perf_counter(), seconds()
            outcomes = rollout(stage, starts, identity={}, run=partial(play, workers), kept=Path(folder))
            wall[workers].append(time.perf_counter() - began)
            cpu[workers].append(seconds() - used)
            print(
                f"{workers:9}  {wall[workers][-1]:8.1f}  {cpu[workers][-1]:7.1f}  {act_ms(outcomes):25.2f}",
                flush=True,
            )
        print(f"speed-up: {min(wall[1]) / min(wall[2]):.2f} of wall time, ", end="")
        print(f"{2 * min(cpu[1]) / min(cpu[2]):.2f} of CPU time")


def play(workers: int, function: Any, stage: Stage, groups: Any, done: int) -> Iterator[Any]:
    """Play groups in processes."""
    yield from processes.run(function, stage, groups, workers=workers, report=lambda count, size: None)


def seconds() -> float:
    """CPU time of this process and of those that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def untrained(folder: Path) -> Path:
    """A run of one step on a small sample of the kitchens."""
    # Processes that play import this module, and need none of these.
    from oxcart.compile.pipeline import CompileConfig, execute, prepare
    from oxcart.compile.plan import Settings
    from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
    from oxcart.compile.sources.base import SourceConfig
    from oxcart.train.policy.config import policy_config
    from oxcart.train.policy.task import train_policy

    source = write_rlds(folder / "source", RldsSampleConfig(kitchens=12, sessions=1, episodes=1))
    config = CompileConfig(
        source=SourceConfig(url=str(source)), out=str(folder / "data"), settings=Settings(), workers=1
    )
    execute(prepare(config))
    given = [f"data.datasets=[{folder / 'data'}]", f"run.dir={folder / 'run'}", "train.steps=1"]
    train_policy(policy_config(["preset=small", *given, "run.quiet=true"]))
    return folder / "run"


if __name__ == "__main__":
    main()
