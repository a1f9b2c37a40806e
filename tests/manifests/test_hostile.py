"""A dataset from a stranger, of a few kilobytes, costs little memory and time to refuse, whoever opens it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3

from broken_dataset import MANIFEST, found, read_manifest, write_manifest
from depth import few
from oxcart.manifests import dataset
from oxcart.manifests.annotation import read_annotation
from oxcart.manifests.dataset import Dataset, read_chunks
from oxcart.manifests.tables import FREE_ROWS, VALUES
from oxcart.manifests.verify import verify
from oxcart.shards.errors import CorruptError, OxcartError, StoreError
from oxcart.shards.store import Store
from oxcart.train.data.index import SplitIndex

CHUNKS = "shards/train-00000.chunks.parquet"
MOST_MIB, MOST_S = 512, 30.0
"""Half of the memory that is promised, and thrice the time, for machines that are busy."""


def many(root: Path, rows: int, **changed: str) -> None:
    """The first episode again and again, some of its texts changed; and a manifest that agrees."""
    first = pq.read_table(root / "episodes.parquet").slice(0, 1)
    columns = []
    for field in first.schema:
        value = changed.get(field.name, first[field.name][0].as_py())
        if value is None or pa.types.is_boolean(field.type):  # Parquet has no dictionaries of these
            columns.append(pa.array([value] * rows, field.type))
            continue
        same = pa.array([0] * rows, pa.int32())
        columns.append(pa.DictionaryArray.from_arrays(same, pa.array([value], field.type)))
    table = pa.table(columns, names=first.schema.names)
    pq.write_table(table, root / "episodes.parquet", compression="zstd", store_schema=False)
    manifest = read_manifest(root)
    manifest["splits"]["train"]["episodes"] = manifest["counts"]["compiled"] = rows
    manifest["tables"]["episodes.parquet"]["rows"] = rows
    write_manifest(root, manifest)


def rows(root: Path) -> None:
    many(root, 100_000)


def text(root: Path) -> None:
    """It goes through the table of the loader, which keeps it once, and no further."""
    many(root, FREE_ROWS, instruction="x" * 1_000_000, split="train" + "x" * 1_000_000)


def counts(root: Path) -> None:
    """A table of values with a row for each of many columns, all in one dictionary."""
    number, row = 100_000, pq.read_table(root / VALUES).slice(0, 1)
    none = pa.array([0] * number, pa.int32())
    columns = [pa.DictionaryArray.from_arrays(none, row[name].combine_chunks()) for name in row.column_names]
    pq.write_table(pa.table(columns, row.column_names), root / VALUES, compression="zstd", store_schema=False)
    manifest = read_manifest(root)
    manifest["tables"][VALUES]["rows"] = number
    write_manifest(root, manifest)


def chunks(root: Path) -> None:
    table = pq.read_table(root / CHUNKS)
    numbers = pa.nulls(4_000_000, pa.uint64()).fill_null(0)
    ends = np.full(table.num_rows + 1, len(numbers), np.int32)
    ends[0] = 0
    lists = pa.ListArray.from_arrays(pa.array(ends), numbers)
    table = table.set_column(2, "digests", lists)
    pq.write_table(table, root / CHUNKS, compression="zstd")


def seal(root: Path) -> None:
    """Make the manifest state the digests that the files now have; nothing is decoded for it."""
    manifest = read_manifest(root)
    for name, table in manifest["tables"].items():
        table["blake3"] = blake3((root / name).read_bytes()).hexdigest()
    for shard in manifest["shards"]:
        shard["chunks_blake3"] = blake3((root / shard["chunks"]).read_bytes()).hexdigest()
    write_manifest(root, manifest)


RUN = """
import contextlib, io, json, resource, sys, time
import oxcart.cli.main, pyarrow.parquet
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
root, codes, said = sys.argv[1], [], io.StringIO()
out = root + "/../sheet.png"
for line in (["inspect", root], ["inspect", root, "--episodes", "--json"], ["verify", root], ["audit", root],
             ["show", root, "-o", out], ["diff", root, sys.argv[2]]):
    sys.argv = ["oxcart", *line]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            oxcart.cli.main.main()
            codes.append(0)
        except SystemExit as error:
            codes.append(error.code or 0)
mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps([codes, mib, time.process_time() - began, said.getvalue()]))
"""


@pytest.mark.parametrize("forge", few([rows, text, counts, chunks], rows), ids=lambda one: one.__name__)
def test_every_command_refuses_a_small_table_that_unfolds(
    root: Path, intact: Path, forge: Callable[[Path], None]
) -> None:
    forge(root)
    seal(root)
    manifest = read_manifest(root)
    write_manifest(root, {**manifest, "fingerprint": "f" * 64})
    assert sum(path.stat().st_size for path in root.rglob("*.parquet")) < 400_000
    call = [sys.executable, "-c", RUN, str(root), str(intact)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=True)
    codes, mib, seconds, said = json.loads(done.stdout)
    assert codes[0] == 0  # inspect alone looks at the manifest and no further
    assert codes[2:4] == [1, 2]  # verify and audit
    assert "Traceback" not in said
    assert mib < MOST_MIB
    assert seconds < MOST_S


@pytest.mark.parametrize("forge", [rows, text, chunks], ids=lambda one: one.__name__)
def test_the_loader_refuses_it_too(root: Path, forge: Callable[[Path], None]) -> None:
    forge(root)
    seal(root)
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(CorruptError) as caught:
        SplitIndex(Dataset.open(str(root)), "train").cameras["primary"].chunks(0)
    assert len(str(caught.value).splitlines()) == 1
    assert pa.default_memory_pool().max_memory() - before < MOST_MIB << 20


def test_what_is_there_bounds_a_chunk_table_and_not_what_the_manifest_says(root: Path) -> None:
    table = pq.read_table(root / CHUNKS)
    ends = np.linspace(0, 1_000_000, table.num_rows + 1, dtype=np.int32)
    zeros = pa.ListArray.from_arrays(pa.array(ends), pa.nulls(1_000_000, pa.uint64()).fill_null(0))
    pq.write_table(table.set_column(2, "digests", zeros), root / CHUNKS, compression="zstd")
    manifest = read_manifest(root)
    for shard in manifest["shards"]:
        shard["frames"] = shard["bytes"] = shard["episodes"] = 1 << 40
    write_manifest(root, manifest)
    seal(root)
    reasons = [one.reason for one in found(root) if one.file == CHUNKS]
    assert len(reasons) == 1
    assert "it would take" in reasons[0]


def test_many_steps_do_not_make_a_chunk_table_large(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pq.read_table(root / CHUNKS)
    count = 500_000
    monkeypatch.setattr(dataset, "CHUNKS_LARGE", 4 << 20)
    ends = np.full(table.num_rows + 1, count, np.int32)
    ends[0] = 0
    zeros = pa.ListArray.from_arrays(pa.array(ends), pa.nulls(count, pa.uint64()).fill_null(0))
    pq.write_table(table.set_column(2, "digests", zeros), root / CHUNKS, compression="zstd")
    seal(root)
    shard = next(one for one in read_manifest(root)["shards"] if one["chunks"] == CHUNKS)
    held = {**shard, "frames": 1 << 30, "bytes": 1 << 40}
    with pytest.raises(CorruptError, match=r"more than the 4,194,304 that"):
        read_chunks(Store(root), held)


def test_frames_of_chunks_that_no_video_holds_are_refused(root: Path) -> None:
    table = pq.read_table(root / CHUNKS)
    frames = [[1] * len(one) if i else None for i, one in enumerate(table["digests"].to_pylist())]
    table = table.set_column(4, "frames", pa.array(frames, pa.list_(pa.uint32())))
    pq.write_table(table, root / CHUNKS)
    manifest = read_manifest(root)
    manifest["shards"][0]["chunks_bytes"] = (root / CHUNKS).stat().st_size
    write_manifest(root, manifest)
    seal(root)
    with pytest.raises(CorruptError, match="states frames of chunks, which codec raw does not"):
        SplitIndex(Dataset.open(str(root)), "train").cameras["primary"].chunks(0)
    said = "its table does not state as many frames in chunks as there are steps"
    found = [one.reason for one in verify(Dataset.open(str(root)))]
    assert any(said in one for one in found), found


def test_a_chunk_larger_than_any_is_refused(root: Path) -> None:
    table = pq.read_table(root / CHUNKS)
    manifest = read_manifest(root)
    manifest["cameras"][0]["codec"] = "zstd"
    write_manifest(root, manifest)
    sizes = [[2**31 for _ in one] for one in table["digests"].to_pylist()]
    table = table.set_column(3, "sizes", pa.array(sizes, pa.list_(pa.uint32())))
    pq.write_table(table, root / CHUNKS)
    seal(root)
    with pytest.raises(
        CorruptError, match=r"^shards/train-00000\.chunks\.parquet: has a chunk of 2147483648"
    ):
        SplitIndex(Dataset.open(str(root)), "train").cameras["primary"].chunks(0)


def test_an_annotation_that_has_an_episode_twice_is_refused(tmp_path: Path) -> None:
    about = {b"oxcart.annotation": b'{"name":"x","producer":"p","dataset":"d","parameters":{}}'}
    key = pa.DictionaryArray.from_arrays(pa.array([0] * FREE_ROWS, pa.int32()), pa.array(["k"]))
    lists = pa.array([[0.5]] * FREE_ROWS, pa.list_(pa.float32()))
    table = pa.table({"key": key, "value": lists}).replace_schema_metadata(about)
    pq.write_table(table, tmp_path / "twice")
    with pytest.raises(CorruptError, match="an episode twice"):
        read_annotation(str(tmp_path / "twice"))


@pytest.mark.parametrize("name", ["episodes.parquet", CHUNKS, "shards/train-00000.tar"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_one_line(root: Path, name: str, kind: str) -> None:
    (root / name).unlink()
    if kind == "pipe":
        os.mkfifo(root / name)
    elif kind == "device":
        (root / name).symlink_to("/dev/zero")
    else:
        (root / name).mkdir()
    assert {one.file for one in found(root)} >= {name}
    assert all(len(one.reason.splitlines()) == 1 for one in found(root))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[" * 1_000_000, "nested too deep"),
        (b"[" + b"{}," * 2_500_000 + b"{}]", "its values would take about"),
        (b'{"format":' + b"9" * 10_000 + b"}", "Exceeds the limit"),
    ],
    ids=["deep", "wide", "number"],
)
def test_a_manifest_that_unfolds_is_refused(root: Path, data: bytes, why: str) -> None:
    (root / MANIFEST).write_bytes(data)
    with pytest.raises(CorruptError, match=why) as caught:
        Dataset.open(str(root))
    assert len(str(caught.value).splitlines()) == 1


def test_a_manifest_that_is_a_pipe_is_not_called_missing(root: Path) -> None:
    (root / MANIFEST).unlink()
    os.mkfifo(root / MANIFEST)
    with pytest.raises(StoreError, match=r"manifest\.json: read: is not a regular file$"):
        Dataset.open(str(root))


def test_a_manifest_of_gigabytes_is_not_read(root: Path) -> None:
    os.truncate(root / MANIFEST, 10 << 30)  # a hole
    with pytest.raises(OxcartError, match="has 10737418240 bytes, expected at most 33554432"):
        Dataset.open(str(root))


@pytest.mark.parametrize("number", [1 << 60, 10**400, -(10**400)], ids=["2^60", "huge", "negative"])
def test_a_number_beyond_all_is_refused(root: Path, number: int) -> None:
    intact = read_manifest(root)
    for path in (("counts", "compiled"), ("control_rate", "hz")):
        manifest = json.loads(json.dumps(intact))
        manifest["control_rate"] = {"hz": 10, "verified": True, "source": "x"}
        manifest[path[0]][path[1]] = number
        write_manifest(root, manifest)
        with pytest.raises(CorruptError, match=rf"{path[0]}\.{path[1]}: expected a"):
            Dataset.open(str(root))


def test_episodes_that_overlap_are_read_once(root: Path) -> None:
    """As many rows as one likes can name the same bytes."""
    many(root, FREE_ROWS)
    seal(root)
    said = [one.reason for one in found(root) if one.file == "shards/train-00000.tar"]
    assert any("overlaps another" in reason for reason in said)
    assert len(said) < 50
