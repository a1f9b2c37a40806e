"""Every entry of the catalog is well-formed, and nothing but an exact name finds one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from oxcart.compile import catalog
from oxcart.compile.catalog import Entry, lookup
from oxcart.compile.sources.base import clean

FILES = sorted(Path(catalog.__file__).parent.glob("*.yaml"))
NAMES = [file.stem for file in FILES]
LISTS = ("cameras", "instruction", "action", "state")


def test_there_are_entries() -> None:
    assert {"bridge_dataset", "oxcart_kitchens"} <= set(NAMES)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_an_entry_holds_known_fields_of_the_right_kind(file: Path) -> None:
    value = yaml.safe_load(file.read_text("utf-8"))
    assert set(value) <= {*LISTS, "control_rate", "environment", "aliases"}
    for name in LISTS:
        fields = value.get(name, [])
        assert isinstance(fields, list)
        assert all(isinstance(field, str) and field for field in fields)
        assert len(set(fields)) == len(fields)
    assert set(value.get("environment", {})) <= {"field", "patterns", "known"}
    assert value.get("environment", {}).get("known", "declared") in ("declared", "inferred")


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_found_by_its_name(name: str) -> None:
    entry = lookup(name)
    assert clean(name) == name
    assert entry != Entry()
    if entry.control_rate is not None:
        assert set(entry.control_rate) == {"hz", "verified"}
        assert 0 < entry.control_rate["hz"] < 1000
        assert isinstance(entry.control_rate["verified"], bool)


@pytest.mark.parametrize("name", NAMES)
def test_patterns_are_regular_expressions_that_name_the_environment(name: str) -> None:
    rule = lookup(name).environment
    for pattern in rule.patterns if rule else ():
        groups = re.compile(pattern).groupindex
        assert set(groups) <= {"environment", "session"}
        assert "environment" in groups


@pytest.mark.parametrize("name", NAMES)
def test_an_alias_stands_for_one_environment(name: str) -> None:
    aliases = lookup(name).aliases
    others = [other for names in aliases.values() for other in names]
    assert len(set(others)) == len(others)
    assert not set(others) & set(aliases)


@pytest.mark.parametrize(
    "name",
    [
        "bridge",
        "bridge_dataset2",
        "Bridge_dataset",
        "bridge_dataset.yaml",
        "../catalog/bridge_dataset",
        "./bridge_dataset",
        "/etc/passwd",
        "__init__",
        " bridge_dataset",
        "bridge_dataset\n",
        "..",
        "",
        "a\0b",
        "no_such_dataset",
    ],
)
def test_another_name_finds_nothing(name: str) -> None:
    assert lookup(name) == Entry()


@pytest.mark.parametrize(
    ("path", "environment", "session"),
    [
        (
            "/nfs/kun2/users/x/bridge_data_v1/berkeley/toysink2_bww/put_pot_in_sink/2021-07-12/0/train/out.npy",
            "toysink2_bww",
            "bridge_data_v1/berkeley/toysink2_bww/put_pot_in_sink/2021-07-12/0",
        ),
        (
            "/x/bridge_data_v2/datacol2_toykitchen7/drawer_pnp/00/val/out.npy",
            "datacol2_toykitchen7",
            "bridge_data_v2/datacol2_toykitchen7/drawer_pnp/00",
        ),
        ("/x/rss/toykitchen2/set_table/01/train/out.npy", "toykitchen2", "rss/toykitchen2/set_table/01"),
        ("/x/bridge_data_v2/datacol2_toykitchen7/00/train/out.pkl", None, None),
        ("/x/elsewhere/toykitchen2/00/train/out.npy", None, None),
        ("", None, None),
    ],
)
def test_bridge_paths_tell_kitchen_and_session(
    path: str, environment: str | None, session: str | None
) -> None:
    rule = lookup("bridge_dataset").environment
    assert rule is not None
    assert rule.find(path) == (environment, session)


def test_train_and_val_of_one_bridge_folder_are_one_session() -> None:
    rule = lookup("bridge_dataset").environment
    assert rule is not None
    base = "/x/bridge_data_v2/toykitchen1/many_skills/03"
    assert rule.find(f"{base}/train/out.npy") == rule.find(f"{base}/val/out.npy")
