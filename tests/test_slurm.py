"""The scripts of examples/slurm, run by stand-ins for SLURM: what they ask of it, and what they run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from oxcart.cli.main import oxcart

SCRIPTS = Path(__file__).parents[1] / "examples" / "slurm"

SBATCH = """#!/usr/bin/env bash
echo "$@" >> "$LOG/sbatch"
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then printf 'node1\\nnode2\\n'; else echo "$@" >> "$LOG/scontrol"; fi
"""
SRUN = """#!/usr/bin/env bash
echo "$SRUN_CPUS_PER_TASK" "$@" >> "$LOG/srun"
trap 'for one in $(jobs -p); do kill -USR1 $one; done' USR1
while [[ "$1" == --* ]]; do shift; done
for ((i = 0; i < ${SLURM_NTASKS:-1}; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$((i % 2)) "$@" &
done
code=0
for one in $(jobs -p); do
    while true; do
        wait $one; own=$?
        kill -0 $one 2>/dev/null || break
    done
    if [ $own -gt $code ]; then code=$own; fi
done
exit $code
"""
OXCART = f"""#!{sys.executable}
import json, os, signal, sys
told = signal.signal(signal.SIGUSR1, lambda *given: sys.exit(143))
names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
about = {{"arguments": sys.argv[1:], "pid": os.getpid(), **{{name: os.environ.get(name) for name in names}}}}
path = os.path.join(os.environ["LOG"], f"oxcart-{{os.environ.get('RANK', 0)}}")
with open(path + ".new", "w") as file:
    json.dump(about, file)
os.rename(path + ".new", path)
if os.environ.get("WAITS"):
    signal.pause()
"""


def started(tmp_path: Path, script: str, *arguments: str, **given: str) -> subprocess.Popen[bytes]:
    """A script, as SLURM starts it on the first node of a job of two nodes with two tasks each: a copy, which
    was submitted from some folder."""
    bin_, log = tmp_path / "bin", tmp_path / "log"
    bin_.mkdir()
    log.mkdir()
    for name, text in (("sbatch", SBATCH), ("scontrol", SCONTROL), ("srun", SRUN), ("oxcart", OXCART)):
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    place = {
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "LOG": str(log),
        "SLURM_JOB_ID": "4711",
        "SLURM_ARRAY_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NNODES": "2",
        "SLURM_CPUS_PER_TASK": "4",
    }
    copy = shutil.copy(SCRIPTS / script, tmp_path / "slurm_script")
    return subprocess.Popen(["bash", copy, *arguments], cwd=tmp_path, env={**os.environ, **place, **given})


def ran(tmp_path: Path) -> list[dict[str, Any]]:
    """What each rank of oxcart was given."""
    return [json.loads(path.read_text()) for path in sorted((tmp_path / "log").glob("oxcart-?"))]


def assert_known(arguments: list[str]) -> None:
    """A command has all options that it is given."""
    result = CliRunner().invoke(oxcart, [*arguments, "--help"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("part", ["0", "3"])
def test_a_compile_does_its_part_and_the_first_asks_for_the_commit(tmp_path: Path, part: str) -> None:
    place = {"SLURM_ARRAY_TASK_ID": part, "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "0"}
    place |= {"SLURM_JOB_ACCOUNT": "mine", "SLURM_JOB_PARTITION": "fast"}
    run = started(tmp_path, "compile.sbatch", "source", "an out", "--size", "64", **place)
    assert run.wait(20) == 0
    (found,) = ran(tmp_path)
    wanted = ["compile", "source", "an out", "--part", f"{part}/8", "--workers", "4", "--quiet"]
    assert found["arguments"] == [*wanted, "--size", "64"]
    assert_known(found["arguments"])
    asked = tmp_path / "log" / "sbatch"
    assert asked.exists() == (part == "0")
    if part == "0":
        wanted = "--dependency=afterok:4711 --account=mine --partition=fast --wrap oxcart commit an\\ out"
        assert wanted in asked.read_text()
    assert (tmp_path / "log" / "srun").read_text().startswith("4 oxcart compile ")


def test_failed_parts_run_again_under_their_numbers(tmp_path: Path) -> None:
    place = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "1", "SLURM_ARRAY_TASK_MIN": "3"}
    run = started(tmp_path, "compile.sbatch", "source", "out", **place, PARTS="8")
    assert run.wait(20) == 0
    (found,) = ran(tmp_path)
    assert found["arguments"][3:5] == ["--part", "3/8"]
    assert "--dependency=afterok:4711 --wrap oxcart commit out" in (tmp_path / "log" / "sbatch").read_text()


@pytest.mark.parametrize(
    ("script", "command"), [("train", "train"), ("label", "label"), ("evaluate", "evaluate laq")]
)
def test_every_gpu_of_every_node_is_a_rank(tmp_path: Path, script: str, command: str) -> None:
    given = {"train": ["vla", "run.dir=a run"], "label": ["data", "--laq", "run", "-o", "codes.parquet"]}
    arguments = given.get(script, ["run", "data", "-o", "page.html"])
    run = started(tmp_path, f"{script}.sbatch", *arguments, SLURM_NTASKS="4")
    assert run.wait(20) == 0
    found = ran(tmp_path)
    assert [(one["RANK"], one["LOCAL_RANK"]) for one in found] == [
        ("0", "0"),
        ("1", "1"),
        ("2", "0"),
        ("3", "1"),
    ]
    for one in found:
        assert (one["WORLD_SIZE"], one["LOCAL_WORLD_SIZE"]) == ("4", "2")
        assert (one["MASTER_ADDR"], one["MASTER_PORT"]) == ("node1", "14711")
        more = ["--resume", "auto"] if script == "train" else []
        assert one["arguments"] == [*command.split(), *arguments, *more]
    assert_known(found[0]["arguments"])
    assert not (tmp_path / "log" / "scontrol").exists()
    asked = (tmp_path / "log" / "srun").read_text()
    assert asked.startswith("4 --kill-on-bad-exit=1 --cpu-bind=none "), "all cores of the job, divided by us"


@pytest.mark.parametrize("signal", ["USR1", "TERM"])
def test_a_training_whose_time_is_up_queues_again_and_one_that_is_ended_does_not(
    tmp_path: Path, signal: str
) -> None:
    run = started(tmp_path, "train.sbatch", "laq", "run.dir=run", SLURM_NTASKS="2", WAITS="yes")
    while len(ran(tmp_path)) < 2:
        assert run.poll() is None
    if signal == "USR1":
        run.send_signal(10)
        assert run.wait(20) == 143
        assert (tmp_path / "log" / "scontrol").read_text() == "requeue 4711\n"
    else:
        run.send_signal(15)  # to the script alone: SLURM tells the ranks itself
        assert run.poll() is None
        for one in ran(tmp_path):
            os.kill(one["pid"], 10)
        assert run.wait(20) == 143
        assert not (tmp_path / "log" / "scontrol").exists()


def test_a_job_that_may_be_preempted_is_queued_again_by_slurm() -> None:
    scripts = sorted(SCRIPTS.glob("*.sbatch"))
    assert [path.stem for path in scripts] == ["compile", "evaluate", "label", "train"]
    for path in scripts:
        text = path.read_text()
        asked = re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)
        assert "--requeue" in asked, path.name
        assert "#SBATCH" not in text[text.index("\nset -") :], "SLURM reads none after the first command"
