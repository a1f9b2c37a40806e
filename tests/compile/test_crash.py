"""A compile that is killed anywhere and run again leaves the tree of one that nobody disturbed.

A kill is keyed to what was written, not to the clock: see `killed.py`.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from lerobot_writer import TOP, WRIST, RobotTake, write_lerobot

import killed
from depth import few
from killed import Run, watch_folder
from once import Once
from oxcart.compile import census
from oxcart.compile.pipeline import CompileConfig, execute, prepare
from oxcart.compile.plan import Settings
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources.base import EnvironmentRule, SourceConfig
from oxcart.compile.workspace import read_done
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import read_manifest
from oxcart.manifests.split import SplitRule
from oxcart.manifests.verify import verify
from oxcart.shards.errors import ConfigError
from oxcart.shards.store import Store
from sample_compile import Tree, tree

POINTS = 24
SHARD_SIZE = 27_000
"""Frame bytes; the eight episodes then make five shards."""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="reads /proc to follow a directory's descriptor"
)


@dataclass(frozen=True)
class Case:
    """A source, and what a compile of it that nobody disturbs leaves."""

    folder: Path
    config: CompileConfig
    """The compile; its output directory is `folder / "whole"`."""
    census: Path
    whole: Tree
    events: int
    """Changes of the output directory from the first to the last, by one worker."""
    options: tuple[str, ...] = ()
    """Options of the command that say how the source is read."""

    def resume(self, out: Path, *, overwrite: bool = False) -> None:
        execute(prepare(replace(self.config, out=str(out), overwrite=overwrite)))


def run(
    case: Case,
    out: Path,
    *,
    at: int = 0,
    size: int = 0,
    workers: int = 1,
    whom: str = "group",
    options: tuple[str, ...] = (),
    fresh: bool = False,
) -> Run:
    """`oxcart compile`, killed at event `at` or where a file passes `size` bytes."""
    command = ["compile", case.folder / "source", out, "--quiet", "--census", case.census, *case.options]
    command += ["--shard-size", SHARD_SIZE, "--val-fraction", 0.25, "--workers", workers, *options]
    return killed.run(case.folder / "watch", command, out, at=at, size=size, whom=whom, fresh=fresh)


@pytest.fixture(scope="session")
def case(once: Once) -> Case:
    made: Case = once("crash", of_rlds)
    return made


@pytest.fixture(scope="session")
def cases(once: Once) -> dict[str, Case]:
    """A case of each kind of source; `lerobot` has a camera of videos and one of images."""
    return {"rlds": once("crash", of_rlds), "lerobot": once("crash of lerobot", of_lerobot)}


def of_rlds(folder: Path) -> Case:
    sample = RldsSampleConfig(kitchens=4, sessions=2, episodes=1, steps=4, size=32, files=2)
    (folder / "source").symlink_to(write_rlds(folder / "sample", sample))
    return undisturbed(folder, SourceConfig(url=str(folder / "source")))


def of_lerobot(folder: Path) -> Case:
    takes = [RobotTake(steps=3, columns={"place": f"lab {e % 4}"}) for e in range(5)]
    write_lerobot(folder / "source", takes, cameras={TOP: "video", WRIST: "image"})
    place = EnvironmentRule(field="place")
    source = SourceConfig(
        url=str(folder / "source"), kind="lerobot", cameras=("top", "wrist"), environment=place
    )
    return undisturbed(folder, source, "--camera", "top", "--camera", "wrist", "--environment", "place")


def undisturbed(folder: Path, source: SourceConfig, *options: str) -> Case:
    watch_folder(folder / "watch")
    taken = census.take(source, workers=1, report=lambda done, size: None)
    (folder / "census.parquet").write_bytes(taken.to_bytes())
    case = Case(
        folder=folder,
        config=CompileConfig(
            source=source,
            out=str(folder / "whole"),
            settings=Settings(rule=SplitRule(val=0.25), shard_size=SHARD_SIZE),
            workers=1,
        ),
        census=folder / "census.parquet",
        whole={},
        events=0,
        options=options,
    )
    ended = run(case, folder / "whole", fresh=True)
    assert (ended.code, ended.err) == (0, "")
    assert sum(name.endswith(".tar") for name in tree(folder / "whole")) == 5
    return replace(case, whole=tree(folder / "whole"), events=ended.events)


def assert_nothing_partial(out: Path, whole: Tree) -> None:
    """Whatever has its final name has its final bytes, and only a directory that is whole is a dataset."""
    found = {name: digest for name, digest in tree(out).items() if not name.startswith(".oxcart/")}
    assert found.items() <= whole.items()
    if "manifest.json" in found:
        assert found == whole
        assert verify(Dataset.open(str(out))) == []
    else:
        unfinished = (out / ".oxcart/plan.json").exists()
        remedy = "its compile has not finished" if unfinished else "compile a source into it first"
        with pytest.raises(ConfigError, match=f"not a compiled dataset; {remedy}"):
            read_manifest(Store(out))


def test_the_api_and_another_run_leave_the_same_tree(case: Case, tmp_path: Path) -> None:
    case.resume(tmp_path / "out")
    assert tree(tmp_path / "out") == case.whole
    # The points below are spread over enough events for every kind of them.
    assert case.events >= 2 * POINTS


@pytest.mark.parametrize(
    ("kind", "point"),
    few(
        [
            *(("rlds", point) for point in range(POINTS)),
            *(("lerobot", point) for point in range(0, POINTS, 4)),
        ],
        ("rlds", 8),
        ("lerobot", 12),
    ),
)
def test_killed_at_an_event(cases: dict[str, Case], tmp_path: Path, kind: str, point: int) -> None:
    case, out = cases[kind], tmp_path / "out"
    at = 1 + point * (case.events - 1) // (POINTS - 1)
    workers = 2 if point in range(4, 19, 2) else 1  # at first they have not begun, at last they are gone
    ended = run(case, out, at=at, workers=workers)
    assert ended.code == -signal.SIGKILL
    assert ended.events >= at
    assert_nothing_partial(out, case.whole)
    case.resume(out)
    assert tree(out) == case.whole


@pytest.mark.parametrize(
    ("size", "workers"),
    few([(700, 1), (9_000, 1), (16_385, 2), (25_000, 1), (-1, 1)], (16_385, 2)),
)
def test_killed_in_the_middle_of_a_file(case: Case, tmp_path: Path, size: int, workers: int) -> None:
    """In the plan at first, then in a shard; the last kill leaves a shard that lacks one byte."""
    out = tmp_path / "out"
    if size < 0:
        size += max(path.stat().st_size for path in (case.folder / "whole/shards").iterdir())
    ended = run(case, out, size=size, workers=workers)
    assert ended.code == -signal.SIGKILL
    assert size in [path.stat().st_size for path in (out / ".oxcart").glob("*.tmp")]
    assert_nothing_partial(out, case.whole)
    case.resume(out)
    assert tree(out) == case.whole


@pytest.mark.system
def test_killed_twice(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(case, out, at=case.events // 2, fresh=True).code == -signal.SIGKILL
    first = tree(out)
    assert_nothing_partial(out, case.whole)
    assert run(case, out, at=case.events // 3, workers=2).code == -signal.SIGKILL
    assert_nothing_partial(out, case.whole)
    # What the first run finished is not written again, and the second run added to it.
    assert {name for name in first if name.startswith("shards/")} < set(tree(out))
    case.resume(out)
    assert tree(out) == case.whole


def test_a_finished_shard_is_not_written_again(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(case, out, at=case.events // 2).code == -signal.SIGKILL
    prepared = prepare(replace(case.config, out=str(out)))
    done = [shard for shard in prepared.plan.shards if read_done(Store(out), shard.name, prepared.plan.hash)]
    assert 0 < len(done) < len(prepared.plan.shards)
    assert prepared.frames_done == sum(sum(shard.rows["steps"].to_pylist()) for shard in done)
    before = {shard.name: (out / f"shards/{shard.name}.tar").stat().st_ino for shard in done}
    reported: list[int] = []
    execute(prepared, lambda frames, size: reported.append(frames))
    assert {name: (out / f"shards/{name}.tar").stat().st_ino for name in before} == before
    assert reported == sorted(reported)
    assert prepared.frames_done < reported[0]
    assert reported[-1] == prepared.frames


@pytest.fixture(scope="session")
def other(case: Case, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A compile of the same source with more shards than `case`, finished and stopped halfway."""
    folder = tmp_path_factory.mktemp("other")
    config = replace(case.config, settings=replace(case.config.settings, shard_size=1))
    execute(prepare(replace(config, out=str(folder / "finished"))))

    def stop(frames: int, size: int) -> None:
        if frames > 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(prepare(replace(config, out=str(folder / "unfinished"))), stop)
    assert len(list((folder / "unfinished").rglob("*.tar"))) == 3
    return {name: folder / name for name in ("finished", "unfinished")}


