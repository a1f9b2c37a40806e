"""What the source recorded and the split decide the order of samples, not how the frames are stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.transcode import TranscodeConfig, execute, prepare
from oxcart.manifests.dataset import Dataset
from oxcart.train.data import Loader, Pairs
from sample_compile import compiled

PAIRS = Pairs(frames=2, per_episode=2)
SHARD_SIZE = 60_000


def samples(dataset: Path) -> list[tuple[str, int]]:
    """Key and step of the samples of two epochs."""
    loader = Loader(str(dataset), "train", sample=PAIRS, batch_size=4, seed=3)
    batches, found = iter(loader), list[tuple[str, int]]()
    while len(found) < 2 * loader.epoch_length:
        batch = next(batches)
        found += zip(batch.key, batch.t.tolist(), strict=True)
    return found


@pytest.mark.system
def test_a_transcode_keeps_the_order_of_samples(datasets: Mapping[str, Path], tmp_path: Path) -> None:
    before, first = samples(datasets["raw"]), Dataset.open(str(datasets["raw"])).manifest
    assert len(set(before)) > 20
    last, fingerprints = datasets["raw"], {first.fingerprint}
    for codec in ("zstd", "jpeg"):
        out = str(tmp_path / codec)
        config = TranscodeConfig(dataset=str(last), out=out, codec=codec, shard_size=SHARD_SIZE, workers=1)
        manifest = execute(prepare(config))
        assert manifest.order == first.order
        assert samples(tmp_path / codec) == before
        fingerprints.add(manifest.fingerprint)
        last = tmp_path / codec
    assert len(fingerprints) == 3


def test_the_name_of_the_format_has_no_say_in_the_order(
    kitchens: Path, datasets: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, first = samples(datasets["raw"]), Dataset.open(str(datasets["raw"])).manifest
    for module in ("manifests.manifest", "compile.commit", "compile.plan", "compile.workspace"):
        monkeypatch.setattr(f"oxcart.{module}.FORMAT", "oxcart/9")
    source = SourceConfig(url=str(kitchens), cameras=("image_0",))
    manifest = compiled(kitchens, tmp_path / "out", source=source, shard_size=SHARD_SIZE)
    assert manifest.format == "oxcart/9"
    assert manifest.fingerprint != first.fingerprint
    assert manifest.order == first.order
    assert samples(tmp_path / "out") == before
