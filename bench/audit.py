"""Does the audit find leaks, does it stay quiet where there is none, and what does it cost?

    python bench/audit.py                                  # all of it, in half an hour
    python bench/audit.py --only twins                     # one part
    python bench/audit.py --peers PYTHON                   # beside imagehash, imagededup and cleanvision
    python bench/audit.py --only recall --source bridge_dataset/1.0.0

**recall**: copies of every held-out episode are planted, and counted at the threshold that the null sets: for
oxcart its verdict's; for each peer at its own default, and at the distance that 0.1% of its own null stays
within. The unit is an episode for all: a peer finds a copy when any of its frames is near any frame of the
original. With --source, the episodes of a dataset of one environment are planted against the null of the
simulated kitchens.

**verdicts**: five samples of twelve kitchens, split by environment and at random (90/10).

**twins**: one kitchen under two names, and honest splits; see `audit_twins.py`.

**cost**: 100,000 frames (12,500 episodes) made of the sample's thumbnails with noise, against the time that
decoding so many takes; the search is run in full, nothing is extrapolated but the decoding, and that is said.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import audit_twins
import numpy as np
import numpy.typing as npt

from oxcart.cli.table import table
from oxcart.compile.pipeline import CompileConfig, execute, prepare
from oxcart.compile.plan import Settings
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.audit import near, plant
from oxcart.manifests.audit.audit import AuditOptions, audit
from oxcart.manifests.audit.episodes import Audited, AuditedEpisode, draw, open_datasets
from oxcart.manifests.audit.features import FRAMES, Features, read_features, read_steps, recorded, spaced
from oxcart.manifests.audit.match import one_thread
from oxcart.manifests.audit.verdict import at_least
from oxcart.manifests.manifest import NAME
from oxcart.manifests.split import SplitRule

Frames = npt.NDArray[np.uint8]
Distances = npt.NDArray[np.float64]

FOLDER = Path("scratch/bench/audit")
DEFAULTS = {"imagehash": 0, "imagededup": 10, "cleanvision": 0}
"""Bits within which a tool calls two frames the same when nobody says otherwise."""
SEEDS = 5
"""Copies of each kind and episode, each altered in another way; peers see the first."""
KITCHENS = RldsSampleConfig(kitchens=40, sessions=2, episodes=3, steps=16, size=96)


def main() -> None:
    """Measure, and print a table for each part."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--only", choices=["recall", "verdicts", "twins", "cost"])
    options.add_argument("--peers", metavar="PYTHON", help="interpreter that has the other tools")
    options.add_argument("--source", type=Path, help="RLDS dataset whose episodes are planted as well")
    options.add_argument("--workers", type=int, default=2)
    given = options.parse_args()
    with one_thread():
        if given.only in (None, "recall"):
            recall(given.peers, given.source or _shared("bridge_dataset/1.0.0"), given.workers)
        if given.only in (None, "verdicts"):
            verdicts(given.workers)
        if given.only in (None, "twins"):
            audit_twins.report(given.workers)
            if (folder := _shared("youtube")) is not None:
                audit_twins.report_videos(folder)
        if given.only in (None, "cost"):
            cost(given.workers)


def _shared(name: str) -> Path | None:
    """Real data beside the checkout, where there is any."""
    for root in (Path.cwd(), *Path.cwd().parents):
        found = root / "shared" / "data" / name
        if found.exists():
            return found
    return None


def compiled(name: str, source: Path, rule: SplitRule) -> str:
    """A compile of a source, made once."""
    out = FOLDER / name
    if not (out / NAME).exists():
        config = CompileConfig(
            out=str(out), source=SourceConfig(url=str(source)), settings=Settings(rule=rule), workers=2
        )
        execute(prepare(config))
    return str(out)


def sample(name: str, config: RldsSampleConfig) -> Path:
    """A sample source, written once."""
    folder = FOLDER / name
    path = folder / "oxcart_kitchens" / "1.0.0"
    return path if (path / "dataset_info.json").exists() else write_rlds(folder, config)


# Recall


def recall(peers: str | None, real: Path | None, workers: int) -> None:
    """Planted leaks of each kind, found by each tool."""
    source = sample("recall", KITCHENS)
    print("# Recall of planted leaks: copies found, of the copies planted\n")
    kitchens = compiled("recall-out", source, SplitRule(val=0.25))
    planted_table("simulated kitchens, 96x96", kitchens, kitchens, peers, workers)
    if real is not None:
        out = compiled("real-out", real, SplitRule(val=None))
        planted_table(f"{real}: its episodes, against the kitchens", kitchens, out, peers, workers)


