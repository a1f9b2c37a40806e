"""Digests of what must not change when code is moved about: compiles, an audit, batches, losses.

    python bench/identity.py > after.json      # in this checkout
    python bench/identity.py > before.json     # in a checkout of the commit before, with its own .venv
    diff before.json after.json

Everything is made from drawn kitchens and videos, in a temporary folder, by the commands that users give. The
digests hold for one machine and its versions of libraries; they are compared, not kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

BATCHES = """
import hashlib, sys
from oxcart.train.data import Loader, Pairs
digest = hashlib.sha256()
pairs = Pairs(frames=3)
loader = Loader(sys.argv[1], sample=pairs, batch_size=16, seed=7, size=48, action="steps", state=True)
for _, batch in zip(range(100), loader):
    for tensor in (batch.frames, batch.t, batch.offset, batch.action, batch.action_mask, batch.state):
        digest.update(tensor.numpy().tobytes())
    digest.update(repr((batch.key, batch.environment, batch.instruction)).encode())
print(digest.hexdigest())
"""
LOSSES = ("loss", "step")


def oxcart(*arguments: object) -> str:
    """Run a command; returns its standard output."""
    command = [sys.executable, "-m", "oxcart.cli.main", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment()).stdout


def environment() -> dict[str, str]:
    """One thread: sums in another order have other last bits."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def tree(folder: Path) -> dict[str, str]:
    """File -> digest."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def losses(run: Path) -> list[dict[str, float]]:
    """Step and losses of each line of the metrics."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        {key: value for key, value in line.items() if any(part in key for part in LOSSES)} for line in lines
    ]


def main() -> None:
    """Print all digests as JSON."""
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # names of files are part of what is compared
        oxcart("sample", "rlds", "src")
        oxcart("sample", "videos", "clips")
        kitchens = "src/oxcart_kitchens/1.0.0"
        for codec in ("raw", "zstd", "jpeg"):
            oxcart("compile", kitchens, codec, "--codec", codec, "--val-fraction", "0.2")
            found[codec] = tree(Path(codec))
        oxcart("compile", "videos:clips", "videos", "--val-fraction", "0.2")
        found["videos"] = tree(Path("videos"))
        oxcart("audit", "raw", "--json", "audit.json", "--fail-on", "never", "-o", "audit.html")
        found["audit"] = {
            name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in ("audit.json",)
        }
        found["inspect"] = hashlib.sha256(oxcart("inspect", "raw", "--json").encode()).hexdigest()
        for name in ("raw", "jpeg"):
            command = [sys.executable, "-c", BATCHES, name]
            found[f"batches {name}"] = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=environment()
            ).stdout.strip()
        steps = ("train.steps=20", "train.log_every=1", "val.every=20")
        oxcart("train", "laq", "preset=tiny", "data.datasets=[raw]", "run.dir=laq", *steps)
        found["laq"] = losses(Path("laq"))
        oxcart("sample", "vlm", "vlm")
        oxcart(
            "train",
            "vla",
            "preset=tiny",
            "model=vlm",
            "data.datasets=[raw]",
            "data.laq=laq",
            "run.dir=vla",
            *steps,
            "val.samples=64",
            "val.baselines=256",
        )
        found["vla"] = losses(Path("vla"))
    json.dump(found, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
