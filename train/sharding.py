"""Train a model that no rank can hold alone: shard its weights, gradients and moments among the ranks.

    shard(module, accelerator)                 # by FSDP2; the optimizer is made after it

The model is sharded in blocks, which are the members of its lists of layers. A forward pass gathers them one
after the other, so each rank has to make as many passes as the others, also in validation.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor


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
