"""The watch over codes in training: what it measures, when it warns, and when it stops a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from oxcart.shards.errors import CollapseError
from oxcart.train.laq.config import QuantizerConfig
from oxcart.train.laq.watch import CodeWatch
from tiny_laq import lines, trained

CONFIG = QuantizerConfig(tokens=2, codes=4, patience=30)
GOOD = torch.tensor([[10, 10, 10, 10], [20, 20, 0, 0]]) + torch.tensor([[0] * 4, [-5, -5, 5, 5]])
BAD = torch.tensor([[10, 10, 10, 10], [40, 0, 0, 0]])


def looks(counts: list[Tensor], config: QuantizerConfig = CONFIG, every: int = 10) -> list[dict[str, float]]:
    watch = CodeWatch(config, every, torch.device("cpu"))
    found = []
    for step, one in enumerate(counts, 1):
        watch.add(one)
        found.append(watch.look(step))
    return found


def test_usage_and_perplexity_of_each_position_are_measured_when_metrics_are_due() -> None:
    found = looks([GOOD] * 9 + [BAD])
    assert found[:9] == [{}] * 9
    assert found[9]["usage"] == 1
    assert found[9]["perplexity_0"] == pytest.approx(4)
    assert 1 < found[9]["perplexity_1"] < 4
    assert found[9]["perplexity"] == pytest.approx((4 + found[9]["perplexity_1"]) / 2)
    assert "collapsed_steps" not in found[9]


def test_too_few_pairs_are_not_judged_but_counted_on() -> None:
    found = looks([torch.tensor([[2, 0, 0, 0], [2, 0, 0, 0]])] * 20)
    assert found[9] == {}, "twenty pairs of four codes"
    assert found[19]["usage"] == 0.25
    assert found[19]["collapsed_steps"] == 20


def test_a_collapse_is_said_once_when_it_has_lasted_and_again_after_a_recovery() -> None:
    watch = CodeWatch(CONFIG, 10, torch.device("cpu"))
    said = []
    for step, counts in enumerate([BAD] * 60 + [GOOD] * 10 + [BAD] * 50, 1):
        watch.add(counts)
        said += [(step, one) for one in watch.warnings(watch.look(step))]
    assert [step for step, _ in said] == [30, 100]
    text = "the codebook has collapsed: training has used few of the codes of a token for 30 steps; take a "
    assert said[0][1].startswith(text)


def test_stop_ends_the_run_and_off_measures_nothing() -> None:
    with pytest.raises(CollapseError, match=r"^step 30: the codebook has collapsed: .* train\.lr"):
        looks([BAD] * 60, replace(CONFIG, on_collapse="stop"))
    assert looks([BAD] * 60, replace(CONFIG, on_collapse="off")) == [{}] * 60


class Reads(TorchFunctionMode):
    """Counts reads by the host."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if getattr(func, "__name__", "") in {"cpu", "item", "tolist", "numpy", "__bool__", "__int__"}:
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_the_host_reads_nothing_between_lines_of_metrics() -> None:
    watch = CodeWatch(CONFIG, 10, torch.device("cpu"))
    with Reads() as reads:
        for step in range(1, 10):
            watch.add(GOOD)
            watch.look(step)
        assert reads.count == 0
        watch.add(GOOD)
        watch.look(10)
        assert reads.count > 0


FAST = ("quantizer.follow=0", "quantizer.replace_every=0", "train.lr=0.1", "train.warmup=0")
SHORT = ("quantizer.codes=8", "quantizer.dim=32", "train.log_every=5", "train.steps=20")
WRONG = ("preset=large", "model.spatial_depth=1", "model.temporal_depth=1", *FAST, *SHORT)


def test_a_run_warns_and_goes_on_or_stops(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An encoder that learns much too fast leaves the codebook behind."""
    result = trained(tmp_path / "warned", kitchen, *WRONG, "quantizer.patience=9")
    said = [line for line in capsys.readouterr().err.splitlines() if "collapsed" in line]
    assert (len(said), result.step) == (1, 20)
    assert said[0].startswith("oxcart: warning: step ")
    measured = [line for line in lines(tmp_path / "warned") if "perplexity_1" in line]
    assert measured
    assert max(line["collapsed_steps"] for line in measured if "collapsed_steps" in line) >= 9
    with pytest.raises(CollapseError, match=r"step \d+: the codebook has collapsed"):
        trained(tmp_path / "stopped", kitchen, *WRONG, "quantizer.patience=9", "quantizer.on_collapse=stop")
