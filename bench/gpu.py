"""What one GPU makes of oxcart: trainings, what feeds them, and labels, in at most ten minutes.

    python bench/gpu.py                        # all of it; on a CPU the same paths, tiny, which judge no bar
    python bench/gpu.py --only lapa codecs --json gpu.json

It needs oxcart with two extras, torchvision for the vision-language model, and a C compiler for
`train.compile`; no network and no data. Where the machine has a torch of its own:

    python -m venv --system-site-packages .venv
    .venv/bin/pip install '.[train,vla,video]' torchvision
    .venv/bin/python bench/gpu.py

Trainings are the commands that a user would run, in bf16 and compiled, with batches of 64 pairs of 256 by 256
pixels. They are stopped after a few lines of metrics, of which the last counts: its rates are of its own
steps, so warm-up and compiling are left out. `qwen3-vl-2b` has the sizes of Qwen3-VL-2B and random weights.
MFU counts the FLOPs of the model, without what checkpointing computes twice. `codecs` reads as training does
and copies to the device; its multiple is of what the fastest training above took. Files have just been
written, so the operating system may still have them in memory. Each measurement is a process with a time
limit, so what fails costs one line of the table.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

OXCART = (sys.executable, "-m", "oxcart.cli.main")
GPU = torch.cuda.is_available()
CODECS = ("raw", "jpeg", "av1")
BUDGET_S = 570
"""Seconds for everything; sections that no time is left for are not run."""
WINDOW, WINDOWS = (20, 3) if GPU else (12, 1)
"""Steps per line of metrics, and lines after which a training is stopped."""
SECONDS = 6.0 if GPU else 1.5
"""How long a codec is read, and labels are made."""
SIDE, BATCH = (256, 64) if GPU else (64, 8)
SMALL = (
    *("model.image_size=64", "model.patch=8", "model.width=64", "model.heads=4"),
    *("model.spatial_depth=1", "model.temporal_depth=1", "model.decoder_depth=1"),
)
TEXT_2B = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
VISION_2B = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_heads": 16,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "out_hidden_size": 2048,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [5, 11, 17],
}
"""Sizes in the configuration of Qwen/Qwen3-VL-2B-Instruct."""


class NotRunError(Exception):
    """Why a measurement has no numbers."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    found: dict[str, float | None]
    """Name of each number -> the number; None if it is unknown on this device."""
    bar: str = ""
    """What is asked for; "" for nothing."""
    met: bool | None = None
    """Whether it is; None if this device cannot tell."""
    why: str = ""
    """Why there are no numbers."""


