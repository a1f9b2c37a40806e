"""Whatever is done to a dataset, verify says so, names the file and does not fall over.

A tiny dataset is compiled once; every test breaks a copy of it, or breaks it in place and mends it again.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oxcart.cli.main import oxcart
from oxcart.compile.pipeline import CompileConfig, execute, prepare
from oxcart.compile.plan import Settings
from oxcart.compile.sample.rlds import SampleConfig, write_rlds
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import episode_digest, fingerprint
from oxcart.manifests.split import SplitRule
from oxcart.manifests.verify import Damage, verify
from oxcart.shards.errors import OxcartError

CAMERAS = ("image_0", "wrist")
MANIFEST = "manifest.json"
FILES = (
    "episodes.parquet",
    "rejected.parquet",
    "shards/train-00000.tar",
    "shards/train-00000.chunks.parquet",
    "shards/train-00001.tar",
    "shards/train-00001.chunks.parquet",
    "shards/val-00000.tar",
    "shards/val-00000.chunks.parquet",
)
"""All that the dataset consists of, but for the manifest."""
SHARDS = tuple(name for name in FILES if name.endswith(".tar"))
TABLES = tuple(name for name in FILES if name.endswith(".parquet"))


def build(folder: Path, seed: int = 0) -> Path:
    sample = SampleConfig(kitchens=3, sessions=1, episodes=2, steps=4, size=32, files=2, seed=seed)
    config = CompileConfig(
        source=SourceConfig(url=str(write_rlds(folder, sample)), cameras=CAMERAS),
        out=str(folder / "dataset"),
        settings=Settings(rule=SplitRule(val=0.34), shard_size=40_000),
        workers=1,
    )
    execute(prepare(config))
    return folder / "dataset"


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = build(tmp_path_factory.mktemp("intact"))
    found = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    assert found == {*FILES, MANIFEST}
    return root


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same episodes of other kitchens: equal keys and names of files, other bytes."""
    return build(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def root(intact: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(intact, tmp_path / "copy"))


def found(root: Path) -> list[Damage]:
    return verify(Dataset.open(str(root)))


def names(damage: list[Damage]) -> set[str]:
    return {one.file for one in damage}


def reasons(root: Path, file: str) -> list[str]:
    """What is wrong with the file, which is all that is wrong."""
    damage = found(root)
    assert names(damage) == {file}, damage
    return [one.reason for one in damage]


@contextlib.contextmanager
def holding(path: Path, data: bytes) -> Iterator[None]:
    """The file holds `data` for a while."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def flipped(data: bytes, position: int, bits: int = 1) -> bytes:
    return data[:position] + bytes([data[position] ^ bits]) + data[position + 1 :]


def read_manifest(root: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((root / MANIFEST).read_text())
    return value


def write_manifest(root: Path, value: object) -> None:
    (root / MANIFEST).write_text(json.dumps(value))


def seal(root: Path, *, fingerprinted: bool = True) -> None:
    """Make the manifest state the digests that the files now have, as a forger would."""
    manifest = read_manifest(root)
    for name, table in manifest["tables"].items():
        data = (root / name).read_bytes()
        table |= {"bytes": len(data), "blake3": blake3(data).hexdigest()}
        table["rows"] = pq.read_table(io.BytesIO(data)).num_rows
    for shard in manifest["shards"]:
        data, chunks = (root / shard["name"]).read_bytes(), (root / shard["chunks"]).read_bytes()
        shard |= {"bytes": len(data), "blake3": blake3(data).hexdigest()}
        shard |= {"chunks_bytes": len(chunks), "chunks_blake3": blake3(chunks).hexdigest()}
    if fingerprinted:
        rows = pq.read_table(root / "episodes.parquet").to_pylist()
        episodes = ((row["key"], row["split"], row["digest"]) for row in rows)
        manifest["fingerprint"] = fingerprint(manifest["pixels"], episodes)
    write_manifest(root, manifest)


def test_an_intact_dataset_has_no_damage(intact: Path) -> None:
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
    metadata = f"{key}: metadata, action or state does not match the episode's digest"
    nobody = "does not match its digest; no member is damaged, so padding or a header is"
    regions: dict[str, list[tuple[int, str]]] = {
        name: [] for name in ("header", "json", "npy header", "array", "frame", "padding", "end")
    }
    with tarfile.open(root / shard) as tar:
        members = [m for m in tar.getmembers() if m.name.startswith(f"{key}.")]
    assert [m.name.partition(".")[2] for m in members] == [
        "json",
        "action.npy",
        "state.npy",
        *(f"{camera}.npy" for camera in CAMERAS),
    ]
    for member in members:
        start, end = member.offset_data, member.offset_data + member.size
        # Name, mode, user, size, time, checksum, type, link, magic, version, device, prefix, padding.
        fields = (0, 99, 100, 108, 124, 135, 136, 150, 156, 157, 257, 263, 345, 511)
        regions["header"] += [(member.offset + at, header) for at in fields]
        regions["padding"] += [(at, nobody) for at in {end, end + -end % 512 - 1} if end % 512]
        what = member.name.partition(".")[2].removesuffix(".npy")
        if what == "json":
            regions["json"] += [(at, metadata) for at in (start, (start + end) // 2, end - 1)]
            continue
        first = row[f"{what}.offset"]
        regions["npy header"] += [(at, nobody) for at in (start, start + 6, start + 9, start + 20, first - 1)]
        if what in ("action", "state"):
            regions["array"] += [(at, metadata) for at in (first, (first + end) // 2, end - 1)]
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


@pytest.mark.parametrize("region", ["header", "json", "npy header", "array", "frame", "padding", "end"])
@pytest.mark.parametrize("index", [0, -1])
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
            f"shards/{row['shard']}.tar", f"{row['key']}: something of it does not match the episode's digest"
        )
    ]


def test_a_damaged_shard_is_found_where_the_episode_table_is_lost(root: Path) -> None:
    (root / "episodes.parquet").unlink()
    assert names(found(root)) == {"episodes.parquet"}
    shard = root / SHARDS[1]
    shard.write_bytes(flipped(shard.read_bytes(), 20_000))
    assert [one.reason for one in found(root) if one.file == SHARDS[1]] == ["does not match its digest"]


@settings(max_examples=150, deadline=None)
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
def test_a_file_of_another_dataset_is_found(root: Path, other: Path, file: str) -> None:
    if (root / file).read_bytes() == (other / file).read_bytes():
        assert file == "rejected.parquet"  # neither has any
        return
    shutil.copy(other / file, root / file)
    assert names(found(root)) == {file}
    seal(root)
    assert found(root), "and so it is when the manifest states its digest"


def test_a_manifest_of_another_dataset_is_found(root: Path, other: Path) -> None:
    shutil.copy(other / MANIFEST, root / MANIFEST)
    assert names(found(root)) == set(FILES) - {"rejected.parquet"}


# A manifest that lies

UNCHECKED = {"config", "versions", "plan", "dataset", "control_rate", "action", "state"}
"""Statements that nothing else in the dataset bears out."""


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in inside:
        yield from leaves(inner, (*path, name))
    if not isinstance(value, dict | list):
        yield path, value


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        value = value[name]
    return value


def test_any_false_statement_is_found(intact: Path) -> None:
    manifest = read_manifest(intact)
    statements = list(leaves(manifest))
    assert len(statements) > 100
    for path, value in statements:
        if path[0] in UNCHECKED or path[0] == "format" or path[-1] == "source" or path[:2] == ("shards", 1):
            continue
        lie = value + 1 if isinstance(value, int) else f"{value}x"
        changed = json.loads(json.dumps(manifest))
        at(changed, path[:-1])[path[-1]] = lie
        with holding(intact / MANIFEST, json.dumps(changed).encode()):
            try:
                said = str(found(intact) or "")
            except OxcartError as error:
                said = str(error)
        assert said, (path, lie)


def test_a_false_count_says_both_numbers(root: Path) -> None:
    manifest = read_manifest(root)
    frames = manifest["splits"]["val"]["frames"]
    manifest["splits"]["val"]["frames"] += 1
    write_manifest(root, manifest)
    (reason,) = reasons(root, MANIFEST)
    assert reason.startswith("splits: the manifest says ")
    assert f"'frames': {frames + 1}" in reason
    assert f"'frames': {frames}," in reason


def test_a_false_row_of_a_list_is_said_alone(root: Path) -> None:
    manifest = read_manifest(root)
    manifest["environments"][1]["name"] = "moon"
    write_manifest(root, manifest)
    (reason,) = reasons(root, MANIFEST)
    assert reason.startswith("environments[1]: the manifest says {'name': 'moon'")
    assert manifest["environments"][0]["name"] not in reason


def test_an_environment_too_few_is_found(root: Path) -> None:
    manifest = read_manifest(root)
    del manifest["environments"][-1]
    write_manifest(root, manifest)
    (reason,) = reasons(root, MANIFEST)
    assert reason.startswith("environments[2]: the manifest says nothing, the tables {")


def test_a_shard_that_is_gone_from_manifest_and_folder_is_found(root: Path) -> None:
    manifest = read_manifest(root)
    gone = manifest["shards"].pop()
    write_manifest(root, manifest)
    for what in ("name", "chunks"):
        (root / gone[what]).unlink()
    (reason,) = reasons(root, MANIFEST)
    assert reason.startswith("shards[2]: the manifest says nothing, the tables {'shard': 'val-00000'")


def test_shards_in_another_order_are_found(root: Path) -> None:
    manifest = read_manifest(root)
    manifest["shards"].reverse()
    write_manifest(root, manifest)
    assert reasons(root, MANIFEST)[0].startswith("shards[0]: ")


def test_cameras_in_another_order_or_of_another_name_are_found(root: Path) -> None:
    manifest = read_manifest(root)
    manifest["cameras"].reverse()
    write_manifest(root, manifest)
    assert found(root)
    manifest["cameras"][0]["name"] = "moon"
    write_manifest(root, manifest)
    assert "episodes.parquet" in names(found(root))
    del manifest["cameras"][0]
    write_manifest(root, manifest)
    assert "episodes.parquet" in names(found(root))


# Files whose digests were forged


def rewrite(root: Path, name: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the rows of a table."""
    table = pq.read_table(root / name)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), root / name)


