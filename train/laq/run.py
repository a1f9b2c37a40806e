"""Train a latent-action model: from a configuration to a run on disk."""

from __future__ import annotations

from collections.abc import Sequence

from oxcart.train import run
from oxcart.train.laq.config import LaqConfig, laq_config
from oxcart.train.laq.task import LaqTask
from oxcart.train.loop import Result


def configure(overrides: Sequence[str], *, resume: bool = False) -> LaqConfig:
    """See `oxcart.train.run.configure`."""
    return run.configure(laq_config, LaqConfig().run.dir, overrides, resume=resume)


def train_laq(config: LaqConfig, *, resume: bool = False, allow_changes: bool = False) -> Result:
    """See `oxcart.train.run.run_task`."""
    return run.run_task(config, LaqTask, resume=resume, allow_changes=allow_changes)
