"""The whole compile, from a source to a dataset: the same bytes every time, and what it leaves alone."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from depth import few
from oxcart.compile.images import Resize
from oxcart.compile.pipeline import CompileConfig, execute, prepare
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.columns import Column
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule
from oxcart.manifests.verify import verify
from oxcart.shards.errors import ConfigError, SourceError
from sample_compile import (
    FIRST,
    SECOND,
    SHARD_SIZE,
    Compiled,
    census_of,
    cli,
    compiled,
    config_of,
    edited,
    lift,
    rows_of,
    stamps,
    stopped,
    tree,
)

GUARD = """
import atexit, os, sys

folder = os.environ["GUARD_FOLDER"]


def note():
    loaded = sorted({"tensorflow", "torch", "jax"} & set(sys.modules))
    with open(os.path.join(folder, f"{os.getpid()}.txt"), "w") as file:
        file.write(" ".join(["--multiprocessing-fork" in sys.orig_argv and "worker" or "parent", *loaded]))


atexit.register(note)
"""
"""What each Python process does: leave a note of what it had imported when it ended."""


def test_the_sample_is_fit_for_these_tests(whole: Compiled) -> None:
    assert whole.manifest.counts == {"source": 20, "compiled": 20, "rejected": 0, "limited": 0}
    assert {name: count["episodes"] for name, count in whole.manifest.splits.items()} == {
        "train": 16,
        "val": 4,
    }
    assert len(whole.manifest.shards) > 5
    assert len({row["steps"] for row in rows_of(whole.out)}) > 1
    assert verify(Dataset.open(str(whole.out))) == []
    assert not (whole.out / ".oxcart").exists()


class TestSameBytes:
    """The tree depends on the source's bytes and the settings, and on nothing else."""

    @pytest.mark.system
    @pytest.mark.parametrize("workers", [2, 4])
    def test_several_workers(self, each: Compiled, tmp_path: Path, workers: int) -> None:
        """One worker left the other tree."""
        (tmp_path / "census").write_bytes(census_of(each.source, **each.options).to_bytes())
        execute(prepare(each.config(tmp_path / "out", workers=workers, census=str(tmp_path / "census"))))
        assert tree(tmp_path / "out") == each.tree

    def test_the_command(self, whole: Compiled, tmp_path: Path) -> None:
        options = ("--val-fraction", 0.2, "--shard-size", SHARD_SIZE, "--workers", 1)
        assert cli("compile", whole.source, tmp_path / "out", *options).exit_code == 0
        assert tree(tmp_path / "out") == whole.tree

    @pytest.mark.parametrize(("seed", "workers"), few([("0", 1), ("1", 2)], ("0", 1)))
    def test_another_place_and_hash_seed_and_no_process_imports_tensorflow_or_torch(
        self, whole: Compiled, tmp_path: Path, seed: str, workers: int
    ) -> None:
        """They are there to be imported, whether or not they are installed here."""
        for name in ("noted", "site", "there"):
            (tmp_path / name).mkdir()
        (tmp_path / "site/sitecustomize.py").write_text(GUARD)
        for name in ("tensorflow", "torch", "jax"):
            (tmp_path / f"site/{name}.py").write_text("__version__ = '2.18.0'\n")
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "TZ": "Asia/Tokyo",
            "LC_ALL": "C",
            "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]),
            "GUARD_FOLDER": str(tmp_path / "noted"),
        }
        shutil.copytree(whole.source, tmp_path / f"here {seed}/source")
        command = [sys.executable, "-m", "oxcart.cli.main", "compile", f"../here {seed}/source/", "./out/"]
        command += ["--val-fraction", "0.2", "--shard-size", "40kB", "--workers", str(workers)]
        subprocess.run(command, cwd=tmp_path / "there", env=environment, capture_output=True, check=True)
        assert tree(tmp_path / "there/out") == whole.tree
        noted = [path.read_text() for path in (tmp_path / "noted").iterdir()]
        assert set(noted) == ({"parent"} if workers == 1 else {"parent", "worker"})
        assert workers == 1 or noted.count("worker") >= workers

    def test_a_relative_path(self, whole: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copytree(whole.source, tmp_path / "source")
        monkeypatch.chdir(tmp_path)
        compiled(Path("source"), Path("out"))
        assert tree(tmp_path / "out") == whole.tree

    def test_resumed_after_any_shard(self, whole: Compiled, tmp_path: Path) -> None:
        config = config_of(whole.source, tmp_path / "out")
        for frames in (8, 32, 56):
            stopped(config, frames)
        execute(prepare(config))
        assert tree(tmp_path / "out") == whole.tree

    def test_two_compiles_of_one_plan_join(self, whole: Compiled, tmp_path: Path) -> None:
        """Both were prepared before either wrote anything."""
        one, two = (prepare(config_of(whole.source, tmp_path / "out")) for _ in range(2))
        assert execute(one) == execute(two) == whole.manifest
        assert tree(tmp_path / "out") == whole.tree

    def test_the_tree_tells_no_place(self, whole: Compiled) -> None:
        files = [path.read_bytes() for path in whole.out.rglob("*") if path.is_file()]
        assert not any(str(whole.source.parent).encode() in data for data in files)


class TestOut:
    """What a compile makes of an output directory that is not empty."""

    def test_running_again_changes_nothing(self, whole: Compiled, tmp_path: Path) -> None:
        compiled(whole.source, tmp_path / "out")
        before = stamps(tmp_path / "out")
        assert compiled(whole.source, tmp_path / "out", on_error="reject") == whole.manifest
        options = ("--val-fraction", 0.2, "--shard-size", SHARD_SIZE, "--workers", 1)
        result = cli("compile", whole.source, tmp_path / "out", *options)
        assert result.exit_code == 0
        assert whole.manifest.fingerprint in result.stdout
        assert stamps(tmp_path / "out") == before

    @pytest.mark.parametrize("change", ["split", "size", "camera", "limit", "shard size", "source"])
    def test_another_plan_into_a_finished_dataset(self, whole: Compiled, tmp_path: Path, change: str) -> None:
        compiled(whole.source, tmp_path / "out")
        before = stamps(tmp_path / "out")
        with pytest.raises(ConfigError) as refused:
            execute(prepare(changed(whole, tmp_path, change)))
        assert re.fullmatch(
            rf"{tmp_path}/out: holds another compile \(oxcart_kitchens, plan \w{{12}}, this is \w{{12}}\); "
            r"choose another directory or pass --overwrite, or --extend if the source has grown",
            str(refused.value),
        )
        assert stamps(tmp_path / "out") == before
        assert tree(tmp_path / "out") == whole.tree

    @pytest.mark.parametrize("change", ["split", "size", "limit", "shard size"])
    def test_another_plan_into_an_unfinished_one(self, whole: Compiled, tmp_path: Path, change: str) -> None:
        config = config_of(whole.source, tmp_path / "out")
        stopped(config, 30)
        before = tree(tmp_path / "out")
        assert [name for name in before if name.endswith(".tar")]
        with pytest.raises(ConfigError) as refused:
            execute(prepare(changed(whole, tmp_path, change)))
        assert re.fullmatch(
            rf"{tmp_path}/out: holds an unfinished compile of another plan \(\w{{12}}, this is \w{{12}}\); "
            r"finish that one, choose another directory or pass --overwrite",
            str(refused.value),
        )
        assert tree(tmp_path / "out") == before
        execute(prepare(config))
        assert tree(tmp_path / "out") == whole.tree

    @pytest.mark.parametrize("finished", [True, False])
    def test_overwrite_replaces_what_oxcart_wrote_alone(
        self, whole: Compiled, tmp_path: Path, finished: bool
    ) -> None:
        first = config_of(whole.source, tmp_path / "out", shard_size=1)
        execute(prepare(first)) if finished else stopped(first, 50)
        foreign = ("README.md", "annotations/motion.parquet", "shards/notes.txt")
        for name in foreign:
            (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "out" / name).write_text("mine")
        manifest = compiled(whole.source, tmp_path / "out", overwrite=True)
        assert manifest == whole.manifest
        found = tree(tmp_path / "out")
        assert {found.pop(name) for name in foreign} == {hashlib.sha256(b"mine").hexdigest()}
        assert found == whole.tree

    def test_overwrite_of_nothing(self, whole: Compiled, tmp_path: Path) -> None:
        compiled(whole.source, tmp_path / "out", overwrite=True)
        assert tree(tmp_path / "out") == whole.tree

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_directory_of_something_else_is_refused(
        self, whole: Compiled, tmp_path: Path, overwrite: bool
    ) -> None:
        (tmp_path / "out/photos").mkdir(parents=True)
        (tmp_path / "out/photos/cat.jpg").write_bytes(b"cat")
        before = stamps(tmp_path / "out")
        with pytest.raises(
            ConfigError, match=r"out: holds photos/cat.jpg, which is not oxcart's; choose an empty"
        ):
            prepare(config_of(whole.source, tmp_path / "out", overwrite=overwrite))
        assert stamps(tmp_path / "out") == before

    def test_an_empty_directory_is_fine(self, whole: Compiled, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        compiled(whole.source, tmp_path / "out")
        assert tree(tmp_path / "out") == whole.tree

    def test_a_source_is_no_place_for_its_dataset(self, whole: Compiled) -> None:
        before = stamps(whole.source)
        with pytest.raises(ConfigError, match="is the source itself; choose another directory"):
            prepare(config_of(whole.source, whole.source))
        assert stamps(whole.source) == before

    def test_prepare_writes_nothing(self, whole: Compiled, tmp_path: Path) -> None:
        prepare(config_of(whole.source, tmp_path / "out"))
        assert list(tmp_path.iterdir()) == []

    def test_a_damaged_shard_of_an_unfinished_compile_is_written_again(
        self, whole: Compiled, tmp_path: Path
    ) -> None:
        config = config_of(whole.source, tmp_path / "out")
        stopped(config, 40)
        one, two = sorted((tmp_path / "out/shards").glob("*.chunks.parquet"))[:2]
        one.unlink()
        shard = two.with_name(two.name.replace(".chunks.parquet", ".tar"))
        shard.write_bytes(shard.read_bytes()[:-1])
        execute(prepare(config))
        assert tree(tmp_path / "out") == whole.tree


def changed(whole: Compiled, folder: Path, change: str) -> CompileConfig:
    """The compile of `whole` into `folder`/out, but for one thing."""
    config = config_of(whole.source, folder / "out")
    if change == "source":
        return replace(config, source=SourceConfig(url=str(edited(whole.source, folder / "source", lift))))
    if change == "camera":
        return replace(config, source=replace(config.source, cameras=("wrist",)))
    settings = {
        "split": {"rule": SplitRule(val=0.4)},
        "size": {"resize": Resize(size=(16, 16))},
        "limit": {"limit": 3},
        "shard size": {"shard_size": 80_000},
    }[change]
    return replace(config, settings=replace(config.settings, **settings))


def test_the_source_is_only_read(whole: Compiled, tmp_path: Path) -> None:
    before = stamps(whole.source)
    compiled(whole.source, tmp_path / "out")
    assert stamps(whole.source) == before


def test_progress_ends_at_the_total(whole: Compiled, tmp_path: Path) -> None:
    episodes: list[int] = []
    frames: list[tuple[int, int]] = []
    prepared = prepare(config_of(whole.source, tmp_path / "out"), lambda done, size: episodes.append(done))
    assert prepared.frames_done == 0
    execute(prepared, lambda done, size: frames.append((done, size)))
    assert episodes == list(range(1, open_source(prepared.config.source).expected + 1))
    assert frames == sorted(frames)
    assert frames[-1][0] == prepared.frames == sum(c["frames"] for c in whole.manifest.splits.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"on_error": "ignore"}, "on error: expected one of fail, reject; got 'ignore'"),
        ({"workers": 0}, "workers: expected at least 1, got 0"),
        ({"limit": 0}, "limit: expected at least 1 episode, got 0"),
        ({"shard_size": 0}, "shard size: expected at least 1 byte, got 0"),
    ],
)
def test_impossible_values(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        config_of(tmp_path, tmp_path / "out", **values)


def test_no_records_at_all(whole: Compiled, tmp_path: Path) -> None:
    source = shutil.copytree(whole.source, tmp_path / "source")
    for name in (FIRST, SECOND):
        (source / name).write_bytes(b"")
    info = (source / "dataset_info.json").read_text()
    (source / "dataset_info.json").write_text(re.sub(r'"\d+"', '"0"', info))
    val = SourceConfig(url=str(source), source_splits=("train",))
    with pytest.raises(SourceError, match="holds no episode"):
        prepare(config_of(source, tmp_path / "out", source=val))
    (source / "dataset_info.json").write_text(
        re.sub(r'"shardLengths": \[[^]]*\]', '"shardLengths": []', info)
    )
    with pytest.raises(SourceError, match="holds no episode"):
        prepare(config_of(source, tmp_path / "out"))


def test_keys_that_collide(tmp_path: Path, whole: Compiled) -> None:
    """Two splits whose names differ in what a key cannot hold."""
    source = shutil.copytree(whole.source, tmp_path / "source")
    info = (source / "dataset_info.json").read_text()
    (source / "dataset_info.json").write_text(info.replace('"train"', '"a.b"').replace('"val"', '"a_b"'))
    for path in list(source.iterdir()):
        path.rename(source / path.name.replace("-train.", "-a.b.").replace("-val.", "-a_b."))
    with pytest.raises(ConfigError, match=r"^key oxcart_kitchens-a_b-00000-000000: \d+ keys are not unique"):
        prepare(config_of(source, tmp_path / "out"))


def test_how_a_source_is_read_can_be_hashed() -> None:
    """Ray's workers keep what they opened by it."""
    columns = {"action": (Column(name="dx", kind="delta"),)}
    config = SourceConfig(url="robot", roles={"image": "wrist"}, known_columns=columns)
    assert hash(config) == hash(SourceConfig(url="robot"))
    assert config != SourceConfig(url="robot")
