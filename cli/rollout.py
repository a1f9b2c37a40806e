"""`oxcart rollout`: let a policy act in simulated worlds, and count its successes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oxcart.cli.options import (
    LocalPath,
    PathOrUrl,
    device_option,
    need,
    need_train,
    options,
    quiet_option,
    workers_option,
)
from oxcart.cli.outputs import ROLLOUT_JSON, ROLLOUT_PAGE, report_options
from oxcart.shards.errors import ConfigError
from oxcart.shards.files import write_file

if TYPE_CHECKING:
    from oxcart.train.rollout.play import Outcome, Stage, Start
    from oxcart.train.rollout.results import Line, Rollout

acting_options = options(
    click.option(
        "--execute",
        type=click.IntRange(min=1),
        metavar="N",
        help="Actions of a chunk that are executed before the next is predicted.  [default: as trained]",
    ),
    click.option(
        "--ensemble",
        type=click.FloatRange(min=0),
        metavar="RATE",
        help="Predict at every step, and average the actions that chunks have for it, with weights "
        "exp(-RATE * age).  [default: no averaging]",
    ),
    device_option,
)
"""Options of commands in which a policy acts."""


@click.command()
@click.argument("run", type=LocalPath(file_okay=False))
@click.option(
    "--env",
    required=True,
    metavar="kitchens|ID",
    help="The sample kitchens, or the id of another Gymnasium environment; `module:ID` imports the module.",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    default=("val",),
    help="Kitchens of this split of the dataset; give it twice to compare: --split val --split train.",
)
@click.option(
    "--episodes", type=click.IntRange(min=1), default=50, help="Episodes per split, in its kitchens in turn."
)
@click.option("--dataset", type=PathOrUrl(), help="Dataset whose split is meant.  [default: the run's first]")
@click.option(
    "--adapter",
    type=LocalPath(exists=True, dir_okay=False),
    help="Python file that says how the environment is seen and moved (docs/policy.md).",
)
@click.option(
    "--env-option",
    "env_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the environment, such as sample_seed=1 of the kitchens.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, help="Seed of the starts; equal for equal starts."
)
@acting_options
@report_options(page=ROLLOUT_PAGE, json=ROLLOUT_JSON)
@click.option("--film", type=LocalPath(file_okay=False), metavar="DIR", help="Film every episode, as MP4.")
@workers_option("Processes.")
@quiet_option
def rollout(
    run: Path,
    env: str,
    splits: tuple[str, ...],
    episodes: int,
    dataset: str | None,
    adapter: Path | None,
    env_options: tuple[str, ...],
    seed: int,
    execute: int | None,
    ensemble: float | None,
    device: str,
    output: Path | None,
    json_file: Path | None,
    film: Path | None,
    workers: int,
    quiet: bool,
) -> None:
    """Let the policy of RUN act in simulated worlds, and count its successes.

    Starts depend on --seed alone and not on the policy, so that oxcart compare can pair
    rollouts. Intervals are Wilson's with 95% confidence, clustered by environment if there
    are five. The world decides what is a success. On a CPU the outcomes are bit for bit
    the same with any number of --workers. An interrupted rollout resumes: run the command
    again.

    \b
    Example:
      oxcart rollout runs/policy --env kitchens --episodes 200 -o rollout.html --json rollout.json
      oxcart rollout runs/policy --env kitchens --split val --split train --film films
      oxcart rollout runs/pusht --env gym_pusht/PushT-v0 --adapter examples/pusht.py
    """
    need_train()
    need("sim", "gymnasium")
    from functools import partial

    from oxcart.manifests.ownership import VIDEOS, check_directory
    from oxcart.train.policy.controller import load_policy
    from oxcart.train.rollout import rollout as work
    from oxcart.train.rollout.adapter import KITCHENS
    from oxcart.train.rollout.fit import check_fit
    from oxcart.train.rollout.play import Stage, opened
    from oxcart.train.rollout.results import Rollout, rollout_json
    from oxcart.train.trained_on import UNKNOWN

    if film is not None:
        need("video", "av")
        check_directory("--film", film, VIDEOS)
    stage = Stage(
        policy=partial(load_policy, run, device=device, execute=execute, ensemble=ensemble),
        env=env,
        adapter=adapter,
        options=_parsed(env_options),
        films=film,
    )
    starts: list[Start] = []
    if env == KITCHENS:
        dataset = work.dataset_of(run, dataset)
        for split in dict.fromkeys(splits):
            starts += work.plan(work.places_of(run, dataset, split), episodes=episodes, seed=seed)
    else:
        starts = work.plan({None: UNKNOWN}, episodes=episodes, seed=seed)
    check_fit(stage, starts[0])
    policy = opened(stage).policy
    about = {
        "run": str(run),
        "policy": policy.fingerprint,
        "env": env,
        "adapter": None if adapter is None else str(adapter),
        "options": stage.options,
        "sizes": opened(stage).sizes,
        "splits": list(splits) if env == KITCHENS else [],
        "dataset": dataset,
        "seed": seed,
        "execute": execute,
        "ensemble": ensemble,
        "command": _command(click.get_current_context().params),
    }
    outcomes = work.rollout(
        stage,
        starts,
        identity={name: value for name, value in about.items() if name not in ("run", "command")},
        run=partial(_run, workers, len(starts), quiet),
        kept=run,
    )
    found = Rollout(about=about, outcomes=outcomes)
    if output is not None:
        from oxcart.train.rollout.page import rollout_page

        write_file(output, rollout_page(found, films=None if film is None else _from(output, film)))
    if json_file is not None:
        write_file(json_file, rollout_json(found))
    if not quiet:
        _say(found, output, film)


def _run(
    workers: int, total: int, quiet: bool, function: Any, stage: Stage, groups: Sequence[Any], done: int
) -> Iterator[tuple[int, list[Outcome]]]:
    """Play groups in processes, and show how many episodes have ended."""
    from oxcart.cli.progress import progress
    from oxcart.compile.engines import processes

    with progress("rolling out", total=total, unit="episodes", quiet=quiet, start=done) as report:
        yield from processes.run(
            function, stage, groups, workers=workers, report=lambda count, size: report(done + count)
        )


def _parsed(texts: Sequence[str]) -> dict[str, Any]:
    """Options of an environment from KEY=VALUE."""
    import yaml

    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key.isidentifier() or not equals:
            raise ConfigError(f"--env-option: expected KEY=VALUE, got {text!r}")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--env-option: {key}: expected a value of YAML, got {value!r}") from error
    return found


def _from(page: Path, folder: Path) -> str:
    """Address of a folder, as a page has it."""
    import os
    from urllib.parse import quote

    return quote(Path(os.path.relpath(folder, page.parent)).as_posix())


def _command(given: dict[str, Any]) -> str:
    """The command line that makes this rollout, without the files it is written to."""
    words = ["oxcart", "rollout", str(given["run"])]
    for name, value in given.items():
        option = {"splits": "split", "env_options": "env-option"}.get(name, name)
        if name in ("run", "output", "json_file", "film", "workers", "quiet") or value is None:
            continue
        for one in value if isinstance(value, tuple) else (value,):
            words += [f"--{option}", str(one)]
    return shlex.join(words)


def _say(found: Rollout, output: Path | None, film: Path | None) -> None:
    from oxcart.cli.table import line_width, plain, show, table, wrapped
    from oxcart.train.rollout.rates import METHOD
    from oxcart.train.rollout.results import act_ms, by_environment, by_task, totals

    width, outcomes = line_width(), found.outcomes
    columns = ("success", "95% interval", "episodes", "envs", "steps")
    rows = [(line.place, *_row(line)) for line in totals(outcomes)]
    lines = [table(("where", *columns), rows, width=width), ""]
    for title, some in (("task", by_task(outcomes)), ("environment", by_environment(outcomes))):
        rows = [(line.name, line.place, *_row(line)) for line in some]
        lines += [table((title, "where", *columns), rows, width=width), ""] if some else []
    lines += wrapped(METHOD, width, "    ")
    lines += [f"policy: {act_ms(outcomes):.1f} ms per step of an episode"]
    lines += [f"report: {plain(str(output))}"] if output is not None else []
    lines += [f"films: {plain(str(film))}"] if film is not None else []
    show("\n".join(lines))


def _row(line: Line) -> tuple[object, ...]:
    rate = line.rate
    return (
        f"{rate.value:.1%}",
        f"{rate.interval.low:.1%} to {rate.interval.high:.1%}",
        f"{rate.successes}/{rate.episodes}",
        rate.environments or None,
        None if line.steps is None else f"{line.steps:.1f}",
    )
