"""RLDS episodes: what the features mean, what is refused, and that a row reads its own episode again."""

from __future__ import annotations

import copy
import dataclasses
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow_datasets.core import features as tfds_features

from oxcart.compile.images import Resize, decode_into
from oxcart.compile.sources.base import CensusRow, EnvironmentRule, Episode, SourceConfig
from oxcart.compile.sources.rlds import RldsSource
from oxcart.shards.errors import ConfigError, OxcartError, SourceError
from rlds_builder import Image, Tensor, Text, jpeg, picture, png, record, write_dataset, write_file

BRIDGE = Path(__file__).parents[4] / "shared" / "data" / "bridge_dataset" / "1.0.0"


def vector(width: int, kind: Any = np.float32) -> Any:
    return Tensor(shape=(width,), dtype=kind)


FEATURES = {
    "steps": {
        "observation": {"image": Image(shape=(None, None, 3)), "state": vector(2)},
        "action": vector(3),
        "language_instruction": Text(),
        "is_last": np.bool_,
    },
    "episode_metadata": {"file_path": Text()},
}


def episode(seed: int = 0, steps: int = 3, **changes: Any) -> dict[str, Any]:
    """An episode of FEATURES; `changes` replace values of every step by path, or call them with the step."""
    values = {
        "steps": [
            {
                "observation": {"image": jpeg(picture(100 * seed + t)), "state": [seed, t]},
                "action": [seed, t, t / 2],
                "language_instruction": f"do {seed}",
                "is_last": t == steps - 1,
            }
            for t in range(steps)
        ],
        "episode_metadata": {"file_path": f"/data/kitchen{seed}/{seed:04d}/out.npy"},
    }
    for name, value in changes.items():
        for t, step in enumerate(values["steps"]):
            inner = step["observation"] if name in step["observation"] else step
            inner[name] = value(t) if callable(value) else value
    return values


def open_rlds(root: Path, **options: Any) -> RldsSource:
    return RldsSource(SourceConfig(url=str(root), **options))


def census(source: RldsSource) -> list[CensusRow]:
    rows = [row for file in source.files() for row in source.census(file)]
    for row in rows:
        assert row.rejected is None or len(row.rejected.splitlines()) == 1, row.rejected
    return rows


def read(source: RldsSource, row: CensusRow) -> Episode:
    return source.read(dataclasses.asdict(row))


def only(root: Path, **options: Any) -> tuple[CensusRow, Episode]:
    """Row and episode of a source of one good episode."""
    source = open_rlds(root, **options)
    (row,) = census(source)
    assert row.rejected is None
    return row, read(source, row)


def rejected(root: Path, **options: Any) -> str:
    """Why the one episode of a source is rejected."""
    (row,) = census(open_rlds(root, **options))
    assert row.rejected is not None
    return row.rejected


