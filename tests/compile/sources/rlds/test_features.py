"""Fields of an RLDS source: dictionaries, parts of features, packed tensors; on tiny datasets."""

from __future__ import annotations

import copy
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow_datasets.core import features as tfds_features

from oxcart.compile.catalog import Entry
from oxcart.compile.census import rows as table_of
from oxcart.compile.sources.base import EnvironmentRule
from oxcart.compile.sources.rlds import source as rlds_source
from oxcart.manifests.columns import unnamed
from oxcart.shards.errors import ConfigError
from rlds_builder import Image, Tensor, Text, noisy_frame, png, write_dataset
from toy_rlds import (
    FEATURES,
    census,
    changed,
    episode,
    fails,
    only,
    open_rlds,
    packed,
    read,
    rejected,
    vector,
)

NESTED = changed(
    FEATURES,
    action={
        "world_vector": vector(3),
        "gripper/closed": np.bool_,
        "rotation": {"b": np.float64, "a": vector(2, np.int32)},
        "comment": Text(),
    },
)


def nested_step(t: int) -> dict[str, Any]:
    return {
        "world_vector": [t, t + 0.25, t + 0.5],
        "gripper/closed": t % 2 == 0,
        "rotation": {"b": -t, "a": [10 + t, 20 + t]},
        "comment": "not a number",
    }


def test_a_dictionary_of_actions_is_its_numbers_by_name(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, NESTED, [episode(action=nested_step)])
    _, found = only(root)
    expected = [[t % 2 == 0, 10 + t, 20 + t, -t, t, t + 0.25, t + 0.5] for t in range(3)]
    np.testing.assert_array_equal(found.action, np.array(expected, np.float32))
    assert sum(open_rlds(root).array_sizes["action"]) == 7
    for option in ("action", "steps/action"):
        assert open_rlds(root, action=(option,)).describe()["action"] == [
            "steps/action/gripper/closed",
            "steps/action/rotation/a",
            "steps/action/rotation/b",
            "steps/action/world_vector",
        ]


def test_fields_that_are_named_are_concatenated_in_the_order_of_their_naming(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, NESTED, [episode(action=nested_step)])
    _, found = only(root, action=("action/world_vector", "action/rotation", "steps/action/gripper/closed"))
    expected = [[t, t + 0.25, t + 0.5, 10 + t, 20 + t, -t, t % 2 == 0] for t in range(3)]
    np.testing.assert_array_equal(found.action, np.array(expected, np.float32))


def test_without_actions_and_states_there_are_none(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode()])
    _, found = only(root, action=(), state=())
    assert found.action is None
    assert found.state is None
    source = open_rlds(root, action=(), state=())
    assert (source.array_sizes["action"], source.array_sizes["state"]) == ((), ())


def test_a_leaf_of_the_name_comes_before_a_dictionary_further_down(tmp_path: Path) -> None:
    features = copy.deepcopy(FEATURES)
    features["steps"]["observation"]["action"] = {"x": vector(9)}
    values = episode()
    for step in values["steps"]:
        step["observation"]["action"] = {"x": range(9)}
    source = open_rlds(write_dataset(tmp_path, features, [values]), action=("action",))
    assert source.describe()["action"] == ["steps/action"]


def test_names_with_slashes_are_paths_like_any_other(tmp_path: Path) -> None:
    """bc_z calls its features `present/xyz`."""
    features = {
        "steps": {
            "observation": {
                "image/left": Image(shape=(12, 16, 3)),
                "present/xyz": vector(3),
                "present/gripper": vector(1),
                "episode/lang": Text(),
            },
            "action": {"future/xyz_residual": vector(6), "future/target_close": vector(2, np.int64)},
        },
        "meta/site": Text(),
    }
    steps = [
        {
            "observation": {
                "image/left": png(noisy_frame(t)),
                "present/xyz": [t, t, t],
                "present/gripper": [0.5],
                "episode/lang": "wipe",
            },
            "action": {"future/xyz_residual": [t] * 6, "future/target_close": [1, 0]},
        }
        for t in range(2)
    ]
    root = write_dataset(tmp_path, features, [{"steps": steps, "meta/site": "lab/7"}])
    options = {
        "state": ("present",),
        "instruction": ("episode/lang",),
        "environment": EnvironmentRule.parse("meta/site~^(lab)"),
    }
    row, found = only(root, **options)
    assert list(found.images) == ["image_left"]
    assert row.environment == "lab"
    assert row.instructions == ("wipe",)
    np.testing.assert_array_equal(found.action, [[1, 0, *[t] * 6] for t in range(2)])
    np.testing.assert_array_equal(found.state, [[0.5, t, t, t] for t in range(2)])


