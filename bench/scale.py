"""What a compile of many episodes costs where no frame is touched, and what one of all of OXE would.

    python bench/scale.py                      # all of it, some minutes
    python bench/scale.py --episodes 10000     # a quick look

The first part makes census tables of so many episodes out of nothing, plans them, commits them as if the
shards had been written (they are holes of the right size), and opens the result: seconds, seconds of CPU, and
the peak of a process that does that and nothing else. Then each engine is given tasks that do nothing; a
small source is compiled with one and two workers; and what a core was measured to do is multiplied by the
sizes of the 69 datasets of oxe_sizes.csv, as the catalogue of TensorFlow Datasets has them. Where it has
none, that is said. scratch/bench/scale/results.json has it all, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from blake3 import blake3

from oxcart.compile import census as census_module
from oxcart.compile.census import Census
from oxcart.compile.commit import commit
from oxcart.compile.engines import Part, engine
from oxcart.compile.pipeline import CompileConfig, execute, prepare
from oxcart.compile.plan import Plan, Settings, Shard, plan_compile
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources.base import SourceConfig, census_schema
from oxcart.compile.workspace import Claim, Done, unfinished_claim, write_done
from oxcart.manifests.columns import ARRAYS
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import CLAIM, FORMAT
from oxcart.manifests.tables import VALUES_SCHEMA, episodes_schema
from oxcart.shards.codec import Encoding
from oxcart.shards.names import chunks_name, tar_name
from oxcart.shards.store import Store

COUNTS = [10_000, 100_000, 1_000_000]
STEPS, SIDE, CAMERA = 40, 64, "image_0"
FILE_EPISODES = 500
"""Episodes per file of a synthetic source."""

BAR_S, BAR_BYTES = 60.0, 2 << 30
"""A million episodes are to be planned in less."""

BYTES_OF_PIXEL = {"jpeg": 0.33, "png": 1.4}
"""Assumed bytes per pixel of a source's images, as the catalogue publishes none."""
SMALLER = {"raw": 1.0, "zstd": 2.15, "jpeg": 6.0}
"""Codec -> how much smaller than raw frames; of camera frames of BridgeData, docs/lab.md."""
CORES, LINK_GBIT = 64, 10.0
"""Cores and network bandwidth that the cost model assumes."""


