"""What a vision-language-action model learns of environments that it never saw, by head and decoding.

    python bench/vla.py
    python bench/vla.py --only speed

quality: the tiny model of `oxcart sample vlm`, trained on codes of a latent-action model, once for each head
and decoding, all else alike; on held-out kitchens, beside the baselines, with 95% intervals over
kitchens. The dataset is the embedded sample with 96 kitchens, an eighth of them held out, as the wrist camera
sees them, which shows at 64 pixels whether the gripper is closed.
speed: actions a second of the same model, one code after the other and all at once.
step: training with batches of 64 frames of 256 pixels, in turns: as it was `before`, when frames were encoded
inside the step and patches went through a convolution, and as it is `now`, when they are encoded ahead and go
through a product: samples a second, and the CPU seconds of the step's own thread.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from torch import nn

from oxcart.compile.pipeline import CompileConfig, execute
from oxcart.compile.pipeline import prepare as plan
from oxcart.compile.plan import Settings
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.annotation import Annotation, write_annotation
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule
from oxcart.train.laq.config import laq_config
from oxcart.train.laq.label import label, open_run
from oxcart.train.laq.task import train_laq
from oxcart.train.pieces import cut_batch
from oxcart.train.report import last_validation
from oxcart.train.vla.config import DECODINGS, HEADS, vla_config
from oxcart.train.vla.emit import Policy, emit, emit_from
from oxcart.train.vla.model import PatchProduct, Shape, build
from oxcart.train.vla.processor import load_processor
from oxcart.train.vla.prompt import Prompter, read_prompt
from oxcart.train.vla.task import VlaTask, train_vla
from oxcart.train.vla.tiny import VlmConfig, write_vlm

BASELINES = ("unigram", "instruction", "nearest")


def main() -> None:
    """Measure, and print tables."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--scratch", type=Path, default=Path("scratch/bench-vla"))
    options.add_argument("--data", type=Path, help="compiled dataset, in place of the embedded sample")
    options.add_argument("--laq", type=Path, help="run of a latent-action model, in place of one of its own")
    options.add_argument("--heads", nargs="*", choices=HEADS, default=list(HEADS))
    options.add_argument("--decodings", nargs="*", choices=DECODINGS, default=list(DECODINGS))
    options.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    options.add_argument("--steps", type=int, default=1300)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of quality")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    for name in chosen.only:
        print(f"\n== {name}", flush=True)
        PARTS[name](chosen)


def quality(chosen: Any) -> None:
    """Train every combination, and print what it is worth on held-out kitchens."""
    data, codes = labelled(chosen)
    print("| head | decoding | codes right | actions right | nats per code | minutes |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    last: dict[str, Any] = {}
    for head in chosen.heads:
        for decoding in chosen.decodings:
            run = chosen.scratch / f"{head}-{decoding}"
            shutil.rmtree(run, ignore_errors=True)
            given = [
                "preset=tiny",
                f"model={tiny(chosen)}",
                f"data.datasets=[{data}]",
                f"data.codes=[{codes}]",
                f"run.dir={run}",
                "run.quiet=true",
                f"vla.head={head}",
                f"vla.decoding={decoding}",
                f"train.steps={chosen.steps}",
                f"train.threads={chosen.threads}",
                f"val.every={chosen.steps}",
                "val.samples=4000",
            ]
            began = time.perf_counter()
            train_vla(vla_config([*given, *chosen.set]))
            minutes = (time.perf_counter() - began) / 60
            AcceleratorState._reset_state(reset_partial_state=True)
            last = last_validation(run) or {}
            gains = " ".join(
                f"{name} {last[f'val/{name}_gain']:+.3f} [{last[f'val/{name}_gain_low']:+.3f}, "
                f"{last[f'val/{name}_gain_high']:+.3f}]"
                for name in BASELINES
            )
            gains += " nats " + " ".join(
                f"{last[f'val/unigram_nll_gain{end}']:+.3f}" for end in ("", "_low", "_high")
            )
            print(
                f"| {head} | {decoding} | {shown(last, 'accuracy')} | {shown(last, 'exact')} "
                f"| {last['val/nll']:.3f} | {minutes:.1f} |   over {gains}",
                flush=True,
            )
    for name in BASELINES:
        nll = last.get(f"val/{name}_nll")
        said = f"{nll:.3f}" if nll is not None else ""
        print(
            f"| {name} | | {last[f'val/{name}_accuracy']:.3f} | {last[f'val/{name}_exact']:.3f} | {said} | |"
        )


def tiny(chosen: Any) -> Path:
    """The model to begin with."""
    folder: Path = chosen.scratch / "vlm"
    if not folder.exists():
        write_vlm(folder, VlmConfig())
    return folder


def labelled(chosen: Any) -> tuple[Path, Path]:
    """The dataset and its codes."""
    data, run = chosen.data, chosen.laq
    if data is None:
        data = chosen.scratch / "wrist-96"
        if not (data / "manifest.json").exists():
            written = write_rlds(chosen.scratch / "src-96", RldsSampleConfig(kitchens=96))
            source = SourceConfig(url=str(written), cameras=("wrist",))
            settings = Settings(rule=SplitRule(val=0.125))
            execute(plan(CompileConfig(source=source, out=str(data), settings=settings)))
    if run is None:
        run = chosen.scratch / "laq-wrist-96"
        if not run.exists():
            given = ["preset=tiny", f"data.datasets=[{data}]", f"run.dir={run}", "run.quiet=true"]
            given += ["train.steps=1600", f"train.threads={chosen.threads}"]
            train_laq(laq_config(given))
            AcceleratorState._reset_state(reset_partial_state=True)
    codes: Path = chosen.scratch / f"codes-{data.name}-{run.name}.parquet"
    if not codes.exists():
        label(str(data), open_run(run), str(codes))
    return data, codes


def shown(last: dict[str, Any], name: str) -> str:
    """A share and its interval."""
    return f"{last[f'val/{name}']:.3f} [{last[f'val/{name}_low']:.3f}, {last[f'val/{name}_high']:.3f}]"


def speed(chosen: Any) -> None:
    """Actions a second: of inputs that are prepared, and from frames and texts on."""
    frames = torch.randint(256, (32, 64, 64, 3), dtype=torch.uint8)
    texts = ["push the red block right"] * 32
    print("| decoding | batch | prepared, actions/s | from frames on, actions/s |")
    print("| --- | --- | --- | --- |", flush=True)
    for decoding in DECODINGS:
        config = vla_config(["preset=tiny", f"model={tiny(chosen)}", f"vla.decoding={decoding}"])
        processor = load_processor(config.model)
        shape = Shape(head="tokens", decoding=decoding, tokens=4, codes=8)
        model = build(config, processor, shape).eval()
        prompter = Prompter(processor, read_prompt("robot"), model.ids, decoding, 4, config.model)
        policy = Policy(model=model, prompter=prompter, shape=shape, device=torch.device("cpu"))
        for batch in (1, 32):
            inputs = prompter.encode(frames[:batch], texts[:batch], None)
            prepared = batch / least(partial(emit_from, policy, inputs))
            whole = batch / least(partial(emit, policy, frames[:batch], texts[:batch]))
            print(f"| {decoding} | {batch} | {prepared:,.0f} | {whole:,.0f} |", flush=True)


def least(work: Callable[[], Any]) -> float:
    """Seconds that some work takes, the least of many times."""
    took = []
    for _ in range(30):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took)


