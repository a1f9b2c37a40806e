"""`manifest.json`: what a compiled dataset holds.

It is written last, so a directory without one is not a dataset. The manifest names every other file by its
digest, so any damage can be found from here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from oxcart.manifests import schema
from oxcart.manifests.canonical import canonical_json, pretty_json, read_json
from oxcart.manifests.columns import ARRAYS, acting, parse_columns
from oxcart.manifests.roles import stored_bgr
from oxcart.shards.codec import CODECS
from oxcart.shards.errors import ConfigError, CorruptError, StoreError
from oxcart.shards.store import WORK, Store

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FORMAT = "oxcart/2"
NAME = "manifest.json"
MOST_BYTES = 32 << 20
"""Size limit of the file, in bytes: enough for some 100,000 environments and shards together."""
CLAIM = f"{WORK}/plan.json"
"""Name of the claim of an unfinished compile: JSON with the hash of its plan and its `shards`."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a compiled dataset holds. `docs/format.md` specifies every field."""

    format: str
    """Name and version of the format."""
    fingerprint: str
    """sha256 over format, pixel and codec settings, what the columns of the arrays mean, and every episode's
    key, split and digest, in plan order."""
    order: str
    """sha256 over every episode's key, split, steps and source digest, in plan order. The order of samples
    follows from it and from the division into shards."""
    dataset: dict[str, Any]
    """Name, version and kind of the source; licence of the data and what to cite, null if unknown."""
    plan: str
    """sha256 of the plan: the same source, configuration and versions give the same plan."""
    counts: dict[str, int]
    """Episodes: source = compiled + rejected + limited."""
    splits: dict[str, dict[str, int]]
    """Exact episodes, steps, frames (summed over cameras) and bytes of each split."""
    environments: list[dict[str, Any]]
    """Name of each environment, how it is known, and exact counts per split."""
    cameras: list[dict[str, Any]]
    """Name, source field, role, channels of the source, codec settings and frame size of each camera; size is
    null if episodes differ."""
    action: dict[str, Any] | None
    """Source fields, values per step, and statistics of train only, for actions."""
    state: dict[str, Any] | None
    """Source fields, values per step, and statistics of train only, for states."""
    reward: dict[str, Any] | None
    """Source field, one value per step, and statistics of train only, for rewards."""
    control_rate: dict[str, Any] | None
    """Steps per second, whether the dataset's own documentation supports it, and where it is said."""
    pixels: dict[str, Any]
    """Settings that shaped the frames of all cameras: cameras, size, fit, filter."""
    shards: list[dict[str, Any]]
    """Name, split, counts, bytes and BLAKE3 digest of each shard and of its chunk table, in plan order."""
    tables: dict[str, dict[str, Any]]
    """Rows, bytes and BLAKE3 digest of each table, and `file` if the table has another file name."""
    config: dict[str, Any]
    """The rest of the configuration that shaped the dataset, the resolved split rule included."""
    versions: dict[str, str]
    """Versions of the libraries that made the bytes."""

    def to_bytes(self) -> bytes:
        """The bytes of `manifest.json`.

        Raises:
            ConfigError: the file would be too large to be read again.
        """
        data = pretty_json(asdict(self))
        if len(data) > MOST_BYTES:
            raise ConfigError(
                f"{NAME}: would have {len(data)} bytes for {len(self.environments)} environments and "
                f"{len(self.shards)} shards, expected at most {MOST_BYTES}; compile several datasets"
            )
        return data

    @property
    def widths(self) -> dict[str, int]:
        """Values per step of each array that the dataset has."""
        return {name: array["size"] for name, array in self.arrays.items() if array is not None}

    @property
    def arrays(self) -> dict[str, dict[str, Any] | None]:
        """The entry of each array that an episode may have; None if the dataset lacks it."""
        return {name: getattr(self, name) for name in ARRAYS}

    def acting(self, values: npt.NDArray[np.float32]) -> tuple[int, int]:
        """The steps of an episode that hold an action; see `oxcart.manifests.columns.acting`.

        Args:
            values: actions [T, A] of the episode.
        """
        return acting(values, parse_columns(self.action), self.no_action)

    @property
    def no_action(self) -> list[str]:
        """`first`, `last`: steps of every episode that hold no action whatever they hold."""
        ends: list[str] = self.config["source"]["no_action"]
        return ends

    @property
    def camera_names(self) -> list[str]:
        """Names of the cameras, in the order of their members."""
        return [camera["name"] for camera in self.cameras]

    def file(self, table: str) -> str:
        """Name of the file that holds a table; an extension gives it a new name."""
        file: str = self.tables[table].get("file", table)
        return file

    def find_camera(self, name: str) -> dict[str, Any] | None:
        """The entry of a camera by name, else by role; without one of role `primary` that is the first camera
        of no role."""
        for what in ("name", "role"):
            for camera in self.cameras:
                if camera[what] == name:
                    return camera
        unknown = [camera for camera in self.cameras if camera["role"] is None]
        return unknown[0] if name == "primary" and unknown else None

    def camera(self, name: str) -> dict[str, Any]:
        """The entry of a camera, as `find_camera` finds it; without a primary one that is the first.

        Raises:
            ConfigError: there is no such camera.
        """
        found = self.find_camera(name)
        if found is not None:
            return found
        if name == "primary":
            return self.cameras[0]
        there = [f"{one['name']} ({one['role']})" if one["role"] else one["name"] for one in self.cameras]
        raise ConfigError(f"camera {name!r}: the dataset has {', '.join(there)}")


