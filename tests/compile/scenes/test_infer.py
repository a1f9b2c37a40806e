"""Scenes of the sample are its kitchens, whatever the source, and a compile splits by them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot_port import write_port
from lerobot_writer import DATA, SIZE, TOP, RobotTake, edit_table, png, write_lerobot

from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.scenes.backgrounds import Background, read_backgrounds
from oxcart.compile.scenes.cluster import THRESHOLD
from oxcart.compile.scenes.infer import Scenes, infer_scenes, scene_name
from oxcart.compile.scenes.page import page
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import Source, SourceConfig
from oxcart.shards.errors import SourceError
from sample_compile import census_of, cli, complaint, rows_of

KITCHENS = RldsSampleConfig(kitchens=6, sessions=2, episodes=2, steps=8, files=1)


@pytest.fixture(scope="module")
def rlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rlds(tmp_path_factory.mktemp("rlds"), KITCHENS)


@pytest.fixture(scope="module")
def lerobot(rlds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same episodes without their environments, in another order."""
    root = tmp_path_factory.mktemp("lerobot") / "port"
    write_port(root, open_source(SourceConfig(url=str(rlds))), census_of(rlds).table.to_pylist()[::-1])
    return root


def scenes_of(root: Path, kind: str = "rlds", **options: Any) -> tuple[Scenes, Source]:
    config = SourceConfig(url=str(root), kind=kind)
    source, rows = open_source(config), census_of(root, kind=kind).usable.to_pylist()
    seen = read_backgrounds(config, source, rows, 1, lambda done, size: None)
    return infer_scenes(source, rows, seen, **options), source


def test_scenes_of_the_sample_are_its_kitchens(rlds: Path) -> None:
    found, _ = scenes_of(rlds)
    assert found.agreement is not None
    assert found.agreement["purity"] >= 0.95
    assert found.agreement["ari"] >= 0.95
    assert found.agreement["scenes"] == found.agreement["environments"] == found.count == 6
    for scene in range(found.count):
        own = found.members(scene)
        assert own[0] == found.medoids[scene]
        assert np.array_equal(found.fit[own], np.sort(found.fit[own])[::-1])
    assert sum(found.within) + sum(found.between) == 24 * 23 // 2
    assert sum(found.within) == 6 * 6
    assert not any(found.between[35:])
    assert not any(found.within[:25])
    first = found.closest[0]
    assert first[0] < first[1]
    assert first[2] == max(score for _, _, score in found.closest) < found.threshold


def test_a_port_has_the_same_scenes_and_knows_no_environment(rlds: Path, lerobot: Path) -> None:
    (of_rlds, _), (of_port, _) = scenes_of(rlds), scenes_of(lerobot, "lerobot")
    assert of_port.agreement is None
    both = [(one[:, None] == one).tolist() for one in (of_rlds.labels[::-1], of_port.labels)]
    assert both[0] == both[1]
    assert of_port.labels[0] == 0


