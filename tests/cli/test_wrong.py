"""Wrong command lines, one a row: each ends in a line that says what was expected, and writes nothing."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from sample_compile import Compiled, cli, complaint

FILES = {
    "latin1": "caf\xe9: dataset=bridge".encode("latin-1"),
    "empty": b"",
    "text": b"hello\n",
    "deep": b"[" * 5000,
    "list.yaml": b"- a\n",
    "nul": b"a\x00b",
    "video.mp4": b"",
    "set/meta/info.json": b'{"codebase_version": "v2.1"}',
}
"""Files that are there -> what they hold. Beside them `run` is an empty folder."""

PATH = "expected a path on this machine, got ''"
PLACE = "expected a path or a URL, got ''"
NO_DATASET = "no manifest.json, so not a compiled dataset"
ABSENT = "none: does not exist; expected a directory or a URL as the source"

WRONG = [
    # An empty path is not the current directory.
    ("sample rlds ''", f"DIRECTORY: {PATH}"),
    ("sample videos ''", f"DIRECTORY: {PATH}"),
    ("fetch-videos '' out", f"URLS: {PATH}"),
    ("fetch-videos text ''", f"DIRECTORY: {PATH}"),
    ("scan ''", f"SOURCE: {PLACE}"),
    ("scan SOURCE --merge ''", f"CENSUS: {PLACE}"),
    ("scan SOURCE --parquet ''", f"--parquet: {PATH}"),
    ("compile '' out", f"SOURCE: {PLACE}"),
    ("compile SOURCE ''", f"OUT: {PLACE}"),
    ("compile SOURCE out --split ''", f"--split: {PATH}"),
    ("compile SOURCE out --census ''", f"--census: {PLACE}"),
    ("compile SOURCE out --write-rule ''", f"--write-rule: {PATH}"),
    ("compile SOURCE out --exclude-ids ''", f"--exclude-ids: {PATH}"),
    ("commit ''", f"OUT: {PLACE}"),
    ("transcode '' out", f"DATASET: {PLACE}"),
    ("transcode DATASET ''", f"OUT: {PLACE}"),
    ("inspect ''", f"DATASET: {PLACE}"),
    ("show '' -o x.png", f"DATASET: {PLACE}"),
    ("show DATASET -o ''", f"--output: {PATH}"),
    ("verify ''", f"DATASET: {PLACE}"),
    ("diff '' DATASET", f"A: {PLACE}"),
    ("diff DATASET ''", f"B: {PLACE}"),
    ("repair-split '' --report text -o x.yaml", f"OUT: {PLACE}"),
    ("repair-split DATASET --report '' -o x.yaml", f"--report: {PATH}"),
    ("annotate motion ''", f"DATASET: {PLACE}"),
    ("annotate motion DATASET -o ''", f"--out: {PLACE}"),
    ("bench read ''", f"URL: {PLACE}"),
    ("bench shuffle '' -o x.png", f"URL: {PLACE}"),
    ("evaluate laq '' DATASET", f"RUN: {PATH}"),
    ("evaluate laq run ''", f"DATASET: {PLACE}"),
    ("evaluate laq run DATASET --checkpoint ''", f"--checkpoint: {PLACE}"),
    ("label DATASET --laq '' -o x", f"--laq: {PATH}"),
    ("predict '' --image text --instruction x", f"RUN: {PATH}"),
    ("compare ''", f"RUN: {PLACE}"),
    ("rollout '' --env kitchens", f"RUN: {PATH}"),
    ("rollout run --env kitchens --dataset ''", f"--dataset: {PLACE}"),
    ("rollout run --env kitchens --film ''", f"--film: {PATH}"),
    ("serve ''", f"RUN: {PATH}"),
    # What is named is not there, or is something else.
    ("scan none", ABSENT),
    ("scan videos:none", ABSENT),
    ("scan videos:text", "text: is a file; expected a directory or a URL"),
    ("scan videos:", "expected a directory or URL, got ''"),
    ("scan run", "no dataset_info.json, so not a TFDS directory"),
    ("scan s3:/bucket/x", "a URL has two slashes"),
    ("scan ftp://host/x", "unknown scheme 'ftp'"),
    ("scan set", "set/meta/info.json: has no 'fps'"),
    ("compile videos:. out", "got a LeRobot dataset (./set/meta/info.json)"),
    ("compile SOURCE text", "text: is a file, expected a directory"),
    ("compile SOURCE SOURCE", "is the source itself; choose another directory"),
    ("compile SOURCE https://host/x", "a web server is for reading"),
    ("compile SOURCE run --extend", NO_DATASET),
    ("commit none", "holds no unfinished compile; run oxcart compile"),
    ("transcode DATASET DATASET", "is the dataset itself; choose another directory"),
    ("inspect none", NO_DATASET),
    ("verify text", NO_DATASET),
    ("show DATASET none -o x.png", "episode 'none': the dataset has no such key"),
    ("diff DATASET list.yaml", "expected two datasets or two rules"),
    ("annotate motion DATASET --camera none", "camera 'none': the dataset has"),
    ("catalog none", "'none' is not in the catalog"),
    ("compare none", "none has no config.yaml, so it is not a run"),
    ("evaluate laq run DATASET", "there is no checkpoint last; train first"),
    ("evaluate laq run DATASET --checkpoint run", "run: there is no such checkpoint; train first"),
    # A file that does not hold what it should.
    ("fetch-videos latin1 out", "latin1: expected lines of UTF-8 text"),
    ("fetch-videos empty out", "expected at least one address, got none"),
    ("scan SOURCE --merge text", "text: not a readable Parquet table"),
    ("compile SOURCE out --census text", "text: not a readable Parquet table"),
    ("compile SOURCE out --split latin1", "split rule latin1: not UTF-8 text"),
    ("compile SOURCE out --split empty", "split rule empty: expected keys such as `by: environment`"),
    ("compile SOURCE out --split deep", "split rule deep: line 1: nested more than 8 deep"),
    ("compile SOURCE out --split nul", "split rule nul: not YAML"),
    ("repair-split DATASET --report text -o x.yaml", "--report text: not JSON"),
    ("repair-split DATASET --report deep -o x.yaml", "--report deep: not JSON"),
    ("evaluate laq run DATASET --subsets latin1", "latin1: expected UTF-8 text"),
    ("evaluate laq run DATASET --subsets deep", "deep: not YAML"),
    ("evaluate laq run DATASET --subsets empty", "empty: expected lines such as `bridge: dataset=bridge`"),
    # A value that is none.
    ("sample rlds out --kitchens 0", "kitchens: expected at least 1, got 0"),
    ("sample videos out --seconds nan", "seconds: expected 0.5 to 600, got nan"),
    ("scan SOURCE --part '' --parquet x", "--part: expected I/N such as 0/8, the first of eight; got ''"),
    ("scan SOURCE --part 3/2 --parquet x", "--part: expected 0/2 to 1/2, got 3/2"),
    ("compile SOURCE out --part ''", "--part: expected I/N such as 0/8, the first of eight; got ''"),
    ("compile SOURCE out --part 1/0", "--part: expected I/N such as 0/8, the first of eight; got 1/0"),
    ("compile SOURCE out --size 1x2x3", "--size: expected pixels like 256"),
    ("compile SOURCE out --shard-size nan", "--shard-size: expected bytes like 256MiB or 1GB, got 'nan'"),
    ("compile SOURCE out --val-fraction nan", "val: expected a share of the episodes"),
    ("compile SOURCE out --val ''", "val: expected names that are text and not empty, got ''"),
    ("scan SOURCE --environment 'x~('", "environment pattern '(': not a regular expression"),
    ("scan SOURCE --camera ''", "camera '': no such feature; there are"),
    ("bench read DATASET --seconds nan", "--seconds: expected a number of seconds like 10, got nan"),
    ("bench read DATASET --per-episode ''", "--per-episode: expected a number or \"all\", got ''"),
    ("evaluate laq run DATASET --strategies ''", "--strategies: expected one of codebook, compass"),
    ("evaluate laq run DATASET --strategies ,", "--strategies: expected one of codebook, compass"),
    ("compare run -o x.xyz", "--output: expected a name that ends in .png, .pdf or .svg, got 'x.xyz'"),
    ("bench shuffle DATASET -o x.xyz", "--output: expected a name that ends in .png, .pdf or .svg"),
    (
        "show DATASET -o x.xyz",
        "--output: expected a name that ends in .png, .jpg, .jpeg or .webp, got 'x.xyz'",
    ),
    ("import laq latin1 --preset tiny", "model.kind: expected lapa, whose checkpoints are read, got layered"),
    ("import laq latin1", "latin1: not a file of tensors alone: "),
    ("train laq x", "override 'x': expected KEY=VALUE"),
    ("train laq preset=none", "preset: expected one of flow, lapa, large, tiny, wide"),
    # Options that say nothing together, or alone.
    ("compile SOURCE out --fit crop", "--fit: expected with --size, got crop alone"),
    ("compile SOURCE DATASET --extend --fit crop", "--fit: expected with --size, got crop alone"),
    ("transcode DATASET out --fit crop", "--fit: expected with --size, got crop alone"),
    ("transcode DATASET out --jpeg-quality 5", "--jpeg-quality: expected with --codec jpeg, got alone"),
    ("compile SOURCE out --split list.yaml --val x", "the rule file says it all; leave out --val"),
    ("compile SOURCE out --val x --val-fraction 0.2", "--val-fraction: expected alone or --val alone"),
    ("scan SOURCE --part 0/2", "--part: expected with --parquet FILE, which keeps the part; pass it"),
    ("scan SOURCE --merge", "--merge: expected together with the CENSUS files of all parts"),
    ("scan SOURCE --ray-address x", "--ray-address: expected with --engine ray, got 'x' without"),
    ("scan SOURCE --rate 10", "--rate: expected a source of videos"),
    ("annotate motion DATASET DATASET -o x", "--out: expected a single DATASET, got 2"),
]
"""Command line, and what it must say. SOURCE and DATASET are there."""

UNCHECKED = [
    ("audit ''", f"DATASET: {PLACE}"),
    ("audit none", NO_DATASET),
    ("audit DATASET DATASET", "is given twice; name it once"),
    ("audit DATASET --json ''", f"--json: {PATH}"),
    ("audit DATASET -o x --json x", "--output: 'x' is --json ('x') of the same command"),
]
"""The same of `audit`, whose exit code 1 is a leak."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with FILES in it."""
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(line: str, source: Path, whole: Compiled, code: int) -> str:
    places = {"SOURCE": str(source), "DATASET": str(whole.out)}
    return complaint(cli(*(places.get(word, word) for word in shlex.split(line))), code)


@pytest.mark.parametrize(("line", "what"), WRONG)
def test_a_wrong_command_line_ends_in_one_line_that_says_what_was_expected(
    line: str, what: str, source: Path, whole: Compiled, folder: Path
) -> None:
    before = sorted(folder.rglob("*"))
    assert what in said(line, source, whole, 1)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(("line", "what"), UNCHECKED)
def test_an_audit_that_cannot_begin_is_exit_2(
    line: str, what: str, source: Path, whole: Compiled, folder: Path
) -> None:
    before = sorted(folder.rglob("*"))
    assert what in said(line, source, whole, 2)
    assert sorted(folder.rglob("*")) == before
