"""`oxcart train`, `label`, `predict` and `compare`: train a model from compiled datasets, use it, and set
runs side by side.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from oxcart.cli.main import TERMINATED
from oxcart.cli.options import LocalPath, Place
from oxcart.cli.outputs import CODES, FRAME, PLOT, check_output, output_option, overwrite_option
from oxcart.cli.progress import progress

TRAIN_PACKAGES = ("torch", "accelerate", "omegaconf", "safetensors")
LAQ_COLUMNS = {
    "copy_ratio": "error / copy-frame baseline",
    "constant_ratio": "constant-code baseline",
    "usage": "codes used",
    "dead_codes": "dead codes",
    "probe_r2": "R2 codes -> action",
    "nmi_direction_excess": "NMI direction, above chance",
}
VLA_COLUMNS = {
    "accuracy": "codes right",
    "exact": "actions right",
    "nll": "nats a code",
    "unigram_accuracy": "most frequent",
    "instruction_accuracy": "by instruction",
    "nearest_accuracy": "of nearest frame",
}
"""Metrics that are shown when a run ends -> how they are called there."""


@click.group()
def train() -> None:
    """Train a model from compiled datasets.

    \b
    Example:
      oxcart train laq preset=tiny data.datasets=[bridge] run.dir=runs/first
    """


def _run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every trainer takes."""
    options: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [
        click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]..."),
        click.option(
            "--print-config", is_flag=True, help="Print the resolved configuration, every key, and exit."
        ),
        click.option(
            "--resume",
            type=click.Choice(["auto"]),
            help="auto: go on where the run in run.dir stopped, with its configuration; begin it if there is "
            "none.",
        ),
        click.option(
            "--allow-changes",
            is_flag=True,
            help="Resume although datasets, batch size or world size have changed.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@train.command()
@_run_options
def laq(overrides: tuple[str, ...], print_config: bool, resume: str | None, allow_changes: bool) -> None:
    """Train the latent-action model: what moved between two frames, as a few codes.

    KEY=VALUE sets a key of the configuration, such as data.datasets=[bridge,droid]
    or train.steps=1000; preset=tiny, base or wide says what the others begin with.
    For several GPUs: torchrun --nproc-per-node 8 -m oxcart.cli.main train laq ...

    \b
    Example:
      oxcart train laq preset=tiny data.datasets=[bridge] run.dir=runs/first
      oxcart train laq --resume auto run.dir=runs/first train.steps=3000
    """
    need_packages()
    from oxcart.train.config import to_yaml
    from oxcart.train.laq.config import laq_config
    from oxcart.train.laq.task import train_laq

    config = laq_config(overrides, resume=resume is not None)
    if print_config:
        click.echo(to_yaml(config), nl=False)
        return
    result = train_laq(config, resume=resume is not None, allow_changes=allow_changes)
    labelled, run = shlex.join(config.data.datasets), shlex.quote(config.run.dir)
    then = f"oxcart label {labelled} --laq {run} -o codes.parquet"
    _say_how_it_ended("laq", result, config, LAQ_COLUMNS, then)


@train.command()
@_run_options
def vla(overrides: tuple[str, ...], print_config: bool, resume: str | None, allow_changes: bool) -> None:
    """Train a vision-language model to emit the codes of an image and an instruction.

    model= is a hub id or a directory, data.codes= what oxcart label wrote of each
    dataset. vla.head and vla.decoding say how codes leave the model, vla.tune which of
    its weights learn; preset=tiny, base or lora says what the others begin with.

    \b
    Example:
      oxcart train vla model=Qwen/Qwen3-VL-2B-Instruct data.datasets=[bridge] data.codes=[codes.parquet]
    """
    need_vla()
    from oxcart.train.config import to_yaml
    from oxcart.train.vla.config import vla_config
    from oxcart.train.vla.task import train_vla

    config = vla_config(overrides, resume=resume is not None)
    if print_config:
        click.echo(to_yaml(config), nl=False)
        return
    result = train_vla(config, resume=resume is not None, allow_changes=allow_changes)
    then = f"oxcart predict {shlex.quote(config.run.dir)} --image FILE --instruction TEXT"
    _say_how_it_ended("vla", result, config, VLA_COLUMNS, then)


def _say_how_it_ended(what: str, result: Any, config: Any, columns: dict[str, str], then: str) -> None:
    """Say what a training came to, and what to do next; leave as SIGTERM has it where that stopped it."""
    run = config.run.dir
    if result.stopped:
        again = f"oxcart train {what} --resume auto run.dir={shlex.quote(run)}"
        click.echo(f"oxcart: stopped by a signal at step {result.step:,}, saved; go on: {again}", err=True)
        raise SystemExit(TERMINATED)
    if not _is_main_process():
        return
    rate = f", {result.throughput:,.0f} samples/s" if result.throughput else ""
    click.echo(f"{run}: {result.step:,} steps{rate}")
    click.echo(_summary(result.metrics, config.val.splits, columns))
    pictures = f"pictures: {run}/loss.png"
    click.echo(f"report: {run}/report.md, {pictures}, {run}/samples.png" if result.metrics else pictures)
    click.echo(f"next: {then}")


def _summary(metrics: Any, splits: list[str], wanted: dict[str, str]) -> str:
    from oxcart.cli.table import table

    first = next(iter(wanted))
    rows = [
        (split, *(_cell(metrics.get(f"{split}/{name}")) for name in wanted))
        for split in splits
        if f"{split}/{first}" in metrics
    ]
    return table(("split", *wanted.values()), rows) if rows else "not validated"


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else ""


@click.command()
@click.argument("datasets", nargs=-1, required=True, type=Place(), metavar="DATASET...")
@click.option("--laq", "run", type=LocalPath(file_okay=False), required=True, help="Directory of the run.")
@output_option(
    "-o",
    "--output",
    writes=CODES,
    folder=True,
    required=True,
    help="File to write; of several DATASETs, a folder for a file of each.",
)
@overwrite_option(exposed=True)
@click.option(
    "--checkpoint",
    type=Place(),
    default="last",
    show_default=True,
    metavar="last|best|FILE",
    help="Which weights of the run.",
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Pairs run together."
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="auto: a GPU where there is one.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def label(
    datasets: tuple[str, ...],
    run: Path,
    output: Path,
    overwrite: bool,
    checkpoint: str,
    batch_size: int,
    device: str,
    quiet: bool,
) -> None:
    """Write the codes of every step of DATASETs as annotations.

    Codes of step t are those of the frames at t and t + k, with k of the run; the
    last k steps of an episode have none, -1. What was cut off goes on when the same
    command is given again. A loader reads them: annotations=["codes.parquet"].

    \b
    Example:
      oxcart label bridge --laq runs/first -o codes.parquet
    """
    need_packages()
    from oxcart.manifests.dataset import Dataset
    from oxcart.shards.errors import ConfigError
    from oxcart.train.laq import label as work

    labeller = work.open_run(run, checkpoint, device)
    targets = dict.fromkeys(datasets, output)
    if len(datasets) > 1:
        names = {url: Dataset.open(url).manifest.dataset["name"] for url in datasets}
        if len(set(names.values())) < len(datasets):
            raise ConfigError(
                f"DATASET: two have one name, of {', '.join(names.values())}; label them one by one"
            )
        targets = {url: output / f"{name}.parquet" for url, name in names.items()}
        for target in targets.values():
            check_output("--output", target, CODES, overwrite=overwrite)
    elif output.is_dir():
        raise ConfigError(f"--output: {output} is a folder; expected a file such as {output}/codes.parquet")
    for url, target in targets.items():
        total = work.count_pairs(url, labeller)
        with progress("labelling", total=total, unit="pairs", quiet=quiet) as report:
            found = work.label(url, labeller, str(target), batch_size=batch_size, report=report)
        click.echo(
            f"{target}: codes of {found['coded']:,} of {found['steps']:,} steps, "
            f"{found['episodes']:,} episodes"
        )


@click.command()
@click.argument("run", type=LocalPath(file_okay=False))
@click.option("--image", type=LocalPath(dir_okay=False), required=True, help="Picture, of any size.")
@click.option("--instruction", required=True, help='What to do; "" for nothing in particular.')
@click.option(
    "--laq", type=LocalPath(file_okay=False), help="Run that draws the next frame.  [default: data.laq]"
)
@output_option("-o", "--output", writes=FRAME, help="PNG to write.  [default: RUN/predicted.png]")
@overwrite_option(exposed=True)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="auto: a GPU where there is one.",
)
def predict(
    run: Path,
    image: Path,
    instruction: str,
    laq: Path | None,
    output: Path | None,
    overwrite: bool,
    device: str,
) -> None:
    """Say what the model of RUN would do: codes, their probabilities, the next frame.

    The next frame is what the latent-action model makes of IMAGE and the codes; it
    needs the run that made them, of training's data.laq or of --laq.

    \b
    Example:
      oxcart predict runs/vla --image frame.png --instruction "push the red block right"
    """
    need_vla()
    from oxcart.cli.table import table
    from oxcart.train.vla.predict import predict as work
    from oxcart.train.vla.predict import write_png

    target = output if output is not None else run / "predicted.png"
    check_output("--output", target, FRAME, overwrite=overwrite)
    found = work(run, image, instruction, laq, device)
    rows = []
    for place, (code, shares) in enumerate(zip(found.codes, found.probabilities, strict=True)):
        order = sorted(range(len(shares)), key=lambda i: -shares[i])
        others = ", ".join(f"{i} {shares[i]:.0%}" for i in order[1:4])
        rows.append((str(place), str(code), f"{shares[code]:.1%}", others))
    click.echo(f"codes: {'-'.join(map(str, found.codes))}")
    click.echo(table(("place", "code", "probability", "next"), rows))
    if found.frame is None:
        click.echo(f"no next frame: {found.missing}; give the run that made the codes with --laq")
        return
    write_png(target, found.frame)
    click.echo(f"next frame: {target}")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=Place(), metavar="RUN...")
