"""Memory of batches: whether there is enough; pinned where a GPU copies from it, else used again.

Fresh memory costs a page fault for each 4 KiB, together more than reading the frames into it. PyTorch keeps
pinned memory itself; for the rest, each batch's array goes back to a list when its tensor dies.
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
"""Where Linux says how much a container may take."""
KEPT = 8
"""Arrays kept for later."""

Frames = npt.NDArray[np.uint8]


def total_memory() -> int:
    """Bytes of memory of this machine, or of the container that the process runs in."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
            found = min(found, int(Path(path).read_text()))
    return found


def check_fits(name: str, wanted: int, what: str, remedy: str) -> None:
    """Refuse what is larger than all memory there is, before any of it is touched.

    Args:
        name: of the argument.
        wanted: bytes.
        what: what would take them.
        remedy: what to do.

    Raises:
        ConfigError: says both numbers.
    """
    have = total_memory()
    if wanted > have:
        raise ConfigError(
            f"{name}: {what} would take {wanted / 1e9:,.1f} GB, and this machine has {have / 1e9:,.1f} GB; "
            f"{remedy}"
        )


class BatchMemory:
    """Arrays for batches; `pin` has them pinned."""

    def __init__(self, pin: bool) -> None:
        self._pin = pin
        self._free: list[Frames] = []
        self._lock = threading.RLock()  # garbage may be collected, and a batch given back, while it is held

    def take(self, shape: tuple[int, ...]) -> torch.Tensor:
        """A uint8 tensor of that shape."""
        if self._pin:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        size = math.prod(shape)
        with self._lock:
            base = next((one for one in self._free if one.size >= size), None)
            if base is not None:
                self._free = [one for one in self._free if one is not base]
        if base is None:
            base = np.empty(size, np.uint8)
        view = base[:size].reshape(shape)
        weakref.finalize(view, self._give, base).atexit = False
        return torch.from_numpy(view)

    def _give(self, base: Frames) -> None:
        with self._lock:
            if len(self._free) < KEPT:
                self._free.append(base)
