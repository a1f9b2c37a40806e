"""Who compiles at the same time, what is done twice, and what changes meanwhile."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from oxcart.compile.engines import Part
from oxcart.compile.execute import ShardJob, write_shard
from oxcart.compile.pipeline import CompileConfig, execute, execute_part, finish, prepare
from oxcart.compile.plan import Shard
from oxcart.manifests.split import SplitRule
from oxcart.shards.errors import ConfigError, OxcartError, SourceError
from sample_compile import (
    FIRST,
    SHARD_SIZE,
    Compiled,
    compiled,
    config_of,
    edited,
    lift,
    one_line,
    stopped,
    tree,
)


def command(source: Path, out: Path, fraction: str) -> list[str]:
    options = ["--val-fraction", fraction, "--shard-size", str(SHARD_SIZE), "--workers", "1", "--quiet"]
    return [sys.executable, "-m", "oxcart.cli.main", "compile", str(source), str(out), *options]


def test_of_two_plans_at_once_one_has_the_output_and_the_other_is_refused(
    whole: Compiled, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    other = compiled(whole.source, tmp_path / "other", rule=SplitRule(val=0.4))
    assert other.plan != whole.manifest.plan
    running = [
        subprocess.Popen(command(whole.source, out, fraction), stderr=subprocess.PIPE, text=True)
        for fraction in ("0.2", "0.4")
    ]
    ended = [(process.communicate()[1], process.returncode) for process in running]
    assert sorted(code for _, code in ended) == [0, 1]
    (said,) = [text for text, code in ended if code]
    assert len(said.splitlines()) == 1
    assert said.startswith(f"oxcart: error: {out}: holds an")
    assert "another" in said
    assert tree(out) == (tree(tmp_path / "other") if ended[0][1] else whole.tree)


def tasks_of(config: CompileConfig) -> tuple[ShardJob, Sequence[Shard]]:
    """What an engine is given."""
    prepared = prepare(config)
    job = ShardJob(
        source=config.source,
        out=config.out,
        plan=prepared.plan.hash,
        resize=config.settings.resize,
        encodings=prepared.plan.encodings,
        reject=False,
    )
    return job, prepared.plan.shards


@pytest.mark.parametrize("finished", ["the task", "the compile"])
def test_a_slow_task_that_is_run_twice_leaves_one_output(
    whole: Compiled, tmp_path: Path, finished: str
) -> None:
    """One worker hangs amid a shard; another does the shard, or the whole compile; then the first goes on."""
    out = tmp_path / "out"
    stopped(config_of(whole.source, out), 1)
    job, shards = tasks_of(config_of(whole.source, out))
    amid, go_on = threading.Event(), threading.Event()
    errors: list[OxcartError] = []

    def hang(frames: int, size: int) -> None:
        amid.set()
        go_on.wait(60)

    def slow() -> None:
        try:
            write_shard(job, shards[1], hang)
        except OxcartError as error:
            errors.append(error)

    thread = threading.Thread(target=slow)
    thread.start()
    try:
        assert amid.wait(60)
        if finished == "the compile":
            assert execute(prepare(config_of(whole.source, out))) == whole.manifest
        else:
            write_shard(job, shards[1], lambda frames, size: None)
    finally:
        go_on.set()
        thread.join()
    if finished == "the compile":
        assert [str(error) for error in errors] == [
            f"{out}: another compile has taken or finished it in the meantime"
        ]
    else:
        assert errors == []
        assert execute(prepare(config_of(whole.source, out))) == whole.manifest
    assert tree(out) == whole.tree


@pytest.mark.parametrize("how", ["bytes", "size", "gone"])
@pytest.mark.parametrize("parts", [False, True])
def test_a_source_that_changes_between_census_and_execution_is_refused_by_the_name_of_its_file(
    whole: Compiled, tmp_path: Path, how: str, parts: bool
) -> None:
    source = tmp_path / whole.source.parent.name / whole.source.name
    shutil.copytree(whole.source, source)
    out = tmp_path / "out"
    part = Part(0, 1) if parts else None
    prepared = prepare(config_of(source, out, part=part))
    if how == "bytes":
        edited(whole.source, source, lift)
    elif how == "size":
        with open(source / FIRST, "r+b") as file:
            file.truncate((source / FIRST).stat().st_size // 2)
    else:
        (source / FIRST).unlink()
    with pytest.raises(OxcartError, match=FIRST) as caught:
        execute_part(prepared) if parts else execute(prepared)
    one_line(caught.value)
    assert not (out / "manifest.json").exists()
    if how == "bytes":
        assert isinstance(caught.value, SourceError)
        assert "has changed since the census" in str(caught.value)
    shutil.copytree(whole.source, source, dirs_exist_ok=True)
    if parts:
        execute_part(prepare(config_of(source, out, part=part)))
        assert finish(str(out)) == whole.manifest
    else:
        assert execute(prepare(config_of(source, out))) == whole.manifest
    assert tree(out) == whole.tree


def test_of_two_plans_in_parts_the_second_is_refused(whole: Compiled, tmp_path: Path) -> None:
    out = tmp_path / "out"
    execute_part(prepare(config_of(whole.source, out, part=Part(0, 2))))
    other = config_of(whole.source, out, part=Part(1, 2), limit=3)
    with pytest.raises(ConfigError, match="unfinished compile of another plan"):
        execute_part(prepare(other))
    execute_part(prepare(config_of(whole.source, out, part=Part(1, 2))))
    assert finish(str(out)) == whole.manifest
    assert tree(out) == whole.tree
