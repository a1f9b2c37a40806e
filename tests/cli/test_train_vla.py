"""`oxcart sample vlm`, `train vla`, `predict` and `compare`: what they print, write and refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState
from PIL import Image

from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.manifests.ownership import RUN_FILES
from oxcart.manifests.split import SplitRule
from sample_compile import cli, compile_sample, complaint
from tiny_laq import SMALL as SMALL_LAQ
from tiny_laq import alone
from tiny_vla import small, write_codes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sample = RldsSampleConfig(kitchens=3, sessions=1, episodes=2, steps=8, size=32, files=1)
    folder = tmp_path_factory.mktemp("dataset")
    return compile_sample(folder, sample, cameras=("image_0",), rule=SplitRule(val=0.34)).out


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with alone():
        yield


@pytest.mark.system
def test_from_a_sample_to_a_prediction_and_a_table(dataset: Path, tmp_path: Path) -> None:
    vlm, laq, codes = tmp_path / "vlm", tmp_path / "laq", tmp_path / "codes.parquet"
    result = cli("sample", "vlm", vlm)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("wrote a random qwen3-vl of ")
    assert "is not empty; name another one" in complaint(cli("sample", "vlm", vlm))

    given = {text.partition("=")[0]: text for text in (*SMALL_LAQ, "train.steps=2")}
    assert cli("train", "laq", *given.values(), f"data.datasets=[{dataset}]", f"run.dir={laq}").exit_code == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    assert cli("label", dataset, "--laq", laq, "-o", codes, "--quiet").exit_code == 0

    runs = []
    for head in ("tokens", "head"):
        run = tmp_path / head
        more = (f"vla.head={head}", f"data.laq={laq}", "train.steps=2", "val.every=2")
        result = cli("train", "vla", *small(vlm, dataset, codes, run, *more))
        assert result.exit_code == 0, result.output
        assert f"{run}: 2 steps" in result.stdout
        assert "actions right" in result.stdout
        assert f"next: oxcart predict {run} --image FILE --instruction TEXT" in result.stdout
        AcceleratorState._reset_state(reset_partial_state=True)
        runs.append(run)
    first = runs[0]
    figures = {"loss.png", "codes.png", "samples.png"}
    assert figures <= {path.name for path in first.iterdir()} <= RUN_FILES
    assert all(f"![]({name})" in (first / "report.md").read_text() for name in figures)

    result = cli("train", "vla", "--resume", "auto", f"run.dir={first}", "train.steps=3")
    assert result.exit_code == 0, result.output
    assert f"{first}: 3 steps" in result.stdout

    photo = tmp_path / "a.png"
    Image.new("RGB", (50, 70), "red").save(photo)
    asked = ("predict", first, "--image", photo, "--instruction", "push the red block right")
    result = cli(*asked)
    assert result.exit_code == 0, result.output
    shown = result.stdout.splitlines()
    assert shown[0].startswith("codes: ")
    assert len(shown[0].partition(": ")[2].split("-")) == 2
    assert f"drawn: {first}/predicted.png" in result.stdout
    with Image.open(first / "predicted.png") as drawn:
        assert drawn.width > 2 * 128, "the frame, and the next frame"
    assert cli(*asked).stdout == result.stdout, "the same again"
    assert cli("predict", first, "--image", photo, "--instruction", "").exit_code == 0
    photo.write_bytes(b"no image")
    assert "cannot be read as an image" in complaint(cli(*asked))

    compared = tmp_path / "compared.png"
    result = cli("compare", *runs, "-o", compared)
    assert result.exit_code == 0, result.output
    assert "vla.head" in result.stdout.splitlines()[0]
    assert compared.exists()


def test_print_config_shows_every_key_and_trains_nothing(tmp_path: Path) -> None:
    result = cli(
        "train", "vla", "preset=lora", "vla.head=head", f"run.dir={tmp_path / 'run'}", "--print-config"
    )
    assert result.exit_code == 0
    shown = yaml.safe_load(result.stdout)
    assert (shown["vla"]["tune"], shown["vla"]["head"], shown["augment"]["shift"]) == ("lora", "head", 0.0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["preset=tiny"], "model: expected a vision-language model"),
        (["preset=tiny", "model=nobody/nothing"], "data.datasets: expected at least one dataset"),
        (["vla.heads=head"], "vla.heads: no such key; did you mean vla.head?"),
        (["preset=tiny", "data.seconds=1"], "data.seconds: the labels determine the offset"),
        (["augment.shift=-1"], "augment.shift: expected at least 0, got -1"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, given: list[str], said: str) -> None:
    assert said in complaint(cli("train", "vla", *given, f"run.dir={tmp_path / 'run'}"))


def test_a_model_that_is_not_there_is_one_line(dataset: Path, tmp_path: Path) -> None:
    codes = write_codes(dataset, tmp_path / "codes.parquet")
    given = small(Path("nobody/nothing"), dataset, codes, tmp_path / "run")
    assert "'nobody/nothing' is neither a directory nor a model" in complaint(cli("train", "vla", *given))


def test_a_sample_of_another_family_and_impossible_ones(tmp_path: Path) -> None:
    result = cli("sample", "vlm", tmp_path / "smol", "--family", "smolvlm")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "smol" / "config.json").read_text())["model_type"] == "smolvlm"
