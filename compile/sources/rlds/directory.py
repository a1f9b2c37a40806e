"""A TensorFlow Datasets directory: its files, and the structure of their records.

Everything comes from its two JSON files, read with TFDS's own classes and without TensorFlow. A feature that
TFDS cannot describe in this way (an unknown class, a dtype that NumPy lacks, a `Video`) is set aside with the
reason, and matters only to those who ask for it.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from tensorflow_datasets.core import features as tfds_features
from tensorflow_datasets.core.utils import py_utils

from oxcart.compile.sources.kinds import INFO, refuse_lerobot
from oxcart.shards.errors import ConfigError, SourceError
from oxcart.shards.store import Store

FEATURES = "features.json"

MAX_RECORDS = 1_000_000
"""Most records of one file: what the six digits of a key hold. Every promised record becomes a row, even a
lost one, so an absurd promise must not be believed."""

_LISTED = 10_000
"""Maximum number of names to search for the dataset that was meant."""

_SEQUENCES = (tfds_features.Dataset, tfds_features.Sequence)
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")
_CLASSES = {
    name: one
    for one in vars(tfds_features).values()
    if isinstance(one, type) and issubclass(one, tfds_features.FeatureConnector)
    for name in (f"{one.__module__}.{one.__qualname__}", *vars(one).get("ALIASES", ()))
}
"""Full name -> class, for the features of TFDS; TFDS would import the module of any other name."""
_NEED_TENSORFLOW = (tfds_features.Audio, tfds_features.Video)
"""Classes that import TensorFlow as soon as a feature is made."""


class File(NamedTuple):
    """One TFRecord file."""

    split: str
    number: int
    """Position of the file within its split."""
    records: int
    """Records that the file holds, as `dataset_info.json` says."""


@dataclass(frozen=True, kw_only=True)
class TfdsDirectory:
    """The description that a TFDS directory gives of itself."""

    name: str
    version: str
    files: Mapping[str, File]
    """Name -> file, split by split in the order of `dataset_info.json`."""
    sizes: Mapping[str, int]
    """Name -> bytes of the two JSON files and of every TFRecord file, as of when the directory was read."""
    leaves: Mapping[str, Any]
    """Path -> TFDS feature of every leaf."""
    specs: Mapping[str, Any]
    """Path -> TFDS `TensorInfo`: how a record stores the leaf."""
    unreadable: Mapping[str, str]
    """Path -> why TFDS cannot say how a record stores the feature."""


def read_directory(store: Store, splits: tuple[str, ...] | None = None) -> TfdsDirectory:
    """Read and check the directory in `store`.

    Args:
        store: the store of the directory.
        splits: the source's own splits whose files are listed; None lists all.

    Raises:
        ConfigError: there is no such split.
        SourceError: the directory is not a complete TFDS dataset of TFRecord files.
    """
    try:
        described = store.found((INFO, FEATURES))
        info = _read_info(store, described)
        leaves, specs, unreadable = _read_features(store)
        files = _list_files(info, splits)
        return TfdsDirectory(
            name=info["name"],
            version=info["version"],
            files=files,
            sizes={**described, **_find(store, list(files))},
            leaves=leaves,
            specs=specs,
            unreadable=unreadable,
        )
    except SourceError as error:
        if error.file is None:
            raise
        raise SourceError(error.reason, file=f"{store.url.rstrip('/')}/{error.file}") from error


def _read_json(store: Store, name: str) -> Any:
    try:
        return json.loads(store.read(name))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"cannot be parsed: {error}", file=name) from error


def _read_info(store: Store, found: Mapping[str, int]) -> dict[str, Any]:
    """The content of `dataset_info.json`, checked as far as it is used."""
    for name in (INFO, FEATURES):
        if name not in found:
            names = store.list(limit=_LISTED) if store.listable else []
            refuse_lerobot(store, names)
            inside = sorted({other.rsplit("/", 1)[0] for other in names if other.endswith("/" + INFO)})
            hint = f"did you mean {store.url.rstrip('/')}/{inside[0]}?" if inside else "is the copy complete?"
            raise SourceError(f"{store.url}: no {name}, so not a TFDS directory; {hint}")
    info = _read_json(store, INFO)
    problem = None
    if not isinstance(info, dict) or not all(_is_name(info.get(key)) for key in ("name", "version")):
        problem = "expected an object with a name and a version"
    elif info.get("fileFormat", "tfrecord") != "tfrecord":
        problem = f"file format {info['fileFormat']!r}: only tfrecord can be read"
    elif not isinstance(info.get("splits"), list) or not info["splits"]:
        problem = "no splits"
    if problem:
        raise SourceError(problem, file=INFO)
    assert isinstance(info, dict)
    return info


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _list_files(info: dict[str, Any], wanted: tuple[str, ...] | None) -> dict[str, File]:
    """Name -> file, for the wanted splits; None lists all splits."""
    splits: list[str] = []
    files: dict[str, File] = {}
    for split in info["splits"]:
        try:
            if not _is_name(split["name"]) or split["name"] in splits:
                raise ValueError(f"name {split['name']!r} is none or is taken")
            lengths = [int(length) for length in split["shardLengths"]]
            for length in lengths:
                if not 0 <= length <= MAX_RECORDS:
                    raise ValueError(f"{length} records in a file, expected 0 to {MAX_RECORDS}")
            template = split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
            names = [
                _expand(
                    template,
                    DATASET=info["name"],
                    SPLIT=split["name"],
                    FILEFORMAT="tfrecord",
                    SHARD_X_OF_Y=f"{i:05d}-of-{len(lengths):05d}",
                    SHARD_INDEX=f"{i:05d}",
                    NUM_SHARDS=f"{len(lengths):05d}",
                )
                for i in range(len(lengths))
            ]
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise SourceError(f"a split is malformed: {type(error).__name__} {error}", file=INFO) from error
        if any("/" in name or not _is_name(name) for name in names):
            raise SourceError(f"split {split['name']!r} names a file outside its directory", file=INFO)
        if len({*files, *names}) != len(files) + len(names):
            raise SourceError(f"split {split['name']!r} names a file twice", file=INFO)
        files |= {name: File(split["name"], i, lengths[i]) for i, name in enumerate(names)}
        splits.append(split["name"])
    for name in wanted or ():
        if name not in splits:
            raise ConfigError(f"source split {name!r}: the dataset has {', '.join(splits)}")
    return {name: file for name, file in files.items() if wanted is None or file.split in wanted}


def _find(store: Store, files: list[str]) -> dict[str, int]:
    """Name -> bytes of the files, all of which must exist."""
    found = store.found(files)
    missing = [name for name in files if name not in found]
    if missing:
        counts = f"{len(missing)} of {len(files)} TFRecord files that {INFO} names are missing"
        raise SourceError(f"{store.url}: {counts}, the first is {missing[0]}; is the copy complete?")
    return found


def _expand(template: str, **values: str) -> str:
    """Fill in a template, without `str.format`, which can be made to take any amount of memory."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ValueError(f"filepathTemplate {template!r} has {match[0]}")
        return values[match[1]]

    return re.sub(r"\{([^{}]*)\}", value, template)


