"""Checkpoints: one safetensors file each, which is complete or absent.

    run/checkpoints/last.safetensors    model, optimizer, random states; the rest as JSON in the header
    run/checkpoints/best.safetensors    the same for the step that validated best

A file is written in a folder of its own, `.new/`, synced and renamed. So a full disk or a killed job leaves
the previous checkpoint as it was, and the next save removes the folder with its contents. A single file is
simpler than a folder, which no file system replaces in one step. The trade-off: while a model is saved, the
disk needs room for a second copy.

A file may come from a stranger. So `read_header` returns the shapes of its tensors without reading them, and
the caller compares them with those of its model before `load` takes memory and time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from oxcart.shards.errors import ConfigError, CorruptError, StoreError
from oxcart.shards.files import remove, sync_folder
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
    """Everything that an exact resume needs."""

    step: int
    """Optimizer steps done."""
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    """State of the optimizer, as `state_dict()` of torch returns it."""
    random: Mapping[str, Tensor]
    """States of random number generators, by rank and device."""
    state: Mapping[str, Any]
    """Plain JSON: the loader's state, the best score, the configuration."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """The contents of a checkpoint, read without its tensors."""

    step: int
    """Optimizer steps done."""
    state: Mapping[str, Any]
    """Plain JSON: the loader's state, the best score, the configuration."""
    model: Mapping[str, Sequence[int]]
    """Shape of each weight."""
    optimizer: Mapping[int, Mapping[str, Sequence[int] | None]]
    """Index of a weight -> name -> shape of each moment of the optimizer; None for a plain number."""


def path_of(run: Path, name: str = LAST) -> Path:
    """The file of a checkpoint of a run."""
    return run / "checkpoints" / f"{name}.safetensors"


