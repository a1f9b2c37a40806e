"""Where episodes come from. `base` is the protocol; one module for each kind of source."""

from __future__ import annotations

import os

from oxcart.compile.sources.base import Source, SourceConfig
from oxcart.shards.errors import ConfigError

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
            from oxcart.compile.sources.video import VideoSource
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{config.url}: reading videos needs the package {error.name}; pip install 'oxcart[video]'"
            ) from error
        return VideoSource(config)
    from oxcart.compile.sources.rlds import RldsSource

    return RldsSource(config)


def recognise(source: str) -> tuple[str, str]:
    """Kind and URL of a source: `videos:DIR`, a directory that holds videos and no dataset, else RLDS."""
    if source.startswith(VIDEOS):
        return "videos", source.removeprefix(VIDEOS)
    if "://" not in source and os.path.isdir(source) and not os.path.exists(os.path.join(source, INFO)):
        from oxcart.compile.sources.video_names import is_video

        for _, _, names in os.walk(source):
            if any(is_video(name) for name in names):
                return "videos", source
    return "rlds", source
