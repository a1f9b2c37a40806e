"""What is written is read again, the same values give the same bytes, and other files are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxcart.manifests.annotation import Annotation, read_annotation, write_annotation
from oxcart.manifests.tables import table_bytes
from oxcart.shards.errors import CorruptError, StoreError


def annotation(values: dict[str, Any]) -> Annotation:
    return Annotation(name="codes", producer="p" * 64, dataset="d" * 64, parameters={"k": 5}, values=values)


@pytest.mark.parametrize(
    "values",
    [
        {"b": np.array([1.5, 2.5], np.float32), "a": np.array([0.5], np.float32)},
        {"b": np.arange(8).reshape(2, 4), "a": np.arange(12).reshape(3, 4)},
        {"a": np.array([3, 1], np.int16)},
        {"a": np.array([True, False])},
        {},
    ],
)
def test_what_is_written_is_read(tmp_path: Path, values: dict[str, Any]) -> None:
    write_annotation(str(tmp_path / "x.parquet"), annotation(values))
    found = read_annotation(str(tmp_path / "x.parquet"))
    assert (found.name, found.producer, found.dataset, found.parameters) == (
        "codes",
        "p" * 64,
        "d" * 64,
        {"k": 5},
    )
    assert sorted(found.values) == sorted(values)
    for key, expected in values.items():
        assert found.values[key].dtype == expected.dtype
        assert np.array_equal(found.values[key], expected)


def test_the_order_of_episodes_changes_no_byte(tmp_path: Path) -> None:
    values = {"a": np.arange(3), "b": np.arange(4)}
    write_annotation(str(tmp_path / "x"), annotation(values))
    write_annotation(str(tmp_path / "y"), annotation(dict(reversed(values.items()))))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_other_files_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa

    (tmp_path / "table").write_bytes(table_bytes(pa.table({"key": ["a"], "value": [[1]]})))
    (tmp_path / "text").write_text("no Parquet")
    for name in ("table", "text"):
        with pytest.raises(CorruptError, match=f"{name}: not a"):
            read_annotation(str(tmp_path / name))
    with pytest.raises(StoreError, match="absent: read: No such file"):
        read_annotation(str(tmp_path / "absent"))
