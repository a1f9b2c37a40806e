"""How fast the latent-action model trains, and what it learns of environments that it never saw.

    python bench/laq.py                                  # all of it; five trainings of minutes each
    python bench/laq.py --only speed --presets large --batch 64
    python bench/laq.py --only quality --seeds 2

speed: FLOP/s of whole training steps (forward, backward, AdamW) beside those of a plain matrix product of the
same precision on the same device: on a GPU in bf16 and compiled, on a CPU in float32. FLOPs are counted by
torch.utils.flop_counter. Frames are random; the time spent waiting for data is measured with quality.
quality: preset tiny on the embedded sample, all numbers on held-out kitchens, over seeds; and of a model that
was not trained. What of NMI is above chance stands with its 95% interval, of these kitchens alone.
ranks: losses and codebooks of two gloo processes beside one process, at the same batch, and how much faster
two label, each on one thread (cores must be idle).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from oxcart.compile.pipeline import CompileConfig, execute
from oxcart.compile.pipeline import prepare as plan
from oxcart.compile.plan import Settings
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.split import SplitRule
from oxcart.train import checkpoint as checkpoints
from oxcart.train.laq.build import build_model, parameter_groups
from oxcart.train.laq.config import laq_config
from oxcart.train.laq.model import to_float

SHOWN = {
    "copy_ratio": "error / copying's",
    "constant_ratio": "same code for all",
    "permuted_ratio": "another pair's codes",
    "delta_psnr": "delta PSNR, dB",
    "usage": "codes used",
    "dead_codes": "dead",
    "perplexity_joint": "perplexity",
    "probe_r2_motion": "R2 dx, dy",
    "probe_r2": "R2 with gripper",
    "probe_r2_frame": "R2 from the frame",
    "nmi_direction": "NMI",
    "nmi_direction_shuffled": "by chance",
    "nmi_direction_excess": "NMI above chance",
    "nmi_direction_excess_low": "from",
    "nmi_direction_excess_high": "to",
}


def main() -> None:
    """Measure, and print tables."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--scratch", type=Path, default=Path("scratch/bench-laq"))
    options.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    options.add_argument("--presets", nargs="*", help="of speed  [default: four; on a CPU tiny]")
    options.add_argument("--batch", type=int, help="of speed  [default: 64; on a CPU 16]")
    options.add_argument("--seeds", type=int, default=5, help="of quality")
    options.add_argument("--steps", type=int, help="of quality  [default: the preset's]")
    options.add_argument("--threads", type=int, default=2, help="of torch, on a CPU")
    options.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of quality")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    for name in chosen.only:
        print(f"\n== {name}", flush=True)
        PARTS[name](chosen)


def speed(chosen: Any) -> None:
    """FLOP/s of training steps, and of a matrix product."""
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    dtype = torch.bfloat16 if gpu else torch.float32
    limit = product(device, dtype)
    what = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"{what}, {dtype}: a plain matrix product {limit / 1e12:.3f} TFLOP/s")
    for preset in chosen.presets or (["large", "lapa", "wide", "tiny"] if gpu else ["tiny"]):
        batch = chosen.batch or (64 if gpu else 16)
        counted, took = training_step(preset, batch, device, compiled=gpu)
        print(
            f"{preset}, batch {batch}: {counted / batch / 1e9:.2f} GFLOP a sample, "
            f"{took * 1e3:.0f} ms a step, {batch / took:,.0f} samples/s, "
            f"{counted / took / 1e12:.3f} TFLOP/s, {counted / took / limit:.0%} of the product",
            flush=True,
        )


