"""A sample source and its compile, small enough for a test, and how to look at both and to change the source.

    made = compile_sample(tmp_path, RldsSampleConfig(kitchens=3, episodes=2, steps=4, size=32, files=2))
    compiled(edited(made.source, tmp_path / "source", lift), tmp_path / "out")

`conftest.py` has the compiles that several modules share; whoever breaks one copies it before.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from lerobot_writer import TOP, WRIST, RobotTake, write_lerobot
from tensorflow_datasets.proto import tf_example_pb2

from oxcart.cli.main import oxcart
from oxcart.compile import census
from oxcart.compile.census import Census
from oxcart.compile.pipeline import CompileConfig, execute, prepare
from oxcart.compile.plan import Settings
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources.base import EnvironmentRule, SourceConfig
from oxcart.compile.sources.rlds import tfrecord
from oxcart.manifests.manifest import Manifest, read_manifest
from oxcart.manifests.split import SplitRule
from oxcart.shards.codec import Encoding
from oxcart.shards.errors import ConfigError, OxcartError
from oxcart.shards.store import WORK, Store

CAMERAS = ("image_0", "wrist")
"""All that the sample has."""
FIRST, SECOND = (f"oxcart_kitchens-train.tfrecord-{i:05d}-of-00002" for i in range(2))
"""The train files of a sample of two."""
SHARD_SIZE = 40_000
"""Frame bytes: two to four episodes of four steps of the sample."""

Tree = dict[str, str]
"""Name of a file -> digest of its bytes."""
Feature = Any
Edit = Callable[[Feature], None]
"""Changes the features of a record."""


@dataclass(frozen=True)
class Compiled:
    """A compile that nothing happened to."""

    source: Path
    out: Path
    manifest: Manifest
    tree: Tree
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the `SourceConfig` with which the source was read, except its place."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What else of the compile is not as in `config_of`."""

    def config(self, out: Path | str, url: str | None = None, **changes: Any) -> CompileConfig:
        """The compile again, into another place, and perhaps from a copy of the source."""
        source = SourceConfig(url=url or str(self.source), **self.options)
        return config_of(self.source, out, source=source, **{**self.changes, **changes})


def tree(directory: Path) -> Tree:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def uploaded(folder: Path, url: str) -> str:
    """Put a folder's files under a URL."""
    store = Store(url)
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(path.relative_to(folder).as_posix(), path.read_bytes())
    return url


def tree_of(url: str) -> Tree:
    """Name of an object -> digest of its bytes, work in progress included."""
    store = Store(url)
    names = [*store.list(), *store.list(WORK)]
    return {name: hashlib.sha256(store.read(name)).hexdigest() for name in sorted(names)}


def stamps(directory: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of the last change of every file and folder."""
    paths = (directory, *sorted(directory.rglob("*")))
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def config_of(path: Path, out: Path | str, **changes: Any) -> CompileConfig:
    """A compile by one worker of a fifth of val; `changes` may be of the compile or of its settings."""
    settings = {"rule": SplitRule(val=0.2), "shard_size": SHARD_SIZE}
    settings |= {name: changes.pop(name) for name in list(changes) if name in Settings.__dataclass_fields__}
    changes = {"source": SourceConfig(url=str(path)), "workers": 1, **changes}
    return CompileConfig(out=str(out), settings=Settings(**settings), **changes)


def compiled(path: Path, out: Path, **changes: Any) -> Manifest:
    return execute(prepare(config_of(path, out, **changes)))


def compile_sample(
    folder: Path, sample: RldsSampleConfig, *, cameras: tuple[str, ...] | None = None, **changes: Any
) -> Compiled:
    """Write a sample into a new folder and compile it beside itself."""
    source = write_rlds(folder, sample)
    config = SourceConfig(url=str(source), cameras=cameras)
    manifest = compiled(source, folder / "out", source=config, **changes)
    return Compiled(source, folder / "out", manifest, tree(folder / "out"))


def compile_lerobot(folder: Path) -> Compiled:
    """Write a LeRobot dataset into a new folder and compile it beside itself."""
    takes = [RobotTake(steps=4 + e % 3 * 2, columns={"place": f"lab {e // 4}"}) for e in range(10)]
    source = write_lerobot(folder / "robots", takes, cameras={TOP: "video", WRIST: "image"})
    options = {
        "kind": "lerobot",
        "cameras": ("top", "wrist"),
        "environment": EnvironmentRule(field="place"),
    }
    config = SourceConfig(url=str(source), **options)
    changes = {"encodings": {"top": Encoding(codec="video")}}
    manifest = compiled(source, folder / "out", source=config, **changes)
    return Compiled(source, folder / "out", manifest, tree(folder / "out"), options, changes)


def stopped(config: CompileConfig, frames: int) -> None:
    """A compile that ends, unfinished, after so many frames."""

    def stop(done: int, size: int) -> None:
        if done >= frames:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(prepare(config), stop)
    with pytest.raises(ConfigError, match="its compile has not finished"):
        read_manifest(Store(config.out))


def census_of(source: Path | str, **options: Any) -> Census:
    config = SourceConfig(url=str(source), **options)
    return census.take(config, workers=1, report=lambda done, size: None)


def rows_of(out: Path, table: str = "episodes.parquet") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / table).to_pylist()
    return rows


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(oxcart, [str(argument) for argument in arguments])


def complaint(result: Result, code: int = 1) -> str:
    """What a command that failed says, without `oxcart: error: `."""
    assert isinstance(result.exception, SystemExit), "a traceback"
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    if code == 1:
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert result.stderr.startswith("oxcart: error: ")
    return result.stderr.removeprefix("oxcart: error: ").rstrip("\n")


def one_line(error: OxcartError) -> str:
    """What an error says, on one line."""
    assert len(str(error).splitlines()) == 1, str(error)
    return str(error)


def examples(file: Path) -> list[tf_example_pb2.Example]:
    """The records of a file of a source."""
    found = list(tfrecord.scan(Store(file.parent), file.name))
    return [tf_example_pb2.Example.FromString(record.data) for record in found]


def edited(source: Path, target: Path, edit: Edit, *where: tuple[str, int]) -> Path:
    """A copy of `source` in which `edit` has changed these records, by default one of them."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    wanted = where or ((FIRST, 3),)
    for name in sorted({name for name, _ in wanted}):
        with open(target / name, "wb") as file:
            for index, example in enumerate(examples(source / name)):
                if (name, index) in wanted:
                    edit(example.features.feature)
                tfrecord.write_record(file, example.SerializeToString(deterministic=True))
    return target


def lift(feature: Feature) -> None:
    """Other actions, in as many bytes."""
    feature["steps/action"].float_list.value[0] += 1.0
