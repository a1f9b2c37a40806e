"""RLDS: episodes in a TensorFlow Datasets directory, read without TensorFlow.

    bridge_dataset/1.0.0/
      dataset_info.json                                   name, version, records of each file
      features.json                                       what a record holds
      bridge_dataset-train.tfrecord-00000-of-01024        one record per episode
      ...

A record is a `tf.train.Example` with one entry per feature; the values of all steps lie end to end. TFDS
itself says what the entries mean (`FeaturesDict`, `ExampleParserNp`). Only wanted features are parsed, and
images stay encoded, as views of the record. Features are named by their paths: `steps/observation/image_0`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64, xxh3_64_intdigest

from oxcart.compile.catalog import lookup
from oxcart.compile.images import MAX_PIXELS, ImageError, image_size
from oxcart.compile.sources.base import (
    Camera,
    CensusRow,
    Encoded,
    Film,
    Floats,
    Source,
    SourceConfig,
    SourceEpisode,
    clean,
    refuse_options,
)
from oxcart.compile.sources.kinds import INFO
from oxcart.compile.sources.rlds import features, texts, tfrecord
from oxcart.compile.sources.rlds.directory import read_directory
from oxcart.compile.sources.rlds.example import ExampleParser
from oxcart.compile.sources.rlds.features import Numbers, as_float32
from oxcart.compile.sources.sketch import sketch
from oxcart.manifests.columns import Column, described, given
from oxcart.manifests.licence import check_licence
from oxcart.manifests.schema import ENDS
from oxcart.shards.choices import one_of
from oxcart.shards.errors import SourceError
from oxcart.shards.store import Store


class RldsSource(Source):
    """An RLDS dataset in a TFDS directory.

    Raises:
        ConfigError: the options name a feature, camera or split that the dataset does not have.
        SourceError: the directory is not a complete TFDS dataset of TFRecord files.
    """

    origin = "rlds"

    def __init__(self, config: SourceConfig) -> None:
        refuse_options(config, ("--catalog",), "an RLDS dataset says its name itself; leave it out")
        self._store = Store(config.url)
        self.remote = self._store.remote
        directory = read_directory(self._store, config.source_splits)
        self.name, self.version, self._files = directory.name, directory.version, directory.files
        self._specs, self._sizes = directory.specs, directory.sizes

        known = lookup(self.name)
        self.control_rate = known.control_rate
        self.aliases = known.aliases
        self._image_features = features.image_features(directory)
        self.licence = check_licence(config.licence) if config.licence is not None else known.licence
        self.citation = known.citation
        self.cameras = features.choose_cameras(directory, self._image_features, config, known)
        self._bgr = frozenset(camera.name for camera in self.cameras if camera.channels == "bgr")
        self._instruction = texts.choose_instruction(directory, _first(config.instruction, known.instruction))
        self._numbers = {
            "action": features.choose_numbers(directory, "action", _first(config.action, known.action)),
            "state": features.choose_numbers(directory, "state", _first(config.state, known.state)),
            "reward": features.choose_reward(directory, config.reward),
        }
        self.array_sizes = {
            name: tuple(one.width for one in numbers) for name, numbers in self._numbers.items()
        }
        action, state = (
            features.columns_of(self._numbers[name], known.columns, config.known_columns.get(name, ()))
            for name in ("action", "state")
        )
        self.array_columns = {
            "action": given(action, "action", config.action_names, config.action_kinds),
            "state": given(state, "state", config.state_names, config.state_kinds),
            "reward": tuple(Column(name="reward", kind="other") for _ in self._numbers["reward"]),
        }
        ends = known.no_action if config.no_action is None else config.no_action
        for end in ends:
            one_of("--no-action", end, ENDS)
        stated = {
            "action": config.action_names or config.action_kinds,
            "state": config.state_names or config.state_kinds,
        }
        self._unlike_catalog = [
            line
            for name in stated
            if not stated[name] and not config.known_columns.get(name)
            for line in features.unlike_catalog(name, self._numbers[name], known.columns)
        ]
        self.no_action = tuple(end for end in ENDS if end in ends)
        self._rule = config.environment or known.environment
        self._environment = (
            texts.choose_environment(directory, self._rule.field, self._rule.optional)
            if self._rule and self._rule.field is not None
            else None
        )
        self._success = texts.choose_success(directory, config.success, known.success)
        self._terminal = features.terminal(directory)

        wanted = [
            *(camera.field for camera in self.cameras),
            *(one.path for one in self._instruction),
            *(one.tensor.path for numbers in self._numbers.values() for one in numbers),
            *([self._environment.path] if self._environment else []),
            *([self._success.path] if self._success else []),
            *([self._terminal] if self._terminal else []),
        ]
        self._wanted = tuple(dict.fromkeys(wanted))
        encoded = [one.field for one in self.cameras if self._image_features[one.field].pixels is None]
        self._parser = ExampleParser(self._specs, self._wanted, encoded)

    def describe(self) -> dict[str, Any]:
        """Everything that determines the census rows and episodes, as plain JSON."""
        environment: dict[str, Any] | None = None
        if self._rule and self._rule.whole is not None:
            environment = self._rule.describe()
        elif self._rule and self._environment:
            environment = {**self._rule.describe(), "field": self._environment.path}
        return {
            "kind": self.origin,
            "name": self.name,
            "version": self.version,
            "source_splits": list(dict.fromkeys(file.split for file in self._files.values())),
            "cameras": {camera.name: camera.field for camera in self.cameras},
            "roles": {camera.name: camera.role for camera in self.cameras},
            "channels": {camera.name: camera.channels for camera in self.cameras},
            "instruction": [one.path for one in self._instruction],
            **{name: [one.name for one in numbers] for name, numbers in self._numbers.items()},
            "columns": {name: described(columns) for name, columns in self.array_columns.items()},
            "no_action": list(self.no_action),
            "environment": environment,
            "success": asdict(self._success.rule) if self._success else None,
            "control_rate": self.control_rate,
            "licence": self.licence,
            "citation": self.citation,
        }

    @property
    def expected(self) -> int:
        """Number of episodes that `dataset_info.json` declares."""
        return sum(file.records for file in self._files.values())

    def files(self) -> list[str]:
        """The TFRecord files, split by split."""
        return list(self._files)

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of the two JSON files and every TFRecord file, when the source was opened."""
        return dict(self._sizes)

    def census(self, file: str) -> Iterator[CensusRow]:
        """One row per record that `dataset_info.json` declares; unreadable records are rejected."""
        expected = self._files[file].records
        index = 0
        gone = f"the file ends after {{}} of {expected} records"
        size = self._sizes[file] if self.remote else None  # where asking is free, today's size counts
        for record in tfrecord.scan(self._store, file, size):
            if index == expected:
                raise SourceError(f"holds more than the {expected} records that {INFO} says", file=file)
            if record.last:
                gone = record.error or gone
                break
            yield self._row(file, index, record)
            index += 1
        for lost in range(index, expected):
            missing = tfrecord.Record(0, 0, memoryview(b""), gone.format(index))
            yield self._row(file, lost, missing)

    def warnings(self, table: pa.Table) -> list[str]:
        """Lines that name features unlike their catalog entry, and columns that float32 cannot hold."""
        inexact: dict[str, float] = {}
        for detail in table["detail"].drop_null().to_pylist():
            inexact = json.loads(detail)["inexact"] | inexact  # the first example of a column stays
        columns = [f"{name}, where {v} becomes {as_float32(v):.0f}" for name, v in sorted(inexact.items())]
        inexactly = [f"float32 does not hold the values of {'; of '.join(columns)}"] if columns else []
        return self._unlike_catalog + inexactly

    def read(self, row: Mapping[str, Any]) -> SourceEpisode:
        """Read the episode of a census row, from only its record."""
        file, record, offset = row["source_file"], row["source_record"], row["source_offset"]
        data = tfrecord.read_record(self._store, file, offset, row["source_length"], record)
        if xxh3_64_intdigest(data) != row["source_digest"]:
            raise SourceError("has changed since the census", file=file, record=record, offset=offset)
        try:
            return self._assemble(self._parse(data))
        except ValueError as error:
            raise SourceError(str(error), file=file, record=record, offset=offset) from error

    def _row(self, file: str, index: int, record: tfrecord.Record) -> CensusRow:
        split, number, _ = self._files[file]
        row = CensusRow(
            key=f"{clean(self.name)}-{clean(split)}-{number:05d}-{index:06d}",
            source_split=split,
            source_file=file,
            source_record=index,
            source_offset=record.offset,
            source_length=record.length,
            source_digest=xxh3_64_intdigest(record.data),
            heights=(0,) * len(self.cameras),
            widths=(0,) * len(self.cameras),
            rejected=record.error,
        )
        if record.error is not None:
            return row
        try:
            parsed = self._parse(record.data)
            return replace(row, **self._seen(self._assemble(parsed), parsed))
        except ValueError as error:
            return replace(row, rejected=str(error))

    def _seen(self, episode: SourceEpisode, parsed: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the census row of an episode that can be parsed."""
        environment, session, known = None, None, "unknown"
        if self._rule and self._environment:
            environment, session = self._rule.find(
                self._environment.of_episode(parsed[self._environment.path])
            )
        elif self._rule:
            environment = self._rule.whole
        if self._rule and environment:
            known = self._rule.known
        images = {name: one for name, one in episode.images.items() if not isinstance(one, Film)}
        primary = images[self.cameras[0].name]
        same = xxh3_64()
        for image in primary:
            same.update(len(image).to_bytes(8, "little"))
            same.update(image)
        if episode.action is not None:
            same.update(np.ascontiguousarray(episode.action).tobytes())
        seen: dict[str, Any] = {
            "steps": len(primary),
            "environment": environment,
            "environment_known": known,
            "session": session,
            "success": self._success.of_episode(parsed[self._success.path]) if self._success else None,
            "terminal": features.last_flag(self._terminal, parsed[self._terminal])
            if self._terminal
            else None,
            "instructions": episode.texts,
            "duplicate": same.intdigest(),
            "sketch": sketch(array for name, array in episode.arrays.items() if name != "reward"),
        }
        if len(primary) < 2:
            return {**seen, "rejected": f"has {len(primary)} steps; at least 2 are needed"}
        sizes = [self._image_size(camera, images[camera.name][0]) for camera in self.cameras]
        seen |= {"heights": tuple(h for h, _ in sizes), "widths": tuple(w for _, w in sizes)}
        for what, values in episode.arrays.items():
            if not np.isfinite(values).all():
                step = int(np.argmin(np.isfinite(values).all(axis=1)))
                return {**seen, "rejected": f"{what} is NaN or infinite at step {step}"}
        inexact: dict[str, float] = {}
        for one in (one for numbers in self._numbers.values() for one in numbers):
            inexact |= one.inexact(parsed[one.tensor.path])
        return {**seen, "detail": json.dumps({"inexact": inexact})} if inexact else seen

    def _image_size(self, camera: Camera, first: Encoded) -> tuple[int, int]:
        """Declared height and width, else those in the header of the episode's first image."""
        height, width = self._image_features[camera.field].size
        if height is not None and width is not None:
            if height * width > MAX_PIXELS:
                raise ValueError(
                    f"camera {camera.name} declares {height}x{width} pixels; too large to be true"
                )
            return height, width
        try:
            return image_size(first)
        except ImageError as error:
            raise ValueError(f"camera {camera.name}: the image of step 0 {error}") from error

    def _parse(self, data: memoryview) -> Mapping[str, Any]:
        """Feature -> values of one record; anything wrong with the record raises a ValueError."""
        try:
            parsed = self._parser.parse(data)
        except Exception as error:  # third-party parsers meet arbitrary bytes here
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"the record cannot be parsed: {reason}") from error
        for field in self._wanted:
            if parsed[field] is None and field != self._terminal:
                raise ValueError(f"feature {field} is missing from the record")
        return parsed

    def _assemble(self, parsed: Mapping[str, Any]) -> SourceEpisode:
        images = {camera.name: self._images(camera, parsed[camera.field]) for camera in self.cameras}
        steps = len(images[self.cameras[0].name])
        for camera in self.cameras:
            self._check_steps(camera.field, len(images[camera.name]), steps)
            if not all(isinstance(image, Encoded) for image in images[camera.name]):
                raise ValueError(f"{camera.field} holds numbers where encoded images are expected")
        instructions = {}
        for one in self._instruction:
            if one.path.startswith("steps/"):
                self._check_steps(one.path, len(parsed[one.path]), steps)
            instructions[one.path] = one.runs(parsed[one.path])
        arrays = {name: self._array(parsed, numbers, steps) for name, numbers in self._numbers.items()}
        return SourceEpisode(
            images=images,
            action=arrays["action"],
            state=arrays["state"],
            reward=arrays["reward"],
            instructions=instructions,
            bgr=self._bgr,
        )

    def _images(self, camera: Camera, found: Any) -> list[Encoded]:
        """One encoded image per step; pixels that the source does not encode become PNGs."""
        pixels = self._image_features[camera.field].pixels
        return [*features.as_png(pixels.values(found))] if pixels else list(found)

    def _array(self, parsed: Mapping[str, Any], numbers: Sequence[Numbers], steps: int) -> Floats | None:
        parts = []
        for one in numbers:
            self._check_steps(one.tensor.path, len(parsed[one.tensor.path]), steps)
            parts.append(one.values(parsed[one.tensor.path]))
        return np.concatenate(parts, axis=1) if parts else None

    def _check_steps(self, field: str, found: int, steps: int) -> None:
        if found != steps:
            raise ValueError(f"{field} has {found} steps where {self.cameras[0].field} has {steps}")


def _first(*choices: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return next((choice for choice in choices if choice is not None), None)
