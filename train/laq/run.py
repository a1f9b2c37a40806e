"""Train a latent-action model: from a configuration to a run on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from oxcart.train import runs
from oxcart.train.config import to_yaml
from oxcart.train.laq.config import LaqConfig, laq_config
from oxcart.train.laq.task import LaqTask
from oxcart.train.loop import Result, fit, make_accelerator
from oxcart.train.report import Report


def configure(overrides: Sequence[str], *, resume: bool = False) -> LaqConfig:
    """The configuration of a run: of a preset and overrides, or, to resume, of the run that is there and
    overrides.

    Raises:
        ConfigError: it is impossible.
    """
    if resume:
        run = next((text.partition("=")[2] for text in overrides[::-1] if text.startswith("run.dir=")), None)
        saved = runs.saved_config(Path(run or LaqConfig().run.dir))
        if saved is not None:
            return laq_config(overrides, saved)
    return laq_config(overrides)


def train_laq(config: LaqConfig, *, resume: bool = False, allow_changes: bool = False) -> Result:
    """Train.

    Args:
        config: of the run.
        resume: go on where the run in `run.dir` stopped, if there is one.
        allow_changes: go on although data, batch or world size are others than before.

    Raises:
        OxcartError: see `oxcart.train.loop.fit`.
    """
    run = Path(config.run.dir)
    first = int(os.environ.get("RANK", "0")) == 0
    if not resume and first:
        runs.check_free(run)
    accelerator = make_accelerator(config.train)
    task = LaqTask(config, accelerator.device)

    def report(step: int) -> Report:
        """Begins once all that can be refused has been."""
        if accelerator.is_main_process:
            device = accelerator.device
            name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
            about = runs.circumstances(task.fingerprints, accelerator.num_processes, name)
            runs.write_run(run, to_yaml(config), about)
        return Report(
            run,
            step=step,
            steps=config.train.steps,
            label=task.label,
            active=accelerator.is_main_process,
            quiet=config.run.quiet,
            tensorboard=config.run.tensorboard,
            wandb=config.run.wandb,
            config=asdict(config),
        )

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
