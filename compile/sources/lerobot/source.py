"""A LeRobot dataset as a source: its metadata is checked against its steps and its videos (see `metadata`).

The census decodes nothing: it reads the columns of the steps, many episodes at once, and the tables of
packets of the videos. What is wrong with the whole dataset is an error when it is opened; what is wrong with
an episode rejects that episode.
"""

from __future__ import annotations

import json
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64_intdigest

from oxcart.compile.catalog import Entry
from oxcart.compile.images import Frame, ImageError, Resize, image_size
from oxcart.compile.sources.base import (
    CensusRow,
    CodedVideo,
    Film,
    Images,
    Source,
    SourceConfig,
    SourceEpisode,
    SuccessRule,
    clean,
    episode_error,
    refuse_options,
)
from oxcart.compile.sources.lerobot import choices
from oxcart.compile.sources.lerobot.alike import of_one_codec, of_one_size
from oxcart.compile.sources.lerobot.copies import copy_span
from oxcart.compile.sources.lerobot.episodes import RobotColumns, RobotSteps, read_steps
from oxcart.compile.sources.lerobot.exported import own_rule, restored, says_splits
from oxcart.compile.sources.lerobot.films import (
    Footage,
    Reels,
    VideoIndex,
    effort,
    find_span,
    list_samples,
    pick_frames,
    play_span,
    read_index,
)
from oxcart.compile.sources.lerobot.metadata import INFO, TASK, EpisodeEntry, read_dataset
from oxcart.compile.sources.lerobot.ports import Port, find_port
from oxcart.compile.sources.lerobot.steps import StepFiles
from oxcart.compile.sources.sketch import sketch
from oxcart.compile.sources.videos.decode import VideoError
from oxcart.manifests.canonical import canonical_json
from oxcart.manifests.columns import ARRAYS, Column, described, given
from oxcart.manifests.licence import check_licence
from oxcart.manifests.schema import ENDS
from oxcart.shards.choices import one_of
from oxcart.shards.codec import Encoded
from oxcart.shards.errors import ConfigError, SourceError
from oxcart.shards.store import Store

VIDEOS, COPIED_VIDEOS = 8, 32
"""Videos whose frames stay in memory during a census, which is in the order of the files, and videos whose
tables of packets do while they are copied, an episode of this one, then one of that."""
BATCH_STEPS = 1 << 14
"""Limit of the steps that are read at once for a compile: a few MB. A longer episode is read by itself."""


