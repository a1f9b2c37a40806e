"""Records with images lifted out give what TFDS's own parser gives, however they are written."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tensorflow_datasets.core import features as tfds_features
from tensorflow_datasets.core.example_parser import ExampleParserNp
from tensorflow_datasets.core.utils import py_utils
from tensorflow_datasets.proto import tf_example_pb2

from depth import depth
from oxcart.compile.sources.rlds.example import ExampleParser
from rlds_builder import Image, Tensor, Text, features_of, record
from toy_rlds import vector

FEATURES = {
    "steps": {
        "image": Image(shape=(None, None, 3)),
        "wrist": Image(shape=(None, None, 3)),
        "note": Text(),
        "action": vector(2),
        "packed": Tensor(shape=(2,), dtype=np.float32, encoding="bytes"),
        "ragged": tfds_features.Sequence(np.int64),
        "count": np.int64,
    },
    "path": Text(),
}
SPECS = py_utils.flatten_nest_dict(features_of(FEATURES).get_serialized_info())
WANTED = ("steps/image", "steps/note", "steps/action", "steps/count", "path")
RAGGED = "steps/ragged"

ours = ExampleParser(SPECS, WANTED, ["steps/image"])
tfds = ExampleParserNp({field: SPECS[field] for field in WANTED})


def outcome(parse: Any, data: Any) -> Any:
    """What a parser makes of a record, comparable: values with their types, or its complaint."""
    try:
        found = parse(data)
    except Exception as error:  # noqa: BLE001 - TFDS raises of any kind
        return type(error).__name__, str(error)
    return {field: plain(found[field]) for field in WANTED}


def by_tfds(data: bytes) -> Any:
    """What TFDS makes of a record in which no ragged feature is, over which it stumbles unless it is told."""
    example = tf_example_pb2.Example.FromString(data)
    for name in [name for name in example.features.feature if re.search("/ragged_[a-z]+_[a-z0-9_]+$", name)]:
        if name.rpartition("/ragged_")[0] not in WANTED:
            del example.features.feature[name]
    return tfds.parse_example(example.SerializeToString())


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        kind, shape, values = value.dtype, value.shape, value.tolist()
        return plain(values) if kind.hasobject and len(shape) == 1 else (kind.str, shape, repr(values))
    if isinstance(value, list):
        return [bytes(one) if isinstance(one, memoryview) else plain(one) for one in value]
    return repr(value) if isinstance(value, float | np.floating) else value  # NaN is not equal to NaN


def same(data: bytes) -> Any:
    """The outcome, which must be that of TFDS."""
    found = outcome(ours.parse, memoryview(data))
    assert found == outcome(by_tfds, data)
    return found


def varint(value: int, spare: int = 0) -> bytes:
    """A varint with up to `spare` bytes more than it needs."""
    out = bytearray()
    while value > 0x7F or spare:
        spare -= value <= 0x7F
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes, spare: int = 0) -> bytes:
    return varint(number << 3 | 2) + varint(len(content), spare) + content


def steps(count: int) -> dict[str, Any]:
    step = {"note": "go", "action": [1, 2], "packed": b"\0" * 8, "ragged": [2, 3], "count": -1}
    images = [{"image": bytes([t]) * (t * 700), "wrist": b"w" * 300} for t in range(count)]
    return {"steps": [{**step, **some} for some in images], "path": "/a"}


# A plain writer's features as it writes them, and everything that a wire format may hold in their place.
floats = st.lists(st.floats(width=32), max_size=6).map(lambda v: np.array(v, "<f4").tobytes())
items = st.lists(st.binary(max_size=300), max_size=5)
spares = st.integers(0, 5)
lists = st.one_of(
    st.builds(lambda some, spare: field(1, b"".join(field(1, one, spare) for one in some)), items, spares),
    floats.map(lambda data: field(2, field(1, data))),
    floats.map(lambda data: field(2, b"".join(b"\x0d" + data[i : i + 4] for i in range(0, len(data), 4)))),
    st.lists(st.integers(0, 2**64 - 1)).map(lambda v: field(3, field(1, b"".join(map(varint, v))))),
    st.lists(st.integers(0, 2**63)).map(lambda v: field(3, b"".join(b"\x08" + varint(i) for i in v))),
    st.binary(max_size=20).map(lambda data: field(1, data)),
)
unknown = st.one_of(
    st.builds(field, st.integers(4, 40), st.binary(max_size=9)), st.just(b"\x28\x07"), st.binary(max_size=3)
)
odd = st.one_of(st.just(b""), st.just(b""), unknown)
values = st.builds(lambda one, more: one + more, lists, st.one_of(odd, lists))
names = st.sampled_from(
    [
        *SPECS,
        "steps/image/ragged_row_lengths_0",
        "steps/image/ragged_flat_values",
        f"{RAGGED}/ragged_row_lengths_0",
        f"{RAGGED}/ragged_flat_values",
        "\xff",
    ]
).map(lambda name: name.encode("latin-1"))


def entry(name: bytes, value: bytes, more: bytes, turned: bool, spare: int) -> bytes:
    parts = [field(1, name, spare), field(2, value, spare)]
    return field(1, b"".join(parts[::-1] if turned else parts) + more, spare)


plainly = st.builds(lambda name, value: field(1, field(1, name) + field(2, value)), names, lists)
entries = st.lists(
    st.one_of(plainly, plainly, st.builds(entry, names, values, odd, st.booleans(), spares)), max_size=8
)
examples = st.builds(
    lambda some, more, again, spare: field(1, b"".join(some), spare) + more + again,
    entries,
    odd,
    st.one_of(st.just(b""), entries.map(lambda some: field(1, b"".join(some)))),
    spares,
)


@pytest.mark.parametrize("count", [0, 1, 5, 40])
def test_images_are_views_of_the_record_and_the_rest_is_what_tfds_makes_of_it(count: int) -> None:
    data = record(FEATURES, steps(count))
    assert same(data)["steps/image"] == [bytes([t]) * (t * 700) for t in range(count)]
    images = ours.parse(memoryview(data))["steps/image"]
    assert all(isinstance(image, memoryview) and image.obj is data for image in images)


@depth(1000)
@given(data=examples)
@example(data=field(1, field(1, field(1, b"steps/image") + field(2, field(1, field(1, b"x")))) * 2))
def test_any_record_gives_the_values_or_the_complaint_of_tfds(data: bytes) -> None:
    same(data)


def test_any_damaged_record_gives_the_values_or_the_complaint_of_tfds() -> None:
    whole = record(FEATURES, steps(2))
    for at in range(len(whole)):
        if 1500 < at < 2000:  # inside an image
            continue
        for mask in (0x01, 0x08, 0x80, 0xFF):
            same(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
        same(whole[:at])


@pytest.mark.parametrize("missing", SPECS)
def test_a_missing_feature_is_missing(missing: str) -> None:
    found = same(record(FEATURES, steps(2), without=[missing]))
    assert missing not in WANTED or found[missing] is None


def test_of_an_entry_that_stands_twice_the_last_counts() -> None:
    first, last = (field(1, field(1, b"steps/image") + field(2, field(1, field(1, x)))) for x in (b"1", b"2"))
    assert same(field(1, first + last))["steps/image"] == [b"2"]
    assert same(field(1, first) + field(1, last))["steps/image"] == [b"2"]
