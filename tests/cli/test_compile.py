"""`oxcart compile` as typed: what they print, and that a mistake is one line.

Every failure ends with exit code 1, one line on stderr and nothing on stdout; a command line that cannot be
parsed with exit code 2. `--quiet` is passed where a warning or progress would come before that line.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import Result

from depth import few
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import Manifest, read_manifest
from oxcart.manifests.verify import verify
from oxcart.shards.store import Store
from sample_compile import cli, complaint

BRIDGE = Path(__file__).parents[2].parent / "shared/data/bridge_dataset/1.0.0"
TRAIN = "oxcart_kitchens-train.tfrecord-0000{}-of-00003"


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes in one kitchen."""
    sample = RldsSampleConfig(kitchens=1, sessions=3, episodes=2, steps=2, size=32, files=1)
    return write_rlds(tmp_path_factory.mktemp("kitchen"), sample)


@pytest.fixture
def half(source: Path, tmp_path: Path) -> Path:
    """A copy of the source to take something away from."""
    return shutil.copytree(source, tmp_path / "half")


class TestSources:
    """A source that is not there, or not all of it. `compile` and `scan` say the same."""

    @pytest.fixture(params=["scan", "compile"])
    def says(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[object], str]]:
        out = [tmp_path / "out"] if request.param == "compile" else []
        yield lambda source: complaint(cli(request.param, source, *out, "--workers", 1))
        assert not (tmp_path / "out").exists()

    def test_a_missing_directory(self, says: Callable[[object], str], tmp_path: Path) -> None:
        assert says(tmp_path / "nowhere").startswith(f"{tmp_path}/nowhere: ")

    def test_an_empty_directory(self, says: Callable[[object], str], tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert "empty: no dataset_info.json, so not a TFDS directory" in says(tmp_path / "empty")

    def test_a_directory_above_the_source(self, says: Callable[[object], str], source: Path) -> None:
        assert says(source.parents[1]).endswith(f"; did you mean {source}?")

    def test_a_file(self, says: Callable[[object], str], source: Path) -> None:
        assert "features.json: " in says(source / "features.json")

    def test_a_url_of_an_unknown_scheme(self, says: Callable[[object], str]) -> None:
        assert says("hdfs://host/bridge") == (
            "store 'hdfs://host/bridge': unknown scheme 'hdfs'; expected a directory or "
            "gs://, s3://, az://, https://, http://, hf://"
        )

    @pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
    def test_a_copy_without_its_json(self, says: Callable[[object], str], half: Path, name: str) -> None:
        (half / name).unlink()
        assert says(half) == f"{half}: no {name}, so not a TFDS directory; is the copy complete?"

    @pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"name": ', '{"splits": [null]}', "\xff"])
    def test_json_that_was_cut_off(
        self, says: Callable[[object], str], half: Path, name: str, text: str
    ) -> None:
        (half / name).write_bytes(text.encode("latin1"))
        assert says(half).startswith(f"{half}/{name}: ")

    @pytest.mark.parametrize("lost", [1, 2])
    def test_fewer_files_than_it_says(self, says: Callable[[object], str], half: Path, lost: int) -> None:
        for i in range(3 - lost, 3):
            (half / TRAIN.format(i)).unlink()
        first = TRAIN.format(3 - lost)
        assert says(half) == (
            f"{half}: {lost} of 4 TFRecord files that dataset_info.json names are missing, the first is "
            f"{first}; is the copy complete?"
        )

    def test_another_file_format(self, says: Callable[[object], str], half: Path) -> None:
        info = (half / "dataset_info.json").read_text()
        (half / "dataset_info.json").write_text(info.replace('"tfrecord"', '"array_record"'))
        assert says(half) == (
            f"{half}/dataset_info.json: file format 'array_record': only tfrecord can be read"
        )


def test_fewer_records_than_it_says(half: Path, tmp_path: Path) -> None:
    """The last file was not copied to its end."""
    last = half / TRAIN.format(2)
    os.truncate(last, last.stat().st_size - 10)
    result = cli("compile", half, tmp_path / "out", "--workers", 1, "--quiet")
    assert re.fullmatch(
        rf"{last.name}, record 2(, byte \d+)?: cut off: .*; --on-error reject compiles the rest .*",
        complaint(result),
    )
    scan = cli("scan", half, "--workers", 1)
    assert scan.exit_code == 0
    assert scan.stdout.splitlines()[-2] == "1 episodes cannot be compiled:"
    assert scan.stdout.splitlines()[-1].startswith(f"  {last.name}, record 2: cut off: ")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ("--camera", "image_1"),
            r"camera 'image_1': no such feature; there are image_0, wrist; did you mean image_0\?",
        ),
        (("--camera", "wrist", "--camera", "zzz"), "camera 'zzz': no such feature; there are image_0, wrist"),
        (("--action", "actoin"), r"action 'actoin': no such feature; .*; did you mean steps/action\?"),
        (("--state", "observation/stat"), r"state .*; did you mean steps/observation/state\?"),
        (
            ("--instruction", "language_instuction"),
            r"instruction .*; did you mean steps/language_instruction\?",
        ),
        (("--action", "language_instruction"), "action .*: expected numbers, .*"),
        (("--environment", "zzz"), "environment 'zzz': no such feature; there are .*file_path.*"),
        (("--environment", ""), "environment '': no such feature; .*"),
        (("--environment", "file_path~("), r"environment pattern '\(': not a regular expression: .*"),
        (("--source-split", "trian"), "source split 'trian': .*train, val.*"),
        (("--size", "big"), "--size: expected pixels like 256, or height x width like 240x320; got 'big'"),
        (("--size", "240x320x3"), "--size: expected pixels .*; got '240x320x3'"),
        (("--size", "-1"), "--size: expected pixels .*; got '-1'"),
        (("--size", "x"), "--size: expected pixels .*; got 'x'"),
        (("--size", ""), "--size: expected pixels .*; got ''"),
        (("--size", "²"), "--size: expected pixels .*; got '²'"),
        (("--size", "9" * 5000), "--size: expected pixels .*"),
        (("--size", "0"), "size: expected 1 to 8192 pixels per side, got 0x0"),
        (("--size", "240x9000"), "size: expected 1 to 8192 pixels per side, got 240x9000"),
        (("--shard-size", "big"), "--shard-size: expected bytes like 256MiB or 1GB, got 'big'"),
        (("--shard-size", "5XB"), "--shard-size: expected bytes like 256MiB or 1GB, got '5XB'"),
        (("--shard-size", ""), "--shard-size: expected bytes like 256MiB or 1GB, got ''"),
        (("--shard-size", "nan"), "--shard-size: expected bytes like 256MiB or 1GB, got 'nan'"),
        (("--shard-size", "1e400"), "--shard-size: expected bytes like 256MiB or 1GB, got '1e400'"),
        (("--shard-size", "0"), "shard size: expected at least 1 byte, got 0"),
        (("--shard-size=-5MB",), "shard size: expected at least 1 byte, got -5000000"),
        (("--val-fraction", "1"), "val: expected a share of the episodes, from 0 to below 1; got 1.0; .*"),
        (("--val-fraction", "-0.1"), "val: expected a share .*; got -0.1; a tenth is 0.1"),
        (("--val-fraction", "nan"), "val: expected a share .*; got nan; a tenth is 0.1"),
        (("--val-seen", "10"), "val_seen: expected a share .*; got 10.0; a tenth is 0.1"),
        (
            ("--val-fraction", 0.2, "--val", "toysink1"),
            "--val-fraction: expected alone or --val alone, got both; .*",
        ),
        (("--split-by", "dataset", "--val-fraction", 0.2), "val: splitting by dataset .*"),
        (("--split-by", "source", "--val", "toysink1"), "val: splitting by source keeps .*"),
        (
            ("--environment", "file_path~nomatch"),
            ".*all 10 episodes have an unknown environment; name the field.*",
        ),
    ],
    ids=lambda value: " ".join(map(str, value))[:40] if isinstance(value, tuple) else "",
)
def test_an_impossible_option(
    compile_: Callable[..., Result], tmp_path: Path, options: tuple[object, ...], says: str
) -> None:
    assert re.fullmatch(says, complaint(compile_(*options)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        ("--val-fraction", "abc"),
        ("--limit", "0"),
        ("--workers", "0"),
        ("--fit", "squash"),
        ("--split-by", "kitchen"),
        ("--on-error", "ignore"),
        ("--no-such-option",),
        ("one argument too many",),
        ("--split", "."),
    ],
    ids=" ".join,
)
def test_a_command_line_that_cannot_be_parsed(
    compile_: Callable[..., Result], tmp_path: Path, options: tuple[str, ...]
) -> None:
    said = complaint(compile_(*options), code=2)
    assert said.startswith("Usage: oxcart compile [OPTIONS] SOURCE OUT\n")
    assert "\nError: " in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("compile",), ("compile", "source"), ("scan",)])