def fails(kind: type[OxcartError], root: Path, **options: Any) -> str:
    """The one line with which a source cannot be opened."""
    with pytest.raises(kind) as caught:
        open_rlds(root, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def changed(features: Mapping[str, Any], **steps: Any) -> dict[str, Any]:
    """Features with other ones under steps; None leaves one out."""
    inner = {k: v for k, v in {**features["steps"], **steps}.items() if v is not None}
    return {**features, "steps": inner}


def test_a_row_and_its_episode_hold_what_was_written(tmp_path: Path) -> None:
    written = episode(4, steps=5)
    row, found = only(write_dataset(tmp_path, FEATURES, [written], name="my.set"))
    assert row.key == "my_set-train-00000-000000"
    assert (row.source_split, row.source_record, row.source_offset) == ("train", 0, 0)
    assert row.source_file == "my.set-train.tfrecord-00000-of-00001"
    assert row.source_length == len(record(FEATURES, written))
    assert (row.steps, row.heights, row.widths) == (5, (12,), (16,))
    assert row.instructions == ("do 4",)
    assert (row.environment, row.environment_known, row.session) == (None, "unknown", None)
    assert found.images == {"image": [step["observation"]["image"] for step in written["steps"]]}
    assert found.action is not None
    assert found.state is not None
    assert found.action.dtype == found.state.dtype == np.float32
    np.testing.assert_array_equal(found.action, [step["action"] for step in written["steps"]])
    np.testing.assert_array_equal(found.state, [step["observation"]["state"] for step in written["steps"]])


def test_every_row_reads_its_own_episode_again_in_any_order(tmp_path: Path) -> None:
    splits = {"train": [episode(i, 2 + i % 3) for i in range(7)], "val": [episode(9)]}
    source = open_rlds(write_dataset(tmp_path, FEATURES, splits, files=3))
    rows = census(source)
    assert source.expected == len(rows) == 8
    assert [row.source_split for row in rows] == ["train"] * 7 + ["val"]
    assert len({row.key for row in rows}) == 8
    for row in reversed(rows):
        found = read(source, row)
        assert found.texts == row.instructions
        assert len(found.images["image"]) == row.steps
        assert found.action is not None
        assert found.action.shape == (row.steps, source.action_size)


def test_files_come_in_order_and_only_of_the_splits_asked_for(tmp_path: Path) -> None:
    splits = {"train": [episode(i) for i in range(3)], "val": [episode(9)], "test": []}
    root = write_dataset(tmp_path, FEATURES, splits, files=2)
    assert open_rlds(root).files() == [
        f"toy_dataset-{split}.tfrecord-0000{i}-of-00002" for split in splits for i in (0, 1)
    ]
    only_val = open_rlds(root, source_splits=("val",))
    assert [row.source_split for row in census(only_val)] == ["val"]
    assert only_val.describe()["source_splits"] == ["val"]
    assert "train, val, test" in fails(ConfigError, root, source_splits=("training",))


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
    assert open_rlds(root).action_size == 7
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
    assert (source.action_size, source.state_size) == (None, None)


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
                "image/left": png(picture(t)),
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
        ("language_instruction", "expected numbers, the source has object"),
        ("image", "expected numbers, the source has object"),
        ("file_path", "expected numbers, the source has object"),
        ("ragged", "expected one fixed shape a step"),
        ("length", "expected one fixed shape a step"),
    ],
)
def test_what_is_not_numbers_of_one_shape_is_no_action(tmp_path: Path, field: str, reason: str) -> None:
    features = changed(FEATURES, ragged=tfds_features.Sequence(np.float32)) | {"length": np.int64}
    values = episode() | {"length": 3}
    for step in values["steps"]:
        step["ragged"] = [1.0]
    assert reason in fails(ConfigError, write_dataset(tmp_path, features, [values]), action=(field,))


def packed(values: Any, encoding: str, kind: Any = np.uint8) -> bytes:
    """A tensor as TFDS stores it under that encoding."""
    data = np.asarray(values, kind).tobytes()
    return zlib.compress(data) if encoding == "zlib" else data


@pytest.mark.parametrize("encoding", ["bytes", "zlib"])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.uint8, np.bool_])
def test_packed_tensors_are_the_numbers_they_hold(tmp_path: Path, encoding: str, kind: Any) -> None:
    features = changed(FEATURES, action=Tensor(shape=(2, 2), dtype=kind, encoding=encoding))
    written = [np.array([[1, t], [0, 0]], kind) for t in range(3)]
    root = write_dataset(tmp_path, features, [episode(action=lambda t: packed(written[t], encoding, kind))])
    source = open_rlds(root, state=("action[1:3]",))
    assert (source.action_size, source.state_size) == (4, 2)
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
    assert source.action_size == len(expected) + 2
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
        ("action[1]", "no such feature; did you mean"),
        ("action[::2]", "no such feature"),
        ("action[a:b]", "no such feature"),
        ("acton[:2]", "action 'acton': no such feature; did you mean"),
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


def test_ragged_features_that_are_not_wanted_do_no_harm(tmp_path: Path) -> None:
    features = changed(
        FEATURES, boxes=tfds_features.Sequence(np.float32), tags=tfds_features.Sequence(Text())
    )
    values = episode()
    for t, step in enumerate(values["steps"]):
        step |= {"boxes": [0.5] * t, "tags": ["a"] * (3 - t)}
    row, found = only(write_dataset(tmp_path, features, [values]))
    assert row.steps == 3
    assert found.texts == ("do 0",)


def test_text_is_decoded_stripped_and_broken_utf_8_replaced(tmp_path: Path) -> None:
    texts = [b" open the drawer\n", "öffne".encode(), b"\xff\xfe broken"]
    _, found = only(write_dataset(tmp_path, FEATURES, [episode(language_instruction=lambda t: texts[t])]))
    assert found.texts == ("open the drawer", "öffne", "\ufffd\ufffd broken")


