"""Work in progress that was damaged where it lay or on its way back is noticed, whichever bit it is."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from oxcart.compile.pipeline import execute, finish, prepare
from oxcart.compile.workspace import (
    CENSUS,
    read_done,
    read_sealed,
    saved_census,
    seal,
    unfinished_claim,
)
from oxcart.manifests.manifest import CLAIM
from oxcart.manifests.tables import parse_table, table_bytes
from oxcart.shards.errors import OxcartError
from oxcart.shards.names import rows_name
from oxcart.shards.store import Store
from sample_compile import Compiled, config_of, one_line, stopped, tree

FLIPS = 200
"""Of each file."""


@pytest.fixture(scope="module")
def unfinished(whole: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a commit needs."""
    out = tmp_path_factory.mktemp("unfinished") / "out"
    stopped(config_of(whole.source, out), whole.manifest.splits["train"]["frames"] + 1)
    return out


def claim_of(store: Store) -> Any:
    return unfinished_claim(store)


def census_of(store: Store) -> Any:
    found = saved_census(store)
    return found.source, found.sizes, found.table.to_pylist()


def rows_of(store: Store) -> Any:
    done = read_done(store, "train-00000", unfinished_claim(store).plan)
    tables = done and [done.episodes.to_pylist(), done.values.to_pylist()]
    return done and (done.shard, tables, done.rejected, done.moments)


@pytest.mark.parametrize(
    ("name", "read"), [(CLAIM, claim_of), (CENSUS, census_of), (rows_name("train-00000"), rows_of)]
)
def test_no_bit_of_it_turns_unnoticed(unfinished: Path, name: str, read: Callable[[Store], Any]) -> None:
    store, file = Store(unfinished), unfinished / name
    data, expected = file.read_bytes(), read(Store(unfinished))
    assert expected
    choose = random.Random(name)
    believed = []
    try:
        for place in sorted(choose.sample(range(8 * len(data)), FLIPS)):
            damaged = bytearray(data)
            damaged[place // 8] ^= 1 << place % 8
            file.write_bytes(damaged)
            try:
                found = read(store)
            except OxcartError as error:
                one_line(error)
            else:
                if found is not None and found != expected:
                    believed.append(place)
    finally:
        file.write_bytes(data)
    assert not believed, f"{len(believed)} of {FLIPS} flips were believed"


@pytest.mark.parametrize("name", [CENSUS, rows_name("train-00000"), rows_name("train-00004")])
def test_what_is_damaged_is_said_by_a_commit_and_made_again_by_a_compile(
    whole: Compiled, unfinished: Path, tmp_path: Path, name: str
) -> None:
    out = Path(copytree(unfinished, tmp_path / "out"))
    data = (out / name).read_bytes()
    (out / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(
        OxcartError, match=r"is damaged, or is still being written|shards are not there yet"
    ) as caught:
        finish(str(out))
    one_line(caught.value)
    assert execute(prepare(config_of(whole.source, out))) == whole.manifest
    assert tree(out) == whole.tree


@pytest.mark.parametrize("field", ["plan", "shard", "rejected", "again", "swapped", "moments"])
def test_a_mark_of_a_version_that_wrote_less_is_a_shard_that_is_not_done(
    unfinished: Path, tmp_path: Path, field: str
) -> None:
    store, name = Store(copytree(unfinished, tmp_path / "out")), rows_name("train-00000")
    plan = unfinished_claim(store).plan
    assert read_done(store, "train-00000", plan) is not None
    data = read_sealed(store, name)
    end = 8 + int.from_bytes(data[:8])
    table = parse_table(data[end:], name)
    value = json.loads(table.schema.metadata[b"oxcart.shard"])
    del value[field]
    table = table.replace_schema_metadata({b"oxcart.shard": json.dumps(value)})
    store.put(name, seal(data[:end] + table_bytes(table)))
    assert read_done(store, "train-00000", plan) is None
