"""Checkpoints: folders that are complete or absent, written by torch.distributed.checkpoint.

    writer = CheckpointWriter(run, ranks)
    writer.save(step, state_tensors(module, optimizer), state, best=True)
    header = read_header(find(run))            # shapes, before memory is taken for them
    load(path, state_tensors(module, optimizer))

    run/checkpoints/last-000001000/    about.json, and a safetensors file from each rank that has a share
    run/checkpoints/best-000000800/    the same for the step that validated best

A folder is written as `.new`, synced and renamed, and then the one before it is removed. So a full disk or a
killed job leaves the previous checkpoint as it was, and the next save removes `.new`. Ranks that share a
model write while training goes on. The format is safetensors, since the default of torch is pickle, which may
run a stranger's code. The trade-off: the disk needs room for one more checkpoint, and memory for a copy.

Tensors have names: `model/NAME`, `optimizer/NAME/exp_avg` (of the weight NAME), `random/RANK/cpu`. They do
not depend on how a model is sharded, so any number of ranks can read them.

A checkpoint may come from a stranger. So `read_header` returns the shapes of its tensors without reading
them, and the caller compares them with those of its model before `load` takes memory and time.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from blake3 import blake3
from safetensors import SafetensorError
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load as load_state
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from oxcart.manifests.canonical import canonical_json
from oxcart.shards.errors import ConfigError, CorruptError, StoreError
from oxcart.shards.files import remove, sync_folder, write_file
from oxcart.train.finite import not_finite
from oxcart.train.ranks import ALONE, Ranks, on_main

T = TypeVar("T")

VERSION = 2
ABOUT = "about.json"
LAST, BEST = "last", "best"
UNREADABLE = (
    *(CheckpointException, SafetensorError, OSError, RuntimeError),  # of files, and of JSON that is too deep
    *(KeyError, TypeError, ValueError, AttributeError, OverflowError),  # of what they hold
)


@dataclass(frozen=True, kw_only=True)
class Header:
    """The contents of a checkpoint, read without its tensors."""

    step: int
    """Optimizer steps done."""
    state: Mapping[str, Any]
    """Plain JSON: the loader's state, the best score, the configuration."""
    shapes: Mapping[str, Sequence[int]]
    """Shape of each tensor."""
    types: Mapping[str, torch.dtype]
    """Type of each tensor."""

    @property
    def model(self) -> dict[str, Sequence[int]]:
        """Shape of each weight."""
        return _below("model/", self.shapes)


def find(run: Path, name: str = LAST) -> Path | None:
    """The folder of a run's checkpoint `last` or `best`; None if there is none.

    Raises:
        ConfigError: the run was written by an older version.
    """
    folder = run / "checkpoints"
    if (old := folder / f"{name}.safetensors").exists():
        raise ConfigError(f"{old}: an older version of oxcart wrote it; use that version, or train again")
    found = folder.glob(f"{name}-[0-9]*/")
    return max(found, key=lambda path: (len(path.name), path.name), default=None)