def test_instructions_that_change_are_kept_with_their_steps(tmp_path: Path) -> None:
    texts = ["a", "a", "b", "", "a"]
    row, found = only(
        write_dataset(tmp_path, FEATURES, [episode(0, 5, language_instruction=lambda t: texts[t])])
    )
    runs = [(0, "a"), (2, "b"), (3, ""), (4, "a")]
    assert found.instructions == {"steps/language_instruction": runs}
    assert found.texts == row.instructions == ("a", "b")


def test_several_instruction_fields_are_kept_in_order_of_preference(tmp_path: Path) -> None:
    """As DROID has three annotators."""
    features = changed(FEATURES, language_instruction_2=Text(), language_instruction_3=Text())
    values = episode()
    for t, step in enumerate(values["steps"]):
        step |= {"language_instruction_2": "", "language_instruction_3": f"step {t // 2}"}
    root = write_dataset(tmp_path, features, [values])
    row, found = only(root)
    assert found.instructions == {
        "steps/language_instruction": [(0, "do 0")],
        "steps/language_instruction_2": [(0, "")],
        "steps/language_instruction_3": [(0, "step 0"), (2, "step 1")],
    }
    assert found.texts == row.instructions == ("do 0", "step 0", "step 1")
    _, other = only(root, instruction=("language_instruction_3", "file_path"))
    assert other.texts == ("step 0", "step 1", "/data/kitchen0/0000/out.npy")
    assert only(root, instruction=())[1].texts == ()


def test_an_instruction_of_integers_is_utf_8_padded_with_zeros(tmp_path: Path) -> None:
    """As language_table has it."""
    features = copy.deepcopy(FEATURES)
    del features["steps"]["language_instruction"]
    features["steps"]["observation"]["instruction"] = vector(32, np.int32)
    values = episode()
    for step in values["steps"]:
        del step["language_instruction"]
        text = "push the blöck".encode()
        step["observation"]["instruction"] = list(text.ljust(32, b"\0"))
    row, _ = only(write_dataset(tmp_path, features, [values]))
    assert row.instructions == ("push the blöck",)


@pytest.mark.parametrize("field", ["action", "state", "is_last"])
def test_numbers_are_no_instruction(tmp_path: Path, field: str) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode()])
    assert "expected text" in fails(ConfigError, root, instruction=(field,))


@pytest.mark.parametrize(
    ("rule", "environment", "session"),
    [
        ("file_path", "/data/kitchen7/0007/out.npy", None),
        ("episode_metadata/file_path", "/data/kitchen7/0007/out.npy", None),
        ("file_path~kitchen[0-9]", "kitchen7", None),
        ("file_path~/data/([a-z]+)([0-9]+)/", "kitchen", None),
        ("file_path~(?P<session>/data/(?P<environment>[^/]+)/[^/]+)/", "kitchen7", "/data/kitchen7/0007"),
        ("file_path~(?P<session>/data/.*)/(?P<environment>none)?", None, "/data/kitchen7/0007"),
        ("file_path~nothing like it", None, None),
        ("language_instruction", "do 7", None),
    ],
)
def test_the_environment_is_what_the_rule_finds(
    tmp_path: Path, rule: str, environment: str | None, session: str | None
) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode(7)])
    row, _ = only(root, environment=EnvironmentRule.parse(rule))
    assert (row.environment, row.session) == (environment, session)
    assert row.environment_known == ("declared" if environment else "unknown")


def test_an_empty_environment_is_unknown(tmp_path: Path) -> None:
    values = episode() | {"episode_metadata": {"file_path": ""}}
    row, _ = only(write_dataset(tmp_path, FEATURES, [values]), environment=EnvironmentRule.parse("file_path"))
    assert (row.environment, row.environment_known) == (None, "unknown")


def test_the_first_pattern_that_matches_counts(tmp_path: Path) -> None:
    rule = EnvironmentRule(field="file_path", patterns=("no", "kitch", "data"), known="inferred")
    row, _ = only(write_dataset(tmp_path, FEATURES, [episode()]), environment=rule)
    assert (row.environment, row.environment_known) == ("kitch", "inferred")


