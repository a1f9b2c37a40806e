"""`oxcart evaluate laq` and evaluation in training, from end to end on a tiny run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from depth import few
from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.manifests.split import SplitRule
from sample_compile import cli, compile_sample, complaint
from tiny_laq import alone, lines, trained

FEW = "compass,codebook,transfer,flow_tokens,probe"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sample = RldsSampleConfig(kitchens=5, sessions=1, episodes=3, steps=12, size=32, files=1)
    folder = tmp_path_factory.mktemp("dataset")
    return compile_sample(folder, sample, cameras=("image_0",), rule=SplitRule(val=0.4)).out


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluated at its second and at its last validation."""
    made = tmp_path_factory.mktemp("run") / "run"
    options = ("evaluate.strategies=[codebook,flow_tokens]", "evaluate.every=2", "evaluate.samples=30")
    with alone():
        # Codes stay spread out as they begin.
        trained(made, dataset, "train.steps=5", "val.every=2", "train.lr=1e-5", *options)
    return made


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


@pytest.mark.parametrize("names", few([["one"], ["one", "again"]], ["one"]), ids=["once", "twice"])
def test_a_page_and_the_same_numbers_as_json(
    run: Path, dataset: Path, tmp_path: Path, names: list[str]
) -> None:
    pages = []
    for name in names:
        page, plain = tmp_path / f"{name}.html", tmp_path / f"{name}.json"
        options = ("--strategies", FEW, "--samples", 40, "--frames", 24)
        result = cli("evaluate", "laq", run, dataset, "-o", page, "--json", plain, *options)
        assert result.exit_code == 0, result.output
        assert (
            "compass: between datasets: skipped, because there is one dataset, oxcart_kitchens"
            in " ".join(result.stdout.split())
        )
        assert f"report: {page}" in result.stdout
        assert "reading: " in result.stderr
        pages.append(plain.read_bytes())
        assert page.read_text().startswith("<!doctype html>")
    assert set(pages) == {pages[0]}
    found = json.loads(pages[0])
    assert found["format"] == "oxcart-analysis/3"
    assert found["about"]["step"] == 5
    assert found["about"]["instructions"] == "words, not meaning (TF-IDF)"
    assert found["about"]["datasets"][0]["pairs"].keys() == {"train", "val"}
    assert {one["strategy"] for one in found["numbers"]} >= {"compass", "codebook", "transfer"}
    for one in found["numbers"]:
        assert one["untrained"] is not None, one["name"]
    assert found["place"] == "held out"
    assert found["counts"].keys() == {"held out", "seen"}
    assert found["about"]["datasets"][0]["places"].keys() == {"held out", "seen"}
    assert found["subsets"] == []


@pytest.mark.system
def test_a_split_that_is_made_anew_holds_out_nothing_that_the_run_has_not_seen(
    run: Path, dataset: Path, tmp_path: Path
) -> None:
    """The kitchens of the new val were trained on, so the new split says nothing of new places."""
    places = json.loads((dataset / "manifest.json").read_text())["environments"]
    trained_on = [place["name"] for place in places if "train" in place["splits"]]
    again = tmp_path / "again"
    rule = tmp_path / "rule.yaml"
    rule.write_text(f"val: [{trained_on[0]}, {trained_on[1]}]\n")
    options = ("--split", rule, "--camera", "image_0", "--quiet")
    assert cli("compile", dataset.parent / "oxcart_kitchens" / "1.0.0", again, *options).exit_code == 0
    plain = tmp_path / "again.json"
    given = ("--json", plain, "--strategies", "compass,probe", "--samples", 60)
    result = cli("evaluate", "laq", run, again, *given)
    assert result.exit_code == 0, result.output
    found = json.loads(plain.read_text())
    assert found["about"]["datasets"][0]["pairs"].keys() == {"train", "val"}
    of_val = json.loads((again / "manifest.json").read_text())["splits"]["val"]["episodes"]
    assert of_val == 6
    assert found["counts"]["seen"]["environments"] == 3, "whatever their split is called"
    assert found["counts"]["held out"]["environments"] == 2


def test_training_measures_every_so_many_validations_and_at_the_end(run: Path) -> None:
    measured = {line["step"]: "evaluate/codebook/perplexity" in line for line in lines(run, "val")}
    assert measured == {2: False, 4: True, 5: True}
    last = lines(run, "val")[-1]
    found = json.loads((run / "analysis.json").read_text())
    numbers = {f"{one['strategy']}/{one['name']}": one["value"] for one in found["numbers"]}
    assert numbers == pytest.approx(
        {name.removeprefix("evaluate/"): last[name] for name in last if name.startswith("evaluate/")},
        rel=1e-5,
    )
    assert found["about"]["step"] == 5
    assert all(one["untrained"] is not None for one in found["numbers"])
    assert "codebook" in (run / "analysis.html").read_text()
    assert "utilisation" not in (run / "report.md").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--strategies", "compas"], "--strategies: expected one of codebook, compass,"),
        (
            ["--checkpoint", "/none"],
            "/none: there is no such checkpoint",
        ),
        (["--text-model", "/none"], "text_model: expected a directory with a text encoder of transformers"),
        (["--text-model", "/none", "--strategies", "compass"], "text_model: only the strategy text"),
        (["--json", "/dev/null/a.json"], "--json: '/dev/null/a.json' cannot be written"),
    ],
)
def test_mistakes_are_one_line(run: Path, dataset: Path, options: list[str], said: str) -> None:
    assert complaint(cli("evaluate", "laq", run, dataset, *options)).startswith(said)


def test_mistakes_of_subsets_and_datasets_are_one_line(run: Path, dataset: Path, tmp_path: Path) -> None:
    rules = tmp_path / "subsets.yaml"
    rules.write_text("a: robot=panda")
    said = complaint(cli("evaluate", "laq", run, dataset, "--subsets", rules))
    assert said.startswith(f"{rules}: subset 'a': expected rules such as dataset=bridge")
    assert "no manifest.json" in complaint(cli("evaluate", "laq", run, tmp_path))
    assert "one is given twice" in complaint(cli("evaluate", "laq", run, dataset, dataset))


def test_a_configuration_with_an_unknown_strategy_is_refused(dataset: Path, tmp_path: Path) -> None:
    options = [f"data.datasets=[{dataset}]", f"run.dir={tmp_path}", "evaluate.strategies=[arrows]"]
    said = complaint(cli("train", "laq", "preset=tiny", *options))
    assert said.startswith("evaluate.strategies: expected one of codebook, compass,")
