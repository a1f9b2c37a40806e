"""`inspect`, `show` and `verify` say exactly what a dataset holds, and that something is none in one line."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3
from click.testing import CliRunner
from PIL import Image

from oxcart.cli.main import oxcart
from oxcart.compile.images import Resize
from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.show import contact_sheet, default_episode
from oxcart.manifests.split import SplitRule
from sample_compile import compile_sample


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(oxcart, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def output(*arguments: str | Path) -> str:
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    return out


def failure(*arguments: str | Path) -> str:
    """The one line of a command that fails."""
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("oxcart: error: ")
    assert err.count("\n") == 1
    return err.removeprefix("oxcart: error: ").removesuffix("\n")


def manifest(root: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((root / "manifest.json").read_text())
    return value


def cells(line: str) -> list[str]:
    """Columns stand two spaces or more apart."""
    return [cell for cell in line.split("  ") if cell.strip()]


# inspect


def test_inspect_says_every_count(intact: Path) -> None:
    lines = [[cell.strip() for cell in cells(line)] for line in output("inspect", intact).splitlines()]
    said = manifest(intact)
    rows = pq.read_table(intact / "episodes.parquet").to_pylist()
    seen: dict[tuple[str, ...], Counter[str]] = {}
    group: tuple[str, ...]
    for row in rows:
        for group in ((row["split"],), (row["environment"], row["environment_known"], row["split"])):
            count = seen.setdefault(group, Counter())
            count.update(episodes=1, steps=row["steps"], frames=2 * row["steps"], bytes=row["bytes"])
    assert len(seen) == 5
    for group, count in seen.items():
        wanted = [*group, *(f"{count[what]:,}" for what in ("episodes", "steps", "frames"))]
        assert any(line[:-1] == wanted for line in lines), wanted
    for shard in said["shards"]:
        assert any(
            line[:3] == [shard["name"], str(shard["episodes"]), str(shard["frames"])] for line in lines
        )
    for camera, role, side in (("image_0", "primary", "32"), ("wrist", "wrist", "16")):
        assert [camera, role, f"steps/observation/{camera}", "rgb", "raw", side, side] in lines
    flat = ["  ".join(line) for line in lines]
    assert flat[0] == "oxcart_kitchens 1.0.0 (oxcart/2, 10 Hz)"
    assert flat[1] == f"fingerprint {said['fingerprint']}"
    assert flat[2] == "episodes: 6 source, 0 rejected, 0 limited"
    for name in ("action", "state"):
        at = flat.index(f"{name} ({said[name]['source'][0]}), statistics of train")
        for i in range(3):
            shown = ("mean", "std", "min", "q01", "q50", "q99", "max")
            numbers = [f"{said[name]['statistics'][what][i]:.4g}" for what in shown]
            column = said[name]["columns"][i]
            told = [column[what] or "" for what in ("name", "kind", "unit", "frame")]
            assert lines[at + 3 + i] == [str(i), *filter(None, told), *numbers]


def test_environments_stand_by_split(intact: Path) -> None:
    lines = [cells(line) for line in output("inspect", intact).splitlines()]
    known = [line[2].strip() for line in lines if len(line) > 2 and line[1].strip() == "declared"]
    assert known == ["train", "train", "val"]


def test_inspect_json_is_the_manifest(intact: Path) -> None:
    out = output("inspect", intact, "--json")
    assert json.loads(out) == manifest(intact)
    assert list(json.loads(out)) == list(manifest(intact))
    assert out.count("\n") == 1


def test_inspect_episodes(intact: Path) -> None:
    rows = pq.read_table(intact / "episodes.parquet").to_pylist()
    lines = output("inspect", intact, "--episodes", "--json").splitlines()
    assert [json.loads(line) for line in lines] == rows
    header, _, *table = output("inspect", intact, "--episodes").splitlines()
    assert cells(header)[0].strip() == "key"
    assert len(table) == len(rows)
    for line, row in zip(table, rows, strict=True):
        names = ("key", "split", "shard", "environment", "steps", "instruction")
        assert [cell.strip() for cell in cells(line)] == [str(row[name]) for name in names]


def test_a_source_without_arrays_or_rate_or_environment(root: Path) -> None:
    said = manifest(root)
    said |= {"action": None, "control_rate": None}
    said["state"]["statistics"] = None
    said["environments"][0]["name"] = None
    said["cameras"][1] |= {"height": None, "width": None}
    (root / "manifest.json").write_text(json.dumps(said))
    out = output("inspect", root)
    assert "(oxcart/2)" in out
    assert "\naction: none\n" in out
    assert "\nstate (steps/observation/state): no step of train has one\n" in out
    assert "\n(unknown)  " in out
    assert [line.split()[4:] for line in out.splitlines() if line.startswith("wrist ")] == [["raw", "-", "-"]]


def test_an_unverified_rate_says_so(root: Path) -> None:
    said = manifest(root)
    said["control_rate"] = {"hz": 7.5, "verified": False, "source": "a paper, by its plots"}
    (root / "manifest.json").write_text(json.dumps(said))
    said["dataset"] |= {"licence": "CC-BY-4.0", "citation": None}
    (root / "manifest.json").write_text(json.dumps(said))
    out = output("inspect", root)
    assert ", 7.5 Hz (unverified))" in out
    assert "\nlicence: CC-BY-4.0\ncontrol rate: a paper, by its plots\n" in out
    assert "citation" not in out


def test_a_text_with_line_breaks_stays_on_its_line(root: Path) -> None:
    table = pq.read_table(root / "episodes.parquet")
    texts = pa.array(["two\nlines \x1b[31m"] * table.num_rows)
    pq.write_table(
        table.set_column(table.column_names.index("instruction"), "instruction", texts),
        root / "episodes.parquet",
    )
    said = manifest(root)
    said["tables"]["episodes.parquet"]["blake3"] = blake3(
        (root / "episodes.parquet").read_bytes()
    ).hexdigest()
    (root / "manifest.json").write_text(json.dumps(said))
    out = output("inspect", root, "--episodes")
    assert len(out.splitlines()) == 2 + table.num_rows
    assert "\x1b" not in out
    assert len(output("inspect", root, "--episodes", "--json").splitlines()) == table.num_rows


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a manifest; of lists the last item stands for all."""
    inside = (
        value.items()
        if isinstance(value, dict)
        else [(len(value) - 1, value[-1])]
        if isinstance(value, list) and value
        else ()
    )
    return [path] * bool(path) + [found for name, inner in inside for found in paths(inner, (*path, name))]


