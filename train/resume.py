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
    header = checkpoints.read_header(path)
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
    weights = checkpoints.weights_of(module)
    check_shapes(path, header.model, {name: one.shape for name, one in weights.items()})
    learning = checkpoints.learning(module, optimizer)
    _check_moments(path, header, learning)
    # The moments come from the checkpoint; learning rates and weight decay follow the present configuration.
    fused = bool(optimizer.defaults.get("fused"))
    for name, weight in learning.items():
        if f"optimizer/{name}/step" in header.shapes:
            step = torch.zeros((), device=weight.device if fused else "cpu")
            moments = {"exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
            optimizer.state[weight] = {"step": step, **moments}
    checkpoints.load(path, checkpoints.state_tensors(module, optimizer))
    _check_values(path, {name: optimizer.state[weight] for name, weight in learning.items()})
    rank = accelerator.process_index
    own = checkpoints.read(path, header, f"random/{rank}/")
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


def _check_moments(path: Path, header: Header, learning: Mapping[str, Tensor]) -> None:
    """Refuse moments that do not fit the weights. A weight that never had a gradient has no moments."""
    found: dict[str, list[str]] = {}
    for name in header.shapes:
        if name.startswith("optimizer/"):
            of, _, what = name.removeprefix("optimizer/").rpartition("/")
            found.setdefault(of, []).append(what)
    for of, kinds in found.items():
        if of not in learning:
            raise CorruptError(f"{path}: optimizer/{of} belongs to no weight of the model")
        shape = tuple(learning[of].shape)
        wanted = {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
        for what in dict.fromkeys([*wanted, *kinds]):
            name = f"optimizer/{of}/{what}"
            asked = f"{list(wanted[what])}" if what in wanted else "none"
            got = f"{list(header.shapes[name])}" if name in header.shapes else "none"
            if asked != got:
                raise CorruptError(f"{path}: {name}: expected {asked}, got {got}")
            if not header.types[name].is_floating_point:
                raise CorruptError(f"{path}: {name} holds {header.types[name]}, expected numbers")
    if header.step and not found:
        raise CorruptError(f"{path}: there is no moment of the optimizer")


def _check_values(path: Path, moments: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Refuse moments with values that no optimizer produces."""
    for name, values in moments.items():
        if not values:
            continue
        if values["step"] < 1:
            raise CorruptError(
                f"{path}: optimizer/{name}/step: expected at least 1, got {values['step'].item():g}"
            )
        squares = local(values["exp_avg_sq"])
        if squares.numel() and squares.min() < 0:
            raise CorruptError(f"{path}: optimizer/{name}/exp_avg_sq holds numbers below 0")


def _kept(state: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a loader's state that determines the order of samples, without the position."""
    return {**state["order"], "batch_size": state["batch_size"], "world_size": state["world_size"]}
