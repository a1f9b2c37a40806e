"""RLDS episodes: what the features mean, and that a row reads its own episode again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow_datasets.core import features as tfds_features

from oxcart.compile.catalog import Entry
from oxcart.compile.images import Resize, decode_into
from oxcart.compile.sources.base import EnvironmentRule, SuccessRule
from oxcart.compile.sources.rlds import source as rlds_source
from oxcart.manifests.columns import described, unnamed
from oxcart.shards.errors import ConfigError, SourceError
from rlds_builder import Image, Tensor, Text, jpeg, noisy_frame, png, record, write_dataset
from toy_rlds import FEATURES, census, changed, episode, fails, only, open_rlds, packed, read, vector

BRIDGE = Path(__file__).parents[5] / "shared" / "data" / "bridge_dataset" / "1.0.0"


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
        assert found.action.shape == (row.steps, sum(source.array_sizes["action"]))


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
    row, _ = only(write_dataset(tmp_path, features, [values]), instruction=("observation/instruction",))
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


def test_all_of_a_source_may_be_one_environment(tmp_path: Path) -> None:
    row, _ = only(
        write_dataset(tmp_path, FEATURES, [episode()]), environment=EnvironmentRule.parse("=my lab")
    )
    assert (row.environment, row.environment_known) == ("my lab", "declared")


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
    rate = open_rlds(root).control_rate
    assert rate is not None
    assert rate.items() >= {"hz": 5.0, "verified": True}.items()
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
    with pytest.raises(ConfigError, match="expected either field or whole"):
        EnvironmentRule(**rule)  # type: ignore[arg-type]


def test_a_broken_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a regular expression") as caught:
        EnvironmentRule.parse("file_path~([")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cameras": ("imag",)}, "camera 'imag': no such feature; there are image"),
        ({"cameras": ("state",)}, "camera 'state': no such feature; there are image"),
        ({"action": ("acton",)}, "action 'acton': no such feature; there are"),
        ({"state": ("joints",)}, "state 'joints': no such feature"),
        ({"instruction": ("steps/language_instructions",)}, "did you mean steps/language_instruction?"),
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
    """Cameras of all sorts: only colour and grey images of 8 bits count."""
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
    rgba = np.dstack([noisy_frame(0), noisy_frame(1)[:, :, 0]])
    steps = [
        {
            "observation": {
                "wrist": png(noisy_frame(t, 8, 8)),
                "image": jpeg(noisy_frame(t, 20, 30)),
                "grey": png(noisy_frame(t)[:, :, 0]),
                "depth": png(noisy_frame(t)[:, :, 0].astype(np.uint16)),
                "alpha": png(rgba),
                "a_raw": np.zeros((2, 2, 3)),
                "flow": np.zeros((2, 2, 2)),
            },
            "overview": png(noisy_frame(t, 5, 6)),
        }
        for t in range(2)
    ]
    return write_dataset(tmp_path, features, [{"steps": steps, "thumbnail": png(noisy_frame(0))}], name=name)


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
def test_what_is_no_image_of_a_step_is_no_camera(tmp_path: Path, camera: str) -> None:
    message = fails(ConfigError, cameras_dataset(tmp_path), cameras=(camera,))
    assert message.endswith("there are a_raw, grey, image, overview, wrist")


@pytest.mark.parametrize("encoding", ["none", "bytes", "zlib"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_that_are_a_tensor_are_images(tmp_path: Path, encoding: str, channels: int) -> None:
    shape = (12, 16, channels)
    features = {"steps": {"observation": {"view": Tensor(shape=shape, dtype=np.uint8, encoding=encoding)}}}
    frames = [noisy_frame(t)[:, :, :channels] for t in range(3)]
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
    steps = [{"observation": {name: png(noisy_frame(t)) for name in names}} for t in range(2)]
    root = write_dataset(tmp_path, features, [{"steps": steps}])
    assert "the name is taken" in fails(ConfigError, root, cameras=names)


def test_a_dataset_without_a_camera_is_refused(tmp_path: Path) -> None:
    features = {"steps": {"action": vector(2)}}
    root = write_dataset(tmp_path, features, [{"steps": [{"action": [0, 0]}] * 2}])
    assert "no camera" in fails(SourceError, root)


def test_duplicates_are_equal_and_near_duplicates_are_not(tmp_path: Path) -> None:
    twin = episode(1) | {"episode_metadata": {"file_path": "elsewhere"}}
    others = [
        episode(1, 4),
        episode(1, action=lambda t: [1, t, t / 2 + (t == 2) * 1e-6]),
        episode(1, image=lambda t: jpeg(noisy_frame(100 + t), quality=76)),
        episode(1, image=lambda t: jpeg(noisy_frame(102 - t))),
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
        values = episode(image=lambda t: png(noisy_frame(t, 9, 11)))
        row, _ = only(write_dataset(tmp_path / str(declared), features, [values]))
        assert (row.heights[0], row.widths[0]) == expected


def test_episodes_of_one_dataset_may_differ_in_size(tmp_path: Path) -> None:
    sizes = [(9, 11), (30, 20)]
    some = [episode(i, image=lambda t, i=i: jpeg(noisy_frame(t, *sizes[i]))) for i in range(2)]
    rows = census(open_rlds(write_dataset(tmp_path, FEATURES, some)))
    assert [(row.heights[0], row.widths[0]) for row in rows] == sizes


def named(field: str, size: int) -> list[dict[str, Any]]:
    return described(unnamed(field, size))


def test_the_description_names_all_that_decides_a_row(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode()])
    base = open_rlds(root).describe()
    assert base == {
        "kind": "rlds",
        "name": "toy_dataset",
        "version": "1.0.0",
        "source_splits": ["train"],
        "cameras": {"image": "steps/observation/image"},
        "roles": {"image": "primary"},
        "channels": {"image": "rgb"},
        "instruction": ["steps/language_instruction"],
        "action": ["steps/action"],
        "state": ["steps/observation/state"],
        "reward": [],
        "columns": {"action": named("action", 3), "state": named("state", 2), "reward": []},
        "no_action": [],
        "environment": None,
        "success": None,
        "control_rate": None,
        "licence": None,
        "citation": None,
    }
    others: list[dict[str, Any]] = [
        {"instruction": ()},
        {"action": ()},
        {"state": ("action",)},
        {"action_names": ("dx", "dy", "dz")},
        {"action_kinds": ("delta",)},
        {"state_names": ("x", "y")},
        {"state_kinds": ("0=absolute",)},
        {"no_action": ("first",)},
        {"reward": ("is_last",)},
        {"success": SuccessRule.parse("is_last")},
        {"success": SuccessRule.parse("file_path~x")},
        {"roles": {"image": "wrist"}},
        {"bgr": ("image",)},
        {"licence": "MIT"},
        {"environment": EnvironmentRule.parse("file_path")},
        {"environment": EnvironmentRule.parse("file_path~x")},
    ]
    assert all(open_rlds(root, **options).describe() != base for options in others)
    assert str(tmp_path) not in str(base)


def test_steps_without_action_are_an_options_before_the_catalogs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode()])
    monkeypatch.setattr(rlds_source, "lookup", lambda name: Entry(no_action=("last",)))
    found = [open_rlds(root, no_action=ends).no_action for ends in (None, (), ("last", "first"))]
    assert found == [("last",), (), ("first", "last")]
    said = fails(ConfigError, root, no_action=("first", "none"))
    assert said == "--no-action: expected one of first, last; got 'none'"


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
    assert (source.array_sizes["action"], source.array_sizes["state"]) == ((7,), (7,))


@needs_bridge
def test_the_fourth_camera_of_bridge_is_black_and_the_others_are_not() -> None:

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