def test_a_missing_argument(arguments: tuple[str, ...]) -> None:
    assert "Error: Missing argument" in complaint(cli(*arguments), code=2)


class TestRules:
    """`--split FILE`."""

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("val: [toysink1", "line 1, column .*: not YAML: .*|line 2, column 1: not YAML: .*"),
            ("val: 2", "val: expected a share of the episodes, .*; got 2.0; a tenth is 0.1"),
            ("by: envronment", "by: expected one of .*; did you mean environment.*"),
            ("nope: 1", "unknown key 'nope'; expected by, .*"),
            ("val: [a]\nval: [b]", "line 2: key 'val' is given twice"),
            ("val: [a]\ntrain: [a]", "'a' is listed in train and in val; list it once"),
            ("- a", "expected keys such as .*"),
            ("", "expected keys such as .*"),
            ("\0", "not YAML: .*"),
        ],
    )
    def test_malformed(self, compile_: Callable[..., Result], tmp_path: Path, text: str, says: str) -> None:
        (tmp_path / "rule.yaml").write_text(text)
        found = complaint(compile_("--split", tmp_path / "rule.yaml"))
        assert re.fullmatch(rf"split rule {tmp_path}/rule\.yaml: ({says})", found)
        assert not (tmp_path / "out").exists()

    def test_missing(self, compile_: Callable[..., Result], tmp_path: Path) -> None:
        found = complaint(compile_("--split", tmp_path / "rule.yaml"))
        assert found == f"split rule {tmp_path}/rule.yaml: no such file or directory"

    @pytest.mark.parametrize(
        "options",
        [("--split-by", "episode"), ("--val-fraction", 0.2), ("--val", "none"), ("--val-seen", 0.1)],
        ids=lambda options: options[0],
    )
    def test_with_other_split_options(
        self, compile_: Callable[..., Result], tmp_path: Path, options: tuple[object, ...]
    ) -> None:
        (tmp_path / "rule.yaml").write_text("val: 0.3\n")
        found = complaint(compile_("--split", tmp_path / "rule.yaml", *options))
        assert found == f"--split: the rule file says it all; leave out {options[0]}"

    def test_a_name_that_the_dataset_does_not_have(
        self, compile_: Callable[..., Result], tmp_path: Path
    ) -> None:
        found = complaint(compile_("--val", "toysink1", "--val", "toykitchn1"))
        assert found.endswith("did you mean toykitchen1? oxcart scan lists all of them")
        assert found.startswith("--val 'toykitchn1': no such environment in oxcart_kitchens")
        assert not (tmp_path / "out").exists()

    def test_a_rule_may_name_what_another_dataset_has(
        self, compile_: Callable[..., Result], tmp_path: Path
    ) -> None:
        (tmp_path / "rule.yaml").write_text("val: [toysink1, toykitchn1]\n")
        result = compile_("--split", tmp_path / "rule.yaml")
        assert result.exit_code == 0
        assert "'toykitchn1' (nearest: 'toykitchen1' for 'toykitchn1')" in result.stderr

    def test_none_and_names_at_once(self, compile_: Callable[..., Result]) -> None:
        assert complaint(compile_("--val", "none", "--val", "toysink1")).startswith(
            "--val: expected names or"
        )

    def test_it_is_applied(self, compile_: Callable[..., Result], tmp_path: Path) -> None:
        (tmp_path / "rule.yaml").write_text("val: [toysink1]\ntest: [toykitchen1]\n")
        assert compile_("--split", tmp_path / "rule.yaml").exit_code == 0
        rows = pq.read_table(tmp_path / "out/episodes.parquet").to_pylist()
        held = {(row["environment"], row["split"]) for row in rows if row["split"] != "train"}
        assert held == {("toysink1", "val"), ("toykitchen1", "test")}