def main() -> None:
    """Measure, and print a table."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--scratch", type=Path, default=Path("scratch/bench-gpu"))
    options.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    options.add_argument("--json", type=Path, help="file for the numbers")
    options.add_argument("--inner", nargs=2, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    scratch = chosen.scratch.resolve()
    if chosen.inner:
        print(json.dumps(INNER[chosen.inner[0]](scratch, chosen.inner[1])))
        return
    began = time.monotonic()
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    device = torch.cuda.get_device_name() if GPU else "a CPU, so everything is small and no bar is judged"
    print(f"torch {torch.__version__} on {device}\n\n| | found | bar |\n| --- | --- | --- |", flush=True)
    rows: list[Row] = []
    for name in ("data", *chosen.only):
        work, limit_s = SECTIONS.get(name, (data, 120))
        left = began + BUDGET_S - time.monotonic()
        try:
            if left < 10:
                raise NotRunError(f"the {BUDGET_S} s were used up")
            found = work(scratch, min(limit_s, left), rows)
        except NotRunError as error:
            found = [Row(name=name, found={}, why=str(error))]
        rows += found
        for row in found:
            print(line(row), flush=True)
    print(f"\n{time.monotonic() - began:.0f} s in all")
    if chosen.json:
        about = {"device": device, "gpu": GPU, "torch": torch.__version__}
        chosen.json.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


def line(row: Row) -> str:
    """A row as a line of the table."""
    found = [f"{name} {'unknown' if one is None else f'{one:,.4g}'}" for name, one in row.found.items()]
    said = f"not run: {row.why}" if row.why else ", ".join(found)
    verdict = "" if row.met is None else ": met" if row.met else ": missed"
    return f"| {row.name} | {said} | {row.bar}{verdict} |"


def data(scratch: Path, limit_s: float, rows: Sequence[Row]) -> list[Row]:
    """Write the dataset, once per codec."""
    until = time.monotonic() + limit_s
    size = ("--kitchens", "6" if GPU else "2", "--size", str(SIDE))
    finished(("sample", "rlds", str(scratch / "source"), *size, "--quiet"), until)
    source = str(scratch / "source" / "oxcart_kitchens" / "1.0.0")
    finished(("compile", source, str(scratch / "raw"), "--val-fraction", "0.2", "--quiet"), until)
    return []


def latent_actions(preset: str, scratch: Path, limit_s: float, rows: Sequence[Row]) -> list[Row]:
    """Train a latent-action model of a preset; its checkpoint stays."""
    given = [f"preset={preset}", "data.offset=5", "data.per_episode=all", "model.checkpointing=false"]
    given += ["train.compile=true"] if GPU else SMALL
    found = trained("laq", preset, given, scratch, limit_s, keep=True)
    return [judged(f"train laq preset={preset}", found, "MFU of 40%", 40)]


def qwen(compiled: bool, scratch: Path, limit_s: float, rows: Sequence[Row]) -> list[Row]:
    """Train a vision-language-action model."""
    if compiled and not GPU:
        raise NotRunError("on a CPU compiling takes longer than all the rest")
    for package in ("transformers", *(("torchvision",) if GPU else ())):
        if importlib.util.find_spec(package) is None:
            raise NotRunError(f"{package} is missing")
    until = time.monotonic() + limit_s
    model = scratch / "vlm"
    if not model.exists():
        finished(("sample", "vlm", str(model), "--image-size", str(SIDE)), until)
        if GPU:
            enlarge(model)
    codes = inner(scratch, "codes", "raw", until)["path"]
    given = ["preset=base", f"model={model}", f"data.codes=[{codes}]", f"train.compile={compiled}"]
    name = "qwen3-vl-2b" if GPU else "tiny qwen3-vl"
    name += ", compiled" if compiled else ""
    found = trained("vla", name, given, scratch, until - time.monotonic(), keep=False)
    row = judged(f"train vla, {name}", found, "MFU of 35%, waiting under 2%", 35)
    waits = found["waiting (%)"]
    return [Row(**{**asdict(row), "met": row.met and waits is not None and waits < 2})]


def judged(name: str, found: dict[str, float | None], bar: str, least: float) -> Row:
    """A row whose MFU is asked to be so high."""
    mfu = found["MFU (%)"]
    return Row(name=name, found=found, bar=bar, met=None if mfu is None else mfu >= least)


def trained(
    kind: str, name: str, given: Sequence[str], scratch: Path, limit_s: float, *, keep: bool
) -> dict[str, float | None]:
    """The last rates of a training that is stopped after some lines of metrics.

    Args:
        kind: `laq` or `vla`.
        name: name of its run.
        given: its configuration.
        scratch: folder of all files.
        limit_s: how long it may take, in seconds.
        keep: whether it writes a checkpoint when it is stopped.
    """
    run = scratch / name.replace(", ", "-").replace(" ", "-")
    common = [f"data.datasets=[{scratch / 'raw'}]", f"data.batch_size={BATCH}", f"run.dir={run}"]
    common += ["run.quiet=true", "val.every=0", f"train.log_every={WINDOW}", "train.save_every=1000000"]
    until, metrics = time.monotonic() + limit_s, run / "metrics.jsonl"
    lines: list[str] = []
    with started(("train", kind, *given, *common), scratch / f"{run.name}.log") as process:
        while len(lines) < WINDOWS and process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
            lines = metrics.read_text().splitlines() if metrics.exists() else []
        if keep and len(lines) >= WINDOWS:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(1.0, until - time.monotonic()))
    if len(lines) < WINDOWS:
        raise NotRunError(ending(process, scratch / f"{run.name}.log", limit_s))
    last = json.loads(lines[-1])
    return {
        "MFU (%)": last["mfu (%)"],
        "samples/s": last["throughput"],
        "TFLOP/s": last["tflops"],
        "waiting (%)": last["data_loading (%)"],
        "memory (GB)": last.get("memory_gb"),
    }


def codecs(scratch: Path, limit_s: float, rows: Sequence[Row]) -> list[Row]:
    """Read each codec as training does."""
    until = time.monotonic() + limit_s
    needs = [row.found["samples/s"] for row in rows if row.name.startswith("train laq") and row.found]
    need = max((one for one in needs if one is not None), default=None)
    found = []
    for codec in CODECS:
        try:
            if codec != "raw":
                given = (str(scratch / "raw"), str(scratch / codec), "--codec", codec, "--quiet")
                finished(("transcode", *given), until)
            rate = inner(scratch, "feed", codec, until)["samples/s"]
        except NotRunError as error:
            found.append(Row(name=f"read {codec}", found={}, why=str(error)))
            continue
        times = rate / need if need else None
        numbers = {"samples/s": rate, "times what training takes": times}
        met = times > 1 if GPU and times is not None else None
        found.append(Row(name=f"read {codec}", found=numbers, bar="above 1 time", met=met))
    return found


def labels(scratch: Path, limit_s: float, rows: Sequence[Row]) -> list[Row]:
    """Label the dataset with the model that was trained."""
    run = next((name for name in ("lapa", "large") if (scratch / name / "checkpoints").exists()), None)
    if run is None:
        raise NotRunError("no latent-action model was trained")
    rate = inner(scratch, "label", run, time.monotonic() + limit_s)["samples/s"]
    return [Row(name=f"label with {run}, one rank", found={"samples/s": rate})]


SECTIONS: dict[str, tuple[Callable[[Path, float, Sequence[Row]], list[Row]], float]] = {
    "large": (partial(latent_actions, "large"), 120),
    "lapa": (partial(latent_actions, "lapa"), 120),
    "codecs": (codecs, 90),
    "label": (labels, 40),
    "vla": (partial(qwen, False), 120),
    "vla-compiled": (partial(qwen, True), 180),
}
"""Name of a section -> what it does, and the seconds that it may take."""


def feed(scratch: Path, codec: str) -> dict[str, float]:
    """Samples a second that arrive on the device, read as `preset=lapa` reads them."""
    from oxcart.train.laq.config import laq_config
    from oxcart.train.laq.task import LaqTask
    from oxcart.train.pieces import cut_batch, sent

    for path in (scratch / codec).rglob("*"):
        if path.is_file() and hasattr(os, "posix_fadvise"):
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    device = torch.device("cuda" if GPU else "cpu")
    given = ["preset=lapa", "data.offset=5", "data.per_episode=all", f"data.datasets=[{scratch / codec}]"]
    given += ["val.every=0", f"data.batch_size={BATCH}", *(() if GPU else SMALL)]
    task = LaqTask(laq_config(given), device)
    cut = partial(cut_batch, place=(0, 1), count=1, batch_size=BATCH, pin=GPU)
    ahead = task.loader(0, 1).ahead(lambda number, batch: cut(task, batch, number))
    batches = sent(ahead, device)
    for _ in range(8):
        next(batches)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        count += len(next(batches).batch)
    if GPU:
        torch.cuda.synchronize()
    return {"samples/s": count / (time.perf_counter() - began)}


def label_again(scratch: Path, run: str) -> dict[str, float]:
    """Samples a second of labelling the dataset, after a first time that does not count."""
    from oxcart.train.laq.label import label, open_run

    labeller = open_run(scratch / run)
    data, done, began = str(scratch / "raw"), 0, 0.0
    for number in range(1000):
        found = label(data, labeller, str(scratch / f"label-{number}.parquet"))
        assert found is not None
        if number == 0:
            began = time.perf_counter()
            continue
        done += found["coded"]
        if time.perf_counter() - began > SECONDS:
            break
    return {"samples/s": done / (time.perf_counter() - began)}


def draw_codes(scratch: Path, dataset: str) -> dict[str, str]:
    """Write random codes for the dataset."""
    import numpy as np

    from oxcart.manifests.annotation import Annotation, write_annotation
    from oxcart.manifests.dataset import Dataset

    opened, random = Dataset.open(str(scratch / dataset)), np.random.default_rng(0)
    steps = {row["key"]: row["steps"] for row in opened.table("episodes.parquet").to_pylist()}
    values = {key: random.integers(8, size=(count, 4), dtype=np.int32) for key, count in steps.items()}
    about = {"offset": 1, "tokens": 4, "codes": 8, "none": -1}
    mark, path = opened.manifest.fingerprint, scratch / "codes.parquet"
    made = Annotation(name="codes", producer="a" * 64, dataset=mark, parameters=about, values=values)
    write_annotation(str(path), made)
    return {"path": str(path)}


INNER: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    "feed": feed,
    "label": label_again,
    "codes": draw_codes,
}
"""What runs in a process of its own; each prints one line of JSON."""


def enlarge(model: Path) -> None:
    """Give a tiny model the sizes of Qwen3-VL-2B. Its weights go: whoever loads it draws them at random."""
    from safetensors.torch import save_file

    config = json.loads((model / "config.json").read_text())
    config["text_config"] |= TEXT_2B
    config["text_config"]["rope_parameters"] |= {"mrope_section": [24, 20, 20], "rope_theta": 5e6}
    config["vision_config"] |= VISION_2B
    (model / "config.json").write_text(json.dumps(config))
    for name in ("processor_config.json", "video_preprocessor_config.json"):
        about = json.loads((model / name).read_text())
        part = about.get("image_processor", about)
        part |= {"patch_size": 16, "merge_size": 2}
        (model / name).write_text(json.dumps(about))
    last = {"model.language_model.norm.weight": torch.ones(TEXT_2B["hidden_size"])}
    save_file(last, model / "model.safetensors", {"format": "pt"})


def inner(scratch: Path, what: str, argument: str, until: float) -> dict[str, Any]:
    """The result of a function of INNER in a process of its own."""
    command = (sys.executable, __file__, "--scratch", str(scratch), "--inner", what, argument)
    return dict(json.loads(ended(command, scratch / f"{what}-{argument}.log", until).splitlines()[-1]))


def finished(arguments: Sequence[str], until: float) -> None:
    """Run a command of oxcart to its end."""
    scratch = Path(next(one for one in arguments if os.sep in one)).parent
    ended((*OXCART, *arguments), scratch / f"{arguments[0]}.log", until)


def ended(command: Sequence[str], log: Path, until: float) -> str:
    """The output of a command that has to end well, and in time."""
    limit_s = max(1.0, until - time.monotonic())
    with started(command, log) as process, contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(limit_s)
    if process.returncode != 0:
        raise NotRunError(ending(process, log, limit_s))
    return log.with_suffix(".out").read_text()


@contextlib.contextmanager
def started(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running command, which ends with the block, and all that it has started."""
    command = command if command[0] == sys.executable else (*OXCART, *command)
    with open(log, "wb") as said, open(log.with_suffix(".out"), "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=said, start_new_session=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def ending(process: subprocess.Popen[bytes], log: Path, limit_s: float) -> str:
    """How a command ended that should have gone on."""
    if process.returncode == -signal.SIGKILL:
        return f"it took more than {limit_s:.0f} s"
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (said[-1] if said else f"it ended with {process.returncode}")[:200].replace("|", "/")


if __name__ == "__main__":
    main()
