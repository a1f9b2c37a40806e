"""A source that grows: the records of a sample, any of which can be written as a TFDS directory again.

growth = Growth.of(tmp_path)
before = growth.write(tmp_path / "before", growth.first)
after = growth.write(tmp_path / "after", growth.first + growth.later)
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tensorflow_datasets.proto import tf_example_pb2
from xxhash import xxh3_64_intdigest

from oxcart.compile.extend import adopt, prepare
from oxcart.compile.pipeline import CompileConfig, Prepared, execute
from oxcart.compile.sample.rlds import NAME, VERSION, RldsSampleConfig, write_rlds
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.sources.rlds import tfrecord
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import Manifest, read_manifest
from oxcart.manifests.verify import verify
from oxcart.shards.store import WORK, Store
from sample_compile import Tree, rows_of, tree

Record = bytes


@dataclass(frozen=True)
class Growth:
    """The records of six kitchens."""

    root: Path
    """The sample that they are of."""
    first: list[Record]
    """Three episodes of each of five kitchens."""
    later: list[Record]
    """One more of each of those, and four of a sixth kitchen."""

    @classmethod
    def of(cls, folder: Path) -> Growth:
        """Write the sample."""
        sample = RldsSampleConfig(kitchens=6, sessions=2, episodes=2, steps=4, size=32, files=1)
        root = write_rlds(folder, sample)
        files = sorted(path.name for path in root.glob("*.tfrecord*"))
        records = [bytes(r.data) for file in files for r in tfrecord.scan(Store(root), file) if not r.last]
        of: dict[str, list[Record]] = {}
        for record in records:
            of.setdefault(kitchen(record), []).append(record)
        known, new = sorted(of)[:5], sorted(of)[5]
        first = [record for name in known for record in of[name][:-1]]
        return cls(root, first, [*(of[name][-1] for name in known), *of[new]])

    def write(self, folder: Path, records: Sequence[Record], files: int = 2, **info: Any) -> Path:
        """A source of these records, in order and spread over files; `info` changes `dataset_info.json`."""
        target = folder / NAME / VERSION
        target.mkdir(parents=True)
        shutil.copy(self.root / "features.json", target)
        cuts = [len(records) * i // files for i in range(files + 1)]
        for i in range(files):
            with open(target / f"{NAME}-train.tfrecord-{i:05d}-of-{files:05d}", "wb") as file:
                for record in records[cuts[i] : cuts[i + 1]]:
                    tfrecord.write_record(file, record)
        stated = json.loads((self.root / "dataset_info.json").read_text())
        split = {
            **stated["splits"][0],
            "shardLengths": [str(b - a) for a, b in pairwise(cuts)],
        }
        (target / "dataset_info.json").write_text(json.dumps({**stated, "splits": [split], **info}))
        return target


def example(record: Record) -> Any:
    return tf_example_pb2.Example.FromString(record)


def kitchen(record: Record) -> str:
    """The environment of a record."""
    return re.search(r"bridge_data_v2/([^/]+)/", path_of(record))[1]  # type: ignore[index]


def path_of(record: Record) -> str:
    return example(record).features.feature["episode_metadata/file_path"].bytes_list.value[0].decode()


def moved(record: Record, path: str) -> Record:
    """The record, recorded somewhere else: another record that shows and does the same."""
    return changed(
        record,
        lambda feature: feature["episode_metadata/file_path"].bytes_list.value.__setitem__(0, path.encode()),
    )


def changed(record: Record, edit: Callable[[Any], None]) -> Record:
    found = example(record)
    edit(found.features.feature)
    data: bytes = found.SerializeToString(deterministic=True)
    return data


def digest(record: Record) -> int:
    return xxh3_64_intdigest(record)


HELD_OUT = "laundry_machine"
"""The kitchen of the first compile that is val."""


@dataclass(frozen=True)
class Before:
    """A dataset of the first records, and its source when it has grown."""

    growth: Growth
    out: Path
    manifest: Manifest
    grown: Path

    def copy(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.out, folder / "out"))


def prepared(
    source: Path | str, out: Path | str, given: dict[str, Any] | None = None, **changes: Any
) -> Prepared:
    options = {"source": SourceConfig(url=str(source)), "out": str(out), "workers": 1, **changes}
    return prepare(adopt(CompileConfig(**options), given or {}))


def extended(
    source: Path | str, out: Path | str, given: dict[str, Any] | None = None, **changes: Any
) -> Manifest:
    return execute(prepared(source, out, given, **changes))


def episodes(out: Path) -> list[dict[str, Any]]:
    return Dataset.open(str(out)).table("episodes.parquet").to_pylist()


def shards(found: Tree) -> Tree:
    return {name: one for name, one in found.items() if name.startswith("shards/")}


def assert_extends(out: Path, manifest: Manifest, old: Before, records: Sequence[Record]) -> None:
    """The dataset has these records, once each, and what it had it has still."""
    assert shards(tree(old.out)).items() <= shards(tree(out)).items()
    assert verify(Dataset.open(str(out)), decode=True) == []
    assert not (out / WORK).exists()
    assert {"manifest.json", *(manifest.file(name) for name in manifest.tables)} == {
        path.name for path in out.iterdir() if path.is_file()
    }
    assert manifest == read_manifest(Store(out))
    assert manifest.config["parents"][-1] == old.manifest.fingerprint != manifest.fingerprint
    assert manifest.order != old.manifest.order
    rows = {row["key"]: row for row in episodes(out)}
    assert {row["key"]: row for row in rows_of(old.out)}.items() <= rows.items()
    assert Counter(row["source_digest"] for row in rows.values()) == Counter(map(digest, records))
    split_of = {(row["environment"], row["split"]) for row in rows.values()}
    assert len(split_of) == len({environment for environment, _ in split_of}), (
        "an environment is in two splits"
    )
