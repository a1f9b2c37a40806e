"""From a configuration to a run on disk, whatever is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from oxcart.manifests.ownership import RUN, check_directory
from oxcart.train import run_directory
from oxcart.train.config import RunConfig, TrainConfig, to_yaml
from oxcart.train.device import make_accelerator
from oxcart.train.explain import explained
from oxcart.train.loop import Result, Task, fit
from oxcart.train.ranks import on_main, together
from oxcart.train.report import Report


class RunnableConfig(Protocol):
    """What every trainer's configuration has."""

    @property
    def run(self) -> RunConfig: ...
    @property
    def train(self) -> TrainConfig: ...
    @property
    def data(self) -> Any: ...
    @property
    def val(self) -> Any: ...


class RunnableTask(Task, Protocol):
    """What every trainer has beside what the loop needs."""

    @property
    def fingerprints(self) -> dict[str, str]:
        """URL of each dataset -> its fingerprint."""


T = TypeVar("T")
C = TypeVar("C", bound=RunnableConfig)


def configure(
    parse: Callable[[Sequence[str], Mapping[str, Any] | None], T],
    default: str,
    overrides: Sequence[str],
    *,
    resume: bool = False,
) -> T:
    """The configuration of a run: of a preset and overrides, or, to resume, of the run that is there and
    overrides.

    Args:
        parse: makes a configuration of overrides, and of one that was saved.
        default: directory of the run where no override says another.
        overrides: `KEY=VALUE`.
        resume: whether to start from what is there.

    Raises:
        ConfigError: it is impossible.
    """
    saved = None
    if resume:
        run = next((text.partition("=")[2] for text in overrides[::-1] if text.startswith("run.dir=")), None)
        saved = run_directory.saved_config(Path(run or default))
    return parse(overrides, saved)


def run_task(
    config: C,
    make: Callable[[C, torch.device], RunnableTask],
    *,
    resume: bool = False,
    allow_changes: bool = False,
) -> Result:
    """Train.

    Args:
        config: of the run.
        make: the task, of the configuration and the device.
        resume: go on where the run in `run.dir` stopped, if there is one.
        allow_changes: go on although data, batch or world size are others than before.

    Raises:
        OxcartError: see `oxcart.train.loop.fit`.
    """
    run = Path(config.run.dir)
    plain: dict[str, Any] = asdict(config)  # type: ignore[call-overload]

    def check() -> None:
        check_directory("run.dir", run, RUN)
        if not resume:
            run_directory.check_free(run)

    def report(step: int) -> Report:
        """Begins once all that can be refused has been."""
        device = accelerator.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        about = run_directory.circumstances(task.fingerprints, accelerator.num_processes, name)
        on_main(lambda: run_directory.write_run(run, to_yaml(config), about), accelerator)
        make_report = partial(
            Report,
            run,
            step=step,
            steps=config.train.steps,
            label=task.label,
            active=accelerator.is_main_process,
            quiet=config.run.quiet,
            tensorboard=config.run.tensorboard,
            wandb=config.run.wandb,
            config=plain,
        )
        return together(make_report, accelerator)

    with explained("data.batch_size", "take a smaller batch, or a larger train.accumulate"):
        accelerator = make_accelerator(config.train)
        on_main(check, accelerator)
        task = make(config, accelerator.device)
        return fit(
            task,
            run,
            config.train,
            batch_size=config.data.batch_size,
            validate_every=config.val.every,
            accelerator=accelerator,
            report=report,
            resume=resume,
            allow_changes=allow_changes,
        )
