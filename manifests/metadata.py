"""`KEY.json`: what is known of an episode besides its frames and arrays, in one form for all datasets.

    {"attribution": {"channel": "", ...}, "control_rate": 5.0, "dataset": "bridge", "environment": "sink",
     "instructions": [{"field": "steps/language_instruction", "step": 0, "text": "push"}],
     "shapes": [{"member": "action", "shape": [38, 7]}], ...}

Readers that have types (Arrow, and so `datasets` of Hugging Face) take them from a few episodes, and hold all
others to them, those of another dataset too. So every episode has every field, a field has one type, no
object has names that are data, no list is empty, and nothing is null: what is unknown is "" or 0.0. The
trade-off: an unknown environment and one called "" look the same here. `episodes.parquet` has nulls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from oxcart.manifests.tables import ATTRIBUTION_SCHEMA
from oxcart.shards.errors import CorruptError

BLANK: Mapping[str, Any] = {
    **dict.fromkeys(("key", "dataset", "environment", "environment_known", "session", "instruction"), ""),
    "control_rate": 0.0,
    "steps": 0,
    "source": {"split": "", "file": "", "record": 0},
    "attribution": {
        field.name: "" if pa.types.is_string(field.type) else 0.0
        for field in ATTRIBUTION_SCHEMA
        if field.name not in ("key", "same_as")  # `same_as` depends on which other videos there are
    },
}
"""Fields beside the two lists -> their value if nothing is known, which also is of their type."""

_NO_INSTRUCTION = {"field": "", "step": 0, "text": ""}


def make_metadata(
    known: Mapping[str, Any],
    instructions: Mapping[str, Sequence[tuple[int, str]]],
    shapes: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """The content of `KEY.json`.

    Args:
        known: values of the fields of `BLANK`; None, or a field that is missing, is not known.
        instructions: source field -> (step at which the text begins, text) of each text.
        shapes: member without its extension -> its shape.
    """
    runs = [
        {"field": field, "step": int(step), "text": text}
        for field, texts in instructions.items()
        for step, text in texts
    ]
    return {
        **_filled(known, BLANK),
        "instructions": runs or [_NO_INSTRUCTION],
        "shapes": [{"member": member, "shape": list(shape)} for member, shape in shapes.items()],
    }


def instructions_of(metadata: Mapping[str, Any]) -> dict[str, list[tuple[int, str]]]:
    """The instructions in `KEY.json`: field -> (step at which the text begins, text) of each text.

    Raises:
        CorruptError: the instructions do not follow the format.
    """
    runs = metadata.get("instructions")
    wrong = [run for run in runs if not _alike(run, _NO_INSTRUCTION)] if isinstance(runs, list) else [runs]
    if wrong:
        got = json.dumps(wrong[0])[:60]
        raise CorruptError(f"json: instructions: expected objects of field, step and text, got {got}")
    found: dict[str, list[tuple[int, str]]] = {}
    for run in runs or []:
        if run["field"]:
            found.setdefault(run["field"], []).append((run["step"], run["text"]))
    return found


def attribution_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Whose work an episode is, according to `KEY.json`; every value is "" or 0.0 if the source does not say.

    Raises:
        CorruptError: the attribution does not follow the format.
    """
    found: Any = metadata.get("attribution")
    blank = BLANK["attribution"]
    if not _alike(found, blank):
        got = json.dumps(found)[:60]
        raise CorruptError(f"json: attribution: expected an object of {', '.join(blank)}, got {got}")
    return {name: found[name] for name in blank}


def _filled(values: Mapping[str, Any], blank: Mapping[str, Any]) -> dict[str, Any]:
    """The values with the fields and types of `blank`, which stand for what is not known."""
    assert values.keys() <= blank.keys(), values.keys() - blank.keys()
    filled = {}
    for name, unknown in blank.items():
        value = values.get(name)
        if isinstance(unknown, dict):
            filled[name] = _filled(value or {}, unknown)
        else:
            filled[name] = unknown if value is None else type(unknown)(value)
    return filled


def _alike(value: Any, blank: Mapping[str, Any]) -> bool:
    """Whether a value is an object with the fields of `blank`, and maybe more, of the same types."""
    return isinstance(value, dict) and all(type(value.get(name)) is type(blank[name]) for name in blank)
