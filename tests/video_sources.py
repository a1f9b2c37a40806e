"""Folders of drawn videos, and what a census says of them.

write_video(folder / "a [id].mp4", scenes("a", 24, 36))
rows = census_rows(folder)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from oxcart.compile import census
from oxcart.compile.census import Census
from oxcart.compile.images import Frame
from oxcart.compile.pipeline import CompileConfig, execute, prepare
from oxcart.compile.plan import Settings
from oxcart.compile.sample.videos import draw_scene
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.sources.videos.config import VideoConfig
from oxcart.manifests.manifest import Manifest
from oxcart.manifests.split import SplitRule

SIZE = 48, 64


def scenes(name: str, *frames: int, size: tuple[int, int] = SIZE) -> Iterator[Frame]:
    """Scenes of so many frames, one after another."""
    return chain.from_iterable(draw_scene(f"{name} {i}", count, size) for i, count in enumerate(frames))


def video_census(folder: Path, *, instruction: tuple[str, ...] | None = None, **options: Any) -> Census:
    config = SourceConfig(
        url=str(folder), kind="videos", instruction=instruction, video=VideoConfig(**options)
    )
    return census.take(config, workers=1, report=lambda done, size: None)


def census_rows(folder: Path, **options: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = video_census(folder, **options).table.to_pylist()
    return rows


def video_compile(
    folder: Path, out: Path, *, workers: int = 1, rule: SplitRule | None = None, **changes: Any
) -> CompileConfig:
    """How a folder of videos is compiled, with shards of a few clips."""
    settings = {"shard_size": 1_000_000, "rule": rule or SplitRule(val=0.2)}
    settings |= {name: changes.pop(name) for name in list(changes) if name in Settings.__dataclass_fields__}
    source = SourceConfig(url=str(folder), kind="videos", video=VideoConfig(**changes.pop("video", {})))
    return CompileConfig(
        source=source,
        out=str(out),
        settings=Settings(**settings),
        on_error=changes.pop("on_error", "reject"),
        workers=workers,
        **changes,
    )


def compile_videos(folder: Path, out: Path, **changes: Any) -> Manifest:
    return execute(prepare(video_compile(folder, out, **changes)))
