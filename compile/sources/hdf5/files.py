"""The one place that opens an HDF5 file, and what of it may be read.

An HDF5 file may point anywhere: links and virtual datasets name other files, a group may contain itself, and
a dataset of a few bytes may declare terabytes. So only hard links are followed, walks are bounded, and the
size of a dataset is compared with what the file stores for it before memory is taken. Whatever the library
raises on damaged bytes becomes an error of one line.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from oxcart.shards.errors import OxcartError, SourceError

MOST_BYTES = 1 << 36
"""Size limit of a dataset that is read, in bytes: an hour of 640x480 frames at 20 per second."""
MOST_RATIO = 2048
"""Limit of how much smaller a compressed dataset may be; deflate cannot do more than half of it."""
MOST_NODES = 10_000
"""Limit of the groups and datasets of an episode that are listed."""
DEPTH = 5
"""Limit of the groups inside each other that are listed."""


class UnfitError(ValueError):
    """What a file holds cannot be read; the caller adds where it is."""


@contextlib.contextmanager
def opened(path: str, name: str) -> Iterator[h5py.File]:
    """An open file; `name` stands for it in errors.

    Raises:
        SourceError: the file is no HDF5 file, or what the block reads from it cannot be read.
    """
    try:
        with explained(), h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except UnfitError as error:
        raise SourceError(str(error), file=name) from error


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn whatever the library raises inside the block into an UnfitError of one line.

    Raises:
        UnfitError: something cannot be read.
    """
    try:
        yield
    except (OxcartError, UnfitError):
        raise
    except Exception as error:  # the library raises many kinds on damaged bytes
        said = error.args[0] if isinstance(error, KeyError) and error.args else error
        reason = " ".join(str(said).split())[:200] or type(error).__name__
        raise UnfitError(f"cannot be read: {reason}") from error


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key that puts demo_2 before demo_10; the name itself decides between equals."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def find(group: h5py.Group, path: str) -> Any:
    """The group or dataset at a path; None if there is none.

    Raises:
        UnfitError: the path leads over a soft or external link.
    """
    here: Any = group
    for part in filter(None, path.split("/")):
        link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise UnfitError(not_followed(path))
        here = here[part]
    return here if isinstance(here, h5py.Group | h5py.Dataset) else None


def not_followed(path: str) -> str:
    """The message that a path leads over a link to elsewhere."""
    return f"{path} is a soft or external link, which is not followed; copy what it points to"


def groups(group: h5py.Group) -> list[str]:
    """Names of the groups right inside a group, in natural order."""
    names = [name for name in group if isinstance(group.get(name, getlink=True), h5py.HardLink)]
    inside = [name for name in names if group.get(name, getclass=True) is h5py.Group]
    return sorted(inside, key=natural)


def datasets(group: h5py.Group) -> tuple[dict[str, h5py.Dataset], list[str]]:
    """Path -> every dataset inside a group, at any depth up to `DEPTH`, in natural order.

    Also returns the paths of soft and external links, which are not followed.
    """
    found: dict[str, h5py.Dataset] = {}
    links: list[str] = []
    seen = 0
    waiting: list[tuple[str, h5py.Group]] = [("", group)]
    while waiting:
        above, here = waiting.pop()
        for name in here:
            seen += 1
            if seen > MOST_NODES:
                raise UnfitError(f"holds more than {MOST_NODES:,} groups and datasets")
            if not isinstance(here.get(name, getlink=True), h5py.HardLink):
                links.append(f"{above}{name}")
                continue
            node = here[name]
            if isinstance(node, h5py.Dataset):
                found[f"{above}{name}"] = node
            elif isinstance(node, h5py.Group) and above.count("/") + 1 < DEPTH:
                waiting.append((f"{above}{name}/", node))
    return {path: found[path] for path in sorted(found, key=natural)}, links


def check_stored(dataset: h5py.Dataset, path: str) -> None:
    """Refuse a dataset whose bytes are not all in the file; to be called before any is read.

    Raises:
        UnfitError: its values are in other files, the file stores too few bytes for its shape, or it is too
            large.
    """
    if dataset.external or dataset.is_virtual:
        raise UnfitError(
            f"{path} keeps its values in other files, which are not read; copy them into this one"
        )
    size = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
    stored = int(dataset.id.get_storage_size())
    ratio = MOST_RATIO if dataset.id.get_create_plist().get_nfilters() else 1
    if size > stored * ratio:
        raise UnfitError(f"{path} declares {size:,} bytes, of which the file stores {stored:,}")
    if size > MOST_BYTES:
        raise UnfitError(f"{path} has {size:,} bytes, expected at most {MOST_BYTES:,}")


def describe(dataset: h5py.Dataset) -> str:
    """Type and shape of a dataset, as in messages."""
    kind = dataset.dtype
    rows = h5py.check_vlen_dtype(kind)
    name = str(kind) if rows is None else "texts" if rows in (str, bytes) else f"rows of {rows}"
    return f"{name[:40]} {list(dataset.shape or ())}"


def as_text(value: Any, field: str) -> str:
    """The text of an attribute or a dataset that holds a single value.

    Raises:
        UnfitError: it holds several.
    """
    if isinstance(value, np.ndarray):
        if value.size != 1:
            raise UnfitError(f"{field} holds {value.size:,} values, expected one")
        value = value.reshape(-1)[0]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str | int | float | bool):
        raise UnfitError(f"{field} holds {type(value).__name__}, expected a text or a number")
    return str(value).strip()
