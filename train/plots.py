"""Figures of a run: its metrics over time, and what the model sees."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from oxcart.shards.files import WRITTEN_BY, write_file

Image = npt.NDArray[np.uint8]

CELL = 128
"""Pixels per side of an image in a grid, approximately."""
INK, FAINT = "#22313f", "#b8c4cf"
COLOURS = ("#1f77b4", "#d1603d", "#3a9a5b", "#8e5aa8", "#b8902d")


def curves(
    path: Path,
    metrics: Sequence[dict[str, Any]],
    panels: Sequence[tuple[str, str, Sequence[tuple[str, str]]]],
) -> None:
    """Draw metrics over steps.

    Args:
        path: file to write.
        metrics: lines of metrics.jsonl.
        panels: for each panel its title, the kind of its lines (`train` or `val`), and (metric, name in the
            legend) of each curve.
    """
    plt = pyplot()
    shown = [panel for panel in panels if _has(metrics, panel)]
    figure, axes = plt.subplots(
        1, max(1, len(shown)), figsize=(4.6 * max(1, len(shown)), 3.6), squeeze=False, layout="constrained"
    )
    for axis, (title, kind, names) in zip(axes[0], shown, strict=False):
        for (name, label), colour in zip(names, COLOURS, strict=False):
            points = [
                (line["step"], line[name])
                for line in metrics
                if line["kind"] == kind and line.get(name) is not None
            ]
            if not points:
                continue
            steps, values = np.array(points, np.float64).T
            if kind == "train" and len(values) > 20:
                axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
                axis.plot(steps, _smooth(values), color=colour, linewidth=1.6, label=label)
            else:
                axis.plot(steps, values, color=colour, marker="o", markersize=3, linewidth=1.4, label=label)
        if kind == "train" and all(line.get(names[0][0], 1) > 0 for line in metrics if line["kind"] == kind):
            axis.set_yscale("log")
        axis.set_title(title, color=INK, fontsize=11)
        axis.set_xlabel("step", color=INK)
        axis.grid(color=FAINT, linewidth=0.5, alpha=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    _save(plt, figure, path)


def codes(path: Path, rows: Sequence[tuple[str, Sequence[Any], Sequence[Any], Sequence[Any]]]) -> None:
    """Draw the confusion matrix of codes, and how often each code is predicted and true.

    Args:
        path: file to write.
        rows: for each row its title, the counts of true code [row] x predicted code [column], and the counts
            [n, K] of predicted and of true codes at each place.
    """
    plt = pyplot()
    size = 11, 4.2 * len(rows)
    figure, axes = plt.subplots(
        len(rows), 2, figsize=size, squeeze=False, layout="constrained", width_ratios=(1, 1.5)
    )
    for (left, right), (title, confusion, predicted, true) in zip(axes, rows, strict=True):
        counts = np.array(confusion, np.float64)
        shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
        shown = left.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        if len(counts) <= 16:
            for (i, j), share in np.ndenumerate(shares):
                if share >= 0.005:
                    colour = "white" if share > 0.6 else INK
                    left.text(j, i, f"{share:.0%}", ha="center", va="center", fontsize=6, color=colour)
        left.set(xlabel="predicted code", ylabel="true code")
        left.set_title(f"{title}: share of each true code", color=INK, fontsize=11)
        figure.colorbar(shown, ax=left, shrink=0.8)
        said, are = np.array(predicted, np.float64), np.array(true, np.float64)
        entries = said.shape[1]
        at = np.arange(said.size) + np.repeat(np.arange(len(said)), entries)  # a gap between places
        right.bar(at, said.ravel(), width=0.9, color=COLOURS[0], label="predicted")
        edges = np.stack([at - 0.5, at + 0.5], 1).ravel()
        right.step(edges, np.repeat(are.ravel(), 2), color=COLOURS[1], label="true")
        some = slice(None, None, max(1, entries // 8))
        right.set_xticks(at[some], [str(i % entries) for i in range(said.size)][some])
        right.tick_params(axis="x", labelsize=6)
        right.set_title(f"{title}: how often, place by place", color=INK, fontsize=11)
        right.spines[["top", "right"]].set_visible(False)
        right.legend(frameon=False, fontsize=8)
    _save(plt, figure, path)


def grid(path: Path, columns: Sequence[tuple[str, Image]], rows: Sequence[str], title: str) -> None:
    """Draw images side by side.

    Args:
        path: file to write.
        columns: heading and uint8 images [N, H, W, 3] of each column.
        rows: text beside each of the N rows.
        title: text above the grid.
    """
    write_file(path, grid_png(columns, rows, title))


def grid_png(columns: Sequence[tuple[str, Image]], rows: Sequence[str], title: str) -> bytes:
    """The image of `grid` as PNG; an empty title takes no space."""
    large, small = _font(17), _font(13)
    side = columns[0][1].shape[2]
    scale = max(1, CELL // side)
    cell, gap, top = side * scale, 6, 60 if title else 28
    longest = max((small.getlength(line) for text in rows for line in text.splitlines()), default=0)
    left = max(150, min(400, round(longest) + 4 * gap))
    width = max(left + len(columns) * (cell + gap) + gap, round(large.getlength(title)) + 4 * gap)
    size = width, top + len(rows) * (cell + gap) + gap
    canvas = PilImage.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((gap * 2, 10), title, fill=INK, font=large)
    for j, (heading, images) in enumerate(columns):
        x = left + j * (cell + gap)
        draw.text((x + cell / 2, top - 6), heading, fill=INK, font=small, anchor="ms")
        for i in range(len(rows)):
            one = PilImage.fromarray(np.ascontiguousarray(images[i]))
            one = one.resize((cell, cell), PilImage.Resampling.NEAREST)
            canvas.paste(one, (x, top + i * (cell + gap)))
    for i, text in enumerate(rows):
        y = top + i * (cell + gap) + cell / 2
        draw.multiline_text((gap * 2, y), text, fill=INK, font=small, anchor="lm", spacing=6)
    data = io.BytesIO()
    canvas.save(data, "png")
    return data.getvalue()


def difference(prediction: Image, target: Image, gain: float = 3.0) -> Image:
    """The difference of two images, white where they are equal."""
    apart = np.abs(prediction.astype(np.float32) - target.astype(np.float32)) * gain
    return (255 - np.clip(apart, 0, 255)).astype(np.uint8)


def _has(metrics: Sequence[dict[str, Any]], panel: tuple[str, str, Sequence[tuple[str, str]]]) -> bool:
    _, kind, names = panel
    return any(line["kind"] == kind and line.get(name) is not None for line in metrics for name, _ in names)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's font, which has the letters of most alphabets, and arrows."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A running mean over a twentieth of the values, over fewer at the ends."""
    half = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    found: npt.NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)
    return found


def pyplot() -> Any:
    """matplotlib.pyplot, set to draw without a display."""
    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False  # names are names, dollars and all
    import matplotlib.pyplot as plt  # takes half a second, which a run that draws nothing need not wait

    return plt


def metadata(suffix: str) -> dict[str, str | None]:
    """Metadata of a plot: its author but no time, so that the same values give the same bytes."""
    if suffix.lower() == ".png":
        return {"Software": WRITTEN_BY}
    return {"Creator": WRITTEN_BY, "CreationDate" if suffix.lower() == ".pdf" else "Date": None}


def _save(plt: Any, figure: Any, path: Path) -> None:
    data = io.BytesIO()
    try:
        figure.savefig(data, dpi=130, format=path.suffix[1:].lower(), metadata=metadata(path.suffix))
    finally:
        plt.close(figure)
    write_file(path, data.getvalue())
