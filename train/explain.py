"""Turn errors of torch that end a run into one line that says what to do.

    with explained("val.batch_size", "take a smaller batch"):
        values = task.validate(model, step, accelerator)

Any other error of torch is a bug, and passes unchanged.
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
    "Timed out waiting",
    "ncclRemoteError",
    "NCCL communicator was aborted",
    "Watchdog caught collective operation timeout",
)
"""Parts of the messages of gloo and NCCL when another rank has gone."""
SHOWN = 200
"""Number of characters kept of torch's message."""


@contextlib.contextmanager
def explained(argument: str, remedy: str) -> Iterator[None]:
    """Inside the block, running out of memory and losing a rank raise an OxcartError.

    Args:
        argument: key that decides how much memory is used.
        remedy: what to do if there is too little.

    Raises:
        OxcartError: memory has run out, or another rank has gone.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        line = " ".join(said.split())[:SHOWN]
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in said:
            raise OxcartError(f"{argument}: out of memory ({line}); {remedy}") from error
        if any(mark in said for mark in GONE):
            raise OxcartError(f"another rank has stopped; see its message for the reason ({line})") from error
        raise