def _read_features(store: Store) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Leaves, specs and unreadable features of a `TfdsDirectory`."""
    value = _read_json(store, FEATURES)
    try:
        unreadable = dict(_take_out("", value))
        if reason := unreadable.get("steps") or _foreign(value):
            raise ValueError(reason)
        features = tfds_features.FeaturesDict.from_json(value)
        leaves = dict(_leaves("", features))
        specs = dict(py_utils.flatten_nest_dict(features.get_serialized_info()))
    except Exception as error:  # third-party parsers meet arbitrary JSON here
        raise SourceError(
            f"not a TFDS description of features: {_first_line(error)}", file=FEATURES
        ) from error
    found = isinstance(features, tfds_features.FeaturesDict) and "steps" in features
    steps = features["steps"] if found else None
    if not isinstance(steps, _SEQUENCES) or not any(path.startswith("steps/") for path in leaves):
        raise SourceError("no feature 'steps', so these are not RLDS episodes", file=FEATURES)
    for path in (*specs, *unreadable):
        if not _is_name(path):
            raise SourceError(f"feature {path!r}: the name cannot be printed", file=FEATURES)
    return leaves, specs, unreadable


def _take_out(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Delete from a dictionary's description what TFDS cannot describe; yields path and reason of each."""
    entries = _entries(value) or {}
    for name, inner in list(entries.items()):
        where = f"{path}/{name}" if path else name
        held = _element(inner) if where == "steps" else inner
        if _entries(held) is not None:
            yield from _take_out(where, held)
        elif reason := _obstacle(inner):
            del entries[name]
            yield where, reason


