"""Train a vision-language-action model: from a configuration to a run on disk."""

from __future__ import annotations

from collections.abc import Sequence

from oxcart.shards.errors import ConfigError
from oxcart.train import run
from oxcart.train.loop import Result
from oxcart.train.vla.config import VlaConfig, vla_config
from oxcart.train.vla.task import VlaTask


def configure(overrides: Sequence[str], *, resume: bool = False) -> VlaConfig:
    """See `oxcart.train.run.configure`."""
    return run.configure(vla_config, VlaConfig().run.dir, overrides, resume=resume)


def train_vla(config: VlaConfig, *, resume: bool = False, allow_changes: bool = False) -> Result:
    """See `oxcart.train.run.run_task`.

    Raises:
        ConfigError: no model is named.
    """
    if not config.model:
        raise ConfigError(
            "model: expected a vision-language model, e.g. model=Qwen/Qwen3-VL-2B-Instruct, or a directory "
            "such as that of: oxcart sample vlm DIR"
        )
    return run.run_task(config, VlaTask, resume=resume, allow_changes=allow_changes)
