"""A source that grows: the records of a sample, any of which can be written as a TFDS directory again.

growth = Growth.of(tmp_path)
before = growth.write(tmp_path / "before", growth.first)
after = growth.write(tmp_path / "after", growth.first + growth.later)
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tensorflow_datasets.proto import tf_example_pb2
from xxhash import xxh3_64_intdigest

from oxcart.compile.sample.rlds import NAME, VERSION, SampleConfig, write_rlds
from oxcart.compile.sources import tfrecord
from oxcart.shards.store import Store

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
        sample = SampleConfig(kitchens=6, sessions=2, episodes=2, steps=4, size=32, files=1)
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
