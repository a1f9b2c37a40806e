"""Which episodes an audit looks at, and which of them are of one place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from oxcart.manifests.audit.episodes import UNKNOWN, Audited, AuditedEpisode, draw, open_datasets


@pytest.fixture
def dataset(clean: Path) -> Audited:
    return open_datasets([str(clean)])[0]


def places(*datasets: Audited) -> dict[tuple[int, str], int]:
    """Dataset and environment -> place."""
    found: dict[tuple[int, str], int] = {}
    for episode in draw(datasets, None, 0):
        at = episode.dataset, episode.row["environment"]
        assert found.setdefault(at, episode.place) == episode.place
    return found


def test_each_environment_is_a_place(dataset: Audited) -> None:
    found = places(dataset)
    assert len(found) == len(set(found.values())) == 6
    assert UNKNOWN not in found.values()


def test_names_that_the_rule_joins_are_one_place(dataset: Audited) -> None:
    one, two, *rest = sorted(name for _, name in places(dataset))
    found = places(replace(dataset, aliases={one: one, two: one}))
    assert found[0, one] == found[0, two]
    assert len({found[0, name] for name in (one, *rest)}) == 5


def test_compiles_of_one_source_share_their_places(clean: Path, other: Path) -> None:
    one, two = open_datasets([str(clean), str(other)])
    found = places(one, two)
    assert len(found) == 12
    assert all(found[0, name] == found[1, name] for _, name in found)
    manifest = replace(two.manifest, dataset={**two.manifest.dataset, "name": "another"})
    assert len(set(places(one, replace(two, opened=replace(two.opened, manifest=manifest))).values())) == 12


def test_train_comes_first_whatever_the_dataset(clean: Path, other: Path) -> None:
    found: list[AuditedEpisode] = draw(open_datasets([str(clean), str(other)]), None, 0)
    assert [episode.split for episode in found] == ["train"] * 40 + ["val"] * 8
