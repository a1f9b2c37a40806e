"""Two ranks train as one does, and end together, whichever of them fails."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lapa_files import SMALL_LAPA

from laq_process import AUGMENTED, PATCHED, asked, ended, ranks_of
from once import Once
from tiny_laq import assert_same_checkpoints, lines, trained, weights

pytestmark = pytest.mark.system

RANKS = (
    PATCHED
    + """
import json
from accelerate.state import AcceleratorState
from oxcart.cli.main import main, oxcart
from oxcart.shards.errors import OxcartError, StoreError
from oxcart.train import checkpoint
from oxcart.train.laq.model import LatentActionModel
from oxcart.train.report import RunLog

original_encode = LatentActionModel.encode
seen = []

def after_step(self, model, step, accelerator):
    if name == "stopped" and step == 2 and accelerator.process_index == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    found = original(self, model, step, accelerator)
    for tensor in (model.quantizer.codebook.data, model.quantizer.used):
        every = [torch.empty_like(tensor) for _ in range(2)]
        distributed.all_gather(every, tensor.contiguous())
        alike = torch.allclose(every[0], every[1], rtol=0, atol=0, equal_nan=True)
        assert alike, f"step {step}: the ranks' codebooks differ"
    seen.append((name, step, found.get("codes_replaced", 0)))
    return found

def loss(self, model, batch, place):
    value, metrics = original_loss(self, model, batch, place)
    spoiled = name == "not finite" and place.step == 1 and place.rows[0] == 1
    return (value + float("inf") if spoiled else value), metrics  # its gradient is finite

def encode(self, frames):
    codes = original_encode(self, frames)
    return torch.full_like(codes, -1) if name == "invalid" and distributed.get_rank() else codes

def failing(work, run, rank, kind=None):
    def tried(*given, **named):
        if name == run and distributed.get_rank() == rank and (kind is None or kind in given):
            raise StoreError(f"{run}: no room")
        return work(*given, **named)
    return tried

LaqTask.after_step, LaqTask.loss, LatentActionModel.encode = after_step, loss, encode
checkpoint._Storage.write_data = failing(checkpoint._Storage.write_data, "save", 0)
checkpoint.set_random_states = failing(checkpoint.set_random_states, "restore", 1)
RunLog.metrics = failing(failing(RunLog.metrics, "line", 0, "train"), "score", 0, "val")
sys.modules["wandb"] = None  # whether or not it is installed
told = {}
*most, (last, line) = json.loads(sys.argv[1]).items()
for name, arguments in most:
    AcceleratorState._reset_state()  # the ranks stay together
    if "--resume" not in arguments and name not in ("two", "whole", "replacing"):
        try:
            result = train_laq(laq_config(arguments))
            told[name] = [result.stopped, result.step]
        except OxcartError as error:
            told[name] = str(error)
    else:
        told[name] = oxcart(["train", "laq", *arguments], standalone_mode=False)
print(json.dumps({"told": told, "seen": seen}), flush=True)
AcceleratorState._reset_state()
name, sys.argv = last, ["oxcart", "train", "laq", *line]
try:
    main()
finally:
    distributed.destroy_process_group()  # gloo's threads of all these runs would race with Python's end
