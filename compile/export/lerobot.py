"""A compiled dataset as LeRobot datasets of version 3.0, one per split.

    OUT/.oxcart/export                             while it is written
    OUT/train/data/chunk-000/file-000.parquet      steps, episode after episode
        train/videos/CAMERA/chunk-000/file-000.mp4
        train/meta/episodes/chunk-000/file-000.parquet, tasks.parquet, stats.json
        train/meta/info.json                       last of a split: without it LeRobot opens nothing
    OUT/val/...
    OUT/README.md                                  the dataset card
    OUT/oxcart-export.json                         last of all

    prepared = prepare(ExportConfig(dataset="bridge", out="bridge-lerobot"))
    export(prepared)

Threads encode episodes, and one writes them in plan order. Memory depends on the longest episode and not on
their number. The same dataset and options give the same bytes with any number of threads.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from oxcart.compile.engines.processes import Progress, default_workers
from oxcart.compile.export import features as lerobot
from oxcart.compile.export.episodes import own, place, take
from oxcart.compile.export.features import Features
from oxcart.compile.export.files import FileSeries, Kind, RowFile, VideoFile, temporary_folder
from oxcart.compile.export.statistics import Statistics, merged
from oxcart.compile.pipeline import check_apart, ignore
from oxcart.manifests import card
from oxcart.manifests.canonical import pretty_json
from oxcart.manifests.dataset import Dataset, Episode
from oxcart.manifests.ownership import EXPORT, EXPORT_FORMAT, EXPORTING, SOURCE, check_directory
from oxcart.manifests.split import SPLITS
from oxcart.manifests.tables import rows_of
from oxcart.shards.errors import ConfigError
from oxcart.shards.prefetch import in_threads
from oxcart.shards.store import WORK, Store

ROWS = 100
"""Rows of the table of episodes that are written at once."""
_FILES = re.compile(rf"({'|'.join(SPLITS)})/(data|videos|meta)/.*|{re.escape(card.NAME)}")
"""Names of files of an export."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Configuration of an export."""

    dataset: str
    """Directory or URL of the compiled dataset."""
    out: str
    """Directory or URL of the export."""
    images: bool = False
    """Whether frames are stored as PNGs, exactly, not as videos."""
    fps: int | None = None
    """Frames per second that the export says, whatever the control rate is; None takes the control rate."""
    audit: Mapping[str, Any] | None = None
    """JSON of the dataset's audit, for the card."""
    overwrite: bool = False
    """Whether to delete the export that is in `out`."""
    workers: int = field(default_factory=default_workers)
    """Threads that read and encode."""

    def __post_init__(self) -> None:
        if self.fps is not None and self.fps < 1:
            raise ConfigError(f"fps: expected 1 or more frames per second, got {self.fps}")
        if self.workers < 1:
            raise ConfigError(f"workers: expected at least 1, got {self.workers}")


@dataclass(frozen=True, kw_only=True)
class PreparedExport:
    """An export of which nothing has been written yet."""

    config: ExportConfig
    dataset: Dataset
    store: Store
    fps: int
    features: Features
    card: str
    """The dataset card."""
    warnings: tuple[str, ...]
    """What the export cannot say truly."""

    @property
    def frames(self) -> int:
        """Number of frames, summed over cameras."""
        return sum(counts["frames"] for counts in self.dataset.manifest.splits.values())


def prepare(config: ExportConfig) -> PreparedExport:
    """Check that the dataset can be exported, and to there.

    Raises:
        ConfigError: LeRobot has no way to say what the dataset holds, or `out` holds something else.
        CorruptError: the manifest or the table of episodes is damaged.
    """
    if not config.images:
        importlib.import_module("oxcart.shards.video")  # PyAV is an extra, and must not be missed later
    check_apart("dataset", config.dataset, config.out)
    dataset = Dataset.open(config.dataset)
    store = Store(config.out)
    _check_out(store, config.overwrite)
    episodes, manifest = dataset.episodes, dataset.manifest
    rates = pc.unique(episodes["control_rate"]).to_pylist()
    fps = lerobot.frame_rate(rates, config.fps)
    warnings = [
        f"control rate: {rate:g} Hz, and the export says {fps}: times are wrong by {abs(fps / rate - 1):.0%}"
        for rate in rates
        if rate is not None and rate != fps
    ]
    if None in rates:
        warnings.append(f"control rate: unknown, and the export says {fps} Hz, from which times follow")
    known = manifest.control_rate
    if config.fps is None and known is not None and not known["verified"]:
        warnings.append(
            f"control rate: {fps} Hz, which times follow from, is not verified: {known['source']}"
        )
    return PreparedExport(
        config=config,
        dataset=dataset,
        store=store,
        fps=fps,
        features=lerobot.make_features(
            manifest, fps=fps, images=config.images, done=episodes["terminal"].null_count == 0
        ),
        card=card.card(dataset, audit=config.audit, form="lerobot", notes=warnings),
        warnings=tuple(warnings),
    )


def _check_out(store: Store, overwrite: bool) -> None:
    """Refuse an output that holds anything but an unfinished export, or with `overwrite` an export."""
    store.check_writable()
    check_directory("OUT", store.url, SOURCE)
    if store.exists(EXPORTING):
        return
    if store.exists(EXPORT) and not overwrite:
        raise ConfigError(f"{store.url}: holds an export; choose another directory or pass --overwrite")
    if not store.exists(EXPORT) and (others := store.list(limit=1)):
        raise ConfigError(f"{store.url}: holds {others[0]}, which no export wrote; choose an empty directory")


