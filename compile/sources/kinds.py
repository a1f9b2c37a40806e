"""Recognise the kind of source at a place. The videos of a LeRobot dataset are no source of their own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from oxcart.compile.sources.videos.files import is_video
from oxcart.manifests.ownership import LEROBOT, holds_recordings, is_lerobot
from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.store import Store

VIDEOS = "videos:"
"""Prefix of the directory or URL of a source that holds videos."""
INFO = "dataset_info.json"
"""File that makes a directory a TFDS dataset."""


def recognise(source: str) -> tuple[str, str]:
    """Kind and URL of a source.

    The kind is `recordings` for a folder that `oxcart.create` wrote, `lerobot` for a LeRobot dataset,
    `videos` for `videos:DIR` and for a directory that holds videos but no TFDS dataset, else `rlds`.

    Raises:
        ConfigError: the source is on this machine but is not a directory.
    """
    url = source.removeprefix(VIDEOS)
    store = Store(url)
    if source == url and store.listable:
        if holds_recordings(store):
            return "recordings", url
        if any(is_lerobot(store, name) for name in store.found(LEROBOT)):
            return "lerobot", url
    if store.remote:
        return ("videos" if source.startswith(VIDEOS) else "rlds"), url
    if not os.path.isdir(url):
        what = "is a file" if os.path.exists(url) else "does not exist"
        raise ConfigError(f"{url}: {what}; expected a directory or a URL as the source")
    is_dataset = os.path.exists(os.path.join(url, INFO))
    videos = (name for _, _, names in os.walk(url) for name in names if is_video(name))
    if source.startswith(VIDEOS) or (not is_dataset and any(videos)):
        return "videos", url
    return "rlds", url


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