def test_the_catalog_knows_the_environments_of_bridge(tmp_path: Path) -> None:
    features = copy.deepcopy(FEATURES)
    features["steps"]["observation"]["image_0"] = features["steps"]["observation"].pop("image")
    values = episode()
    for step in values["steps"]:
        step["observation"]["image_0"] = step["observation"].pop("image")
    path = "/nfs/raw/bridge_data_v2/deepthought_toykitchen2/fold/15/2022-10-25/raw/traj_group0/out.npy"
    values["episode_metadata"]["file_path"] = path.replace("raw/traj_group0", "train")
    root = write_dataset(tmp_path, features, [values], name="bridge_dataset")
    row, _ = only(root)
    assert (row.environment, row.environment_known) == ("deepthought_toykitchen2", "declared")
    assert row.session == "bridge_data_v2/deepthought_toykitchen2/fold/15/2022-10-25"
    assert open_rlds(root).control_rate == {"hz": 5.0, "verified": True}
    assert "toykitchen2" in open_rlds(root).aliases
    # the user's rule comes before the catalog's
    row, _ = only(root, environment=EnvironmentRule.parse("file_path~fold"))
    assert row.environment == "fold"


def test_a_source_can_be_one_environment(tmp_path: Path) -> None:
    rule = EnvironmentRule(whole="the cell", known="inferred")
    root = write_dataset(tmp_path, FEATURES, [episode()])
    row, _ = only(root, environment=rule)
    assert (row.environment, row.environment_known, row.session) == ("the cell", "inferred", None)
    assert open_rlds(root, environment=rule).describe()["environment"] == {
        "whole": "the cell",
        "known": "inferred",
    }


def test_an_optional_environment_may_be_missing(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode()])
    row, _ = only(root, environment=EnvironmentRule(field="scene", optional=True))
    assert (row.environment, row.environment_known) == (None, "unknown")
    row, _ = only(root, environment=EnvironmentRule(field="file_path", optional=True))
    assert row.environment == "/data/kitchen0/0000/out.npy"


@pytest.mark.parametrize("rule", [{}, {"field": "a", "whole": "b"}], ids=str)
def test_a_rule_has_a_field_or_is_of_the_whole(rule: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="either a field or the name of the whole"):
        EnvironmentRule(**rule)  # type: ignore[arg-type]


