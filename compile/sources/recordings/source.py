"""A folder of recordings as a source; `description` shows what lies in it.

A file is read whole, by the census as well, and must match the digest in its name. So a census finds every
damaged or truncated file without decoding a frame, and an episode that it lists is sound.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from xxhash import xxh3_64

from oxcart.compile.sources.base import (
    Camera,
    CensusRow,
    Source,
    SourceConfig,
    SourceEpisode,
    episode_error,
    refuse_options,
)
from oxcart.compile.sources.cameras import with_roles
from oxcart.compile.sources.recordings.description import (
    EPISODES,
    MOST_BYTES,
    make_key,
    number_and_digest,
    numbered,
    parse_description,
)
from oxcart.compile.sources.recordings.episodes import INSTRUCTION, Stored, parse_episode
from oxcart.manifests.columns import described, given
from oxcart.manifests.licence import check_licence
from oxcart.manifests.ownership import RECORDINGS
from oxcart.manifests.schema import ENDS
from oxcart.shards.choices import did_you_mean, one_of
from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.shards.store import Store

VERSION = "1"
SAID = "oxcart.create: control_rate"
"""Where the control rate of recordings is said."""


class RecordingSource(Source):
    """The episodes that `oxcart.create` has written.

    Raises:
        ConfigError: an option names something that the recordings do not have, or belongs to other sources.
        SourceError: the folder has no description, or two files have one number.
    """

    origin = "recordings"

    def __init__(self, config: SourceConfig) -> None:
        said = "recordings say it themselves; leave it out"
        refuse_options(config, ("--source-split", "--bgr", "--success", "--environment", "--catalog"), said)
        self._store = Store(config.url)
        self.remote = self._store.remote
        self._description = parse_description(self._store.read(RECORDINGS, MOST_BYTES))
        self._files = list(numbered(self._store.list(EPISODES)).values())
        self._sizes = self._store.sizes([RECORDINGS, *self._files])
        self.name, self.version = self._description.name, VERSION
        self.cameras = self._choose_cameras(config)
        self._arrays = {name: _chosen(config, name, columns) for name, columns in self._columns.items()}
        self._instruction = _chosen(config, INSTRUCTION, True)
        self.array_columns = {
            "action": self._described(config, "action", config.action_names, config.action_kinds),
            "state": self._described(config, "state", config.state_names, config.state_kinds),
            "reward": self._columns["reward"] if self._arrays["reward"] else (),
        }
        self.array_sizes = {
            name: (len(columns),) if columns else () for name, columns in self.array_columns.items()
        }
        for end in config.no_action or ():
            one_of("--no-action", end, ENDS)
        self.no_action = tuple(end for end in ENDS if end in (config.no_action or ()))
        rate = self._description.control_rate
        self.control_rate = None if rate is None else {"hz": float(rate), "verified": True, "source": SAID}
        self.licence = check_licence(config.licence) if config.licence else self._description.licence

    def describe(self) -> dict[str, Any]:
        """Everything that determines the census rows and episodes, as plain JSON."""
        return {
            "kind": self.origin,
            "name": self.name,
            "version": self.version,
            "source_splits": [],
            "cameras": {camera.name: camera.field for camera in self.cameras},
            "roles": {camera.name: camera.role for camera in self.cameras},
            "channels": {camera.name: camera.channels for camera in self.cameras},
            "instruction": list(self._instruction),
            **{name: list(fields) for name, fields in self._arrays.items()},
            "columns": {name: described(columns) for name, columns in self.array_columns.items()},
            "no_action": list(self.no_action),
            "environment": None,
            "success": None,
            "control_rate": self.control_rate,
            "licence": self.licence,
            "citation": self.citation,
        }

    @property
    def expected(self) -> int:
        """Number of episodes in the folder."""
        return len(self._files)

    def files(self) -> list[str]:
        """The files of the episodes, in the order in which they were written."""
        return list(self._files)

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of the description and every file, when the source was opened."""
        return dict(self._sizes)

    def census(self, file: str) -> Iterator[CensusRow]:
        """The row of the episode of a file; one that is damaged is rejected."""
        number, digest = number_and_digest(file)
        row: dict[str, Any] = {
            "key": make_key(self.name, number),
            "source_split": "",
            "source_file": file,
            "source_record": 0,
            "source_offset": 0,
            "source_length": self._sizes[file],
            "source_digest": int(digest, 16),
        }
        try:
            stored = parse_episode(self._store.read(file), file, self._description)
        except CorruptError as error:
            nowhere = (0,) * len(self.cameras)
            yield CensusRow(**row, heights=nowhere, widths=nowhere, rejected=str(error))
            return
        yield CensusRow(
            **row,
            steps=stored.steps,
            environment=stored.environment,
            environment_known="unknown" if stored.environment is None else "declared",
            session=stored.session,
            success=stored.success,
            instructions=self._episode(stored, {}).texts,
            duplicate=_duplicate(stored, self.cameras[0].field),
            heights=tuple(stored.shapes[camera.field][1] for camera in self.cameras),
            widths=tuple(stored.shapes[camera.field][2] for camera in self.cameras),
        )

    def read(self, row: Mapping[str, Any]) -> SourceEpisode:
        """Read the episode of a census row, from its file."""
        file = row["source_file"]
        try:
            if int(number_and_digest(file)[1], 16) != row["source_digest"]:
                raise CorruptError("has changed since the census")
            stored = parse_episode(self._store.read(file), file, self._description)
            return self._episode(stored, {one.name: stored.images(one.field) for one in self.cameras})
        except CorruptError as error:
            raise episode_error(str(error), row) from error

    def _episode(self, stored: Stored, images: Mapping[str, Any]) -> SourceEpisode:
        arrays = {name: stored.arrays[name] if fields else None for name, fields in self._arrays.items()}
        return SourceEpisode(
            images=images,
            action=arrays["action"],
            state=arrays["state"],
            reward=arrays["reward"],
            instructions=stored.instructions if self._instruction else {},
        )

    @property
    def _columns(self) -> dict[str, Any]:
        return self._description.columns

    def _choose_cameras(self, config: SourceConfig) -> tuple[Camera, ...]:
        """The requested cameras, else all, since whoever recorded them has chosen them."""
        there = self._description.cameras
        for name in config.cameras or ():
            if name not in there:
                raise ConfigError(
                    f"camera {name!r}: expected one of {', '.join(there)}{did_you_mean(name, there)}"
                )
        chosen = [Camera(name=name, field=name) for name in dict.fromkeys(config.cameras or there)]
        roles = {name: role for name, role in there.items() if role is not None}
        return with_roles(chosen, config, roles, {}, _find)

    def _described(
        self, config: SourceConfig, name: str, names: tuple[str, ...] | None, kinds: tuple[str, ...]
    ) -> tuple[Any, ...]:
        """Columns of an array: those of the dataset that is extended, else those that were declared."""
        if not self._arrays[name]:
            return given((), name, names, kinds)
        known = config.known_columns.get(name, ())
        same = len(known) == len(self._columns[name])
        return given(known if same else self._columns[name], name, names, kinds)


def _chosen(config: SourceConfig, name: str, there: Any) -> tuple[str, ...]:
    """The field that an option chooses: there is only one, or none.

    Raises:
        ConfigError: the option names another.
    """
    fields: tuple[str, ...] | None = getattr(config, name)
    if fields is None:
        fields = (name,) if there else ()
    if fields not in ((), (name,)) or (fields and not there):
        only = f"{name} or none" if there else "none, as there is none"
        raise ConfigError(f"--{name} {', '.join(fields)}: expected {only}; leave it out")
    return fields


def _find(name: str, fields: Collection[str]) -> str | None:
    return name if name in fields else None


def _duplicate(stored: Stored, primary: str) -> int:
    """Digest of the primary camera's chunks and the actions."""
    same = xxh3_64()
    for chunk in stored.chunks[primary]:
        same.update(len(chunk).to_bytes(8, "little"))
        same.update(chunk)
    if "action" in stored.arrays:
        same.update(stored.arrays["action"].tobytes())
    return same.intdigest()
