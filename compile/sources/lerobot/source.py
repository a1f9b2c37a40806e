"""A LeRobot dataset as a source: its metadata is checked against its steps and its videos (see `metadata`).

The census decodes nothing: it reads the columns of each episode and the packets of its videos. What is wrong
with the whole dataset is an error when it is opened; what is wrong with an episode rejects that episode.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64, xxh3_64_hexdigest, xxh3_64_intdigest

from oxcart.compile.images import Frame, ImageError, Resize, image_size
from oxcart.compile.sources.base import (
    CensusRow,
    Film,
    Floats,
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
from oxcart.compile.sources.lerobot.films import find_span, play_span, read_index
from oxcart.compile.sources.lerobot.metadata import INFO, EpisodeEntry, read_dataset
from oxcart.compile.sources.lerobot.steps import StepFiles, images, integers, numbers
from oxcart.compile.sources.videos.decode import VideoError, clip_digest
from oxcart.manifests.canonical import canonical_json
from oxcart.manifests.columns import ARRAYS, Column, described, given
from oxcart.manifests.licence import check_licence
from oxcart.manifests.schema import ENDS
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError
from oxcart.shards.store import Store

TASK = "task"
"""The instruction: the text that `task_index` names, at each step."""
INDICES = ("index", "episode_index", "frame_index", "task_index")
TIME = "timestamp"
VIDEOS = 8
"""Videos whose packets stay in memory during a census."""
OFF = 0.5
"""Steps by which a timestamp may be wrong before it means another step."""


@dataclass(frozen=True, kw_only=True)
class RobotSteps:
    """The steps of an episode, without what is in videos."""

    arrays: Mapping[str, Floats]
    instructions: Mapping[str, list[tuple[int, str]]]
    images: Mapping[str, list[bytes]]
    """Camera -> its encoded images, for those that are not in videos."""
    environment: str | None
    """Value of the column that names the environment."""
    success: bool | None
    terminal: bool | None

    def digest(self) -> int:
        """xxh3-64 of all of it."""
        told = [self.instructions, self.environment, self.success, self.terminal]
        same = xxh3_64(canonical_json(told))
        for array in self.arrays.values():
            same.update(array.tobytes())
        for encoded in self.images.values():
            for image in encoded:
                same.update(len(image).to_bytes(8, "little"))
                same.update(image)
        return same.intdigest()


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
        self.name = clean(self._store.url.rstrip("/").rsplit("/", 1)[-1]) or "lerobot"
        self.version = dataset.version
        self.control_rate = {"hz": float(dataset.fps), "verified": True, "source": f"{INFO}: fps"}
        self.licence = check_licence(config.licence) if config.licence is not None else None
        self.cameras = choices.choose_cameras(dataset, config)
        self._bgr = frozenset(camera.name for camera in self.cameras if camera.channels == "bgr")
        self._numbers = {
            name: choices.choose_numbers(dataset, name, getattr(config, name)) for name in ARRAYS
        }
        self.array_sizes = {name: tuple(one.width for one in some) for name, some in self._numbers.items()}
        action, state = (
            choices.columns_of(dataset, self._numbers[name], config.known_columns.get(name, ()))
            for name in ("action", "state")
        )
        self.array_columns = {
            "action": given(action, "action", config.action_names, config.action_kinds),
            "state": given(state, "state", config.state_names, config.state_kinds),
            "reward": tuple(Column(name="reward", kind="other") for _ in self._numbers["reward"]),
        }
        for end in config.no_action or ():
            one_of("--no-action", end, ENDS)
        self.no_action = tuple(end for end in ENDS if end in (config.no_action or ()))
        self._texts = self._choose_texts(config.instruction)
        self._places = config.environments
        beyond = max(self._places or (), default=0)
        if beyond and beyond >= len(dataset.episodes):
            raise ConfigError(
                f"--environment-table: expected episodes up to {len(dataset.episodes) - 1}, got {beyond}"
            )
        self._rule = config.environment
        if self._rule and self._rule.field is None:
            raise ConfigError("environment: expected a column, got one name for all")
        self._environment = (
            choices.choose_value(dataset, "environment", self._rule.field)
            if self._rule and self._rule.field
            else None
        )
        self._success_rule = config.success or self._usual_success()
        self._success = (
            choices.choose_value(dataset, "success", self._success_rule.field) if self._success_rule else None
        )
        there = choices.single_values(dataset)
        self._terminal = (choices.TERMINAL, False) if there.get(choices.TERMINAL) is False else None
        self._films = {
            camera.name: camera.field
            for camera in self.cameras
            if dataset.features[camera.field].dtype == "video"
        }
        single = (self._environment, self._success, self._terminal)
        wanted = [
            *(*INDICES, TIME),
            *(one.field for some in self._numbers.values() for one in some),
            *(camera.field for camera in self.cameras if camera.name not in self._films),
            *(name for name in self._texts if name != TASK),
            *(one[0] for one in single if one and not one[1]),
        ]
        self._steps = StepFiles(self._store, list(dict.fromkeys(wanted)))
        self._index = lru_cache(VIDEOS)(partial(read_index, self._store))
        self._files: dict[str, list[EpisodeEntry]] = {}
        for entry in dataset.episodes:
            self._files.setdefault(entry.file, []).append(entry)

    def describe(self) -> dict[str, Any]:
        """Everything that determines the census rows and episodes, as plain JSON."""
        environment = None
        if self._rule and self._environment:
            environment = {
                "field": self._environment[0],
                "patterns": list(self._rule.patterns),
                "known": self._rule.known,
            }
        table = None
        if self._places is not None:
            table = xxh3_64_hexdigest(canonical_json(sorted(self._places.items())))
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
            "environment_table": table,
            "success": success,
            "control_rate": self.control_rate,
            "licence": self.licence,
        }

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
        for entry in self._files[file]:
            yield self._row(entry)

    def warnings(self, table: pa.Table) -> list[str]:
        """A line for each camera of depth, which is not read."""
        return [f"{field}: holds depth, which is left out" for field in choices.depth_maps(self._dataset)]

    def read(self, row: Mapping[str, Any]) -> SourceEpisode:
        """Read the episode of a census row; frames in videos are decoded when they are played."""
        entry, detail = self._entry(row), json.loads(row["detail"])
        try:
            steps = self._read_steps(entry)
        except ValueError as error:
            raise episode_error(str(error), row) from error
        if steps.digest() != detail["steps"]:
            raise episode_error("has changed since the census", row)
        found: dict[str, Images] = dict(steps.images)
        for camera in self._films:
            found[camera] = Film(steps=entry.steps, play=partial(self._play, row, detail["videos"][camera]))
        return SourceEpisode(
            images=found,
            action=steps.arrays.get("action"),
            state=steps.arrays.get("state"),
            reward=steps.arrays.get("reward"),
            instructions=steps.instructions,
            bgr=self._bgr,
        )

    def _entry(self, row: Mapping[str, Any]) -> EpisodeEntry:
        number: int = row["source_record"]
        if not 0 <= number < len(self._dataset.episodes):
            raise episode_error("has changed since the census", row)
        entry = self._dataset.episodes[number]
        if (entry.file, entry.row, entry.steps) != (row["source_file"], row["source_offset"], row["steps"]):
            raise episode_error("has changed since the census", row)
        return entry

    def _play(self, row: Mapping[str, Any], video: Sequence[Any], frames: Frame, resize: Resize) -> None:
        file, start, stop, digest = video
        try:
            same = play_span(self._store, file, (start, stop), digest, frames, resize)
        except VideoError as error:
            raise ImageError(str(error)) from error
        if not same:
            raise episode_error(f"{file} has changed since the census", row)

    def _row(self, entry: EpisodeEntry) -> CensusRow:
        nowhere = (0,) * len(self.cameras)
        row = CensusRow(
            key=f"{self.name}-{entry.number:06d}",
            source_split="",
            source_file=entry.file,
            source_record=entry.number,
            source_offset=entry.row,
            source_length=0,
            source_digest=0,
            steps=entry.steps,
            heights=nowhere,
            widths=nowhere,
        )
        try:
            return replace(row, **self._seen(entry))
        except ValueError as error:
            return replace(row, rejected=str(error))

    def _seen(self, entry: EpisodeEntry) -> dict[str, Any]:
        """Values of the census row of an episode; anything wrong with it raises a ValueError."""
        if entry.steps < 2:
            raise ValueError(f"has {entry.steps} steps; at least 2 are needed")
        if entry.said_index not in (None, entry.index):
            raise ValueError(f"dataset_from_index {entry.said_index}: {entry.index} steps are before it")
        steps = self._read_steps(entry)
        for what, values in steps.arrays.items():
            if not np.isfinite(values).all():
                step = int(np.argmin(np.isfinite(values).all(axis=1)))
                raise ValueError(f"{what} is NaN or infinite at step {step}")
        videos: dict[str, list[Any]] = {}
        sizes, length = [], 0
        for camera in self.cameras:
            if camera.name in self._films:
                span = entry.videos[camera.field]
                index = self._index(span.file)
                start, stop, packets = find_span(index, span, entry.steps, self._dataset.fps)
                videos[camera.name] = [span.file, start, stop, clip_digest(packets, start, stop)]
                sizes.append((index.height, index.width))
                length += sum(one.size for one in packets)
            else:
                sizes.append(self._image_size(camera.name, steps.images[camera.name][0]))
                length += sum(map(len, steps.images[camera.name]))
        digest, primary = steps.digest(), self.cameras[0].name
        clips = [video[3] for video in videos.values()]
        shown = [videos[primary][3]] if primary in videos else steps.images[primary]
        same = xxh3_64()
        for one in shown:
            data = one.to_bytes(8, "little") if isinstance(one, int) else one
            same.update(len(data).to_bytes(8, "little"))
            same.update(data)
        if "action" in steps.arrays:
            same.update(steps.arrays["action"].tobytes())
        known, environment, session = "declared", None, None
        if self._places is not None:
            environment, session = self._places.get(entry.number, (None, None))
        elif self._rule:
            environment, session = self._rule.find(steps.environment or "")
            known = self._rule.known
        return {
            "source_length": length,
            "source_digest": xxh3_64_intdigest(np.array([digest, *clips], "<u8").tobytes()),
            "environment": environment,
            "environment_known": known if environment else "unknown",
            "session": session,
            "success": steps.success,
            "terminal": steps.terminal,
            "instructions": tuple(
                dict.fromkeys(text for runs in steps.instructions.values() for _, text in runs if text)
            ),
            "duplicate": same.intdigest(),
            "heights": tuple(height for height, _ in sizes),
            "widths": tuple(width for _, width in sizes),
            "detail": canonical_json({"steps": digest, "videos": videos}).decode(),
        }

    def _image_size(self, camera: str, first: bytes) -> tuple[int, int]:
        try:
            return image_size(first)
        except ImageError as error:
            raise ValueError(f"camera {camera}: the image of step 0 {error}") from error

    def _read_steps(self, entry: EpisodeEntry) -> RobotSteps:
        """The steps of an episode, checked against the metadata; anything wrong raises a ValueError."""
        table = self._steps.rows(entry.file, entry.row, entry.steps)
        every = np.arange(entry.steps)
        self._expect(table, "episode_index", np.full(entry.steps, entry.number))
        self._expect(table, "frame_index", every)
        self._expect(table, "index", entry.index + every)
        late = np.abs(numbers(table, TIME, 1)[:, 0] * self._dataset.fps - every) > OFF
        if late.any():
            step = int(late.argmax())
            raise ValueError(
                f"{TIME} {table[TIME][step].as_py()} at step {step}: at {self._dataset.fps} fps it would be "
                f"{step / self._dataset.fps:.3f}"
            )
        arrays = {}
        for what, some in self._numbers.items():
            parts = [numbers(table, one.field, one.size)[:, one.part or slice(None)] for one in some]
            if parts:
                arrays[what] = np.ascontiguousarray(np.concatenate(parts, axis=1))
        return RobotSteps(
            arrays=arrays,
            instructions={
                name: self._tasks(entry, table) if name == TASK else _runs(table[name].to_pylist())
                for name in self._texts
            },
            images={
                camera.name: images(table, camera.field)
                for camera in self.cameras
                if camera.name not in self._films
            },
            environment=self._of_environment(entry, table),
            success=self._of_success(entry, table),
            terminal=_flag(self._values(entry, table, self._terminal)),
        )

    def _expect(self, table: pa.Table, name: str, expected: np.ndarray[Any, Any]) -> None:
        """Refuse a column of indices that does not count as it should."""
        found = integers(table, name)
        wrong = np.flatnonzero(found != expected)
        if wrong.size:
            step = int(wrong[0])
            raise ValueError(f"{name} is {found[step]} at step {step}, expected {expected[step]}")

    def _tasks(self, entry: EpisodeEntry, table: pa.Table) -> list[tuple[int, str]]:
        """(step at which it begins, text), one per change of the task."""
        indices, known = integers(table, "task_index"), self._dataset.tasks
        wrong = np.flatnonzero((indices < 0) | (indices >= len(known)))
        if wrong.size:
            step = int(wrong[0])
            raise ValueError(f"task_index is {indices[step]} at step {step}; there are {len(known)} tasks")
        runs = _runs([known[index] for index in indices])
        for step, text in runs:
            if entry.tasks and text not in entry.tasks:
                raise ValueError(f"its task at step {step}, {text!r}, is none of those of its metadata")
        return runs

    def _values(self, entry: EpisodeEntry, table: pa.Table, column: tuple[str, bool] | None) -> list[Any]:
        """The values of a column: one of an episode, or one per step."""
        if column is None:
            return []
        name, of_episode = column
        found = [entry.columns.get(name)] if of_episode else table[name].to_pylist()
        return [one[0] if isinstance(one, list) and len(one) == 1 else one for one in found]

    def _of_environment(self, entry: EpisodeEntry, table: pa.Table) -> str | None:
        """The value that names the environment, which is the same at every step."""
        texts = [_text(one) for one in self._values(entry, table, self._environment)]
        for step, text in enumerate(texts):
            if text != texts[0]:
                raise ValueError(f"environment changes from {texts[0]!r} to {text!r} at step {step}")
        return texts[0] if texts else None

    def _of_success(self, entry: EpisodeEntry, table: pa.Table) -> bool | None:
        """Whether the episode succeeded: the flag of its last step, or whether a text says so."""
        values = self._values(entry, table, self._success)
        if self._success_rule is None or self._success_rule.pattern is None:
            return _flag(values)
        text = _text(values[0])
        return re.search(self._success_rule.pattern, text) is not None if text else None

    def _usual_success(self) -> SuccessRule | None:
        there = choices.single_values(self._dataset)
        return next((SuccessRule(field=name) for name in choices.SUCCESS if name in there), None)

    def _choose_texts(self, fields: tuple[str, ...] | None) -> tuple[str, ...]:
        """Features that hold instructions: the task, else columns of text.

        Raises:
            ConfigError: there is no such column of text.
        """
        there = {name for name, one in self._dataset.features.items() if one.dtype == "string"} | {TASK}
        for field in fields or ():
            if field not in there:
                raise ConfigError(
                    f"instruction {field!r}: expected one of {', '.join(sorted(there))}, or none"
                )
        return (TASK,) if fields is None else fields


def _runs(texts: Sequence[Any]) -> list[tuple[int, str]]:
    """(step at which it begins, text), one per change of the text."""
    runs: list[tuple[int, str]] = []
    for step, one in enumerate(texts):
        text = _text(one).strip()
        if not runs or text != runs[-1][1]:
            runs.append((step, text))
    return runs


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _flag(values: Sequence[Any]) -> bool | None:
    """Whether the last value is not 0; None if there is none."""
    if not values or values[-1] is None or values[-1] != values[-1]:
        return None
    if not isinstance(values[-1], bool | int | float):
        raise ValueError(f"a flag holds {str(values[-1])[:20]!r} where a number is expected")
    return bool(values[-1])
