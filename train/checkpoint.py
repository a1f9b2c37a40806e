"""Checkpoints: one safetensors file each, which is there whole or not at all.

    run/checkpoints/last.safetensors    model, optimizer, random states; the rest as JSON in the header
    run/checkpoints/best.safetensors    the same of the step that validated best

A file is written under another name, synced and renamed, so a full disk or a killed job leaves the one before
it as it was. One file is simpler than a folder, which no file system replaces in one step; the trade-off is
that saving a model takes room for it once more while it lasts.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from oxcart.shards.errors import ConfigError, CorruptError, StoreError
from oxcart.shards.files import UNFINISHED, replacing
from oxcart.train.finite import not_finite

T = TypeVar("T")

VERSION = 1
UNREADABLE = (
    *(SafetensorError, OSError, RecursionError),  # of the file, and of JSON that is too deep
    *(KeyError, TypeError, ValueError, AttributeError),  # of what the JSON holds
)
LAST, BEST = "last", "best"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that going on exactly needs."""

    step: int
    """Optimizer steps done."""
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    """`state_dict()` of a torch optimizer."""
    random: Mapping[str, Tensor]
    """States of random number generators, by rank and device."""
    state: Mapping[str, Any]
    """Plain JSON: the loader's state, the best score, the configuration."""


def path_of(run: Path, name: str = LAST) -> Path:
    """The file of a checkpoint of a run."""
    return run / "checkpoints" / f"{name}.safetensors"


def save(run: Path, checkpoint: Checkpoint, *, best: bool = False) -> Path:
    """Write `last`, and `best` if it is that.

    Raises:
        StoreError: it cannot be written; what was there before is whole.
    """
    path = path_of(run)
    tensors = {f"model/{name}": tensor for name, tensor in checkpoint.model.items()}
    tensors |= {f"random/{name}": tensor for name, tensor in checkpoint.random.items()}
    plain: dict[str, Any] = {}
    for index, values in checkpoint.optimizer["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            else:
                plain[f"{index}/{name}"] = value
    about: dict[str, Any] = {
        "version": VERSION,
        "step": checkpoint.step,
        "optimizer": {"groups": checkpoint.optimizer["param_groups"], "plain": plain},
        "state": dict(checkpoint.state),
    }
    owned = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about["same"] = _same(tensors)
    for name in about["same"]:
        del owned[name]
    _write(path, owned, {"oxcart": json.dumps(about, sort_keys=True)})
    if best:
        _twin(path, path_of(run, BEST))
    return path


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ConfigError: there is none.
        CorruptError: the file is no checkpoint of this version, cut off, or its numbers are not finite.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such checkpoint; a run writes last.safetensors and best.safetensors")
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {})["oxcart"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about["version"] != VERSION:
            raise CorruptError(f"{path}: version {about['version']}, expected {VERSION}")
        tensors |= {name: tensors[first] for name, first in about.get("same", {}).items()}
        groups = about["optimizer"]["groups"]
        if entry(path, about, "step", int) < 0:
            raise CorruptError(f"{path}: step: expected at least 0, got {about['step']}")
        entry(path, about, "state", dict)
        states: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "optimizer":
                index, _, what = rest.partition("/")
                states.setdefault(int(index), {})[what] = tensor
        for name, value in about["optimizer"]["plain"].items():
            index, _, what = name.partition("/")
            states.setdefault(int(index), {})[what] = value
        found = Checkpoint(
            step=about["step"],
            model=_below("model/", tensors),
            optimizer={"state": dict(sorted(states.items())), "param_groups": groups},
            random=_below("random/", tensors),
            state=about["state"],
        )
    except UNREADABLE as error:
        raise CorruptError(f"{path}: not a checkpoint, or cut off: {error}") from error
    if name := not_finite({name: one for name, one in tensors.items() if not name.startswith("random/")}):
        raise CorruptError(f"{path}: {name} holds numbers that are not finite; take a checkpoint before it")
    return found


def entry(path: Path, values: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """A value of a checkpoint's header.

    Raises:
        CorruptError: it is missing, or of another kind.
    """
    value = values.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise CorruptError(f"{path}: {name}: expected {kind.__name__}, got {str(value)[:60]!r}")
    return value


def check_shapes(
    path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Sequence[int]], *, whole: bool = True
) -> None:
    """Refuse weights that are not those of a model.

    Args:
        path: of the checkpoint.
        tensors: its weights.
        wanted: shape of each weight of the model.
        whole: whether the model has no others.

    Raises:
        CorruptError: one is missing, of another shape, or of no use.
    """
    for name, shape in wanted.items():
        if name not in tensors:
            raise CorruptError(f"{path}: there is no {name}, which the model of its configuration has")
        if tuple(tensors[name].shape) != tuple(shape):
            raise CorruptError(
                f"{path}: {name} is {list(tensors[name].shape)}, and {list(shape)} in the model of its "
                "configuration"
            )
    if whole and (more := [name for name in tensors if name not in wanted]):
        raise CorruptError(f"{path}: the model of its configuration has no {more[0]}")


def random_states() -> dict[str, Tensor]:
    """States of this process's generators."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def set_random_states(states: Mapping[str, Tensor]) -> None:
    """Put generators back; those of devices that are not here are left out."""
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            if f"cuda{i}" in states:
                torch.cuda.set_rng_state(states[f"cuda{i}"], i)


def _same(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of tensors that are one with an earlier one, such as tied weights -> the name of that."""
    first: dict[tuple[Any, ...], str] = {}
    found = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            place = tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype
            if (kept := first.setdefault(place, name)) != name:
                found[name] = kept
    return found


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        for left in path.parent.glob(UNFINISHED):  # by a job that was killed, as large as a model
            left.unlink()
        with replacing(path) as file:
            save_file(tensors, file.name, metadata)
            # safetensors has put a file of its own there, of mode 600
            os.chmod(file.name, stat.S_IMODE(os.fstat(file.fileno()).st_mode))
            _sync(Path(file.name))
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        kept = "the one before it is whole" if path.exists() else "there is none before it"
        raise StoreError(f"{path}: the checkpoint cannot be written ({reason}); {kept}; make room") from error


def _twin(path: Path, other: Path) -> None:
    """Make `other` the same file, by a link where the file system has them."""
    try:
        with replacing(other) as file:
            try:
                os.link(path, f"{file.name}.link")
                os.replace(f"{file.name}.link", file.name)
            except OSError:
                with open(path, "rb") as whole:
                    shutil.copyfileobj(whole, file)
    except OSError as error:
        raise StoreError(f"{other}: cannot be written ({error.strerror}); {path.name} is whole") from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