@pytest.mark.system
def test_inspect_of_any_mutated_manifest_is_text_or_one_line(root: Path) -> None:
    said = manifest(root)
    failed = 0
    for path in paths(said):
        change: Any
        for change in (None, -1, "x\ny", [], {}, "drop"):
            changed = inside = copy.deepcopy(said)
            for name in path[:-1]:
                inside = inside[name]
            if change == "drop":
                del inside[path[-1]]
            else:
                inside[path[-1]] = change
            (root / "manifest.json").write_text(json.dumps(changed))
            code, out, err = run("inspect", root)
            assert (code, err.count("\n")) == ((0, 0) if out else (1, 1)), (path, change)
            failed += code
    assert failed > 250


# show


def test_show_writes_the_sheet(intact: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(str(intact))
    first = next(episode for episode in dataset if episode.split == "val")
    strip = tmp_path / "new" / "folder" / "strip.png"
    assert output("show", intact, "-o", strip) == f"{strip}: {first.key}\n"
    with Image.open(strip) as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(contact_sheet(first)))
    output("show", intact, dataset[0].key, "--output", strip, "--frames", "2", "--height", "16")
    with Image.open(strip) as image:
        wanted = contact_sheet(dataset[0], frames=2, height=16)
        np.testing.assert_array_equal(np.asarray(image), np.asarray(wanted))


@pytest.mark.parametrize(
    ("name", "kind"), [("x.jpg", "JPEG"), ("x.JPEG", "JPEG"), ("x.webp", "WEBP"), ("x.PNG", "PNG")]
)
def test_show_writes_what_the_name_says(intact: Path, tmp_path: Path, name: str, kind: str) -> None:
    output("show", intact, "-o", tmp_path / name, "--height", "16")
    with Image.open(tmp_path / name) as image:
        image.load()
        assert image.format == kind


@pytest.mark.parametrize("name", ["strip.gif", "strip", "strip.png.txt", ".png", "strip.tiff"])
def test_show_refuses_another_kind_before_it_reads(tmp_path: Path, name: str) -> None:
    message = failure("show", tmp_path / "nowhere", "-o", tmp_path / name)
    assert (
        message
        == f"--output: expected a name that ends in .png, .jpg, .jpeg or .webp, got '{tmp_path / name}'"
    )
    assert not list(tmp_path.iterdir())