def planted_table(title: str, null_of: str, planted_of: str, peers: str | None, workers: int) -> None:
    """Plant copies of the held-out episodes of one dataset (all, where none is) among train of another."""
    datasets = open_datasets([null_of] if null_of == planted_of else [null_of, planted_of])
    every = draw(datasets, None, 0)
    train = [episode for episode in every if episode.dataset == 0 and episode.split == "train"]
    held = [
        episode
        for episode in every
        if (episode.split == "val" if null_of == planted_of else episode.dataset == 1)
    ]
    episodes = [*train, *(AuditedEpisode(e.dataset, {**e.row, "split": "val"}, e.place) for e in held)]
    features = read_features(datasets, episodes, FRAMES, workers)
    found = near.compare(episodes, features, 0, workers, lambda done: None)
    assert found.limit is not None
    units = [episodes[i] for i in found.units]
    original = features.take(found.units)
    drawn: dict[str, list[npt.NDArray[np.float32]]] = {kind: [] for kind in plant.KINDS}
    for seed in range(SEEDS):
        copies = plant.copies(datasets, units, FRAMES, seed)
        for kind in plant.KINDS:
            drawn[kind].append(plant.found(original, copies[kind], found.match))
    scores = {kind: np.concatenate(drawn[kind]) for kind in plant.KINDS}
    limit = found.limit.value
    columns: dict[str, list[float]] = {
        "oxcart": [float((scores[kind] > limit).mean()) for kind in plant.KINDS]
    }
    rates: dict[str, str] = {"oxcart": f"{found.limit.beyond / found.limit.null:.2%}"}
    for name, (shares, rate) in peer_columns(datasets, episodes, len(train), units, peers).items():
        columns[name], rates[name] = shares, rate
    rows: list[tuple[object, ...]] = [
        (kind, *(f"{columns[name][i]:.1%}" for name in columns)) for i, kind in enumerate(plant.KINDS)
    ]
    rows.append(("flagged of the null", *(rates[name] for name in columns)))
    exceed = int((found.match.best > limit).sum())
    print(
        f"## {title}\n\n{len(units)} episodes, {SEEDS} copies of each kind; null of {len(found.null)}; "
        f"threshold {limit:.3f} ({found.limit.how}); without copies {exceed} exceed it. "
        f"95% sure of {at_least(SEEDS * len(units), SEEDS * len(units)):.1%} where all are found.\n"
    )
    print(table(("kind", *columns), rows), "\n")
    print(
        "weakest copy:",
        ", ".join(f"{kind} {scores[kind].min():.3f}" for kind in plant.KINDS),
        "\n",
        flush=True,
    )


def peer_columns(
    datasets: Sequence[Audited],
    episodes: Sequence[AuditedEpisode],
    train: int,
    units: Sequence[AuditedEpisode],
    peers: str | None,
) -> dict[str, tuple[list[float], str]]:
    """Recall per kind and the share of the null that is flagged, of each peer at both thresholds."""
    if peers is None:
        return {}
    frames = {"train": pixels(datasets, episodes[:train]), "held": pixels(datasets, units)}
    for kind in plant.KINDS:
        frames[kind] = copied(datasets, units, kind)
    file, out = FOLDER / "frames.npz", FOLDER / "hashes.json"
    np.savez(file, **frames)  # type: ignore[arg-type]
    script = Path(__file__).with_name("audit_peers.py")
    subprocess.run([peers, str(script), str(file), str(out)], check=True)
    columns = {}
    place = np.array([episode.place for episode in episodes[:train]])
    for tool, hashes in json.loads(out.read_text()).items():
        bits = {name: _bits(rows) for name, rows in hashes.items()}
        null = np.array(
            [
                nearest(bits["train"], i, bits["train"], np.flatnonzero(place != place[i]))
                for i in range(train)
            ]
        )
        same = {
            kind: np.array([nearest(bits["held"], i, bits[kind], np.array([i])) for i in range(len(units))])
            for kind in plant.KINDS
        }
        default = DEFAULTS[tool]
        equal = equal_rate(null)
        columns[f"{tool} (default {default})"] = (
            [float((same[kind] <= default).mean()) for kind in plant.KINDS],
            f"{(null <= default).mean():.2%}",
        )
        columns[f"{tool} (0.1%: {equal:.0f} bits)"] = (
            [float((same[kind] <= equal).mean()) for kind in plant.KINDS],
            f"{(null <= equal).mean():.2%}",
        )
    return columns


def equal_rate(null: Distances) -> float:
    """The most bits within which at most 0.1% of the null falls; -1 where even 0 bits are too many."""
    for bits in range(64, -1, -1):
        if (null <= bits).sum() <= int(0.001 * len(null)):
            return float(bits)
    return -1.0


def nearest(
    one: npt.NDArray[np.uint64], episode: int, other: npt.NDArray[np.uint64], among: npt.NDArray[np.intp]
) -> float:
    """The least bits between any frame of an episode and any frame of others, by whichever hash is nearer."""
    mine = one.reshape(-1, FRAMES, one.shape[-1])[episode]
    theirs = other.reshape(-1, FRAMES, other.shape[-1])[among].reshape(-1, other.shape[-1])
    return float(np.bitwise_count(mine[:, None] ^ theirs[None]).min())


def _bits(rows: list[list[str]]) -> npt.NDArray[np.uint64]:
    return np.array([[int(text, 16) for text in row] for row in rows], np.uint64)


