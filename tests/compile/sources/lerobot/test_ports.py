"""What the catalog knows of a port is told of it, where the port says less or something else."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_writer import FPS, IMAGES, RobotTake, edit_info, write_lerobot

from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import Source, SourceConfig
from oxcart.compile.sources.lerobot.ports import find_port, repo_id_of
from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError
from sample_compile import census_of, cli, complaint, one_line, rows_of


@pytest.mark.parametrize(
    ("place", "repo"),
    [
        ("hf://datasets/lerobot/viola", "lerobot/viola"),
        ("hf://datasets/lerobot/viola@v3.0", "lerobot/viola"),
        ("/data/lerobot/viola/", "lerobot/viola"),
        ("/root/.cache/huggingface/hub/datasets--lerobot--viola/snapshots/0a1b", "lerobot/viola"),
        ("s3://bucket/lerobot/viola", "lerobot/viola"),
        ("/viola", None),
    ],
)
def test_a_place_tells_a_repo_id(place: str, repo: str | None) -> None:
    assert repo_id_of(place) == repo


def port_of(asked: str | None = None, url: str = "/data/lerobot/viola") -> tuple[str | None, str] | None:
    found = find_port(url, asked)
    return (found.repo_id, found.dataset) if found else None


def test_a_port_is_found_by_its_place_or_by_what_is_asked() -> None:
    assert port_of() == ("lerobot/viola", "viola")
    assert port_of(url="/data/mine/viola") is None
    assert port_of("none") is None
    assert port_of("lerobot/toto") == ("lerobot/toto", "toto")
    assert port_of("toto") == (None, "toto")
    for asked in ("totto", "lerobot/totto", ""):
        with pytest.raises(ConfigError, match="--catalog") as caught:
            find_port("/data/x/y", asked)
        one_line(caught.value)


def write(root: Path, action: int = 7, state: int = 8, fps: int = FPS, **cameras: str) -> Path:
    """A dataset with cameras of images, and with actions and states of so many values."""
    found = {f"observation.images.{name}": kind for name, kind in cameras.items()} or IMAGES
    write_lerobot(root, [RobotTake(steps=3)] * 3, cameras=found, fps=fps)
    features = json.loads((root / "meta/info.json").read_text())["features"]
    for feature, size in (("action", action), ("observation.state", state)):
        features[feature] |= {"shape": [size], "names": [f"motor_{i}" for i in range(size)]}
        for path in (root / "data").rglob("*.parquet"):
            table = pq.read_table(path)
            values = pa.array([[float(i + 10 * row) for i in range(size)] for row in range(len(table))])
            floats = values.cast(pa.list_(pa.float32()))
            pq.write_table(table.set_column(table.column_names.index(feature), feature, floats), path)
    edit_info(root, features=features)
    return root


def opened(root: Path, **options: Any) -> Source:
    return open_source(SourceConfig(url=str(root), kind="lerobot", **options))


def kinds(source: Source, array: str) -> dict[str, int]:
    return dict(Counter(one.kind for one in source.array_columns[array]))


HYDRA = {"wrist_image": "image", "image": "image"}
DELTAS = {"delta": 6, "gripper_absolute": 1}


def test_a_port_has_the_cameras_columns_rate_and_licence_of_the_catalog(tmp_path: Path) -> None:
    source = opened(write(tmp_path / "lerobot/berkeley_fanuc_manipulation", **HYDRA))
    assert [(one.name, one.role, one.channels) for one in source.cameras] == [("image", "primary", "bgr")]
    assert kinds(source, "action") == {"delta": 6, "gripper_absolute": 1}
    assert kinds(source, "state") == {"absolute": 6, "other": 1, "gripper_absolute": 1}
    assert source.array_columns["action"][0].name == "dx"
    assert source.licence == "MIT"
    assert source.citation
    assert source.control_rate == {"hz": float(FPS), "verified": False, "source": "meta/info.json: fps"}
    plain = opened(tmp_path / "lerobot/berkeley_fanuc_manipulation", catalog="none")
    assert plain.cameras[0].channels == "rgb"
    assert kinds(plain, "action") == {"unknown": 7}
    assert (plain.licence, plain.citation) == (None, None)


def test_a_converter_that_made_rgb_is_believed(tmp_path: Path) -> None:
    def channels(repo: str, **options: Any) -> dict[str, str]:
        root = tmp_path / repo
        if not root.exists():
            write(root, **HYDRA)
        cameras = ("image", "wrist_image")
        return {one.name: one.channels for one in opened(root, cameras=cameras, **options).cameras}

    both = {"image": "bgr", "wrist_image": "bgr"}
    assert channels("lerobot/stanford_hydra_dataset") == both
    assert channels("lerobot/stanford_hydra_dataset", bgr=()) == dict.fromkeys(both, "rgb")
    assert channels("FedorX8/stanford_hydra_dataset_lerobot") == dict.fromkeys(both, "rgb")
    assert channels("mine/copy", catalog="lerobot/stanford_hydra_dataset") == both


@pytest.mark.parametrize(
    ("sizes", "action", "state", "told"),
    [
        ((7, 8), DELTAS, {"absolute": 6, "other": 1, "gripper_absolute": 1}, 0),
        ((7, 7), DELTAS, {"absolute": 6, "gripper_absolute": 1}, 0),
        (
            (7, 27),
            {"delta": 6, "gripper_absolute": 1},
            {"absolute": 17, "velocity": 7, "gripper_absolute": 3},
            0,
        ),
        ((6, 9), {"unknown": 6}, {"unknown": 9}, 2),
    ],
)
def test_columns_are_those_that_are_as_many(
    sizes: tuple[int, int], action: dict[str, int], state: dict[str, int], told: int, tmp_path: Path
) -> None:
    root = write(tmp_path / "FedorX8/stanford_hydra_dataset_lerobot", *sizes, **HYDRA)
    source, table = opened(root), census_of(root, kind="lerobot").table
    assert kinds(source, "action") == action
    assert kinds(source, "state") == state
    said = source.warnings(table)
    assert len(said) == told
    assert all("so its columns have unknown kinds; pass --" in line for line in said)
    named = opened(root, action_kinds=("unknown",), state_kinds=("unknown",))
    assert named.warnings(table) == []


def test_a_rate_that_was_rounded_down_is_the_original_one(tmp_path: Path) -> None:
    root = write(tmp_path / "FedorX8/dobbe_lerobot", fps=3, wrist_image="image")
    source, table = opened(root), census_of(root, kind="lerobot").table
    assert source.control_rate is not None
    assert source.control_rate["hz"] == 3.75
    assert not any("fps is" in line for line in source.warnings(table))
    edit_info(root, fps=5)
    slow = opened(root)
    assert any("fps is 5, but dobbe was controlled at 3.75 Hz" in line for line in slow.warnings(table))


def test_states_of_zeros_are_left_out_and_one_place_is_the_environment(tmp_path: Path) -> None:
    roboturk = opened(write(tmp_path / "lerobot/roboturk", front_rgb="image"))
    assert roboturk.array_columns["state"] == ()
    assert roboturk.array_sizes["state"] == ()
    assert len(opened(tmp_path / "lerobot/roboturk", state=("state",)).array_columns["state"]) == 8
    root = write(tmp_path / "lerobot/taco_play", rgb_gripper="image", rgb_static="image")
    rows = census_of(root, kind="lerobot").table.to_pylist()
    assert {(row["environment"], row["environment_known"]) for row in rows} == {("taco_table", "inferred")}
    assert opened(root).cameras[0].name == "rgb_static"


def test_a_camera_may_have_another_name_in_the_port(tmp_path: Path) -> None:
    root = write(tmp_path / "FedorX8/bridge_v2_lerobot", other="image", primary="image")
    source = opened(root)
    assert [(one.name, one.role) for one in source.cameras] == [("primary", "primary")]
    assert "toykitchen1" in source.aliases


def test_scan_says_what_is_from_the_catalog_and_an_extension_keeps_it(tmp_path: Path) -> None:
    root = write(tmp_path / "lerobot/taco_play", rgb_gripper="image", rgb_static="image")
    said = cli("scan", root).stdout
    told = dict(line.strip().split(": ", 1) for line in said.split("from the catalog:\n")[1].splitlines())
    rate = told.pop("control rate")
    assert rate.startswith("15 Hz, ")
    assert told == {
        "port of": "taco_play",
        "cameras": "rgb_static (primary)",
        "action": "6 delta, 1 gripper_absolute",
        "state": "7 absolute, 1 other",
        "environment": "all of it is taco_table (inferred)",
        "licence": "unknown (that of the port's card is not read)",
        "citation": "https://arxiv.org/abs/2209.08959",
    }
    other = opened(root, cameras=("rgb_gripper",), licence="MIT", state=("state[:2]", "action"), bgr=())
    assert set(other.catalogued) == {
        "port of",
        "cameras",
        "action",
        "state",
        "control rate",
        "environment",
        "citation",
    }
    write(tmp_path / "mine/odd", 6, 9, rgb_static="image")
    odd = opened(tmp_path / "mine/odd", catalog="taco_play")
    assert not {"action", "state"} & set(odd.catalogued)
    hydra = opened(write(tmp_path / "lerobot/stanford_hydra_dataset", **HYDRA))
    assert hydra.catalogued["blue for red"] == "image"
    assert "control rate" not in hydra.catalogued
    assert "from the catalog" not in cli("scan", root, "--catalog", "none").stdout
    out = tmp_path / "out"
    options = ("--workers", 1, "--quiet")
    assert cli("compile", root, out, "--val", "none", *options).exit_code == 0
    manifest = Dataset.open(str(out)).manifest
    assert manifest.config["source"]["port"] == {"repo_id": "lerobot/taco_play", "dataset": "taco_play"}
    (tmp_path / "mine").mkdir(exist_ok=True)
    moved = root.rename(tmp_path / "mine/taco_play")
    assert cli("compile", moved, out, "--extend", *options).exit_code == 0
    assert "port" in complaint(cli("compile", moved, out, "--extend", "--catalog", "none", *options))
    assert {row["environment"] for row in rows_of(out)} == {"taco_table"}


def test_other_sources_have_no_ports(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    said = complaint(cli("scan", tmp_path, "--catalog", "viola"))
    assert "--catalog: an RLDS dataset says its name itself" in said
