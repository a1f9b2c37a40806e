"""`scan --parquet` and `compile --census`: a census that was kept is used while the source is the same."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oxcart.compile.pipeline import execute, prepare
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.manifest import read_manifest
from oxcart.shards.errors import ConfigError, CorruptError, SourceError, StoreError
from oxcart.shards.store import Store
from sample_compile import (
    FIRST,
    SECOND,
    Compiled,
    cli,
    compiled,
    config_of,
    edited,
    lift,
    stamps,
    stopped,
    tree,
)


@pytest.fixture(scope="module")
def kept(whole: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The census of the source, taken by `scan`."""
    file = tmp_path_factory.mktemp("kept") / "census.parquet"
    assert cli("scan", whole.source, "--workers", 1, "--quiet", "--parquet", file).exit_code == 0
    return file


def test_it_is_used(whole: Compiled, tmp_path: Path, kept: Path) -> None:
    scanned: list[int] = []
    config = config_of(whole.source, tmp_path / "out", census=str(kept))
    execute(prepare(config, lambda done, size: scanned.append(done)))
    assert scanned == []
    assert tree(tmp_path / "out") == whole.tree


def test_it_joins_and_repeats_a_compile_without_it(whole: Compiled, tmp_path: Path, kept: Path) -> None:
    config = config_of(whole.source, tmp_path / "out")
    stopped(config, 30)
    execute(prepare(replace(config, census=str(kept))))
    assert tree(tmp_path / "out") == whole.tree
    before = stamps(tmp_path / "out")
    execute(prepare(replace(config, census=str(kept))))
    assert stamps(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cameras": ("wrist",)}, r'taken with cameras {"image_0": .*}, expected {"wrist": .*}'),
        (
            {"source_splits": ("train",)},
            r'taken with source_splits \["train", "val"\], expected \["train"\]',
        ),
        ({"action": ()}, r'taken with action \["steps/action"\], expected \[\]'),
    ],
)
def test_taken_with_other_options(
    whole: Compiled, tmp_path: Path, kept: Path, options: dict[str, Any], says: str
) -> None:
    source = SourceConfig(url=str(whole.source), **options)
    with pytest.raises(ConfigError, match=f"^census: {says}; take it again with the same options$"):
        prepare(config_of(whole.source, tmp_path / "out", source=source, census=str(kept)))
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_size(whole: Compiled, tmp_path: Path, kept: Path) -> None:
    source = shutil.copytree(whole.source, tmp_path / "source")
    with open(source / SECOND, "ab") as file:
        file.write(b"more")
    size = (whole.source / SECOND).stat().st_size
    with pytest.raises(SourceError) as refused:
        prepare(config_of(source, tmp_path / "out", census=str(kept)))
    says = f"{SECOND}: has changed since the census: {size} bytes then, {size + 4} now"
    assert str(refused.value).startswith(says)


def test_a_record_replaced_by_one_of_its_length(whole: Compiled, tmp_path: Path, kept: Path) -> None:
    source = edited(whole.source, tmp_path / "source", lift, (SECOND, 2))
    assert (source / SECOND).stat().st_size == (whole.source / SECOND).stat().st_size
    compiled(source, tmp_path / "new")  # nothing is wrong with the source itself
    config = config_of(source, tmp_path / "out", census=str(kept), on_error="reject")
    with pytest.raises(SourceError, match=rf"^{SECOND}, record 2, byte \d+: has changed since the census"):
        execute(prepare(config))
    with pytest.raises(ConfigError, match="its compile has not finished"):
        read_manifest(Store(tmp_path / "out"))


def test_a_source_that_changed_while_it_was_compiled(whole: Compiled, tmp_path: Path) -> None:
    """The census in OUT is believed by a resume, and not by --overwrite."""
    source = shutil.copytree(whole.source, tmp_path / "source")
    config = config_of(source, tmp_path / "out")
    stopped(config, 8)
    edited(whole.source, source, lift, (FIRST, 0), (FIRST, 1), (SECOND, 0), (SECOND, 1))
    with pytest.raises(SourceError, match="has changed since the census"):
        execute(prepare(config))
    execute(prepare(replace(config, overwrite=True)))
    compiled(source, tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh") != whole.tree


def test_what_is_no_census(whole: Compiled, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    for name, kind in (("text", CorruptError), ("other.parquet", ConfigError), ("missing", StoreError)):
        with pytest.raises(kind, match=name):
            prepare(config_of(whole.source, tmp_path / "out", census=str(tmp_path / name)))
