"""Who owns a path or URL, so that no result is written into what it was made from.

A result (a report, a plot, labels, a census, a rule) may go anywhere but into a dataset, a source or the
files of a run, which are recognised by what lies in them:

    dataset   a manifest.json of oxcart's, or .oxcart/plan.json of an unfinished compile
    source    features.json and dataset_info.json of TFDS, or what `is_lerobot` knows
    run       config.yaml and run.json; only `RUN_FILES` are its own, other names in it are free

A place is judged by where it really is: symbolic links, `..` and other spellings are resolved first. Folders
above it that may not be looked into are taken for nobody's, as credentials are often limited to one prefix.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.names import SHARDS
from oxcart.shards.store import WORK, Store

DATASET, SOURCE, RUN = "dataset", "source", "run"
VIDEOS, MODEL = "folder of videos", "model"
"""Kinds of directories that are written and that nothing marks."""

MANIFEST = "manifest.json"
_MARKS = (
    (DATASET, (MANIFEST,)),
    (DATASET, (f"{WORK}/plan.json",)),
    (SOURCE, ("dataset_info.json", "features.json")),
    (RUN, ("config.yaml", "run.json")),
)
LEROBOT = ("meta/info.json", "meta_data/info.json")
"""Where LeRobot describes a dataset; the second is of its first version."""
_LEROBOT_BYTES = 4 << 20
"""A description that is longer is somebody else's; those of LeRobot are a few kB."""
_MARK_FILES = tuple(dict.fromkeys(name for _, names in _MARKS for name in names))
_HEAD_BYTES = 4096
"""Bytes at the beginning of a manifest within which it says its format."""

RUN_FILES = frozenset(
    (
        *("config.yaml", "run.json", "metrics.jsonl", "checkpoints", "model"),
        *("report.md", "loss.png", "codes.png", "samples.png", "samples"),
        *("tensorboard", "wandb", "wandb-id"),
    )
)
"""Names that a training writes in the directory of its run. Its `analysis.html` and `analysis.json` are not
among them: a later analysis may take their place."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """What a place belongs to."""

    kind: str
    """`dataset`, `source` or `run`."""
    place: str
    """The directory or URL of the owner."""
    inside: str
    """The place relative to it, with "/"; "" is the owner's directory itself."""

    @property
    def lends(self) -> bool:
        """Whether the place is one that the owner has no use for itself."""
        name = self.inside.partition("/")[0]
        return self.kind == RUN and bool(name) and name not in RUN_FILES and not name.startswith(".")


def is_lerobot(store: Store, name: str) -> bool:
    """Whether an object that is there describes a LeRobot dataset.

    Others have a `meta/info.json`, too, so it is read: LeRobot writes its version into it. What cannot be
    read or parsed describes none.
    """
    try:
        value = json.loads(store.read(name, most=_LEROBOT_BYTES))
    except (StoreError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "codebase_version" in value


def resolved(place: str | os.PathLike[str]) -> str:
    """The same text for every spelling of a local path or URL; symbolic links are followed."""
    text = os.fspath(place)
    return Store(text).url.rstrip("/") if "://" in text else os.path.realpath(text)


def within(place: str, folder: str) -> bool:
    """Whether a place is a folder or lies in it, both `resolved`."""
    return place == folder or place.startswith(folder.rstrip("/") + "/")


def same_file(one: str, other: str) -> bool:
    """Whether both are one file or directory of the system, under whatever names."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def owners(place: str | os.PathLike[str]) -> Iterator[Owner]:
    """Datasets, sources and runs that a place is or lies in, the innermost first."""
    whole = resolved(place)
    for folder in _and_parents(whole):
        for kind in _kinds(folder, strict=folder == whole):
            yield Owner(kind=kind, place=folder, inside=whole[len(folder) :].strip("/"))


def holds_dataset(store: Store) -> bool:
    """Whether `manifest.json` is there and oxcart's: other programs call a file so too."""
    size = min(store.found([MANIFEST]).get(MANIFEST, 0), _HEAD_BYTES)
    return size > 0 and b'"format": "oxcart/' in store.read_range(MANIFEST, 0, size)


def check_file(what: str, place: str | os.PathLike[str]) -> None:
    """Refuse a file of results inside a dataset or a source, or in place of a run's own files.

    Args:
        what: the argument, as in the message.
        place: local path or URL of the file.

    Raises:
        ConfigError: says whose the place is.
    """
    for owner in owners(place):
        if not owner.lends:
            raise ConfigError(
                f"{what}: {os.fspath(place)!r} is inside the {owner.kind} {owner.place!r}, which no command "
                "changes; choose a path outside of it"
            )


def check_directory(what: str, place: str | os.PathLike[str], kind: str) -> None:
    """Refuse a directory to write that is, or lies in, a dataset, a source or a run of another kind.

    Args:
        what: the argument, as in the message.
        place: local path or URL of the directory.
        kind: what will be written there; a directory that is one already is left to the caller's own rules.

    Raises:
        ConfigError: says whose the place is; or a folder of a dataset in it is a symbolic link.
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
    """What a folder is; more than one thing only where somebody has mixed them.

    Raises:
        StoreError: it cannot be looked into, and `strict` is set.
    """
    files = _MARK_FILES + LEROBOT
    try:
        if "://" in folder:
            there = set(Store(folder).found(files))
        else:
            there = {name for name in files if os.path.exists(os.path.join(folder, name))}
        if MANIFEST in there and not holds_dataset(Store(folder)):
            there.remove(MANIFEST)
        kinds = [kind for kind, names in _MARKS if there.issuperset(names)]
        if any(name in there and is_lerobot(Store(folder), name) for name in LEROBOT):
            kinds.append(SOURCE)
    except StoreError:
        if strict and "://" in folder:
            raise
        return []
    return list(dict.fromkeys(kinds))


def _and_parents(place: str) -> Iterator[str]:
    """A place and every folder above it; of a URL down to its bucket or host."""
    if "://" not in place:
        yield from map(str, (Path(place), *Path(place).parents))
        return
    parts = urlsplit(place)
    path = parts.path.rstrip("/")
    while path:
        yield f"{parts.scheme}://{parts.netloc}{path}"
        path = posixpath.dirname(path).rstrip("/")
    yield f"{parts.scheme}://{parts.netloc}"
