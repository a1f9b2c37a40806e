"""Only what `features.json` calls text, or one whole number, becomes text, whoever chose the feature."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow_datasets.core import features as tfds_features

from oxcart.compile.sources.base import EnvironmentRule
from oxcart.shards.errors import ConfigError
from rlds_builder import Image, Tensor, Text, jpeg, noisy_frame, record, write_dataset
from toy_rlds import FEATURES, changed, episode, fails, only, open_rlds, packed, rejected, vector


def rule(field: str) -> EnvironmentRule:
    return EnvironmentRule.parse(field)


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("image", "Image uint8 [any, any, 3]"),
        ("steps/observation/image", "Image uint8 [any, any, 3]"),
        ("state", "Tensor float32 [2]"),
        ("reward", "Tensor float32"),
        ("tokens", "Tensor int64 [4]"),
        ("id", "Tensor int64 [1]"),
        ("words", "Sequence string [any]"),
        ("packed", "Tensor float32 [2]"),
        ("letters", "Tensor string [3]"),
    ],
)
def test_what_is_no_text_is_no_environment_and_no_instruction(tmp_path: Path, field: str, found: str) -> None:
    features = changed(
        FEATURES,
        reward=np.float32,
        tokens=vector(4, np.int64),
        id=vector(1, np.int64),
        words=tfds_features.Sequence(Text()),
        packed=Tensor(shape=(2,), dtype=np.float32, encoding="zlib"),
        letters=Tensor(shape=(3,), dtype=np.object_),
    )
    root = write_dataset(tmp_path, features, [])
    message = fails(ConfigError, root, environment=rule(field))
    assert f"expected text or a whole number, the source has {found}; pass --environment with " in message
    assert "episode_metadata/file_path" in message
    if field not in ("tokens", "id"):
        message = fails(ConfigError, root, instruction=(field,))
        assert f"expected text, the source has {found}; pass --instruction with " in message
        assert message.endswith("episode_metadata/file_path, or steps/language_instruction, or none")


def test_an_error_names_few_features_to_take_instead_texts_first_and_no_flags(tmp_path: Path) -> None:
    numbers = {f"a{i}": np.int64 for i in range(5)}
    root = write_dataset(
        tmp_path, changed(FEATURES, tokens=vector(4, np.int64), is_a=np.bool_, **numbers), []
    )
    texts = "episode_metadata/file_path, or steps/language_instruction"
    message = fails(ConfigError, root, environment=rule("tokens"))
    assert message.endswith(f"; pass --environment with {texts}, or steps/a0, or one of 4 more")
    message = fails(ConfigError, root, instruction=("a0",))
    assert message.endswith(f"; pass --instruction with {texts}, or none")


@pytest.mark.parametrize(
    "feature", [vector(512), np.float32, np.int64, vector(16, np.int32), Image(shape=(4, 4, 3)), np.bool_]
)
def test_a_feature_of_a_usual_name_is_no_instruction_unless_it_is_text(tmp_path: Path, feature: Any) -> None:
    root = write_dataset(tmp_path, changed(FEATURES, language_instruction=feature), [])
    message = fails(ConfigError, root)
    assert message.startswith("instruction 'steps/language_instruction': expected text, the source has ")
    assert open_rlds(root, instruction=()).describe()["instruction"] == []


def test_bytes_of_utf_8_are_text_only_where_the_feature_is_named(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, changed(FEATURES, language_instruction=vector(16, np.int32)), [])
    assert "steps/language_instruction itself where it holds bytes of UTF-8" in fails(ConfigError, root)
    chosen = open_rlds(root, instruction=("language_instruction",)).describe()["instruction"]
    assert chosen == ["steps/language_instruction"]


@pytest.mark.parametrize("code", [1, 27, -1, 256, 2054])
def test_tokens_are_no_bytes_of_utf_8(tmp_path: Path, code: int) -> None:
    features = changed(FEATURES, language_instruction=vector(3, np.int32))
    root = write_dataset(tmp_path, features, [episode(language_instruction=[103, code, 0])])
    found = rejected(root, instruction=("language_instruction",))
    assert found == f"steps/language_instruction holds {code} where bytes of UTF-8 text are expected"


@pytest.mark.parametrize("place", ["steps", "episode"])
@pytest.mark.parametrize(
    ("kind", "value", "name"), [(np.int64, -7, "-7"), (np.uint8, 12, "12"), (np.bool_, True, "True")]
)
def test_one_whole_number_names_an_environment(
    tmp_path: Path, place: str, kind: Any, value: Any, name: str
) -> None:
    features, values = copy.deepcopy(FEATURES), episode()
    features["episode_metadata"]["lab"] = kind
    features["steps"]["lab"] = kind
    values["episode_metadata"]["lab"] = value
    for step in values["steps"]:
        step["lab"] = value
    field = {"steps": "steps/lab", "episode": "episode_metadata/lab"}[place]
    row, _ = only(write_dataset(tmp_path, features, [values]), environment=rule(field))
    assert (row.environment, row.environment_known) == (name, "declared")


@pytest.mark.parametrize(
    ("field", "path"),
    [("language_instruction", "steps/language_instruction"), ("file_path", "episode_metadata/file_path")],
)
def test_a_record_that_holds_numbers_for_text_is_rejected(tmp_path: Path, field: str, path: str) -> None:
    values = [7] * (3 if path.startswith("steps/") else 1)
    root = write_dataset(tmp_path, FEATURES, [record(FEATURES, episode(), instead={path: values})])
    reason = f"{path} holds numbers where text is expected"
    assert rejected(root, instruction=(field,)) == reason
    assert rejected(root, instruction=(), environment=rule(field)) == reason


def test_an_image_that_is_no_chosen_camera_is_no_name_either(tmp_path: Path) -> None:
    features = copy.deepcopy(FEATURES)
    features["steps"]["observation"]["wrist"] = Image(shape=(12, 16, 3))
    values = episode(wrist=jpeg(noisy_frame()))
    for step in values["steps"]:
        step["observation"]["wrist"] = step.pop("wrist", jpeg(noisy_frame()))
    root = write_dataset(tmp_path, features, [values])
    assert "the source has Image uint8 [12, 16, 3]" in fails(ConfigError, root, environment=rule("wrist"))


@pytest.mark.parametrize("text", ["", "\0", "a\0b", "two\nlines", "\ud800", "ünï", "\x1b[31m", "  x  "])
def test_any_text_becomes_the_same_valid_text_each_time(tmp_path: Path, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    root = write_dataset(tmp_path, FEATURES, [episode(language_instruction=data)])
    found = [only(root, environment=rule("language_instruction"))[0] for _ in range(2)]
    assert found[0] == found[1]
    expected = data.decode("utf-8", "replace").strip()
    assert found[0].instructions == ((expected,) if expected else ())
    assert found[0].environment == (expected or None)


def test_packed_numbers_are_not_taken_for_text(tmp_path: Path) -> None:
    features = changed(FEATURES, language_instruction=Tensor(shape=(), dtype=np.int64, encoding="bytes"))
    root = write_dataset(tmp_path, features, [episode(language_instruction=packed(65, "bytes", np.int64))])
    assert "expected text, the source has Tensor int64" in fails(ConfigError, root)
    for option in ({"instruction": ("language_instruction",)}, {"environment": rule("language_instruction")}):
        assert "expected text" in fails(ConfigError, root, **{"instruction": (), **option})