def read_manifest(store: Store) -> Manifest:
    """Read the manifest of the dataset in `store`.

    Raises:
        ConfigError: the store holds no dataset, or one of an unknown format.
        CorruptError: the manifest cannot be parsed, or a field is missing or not of its type.
    """
    if not store.exists(NAME):
        unfinished = store.exists(CLAIM)
        remedy = (
            "its compile has not finished; run it again" if unfinished else "compile a source into it first"
        )
        raise ConfigError(f"{store.url}: no {NAME}, so not a compiled dataset; {remedy}")
    try:
        value = read_json(store.read(NAME, MOST_BYTES))
        canonical_json(value)  # refuses NaN, and text that is not Unicode
        found = value["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptError(f"{store.url}/{NAME}: cannot be parsed: {error}") from error
    if found != FORMAT:
        raise ConfigError(f"{store.url}: format {found!r}, expected {FORMAT!r}; {_remedy(found)}")
    names = [field.name for field in fields(Manifest)]
    if missing := [name for name in names if name not in value]:
        raise CorruptError(f"{store.url}/{NAME}: fields missing: {', '.join(missing)}")
    problem = next(schema.problems(value), None)
    if problem:
        raise CorruptError(f"{store.url}/{NAME}: {problem}")
    for camera in value["cameras"]:
        if camera["codec"] not in CODECS:
            raise ConfigError(
                f"{store.url}: codec {camera['codec']!r}, this version reads {', '.join(CODECS)}; "
                "update oxcart"
            )
    return Manifest(**{name: value[name] for name in names})


def read_claim(store: Store) -> dict[str, Any] | None:
    """Read the claim of an unfinished compile; None if there is none.

    Raises:
        CorruptError: the claim is not a JSON object.
        StoreError: the claim cannot be read.
    """
    try:
        data = store.read(CLAIM, MOST_BYTES)
    except StoreError:
        if not store.exists(CLAIM):  # not asked first: the claim may go in between
            return None
        data = store.read(CLAIM, MOST_BYTES)  # it may have been created since the first read
    try:
        value = read_json(data)
    except ValueError as error:
        raise CorruptError(f"{store.url}/{CLAIM}: cannot be parsed: {error}") from error
    if not isinstance(value, dict):
        raise CorruptError(f"{store.url}/{CLAIM}: expected a JSON object, got {type(value).__name__}")
    return value


def episode_digest(members: dict[str, list[int]]) -> str:
    """BLAKE3 (128 bits, hex) over the xxh3-64 digests of an episode's pieces.

    Args:
        members: extension of each member -> digests of its chunks, or of the whole member if it has no
            chunks.
    """
    return blake3(canonical_json(members)).hexdigest(length=16)


def encoded_as(pixels: Mapping[str, Any], cameras: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything that shaped the stored frames: `pixels`, with the codec settings of each camera.

    Args:
        pixels: settings of all cameras, as in the manifest.
        cameras: entries of the cameras, as in the manifest.
    """
    own = ("name", "codec", "quality", "chunk")
    shaped = []
    for camera in cameras:
        swapped = {"channels": "bgr"} if stored_bgr(camera) else {}
        shaped.append({**{name: camera[name] for name in own}, **swapped})
    return {**pixels, "cameras": shaped}


def fingerprint(
    pixels: Mapping[str, Any],
    arrays: Mapping[str, Mapping[str, Any] | None],
    no_action: Sequence[str],
    episodes: Iterable[tuple[str, str, str]],
) -> str:
    """sha256 of an object of `columns`, `episodes`, `format`, `no_action`, `pixels` as canonical JSON.

    Args:
        pixels: settings that shaped the stored frames, from `encoded_as`.
        arrays: the entry of each of `ARRAYS` in the manifest, or None; only its `columns` count.
        no_action: steps that hold no action whatever they hold, as in the manifest.
        episodes: key, split and digest of each episode, in plan order.
    """
    columns = {name: array and array["columns"] for name, array in arrays.items()}
    digest = hashlib.sha256(b'{"columns":' + canonical_json(columns) + b',"episodes":')
    for piece in _listed(episodes):
        digest.update(piece)
    for name, value in (("format", FORMAT), ("no_action", list(no_action)), ("pixels", pixels)):
        digest.update(b',"%s":' % name.encode() + canonical_json(value))
    digest.update(b"}")
    return digest.hexdigest()


def order(episodes: Iterable[tuple[str, str, int, int]]) -> str:
    """sha256 of `[[key,split,steps,source_digest],...]` as canonical JSON.

    Neither the format nor the pixels are part of it, so a dataset that is stored in another way keeps it.

    Args:
        episodes: key, split, steps and source digest of each episode, in plan order.
    """
    digest = hashlib.sha256()
    for piece in _listed(episodes):
        digest.update(piece)
    return digest.hexdigest()


def _listed(rows: Iterable[tuple[Any, ...]]) -> Iterator[bytes]:
    """A list of rows as canonical JSON, piece by piece."""
    yield b"["
    for i, row in enumerate(rows):
        yield (b"," if i else b"") + canonical_json(list(row))
    yield b"]"


def _remedy(found: object) -> str:
    if found == "oxcart/1":
        return (
            f"compile its source again with --overwrite or into another directory; its {NAME} says under "
            '"config" with which options it was compiled, and a transcode cannot convert it'
        )
    return "use the oxcart that wrote it"
