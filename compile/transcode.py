"""Store a compiled dataset with another codec, frame size or shard size, without its source.

    prepared = prepare(TranscodeConfig(dataset="bridge", out="bridge-zstd", codec="zstd"))
    manifest = execute(prepared)

The episodes, their splits and everything known about them stay; only frames and shards change. A transcode is
a compile whose source is a compiled dataset and whose split is given. It is therefore claimed, resumed and
committed like any other, and with the same settings the same bytes come out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from oxcart.compile.census import Census
from oxcart.compile.copying import INSTEAD
from oxcart.compile.engines.processes import default_workers
from oxcart.compile.images import Resize
from oxcart.compile.pipeline import CompileConfig, Prepared, check_apart, execute, planned
from oxcart.compile.plan import Settings, plan_transcode
from oxcart.compile.sources import pinned
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.sources.compiled import CompiledSource
from oxcart.compile.workspace import check_out
from oxcart.manifests.manifest import NAME
from oxcart.manifests.tables import REJECTED, REJECTED_SCHEMA
from oxcart.shards.codec import VIDEO, VIDEO_EXTENSIONS, Encoding
from oxcart.shards.errors import ConfigError
from oxcart.shards.store import Store

__all__ = ["TranscodeConfig", "execute", "prepare"]


@dataclass(frozen=True, kw_only=True)
class TranscodeConfig:
    """Configuration of a transcode."""

    dataset: str
    """Directory or URL of the compiled dataset."""
    out: str
    """Directory or URL of the new dataset."""
    codec: str | None = None
    """How frames are to be stored; None keeps the codec, and `video` the videos of a dataset."""
    quality: int | None = None
    """Quality of codec `jpeg` or `av1`, at which every frame is encoded. None passes the JPEGs and videos of
    a dataset through; what must be encoded gets the quality of the dataset, or the default if it has none."""
    group: int | None = None
    """Most frames from one key frame to the next in codec `av1`; None for the default."""
    resize: Resize = field(default_factory=Resize)
    """How frames get their size."""
    shard_size: int | None = None
    """Bytes of uncompressed frames per shard; None for the codec's default."""
    on_error: str = "fail"
    """`fail` ends at a frame that cannot be decoded, `reject` leaves its episode out and lists it. Bytes that
    do not match their digest always end the transcode."""
    overwrite: bool = False
    """Whether to delete the dataset or unfinished compile in `out`."""
    workers: int = field(default_factory=default_workers)
    """Upper limit of processes."""


def prepare(config: TranscodeConfig) -> Prepared:
    """Read the dataset's tables, and plan the new shards.

    Raises:
        ConfigError: there is no such dataset, or `out` is the dataset itself or holds something else.
        CorruptError: the manifest or a table is damaged.
    """
    check_apart("dataset", config.dataset, config.out)
    given = pinned(SourceConfig(url=config.dataset, kind="compiled"))
    source = CompiledSource(given)
    manifest = source.dataset.manifest
    encodings = {camera["name"]: _encoding(config, camera) for camera in manifest.cameras}
    settings = Settings(
        resize=config.resize,
        encoding=encodings[manifest.camera_names[0]],
        encodings=encodings,
        shard_size=config.shard_size,
    )
    compile_config = CompileConfig(
        source=given,
        out=config.out,
        settings=settings,
        on_error=config.on_error,
        overwrite=config.overwrite,
        workers=config.workers,
    )
    out = Store(config.out)
    check_out(out, config.overwrite)
    if config.overwrite and (out.remote or source.remote):
        _check_other(out, source.dataset.store)
    episodes = source.table()
    splits = np.array(episodes["split"].to_numpy(), np.str_)
    episodes = episodes.drop_columns("split")
    table = pa.concat_tables([episodes, _rejected(source, episodes.schema)]).combine_chunks()
    limited = manifest.counts["limited"]
    census = Census(source=source.describe(), sizes=source.sizes(), table=table, unlisted=limited)
    plan = plan_transcode(census, splits, manifest, settings)
    return planned(compile_config, source, census, plan)


def _encoding(config: TranscodeConfig, was: Mapping[str, Any]) -> Encoding:
    """How the frames of a camera are to be stored, given its entry of the manifest."""
    codec, quality, stored = config.codec or was["codec"], config.quality, was["codec"]
    size = was["height"], was["width"]
    kept = config.resize.size in (None, size)
    if codec == VIDEO:
        if stored not in VIDEO_EXTENSIONS:
            raise ConfigError(f"codec video: {config.dataset} holds {stored}, no videos to copy; use av1")
        if not kept:
            raise ConfigError(
                f"size: codec video copies the videos of camera {was['name']} in their size; {INSTEAD}"
            )
        codec = stored
    if codec in VIDEO_EXTENSIONS and codec == stored and quality is None and kept:
        if config.group is not None and config.group < was["chunk"]:
            raise ConfigError(f"max gop: expected at least {was['chunk']}, as many frames as the videos have")
        return Encoding(codec=codec, quality=was["quality"], group=was["chunk"])
    if codec == stored == "jpeg":
        return Encoding(
            codec=codec, quality=was["quality"] if quality is None else quality, anew=quality is not None
        )
    return Encoding(codec=codec, quality=quality, anew=codec in VIDEO_EXTENSIONS, group=config.group)


def _check_other(out: Store, dataset: Store) -> None:
    """Refuse to overwrite the dataset itself under another URL: a bucket has one per protocol."""
    if out.exists(NAME) and out.read(NAME) == dataset.read(NAME):
        raise ConfigError(
            f"{out.url}: holds the same dataset, by its manifest; choose another directory, "
            "or delete it first if it is a copy"
        )


def _rejected(source: CompiledSource, columns: pa.Schema) -> pa.Table:
    """The rows of `rejected.parquet` as census rows, in which all other columns are empty."""
    table = source.dataset.table(REJECTED)
    nothing: dict[pa.DataType, Any] = {pa.string(): None, pa.bool_(): None}
    arrays = []
    for column in columns:
        if column.name in REJECTED_SCHEMA.names:
            arrays.append(table[column.name])
        elif column.name == "rejected":
            arrays.append(table["reason"])
        else:
            none: Any = [] if pa.types.is_nested(column.type) else nothing.get(column.type, 0)
            arrays.append(pa.array([none] * table.num_rows, column.type))
    return pa.Table.from_arrays(arrays, schema=columns)
