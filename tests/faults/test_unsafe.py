"""Nothing that others made is executed, and nothing of it leaves its directory."""

from __future__ import annotations

import ast
import contextlib
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import oxcart.shards
from broken_dataset import MANIFEST, SHARDS, found, read_manifest, seal, write_manifest
from oxcart.compile.sources.base import clean
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.tables import EPISODES
from oxcart.shards.errors import CorruptError, OxcartError
from sample_compile import one_line

ROOMS = ("shards", "manifests", "compile", "train", "cli")
UNPICKLE = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNPACK = {"extract", "extractall", "unpack_archive"}
EXECUTE = {"eval", "exec"}


def sources() -> Iterator[tuple[str, ast.AST]]:
    """Every node of every module of the rooms, and where it is."""
    top = Path(oxcart.shards.__file__).resolve().parent.parent
    files = [file for room in ROOMS for file in sorted((top / room).rglob("*.py"))]
    assert len(files) > 100
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            yield f"{file.relative_to(top)}:{getattr(node, 'lineno', 0)}", node


def called(node: ast.Call) -> tuple[str, str]:
    """What the function is called and what it is an attribute of."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr, ast.unparse(node.func.value)
    return (node.func.id if isinstance(node.func, ast.Name) else ""), ""


def stated(node: ast.Call, name: str) -> Any:
    """The literal that a call passes by this name, None where it passes none."""
    for keyword in node.keywords:
        if keyword.arg == name and isinstance(keyword.value, ast.Constant):
            return keyword.value.value
    return None


def test_nothing_is_unpickled_unpacked_or_executed() -> None:
    seen, wrong = [], []
    for where, node in sources():
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            if UNPICKLE & {name.partition(".")[0] for name in names}:
                wrong.append(f"{where}: {ast.unparse(node)}")
        if not isinstance(node, ast.Call):
            continue
        name, of = called(node)
        if name == "load" and of in ("np", "numpy"):
            seen.append("numpy")
            if stated(node, "allow_pickle") is not False:
                wrong.append(f"{where}: {ast.unparse(node)}")
        if name == "load" and of == "torch":
            seen.append("torch")
            if stated(node, "weights_only") is not True:
                wrong.append(f"{where}: {ast.unparse(node)}")
        if name in UNPACK or (name in EXECUTE and not of):
            wrong.append(f"{where}: {ast.unparse(node)}")
    assert wrong == []
    assert set(seen) == {"numpy", "torch"}, "else this looks for nothing"


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", "..", "a\\..\\b", "a\0b"])
def test_a_key_is_a_plain_name_whatever_the_source_is_called(name: str) -> None:
    assert "/" not in clean(name)
    assert "." not in clean(name)
    assert clean(name).isprintable()


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["shards"][0].update(name="shards/../../outside.tar"),
        lambda manifest: manifest["shards"][0].update(name="/outside.tar"),
        lambda manifest: manifest["shards"][0].update(chunks="../outside.chunks.parquet"),
        lambda manifest: manifest["tables"].update({"../outside": manifest["tables"][EPISODES]}),
    ],
)
def test_a_manifest_names_nothing_outside_its_dataset(root: Path, change: Callable[[Any], None]) -> None:
    manifest = read_manifest(root)
    change(manifest)
    write_manifest(root, manifest)
    with pytest.raises(CorruptError) as caught:
        Dataset.open(str(root))
    one_line(caught.value)


def test_a_row_names_no_shard_outside_its_dataset(root: Path) -> None:
    outside = root.parent / "outside.tar"
    outside.write_bytes((root / SHARDS[0]).read_bytes())
    table = pq.read_table(root / EPISODES)
    place = table.schema.get_field_index("shard")
    pq.write_table(table.set_column(place, "shard", [["../../outside"] * table.num_rows]), root / EPISODES)
    seal(root)
    dataset = Dataset.open(str(root))
    for read in (dataset[0].frames, lambda: dataset[0].action, lambda: dataset[0].instructions):
        with pytest.raises(CorruptError, match="is not in the manifest"):
            read()


@pytest.mark.parametrize("name", ["../escaped.json", "/tmp/escaped.json", "a/../../escaped.json"])
def test_a_tar_of_others_writes_nothing_and_is_said(root: Path, name: str) -> None:
    """Readers go by offsets; who looks at names, refuses all but those of the episode."""
    before = set(root.parent.rglob("*"))
    data = bytearray((root / SHARDS[0]).read_bytes())
    info = tarfile.TarInfo(name)
    with tarfile.open(root / SHARDS[0]) as tar:
        info.size = tar.getmembers()[0].size
    data[: tarfile.BLOCKSIZE] = info.tobuf(tarfile.USTAR_FORMAT)
    (root / SHARDS[0]).write_bytes(data)
    seal(root)
    assert SHARDS[0] in {one.file for one in found(root)}
    with contextlib.suppress(OxcartError):
        dataset = Dataset.open(str(root))
        for episode in dataset:
            _ = episode.frames()[0], episode.action, episode.instructions
    assert set(root.parent.rglob("*")) == before
    assert not Path("/tmp/escaped.json").exists()
    assert (root / MANIFEST).exists()
