"""Canonical JSON: equal values give equal bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

MOST_MEMORY = 512 << 20
"""Limit on the memory of parsed JSON, in bytes, at 240 per object and 64 per other value."""

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys, no white space and no NaN."""
    return _CANONICAL.encode(value).encode()


def read_json(data: bytes) -> Any:
    """Parse JSON that may come from a stranger.

    Raises:
        ValueError: the data is not JSON, is nested too deep, or would take more than `MOST_MEMORY`.
    """
    # Each value but the first comes after one of these; in texts they only make the sum larger.
    taken = 240 * data.count(b"{") + 64 * sum(data.count(one) for one in (b"[", b",", b":"))
    if taken > MOST_MEMORY:
        raise ValueError(f"its values would take about {taken:,} bytes, more than {MOST_MEMORY:,}")
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("is nested too deep") from None


def pretty_json(value: Any) -> bytes:
    """UTF-8 JSON for people, keys in the order given: two spaces of indent, plain lists on one line."""
    return (_pretty(value, "\n") + "\n").encode()


def sha256_json(value: Any) -> str:
    """sha256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def differences(before: Any, after: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every place at which two JSON values differ: its dotted name, the value before and the value after.

    A value that is absent is None, and so is every value of an object that is absent. Lists are compared as
    one value unless they hold as many objects each.
    """
    one, two = ({} if value is None else value for value in (before, after))
    if isinstance(one, Mapping) and isinstance(two, Mapping) and (one or two):
        for key in dict.fromkeys([*one, *two]):
            yield from differences(one.get(key), two.get(key), f"{name}.{key}" if name else str(key))
    elif _are_objects(before) and _are_objects(after) and len(before) == len(after):
        for i, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{name}[{i}]")
    elif before != after:
        yield name, before, after


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, Mapping) for one in value)


def _pretty(value: Any, newline: str) -> str:
    inner = newline + "  "
    if isinstance(value, dict) and value:
        items = (f"{json.dumps(str(k), ensure_ascii=False)}: {_pretty(v, inner)}" for k, v in value.items())
        return "{" + inner + f",{inner}".join(items) + newline + "}"
    if isinstance(value, list | tuple) and any(isinstance(item, dict | list | tuple) for item in value):
        return "[" + inner + f",{inner}".join(_pretty(item, inner) for item in value) + newline + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