def pixels(datasets: Sequence[Audited], episodes: Sequence[AuditedEpisode]) -> Frames:
    """The frames [E * N, H, W, 3] that the audit looks at."""
    found: list[Any] = [None] * len(episodes)
    for i, there in recorded(datasets, episodes):
        found[i] = read_steps(there, spaced(0, len(there), FRAMES))
    return np.concatenate(found)


def copied(datasets: Sequence[Audited], episodes: Sequence[AuditedEpisode], kind: str) -> Frames:
    """The frames of the planted copies, at the size of the first (resized ones are of many sizes)."""
    from PIL import Image

    found: list[Any] = [None] * len(episodes)
    for i, there in recorded(datasets, episodes):
        key = episodes[i].key
        steps = spaced(0, len(there), FRAMES)
        if kind == "time-shifted":
            steps = plant.shifted_steps(len(there), FRAMES, 0, key)
        frames = plant.plant(read_steps(there, steps), kind, 0, key)
        size = there.shape[2], there.shape[1]
        if frames.shape[2:0:-1] != size:
            frames = np.stack([np.asarray(Image.fromarray(frame).resize(size)) for frame in frames])
        found[i] = frames
    return np.concatenate(found)


# Verdicts


def verdicts(workers: int) -> None:
    """A random split and a held-out one of five samples."""
    rows = []
    for seed in range(5):
        source = sample(f"seed-{seed}", RldsSampleConfig(seed=seed))
        for name, rule in (
            ("held out", SplitRule(val=0.1)),
            ("random 90/10", SplitRule(by="episode", val=0.1)),
        ):
            out = compiled(f"seed-{seed}-{name.partition(' ')[0]}", source, rule)
            found = audit([out], AuditOptions(workers=workers))
            assert found.threshold is not None
            assert found.probe is not None
            rows.append(
                (
                    seed,
                    name,
                    found.verdict.word,
                    f"{found.exceeding} of {len(found.scores)} ({found.allowed} allowed)",
                    f"{found.threshold.value:.3f}",
                    f"{min(row['score'] for row in found.scores):.3f} to "
                    f"{max(row['score'] for row in found.scores):.3f}",
                    f"{found.probe.ratio:.2f}",
                )
            )
    print("# Verdicts of two splits of five samples\n")
    print(
        table(("seed", "split", "verdict", "exceeding", "threshold", "scores", "copy-ahead"), rows),
        "\n",
        flush=True,
    )


# Cost


def cost(workers: int, frames: int = 100_000) -> None:
    """Time and memory for so many frames beside decoding them."""
    config = RldsSampleConfig(kitchens=8, sessions=2, episodes=4, steps=32, size=256)
    datasets = open_datasets([compiled("cost-out", sample("cost", config), SplitRule(val=0.2))])
    some = draw(datasets, None, 0)
    measured, few = _timed(lambda: read_features(datasets, some, FRAMES, workers))
    decoding = measured / (len(some) * FRAMES) * frames
    number = frames // FRAMES
    made, episodes = _crowd(few, number)
    before = _peak()
    elapsed, found = _timed(lambda: near.compare(episodes, made, 0, workers, lambda done: None))
    held = len(found.units)
    print("# Cost\n")
    rows = [
        ("decode and describe, 256x256 raw", f"{decoding:,.0f} s", f"from {len(some) * FRAMES:,} frames"),
        ("search and confirm", f"{elapsed:,.0f} s", f"{held:,} held out and {len(found.null):,} of the null"),
        ("ratio to decoding", f"{elapsed / decoding:.2f}", ""),
        ("peak memory", f"{_peak() / 1024:,.0f} MiB", f"{before / 1024:,.0f} MiB before the search"),
        (
            "per million frames of gallery",
            f"{elapsed * 1e6 / frames:,.0f} s",
            "for as many queries, extrapolated",
        ),
    ]
    print(f"{frames:,} frames, {number:,} episodes, {workers} threads\n")
    print(table(("part", "", "of"), rows), flush=True)


def _crowd(few: Features, number: int) -> tuple[Features, list[AuditedEpisode]]:
    """So many episodes made of a few by noise, of which one in ten is held out."""
    rng = np.random.default_rng(0)
    index = rng.integers(len(few.thumbs), size=number)
    thumbs = few.thumbs[index].astype(np.int16)
    thumbs += rng.integers(-40, 41, (number, 1, *thumbs.shape[2:]), dtype=np.int16)
    features = few.take(index)
    made = {name: getattr(features, name) for name in features.__dataclass_fields__}
    made["thumbs"] = thumbs.clip(0, 255).astype(np.uint8)
    train = number - number // 10
    episodes = [
        AuditedEpisode(
            0,
            {
                "key": str(i),
                "split": "train" if i < train else "val",
                "environment": f"kitchen{index[i] % 100}",
            },
            int(index[i] % 100),
        )
        for i in range(number)
    ]
    return Features(**made), episodes


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    value = call()
    return time.perf_counter() - began, value


def _peak() -> int:
    """KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform != "darwin" else peak // 1024


if __name__ == "__main__":
    main()
