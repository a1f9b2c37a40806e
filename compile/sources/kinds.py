"""Recognise the kind of source at a place. The videos of a LeRobot dataset are no source of their own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from oxcart.compile.sources.videos.files import is_video
from oxcart.manifests.ownership import LEROBOT, holds_lerobot, holds_recordings, is_lerobot
from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.store import Store

VIDEOS = "videos:"
"""Prefix of the directory or URL of a source that holds videos."""
INFO = "dataset_info.json"
"""File that makes a directory a TFDS dataset."""
HDF5 = (".hdf5", ".h5")
"""Ends of the names of HDF5 files."""
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""First bytes of an HDF5 file."""


def recognise(source: str) -> tuple[str, str]:
    """Kind and URL of a source; the URL of one on the Hub names the commit that it is now.

    The kind is `recordings` for a folder that `oxcart.create` wrote, `lerobot` for a LeRobot dataset or a
    folder of one per split,
    `videos` for `videos:DIR`, `hdf5` for an HDF5 file and for a directory that holds some but no TFDS
    dataset, `videos` for one that holds videos but neither, else `rlds`.

    Raises:
        ConfigError: the source is on this machine but is neither a directory nor an HDF5 file.
    """
    url = source.removeprefix(VIDEOS)
    videos = url != source
    store = Store(url)
    if store.remote:
        url = store.url
    if not videos:
        if store.listable and holds_recordings(store):
            return "recordings", url
        if holds_lerobot(store):
            return "lerobot", url
    if store.remote:
        return ("videos" if videos else "rlds"), url
    if not os.path.isdir(url):
        if not videos and _is_hdf5(url):
            return "hdf5", url
        what = "is a file" if os.path.exists(url) else "does not exist"
        raise ConfigError(f"{url}: {what}; expected a directory or a URL as the source, or an HDF5 file")
    if videos:
        return "videos", url
    if os.path.exists(os.path.join(url, INFO)):
        return "rlds", url
    names = [os.path.join(folder, name) for folder, _, names in os.walk(url) for name in names]
    if any(name.endswith(HDF5) and _is_hdf5(name) for name in names):
        return "hdf5", url
    return ("videos" if any(map(is_video, names)) else "rlds"), url


def _is_hdf5(path: str) -> bool:
    """Whether a path is that of a file that begins as HDF5 files do."""
    with contextlib.suppress(OSError):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                return file.read(len(_SIGNATURE)) == _SIGNATURE
    return False


def refuse_lerobot(store: Store, names: Iterable[str]) -> None:
    """Refuse to take a place for another source if it is a LeRobot dataset, holds one, or lies in one.

    The videos would compile, but without their actions, and with each camera as a video of its own.

    Args:
        store: the place.
        names: files known to exist there, at any depth.

    Raises:
        ConfigError: the place belongs to a LeRobot dataset, or holds one.
    """
    ends = tuple(f"/{name}" for name in LEROBOT)
    described = (name for name in (*store.found(LEROBOT), *names) if f"/{name}".endswith(ends))
    inside = next((name for name in described if is_lerobot(store, name)), None)
    found = _lerobot_above(store) if inside is None else f"{store.url.rstrip('/')}/{inside}"
    if found is not None:
        root = found.rsplit("/", 2)[0]
        raise ConfigError(
            f"{store.url}: expected an RLDS dataset or a folder of videos, got a LeRobot dataset "
            f"({found}), whose videos would lose their actions; pass {root} itself"
        )


def _lerobot_above(store: Store) -> str | None:
    """Metadata file of the LeRobot dataset whose `videos` folder holds this place; None if there is none."""
    parts = (store.url if store.remote else os.path.realpath(store.url)).split("/")
    for above in ("/".join(parts[:at]) for at, part in enumerate(parts) if part == "videos"):
        with contextlib.suppress(StoreError, ConfigError):  # the folders above may not be readable
            folder = Store(above)
            for name in folder.found(LEROBOT):
                if is_lerobot(folder, name):
                    return f"{above}/{name}"
    return None
