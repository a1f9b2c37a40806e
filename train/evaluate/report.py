"""The analysis as one self-contained HTML page, and the same numbers as JSON."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from oxcart.manifests.canonical import pretty_json
from oxcart.manifests.page import render
from oxcart.train.evaluate.analysis import TONES, Analysis, Null, Row, told
from oxcart.train.evaluate.strategy import Number
from oxcart.train.statistics import FEWEST_ENVIRONMENTS
from oxcart.train.trained_on import HELD_OUT, SEEN, UNKNOWN

FORMAT = "oxcart-analysis/3"

KEYS = (
    ("compass", "cosine_datasets"),
    ("compass", "cosine_environments"),
    ("compass", "cosine_held_out"),
    ("transfer", "angle_across_datasets"),
    ("transfer", "angle_across_environments"),
    ("consistency", "flow_across_datasets"),
    ("consistency", "flow_across_environments"),
)
"""Keys of the numbers that say whether codes mean the same in other environments."""
CARDS = (*KEYS[:5], ("flow_tokens", "direction_weighted"))
SHOWN_CARDS = 4
WIDTH, HEIGHT, MARGIN = 230, 34, 8
"""Size of the drawing of a number, in SVG units."""
_NOT_HELD_OUT = {
    SEEN: ("Nothing here is held out: the run was trained on all of these environments", "odd"),
    UNKNOWN: ("Nobody knows what is held out here: the run kept no record of what it was trained on", "odd"),
}
"""Headline and tone where no pair is held out."""
_PRECISE = 3
"""Significant digits of numbers in the JSON."""


@dataclass(frozen=True, kw_only=True)
class IntervalMark:
    """Position of a drawn interval and its value, in SVG units."""

    low: float
    high: float
    at: float


def report_json(analysis: Analysis) -> bytes:
    """The numbers of the page and the tables behind its figures, as JSON."""
    numbers = [
        {
            "strategy": row.strategy,
            "name": row.number.name,
            "title": row.number.title,
            "unit": row.number.unit.strip(),
            "better": row.number.better,
            **_plain(row.number),
            "seen": _plain(row.seen),
            "shuffled": _plain(row.null),
            "untrained": _plain(row.untrained),
            "verdict": row.verdict,
            "read": row.number.read,
        }
        for row in analysis.rows()
    ]
    skipped = [
        {"strategy": section.name, "what": skip.what, "because": skip.because}
        for section in analysis.sections
        for skip in section.skips
    ]
    subsets = [
        {
            "name": one.subset.name,
            "rules": list(one.subset.rules),
            "place": one.place,
            "pairs": one.pairs,
            "numbers": [
                {"strategy": strategy, "name": name, **_plain(number)}
                for (strategy, name), number in one.numbers.items()
            ],
        }
        for one in analysis.subsets
    ]
    tables = [
        {
            "strategy": section.name,
            "title": one.title,
            "columns": list(one.columns),
            "rows": _values(one.rows),
        }
        for section in analysis.sections
        for one in section.tables
    ]
    named, unnamed = told(analysis.rows())
    whole = {
        "format": FORMAT,
        "about": analysis.about,
        "place": analysis.place,
        "counts": {place: asdict(counts) for place, counts in analysis.counts.items()},
        "actions": {"told": named, "not_told": unnamed},
        "numbers": numbers,
        "skipped": skipped,
        "subsets": subsets,
        "tables": tables,
    }
    return pretty_json(whole)


def report_html(analysis: Analysis) -> bytes:
    """The HTML page."""
    rows = analysis.rows()
    judged = [row for row in rows if row.number.better != "none"]
    headline, tone = _headline(rows) if analysis.place == HELD_OUT else _NOT_HELD_OUT[analysis.place]
    found = {(row.strategy, row.number.name): row for row in rows}
    used = {(row.strategy, row.number.name) for row in judged}
    return render(
        "oxcart.train.evaluate",
        "report.html",
        analysis=analysis,
        headline=headline,
        tone=tone,
        because=_because(judged, analysis),
        cards=[found[key] for key in CARDS if key in found][:SHOWN_CARDS],
        judged=judged,
        picture=_drawing,
        tones=TONES,
        number=say,
        interval=say_interval,
        clusters=say_clusters,
        skipped=[(section.title, skip) for section in analysis.sections for skip in section.skips],
        compared=[key for key in used if any(key in one.numbers for one in analysis.subsets)],
        found=found,
        order=[(row.strategy, row.number.name) for row in judged],
        cell=_cell,
        counted=lambda name, pairs: f"{name}, {pairs:,} pairs",
        data=lambda png: "data:image/png;base64," + base64.b64encode(png).decode(),
        width=WIDTH,
        height=HEIGHT,
    )


def say(value: float, unit: str = "") -> str:
    """A number with three significant digits, and at most three decimals."""
    places = max(0, min(3, _PRECISE - 1 - int(np.floor(np.log10(abs(value)))))) if value else 2
    text = f"{value:,.{places}f}{unit}"
    return text[1:] if text.strip("-0.,° bits") == "" and text.startswith("-") else text


def say_interval(number: Number | Null | None) -> str:
    """An interval as `low to high`, or the reason why there is none."""
    if number is None:
        return ""
    if number.low is None or number.high is None:
        return f"no interval over {number.clusters} {number.over}" if isinstance(number, Number) else ""
    return f"{say(number.low)} to {say(number.high)}"


def say_clusters(number: Number) -> str:
    """Of what the interval holds, such as `over 12 environments`."""
    alone = ", of these environments alone" if number.over == "episodes" else ""
    return f"over {number.clusters:,} {number.over}{alone}"


def _headline(rows: Sequence[Row]) -> tuple[str, str]:
    keys = [row for row in rows if (row.strategy, row.number.name) in KEYS]
    if not keys:
        return "Whether codes mean the same elsewhere was not measured", "none"
    clear = [row for row in keys if row.verdict == "clear"]
    cosines = [row.number for row in keys if row.strategy == "compass"]
    if not clear:
        return "Nothing tells these codes from chance", "bad"
    if len(clear) < len(keys):
        return (
            f"Codes keep part of their meaning elsewhere: {len(clear)} of {len(keys)} numbers are clear",
            "odd",
        )
    found, lost = told(rows)
    tone, of = (
        ("odd", f", but tells {len(found)} of {len(found + lost)} action values") if lost else ("good", "")
    )
    if cosines:
        least = min(cosines, key=lambda one: one.value)
        return f"A code means the same elsewhere{of}: {least.title}, cosine {say(least.value)}", tone
    return f"A code means the same elsewhere{of}", tone


def say_told(rows: Sequence[Row]) -> list[str]:
    """Sentences that name the action values that codes tell, and those that they do not."""
    score = {row.number.of: say(row.number.value) for row in rows if row.number.name.startswith("r2_")}
    said = []
    for text, names in zip(("codes tell", "it is not shown that codes tell"), told(rows), strict=True):
        if names:
            said.append(f"{text} {', '.join(f'{name} (R2 {score[name]})' for name in names)}")
    return said


def _because(judged: Sequence[Row], analysis: Analysis) -> list[str]:
    if not judged:
        return ["no number could be taken; the reasons are below"]
    said = []
    for verdict, text in (
        ("clear", "are clear of the untrained model and of shuffled codes"),
        ("not told apart", "are not told apart from them"),
        ("on the wrong side", "are on the wrong side of them"),
    ):
        count = sum(row.verdict == verdict for row in judged)
        if count:
            said.append(f"{count} of {len(judged)} numbers {text}")
    said += say_told(judged)
    said += [
        f"{place}: {one.pairs:,} pairs of {one.episodes:,} episodes in {one.environments:,} environments"
        for place, one in analysis.counts.items()
    ]
    said.append("intervals hold with 95% confidence")
    alone = sum(row.number.over == "episodes" for row in judged)
    if alone:
        said.append(
            f"{alone} of {len(judged)} numbers are of these environments alone: they are of fewer than "
            f"{FEWEST_ENVIRONMENTS}, so intervals go over episodes"
        )
    return said


def _drawing(row: Row) -> dict[str, Any]:
    """Positions of a number and the values beside it, drawn on an axis of its own."""
    others = [one for one in (row.untrained, row.null) if one is not None]
    ends = [end for one in (row.number, *others) for end in (one.low, one.high, one.value) if end is not None]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return round(MARGIN + (value - low) / span * (WIDTH - 2 * MARGIN), 1)

    def bar(one: Number | Null | None) -> IntervalMark | None:
        if one is None:
            return None
        first = one.value if one.low is None else one.low
        last = one.value if one.high is None else one.high
        return IntervalMark(low=at(first), high=at(last), at=at(one.value))

    return {"trained": bar(row.number), "untrained": bar(row.untrained), "null": bar(row.null)}


def _plain(number: Number | Null | None) -> Any:
    if number is None:
        return None
    plain = {"value": _round(number.value), "low": _round(number.low), "high": _round(number.high)}
    return plain if isinstance(number, Null) else {**plain, "over": number.over, "clusters": number.clusters}


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _values(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Rows of plain Python values."""
    return [[value.item() if isinstance(value, np.generic) else value for value in row] for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return say(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return "(" + ", ".join(_cell(one) for one in value) + ")"
    return str(value)
