"""The interface of a source: it lists its episodes cheaply, and can read any one of them again.

A source is opened from a `SourceConfig` alone, so every process can open its own. Census rows are plain
values. `read` gets a row back, perhaps on another machine and another day, and either returns the very
episode that the census saw or raises a SourceError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from oxcart.compile.images import Resize
from oxcart.compile.sources.places import PlaceTable
from oxcart.compile.sources.videos.config import VideoConfig
from oxcart.manifests.columns import ARRAYS, Column
from oxcart.shards import codec
from oxcart.shards.errors import ConfigError, SourceError

LEFT_OUT = "left out: "
"""Start of the reason if an episode is sound but a rule of the configuration leaves it out."""

Floats = npt.NDArray[np.float32]
Encoded = bytes | memoryview
"""An encoded image; a view keeps the bytes around it alive."""


class CodedVideo(NamedTuple):
    """The video of a camera in which an episode lies."""

    codec: str
    """Name of its codec, as FFmpeg has it."""
    group: int | None
    """Frames of the longest closed group of pictures of the episode; None if it has other pictures."""
    why: str | None
    """Why it cannot be divided into closed groups, if so."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """Frames that are decoded one after another each time they are played."""

    steps: int
    """Number of frames: T."""
    play: Callable[[npt.NDArray[np.uint8], Resize], None]
    """Fills an array [T, H, W, 3] with the frames; raises an ImageError where a frame cannot be decoded."""
    copy: Callable[[int], codec.Encoded] | None = None
    """The video as it is, in closed groups of at most so many frames; raises an ImageError if that cannot be.
    None if the frames are in no video."""
    pick: Callable[[Sequence[int], npt.NDArray[np.uint8], Resize], None] | None = None
    """Fills an array [n, H, W, 3] with the frames of n steps, in less time than playing all takes; raises an
    ImageError where a frame cannot be decoded. None if all must be played."""

    def __len__(self) -> int:
        return self.steps


Images = Sequence[Encoded] | npt.NDArray[np.uint8] | Film
"""One encoded image per step, or the frames [T, H, W, 3] uint8, or a film."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentRule:
    """How a source tells the environment and the recording session of an episode.

    Raises:
        ConfigError: a pattern is not a regular expression, or not exactly one of `field`, `whole` is given.
    """

    field: str | None = None
    """Feature from which the environment is read."""
    whole: str | None = None
    """Environment of all episodes, if no feature tells it and the source is known to have only one."""
    optional: bool = False
    """Whether the source may lack the feature; its environments are then unknown."""
    patterns: tuple[str, ...] = ()
    """Regular expressions, of which the first that matches counts. Its group `environment` (else its first
    group, else the whole match) is the environment, and its group `session` the recording session. Without
    patterns the value is the environment."""
    known: str = "declared"
    """`declared` if the source itself records the environment, `inferred` if it is concluded."""

    def __post_init__(self) -> None:
        if (self.field is None) == (self.whole is None):
            got = "neither" if self.field is None else "both"
            raise ConfigError(f"environment: expected either field or whole, got {got}; give one of them")
        for pattern in self.patterns:
            _check_pattern("environment", pattern)

    @classmethod
    def parse(cls, text: str) -> EnvironmentRule:
        """Parse a rule written as `FIELD`, `FIELD~REGEX` or `=NAME`: all of it is one environment."""
        if text.startswith("=") and len(text) > 1:
            return cls(whole=text[1:])
        name, _, pattern = text.partition("~")
        return cls(field=name, patterns=(pattern,) if pattern else ())

    def describe(self) -> dict[str, Any]:
        """The rule as plain JSON."""
        if self.whole is not None:
            return {"whole": self.whole, "known": self.known}
        return {"field": self.field, "patterns": list(self.patterns), "known": self.known}

    def find(self, value: str) -> tuple[str | None, str | None]:
        """Environment and session found in a value of the feature; each is None if it is not found."""
        if self.whole is not None:
            return self.whole, None
        if not self.patterns:
            return value or None, None
        for pattern in self.patterns:
            if match := re.search(pattern, value):
                groups = match.groupdict()
                first = match.group(1) if match.re.groups else match.group(0)
                named = groups.get("environment", first)
                return named or None, groups.get("session") or None
        return None, None


