"""What the networks of `model.kind` learn of real frames that they never saw, side by side.

    python bench/laq_kinds.py --youtube YOUTUBE --bridge BRIDGE      # four networks, three seeds; hours
    python bench/laq_kinds.py --steps 20 --seeds 1                   # whether it runs; minutes

YOUTUBE is a folder of videos with the metadata of yt-dlp, of which whole channels are held out. BRIDGE is a
directory of BridgeData as RLDS, all of one environment, of which whole instructions are held out. Both are
compiled at 64 x 64. All networks have patches of 8, width 64, and the batches, augmentation and learning rate
of the preset `tiny`. Decoders have two blocks; so has the encoder of `lapa` within a frame, where the others
have one. `lapa` has the quantizer of its preset, and `lapa, its rate` also its learning rate, schedule and
clipping. Numbers are errors over that of the copy-frame baseline, of held-out and of trained pairs (below 1
is better than copying), the same with constant codes, and the share of codes in use.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[2] / "shared" / "data"
SIZES = (
    *("model.image_size=64", "model.patch=8", "model.width=64", "model.heads=4"),
    *("model.spatial_depth=2", "model.temporal_depth=1", "model.decoder_depth=2"),
    *("data.batch_size=16", "data.per_episode=all", "quantizer.dim=32"),
    *("augment.flip=true", "augment.reverse=true", "augment.shift=0.06", "augment.colour=0.2"),
)
RATE = ("train.lr=0.002", "train.schedule=cosine", "train.warmup=50", "train.clip=1")
KINDS = {
    "plain": ("preset=tiny", "model.kind=plain"),
    "residual": ("preset=tiny", "model.kind=residual"),
    "layered": ("preset=tiny", "model.kind=layered"),
    "lapa": ("preset=lapa", *SIZES, *RATE),
    "lapa, its rate": ("preset=lapa", *SIZES),
}
"""Name of a row -> its configuration."""
OFFSETS = {"youtube": 5, "bridge": 2}
COLUMNS = {
    "val/copy_ratio": "held out",
    "train/copy_ratio": "seen",
    "val/constant_ratio": "held out, constant codes",
    "val/usage": "codes used",
}


def main() -> None:
    """Compile, train each network with each seed, and print a table per dataset."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--youtube", type=Path, default=DATA / "youtube")
    options.add_argument("--bridge", type=Path, default=DATA / "bridge_dataset" / "1.0.0")
    options.add_argument("--scratch", type=Path, default=Path("scratch/bench-kinds"))
    options.add_argument("--datasets", nargs="*", choices=OFFSETS, default=list(OFFSETS))
    options.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    options.add_argument("--steps", type=int, default=2000)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--threads", type=int, default=2, help="of torch")
    chosen = options.parse_args()
    sources = {
        "youtube": (f"videos:{chosen.youtube}", "--size", "64", "--val-fraction", "0.3"),
        "bridge": (str(chosen.bridge), "--camera", "image_0", "--split-by", "instruction"),
    }
    for name in chosen.datasets:
        out = chosen.scratch / name
        if not (out / "manifest.json").exists():
            source, *settings = sources[name]
            oxcart("compile", source, str(out), *settings, "--quiet")
        print(f"\n== {name}, {chosen.steps:,} steps, {chosen.seeds} seeds: mean (least to most)", flush=True)
        print(f"| | {' | '.join(COLUMNS.values())} | s |\n|{' --- |' * (len(COLUMNS) + 2)}", flush=True)
        for kind in chosen.kinds:
            began = time.perf_counter()
            rows = [trained(chosen, out, name, kind, seed) for seed in range(chosen.seeds)]
            cells = [spread([row[key] for row in rows]) for key in COLUMNS]
            print(f"| {kind} | {' | '.join(cells)} | {time.perf_counter() - began:.0f} |", flush=True)


def trained(chosen: argparse.Namespace, out: Path, name: str, kind: str, seed: int) -> dict[str, float]:
    """Final metrics of a training in a process of its own."""
    run = chosen.scratch / f"{name}-{kind.replace(', ', '-').replace(' ', '-')}-{seed}"
    shutil.rmtree(run, ignore_errors=True)
    oxcart(
        *("train", "laq", *KINDS[kind], f"data.datasets=[{out}]", f"data.offset={OFFSETS[name]}"),
        *(f"run.dir={run}", f"train.steps={chosen.steps}", f"train.seed={seed}"),
        *(f"train.threads={chosen.threads}", "train.device=cpu", "run.quiet=true"),
        *("val.every=1000000", "val.splits=[val,train]", "val.probes=false"),
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (val,) = [line for line in lines if line["kind"] == "val"]
    return {key: val[key] for key in COLUMNS}


def spread(values: list[float]) -> str:
    """Mean, smallest and largest value."""
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def oxcart(*arguments: str) -> None:
    """Run a command of oxcart; its output goes to stderr."""
    subprocess.run([sys.executable, "-m", "oxcart.cli.main", *arguments], check=True, stdout=2)


if __name__ == "__main__":
    main()