def test_a_broken_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a regular expression") as caught:
        EnvironmentRule.parse("file_path~([")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cameras": ("imag",)}, "camera 'imag': no such feature; did you mean 'image'? there are image"),
        ({"cameras": ("state",)}, "camera 'state': no such feature; there are image"),
        ({"action": ("acton",)}, "action 'acton': no such feature; did you mean"),
        ({"state": ("joints",)}, "state 'joints': no such feature"),
        ({"instruction": ("steps/language_instructions",)}, "did you mean 'steps/language_instruction'?"),
        ({"environment": EnvironmentRule.parse("scene~x")}, "environment 'scene': no such feature"),
        ({"environment": EnvironmentRule.parse("")}, "environment '': no such feature"),
    ],
    ids=str,
)
def test_a_name_that_is_not_there_is_refused_with_a_suggestion(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    assert message in fails(ConfigError, write_dataset(tmp_path, FEATURES, [episode()]), **options)


def cameras_dataset(tmp_path: Path, name: str = "toy_dataset") -> Path:
    """Cameras of all sorts: only colour and grey pictures of 8 bits count."""
    features = {
        "steps": {
            "observation": {
                "wrist": Image(shape=(8, 8, 3)),
                "image": Image(shape=(None, None, 3), encoding_format="jpeg"),
                "grey": Image(shape=(12, 16, 1)),
                "depth": Image(shape=(12, 16, 1), dtype=np.uint16, encoding_format="png"),
                "alpha": Image(shape=(12, 16, 4), encoding_format="png"),
                "a_raw": Tensor(shape=(2, 2, 3), dtype=np.uint8),
                "flow": Tensor(shape=(2, 2, 2), dtype=np.uint8),
            },
            "overview": Image(shape=(None, None, 3)),
        },
        "thumbnail": Image(shape=(None, None, 3)),
    }
    rgba = np.dstack([picture(0), picture(1)[:, :, 0]])
    steps = [
        {
            "observation": {
                "wrist": png(picture(t, 8, 8)),
                "image": jpeg(picture(t, 20, 30)),
                "grey": png(picture(t)[:, :, 0]),
                "depth": png(picture(t)[:, :, 0].astype(np.uint16)),
                "alpha": png(rgba),
                "a_raw": np.zeros((2, 2, 3)),
                "flow": np.zeros((2, 2, 2)),
            },
            "overview": png(picture(t, 5, 6)),
        }
        for t in range(2)
    ]
    return write_dataset(tmp_path, features, [{"steps": steps, "thumbnail": png(picture(0))}], name=name)


def test_the_primary_camera_is_the_first_by_name_where_nothing_is_known(tmp_path: Path) -> None:
    row, found = only(cameras_dataset(tmp_path))
    assert list(found.images) == ["grey"]
    assert (row.heights, row.widths) == ((12,), (16,))


def test_cameras_come_in_the_order_of_the_option_and_their_sizes_from_where_they_are_known(
    tmp_path: Path,
) -> None:
    row, found = only(
        cameras_dataset(tmp_path), cameras=("wrist", "steps/observation/image", "overview", "wrist")
    )
    assert list(found.images) == ["wrist", "image", "overview"]
    assert (row.heights, row.widths) == ((8, 20, 5), (8, 30, 6))


@pytest.mark.parametrize("camera", ["depth", "alpha", "flow", "thumbnail"])
def test_what_is_no_picture_of_a_step_is_no_camera(tmp_path: Path, camera: str) -> None:
    message = fails(ConfigError, cameras_dataset(tmp_path), cameras=(camera,))
    assert message.endswith("there are a_raw, grey, image, overview, wrist")


@pytest.mark.parametrize("encoding", ["none", "bytes", "zlib"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_that_are_a_tensor_are_pictures(tmp_path: Path, encoding: str, channels: int) -> None:
    shape = (12, 16, channels)
    features = {"steps": {"observation": {"view": Tensor(shape=shape, dtype=np.uint8, encoding=encoding)}}}
    frames = [picture(t)[:, :, :channels] for t in range(3)]
    values = [frame if encoding == "none" else packed(frame, encoding) for frame in frames]
    root = write_dataset(tmp_path, features, [{"steps": [{"observation": {"view": v}} for v in values]}])
    row, found = only(root)
    assert (row.steps, row.heights, row.widths) == (3, (12,), (16,))
    out = np.empty((12, 16, 3), np.uint8)
    for frame, image in zip(frames, found.images["view"], strict=True):
        decode_into(out, image, (12, 16), Resize())
        np.testing.assert_array_equal(out, np.broadcast_to(frame, out.shape))


def test_the_order_of_the_cameras_decides_what_a_duplicate_is(tmp_path: Path) -> None:
    root = cameras_dataset(tmp_path)
    rows = [only(root, cameras=cameras)[0] for cameras in [("wrist",), ("wrist", "image"), ("image",)]]
    assert rows[0].duplicate == rows[1].duplicate != rows[2].duplicate


@pytest.mark.parametrize("names", [("a/b", "a_b"), ("action", "action")], ids=str)
def test_two_members_of_one_name_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    features = {"steps": {"observation": {name: Image(shape=(None, None, 3)) for name in names}}}
    steps = [{"observation": {name: png(picture(t)) for name in names}} for t in range(2)]
    root = write_dataset(tmp_path, features, [{"steps": steps}])
    assert "the name is taken" in fails(ConfigError, root, cameras=names)


def test_a_dataset_without_a_camera_is_refused(tmp_path: Path) -> None:
    features = {"steps": {"action": vector(2)}}
    root = write_dataset(tmp_path, features, [{"steps": [{"action": [0, 0]}] * 2}])
    assert "no camera" in fails(SourceError, root)


@pytest.mark.parametrize(
    "path",
    ["steps/observation/image", "steps/action", "steps/observation/state", "steps/language_instruction"],
)
def test_a_record_without_a_wanted_feature_is_rejected(tmp_path: Path, path: str) -> None:
    root = write_dataset(tmp_path, FEATURES, [record(FEATURES, episode(), without=[path])])
    assert rejected(root) == f"feature {path} is missing from the record"


def test_a_record_without_the_environment_is_rejected_and_without_another_feature_is_not(
    tmp_path: Path,
) -> None:
    less = record(FEATURES, episode(), without=["episode_metadata/file_path", "steps/is_last"])
    root = write_dataset(tmp_path, FEATURES, [less])
    assert only(root)[0].steps == 3
    found = rejected(root, environment=EnvironmentRule.parse("file_path"))
    assert found == "feature episode_metadata/file_path is missing from the record"


@pytest.mark.parametrize(
    ("path", "values", "reason"),
    [
        ("steps/action", [0.0] * 6, "steps/action has 2 steps where steps/observation/image has 3"),
        ("steps/action", [0.0] * 12, "steps/action has 4 steps where steps/observation/image has 3"),
        ("steps/action", [0.0] * 8, "cannot be parsed"),
        ("steps/action", [], "steps/action has 0 steps"),
        ("steps/action", [b"abc"] * 9, "cannot be parsed"),
        ("steps/observation/state", [0.0] * 2, "steps/observation/state has 1 steps"),
        ("steps/language_instruction", [b"x"], "steps/language_instruction has 1 steps"),
        ("steps/observation/image", [1, 2, 3], "holds numbers where encoded images are expected"),
        ("steps/observation/image", [b"", b"", b""], "the image of step 0 is neither JPEG nor PNG"),
        ("steps/observation/image", [b"GIF89a", b"", b""], "camera image: the image of step 0 is neither"),
    ],
)
def test_a_record_that_is_at_odds_with_itself_is_rejected(
    tmp_path: Path, path: str, values: list[Any], reason: str
) -> None:
    root = write_dataset(tmp_path, FEATURES, [record(FEATURES, episode(), instead={path: values})])
    assert reason in rejected(root)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["action", "state"])
def test_numbers_that_are_not_finite_are_rejected_with_the_step(
    tmp_path: Path, what: str, value: float
) -> None:
    width = {"action": 3, "state": 2}[what]

    def values(t: int) -> list[float]:
        return [0.0] * (width - 1) + [value if t == 1 else 0.0]

    root = write_dataset(tmp_path, FEATURES, [episode(**{what: values})])
    assert rejected(root) == f"{what} is NaN or infinite at step 1"
    assert only(root, **{what: ()})[0].steps == 3


@pytest.mark.parametrize("steps", [0, 1])
def test_an_episode_of_fewer_than_two_steps_is_rejected(tmp_path: Path, steps: int) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode(0, steps)])
    reason = f"has {steps} steps; at least 2 are needed"
    assert rejected(root) == reason
    assert rejected(root, environment=EnvironmentRule.parse("language_instruction")) == reason


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"garbage", b"\x0a\xff\xff\xff\xff\x0f", bytes(1000), b"\n\x02\n\x00"], ids=repr
)
def test_a_record_that_is_no_example_is_rejected(tmp_path: Path, data: bytes) -> None:
    source = open_rlds(write_dataset(tmp_path, FEATURES, [data, episode()]))
    bad, good = census(source)
    assert bad.rejected is not None
    assert good.rejected is None
    with pytest.raises(SourceError, match="record 0, byte 0") as caught:
        read(source, bad)
    assert len(str(caught.value).splitlines()) == 1