class LerobotSource(Source):
    """The episodes of a LeRobot dataset.

    Raises:
        ConfigError: the dataset is of a version that is not read, or an option names something that it does
            not have.
        SourceError: its metadata is damaged or incomplete, or contradicts itself.
    """

    origin = "lerobot"

    def __init__(self, config: SourceConfig) -> None:
        refuse_options(config, ("--source-split",), "a LeRobot dataset has one split only; leave it out")
        self._store = Store(config.url)
        self.remote = self._store.remote
        self._dataset = dataset = read_dataset(self._store)
        self.name = clean(self._store.folder) or "lerobot"
        self.version = dataset.version
        self._port = port = find_port(self._store.url, config.catalog)
        known = port.known if port else Entry()
        if port:
            self.control_rate = port.control_rate(dataset.fps, f"{INFO}: fps")
        else:
            self.control_rate = {"hz": float(dataset.fps), "verified": True, "source": f"{INFO}: fps"}
        self.licence = check_licence(config.licence) if config.licence is not None else known.licence
        self.citation, self.aliases = known.citation, known.aliases
        self.cameras = choices.choose_cameras(dataset, config, known)
        self._bgr = frozenset(camera.name for camera in self.cameras if camera.channels == "bgr")
        self._numbers = {
            name: choices.choose_numbers(dataset, name, getattr(config, name)) for name in ARRAYS
        }
        if config.state is None and known.state == ():  # a port fills it with zeros
            self._numbers["state"] = ()
        self.array_sizes = {name: tuple(one.width for one in some) for name, some in self._numbers.items()}
        action, state = (
            choices.columns_of(dataset, self._numbers[name], port, config.known_columns.get(name, ()))
            for name in ("action", "state")
        )
        self.array_columns = {
            "action": given(action, "action", config.action_names, config.action_kinds),
            "state": given(state, "state", config.state_names, config.state_kinds),
            "reward": tuple(Column(name="reward", kind="other") for _ in self._numbers["reward"]),
        }
        self._unlike_catalog = self._compared(config, port) if port else []
        for end in config.no_action or ():
            one_of("--no-action", end, ENDS)
        self.no_action = tuple(end for end in ENDS if end in (config.no_action or ()))
        self._texts = self._choose_texts(config.instruction)
        self._sketched = config.environments is not None and config.environments.sketched
        whole = known.environment if known.environment and known.environment.whole else None
        self._rule = config.environment or own_rule(dataset) or whole
        self.keeps_splits = says_splits(dataset)
        self._environment = (
            choices.choose_value(dataset, "environment", self._rule.field)
            if self._rule and self._rule.field
            else None
        )
        self._success_rule = config.success or self._usual_success()
        self._success = (
            choices.choose_value(dataset, "success", self._success_rule.field) if self._success_rule else None
        )
        of_steps = choices.single_values(dataset).get(choices.TERMINAL) is False
        self._terminal = (choices.TERMINAL, False) if of_steps else None
        self._films = {
            camera.name: camera.field
            for camera in self.cameras
            if dataset.features[camera.field].dtype == "video"
        }
        self._columns = RobotColumns(
            numbers=self._numbers,
            images={one.name: one.field for one in self.cameras if one.name not in self._films},
            texts=self._texts,
            environment=self._environment,
            success=self._success,
            success_pattern=self._success_rule.pattern if self._success_rule else None,
            terminal=self._terminal,
        )
        self._steps = StepFiles(self._store, self._columns.names(dataset))
        self._indices = lru_cache(VIDEOS)(partial(_read_index, self._store, dataset.fps))
        self._samples = lru_cache(COPIED_VIDEOS)(partial(list_samples, self._store))
        self._reels = Reels(self._store)
        self._reading: dict[str, threading.Lock] = {}
        self._files: dict[str, list[EpisodeEntry]] = {}
        for entry in dataset.episodes:
            self._files.setdefault(entry.file, []).append(entry)
        self.catalogued = self._taken(config, port) if port else {}

    def _taken(self, config: SourceConfig, port: Port) -> dict[str, str]:
        """What was taken from the catalog, in words."""
        known, rate, rule = port.known, self.control_rate, self._rule
        roles = [f"{one.name} ({one.role})" for one in self.cameras if known.roles.get(one.name) == one.role]
        swapped = [one.name for one in self.cameras if one.channels == "bgr" and config.bgr is None]
        found = {"port of": port.dataset, "cameras": ", ".join(roles), "blue for red": ", ".join(swapped)}
        for what in ("action", "state"):
            numbers = self._numbers[what]
            if numbers and all(port.columns(one.field, one.size) for one in numbers):
                kinds = Counter(one.kind for one in self.array_columns[what])
                found[what] = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        if rate == known.control_rate:
            found["control rate"] = f"{rate['hz']:g} Hz, {rate['source']}"
        if rule and rule == known.environment:
            found["environment"] = f"all of it is {rule.whole} ({rule.known})"
        if config.licence is None:
            found["licence"] = f"{known.licence or 'unknown'} (that of the port's card is not read)"
        found["citation"] = known.citation or ""
        return {what: told for what, told in found.items() if told}

    def _compared(self, config: SourceConfig, port: Port) -> list[str]:
        """Lines on what is unlike the catalog, without columns that the options describe."""
        stated = {
            "action": config.action_names or config.action_kinds or config.known_columns.get("action"),
            "state": config.state_names or config.state_kinds or config.known_columns.get("state"),
        }
        numbers = (one for name, told in stated.items() if not told for one in self._numbers[name])
        lines = [port.other_rate(self._dataset.fps), *(port.unlike(one.field, one.size) for one in numbers)]
        return [line for line in lines if line]

    def describe(self) -> dict[str, Any]:
        """Everything that determines the census rows and episodes, as plain JSON."""
        environment = self._rule.describe() if self._rule else None
        if environment and self._environment:
            environment["field"] = self._environment[0]
        success = None
        if self._success_rule and self._success:
            success = asdict(replace(self._success_rule, field=self._success[0]))
        return {
            "kind": self.origin,
            "name": self.name,
            "version": self.version,
            "source_splits": [],
            "cameras": {camera.name: camera.field for camera in self.cameras},
            "roles": {camera.name: camera.role for camera in self.cameras},
            "channels": {camera.name: camera.channels for camera in self.cameras},
            "instruction": list(self._texts),
            **{name: [one.name for one in some] for name, some in self._numbers.items()},
            "columns": {name: described(columns) for name, columns in self.array_columns.items()},
            "no_action": list(self.no_action),
            "environment": environment,
            "success": success,
            "control_rate": self.control_rate,
            "licence": self.licence,
            **({"citation": self.citation, "port": self._port.describe()} if self._port else {}),
        }

    @property
    def at_once(self) -> int:
        """Number of small files of which a process takes the census at once, each in a thread."""
        return super().at_once if self.remote else 2  # while one is decoded, another is checked

    @property
    def expected(self) -> int:
        """Number of episodes that the metadata lists."""
        return len(self._dataset.episodes)

    def files(self) -> list[str]:
        """The Parquet files of steps, in the order of the episodes."""
        return list(self._files)

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of the metadata, the files of steps and the videos; 0 if one is missing."""
        fields = set(self._films.values())
        videos = (
            span.file
            for entry in self._dataset.episodes
            for field, span in entry.videos.items()
            if field in fields
        )
        names = list(dict.fromkeys((*self._dataset.files, *self._files, *videos)))
        there = self._store.found(names)
        return {name: there.get(name, 0) for name in names}

    def census(self, file: str) -> Iterator[CensusRow]:
        """One row per episode of a file of steps."""
        for entries in self._steps.runs(file, self._files[file]):
            for entry, steps in zip(entries, self._sound(file, entries), strict=True):
                yield restored(self._row(entry, steps), entry.columns)

    def key_of(self, number: int) -> str:
        """The key of an episode that has none of its own."""
        return f"{self.name}-{number:06d}"

    def join(self, table: pa.Table) -> pa.Table:
        """Compare the cameras of all episodes: see `alike`."""
        return of_one_codec(of_one_size(table, self.cameras), self._films)

    def warnings(self, table: pa.Table) -> list[str]:
        """Lines on cameras of depth, which are not read, and on what is unlike the catalog."""
        depth = [f"{field}: holds depth, which is left out" for field in choices.depth_maps(self._dataset)]
        return [*depth, *self._unlike_catalog]

    def read(self, row: Mapping[str, Any]) -> SourceEpisode:
        """Read the episode of a census row; frames in videos are decoded when they are played."""
        entry = self._entry(row)
        try:
            (steps,) = self._read_steps(entry.file, [entry])
        except ValueError as error:
            raise episode_error(str(error), row) from error
        return self._episode(row, steps)

    def read_many(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[SourceEpisode]:
        """Read the episodes of census rows; the steps of those whose images are in videos many at a time."""
        if self._columns.images:
            yield from super().read_many(rows)
            return
        for batch in _batches(rows):
            try:
                steps = self._gather([self._entry(row) for row in batch])
            except (SourceError, ValueError):  # whoever is at fault says so in its turn
                yield from super().read_many(batch)
            else:
                yield from map(self._episode, batch, steps)

    def _episode(self, row: Mapping[str, Any], steps: RobotSteps) -> SourceEpisode:
        """The episode of a census row, from its steps."""
        detail = json.loads(row["detail"])
        if steps.digest() != detail["steps"]:
            raise episode_error("has changed since the census", row)
        found: dict[str, Images] = {camera: some.views() for camera, some in steps.images.items()}
        for camera in self._films:
            video = detail["videos"][camera]
            found[camera] = Film(
                steps=row["steps"],
                play=partial(self._play, row, video),
                copy=partial(self._copy, row, video),
                pick=partial(self._pick, row, camera, video),
            )
        return SourceEpisode(
            images=found,
            action=steps.arrays.get("action"),
            state=steps.arrays.get("state"),
            reward=steps.arrays.get("reward"),
            instructions={name: [*runs] for name, runs in steps.instructions.items()},
            bgr=self._bgr,
        )

    def videos(self, row: Mapping[str, Any]) -> dict[str, CodedVideo]:
        """Camera -> the video that holds the episode of a census row."""
        videos = json.loads(row["detail"])["videos"]
        return {
            camera: CodedVideo(codec=one["codec"], group=one["group"], why=one["why"])
            for camera, one in videos.items()
        }

    def _entry(self, row: Mapping[str, Any]) -> EpisodeEntry:
        number: int = row["source_record"]
        if not 0 <= number < len(self._dataset.episodes):
            raise episode_error("has changed since the census", row)
        entry = self._dataset.episodes[number]
        if (entry.file, entry.row, entry.steps) != (row["source_file"], row["source_offset"], row["steps"]):
            raise episode_error("has changed since the census", row)
        return entry

    def _play(self, row: Mapping[str, Any], video: Footage, frames: Frame, resize: Resize) -> None:
        file, span = video["file"], (video["start"], video["stop"])
        try:
            same = play_span(self._reels, file, span, video["digest"], frames, resize)
        except VideoError as error:
            raise ImageError(str(error)) from error
        if not same:
            raise episode_error(f"{file} has changed since the census", row)

    def _pick(
        self,
        row: Mapping[str, Any],
        camera: str,
        video: Footage,
        steps: Sequence[int],
        frames: Frame,
        resize: Resize,
    ) -> None:
        entry, file = self._entry(row), video["file"]
        span = entry.videos[self._films[camera]]
        try:
            index = self._index(file)
            found, _ = find_span(index, span, entry.steps, self._dataset.fps)
            if found["digest"] != video["digest"]:
                raise episode_error(f"{file} has changed since the census", row)
            numbers = [span.first + step for step in steps]
            if effort(index, numbers) < entry.steps:
                pick_frames(self._reels, file, index, numbers, frames, resize)
                return
        except (ValueError, VideoError) as error:
            raise ImageError(str(error)) from error
        whole = np.empty((entry.steps, *frames.shape[1:]), np.uint8)
        self._play(row, video, whole, resize)
        frames[:] = whole[list(steps)]

    def _copy(self, row: Mapping[str, Any], video: Mapping[str, Any], most: int) -> Encoded:
        file, span, fps = video["file"], (video["start"], video["stop"]), self._dataset.fps
        try:
            found = copy_span(self._store, file, self._samples(file), span, video["digest"], fps, most)
        except ValueError as error:
            raise ImageError(f"{file} {error}") from error
        if found is None:
            raise episode_error(f"{file} has changed since the census", row)
        return found

    def _sound(self, file: str, entries: Sequence[EpisodeEntry]) -> list[RobotSteps | str]:
        """The steps of each episode, or what is wrong with it: it is found by halving."""
        try:
            for entry in entries:
                _check(entry)
            return [*self._read_steps(file, entries)]
        except ValueError as error:
            if len(entries) == 1:
                return [str(error)]
        half = len(entries) // 2
        return self._sound(file, entries[:half]) + self._sound(file, entries[half:])

    def _read_steps(self, file: str, entries: Sequence[EpisodeEntry]) -> list[RobotSteps]:
        """The steps of episodes that follow each other in a file; anything wrong raises a ValueError."""
        return read_steps(self._dataset, entries, self._steps.rows(file, entries), self._columns)

    def _gather(self, entries: Sequence[EpisodeEntry]) -> list[RobotSteps]:
        """The steps of episodes of any files; anything wrong raises a ValueError."""
        order = sorted(range(len(entries)), key=lambda i: (entries[i].file, entries[i].row))
        in_order = [entries[i] for i in order]
        steps = read_steps(self._dataset, in_order, self._steps.gather(in_order), self._columns)
        found = dict(zip(order, steps, strict=True))
        return [found[i] for i in range(len(entries))]

    def _row(self, entry: EpisodeEntry, steps: RobotSteps | str) -> CensusRow:
        try:
            if isinstance(steps, str):
                raise ValueError(steps)
            return self._usable(entry, steps)
        except ValueError as error:
            nowhere = (0,) * len(self.cameras)
            return CensusRow(
                **self._place(entry),
                source_length=0,
                source_digest=0,
                heights=nowhere,
                widths=nowhere,
                rejected=str(error),
            )

    def _place(self, entry: EpisodeEntry) -> dict[str, Any]:
        """Values of the census row of an episode that the metadata tell."""
        return {
            "key": f"{self.name}-{entry.number:06d}",
            "source_split": "",
            "source_file": entry.file,
            "source_record": entry.number,
            "source_offset": entry.row,
            "steps": entry.steps,
        }

    def _usable(self, entry: EpisodeEntry, steps: RobotSteps) -> CensusRow:
        """The census row of an episode; a video that does not fit raises a ValueError."""
        videos: dict[str, Footage] = {}
        heights, widths, length = [], [], 0
        for camera in self.cameras:
            if camera.name in self._films:
                span = entry.videos[camera.field]
                index = self._index(span.file)
                videos[camera.name], size = find_span(index, span, entry.steps, self._dataset.fps)
                height, width = index.height, index.width
            else:
                some = steps.images[camera.name]
                height, width = _image_size(camera.name, some.part(0, 1).views()[0])
                size = some.nbytes
            heights.append(height)
            widths.append(width)
            length += size
        digest, primary = steps.digest(), self.cameras[0].name
        shown = videos[primary]["digest"] if primary in videos else steps.images[primary].digest()
        environment = session = None
        if self._rule:
            environment, session = self._rule.find(steps.environment or "")
        texts = [text for runs in steps.instructions.values() for _, text in runs if text]
        digests = [digest, *[video["digest"] for video in videos.values()]]
        return CensusRow(
            **self._place(entry),
            source_length=length,
            source_digest=xxh3_64_intdigest(struct.pack(f"<{len(digests)}Q", *digests)),
            environment=environment,
            environment_known=self._rule.known if self._rule and environment else "unknown",
            session=session,
            success=steps.success,
            terminal=steps.terminal,
            instructions=tuple(dict.fromkeys(texts)),
            duplicate=xxh3_64_intdigest(
                steps.arrays["action"].data if "action" in steps.arrays else b"", shown
            ),
            sketch=sketch(steps.arrays.values()) if self._sketched else (),
            heights=tuple(heights),
            widths=tuple(widths),
            detail=canonical_json({"steps": digest, "videos": videos}).decode(),
        )

    def _index(self, file: str) -> VideoIndex:
        """The frames of a video, which is read once even if several threads ask for it.

        Raises:
            ValueError: the video is missing or damaged.
        """
        with self._reading.get(file) or self._reading.setdefault(file, threading.Lock()):
            index = self._indices(file)
        if isinstance(index, str):
            raise ValueError(index)
        return index

    def _usual_success(self) -> SuccessRule | None:
        there = choices.single_values(self._dataset)
        return next((SuccessRule(field=name) for name in choices.SUCCESS if name in there), None)

    def _choose_texts(self, fields: tuple[str, ...] | None) -> tuple[str, ...]:
        """Features that hold instructions: the task; or those that are named, subtasks or columns of text.

        Raises:
            ConfigError: there is no such column of text.
        """
        there = {name for name, one in self._dataset.features.items() if one.dtype == "string"}
        there |= self._dataset.texts.keys()
        for field in fields or ():
            if field not in there:
                raise ConfigError(
                    f"instruction {field!r}: expected one of {', '.join(sorted(there))}, or none"
                )
        return (TASK,) if fields is None else fields


def _batches(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """The census rows in order, as many at a time as have `BATCH_STEPS` steps."""
    batch: list[Mapping[str, Any]] = []
    steps = 0
    for row in rows:
        if batch and steps + row["steps"] > BATCH_STEPS:
            yield batch
            batch, steps = [], 0
        batch.append(row)
        steps += row["steps"]
    if batch:
        yield batch


def _check(entry: EpisodeEntry) -> None:
    """Refuse an episode of which the metadata alone say that it is wrong."""
    if entry.steps < 2:
        raise ValueError(f"has {entry.steps} steps; at least 2 are needed")
    if entry.said_index not in (None, entry.index):
        raise ValueError(f"dataset_from_index {entry.said_index}: {entry.index} steps are before it")


def _read_index(store: Store, fps: int, file: str) -> VideoIndex | str:
    """The frames of a video, or what is wrong with it."""
    try:
        return read_index(store, file, fps)
    except ValueError as error:
        return str(error)


def _image_size(camera: str, first: memoryview) -> tuple[int, int]:
    try:
        return image_size(first)
    except ImageError as error:
        raise ValueError(f"camera {camera}: the image of step 0 {error}") from error