FREE = {
    "environment_known",
    "session",
    "instruction",
    "control_rate",
    "source_split",
    "source_file",
    "source_record",
    "source_offset",
    "source_length",
    "source_digest",
}
"""Columns that verify cannot hold against anything but the digest of their table (the environment's counts
also show how it is known)."""


def test_a_forged_episode_table_is_found_wherever_shards_speak_against_it(intact: Path) -> None:
    schema = pq.read_schema(intact / "episodes.parquet")
    kept = {name: (intact / name).read_bytes() for name in ("episodes.parquet", MANIFEST)}
    for field in schema:
        now = pq.read_table(intact / "episodes.parquet")[field.name].to_pylist()[-1]
        forged: list[Any] = [None]
        if pa.types.is_integer(field.type) and field.name not in FREE:
            forged += [0, -1, now + 1, 2 ** (field.type.bit_width - 1) - 1]
        elif pa.types.is_string(field.type):
            forged += ["", now + "x"]
        for value in [value for value in forged if value != now]:
            rewrite(intact, "episodes.parquet", lambda rows, f=field.name, v=value: rows[-1].update({f: v}))  # type: ignore[misc]
            with contextlib.suppress(TypeError, UnicodeError):  # no fingerprint of nothing
                seal(intact)
            damage = found(intact)
            assert damage or field.name in FREE, (field.name, value)
            for name, data in kept.items():
                (intact / name).write_bytes(data)
    assert found(intact) == []


