"""The types of all fields of `manifest.json`, as one declared table, and the check of a manifest against it.

Code that has read a manifest may rely on this table and needs no checks of its own. A manifest may contain
more: fields inside an object that the table does not name are allowed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from oxcart.manifests.columns import ARRAYS, check_distinct, parse_columns
from oxcart.manifests.roles import CHANNELS, ROLES
from oxcart.manifests.split import SPLITS
from oxcart.manifests.tables import ATTRIBUTION, EPISODES, MOST, REJECTED, TABLE_FILE, VALUES
from oxcart.manifests.values import PERCENTS
from oxcart.shards.errors import ConfigError
from oxcart.shards.names import chunks_name, is_shard_file, parse_stem, stem_of, tar_name


@dataclass(frozen=True)
class _Each:
    """An object whose keys are data: any of `names`, or any key at all, with values of one type."""

    kind: Any
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _OrNull:
    kind: Any


_SCALARS = {str: "text", int: "a count", float: "a number", bool: "true or false"}
"""Type -> what messages call it. A count is a non-negative integer less than `MOST`."""

ENDS = ("first", "last")
"""Steps that `config.source.no_action` may list, in this order."""

FRAMES = 1 << 31
"""Exclusive upper bound of the frames of a chunk, as of those of an episode."""
_ROUNDING = 1e-9
"""How far a mean in float64 may be beyond the extremes, as a share of the larger of them."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COUNTS = {"episodes": int, "steps": int, "frames": int, "bytes": int}
_PER_SPLIT = _Each(_COUNTS, SPLITS)
_STATISTICS = {name: [float] for name in ("mean", "std", "min", *PERCENTS, "max")}
_COLUMN = {"name": str, "kind": str, "unit": _OrNull(str), "frame": _OrNull(str)}
_ARRAY = {
    "source": [str],
    "sizes": [int],
    "size": int,
    "columns": [_COLUMN],
    "statistics": _OrNull({"count": int, **_STATISTICS}),
}
_CAMERA = {
    "name": str,
    "source": str,
    "role": _OrNull(str),
    "channels": str,
    "codec": str,
    "quality": _OrNull(int),
    "chunk": int,
    "height": _OrNull(int),
    "width": _OrNull(int),
}
_TABLE = {"rows": int, "bytes": int, "blake3": str}
_SOURCE = {
    **dict.fromkeys(("kind", "name", "version"), str),
    **{name: [str] for name in ("source_splits", "instruction", *ARRAYS, "no_action")},
    "cameras": _Each(str),
    "columns": {name: [_COLUMN] for name in ARRAYS},
    "licence": _OrNull(str),
}
_CHUNKS = {"chunks": str, "chunks_bytes": int, "chunks_blake3": str}

MANIFEST: Mapping[str, Any] = {
    "format": str,
    "fingerprint": str,
    "order": str,
    "dataset": {
        "name": str,
        "version": str,
        "kind": str,
        "licence": _OrNull(str),
        "citation": _OrNull(str),
    },
    "plan": str,
    "counts": {"source": int, "compiled": int, "rejected": int, "limited": int},
    "splits": _PER_SPLIT,
    "environments": [{"name": _OrNull(str), "known": str, "splits": _PER_SPLIT}],
    "cameras": [_CAMERA],
    "action": _OrNull(_ARRAY),
    "state": _OrNull(_ARRAY),
    "reward": _OrNull(_ARRAY),
    "control_rate": _OrNull({"hz": float, "verified": bool, "source": str}),
    "pixels": {"cameras": [str]},
    "shards": [{"name": str, "split": str, **_COUNTS, "blake3": str, **_CHUNKS}],
    "tables": _Each(_TABLE, (EPISODES, REJECTED, VALUES, ATTRIBUTION)),
    "config": {"source": _SOURCE},
    "versions": _Each(str),
}

EXPORT: Mapping[str, Any] = {
    "format": str,
    "dataset": {"name": str, "licence": _OrNull(str), "citation": _OrNull(str)},
    "control_rate": MANIFEST["control_rate"],
    "cameras": [{"name": str, "role": _OrNull(str)}],
    "columns": _Each({"columns": [_COLUMN]}, ("action", "state")),
    "no_action": [str],
}
"""What is read of `oxcart-export.json`."""


def export_problems(about: Any) -> Iterator[str]:
    """The errors in an `oxcart-export.json`, field by field; after the first, the others mean little."""
    if not isinstance(about, dict):
        yield f"expected an object, got {json.dumps(about)[:60]}"
        return
    yield from _mistyped("", about, EXPORT)
    rate = about["control_rate"]
    if rate is not None and not 0 < rate["hz"] < math.inf:
        yield f"control_rate.hz: expected more than 0, got {rate['hz']}"


