"""Who owns a path or URL: keeps results from being written into the data that they were made from.

A result (a report, a plot, labels, a census, a rule) may go anywhere except into a dataset, a source or the
files of a run. These are recognised by their contents:

    dataset   a manifest.json of oxcart's, or .oxcart/plan.json of an unfinished compile
    source    features.json and dataset_info.json of TFDS, recordings.json or oxcart-export.json of oxcart's,
              or a file that `is_lerobot` recognises
    run       config.yaml and run.json; only `RUN_FILES` belong to the run, other names in it are free

A place is judged by where it really is: symbolic links, `..` and other spellings are resolved first. Parent
folders that may not be read are taken to have no owner, since credentials are often limited to one prefix.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from oxcart.manifests.manifest import CLAIM, NAME
from oxcart.manifests.split import SPLITS
from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.names import SHARDS
from oxcart.shards.store import WORK, Store

DATASET, SOURCE, RUN = "dataset", "source", "run"
VIDEOS, MODEL = "folder of videos", "model"
"""Kinds of output directories that contain no marker."""

RECORDINGS, RECORDINGS_FORMAT = "recordings.json", "oxcart-recordings/1"
"""File that makes a folder one of recordings that `oxcart.create` wrote, and the format that it names."""

EXPORT, EXPORT_FORMAT = "oxcart-export.json", "oxcart-export/1"
"""File that is written last into a folder of LeRobot datasets that `oxcart export` makes, and its format."""
EXPORTING = f"{WORK}/export"
"""Object that marks an export that has not finished."""

_MARKS = (
    (DATASET, (NAME,)),
    (DATASET, (CLAIM,)),
    (SOURCE, (EXPORT,)),
    (SOURCE, ("dataset_info.json", "features.json")),
    (SOURCE, (RECORDINGS,)),
    (RUN, ("config.yaml", "run.json")),
)
LEROBOT = ("meta/info.json", "meta_data/info.json")
"""Files in which LeRobot describes a dataset; the second is used by its first version."""
_LEROBOT_SPLITS = {f"{split}/{LEROBOT[0]}": split for split in SPLITS}
"""Such a file in the folder of a split -> the split."""
_LEROBOT_BYTES = 4 << 20
"""Size limit of a LeRobot description, in bytes; real ones have a few kB."""
_MARK_FILES = tuple(dict.fromkeys(name for _, names in _MARKS for name in names))
_HEAD_BYTES = 4096
"""Bytes at the start of a manifest that contain its format."""

RUN_FILES = frozenset(
    (
        *("config.yaml", "run.json", "metrics.jsonl", "checkpoints", "model"),
        *("report.md", "loss.png", "codes.png", "samples.png", "samples"),
        *("tensorboard", "wandb", "wandb-id"),
    )
)
"""Files that training writes in the directory of its run, except `analysis.html` and `analysis.json`, which a
later analysis may replace."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The dataset, source or run that a place belongs to."""

    kind: str
    """Kind of owner: `dataset`, `source` or `run`."""
    place: str
    """The directory or URL of the owner."""
    inside: str
    """Path of the place inside the owner, with "/"; "" is the owner's directory itself."""

    @property
    def lends(self) -> bool:
        """Whether other results may be written there: a name that the owner does not use."""
        name = self.inside.partition("/")[0]
        return self.kind == RUN and bool(name) and name not in RUN_FILES and not name.startswith(".")


