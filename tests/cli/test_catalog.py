"""`oxcart catalog` lists every dataset that is known, and says of one all that is."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from oxcart.cli.main import oxcart
from oxcart.compile.catalog import lookup, names


def output(*arguments: str) -> str:
    result = CliRunner().invoke(oxcart, ["catalog", *arguments])
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def failure(*arguments: str) -> str:
    """The one line of a command that fails."""
    result = CliRunner().invoke(oxcart, ["catalog", *arguments])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_the_list_has_a_row_for_every_dataset() -> None:
    lines = output().splitlines()
    rows = {line.split()[0]: line for line in lines[2 : 2 + len(names())]}
    assert list(rows) == names()
    assert rows["bridge_dataset"].split()[1:5] == ["4", "declared", "5", "Hz"]
    assert rows["kuka"].split()[1:4] == ["1", "-", "-"]
    assert "10 Hz ?" in rows["language_table"]
    assert all(lookup(name).about in row for name, row in rows.items())
    assert "? is not verified" in lines[-1]


def test_the_list_as_json_is_the_entries() -> None:
    listed = json.loads(output("--json"))
    assert [entry["name"] for entry in listed] == names()
    assert listed == [json.loads(output(name, "--json")) for name in names()]


def test_an_entry_as_json() -> None:
    entry = json.loads(output("droid", "--json"))
    assert entry["cameras"] == ["exterior_image_1_left", "exterior_image_2_left", "wrist_image_left"]
    assert entry["control_rate"].items() >= {"hz": 15.0, "verified": True}.items()
    assert entry["environment"]["known"] == "declared"


def test_columns_are_shown_by_what_they_share() -> None:
    lines = output("oxcart_kitchens").splitlines()
    assert "columns       action: dx dy: delta, table, table frame" in lines
    assert "              action: gripper: gripper_absolute" in lines
    assert "roles         image_0: primary" in lines


@pytest.mark.parametrize("name", names())
def test_an_entry_as_text_says_all_that_is_known(name: str) -> None:
    entry, text = lookup(name), output(name)
    assert text.startswith(f"{name}: {entry.about}\n")
    fields = (*(entry.cameras or ()), *(entry.instruction or ()), *(entry.action or ()), *(entry.state or ()))
    for said in (*fields, *entry.notes, *entry.aliases, entry.version or "-"):
        assert said in text
    if entry.control_rate:
        assert f"{entry.control_rate['hz']:g} Hz" in text
        assert ("(not verified)" in text) is not entry.control_rate["verified"]
        assert entry.control_rate["source"] in text
    for columns in entry.columns.values():
        assert all(f" {one.name}" in text and one.kind in text for one in columns)
    for said in (
        *entry.roles.values(),
        *entry.channels.values(),
        entry.licence or "-",
        entry.citation or "-",
    ):
        assert said in text
    assert not entry.success or f"in {entry.success.field}" in text
    assert all(f"at the {end} step" in text for end in entry.no_action)
    rule = entry.environment
    assert (rule.field or rule.whole or "") in text if rule else "environment   unknown" in text


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        (
            "brigde_dataset",
            "'brigde_dataset' is not in the catalog; did you mean bridge_dataset? "
            "oxcart catalog lists all of them",
        ),
        ("spoc_robot", "did you mean spoc?"),
        ("maniskill", "did you mean maniskill_dataset_converted_externally_to_rlds?"),
        ("../catalog/droid", "is not in the catalog"),
        ("zzzzzzz", "oxcart catalog lists all of them"),
        ("", "oxcart catalog lists all of them"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name: str, hint: str) -> None:
    assert hint in failure(name)
