"""How a notebook shows a dataset and an episode: a few lines of HTML, with a strip of frames for an episode.

All texts are escaped and cut, and images are embedded, so a cell stays small and fetches nothing.
"""

from __future__ import annotations

from html import escape

from oxcart.manifests.dataset import Dataset, Episode
from oxcart.manifests.show import data_uri, strip
from oxcart.shards.errors import OxcartError
from oxcart.shards.text import cut

NAME, TEXT, LIST = 80, 200, 400
"""Maximum letters of a name, of a text, and of a list of names."""


def dataset_html(dataset: Dataset) -> str:
    """Name, place, cameras and arrays of a dataset, and a table of its splits."""
    manifest = dataset.manifest
    named = manifest.dataset
    cameras = (
        f"{one['name']} ({one['height'] or 'any'} x {one['width'] or 'any'}, {one['codec']})"
        for one in manifest.cameras
    )
    arrays = (f"{name} [T, {width}]" for name, width in manifest.widths.items())
    rate = manifest.control_rate
    head = "<tr>" + "".join(f"<th>{what}</th>" for what in ("split", "episodes", "steps", "frames")) + "</tr>"
    rows = (
        f"<tr><td>{escape(split)}</td>"
        + "".join(f"<td>{counts[what]:,}</td>" for what in ("episodes", "steps", "frames"))
        + "</tr>"
        for split, counts in manifest.splits.items()
    )
    return _block(
        f"<b>{_text(named['name'] + ' ' + named['version'], NAME)}</b>, {_text(dataset.store.url, TEXT)}",
        f"{len(dataset):,} episodes in {len(manifest.environments):,} environments"
        + (f", {rate['hz']:g} steps per second" if rate else ""),
        _text("cameras: " + ", ".join(cameras), LIST),
        _text("arrays: " + (", ".join(arrays) or "none"), LIST),
        f"<table>{head}{''.join(rows)}</table>",
    )


def episode_html(episode: Episode) -> str:
    """Key, split, environment and instruction of an episode, and a strip of its primary camera."""
    facts = [
        episode.split,
        cut(episode.environment or "unknown environment", NAME),
        f"session {cut(episode.session, NAME)}" if episode.session else "",
        f"{episode.steps:,} steps",
        f"{episode.control_rate:g} per second" if episode.control_rate else "",
        {True: "succeeded", False: "failed", None: ""}[episode.success],
    ]
    try:
        frames = episode.frames()
        drawn = f'alt="{_text(frames.camera, NAME)}" src="{data_uri(strip(frames))}"'
        shown = f'<img style="max-width:100%" {drawn}>'
    except OxcartError as error:
        shown = f"no frames: {_text(str(error), LIST)}"
    return _block(
        f"<b>{_text(episode.key, NAME)}</b>",
        _text(" · ".join(filter(None, facts)), LIST),
        _text(f"“{episode.instruction}”" if episode.instruction else "no instruction", TEXT),
        shown,
    )


def _text(text: str, most: int) -> str:
    return escape(cut(text, most))


def _block(*lines: str) -> str:
    return "<div>" + "".join(f"<div>{line}</div>" for line in lines) + "</div>"
