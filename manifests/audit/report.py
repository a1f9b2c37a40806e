"""The report of an audit: a self-contained HTML page, and the same content as JSON.

Plots are SVG, drawn here. `oxcart.manifests.page` says what makes the page safe to open and to mail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from oxcart.manifests.audit.audit import Audit
from oxcart.manifests.audit.result import FAILED, FORMAT, PASSED, SUSPICIOUS, UNCHECKED, count
from oxcart.manifests.audit.verdict import CLEAN, LEAK, SUSPECT
from oxcart.manifests.canonical import pretty_json
from oxcart.manifests.page import render
from oxcart.shards.text import cut

WIDTH, HEIGHT = 760, 190
"""Size of the histogram, in SVG units."""
BINS = 60
_ROWS = 12
"""Maximum number of rows of evidence in the page; the JSON has more."""


def report_json(audit: Audit) -> bytes:
    """The audit as JSON: everything but the images, and nothing about the machine that it ran on."""
    values = audit.plain()
    del values["options"]["workers"]
    return pretty_json({"format": FORMAT, **values})


def report_html(audit: Audit) -> bytes:
    """The audit as an HTML page."""
    headline, tone = _headline(audit)
    return render(
        "oxcart.manifests.audit",
        "report.html",
        audit=audit,
        headline=headline,
        tone=tone,
        tones={PASSED: "good", FAILED: "bad", SUSPICIOUS: "odd", UNCHECKED: "none"},
        order={FAILED: 0, SUSPICIOUS: 1, UNCHECKED: 2, PASSED: 3},
        unchecked=[check for check in audit.checks if check.status == UNCHECKED],
        rows=_ROWS,
        plot=_histogram(audit),
        strip=_strip(audit),
        heat=_heat(audit),
    )


def _headline(audit: Audit) -> tuple[str, str]:
    if audit.verdict.word == LEAK:
        return "Leak: what is held out is known to train", "bad"
    if audit.verdict.word == CLEAN:
        failed = [check for check in audit.checks if check.status == FAILED]
        if failed:
            return f"No leak, but {count(len(failed), 'check')} failed", "odd"
        return "Clean: nothing held out is nearer to train than chance explains", "good"
    if audit.verdict.word == SUSPECT:
        return "Suspicious: what is held out may be a place that train has seen", "odd"
    return "Not checked: nothing can be concluded", "none"


def _histogram(audit: Audit) -> dict[str, Any] | None:
    """Histogram of the best scores, held-out episodes over the null, from the lowest score to 1."""
    held = [row["score"] for row in audit.scores if row["score"] > -1]
    null = list(audit.null)
    if not held and not null:
        return None
    every = [*held, *null, *([audit.threshold.value] if audit.threshold else [])]
    low = math.floor((min(every) - 0.02) * 20) / 20
    high = max(1.0, max(every))
    step = (high - low) / BINS
    left, top, wide, tall = 56, 24, WIDTH - 82, HEIGHT - 54
    bars: list[dict[str, Any]] = []
    peak = 0.0
    shares = {}
    for kind, values in (("null", null), ("held", held)):
        counts = [0] * BINS
        for value in values:
            counts[min(int((value - low) / step), BINS - 1)] += 1
        shares[kind] = counts, len(values)
        peak = max(peak, max(counts) / max(len(values), 1))
    for kind, (counts, total) in shares.items():
        for i, number in enumerate(counts):
            if number:
                share = number / total
                what = "null" if kind == "null" else "held out"
                bars.append(
                    {
                        "x": round(left + i * wide / BINS, 2),
                        "y": round(top + tall * (1 - share / peak), 2),
                        "width": round(wide / BINS - 0.8, 2),
                        "height": round(tall * share / peak, 2),
                        "kind": kind,
                        "title": f"{number:,} of {total:,} {what} from {low + i * step:.3f}",
                    }
                )
    ticks = [
        (round(left + (v / 20 - low) / (high - low) * wide, 1), f"{v / 20:.2f}") for v in _ticks(low, high)
    ]
    limit = None
    if audit.threshold:
        limit = round(left + (audit.threshold.value - low) / (high - low) * wide, 1)
    return {
        "bars": bars,
        "ticks": ticks,
        "limit": limit,
        "base": top + tall,
        "top": top,
        "left": left,
        "right": left + wide,
        "width": WIDTH,
        "height": HEIGHT,
        "peak": f"{peak:.0%}",
    }


def _ticks(low: float, high: float) -> Sequence[int]:
    every = 1 if high - low < 0.45 else 2 if high - low < 0.9 else 4
    return [v for v in range(math.ceil(low * 20), math.floor(high * 20) + 1) if v % every == 0]


def _strip(audit: Audit) -> dict[str, Any] | None:
    """By how much environments stand out: those of train below, those held out above, the limit between."""
    places = audit.places
    if places.limit is None:
        return None
    null = [("", value) for value in places.null]
    held = [
        (f"{row['held out']} toward {row['train']}", float(row["stands out by"]))
        for row in places.ranking
        if row["stands out by"] is not None
    ]
    values = [value for _, value in (*null, *held)]
    low, high = min(*values, -0.1) - 0.02, max(*values, places.limit + 0.2) + 0.02
    left, right, base = 20, WIDTH - 20, 62

    def across(value: float) -> float:
        return round(left + (value - low) / (high - low) * (right - left), 1)

    dots = [
        {"x": across(value), "y": y, "kind": kind, "title": f"{who or 'one of train'}: {value:.2f}"}
        for kind, y, rows in (("null", 50, null), ("held", 32, held))
        for who, value in rows
    ]
    return {
        "dots": dots,
        "ticks": [(across(v / 10), f"{v / 10:.1f}") for v in range(math.ceil(low * 10), int(high * 10) + 1)],
        "limit": (limit := across(places.limit)),
        "label": (limit - 5, "end") if limit > WIDTH / 2 else (limit + 5, "start"),
        "base": base,
        "left": left,
        "right": right,
        "width": WIDTH,
        "height": base + 24,
    }


def _heat(audit: Audit) -> dict[str, Any] | None:
    """Cells of the environment x environment map, in SVG units."""
    places = audit.places
    if len(places.names) < 2:
        return None
    number = len(places.names)
    cell = max(10, min(26, 560 // number))
    longest = max(len(name) for name in places.names)
    margin = min(260, 8 + round(6.4 * min(longest, 38)))
    off = [v for i, row in enumerate(places.likeness) for j, v in enumerate(row) if i != j]
    low, high = min(off), max(off)
    cells = []
    for i, row in enumerate(places.likeness):
        for j, value in enumerate(row):
            share = 1.0 if i == j else (value - low) / max(high - low, 1e-9)
            cells.append(
                {
                    "x": margin + j * cell,
                    "y": margin + i * cell,
                    "fill": "#d7d4cc" if i == j else _colour(share),
                    "title": f"{places.names[i]} and {places.names[j]}: {value:.3f}",
                }
            )
    names = [
        {
            "text": cut(name, 38),
            "at": margin + i * cell + cell / 2,
            "held": held,
        }
        for i, (name, held) in enumerate(zip(places.names, places.held, strict=True))
    ]
    side = margin + number * cell + 4
    return {
        "cells": cells,
        "names": names,
        "cell": cell,
        "margin": margin,
        "side": side,
        "split": margin + sum(places.held) * cell,
        "low": f"{low:.2f}",
        "high": f"{high:.2f}",
        "ramp": [_colour(i / 5) for i in range(6)],
    }


def _colour(share: float) -> str:
    """Colour scale from paper through amber to deep red; its lightness is monotone, so it works in grey."""
    stops = ((250, 246, 236), (247, 214, 148), (232, 140, 72), (178, 52, 44), (92, 16, 34))
    at = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    i = min(int(at), len(stops) - 2)
    mixed = [round(a + (b - a) * (at - i)) for a, b in zip(stops[i], stops[i + 1], strict=True)]
    return "#{:02x}{:02x}{:02x}".format(*mixed)