"""
)
"""Runs of two ranks, one after the other; prints how each ended and what each step did. The last is that of a
process which is the command, and ends as it does."""


@dataclass(frozen=True)
class Ranks:
    """What came of runs of two ranks, which were launched once for all of them."""

    folder: Path
    """Holds the run of each name."""
    told: list[dict[str, Any]]
    """Rank -> run -> exit code (None is 0), error, or whether it was stopped, and at which step."""
    seen: list[list[Any]]
    """(run, step, codes replaced) of rank 0; that codebooks are equal, each step has asserted."""
    last: list[list[Any]]
    """Rank -> exit code and stderr of the last run, which is a command."""


REPLACING = ("train.steps=9", "quantizer.codes=8", "quantizer.replace_every=1", "quantizer.replace_below=0.9")
ALIKE = (*AUGMENTED, "train.steps=6", "val.every=6")
LAPA = ("preset=lapa", *SMALL_LAPA, "train.steps=4", "quantizer.replace=share", "quantizer.replace_every=2")


@pytest.fixture(scope="module")
def ranks(kitchen: Path, once: Once) -> Ranks:
    """Runs of two ranks."""

    def launch(folder: Path) -> Ranks:
        stopping = (*AUGMENTED, "train.steps=5", "train.log_every=3")
        given = {
            "two": asked(kitchen, folder / "two", *ALIKE),
            "whole": asked(kitchen, folder / "whole", *stopping),
            "stopped": asked(kitchen, folder / "stopped", *stopping),
            "resumed": ["--resume", "auto", f"run.dir={folder / 'stopped'}"],
            "replacing": asked(kitchen, folder / "replacing", *REPLACING),
            "lapa": asked(kitchen, folder / "lapa", *LAPA),
            "not finite": asked(kitchen, folder / "not finite", "train.steps=4"),
            "invalid": asked(kitchen, folder / "invalid", "train.steps=2", "val.every=1", "val.probes=false"),
            "save": asked(kitchen, folder / "save", "train.steps=1"),
            "line": asked(kitchen, folder / "line", "train.steps=1"),
            "score": asked(kitchen, folder / "score", "train.steps=1", "val.every=1", "val.probes=false"),
            "taken": asked(kitchen, folder / "two"),
            "report": asked(kitchen, folder / "report", "run.wandb=project"),
            "restore": ["--resume", "auto", f"run.dir={folder / 'two'}"],
        }
        found, last = [], []
        processes = ranks_of(2, ["-c", RANKS], json.dumps(given))
        try:
            for process in processes:
                out, err = process.communicate(timeout=120)
                assert out, err
                found.append(json.loads(out.splitlines()[-1]))
                last.append([process.returncode, err])
        finally:
            for process in processes:
                process.kill()  # one that waits for the other would do so for half an hour
        return Ranks(folder, [one["told"] for one in found], found[0]["seen"], last)

    made: Ranks = once("ranks", launch)
    return made


def test_two_ranks_equal_one_and_share_a_codebook(kitchen: Path, ranks: Ranks, tmp_path: Path) -> None:
    trained(tmp_path / "one", kitchen, *ALIKE)
    assert [told["two"] for told in ranks.told] == [None, None]
    one, two = lines(tmp_path / "one"), lines(ranks.folder / "two")
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)
    assert [line["grad_norm"] for line in two] == pytest.approx([line["grad_norm"] for line in one], rel=1e-3)
    assert "loss_max" in two[0]
    a, b = weights(tmp_path / "one"), weights(ranks.folder / "two")
    torch.testing.assert_close(a["quantizer.codebook"], b["quantizer.codebook"], rtol=1e-3, atol=1e-4)
    assert torch.equal(a["quantizer.used"], b["quantizer.used"]), "usage is that of all ranks"
    val = [lines(run, "val")[0]["val/copy_ratio"] for run in (tmp_path / "one", ranks.folder / "two")]
    assert val[1] == pytest.approx(val[0], rel=1e-3)


def test_two_ranks_train_lapas_network_as_one_does(kitchen: Path, ranks: Ranks, tmp_path: Path) -> None:
    trained(tmp_path / "one", kitchen, *LAPA)
    assert [told["lapa"] for told in ranks.told] == [[False, 4]] * 2
    one, two = lines(tmp_path / "one"), lines(ranks.folder / "lapa")
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)
    assert [line["grad_norm"] for line in two] == pytest.approx([line["grad_norm"] for line in one], rel=1e-3)
    a, b = weights(tmp_path / "one"), weights(ranks.folder / "lapa")
    torch.testing.assert_close(a["quantizer.codebook"], b["quantizer.codebook"], rtol=1e-3, atol=1e-4)


def test_a_signal_to_one_of_two_ranks_stops_both_and_they_go_on_bit_for_bit(ranks: Ranks) -> None:
    for told in ranks.told:
        assert told["stopped"] == [True, 3], "at the next line of metrics"
        assert told["whole"] is None
        assert told["resumed"] is None
    assert [step for run, step, _ in ranks.seen if run == "stopped"] == [1, 2, 3]
    assert [step for run, step, _ in ranks.seen if run == "resumed"] == [4, 5]
    assert_same_checkpoints(ranks.folder / "stopped", ranks.folder / "whole")


def test_a_loss_that_is_not_finite_on_one_of_two_ranks_stops_both(ranks: Ranks) -> None:
    for told in ranks.told:
        said = told["not finite"]
        assert "step 2: the loss is inf and the norm of its gradient 0" in said
        assert re.search(r"; batch of (oxcart_kitchens-\w+-\d+-\d+ t=\d+(, )?){4}; none was saved", said), (
            "the samples are those of the rank that saw it"
        )


def test_what_is_not_finite_in_validation_of_one_of_two_ranks_stops_both(ranks: Ranks) -> None:
    for told in ranks.told:
        assert told["invalid"].startswith("step 1, validation: latents of oxcart_kitchens-")
        assert "none was saved" in told["invalid"]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (
            "save",
            "{folder}/save/checkpoints: the checkpoint cannot be written (save: no room); there is none",
        ),
        ("line", "line: no room"),
        ("score", "score: no room"),
        ("taken", "run.dir: {folder}/two holds a run; pass --resume auto"),
        ("report", "run.wandb: Weights & Biases is not installed"),
    ],
)
def test_what_fails_on_the_main_rank_alone_stops_both_with_its_reason(
    ranks: Ranks, run: str, said: str
) -> None:
    for told in ranks.told:
        assert told[run].startswith(said.format(folder=ranks.folder))


def test_a_command_whose_rank_cannot_go_on_ends_on_both_in_one_line(ranks: Ranks) -> None:
    """Rank 1 has failed, and rank 0 has not."""
    errors = [
        [code, [line for line in err.splitlines() if not line.startswith("oxcart: warning: ")]]
        for code, err in ranks.last
    ]
    assert errors == [[1, ["oxcart: error: restore: no room"]]] * 2


def test_ranks_codebooks_are_identical_after_every_step(ranks: Ranks) -> None:
    assert [told["replacing"] for told in ranks.told] == [None, None]
    replaced = {step: count for run, step, count in ranks.seen if run == "replacing"}
    assert list(replaced) == list(range(1, 10))
    assert sum(replaced.values()) > 0


LOST = (
    PATCHED
    + """
