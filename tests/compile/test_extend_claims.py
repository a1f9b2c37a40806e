"""Extensions that meet the claims of others: each is refused, or leaves theirs alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from grown_source import (
    Before,
    extended,
    prepared,
)
from oxcart.compile.engines import Part
from oxcart.compile.pipeline import _write_shards, execute_part, ignore
from oxcart.compile.workspace import drop_extension, settle
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import CLAIM, read_manifest
from oxcart.manifests.verify import verify
from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.store import Store
from sample_compile import tree


def test_a_plan_that_was_made_before_another_extension_overwrites_nothing(
    before: Before, tmp_path: Path
) -> None:
    growth, out = before.growth, before.copy(tmp_path)
    late = prepared(growth.write(tmp_path / "one more", growth.first + growth.later[:1]), out)
    extended(before.grown, out)
    whole = tree(out)
    # It has looked at the dataset before the other has replaced it, and claims it now.
    with pytest.raises(ConfigError, match="has become another dataset in the meantime; run the command"):
        _write_shards(late, Store(out), ignore)
    assert tree(out) == whole


def test_whoever_settles_late_leaves_a_later_extension_alone(before: Before, tmp_path: Path) -> None:
    growth, out = before.growth, before.copy(tmp_path)
    first = extended(growth.write(tmp_path / "one more", growth.first + growth.later[:1]), out)
    extended(before.grown, out)
    whole = tree(out)
    settle(Store(out), first)
    assert tree(out) == whole
    assert verify(Dataset.open(str(out))) == []


def test_a_claim_that_a_finished_compile_left_behind_is_in_nobodys_way(
    before: Before, after: Path, tmp_path: Path
) -> None:
    out = before.copy(tmp_path)
    made = prepared(before.grown, out)
    claim = replace(made.claim, plan=read_manifest(Store(out)).plan)
    Store(out).put(CLAIM, claim.to_bytes())
    extended(before.grown, out)
    assert tree(out) == tree(after)


def test_an_extension_that_was_finished_meanwhile_is_not_dropped(before: Before, tmp_path: Path) -> None:
    out = before.copy(tmp_path)
    claim = prepared(before.grown, out).claim
    extended(before.grown, out)
    whole = tree(out)
    Store(out).put(CLAIM, claim.to_bytes())  # whoever has finished it has not settled it yet
    with pytest.raises(ConfigError, match="its extension has been finished; run"):
        drop_extension(Store(out))
    assert {name: digest for name, digest in tree(out).items() if name != CLAIM} == whole


class KeepsClaim(Store):
    """A store that refuses to have its claim replaced."""

    def put(self, name: str, data: bytes) -> None:
        raise StoreError(f"{name}: write: refused")


class HidesClaim(Store):
    """A store that refuses to have its claim read."""

    def read(self, name: str, most: int | None = None) -> bytes:
        if name == CLAIM:
            raise StoreError(f"{name}: read: refused")
        return super().read(name, most)


@pytest.mark.parametrize("store", [KeepsClaim, HidesClaim])
def test_an_extension_whose_claim_cannot_be_taken_is_not_dropped(
    before: Before, tmp_path: Path, store: type[Store]
) -> None:
    """Its compile may be running, and would not notice that its shards are gone."""
    out = before.copy(tmp_path)
    execute_part(prepared(before.grown, out, part=Part(0, 3)))
    whole = tree(out)
    with pytest.raises(StoreError, match=f"^{CLAIM}: (write|read): refused$"):
        drop_extension(store(out))
    assert tree(out) == whole


def test_a_stale_claim_of_the_extension_itself_goes(before: Before, tmp_path: Path) -> None:
    """A kill after the manifest stands leaves work in progress behind."""
    out = before.copy(tmp_path)
    manifest = extended(before.grown, out)
    whole = tree(out)
    Store(out).put(CLAIM, json.dumps({"plan": manifest.plan, "shards": []}).encode())
    (out / "episodes.parquet").write_bytes((before.out / "episodes.parquet").read_bytes())
    extended(before.grown, out)
    assert tree(out) == whole
