"""Resume from a checkpoint: refuse the checkpoint of another run, and restore everything else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.train import checkpoint as checkpoints
from oxcart.train import sharding
from oxcart.train.checkpoint import Header, check_shapes, entry
from oxcart.train.config import renamed
from oxcart.train.data.loader import Loader
from oxcart.train.data.state import changes
from oxcart.train.finite import local
from oxcart.train.task import Task
from oxcart.train.trained_on import TrainedOn, read_record


class Restored(NamedTuple):
    """The point at which a run resumes."""

    step: int
    """Optimizer steps done."""
    best: float
    """Best validation score so far; infinity if there is none to compare with."""
    validated: int
    """Step of the last validation."""
    afresh: bool
    """Whether the data have changed, so that their order starts from the beginning."""
    record: TrainedOn | None
    """What the run was trained on so far; None if it kept no record."""


def restore(
    path: Path,
    task: Task,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Loader,
    accelerator: Accelerator,
    allow_changes: bool,
) -> Restored:
    """Restore a run from a checkpoint.

    Args:
        path: the checkpoint.
        task: what is trained.
        module: the model of the task.
        optimizer: the optimizer of the model.
        loader: the training loader of the task.
        accelerator: the accelerator of this rank.
        allow_changes: resume although datasets, batch size or world size have changed.

    Raises:
        ConfigError: the checkpoint belongs to another model, or the data have changed without permission.
        CorruptError: a part of the checkpoint is missing, or does not fit its model.
    """
    sharded = path.is_dir()
    header = sharding.read_header(path, module, optimizer) if sharded else checkpoints.read_header(path)
    if "imported" in header.state:
        raise ConfigError(f"{path}: the run was imported and cannot be resumed; train in another run.dir")
    identity = entry(path, header.state, "identity", dict)
    if wrong := changes({name: renamed(name, one) for name, one in identity.items()}, task.identity()):
        raise ConfigError(f"the run has another model: {'; '.join(wrong)}; use another run.dir")
    now = loader.state_dict()
    before = entry(path, header.state, "loader", dict)
    for name, kind in (("position", int), ("order", dict), ("batch_size", int), ("world_size", int)):
        entry(path, before, name, kind)
    changed = changes(_kept(before), _kept(now))
    if changed and not allow_changes:
        raise ConfigError(
            f"the run would resume with other data: {'; '.join(changed)}; "
            "restore the configuration of the run, or pass --allow-changes"
        )
    afresh = before["order"] != now["order"]
    if not afresh:
        place = {**before, "batch_size": now["batch_size"], "world_size": now["world_size"]}
        try:
            loader.load_state_dict(place)
        except ConfigError as error:
            raise CorruptError(f"{path}: loader: {error}") from error
    weights = sharding.weights_of(module) if sharded else module.state_dict()
    check_shapes(path, header.model, {name: one.shape for name, one in weights.items()})
    _check_moments(path, header, optimizer)
    rank = accelerator.process_index
    if sharded:
        own = sharding.load(path, module, optimizer, rank)
        _check_values(path, optimizer.state_dict()["state"])
    else:
        saved = checkpoints.load(path)
        _check_values(path, saved.optimizer["state"])
        module.load_state_dict(dict(saved.model))
        # The moments come from the checkpoint; learning rates and weight decay follow the present
        # configuration.
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": saved.optimizer["state"], "param_groups": groups})
        own = {
            name.partition("/")[2]: state
            for name, state in saved.random.items()
            if name.partition("/")[0] == str(rank)
        }
    if "cpu" not in own and (own or before["world_size"] == now["world_size"]):
        raise CorruptError(f"{path}: there is no random/{rank}/cpu, the random state of rank {rank}")
    try:
        if own:
            checkpoints.set_random_states(own)
    except (RuntimeError, TypeError) as error:
        raise CorruptError(f"{path}: random states of rank {rank} cannot be restored: {error}") from error
    # A score on other samples cannot be compared with.
    alike = header.state.get("scored") == json.loads(json.dumps(task.scored()))
    best = header.state.get("best") if alike else None
    score = float("inf") if best is None else float(entry(path, header.state, "best", float))
    validated = entry(path, header.state, "validated", int)
    record = read_record(path, header.state)
    return Restored(header.step, score, validated, afresh=afresh, record=record)


def _check_moments(path: Path, header: Header, optimizer: torch.optim.Optimizer) -> None:
    """Refuse moments that do not fit the weights. A weight that never had a gradient has no moments."""
    weights = [one for group in optimizer.param_groups for one in group["params"]]
    for index, found in header.optimizer.items():
        if not 0 <= index < len(weights):
            raise CorruptError(f"{path}: optimizer/{index} belongs to no weight of the model")
        shape = tuple(weights[index].shape)
        wanted = {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
        for name in dict.fromkeys([*wanted, *found]):
            asked = f"{list(wanted[name])}" if name in wanted else "none"
            kept = found.get(name)
            got = "none" if kept is None else f"{list(kept)}"
            if asked != got or kept is None:
                raise CorruptError(f"{path}: optimizer/{index}/{name}: expected {asked}, got {got}")
    if header.step and not header.optimizer:
        raise CorruptError(f"{path}: there is no optimizer/0/exp_avg, nor any other moment of the optimizer")


def _check_values(path: Path, moments: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Refuse moments with values that no optimizer produces."""
    for index, values in moments.items():
        for name, value in values.items():
            if not value.is_floating_point():
                raise CorruptError(f"{path}: optimizer/{index}/{name} holds {value.dtype}, expected numbers")
        if values["step"] < 1:
            raise CorruptError(
                f"{path}: optimizer/{index}/step: expected at least 1, got {values['step'].item():g}"
            )
        squares = local(values["exp_avg_sq"])
        if squares.numel() and squares.min() < 0:
            raise CorruptError(f"{path}: optimizer/{index}/exp_avg_sq holds numbers below 0")


def _kept(state: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a loader's state that determines the order of samples, without the position."""
    return {**state["order"], "batch_size": state["batch_size"], "world_size": state["world_size"]}
