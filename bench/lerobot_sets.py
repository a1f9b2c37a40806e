"""LeRobot datasets for bench/lerobot.py: simulated episodes, in AV1 with a key frame every second frame."""

from __future__ import annotations

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from oxcart.cli.main import oxcart
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds

INFO = "meta/info.json"
CAMERA = "observation.images.image_0"
DATA, VIDEO = "data/chunk-000/file-{:03d}.parquet", "videos/{}/chunk-000/file-{:03d}.mp4"


def write_set(scratch: Path, episodes: int) -> Path:
    """A dataset of so many episodes of about 38 steps, written once."""
    root = scratch / f"lerobot-{episodes}"
    if (root / "set" / INFO).exists():
        return root / "set"
    shutil.rmtree(root, ignore_errors=True)
    sample = RldsSampleConfig(kitchens=10, sessions=2, episodes=max(1, episodes // 20), steps=38, size=256)
    source = write_rlds(root / "source", sample)
    run("compile", source, root / "av1", "--codec", "av1", "--val", "none")
    run("export", "lerobot", root / "av1", root / "export")
    return repeated(root / "export" / "train", root / "set", 1)


def repeated(base: Path, out: Path, times: int, *, apart: bool = False) -> Path:
    """A dataset of the same episodes, so many times. Its videos are other names of the same files.

    Args:
        base: the dataset.
        out: the folder to write.
        times: how often each episode occurs.
        apart: whether each episode has a row group of its own, as LeRobot writes it.
    """
    if (out / INFO).exists():
        return out
    shutil.rmtree(out, ignore_errors=True)
    info = json.loads((base / INFO).read_text())
    table = pq.read_table(base / "meta/episodes")
    table = table.drop_columns([name for name in table.column_names if name.startswith("oxcart/")])
    count, steps = info["total_episodes"], info["total_frames"]
    files = 1 + max(table["data/file_index"].to_pylist())
    films = 1 + max(table[f"videos/{CAMERA}/file_index"].to_pylist())
    tables = []
    for time in range(times):
        shifts = {"episode_index": time * count, "data/file_index": time * files}
        shifts |= {"dataset_from_index": time * steps, "dataset_to_index": time * steps}
        tables.append(_shifted(table, shifts | {f"videos/{CAMERA}/file_index": time * films}))
        for number in range(files):
            shifts = {"episode_index": time * count, "index": time * steps}
            _copy_steps(base / DATA.format(number), out / DATA.format(time * files + number), shifts, apart)
        for number in range(films):
            film = out / VIDEO.format(CAMERA, time * films + number)
            film.parent.mkdir(parents=True, exist_ok=True)
            os.link(base / VIDEO.format(CAMERA, number), film)
    (out / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.concat_tables(tables), out / "meta/episodes/chunk-000/file-000.parquet")
    for name in ("tasks.parquet", "stats.json"):
        shutil.copy(base / "meta" / name, out / "meta")
    info |= {"total_episodes": times * count, "total_frames": times * steps}
    (out / INFO).write_text(json.dumps(info))
    return out


def run(*arguments: object) -> None:
    """Run a command of oxcart in this process."""
    oxcart([*map(str, arguments), "--quiet"], standalone_mode=False)


def _copy_steps(source: Path, target: Path, shifts: dict[str, int], apart: bool) -> None:
    """Copy a file of steps, row group by row group or episode by episode, with some columns shifted."""
    target.parent.mkdir(parents=True, exist_ok=True)
    file = pq.ParquetFile(source)
    with pq.ParquetWriter(target, file.schema_arrow) as writer:
        for number in range(file.num_row_groups):
            table = _shifted(file.read_row_group(number), shifts)
            begins = np.flatnonzero(np.diff(table["episode_index"].to_numpy(), prepend=-1)) if apart else [0]
            for begin, end in pairwise([*begins, len(table)]):
                writer.write_table(table.slice(begin, end - begin))


def _shifted(table: pa.Table, shifts: dict[str, int]) -> pa.Table:
    for name, shift in shifts.items():
        place = table.schema.get_field_index(name)
        values: Any = np.array(table[name].to_pylist()) + shift
        table = table.set_column(place, name, pa.array(values, table.schema.field(place).type))
    return table