def main() -> None:
    """Measure, print tables, and write the same as JSON."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--episodes", type=int, nargs="*", default=COUNTS, help="of the synthetic tables")
    options.add_argument("--scratch", type=Path, default=Path("scratch/bench/scale"))
    options.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child:
        child(chosen.child[0], int(chosen.child[1]), chosen.scratch)
        return
    chosen.scratch.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"cores": len(os.sched_getaffinity(0))}
    results["plan"] = [scale(count, chosen.scratch) for count in chosen.episodes]
    results["engines"] = engines()
    results["speed_up"], rates = speed_up(chosen.scratch)
    results["megapixels_s_core"] = rates
    results["oxe"] = oxe(rates)
    (chosen.scratch / "results.json").write_text(json.dumps(results, indent=1) + "\n")


# Planning, commit, opening


def scale(count: int, scratch: Path) -> dict[str, Any]:
    """One row: each step in a process of its own, on what the one before has left."""
    if count == min(COUNTS):
        print(f"{'episodes':>10}{'shards':>8}  " + "".join(f"{what:>22}" for what in STAGES))
    row: dict[str, Any] = {"episodes": count}
    shutil.rmtree(scratch / "synthetic", ignore_errors=True)
    cells = []
    for stage in STAGES:
        command = [sys.executable, __file__, "--scratch", str(scratch), "--child", stage, str(count)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row |= (found := json.loads(done.stdout.splitlines()[-1]))
        wall, cpu, peak = (found[f"{stage}_{what}"] for what in ("s", "cpu_s", "bytes"))
        cells.append(f"{wall:.2f} s {cpu:.2f} {peak / 2**20:.0f} MiB")
    print(f"{count:>10,}{row['shards']:>8}  " + "".join(f"{cell:>22}" for cell in cells), flush=True)
    if count == 1_000_000:
        met = row["plan_s"] < BAR_S and row["plan_bytes"] < BAR_BYTES
        verdict = "met" if met else "MISSED"
        print(f"the bar, {BAR_S:.0f} s and {BAR_BYTES / 2**30:.0f} GiB for a million: {verdict}")
    shutil.rmtree(scratch / "synthetic", ignore_errors=True)
    return row


def child(stage: str, count: int, scratch: Path) -> None:
    """Do one step and say what it took."""
    found = STAGES[stage](count, scratch / "synthetic")
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = used.ru_utime + used.ru_stime
    print(json.dumps({**found, f"{stage}_cpu_s": cpu_s, f"{stage}_bytes": used.ru_maxrss * 1024}))


def synthetic(count: int) -> Census:
    """A census of `count` episodes of 500 kitchens; one in a hundred is a duplicate of the one before."""
    numbers = np.arange(count)
    files, records = np.divmod(numbers, FILE_EPISODES)
    shapes = {f"{CAMERA}.{side}": np.full(count, SIDE, np.int32) for side in ("height", "width")}
    steps = (STEPS + numbers % 11 - 5).astype(np.int32)
    twin = np.where(numbers % 100 == 99, numbers - 1, numbers).astype(np.uint64)
    places = numbers * 7919 % 500
    names = np.array([f"synthetic-train.tfrecord-{i:05d}" for i in range(files[-1] + 1)])
    columns = {
        "key": [
            f"synthetic-train-{f:05d}-{r:06d}" for f, r in zip(files.tolist(), records.tolist(), strict=True)
        ],
        "source_split": pa.array(["train"] * count),
        "source_file": pa.DictionaryArray.from_arrays(files.astype(np.int32), names).cast(pa.string()),
        "source_record": records.astype(np.int32),
        "source_offset": records * 1_000_000,
        "source_length": np.full(count, 999_984),
        "source_digest": twin * np.uint64(0x9E3779B97F4A7C15),
        "steps": steps,
        "environment": [f"kitchen_{place}" for place in places.tolist()],
        "environment_known": pa.array(["declared"] * count),
        "session": [
            f"kitchen_{p}/{n}" for p, n in zip(places.tolist(), (numbers % 40).tolist(), strict=True)
        ],
        "instructions": [[f"do the thing number {n}"] for n in (numbers % 20_000).tolist()],
        "duplicate": twin,
        **shapes,
    }
    schema = census_schema((CAMERA,))
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(count, field.type)
        for field in schema
    ]
    source = {
        "name": "synthetic",
        "version": "1.0.0",
        "kind": "rlds",
        "cameras": {CAMERA: CAMERA},
        **{name: [] for name in ARRAYS},
    }
    sizes = dict.fromkeys(names.tolist(), FILE_EPISODES * 1000000)
    return Census(source=source, sizes=sizes, table=pa.table(arrays, schema=schema))


def claim_of(made: Plan) -> Claim:
    """What a compile of the synthetic source would claim."""
    return Claim(
        format=FORMAT,
        plan=made.hash,
        shards=[shard.name for shard in made.shards],
        limited=made.limited,
        pixels=dict(made.pixels),
        config=dict(made.config),
        versions=dict(made.versions),
        dataset={
            "name": "synthetic",
            "version": "1.0.0",
            "kind": "rlds",
            "licence": None,
            "citation": None,
        },
        cameras=[
            {
                "name": CAMERA,
                "source": CAMERA,
                "role": "primary",
                "channels": "rgb",
                **made.encodings[CAMERA].describe(),
            }
        ],
        array_sizes={name: [] for name in ARRAYS},
        array_columns={name: [] for name in ARRAYS},
        control_rate=None,
    )


def census_stage(count: int, out: Path) -> dict[str, Any]:
    """Write the census: not a step of a compile of this kind, but what the others begin with."""
    out.mkdir(parents=True)
    began = time.perf_counter()
    (out / "census").write_bytes(synthetic(count).to_bytes())
    return {"census_s": time.perf_counter() - began}


def plan_stage(count: int, out: Path) -> dict[str, Any]:
    """Read the census, split and pack it."""
    began = time.perf_counter()
    made = plan_compile(census_module.read((out / "census").read_bytes(), "census"), Settings(), {})
    return {"plan_s": time.perf_counter() - began, "shards": len(made.shards)}


def write_stage(count: int, out: Path) -> dict[str, Any]:
    """Leave what the tasks would have left, the frames apart."""
    began = time.perf_counter()
    made = plan_compile(census_module.read((out / "census").read_bytes(), "census"), Settings(), {})
    store = Store(out / "out")
    store.put(CLAIM, claim_of(made).to_bytes())
    for shard in made.shards:
        leave(store, shard, made.hash)
    return {"write_s": time.perf_counter() - began}


def leave(store: Store, shard: Shard, plan: str) -> None:
    """A hole for a shard, no chunk table to speak of, and the rows of its episodes."""
    rows, name = shard.rows, tar_name(shard.name)
    count = rows.num_rows
    steps = rows["steps"].to_numpy().astype(np.int64)
    sizes = 4096 + steps * SIDE * SIDE * 3
    starts = np.cumsum(sizes) - sizes
    known: dict[str, Any] = {one: rows[one].combine_chunks() for one in rows.column_names}
    known |= {
        "split": [shard.split] * count,
        "shard": [shard.name] * count,
        "instruction": pa.array([one[0] for one in rows["instructions"].to_pylist()]),
        "offset": starts,
        "bytes": sizes,
        "digest": [f"{value:032x}" for value in rows["source_digest"].to_pylist()],
        "json.digest": rows["source_digest"].combine_chunks(),
        f"{CAMERA}.offset": starts + 4096,
    }
    total = int(sizes.sum())
    store.put(chunks_name(shard.name), b"none")
    (Path(store.url) / name).touch()
    os.truncate(Path(store.url) / name, total)
    entry = {
        "name": name,
        "split": shard.split,
        "episodes": count,
        "steps": int(steps.sum()),
        "frames": int(steps.sum()),
        "bytes": total,
        "blake3": "0" * 64,
        "chunks": chunks_name(shard.name),
        "chunks_bytes": 4,
        "chunks_blake3": blake3(b"none").hexdigest(),
    }
    schema = episodes_schema([CAMERA])
    arrays = [
        pa.array(known[field.name], field.type) if field.name in known else pa.nulls(count, field.type)
        for field in schema
    ]
    episodes = pa.table(arrays, schema=schema)
    nothing = {
        "rejected": [],
        "again": 0,
        "swapped": 0,
        "moments": dict.fromkeys(ARRAYS),
        "values": VALUES_SCHEMA.empty_table(),
    }
    done = Done(shard=entry, episodes=episodes, **nothing)
    write_done(store, shard.name, plan, done)


def commit_stage(count: int, out: Path) -> dict[str, Any]:
    """Make a dataset of it."""
    census = census_module.read((out / "census").read_bytes(), "census")
    store = Store(out / "out")
    claim = unfinished_claim(store)
    began = time.perf_counter()
    commit(store, census, claim, None, reject=False, warn=print)
    return {"commit_s": time.perf_counter() - began}


def open_stage(count: int, out: Path) -> dict[str, Any]:
    """Open it as a loader does: the manifest, and the index of train."""
    began = time.perf_counter()
    dataset = Dataset.open(str(out / "out"))
    opened = time.perf_counter() - began
    from oxcart.train.data.index import SplitIndex

    began = time.perf_counter()
    SplitIndex(dataset, "train")
    return {"open_s": opened, "index_s": time.perf_counter() - began}


STAGES = {
    "census": census_stage,
    "plan": plan_stage,
    "write": write_stage,
    "commit": commit_stage,
    "open": open_stage,
}


# Engines


def nothing(config: int, item: int, advance: Any) -> int:
    """A task."""
    advance(1, 1)
    return item


def engines() -> dict[str, float]:
    """Tasks a second that each engine hands out and takes back, its start-up left out."""
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
    )
    import scale as by_name  # workers import the task by its name

    found: dict[str, float] = {}
    for name, tasks, workers in (("parts", 20_000, 1), ("processes", 20_000, 2), ("ray", 2_000, 2)):
        items = list(range(tasks))
        chosen = items if name != "parts" else list(Part(0, 2).of(items * 2))
        run = engine("processes" if name == "parts" else name)
        try:
            results = run(by_name.nothing, 0, chosen, workers=workers, report=lambda count, size: None)
            next(results)
        except Exception as error:  # noqa: BLE001 - Ray is not installed, say
            print(f"{name}: left out: {error}")
            continue
        began = time.perf_counter()
        count = sum(1 for _ in results)
        found[name] = count / (time.perf_counter() - began)
    print("\ntasks a second: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in found.items()))
    if "ray" in found:
        import ray

        ray.shutdown()
    return found


# Speed-up


def speed_up(scratch: Path) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """A real compile by one and by two workers; and megapixels a second of a core, by image and codec."""
    source = scratch / "source" / "oxcart_kitchens" / "1.0.0"
    if not (source / "dataset_info.json").exists():
        shutil.rmtree(scratch / "source", ignore_errors=True)
        sample = RldsSampleConfig(kitchens=5, sessions=2, episodes=10, steps=38, size=256, files=4)
        print(f"writing a source to {source}, once", flush=True)
        write_rlds(scratch / "source", sample)
    print(f"\n{'frames/s':16}{'1 worker':>10}{'2 workers':>11}{'speed-up':>10}")
    measured: dict[str, Any] = {}
    rates: dict[str, dict[str, float]] = {"jpeg": {}, "png": {}}
    for kind, camera, side in (("jpeg", "image_0", 256), ("png", "wrist", 128)):
        for codec in SMALLER:
            (one, core), (two, _) = (compile_once(source, camera, codec, scratch / "out", n) for n in (1, 2))
            print(f"{kind} to {codec:<8}{one:>10,.0f}{two:>11,.0f}{two / one:>10.2f}", flush=True)
            measured[f"{kind}, {codec}"] = {"1": one, "2": two, "cpu": core}
            rates[kind][codec] = core * side * side / 1e6
    return measured, rates


def compile_once(source: Path, camera: str, codec: str, out: Path, workers: int) -> tuple[float, float]:
    """Frames a second from the first that is done to the last, start-up left out, the best of two compiles.

    And frames a second of this process's CPU, which do not depend on what else the machine does; one worker
    is this process.
    """
    config = CompileConfig(
        source=SourceConfig(url=str(source), cameras=(camera,)),
        out=str(out),
        settings=Settings(encoding=Encoding(codec=codec), shard_size=24 << 20),
        workers=workers,
    )
    best = core = 0.0
    for _ in range(2):
        shutil.rmtree(out, ignore_errors=True)
        prepared = prepare(config)
        seen: list[tuple[float, int]] = []
        used = time.process_time()
        execute(prepared, lambda frames, size, seen=seen: seen.append((time.perf_counter(), frames)))
        core = max(core, prepared.frames / (time.process_time() - used))
        (began, first), (ended, last) = next(one for one in seen if one[1]), seen[-1]
        best = max(best, (last - first) / (ended - began))
    shutil.rmtree(out, ignore_errors=True)
    return best, core


# Open X-Embodiment


@dataclass(frozen=True)
class Facts:
    """What is published of a dataset."""

    dataset: str
    episodes: int | None
    gib: float | None
    pixels: int
    """Pixels per step, over all cameras."""
    kind: str
    """Encoding of the source's images."""