def test_a_table_with_other_columns_is_found(root: Path) -> None:
    for name in ("episodes.parquet", "rejected.parquet"):
        table = pq.read_table(root / name)
        for other in (
            table.drop_columns(["key"]),
            table.append_column("more", pa.nulls(table.num_rows, pa.int32())),
            table.select(table.column_names[::-1]),
            pa.table({"x": [1, 2]}),
        ):
            kept = (root / name).read_bytes(), (root / MANIFEST).read_bytes()
            pq.write_table(other, root / name)
            seal(root, fingerprinted=False)
            assert Damage(name, "its columns are not those of the format") in found(root)
            (root / name).write_bytes(kept[0])
            (root / MANIFEST).write_bytes(kept[1])


def test_what_is_no_table_is_found(root: Path) -> None:
    for name, digest in (("episodes.parquet", "blake3"), ("rejected.parquet", "blake3")):
        (root / name).write_bytes(b"PAR1 but no more")
        manifest = read_manifest(root)
        manifest["tables"][name] |= {digest: blake3(b"PAR1 but no more").hexdigest(), "bytes": 16}
        write_manifest(root, manifest)
    assert names(found(root)) == {"episodes.parquet", "rejected.parquet"}


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.clear(),
        lambda rows: rows.pop(),
        lambda rows: rows.append(rows[0]),
        lambda rows: rows.append({**rows[0], "camera": "moon"}),
        lambda rows: rows.__setitem__(1, rows[0]),
        lambda rows: rows[0].update(key="moon"),
        lambda rows: rows[0].update(camera="moon"),
        lambda rows: rows[0].update(key=None),
        lambda rows: rows[0].update(camera=None),
        lambda rows: rows[0].update(digests=None),
        lambda rows: rows[0].update(digests=[]),
        lambda rows: rows[0]["digests"].pop(),
        lambda rows: rows[0]["digests"].append(0),
        lambda rows: rows[0]["digests"].reverse(),
        lambda rows: rows[0]["digests"].__setitem__(1, None),
        lambda rows: rows[0].update(sizes=[]),
        lambda rows: rows[0].update(sizes=[None] * 4),
        lambda rows: rows[0].update(sizes=[0] * 1000),
        lambda rows: rows[0].update(sizes=[2**32 - 1]),
        lambda rows: rows[0].update(sizes=[1] * 4),
    ],
)
def test_a_forged_chunk_table_is_found(root: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    rewrite(root, "shards/val-00000.chunks.parquet", change)
    seal(root)
    assert names(found(root)) & {"shards/val-00000.chunks.parquet", "shards/val-00000.tar"}


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE, form: Any = tarfile.USTAR_FORMAT) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = (
        size,
        kind,
        "x" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else "",
    )
    return info.tobuf(form, "utf-8", "surrogateescape")


