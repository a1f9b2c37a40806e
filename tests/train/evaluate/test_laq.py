"""The analysis of a model, when something outside it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import OxcartError
from oxcart.train.evaluate.laq import EvaluateOptions, analyse
from oxcart.train.laq.build import build_model
from oxcart.train.ranks import Member
from tiny_laq import small


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("[pair.cc:553] Connection closed by peer [::1]:1."), "another rank has stopped"),
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            "--batch-size: out of memory .*; take a smaller batch",
        ),
    ],
)
def test_a_rank_that_has_gone_and_a_full_gpu_are_said_in_one_line(
    kitchen: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError, said: str
) -> None:
    def fail(*given: Any) -> None:
        raise error

    monkeypatch.setattr(distributed, "all_gather_object", fail)
    config = small(kitchen, Path("run"))
    with pytest.raises(OxcartError, match=f"^{said}"):
        analyse(
            build_model(config.model, config.quantizer, config.flow).eval(),
            config,
            {"kitchen": Dataset.open(str(kitchen))},
            EvaluateOptions(strategies=("compass",), flow="none", untrained=False),
            torch.device("cpu"),
            record=None,
            ranks=Member(process_index=0, num_processes=2),
        )
