"""The accelerator of a configuration."""

from __future__ import annotations

from pathlib import Path

from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from oxcart.train.config import TrainConfig
from oxcart.train.device import make_accelerator


def test_wrapping_a_model_for_several_ranks_warns_of_nothing(tmp_path: Path) -> None:
    """A warning is an error in these tests."""
    given = make_accelerator(TrainConfig(device="cpu")).ddp_handler.to_kwargs()
    assert given == {"broadcast_buffers": False}
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        DistributedDataParallel(nn.Linear(2, 2), **given)
    finally:
        distributed.destroy_process_group()
