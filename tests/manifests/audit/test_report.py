"""The page: whole in itself, text stays text, and a browser shows it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from audited import audited, everywhere, set_path
from oxcart.manifests.audit.audit import Audit
from oxcart.manifests.audit.report import report_html, report_json
from oxcart.manifests.split import SplitRule
from sample_compile import compiled, edited

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \"'&"
PLACE = HOSTILE.replace("/", "")
"""In the name of a folder."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


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
    assert value["format"] == "oxcart-audit/1"
    assert value["verdict"]["word"] == "clean"
    assert len(value["checks"]) == len(clean_audit.checks)
    assert "images" not in value
    assert value == json.loads(report_json(clean_audit))


class Tables(HTMLParser):
    """Every table of a page: its classes, its header, and the column that each cell of a row names."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[dict[str, Any]] = []
        self.open: list[dict[str, Any]] = []
        self.in_header = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "table":
            self.open.append({"class": (values.get("class") or "").split(), "header": [], "rows": []})
            self.tables.append(self.open[-1])
        elif tag == "tr":
            self.open[-1]["rows"].append([])
        elif tag == "th":
            self.open[-1]["header"].append("")
            self.in_header = True
        elif tag == "td":
            self.open[-1]["rows"][-1].append(values.get("data-column"))

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.open.pop()
        self.in_header &= tag != "th"

    def handle_data(self, data: str) -> None:
        if self.in_header:
            self.open[-1]["header"][-1] += data


def test_cells_name_their_column_since_a_narrow_page_shows_no_header(leaky_audit: Audit) -> None:
    reader = Tables()
    reader.feed(report_html(leaky_audit).decode())
    assert len(reader.tables) > 3
    for table in reader.tables:
        assert "cards" in table["class"]
        for row in table["rows"][1:]:
            named = list(zip(table["header"], row, strict=True))
            if "checks" in table["class"]:
                assert not any(column for _, column in named), "a status, a title and a sentence need no name"
            else:
                assert all(column == header for header, column in named[1:] if header)


@pytest.fixture
def browser(tmp_path: Path) -> list[str]:
    """The command that starts a headless browser."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no chromium here")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    return [found, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", profile]


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


MEASURE = """
<script>
window.onload = () => {
  const page = document.querySelector("iframe").contentDocument;
  const all = (selector) => [...page.querySelectorAll(selector)];
  all("details").forEach((details) => { details.open = true; });
  document.querySelector("output").textContent = JSON.stringify({
    page: page.documentElement.scrollWidth,
    cells: Math.min(...all(".checks > tbody > tr > td").map((cell) => cell.clientWidth)),
    tables: Math.max(...all("table").map((table) => table.getBoundingClientRect().right)),
    scrolls: all(".scroll:has(> table)").filter((box) => box.scrollWidth > box.clientWidth).length,
  });
};
</script>
"""


@pytest.mark.browser
@pytest.mark.parametrize("which", ["clean", "leaky", "whole"])
def test_on_a_telephone_nothing_is_squeezed_or_off_the_page(
    which: str, browser: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found: Audit = request.getfixturevalue(f"{which}_audit")
    long = replace(found.checks[0], summary="name/" * 60, evidence=({"file": "name/" * 60, "episode": 1},))
    verdict = replace(found.verdict, because=("name_" * 60,))
    page = report_html(replace(found, checks=(long, *found.checks[1:]), verdict=verdict)).decode()
    # In a frame, since the window of a browser cannot be as narrow.
    frame = f'<iframe width="400" height="900" style="border: 0" srcdoc="{html.escape(page)}"></iframe>'
    (tmp_path / "framed.html").write_text(f"<!doctype html>{frame}<output></output>{MEASURE}", "utf-8")
    command = [*browser, "--dump-dom", (tmp_path / "framed.html").as_uri()]
    shown = subprocess.run(command, check=True, capture_output=True, timeout=120).stdout.decode()
    said = re.search(r"<output>(\{.*\})</output>", shown)
    assert said
    measured = json.loads(said[1])
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
