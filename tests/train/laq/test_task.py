"""The latent-action model as a task: its loss, and the uses of codes that it counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from lapa_files import SMALL_LAPA

from oxcart.train.laq.model import LatentActionModel
from oxcart.train.laq.task import LaqTask
from oxcart.train.task import BatchSlice
from tiny_laq import lines, small, trained, weights


def test_every_use_of_a_code_is_counted_once(kitchen: Path, tmp_path: Path) -> None:
    trained(tmp_path / "run", kitchen, "train.steps=3", "quantizer.replace_every=0")
    used = weights(tmp_path / "run")["quantizer.used"]
    assert used.sum() == 3 * 8 * 2, "steps, pairs and tokens"


def test_the_loss_of_lapa_is_of_pixels_from_0_to_1_and_ours_of_pixels_from_minus_1_to_1(
    kitchen: Path, tmp_path: Path
) -> None:
    given = ("train.steps=1", "quantizer.follow=0")
    trained(tmp_path / "lapa", kitchen, "preset=lapa", *SMALL_LAPA, *given)
    trained(tmp_path / "ours", kitchen, *given)
    (lapa,), (ours,) = lines(tmp_path / "lapa"), lines(tmp_path / "ours")
    assert lapa["loss"] == pytest.approx(lapa["mse"])
    assert ours["loss"] == pytest.approx(4 * ours["mse"])


@pytest.mark.system
def test_one_batch_overfits(kitchen: Path, tmp_path: Path) -> None:
    config = small(kitchen, tmp_path, "model.kind=residual", "quantizer.harden=[0,0]")
    task = LaqTask(config, torch.device("cpu"))
    torch.manual_seed(0)
    model = task.build()
    assert isinstance(model, LatentActionModel)
    batch = next(iter(task.loader(0, 1)))
    piece = BatchSlice(3, torch.arange(8), 8)
    inputs = task.inputs(batch, piece)
    task.begin(model, [inputs], _FakeAccelerator())  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(120):
        loss, metrics = task.loss(model, inputs, piece)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(metrics["mse"].item())
    assert losses[1] < losses[0]
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.system
def test_a_compiled_network_of_lapa_trains_as_it_is_and_recomputes(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its graphs are those that a GPU runs; they are run without a C compiler here."""
    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: original(self, backend="aot_eager"))
    given = ("preset=lapa", *SMALL_LAPA, "train.steps=3")
    losses = {}
    for name, *more in (("plain",), ("on", "train.compile=true"), ("off", "train.compile=true")):
        recompute = f"model.checkpointing={str(name == 'on').lower()}"
        trained(tmp_path / name, kitchen, *given, recompute, *more)
        losses[name] = [line["loss"] for line in lines(tmp_path / name)]
        AcceleratorState._reset_state(reset_partial_state=True)
    assert losses["on"] == pytest.approx(losses["plain"], rel=1e-5)
    assert losses["off"] == pytest.approx(losses["plain"], rel=1e-5)


class _FakeAccelerator:
    device = torch.device("cpu")
    num_processes = 1
    process_index = 0
