"""What torch raises where a run cannot go on is a line that says what to do."""

from __future__ import annotations

import pytest
import torch

from oxcart.shards.errors import ConfigError, OxcartError
from oxcart.train.config import TrainConfig
from oxcart.train.loop import make_accelerator
from oxcart.train.run import explained


def test_too_little_memory_is_one_line() -> None:
    said = r"^data\.batch_size: out of memory \(.*allocate.*\); take a smaller"
    with pytest.raises(OxcartError, match=said), explained():
        torch.empty(1 << 60)


@pytest.mark.parametrize("said", ["[gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:1", "Read error"])
def test_a_rank_that_has_gone_is_one_line(said: str) -> None:
    with pytest.raises(OxcartError, match=r"^another rank has stopped"), explained():
        raise RuntimeError(said)


def test_a_mistake_of_ours_is_not_dressed_up() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), explained():
        raise RuntimeError("shapes differ")


def test_an_environment_that_accelerate_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "nonsense")
    with pytest.raises(ConfigError, match=r"^environment: accelerate cannot begin: "):
        make_accelerator(TrainConfig(device="cpu"))