def step(chosen: Any) -> None:
    """Samples a second of training, before and now."""
    data = chosen.scratch / "primary-256"
    if not (data / "manifest.json").exists():
        written = write_rlds(chosen.scratch / "src-256", RldsSampleConfig(kitchens=8, size=256))
        settings = Settings(rule=SplitRule(val=0.125))
        execute(plan(CompileConfig(source=SourceConfig(url=str(written)), out=str(data), settings=settings)))
    dataset = Dataset.open(str(data))
    steps = {row["key"]: row["steps"] for row in dataset.table("episodes.parquet").to_pylist()}
    about = {"offset": 1, "tokens": 4, "codes": 8, "none": -1}
    random = np.random.default_rng(0)
    values = {key: random.integers(8, size=(count, 4), dtype=np.int32) for key, count in steps.items()}
    codes = chosen.scratch / "codes-256.parquet"
    mark = dataset.manifest.fingerprint
    write_annotation(
        str(codes), Annotation(name="codes", producer="a" * 64, dataset=mark, parameters=about, values=values)
    )
    vlm = chosen.scratch / "vlm-256"
    if not vlm.exists():  # one token per image, as the tiny model of 64 pixels has
        write_vlm(vlm, VlmConfig(image_size=256, patch=64))
    given = ["preset=tiny", f"model={vlm}", f"data.datasets=[{data}]", f"data.codes=[{codes}]", "val.every=0"]
    task = VlaTask(vla_config([*given, "data.image_size=256", "augment.light=0"]), torch.device("cpu"))
    model, loader = task.build(), task.loader(0, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    cut = partial(cut_batch, task, step=0, place=(0, 1), count=1, batch_size=64, pin=False)
    inside = ((batch, cut(batch), 0) for batch in loader)
    ahead = task.loader(0, 1).ahead(lambda number, batch: cut(batch))
    took: dict[str, list[float]] = {"before": [], "now": []}
    busy: dict[str, list[float]] = {"before": [], "now": []}
    for turn in range(2 * 2):
        name, data_of, kind = (("before", inside, nn.Conv3d), ("now", ahead, PatchProduct))[turn % 2]
        for module in model.modules():
            if isinstance(module, nn.Conv3d):
                module.__class__ = kind
        for number in range(8):
            began, worked = time.perf_counter(), time.thread_time()
            _, (piece,), _ = next(data_of)
            optimizer.zero_grad()
            task.loss(model, piece.inputs, piece.rows)[0].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if number > 4:  # what was read while the other one ran is used up
                took[name].append(time.perf_counter() - began)
                busy[name].append(time.thread_time() - worked)
    print("| step | samples/s | own CPU seconds per step |\n| --- | --- | --- |")
    rates = {name: 64 * len(seconds) / sum(seconds) for name, seconds in took.items()}
    for name, rate in rates.items():
        print(f"| {name} | {rate:,.1f} | {sum(busy[name]) / len(busy[name]):.3f} |", flush=True)
    print(f"\nnow / before: {rates['now'] / rates['before']:.2f}")


PARTS = {"quality": quality, "speed": speed, "step": step}


if __name__ == "__main__":
    main()