def test_scalars_and_matrices_a_step_are_flattened(tmp_path: Path) -> None:
    features = changed(FEATURES, action={"m": Tensor(shape=(2, 3), dtype=np.float32), "s": np.int32})
    written = episode(action=lambda t: {"m": np.arange(6).reshape(2, 3) + t, "s": 100 + t})
    _, found = only(write_dataset(tmp_path, features, [written]))
    np.testing.assert_array_equal(found.action, [[*range(t, 6 + t), 100 + t] for t in range(3)])


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("language_instruction", "expected numbers, the source has Text string; pass --action with"),
        ("image", "expected numbers, the source has Image uint8 [any, any, 3]"),
        ("file_path", "expected numbers, the source has Text string"),
        (
            "ragged",
            "expected one fixed shape per step that is not empty, the source has Sequence float32 [any]",
        ),
        ("empty", "expected one fixed shape per step that is not empty, the source has Tensor float32 [0]"),
        ("complex", "expected numbers, the source has Tensor complex64 [2]"),
        ("length", "expected a feature of steps, the source has Tensor int64"),
    ],
)
def test_what_is_not_numbers_of_one_shape_is_no_action(tmp_path: Path, field: str, reason: str) -> None:
    kinds = {
        "ragged": tfds_features.Sequence(np.float32),
        "empty": vector(0),
        "complex": vector(2, np.complex64),
    }
    features = changed(FEATURES, **kinds) | {"length": np.int64}
    assert reason in fails(ConfigError, write_dataset(tmp_path, features, []), action=(field,))


@pytest.mark.parametrize("encoding", ["bytes", "zlib"])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.uint8, np.bool_])
def test_packed_tensors_are_the_numbers_they_hold(tmp_path: Path, encoding: str, kind: Any) -> None:
    features = changed(FEATURES, action=Tensor(shape=(2, 2), dtype=kind, encoding=encoding))
    written = [np.array([[1, t], [0, 0]], kind) for t in range(3)]
    root = write_dataset(tmp_path, features, [episode(action=lambda t: packed(written[t], encoding, kind))])
    source = open_rlds(root, state=("action[1:3]",))
    assert (sum(source.array_sizes["action"]), sum(source.array_sizes["state"])) == (4, 2)
    (row,) = census(source)
    found = read(source, row)
    np.testing.assert_array_equal(found.action, [values.ravel() for values in written])
    np.testing.assert_array_equal(found.state, [values.ravel()[1:3] for values in written])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "holds other than 8 bytes at step 1"),
        (zlib.compress(b"1234567"), "holds other than 8 bytes at step 1"),
        (zlib.compress(bytes(1 << 24)), "holds other than 8 bytes at step 1"),
        (zlib.compress(b"12345678")[:-1], "holds other than 8 bytes at step 1"),
        (zlib.compress(b"12345678")[:-7], "holds other than 8 bytes at step 1"),
        (b"12345678", "cannot be decompressed at step 1"),
    ],
)
def test_a_packed_tensor_of_another_size_is_rejected(tmp_path: Path, data: bytes, reason: str) -> None:
    features = changed(FEATURES, action=Tensor(shape=(2,), dtype=np.float32, encoding="zlib"))
    good = packed([1, 2], "zlib", np.float32)
    root = write_dataset(tmp_path, features, [episode(action=lambda t: data if t == 1 else good)])
    assert reason in rejected(root)


def test_packed_tensors_are_neither_instruction_nor_environment(tmp_path: Path) -> None:
    features = changed(FEATURES, action=Tensor(shape=(2,), dtype=np.float32, encoding="zlib"))
    good = packed([1, 2], "zlib", np.float32)
    root = write_dataset(tmp_path, features, [episode(action=good)])
    assert "expected text" in fails(ConfigError, root, instruction=("action",))
    assert "expected text" in fails(ConfigError, root, environment=EnvironmentRule.parse("action"))


@pytest.mark.parametrize(
    ("field", "name", "expected"),
    [
        ("action[:2]", "steps/action[0:2]", [0, 1]),
        ("action[1:]", "steps/action[1:3]", [1, 2]),
        ("steps/action[:]", "steps/action[0:3]", [0, 1, 2]),
        ("action[-1:]", "steps/action[2:3]", [2]),
        ("action[:-1]", "steps/action[0:2]", [0, 1]),
        ("action[1:2]", "steps/action[1:2]", [1]),
    ],
)
def test_a_part_of_a_feature_is_its_values_in_order(
    tmp_path: Path, field: str, name: str, expected: list[int]
) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode(2)])
    source = open_rlds(root, action=(field, "state"))
    assert sum(source.array_sizes["action"]) == len(expected) + 2
    assert source.describe()["action"] == [name, "steps/observation/state"]
    whole = read(open_rlds(root, action=("action", "state")), census(source)[0]).action
    part = read(source, census(source)[0]).action
    assert whole is not None
    np.testing.assert_array_equal(part, whole[:, [*expected, 3, 4]])


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("action[:4]", "action 'action[:4]': expected a part of 3 values"),
        ("action[3:]", "expected a part of 3 values"),
        ("action[2:1]", "expected a part of 3 values"),
        ("action[:0]", "expected a part of 3 values"),
        ("action[-4:]", "expected a part of 3 values"),
        ("action[1]", "no such feature; there are"),
        ("action[::2]", "no such feature"),
        ("action[a:b]", "no such feature"),
        ("acton[:2]", "action 'acton': no such feature; there are"),
        ("language_instruction[:2]", "expected numbers"),
        ("observation[:2]", "no such feature"),
    ],
)
def test_a_part_that_is_not_there_is_refused(tmp_path: Path, field: str, reason: str) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode()])
    assert reason in fails(ConfigError, root, action=(field,))