@pytest.mark.parametrize(
    "forge",
    [
        lambda key, size: header(f"{key}.moon.npy", size),
        lambda key, size: header(f"{key}.json.npy", size),
        lambda key, size: header(f"{key}.", size),
        lambda key, size: header(key, size),
        lambda key, size: header(f"{key}x.json", size),
        lambda key, size: header(f"x/{key}.json", size),
        lambda key, size: header(f"{key}.action.npy", size),
        lambda key, size: header(f"{key}.json", size - 1),
        lambda key, size: header(f"{key}.json", size + 1),
        lambda key, size: header(f"{key}.json", 0),
        lambda key, size: header(f"{key}.json", 8**11 - 1),
        lambda key, size: header(f"{key}.json", 2**63, form=tarfile.GNU_FORMAT),
        lambda key, size: header(f"{key}.json", 2**87, form=tarfile.GNU_FORMAT),
        lambda key, size: header(f"{key}.json", -512, form=tarfile.GNU_FORMAT),
        lambda key, size: header(f"{key}.json", size, tarfile.DIRTYPE),
        lambda key, size: header(f"{key}.json", size, tarfile.SYMTYPE),
        lambda key, size: header(f"{key}.json", size, tarfile.LNKTYPE),
        lambda key, size: header(f"{key}.json", size, tarfile.XHDTYPE),
        lambda key, size: header(f"{key}.json", size, tarfile.GNUTYPE_LONGNAME),
        lambda key, size: header(f"{key}.json", size, tarfile.GNUTYPE_SPARSE),
        lambda key, size: header(f"{key}.json", size, b"\xff"),
        lambda key, size: header(f"{key}\udcff.json", size),
        lambda key, size: bytes(512),
    ],
)
def test_a_forged_tar_header_is_found(root: Path, forge: Callable[[str, int], bytes]) -> None:
    row = pq.read_table(root / "episodes.parquet").to_pylist()[0]
    path = root / f"shards/{row['shard']}.tar"
    data = path.read_bytes()
    assert row["offset"] == 0
    with tarfile.open(path) as tar:
        first = tar.getmembers()[0]
    forged = forge(row["key"], first.size)
    assert len(forged) == 512
    path.write_bytes(forged + data[512:])
    assert len(reasons(root, f"shards/{row['shard']}.tar")) == 1
    seal(root)
    assert len(reasons(root, f"shards/{row['shard']}.tar")) == 1


