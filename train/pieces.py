"""The pieces of a step's batch, as a model takes them: cut and encoded ahead, and sent to the device.

    cut = partial(cut_batch, task, ...)                # in a reading thread of the loader, batches ahead
    for step in sent(loader.ahead(cut), device): ...   # on a GPU by a stream of its own, one step ahead

So a step neither encodes nor copies anything, and the host only queues its work. What reading, encoding and
sending still make a step wait for is its `data_loading (%)`. The trade-off: what a model takes is larger than
frames (patches are float32), and `data.prefetch` batches of it are kept in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from oxcart.train.data.batch import Batch
from oxcart.train.task import BatchSlice, Task


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Rows that go through the model together."""

    rows: BatchSlice
    inputs: dict[str, Tensor]
    """What the task's loss reads of the rows: `Task.inputs`."""


@dataclass(frozen=True, kw_only=True)
class StepBatch:
    """The data of one optimizer step of a rank."""

    batch: Batch
    pieces: list[Piece]
    """The batch, in as many pieces as are accumulated."""
    position: int
    """Position of the loader after the batch."""


def cut_batch(
    task: Task, batch: Batch, step: int, *, place: tuple[int, int], count: int, batch_size: int, pin: bool
) -> list[Piece]:
    """Cut the batch of a rank into pieces for accumulation, with the inputs of each.

    Args:
        task: the task.
        batch: the rows of this rank.
        step: index of the step.
        place: rank and world size.
        count: number of pieces.
        batch_size: rows in the batch of all ranks.
        pin: put inputs into pinned memory, from which a GPU copies while the host goes on.
    """
    rank, world = place
    rows = torch.arange(len(batch)) * world + rank
    order = task.together(batch, BatchSlice(step, rows, batch_size)) if count > 1 else None
    size = len(batch) // count
    pieces = []
    for i in range(count):
        inside: slice | Tensor = slice(i * size, (i + 1) * size)
        inside = inside if order is None else order[inside]
        own = BatchSlice(step, rows[inside], batch_size)
        inputs = task.inputs(batch.take(inside) if count > 1 else batch, own)
        if pin:
            inputs = {name: value.pin_memory() for name, value in inputs.items()}
        pieces.append(Piece(rows=own, inputs=inputs))
    return pieces


def sent(ahead: Iterator[tuple[Batch, list[Piece], int]], device: torch.device) -> Iterator[StepBatch]:
    """The data of each step on the device; a GPU gets them while it computes the step before."""
    if device.type != "cuda":
        while (item := next(ahead, None)) is not None:
            batch, pieces, position = item
            del item
            yield StepBatch(batch=batch, pieces=pieces, position=position)
            del batch, pieces
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting: StepBatch | None = None
    for batch, pieces, position in ahead:
        with torch.cuda.stream(stream):
            moved = [replace(one, inputs=to_device(one.inputs, device)) for one in pieces]
        ready, waiting = waiting, StepBatch(batch=batch, pieces=moved, position=position)
        if ready is not None:
            yield ready
            del ready
        # The step queued now comes after the copies that were queued before it.
        torch.cuda.current_stream(device).wait_stream(stream)
        for one in waiting.pieces:
            for value in one.inputs.values():
                value.record_stream(torch.cuda.current_stream(device))
    if waiting is not None:
        yield waiting


def to_device(inputs: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Inputs on a device; from pinned memory the host does not wait for the copies."""
    return {name: value.to(device, non_blocking=True) for name, value in inputs.items()}
