"""Go on from a checkpoint: refuse what is not the same run, and put everything else back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from oxcart.shards.errors import ConfigError
from oxcart.train import checkpoint as checkpoints
from oxcart.train.checkpoint import Checkpoint
from oxcart.train.data.loader import Loader
from oxcart.train.data.state import differences

if TYPE_CHECKING:
    from oxcart.train.loop import Task


class Restored(NamedTuple):
    """Where a run goes on."""

    step: int
    """Steps done."""
    best: float
    """Score."""
    validated: int
    """Step of the last validation."""
    afresh: bool
    """The data are others, so there is no place in them to go on from."""


def restore(
    saved: Checkpoint,
    task: Task,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Loader,
    accelerator: Accelerator,
    allow_changes: bool,
) -> Restored:
    """Put everything back.

    Args:
        saved: the checkpoint.
        task: that goes on.
        module: its model.
        optimizer: of the model.
        loader: of the task.
        accelerator: of this rank.
        allow_changes: go on although datasets, batch or world size have changed.

    Raises:
        ConfigError: it is another model, or data have changed and that is not allowed.
    """
    if wrong := list(differences("", saved.state["identity"], task.identity())):
        raise ConfigError(f"the run is of another model: {'; '.join(wrong)}; use another run.dir")
    now = loader.state_dict()
    before = saved.state["loader"]
    changed = list(differences("", _kept(before), _kept(now)))
    if changed and not allow_changes:
        raise ConfigError(
            f"the run would go on with other data: {'; '.join(changed)}; "
            "give it what it had, or pass --allow-changes"
        )
    afresh = before["order"] != now["order"]
    if not afresh:
        loader.load_state_dict({**before, "batch_size": now["batch_size"], "world_size": now["world_size"]})
    module.load_state_dict(dict(saved.model))
    # The moments are those of then, rates and decays those that are asked for now.
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": saved.optimizer["state"], "param_groups": groups})
    rank = accelerator.process_index
    own = {
        name.partition("/")[2]: state
        for name, state in saved.random.items()
        if name.partition("/")[0] == str(rank)
    }
    if own:
        checkpoints.set_random_states(own)
    # A score of other pairs is none to be better than.
    alike = saved.state.get("scored") == json.loads(json.dumps(task.scored()))
    best = saved.state["best"] if alike else None
    return Restored(
        saved.step, float("inf") if best is None else best, saved.state["validated"], afresh=afresh
    )


def _kept(state: Mapping[str, Any]) -> dict[str, Any]:
    """What of a loader's state says which samples come, but not how far it is."""
    return {**state["order"], "batch_size": state["batch_size"], "world_size": state["world_size"]}
