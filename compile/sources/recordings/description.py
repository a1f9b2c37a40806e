"""What a folder of recordings says of itself, and the names of its files.

    mine/
      recordings.json                         name, cameras, columns, control rate, licence, codec
      episodes/000000-9f86d081884c7d65.tar    one file per episode: its number, and the digest of its bytes
      episodes/000001-60303ae22b998861.tar
      ...

The description is written once, before the first episode, and never changes. A file gets its name when it is
complete and durable, and the name says what its bytes must be, so no list of episodes has to be kept in step
with them: whichever files there are, are the episodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from oxcart.compile.sources.base import clean
from oxcart.manifests.canonical import pretty_json, read_json
from oxcart.manifests.columns import ARRAYS, Column, check_distinct, described, parse_columns
from oxcart.manifests.licence import check_licence
from oxcart.manifests.ownership import RECORDINGS, RECORDINGS_FORMAT
from oxcart.manifests.roles import ROLES
from oxcart.shards.choices import one_of
from oxcart.shards.codec import Encoding
from oxcart.shards.errors import ConfigError, SourceError

EPISODES = "episodes"
"""Folder of the episodes."""
MOST_BYTES = 4 << 20
"""Size limit of a description, in bytes."""
MOST_RATE = 1e6
"""Limit of a control rate, in steps per second."""
_FILE = re.compile(rf"{EPISODES}/([0-9]{{6,9}})-([0-9a-f]{{16}})\.tar")


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is the same for all episodes of a folder of recordings.

    Raises:
        ConfigError: a value is impossible; the message names the argument of `oxcart.create`.
    """

    name: str
    """Name of the dataset, with which every key begins."""
    cameras: Mapping[str, str | None]
    """Camera -> its role, of `oxcart.manifests.roles.ROLES`, if it has one."""
    action: tuple[Column, ...] = ()
    """Columns of the action; none if there is no action."""
    state: tuple[Column, ...] = ()
    """Columns of the state, likewise."""
    reward: bool = False
    """Whether every step has a reward."""
    control_rate: float | None = None
    """Steps per second, if it is known."""
    licence: str | None = None
    """Licence of the data: an SPDX expression or a URL."""
    encoding: Encoding
    """How frames are stored."""

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        if not self.cameras:
            raise ConfigError("cameras: expected at least one, such as {'image_0': 'primary'}; got none")
        for camera, role in self.cameras.items():
            _check_name("cameras", camera)
            if camera in (*ARRAYS, "json"):
                raise ConfigError(f"cameras: {camera!r} is the name of another member; choose another name")
            if role is not None:
                one_of(f"cameras: role of {camera}", role, ROLES)
        roles = [role for role in self.cameras.values() if role is not None]
        if len(set(roles)) != len(roles):
            raise ConfigError(f"cameras: expected a role of its own for each, got {', '.join(roles)}")
        for what in ("action", "state"):
            check_distinct(getattr(self, what), what)
        if not isinstance(self.reward, bool):
            raise ConfigError(f"reward: expected True or False, got {self.reward!r}")
        rate = self.control_rate
        if rate is not None and not (type(rate) in (int, float) and 0 < rate <= MOST_RATE):
            raise ConfigError(f"control_rate: expected steps per second, more than 0; got {rate!r}")
        if self.licence is not None:
            object.__setattr__(self, "licence", check_licence(self.licence))

    @property
    def columns(self) -> dict[str, tuple[Column, ...]]:
        """Each of `ARRAYS` -> its columns; none if the episodes do not have it."""
        reward = (Column(name="reward", kind="other"),) if self.reward else ()
        return {"action": self.action, "state": self.state, "reward": reward}

    def to_json(self) -> dict[str, Any]:
        """The description as plain JSON."""
        return {
            "format": RECORDINGS_FORMAT,
            "name": self.name,
            "cameras": [{"name": name, "role": role} for name, role in self.cameras.items()],
            "action": described(self.action),
            "state": described(self.state),
            "reward": self.reward,
            "control_rate": self.control_rate,
            "licence": self.licence,
            "codec": self.encoding.codec,
            "quality": self.encoding.quality,
        }

    def to_bytes(self) -> bytes:
        """The content of `recordings.json`."""
        return pretty_json(self.to_json())


def parse_description(data: bytes) -> Description:
    """The description in the bytes of `recordings.json`.

    Raises:
        SourceError: they hold no description, or one of another format.
    """
    try:
        value = read_json(data)
        if value["format"] != RECORDINGS_FORMAT:
            raise ValueError(f"format: expected {RECORDINGS_FORMAT}, got {str(value['format'])[:60]!r}")
        return Description(
            name=value["name"],
            cameras={one["name"]: one["role"] for one in value["cameras"]},
            action=parse_columns({"columns": value["action"]}),
            state=parse_columns({"columns": value["state"]}),
            reward=value["reward"],
            control_rate=value["control_rate"],
            licence=value["licence"],
            encoding=Encoding(codec=value["codec"], quality=value["quality"]),
        )
    except KeyError as error:
        raise SourceError(f"has no field {error}", file=RECORDINGS) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise SourceError(f"is no description of recordings: {error}", file=RECORDINGS) from error


def make_key(name: str, number: int) -> str:
    """Key of an episode: `mine-000003`."""
    return f"{name}-{number:06d}"


def file_name(number: int, digest: str) -> str:
    """Name of the file of an episode, from its number and the xxh3-64 digest of its bytes, in hex."""
    return f"{EPISODES}/{number:06d}-{digest}.tar"


def numbered(names: Iterable[str]) -> dict[int, str]:
    """Number -> name of the file of each episode, in order; other names are not episodes.

    Raises:
        SourceError: two files have one number.
    """
    found: dict[int, str] = {}
    for name in sorted(names):
        if match := _FILE.fullmatch(name):
            first = found.setdefault(int(match[1]), name)
            if first != name:
                raise SourceError(f"has the number of {first}; keep one of the two", file=name)
    return dict(sorted(found.items()))


def number_and_digest(name: str) -> tuple[int, str]:
    """Number of an episode, and the digest that its file must have, from the name of the file."""
    match = _FILE.fullmatch(name)
    assert match is not None
    return int(match[1]), match[2]


def _check_name(argument: str, name: object) -> None:
    if not isinstance(name, str) or not name or clean(name) != name:
        raise ConfigError(f"{argument}: expected a name of letters, digits, _ and -; got {name!r}")
