"""One kitchen under two names is ranked first; the copy-ahead ratio tells the two kinds of split apart."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from audited import SAMPLE, audited, check, set_path, status
from oxcart.compile.sample.kitchen import kitchen_names
from oxcart.manifests.audit import place
from oxcart.manifests.audit.audit import Audit
from oxcart.manifests.audit.episodes import AuditedEpisode
from oxcart.manifests.audit.place import check_places
from oxcart.manifests.audit.report import report_html
from oxcart.manifests.split import SplitRule, read_rule
from sample_compile import FIRST, SECOND, compiled, edited, examples


@pytest.fixture(scope="module")
def annexed(kitchens: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Audit]:
    """The second session of a kitchen is called `annex` and held out; the audit of it."""
    kitchen = kitchen_names(SAMPLE.kitchens)[1]
    names = [FIRST, SECOND, "oxcart_kitchens-val.tfrecord-00000-of-00001"]

    def is_second(feature: dict[str, object]) -> bool:
        path = feature["episode_metadata/file_path"].bytes_list.value[0].decode()  # type: ignore[attr-defined]
        return f"/{kitchen}/" in path and "/01/" in path

    where = [
        (name, i)
        for name in names
        for i, example in enumerate(examples(kitchens / name))
        if is_second(example.features.feature)
    ]
    assert where
    folder = tmp_path_factory.mktemp("annexed")
    edit = set_path(lambda path: path.replace(f"/{kitchen}/", "/annex/"))
    source = edited(kitchens, folder / "source", edit, *where)
    compiled(source, folder / "out", rule=SplitRule(val=("annex",)))
    return kitchen, audited(folder / "out")


def test_one_kitchen_under_two_names_comes_first(annexed: tuple[str, Audit]) -> None:
    kitchen, found = annexed
    assert found.places is not None
    first = found.places.ranking[0]
    assert (first["held out"], first["train"]) == ("annex", kitchen)
    assert status(found, "places") == "suspicious"
    assert first["twin"]
    assert first["score"] > found.places.ranking[1]["score"] + 0.1
    assert status(found, "environments") == "passed", "the names tell nothing"
    assert found.images.places[0].held.environment == "annex"
    assert found.images.places[0].suspect


def test_a_twin_is_never_called_clean_and_the_line_that_joins_it_is_ready(
    annexed: tuple[str, Audit], tmp_path: Path
) -> None:
    kitchen, found = annexed
    assert found.verdict.word == "suspicious"
    assert f"annex looks like {kitchen}" in found.verdict.because[0]
    (advice,) = (sentence for sentence in found.verdict.because if sentence.startswith("to settle it"))
    line = re.search(r"aliases: \{.*?\}", advice)
    assert line is not None
    (tmp_path / "rule.yaml").write_text(f"val: 0.2\n{line[0]}\n")
    assert read_rule(tmp_path / "rule.yaml").aliases == {kitchen: ("annex",)}
    page = report_html(found).decode()
    assert "Suspicious: what is held out may be a place that train has seen" in page
    assert '<section class="verdict odd">' in page
    assert '<article class="pair odd">' in page
    assert f"annex toward {kitchen}: " in page


def test_kitchens_apart_are_not_one_place(clean_audit: Audit) -> None:
    assert status(clean_audit, "places") == "passed"
    assert clean_audit.places is not None
    assert len(clean_audit.places.names) == SAMPLE.kitchens
    assert clean_audit.places.held == (True, *[False] * (SAMPLE.kitchens - 1))


def pictures(number: int) -> np.ndarray:
    """Thumbnails [number, 4, 24, 24, 3] of places apart, the same in every frame."""
    rng = np.random.default_rng(7)
    return np.repeat(rng.integers(0, 256, (number, 1, 24, 24, 3), np.uint8), 4, axis=1)


def episodes_of(places: list[int], held: int) -> tuple[list[AuditedEpisode], list[str], np.ndarray]:
    rows = [{"split": "train", "environment": f"place {place}"} for place in places]
    episodes = [AuditedEpisode(0, row, place) for row, place in zip(rows, places, strict=True)]
    out = np.arange(len(places)) >= len(places) - held
    return episodes, [f"place {place}" for place in places], out


def test_only_episodes_that_show_something_stand_for_their_place() -> None:
    thumbs = pictures(5)[[0, 1, 2, 3, 4, 0, 0, 0, 0, 0]]
    thumbs[6:] = 0
    episodes, labels, held = episodes_of([0, 1, 2, 3, 4, 9, 9, 9, 9, 9], held=5)
    shown = np.arange(10) < 6
    found = check_places(episodes, labels, thumbs, held, shown)
    assert found.check.status == "suspicious"
    assert found.ranking[0]["held out episode"] == 5
    blind = check_places(episodes, labels, thumbs, held, np.arange(10) < 5)
    assert blind.check.status == "not checked"
    assert "no held-out episode has a known environment and shows anything" in blind.check.summary


def test_a_twin_in_another_dataset_is_to_be_held_out_since_no_rule_joins_two_datasets() -> None:
    thumbs = pictures(5)[[0, 1, 2, 3, 4, 0]]
    episodes, labels, held = episodes_of([0, 1, 2, 3, 4, 9], held=1)
    for dataset, says, says_not in ((0, "aliases: {", "hold it out"), (1, "hold it out", "aliases")):
        twin = episodes[5]._replace(dataset=dataset)
        found = check_places([*episodes[:5], twin], labels, thumbs, held, np.ones(6, bool))
        assert found.check.status == "suspicious"
        assert says in found.check.settle
        assert says_not not in found.check.settle


def test_an_environment_on_both_sides_is_not_its_own_twin() -> None:
    episodes, labels, held = episodes_of([0, 1, 2, 3, 4, 2], held=1)
    found = check_places(episodes, labels, pictures(5)[[0, 1, 2, 3, 4, 2]], held, np.ones(6, bool))
    assert found.check.status == "passed", "the check of names says what is wrong here"
    assert "place 2" not in {row["train"] for row in found.ranking}


def test_two_environments_of_train_are_too_few_to_tell() -> None:
    for number, word in ((2, "not checked"), (3, "suspicious")):
        places = [*range(number), 9]
        episodes, labels, held = episodes_of(places, held=1)
        thumbs = pictures(number)[[*range(number), 0]]
        found = check_places(episodes, labels, thumbs, held, np.ones(len(places), bool))
        assert found.check.status == word
        assert (found.ranking[0]["held out"], found.ranking[0]["train"]) == ("place 9", "place 0")


def test_many_environments_are_compared_in_blocks_and_threads_to_the_same_end() -> None:
    number = place._BLOCK + 40
    episodes, labels, held = episodes_of([*range(number), 1000, 1001], held=2)
    thumbs = pictures(number)[[*range(number), 3, number - 1]]
    shown = np.ones(len(episodes), bool)
    done: list[int] = []
    one = check_places(episodes, labels, thumbs, held, shown, report=done.append)
    assert done[-1] == place.compared_in_all(
        [e._replace(row={"split": "val"}) if out else e for e, out in zip(episodes, held, strict=True)]
    )
    assert [(row["held out"], row["train"]) for row in one.ranking if row["twin"]] == [
        ("place 1000", "place 3"),
        ("place 1001", f"place {number - 1}"),
    ]
    assert check_places(episodes, labels, thumbs, held, shown, workers=3) == one
    assert len(one.names) == place.SHOWN_PLACES
    assert sum(one.held) == 2


def test_the_heat_map_is_symmetric(clean_audit: Audit) -> None:
    assert clean_audit.places is not None
    rows = clean_audit.places.likeness
    assert all(rows[i][j] == pytest.approx(rows[j][i], abs=1e-3) for i in range(6) for j in range(6))
    assert all(rows[i][i] == 1 for i in range(6))


def test_the_copy_ahead_ratio_compares_splits(clean_audit: Audit, leaky_audit: Audit) -> None:
    assert clean_audit.probe is not None
    assert leaky_audit.probe is not None
    assert leaky_audit.probe.ratio < 0.25 < 0.4 < clean_audit.probe.ratio
    assert status(leaky_audit, "copy-ahead") == "suspicious"
    assert status(clean_audit, "copy-ahead") == "passed"
    assert "1 is unseen" in check(clean_audit, "copy-ahead").summary
