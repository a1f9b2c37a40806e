"""Killed anywhere, an extension leaves the old dataset or the new one, and the same command goes on."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from depth import few
from grown_source import (
    Before,
    assert_extends,
    changed,
    extended,
    prepared,
    shards,
)
from killed import run, watch_folder
from oxcart.compile.pipeline import execute
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import read_manifest
from oxcart.manifests.verify import verify
from oxcart.shards.errors import ConfigError
from oxcart.shards.store import WORK, Store
from sample_compile import Tree, compiled, lift, tree

POINTS = 12


def command(source: Path, out: Path, *options: object) -> list[object]:
    return ["compile", source, out, "--extend", "--quiet", "--workers", 1, *options]


@pytest.fixture(scope="module")
def whole(before: Before, after: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tree, int]:
    """A folder to watch from, the tree of an extension that nobody disturbed, and its events."""
    folder = tmp_path_factory.mktemp("killed")
    watch, out = watch_folder(folder / "watch"), before.copy(folder)
    ended = run(watch, command(before.grown, out), out, fresh=True)
    assert (ended.code, ended.err) == (0, "")
    assert tree(out) == tree(after)
    return watch, tree(out), ended.events


class TestKilled:
    """The dataset is the old one or the new one at any moment, and the same command goes on."""

    @pytest.mark.parametrize("point", few(range(POINTS), 2, 6, 10))
    def test_at_an_event(
        self, before: Before, whole: tuple[Path, Tree, int], tmp_path: Path, point: int
    ) -> None:
        watch, complete, events = whole
        out = before.copy(tmp_path)
        # The last events are those around the switch from the old manifest to the new one.
        at = events + 1 - 2 * (POINTS - point) if point > 5 else 1 + point * (events - 14) // 5
        ended = run(watch, command(before.grown, out), out, at=at)
        assert ended.code == -signal.SIGKILL
        manifest = read_manifest(Store(out))
        found = tree(out)
        assert verify(Dataset.open(str(out))) == []
        if manifest.fingerprint == before.manifest.fingerprint:
            assert manifest == before.manifest
            assert tree(before.out).items() <= found.items()
        else:
            assert complete.items() <= found.items()
        extended(before.grown, out)
        assert tree(out) == complete

    @pytest.mark.system
    def test_a_second_extension(
        self, before: Before, after: Path, whole: tuple[Path, Tree, int], tmp_path: Path
    ) -> None:
        """What the first has named is not overwritten before the manifest is."""
        growth, watch = before.growth, whole[0]
        records = [*growth.first, *growth.later, changed(growth.first[0], lift)]
        source = growth.write(tmp_path / "source", records)
        undisturbed = Path(shutil.copytree(after, tmp_path / "undisturbed"))
        events = run(watch, command(source, undisturbed), undisturbed).events
        kept = set()
        for point in range(4):
            out = Path(shutil.copytree(after, tmp_path / str(point)))
            ended = run(watch, command(source, out), out, at=events - 5 * point - 1)
            assert ended.code == -signal.SIGKILL
            assert verify(Dataset.open(str(out))) == []
            kept.add(read_manifest(Store(out)) == read_manifest(Store(after)))
            extended(source, out)
            assert tree(out) == tree(undisturbed)
        assert kept == {True, False}

    def test_a_finished_shard_is_not_written_again(
        self, before: Before, whole: tuple[Path, Tree, int], tmp_path: Path
    ) -> None:
        watch, complete, events = whole
        out = before.copy(tmp_path)
        assert run(watch, command(before.grown, out), out, at=events // 2).code == -signal.SIGKILL
        again = prepared(before.grown, out)
        assert 0 < again.frames_done < again.frames
        done = [f"shards/{path.stem}.tar" for path in (out / WORK / "rows").iterdir()]
        inodes = {name: (out / name).stat().st_ino for name in done}
        execute(again)
        assert inodes.items() <= {name: (out / name).stat().st_ino for name in tree(out)}.items()
        assert tree(out) == complete

    @pytest.mark.system
    def test_a_source_that_grew_once_more_meanwhile(
        self, before: Before, whole: tuple[Path, Tree, int], tmp_path: Path
    ) -> None:
        growth, watch, out = before.growth, whole[0], before.copy(tmp_path)
        some = growth.write(tmp_path / "some", growth.first + growth.later[1:6])
        assert run(watch, command(some, out), out, at=40).code == -signal.SIGKILL
        assert len(shards(tree(out))) > len(shards(tree(before.out)))
        with pytest.raises(
            ConfigError, match=r"unfinished extension of another plan .* --extend --overwrite"
        ):
            extended(before.grown, out)
        assert verify(Dataset.open(str(out))) == []
        copy = Path(shutil.copytree(out, tmp_path / "copy"))
        ended = run(watch, command(before.grown, copy, "--overwrite"), copy, at=6)
        assert ended.code == -signal.SIGKILL
        assert verify(Dataset.open(str(copy))) == []
        for one in (out, copy):
            manifest = extended(before.grown, one, overwrite=True)
            assert_extends(one, manifest, before, growth.first + growth.later)
            assert tree(one) == whole[1]

    def test_the_compile_that_made_the_dataset_leaves_the_extension_alone(
        self, before: Before, whole: tuple[Path, Tree, int], tmp_path: Path
    ) -> None:
        growth, (watch, complete, events), out = before.growth, whole, before.copy(tmp_path)
        assert run(watch, command(before.grown, out), out, at=events // 2).code == -signal.SIGKILL
        found = tree(out)
        first = growth.write(tmp_path / "first", growth.first)
        assert compiled(first, out) == before.manifest
        assert tree(out) == found
        extended(before.grown, out)
        assert tree(out) == complete
