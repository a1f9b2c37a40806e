"""Evaluations: three columns of each number, and reasons instead of numbers that there cannot be."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from pages import measure, tables_of
from scipy import stats

from depth import few
from once import Once
from oxcart.cli.evaluate import _text
from oxcart.cli.table import painter
from oxcart.manifests.columns import Column
from oxcart.shards.errors import ConfigError
from oxcart.train.evaluate import strategies
from oxcart.train.evaluate.analysis import (
    SHUFFLES_DECODED,
    TONES,
    Analysis,
    Row,
    Subject,
    Verdict,
    evaluate,
    told,
)
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.report import report_html, report_json, say
from oxcart.train.evaluate.strategy import Better, Context, Number, Skip, Strategy
from oxcart.train.evaluate.subsets import Subset, default_subsets, parse
from oxcart.train.flow import flow_meter
from oxcart.train.statistics import Floats
from planted import context, planted, skipped, with_frames

pytestmark = pytest.mark.system

ABOUT = {
    "run": "runs/<first>",
    "step": 2000,
    "model": "m" * 64,
    "seed": 0,
    "frames": 48,
    "flow": "dis",
    "instructions": "words, not meaning (TF-IDF)",
    "datasets": [
        {
            "name": "left",
            "url": "/left",
            "fingerprint": "f" * 64,
            "pairs": {"train": 360},
            "places": {"seen": 120},
        }
    ],
}


BOTH = "environments are not both seen and held out"


def run(
    pairs: GatheredPairs,
    *names: str,
    untrained: GatheredPairs | None = None,
    quick: bool = False,
    **options: Any,
) -> Analysis:
    meter = flow_meter("dis", None, context().device) if pairs.frames is not None else None
    given = context(meter if callable(meter) else None, quick=quick)
    other = None if untrained is None else Subject(pairs=untrained, context=given)
    chosen = strategies.load(names or strategies.names())
    analysis = evaluate(
        Subject(pairs=pairs, context=given), other, chosen, **{"shuffles": 3, "figures": False, **options}
    )
    return replace(analysis, about=ABOUT)


def rows(analysis: Analysis) -> Mapping[str, Row]:
    return {f"{row.strategy}/{row.number.name}": row for row in analysis.rows()}


@pytest.fixture(scope="module")
def whole(once: Once) -> Analysis:
    """Everything, of codes that mean directions beside codes that mean nothing."""
    trained, untrained = with_frames(planted("direction", places=2)), with_frames(planted("noise", places=2))
    options: dict[str, Any] = {"subsets": default_subsets(trained), "figures": True, "shuffles": 8}
    return once("analysis", lambda folder: run(trained, untrained=untrained, **options))


def test_every_strategy_is_a_file_that_loads() -> None:
    files = {path.stem for path in Path(strategies.__path__[0]).glob("*.py")} - {"__init__"}
    assert set(strategies.load(strategies.names())) == files
    places = [one.place for one in strategies.load(strategies.names()).values()]
    assert places == sorted(places)
    with pytest.raises(ConfigError, match=r"strategies: expected one of codebook, compass, .*; got 'compas'"):
        strategies.check(["compas"], "strategies")


def test_numbers_stand_clear_of_noise_and_of_shuffles(whole: Analysis) -> None:
    found = rows(whole)
    for name in (
        "compass/cosine_datasets",
        "consistency/flow_across_datasets",
        "probe/r2_dx",
        "text/tokens",
    ):
        assert name in found
    for name in ("compass/cosine_environments", "consistency/flow_across_datasets", "probe/r2_dx"):
        row = found[name]
        assert row.verdict == "clear", row
        assert row.null is not None
        assert row.null.low <= row.null.value <= row.null.high < row.number.value
    assert found["text/tokens"].verdict == "not told apart"
    assert found["codebook/perplexity"].verdict == "describes"
    assert found["codebook/perplexity"].null is None


def test_what_counts_is_held_out_and_what_is_seen_stands_beside_it() -> None:
    """Codes that tell directions where the run was trained, and nothing elsewhere."""
    told, noise = planted("direction"), planted("noise")
    learned = (told.place == "seen")[:, None]
    pairs = replace(told, codes=np.where(learned, told.codes, noise.codes))
    analysis = run(pairs, "compass", "probe", untrained=planted("noise", seed=1))
    assert analysis.place == "held out"
    assert {name: one.pairs for name, one in analysis.counts.items()} == {"held out": 480, "seen": 240}
    found = rows(analysis)
    row = found["compass/cosine_environments"]
    assert abs(row.number.value) < 0.5
    assert row.seen is not None
    assert row.seen.value > 0.95
    assert row.verdict == "not told apart"
    assert found["probe/r2_dx"].number.value < 0.05
    assert found["probe/r2_dx"].seen is None, "a probe is fitted on what is seen, so it is not judged there"
    said = json.loads(report_json(analysis))
    assert (said["place"], said["counts"]["seen"]["environments"]) == ("held out", 2)


@pytest.mark.parametrize(
    ("place", "said"),
    [("seen", "Nothing here is held out"), ("unknown", "Nobody knows what is held out here")],
)
def test_nothing_is_judged_where_nothing_is_held_out(place: str, said: str) -> None:
    pairs = planted("direction")
    pairs = replace(pairs, place=np.full(len(pairs), place))
    analysis = run(pairs, "compass", "probe", untrained=planted("noise"))
    assert analysis.place == place
    for row in analysis.rows():
        assert row.verdict in ("not held out", "describes")
        assert row.seen is None
    assert "compass/cosine_held_out" not in rows(analysis)
    assert not [name for name in rows(analysis) if name.startswith("probe/")], (
        "and never fitted on half of it under the same name"
    )
    assert all(name.startswith(f"{place}/") for name in analysis.scalars())
    assert said in report_html(analysis).decode()


def rising(
    drawn: list[GatheredPairs],
    better: Better = "high",
    bounds: Sequence[tuple[float | None, float | None]] = ((None, None),),
    **about: Any,
) -> Strategy:
    """A strategy that notes the pairs that it measures; its bounds are those of the context's seed."""

    def measure(pairs: GatheredPairs, given: Context) -> Iterator[Number | Skip]:
        drawn.append(pairs)
        low, high = bounds[given.seed]
        yield Number(
            name="mean",
            title="mean",
            read=".",
            value=value_of(pairs),
            low=low,
            high=high,
            better=better,
            null_is_best=about.get("null_is_best", False),
        )

    return Strategy(title="rising", about=".", measure=measure, decodes=about.get("decodes", False))


