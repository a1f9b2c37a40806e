"""Where episodes come from. `base` is the protocol; one module for each kind of source."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from oxcart.compile.sources.base import Source, SourceConfig
from oxcart.manifests.ownership import LEROBOT, is_lerobot
from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.store import Store

VIDEOS = "videos:"
"""Before the directory or URL of a source: it holds videos."""
INFO = "dataset_info.json"
"""A directory with this file is a TFDS dataset."""


def open_source(config: SourceConfig) -> Source:
    """Open the source that `config` describes.

    Raises:
        ConfigError: an option names something that the source does not have.
        SourceError: the source is not complete.
    """
    if config.kind == "compiled":
        from oxcart.compile.sources.compiled import CompiledSource

        return CompiledSource(config)
    if config.kind == "videos":
        try:
            from oxcart.compile.sources.videos.source import VideoSource
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{config.url}: reading videos needs the package {error.name}; pip install 'oxcart[video]'"
            ) from error
        return VideoSource(config)
    from oxcart.compile.sources.rlds.source import RldsSource

    return RldsSource(config)


def recognise(source: str) -> tuple[str, str]:
    """Kind and URL of a source: `videos:DIR`, a directory that holds videos and no dataset, else RLDS.

    Raises:
        ConfigError: it is on this machine, and no directory.
    """
    url = source.removeprefix(VIDEOS)
    if Store(url).remote:
        return ("videos" if source.startswith(VIDEOS) else "rlds"), url
    if not os.path.isdir(url):
        what = "is a file" if os.path.exists(url) else "does not exist"
        raise ConfigError(f"{url}: {what}; expected a directory or a URL as the source")
    if source.startswith(VIDEOS):
        return "videos", url
    if not os.path.exists(os.path.join(url, INFO)):
        from oxcart.compile.sources.videos.names import is_video

        for _, _, names in os.walk(url):
            if any(is_video(name) for name in names):
                return "videos", url
    return "rlds", url


def refuse_lerobot(store: Store, names: Iterable[str]) -> None:
    """Refuse a place that is a LeRobot dataset, has one below it, or is the folder of videos of one.

    Its videos would compile, without their actions and with each camera as a video of its own.

    Args:
        store: the place.
        names: what is known to be there, at any depth.

    Raises:
        ConfigError: there is such a dataset.
    """
    ends = tuple(f"/{name}" for name in LEROBOT)
    described = (name for name in (*store.found(LEROBOT), *names) if f"/{name}".endswith(ends))
    inside = next((name for name in described if is_lerobot(store, name)), None)
    found = _lerobot_above(store) if inside is None else f"{store.url.rstrip('/')}/{inside}"
    if found is not None:
        raise ConfigError(
            f"{store.url}: expected an RLDS dataset or a folder of videos, got a LeRobot dataset ({found}); "
            "as videos it would lose its actions, so convert it to RLDS first"
        )


def _lerobot_above(store: Store) -> str | None:
    """The file that makes a LeRobot dataset of a folder that has this place in its `videos`."""
    parts = (store.url if store.remote else os.path.realpath(store.url)).split("/")
    for above in ("/".join(parts[:at]) for at, part in enumerate(parts) if part == "videos"):
        with contextlib.suppress(StoreError, ConfigError):  # who may read the videos need not see above them
            folder = Store(above)
            for name in folder.found(LEROBOT):
                if is_lerobot(folder, name):
                    return f"{above}/{name}"
    return None
