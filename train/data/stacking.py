"""What the datasets of a loader must share so that samples fit into one batch: cameras, sizes, columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oxcart.manifests.columns import Column
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.roles import ROLES
from oxcart.shards.errors import ConfigError
from oxcart.train.data.config import LoaderConfig
from oxcart.train.data.index import SplitIndex
from oxcart.train.data.stream import DatasetStream
from oxcart.train.data.summing import summed


def cameras_of(datasets: Sequence[Dataset], config: LoaderConfig) -> list[tuple[str, ...]]:
    """The cameras of a window that each dataset has.

    A role may be missing in some datasets; a name must be one of a camera of each.

    Raises:
        ConfigError: no dataset has a camera of a role, or one has no camera of a name.
    """
    if not isinstance(config.sample.window.frames, Mapping):
        return [config.cameras] * len(datasets)
    for name in config.cameras:
        lacking = [one for one in datasets if one.manifest.find_camera(name) is None]
        if lacking and (name not in ROLES or len(lacking) == len(datasets)):
            there = ", ".join(
                f"{one['name']} ({one['role']})" if one["role"] else one["name"]
                for one in lacking[0].manifest.cameras
            )
            raise ConfigError(f"frames: {lacking[0].store.url} has no camera {name!r}, but {there}")
    return [
        tuple(name for name in config.cameras if one.manifest.find_camera(name) is not None)
        for one in datasets
    ]


def common_size(indexes: Sequence[SplitIndex], camera: str) -> tuple[int, int]:
    """Height and width that the frames of one camera have in all datasets."""
    sizes = {
        index.dataset.store.url: index.cameras[camera].uniform for index in indexes if camera in index.cameras
    }
    found = set(sizes.values())
    if len(found) == 1 and None not in found:
        (only,) = found
        assert only is not None
        return only
    said = "; ".join(f"{url} {f'{one[0]}x{one[1]}' if one else 'of several'}" for url, one in sizes.items())
    raise ConfigError(f"size: frames of camera {camera} differ in size ({said}); pass size=, e.g. 224")


def columns_of(streams: Sequence[DatasetStream]) -> dict[str, dict[str, tuple[Column, ...]]]:
    """Name of each dataset -> `action`, `state` -> the columns that are read.

    Raises:
        ConfigError: two datasets of one name have different columns, so that the name does not tell which.
    """
    found: dict[str, dict[str, tuple[Column, ...]]] = {}
    for one in streams:
        if found.setdefault(one.name, one.columns) != one.columns:
            raise ConfigError(
                f"datasets: two are called {one.name!r}, with different columns, which a batch could not "
                "tell apart; read them with loaders of their own"
            )
    return found


def common_width(streams: Sequence[DatasetStream], array: str, config: LoaderConfig) -> int:
    """Columns of an array in a batch.

    Raises:
        ConfigError: datasets whose columns differ would be stacked, or are wider than `pad_to`.
    """
    said = {}
    for one in streams:
        columns = one.columns[array]
        columns = summed(columns) if config.action == "sum" and array == "action" else columns
        said[one.index.dataset.store.url] = [f"{column.name} ({column.kind})" for column in columns]
    widths = {url: len(columns) for url, columns in said.items()}
    width = config.width(array)
    if width is not None:
        for url, own in widths.items():
            if own > width:
                raise ConfigError(f"pad_to: {url} has {own} columns of {array}, more than {width}")
        return width
    first = next(iter(said.values()))
    if all(one == first for one in said.values()):
        return len(first)
    listed = "; ".join(f"{url} {', '.join(columns)}" for url, columns in said.items())
    choose = ", or choose action_columns that all have" if array == "action" else ""
    raise ConfigError(
        f"{array}: datasets have different columns: {listed}; mix those that agree{choose}, "
        "or widen all with pad_to"
    )