def value_of(pairs: GatheredPairs) -> float:
    return float((pairs.codes[:, 0] * np.arange(len(pairs))).mean())


@pytest.mark.parametrize("decodes", [False, True])
def test_a_null_is_the_range_of_one_more_shuffle(decodes: bool) -> None:
    drawn: list[GatheredPairs] = []
    strategy = rising(drawn, decodes=decodes)
    subject = Subject(pairs=planted("direction"), context=context())
    (row,) = evaluate(subject, None, {"rising": strategy}, figures=False, shuffles=12).rows()
    own, seen, *shuffled = drawn
    assert len(shuffled) == (SHUFFLES_DECODED if decodes else 12)
    assert (own.place == "held out").all()
    assert (seen.place == "seen").all()
    assert row.seen is not None
    assert [row.number.value, row.seen.value] == [value_of(own), value_of(seen)]
    values = np.array([value_of(one) for one in shuffled])
    assert len(set(values.tolist())) == len(values)
    scale = values.std(ddof=1) * math.sqrt(1 + 1 / len(values))
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), scale)
    assert row.null is not None
    assert row.null.value == pytest.approx(values.mean())
    assert (row.null.low, row.null.high) == pytest.approx((low, high), rel=1e-4)


def test_a_null_that_is_best_is_of_episodes_anywhere() -> None:
    """Codes of a dataset stay in it in the one shuffle, and not in the other, which is the null then."""
    drawn: list[GatheredPairs] = []
    pairs = planted("environment")
    pairs = replace(pairs, codes=(pairs.dataset == "left").astype(np.int64)[:, None] + 1)
    subject = Subject(pairs=pairs, context=context())
    strategy = rising(drawn, null_is_best=True)
    (row,) = evaluate(subject, None, {"rising": strategy}, figures=False, shuffles=4).rows()
    within, anywhere = drawn[2::2], drawn[3::2]
    assert all((one.codes == drawn[0].codes).all() for one in within)
    assert not any((one.codes == drawn[0].codes).all() for one in anywhere)
    assert row.null is not None
    assert row.null.value == pytest.approx(np.mean([value_of(one) for one in anywhere]))


