"""The page: whole in itself, text stays text, and a browser shows it."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pages import measure, tables_of
from PIL import Image

from audited import audited, everywhere, set_path
from oxcart.manifests.audit.audit import Audit
from oxcart.manifests.audit.report import report_html, report_json
from oxcart.manifests.split import SplitRule
from sample_compile import compiled, edited

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \"'&"
PLACE = HOSTILE.replace("/", "")
"""In the name of a folder."""


class Tags(HTMLParser):
    """Every tag and attribute of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: bytes) -> Tags:
    tags = Tags()
    tags.feed(page.decode())
    return tags


@pytest.fixture(scope="module")
def hostile(kitchens: Path, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """An audit of episodes whose instructions and environments are HTML."""

    def edit(feature: Any) -> None:
        texts = feature["steps/language_instruction"].bytes_list.value
        texts[:] = [HOSTILE.encode()] * len(texts)
        set_path(lambda path: path.replace("v2/", f"v2/{PLACE}", 1))(feature)

    folder = tmp_path_factory.mktemp("hostile")
    source = edited(kitchens, folder / "source", edit, *everywhere(kitchens))
    compiled(source, folder / "out", rule=SplitRule(by="episode", val=0.2))
    return audited(folder / "out")


def test_instructions_and_environments_that_are_html_stay_text(hostile: Audit) -> None:
    page = report_html(hostile)
    tags = parsed(page)
    assert "script" not in {tag for tag, _ in tags.tags}
    assert not [attrs for _, attrs in tags.tags if any(name.startswith("on") for name in attrs)]
    assert HOSTILE in tags.text
    assert PLACE in tags.text
    assert all(
        str(attrs["src"]).startswith("data:image/jpeg;base64,") for tag, attrs in tags.tags if tag == "img"
    )


def test_the_page_needs_nothing_from_outside(leaky_audit: Audit) -> None:
    page = report_html(leaky_audit).decode()
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert "url(" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


def test_the_page_says_what_was_found(leaky_audit: Audit, clean_audit: Audit) -> None:
    leaky, clean = (parsed(report_html(found)).text for found in (leaky_audit, clean_audit))
    assert "Leak: what is held out is known to train" in leaky
    assert "Clean: nothing held out is nearer to train than chance explains" in clean
    for page, found in ((leaky, leaky_audit), (clean, clean_audit)):
        assert all(one.title in page for one in found.checks)
        assert all(kind.kind in page for kind in found.recall)
        assert found.datasets[0]["fingerprint"][:16] in page
        assert found.pairs[0]["held_episode"] in page
        assert "Not checked" in page
    assert "below the threshold" in clean
    assert "beyond the threshold" in leaky


def test_the_json_holds_everything_but_images(clean_audit: Audit) -> None:
    value = json.loads(report_json(clean_audit))
    assert value["format"] == "oxcart-audit/2"
    assert value["verdict"]["word"] == "clean"
    assert len(value["checks"]) == len(clean_audit.checks)
    assert "images" not in value
    assert value == json.loads(report_json(clean_audit))


def test_cells_name_their_column_since_a_narrow_page_shows_no_header(leaky_audit: Audit) -> None:
    tables = tables_of(report_html(leaky_audit).decode())
    assert len(tables) > 3
    for table in tables:
        assert "cards" in table["class"]
        for row in table["rows"][1:]:
            named = list(zip(table["header"], row, strict=True))
            if "checks" in table["class"]:
                assert not any(column for _, column in named), "a status, a title and a sentence need no name"
            else:
                assert all(column == header for header, column in named[1:] if header)


@pytest.mark.browser
def test_a_browser_shows_the_page(browser: list[str], leaky_audit: Audit, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(report_html(leaky_audit))
    shot = tmp_path / "page.png"
    command = [*browser, "--window-size=1200,3000", f"--screenshot={shot}"]
    subprocess.run(
        [*command, (tmp_path / "page.html").as_uri()], check=True, capture_output=True, timeout=120
    )
    with Image.open(shot) as image:
        assert image.size == (1200, 3000)
        colours = image.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    found = {colour for _, colour in colours}
    assert (180, 35, 44) in found, "the colour of a leak"
    assert len(found) > 1000, "images"


@pytest.mark.browser
@pytest.mark.parametrize("which", ["clean", "leaky", "whole"])
def test_on_a_telephone_nothing_is_squeezed_or_off_the_page(
    which: str, browser: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found: Audit = request.getfixturevalue(f"{which}_audit")
    long = replace(found.checks[0], summary="name/" * 60, evidence=({"file": "name/" * 60, "episode": 1},))
    verdict = replace(found.verdict, because=("name_" * 60,))
    page = report_html(replace(found, checks=(long, *found.checks[1:]), verdict=verdict)).decode()
    measured = measure(page, 400, browser, tmp_path, cells=".checks > tbody > tr > td")
    assert measured["page"] == 400
    assert measured["tables"] <= 400
    assert measured["scrolls"] == 0
    assert measured["cells"] >= 200


def test_a_name_that_is_no_text_can_be_written(clean_audit: Audit) -> None:
    page = report_html(replace(clean_audit, command="oxcart audit \udcff")).decode()
    assert "oxcart audit \\udcff" in page


def test_the_json_is_the_same_whatever_the_workers(clean_audit: Audit) -> None:
    more = replace(clean_audit, options=replace(clean_audit.options, workers=7))
    assert report_json(more) == report_json(clean_audit)