def test_no_byte_of_a_record_can_be_changed_to_crash_the_census(tmp_path: Path) -> None:
    """Records whose checksums are right and whose contents are not."""
    features = {"steps": {"image": Image(shape=(None, None, 3)), "action": vector(1), "note": Text()}}
    steps = [{"image": png(picture(t, 1, 1)), "action": [t], "note": "n"} for t in range(2)]
    whole = record(features, {"steps": steps})
    records = [
        whole[:i] + bytes([whole[i] ^ mask]) + whole[i + 1 :] for i in range(len(whole)) for mask in (1, 255)
    ] + [whole[:i] for i in range(len(whole))]
    source = open_rlds(write_dataset(tmp_path, features, records), instruction=("note",))
    rows = census(source)
    assert len(rows) == len(records)
    assert sum(row.rejected is None for row in rows) < len(rows) / 2
    for row in rows:
        if row.rejected is None:
            assert len(read(source, row).images["image"]) == row.steps


def test_duplicates_are_equal_and_near_duplicates_are_not(tmp_path: Path) -> None:
    twin = episode(1) | {"episode_metadata": {"file_path": "elsewhere"}}
    others = [
        episode(1, 4),
        episode(1, action=lambda t: [1, t, t / 2 + (t == 2) * 1e-6]),
        episode(1, image=lambda t: jpeg(picture(100 + t), quality=76)),
        episode(1, image=lambda t: jpeg(picture(102 - t))),
        episode(2),
    ]
    same = episode(1, language_instruction="other words", state=[7, 7])
    rows = census(open_rlds(write_dataset(tmp_path, FEATURES, [episode(1), twin, same, *others])))
    assert rows[0].duplicate == rows[1].duplicate == rows[2].duplicate
    assert len({row.duplicate for row in rows}) == 1 + len(others)
    assert len({row.source_digest for row in rows}) == len(rows)


