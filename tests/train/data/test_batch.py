"""A batch says what it holds in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from oxcart.train.data import Loader, Pairs, Window


def test_a_batch_is_told_by_the_shapes_of_what_it_holds(windowed: Mapping[str, Path]) -> None:
    loader = Loader(str(windowed["raw"]), sample=Pairs(frames=1), batch_size=16, size=12, action="steps")
    batch = next(iter(loader))
    said = repr(batch)
    assert said.splitlines()[:2] == ["Batch of 16 samples", "  frames: uint8 [16, 2, 12, 12, 3]"]
    assert "  action: float32 [16, 1, 4]\n" in said
    assert "state" not in said
    assert "  dataset: arm\n" in said
    assert f"  key: {batch.key[0]}" in said
    assert len(said) < 600
    longer = replace(batch, key=[f"{key * 50}\n" for key in batch.key])
    assert len(repr(longer).splitlines()) == len(said.splitlines())
    assert len(repr(longer)) < 600


def test_cameras_are_told_by_name(windowed: Mapping[str, Path]) -> None:
    window = Window(frames={"hand": [0, 1], "primary": [0]})
    batch = next(iter(Loader(str(windowed["raw"]), sample=window, batch_size=4)))
    assert "  frames: hand uint8 [4, 2, 8, 10, 3], primary uint8 [4, 1, 12, 16, 3]\n" in repr(batch)