@pytest.mark.parametrize(
    ("better", "own", "other", "verdict"),
    [
        ("high", (0.5, 0.7), (0.2, 0.4), "clear"),
        ("high", (0.5, 0.7), (0.4, 0.6), "not told apart"),
        ("high", (0.5, 0.7), (0.55, 0.6), "not told apart"),
        ("high", (0.2, 0.4), (0.5, 0.7), "on the wrong side"),
        ("low", (0.5, 0.7), (0.2, 0.4), "on the wrong side"),
        ("low", (0.2, 0.4), (0.5, 0.7), "clear"),
        ("low", (0.2, 0.6), (0.5, 0.7), "not told apart"),
        ("none", (0.5, 0.7), (0.2, 0.4), "describes"),
    ],
)
def test_a_verdict_compares_bounds_on_the_better_side(
    better: Better, own: tuple[float, float], other: tuple[float, float], verdict: Verdict
) -> None:
    strategy = rising([], better, (own, other))
    trained, untrained = (
        Subject(pairs=planted("direction"), context=replace(context(), seed=seed)) for seed in (0, 1)
    )
    (row,) = evaluate(trained, untrained, {"rising": strategy}, figures=False, shuffles=0).rows()
    assert row.verdict == verdict


def test_pairs_episodes_and_environments_of_a_place_are_counted() -> None:
    counts = run(planted("direction"), "codebook").counts
    found = {name: (one.pairs, one.episodes, one.environments) for name, one in counts.items()}
    assert found == {"held out": (480, 24, 4), "seen": (240, 12, 2)}


def test_what_lies_on_the_wrong_side_is_worse() -> None:
    found = rows(run(planted("noise"), "compass", "disentanglement", untrained=planted("direction")))
    assert found["compass/cosine_environments"].verdict == "on the wrong side"
    assert found["disentanglement/entropy_given_actions"].verdict == "on the wrong side"


def test_the_same_again_is_the_same() -> None:
    one, again = (
        run(with_frames(planted("direction")), "compass", "transfer", figures=True) for _ in range(2)
    )
    assert report_json(again) == report_json(one)
    assert report_html(again) == report_html(one)


def test_the_page_holds_all_and_the_json_the_same(whole: Analysis) -> None:
    page, plain = report_html(whole).decode(), json.loads(report_json(whole))
    assert "runs/&lt;first&gt;" in page, "what a run is called is text"
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert page.count('src="data:image/png;base64,') == sum(len(one.figures) for one in whole.sections)
    numbers = {f"{one['strategy']}/{one['name']}": one for one in plain["numbers"]}
    assert numbers.keys() == rows(whole).keys()
    for one in numbers.values():
        assert one["title"] in page
        assert one["read"].endswith(".")
    assert numbers["compass/cosine_datasets"]["untrained"]["value"] < 0.5
    over = {name: (numbers[name]["over"], numbers[name]["clusters"]) for name in numbers}
    assert over["compass/cosine_environments"] == ("episodes", 24), "four kitchens are held out"
    assert over["compass/cosine_held_out"] == ("episodes", 36)
    assert over["probe/r2_dx"] == ("episodes", 24)
    assert "over 24 episodes, of these environments alone<" in page
    alone = sum(row.number.over == "episodes" for row in whole.rows() if row.number.better != "none")
    assert re.search(rf"<li>{alone} of \d+ numbers are of these environments alone: .* fewer than 5", page)
    assert [one["name"] for one in plain["subsets"]] == ["left", "right"]
    assert any(one["title"] == "Motion of each token" for one in plain["tables"])


def test_cells_name_their_column_since_a_narrow_page_shows_no_header(whole: Analysis) -> None:
    tables = tables_of(report_html(whole).decode())
    titles = {section.title for section in whole.sections}
    assert len(tables) > 3
    for table in tables:
        assert "cards" in table["class"]
        header = [name for name in table["header"] if name not in titles]
        rows = [row for row in table["rows"][1:] if row]
        assert rows
        for row in rows:
            named = list(zip(header, row, strict=True))
            assert all(column == name for name, column in named[1:] if name), named


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 500])
def test_on_a_telephone_no_column_is_off_the_page(
    whole: Analysis, width: int, browser: list[str], tmp_path: Path
) -> None:
    page = report_html(whole).decode()
    measured = measure(page, width, browser, tmp_path, cells="table:first-of-type td[data-column]")
    assert measured["page"] == width
    assert measured["tables"] <= width
    assert measured["scrolls"] == 0
    assert measured["cells"] >= 88