class TestOneEnvironment:
    """Nothing can be held out as a whole; the line names what can be done."""

    def test_is_refused(self, kitchen: Path, tmp_path: Path) -> None:
        said = complaint(cli("compile", kitchen, tmp_path / "out", "--workers", 1, "--quiet"))
        assert said == (
            "split by environment: the dataset has one environment ('toykitchen1'), so none can be held out; "
            "use --split-by instruction, or --val none"
        )
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("remedy", "splits"),
        [
            (("--split-by", "instruction", "--val-fraction", 0.4), {"train", "val"}),
            (("--val", "none"), {"train"}),
        ],
    )
    def test_its_remedies_work(
        self, kitchen: Path, tmp_path: Path, remedy: tuple[object, ...], splits: set[str]
    ) -> None:
        result = cli("compile", kitchen, tmp_path / "out", "--workers", 1, "--quiet", *remedy)
        assert (result.exit_code, result.output) == (0, "")
        assert set(read_manifest(Store(tmp_path / "out")).splits) == splits


class TestOut:
    """An output directory that cannot be one."""

    def test_a_file(self, compile_: Callable[..., Result], tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        assert complaint(compile_(quiet=False)) == f"{tmp_path}/out: is a file, expected a directory"
        assert (tmp_path / "out").read_text() == "mine"

    def test_below_a_file(self, source: Path, tmp_path: Path) -> None:
        """Said before the census, which may take an hour."""
        (tmp_path / "file").write_text("mine")
        said = complaint(cli("compile", source, tmp_path / "file/deep/out", "--workers", 1))
        assert said == f"{tmp_path}/file/deep/out: {tmp_path}/file is not a directory that can be written"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_not_writable(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "locked").mkdir(mode=0o555)
        said = complaint(cli("compile", source, tmp_path / "locked/out", "--workers", 1))
        assert said == f"{tmp_path}/locked/out: {tmp_path}/locked is not a directory that can be written"

    @pytest.mark.parametrize("overwrite", [(), ("--overwrite",)], ids=["", "--overwrite"])
    def test_of_something_else(
        self, compile_: Callable[..., Result], tmp_path: Path, overwrite: tuple[str, ...]
    ) -> None:
        """Web pages have a `manifest.json` too."""
        (tmp_path / "out").mkdir()
        (tmp_path / "out/manifest.json").write_text('{"name": "a web page"}')
        said = complaint(compile_(*overwrite))
        assert (
            said == f"{tmp_path}/out: holds manifest.json, which is not oxcart's; choose an empty directory"
        )
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]
        assert (tmp_path / "out/manifest.json").read_text() == '{"name": "a web page"}'

    def test_another_plan(self, compile_: Callable[..., Result]) -> None:
        assert compile_("--val-fraction", 0.2).exit_code == 0
        said = complaint(compile_("--val-fraction", 0.4))
        assert said.endswith("pass --overwrite, or --extend if the source has grown")
        assert compile_("--val-fraction", 0.4, "--overwrite").exit_code == 0

    def test_no_directory(self, source: Path) -> None:
        assert "expected a directory" in complaint(cli("compile", source, "hdfs://host/b", "--workers", 1))