def export(prepared: PreparedExport, report: Progress = ignore) -> dict[str, Any]:
    """Write the export, and return what `oxcart-export.json` says of it.

    Args:
        prepared: what to write.
        report: called with the frames done, and the bytes written for them.

    Raises:
        ConfigError: an encoder is missing, or cannot hold frames of this size.
        CorruptError: a piece of the dataset does not match its digest.
        StoreError: a file cannot be read or written.
    """
    store, manifest = prepared.store, prepared.dataset.manifest
    store.put(EXPORTING, b"")
    store.delete(EXPORT)
    old = [name for name in store.list() if _FILES.fullmatch(name)]
    opening = [name for name in old if name.endswith(lerobot.INFO)]
    store.delete(*opening)  # before what they describe
    store.delete(*old)
    done, infos = [0, 0], {}
    for split in manifest.splits:
        infos[split] = _write_split(prepared, split, report, done)
    for split, info in infos.items():
        store.put(f"{split}/{lerobot.INFO}", lerobot.as_json(info))
    store.put(card.NAME, prepared.card.encode())
    about = {
        "format": EXPORT_FORMAT,
        "dataset": manifest.dataset,
        "fingerprint": manifest.fingerprint,
        "control_rate": manifest.control_rate,
        "cameras": [{name: camera[name] for name in ("name", "role")} for camera in manifest.cameras],
        "columns": {
            name: {"columns": array["columns"]}
            for name, array in manifest.arrays.items()
            if array is not None and name != "reward"
        },
        "no_action": manifest.no_action,
        "splits": {
            split: {name.removeprefix("total_"): info[name] for name in info if name.startswith("total_")}
            for split, info in infos.items()
        },
        "frames": "image" if prepared.config.images else "video",
        "fps": prepared.fps,
    }
    store.put(EXPORT, pretty_json(about))
    store.delete_folder(WORK)
    return about


def _write_split(prepared: PreparedExport, split: str, report: Progress, done: list[int]) -> dict[str, Any]:
    """Write all of a split but its `info.json`, and return that."""
    dataset, store = prepared.dataset, prepared.store
    features, fps = prepared.features, prepared.fps
    rows = dataset.episodes.filter(pc.equal(dataset.episodes["split"], split))
    calls = (partial(take, Episode(dataset=dataset, row=row), features) for row in rows_of(rows))
    workers = prepared.config.workers
    tasks: dict[str, int] = {}
    totals: dict[str, Statistics] = {}
    listed: list[dict[str, Any]] = []
    number = index = 0
    with contextlib.ExitStack() as opened:

        def series(name: str, megabytes: int, begin: Callable[[BinaryIO], Kind]) -> FileSeries[Kind]:
            return opened.enter_context(FileSeries(store, f"{split}/{name}", megabytes << 20, begin))

        schema = lerobot.steps_schema(features)
        steps = series(lerobot.DATA, lerobot.DATA_MB, partial(RowFile, schema=schema))
        columns = lerobot.episodes_schema(features)
        episodes = series(lerobot.EPISODES, lerobot.DATA_MB, partial(RowFile, schema=columns))
        films = {}
        for name, one in features.items():
            if one["dtype"] == "video":
                begin = partial(
                    VideoFile,
                    codec=one["info"]["video.codec"],
                    size=tuple(one["shape"][:2]),
                    fps=fps,
                    folder=temporary_folder(store),
                )
                films[name] = series(lerobot.VIDEO.replace("{video_key}", name), lerobot.VIDEO_MB, begin)
        for taken in in_threads(workers, calls, depth=workers):
            count = taken.episode.steps
            for text in taken.texts:
                tasks.setdefault(text, len(tasks))
            table, statistics = place(taken, features, fps=fps, tasks=tasks, number=number, index=index)
            steps.room(table.nbytes).add(table)
            row: dict[str, Any] = {"episode_index": number, "tasks": taken.texts, "length": count}
            row |= {**_place("data/", steps), "dataset_from_index": index, "dataset_to_index": index + count}
            size = table.nbytes
            for name, chunks in taken.videos.items():
                weight = sum(map(len, chunks))
                film = films[name].room(weight)
                row |= _place(f"videos/{name}/", films[name])
                row[f"videos/{name}/from_timestamp"] = film.frames / fps
                row[f"videos/{name}/to_timestamp"] = (film.frames + count) / fps
                film.add(chunks, count)
                size += weight
            for name, found in statistics.items():
                totals[name] = merged(totals.get(name), found)
                row |= {f"stats/{name}/{what}": values.tolist() for what, values in found.items()}
            listed.append(row | own(taken.episode))
            if len(listed) == ROWS:
                _list(episodes, columns, listed)
            number, index = number + 1, index + count
            done[0] += count * len(taken.episode.cameras)
            done[1] += size
            report(done[0], done[1])
        _list(episodes, columns, listed)
    plain = {name: {what: values.tolist() for what, values in totals[name].items()} for name in features}
    store.put(f"{split}/{lerobot.STATS}", lerobot.as_json(plain))
    store.put(f"{split}/{lerobot.TASKS}", lerobot.tasks_bytes(list(tasks)))
    return lerobot.make_info(split, features, fps=fps, episodes=number, frames=index, tasks=len(tasks))


def _list(episodes: FileSeries[RowFile], columns: pa.Schema, rows: list[dict[str, Any]]) -> None:
    """Write rows into the table of episodes, and forget them."""
    if rows:
        writer = episodes.room(pa.Table.from_pylist(rows, columns).nbytes)
        where = _place("meta/episodes/", episodes)
        writer.add(pa.Table.from_pylist([row | where for row in rows], columns))
        rows.clear()


def _place(prefix: str, files: FileSeries[Any]) -> dict[str, int]:
    folder, file = files.place
    return {f"{prefix}chunk_index": folder, f"{prefix}file_index": file}
