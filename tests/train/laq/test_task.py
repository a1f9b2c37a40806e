"""The latent-action model as a task: its loss, and the uses of codes that it counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from lapa_files import SMALL_LAPA

from tiny_laq import lines, trained, weights


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