class TestFullDisk:
    """No room for what is to be written; the line names the file and the reason; a resume completes it."""

    @pytest.fixture
    def census(self, source: Path, tmp_path: Path) -> Path:
        census = tmp_path / "census.parquet"
        assert cli("scan", source, "--parquet", census, "--quiet", "--workers", 1).exit_code == 0
        return census

    def command(self, source: Path, out: Path, workers: int = 1) -> list[str]:
        command = [sys.executable, "-m", "oxcart.cli.main", "compile", str(source), str(out), "--quiet"]
        return [*command, "--val-fraction", "0.2", "--shard-size", "20kB", "--workers", str(workers)]

    def finish(self, source: Path, out: Path, elsewhere: Path) -> None:
        """The same command with room completes it."""
        for directory in (out, elsewhere):
            assert cli(*self.command(source, directory)[3:]).exit_code == 0
        one, two = (read_manifest(Store(directory)) for directory in (out, elsewhere))
        assert one == two
        assert verify(Dataset.open(str(out))) == []

    @pytest.mark.parametrize("workers", few([1, 2], 1))
    def test_a_limit_on_files(self, source: Path, census: Path, tmp_path: Path, workers: int) -> None:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))

        result = subprocess.run(
            [*self.command(source, tmp_path / "out", workers), "--census", str(census)],
            preexec_fn=limit,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert (result.returncode, result.stdout) == (1, "")
        said = rf"oxcart: error: {tmp_path}/out/shards/train-\d{{5}}\.tar: write: File too large\n"
        assert re.fullmatch(said, result.stderr)
        assert list((tmp_path / "out/.oxcart").glob("*.tmp")) == [] or workers > 1
        assert not (tmp_path / "out/manifest.json").exists()
        self.finish(source, tmp_path / "out", tmp_path / "elsewhere")

    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of 96 KiB."""
        disk = tmp_path / "disk"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(disk)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a file system is not allowed here")
        yield disk
        subprocess.run(["umount", str(disk)], check=True)

    def test_a_small_file_system(self, source: Path, small_disk: Path, tmp_path: Path) -> None:
        said = complaint(cli(*self.command(source, small_disk / "out")[3:]))
        assert re.fullmatch(rf"{small_disk}/out/\S+: write: No space left on device", said)
        assert not (small_disk / "out/manifest.json").exists()
        assert list((small_disk / "out/.oxcart").glob("*.tmp")) == []
        shutil.copytree(small_disk / "out", tmp_path / "larger")
        self.finish(source, tmp_path / "larger", tmp_path / "elsewhere")


class TestOutput:
    """What a compile prints."""

    def test_quiet(self, compile_: Callable[..., Result], tmp_path: Path) -> None:
        result = compile_("--val-fraction", 0.2)
        assert (result.exit_code, result.output) == (0, "")
        assert (tmp_path / "out/manifest.json").exists()

    def test_summary(self, compile_: Callable[..., Result], tmp_path: Path) -> None:
        result = compile_("--val-fraction", 0.2, "--limit", 3, quiet=False)
        assert result.exit_code == 0
        manifest = read_manifest(Store(tmp_path / "out"))
        frames = sum(count["frames"] for count in manifest.splits.values())
        first, last = result.stdout.splitlines()
        assert re.fullmatch(
            rf"{tmp_path}/out: 5 episodes \(3 train, 2 val\), {frames} frames, 2 shards, "
            r"[\d.]+ KiB, 5 limited",
            first,
        )
        assert last == f"fingerprint {manifest.fingerprint}"
        scanned, compiled = result.stderr.splitlines()
        assert scanned.startswith("scanning: 10/10 episodes")
        assert compiled.startswith(f"compiling: {frames}/{frames} frames")

    def test_dry_run(self, compile_: Callable[..., Result], tmp_path: Path) -> None:
        result = compile_("--val-fraction", 0.2, "--limit", 3, "--shard-size", 1, "--dry-run")
        assert (result.exit_code, result.stderr) == (0, "")
        assert list(tmp_path.iterdir()) == []
        lines = [line.split() for line in result.stdout.splitlines()]
        assert ["environment", "split", "episodes"] in lines
        assert sum(len(line) == 3 and line[1] == "val" and line[2] == "2" for line in lines) == 1
        assert [line[:2] + line[3:] for line in lines if line[:1] in (["train"], ["val"])] == [
            ["train", "3", "3"],
            ["val", "2", "2"],
        ]
        assert result.stdout.splitlines()[-1].endswith(
            "5 episodes beyond the limit, 0 rejected; nothing was compiled"
        )
        assert compile_("--val-fraction", 0.2, "--limit", 3, "--shard-size", 1).exit_code == 0
        manifest = read_manifest(Store(tmp_path / "out"))
        assert (manifest.splits["train"]["episodes"], len(manifest.shards)) == (3, 5)

    def test_dry_run_on_a_dataset(self, compile_: Callable[..., Result], tmp_path: Path) -> None:
        assert compile_("--val-fraction", 0.2).exit_code == 0
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
        for options in (("--overwrite",), ("--val-fraction", 0.4, "--overwrite")):
            assert compile_(*options, "--dry-run").exit_code == 0
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before

    def test_debug_shows_the_traceback(
        self, compile_: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OXCART_DEBUG", "1")
        result = compile_("--camera", "image_1")
        assert result.exit_code == 1
        assert "Traceback" in result.stderr
        assert result.stderr.splitlines()[-1].startswith("oxcart: error: camera 'image_1'")


@pytest.mark.skipif(not BRIDGE.is_dir(), reason="the sample of BridgeData V2 is not here")
class TestBridge:
    """Real episodes: 25 of ten steps, in one environment, with four instructions."""

    def compiled(self, out: Path, *options: Any) -> tuple[Manifest, list[dict[str, Any]]]:
        result = cli("compile", BRIDGE, out, "--workers", 1, "--quiet", *options)
        assert (result.exit_code, result.stdout) == (0, "")
        rows: list[dict[str, Any]] = pq.read_table(out / "episodes.parquet").to_pylist()
        return read_manifest(Store(out)), rows

    def test_scan(self) -> None:
        found = json.loads(cli("scan", BRIDGE, "--json", "--quiet", "--workers", 1).stdout)
        place = {"name": "toysink2_bww", "known": "declared", "episodes": 25, "steps": 250}
        assert [{k: e[k] for k in place} for e in found["environments"]] == [place]
        assert list(found["instructions"].values()) == [8, 6, 6, 5]
        assert found["cameras"] == [
            {"name": "image_0", "source": "steps/observation/image_0", "sizes": ["64x64"]}
        ]

    def test_by_environment_it_names_the_remedies(self, tmp_path: Path) -> None:
        said = complaint(cli("compile", BRIDGE, tmp_path / "out", "--workers", 1, "--quiet"))
        assert "one environment ('toysink2_bww')" in said
        assert said.endswith("use --split-by instruction, or --val none")

    def test_by_instruction(self, tmp_path: Path) -> None:
        options = ("--split-by", "instruction", "--val-fraction", 0.25)
        manifest, rows = self.compiled(tmp_path / "out", *options)
        assert manifest.counts == {"source": 25, "compiled": 25, "rejected": 0, "limited": 0}
        assert sum(count["steps"] for count in manifest.splits.values()) == 250
        assert sum(count["frames"] for count in manifest.splits.values()) == 250
        splits = {(row["instruction"], row["split"]) for row in rows}
        assert len(splits) == 4
        held = Counter(row["instruction"] for row in rows if row["split"] == "val")
        assert sum(held.values()) in (5, 6)
        assert len(held) == 1
        assert (manifest.cameras[0]["height"], manifest.cameras[0]["width"]) == (64, 64)
        assert verify(Dataset.open(str(tmp_path / "out"))) == []

    def test_four_cameras(self, tmp_path: Path) -> None:
        cameras = [f"image_{i}" for i in range(4)]
        options = [option for camera in cameras for option in ("--camera", camera)]
        manifest, _ = self.compiled(
            tmp_path / "out", *options, "--split-by", "instruction", "--val-fraction", 0.25
        )
        assert [camera["name"] for camera in manifest.cameras] == cameras
        assert sum(count["steps"] for count in manifest.splits.values()) == 250
        assert sum(count["frames"] for count in manifest.splits.values()) == 1000
        assert verify(Dataset.open(str(tmp_path / "out"))) == []