# The first events write the mark that says that a compile overwrites; then files go, the manifest first; then
# the mark goes, and what follows is a compile like any other.
@pytest.mark.parametrize(
    ("what", "at", "marked"),
    few(
        [
            ("finished", 3, False),
            ("finished", 5, True),
            ("finished", 9, True),
            ("finished", 22, True),
            ("finished", 27, True),
            ("finished", 60, True),
            ("unfinished", 4, False),
            ("unfinished", 12, True),
            ("unfinished", 18, True),
        ],
        ("finished", 3, False),
        ("finished", 22, True),
        ("unfinished", 12, True),
    ),
)
def test_killed_while_it_overwrites(
    case: Case, other: dict[str, Path], tmp_path: Path, what: str, at: int, marked: bool
) -> None:
    before = tree(other[what])
    copy(other[what], tmp_path / "out")
    ended = run(case, tmp_path / "out", at=at, options=("--overwrite",))
    assert ended.code == -signal.SIGKILL
    copy(tmp_path / "out", tmp_path / "again")

    found = tree(tmp_path / "out")
    if "manifest.json" in found:  # it goes first, so what it names is whole as long as it is there
        assert before.items() <= found.items()
        assert verify(Dataset.open(str(tmp_path / "out"))) == []
    else:
        with pytest.raises(ConfigError, match="not a compiled dataset"):
            read_manifest(Store(tmp_path / "out"))
    if "manifest.json" in found or not marked:
        with pytest.raises(ConfigError, match=r"holds an.* compile .* or pass --overwrite"):
            case.resume(tmp_path / "out")
        assert tree(tmp_path / "out") == found
    else:
        case.resume(tmp_path / "out")
        assert tree(tmp_path / "out") == case.whole
    case.resume(tmp_path / "again", overwrite=True)
    assert tree(tmp_path / "again") == case.whole


def copy(source: Path, target: Path) -> None:
    for name in tree(source):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes((source / name).read_bytes())


@pytest.mark.system
def test_the_workers_die_with_the_process_that_started_them(case: Case, tmp_path: Path) -> None:
    """Only that process is killed, once a worker has written; `run` waits until the group is gone."""
    out = tmp_path / "out"
    ended = run(case, out, at=20, workers=2, whom="parent", fresh=True)
    assert ended.code == -signal.SIGKILL
    assert_nothing_partial(out, case.whole)
    case.resume(out)
    assert tree(out) == case.whole


@pytest.mark.system
def test_a_worker_that_dies_is_replaced(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = run(case, out, at=20, workers=2, whom="worker", fresh=True)
    assert (ended.code, ended.err) == (0, "")
    assert ended.events > 20
    assert tree(out) == case.whole
