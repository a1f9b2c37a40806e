"""`oxcart train` and `oxcart label`: train a model from compiled datasets, and use it on them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from oxcart.cli.options import LocalPath
from oxcart.cli.progress import progress

TERMINATED = 143
"""Exit code after SIGTERM, as shells have it."""


@click.group()
def train() -> None:
    """Train a model from compiled datasets.

    \b
    Example:
      oxcart train laq preset=tiny data.datasets=[bridge] run.dir=runs/first
    """


@train.command()
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--print-config", is_flag=True, help="Print the resolved configuration, every key, and exit.")
@click.option(
    "--resume",
    type=click.Choice(["auto"]),
    help="auto: go on where the run in run.dir stopped, with its configuration; begin it if there is none.",
)
@click.option(
    "--allow-changes", is_flag=True, help="Resume although datasets, batch size or world size have changed."
)
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
    from oxcart.train.laq.run import configure, train_laq

    config = configure(overrides, resume=resume is not None)
    if print_config:
        click.echo(to_yaml(config), nl=False)
        return
    result = train_laq(config, resume=resume is not None, allow_changes=allow_changes)
    run = config.run.dir
    again = f"oxcart train laq --resume auto run.dir={shlex.quote(run)}"
    if result.stopped:
        click.echo(f"oxcart: stopped by a signal at step {result.step:,}, saved; go on: {again}", err=True)
        raise SystemExit(TERMINATED)
    if not _is_main_process():
        return
    rate = f", {result.throughput:,.0f} samples/s" if result.throughput else ""
    click.echo(f"{run}: {result.step:,} steps{rate}")
    click.echo(_summary(result.metrics, config.val.splits))
    if result.metrics:
        click.echo(f"report: {run}/report.md, pictures: {run}/loss.png, {run}/samples.png")
    click.echo(
        f"next: oxcart label {shlex.join(config.data.datasets)} --laq {shlex.quote(run)} -o codes.parquet"
    )


def _summary(metrics: Any, splits: list[str]) -> str:
    from oxcart.cli.table import table

    wanted = {
        "copy_ratio": "error / copying's",
        "constant_ratio": "same code for all",
        "usage": "codes used",
        "dead_codes": "dead codes",
        "probe_r2": "R2 codes -> action",
        "nmi_direction_excess": "NMI direction, above chance",
    }
    rows = [
        (split, *(_cell(metrics.get(f"{split}/{name}")) for name in wanted))
        for split in splits
        if f"{split}/copy_ratio" in metrics
    ]
    return table(("split", *wanted.values()), rows) if rows else "not validated"


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else ""


@click.command()
@click.argument("datasets", nargs=-1, required=True, metavar="DATASET...")
@click.option("--laq", "run", type=LocalPath(file_okay=False), required=True, help="Directory of the run.")
@click.option(
    "-o",
    "--output",
    type=LocalPath(),
    required=True,
    help="File to write; of several DATASETs, a folder for a file of each.",
)
@click.option(
    "--checkpoint",
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


def _is_main_process() -> bool:
    import os

    return os.environ.get("RANK", "0") == "0"


def need_packages() -> None:
    """Refuse to go on without what training needs.

    Raises:
        ConfigError: a package is not installed.
    """
    from importlib.util import find_spec

    from oxcart.shards.errors import ConfigError

    missing = [
        name for name in ("torch", "accelerate", "omegaconf", "safetensors") if find_spec(name) is None
    ]
    if missing:
        raise ConfigError(f"training needs {', '.join(missing)}: pip install -c constraints.txt '.[train]'")
