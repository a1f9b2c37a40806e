"""One kitchen under two names is ranked first; the copy-ahead ratio tells the two kinds of split apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from audited import SAMPLE, audited, check, set_path, status
from oxcart.compile.sample.kitchen import kitchen_names
from oxcart.manifests.audit.audit import Audit
from oxcart.manifests.split import SplitRule
from sample_compile import FIRST, SECOND, compiled, edited, examples


@pytest.fixture(scope="module")
def annexed(kitchens: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Audit]:
    """The second session of a kitchen is called `annex` and held out; the audit of it."""
    place = kitchen_names(SAMPLE.kitchens)[1]
    names = [FIRST, SECOND, "oxcart_kitchens-val.tfrecord-00000-of-00001"]

    def is_second(feature: dict[str, object]) -> bool:
        path = feature["episode_metadata/file_path"].bytes_list.value[0].decode()  # type: ignore[attr-defined]
        return f"/{place}/" in path and "/01/" in path

    where = [
        (name, i)
        for name in names
        for i, example in enumerate(examples(kitchens / name))
        if is_second(example.features.feature)
    ]
    assert where
    folder = tmp_path_factory.mktemp("annexed")
    edit = set_path(lambda path: path.replace(f"/{place}/", "/annex/"))
    source = edited(kitchens, folder / "source", edit, *where)
    compiled(source, folder / "out", rule=SplitRule(val=("annex",)))
    return place, audited(folder / "out")


def test_one_kitchen_under_two_names_comes_first(annexed: tuple[str, Audit]) -> None:
    place, found = annexed
    assert found.places is not None
    first = found.places.ranking[0]
    assert (first["held out"], first["train"]) == ("annex", place)
    assert status(found, "places") == "suspicious"
    assert first["score"] > found.places.ranking[1]["score"] + 0.1
    assert status(found, "environments") == "passed", "the names tell nothing"
    assert found.images.places[0].held.environment == "annex"


def test_kitchens_apart_are_not_one_place(clean_audit: Audit) -> None:
    assert status(clean_audit, "places") == "passed"
    assert clean_audit.places is not None
    assert len(clean_audit.places.names) == SAMPLE.kitchens
    assert clean_audit.places.held == (True, *[False] * (SAMPLE.kitchens - 1))


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