from oxcart.cli.main import main

def after_step(self, model, step, accelerator):
    if step == 2 and accelerator.process_index == 1:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    return original(self, model, step, accelerator)

LaqTask.after_step = after_step
sys.argv = ["oxcart", "train", "laq", *sys.argv[2:]]
main()
"""
)
"""A training whose rank 1 gets a signal in its second step."""


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGSTOP"])
def test_a_rank_that_dies_or_hangs_ends_the_other_in_one_line(
    kitchen: Path, tmp_path: Path, signal: str
) -> None:
    arguments = asked(kitchen, tmp_path / "run", "train.steps=1000", "train.timeout=3")
    zero, one = ranks_of(2, ["-c", LOST], signal, *arguments)
    try:
        ((code, said),) = ended([zero])
    finally:
        one.kill()
        one.communicate()
    lines = [line for line in said.splitlines() if line.startswith("oxcart: error: ")]
    assert code == 1, said
    assert len(lines) == 1
    assert "another rank has stopped; see its message for the reason" in lines[0]


SHARED = """
import json, sys
from torch import distributed
from oxcart.cli.main import oxcart

for arguments in json.loads(sys.argv[1]):
    oxcart(arguments, standalone_mode=False)
if distributed.is_initialized():
    distributed.destroy_process_group()
"""
"""Commands, one after the other, in the ranks of one launch."""


def test_ranks_label_and_evaluate_as_one_does(kitchen: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained(run, kitchen, "train.steps=2")
    found = {}
    for count in (1, 2, 4):
        codes, report = tmp_path / f"{count}.parquet", tmp_path / f"{count}.json"
        label = ["label", str(kitchen), "--laq", str(run), "-o", str(codes), "--batch-size", "2", "--quiet"]
        evaluate = ["evaluate", "laq", str(run), str(kitchen), "--json", str(report), "--samples", "20"]
        evaluate += ["--strategies", "codebook,compass,transfer", "--batch-size", "4", "--device", "cpu"]
        commands = [[*label, "--device", "cpu"], [*evaluate, "--flow", "none"]]
        told = ended(ranks_of(count, ["-c", SHARED], json.dumps(commands)))
        assert [code for code, _ in told] == [0] * count, told
        assert not Path(f"{codes}.parts").exists()
        found[count] = codes.read_bytes(), json.loads(report.read_text())
    assert found[1] == found[2] == found[4], "to the digit"
