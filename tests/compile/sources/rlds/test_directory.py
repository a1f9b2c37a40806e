"""A TFDS directory that is not what it should be is explained in one line, whatever is wrong with it."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from depth import depth
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.sources.kinds import INFO
from oxcart.compile.sources.rlds.directory import FEATURES, MAX_RECORDS, read_directory
from oxcart.compile.sources.rlds.source import RldsSource
from oxcart.shards.errors import ConfigError, OxcartError, SourceError
from oxcart.shards.store import Store
from rlds_builder import Image, Tensor, Text, features_of, noisy_frame, png, write_dataset

SPEC = {
    "steps": {
        "observation": {"image": Image(shape=(12, 16, 3)), "state": Tensor(shape=(2,), dtype=np.float32)},
        "action": {"a": np.float32, "b/c": Tensor(shape=(3,), dtype=np.float64)},
        "language_instruction": Text(),
    },
    "episode_metadata": {"file_path": Text()},
}
STEP = {
    "observation": {"image": png(noisy_frame()), "state": [1, 2]},
    "action": {"a": 1, "b/c": [1, 2, 3]},
    "language_instruction": "go",
}
EPISODE = {"steps": [STEP, STEP], "episode_metadata": {"file_path": "x"}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dataset(tmp_path, SPEC, {"train": [EPISODE] * 3, "val": [EPISODE]}, files=2)


def change(root: Path, name: str, edit: Callable[[Any], Any]) -> None:
    """Rewrite a JSON file; `edit` changes the value in place or returns another."""
    value = json.loads((root / name).read_text())
    changed = edit(value)
    (root / name).write_text(json.dumps(value if changed is None else changed))


def problem(root: Path, kind: type[OxcartError] = SourceError) -> str:
    """The one line with which the directory is refused, without the directory in front of a file."""
    with pytest.raises(kind) as caught:
        read_directory(Store(root))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value).removeprefix(f"{root}/")


def test_the_file_is_named_with_its_directory(root: Path) -> None:
    (root / INFO).write_text("{")
    with pytest.raises(SourceError) as caught:
        read_directory(Store(root))
    assert str(caught.value).startswith(f"{root}/{INFO}: cannot be parsed: ")


def test_a_directory_says_name_version_files_and_features(root: Path) -> None:
    found = read_directory(Store(root))
    assert (found.name, found.version) == ("toy_dataset", "1.0.0")
    assert [(name, *file) for name, file in found.files.items()] == [
        ("toy_dataset-train.tfrecord-00000-of-00002", "train", 0, 1),
        ("toy_dataset-train.tfrecord-00001-of-00002", "train", 1, 2),
        ("toy_dataset-val.tfrecord-00000-of-00002", "val", 0, 0),
        ("toy_dataset-val.tfrecord-00001-of-00002", "val", 1, 1),
    ]
    paths = {
        "steps/observation/image",
        "steps/observation/state",
        "steps/action/a",
        "steps/action/b/c",
        "steps/language_instruction",
        "episode_metadata/file_path",
    }
    assert set(found.leaves) == set(found.specs) == paths
    assert found.specs["steps/action/b/c"].shape == (None, 3)


def test_tensorflow_is_not_imported(root: Path) -> None:
    read_directory(Store(root))
    assert "tensorflow" not in sys.modules


def test_only_the_splits_asked_for_need_their_files(root: Path) -> None:
    (root / "toy_dataset-val.tfrecord-00001-of-00002").unlink()
    assert len(read_directory(Store(root), ("train",)).files) == 2
    assert "1 of 4 TFRecord files that dataset_info.json names are missing" in problem(root)
    with pytest.raises(ConfigError, match="source split 'test': the dataset has train, val"):
        read_directory(Store(root), ("train", "test"))


def test_missing_files_are_counted_and_the_first_is_named(root: Path) -> None:
    for file in root.glob("*train*"):
        file.unlink()
    message = problem(root)
    assert "2 of 4 TFRecord files" in message
    assert "the first is toy_dataset-train.tfrecord-00000-of-00002; is the copy complete?" in message


@pytest.mark.parametrize("name", [INFO, FEATURES])
def test_a_missing_json_file_is_named(root: Path, name: str) -> None:
    (root / name).unlink()
    assert problem(root) == f"{root}: no {name}, so not a TFDS directory; is the copy complete?"


def test_the_directory_above_leads_to_the_version(root: Path) -> None:
    for above in (root.parent, root.parent.parent):
        version = root.relative_to(above)
        assert f"did you mean {above}/{version}?" in problem(above)


def test_a_directory_that_is_not_there_or_is_a_file_is_refused(root: Path) -> None:
    assert "not a TFDS directory" in problem(root / "none")
    assert "not a TFDS directory" in problem(root / INFO)


@pytest.mark.parametrize("name", [INFO, FEATURES])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"name": }',
        b"\0" * 100,
        b'{"a": 1}{"b": 2}',
        b"[" * 100_000,
        b'{"a":' * 3000 + b"1" + b"}" * 3000,
        b"1" * 5000,
    ],
    ids=["empty", "cut", "not utf-8", "syntax", "zeros", "two", "deep list", "deep object", "long number"],
)
def test_a_json_file_that_cannot_be_parsed_is_refused(root: Path, name: str, data: bytes) -> None:
    (root / name).write_bytes(data)
    assert problem(root).startswith(f"{name}: ")


@pytest.mark.parametrize("name", [INFO, FEATURES])
@pytest.mark.parametrize("value", [None, True, 0, 1.5, "text", [], {}, [1], {"x": {}}], ids=repr)
def test_json_of_another_kind_is_refused(root: Path, name: str, value: Any) -> None:
    (root / name).write_text(json.dumps(value))
    assert problem(root).startswith(f"{name}: ")


def with_split(**values: Any) -> Callable[[Any], None]:
    """An edit of the first split; None takes a field away."""

    def edit(info: Any) -> None:
        info["splits"][0] |= values
        for name, value in values.items():
            if value is None:
                del info["splits"][0][name]

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda info: info.pop("name"), "a name and a version"),
        (lambda info: info.update(name=""), "a name and a version"),
        (lambda info: info.update(name=5), "a name and a version"),
        (lambda info: info.update(name="two\nlines"), "a name and a version"),
        (lambda info: info.update(name="\ud800"), "a name and a version"),
        (lambda info: info.pop("version"), "a name and a version"),
        (lambda info: info.update(version=["1"]), "a name and a version"),
        (lambda info: info.update(fileFormat="array_record"), "file format 'array_record'"),
        (lambda info: info.update(fileFormat=7), "file format 7"),
        (lambda info: info.pop("splits"), "no splits"),
        (lambda info: info.update(splits=[]), "no splits"),
        (lambda info: info.update(splits={"train": {}}), "no splits"),
        (lambda info: info.update(splits=["train"]), "a split is malformed"),
        (lambda info: info.update(splits=[None]), "a split is malformed"),
        (lambda info: info["splits"].append(info["splits"][0]), "already taken"),
        (with_split(name=None), "a split is malformed"),
        (with_split(name=""), "a split is malformed"),
        (with_split(name=["train"]), "a split is malformed"),
        (with_split(name=3), "a split is malformed"),
        (with_split(name="a\nb"), "a split is malformed"),
        (with_split(name="../train"), "outside its directory"),
        (with_split(shardLengths=None), "a split is malformed: KeyError 'shardLengths'"),
        (with_split(shardLengths=5), "a split is malformed"),
        (with_split(shardLengths=["x"]), "a split is malformed"),
        (with_split(shardLengths=[None]), "a split is malformed"),
        (with_split(shardLengths=[[1]]), "a split is malformed"),
        (with_split(shardLengths=["-1", "4"]), "a split is malformed"),
        (with_split(shardLengths=["1000001", "1"]), "1000001 records in a file, expected 0 to 1000000"),
        (with_split(shardLengths=[2**70, 1]), "a split is malformed"),
        (with_split(shardLengths=[float("inf"), 1]), "a split is malformed"),
        (with_split(shardLengths=[float("nan"), 1]), "a split is malformed"),
        (with_split(shardLengths=["1"] * 3), "5 TFRecord files that dataset_info.json names are missing"),
        (with_split(filepathTemplate=5), "a split is malformed"),
        (with_split(filepathTemplate=["x"]), "a split is malformed"),
        (with_split(filepathTemplate="{NONE}"), "a split is malformed"),
        (with_split(filepathTemplate="{"), "names a file twice"),
        (with_split(filepathTemplate="{}"), "a split is malformed"),
        (with_split(filepathTemplate="{DATASET:>99999999999}"), "a split is malformed"),
        (with_split(filepathTemplate="{DATASET.x}"), "a split is malformed"),
        (with_split(filepathTemplate="{SPLIT}-{DATASET}"), "names a file twice"),
        (with_split(filepathTemplate="{DATASET}-val.{FILEFORMAT}-{SHARD_X_OF_Y}"), "names a file twice"),
        (with_split(filepathTemplate="/etc/{SHARD_INDEX}"), "outside its directory"),
        (with_split(filepathTemplate="../{SHARD_INDEX}"), "outside its directory"),
        (with_split(filepathTemplate="a\n{SHARD_INDEX}"), "outside its directory"),
        (with_split(filepathTemplate="a\0{SHARD_INDEX}"), "outside its directory"),
        (with_split(filepathTemplate="x" * 300 + "{SHARD_INDEX}"), "File name too long"),
    ],
)
def test_a_malformed_dataset_info_is_refused(root: Path, edit: Callable[[Any], Any], message: str) -> None:
    change(root, INFO, lambda info: edit(info) and None)
    assert message in problem(root, OxcartError)


def test_a_split_without_a_template_has_the_usual_names(root: Path) -> None:
    change(root, INFO, with_split(filepathTemplate=None))
    assert len(read_directory(Store(root)).files) == 4
    change(root, INFO, with_split(filepathTemplate=""))
    assert len(read_directory(Store(root)).files) == 4


@pytest.mark.parametrize(
    "template",
    ["{DATASET}-{SPLIT}-{SHARD_INDEX}.{FILEFORMAT}", "{SPLIT}.{SHARD_INDEX}-of-{NUM_SHARDS}"],
)
def test_other_templates_are_followed(tmp_path: Path, template: str) -> None:
    root = write_dataset(tmp_path, SPEC, {"train": [EPISODE] * 2}, files=2, template=template)
    assert set(read_directory(Store(root)).files) == {p.name for p in root.iterdir()} - {INFO, FEATURES}


def steps_of(features: Any) -> Any:
    return features["featuresDict"]["features"]["steps"]


def inside(features: Any) -> Any:
    return steps_of(features)["sequence"]["feature"]["featuresDict"]["features"]


FOREIGN = "evil_module.Feature"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: f.pop("pythonClassName"), "not a TFDS description of features"),
        (lambda f: f.pop("featuresDict"), "not a TFDS description of features"),
        (lambda f: f["featuresDict"]["features"].pop("steps"), "no feature 'steps'"),
        (lambda f: f["featuresDict"].update(features=[]), "not a TFDS description of features"),
        (lambda f: f.update(pythonClassName=5), "not a TFDS description of features"),
        (lambda f: f.update(unknownField=5), "not a TFDS description of features"),
        (lambda f: steps_of(f).pop("sequence"), "not a TFDS description of features"),
        (lambda f: steps_of(f).update(sequence={}), "not a TFDS description of features"),
        (lambda f: inside(f).update({"new\nline": inside(f)["language_instruction"]}), "cannot be printed"),
        (lambda f: f.update(pythonClassName=FOREIGN), "is not one of TFDS"),
        (lambda f: steps_of(f).update(pythonClassName=FOREIGN), "is not one of TFDS"),
    ],
)
def test_malformed_features_are_refused(root: Path, edit: Callable[[Any], Any], message: str) -> None:
    change(root, FEATURES, lambda features: edit(features) and None)
    assert message in problem(root)


def nested_json(features: Any) -> dict[str, Any]:
    """A feature whose description is JSON within JSON, with a foreign class in it."""
    inner = {"feature": {"type": FOREIGN, "content": {}}, "length": None}
    name = "tensorflow_datasets.core.features.sequence_feature.Sequence"
    return {"pythonClassName": name, "jsonFeature": {"json": json.dumps(inner)}}


@pytest.mark.parametrize(
    "edit",
    [
        lambda f: {"type": FOREIGN, "content": {}},
        lambda f: {"python_class_name": FOREIGN, "text": {}},
        lambda f: {"pythonClassName": FOREIGN, "text": {}},
        nested_json,
        lambda f: {
            "type": "tensorflow_datasets.core.features.sequence_feature.Sequence",
            "content": json.dumps({"feature": {"pythonClassName": FOREIGN}}),
            "proto_cls": "tensorflow_datasets.Sequence",
        },
    ],
    ids=["legacy", "snake case", "camel case", "json in json", "legacy json in json"],
)
def test_a_foreign_class_is_set_aside_and_never_imported(
    root: Path, monkeypatch: pytest.MonkeyPatch, edit: Callable[[Any], Any]
) -> None:
    (root / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(root)
    change(root, FEATURES, lambda f: inside(f).update(bad=edit(f)))
    found = read_directory(Store(root))
    assert found.unreadable == {"steps/bad": f"feature class '{FOREIGN}' is not one of TFDS"}
    assert "steps/bad" not in found.leaves
    assert "evil_module" not in sys.modules


CORE = "tensorflow_datasets.core.features."
PIXELS = {"shape": {"dimensions": ["-1", "4", "4", "3"]}, "dtype": "uint8", "encodingFormat": "png"}
SOUND = {"shape": {"dimensions": ["-1"]}, "dtype": "int64", "fileFormat": "wav", "encoding": "none"}


def tensor(dtype: str, *sides: int) -> dict[str, Any]:
    """The description of a tensor."""
    shape = {"dimensions": [str(side) for side in sides]}
    content = {"shape": shape, "dtype": dtype, "encoding": "none"}
    return {"pythonClassName": CORE + "tensor_feature.Tensor", "tensor": content}


UNREADABLE = {
    "bfloat16": (tensor("bfloat16", 7), "dtype 'bfloat16' is not one of NumPy's"),
    "video": (
        {"pythonClassName": CORE + "video_feature.Video", "video": PIXELS},
        "feature class Video cannot be read without TensorFlow",
    ),
    "audio": (
        {"pythonClassName": CORE + "audio_feature.Audio", "audio": SOUND},
        "feature class Audio cannot be read without TensorFlow",
    ),
    "new": (
        {"pythonClassName": CORE + "new_feature.New", "new": {}},
        f"feature class '{CORE}new_feature.New' is not one of TFDS",
    ),
    "negative": (tensor("float32", -3), "TFDS cannot read its description: Unexpected shape: dimensions: -3"),
    "inner": (
        {
            "pythonClassName": CORE + "sequence_feature.Sequence",
            "sequence": {"feature": tensor("float8_e5m2"), "length": "-1"},
        },
        "dtype 'float8_e5m2' is not one of NumPy's",
    ),
    "nothing": ({}, "TFDS cannot read its description: "),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("place", ["step", "dictionary", "episode"])
def test_a_feature_that_tfds_cannot_describe_stops_only_who_wants_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str, place: str
) -> None:
    (root / "tensorflow.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(root)
    description, reason = UNREADABLE[kind]

    def edit(features: Any) -> None:
        observation = inside(features)["observation"]["featuresDict"]["features"]
        places = {
            "step": inside(features),
            "dictionary": observation,
            "episode": features["featuresDict"]["features"],
        }
        places[place]["bad"] = description

    change(root, FEATURES, edit)
    path = {"step": "steps/bad", "dictionary": "steps/observation/bad", "episode": "bad"}[place]
    source = RldsSource(SourceConfig(url=str(root)))
    assert [row.rejected for file in source.files() for row in source.census(file)] == [None] * 4
    for option in ("cameras", "instruction", "action", "state"):
        with pytest.raises(ConfigError) as caught:
            RldsSource(SourceConfig(url=str(root), **{option: ("bad",)}))
        assert f"{path!r}: {reason}" in str(caught.value)
        one_line(caught.value)
    assert "tensorflow" not in sys.modules


def test_a_dictionary_of_numbers_one_of_which_is_unreadable_is_refused(root: Path) -> None:
    change(
        root,
        FEATURES,
        lambda f: inside(f)["action"]["featuresDict"]["features"].update(c=tensor("bfloat16")),
    )
    with pytest.raises(ConfigError, match="action 'steps/action/c': dtype 'bfloat16' is not one of NumPy's"):
        RldsSource(SourceConfig(url=str(root)))
    assert RldsSource(SourceConfig(url=str(root), action=("action/b/c",))).array_sizes["action"] == (3,)


def test_a_default_that_is_unreadable_is_refused(root: Path) -> None:
    change(root, FEATURES, lambda f: inside(f).update(language_instruction=tensor("bfloat16", 512)))
    with pytest.raises(ConfigError, match="instruction 'steps/language_instruction': dtype 'bfloat16'"):
        RldsSource(SourceConfig(url=str(root)))


def test_the_legacy_form_of_features_is_understood(root: Path) -> None:
    (root / FEATURES).write_text(json.dumps(features_of(SPEC).to_json()))
    assert set(read_directory(Store(root)).leaves) >= {"steps/observation/image", "steps/action/b/c"}


@pytest.mark.parametrize("steps", [Text(), Tensor(shape=(3,), dtype=np.float32)])
def test_steps_that_are_no_sequence_of_dictionaries_are_refused(root: Path, steps: Any) -> None:
    from google.protobuf import json_format

    spec = features_of({"steps": steps, "other": Text()})
    (root / FEATURES).write_text(json_format.MessageToJson(spec.to_proto()))
    assert problem(root) == f"{FEATURES}: no feature 'steps', so these are not RLDS episodes"


def test_steps_that_are_one_dictionary_are_refused(root: Path) -> None:
    change(root, FEATURES, lambda f: f["featuresDict"]["features"].update(steps=inside(f)["observation"]))
    assert problem(root) == f"{FEATURES}: no feature 'steps', so these are not RLDS episodes"


def one_line(error: Exception) -> None:
    """A message must be one line."""
    assert len(str(error).splitlines()) == 1


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything in a JSON value."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))
        else:
            yield (*path, key)


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one in a place."""
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = replaced(value[path[0]], path[1:], new)
    return value


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["{", "{0}", "uint8", "none", "tensorflow_datasets.x.Y", "\ud800", "x" * 300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("mutated"), SPEC, {"train": [EPISODE] * 2}, files=2)


