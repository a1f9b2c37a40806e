"""A compile from a bucket or a web server, or into a bucket, leaves the bytes of one between directories."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from oxcart.compile import census, transcode
from oxcart.compile.pipeline import execute, prepare
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.transcode import TranscodeConfig
from oxcart.compile.workspace import CENSUS
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import CLAIM
from oxcart.manifests.ownership import LEROBOT
from oxcart.manifests.split import SplitRule
from oxcart.manifests.verify import verify
from oxcart.shards.errors import ConfigError, SourceError, StoreError
from oxcart.shards.store import Store
from sample_compile import (
    FIRST,
    SECOND,
    SHARD_SIZE,
    Compiled,
    census_of,
    cli,
    compiled,
    complaint,
    config_of,
    edited,
    lift,
    stopped,
    tree,
    tree_of,
    uploaded,
)
from servers import Fault, Faults, Server


@pytest.fixture
def source(whole: Compiled, remote: str) -> str:
    """The source in a bucket."""
    return uploaded(whole.source, f"{remote}/source/1.0.0")


def config(url: str) -> SourceConfig:
    return SourceConfig(url=url)


class TestSameBytes:
    """The tree does not say where the source was or where it is itself."""

    def test_from_a_bucket_into_a_directory(self, each: Compiled, remote: str, tmp_path: Path) -> None:
        there = uploaded(each.source, f"{remote}/{each.source.name}")
        execute(prepare(each.config(tmp_path / "out", there)))
        assert tree(tmp_path / "out") == each.tree

    def test_from_a_directory_into_a_bucket(self, each: Compiled, remote: str) -> None:
        assert execute(prepare(each.config(f"{remote}/out"))) == each.manifest
        assert tree_of(f"{remote}/out") == each.tree
        assert verify(Dataset.open(f"{remote}/out")) == []

    @pytest.mark.system
    def test_from_a_bucket_into_a_bucket_in_processes(
        self, whole: Compiled, source: str, remote: str
    ) -> None:
        options = ("--val-fraction", 0.2, "--shard-size", SHARD_SIZE, "--workers", 2)
        result = cli("compile", source, f"{remote}/out", *options)
        assert result.exit_code == 0, result.output
        assert f"{remote}/out: 20 episodes" in result.stdout
        assert tree_of(f"{remote}/out") == whole.tree
        assert "20 source" in cli("inspect", f"{remote}/out").stdout
        assert cli("verify", f"{remote}/out").exit_code == 0

    def test_from_googles_protocol(
        self, whole: Compiled, source: str, remote: str, bucket: Server, cloud: pytest.MonkeyPatch
    ) -> None:
        cloud.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        out = remote.replace("s3://", "gs://") + "/out"
        there = config(source.replace("s3://", "gs://"))
        execute(prepare(replace(config_of(whole.source, Path("out"), source=there), out=out)))
        assert tree_of(out) == whole.tree

    def test_from_a_web_server(self, each: Compiled, site: Server, tmp_path: Path) -> None:
        name = each.source.name
        shutil.copytree(each.source, tmp_path / "site" / name)
        execute(prepare(each.config(tmp_path / "out", f"{site.url}/{name}", workers=2)))
        assert tree(tmp_path / "out") == each.tree

    def test_with_failures_on_the_way(
        self, whole: Compiled, source: str, remote: str, bucket: Server, waits: list[float]
    ) -> None:
        for what in ("500", "503"):
            for method in ("GET", "HEAD", "PUT"):
                bucket.faults.add(what, times=2, method=method)
        there = config_of(whole.source, Path("out"), source=config(source))
        execute(prepare(replace(there, out=f"{remote}/out")))
        assert tree_of(f"{remote}/out") == whole.tree
        assert len(waits) >= 8

    def test_with_a_census_that_is_in_the_bucket(self, whole: Compiled, source: str, remote: str) -> None:
        Store(remote).put("census.parquet", census_of(whole.source).to_bytes())
        there = config_of(whole.source, Path("out"), source=config(source), census=f"{remote}/census.parquet")
        execute(prepare(replace(there, out=f"{remote}/out")))
        assert tree_of(f"{remote}/out") == whole.tree


def test_a_dataset_on_a_web_server_is_shown_and_refused_as_output(
    whole: Compiled, site: Server, tmp_path: Path
) -> None:
    shutil.copytree(whole.out, tmp_path / "site" / "out")
    url = f"{site.url}/out"
    assert "20 source" in cli("inspect", url).stdout
    assert cli("show", url, "-o", tmp_path / "strip.png").exit_code == 0
    says = f"{url}: a web server is for reading; expected a directory or a bucket"
    assert complaint(cli("compile", whole.source, url, "--workers", 1)) == says


def spellings(url: str) -> list[str]:
    """Other texts of the URL of a bucket."""
    place = url.removeprefix("s3://")
    bucket, _, path = place.partition("/")
    return [f"S3://{place}", f"s3://{bucket}//{path}", f"{url}/", f"{url}//"]


class TestItself:
    """Nothing is written over what is read, whatever its URL is spelled like."""

    def test_a_transcode_onto_its_dataset_is_refused(self, whole: Compiled, remote: str) -> None:
        url = uploaded(whole.out, f"{remote}/out")
        for out in (url, *spellings(url)):
            said = complaint(cli("transcode", url, out, "--codec", "zstd", "--overwrite"))
            assert said == f"{out}: is the dataset itself; choose another directory"
            complaint(cli("transcode", out, url, "--codec", "zstd", "--overwrite"))
        assert tree_of(url) == whole.tree

    def test_and_so_it_is_by_another_protocol(
        self, whole: Compiled, remote: str, bucket: Server, cloud: pytest.MonkeyPatch
    ) -> None:
        url = uploaded(whole.out, f"{remote}/out")
        cloud.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        other = url.replace("s3://", "gs://")
        said = complaint(cli("transcode", url, other, "--codec", "zstd", "--overwrite"))
        assert said.startswith(f"{other}: holds the same dataset, by its manifest; choose another directory")
        assert tree_of(url) == whole.tree

    def test_a_compile_into_its_source_is_refused(self, whole: Compiled, source: str) -> None:
        before = tree_of(source)
        for out in (source, *spellings(source)):
            said = complaint(cli("compile", source, out, "--overwrite"))
            assert said == f"{out}: is the source itself; choose another directory"
        said = complaint(cli("compile", whole.source, f"{whole.source}/", "--overwrite"))
        assert said.endswith(": is the source itself; choose another directory")
        assert tree_of(source) == before


class TestResume:
    """What is in progress lies in the bucket."""

    def test_an_interrupted_compile_resumes(self, whole: Compiled, remote: str, bucket: Server) -> None:
        out = replace(config_of(whole.source, Path("out")), out=f"{remote}/out")
        stopped(out, 40)
        done = {name for name in tree_of(out.out) if name.endswith(".tar")}
        assert done
        assert {CLAIM, CENSUS} <= set(tree_of(out.out))
        bucket.faults.clear()
        again = prepare(out)
        assert again.frames_done > 0
        assert execute(again) == whole.manifest
        written = {path.rpartition("/out/")[2] for method, path in bucket.faults.requests if method == "PUT"}
        assert not written & done
        assert tree_of(out.out) == whole.tree

    @pytest.mark.system
    def test_a_store_that_fails_for_good_leaves_what_another_compile_resumes_from(
        self, whole: Compiled, remote: str, bucket: Server
    ) -> None:
        out = replace(config_of(whole.source, Path("out")), out=f"{remote}/out")
        bucket.faults.add("403", times=9, method="PUT", name="train-00001.tar", Code="AccessDenied")
        with pytest.raises(StoreError) as caught:
            execute(prepare(out))
        assert str(caught.value) == (
            f"{remote}/out/shards/train-00001.tar: write: access denied (HTTP 403 AccessDenied); "
            "the credentials do not allow it"
        )
        assert "shards/train-00000.tar" in tree_of(out.out)
        assert "shards/train-00001.tar" not in tree_of(out.out)
        bucket.faults.clear()
        assert execute(prepare(out)) == whole.manifest
        assert tree_of(out.out) == whole.tree

    def test_a_claim_that_cannot_be_read_is_not_taken_for_none(
        self, whole: Compiled, remote: str, bucket: Server
    ) -> None:
        out = replace(config_of(whole.source, Path("out")), out=f"{remote}/out")
        stopped(out, 40)
        found = tree_of(out.out)
        bucket.faults.add("403", times=99, method="GET", name="plan.json", Code="AccessDenied")
        with pytest.raises(StoreError, match=r"plan\.json: read: access denied"):
            execute(prepare(out))
        bucket.faults.clear()
        assert tree_of(out.out) == found
        assert execute(prepare(out)) == whole.manifest

    @pytest.mark.system
    def test_a_compile_killed_amid_a_put_resumes(
        self, whole: Compiled, source: str, remote: str, bucket: Server
    ) -> None:
        bucket.faults.add("stall", times=99, method="PUT", name="train-00002.tar")
        command = [sys.executable, "-m", "oxcart.cli.main", "compile", source, f"{remote}/out", "--quiet"]
        command += ["--val-fraction", "0.2", "--shard-size", str(SHARD_SIZE), "--workers", "2"]
        process = subprocess.Popen(command, start_new_session=True)
        try:
            assert bucket.faults.stalled.wait(60)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        bucket.faults.clear()
        assert CLAIM in tree_of(f"{remote}/out")
        assert "shards/train-00002.tar" not in tree_of(f"{remote}/out")
        out = config_of(whole.source, Path("out"), source=config(source))
        assert execute(prepare(replace(out, out=f"{remote}/out"))) == whole.manifest
        assert tree_of(f"{remote}/out") == whole.tree

    @pytest.mark.system
    def test_another_plan_is_refused_until_it_overwrites(self, whole: Compiled, remote: str) -> None:
        out = replace(config_of(whole.source, Path("out")), out=f"{remote}/out")
        other = replace(out, settings=replace(out.settings, rule=SplitRule(val=None)))
        stopped(other, 40)
        with pytest.raises(ConfigError, match="holds an unfinished compile of another plan") as caught:
            execute(prepare(out))
        assert str(caught.value).startswith(f"{remote}/out: ")
        assert execute(prepare(replace(out, overwrite=True))) == whole.manifest
        assert tree_of(out.out) == whole.tree
        with pytest.raises(ConfigError, match="holds another compile"):
            execute(prepare(other))
        assert execute(prepare(out)) == whole.manifest

    def test_a_task_whose_output_was_taken_sends_nothing(
        self, whole: Compiled, remote: str, bucket: Server
    ) -> None:
        out = replace(config_of(whole.source, Path("out")), out=f"{remote}/out")
        prepared, taken = prepare(out), []

        def take(done: int, size: int) -> None:
            if not taken:
                Store(out.out).put(CLAIM, json.dumps({"plan": "another"}).encode())
                taken.append(True)

        with pytest.raises(ConfigError, match="another compile has taken or finished it in the meantime"):
            execute(prepared, take)
        assert set(tree_of(out.out)) == {CLAIM, CENSUS}

    def test_what_is_not_oxcarts_is_left_alone(self, whole: Compiled, remote: str) -> None:
        Store(remote).put("notes/mine.txt", b"mine")
        with pytest.raises(ConfigError) as caught:
            prepare(replace(config_of(whole.source, Path("out")), out=remote))
        says = f"{remote}: holds notes/mine.txt, which is not oxcart's; choose an empty directory"
        assert str(caught.value) == says
        assert set(tree_of(remote)) == {"notes/mine.txt"}


class TestSource:
    """What is said of a source in a bucket that is not as it should be."""

    def test_the_directory_that_was_meant(self, source: str) -> None:
        above = source.removesuffix("/1.0.0")
        assert complaint(cli("scan", above)) == (
            f"{above}: no dataset_info.json, so not a TFDS directory; did you mean {above}/1.0.0?"
        )

    def test_a_file_that_is_missing(self, source: str) -> None:
        Store(source).delete(FIRST)
        says = (
            f"{source}: 1 of 4 TFRecord files that dataset_info.json names are missing, the first is {FIRST}"
        )
        names = sum("tfrecord" in name for name in Store(source).list()) + 1
        says = says.replace("of 4", f"of {names}")
        assert complaint(cli("scan", source)) == f"{says}; is the copy complete?"

    def test_a_file_of_another_size_or_other_bytes(
        self, whole: Compiled, source: str, remote: str, tmp_path: Path
    ) -> None:
        seen = census.take(config(source), workers=1, report=_ignore)
        data = Store(source).read(FIRST)
        Store(source).put(FIRST, data + b"x")
        with pytest.raises(SourceError, match=f"{FIRST}: has changed since the census: {len(data)} bytes"):
            census.check(seen, open_source(config(source)))
        changed = edited(whole.source, tmp_path / "changed", lift)
        Store(source).put(FIRST, (changed / FIRST).read_bytes())
        (tmp_path / "census").write_bytes(seen.to_bytes())
        with pytest.raises(SourceError, match=f"{FIRST}, record 3, byte .*: has changed since the census"):
            compiled(whole.source, tmp_path / "out", source=config(source), census=str(tmp_path / "census"))

    @pytest.mark.parametrize("at", ["http", "s3"])
    def test_a_server_that_fails_is_one_line(
        self, whole: Compiled, source: str, bucket: Server, site: Server, at: str
    ) -> None:
        server, url = (site, site.url) if at == "http" else (bucket, source)
        server.faults.add("403", times=99)
        says = complaint(cli("scan", url, "--workers", 1))
        assert re.match(rf"{re.escape(url)}/\S+\.json: stat: access denied \(HTTP 403 Forbidden\)", says)

    def test_a_census_of_many_files_asks_once_for_each_and_for_several_at_once(
        self, site: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sample = RldsSampleConfig(kitchens=4, sessions=2, episodes=2, steps=4, size=32, files=8)
        source = write_rlds(tmp_path / "site", sample)
        first = sorted(path.name for path in source.glob("*tfrecord*"))[:4]
        together, take = threading.Barrier(len(first)), Faults.take

        def wait(faults: Faults, method: str, path: str, asked: str = "") -> Fault | None:
            found = take(faults, method, path, asked)
            if method == "GET" and path.endswith(tuple(first)):
                together.wait(20)  # until all of them are asked for
            return found

        monkeypatch.setattr(Faults, "take", wait)
        result = cli(
            "scan", f"{site.url}/{source.relative_to(tmp_path / 'site')}", "--parquet", tmp_path / "c"
        )
        assert result.exit_code == 0, result.output
        requests = [one for one in site.faults.requests if not one[1].endswith(LEROBOT)]  # is it one?
        counts = Counter((method, path.rpartition("/")[2]) for method, path in requests)
        assert set(counts.values()) == {1}
        assert {name for _, name in counts} == {path.name for path in source.iterdir()}
        assert (tmp_path / "c").read_bytes() == census_of(source).to_bytes()

    @pytest.mark.parametrize("group", [1, 2500, 64 << 20])
    def test_a_census_is_the_same_for_any_number_of_files_at_once(
        self, whole: Compiled, source: str, monkeypatch: pytest.MonkeyPatch, group: int
    ) -> None:
        monkeypatch.setattr(census, "GROUP_BYTES", group)
        seen: list[int] = []
        taken = census.take(config(source), workers=1, report=lambda done, size: seen.append(done))
        assert taken.to_bytes() == census_of(whole.source).to_bytes()
        assert seen == list(range(1, taken.table.num_rows + 1))

    def test_a_file_that_fails_ends_a_census_of_several_at_once(
        self, source: str, bucket: Server, waits: list[float]
    ) -> None:
        bucket.faults.add("403", times=9, method="GET", name=SECOND)
        with pytest.raises(StoreError, match=f"{SECOND}: read: access denied"):
            census.take(config(source), workers=1, report=_ignore)

    def test_a_record_is_one_request(self, whole: Compiled, source: str, bucket: Server) -> None:
        opened = open_source(config(source))
        row = census_of(whole.source).usable.slice(0, 1).to_pylist()[0]
        bucket.faults.clear()
        opened.read(row)
        assert [method for method, _ in bucket.faults.requests] == ["GET"]


def test_a_transcode_reads_each_table_and_each_episode_with_one_request(
    six_episodes: Compiled, site: Server, tmp_path: Path
) -> None:
    shutil.copytree(six_episodes.out, tmp_path / "site" / "out")
    config = TranscodeConfig(dataset=f"{site.url}/out", out=str(tmp_path / "zstd"), codec="zstd", workers=1)
    transcode.execute(transcode.prepare(config))
    counts = Counter(path.removeprefix("/out/") for method, path in site.faults.requests if method == "GET")
    shards = six_episodes.manifest.shards
    assert counts == {
        "manifest.json": 2,  # that of the worker, too
        "episodes.parquet": 1,
        "rejected.parquet": 1,
        **{shard["chunks"]: 1 for shard in shards},
        **{shard["name"]: shard["episodes"] for shard in shards},
    }
    local = TranscodeConfig(dataset=str(six_episodes.out), out=str(tmp_path / "l"), codec="zstd", workers=1)
    transcode.execute(transcode.prepare(local))
    assert tree(tmp_path / "zstd") == tree(tmp_path / "l")


def _ignore(done: int, size: int) -> None:
    """Tell nobody."""
