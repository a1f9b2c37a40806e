"""`KEY.json` has one form whatever is known; what is not of this form is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from oxcart.manifests.canonical import canonical_json
from oxcart.manifests.metadata import attribution_of, instructions_of, make_metadata
from oxcart.shards.errors import CorruptError

KNOWN: dict[str, Any] = {
    "key": "kitchens-train-00000-000000",
    "dataset": "kitchens",
    "environment": "sink",
    "environment_known": "declared",
    "session": "monday",
    "instruction": "push",
    "control_rate": 5,
    "steps": 38,
    "source": {"split": "train", "file": "a.tfrecord", "record": 3},
    "attribution": {"video": "v", "title": "t", "channel": None, "start_s": 1, "stop_s": 2.5},
}
SAID = {"later": [(0, ""), (3, "lift")], "again": [(0, "push")]}


def form(value: Any) -> Any:
    """A value with its type in place of every text and number; lists are of one form."""
    if isinstance(value, dict):
        return {name: form(inner) for name, inner in value.items()}
    if isinstance(value, list):
        (only,) = {json.dumps(form(inner)) for inner in value}
        return [json.loads(only)]
    return type(value).__name__


def test_the_form_is_the_same_whatever_is_known() -> None:
    shapes = {"action": (38, 7), "front": (38, 4, 6, 3)}
    all_known, nothing = make_metadata(KNOWN, SAID, shapes), make_metadata({}, {}, {"front": (2, 4, 6, 3)})
    assert form(all_known) == form(nothing) == form(make_metadata(dict.fromkeys(KNOWN), {}, shapes))
    assert "NoneType" not in str(form(all_known))
    assert "[]" not in canonical_json(nothing).decode()


def test_what_is_known_is_there_and_numbers_of_a_field_have_one_type() -> None:
    made = make_metadata(KNOWN, SAID, {"action": (38, 7)})
    assert {name: made[name] for name in KNOWN if name != "attribution"} == {
        name: value for name, value in KNOWN.items() if name != "attribution"
    }
    assert b'"control_rate":5.0' in canonical_json(made)
    assert made["shapes"] == [{"member": "action", "shape": [38, 7]}]
    assert made["attribution"] == {
        "video": "v",
        "title": "t",
        "channel": "",
        "channel_id": "",
        "licence": "",
        "url": "",
        "uploaded": "",
        "start_s": 1.0,
        "stop_s": 2.5,
    }


def test_a_field_that_the_form_lacks_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="colour"):
        make_metadata({"colour": "red"}, {}, {})


@pytest.mark.parametrize("said", [SAID, {}])
def test_instructions_come_back_by_field_in_their_order(said: dict[str, list[tuple[int, str]]]) -> None:
    again = json.loads(canonical_json(make_metadata(KNOWN, said, {})))
    assert list(instructions_of(again).items()) == list(said.items())


def test_attributions_come_back() -> None:
    for known in (KNOWN, {}):
        made = make_metadata(known, {}, {})
        assert attribution_of(json.loads(canonical_json(made))) == made["attribution"]
        again = make_metadata({**known, "attribution": attribution_of(made)}, {}, {})
        assert canonical_json(again) == canonical_json(made)


@pytest.mark.parametrize(
    "run",
    [
        "5",
        '"push"',
        "[0]",
        '[0,"push"]',
        "null",
        "{}",
        '{"field":"a","step":0}',
        '{"field":"a","step":0,"text":5}',
        '{"field":"a","step":true,"text":""}',
        '{"field":"a","step":1e999,"text":""}',
        '{"field":null,"step":0,"text":""}',
    ],
)
def test_other_instructions_are_refused(run: str) -> None:
    message = r"^json: instructions: expected objects of field, step and text, got [^\n]+$"
    with pytest.raises(CorruptError, match=message):
        instructions_of({"instructions": [{"field": "a", "step": 0, "text": ""}, json.loads(run)]})


@pytest.mark.parametrize("runs", [5, "push", {}, {"a": [[0, "push"]]}, None])
def test_what_stands_in_place_of_the_instructions_is_said(runs: Any) -> None:
    message = f"json: instructions: expected objects of field, step and text, got {json.dumps(runs)}"
    with pytest.raises(CorruptError, match=f"^{re.escape(message)}$"):
        instructions_of({"instructions": runs})


@pytest.mark.parametrize("change", [None, [], {"title": 3}, {"title": None}, {"start_s": 1}])
def test_another_attribution_is_refused(change: Any) -> None:
    made = make_metadata(KNOWN, {}, {})["attribution"]
    wrong = {**made, **change} if isinstance(change, dict) else change
    with pytest.raises(CorruptError, match=r"^json: attribution: expected an object of video, [^\n]+$"):
        attribution_of({"attribution": wrong})
