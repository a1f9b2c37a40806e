"""A dataset of copied videos gives the batches of one whose frames were decoded, at the same positions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from lerobot_writer import RobotTake, write_lerobot

import servers
from once import Once
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.split import SplitRule
from oxcart.shards.codec import Encoding
from oxcart.train.data import Batch, Frames, Loader, Pairs, Window
from sample_compile import compiled
from servers import Server

TAKES = [RobotTake(steps=steps) for steps in (9, 5, 6, 2, 4, 12, 7)]
ENCODERS: Mapping[str, tuple[str, dict[str, str]]] = {
    "av1": ("libsvtav1", {"g": "2", "crf": "30", "preset": "12"}),
    "h264": ("libx264", {"g": "5", "bf": "2", "crf": "12"}),
}
RULE = SplitRule(by="episode", val=0.2)
SAMPLES: Mapping[str, Any] = {
    "all pairs": Pairs(frames=2, per_episode="all"),
    "one pair": Pairs(frames=1),
    "frames": Frames(),
    "windows": Window(
        frames={"top": (-3, -1, 0), "wrist": 0}, action=(0, 1), per_episode="all", pad="repeat"
    ),
}


def make(folder: Path) -> Mapping[str, Path]:
    found = {}
    for codec, (encoder, options) in ENCODERS.items():
        root = write_lerobot(folder / f"{codec}-source", TAKES, codec=encoder, options=options, apart=True)
        source = SourceConfig(url=str(root), kind="lerobot", cameras=("top", "wrist"))
        for name, encoding in (("raw", Encoding()), ("video", Encoding(codec="video"))):
            out = found[f"{codec}-{name}"] = folder / f"{codec}-{name}"
            compiled(root, out, source=source, rule=RULE, encoding=encoding, shard_size=80_000)
    return found


@pytest.fixture(scope="session")
def filmed(once: Once) -> Mapping[str, Path]:
    """Codec and `raw` or `video` -> a dataset of seven episodes."""
    if any(encoder not in av.codecs_available for encoder, _ in ENCODERS.values()):
        pytest.skip("this PyAV lacks encoders")
    found: Mapping[str, Path] = once("filmed", make)
    return found


def content(batch: Batch) -> tuple[Any, ...]:
    frames = batch.frames if isinstance(batch.frames, dict) else {"": batch.frames}
    pixels = [(name, one.numpy().tobytes()) for name, one in frames.items()]
    return batch.key, batch.t.tolist(), pixels


def loader_of(url: object, sample: str, **options: Any) -> Loader:
    return Loader(str(url), sample=SAMPLES[sample], batch_size=4, lanes=2, block=6, threads=2, **options)


def batches(url: object, sample: str, count: int = 20, **options: Any) -> list[tuple[Any, ...]]:
    return [content(batch) for batch in itertools.islice(loader_of(url, sample, **options), count)]


@pytest.mark.parametrize("sample", list(SAMPLES))
@pytest.mark.parametrize("codec", list(ENCODERS))
def test_batches_are_those_of_decoded_frames(filmed: Mapping[str, Path], codec: str, sample: str) -> None:
    assert batches(filmed[f"{codec}-video"], sample) == batches(filmed[f"{codec}-raw"], sample)


@pytest.mark.parametrize("sample", ["all pairs", "one pair"])  # kept for other samples, and not
def test_a_video_that_holds_bgr_is_read_as_rgb(
    filmed: Mapping[str, Path], sample: str, tmp_path: Path
) -> None:
    root = filmed["h264-raw"].parent / "h264-source"
    source = SourceConfig(url=str(root), kind="lerobot", cameras=("top", "wrist"), bgr=("top",))
    for name, encoding in (("raw", Encoding()), ("video", Encoding(codec="video"))):
        out = tmp_path / name
        compiled(root, out, source=source, rule=RULE, encoding=encoding, shard_size=80_000)
    expected = batches(tmp_path / "raw", sample, 8)
    assert batches(tmp_path / "video", sample, 8) == expected
    assert batches(filmed["h264-video"], sample, 8) != expected


@pytest.mark.parametrize("options", [{"size": (16, 24)}, {"memory": 100_000}, {"threads": 1}])
def test_neither_size_nor_memory_nor_threads_change_them(
    filmed: Mapping[str, Path], options: dict[str, Any]
) -> None:
    given = {"threads": 2, **options}
    found = [
        [
            content(b)
            for b in itertools.islice(
                Loader(
                    str(filmed[f"h264-{what}"]),
                    sample=SAMPLES["all pairs"],
                    batch_size=4,
                    lanes=2,
                    block=6,
                    **given,
                ),
                12,
            )
        ]
        for what in ("raw", "video")
    ]
    assert found[0] == found[1]


def test_a_restored_loader_goes_on(filmed: Mapping[str, Path]) -> None:
    expected = batches(filmed["av1-video"], "windows", 9)
    loader = loader_of(filmed["av1-video"], "windows")
    first = [content(batch) for batch in itertools.islice(loader, 4)]
    other = loader_of(filmed["av1-video"], "windows")
    other.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert first + [content(batch) for batch in itertools.islice(other, 5)] == expected


@pytest.fixture
def web(filmed: Mapping[str, Path]) -> Iterator[Server]:
    with servers.web(filmed["av1-video"].parent) as server:
        yield server


@pytest.mark.parametrize("sample", ["all pairs", "one pair"])
def test_a_web_server_gives_the_same(web: Server, filmed: Mapping[str, Path], sample: str) -> None:
    assert batches(f"{web.url}/av1-video", sample) == batches(filmed["av1-video"], sample)


def test_ranks_share_the_samples(filmed: Mapping[str, Path]) -> None:
    whole = loader_of(filmed["av1-video"], "all pairs")
    ranks = [loader_of(filmed["av1-video"], "all pairs", rank=rank, world_size=2) for rank in range(2)]
    for batch, parts in zip(itertools.islice(whole, 6), zip(*ranks, strict=False), strict=False):
        merged = torch.stack([part.frames for part in parts], 1).flatten(0, 1)  # type: ignore[arg-type]
        assert torch.equal(merged, batch.frames)  # type: ignore[arg-type]