@dataclass(frozen=True, kw_only=True)
class SuccessRule:
    """How a source tells whether an episode succeeded.

    Raises:
        ConfigError: the pattern is not a regular expression.
    """

    field: str
    """Feature that tells it: a flag, or a text in which `pattern` is searched."""
    pattern: str | None = None
    """Regular expression that matches where an episode succeeded; None if the feature is a flag."""

    def __post_init__(self) -> None:
        _check_pattern("success", self.pattern or "")

    @classmethod
    def parse(cls, text: str) -> SuccessRule:
        """Parse a rule written as `FIELD` or `FIELD~REGEX`."""
        name, tilde, pattern = text.partition("~")
        return cls(field=name, pattern=pattern if tilde else None)


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """How to read a source. None stands for the value in the catalog, else for the source's default."""

    url: str
    """The directory or URL of the source."""
    kind: str = "rlds"
    """Kind of the source: `rlds` (a TFDS directory), `lerobot` (a LeRobot dataset), `videos` (a folder of
    videos), `recordings` (a folder that `oxcart.create` wrote), `hdf5` (HDF5 files) or `compiled`."""
    source_splits: tuple[str, ...] | None = None
    """The source's own splits to read; None reads all."""
    cameras: tuple[str, ...] | None = None
    """Cameras to read; None reads only the primary, and all of recordings."""
    roles: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Camera -> its role, of `oxcart.manifests.roles.ROLES`, whatever the catalog says."""
    bgr: tuple[str, ...] | None = None
    """Cameras whose images hold BGR; empty for none."""
    instruction: tuple[str, ...] | None = None
    """Features that hold instructions, in order of preference."""
    action: tuple[str, ...] | None = None
    """Features that are concatenated to the action; empty for no action."""
    state: tuple[str, ...] | None = None
    """Features that are concatenated to the state; empty for no state."""
    reward: tuple[str, ...] | None = None
    """Feature that holds the reward of each step; empty for no reward."""
    success: SuccessRule | None = None
    """Rule that determines whether an episode succeeded."""
    action_names: tuple[str, ...] | None = None
    """A name for each column of the action."""
    action_kinds: tuple[str, ...] = ()
    """Kinds of columns of the action, as texts for `oxcart.manifests.columns.given`."""
    state_names: tuple[str, ...] | None = None
    """A name for each column of the state."""
    state_kinds: tuple[str, ...] = ()
    """Kinds of columns of the state, likewise."""
    no_action: tuple[str, ...] | None = None
    """`first`, `last`: steps of every episode that hold no action; empty for none."""
    known_columns: Mapping[str, tuple[Column, ...]] = field(default_factory=dict, hash=False)
    """Array -> its columns in the dataset that is to be extended."""
    environment: EnvironmentRule | None = None
    """Rule that determines the environment of an episode."""
    environments: PlaceTable | None = field(default=None, hash=False)
    """A table that tells the environments, whatever the source says."""
    licence: str | None = None
    """Licence of the data: an SPDX expression or a URL."""
    catalog: str | None = None
    """For LeRobot: repo id of a port that the catalog knows, or the dataset that it is a port of; `none` for
    none."""
    video: VideoConfig | None = None
    """How videos become clips."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera of a source."""

    name: str
    """Name in keys and member names: characters outside [A-Za-z0-9_-] are `_`."""
    field: str
    """Feature from which the camera's images are read."""
    role: str | None = None
    """One of `oxcart.manifests.roles.ROLES`, if it is known; no other camera of the source has it."""
    channels: str = "rgb"
    """Order in which the original source holds colours, of `oxcart.manifests.roles.CHANNELS`."""