def test_sizes_come_from_the_header_where_they_are_open_and_from_the_description_where_not(
    tmp_path: Path,
) -> None:
    for declared, expected in [((None, None, 3), (9, 11)), ((20, 30, 3), (20, 30)), ((None, 30, 3), (9, 11))]:
        features = copy.deepcopy(FEATURES)
        features["steps"]["observation"]["image"] = Image(shape=declared)
        values = episode(image=lambda t: png(picture(t, 9, 11)))
        row, _ = only(write_dataset(tmp_path / str(declared), features, [values]))
        assert (row.heights[0], row.widths[0]) == expected


def test_episodes_of_one_dataset_may_differ_in_size(tmp_path: Path) -> None:
    sizes = [(9, 11), (30, 20)]
    some = [episode(i, image=lambda t, i=i: jpeg(picture(t, *sizes[i]))) for i in range(2)]
    rows = census(open_rlds(write_dataset(tmp_path, FEATURES, some)))
    assert [(row.heights[0], row.widths[0]) for row in rows] == sizes


def test_a_file_with_fewer_records_has_the_lost_ones_rejected(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode(i) for i in range(4)])
    source = open_rlds(root)
    write_file(root / source.files()[0], [record(FEATURES, episode(i)) for i in range(2)])
    rows = census(source)
    assert [row.rejected for row in rows] == [None, None, *["the file ends after 2 of 4 records"] * 2]
    assert [row.source_record for row in rows] == [0, 1, 2, 3]
    assert len({row.key for row in rows}) == 4


def test_a_file_with_more_records_is_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode(i) for i in range(2)])
    source = open_rlds(root)
    write_file(root / source.files()[0], [record(FEATURES, episode(i)) for i in range(3)])
    with pytest.raises(SourceError, match="holds more than the 2 records") as caught:
        census(source)
    assert caught.value.file == source.files()[0]


def test_a_damaged_record_is_rejected_alone_and_a_damaged_frame_with_all_that_follow(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode(i) for i in range(4)])
    source = open_rlds(root)
    rows, path = census(source), root / source.files()[0]
    whole = bytearray(path.read_bytes())
    whole[rows[1].source_offset + 30] ^= 1
    path.write_bytes(whole)
    assert [row.rejected for row in census(source)] == [
        None,
        "checksum of the record's data does not match",
        None,
        None,
    ]
    whole[rows[2].source_offset] ^= 1
    path.write_bytes(whole)
    lost = "checksum of the record's length does not match"
    assert [row.rejected for row in census(source)][2:] == [lost, lost]
    path.write_bytes(whole[: rows[2].source_offset + 500])
    assert census(source)[0].rejected is None


