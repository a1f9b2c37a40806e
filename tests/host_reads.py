"""Find the places where the host reads a tensor, which on a GPU it would wait for."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ATEN = torch.ops.aten
READING = {ATEN._local_scalar_dense, ATEN.nonzero, ATEN.bincount, ATEN._unique2, ATEN.unique_dim}
METHODS = {torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.to}
OTHERS = ("/torch/optim/", "/torch/nn/utils/clip_grad", "/transformers/")
"""Code of others: AdamW has its counters on the CPU here, and on a GPU there; clipping moves a norm to where
it is; a family of models reads what it likes."""


class HostReads(ExitStack):
    """Inside the block, `found` gathers the reads of this thread, as `step`, file, line, and operation."""

    def __init__(self) -> None:
        super().__init__()
        self.step = -1
        self.found: list[tuple[int, str]] = []

    def __enter__(self) -> HostReads:
        super().__enter__()
        self.enter_context(_Methods(self))
        self.enter_context(_Operations(self))
        return self

    def note(self, what: str) -> None:
        frame, own = sys._getframe(2), ""
        while frame is not None:
            name = frame.f_code.co_filename
            if any(other in name for other in OTHERS):
                return
            if not own and "/torch/" not in name and "host_reads" not in name:
                own = f"{name}:{frame.f_lineno} {what}"
            frame = frame.f_back  # type: ignore[assignment]
        self.found.append((self.step, own))


class _Methods(TorchFunctionMode):
    def __init__(self, reads: HostReads) -> None:
        super().__init__()
        self._reads = reads

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        moves = func is not torch.Tensor.to or (
            not kwargs.get("non_blocking")
            and any(isinstance(one, str | torch.device) for one in (*args[1:], *kwargs.values()))
        )
        if func in METHODS and moves:
            self._reads.note(func.__name__)
        return func(*args, **kwargs)


class _Operations(TorchDispatchMode):
    def __init__(self, reads: HostReads) -> None:
        super().__init__()
        self._reads = reads

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        by_mask = func.overloadpacket in (ATEN.index, ATEN.index_put, ATEN.index_put_) and any(
            one is not None and one.dtype == torch.bool for one in args[1]
        )
        if func.overloadpacket in READING or by_mask:
            self._reads.note(str(func))
        return func(*args, **(kwargs or {}))
