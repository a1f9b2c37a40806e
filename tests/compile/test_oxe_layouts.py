"""Datasets in the exact layouts of Open X-Embodiment compile as the catalog says, and mean what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxcart.compile.catalog import lookup, names
from oxcart.compile.images import Resize
from oxcart.compile.pipeline import CompileConfig, execute, prepare
from oxcart.compile.plan import Settings
from oxcart.compile.sources.base import CensusRow, EnvironmentRule, SourceConfig
from oxcart.compile.sources.rlds.source import RldsSource
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import Manifest
from oxcart.manifests.split import SplitRule
from oxcart.manifests.tables import EPISODES
from oxe_layouts import LAYOUTS, expected, tfds_features, values
from rlds_builder import Image, Tensor, Text, jpeg, noisy_frame, write_dataset
from sample_compile import cli

STEPS = 3
OBSERVATION, NATURAL = "steps/observation/", "steps/observation/natural_language_instruction"
LANGUAGE = "steps/language_instruction"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What must come of a layout."""

    cameras: list[str]
    """Members, the primary first."""
    instruction: str = NATURAL
    action: list[str]
    """Paths, with [start:stop] where a part is taken."""
    state: list[str]
    given: dict[str, Any] | None = None
    """Values of leaves."""
    environment: tuple[str | None, str] = (None, "unknown")
    """Name, and how it is known."""
    rate: tuple[float, bool] | None = None
    """Hz, and whether it is verified."""


def text(words: str) -> list[int]:
    """As language_table stores it."""
    return [*words.encode(), *[0] * (512 - len(words.encode()))]


GOOGLE = [f"steps/action/{name}" for name in ("world_vector", "rotation_delta", "gripper_closedness_action")]
CASES = {
    "bridge_dataset": Case(
        cameras=["image_0", "image_1", "image_2", "image_3"],
        instruction=LANGUAGE,
        action=["steps/action"],
        state=[OBSERVATION + "state"],
        given={"episode_metadata/file_path": "/n/bridge_data_v2/toykitchen7/fold/00/train/out.npy"},
        environment=("toykitchen7", "declared"),
        rate=(5.0, True),
    ),
    "bridge": Case(
        cameras=["image"],
        action=["steps/action/world_vector", "steps/action/rotation_delta", "steps/action/open_gripper"],
        state=[OBSERVATION + "state"],
        rate=(5.0, True),
    ),
    "fractal20220817_data": Case(
        cameras=["image"],
        action=GOOGLE,
        state=[OBSERVATION + "base_pose_tool_reached", OBSERVATION + "gripper_closed"],
        given={"attributes/env_name": "kitchen 3"},
        environment=("kitchen 3", "declared"),
        rate=(3.0, True),
    ),
    "droid": Case(
        cameras=["exterior_image_1_left", "exterior_image_2_left", "wrist_image_left"],
        instruction=LANGUAGE,
        action=["steps/action"],
        state=[OBSERVATION + "cartesian_position", OBSERVATION + "gripper_position"],
        given={
            "episode_metadata/file_path": "/n/r2d2-data-full/RAIL/success/2023-04-17/Mon_Apr_17/trajectory.h5"
        },
        environment=("RAIL", "declared"),
        rate=(15.0, True),
    ),
    "language_table": Case(
        cameras=["rgb"],
        instruction=OBSERVATION + "instruction",
        action=["steps/action"],
        state=[OBSERVATION + "effector_translation"],
        rate=(10.0, False),
    ),
    "bc_z": Case(
        cameras=["image"],
        action=[
            "steps/action/future/xyz_residual[0:3]",
            "steps/action/future/axis_angle_residual[0:3]",
            "steps/action/future/target_close[0:1]",
        ],
        state=[OBSERVATION + f"present/{name}" for name in ("xyz", "axis_angle", "sensed_close")],
    ),
    "kuka": Case(
        cameras=["image"],
        action=GOOGLE,
        state=[OBSERVATION + "clip_function_input/base_pose_tool_reached", OBSERVATION + "gripper_closed"],
    ),
    "mimic_play": Case(
        cameras=["image_front_image_1", "image_front_image_2", "wrist_image_wrist_image"],
        instruction=LANGUAGE,
        action=["steps/action"],
        state=[OBSERVATION + "state/ee_pose", OBSERVATION + "state/gripper_position"],
    ),
    "taco_play": Case(
        cameras=["rgb_static", "rgb_gripper"],
        action=["steps/action/rel_actions_world"],
        state=[OBSERVATION + "robot_obs"],
        environment=("taco_table", "inferred"),
        rate=(15.0, False),
    ),
    "robo_net": Case(
        cameras=["image", "image1", "image2"],
        instruction=LANGUAGE,
        action=["steps/action"],
        state=[OBSERVATION + "state"],
        given={"episode_metadata/file_path": "/n/hdf5/berkeley_sawyer_traj12.hdf5"},
        environment=("berkeley", "declared"),
        rate=(1.0, False),
    ),
    "aloha_mobile": Case(
        cameras=["cam_high", "cam_left_wrist", "cam_right_wrist"],
        instruction=LANGUAGE,
        action=["steps/action"],
        state=[OBSERVATION + "state"],
        rate=(50.0, False),
    ),
    "vima_converted_externally_to_rlds": Case(
        cameras=["image", "frontal_image"],
        instruction="steps/multimodal_instruction",
        action=[f"steps/action/pose{i}_{what}" for i in (0, 1) for what in ("position", "rotation")],
        state=[],
        environment=("vima_bench", "inferred"),
    ),
}