def facts() -> list[Facts]:
    """The 69 datasets."""
    with open(Path(__file__).parent / "oxe_sizes.csv", newline="") as file:
        return [
            Facts(
                row["dataset"],
                int(row["episodes"]) if row["episodes"] else None,
                float(row["gib"]) if row["gib"] else None,
                int(row["pixels"]),
                row["kind"],
            )
            for row in csv.DictReader(file)
        ]


def oxe(rates: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The model of each dataset and codec: all cameras, at their own sizes."""
    known = [one for one in facts() if one.gib is not None]
    left_out = [one.dataset for one in facts() if one.gib is None]
    rows = {one.dataset: {codec: cost(one, codec, rates) for codec in SMALLER} for one in known}
    print(f"\n{CORES} cores, {LINK_GBIT:g} Gbit/s; GiB on disk, and hours and what limits them")
    print(
        f"{'dataset':58}{'source':>9}{'Msteps':>8}"
        + "".join(f"{codec:>9}{'h':>7} {'by':<6}" for codec in SMALLER)
    )
    for one in sorted(known, key=lambda one: -(one.gib or 0)):
        row = rows[one.dataset]
        cells = "".join(f"{c['disk_gib']:>9,.0f}{c['hours']:>7.2f} {c['limit']:<6}" for c in row.values())
        print(f"{one.dataset[:57]:58}{one.gib:>9,.1f}{row['raw']['steps'] / 1e6:>8.2f}{cells}")
    total = {
        codec: {
            what: sum(row[codec][what] for row in rows.values())
            for what in ("disk_gib", "hours", "core_hours")
        }
        for codec in SMALLER
    }
    source = sum(one.gib or 0 for one in known)
    print(f"all {len(known)}: {source:,.0f} GiB, read twice where the census is taken from a bucket, too")
    for codec, sums in total.items():
        cores = f"{sums['core_hours']:,.0f} core hours"
        print(f"  {codec}: {sums['disk_gib']:,.0f} GiB, {cores}, {sums['hours']:.1f} h")
    print(f"no size is published of {', '.join(left_out)}")
    return {"datasets": rows, "total": total, "source_gib": source, "no_size": left_out}


def cost(one: Facts, codec: str, rates: dict[str, dict[str, float]]) -> dict[str, Any]:
    """What a compile reads, computes and writes.

    Reading comes in by the link and writing goes out by it at the same time; the census reads once more
    before. Of a source whose images are JPEG, codec `jpeg` keeps their bytes.
    """
    assert one.gib is not None
    source = one.gib * 2**30
    pixels = source / BYTES_OF_PIXEL[one.kind]
    raw = 3 * pixels
    disk = source if codec == one.kind == "jpeg" else raw / SMALLER[codec]
    core_hours = pixels / (rates[one.kind][codec] * 1e6) / 3600
    link = LINK_GBIT * 1e9 / 8 * 3600
    parts = {"cores": core_hours / CORES, "read": 2 * source / link, "write": disk / link}
    limit = max(parts, key=lambda name: parts[name])
    hours = max(parts["cores"], source / link, parts["write"]) + source / link
    return {
        "steps": pixels / one.pixels,
        "disk_gib": disk / 2**30,
        "egress_gib": 2 * one.gib,
        "core_hours": core_hours,
        "hours": hours,
        "limit": limit,
    }


if __name__ == "__main__":
    sys.exit(main())