def insert(root: Path, extra: bytes, *, owned: bool) -> list[dict[str, Any]]:
    """Put bytes between the two episodes of a shard, of which all tables know; returns the episodes."""
    table = pq.read_table(root / "episodes.parquet").to_pylist()
    first, second = (row for row in table if row["shard"] == "val-00000")
    path = root / "shards/val-00000.tar"
    data = path.read_bytes()
    path.write_bytes(data[: second["offset"]] + extra + data[second["offset"] :])

    def grow(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["key"] == first["key"] and owned:
                row["bytes"] += len(extra)
            elif row["key"] == second["key"]:
                for what in ("offset", "action.offset", "state.offset", *(f"{c}.offset" for c in CAMERAS)):
                    row[what] += len(extra)

    rewrite(root, "episodes.parquet", grow)
    seal(root)
    return [first, second]


def test_bytes_that_belong_to_no_episode_are_found(root: Path) -> None:
    _, second = insert(root, bytes(512), owned=False)
    assert reasons(root, "shards/val-00000.tar") == [
        f"{second['key']}: begins at {second['offset'] + 512}, expected {second['offset']}"
    ]


def test_a_member_too_many_is_found(root: Path) -> None:
    row = pq.read_table(root / "episodes.parquet").to_pylist()[-2]
    insert(root, header(f"{row['key']}.moon.npy", 512) + bytes(512), owned=True)
    (reason,) = (one.reason for one in found(root) if one.file == "shards/val-00000.tar")
    assert reason == (
        f"{row['key']}: expected a json, action, state, image_0, wrist; "
        "has json, action.npy, state.npy, image_0.npy, wrist.npy, moon.npy"
    )


def test_a_forgery_that_changes_a_digest_changes_the_fingerprint(root: Path) -> None:
    """Metadata changed together with every digest but the fingerprint."""
    row = pq.read_table(root / "episodes.parquet").to_pylist()[0]
    path = root / f"shards/{row['shard']}.tar"
    with tarfile.open(path) as tar:
        first = tar.getmembers()[0]
    path.write_bytes(flipped(path.read_bytes(), first.offset_data + 30))
    rewrite(root, "episodes.parquet", lambda rows: rows[0].update(digest=episode_digest({"json": [1]})))
    seal(root, fingerprinted=False)
    assert MANIFEST in names(found(root))


# A manifest that is none


def mutations(manifest: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Where and what: the manifest with a value dropped, or of another type."""

    def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        if path:
            yield path
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from paths(inner, (*path, name))
        elif isinstance(value, list) and value:
            yield from paths(value[-1], (*path, len(value) - 1))

    for path in paths(manifest):
        change: Any
        for change in ("drop", None, -1, "x", [[]], {"x": {}}):
            changed = json.loads(json.dumps(manifest))
            inside = at(changed, path[:-1])
            if change == "drop":
                del inside[path[-1]]
            else:
                inside[path[-1]] = change
            yield f"{path} {change!r}", changed


def test_a_mutated_manifest_is_refused_or_found_or_harmless(intact: Path) -> None:
    refused = []
    for what, changed in mutations(read_manifest(intact)):
        with holding(intact / MANIFEST, json.dumps(changed).encode()):
            try:
                dataset = Dataset.open(str(intact))
            except OxcartError as error:
                refused.append(str(error))
                continue
            if not what.startswith(("('config'", "('versions'", "('action'", "('state'")):
                verify(dataset)
    assert len(refused) > 300
    assert not [message for message in refused if "\n" in message or str(intact) not in message]


@settings(max_examples=100, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), cut=st.booleans())
def test_any_bytes_of_a_manifest_are_refused_or_held_against_the_files(
    intact: Path, share: float, bits: int, cut: bool
) -> None:
    data = (intact / MANIFEST).read_bytes()
    position = int(share * len(data))
    with (
        holding(intact / MANIFEST, data[:position] if cut else flipped(data, position, bits)),
        contextlib.suppress(OxcartError),
    ):
        found(intact)


# The command


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