@dataclass(frozen=True, kw_only=True)
class CensusRow:
    """The census of one episode: a row of the census table."""

    key: str
    source_split: str
    source_file: str
    source_record: int
    source_offset: int
    source_length: int
    source_digest: int
    """xxh3-64 of the record's bytes."""
    steps: int = 0
    environment: str | None = None
    environment_known: str = "unknown"
    session: str | None = None
    success: bool | None = None
    """Whether the episode succeeded; None if the source does not say."""
    terminal: bool | None = None
    """Whether the last step is terminal, not cut off; None if the source does not say."""
    instructions: tuple[str, ...] = ()
    """Every instruction of the episode once, the preferred one first."""
    duplicate: int = 0
    """xxh3-64 of the primary camera's encoded images and the actions, in step order."""
    sketch: tuple[int, ...] = ()
    """Sketch of the actions and states, by which copies are found; empty if there is none."""
    heights: tuple[int, ...]
    """Height of the source's frames per camera, in pixels."""
    widths: tuple[int, ...]
    """Width of the source's frames per camera, in pixels."""
    rejected: str | None = None
    """Reason why the episode cannot be compiled, if any; the other fields then hold what could be read."""
    detail: str | None = None
    """JSON that only the source understands, with what it needs to read the episode again."""


def episode_error(reason: str, row: Mapping[str, Any]) -> SourceError:
    """An error about an episode that says where the source has it; `row` is its census row."""
    return SourceError(
        reason, file=row["source_file"], record=row["source_record"], offset=row["source_offset"]
    )


def census_schema(cameras: tuple[str, ...]) -> pa.Schema:
    """Columns of the census table: the fields of `CensusRow`, with two columns of sizes per camera."""
    sizes = [(f"{camera}.{side}", pa.int32()) for camera in cameras for side in ("height", "width")]
    return pa.schema(
        [
            ("key", pa.string()),
            ("source_split", pa.string()),
            ("source_file", pa.string()),
            ("source_record", pa.int32()),
            ("source_offset", pa.int64()),
            ("source_length", pa.int64()),
            ("source_digest", pa.uint64()),
            ("steps", pa.int32()),
            ("environment", pa.string()),
            ("environment_known", pa.string()),
            ("session", pa.string()),
            ("success", pa.bool_()),
            ("terminal", pa.bool_()),
            ("instructions", pa.list_(pa.string())),
            ("duplicate", pa.uint64()),
            ("sketch", pa.list_(pa.uint32())),
            *sizes,
            ("rejected", pa.string()),
            ("detail", pa.string()),
        ]
    )


@dataclass(frozen=True, kw_only=True)
class SourceEpisode:
    """An episode as the source stores it: images that the source encodes are still encoded."""

    images: Mapping[str, Images]
    """Camera name -> images of the camera."""
    action: Floats | None
    """float32 [T, A]."""
    state: Floats | None
    """float32 [T, S]."""
    reward: Floats | None = None
    """float32 [T, 1]."""
    instructions: Mapping[str, list[tuple[int, str]]] = field(default_factory=dict)
    """Feature -> (step at which the text begins, text), one per change of the text."""
    attribution: Mapping[str, Any] | None = None
    """Author and licence of the episode as plain JSON, if the source states them."""
    bgr: frozenset[str] = frozenset()
    """Names of the cameras whose encoded images or films hold BGR instead of RGB."""

    @property
    def arrays(self) -> dict[str, Floats]:
        """The arrays that the episode has, by name."""
        every = {name: getattr(self, name) for name in ARRAYS}
        return {name: array for name, array in every.items() if array is not None}

    @property
    def texts(self) -> tuple[str, ...]:
        """Every instruction once, in order of feature and step."""
        return tuple(dict.fromkeys(text for runs in self.instructions.values() for _, text in runs if text))


