"""Infer the scenes of a source, and write them as a table that people can correct and a compile can read."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from oxcart.compile.scenes.backgrounds import Background
from oxcart.compile.scenes.cluster import MOST, THRESHOLD, agreement, alike, group, members_of
from oxcart.compile.sources.base import Source
from oxcart.manifests.tables import table_bytes
from oxcart.shards.errors import SourceError

METADATA = b"oxcart.scenes"
"""Key of the schema's metadata that says how the scenes were made."""
BINS = 50
"""Bins of the histograms of likeness, from 0 to 1."""
COMPARED = 100
"""Episodes of a scene among which its medoid is found."""
PLOTTED = 500
"""Episodes whose pairs the histograms count."""
CLOSEST = 20
"""Pairs of scenes that are listed, the most alike first."""

Report = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """The scenes of a source."""

    dataset: str
    """Name of the dataset."""
    camera: str
    """Camera that was looked through."""
    threshold: float
    """Likeness, from 0 to 1, above which groups of episodes are one scene."""
    rows: list[dict[str, Any]]
    """Census rows of the episodes."""
    numbered: bool
    """Whether the source numbers its episodes, as one LeRobot dataset does."""
    labels: npt.NDArray[np.intp]
    """[E]: number of the scene of each episode; -1 if nothing is seen."""
    reasons: Mapping[str, int]
    """Why nothing is seen -> episodes."""
    fit: npt.NDArray[np.float32]
    """[E]: likeness, from 0 to 1, of each episode to the medoid of its scene; NaN if it has none."""
    medoids: tuple[int, ...]
    """Of each scene, the episode that is most like others of it; of at most `COMPARED` episodes."""
    within: tuple[int, ...]
    """Pairs of episodes of one scene, by likeness, in `BINS` bins; of at most `PLOTTED` episodes."""
    between: tuple[int, ...]
    """The same of different scenes."""
    closest: tuple[tuple[int, int, float], ...]
    """Pairs of scenes and their likeness, the most alike first."""
    agreement: Mapping[str, Any] | None
    """How scenes agree with the environments that the source knows; None if it knows none."""

    @property
    def count(self) -> int:
        """Number of scenes."""
        return len(self.medoids)

    def members(self, scene: int) -> npt.NDArray[np.intp]:
        """The episodes of a scene, the most like its medoid first."""
        own = np.flatnonzero(self.labels == scene)
        return own[np.argsort(-self.fit[own], kind="stable")]

    def table(self) -> pa.Table:
        """One row per episode, as `--environment-table` reads it."""
        names = {"key": pa.array([row["key"] for row in self.rows])}
        if self.numbered:
            numbers = [row["source_record"] for row in self.rows]
            names = {"episode_index": pa.array(numbers, pa.int64()), **names}
        columns = {
            **names,
            "environment": pa.array([scene_name(one) for one in self.labels.tolist()], pa.string()),
            "environment_known": pa.array(["inferred" if one >= 0 else "unknown" for one in self.labels]),
            "likeness": pa.array(np.round(self.fit.astype(np.float64), 4), mask=np.isnan(self.fit)),
        }
        about = {"dataset": self.dataset, "camera": self.camera, "threshold": self.threshold}
        return pa.table(columns).replace_schema_metadata({METADATA: json.dumps(about)})

    def to_bytes(self, name: str) -> bytes:
        """The table as a file: CSV if its name says so, else Parquet."""
        table = self.table()
        if not name.lower().endswith(".csv"):
            return table_bytes(table)
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(table.column_names)
        lines.writerows(zip(*(table[column].to_pylist() for column in table.column_names), strict=True))
        return text.getvalue().encode()


def scene_name(scene: int) -> str | None:
    """The name of a scene as an environment; None for none."""
    return f"scene-{scene + 1:04d}" if scene >= 0 else None


def infer_scenes(
    source: Source,
    rows: list[dict[str, Any]],
    seen: Sequence[Background],
    threshold: float = THRESHOLD,
    workers: int = 1,
    report: Report = lambda done: None,
) -> Scenes:
    """Group the episodes of a source.

    Args:
        source: the source.
        rows: the census rows of the episodes.
        seen: their backgrounds, from `read_backgrounds`.
        threshold: likeness, from 0 to 1, above which groups of episodes are one scene.
        workers: number of threads.
        report: called with the number of episodes grouped so far.

    Raises:
        SourceError: no episode shows anything.
    """
    shown = np.array([i for i, one in enumerate(seen) if one.median is not None], np.intp)
    reasons = Counter(one.reason for one in seen if one.reason is not None)
    if not len(shown):
        why = reasons.most_common(1)[0][0] if reasons else "there is no episode"
        raise SourceError(f"no episode shows anything: {why}", file=rows[0]["source_file"] if rows else "")
    thumbs = np.stack([one.median for one in seen if one.median is not None])
    own = group(thumbs, threshold, workers, report)
    labels = np.full(len(rows), -1, np.intp)
    labels[shown] = own
    medoids, fit = [], np.full(len(rows), np.nan, np.float32)
    for scene in range(int(own.max()) + 1):
        members = np.flatnonzero(own == scene)
        some = members_of(members, COMPARED)
        medoid = some[alike(thumbs[some], thumbs[some], workers).sum(1).argmax()]
        fit[shown[members]] = np.tanh(alike(thumbs[members], thumbs[[medoid]], workers)[:, 0])
        medoids.append(int(medoid))
    some = members_of(np.arange(len(thumbs)), PLOTTED)
    every = np.tanh(alike(thumbs[some], thumbs[some], workers))
    pair = np.triu(np.ones(every.shape, np.bool_), 1)
    same = own[some][:, None] == own[some]
    stand = medoids[:MOST]
    nearest = np.tanh(alike(thumbs[stand], thumbs[stand], workers))
    known = np.array([rows[i]["environment"] is not None for i in shown], np.bool_)
    names = [rows[i]["environment"] for i in shown[known]]
    return Scenes(
        dataset=source.name,
        camera=source.cameras[0].name,
        threshold=threshold,
        rows=rows,
        numbered=source.origin == "lerobot" and not source.describe()["source_splits"],
        labels=labels,
        reasons=dict(reasons),
        fit=fit,
        medoids=tuple(shown[medoids].tolist()),
        within=_histogram(every[pair & same]),
        between=_histogram(every[pair & ~same]),
        closest=tuple(_closest(nearest)),
        agreement=agreement(own[known], names) if names else None,
    )


def _histogram(values: npt.NDArray[np.float32]) -> tuple[int, ...]:
    counts = np.histogram(np.clip(values, 0, 1), BINS, (0, 1))[0]
    return tuple(counts.tolist())


def _closest(nearest: npt.NDArray[np.float32]) -> list[tuple[int, int, float]]:
    one, other = np.triu_indices(len(nearest), 1)
    order = np.argsort(-nearest[one, other], kind="stable")[:CLOSEST]
    return [(int(one[i]), int(other[i]), round(float(nearest[one[i], other[i]]), 4)) for i in order]