def is_lerobot(store: Store, name: str) -> bool:
    """Whether an existing object describes a LeRobot dataset.

    Others have a `meta/info.json`, too, so it is read: LeRobot writes its version into it. What cannot be
    read or parsed describes none.
    """
    try:
        value = json.loads(store.read(name, most=_LEROBOT_BYTES))
    except (StoreError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "codebase_version" in value


def holds_lerobot(store: Store) -> bool:
    """Whether a place is a LeRobot dataset, or a folder of one per split."""
    return any(is_lerobot(store, name) for name in store.found([*LEROBOT, *_LEROBOT_SPLITS]))


def lerobot_splits(store: Store) -> list[str]:
    """The splits of which a folder holds a LeRobot dataset each; none if it is a LeRobot dataset itself."""
    there = [name for name in store.found([*LEROBOT, *_LEROBOT_SPLITS]) if is_lerobot(store, name)]
    return [] if {*there} & {*LEROBOT} else [_LEROBOT_SPLITS[name] for name in there]


def resolved(place: str | os.PathLike[str]) -> str:
    """One canonical text for every spelling of a local path or URL; symbolic links are followed."""
    text = os.fspath(place)
    return Store(text).url.rstrip("/") if "://" in text else os.path.realpath(text)


def within(place: str, folder: str) -> bool:
    """Whether a place is a folder or lies in it; both must be `resolved`."""
    return place == folder or place.startswith(folder.rstrip("/") + "/")


def same_file(one: str, other: str) -> bool:
    """Whether two paths are the same file or directory, under whatever names."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def owners(place: str | os.PathLike[str]) -> Iterator[Owner]:
    """The datasets, sources and runs that a place is or lies in, innermost first."""
    whole = resolved(place)
    for folder in _and_parents(whole):
        for kind in _kinds(folder, strict=folder == whole):
            yield Owner(kind=kind, place=folder, inside=whole[len(folder) :].strip("/"))


def holds_dataset(store: Store) -> bool:
    """Whether there is a `manifest.json` written by oxcart; other programs use that name too."""
    return _begins_with(store, NAME, b'"format": "oxcart/')


def holds_recordings(store: Store) -> bool:
    """Whether there is a `recordings.json` written by oxcart; other programs use that name too."""
    return _begins_with(store, RECORDINGS, b'"format": "oxcart-recordings/')


def _begins_with(store: Store, name: str, mark: bytes) -> bool:
    """Whether an object exists and has a mark near its beginning."""
    size = min(store.found([name]).get(name, 0), _HEAD_BYTES)
    return size > 0 and mark in store.read_range(name, 0, size)


def check_file(what: str, place: str | os.PathLike[str]) -> None:
    """Refuse an output file inside a dataset or a source, or in place of a run's own files.

    Args:
        what: the argument, as in the message.
        place: local path or URL of the file.

    Raises:
        ConfigError: the place belongs to a dataset, a source or a run; the message names it.
    """
    for owner in owners(place):
        if not owner.lends:
            raise ConfigError(
                f"{what}: {os.fspath(place)!r} is inside the {owner.kind} {owner.place!r}, which no command "
                "changes; choose a path outside of it"
            )


def check_directory(what: str, place: str | os.PathLike[str], kind: str) -> None:
    """Refuse an output directory that is, or lies in, a dataset, a source or a run of another kind.

    Args:
        what: the argument, as in the message.
        place: local path or URL of the directory.
        kind: what will be written there; an existing directory of this kind is left to the caller's rules.

    Raises:
        ConfigError: the place belongs to something else, which the message names; or a folder in it is a
            symbolic link.
    """
    for owner in owners(place):
        if (owner.inside and not owner.lends) or (not owner.inside and owner.kind != kind):
            raise ConfigError(
                f"{what}: {os.fspath(place)!r} is {'inside ' if owner.inside else ''}the {owner.kind} "
                f"{owner.place!r}, which no command changes; choose another directory"
            )
    if kind == DATASET and "://" not in os.fspath(place):
        for name in (SHARDS, WORK):
            link = Path(place, name)
            if link.is_symlink():
                raise ConfigError(
                    f"{what}: {str(link)!r} is a symbolic link to {os.path.realpath(link)!r}, expected a "
                    "folder of its own; remove the link or choose another directory"
                )


def _kinds(folder: str, strict: bool) -> list[str]:
    """The kinds that a folder is; more than one only if somebody has mixed them.

    Raises:
        StoreError: it cannot be looked into, and `strict` is set.
    """
    files = _MARK_FILES + LEROBOT
    try:
        if "://" in folder:
            there = set(Store(folder).found(files))
        else:
            there = {name for name in files if os.path.exists(os.path.join(folder, name))}
        for name, holds in ((NAME, holds_dataset), (RECORDINGS, holds_recordings)):
            if name in there and not holds(Store(folder)):
                there.remove(name)
        kinds = [kind for kind, names in _MARKS if there.issuperset(names)]
        if any(name in there and is_lerobot(Store(folder), name) for name in LEROBOT):
            kinds.append(SOURCE)
    except StoreError:
        if strict and "://" in folder:
            raise
        return []
    return list(dict.fromkeys(kinds))


def _and_parents(place: str) -> Iterator[str]:
    """A place and every folder above it; of a URL down to its bucket, host or repository."""
    if "://" not in place:
        yield from map(str, (Path(place), *Path(place).parents))
        return
    parts = urlsplit(place)
    path = parts.path.rstrip("/")
    if parts.scheme == "hf":
        owner, name, *inside = path.strip("/").split("/")
        path = "/".join(("", *inside)).rstrip("/")
        parts = parts._replace(netloc=f"{parts.netloc}/{owner}/{name}")
    while path:
        yield f"{parts.scheme}://{parts.netloc}{path}"
        path = posixpath.dirname(path).rstrip("/")
    yield f"{parts.scheme}://{parts.netloc}"
