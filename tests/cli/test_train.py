"""`oxcart train laq` and `oxcart label`: what they print, and what they answer to mistakes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState
from lapa_files import SMALL_LAPA, write_lapa

from oxcart.cli.train import LAQ_COLUMNS, _summary
from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.manifests.annotation import read_annotation
from oxcart.manifests.ownership import RUN_FILES
from oxcart.manifests.split import SplitRule
from oxcart.train.laq.config import laq_config
from sample_compile import cli, compile_sample, complaint
from tiny_laq import SMALL, alone


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sample = RldsSampleConfig(kitchens=3, sessions=1, episodes=2, steps=8, size=32, files=1)
    folder = tmp_path_factory.mktemp("dataset")
    return compile_sample(folder, sample, cameras=("image_0",), rule=SplitRule(val=0.34)).out


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


def arguments(dataset: Path, run: Path, *more: str) -> list[str]:
    given = {text.partition("=")[0]: text for text in (*SMALL, "val.every=2", "train.steps=2", *more)}
    return ["train", "laq", *given.values(), f"data.datasets=[{dataset}]", f"run.dir={run}"]


def test_train_resume_and_label(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = cli(*arguments(dataset, run))
    assert result.exit_code == 0, result.output
    assert f"{run}: 2 steps" in result.stdout
    assert "R2 codes -> action" in result.stdout
    assert f"next: oxcart label {dataset} --laq {run} -o codes.parquet" in result.stdout
    assert "holds a run; pass --resume auto" in complaint(cli(*arguments(dataset, run)))
    AcceleratorState._reset_state(reset_partial_state=True)
    result = cli("train", "laq", "--resume", "auto", f"run.dir={run}", "train.steps=3")
    assert result.exit_code == 0, result.output
    assert f"{run}: 3 steps" in result.stdout
    assert {path.name for path in run.iterdir()} <= RUN_FILES
    codes = tmp_path / "codes.parquet"
    result = cli("label", dataset, "--laq", run, "-o", codes, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{codes}: codes of ")
    assert read_annotation(str(codes)).parameters["step"] == 3


def test_a_published_checkpoint_becomes_a_run_that_labels(dataset: Path, tmp_path: Path) -> None:
    file, run, codes = tmp_path / "laq.pt", tmp_path / "run", tmp_path / "codes.parquet"
    given = [*SMALL_LAPA, f"run.dir={run}"]
    write_lapa(file, laq_config(["preset=lapa", *given]))
    assert "lapa has no stem" in complaint(cli("import", "laq", file, *given, "model.stem=conv"))
    result = cli("import", "laq", file, "--preset", "lapa", *given)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{run}: ")
    assert f"next: oxcart label DATASET --laq {run} -o codes.parquet" in result.stdout
    assert {path.name for path in run.iterdir()} <= RUN_FILES
    result = cli("label", dataset, "--laq", run, "-o", codes, "--quiet", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert read_annotation(str(codes)).parameters["tokens"] == 4


def test_print_config_shows_every_key_and_trains_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = cli("train", "laq", "preset=tiny", "train.steps=7", f"run.dir={run}", "--print-config")
    assert result.exit_code == 0
    shown = yaml.safe_load(result.stdout)
    assert (shown["preset"], shown["train"]["steps"], shown["model"]["image_size"]) == ("tiny", 7, 64)
    assert not run.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["train.step=1"], "train.step: no such key; did you mean train.steps?"),
        (["preset=huge"], "preset: expected one of flow, lapa, large, tiny, wide"),
        (["preset=tiny"], "data.datasets: expected at least one dataset"),
        (
            ["preset=tiny", "data.datasets=[/nowhere]"],
            "/nowhere: no manifest.json, so not a compiled dataset",
        ),
        (["preset=tiny", "model.image_size=60"], "model.image_size: expected a multiple of model.patch 8"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, given: list[str], said: str) -> None:
    assert complaint(cli("train", "laq", *given, f"run.dir={tmp_path / 'run'}")).startswith(said)


def test_a_label_without_a_run_says_how_to_get_one(dataset: Path, tmp_path: Path) -> None:
    said = complaint(cli("label", dataset, "--laq", tmp_path / "none", "-o", tmp_path / "codes.parquet"))
    assert said.startswith(f"{tmp_path / 'none'}: there is no checkpoint last; train first")


def test_the_last_metrics_are_a_row_each_and_fit_a_terminal() -> None:
    metrics = {f"{split}/{name}": 0.12345 for split in ("val", "val_seen") for name in LAQ_COLUMNS}
    lines = _summary(metrics, ["val", "val_seen", "test"], LAQ_COLUMNS).splitlines()
    assert lines[0].split() == ["metric", "val", "val_seen"]
    assert [line.split("  ")[0] for line in lines[2:]] == list(LAQ_COLUMNS.values())
    assert all(line.endswith("  0.123  0.123") for line in lines[2:])
    assert max(map(len, lines)) <= 60
    assert _summary({}, ["val"], LAQ_COLUMNS) == "not validated"


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from oxcart.cli.main import main; sys.argv[1:] = ['train', 'laq', '--help']\n"
        "try: main()\n"
        "except SystemExit: print('MODULES', *sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = {name.partition(".")[0] for name in run.stdout.rpartition("MODULES")[2].split()}
    assert not modules & {"torch", "accelerate", "omegaconf", "numpy"}


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *given: None if name == "accelerate" else original(name, *given),
    )
    said = complaint(cli("train", "laq", "preset=tiny"))
    assert said == "this command needs accelerate, not installed: pip install -c constraints.txt '.[train]'"
