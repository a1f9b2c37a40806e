"""Optical flow of pairs of frames: a target for training, and the motion that evaluation compares codes with.

    teacher = build_teacher("dis", None, device)
    fields = teacher(frames, pixels)            # float32 [B, 2, H, W]: pixels to the right and down
    meter = flow_meter("dis", None, device)
    means = meter(frames)                       # uint8 [B, 2, H, W, 3] -> float64 [B, 3, 2]

DIS (OpenCV, no weights) runs on the CPU, one thread per core of the rank, since OpenCV releases the
interpreter's lock; RAFT (torchvision) runs on the device. The trade-off: DIS is computed with the batch and
not prefetched, so a step waits for it: about 1 ms per pair at 64 pixels and 6 ms at 256, shared by the cores.

The plain mean of a field is mostly background, which stands still. So means are taken in two more ways:
weighted by each vector's own length, and over only the pixels that move by more than STILL. They are in
percent of the frame's width; x points right and y up.
"""

from __future__ import annotations

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
from oxcart.train.data.workers import own_cores

Floats = npt.NDArray[np.float64]
Teacher = Callable[[Tensor, Tensor], Tensor]
"""Computes flow from frames, uint8 [B, 2, H, W, 3] on the CPU and float [B, 2, 3, H, W] on the device."""
FlowMeter = Callable[[npt.NDArray[np.uint8]], Floats]

VARIANTS = ("plain", "weighted", "thresholded")
WEIGHTED = 1
STILL = 1.0
"""Motion above which a pixel counts as moving, in percent of the frame's width."""

_local = threading.local()


def build_teacher(kind: str, weights: str | None, device: torch.device) -> Teacher | None:
    """Build a flow teacher; None for `none`.

    Args:
        kind: `none`, `dis` or `raft`.
        weights: file with the weights of RAFT; None uses those that torchvision has on this machine.
        device: device for RAFT.

    Raises:
        ConfigError: a package or the weights are missing.
    """
    if kind == "none":
        return None
    return _dis_teacher() if kind == "dis" else _raft_teacher(weights, device)


def flow_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean distance of vectors [B, 2, h, w] to the means of the target's cells, as a share of the width."""
    width = target.shape[-1]
    cells = functional.adaptive_avg_pool2d(target, (predicted.shape[-2], predicted.shape[-1])) / width
    return (predicted - cells).square().sum(1).add(1e-8).sqrt().mean()


def flow_meter(kind: str, weights: str | None, device: torch.device) -> FlowMeter | str:
    """Build a function that measures mean flows, or return the reason why there is none.

    For the arguments see `build_teacher`.

    Raises:
        ConfigError: RAFT is requested but missing.
    """
    try:
        teacher = build_teacher(kind, weights, device)
    except ConfigError as error:
        if kind == "raft":
            raise
        return f"optical flow {str(error).partition(': ')[2]}"
    if teacher is None:
        return "optical flow was turned off (none)"

    def measure(frames: npt.NDArray[np.uint8]) -> Floats:
        if not len(frames):
            return np.zeros((0, len(VARIANTS), 2))
        shown = torch.from_numpy(frames)
        pixels = shown.permute(0, 1, 4, 2, 3).to(device, torch.float32).div(127.5).sub(1)
        return mean_flows(teacher(shown, pixels).permute(0, 2, 3, 1).cpu().double().numpy())

    return measure


def mean_flows(fields: Floats) -> Floats:
    """Means [B, 3, 2], one for each of VARIANTS, of flow fields [B, H, W, 2] in pixels, y down."""
    vectors = fields.reshape(len(fields), -1, 2) * (100 / fields.shape[2]) * (1, -1)
    lengths = np.hypot(vectors[..., 0], vectors[..., 1])
    means = [vectors.mean(1)]
    for weights in (lengths, (lengths > STILL).astype(np.float64)):
        total = weights.sum(1, keepdims=True)
        means.append((vectors * weights[..., None]).sum(1) / np.where(total > 0, total, 1))
    return np.stack(means, 1)


def dis_flow(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Flow [H, W, 2] from one frame [H, W, 3] to another."""
    import cv2  # of the extra `flow`

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
    pool = ThreadPoolExecutor(own_cores(), thread_name_prefix="flow")

    def teach(frames: Tensor, pixels: Tensor) -> Tensor:
        found = list(pool.map(lambda pair: dis_flow(*pair), frames.cpu().numpy()))
        return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(pixels.device)

    return teach


def _raft_teacher(weights: str | None, device: torch.device) -> Teacher:
    try:
        from torchvision.models import optical_flow
    except ImportError as error:
        raise ConfigError(
            "flow.teacher: raft needs torchvision; install it, or use flow.teacher=dis"
        ) from error
    model: Any = optical_flow.raft_large(weights=None)
    # Where torchvision keeps the weights that it has downloaded.
    name: str = optical_flow.Raft_Large_Weights.DEFAULT.url.rpartition("/")[2]
    path = Path(weights or f"{torch.hub.get_dir()}/checkpoints/{name}")
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