def test_a_file_cut_anywhere_gives_a_row_for_every_record(tmp_path: Path) -> None:
    features = {"steps": {"image": Image(shape=(1, 1, 3))}}
    some = [{"steps": [{"image": b"%d" % t} for t in range(2)]} for _ in range(3)]
    root = write_dataset(tmp_path, features, some)
    source = open_rlds(root)
    whole = (root / source.files()[0]).read_bytes()
    good = [len(whole) // 3 * i for i in range(1, 4)]
    for length in range(len(whole) + 1):
        (root / source.files()[0]).write_bytes(whole[:length])
        rows = census(source)
        assert [row.rejected is None for row in rows] == [end <= length for end in good]


def swap(path: Path, rows: list[CensusRow]) -> None:
    """Put another record of the same length in the place of record 1."""
    other = record(FEATURES, episode(1, action=[9, 9, 9]))
    assert len(other) == rows[1].source_length
    write_file(path, [record(FEATURES, episode(0)), other, record(FEATURES, episode(2))])


def cut(path: Path, rows: list[CensusRow]) -> None:
    path.write_bytes(path.read_bytes()[: rows[1].source_offset + 100])


def empty(path: Path, rows: list[CensusRow]) -> None:
    path.write_bytes(b"")


def flip(path: Path, rows: list[CensusRow]) -> None:
    data = bytearray(path.read_bytes())
    data[rows[1].source_offset + 40] ^= 4
    path.write_bytes(data)


def grow(path: Path, rows: list[CensusRow]) -> None:
    write_file(path, [record(FEATURES, episode(i, 4)) for i in range(3)])


@pytest.mark.parametrize("change", [swap, cut, empty, flip, grow])
def test_a_source_that_changed_since_the_census_is_refused(tmp_path: Path, change: Any) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode(i) for i in range(3)])
    source = open_rlds(root)
    rows = census(source)
    change(root / source.files()[0], rows)
    with pytest.raises(SourceError) as caught:
        read(source, rows[1])
    assert len(str(caught.value).splitlines()) == 1
    assert (caught.value.file, caught.value.record) == (source.files()[0], 1)
    assert caught.value.offset == rows[1].source_offset


def test_the_description_names_all_that_decides_a_row(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode()])
    base = open_rlds(root).describe()
    assert base == {
        "kind": "rlds",
        "name": "toy_dataset",
        "version": "1.0.0",
        "source_splits": ["train"],
        "cameras": {"image": "steps/observation/image"},
        "instruction": ["steps/language_instruction"],
        "action": ["steps/action"],
        "state": ["steps/observation/state"],
        "environment": None,
        "control_rate": None,
    }
    others: list[dict[str, Any]] = [
        {"instruction": ()},
        {"action": ()},
        {"state": ("action",)},
        {"environment": EnvironmentRule.parse("file_path")},
        {"environment": EnvironmentRule.parse("file_path~x")},
    ]
    assert all(open_rlds(root, **options).describe() != base for options in others)
    assert str(tmp_path) not in str(base)


def test_sizes_are_those_of_everything_that_is_read(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode(i) for i in range(3)], files=2)
    sizes = open_rlds(root).sizes()
    assert sizes == {p.name: p.stat().st_size for p in root.iterdir()}


needs_bridge = pytest.mark.skipif(not BRIDGE.is_dir(), reason="the real data is not here")


@needs_bridge
def test_real_bridge_episodes() -> None:
    source = open_rlds(BRIDGE, cameras=("image_0", "image_1", "image_2", "image_3"))
    rows = census(source)
    assert source.name == "bridge_dataset"
    assert [camera.name for camera in source.cameras] == ["image_0", "image_1", "image_2", "image_3"]
    assert len(rows) == source.expected == 25
    assert {row.rejected for row in rows} == {None}
    assert {row.steps for row in rows} == {10}
    assert {(row.environment, row.environment_known) for row in rows} == {("toysink2_bww", "declared")}
    assert all(row.session and row.session.startswith("bridge_data_v1/") for row in rows)
    texts = [row.instructions for row in rows]
    assert sorted((texts.count(text) for text in set(texts)), reverse=True) == [8, 6, 6, 5]
    assert all(len(text) == 1 and text[0] for text in texts)
    assert len({row.duplicate for row in rows}) == 25
    assert (source.action_size, source.state_size) == (7, 7)


@needs_bridge
def test_the_fourth_camera_of_bridge_is_black_and_the_others_are_not() -> None:
    from oxcart.compile.images import Resize, decode_into

    source = open_rlds(BRIDGE, cameras=("image_0", "image_1", "image_2", "image_3"))
    row = census(source)[0]
    found = read(source, row)
    for i, (camera, images) in enumerate(found.images.items()):
        out = np.empty((row.heights[i], row.widths[i], 3), np.uint8)
        decode_into(out, images[3], (row.heights[i], row.widths[i]), Resize())
        assert (out.max() < 8) == (camera == "image_3")
        assert images[3][:2] == b"\xff\xd8"


@needs_bridge
def test_real_bridge_takes_the_first_camera_by_default() -> None:
    assert [camera.name for camera in open_rlds(BRIDGE).cameras] == ["image_0"]