@output_option("-o", "--output", writes=PLOT, help="Curves to write: .png, .pdf or .svg.")
@overwrite_option()
def compare(runs: tuple[str, ...], output: Path | None) -> None:
    """Set RUNs side by side: what differs in them, and how they validate.

    \b
    Example:
      oxcart compare runs/tokens runs/head runs/parallel -o compared.png
    """
    need_packages()
    from oxcart.cli.table import table
    from oxcart.train.compare import compare_runs, draw

    found = compare_runs([Path(run) for run in runs])
    click.echo(table(found.columns, found.rows))
    if output is not None:
        draw(output, found)
        click.echo(f"curves: {output}")


def _is_main_process() -> bool:
    import os

    return os.environ.get("RANK", "0") == "0"


def need_packages(names: tuple[str, ...] = TRAIN_PACKAGES, extras: str = "train") -> None:
    """Refuse to go on without what training needs.

    Raises:
        ConfigError: a package is not installed.
    """
    from importlib.util import find_spec

    from oxcart.shards.errors import ConfigError

    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"training needs {', '.join(missing)}: pip install -c constraints.txt '.[{extras}]'"
        )


def need_vla() -> None:
    """Refuse to go on without the extra `vla`.

    Raises:
        ConfigError: says what is missing.
    """
    need_packages((*TRAIN_PACKAGES, "transformers", "tokenizers", "num2words"), "train,vla")
