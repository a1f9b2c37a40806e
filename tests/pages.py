"""What reports look like as pages: their tables, and what a browser measures on a narrow screen.

tables_of(page)[0]["header"]
measure(page, 400, browser, tmp_path, cells="td")["page"]  # 400 if nothing is wider
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


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


def tables_of(page: str) -> list[dict[str, Any]]:
    """The tables of a page."""
    reader = Tables()
    reader.feed(page)
    return reader.tables


def headless(profile: Path) -> list[str]:
    """The command that starts a headless browser; skips the test where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no chromium here")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    return [found, *flags, f"--user-data-dir={profile}"]


MEASURE = """
<script>
window.onload = () => {
  const page = document.querySelector("iframe").contentDocument;
  const all = (selector) => [...page.querySelectorAll(selector)];
  all("details").forEach((details) => { details.open = true; });
  document.querySelector("output").textContent = JSON.stringify({
    page: page.documentElement.scrollWidth,
    cells: Math.min(...all("CELLS").map((cell) => cell.clientWidth)),
    tables: Math.max(...all("table").map((table) => table.getBoundingClientRect().right)),
    scrolls: all(".scroll:has(> table)").filter((box) => box.scrollWidth > box.clientWidth).length,
  });
};
</script>
"""


def measure(page: str, width: int, browser: list[str], folder: Path, *, cells: str) -> dict[str, float]:
    """Pixels of a page on a screen of some width, with all details open.

    Args:
        page: HTML of the page.
        width: width of the screen.
        browser: see `headless`.
        folder: where a file may be written.
        cells: selector of the cells whose least width is measured.
    """
    # In a frame, since the window of a browser cannot be as narrow.
    frame = f'<iframe width="{width}" height="900" style="border: 0" srcdoc="{html.escape(page)}"></iframe>'
    script = MEASURE.replace("CELLS", cells)
    (folder / "framed.html").write_text(f"<!doctype html>{frame}<output></output>{script}", "utf-8")
    command = [*browser, "--dump-dom", (folder / "framed.html").as_uri()]
    shown = subprocess.run(command, check=True, capture_output=True, timeout=120).stdout.decode()
    said = re.search(r"<output>(\{.*\})</output>", shown)
    assert said
    found: dict[str, float] = json.loads(said[1])
    return found
