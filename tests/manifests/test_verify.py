"""A byte that changed, a file that is cut, gone or another: verify says so and names the file.

Every test breaks a copy of a tiny dataset, or breaks it in place and mends it again. What was forged, so that
the digests agree, is in `test_verify_forged.py`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from broken_dataset import (
    FILES,
    MANIFEST,
    SHARDS,
    TABLES,
    flipped,
    found,
    holding,
    names,
    read_manifest,
    reasons,
    seal,
)
from depth import depth, few
from oxcart.cli.main import oxcart
from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.manifests.columns import ARRAYS
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule
from oxcart.manifests.verify import Damage, _undecodable, verify
from sample_compile import CAMERAS, Compiled, compile_sample


@pytest.fixture(scope="module")
def other_kitchens(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """`six_episodes` of other kitchens: equal keys and names of files, other bytes."""
    sample = RldsSampleConfig(kitchens=3, sessions=1, episodes=2, steps=4, size=32, files=2, seed=1)
    folder = tmp_path_factory.mktemp("other")
    return compile_sample(folder, sample, cameras=CAMERAS, rule=SplitRule(val=0.34))


def test_an_intact_dataset_has_no_damage(intact: Path) -> None:
    assert {p.relative_to(intact).as_posix() for p in intact.rglob("*") if p.is_file()} == {*FILES, MANIFEST}
    for workers in (1, 4):
        told: list[tuple[int, int]] = []
        dataset = Dataset.open(str(intact))
        assert verify(dataset, workers=workers, report=lambda *at, told=told: told.append(at)) == []
        shards = dataset.manifest.shards
        assert told == sorted(told)
        assert told[-1] == (sum(s["frames"] for s in shards), sum(s["bytes"] for s in shards))
        assert len(told) == len(shards) == 3


def test_verify_writes_nothing(intact: Path) -> None:
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in intact.rglob("*") if p.is_file()}
    found(intact)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in intact.rglob("*") if p.is_file()} == before


# A byte that has changed


def places(root: Path, shard: str, row: dict[str, Any]) -> dict[str, list[tuple[int, str]]]:
    """Region of the bytes of an episode -> (position, what verify must say of a change there)."""
    key = row["key"]
    header = f"{key}: a tar header is damaged"
    nobody = "does not match its digest; no member is damaged, so padding or a header is"
    regions: dict[str, list[tuple[int, str]]] = {
        name: [] for name in ("header", "json", "npy header", "array", "frame", "padding", "end")
    }
    with tarfile.open(root / shard) as tar:
        members = [m for m in tar.getmembers() if m.name.startswith(f"{key}.")]
    assert [m.name.partition(".")[2] for m in members] == [
        "json",
        *(f"{name}.npy" for name in (*ARRAYS, *CAMERAS)),
    ]
    for member in members:
        start, end = member.offset_data, member.offset_data + member.size
        # Name, mode, user, size, time, checksum, type, link, magic, version, device, prefix, padding.
        fields = (0, 99, 100, 108, 124, 135, 136, 150, 156, 157, 257, 263, 345, 511)
        regions["header"] += [(member.offset + at, header) for at in fields]
        regions["padding"] += [(at, nobody) for at in {end, end + -end % 512 - 1} if end % 512]
        what = member.name.partition(".")[2].removesuffix(".npy")
        if what == "json":
            regions["json"] += [
                (at, f"{key}: json does not match its digest") for at in (start, (start + end) // 2, end - 1)
            ]
            continue
        first = row[f"{what}.offset"]
        regions["npy header"] += [(at, nobody) for at in (start, start + 6, start + 9, start + 20, first - 1)]
        if what in ARRAYS:
            reason = f"{key}: {what}.npy does not match its digest"
            regions["array"] += [(at, reason) for at in (first, (first + end) // 2, end - 1)]
            continue
        size = row[f"{what}.height"] * row[f"{what}.width"] * 3
        assert first + row["steps"] * size == end
        for step in range(row["steps"]):
            reason = f"{key}: camera {what}, chunk {step} does not match its digest"
            at = first + step * size
            regions["frame"] += [(at, reason), (at + size // 2, reason), (at + size - 1, reason)]
    size = (root / shard).stat().st_size
    regions["end"] += [(at, nobody) for at in (size - 1024, size - 513, size - 512, size - 1)]
    return regions


@pytest.mark.parametrize(
    "region",
    few(["header", "json", "npy header", "array", "frame", "padding", "end"], "header", "frame"),
)
@pytest.mark.parametrize("index", few([0, -1], -1))
def test_a_flipped_bit_is_found_and_named(intact: Path, region: str, index: int) -> None:
    shard = SHARDS[index]
    rows = pq.read_table(intact / "episodes.parquet").to_pylist()
    mine = [row for row in rows if f"shards/{row['shard']}.tar" == shard]
    data = (intact / shard).read_bytes()
    places_there = places(intact, shard, mine[index])[region]
    assert len(places_there) >= 3
    for i, (position, reason) in enumerate(places_there):
        with holding(intact / shard, flipped(data, position, 1 << i % 8)):
            assert reasons(intact, shard) == [reason], position
    assert found(intact) == []


def test_all_damaged_frames_are_counted(root: Path) -> None:
    row = pq.read_table(root / "episodes.parquet").to_pylist()[0]
    path = root / f"shards/{row['shard']}.tar"
    data = bytearray(path.read_bytes())
    size = row["image_0.height"] * row["image_0.width"] * 3
    for step in (1, 2):
        data[row["image_0.offset"] + step * size + 7] ^= 4
    data[row["wrist.offset"]] ^= 4
    path.write_bytes(data)
    assert reasons(root, f"shards/{row['shard']}.tar") == [
        f"{row['key']}: camera image_0, chunk 1 and 1 more does not match its digest",
        f"{row['key']}: camera wrist, chunk 0 does not match its digest",
    ]


@pytest.mark.parametrize("file", TABLES)
def test_a_flipped_bit_of_a_table_is_found(intact: Path, file: str) -> None:
    data = (intact / file).read_bytes()
    for position in {*range(0, len(data), 211), 0, 3, len(data) - 9, len(data) - 5, len(data) - 1}:
        with holding(intact / file, flipped(data, position)):
            assert len(reasons(intact, file)) == 1


def test_a_damaged_frame_is_found_where_the_chunk_table_is_lost(root: Path) -> None:
    row = pq.read_table(root / "episodes.parquet").to_pylist()[0]
    shard, chunks = (root / f"shards/{row['shard']}.{end}" for end in ("tar", "chunks.parquet"))
    chunks.unlink()
    assert names(found(root)) == {f"shards/{row['shard']}.chunks.parquet"}
    shard.write_bytes(flipped(shard.read_bytes(), row["wrist.offset"]))
    damage = [one for one in found(root) if one.file.endswith(".tar")]
    assert damage == [
        Damage(
            f"shards/{row['shard']}.tar",
            f"{row['key']}: does not match its digest, though its pieces match theirs",
        )
    ]


def test_a_damaged_shard_is_found_where_the_episode_table_is_lost(root: Path) -> None:
    (root / "episodes.parquet").unlink()
    assert names(found(root)) == {"episodes.parquet"}
    shard = root / SHARDS[1]
    shard.write_bytes(flipped(shard.read_bytes(), 20_000))
    assert [one.reason for one in found(root) if one.file == SHARDS[1]] == ["does not match its digest"]


@depth(100)
@given(file=st.sampled_from(FILES), share=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
@example(file=SHARDS[0], share=0.0, bits=0x20)
def test_any_change_of_any_byte_is_found(intact: Path, file: str, share: float, bits: int) -> None:
    data = (intact / file).read_bytes()
    with holding(intact / file, flipped(data, int(share * len(data)), bits)):
        assert names(found(intact)) == {file}


# Files that are cut, gone, swapped, or of another dataset


@pytest.mark.parametrize("file", FILES)
def test_a_cut_file_is_found(intact: Path, file: str) -> None:
    data = (intact / file).read_bytes()
    lengths = {0, 1, 511, 512, 513, 1024, len(data) // 2, len(data) - 1025, len(data) - 1024}
    lengths |= {len(data) - 1023, len(data) - 512, len(data) - 511, len(data) - 1}
    for length in sorted(length for length in lengths if 0 <= length < len(data)):
        with holding(intact / file, data[:length]):
            said = reasons(intact, file)
            if file in SHARDS:
                assert said[0] == f"has {length} bytes, the manifest says {len(data)}"


def test_a_cut_shard_says_which_episode_is_the_first_to_suffer(intact: Path) -> None:
    rows = pq.read_table(intact / "episodes.parquet").to_pylist()
    first, second = (row for row in rows if row["shard"] == "train-00000")
    data = (intact / SHARDS[0]).read_bytes()
    with holding(intact / SHARDS[0], data[: second["offset"] + 700]):
        assert reasons(intact, SHARDS[0])[1:] == [f"{second['key']}: cut off, and whatever follows it"]
    with holding(intact / SHARDS[0], flipped(data[: second["offset"] - 1], first["wrist.offset"])):
        assert reasons(intact, SHARDS[0])[1:] == [f"{first['key']}: cut off, and whatever follows it"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("tail", [b"\0", b"x", bytes(512), bytes(10240)], ids=repr)
def test_bytes_at_the_end_are_found(intact: Path, file: str, tail: bytes) -> None:
    with holding(intact / file, (intact / file).read_bytes() + tail):
        assert len(reasons(intact, file)) == 1


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_found(root: Path, file: str) -> None:
    (root / file).unlink()
    assert len(reasons(root, file)) == 1


@pytest.mark.parametrize("file", FILES)
def test_a_folder_in_the_place_of_a_file_is_found(root: Path, file: str) -> None:
    (root / file).unlink()
    (root / file).mkdir()
    assert file in names(found(root))


def test_a_missing_folder_is_found(root: Path) -> None:
    shutil.rmtree(root / "shards")
    assert names(found(root)) == {name for name in FILES if name.startswith("shards/")}


@pytest.mark.parametrize("stray", ["train-00002.tar", "train-00000.tar.tmp", "x", "deep/train-00000.tar"])
def test_a_stray_file_among_the_shards_is_found(root: Path, stray: str) -> None:
    path = root / "shards" / stray
    path.parent.mkdir(exist_ok=True)
    shutil.copy(root / SHARDS[0], path)
    assert reasons(root, f"shards/{stray}") == ["is not in the manifest"]


@pytest.mark.parametrize("end", [".tar", ".chunks.parquet"])
def test_swapped_files_are_found(root: Path, end: str) -> None:
    one, two = (root / f"shards/train-0000{i}{end}" for i in (0, 1))
    one.rename(root / "aside")
    two.rename(one)
    (root / "aside").rename(two)
    assert names(found(root)) == {f"shards/train-0000{i}{end}" for i in (0, 1)}


def test_wholly_swapped_shards_are_found(root: Path) -> None:
    for end in (".tar", ".chunks.parquet"):
        one, two = (root / f"shards/train-0000{i}{end}" for i in (0, 1))
        one.rename(root / "aside")
        two.rename(one)
        (root / "aside").rename(two)
    assert names(found(root)) == {
        f"shards/train-0000{i}{e}" for i in (0, 1) for e in (".tar", ".chunks.parquet")
    }
    seal(root)
    assert {"shards/train-00000.tar", "shards/train-00001.tar"} <= names(found(root))


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_another_dataset_is_found(root: Path, other_kitchens: Compiled, file: str) -> None:
    if (root / file).read_bytes() == (other_kitchens.out / file).read_bytes():
        assert file == "rejected.parquet"  # neither has any
        return
    shutil.copy(other_kitchens.out / file, root / file)
    assert names(found(root)) == {file}
    seal(root)
    assert found(root), "and so it is when the manifest states its digest"


def test_a_manifest_of_another_dataset_is_found(root: Path, other_kitchens: Compiled) -> None:
    shutil.copy(other_kitchens.out / MANIFEST, root / MANIFEST)
    assert names(found(root)) == set(FILES) - {"rejected.parquet"}


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(oxcart, ["verify", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_on_an_intact_dataset(intact: Path) -> None:
    frames = sum(shard["frames"] for shard in read_manifest(intact)["shards"])
    code, out, err = run(str(intact))
    assert (code, out) == (0, f"{intact}: intact, 3 shards, {frames:,} frames\n")
    assert f"{frames}/{frames} frames" in err
    assert run(str(intact), "--quiet", "--workers", "1") == (0, "", "")
    code, out, _ = run(str(intact), "--json", "--quiet")
    assert (code, json.loads(out)) == (0, {"intact": True, "damage": []})


def test_the_command_lists_damage_and_exits_with_1(root: Path) -> None:
    (root / SHARDS[1]).unlink()
    (root / "shards/stray.tar").write_bytes(b"")
    shard = root / SHARDS[0]
    row = pq.read_table(root / "episodes.parquet").to_pylist()[0]
    shard.write_bytes(flipped(shard.read_bytes(), row["image_0.offset"]))
    module = [sys.executable, "-W", "error", "-m", "oxcart.cli.main", "verify", str(root)]
    result = subprocess.run(module, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "shards/stray.tar: is not in the manifest"
    assert lines[1] == f"{SHARDS[0]}: {row['key']}: camera image_0, chunk 0 does not match its digest"
    assert lines[2].startswith(f"{SHARDS[1]}: ")
    assert len(lines) == 3

    code, out, err = run(str(root), "--json", "--quiet")
    assert (code, err) == (1, "")
    report = json.loads(out)
    assert report["intact"] is False
    assert [f"{one['file']}: {one['reason']}" for one in report["damage"]] == lines


def test_the_command_on_what_is_no_dataset_is_one_line(root: Path, tmp_path: Path) -> None:
    (root / MANIFEST).write_text("{}")
    for where in (root, tmp_path / "nowhere"):
        code, out, err = run(str(where))
        assert (code, out) == (1, "")
        assert err.startswith("oxcart: error: ")
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("codec", "said"),
    [
        ("jpeg", "chunk 0 cannot be decoded: its header is no JPEG's"),
        ("zstd", "chunk 0 cannot be decoded: "),
        ("raw", "chunk 0 "),
    ],
)
def test_a_chunk_that_cannot_be_decoded_is_said_once(codec: str, said: str) -> None:
    row = {"steps": 1, "image_0.height": 8, "image_0.width": 8}
    camera = {"name": "image_0", "codec": codec, "chunk": 1}
    found = _undecodable([memoryview(b"none")], [1], row, camera)
    assert found is not None
    assert found.startswith(said)
    assert found.count("cannot be decoded") <= 1
