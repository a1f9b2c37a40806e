"""`oxcart rollout` and `serve` from end to end, with planted policies."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import expert_adapter
import pytest
import torch
from pages import measure, tables_of

from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.manifests.split import SplitRule
from oxcart.train.checkpoint import CheckpointWriter
from oxcart.train.data import Loader, Pairs
from oxcart.train.trained_on import TrainedOn
from planted_policies import LINE, load_planted
from sample_compile import cli, compile_sample, complaint

EXPERT = Path(expert_adapter.__file__)


def plant(patch: pytest.MonkeyPatch) -> None:
    """Let the command open planted policies."""
    module: Any = ModuleType("oxcart.train.policy.controller")
    module.load_policy = load_planted
    patch.setitem(sys.modules, "oxcart.train.policy", ModuleType("oxcart.train.policy"))
    patch.setitem(sys.modules, "oxcart.train.policy.controller", module)


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose policy does what the expert says, trained in four kitchens of five."""
    folder = tmp_path_factory.mktemp("rollout")
    sample = RldsSampleConfig(kitchens=5, sessions=1, episodes=1, steps=4, size=32, files=1)
    made = compile_sample(folder / "data", sample, rule=SplitRule(val=("toysink1",)))
    run = folder / "run"
    run.mkdir()
    (run / "config.yaml").write_text(json.dumps({"data": {"datasets": [str(made.out)]}}))
    (run / "rule").write_text("state")
    loader = Loader(str(made.out), "train", sample=Pairs(frames=1), batch_size=1)
    state = {"trained_on": TrainedOn.of(loader).plain()}
    CheckpointWriter(run).save(1, {"model/x": torch.zeros(1)}, state)
    return run


def roll(run: Path, *options: object) -> Any:
    return cli("rollout", run, "--env", "kitchens", "--workers", 1, *options)


def test_seen_and_held_out_kitchens_stand_in_one_table(run: Path, tmp_path: Path) -> None:
    files = ("-o", tmp_path / "page.html", "--json", tmp_path / "rollout.json", "--film", tmp_path / "films")
    options = ("--split", "val", "--split", "train", "--episodes", 5, "--adapter", EXPERT)
    result = roll(run, *options, *files)
    assert result.exit_code == 0, result.output
    assert "held out  100.0%" in result.stdout
    assert "seen      100.0%" in result.stdout
    assert f"report: {tmp_path / 'page.html'}" in result.stdout
    found = json.loads((tmp_path / "rollout.json").read_text())
    assert [one["name"] for one in found["places"]] == ["held out", "seen"]
    assert {one["environment"] for one in found["episodes"] if one["place"] == "held out"} == {"toysink1"}
    assert len({one["environment"] for one in found["episodes"] if one["place"] == "seen"}) == 4
    assert all(one["success"] for one in found["episodes"])
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "config.yaml", "rule"]
    films = sorted((tmp_path / "films").iterdir())
    assert [path.name for path in films] == sorted(one["film"] for one in found["episodes"])
    with av.open(films[0]) as film:
        assert (film.streams.video[0].width, film.streams.video[0].average_rate) == (32, 10)
    page = (tmp_path / "page.html").read_text()
    assert "100% success in environments never seen" in page
    assert f'href="films/{found["episodes"][0]["film"]}"' in page
    again = roll(run, *options, "--json", tmp_path / "again.json", "--quiet")
    assert (again.exit_code, again.output) == (0, "")
    repeated = json.loads((tmp_path / "again.json").read_text())
    for one, other in zip(found["episodes"], repeated["episodes"], strict=True):
        assert one == {**other, "film": one["film"]}


@pytest.mark.system
def test_the_json_is_the_same_with_any_number_of_workers(run: Path, tmp_path: Path) -> None:
    found = []
    for workers in (1, 2):
        target = tmp_path / f"{workers}.json"
        command = ("rollout", run, "--env", "kitchens", "--workers", workers, "--episodes", 20, "--quiet")
        assert cli(*command, "--adapter", EXPERT, "--json", target).exit_code == 0
        found.append({**json.loads(target.read_text()), "timing": None})
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def failing(run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a policy that acts at random."""
    folder = tmp_path_factory.mktemp("failing")
    other = folder / "run <b>"
    other.mkdir()
    (other / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    (other / "rule").write_text("random")
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        result = roll(other, "--split", "train", "--episodes", 8, "-o", folder / "page.html")
    assert result.exit_code == 0, result.output
    assert "of these environments alone" in result.stdout
    return (folder / "page.html").read_text()


def test_a_page_shows_what_failed_and_runs_nothing(failing: str) -> None:
    assert "<h2>Failures</h2>" in failing
    assert failing.count("data:image/jpeg;base64,") >= 8
    assert "<script" not in failing
    assert "run &lt;b&gt;" in failing
    assert "href=" not in failing, "there are no films"
    assert "4 are fewer than 5" in failing
    first, second, *_ = tables_of(failing)
    assert first["header"][0] == "Task"
    assert second["header"][0] == "Environment"
    assert len([row for row in second["rows"] if len(row) == 7 and row[1] == "Place"]) == 4


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1200])
def test_a_page_fits_the_screen(failing: str, width: int, browser: list[str], tmp_path: Path) -> None:
    found = measure(failing, width, browser, tmp_path, cells="td")
    assert found["page"] == width
    assert found["scrolls"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--split", "vall"), "--split: .* has no environments in 'vall'; expected one of train, val"),
        (("--env-option", "size"), "--env-option: expected KEY=VALUE, got 'size'"),
        (
            ("--env-option", "hight=3"),
            "--env-option: .*Kitchens-v0' does not take these: .*hight",
        ),
        (
            ("--env-option", "size=64"),
            "the policy sees 'image_0' in 32x32 pixels, and .* 64x64",
        ),
        (("--env", "oxcart/Kitchen-v7"), "--env: 'oxcart/Kitchen-v7' is not there: "),
        (("--env", "nothing:Here-v0"), "--env: 'nothing:Here-v0' is not there: "),
        (
            ("--env", "CartPole-v1"),
            r"'CartPole-v1' has no pixels in its observations \(ndarray \(4,\)\)",
        ),
        (("--env", LINE), "cameras: the policy sees 'image_0' in 32x32 pixels, and .* shows 8x12"),
        (("--dataset", "none"), "none: no manifest.json"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(run: Path, options: tuple[str, ...], said: str) -> None:
    message = complaint(roll(run, *options))
    assert re.search(said, message), message


def test_films_are_not_written_into_a_dataset(run: Path) -> None:
    dataset = run.parent / "data" / "out"
    for folder in (dataset, dataset / "shards"):
        assert f"{str(dataset)!r}, which no command changes" in complaint(roll(run, "--film", folder))


def test_a_run_without_a_policy_or_a_dataset_is_refused(tmp_path: Path) -> None:
    assert "has no policy; train one with" in complaint(roll(tmp_path, "--dataset", "x", "--env", LINE))
    (tmp_path / "rule").write_text("state")
    assert "does not say what it was trained on; name the dataset" in complaint(roll(tmp_path))