def save(run: Path, checkpoint: Checkpoint, *, best: bool = False) -> Path:
    """Write the checkpoint `last`, and also `best` if asked to.

    Raises:
        StoreError: the file cannot be written; the previous checkpoint is complete.
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


def read_header(path: Path) -> Header:
    """Read the header of a checkpoint.

    Raises:
        ConfigError: there is no such file.
        CorruptError: the file is not a checkpoint of this version, or is truncated.
    """
    with _opened(path) as (file, about):
        names = _names(file, about)
        shapes = {name: file.get_slice(first).get_shape() for name, first in names.items()}
        plain = dict.fromkeys(about["optimizer"]["plain"])
        return Header(
            step=about["step"],
            state=about["state"],
            model=_below("model/", shapes),
            optimizer=_by_weight({**_below("optimizer/", shapes), **plain}),
        )


def load(path: Path, *, weights_only: bool = False) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: the file.
        weights_only: do not read what only training needs: optimizer and random states.

    Raises:
        ConfigError: there is no such file.
        CorruptError: the file is not a checkpoint of this version, is truncated, or holds NaN or infinity.
    """
    with _opened(path) as (file, about):
        names = _names(file, about)
        kinds = ("model/",) if weights_only else ("model/", "optimizer/", "random/")
        names = {name: first for name, first in names.items() if name.startswith(kinds)}
        read = {first: file.get_tensor(first) for first in set(names.values())}
        tensors = {name: read[first] for name, first in names.items()}
        plain = {} if weights_only else about["optimizer"]["plain"]
        found = Checkpoint(
            step=about["step"],
            model=_below("model/", tensors),
            optimizer={
                "state": _by_weight({**_below("optimizer/", tensors), **plain}),
                "param_groups": about["optimizer"]["groups"],
            },
            random=_below("random/", tensors),
            state=about["state"],
        )
    if name := not_finite({name: one for name, one in tensors.items() if not name.startswith("random/")}):
        raise CorruptError(f"{path}: {name} holds numbers that are not finite; take a checkpoint before it")
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The open file and the JSON of its header; an error of reading inside the block means that it is
    corrupt."""
    if not path.exists():
        raise ConfigError(f"{path}: no such checkpoint; a run writes last.safetensors and best.safetensors")
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {})["oxcart"])
            if about["version"] != VERSION:
                raise CorruptError(f"{path}: version {about['version']}, expected {VERSION}")
            if entry(path, about, "step", int) < 0:
                raise CorruptError(f"{path}: step: expected at least 0, got {about['step']}")
            entry(path, about, "state", dict)
            yield file, about
    except UNREADABLE as error:
        raise CorruptError(f"{path}: not a checkpoint, or cut off: {error}") from error


def _names(file: Any, about: Mapping[str, Any]) -> dict[str, str]:
    """Name of every tensor -> its name in the file, where tied weights are stored once."""
    names = {name: name for name in file.keys()}  # noqa: SIM118
    return names | {name: names[first] for name, first in about.get("same", {}).items()}


def _by_weight(values: Mapping[str, T]) -> dict[int, dict[str, T]]:
    """Turn INDEX/NAME -> value into index -> name -> value, in the order of the weights."""
    found: dict[int, dict[str, T]] = {}
    for name, value in values.items():
        index, _, what = name.partition("/")
        found.setdefault(int(index), {})[what] = value
    return dict(sorted(found.items()))


def entry(path: Path, values: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """A value of a checkpoint's header.

    Raises:
        CorruptError: the value is missing, or has another type.
    """
    value = values.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise CorruptError(f"{path}: {name}: expected {kind.__name__}, got {str(value)[:60]!r}")
    return value


def check_shapes(
    path: Path,
    found: Mapping[str, Sequence[int]],
    wanted: Mapping[str, Sequence[int]],
    *,
    whole: bool = True,
) -> None:
    """Refuse weights that do not fit a model.

    Args:
        path: the checkpoint, for the message.
        found: shape of each weight in the checkpoint.
        wanted: shape of each weight of the model.
        whole: refuse weights that the model does not have.

    Raises:
        CorruptError: a weight is missing, has another shape, or is one too many.
    """
    for name, shape in wanted.items():
        if name not in found:
            raise CorruptError(f"{path}: there is no {name}, which the model of its configuration has")
        if tuple(found[name]) != tuple(shape):
            raise CorruptError(
                f"{path}: {name} is {list(found[name])}, and {list(shape)} in the model of its configuration"
            )
    if whole and (more := [name for name in found if name not in wanted]):
        raise CorruptError(f"{path}: the model of its configuration has no {more[0]}")


def random_states() -> dict[str, Tensor]:
    """States of the random number generators of this process."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def set_random_states(states: Mapping[str, Tensor]) -> None:
    """Restore the random number generators; states of devices that this machine lacks are ignored."""
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            if f"cuda{i}" in states:
                torch.cuda.set_rng_state(states[f"cuda{i}"], i)


def _same(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name of each tensor that shares the memory of an earlier one, such as a tied weight -> the earlier
    name."""
    first: dict[tuple[Any, ...], str] = {}
    found = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            place = tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype
            if (kept := first.setdefault(place, name)) != name:
                found[name] = kept
    return found


def _below(prefix: str, values: Mapping[str, T]) -> dict[str, T]:
    return {name.removeprefix(prefix): one for name, one in values.items() if name.startswith(prefix)}


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    try:
        with _replacing(path) as new:
            with open(new, "xb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            save_file(tensors, str(new), metadata)
            os.chmod(new, mode)  # safetensors has put a file of its own there, of mode 600
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        kept = "the one before it is whole" if path.exists() else "there is none before it"
        raise StoreError(f"{path}: the checkpoint cannot be written ({reason}); {kept}; make room") from error


def _twin(path: Path, other: Path) -> None:
    """Make `other` the same file: a hard link, or a copy if the file system has no links."""
    try:
        with _replacing(other) as new:
            try:
                os.link(path, new)
            except OSError:
                shutil.copyfile(path, new)
    except OSError as error:
        raise StoreError(f"{other}: cannot be written ({error.strerror}); {path.name} is whole") from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A path to write to; the file durably replaces `path` when the block ends without an error.

    safetensors first writes under a name of its own choice, next to the one that it is given. A killed job
    leaves that file, as large as a model. In a folder of its own it can be removed without knowing its name.
    """
    folder = path.parent / ".new"
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(folder)
    folder.mkdir(mode=0o700)
    try:
        yield folder / path.name
        _sync(folder / path.name)
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_folder(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
