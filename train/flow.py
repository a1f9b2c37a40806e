"""Optical flow as a target: what a teacher sees between the frames, float32 [B, 2, H, W] in pixels (x, y).

DIS (OpenCV, no weights) runs on the CPU, a thread a core, since OpenCV lets go of the interpreter's lock;
RAFT (torchvision) on the device. The trade-off: DIS is computed with the batch and not ahead of it, so that a
step waits for it: about 1 ms a pair at 64 pixels and 6 ms at 256, shared by the cores.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from oxcart.shards.errors import ConfigError
from oxcart.train.laq.config import FlowConfig

Teacher = Callable[[Tensor, Tensor], Tensor]
"""Takes uint8 frames [B, 2, H, W, 3] on the CPU, and float ones [B, 2, 3, H, W] on the device."""

_local = threading.local()


def build_teacher(config: FlowConfig, device: torch.device) -> Teacher | None:
    """The teacher of a configuration.

    Raises:
        ConfigError: what it needs is not installed, or its weights are not there.
    """
    if config.teacher == "none":
        return None
    if config.teacher == "dis":
        return _dis_teacher()
    return _raft_teacher(config, device)


def flow_weight(step: int, config: FlowConfig) -> float:
    """Weight of the flow's loss at a step: rises from 0."""
    return config.weight * min(1.0, step / max(1, config.warmup))


def flow_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean distance of vectors [B, 2, h, w] to the means of the target's cells, as a share of the width."""
    width = target.shape[-1]
    cells = functional.adaptive_avg_pool2d(target, (predicted.shape[-2], predicted.shape[-1])) / width
    return (predicted - cells).square().sum(1).add(1e-8).sqrt().mean()


def dis_flow(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Flow [H, W, 2] from one frame [H, W, 3] to another."""
    import cv2  # an extra, which `_dis_teacher` asks for

    opencv: Any = cv2  # its stubs lack the flow
    engine = getattr(_local, "dis", None)
    if engine is None:
        opencv.setNumThreads(1)
        engine = _local.dis = opencv.DISOpticalFlow_create(opencv.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [opencv.cvtColor(frame, opencv.COLOR_RGB2GRAY) for frame in (first, second)]
    found: npt.NDArray[np.float32] = engine.calc(grey[0], grey[1], None)
    return found


def _dis_teacher() -> Teacher:
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise ConfigError("flow.teacher: dis needs OpenCV: pip install 'oxcart[flow]'") from error
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(cores, thread_name_prefix="flow")

    def teach(frames: Tensor, pixels: Tensor) -> Tensor:
        pairs = frames.cpu().numpy()
        found = list(pool.map(lambda pair: dis_flow(pair[0], pair[1]), pairs))
        return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(pixels.device)

    return teach


def _raft_teacher(config: FlowConfig, device: torch.device) -> Teacher:
    try:
        from torchvision.models import optical_flow
    except ImportError as error:
        raise ConfigError(
            "flow.teacher: raft needs torchvision; install it, or use flow.teacher=dis"
        ) from error
    model: Any = optical_flow.raft_large(weights=None)
    path = Path(config.weights) if config.weights else _hub_weights(optical_flow)
    if not path.exists():
        raise ConfigError(
            f"flow.weights: no file {path}; put torchvision's RAFT weights there, or use flow.teacher=dis"
        )
    model.load_state_dict(torch.load(path, weights_only=True))
    model = model.to(device).eval().requires_grad_(False)

    def teach(frames: Tensor, pixels: Tensor) -> Tensor:
        side = pixels.shape[-1]
        large = max(128, -(-side // 8) * 8)  # RAFT needs multiples of 8, and at least 128
        both = functional.interpolate(pixels.flatten(0, 1), size=(large, large), mode="bilinear")
        both = both.view(len(pixels), 2, 3, large, large)
        with torch.no_grad():
            flow = model(both[:, 0], both[:, 1])[-1]
        return functional.interpolate(flow, size=(side, side), mode="bilinear") * (side / large)

    return teach


def _hub_weights(optical_flow: Any) -> Path:
    """Where torchvision keeps the weights that it has downloaded."""
    name: str = optical_flow.Raft_Large_Weights.DEFAULT.url.rpartition("/")[2]
    return Path(str(torch.hub.get_dir())) / "checkpoints" / name
