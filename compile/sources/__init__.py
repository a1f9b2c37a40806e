"""The sources of episodes. `base` defines what a source is; `kinds` recognises the kind of a place."""

from __future__ import annotations

from dataclasses import replace

from oxcart.compile.sources.base import Source, SourceConfig
from oxcart.compile.sources.compiled import CompiledSource
from oxcart.compile.sources.recordings.source import RecordingSource
from oxcart.manifests.ownership import lerobot_splits
from oxcart.shards.errors import ConfigError
from oxcart.shards.store import Store


def pinned(config: SourceConfig) -> SourceConfig:
    """The source as it is now, for all processes: on the Hub a revision becomes the commit that it is now."""
    store = Store(config.url)
    return replace(config, url=store.url) if store.remote else config


def open_source(config: SourceConfig) -> Source:
    """Open the source that `config` describes.

    Raises:
        ConfigError: an option names something that the source does not have, or a package is not installed.
        SourceError: the source is not complete.
    """
    source = _opened(config)
    if config.environments is not None:
        config.environments.check(config.kind, source.expected)
        source.places = config.environments
    return source


def _opened(config: SourceConfig) -> Source:
    if config.kind == "compiled":
        return CompiledSource(config)
    if config.kind in ("videos", "lerobot"):
        try:
            from oxcart.compile.sources.lerobot.source import LerobotSource  # decoders are an extra
            from oxcart.compile.sources.lerobot.splits import LerobotSplits
            from oxcart.compile.sources.videos.source import VideoSource
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{config.url}: reading videos needs the package {error.name}; pip install 'oxcart[video]'"
            ) from error
        if config.kind == "videos":
            return VideoSource(config)
        splits = lerobot_splits(Store(config.url))
        return LerobotSplits(config, splits) if splits else LerobotSource(config)
    if config.kind == "recordings":
        return RecordingSource(config)
    if config.kind == "hdf5":
        try:
            from oxcart.compile.sources.hdf5.source import Hdf5Source  # h5py is an extra
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{config.url}: reading HDF5 needs the package {error.name}; pip install 'oxcart[hdf5]'"
            ) from error
        return Hdf5Source(config)
    from oxcart.compile.sources.rlds.source import RldsSource  # TFDS takes a second to import

    return RldsSource(config)
