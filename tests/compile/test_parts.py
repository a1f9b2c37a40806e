"""A plan that is executed in parts, and a census that is taken in parts, are those of one machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from oxcart.compile import census
from oxcart.compile.engines import Part
from oxcart.compile.pipeline import execute, execute_part, finish, prepare
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import SourceConfig
from oxcart.shards.errors import ConfigError, SourceError
from sample_compile import Compiled, config_of, tree


def ignore(count: int, size: int) -> None:
    """A report that tells nobody."""


def parts_of(made: Compiled, out: Path, count: int, *numbers: int) -> None:
    for number in numbers:
        execute_part(prepare(made.config(out, part=Part(number, count))))


def test_parts_in_any_order_and_a_commit_give_the_tree_of_one_compile(each: Compiled, tmp_path: Path) -> None:
    out = tmp_path / "out"
    parts_of(each, out, 3, 2, 0)
    with pytest.raises(ConfigError, match=r"shards are not there yet: train-00001"):
        finish(str(out))
    assert not (out / "manifest.json").exists()
    parts_of(each, out, 3, 1, 1)
    assert finish(str(out)) == each.manifest
    assert tree(out) == each.tree
    assert finish(str(out)) == each.manifest, "a commit can be made again"
    parts_of(each, out, 3, 0)
    assert tree(out) == each.tree, "and a part that comes late changes nothing"


def test_a_commit_needs_no_source(whole: Compiled, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(whole.source, source / whole.source.parent.name / whole.source.name)
    moved = source / whole.source.parent.name / whole.source.name
    for number in range(2):
        execute_part(prepare(config_of(moved, out, part=Part(number, 2))))
    shutil.rmtree(source)
    assert finish(str(out)) == whole.manifest
    assert tree(out) == whole.tree


def test_a_whole_compile_resumes_where_parts_stopped(whole: Compiled, tmp_path: Path) -> None:
    out = tmp_path / "out"
    parts_of(whole, out, 3, 1)
    assert execute(prepare(config_of(whole.source, out))) == whole.manifest
    assert tree(out) == whole.tree


def test_a_part_asks_whose_work_the_episodes_are_only_to_keep_it(whole: Compiled, tmp_path: Path) -> None:
    """A compiled source reads a table for the answer."""
    asked = []
    for _ in range(2):
        prepared = prepare(config_of(whole.source, tmp_path / "out", part=Part(0, 3)))
        execute_part(prepared)
        asked.append("attribution" in vars(prepared))
    assert asked == [True, False]


def test_a_part_may_not_overwrite(whole: Compiled, tmp_path: Path) -> None:
    prepared = prepare(config_of(whole.source, tmp_path / "out", part=Part(0, 2), overwrite=True))
    with pytest.raises(ConfigError, match="one part cannot know whether another has begun"):
        execute_part(prepared)


def test_there_is_nothing_to_commit_where_nothing_was_begun(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no unfinished compile"):
        finish(str(tmp_path))


@pytest.mark.parametrize("text", ["", "1", "a/b", "3/3", "0/0", "-1/2", "1/2/3"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--part: expected"):
        Part.parse(text)


def test_the_census_of_all_parts_is_that_of_the_whole(each: Compiled, tmp_path: Path) -> None:
    config = SourceConfig(url=str(each.source), **each.options)
    source = open_source(config)
    at_once = census.take(config, workers=1, report=ignore)
    assert len(source.files()) > 1
    taken = [census.take(config, workers=1, report=ignore, part=Part(i, 2)) for i in (1, 0)]
    kept = [census.read(one.to_bytes(), "part") for one in taken]
    assert census.merge(kept, source).to_bytes() == at_once.to_bytes()
    for wrong in (kept[:1], [*kept, kept[0]], [at_once], []):
        with pytest.raises(ConfigError, match="merge: expected each part of one census once"):
            census.merge(wrong, source)
    (tmp_path / "part.parquet").write_bytes(taken[0].to_bytes())
    with pytest.raises(ConfigError, match="is part 1/2; merge all parts"):
        census.load(str(tmp_path / "part.parquet"), source)


def test_parts_of_a_source_that_changed_between_them_are_refused(whole: Compiled, tmp_path: Path) -> None:
    root = tmp_path / whole.source.parent.name / whole.source.name
    shutil.copytree(whole.source, root)
    config = SourceConfig(url=str(root))
    taken = [census.take(config, workers=1, report=ignore, part=Part(i, 2)) for i in range(2)]
    file = root / open_source(config).files()[0]
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(SourceError, match="has changed since the census"):
        census.merge(taken, open_source(config))