def compiled(root: Path, out: Path, rule: SplitRule, **options: Any) -> tuple[Manifest, Dataset]:
    config = CompileConfig(
        source=SourceConfig(url=str(root), **options),
        out=str(out),
        settings=Settings(rule=rule, resize=Resize(size=(16, 16))),
        workers=1,
    )
    return execute(prepare(config)), Dataset.open(str(out))


def leaf(layout: Any, path: str) -> Any:
    """The leaf of a path; a name may have slashes."""
    while isinstance(layout, dict):
        name = next(name for name in layout if path == name or path.startswith(name + "/"))
        layout, path = layout[name], path[len(name) + 1 :]
    return layout


def numbers(name: str, fields: list[str], seed: int) -> np.ndarray[Any, Any]:
    """[T, width]: what the fields of the layout were filled with."""
    parts = []
    for field in fields:
        path, _, part = field.partition("[")
        first, last = map(int, part[:-1].split(":")) if part else (0, None)
        steps = [expected(leaf(LAYOUTS[name], path), path, seed, t).ravel()[first:last] for t in range(STEPS)]
        parts.append(np.stack(steps))
    return np.concatenate(parts, axis=1).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_a_dataset_in_the_layout_compiles_as_the_catalog_says(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    words = "push the blue cube"
    said = {case.instruction: text(words) if name == "language_table" else words}
    root = write_dataset(
        tmp_path,
        tfds_features(LAYOUTS[name]),
        [values(LAYOUTS[name], seed, {**said, **(case.given or {})}, STEPS) for seed in (0, 1)],
        name=name,
    )
    cameras = lookup(name).cameras
    manifest, dataset = compiled(root, tmp_path / "out", SplitRule(val=None), cameras=cameras)

    assert manifest.counts == {"source": 2, "compiled": 2, "rejected": 0, "limited": 0}
    assert [camera["name"] for camera in manifest.cameras] == case.cameras
    assert all((camera["height"], camera["width"]) == (16, 16) for camera in manifest.cameras)
    rate = manifest.control_rate
    assert ((rate["hz"], rate["verified"]) if rate else None) == case.rate
    environment, known = case.environment
    (found,) = manifest.environments
    assert (found["name"], found["known"]) == (environment, known)

    rows = sorted(dataset.table(EPISODES).to_pylist(), key=lambda row: str(row["key"]))
    assert [row["instruction"] for row in rows] == [words, words]
    assert {row["environment"] for row in rows} == {environment}
    for what, fields in (("action", case.action), ("state", case.state)):
        stated = getattr(manifest, what)
        if not fields:
            assert stated is None
            continue
        assert stated["source"] == fields
        wanted = np.concatenate([numbers(name, fields, seed) for seed in (0, 1)])
        assert stated["size"] == wanted.shape[1]
        np.testing.assert_allclose(stated["statistics"]["mean"], wanted.mean(0, np.float64), rtol=1e-6)
        np.testing.assert_array_equal(stated["statistics"]["min"], wanted.min(0))
        np.testing.assert_array_equal(stated["statistics"]["max"], wanted.max(0))


def test_every_episode_of_a_layout_holds_its_own_values(tmp_path: Path) -> None:
    for name, case in CASES.items():
        layout = LAYOUTS[name]
        said = {case.instruction: text("go") if name == "language_table" else "go"}
        root = write_dataset(tmp_path, tfds_features(layout), [values(layout, 4, said, STEPS)], name=name)
        row, source = census(root)
        episode = source.read({field: getattr(row, field) for field in row.__dataclass_fields__})
        np.testing.assert_array_equal(episode.action, numbers(name, case.action, 4))
        if case.state:
            np.testing.assert_array_equal(episode.state, numbers(name, case.state, 4))


def census(root: Path, **options: Any) -> tuple[CensusRow, RldsSource]:
    """The one row of a source, and the source."""
    source = RldsSource(SourceConfig(url=str(root), **options))
    (row,) = (row for file in source.files() for row in source.census(file))
    assert row.rejected is None, row.rejected
    return row, source


def test_a_copy_of_fractal_without_attributes_has_unknown_environments(tmp_path: Path) -> None:
    layout = {name: node for name, node in LAYOUTS["fractal20220817_data"].items() if name == "steps"}
    root = write_dataset(tmp_path, tfds_features(layout), [values(layout, 0)], name="fractal20220817_data")
    row, source = census(root)
    assert (row.environment, row.environment_known) == (None, "unknown")
    assert source.describe()["environment"] is None


def test_names_of_one_kitchen_of_bridge_are_held_out_together(tmp_path: Path) -> None:
    layout, field = LAYOUTS["bridge_dataset"], "episode_metadata/file_path"
    places = ["toykitchen1", "datacol1_toykitchen1", "tabletop_dark_wood", "toykitchen6"]
    episodes = [
        values(layout, i, {field: f"/n/bridge_data_v2/{place}/fold/00/train/out.npy"}, 2)
        for i, place in enumerate(places)
    ]
    root = write_dataset(tmp_path, tfds_features(layout), episodes, name="bridge_dataset")
    _, dataset = compiled(root, tmp_path / "out", SplitRule(val=("datacol1_toykitchen1",)))
    rows = dataset.table(EPISODES).to_pylist()
    assert {row["environment"] for row in rows if row["split"] == "val"} == set(places[:2])
    assert cli("scan", root, "--quiet", "--workers", 1).output == "", "the catalog has said what is one place"


def test_language_table_is_split_by_instruction(tmp_path: Path) -> None:
    layout, field = LAYOUTS["language_table"], "steps/observation/instruction"
    said = ["push left", "push right", "Push the left!"]
    episodes = [values(layout, i, {field: text(words)}, 2) for i, words in enumerate(said)]
    root = write_dataset(tmp_path, tfds_features(layout), episodes, name="language_table")
    _, dataset = compiled(root, tmp_path / "out", SplitRule(by="instruction", val=("push right",)))
    rows = dataset.table(EPISODES).to_pylist()
    assert {row["instruction"]: row["split"] for row in rows} == {
        "push left": "train",
        "push right": "val",
        "Push the left!": "train",
    }


def test_a_dataset_that_the_catalog_does_not_know_compiles_from_options(tmp_path: Path) -> None:
    name = "my_robot"
    layout = LAYOUTS["bc_z"]
    episodes = [values(layout, seed, {NATURAL: "stack"}) for seed in (0, 1)]
    root = write_dataset(tmp_path, tfds_features(layout), episodes, name=name)
    assert name not in names()
    manifest, _ = compiled(
        root,
        tmp_path / "out",
        SplitRule(val=None),
        cameras=("image",),
        instruction=(NATURAL,),
        action=("action/future/xyz_residual[:3]", "action/future/target_close[:1]"),
        state=("present/xyz",),
        environment=EnvironmentRule(field="observation/sequence_length"),
    )
    assert manifest.action is not None
    assert manifest.action["size"] == 4
    assert manifest.action["source"] == [
        "steps/action/future/xyz_residual[0:3]",
        "steps/action/future/target_close[0:1]",
    ]
    assert [one["known"] for one in manifest.environments] == ["declared", "declared"]
    assert manifest.control_rate is None


def place(path: str, bare: str) -> list[str]:
    """Where a feature of the catalog may be: the names of dictionaries around it, and its own."""
    path = re.sub(r"\[[-\d]*:[-\d]*\]$", "", path)
    first, _, rest = path.partition("/")
    if first in ("episode_metadata", "attributes"):
        return [first, rest]
    if first in ("action", "observation") and rest:
        return ["steps", first, rest]
    return ["steps", path] if bare == "steps" else ["steps", bare, path]


def part(field: str) -> slice:
    """The part that a field takes of its feature, as `[:7]` says."""
    stop = re.search(r"\[:(\d+)\]$", field)
    return slice(int(stop[1]) if stop else None)


@pytest.mark.parametrize("name", CASES)
def test_the_columns_of_an_entry_name_every_value_of_its_features(name: str) -> None:
    case, entry = CASES[name], lookup(name)
    fields = (*(entry.action or ()), *(entry.state or ()))
    for field, path in zip(fields, (*case.action, *case.state), strict=True):
        values_of_a_step = expected(leaf(LAYOUTS[name], path.partition("[")[0]), path, 0, 0).size
        named = entry.columns.get(field.partition("[")[0])
        assert named is None or len(named) == values_of_a_step, field


@pytest.mark.parametrize("name", [name for name in names() if name not in CASES])
def test_the_fields_of_every_other_entry_fit_together(name: str, tmp_path: Path) -> None:
    """A dataset made up from the entry alone: it proves no fact, only that the entry can be read."""
    entry = lookup(name)
    features: dict[str, Any] = {"steps": {"observation": {}}}
    episode: dict[str, Any] = {"steps": [{"observation": {}} for _ in range(2)]}

    def put(path: list[str], feature: Any, make: Any) -> None:
        *above, last = path
        inside = [episode]
        described = features
        for part in above:
            described = described.setdefault(part, {})
            inside = [
                one
                for node in inside
                for one in (node[part] if part == "steps" else [node.setdefault(part, {})])
            ]
        described[last] = feature
        for i, node in enumerate(inside):
            node[last] = make(i)

    for field in entry.cameras or ():
        put(place(field, "observation"), Image(shape=(12, 16, 3)), lambda i: jpeg(noisy_frame(i)))
    width = {}
    for bare, fields in (("steps", entry.action), ("observation", entry.state)):
        for field in fields or ():
            stop = re.search(r":(\d+)\]$", field)
            named = len(entry.columns.get(field.partition("[")[0], ()))
            size = width[field] = named or (int(stop[1]) + 1 if stop else 3)
            kind = Tensor(shape=(size,), dtype=np.float32)
            put(place(field, bare), kind, lambda i, size=size: np.full(size, i))
    for field in entry.instruction or ():
        put(place(field, "steps"), Text(), lambda i: "go")
    if entry.environment and entry.environment.field:
        put(place(entry.environment.field, "steps"), Text(), lambda i: "nowhere")

    row, source = census(write_dataset(tmp_path, features, [episode], name=name), cameras=entry.cameras)
    assert len(source.cameras) == len(entry.cameras or ())
    sizes = [
        sum(len(range(width[field])[part(field)]) for field in fields or ()) or None
        for fields in (entry.action, entry.state)
    ]
    assert [sum(source.array_sizes["action"]) or None, sum(source.array_sizes["state"]) or None] == sizes
    assert row.instructions == ("go",)
    assert source.control_rate == entry.control_rate