def test_show_suggests_the_nearest_key(intact: Path, tmp_path: Path) -> None:
    key = Dataset.open(str(intact))[0].key
    message = failure("show", intact, f"{key}x", "-o", tmp_path / "x.png")
    remedy = "oxcart inspect --episodes lists all of them"
    assert message == f"episode '{key}x': the dataset has no such key; did you mean {key}? {remedy}"
    assert failure("show", intact, "zzz", "-o", tmp_path / "x.png").endswith(f"; {remedy}")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An episode of more steps than a sheet has frames, each frame 64 times as wide as high."""
    sample = RldsSampleConfig(kitchens=1, sessions=1, episodes=1, steps=90, size=32, files=1)
    folder = tmp_path_factory.mktemp("wide")
    return compile_sample(folder, sample, rule=SplitRule(val=None), resize=Resize(size=(1, 64))).out


@pytest.mark.parametrize(("kind", "frames"), [("webp", 20), ("jpg", 64)])
def test_show_says_so_where_a_kind_cannot_hold_the_sheet(
    wide: Path, tmp_path: Path, kind: str, frames: int
) -> None:
    strip = tmp_path / "out" / f"x.{kind}"
    message = failure("show", wide, "-o", strip, f"--frames={frames}", "--height=16")
    assert message.startswith(
        f"--output: .{kind} holds {16383 if kind == 'webp' else 65500} pixels per side, the sheet has "
    )
    assert message.endswith("choose .png, fewer --frames or a smaller --height")
    assert not strip.parent.exists()


def test_show_where_nothing_can_be_written(intact: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = failure("show", intact, "-o", tmp_path / "file" / "x.png")
    assert str(tmp_path / "file") in message


def test_show_of_a_damaged_frame_writes_nothing(root: Path, tmp_path: Path) -> None:
    row = default_episode(Dataset.open(str(root))).row
    shard = root / f"shards/{row['shard']}.tar"
    data = bytearray(shard.read_bytes())
    data[row["wrist.offset"] + 5] ^= 1
    shard.write_bytes(data)
    message = failure("show", root, "-o", tmp_path / "x.png")
    assert message == f"{row['shard']}: {row['key']}, camera wrist, chunk 0 does not match its digest"
    assert not (tmp_path / "x.png").exists()


# verify


def test_verify_says_intact_or_what_is_not(root: Path) -> None:
    said = manifest(root)
    frames = sum(shard["frames"] for shard in said["shards"])
    assert output("verify", root, "--quiet") == ""
    code, out, err = run("verify", root)
    assert (code, out) == (0, f"{root}: intact, {len(said['shards'])} shards, {frames:,} frames\n")
    assert err.startswith("verifying: ")

    data = (root / "rejected.parquet").read_bytes()
    (root / "rejected.parquet").write_bytes(data[:-1])
    (root / said["shards"][0]["name"]).rename(root / "shards/elsewhere.tar")
    code, out, err = run("verify", root, "--quiet")
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "rejected.parquet",
        "shards/elsewhere.tar",
        said["shards"][0]["name"],
    ]
    code, out, _ = run("verify", root, "--json", "--workers=1")
    assert code == 1
    assert json.loads(out) == {
        "intact": False,
        "damage": [dict(zip(("file", "reason"), line.split(": ", 1), strict=True)) for line in lines],
    }


# What is no dataset


@pytest.mark.parametrize(
    "command", [("inspect",), ("inspect", "--episodes"), ("verify",), ("show", "-o", "x.png")]
)
def test_what_is_no_dataset_is_one_line(
    root: Path, tmp_path: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "unfinished/.oxcart").mkdir(parents=True)
    (tmp_path / "unfinished/.oxcart/plan.json").write_text("{}")
    none = "{}: no manifest.json, so not a compiled dataset; "
    changes: dict[str, Callable[[dict[str, Any]], object]] = {
        "newer": lambda said: said.update(format="oxcart/3"),
        "older": lambda said: said.update(format="oxcart/1"),
        "lacking": lambda said: said.pop("shards"),
    }
    for name, change in changes.items():
        said = manifest(root)
        change(said)
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps(said))
    (tmp_path / "garbled").mkdir()
    (tmp_path / "garbled/manifest.json").write_bytes(b"\xff{")
    for where, message in {
        "empty": none + "compile a source into it first",
        "missing": none + "compile a source into it first",
        "file": none + "compile a source into it first",
        "unfinished": none + "its compile has not finished; run it again",
        "newer": "{}: format 'oxcart/3', expected 'oxcart/2'; use the oxcart that wrote it",
        "older": "{}: format 'oxcart/1', expected 'oxcart/2'; compile its source again with --overwrite",
        "lacking": "{}/manifest.json: fields missing: shards",
        "garbled": "{}/manifest.json: cannot be parsed: ",
        "": "DATASET: expected a path or a URL, got ''",
        "hdfs://host/dataset": "store '{}': unknown scheme 'hdfs'; expected a directory or gs://",
    }.items():
        assert failure(command[0], where, *command[1:]).startswith(message.format(where)), where
    assert not (tmp_path / "x.png").exists()
    assert not (tmp_path / "missing").exists()


def test_a_damaged_episode_table_is_one_line(root: Path, tmp_path: Path) -> None:
    (root / "episodes.parquet").write_bytes(b"PAR1")
    message = f"{root}/episodes.parquet: does not match its digest in the manifest"
    assert failure("inspect", root, "--episodes") == message
    assert failure("show", root, "-o", tmp_path / "x.png") == message
    assert output("inspect", root).startswith("oxcart_kitchens 1.0.0"), "counts stand in the manifest"