def _entries(value: Any) -> dict[str, Any] | None:
    """Name -> description of the features of a dictionary, not copied; None for any other feature."""
    if not issubclass(_class_of(value), tfds_features.FeaturesDict):
        return None
    if "type" in value:
        content = value.get("content")
        found = content if not value.get("proto_cls") else _get(content, "features")
    else:
        found = _get(_get(value, "featuresDict", "features_dict"), "features")
    return found if isinstance(found, dict) else None


def _element(value: Any) -> Any:
    """The description of a sequence's elements; None for any other feature."""
    if not issubclass(_class_of(value), _SEQUENCES):
        return None
    return _get(_get(value, "sequence", "content"), "feature")


def _class_of(value: Any) -> type:
    """The class of the feature that a value describes; `object` if TFDS has no such class."""
    name = _get(value, *_CLASS_KEYS)
    return _CLASSES.get(name, object) if isinstance(name, str) else object


def _get(value: Any, *keys: str) -> Any:
    """The value of the first of the keys that exists; None if none does."""
    return next((value[key] for key in keys if key in value), None) if isinstance(value, dict) else None


def _obstacle(value: Any) -> str | None:
    """Reason why TFDS cannot say how a record stores the described feature; None if it can."""
    if reason := _foreign(value):
        return reason
    try:
        feature = tfds_features.FeatureConnector.from_json(copy.deepcopy(value))
        assert feature.np_dtype is not None
        feature.get_serialized_info()
    except Exception as error:  # noqa: BLE001 - third-party parsers meet arbitrary JSON here
        return f"TFDS cannot read its description: {_first_line(error)}"
    return None


def _foreign(value: Any) -> str | None:
    """The first reason why TFDS would import another module, or TensorFlow, to read a description."""
    for one in _objects(value):
        for name in (one[key] for key in _CLASS_KEYS if isinstance(one.get(key), str)):
            if name not in _CLASSES:
                return f"feature class {name!r} is not one of TFDS"
            if issubclass(_CLASSES[name], _NEED_TENSORFLOW):
                return f"feature class {_CLASSES[name].__name__} cannot be read without TensorFlow"
        dtype = one.get("dtype")
        if isinstance(dtype, str) and dtype != "string":
            try:
                np.dtype(dtype)
            except TypeError:
                return f"dtype {dtype!r} is not one of NumPy's"
    return None


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of a description, including those of JSON within JSON."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += value
        elif isinstance(value, dict):
            left += value.values()
            yield value
            for key in ("json", "content"):
                if isinstance(value.get(key), str):
                    with contextlib.suppress(ValueError, RecursionError):
                        left.append(json.loads(value[key]))


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _leaves(path: str, feature: Any) -> Iterator[tuple[str, Any]]:
    """Path and TFDS feature of every leaf."""
    if isinstance(feature, tfds_features.FeaturesDict):
        for name, inner in feature.items():
            yield from _leaves(f"{path}/{name}" if path else name, inner)
    elif path == "steps" and isinstance(feature, _SEQUENCES):
        yield from _leaves(path, feature.feature)
    else:
        yield path, feature
