"""oxcart: robot data that is compiled once and read at full bandwidth, split by environments held out.

    import oxcart

    dataset = oxcart.open("bridge")                        # a directory or a URL
    frame = dataset["KEY"].frames("wrist")[3]              # an episode by its key, and one of its frames
    loader = oxcart.Loader(dataset, sample=oxcart.Pairs(frames=5), batch_size=256)

Names are imported when they are first used, so `import oxcart` takes no time and needs no PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oxcart.compile.sources.recordings.writer import Recorder as Recorder
    from oxcart.compile.sources.recordings.writer import create as create
    from oxcart.manifests.columns import Column as Column
    from oxcart.manifests.dataset import Dataset as Dataset
    from oxcart.manifests.dataset import Episode as Episode
    from oxcart.shards.errors import ConfigError as ConfigError
    from oxcart.shards.errors import CorruptError as CorruptError
    from oxcart.shards.errors import OxcartError as OxcartError
    from oxcart.shards.errors import SourceError as SourceError
    from oxcart.shards.errors import StoreError as StoreError
    from oxcart.train.data import Batch as Batch
    from oxcart.train.data import Frames as Frames
    from oxcart.train.data import Loader as Loader
    from oxcart.train.data import Mixture as Mixture
    from oxcart.train.data import Normalizer as Normalizer
    from oxcart.train.data import Pairs as Pairs
    from oxcart.train.data import Seconds as Seconds
    from oxcart.train.data import Window as Window
    from oxcart.train.policy.controller import Controller as Controller
    from oxcart.train.policy.controller import load_policy as load_policy

_MODULES = {
    **dict.fromkeys(("Dataset", "Episode"), "oxcart.manifests.dataset"),
    "Column": "oxcart.manifests.columns",
    **dict.fromkeys(("Controller", "load_policy"), "oxcart.train.policy.controller"),
    **dict.fromkeys(("Recorder", "create"), "oxcart.compile.sources.recordings.writer"),
    **dict.fromkeys(
        ("Batch", "Frames", "Loader", "Mixture", "Normalizer", "Pairs", "Seconds", "Window"),
        "oxcart.train.data",
    ),
    **dict.fromkeys(
        ("ConfigError", "CorruptError", "OxcartError", "SourceError", "StoreError"), "oxcart.shards.errors"
    ),
}
"""Name -> the module that defines it."""

__all__ = [
    "Batch",
    "Column",
    "ConfigError",
    "Controller",
    "CorruptError",
    "Dataset",
    "Episode",
    "Frames",
    "Loader",
    "Mixture",
    "Normalizer",
    "OxcartError",
    "Pairs",
    "Recorder",
    "Seconds",
    "SourceError",
    "StoreError",
    "Window",
    "create",
    "load_policy",
    "open",
]


def open(url: str) -> Dataset:
    """Open a compiled dataset in a directory or at a URL, such as `s3://bucket/bridge`.

    Raises:
        ConfigError: there is no dataset, or it is of another format.
        CorruptError: its manifest is damaged.
        StoreError: the place cannot be reached.
    """
    from oxcart.manifests.dataset import Dataset

    return Dataset.open(url)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("oxcart")
    if name not in _MODULES:
        raise AttributeError(f"module 'oxcart' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