def product(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a square matrix product."""
    side = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / best(lambda: a @ b, device, 10)


def training_step(preset: str, batch: int, device: torch.device, *, compiled: bool) -> tuple[float, float]:
    """FLOPs and seconds of a step."""
    config = laq_config([f"preset={preset}"])
    torch.manual_seed(0)
    model = build_model(config.model, config.quantizer, config.flow).to(device).train()
    side = config.model.image_size
    frames = torch.randint(256, (batch, 2, side, side, 3), dtype=torch.uint8, device=device)
    noise = torch.randn(batch, config.quantizer.tokens, model.quantizer.dim, device=device)
    groups = parameter_groups(model, config.train.weight_decay, config.quantizer.rate)
    optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=device.type == "cuda" or None)

    def step(pixels: torch.Tensor, some: torch.Tensor) -> None:
        real = to_float(pixels)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            made = model(real, some, 0.0)
        loss = (made.prediction - real[:, 1]).square().mean() + made.loss
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    counter = FlopCounterMode(display=False)
    with counter:
        step(frames[:1], noise[:1])
    if compiled:
        model.compile()
    return float(counter.get_total_flops()) * batch, best(lambda: step(frames, noise), device, 10)


def best(run: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Seconds of the fastest of some rounds, after three that do not count."""
    found = []
    for i in range(rounds + 3):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if i >= 3:
            found.append(time.perf_counter() - began)
    return min(found)


def quality(chosen: Any) -> None:
    """What is learned, over seeds."""
    out = sample(chosen.scratch)
    more = [*chosen.set, *([f"train.steps={chosen.steps}"] if chosen.steps else [])]
    rows = [("untrained", *trained(chosen, out, "untrained", [*more, "train.steps=1", "train.lr=0"]))]
    for seed in range(chosen.seeds):
        rows.append((f"seed {seed}", *trained(chosen, out, f"seed-{seed}", [*more, f"train.seed={seed}"])))
        name, values, about = rows[-1]
        print(
            f"{name}: {about}; " + ", ".join(f"{SHOWN[key]} {values[key]:.3g}" for key in SHOWN), flush=True
        )
    print(f"\n| | {' | '.join(SHOWN.values())} |\n|{' --- |' * (len(SHOWN) + 1)}")
    for name, values, _ in rows:
        print(f"| {name} | {' | '.join(f'{values[key]:.3g}' for key in SHOWN)} |")
    learned = [values for _, values, _ in rows[1:]]
    if len(learned) > 1:
        means = [f"{np.mean([one[key] for one in learned]):.3g}" for key in SHOWN]
        print(f"| mean | {' | '.join(means)} |")


def sample(scratch: Path) -> Path:
    """The embedded sample as `oxcart sample rlds` and `--val-fraction 0.2` make it, compiled once."""
    out = scratch / "out"
    if not (out / "manifest.json").exists():
        shutil.rmtree(scratch / "src", ignore_errors=True)
        source = write_rlds(scratch / "src", RldsSampleConfig())
        settings = Settings(rule=SplitRule(val=0.2))
        execute(plan(CompileConfig(source=SourceConfig(url=str(source)), out=str(out), settings=settings)))
    return out


def trained(chosen: Any, out: Path, name: str, more: list[str]) -> tuple[dict[str, float], str]:
    """Final metrics on val of a training of its own process, and how it went."""
    run = chosen.scratch / name
    shutil.rmtree(run, ignore_errors=True)
    given = [
        "preset=tiny",
        f"data.datasets=[{out}]",
        f"run.dir={run}",
        f"train.threads={chosen.threads}",
        *more,
    ]
    given += ["train.device=cpu", "run.quiet=true", "val.every=1000000", "val.splits=[val]"]
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "oxcart.cli.main", "train", "laq", *given], check=True, stdout=2)
    took = time.perf_counter() - began
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "train"][-1]
    waiting = last.get("data_loading (%)")
    about = f"{took:.0f} s in all"
    if waiting is not None:
        about += f", {last['throughput']:.0f} samples/s, waiting for data {waiting:.2f}% of the time"
    (val,) = [line for line in lines if line["kind"] == "val"]
    return {key: val[f"val/{key}"] for key in SHOWN}, about


def ranks(chosen: Any) -> None:
    """Two processes beside one."""
    out = sample(chosen.scratch)
    found = {}
    for world in (1, 2):
        run = chosen.scratch / f"ranks-{world}"
        shutil.rmtree(run, ignore_errors=True)
        given = ["preset=tiny", f"data.datasets=[{out}]", f"run.dir={run}", "train.steps=10", "val.every=0"]
        given += ["train.log_every=1", "train.device=cpu", "train.threads=1", "run.quiet=true"]
        command = ["-m", "oxcart.cli.main", "train", "laq", *given]
        launched(world, command)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        path = checkpoints.find(run)
        assert path is not None
        weights = checkpoints.read(path, checkpoints.read_header(path), "model/")
        found[world] = [line["loss"] for line in lines], weights["quantizer.codebook"]
    apart = max(abs(a - b) / a for a, b in zip(found[1][0], found[2][0], strict=True))
    books = float((found[1][1] - found[2][1]).abs().max())
    print(f"10 steps: losses differ by {apart:.1e} of their value at most, codebooks by {books:.1e}")
    run = chosen.scratch / "ranks-1"
    one, two = (float(launched(world, ["-c", LABEL, str(out), str(run)])) for world in (1, 2))
    print(f"label: {one:.2f} s on one rank, {two:.2f} s on two, which are {one / two:.2f} times as fast")


LABEL = """
import sys, time, torch
from pathlib import Path
from oxcart.train.laq.label import label, open_run
from oxcart.train.ranks import join
torch.set_num_threads(1)
ranks, labeller = join(gpu=False), open_run(Path(sys.argv[2]), device="cpu")
for turn in range(2):
    began = time.perf_counter()
    label(sys.argv[1], labeller, f"{sys.argv[2]}/{turn}.parquet", batch_size=8, ranks=ranks)
if ranks.is_main_process:
    print(time.perf_counter() - began)
if ranks.num_processes > 1:
    torch.distributed.destroy_process_group()
"""
"""Labels a dataset with a run, twice, and prints the seconds of the second time."""


def launched(world: int, command: list[str]) -> str:
    """What the first of so many ranks of a program prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    processes = []
    for rank in range(world):
        more = {**place, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world)}
        env = {**os.environ, **(more if world > 1 else {})}
        processes.append(
            subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, env=env, text=True)
        )
    said = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes)
    return said[0]


PARTS: dict[str, Callable[[Any], None]] = {"speed": speed, "ranks": ranks, "quality": quality}

if __name__ == "__main__":
    main()