class Source(Protocol):
    """A place where episodes come from. `open_source` opens one; each kind overrides the defaults below."""

    name: str
    """The dataset's exact name."""
    version: str
    origin: str
    """Kind of the original source of the episodes: `rlds`, `lerobot`, `videos`, `recordings` or `hdf5`."""
    remote: bool
    """Whether each read is a round trip to a server."""
    cameras: tuple[Camera, ...]
    """The cameras that will be compiled."""
    licence: str | None = None
    """Licence of the data, as an SPDX expression or a URL, if it is known."""
    citation: str | None = None
    """What to cite, in one line, if it is known."""
    array_sizes: Mapping[str, tuple[int, ...]] = dict.fromkeys(ARRAYS, ())
    """Each of `ARRAYS` -> values per step of each field that is concatenated to it; () if there is none."""
    array_columns: Mapping[str, tuple[Column, ...]] = dict.fromkeys(ARRAYS, ())
    """Each of `ARRAYS` -> its columns."""
    no_action: tuple[str, ...] = ()
    """`first`, `last`: steps of every episode that are known to hold no action."""
    control_rate: dict[str, Any] | None
    """Control rate as `hz`, `verified` and `source`, if known."""
    catalogued: Mapping[str, str] = {}
    """What of a port was taken from the catalog, in words: fact -> what it says."""
    aliases: Mapping[str, tuple[str, ...]] = {}
    """Environments that are known to have other names -> those names."""
    keeps_splits: bool = False
    """Whether its own splits are those of a compiled dataset, which are kept unless a rule is given."""
    effort: int = 1
    """Time that a census takes per byte, as a multiple of that of RLDS records."""
    places: PlaceTable | None = None
    """A table that tells the environments, whatever the source says."""

    @property
    def at_once(self) -> int:
        """Number of small files of which a process takes the census at once, each in a thread."""
        return 16 if self.remote else 1  # a request takes longer than its bytes

    @property
    def expected(self) -> int | None:
        """Number of episodes that the source declares; None if only the census can count them."""
        return None

    def describe(self) -> dict[str, Any]:
        """Everything of the source that determines the census rows and episodes, as plain JSON."""
        ...

    def described(self) -> dict[str, Any]:
        """What `describe` says, and a digest of the table of environments, if there is one."""
        table = {"environment_table": self.places.describe()} if self.places else {}
        return {**self.describe(), **table}

    def files(self) -> list[str]:
        """Names of the files, in order; a census can be taken of each separately."""
        ...

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of every file of the source."""
        ...

    def census(self, file: str) -> Iterator[CensusRow]:
        """One row per episode of a file, in order."""
        ...

    def videos(self, row: Mapping[str, Any]) -> Mapping[str, CodedVideo]:
        """Camera -> the video that holds the episode of a census row, for those that could be copied."""
        return {}

    def join(self, table: pa.Table) -> pa.Table:
        """Adjust the census rows of all files by what only all of them together tell."""
        return table

    def warnings(self, table: pa.Table) -> list[str]:
        """Warnings about unexpected properties of the episodes of a census, one line each."""
        return []

    def attribution(self, census: pa.Table, keys: pa.ChunkedArray) -> pa.Table | None:
        """Authors and licences of the given episodes, one row per key; None if the source states none."""
        return None

    def read(self, row: Mapping[str, Any]) -> SourceEpisode:
        """Read the episode of a census row.

        Raises:
            SourceError: the episode differs from the one in the census, or cannot be read.
        """
        ...

    def read_many(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[SourceEpisode]:
        """Read the episodes of census rows, in order; a source may read several at a time."""
        return map(self.read, rows)


OPTIONS = {
    "--source-split": "source_splits",
    "--camera": "cameras",
    "--bgr": "bgr",
    "--instruction": "instruction",
    "--action": "action",
    "--state": "state",
    "--reward": "reward",
    "--success": "success",
    "--action-names": "action_names",
    "--action-kind": "action_kinds",
    "--state-names": "state_names",
    "--state-kind": "state_kinds",
    "--no-action": "no_action",
    "--environment": "environment",
    "--catalog": "catalog",
}
"""Option that says how to read a source of robot data -> its field of `SourceConfig`."""


def refuse_options(config: SourceConfig, options: Iterable[str], why: str) -> None:
    """Refuse options that have no meaning for a kind of source.

    Raises:
        ConfigError: one of `options` is given; the message ends with `why`.
    """
    for option in options:
        if getattr(config, OPTIONS[option]):
            raise ConfigError(f"{option}: {why}")


def clean(name: str) -> str:
    """The name as used in keys and member names: characters outside [A-Za-z0-9_-] become `_`."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _check_pattern(rule: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{rule} pattern {pattern!r}: not a regular expression: {error}") from None
