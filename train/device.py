"""The device of a run: its accelerator, and the speed that its maker states."""

from __future__ import annotations

import warnings

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from oxcart.shards.errors import ConfigError
from oxcart.train.config import TrainConfig
from oxcart.train.ranks import join

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
"""Part of a device's name -> its bf16 FLOP/s for dense matrix products, as stated by the maker."""


def pick_device(name: str) -> torch.device:
    """The device that `--device` names: `cpu`, `cuda`, or `auto`, a GPU if there is one.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("--device: cuda is requested, but torch sees no GPU; use cpu or auto")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def in_bf16(precision: str, device: torch.device) -> bool:
    """Whether `train.precision` means bf16 on a device."""
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")


def autocast(bf16: bool, device: torch.device) -> torch.autocast:
    """Inside the block, a model computes in bf16, or in the precision of its weights."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def use_tf32(on: bool) -> None:
    """Whether a GPU multiplies float32 numbers in TF32, which keeps 10 of their 23 bits and is some times as
    fast."""
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


def make_accelerator(config: TrainConfig) -> Accelerator:
    """The accelerator of a configuration.

    Raises:
        ConfigError: a GPU is requested and there is none, or it has no bf16; or the environment variables
            that describe the ranks are wrong.
    """
    there = torch.cuda.is_available()
    if config.device == "cuda" and not there:
        raise ConfigError(
            "train.device: cuda is requested, but torch sees no GPU; use train.device=cpu or auto"
        )
    gpu = there and config.device != "cpu"
    if gpu and config.precision == "bf16" and not torch.cuda.is_bf16_supported():
        raise ConfigError("train.precision: this GPU cannot do bf16; use train.precision=fp32")
    half = in_bf16(config.precision, torch.device("cuda" if gpu else "cpu"))
    if gpu:
        use_tf32(config.tf32)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    join(gpu=gpu, timeout_s=config.timeout)
    # accelerate has no other argument than the one that torch 2.13 deprecates
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    try:
        return Accelerator(
            cpu=not gpu,
            mixed_precision="bf16" if half else "no",
            gradient_accumulation_steps=config.accumulate,
            step_scheduler_with_optimizer=False,
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
    except Exception as error:  # whatever accelerate and torch.distributed make of the environment
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"environment: accelerate cannot begin: {type(error).__name__}: {reason}"
        ) from error


def fused(accelerator: Accelerator) -> bool | None:
    """The argument `fused` of AdamW: True on a GPU, where one kernel then updates all weights."""
    return True if accelerator.device.type == "cuda" else None


def peak_flops(device: torch.device) -> float | None:
    """FLOP/s in bf16, as stated by the maker of the device; None if unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)