def problems(manifest: Mapping[str, Any]) -> Iterator[str]:
    """The errors in a manifest, field by field; after the first, the others mean little."""
    yield from _mistyped("", manifest, MANIFEST)
    if not _SHA256.fullmatch(str(manifest["order"])):
        yield f"order: expected 64 hexadecimal digits, got {json.dumps(manifest['order'])[:60]}"
    for name in (EPISODES, REJECTED, VALUES):
        if name not in manifest["tables"]:
            yield f"tables: {name} is missing"
    for name, table in manifest["tables"].items():
        found = TABLE_FILE.fullmatch(str(table.get("file", name)))
        if found is None or f"{found[1]}.parquet" != name:
            yield f"tables.{name}.file: expected a file of that table, got {json.dumps(table['file'])[:60]}"
    if not manifest["cameras"]:
        yield "cameras: expected at least one, got none"
    for i, camera in enumerate(manifest["cameras"]):
        if not 1 <= camera["chunk"] < FRAMES:
            yield f"cameras[{i}].chunk: expected 1 or more, below {FRAMES}; got {camera['chunk']}"
        for what, words in (("role", (None, *ROLES)), ("channels", CHANNELS)):
            if camera[what] not in words:
                expected = ", ".join(filter(None, words))
                yield f"cameras[{i}].{what}: expected one of {expected}; got {camera[what]!r}"
    roles = [camera["role"] for camera in manifest["cameras"] if camera["role"]]
    if len(set(roles)) != len(roles):
        yield f"cameras: expected a role of its own for each, got {', '.join(roles)}"
    names = [camera["name"] for camera in manifest["cameras"]]
    if len(set(names)) != len(names) or {*names} & {*ARRAYS}:
        yield f"cameras: expected names that differ, and none of {', '.join(ARRAYS)}; got {', '.join(names)}"
    config = manifest["config"]
    if (read := list(config["source"]["cameras"])) != names:
        yield f"config.source.cameras: expected {', '.join(names)}, got {', '.join(read)}"
    ends = config["source"]["no_action"]
    if ends != [end for end in ENDS if end in ends]:
        yield f"config.source.no_action: expected {' and '.join(ENDS)} or one or none of them, got {ends}"
    yield from _mistyped("config.parents", config.get("parents", []), [str])
    yield from _mistyped("config.transcoded_from", config.get("transcoded_from", []), [{}])
    for name in ARRAYS:
        array = manifest[name] or {}
        if array and sum(array["sizes"]) != array["size"]:
            yield f"{name}.size: expected the sum of {name}.sizes, {sum(array['sizes'])}; got {array['size']}"
        if array.get("statistics"):
            yield from _wrong_statistics(f"{name}.statistics", array["statistics"], array["size"])
        if array:
            yield from _wrong_columns(name, array)
    seen = set()
    for i, shard in enumerate(manifest["shards"]):
        name, stem = shard["name"], stem_of(shard["name"])
        sound = is_shard_file(name) and name == tar_name(stem) and parse_stem(stem)[0] in SPLITS
        if not sound or name in seen:
            yield f"shards[{i}].name: expected one like shards/train-00000.tar, once; got {name!r}"
        seen.add(name)
        if shard["chunks"] != (expected := chunks_name(stem)):
            yield f"shards[{i}].chunks: expected {expected!r}, got {shard['chunks']!r}"


def _wrong_statistics(where: str, statistics: Mapping[str, Any], size: int) -> Iterator[str]:
    """The errors in the statistics of an array of `size` values per step, whose types are right."""
    for what in _STATISTICS:
        if len(statistics[what]) != size:
            yield f"{where}.{what}: expected a value for each of {size} columns, got {len(statistics[what])}"
            return
    for i in range(size):
        mean, std, *ordered = (statistics[what][i] for what in _STATISTICS)
        if std < 0:
            yield f"{where}.std[{i}]: expected 0 or more, got {std}"
        if ordered != sorted(ordered):
            yield f"{where}: expected min, quantiles and max of column {i} in order, got {ordered}"
        low, high = ordered[0], ordered[-1]
        slack = _ROUNDING * max(abs(low), abs(high))
        if not low - slack <= mean <= high + slack:
            yield f"{where}.mean[{i}]: expected {low} to {high}, got {mean}"


def _wrong_columns(name: str, array: Mapping[str, Any]) -> Iterator[str]:
    """The errors in the columns of an array, whose types are right."""
    if len(array["columns"]) != array["size"]:
        yield f"{name}.columns: expected as many as {name}.size, {array['size']}"
    try:
        check_distinct(parse_columns(array), f"{name}.columns")
    except ConfigError as error:
        yield str(error)


def _mistyped(where: str, value: Any, kind: Any) -> Iterator[str]:
    """Every place inside `value` that has the wrong type."""
    if isinstance(kind, _OrNull):
        if value is not None:
            yield from _mistyped(where, value, kind.kind)
    elif isinstance(kind, list) and isinstance(value, list):
        for i, item in enumerate(value):
            yield from _mistyped(f"{where}[{i}]", item, kind[0])
    elif isinstance(kind, dict) and isinstance(value, dict):
        for name, inner in kind.items():
            if name in value:
                yield from _mistyped(f"{where}.{name}".lstrip("."), value[name], inner)
            else:
                yield f"{where}.{name}: is missing".lstrip(".")
    elif isinstance(kind, _Each) and isinstance(value, dict):
        for name, item in value.items():
            if kind.names is not None and name not in kind.names:
                yield f"{where}: expected any of {', '.join(kind.names)}, got {name!r}"
            yield from _mistyped(f"{where}.{name}", item, kind.kind)
    elif not _is_scalar(value, kind):
        structure = "a list" if isinstance(kind, list) else "an object"
        expected = _SCALARS[kind] if isinstance(kind, type) else structure
        yield f"{where}: expected {expected}, got {json.dumps(value, ensure_ascii=False)[:60]}"


def _is_scalar(value: Any, kind: Any) -> bool:
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST
    if kind is float:
        return isinstance(value, float) or _is_scalar(abs(value) if type(value) is int else value, int)
    return isinstance(kind, type) and isinstance(value, kind)
