"""Figures of a run: its metrics over time, and what the model sees."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib import ticker
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from oxcart.manifests.show import encode_image
from oxcart.shards.files import WRITTEN_BY, write_file

Image = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]

CELL = 128
"""Pixels per side of an image in a grid, approximately."""
INK, FAINT = "#22313f", "#b8c4cf"
COLOURS = ("#1f77b4", "#d1603d", "#3a9a5b", "#8e5aa8", "#b8902d")
STYLES = ("-", "--", ":", "-.")
"""Styles of the lines after each round of the colours."""
IN_A_ROW = 3
"""Maximum number of panels side by side."""
POWERS = 500
"""Ratio of the ends of a logarithmic axis above which powers of ten are ticks enough."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """A panel of curves over steps: one quantity, on one axis."""

    title: str
    quantity: str
    """Label of the axis of values: the quantity with its unit."""
    kind: str
    """Lines of metrics.jsonl that have the metrics: `train` or `val`."""
    lines: Sequence[tuple[str, str]]
    """(metric, name in the legend) of each curve."""
    ends: tuple[float | None, float | None] = (None, None)
    """Ends of the axis that the quantity has by nature; None follows the values."""


@dataclass(frozen=True, kw_only=True)
class _Curve:
    """The values of a metric that a run has, and how they are drawn."""

    name: str
    steps: Values
    values: Values
    look: Mapping[str, Any]


def curves(path: Path, metrics: Sequence[dict[str, Any]], panels: Sequence[Curves]) -> None:
    """Draw metrics over steps.

    Args:
        path: file to write.
        metrics: lines of metrics.jsonl.
        panels: panels; those without a value are left out.
    """
    save(curves_figure(metrics, panels), path)


def curves_figure(metrics: Sequence[dict[str, Any]], panels: Sequence[Curves]) -> Any:
    """The figure of `curves`."""
    drawn = [(panel, found) for panel in panels if (found := _found(metrics, panel))]
    columns = min(max(1, len(drawn)), IN_A_ROW)
    rows = max(1, -(-len(drawn) // columns))
    size = 4.6 * columns, 3.6 * rows
    figure, axes = pyplot().subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis, (panel, found) in zip(axes.flat, drawn, strict=False):
        if all(len(curve.steps) == 1 for curve in found):
            _draw_values(axis, panel, found)
        else:
            _draw_curves(axis, panel, found)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(drawn) :]:
        axis.set_axis_off()
    return figure


def _found(metrics: Sequence[dict[str, Any]], panel: Curves) -> list[_Curve]:
    """The curves of a panel that have a value."""
    found = []
    for i, (metric, name) in enumerate(panel.lines):
        points = [
            (line["step"], line[metric])
            for line in metrics
            if line["kind"] == panel.kind and line.get(metric) is not None
        ]
        if points:
            steps, values = np.array(points, np.float64).T
            look = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i // len(COLOURS) % len(STYLES)]}
            found.append(_Curve(name=name, steps=steps, values=values, look=look))
    return found


def _draw_curves(axis: Any, panel: Curves, found: Sequence[_Curve]) -> None:
    training = panel.kind == "train"
    for curve in found:
        if training and len(curve.values) > 20:
            axis.plot(curve.steps, curve.values, **curve.look, alpha=0.25, linewidth=0.8)
            axis.plot(curve.steps, _smooth(curve.values), **curve.look, linewidth=1.6, label=curve.name)
        else:
            axis.plot(
                curve.steps,
                curve.values,
                **curve.look,
                marker="o",
                markersize=3,
                linewidth=1.4,
                label=curve.name,
            )
    if training and all((curve.values > 0).all() for curve in found):
        axis.set_yscale("log")
    else:
        low, high = (
            value if end is None else end for end, value in zip(panel.ends, axis.get_ylim(), strict=True)
        )
        axis.set_ylim(low, high + 0.04 * (high - low))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_title(panel.title, color=INK, fontsize=11)
    axis.set_xlabel("step", color=INK)
    axis.set_ylabel(panel.quantity, color=INK)
    axis.grid(color=FAINT, linewidth=0.5, alpha=0.6)
    axis.legend(frameon=False, fontsize=8)


def _draw_values(axis: Any, panel: Curves, found: Sequence[_Curve]) -> None:
    """Draw values of one step, which are no curve: a bar from 0 for each, with the value beside it."""
    steps = {int(curve.steps[0]) for curve in found}
    one = f", step {steps.pop():,}" if len(steps) == 1 else ""
    names = [curve.name if one else f"{curve.name}\nstep {int(curve.steps[0]):,}" for curve in found]
    values = [float(curve.values[0]) for curve in found]
    low, high = min(0.0, *values), max(0.0, *values)
    reach = (high - low) or 1.0
    right = panel.ends[1] or high + 0.25 * reach  # room for the number
    for row, (curve, value) in enumerate(zip(found, values, strict=True)):
        axis.barh(row, value, height=0.5, color=curve.look["color"], alpha=0.75)
        inside = value > low + 0.85 * (right - low)
        axis.annotate(
            plain_number(float(f"{value:.3g}")),
            (max(value, 0), row),
            (-5 if inside else 5, 0),
            textcoords="offset points",
            ha="right" if inside else "left",
            va="center",
            fontsize=9,
            color="white" if inside else INK,
        )
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_xlim(low - 0.05 * reach if low else 0, right)
    middle = (len(found) - 1) / 2
    axis.set_ylim(middle + max(1.5, middle + 0.5), middle - max(1.5, middle + 0.5))
    axis.set_yticks(range(len(found)), names, fontsize=8)
    axis.set_title(f"{panel.title}{one}", color=INK, fontsize=11)
    axis.set_xlabel(panel.quantity, color=INK)
    axis.tick_params(axis="y", length=0)


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
        left.set_title(f"{title}: what is predicted for each code", color=INK, fontsize=11)
        figure.colorbar(shown, ax=left, shrink=0.8, label="share of the samples with the true code")
        said, are = np.array(predicted, np.float64), np.array(true, np.float64)
        entries = said.shape[1]
        at = np.arange(said.size) + np.repeat(np.arange(len(said)), entries)  # a gap between places
        right.bar(at, said.ravel(), width=0.9, color=COLOURS[0], label="predicted")
        edges = np.stack([at - 0.5, at + 0.5], 1).ravel()
        right.step(edges, np.repeat(are.ravel(), 2), color=COLOURS[1], label="true")
        some = slice(None, None, max(1, entries // 8))
        right.set_xticks(at[some], [str(i % entries) for i in range(said.size)][some])
        right.tick_params(axis="x", labelsize=6)
        right.set(xlabel="code, token by token", ylabel="samples")
        right.set_title(f"{title}: how often each code occurs", color=INK, fontsize=11)
        right.spines[["top", "right"]].set_visible(False)
        right.legend(frameon=False, fontsize=8)
    save(figure, path)


def grid(
    path: Path, columns: Sequence[tuple[str, Image]], rows: Sequence[str], title: str, caption: str = ""
) -> None:
    """Draw images side by side.

    Args:
        path: file to write.
        columns: heading and uint8 images [N, H, W, 3] of each column.
        rows: text beside each of the N rows.
        title: text above the grid.
        caption: text below the grid.
    """
    write_file(path, grid_png(columns, rows, title, caption))


def grid_png(
    columns: Sequence[tuple[str, Image]], rows: Sequence[str], title: str, caption: str = ""
) -> bytes:
    """The image of `grid` as PNG; an empty title or caption takes no space."""
    large, small = _font(17), _font(13)
    side = columns[0][1].shape[2]
    scale = max(1, CELL // side)
    cell, gap, top = side * scale, 6, 60 if title else 28
    longest = max((small.getlength(line) for text in rows for line in text.splitlines()), default=0)
    left = max(150, min(400, round(longest) + 4 * gap))
    width = max(left + len(columns) * (cell + gap) + gap, round(large.getlength(title)) + 4 * gap)
    below = top + len(rows) * (cell + gap) + gap
    lines = _wrapped(caption, small, width - 4 * gap)
    size = width, below + (len(lines) * 19 + gap if lines else 0)
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
    for i, line in enumerate(lines):
        draw.text((gap * 2, below + i * 19), line, fill=INK, font=small)
    return encode_image(canvas, ".png")


def difference(prediction: Image, target: Image, gain: float = 3.0) -> Image:
    """The difference of two images, white where they are equal."""
    apart = np.abs(prediction.astype(np.float32) - target.astype(np.float32)) * gain
    return (255 - np.clip(apart, 0, 255)).astype(np.uint8)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's font, which has the letters of most alphabets, and arrows."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Lines of a text that are at most as many pixels wide, where no word is wider."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _smooth(values: Values) -> Values:
    """A running mean over a twentieth of the values, over fewer at the ends."""
    half = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    found: Values = (sums[high] - sums[low]) / (high - low)
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


def save(figure: Any, path: Path, dpi: int = 130) -> None:
    """Write a figure of matplotlib, and close it."""
    write_file(path, render(figure, path.suffix, dpi))


def render(figure: Any, suffix: str = ".png", dpi: int = 110) -> bytes:
    """The bytes of a figure of matplotlib with plain ticks, which is closed."""
    data = io.BytesIO()
    try:
        for axis in figure.axes:
            plain_ticks(axis)
        figure.savefig(data, dpi=dpi, format=suffix[1:].lower(), metadata=metadata(suffix), facecolor="white")
    finally:
        pyplot().close(figure)
    return data.getvalue()


def plain_ticks(axis: Any) -> None:
    """Give the numbers of an axis plain digits, and a logarithmic axis a few ticks, however short it is.

    matplotlib writes formulas (`$10^{-3}$`), which `pyplot` turns off, and sums such as `1e-5 + 0.3`.
    """
    for one, ends in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
        if one.get_scale() == "log":
            one.set_minor_locator(ticker.NullLocator())
            if one.get_transform().base == 10:
                one.set_major_locator(_log_ticks(*sorted(ends)))
        if isinstance(one.get_major_formatter(), ticker.ScalarFormatter | ticker.LogFormatter):
            one.set_major_formatter(ticker.FuncFormatter(lambda value, _: plain_number(value)))


def _log_ticks(low: float, high: float) -> Any:
    """Powers of ten, or 1, 2 and 5 times these, or even steps: whichever gives a few ticks."""
    if high / low > POWERS:
        return ticker.LogLocator(numticks=7)
    halves = ticker.LogLocator(subs=(1, 2, 5))
    inside = [value for value in halves.tick_values(low, high) if low <= value <= high]
    return halves if len(inside) > 2 else ticker.MaxNLocator(4)


def plain_number(value: float) -> str:
    """A number in plain digits, or as `2.5e-7` where these would be many."""
    exact = float(f"{value:.12g}")  # without the rounding errors of sums such as 0.1 + 0.2
    if exact == 0 or 1e-4 <= abs(exact) < 1e9:
        return f"{exact:,.12f}".rstrip("0").rstrip(".")
    mantissa, _, exponent = f"{exact:.11e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
