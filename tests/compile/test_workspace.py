"""Who may write into an output: compiles of one plan together, of two plans never."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from oxcart.compile.execute import ShardJob, write_shard
from oxcart.compile.images import Resize
from oxcart.compile.pipeline import Prepared, execute, finish, prepare
from oxcart.compile.workspace import read_done, unfinished_claim
from oxcart.manifests.manifest import CLAIM, FORMAT, NAME
from oxcart.shards.errors import ConfigError, SourceError
from oxcart.shards.names import rows_name, tar_name
from oxcart.shards.store import Store
from sample_compile import (
    FIRST,
    SHARD_SIZE,
    Compiled,
    Feature,
    compiled,
    config_of,
    edited,
    stopped,
    tree,
)


@pytest.mark.system
def test_compiles_of_one_plan_at_once_all_succeed(whole: Compiled, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "oxcart.cli.main", "compile", str(whole.source), str(out), "--quiet"]
    command += ["--val-fraction", "0.2", "--shard-size", str(SHARD_SIZE), "--workers", "1"]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ended = [(process.communicate()[1], process.returncode) for process in running]
    assert ended == [("", 0)] * 3
    assert tree(out) == whole.tree


def test_a_compile_that_was_finished_by_another_returns_its_manifest(whole: Compiled, tmp_path: Path) -> None:
    """The other one commits, and so deletes the work in progress, while this one writes its first shard."""
    one, two = (prepare(config_of(whole.source, tmp_path / "out")) for _ in range(2))
    ended = []

    def finish(done: int, size: int) -> None:
        if not ended:
            ended.append(True)
            execute(two)

    assert execute(one, finish) == whole.manifest
    assert tree(tmp_path / "out") == whole.tree


@pytest.mark.system
def test_what_another_plan_left_does_not_count(whole: Compiled, tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = config_of(whole.source, out, shard_size=1)
    stretched = prepare(replace(other, settings=replace(other.settings, resize=Resize(size=(16, 8)))))
    cropped = prepare(
        replace(other, settings=replace(other.settings, resize=Resize(size=(16, 8), fit="crop")))
    )
    assert stretched.plan.hash != cropped.plan.hash
    clean = compiled(whole.source, tmp_path / "clean", shard_size=1, resize=Resize(size=(16, 8), fit="crop"))
    stopped(stretched.config, 20)
    shard = stretched.plan.shards[0]
    assert read_done(Store(out), shard.name, stretched.plan.hash) is not None
    assert read_done(Store(out), shard.name, cropped.plan.hash) is None
    marks = sorted((out / ".oxcart" / "rows").iterdir())
    kept = [(mark, mark.read_bytes()) for mark in marks]
    with pytest.raises(ConfigError, match="unfinished compile of another plan"):
        execute(cropped)
    for mark, data in kept:  # as if they had been written after the other plan took the output
        mark.write_bytes(data)
    assert execute(prepare(replace(cropped.config, overwrite=True))) == clean
    assert tree(out) == tree(tmp_path / "clean")


def job_of(prepared: Prepared, *, reject: bool) -> ShardJob:
    return ShardJob(
        source=prepared.config.source,
        out=prepared.config.out,
        plan=prepared.plan.hash,
        resize=Resize(),
        encodings=prepared.plan.encodings,
        reject=reject,
    )


def test_a_task_whose_output_was_taken_writes_nothing(whole: Compiled, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepared = prepare(config_of(whole.source, out))
    Store(out).put(CLAIM, json.dumps({"plan": "another"}).encode())
    job = job_of(prepared, reject=False)
    with pytest.raises(ConfigError, match="another compile has taken"):
        write_shard(job, prepared.plan.shards[0], lambda frames, size: None)
    assert set(tree(out)) == {CLAIM}


def test_a_task_whose_episodes_are_all_rejected_touches_no_tar(whole: Compiled, tmp_path: Path) -> None:
    """Whatever has the name of its tar is of a plan that has taken the output meanwhile."""
    out, source = tmp_path / "out", edited(whole.source, tmp_path / "source", wreck)
    prepared = prepare(config_of(source, out, shard_size=1, on_error="reject"))  # shards of one episode
    shard = next(
        one
        for one in prepared.plan.shards
        if [(row["source_file"], row["source_record"]) for row in one.rows.to_pylist()] == [(FIRST, 3)]
    )
    store, tar = Store(out), tar_name(shard.name)
    store.create(CLAIM, prepared.claim.to_bytes())
    store.put(tar, b"of another plan")
    job = job_of(prepared, reject=True)
    write_shard(job, shard, lambda frames, size: None)
    assert set(tree(out)) == {CLAIM, tar, rows_name(shard.name)}
    assert store.read(tar) == b"of another plan"
    done = read_done(store, shard.name, prepared.plan.hash)
    assert done is not None
    assert (done.shard["episodes"], len(done.rejected)) == (0, 1)


@pytest.mark.parametrize("claim", ["{}", "[]", "{", '{"plan": "p"}', '{"digest": NaN, "plan": NaN}'])
def test_a_claim_of_another_version_is_said_and_can_be_overwritten(
    whole: Compiled, tmp_path: Path, claim: str
) -> None:
    store = Store(tmp_path / "out")
    store.put(CLAIM, claim.encode())
    with pytest.raises(ConfigError, match="by another version of oxcart; compile again with --overwrite"):
        finish(store.url)
    config = config_of(whole.source, tmp_path / "out")
    with pytest.raises(ConfigError, match="holds an unfinished compile of another plan"):
        execute(prepare(config))
    assert execute(prepare(replace(config, overwrite=True))) == whole.manifest
    assert tree(tmp_path / "out") == whole.tree


def test_shards_of_another_format_are_not_finished_into_a_dataset(whole: Compiled, tmp_path: Path) -> None:
    config = config_of(whole.source, tmp_path / "out")
    stopped(config, 20)
    store = Store(tmp_path / "out")
    claim = unfinished_claim(store)
    store.put(CLAIM, replace(claim, format="oxcart/1").to_bytes())
    with pytest.raises(ConfigError, match="by another version of oxcart; compile again with --overwrite"):
        finish(store.url)


def test_a_dataset_of_another_format_is_overwritten_when_asked(whole: Compiled, tmp_path: Path) -> None:
    shutil.copytree(whole.out, tmp_path / "out")
    path = tmp_path / "out" / NAME
    path.write_text(path.read_text().replace(FORMAT, "oxcart/1"))
    config = config_of(whole.source, tmp_path / "out")
    with pytest.raises(ConfigError, match="compile its source again"):
        execute(prepare(config))
    assert execute(prepare(replace(config, overwrite=True))) == whole.manifest
    assert tree(tmp_path / "out") == whole.tree


def test_overwrite_resumes_where_it_stopped(whole: Compiled, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compiled(whole.source, out, limit=1)
    config = config_of(whole.source, out, overwrite=True)
    stopped(config, 20)
    before = {path.name: path.stat().st_ino for path in (out / "shards").glob("*.tar")}
    assert before
    again = prepare(config)
    assert again.frames_done > 0
    assert execute(again) == whole.manifest
    after = {path.name: path.stat().st_ino for path in (out / "shards").glob("*.tar")}
    assert {name: after[name] for name in before} == before
    assert tree(out) == whole.tree


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_dataset_of_another_program_is_left_alone(
    whole: Compiled, tmp_path: Path, overwrite: bool
) -> None:
    out = tmp_path / "out"
    (out / "shards").mkdir(parents=True)
    (out / ".oxcart").mkdir()
    for name in ("manifest.json", "episodes.parquet", "shards/train-00000.tar"):
        (out / name).write_text('{"mine": 1}')
    before = tree(out)
    with pytest.raises(ConfigError, match="which is not oxcart's"):
        prepare(config_of(whole.source, out, overwrite=overwrite))
    assert tree(out) == before


def wreck(feature: Feature) -> None:
    images = feature["steps/observation/image_0"].bytes_list.value
    images[1] = images[1][: len(images[1]) // 2]


def test_what_reject_left_out_is_not_accepted_silently(whole: Compiled, tmp_path: Path) -> None:
    source = edited(whole.source, tmp_path / "source", wreck)
    out = tmp_path / "out"
    manifest = compiled(source, out, on_error="reject")
    assert manifest.counts["rejected"] == 1
    with pytest.raises(ConfigError, match=r"lacks 1 episodes, listed in rejected\.parquet"):
        compiled(source, out)
    assert compiled(source, out, on_error="reject") == manifest
    unfinished = config_of(source, tmp_path / "unfinished", on_error="reject")
    stopped(unfinished, prepare(unfinished).frames)
    with pytest.raises(SourceError, match=f"{FIRST}, record 3.*an earlier --on-error reject left it out"):
        compiled(source, tmp_path / "unfinished")
    assert execute(prepare(unfinished)) == manifest