def test_a_verdict_has_one_word_in_the_page_the_json_the_terminal_and_the_docs(whole: Analysis) -> None:
    judged = [replace(row, verdict=word) for row, word in zip(whole.rows(), TONES, strict=False)]
    section = replace(
        whole.sections[0],
        rows=[replace(row, number=replace(row.number, better="high")) for row in judged],
    )
    analysis = replace(whole, sections=[section], subsets=[])
    page = report_html(analysis).decode()
    terminal = _text(analysis, None, 120)
    docs = (Path(strategies.__file__).parents[3] / "docs/analysis.md").read_text()
    assert [one["verdict"] for one in json.loads(report_json(analysis))["numbers"]] == list(TONES)
    for word, tone in TONES.items():
        assert f'<span class="status {tone}">{word}</span>' in page
        assert f"  {painter(TONES)(word.ljust(len('on the wrong side')))}  " in terminal
        assert f"| *{word}* |" in docs


def test_lines_of_the_terminal_have_at_most_120_characters(whole: Analysis) -> None:
    lines = click.unstyle(_text(whole, None, 120)).splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[0].split()[:4] == ["number", "verdict", "held", "out"]
    assert max(map(len, click.unstyle(_text(whole, None, 60)).splitlines())) <= 60


def test_the_summary_names_the_action_values_that_codes_tell() -> None:
    pairs = planted("direction")
    assert pairs.actions is not None
    noise = np.random.default_rng(5).normal(size=len(pairs))
    x, y = pairs.actions.T
    actions = np.stack([x, noise, np.full(len(pairs), 0.5), y, noise[::-1]], 1)
    names = ("dx", "arm/move[1]", "still", "dy", "stop")
    columns = tuple(Column(name=name, kind="delta") for name in names)
    seen = replace(pairs, actions=actions, columns=columns)
    seen = replace(seen, features=np.column_stack([pairs.features, y]).astype(np.float32))
    analysis = run(seen, "compass", "probe", shuffles=20)
    assert told(analysis.rows()) == (["dx"], ["arm/move[1]", "dy", "stop"]), "the frame tells dy"
    plain = json.loads(report_json(analysis))
    assert plain["actions"] == {"told": ["dx"], "not_told": ["arm/move[1]", "dy", "stop"]}
    page = report_html(analysis).decode()
    assert re.search(r"codes tell dx \(R2 0\.\d+\)</li>", page)
    assert re.search(
        r"it is not shown that codes tell arm/move\[1\] \(R2 -?0\.0\d+\), dy \(R2 0\.\d+\), stop", page
    )
    assert "A code means the same elsewhere, but tells 1 of 4 action values" in page
    assert "R2 of still from codes: skipped, because it never varies" in page
    assert "probe/r2_arm_move_1" in rows(analysis)


def test_codes_that_tell_every_value_need_no_but_and_noise_tells_none() -> None:
    page = report_html(run(planted("direction"), "compass", "probe", shuffles=20)).decode()
    assert "<h1>A code means the same elsewhere: arrows " in page
    assert told(run(planted("noise"), "probe").rows()) == ([], ["dx", "dy"])
    few_episodes = planted("direction").take(np.arange(60))
    assert told(run(few_episodes, "probe").rows())[0] == [], "without an interval nothing is told"


def _either() -> Floats:
    """Actions of which each dataset has another column."""
    pairs = planted("direction")
    assert pairs.actions is not None
    lacks = np.stack([pairs.dataset == "left", pairs.dataset == "right"], 1)
    return np.where(lacks, np.nan, pairs.actions)


