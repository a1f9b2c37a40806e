"""Memory of batches: a check that there is enough, and its reuse.

Fresh memory costs a page fault per 4 KiB, in all more than reading the frames into it. PyTorch itself reuses
pinned memory; any other array of a batch returns to a list when its tensor is freed. Arrays begin at a
multiple of 64 bytes, as NumPy's do not: Linux copies a frame to such an address in 24 microseconds instead of
29.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import weakref
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from oxcart.shards.errors import ConfigError

CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files in which Linux states the memory limit of a container."""
KEPT = 8
"""Maximum number of arrays kept for reuse."""
ALIGNMENT = 64
"""Arrays begin at a multiple of this many bytes, the size of a line of the processor's cache."""

Frames = npt.NDArray[np.uint8]


def total_memory() -> int:
    """Memory of this machine, or of the container that the process runs in, in bytes."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
            found = min(found, int(Path(path).read_text()))
    return found


def check_fits(name: str, wanted: int, what: str, remedy: str) -> None:
    """Refuse a size larger than the memory of this machine, before any memory is taken.

    Args:
        name: the argument that decides the size.
        wanted: size, in bytes.
        what: what would take the memory.
        remedy: what the user can do.

    Raises:
        ConfigError: the size exceeds the memory; the message states both numbers.
    """
    have = total_memory()
    if wanted > have:
        raise ConfigError(
            f"{name}: {what} would take {wanted / 1e9:,.1f} GB, and this machine has {have / 1e9:,.1f} GB; "
            f"{remedy}"
        )


class BatchMemory:
    """Memory for one of the large tensors of batches, pinned or reused; `batch_memory` shares it."""

    def __init__(self, pin: bool) -> None:
        self._pin = pin
        self._free: list[Frames] = []
        self._lock = threading.RLock()  # garbage may be collected, and a batch given back, while it is held

    def take(self, shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> torch.Tensor:
        """An uninitialised tensor."""
        if self._pin:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        size = math.prod(shape) * kind.itemsize
        with self._lock:
            base = next((one for one in self._free if one.size >= size), None)
            if base is not None:
                self._free = [one for one in self._free if one is not base]
        if base is None:
            base = _aligned(size)
        view = base[:size].view(kind).reshape(shape)
        weakref.finalize(view, self._give, base).atexit = False
        return torch.from_numpy(view)

    def _give(self, base: Frames) -> None:
        with self._lock:
            if len(self._free) < KEPT:
                self._free.append(base)


_shared: weakref.WeakValueDictionary[tuple[bool, tuple[int, ...]], BatchMemory] = (
    weakref.WeakValueDictionary()
)


def batch_memory(pin: bool, shape: tuple[int, ...]) -> BatchMemory:
    """Memory for tensors of samples of a shape, shared by all loaders of the process."""
    return _shared.setdefault((pin, shape), BatchMemory(pin))


def _aligned(size: int) -> Frames:
    """Uninitialised bytes that begin at a multiple of ALIGNMENT."""
    whole = np.empty(size + ALIGNMENT, np.uint8)
    begin = -whole.ctypes.data % ALIGNMENT
    return whole[begin : begin + size]