def test_a_compile_splits_by_the_table_that_people_may_correct(lerobot: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "scenes.csv", tmp_path / "out"
    result = cli("scenes", lerobot, "-o", table, "--html", tmp_path / "page.html", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["scenes"], said["threshold"]) == (6, THRESHOLD)
    text = table.read_text()
    table.write_text(text.replace("scene-0002", "scene-0001"))
    told = ("--environment-table", table, "--val-fraction", "0.2", "--workers", 1, "--quiet")
    assert cli("compile", lerobot, out, *told).exit_code == 0
    rows = rows_of(out)
    assert {row["environment"] for row in rows} == {scene_name(one) for one in (0, 2, 3, 4, 5)}
    assert {row["environment_known"] for row in rows} == {"inferred"}
    assert "names may have been corrected" in complaint(cli("scenes", lerobot, "-o", table))
    assert cli("scenes", lerobot, "-o", table, "--overwrite", "--quiet").exit_code == 0
    assert table.read_text() == text


def test_tables_of_both_forms_say_the_same(rlds: Path, lerobot: Path) -> None:
    for root, kind in ((rlds, "rlds"), (lerobot, "lerobot")):
        found, _ = scenes_of(root, kind)
        table = found.table()
        assert table.column_names[0] == ("key" if kind == "rlds" else "episode_index")
        lines = list(csv.DictReader(found.to_bytes("x.csv").decode().splitlines()))
        assert [one["environment"] for one in lines] == table["environment"].to_pylist()
        assert json.loads((table.schema.metadata or {})[b"oxcart.scenes"])["threshold"] == 0.6


def test_folders_of_splits_are_told_by_keys(rlds: Path, tmp_path: Path) -> None:
    rows, source = census_of(rlds).table.to_pylist(), open_source(SourceConfig(url=str(rlds)))
    write_port(tmp_path / "two/train", source, rows[::2])
    write_port(tmp_path / "two/val", source, rows[1::2])
    table = tmp_path / "scenes.csv"
    assert cli("scenes", tmp_path / "two", "-o", table, "--quiet").exit_code == 0
    assert table.read_text().startswith("key,environment")
    found = cli("scan", tmp_path / "two", "--environment-table", table, "--json")
    assert {one["name"] for one in json.loads(found.stdout)["environments"]} == {
        scene_name(i) for i in range(6)
    }


def test_episodes_that_show_nothing_have_no_scene(rlds: Path, tmp_path: Path) -> None:
    config = SourceConfig(url=str(rlds))
    source, rows = open_source(config), census_of(rlds).usable.to_pylist()
    seen = read_backgrounds(config, source, rows, 1, lambda done, size: None)
    dark = [Background(None, "no frame shows anything"), Background(None, "is broken"), *seen[2:]]
    found = infer_scenes(source, rows, dark)
    assert found.labels[:2].tolist() == [-1, -1]
    assert found.reasons == {"no frame shows anything": 1, "is broken": 1}
    assert found.table()["environment"].to_pylist()[:2] == [None, None]
    assert found.table()["environment_known"].to_pylist()[:2] == ["unknown"] * 2
    assert b"2 episodes show nothing" in page(found, source, "oxcart scenes")
    pq.write_table(found.table(), tmp_path / "scenes.parquet")
    with pytest.raises(SourceError, match="no episode shows anything: is broken"):
        infer_scenes(source, rows[:1], dark[1:2])


def test_black_and_broken_episodes_are_seen_as_such(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "set", [RobotTake(), RobotTake()], cameras={TOP: "image"})

    def damaged(images: list[Any]) -> list[Any]:
        black = {"bytes": png(np.zeros((*SIZE, 3), np.uint8)), "path": ""}
        return [black] * 5 + [images[5], *({**one, "bytes": one["bytes"][:90]} for one in images[6:])]

    edit_table(root / DATA, TOP, damaged)
    config = SourceConfig(url=str(root), kind="lerobot")
    source, rows = open_source(config), census_of(root, kind="lerobot").usable.to_pylist()
    seen = read_backgrounds(config, source, rows, 1, lambda done, size: None)
    assert [one.median for one in seen] == [None, None]
    assert seen[0].reason == "no frame shows anything"
    assert "cannot be decoded" in (seen[1].reason or "")


def test_a_medoid_is_most_like_the_others_of_its_scene(rlds: Path) -> None:
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 160, (25, 24, 24, 3))
    thumbs = [(noise[24] + noise[i] // 2 * (i != 7)).astype(np.uint8) for i in range(10)]
    found = infer_scenes(
        open_source(SourceConfig(url=str(rlds))),
        [{"key": str(i), "environment": None} for i in range(10)],
        [Background(one, None) for one in thumbs],
    )
    assert found.medoids == (7,)
    assert found.fit[7] == found.fit.max()


def test_the_page_is_whole_in_itself(rlds: Path) -> None:
    found, source = scenes_of(rlds)
    drawn: list[int] = []
    text = page(found, source, "oxcart scenes <b>", drawn.append).decode()
    assert drawn == list(range(1, len(drawn) + 1))
    assert text.count("data:image/jpeg;base64,") == 6 * 4 + 6 * 2
    assert "oxcart scenes &lt;b&gt;" in text
    assert not any(word in text for word in ("http://", "https://", "<script"))
    for name in ("scene-0001", "purity", "completeness", "adjusted Rand index", "threshold 0.60"):
        assert name in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--part", "0/2"), "--part, --engine: expected neither"),
        (("--engine", "ray"), "--part, --engine: expected neither"),
    ],
)
def test_scenes_need_all_episodes_at_once(options: tuple[str, ...], said: str, rlds: Path) -> None:
    assert said in complaint(cli("scenes", rlds, "-o", rlds.parent / "x.csv", *options))
