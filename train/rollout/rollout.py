"""A rollout: many episodes of one policy, from starts that are the same for every policy.

    starts = plan(places, episodes=200, seed=0)          # places: environment -> `held out` or `seen`
    outcomes = rollout(stage, starts, identity={}, run=alone, kept=Path("runs/policy"))

A start follows from the seed, the name of the environment and the number of the episode alone, so another
policy, another selection of environments, or more episodes keep the starts that are there. The rollout is
done in groups (`play`), and groups that are done are kept in a folder until all are: an interrupted rollout
resumes when it is run again.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from blake3 import blake3

from oxcart.manifests.canonical import canonical_json
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.tables import EPISODES
from oxcart.shards.errors import ConfigError
from oxcart.shards.files import private_folder, write_file
from oxcart.train.checkpoint import find, read_header
from oxcart.train.config import saved_config
from oxcart.train.rollout.play import LANES, Outcome, Stage, Start, group
from oxcart.train.trained_on import UNKNOWN, read_record

Run = Callable[
    [Callable[..., list[Outcome]], Stage, Sequence[Sequence[Start]], int], Iterable[tuple[int, list[Outcome]]]
]
"""Calls a function with the stage and each group of starts, and yields number and outcomes of each group as
they end; the last argument is the number of episodes that are there already. The engine of compiles
(`oxcart.compile.engines.processes`) does so in processes, `alone` in this one."""


def plan(places: Mapping[str | None, str], *, episodes: int, seed: int) -> list[Start]:
    """Starts of a rollout: environments in turn.

    Args:
        places: environment -> its place; None -> a place for an id of Gymnasium that has but one.
        episodes: number of starts.
        seed: seed of all of them.
    """
    names = list(places)
    return [
        Start(
            environment=name,
            place=places[name],
            number=i // len(names),
            seed=_seed(seed, name, i // len(names)),
        )
        for i in range(episodes)
        for name in [names[i % len(names)]]
    ]


def dataset_of(run: Path, given: str | None) -> str:
    """URL of the dataset whose kitchens are meant: the given one, or the first that a run was trained on.

    Raises:
        ConfigError: none is given, and the run names none.
    """
    trained = ((saved_config(run) or {}).get("data") or {}).get("datasets") or []
    if given is None and not trained:
        raise ConfigError(f"--dataset: {run} does not say what it was trained on; name the dataset")
    return str(trained[0]) if given is None else given


def places_of(run: Path, url: str, split: str) -> dict[str | None, str]:
    """Environments of a split of a dataset -> where they stand for a run, in sorted order.

    Args:
        run: directory of the run.
        url: address of the dataset.
        split: the split.

    Raises:
        ConfigError: the split has no environments.
    """
    opened = Dataset.open(url)
    table = opened.table(EPISODES, ["split", "environment"]).group_by(["split", "environment"]).aggregate([])
    rows = table.to_pylist()
    names = sorted(row["environment"] for row in rows if row["split"] == split and row["environment"])
    if not names:
        there = sorted({row["split"] for row in rows if row["environment"]})
        raise ConfigError(
            f"--split: {url} has no environments in {split!r}; expected one of {', '.join(there) or 'none'}"
        )
    path = find(run)
    record = None if path is None else read_record(path, read_header(path).state)
    if record is None:
        return dict.fromkeys(names, UNKNOWN)
    return dict(zip(names, record.places(opened, names).tolist(), strict=True))


def rollout(
    stage: Stage,
    starts: Sequence[Start],
    *,
    identity: Mapping[str, Any],
    run: Run,
    kept: Path,
) -> list[Outcome]:
    """Play all episodes.

    Args:
        stage: what they are played with.
        starts: where they begin.
        identity: all that outcomes depend on besides starts, as JSON.
        run: see `Run`.
        kept: folder for a folder of outcomes while the rollout is not complete.

    Returns:
        An outcome for each start.

    Raises:
        OxcartError: see `oxcart.train.rollout.play.group`.
    """
    groups = [starts[at : at + LANES] for at in range(0, len(starts), LANES)]
    about = {**identity, "starts": [asdict(start) for start in starts], "films": str(stage.films)}
    folder = kept / f"rollout-{blake3(canonical_json(about)).hexdigest()[:12]}.parts"
    os.close(private_folder(folder, "RUN"))
    paths = [folder / f"{number:06}.json" for number in range(len(groups))]
    found = {number: _read(path) for number, path in enumerate(paths) if path.exists()}
    done = sum(map(len, found.values()))
    left = [number for number in range(len(groups)) if number not in found]
    for at, outcomes in run(group, stage, [groups[number] for number in left], done):
        found[left[at]] = outcomes
        write_file(paths[left[at]], _bytes(outcomes))
    shutil.rmtree(folder, ignore_errors=True)  # the same rollout at the same time may have
    return [outcome for number in range(len(groups)) for outcome in found[number]]


def alone(
    function: Callable[..., list[Outcome]], stage: Stage, groups: Sequence[Sequence[Start]], done: int
) -> Iterator[tuple[int, list[Outcome]]]:
    """A `Run` in this process."""
    for number, starts in enumerate(groups):
        yield number, function(stage, starts, lambda episodes, size: None)


def _seed(seed: int, environment: str | None, number: int) -> int:
    text = json.dumps([seed, environment, number])
    return int.from_bytes(blake3(text.encode()).digest(length=4), "little") >> 1


def _bytes(outcomes: Sequence[Outcome]) -> bytes:
    rows = [{**asdict(one), "strip": base64.b64encode(one.strip).decode()} for one in outcomes]
    return json.dumps(rows).encode()


def _read(path: Path) -> list[Outcome]:
    rows = json.loads(path.read_text("utf-8"))
    return [
        Outcome(**{**row, "start": Start(**row["start"]), "strip": base64.b64decode(row["strip"])})
        for row in rows
    ]