BAD: dict[str, tuple[Any, str, str]] = {
    "no actions": (
        {"actions": None, "missing": {"actions": "no dataset has actions"}},
        "compass",
        "no dataset has actions",
    ),
    "other sizes": (
        {"actions": None, "missing": {"actions": "no dataset has actions of known kind"}},
        "probe",
        "no dataset has actions of known kind",
    ),
    "one dataset": ({"dataset": np.full(720, "only")}, "compass", "there is one dataset, only"),
    "no environment": ({"environment": np.full(720, "")}, "compass", "of environments none is known"),
    "one token": ({"codes": np.zeros((720, 1), np.int64)}, "flow_tokens", "all pairs have the same codes"),
    "no flow": (
        {"flow": None, "missing": {"flow": "optical flow needs OpenCV"}},
        "flow_tokens",
        "needs OpenCV",
    ),
    "no instruction": ({"instruction": np.full(720, "")}, "text", "no pair has an instruction"),
    "one instruction": ({"instruction": np.full(720, "go")}, "text", "all pairs have one instruction, 'go'"),
    "no words": ({"instruction": np.array(["?", "!"] * 360)}, "text", "instructions hold no words"),
    "motionless": (
        {"flow": np.zeros((720, 3, 2)), "actions": np.zeros((720, 2))},
        "flow_tokens",
        "hardly any pair moves",
    ),
    "no motion": (
        {"columns": (Column(name="joint_0", kind="delta"), Column(name="joint_1", kind="delta"))},
        "compass",
        "no dataset has a motion",
    ),
    "nothing in common": (
        {"actions": _either()},
        "consistency",
        "datasets have no column of actions in common",
    ),
    "nothing done": ({"actions": np.zeros((720, 2))}, "probe", "it never varies"),
    "one place": ({}, "permutation", "a latent action is one token, which has no order"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_measured_is_skipped_with_the_reason(name: str) -> None:
    changes, strategy, reason = BAD[name]
    analysis = run(with_frames(replace(planted("direction"), **changes)), strategy, quick=True)
    said = [skip.because for section in analysis.sections for skip in section.skips]
    assert any(reason in one for one in said), said
    assert reason in report_html(analysis).decode().replace("&#39;", "'")


@pytest.mark.parametrize("name", few(BAD, "no actions", "one token", "motionless", "one instruction"))
def test_no_number_is_ever_nan(name: str) -> None:
    changes, _, _ = BAD[name]
    pairs = with_frames(replace(planted("direction"), **changes))
    plain = report_json(run(pairs, quick=True, shuffles=1, subsets=default_subsets(pairs))).decode()
    assert "NaN" not in plain
    assert "Infinity" not in plain


@pytest.mark.parametrize(
    "name", few(["no actions", "no environment", "motionless", "nothing done"], "no actions")
)
def test_what_is_lacking_is_not_drawn(name: str) -> None:
    changes, _, _ = BAD[name]
    pairs = with_frames(replace(planted("direction"), **changes))
    page = report_html(run(pairs, quick=True, shuffles=0, figures=True)).decode()
    assert page.count('src="data:image/png;base64,') > 1


def test_names_are_drawn_as_they_are() -> None:
    pairs = planted("direction")
    pairs = replace(pairs, environment=np.char.add(pairs.environment, "$x_$ $5 #fail"))
    analysis = run(pairs, "compass", "disentanglement", figures=True, shuffles=0)
    assert sum(len(section.figures) for section in analysis.sections) == 4


def test_codes_that_are_alike_within_an_episode_for_no_reason_tell_nothing() -> None:
    """Motions of an episode are alike, and so are its codes, but codes have nothing to do with motions."""
    generator = np.random.default_rng(3)
    pairs = planted("noise", seed=3)
    number = int(pairs.episodes.max()) + 1
    way = generator.integers(0, 8, number)[pairs.episodes]
    moved = generator.random(len(pairs)) < 0.6
    angle = np.where(moved, way, generator.integers(0, 8, len(pairs))) * np.pi / 4
    motion = np.stack([np.cos(angle), np.sin(angle)], 1)
    codes = generator.integers(0, 8, number)[pairs.episodes][:, None]
    sticky = replace(pairs, codes=codes, actions=motion, flow=np.repeat(4 * motion[:, None], 3, 1))
    found = rows(run(sticky, "flow_tokens", "disentanglement", "consistency", shuffles=20))
    judged = [row for row in found.values() if row.number.better != "none" and not row.number.null_is_best]
    assert len(judged) >= 5
    assert {row.verdict for row in judged} <= {"not told apart", "on the wrong side"}, [
        (row.number.name, row.number.value, row.null) for row in judged
    ]


def test_what_a_place_tells_is_not_measured_where_no_two_episodes_share_one() -> None:
    pairs = planted("environment")
    alone = replace(pairs, environment=np.char.add("channel of ", pairs.key))
    assert "disentanglement/about_environment" not in rows(run(alone, "disentanglement"))


@pytest.mark.system
def test_datasets_without_actions_leave_the_others_theirs() -> None:
    pairs = planted("direction")
    assert pairs.actions is not None
    half = np.where((pairs.dataset == "left")[:, None], pairs.actions, np.nan)
    given = with_frames(replace(pairs, actions=half))
    analysis = run(given, quick=True, shuffles=1, figures=True, subsets=default_subsets(given))
    assert [part.subset.name for part in analysis.subsets] == ["left", "right"]
    assert ("compass", "cosine_environments") not in analysis.subsets[1].numbers
    assert rows(analysis)["compass/cosine_environments"].number.value > 0.98
    assert "compass/cosine_datasets" not in rows(analysis)
    assert all(math.isfinite(row.number.value) for row in analysis.rows())


def test_two_episodes_give_numbers_without_intervals() -> None:
    pairs = planted("direction")
    alone = pairs.take(np.isin(pairs.key, ["episode0", "episode1"]))
    alone = replace(alone, place=np.full(len(alone), "held out"))
    for row in run(alone, "flow_tokens", "codebook").rows():
        assert row.verdict in ("not told apart", "describes")
    (section,) = run(alone.take(np.arange(20)), "flow_tokens").sections
    assert [skip.because for skip in section.skips] == ["20 pairs are too few; at least 24 are needed"]


def test_a_kind_is_skipped_by_name() -> None:
    pairs = replace(planted("direction"), dataset=np.full(720, "only"))
    assert skipped("compass", pairs) == {
        "arrows of held-out environments agree with those seen": BOTH,
        "between datasets": "there is one dataset, only",
    }


def test_buckets_are_small_rules() -> None:
    pairs = planted("direction")
    text = (
        "left: dataset=left\nnew: [held out, 'environment~kitchen[235]']\nnot red: instruction!~red\n"
        "old: seen"
    )
    found = {one.name: one.mask(pairs) for one in parse(text, "subsets.yaml")}
    assert (found["left"] == (pairs.dataset == "left")).all()
    assert set(pairs.environment[found["new"]]) == {"kitchen2", "kitchen5"}
    assert not (pairs.instruction[found["not red"]] == "push red block").any()
    assert (found["old"] == (pairs.place == "seen")).all()
    analysis = run(pairs, "compass", subsets=parse(text, "subsets.yaml"))
    left = analysis.subsets[0]
    assert (left.pairs, left.place, left.subset.name) == (240, "held out", "left")
    assert (analysis.subsets[3].pairs, analysis.subsets[3].place) == (240, "seen")
    assert left.numbers["compass", "cosine_environments"].value > 0.98


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "subsets.yaml: expected lines such as"),
        ("a: [", "subsets.yaml: not YAML"),
        ("a: {b: c}", "subsets.yaml: a: expected a rule"),
        ("a: robot=panda", "subsets.yaml: subset 'a': expected rules such as dataset=bridge"),
        ("a: environment~[", "not a regular expression"),
    ],
)
def test_mistakes_in_buckets_are_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "subsets.yaml")
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_empty_bucket_is_an_error() -> None:
    with pytest.raises(ConfigError, match="subset 'none': no pair of dataset=other"):
        run(planted("direction"), "compass", subsets=[Subset("none", ("dataset=other",))])


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.8349, "0.835"), (-0.00002, "0.000"), (90.0, "90.0"), (1234.5, "1,234"), (0, "0.00")],
)
def test_numbers_have_three_digits(value: float, said: str) -> None:
    assert say(value) == said


def test_a_number_says_which_way_is_better(whole: Analysis) -> None:
    assert all(isinstance(row.number, Number) for row in whole.rows())
    assert rows(whole)["transfer/angle_across_datasets"].number.better == "low"
    assert rows(whole)["disentanglement/about_dataset"].number.null_is_best