def test_a_feature_of_absurdly_many_numbers_is_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, SPEC, {"train": [EPISODE]}, files=1)
    value = json.loads((root / FEATURES).read_text())
    steps = value["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]
    seen = steps["observation"]["featuresDict"]["features"]
    seen["state"]["tensor"]["shape"]["dimensions"] = [str(10**15)]
    (root / FEATURES).write_text(json.dumps(value))
    with pytest.raises(ConfigError, match="state: expected at most 65,536 numbers per step"):
        RldsSource(SourceConfig(url=str(root)))


@pytest.mark.parametrize("name", [INFO, FEATURES])
@depth(300, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_change_of_a_value_is_more_than_one_line_of_error(
    shared_root: Path, name: str, data: st.DataObject
) -> None:
    original = (shared_root / name).read_text()
    value = json.loads(original)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(sorted(places(value), key=str)))
        value = replaced(value, path, data.draw(JSON))
        if not isinstance(value, dict | list):
            break
    try:
        (shared_root / name).write_text(json.dumps(value))
        source = RldsSource(SourceConfig(url=str(shared_root)))
        assert source.expected <= MAX_RECORDS * len(source.files())
        rows = (
            [row for file in source.files() for row in source.census(file)] if source.expected < 1000 else []
        )
    except OxcartError as error:
        one_line(error)
    else:
        assert len(rows) == source.expected or source.expected >= 1000
        assert all(row.rejected is None or len(row.rejected.splitlines()) == 1 for row in rows)
    finally:
        (shared_root / name).write_text(original)