def test_a_feature_whose_name_looks_like_a_part_is_itself(tmp_path: Path) -> None:
    features = changed(FEATURES, action={"x[:1]": vector(2), "x": vector(3)})
    root = write_dataset(tmp_path, features, [episode(action={"x[:1]": [1, 2], "x": [3, 4, 5]})])
    assert open_rlds(root, action=("action/x[:1]",)).describe()["action"] == ["steps/action/x[:1]"]
    assert open_rlds(root, action=("action/x[:1][1:]",)).describe()["action"] == ["steps/action/x[:1][1:2]"]


def test_a_feature_with_other_values_than_the_catalog_says_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"action": unnamed("catalog", 7), "state": unnamed("catalog", 2)}
    monkeypatch.setattr(rlds_source, "lookup", lambda name: Entry(columns=known))
    root = write_dataset(tmp_path, FEATURES, [episode()])

    def warnings(**options: Any) -> list[str]:
        source = open_rlds(root, **options)
        return source.warnings(table_of(census(source), ("image",)))

    said = "action steps/action: expected the 7 values of the catalog, got 3, so its columns have no names "
    said += "and unknown kinds; pass --action-names and --action-kind"
    assert warnings() == warnings(action=("action[:1]", "action[2:]")) == [said]
    assert warnings(action_names=("dx", "dy", "dz")) == warnings(action_kinds=("delta",)) == []
    assert warnings(known_columns={"action": unnamed("before", 3)}) == []


LATE = 1_700_000_000_123_456_789
"""A time in nanoseconds."""


@pytest.mark.parametrize(
    ("kind", "encoding", "value", "warned"),
    [
        (np.int64, "none", LATE, True),
        (np.int64, "none", -(2**24) - 1, True),
        (np.int32, "none", 2**24 + 1, True),
        (np.uint64, "bytes", 2**64 - 1, True),
        (np.float64, "zlib", 1.7e9 + 0.25, True),
        (np.int64, "none", 2**24, False),
        (np.int64, "none", 2**60, False),
        (np.int64, "none", -(2**63), False),
        (np.float64, "zlib", 0.1, False),
        (np.float64, "none", 1.7e9 + 0.25, False),
        (np.int16, "none", 30_000, False),
        (np.float32, "none", 3e38, False),
    ],
)
def test_a_number_that_float32_takes_for_another_is_named_once_with_its_column(
    tmp_path: Path, kind: Any, encoding: str, value: float, warned: bool
) -> None:
    features = changed(FEATURES, action=Tensor(shape=(3,), dtype=kind, encoding=encoding))

    def step(t: int) -> Any:
        values = [0, t, value if t else 0]
        return values if encoding == "none" else packed(values, encoding, kind)

    root = write_dataset(tmp_path, features, [episode(i, action=step) for i in range(2)])
    source = open_rlds(root, action=("action[1:]",))
    rows = census(source)
    warnings = source.warnings(table_of(rows, ("image",)))
    example = f"steps/action[2:3], where {value} becomes {float(np.float32(value)):.0f}"
    assert warnings == ([f"float32 does not hold the values of {example}"] if warned else [])
    assert [row.rejected for row in rows] == [None, None]


def test_a_source_without_such_numbers_says_nothing_in_its_census(tmp_path: Path) -> None:
    assert {row.detail for row in census(open_rlds(write_dataset(tmp_path, FEATURES, [episode()])))} == {None}


@pytest.mark.filterwarnings("error")
def test_a_number_beyond_float32_rejects_its_episode_without_another_word(tmp_path: Path) -> None:
    features = changed(FEATURES, action=Tensor(shape=(1,), dtype=np.float64, encoding="zlib"))
    written = episode(action=lambda t: packed([1e300 if t else 0.0], "zlib", np.float64))
    assert rejected(write_dataset(tmp_path, features, [written])) == "action is NaN or infinite at step 1"