class CheckpointWriter:
    """Writes the checkpoints of a run; several ranks do so while training goes on.

    Args:
        run: directory of the run.
        ranks: the processes, which write together; each makes a writer.
    """

    def __init__(self, run: Path, ranks: Ranks = ALONE) -> None:
        self._run, self._ranks = run, ranks
        # The ranks talk in the background too, which must not mix with what training says.
        self._group = distributed.new_group(backend="gloo") if distributed.is_initialized() else None
        self._pending: Future[Any] | None = None

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        state: Mapping[str, Any],
        *,
        best: bool = False,
        alone: bool = False,
    ) -> None:
        """Copy everything, and begin to write it.

        Args:
            step: optimizer steps done.
            tensors: tensors by name. What several ranks give is written once, and sharded ones in parts.
            state: plain JSON; that of the main process is kept.
            best: whether it is also the checkpoint `best`.
            alone: whether this process has everything, and must not wait for other ranks.

        Raises:
            StoreError: this or the previous checkpoint cannot be written.
        """
        if alone and self._pending is not None:
            wait([self._pending])  # however it ends
            self._pending = None
        self.wait()
        about = {"version": VERSION, "step": step, "state": {**state}}
        storage = _Storage(self._run / "checkpoints", about, best)
        with self._explained():
            if self._group is None or alone:
                storage.clear()
                with _single():
                    save({**tensors}, storage_writer=storage, no_dist=True)
                return
            on_main(storage.clear, self._ranks)
            saved = async_save({**tensors}, storage_writer=storage, process_group=self._group)
            assert isinstance(saved, Future)
            self._pending = saved

    def wait(self) -> None:
        """Wait until what was begun is written.

        Raises:
            StoreError: it cannot be written; the checkpoint before it is whole.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._explained():
                pending.result()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (CheckpointException, OSError, SafetensorError) as error:
            found = next(iter(error.failures.values()))[0] if hasattr(error, "failures") else error
            if not isinstance(found, OSError | SafetensorError | StoreError):
                raise
            reason = getattr(found, "strerror", None) or found
            kept = "the one before it is whole" if find(self._run) else "there is none before it"
            raise StoreError(
                f"{self._run / 'checkpoints'}: the checkpoint cannot be written ({reason}); {kept}; make room"
            ) from error


class _Storage(HuggingFaceStorageWriter):
    """Writes the tensors of each rank to a folder, which then gets its final name."""

    def __init__(self, folder: Path, about: dict[str, Any], best: bool) -> None:
        super().__init__(str(folder / ".new"), save_distributed=True)
        self._folder, self._new, self._about, self._best = folder, folder / ".new", about, best

    def clear(self) -> None:
        """Remove what a killed process left; called on the main process, before any rank writes."""
        remove(self._new)

    def finish(self, metadata: Any, results: Any) -> None:
        """Called on the main process, when all ranks have written."""
        names = sorted({one.storage_data.relative_path for own in results for one in own})
        files = {name: (self._new / name).stat().st_size for name in names}
        write_file(self._new / ABOUT, json.dumps({**self._about, "files": files}, sort_keys=True).encode())
        if self._best:
            twin = self._folder / ".best"
            remove(twin)
            twin.mkdir()
            for path in self._new.iterdir():
                try:
                    os.link(path, twin / path.name)
                except OSError:  # a file system without links
                    shutil.copyfile(path, twin / path.name)
        self._publish(self._new, LAST)
        if self._best:
            self._publish(twin, BEST)

    def _publish(self, new: Path, name: str) -> None:
        """Give a complete folder its name, and remove the one before it."""
        final = self._folder / f"{name}-{self._about['step']:09d}"
        sync_folder(new)
        remove(final)
        new.rename(final)
        sync_folder(self._folder)
        for path in self._folder.glob(f"{name}-[0-9]*"):
            if path != final:
                remove(path)


@contextlib.contextmanager
def _single() -> Iterator[None]:
    """Silence the warning that there is but one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def read_header(path: Path) -> Header:
    """Read the header of a checkpoint.

    Raises:
        CorruptError: the folder is not a checkpoint of this version, or a file is missing or truncated.
    """
    try:
        about = json.loads((path / ABOUT).read_bytes())
        if about["version"] != VERSION:
            raise CorruptError(f"{path}: version {about['version']}, expected {VERSION}")
        if entry(path, about, "step", int) < 0:
            raise CorruptError(f"{path}: step: expected at least 0, got {about['step']}")
        for name, size in about["files"].items():
            if (got := (path / name).stat().st_size) != size:
                raise CorruptError(f"{path / name}: cut off: expected {size:,} bytes, got {got:,}")
        found: dict[str, Any] = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
        for name, one in found.items():
            if sum(math.prod(chunk.sizes) for chunk in one.chunks) != math.prod(one.size):
                raise CorruptError(f"{path}: a part of {name} is missing; the file of a rank may be lost")
        return Header(
            step=about["step"],
            state=entry(path, about, "state", dict),
            shapes={name: tuple(one.size) for name, one in found.items()},
            types={name: one.properties.dtype for name, one in found.items()},
        )
    except UNREADABLE as error:
        raise CorruptError(f"{path}: not a checkpoint, or cut off: {_line(error)}") from error


def load(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read tensors of a checkpoint, in place; those that are sharded get the part of this rank.

    Args:
        path: the checkpoint, whose header has these tensors.
        tensors: name -> tensor of the same shape.

    Raises:
        CorruptError: a file cannot be read, or holds numbers that are not finite.
    """
    try:
        with _single():
            load_state({**tensors}, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)
    except UNREADABLE as error:
        raise CorruptError(f"{path}: cannot be read: {_line(error)}") from error
    if wrong := not_finite(tensors):
        raise CorruptError(f"{path}: {wrong} holds numbers that are not finite; use an earlier checkpoint")


def read(path: Path, header: Header, prefix: str) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint whose names begin with a prefix, which their names here leave out.

    Raises:
        CorruptError: see `load`.
    """
    found = {
        name: torch.empty(tuple(shape), dtype=header.types[name])
        for name, shape in header.shapes.items()
        if name.startswith(prefix)
    }
    load(path, found)
    return _below(prefix, found)


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


def fingerprint(identity: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """Fingerprint of a model: equal for the same form and weights, which give the same outputs."""
    digest = blake3(canonical_json(identity))
    for name in sorted(weights):
        digest.update(name.encode() + b"\0")
        digest.update(weights[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers by the names under which they are saved; a tied weight has one."""
    kept = module.state_dict().keys()
    buffers = {name: one for name, one in module.named_buffers() if name in kept}
    return {**{name: one.detach() for name, one in module.named_parameters()}, **buffers}


def learning(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    """Name of each weight that learns -> the weight."""
    names = {id(one): name for name, one in module.named_parameters()}
    return {names[id(one)]: one for group in optimizer.param_groups for one in group["params"]}


def state_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, buffers and moments, by their names in a checkpoint."""
    found = {f"model/{name}": value for name, value in weights_of(module).items()}
    for name, weight in learning(module, optimizer).items():
        found |= {f"optimizer/{name}/{what}": value for what, value in optimizer.state[weight].items()}
    return found


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


def _below(prefix: str, values: Mapping[str, T]) -> dict[str, T]:
    return {name.removeprefix(prefix): one for name, one in values.items() if name.startswith(prefix)}


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
