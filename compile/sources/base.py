"""What a source is: something that can list its episodes cheaply, and read any one of them again.

A source is opened from a `SourceConfig` alone, so every process can open its own. Its census rows are
plain values; `read` gets one of them back, perhaps on another machine and another day, and must either
return the very episode that the census saw or raise a SourceError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from oxcart.compile.images import Resize
from oxcart.compile.sources.videos.config import VideoConfig
from oxcart.shards.errors import ConfigError, SourceError

LEFT_OUT = "left out: "
"""How the reason begins where nothing is wrong with an episode: a rule of the configuration leaves it out."""

Floats = npt.NDArray[np.float32]
Encoded = bytes | memoryview
"""An encoded image; a view keeps the bytes that it lies in alive."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """Frames that are decoded one after another, each time that they are played."""

    steps: int
    """How many: T."""
    play: Callable[[npt.NDArray[np.uint8], Resize], None]
    """Fills [T, H, W, 3], of a given size, with them; raises an ImageError where one cannot be decoded."""

    def __len__(self) -> int:
        return self.steps


Images = Sequence[Encoded] | npt.NDArray[np.uint8] | Film
"""One encoded image a step, or the frames themselves, [T, H, W, 3], or a film."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentRule:
    """Where a source says in which environment and recording session an episode took place.

    Raises:
        ConfigError: a pattern is no regular expression, or neither or both of `field` and `whole` are given.
    """

    field: str | None = None
    """The feature that tells."""
    whole: str | None = None
    """The one environment of all episodes, where no feature tells and the source is known to have one."""
    optional: bool = False
    """Some copies of the source lack the feature; their environments are unknown."""
    patterns: tuple[str, ...] = ()
    """Regular expressions, of which the first that matches counts. Its group `environment` (else its first
    group, else all of it) is the environment, its group `session` the recording session. Without patterns
    the value is the environment."""
    known: str = "declared"
    """`declared` where the source itself records it, `inferred` where it is concluded from something else."""

    def __post_init__(self) -> None:
        if (self.field is None) == (self.whole is None):
            raise ConfigError("environment: expected either a field or the name of the whole, one of them")
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"environment pattern {pattern!r}: not a regular expression: {error}"
                ) from None

    @classmethod
    def parse(cls, text: str) -> EnvironmentRule:
        """From `FIELD` or `FIELD~REGEX`."""
        name, _, pattern = text.partition("~")
        return cls(field=name, patterns=(pattern,) if pattern else ())

    def find(self, value: str) -> tuple[str | None, str | None]:
        """Environment and session that the feature's value tells; None where it tells nothing."""
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
class SourceConfig:
    """How to read a source. None is what the catalog says of the dataset, else a default of the source."""

    url: str
    """The directory or URL of the source."""
    kind: str = "rlds"
    """What it is: `rlds`, a TFDS directory; `videos`, a folder of them; or `compiled`, a compiled dataset."""
    source_splits: tuple[str, ...] | None = None
    """The source's own splits to read; None is all of them."""
    cameras: tuple[str, ...] | None = None
    """Cameras, the primary first; None is the primary alone."""
    instruction: tuple[str, ...] | None = None
    """Features with instructions, in order of preference."""
    action: tuple[str, ...] | None = None
    """Features that are concatenated to the action; empty for none."""
    state: tuple[str, ...] | None = None
    """Features that are concatenated to the state; empty for none."""
    environment: EnvironmentRule | None = None
    """Where the environment is recorded."""
    video: VideoConfig | None = None
    """How videos become clips."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera of a source."""

    name: str
    """As it appears in member names: characters outside [A-Za-z0-9_-] are `_`."""
    field: str
    """The feature it is read from."""


@dataclass(frozen=True, kw_only=True)
class CensusRow:
    """What the census saw of one episode. One row of the census table."""

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
    instructions: tuple[str, ...] = ()
    """Every text of the episode once, the preferred first."""
    duplicate: int = 0
    """xxh3-64 of the primary camera's encoded images and the actions, in step order."""
    heights: tuple[int, ...]
    """Of the source's frames, one for each camera."""
    widths: tuple[int, ...]
    rejected: str | None = None
    """Why the episode cannot be compiled; the fields above then hold what could be read."""
    detail: str | None = None
    """JSON that only the source understands; what it needs to read the episode again."""


def episode_error(reason: str, row: Mapping[str, Any]) -> SourceError:
    """The error of an episode, which says where the source has it; `row` is its census row."""
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
            ("instructions", pa.list_(pa.string())),
            ("duplicate", pa.uint64()),
            *sizes,
            ("rejected", pa.string()),
            ("detail", pa.string()),
        ]
    )


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode as the source stores it: images are still encoded where it has them so."""

    images: Mapping[str, Images]
    """Camera name -> its images."""
    action: Floats | None
    """[T, A]."""
    state: Floats | None
    """[T, S]."""
    instructions: Mapping[str, list[tuple[int, str]]] = field(default_factory=dict)
    """Feature -> (step at which it begins, text), wherever the text changes."""
    attribution: Mapping[str, Any] | None = None
    """Whose work it is and under which licence, where the source says: plain JSON."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text once, in order of feature and step."""
        return tuple(dict.fromkeys(text for runs in self.instructions.values() for _, text in runs if text))


class Source(Protocol):
    """A place where episodes come from. `open_source` opens one; each kind overrides the defaults below."""

    name: str
    """The dataset's exact name."""
    version: str
    origin: str
    """Kind of source that the episodes first came from: `rlds` or `videos`."""
    remote: bool
    """Whether each read is a round trip to a server."""
    cameras: tuple[Camera, ...]
    """The cameras that will be compiled, the primary first."""
    action_sizes: tuple[int, ...] = ()
    """Values per step of each field that is concatenated to the action; together A."""
    state_sizes: tuple[int, ...] = ()
    """Values per step of each field that is concatenated to the state; together S."""
    control_rate: dict[str, Any] | None
    """`hz` and `verified`, where known."""
    aliases: Mapping[str, tuple[str, ...]] = {}
    """Environments that are known to have other names -> those names."""
    effort: int = 1
    """Time that a census takes per byte, as a multiple of that of RLDS records."""

    @property
    def expected(self) -> int | None:
        """Episodes that the source says it has; None where only the census can count them."""
        return None

    def describe(self) -> dict[str, Any]:
        """Everything that decides what a census row or an episode is, as plain JSON."""
        ...

    def files(self) -> list[str]:
        """Names of the files that a census can be taken of one by one, in order."""
        ...

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of every file that the source consists of."""
        ...

    def census(self, file: str) -> Iterator[CensusRow]:
        """One row per episode of a file, in order."""
        ...

    def join(self, table: pa.Table) -> pa.Table:
        """The census rows of all files, changed by what only all of them together tell."""
        return table

    def warnings(self, table: pa.Table) -> list[str]:
        """What whoever reads the episodes of a census may not expect, one line each."""
        return []

    def attribution(self, census: pa.Table, keys: pa.ChunkedArray) -> pa.Table | None:
        """Whose work the episodes of some keys are, one row per key; None where the source does not say."""
        return None

    def read(self, row: Mapping[str, Any]) -> Episode:
        """The episode of a census row.

        Raises:
            SourceError: the episode is not what the census saw, or cannot be read.
        """
        ...


def clean(name: str) -> str:
    """The name as keys and member names hold it: characters outside [A-Za-z0-9_-] become `_`."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)
