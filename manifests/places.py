"""Names of environments that mean one place: as a rule joins them, and as videos that show the same do."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import joined
from oxcart.manifests.tables import ATTRIBUTION, EPISODES


def place_names(dataset: Dataset) -> dict[str, str]:
    """Name of an environment -> the name that stands for its place, for places that have several names.

    Raises:
        CorruptError: the episode table does not match its digest.
        StoreError: it cannot be read.
    """
    rule = dataset.manifest.config.get("split") or {}
    if rule.get("by") != "environment":
        return {}
    rows = [(name, *others) for name, others in (rule.get("aliases") or {}).items()]
    if (
        ATTRIBUTION in dataset.manifest.tables
        and "same_as" in (owners := dataset.table(ATTRIBUTION)).column_names
    ):
        table = dataset.table(EPISODES, ["key", "environment"])
        environments = table["environment"].take(pc.index_in(owners["key"], value_set=table["key"]))
        both = pa.table({"same_as": owners["same_as"], "environment": environments})
        known = both.filter(pc.and_(pc.is_valid(both["same_as"]), pc.is_valid(both["environment"])))
        shown: dict[str, list[str]] = {}
        for row in known.group_by(["same_as", "environment"]).aggregate([]).to_pylist():
            shown.setdefault(row["same_as"], []).append(row["environment"])
        rows += map(tuple, shown.values())
    return joined(rows)
