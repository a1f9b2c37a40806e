"""Batches are encoded and sent ahead, and a step reads nothing back from the device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

import tiny_laq
import tiny_policy
import tiny_vla
from host_reads import HostReads
from laq_process import AUGMENTED
from oxcart.train import loop
from oxcart.train.data import Batch
from oxcart.train.laq.task import LaqTask
from oxcart.train.pieces import Piece, cut_batch, sent
from oxcart.train.task import BatchSlice
from oxcart.train.vla.model import ActionModel
from oxcart.train.vla.task import VlaTask
from oxcart.train.vla.tiny import VlmConfig, write_vlm

STEPS = 5
KINDS = ("laq", "vla", "online", "policy")
"""`online` makes the codes of a VLA with a latent-action model."""


def train(kind: str, kitchen: Path, folder: Path, *more: str) -> None:
    """Train a tiny model of a kind for some steps."""
    given = (f"train.steps={STEPS}", "train.log_every=100", "train.accumulate=2", *more)
    if kind == "laq":
        tiny_laq.trained(folder / "laq", kitchen, *AUGMENTED, "quantizer.replace_every=0", *given)
        return
    if kind == "policy":
        codes = tiny_vla.write_codes(kitchen, folder / "codes.parquet")
        own = ("policy.loss=flow", "data.actions=3", f"data.codes=[{codes}]", "augment.shift=0.1")
        tiny_policy.trained(tiny_policy.small(kitchen, folder / "policy", *own, *given))
        return
    write_vlm(folder / "vlm", VlmConfig(width=32, layers=1, vision_layers=1, image_size=32, patch=8))
    codes = tiny_vla.write_codes(kitchen, folder / "codes.parquet")
    if kind == "online":
        with tiny_laq.alone():
            tiny_laq.trained(folder / "laq", kitchen, "train.steps=1", "train.device=cpu")
        given = ("data.codes=[]", f"data.laq={folder / 'laq'}", *given)
    tiny_vla.trained(
        tiny_vla.small(folder / "vlm", kitchen, codes, folder / "vla", "augment.light=0.1", *given)
    )


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """Calls a function with the index of each step, when it begins."""
    original = loop._Run._step

    def watching(begin: Callable[[int], None]) -> None:
        def step(self: Any, pieces: Any, number: int) -> dict[str, Tensor]:
            begin(number)
            return original(self, pieces, number)

        monkeypatch.setattr(loop._Run, "_step", step)

    return watching


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_reads_nothing_back_unless_it_writes_a_line(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: Any, kind: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    reads = HostReads()
    watch(lambda step: setattr(reads, "step", step))
    with reads:
        train(kind, kitchen, tmp_path)
    # The first step begins the codebook and counts FLOPs; the last writes a line and a checkpoint.
    inside = {where for step, where in reads.found if 0 < step < STEPS - 1}
    if kind != "laq":  # the backward pass through masks of transformers' models
        inside = {where for where in inside if "/accelerate/" not in where}
    assert not inside, "\n".join(inside)
    assert any(step == STEPS - 1 for step, _ in reads.found), "what is read is seen"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_the_host_never_waits_for_a_gpu(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: Any, kind: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    if kind != "laq":  # transformers' models read sizes of images, and wait for masks in the backward pass
        for owner, name in ((ActionModel, "forward"), (Accelerator, "backward")):
            monkeypatch.setattr(owner, name, waiting(getattr(owner, name)))
    watch(lambda step: torch.cuda.set_sync_debug_mode("error" if 0 < step < STEPS - 1 else "default"))
    try:
        train(kind, kitchen, tmp_path, "train.device=cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def waiting(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which may wait for the GPU."""

    def call(*given: Any, **named: Any) -> Any:
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        try:
            return function(*given, **named)
        finally:
            torch.cuda.set_sync_debug_mode(mode)

    return call


@pytest.mark.parametrize(("kind", "task"), [("laq", LaqTask), ("vla", VlaTask)])
def test_inputs_are_made_in_reading_threads(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, task: Any
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    made: list[tuple[int, str]] = []
    original = task.inputs

    def inputs(self: Any, batch: Any, piece: Any) -> dict[str, Tensor]:
        made.append((piece.step, threading.current_thread().name))
        found: dict[str, Tensor] = original(self, batch, piece)
        return found

    monkeypatch.setattr(task, "inputs", inputs)
    train(kind, kitchen, tmp_path, "data.prefetch=1")
    of_main = [step for step, thread in made if not thread.startswith("oxcart-")]
    assert of_main == [0], "FLOPs are counted once"
    steps = {step for step, thread in made if thread.startswith("oxcart-")}
    assert steps >= set(range(STEPS)), "each step has its own"


def batch_of(steps: list[int]) -> Batch:
    """Samples that are told apart by their steps."""
    count = len(steps)
    blank = [""] * count
    t = torch.tensor(steps)
    return Batch(
        frames=None, t=t, offset=t, dataset=blank, key=blank, environment=[None] * count, instruction=blank
    )


class Backwards:
    """A task that orders samples backwards, and whose inputs are their steps."""

    def together(self, batch: Batch, piece: BatchSlice) -> Tensor:
        return torch.arange(len(batch)).flip(0)

    def inputs(self, batch: Batch, piece: BatchSlice) -> dict[str, Tensor]:
        return {"t": batch.t}


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_sample_keeps_its_place_in_the_batch_of_all_ranks_in_whichever_piece_it_is(count: int) -> None:
    place, task = (1, 2), Backwards()
    own = [100 + row for row in range(1, 8, 2)]
    pieces = cut_batch(
        task,  # type: ignore[arg-type]  # as much of one as is needed
        batch_of(own),
        5,
        place=place,
        count=count,
        batch_size=8,
        pin=False,
    )
    assert [len(one.inputs["t"]) for one in pieces] == [4 // count] * count
    for one in pieces:
        assert torch.equal(one.inputs["t"], 100 + one.rows.rows)
        assert (one.rows.step, one.rows.batch_size) == (5, 8)
    found = torch.cat([one.inputs["t"] for one in pieces]).tolist()
    assert found == (own if count == 1 else own[::-1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_reaches_a_gpu_is_what_was_read() -> None:
    device, batch = torch.device("cuda"), batch_of([0])

    def ahead() -> Iterator[tuple[Batch, list[Piece], int]]:
        for i in range(30):
            values = torch.full((1 << 20,), float(i)).pin_memory()
            yield batch, [Piece(rows=BatchSlice(i, batch.t, 1), inputs={"x": values})], i

    kept = []
    for step in sent(ahead(), device):
        torch.cuda._sleep(10_000_000)  # type: ignore[no-untyped-call]  # a step that takes longer than the copies for the next ones
        kept.append((step.position, step.pieces[0].inputs["x"].square()))
    for number, values in kept:
        assert (values == number**2).all()
    assert [number for number, _ in kept] == list(range(30))
