"""The measurement says what was read and does its arithmetic; how fast is not asserted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest

import servers
from once import Once
from oxcart.cli.benchmark import measure
from oxcart.compile.sources.base import SourceConfig
from oxcart.shards.codec import Encoding
from oxcart.train.data import Frames, Loader, Pairs
from sample_compile import compiled


@pytest.fixture(scope="module")
def datasets(source: Path, once: Once) -> Mapping[str, Path]:
    """Codec -> a dataset of it."""

    def make(folder: Path) -> Mapping[str, Path]:
        given = SourceConfig(url=str(source), cameras=("image_0",))
        for codec in ("raw", "zstd", "jpeg"):
            compiled(source, folder / codec, source=given, encoding=Encoding(codec=codec))
        return {path.name: path for path in folder.iterdir()}

    found: Mapping[str, Path] = once("benchmarked", make)
    return found


@pytest.mark.parametrize("codec", ["raw", "zstd", "jpeg"])
def test_a_report_is_consistent(datasets: Mapping[str, Path], codec: str) -> None:
    sample = Pairs(frames=1, per_episode="all")
    report = measure(Loader(str(datasets[codec]), sample=sample, batch_size=8, threads=2), 1.0)
    stages = {stage.name: stage for stage in report.stages}
    assert list(stages) == ["fetch", "check", *(["decode"] if codec != "raw" else []), "copy"]
    assert report.sample_bytes == 2 * 32 * 32 * 3
    assert report.limit == min(report.stages, key=lambda stage: stage.samples_per_s).name
    assert report.loader_bytes_per_s == pytest.approx(report.loader_samples_per_s * report.sample_bytes)
    forecasts = {one.codec: one for one in report.forecasts}
    assert forecasts["raw"].frame_bytes == 32 * 32 * 3
    assert forecasts["jpeg"].frame_bytes < forecasts["zstd"].frame_bytes < forecasts["raw"].frame_bytes
    link = stages["fetch"].bytes_per_s
    assert forecasts["raw"].link_samples_per_s == pytest.approx(link / report.sample_bytes)
    assert forecasts["zstd"].read_bytes == pytest.approx(forecasts["zstd"].frame_bytes * 2)
    assert report.best == max(report.forecasts, key=lambda one: one.samples_per_s).codec
    assert report.prefetch == max(2, math.ceil(report.latency_s * report.loader_samples_per_s / 8) + 1)
    json.dumps(asdict(report))


def test_a_remote_dataset_and_single_frames_can_be_measured(datasets: Mapping[str, Path]) -> None:
    with servers.web(datasets["raw"].parent) as server:
        report = measure(Loader(f"{server.url}/jpeg", sample=Frames(), batch_size=4, threads=4), 1.0)
    assert report.remote
    assert report.sample_bytes == 32 * 32 * 3
