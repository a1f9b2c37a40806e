"""What torch raises where a run cannot go on is a line that says what to do."""

from __future__ import annotations

import pytest
import torch

from oxcart.shards.errors import OxcartError
from oxcart.train.explain import explained


def test_too_little_memory_is_one_line() -> None:
    said = r"^val\.batch_size: out of memory \(.*allocate.*\); take a smaller one$"
    with pytest.raises(OxcartError, match=said), explained("val.batch_size", "take a smaller one"):
        torch.empty(1 << 60)


@pytest.mark.parametrize(
    "said",
    [
        "[gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:1",
        "Read error",
        "NCCL error: remote process exited or there was a network error, NCCL version 2.21.5",
        "ncclRemoteError: A call failed possibly due to a network error",
        "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3)",
    ],
)
def test_a_rank_that_has_gone_is_one_line(said: str) -> None:
    with pytest.raises(OxcartError, match=r"^another rank has stopped"), explained("a", "b"):
        raise RuntimeError(said)


def test_a_mistake_of_ours_is_not_dressed_up() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), explained("a", "b"):
        raise RuntimeError("shapes differ")
