"""Train a model that no rank can hold alone: shard its weights, gradients and moments among the ranks.

    shard(module, accelerator)                 # by FSDP2; the optimizer is made after it
    writer = ShardedWriter(run, ranks)
    writer.save(step, module, optimizer, state)
    load(find(run), module, optimizer, rank)   # on any number of ranks

A checkpoint is a folder, which is complete or absent: `checkpoints/last-000001000/` has a file of tensors
from each rank, and `about.json` with everything else. Ranks write them by `torch.distributed.checkpoint` in
the background, as safetensors, since its own format is pickle, which may run a stranger's code. When all are
written, the folder gets its name and the one before it is removed.

The model is sharded in blocks, which are the members of its lists of layers. A forward pass gathers them one
after the other, so each rank has to make as many passes as the others, also in validation.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as load_state
from torch.distributed.checkpoint.state_dict_saver import async_save, save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from oxcart.shards.errors import ConfigError, CorruptError, StoreError
from oxcart.shards.files import remove, sync_folder, write_file
from oxcart.train.checkpoint import LAST, UNREADABLE, VERSION, Header, entry, path_of, random_states
from oxcart.train.finite import not_finite
from oxcart.train.ranks import ALONE, Ranks, on_main

ABOUT = "about.json"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def shard(module: nn.Module, accelerator: Accelerator) -> None:
    """Shard the weights of a model among all ranks, in place; half precision is that of the accelerator."""
    device = accelerator.device.type
    mesh = init_device_mesh(device, (accelerator.num_processes,))
    half = accelerator.mixed_precision == "bf16"
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32)
    # The module itself is no unit: generation enters its parts without it.
    for part in module.children():
        for block in _blocks(part):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    if half:
        module.forward = torch.autocast(device, torch.bfloat16)(module.forward)
    whole = [name for name, one in module.named_parameters() if not isinstance(one, DTensor)]
    assert not whole, f"not sharded: {whole}"


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost lists of layers; what lies within them may not be used in every pass."""
    for child in module.children():
        yield from child if isinstance(child, nn.ModuleList) else _blocks(child)


def gather(module: nn.Module) -> dict[str, Tensor]:
    """The whole weights of a sharded model, on the CPU of the main process; empty on other ranks."""
    found = get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {name: one for name, one in found.items() if isinstance(one, Tensor)}


def find(run: Path) -> Path | None:
    """The last sharded checkpoint of a run; None if there is none."""
    return max((run / "checkpoints").glob(f"{LAST}-*/"), default=None)


def last_checkpoint(run: Path, kind: str) -> Path | None:
    """The last checkpoint of a run, of the kind that `train.shard` asks for; None if there is none.

    Raises:
        ConfigError: the run has checkpoints of the other kind.
    """
    whole, sharded = path_of(run), find(run)
    if (kind == "full" and whole.exists()) or (kind == "none" and sharded is not None):
        other = "full" if kind == "none" else "none"
        raise ConfigError(f"train.shard: the run was started with {other}, got {kind}; keep it, on any ranks")
    return sharded if kind == "full" else whole if whole.exists() else None


class ShardedWriter:
    """Writes sharded checkpoints of a run, each while training goes on.

    Args:
        run: directory of the run.
        ranks: the processes, which write together; each makes a writer.
    """

    def __init__(self, run: Path, ranks: Ranks = ALONE) -> None:
        self._folder, self._ranks = run / "checkpoints", ranks
        # The ranks talk in the background too, which must not mix with what training says.
        self._group = distributed.new_group(backend="gloo") if distributed.is_initialized() else None
        self._pending: Future[Any] | None = None

    def save(
        self, step: int, module: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
    ) -> None:
        """Copy everything, and begin to write it.

        Args:
            step: optimizer steps done.
            module: the model.
            optimizer: its optimizer.
            state: plain JSON; that of the main process is kept.

        Raises:
            StoreError: this or the previous checkpoint cannot be written.
        """
        self.wait()
        new, final = self._folder / ".new", self._folder / f"{LAST}-{step:09d}"
        about = {"version": VERSION, "step": step, "state": dict(state)}

        def begin() -> None:
            remove(new)
            write_file(new / ABOUT, json.dumps(about, sort_keys=True).encode())

        on_main(begin, self._ranks)
        rank = self._ranks.process_index
        own = {f"random/{rank}/{name}": value for name, value in random_states().items()}
        tensors, storage = {**_tensors(module, optimizer), **own}, _Storage(new, final)
        if self._group is None:
            with self._explained(), _single():
                save(tensors, storage_writer=storage)
            return
        saved = async_save(tensors, storage_writer=storage, process_group=self._group)
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
        except (CheckpointException, OSError) as error:
            reason = next(iter(error.failures.values()))[0] if hasattr(error, "failures") else error
            raise StoreError(
                f"{self._folder}: the checkpoint cannot be written ({reason}); the one before it is whole; "
                "make room"
            ) from error


