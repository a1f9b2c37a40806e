"""What the videos and the images of a camera must have in common, which only all files together tell."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from oxcart.compile.sources.base import Camera
from oxcart.manifests.canonical import canonical_json

_CODECS = re.compile('"codec":("[a-z0-9]+")')


def of_one_size(table: pa.Table, cameras: Sequence[Camera]) -> pa.Table:
    """Census rows in which episodes are rejected whose frames have another size than those of most."""
    rejected = table["rejected"].to_pylist()
    before = rejected.copy()
    for camera in cameras:
        sides = (table[f"{camera.name}.{side}"].to_pylist() for side in ("height", "width"))
        sizes = list(zip(*sides, strict=True))
        usual = _most(size for size, why in zip(sizes, rejected, strict=True) if why is None)
        for place, size in enumerate(sizes):
            if rejected[place] is None and size != usual:
                rejected[place] = (
                    f"camera {camera.name} has frames of {size[0]}x{size[1]} pixels, in most episodes they "
                    f"have {usual[0]}x{usual[1]}"
                )
    return table if rejected == before else _replaced(table, "rejected", rejected)


def of_one_codec(table: pa.Table, cameras: Iterable[str]) -> pa.Table:
    """Census rows which say that videos cannot be passed through whose codec is not that of most.

    Args:
        table: census rows.
        cameras: those whose frames are in videos.
    """
    texts = table["detail"].to_pylist()
    if len({tuple(_CODECS.findall(text)) for text in texts if text}) < 2:
        return table
    details: list[dict[str, Any] | None] = [json.loads(text) if text else None for text in texts]
    there = [(place, one["videos"]) for place, one in enumerate(details) if one]
    for camera in cameras:
        usual = _most(videos[camera]["codec"] for _, videos in there)
        for place, videos in there:
            codec = videos[camera]["codec"]
            if codec != usual:
                videos[camera] |= {"group": None, "why": f"its codec is {codec}, that of most is {usual}"}
                texts[place] = canonical_json(details[place]).decode()
    return _replaced(table, "detail", texts)


def _most(values: Iterable[Any]) -> Any:
    """The most frequent value, the first of them if there are several; None if there is no value."""
    counts = Counter(values)
    return max(counts, key=lambda value: counts[value], default=None)


def _replaced(table: pa.Table, name: str, values: list[str | None]) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), pa.array(values, pa.string()))
