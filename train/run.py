"""Run a training of any task: from a configuration to a directory with checkpoints and metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from oxcart.manifests.ownership import RUN, check_directory
from oxcart.train import run_directory
from oxcart.train.config import TrainerConfig, to_yaml
from oxcart.train.data.workers import too_few_cores
from oxcart.train.device import make_accelerator
from oxcart.train.explain import explained
from oxcart.train.loop import Result, fit
from oxcart.train.ranks import on_main, together
from oxcart.train.report import RunLog
from oxcart.train.task import Task

C = TypeVar("C", bound=TrainerConfig)


def run_task(
    config: C,
    make: Callable[[C, torch.device], Task],
    *,
    resume: bool = False,
    allow_changes: bool = False,
) -> Result:
    """Train what a configuration describes.

    Args:
        config: configuration of the run.
        make: makes the task from the configuration and the device.
        resume: continue where the run in `run.dir` stopped, if there is one.
        allow_changes: resume although datasets, batch size or world size have changed.

    Raises:
        OxcartError: see `oxcart.train.loop.fit`.
    """
    run = Path(config.run.dir)

    def check() -> None:
        check_directory("run.dir", run, RUN)
        if not resume:
            run_directory.check_free(run)

    def make_log(step: int) -> RunLog:
        """Open the log of the run, once everything that can be refused has been checked."""
        device = accelerator.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        about = run_directory.circumstances(task.fingerprints, accelerator.num_processes, name)
        on_main(lambda: run_directory.write_run(run, to_yaml(config), about), accelerator)
        log = partial(
            RunLog,
            run,
            step=step,
            steps=config.train.steps,
            label=task.label,
            active=accelerator.is_main_process,
            quiet=config.run.quiet,
            tensorboard=config.run.tensorboard,
            wandb=config.run.wandb,
            config=asdict(config),  # type: ignore[call-overload]
        )
        made = together(log, accelerator)
        if warning := too_few_cores():
            made.warn(warning)
        return made

    with explained("data.batch_size", "take a smaller batch, or a larger train.accumulate"):
        accelerator = make_accelerator(config.train)
        on_main(check, accelerator)
        task = make(config, accelerator.device)
        return fit(task, config, accelerator, make_log, resume=resume, allow_changes=allow_changes)
