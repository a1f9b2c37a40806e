"""What torch says where a run cannot go on, in a line that says what to do.

    with explained("val.batch_size", "take a smaller batch"):
        values = task.validate(model, step, accelerator)

Whatever else torch says is a bug, and stays as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from oxcart.shards.errors import OxcartError

GONE = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Read error",
    "remote process exited",
    "ncclRemoteError",
    "NCCL communicator was aborted",
    "Watchdog caught collective operation timeout",
)
"""What torch.distributed says where a rank has gone: gloo, then NCCL."""
SHOWN = 200
"""Letters that are kept of what torch says."""


@contextlib.contextmanager
def explained(argument: str, remedy: str) -> Iterator[None]:
    """Inside the block, too little memory and a rank that has gone are errors of ours.

    Args:
        argument: that decides how much memory is taken.
        remedy: what to do where there is too little.

    Raises:
        OxcartError: says what to do.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        line = " ".join(said.split())[:SHOWN]
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in said:
            raise OxcartError(f"{argument}: out of memory ({line}); {remedy}") from error
        if any(mark in said for mark in GONE):
            raise OxcartError(f"another rank has stopped; what it said is the reason ({line})") from error
        raise