class _Storage(HuggingFaceStorageWriter):
    """Writes the tensors of each rank to a folder, which then gets its final name."""

    def __init__(self, new: Path, final: Path) -> None:
        super().__init__(str(new), save_distributed=True)
        self._new, self._final = new, final

    def finish(self, metadata: Any, results: Any) -> None:
        """Called on the main process, when all ranks have written."""
        sync_folder(self._new)
        remove(self._final)
        self._new.rename(self._final)
        sync_folder(self._final.parent)
        for path in self._final.parent.glob(f"{LAST}-*/"):
            if path != self._final:
                shutil.rmtree(path)


@contextlib.contextmanager
def _single() -> Iterator[None]:
    """Silence the warning that there is but one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def read_header(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> Header:
    """Read the header of a checkpoint, whose moments are numbered as in the optimizer.

    Raises:
        CorruptError: a file cannot be read, or the tensors of a rank are missing.
    """
    try:
        about = json.loads((path / ABOUT).read_bytes())
        if about["version"] != VERSION:
            raise CorruptError(f"{path}: version {about['version']}, expected {VERSION}")
        found = _stored(path)
    except UNREADABLE as error:
        raise CorruptError(f"{path}: not a checkpoint, or cut off: {error}") from error
    numbers = {name: i for i, name in enumerate(_learning(module, optimizer))}
    moments: dict[int, dict[str, Any]] = {}
    for name in found:
        kind, _, rest = name.partition("/")
        of, _, what = rest.rpartition("/")
        if kind == "optimizer":
            moments.setdefault(numbers.get(of, -1), {})[what] = found[name].size
    return Header(
        step=entry(path, about, "step", int),
        state=entry(path, about, "state", dict),
        model={
            name.removeprefix("model/"): one.size for name, one in found.items() if name.startswith("model/")
        },
        optimizer=moments,
    )


def load(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, rank: int) -> dict[str, Tensor]:
    """Read weights and moments into a model and its optimizer, sharded or not, on any number of ranks.

    Returns:
        The random states that a rank had, by device; empty if it was not there.

    Raises:
        CorruptError: a file cannot be read, or holds numbers that are not finite.
    """
    try:
        found = _stored(path)
        for name, weight in _learning(module, optimizer).items():
            if f"optimizer/{name}/exp_avg" in found:
                optimizer.state[weight] = _moments(weight, optimizer)
        tensors = _tensors(module, optimizer)
        own = {
            name: torch.empty(one.size, dtype=one.properties.dtype)
            for name, one in found.items()
            if name.startswith(f"random/{rank}/")
        }
        with contextlib.nullcontext() if distributed.is_initialized() else _single():
            load_state({**tensors, **own}, storage_reader=HuggingFaceStorageReader(str(path)))
    except (CheckpointException, *UNREADABLE) as error:
        raise CorruptError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    if wrong := not_finite(tensors):
        raise CorruptError(f"{path}: {wrong} holds numbers that are not finite; use an earlier checkpoint")
    return {name.rpartition("/")[2]: value for name, value in own.items()}


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers by the names under which they are saved; a tied weight has one."""
    kept = module.state_dict().keys()
    buffers = {name: one for name, one in module.named_buffers() if name in kept}
    return {**{name: one.detach() for name, one in module.named_parameters()}, **buffers}


def _learning(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    """Name of each weight that learns -> the weight, in the order of the optimizer."""
    names = {id(one): name for name, one in module.named_parameters()}
    return {names[id(one)]: one for group in optimizer.param_groups for one in group["params"]}


def _moments(weight: nn.Parameter, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Room for the moments of a weight, as AdamW makes it."""
    step = torch.zeros((), device=weight.device if optimizer.defaults.get("fused") else "cpu")
    return {"step": step, "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}


def _tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that all ranks share, by its name in a checkpoint."""
    found = {f"model/{name}": value for name, value in weights_of(module).items()}
    for name, weight in _learning(module, optimizer).items():
        found |= {f"optimizer/{name}/{what}": value for what, value in optimizer.state[weight].items()}
    return found


def _stored(path: Path) -> dict[str, TensorStorageMetadata]:
    """Name -> shape, type and pieces of every tensor of a checkpoint.

    Raises:
        CorruptError: a piece is missing.
    """
    found: dict[str, Any] = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    for name, one in found.items():
        if sum(math.prod(chunk.sizes) for chunk in one.chunks) != math.prod(one.size):
            raise CorruptError(f"{path}: a part of {name} is missing; a rank's file may be lost")
    return found
