"""Where episodes come from. `base` is the protocol; one module for each kind of source."""

from __future__ import annotations

from oxcart.compile.sources.base import Source, SourceConfig


def open_source(config: SourceConfig) -> Source:
    """Open the source that `config` describes.

    Raises:
        ConfigError: an option names something that the source does not have.
        SourceError: the source is not complete.
    """
    if config.kind == "compiled":
        from oxcart.compile.sources.compiled import CompiledSource

        return CompiledSource(config)
    from oxcart.compile.sources.rlds import RldsSource

    return RldsSource(config)
