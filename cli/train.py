"""`oxcart train`, `label`, `predict` and `compare`: train a model on datasets, use it, compare runs."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import Any

import click

from oxcart.cli.main import TERMINATED
from oxcart.cli.options import (
    LocalPath,
    PathOrUrl,
    device_option,
    model_options,
    need_train,
    need_vla,
    options,
)
from oxcart.cli.outputs import CODES, FRAME, PLOT, check_output, output_option, overwrite_option
from oxcart.cli.progress import progress
from oxcart.shards.errors import ConfigError

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
    "nll": "nats per code",
    "unigram_accuracy": "most frequent code",
    "instruction_accuracy": "by instruction",
    "nearest_accuracy": "by nearest frame",
}
POLICY_COLUMNS = {
    "l1": "error of scaled actions",
    "l1_first": "of the first action",
    "nearest_l1": "copying the nearest frame",
    "mean_l1": "the mean action",
    "code_accuracy": "codes right",
}
"""Metrics that are shown when a run ends -> their names in that table."""


@click.group()
def train() -> None:
    """Train a model from compiled datasets.

    \b
    Example:
      oxcart train laq preset=tiny data.datasets=[bridge] run.dir=runs/first
    """


_run_options = options(
    click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]..."),
    click.option(
        "--print-config", is_flag=True, help="Print the resolved configuration, every key, and exit."
    ),
    click.option(
        "--resume",
        type=click.Choice(["auto"]),
        help="auto: continue the run in run.dir with its configuration, or begin it if there is none.",
    ),
    click.option(
        "--allow-changes",
        is_flag=True,
        help="Resume although datasets, batch size or world size have changed.",
    ),
)
"""Arguments of every trainer."""


@train.command()
@_run_options
def laq(overrides: tuple[str, ...], print_config: bool, resume: str | None, allow_changes: bool) -> None:
    """Train the latent-action model: what moved between two frames, as a few codes.

    KEY=VALUE sets a key of the configuration, such as data.datasets=[bridge,droid] or
    train.steps=1000; preset=tiny, large, lapa,
    flow or wide chooses the values of all other keys.
    On several GPUs: torchrun --nproc-per-node 8 -m oxcart.cli.main train laq ...

    \b
    Example:
      oxcart train laq preset=tiny data.datasets=[bridge] run.dir=runs/first
      oxcart train laq --resume auto run.dir=runs/first train.steps=3000
    """
    need_train()
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

    model= is a hub id or a directory, data.codes= the latent-action labels of each dataset
    from oxcart label. vla.head and vla.decoding say how codes leave the model, vla.tune
    which of its weights learn; preset=tiny, base or lora chooses the values of all other
    keys.

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


@train.command()
@_run_options
def policy(overrides: tuple[str, ...], print_config: bool, resume: str | None, allow_changes: bool) -> None:
    """Train a policy that acts: from camera frames, state and instruction to actions.

    data.actions= says of how many train episodes the actions may be used: a share, or a
    number. The policy learns the codes of data.codes= on all episodes, and actions on
    these. policy.loss=l1 regresses actions, policy.loss=flow draws them from noise.
    oxcart.load_policy(RUN) acts; oxcart rollout RUN measures success.

    \b
    Example:
      oxcart train policy data.datasets=[out] data.codes=[codes.parquet] data.actions=0.1 run.dir=runs/policy
    """
    need_train()
    from oxcart.train.config import to_yaml
    from oxcart.train.policy.config import policy_config
    from oxcart.train.policy.task import train_policy

    config = policy_config(overrides, resume=resume is not None)
    if print_config:
        click.echo(to_yaml(config), nl=False)
        return
    result = train_policy(config, resume=resume is not None, allow_changes=allow_changes)
    then = f"oxcart rollout {shlex.quote(config.run.dir)} --env kitchens --split val"
    _say_how_it_ended("policy", result, config, POLICY_COLUMNS, then)


def _say_how_it_ended(what: str, result: Any, config: Any, columns: dict[str, str], then: str) -> None:
    """Print how a run ended and what to do next; exit as SIGTERM asks if that stopped it."""
    run = config.run.dir
    speaks = os.environ.get("RANK", "0") == "0"
    if result.stopped:
        # A launcher that sees one rank leave ends the others; each is to leave with its own status.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if not speaks:
            raise SystemExit(TERMINATED)
        again = f"oxcart train {what} --resume auto run.dir={shlex.quote(run)}"
        click.echo(
            f"oxcart: stopped by a signal at step {result.step:,}, saved; resume with: {again}", err=True
        )
        raise SystemExit(TERMINATED)
    if not speaks:
        return
    rate = f", {result.throughput:,.0f} samples/s" if result.throughput else ""
    click.echo(f"{run}: {result.step:,} steps{rate}")
    click.echo(_summary(result.metrics, config.val.splits, columns))
    drawn = [one for one in ("loss.png", "samples.png") if (Path(run) / one).exists()]
    plots = "plots: " + ", ".join(f"{run}/{one}" for one in drawn)
    click.echo(f"report: {run}/report.md, {plots}" if result.metrics else plots)
    click.echo(f"next: {then}")


def _summary(metrics: Any, splits: list[str], wanted: dict[str, str]) -> str:
    from oxcart.cli.table import line_width, table

    first = next(iter(wanted))
    shown = [split for split in splits if f"{split}/{first}" in metrics]
    rows = [
        (title, *(_cell(metrics.get(f"{split}/{name}")) for split in shown)) for name, title in wanted.items()
    ]
    return table(("metric", *shown), rows, width=line_width()) if shown else "not validated"


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else ""


@click.command()
@click.argument("datasets", nargs=-1, required=True, type=PathOrUrl(), metavar="DATASET...")
@click.option(
    "--laq",
    "run",
    type=LocalPath(file_okay=False),
    help="Directory of the run of the latent-action model.",
)
@click.option(
    "--policy",
    "inverse",
    type=LocalPath(file_okay=False),
    help="Directory of the run of an inverse-dynamics model, whose actions are written in place of codes.",
)
@output_option(
    "-o",
    "--output",
    writes=CODES,
    folder=True,
    required=True,
    help="File to write; for several DATASETs, a folder for one file each.",
)
@overwrite_option(exposed=True)
@model_options
@click.option(
    "--part",
    metavar="I/N",
    help="Do part I of N of the work, from 0. When all are done, the same command without --part writes the "
    "file.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def label(
    datasets: tuple[str, ...],
    run: Path | None,
    inverse: Path | None,
    output: Path,
    overwrite: bool,
    checkpoint: str,
    batch_size: int,
    device: str,
    part: str | None,
    quiet: bool,
) -> None:
    """Write latent-action labels: the codes of every step of each DATASET.

    The codes of step t are those of the frames at t and t + k, with the k of the run; the
    last k steps of an episode have none and get -1. Interrupted labelling resumes: run the
    command again. A loader reads the labels: annotations=["codes.parquet"]. On several GPUs:
    torchrun --nproc-per-node 8 -m oxcart.cli.main label ... Machines that share the folder
    of the file can each do a --part.

    With --policy, a run of oxcart train policy data.frames=[0,1] policy.horizon=1
    policy.state=false tells the action of every step from its frame and the next one, for
    data.pseudo=[actions.parquet].

    \b
    Example:
      oxcart label bridge --laq runs/first -o codes.parquet
      oxcart label bridge --laq runs/first -o codes.parquet --part 0/8
    """
    need_train()
    from oxcart.compile.engines import Part
    from oxcart.manifests.dataset import Dataset
    from oxcart.train.device import pick_device
    from oxcart.train.laq import label as work
    from oxcart.train.ranks import join

    if (run is None) == (inverse is None):
        raise click.UsageError("give one of --laq and --policy: the model that makes the labels")
    if inverse is not None:
        if len(datasets) > 1 or part is not None:
            raise click.UsageError("--policy labels one DATASET, and does not divide the work into parts")
        _tell_actions(datasets[0], inverse, output, batch_size, device, quiet)
        return
    assert run is not None
    share = None if part is None else Part.parse(part)
    ranks = join(gpu=pick_device(device).type == "cuda")
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
        total = work.count_pairs(url, labeller) if share is None else None
        with progress(
            "labelling", total=total, unit="pairs", quiet=quiet or not ranks.is_main_process
        ) as report:
            found = work.label(
                url,
                labeller,
                str(target),
                batch_size=batch_size,
                part=None if share is None else (share.number, share.count),
                ranks=ranks,
                report=report,
            )
        if ranks.is_main_process:
            click.echo(
                f"{target}: part {share} is there; when all are, run the command without --part"
                if found is None
                else f"{target}: codes of {found['coded']:,} of {found['steps']:,} steps, "
                f"{found['episodes']:,} episodes"
            )


def _tell_actions(url: str, run: Path, output: Path, batch_size: int, device: str, quiet: bool) -> None:
    """Write the actions that an inverse-dynamics model tells of a dataset."""
    from oxcart.train.policy.controller import load_policy
    from oxcart.train.policy.pseudo import relabel

    controller = load_policy(run, device=device)
    with progress("labelling", total=None, unit="steps", quiet=quiet) as report:
        found = relabel(url, controller, str(output), batch_size=batch_size, report=report)
    click.echo(
        f"{output}: actions of {found['told']:,} of {found['steps']:,} steps, {found['episodes']:,} episodes"
    )


@click.command()
@click.argument("run", type=LocalPath(file_okay=False))
@click.option("--image", type=LocalPath(dir_okay=False), required=True, help="Image, of any size.")
@click.option("--instruction", required=True, help='What the robot is told to do; may be "".')
@click.option(
    "--laq",
    type=LocalPath(file_okay=False),
    help="Run of the latent-action model that draws the next frame.  [default: data.laq]",
)
@output_option("-o", "--output", writes=FRAME, help="PNG to write.  [default: RUN/predicted.png]")
@overwrite_option(exposed=True)
@device_option
def predict(
    run: Path,
    image: Path,
    instruction: str,
    laq: Path | None,
    output: Path | None,
    overwrite: bool,
    device: str,
) -> None:
    """Predict latent codes for an image and an instruction, and the frame that follows.

    Draws the image, the instruction, the codes and the next frame. The latent-action model
    draws the next frame from the image and the codes; that needs the run that made the
    codes: data.laq of the training, or --laq.

    \b
    Example:
      oxcart predict runs/vla --image frame.png --instruction "push the red block right"
    """
    need_vla()
    from oxcart.cli.table import line_width, table
    from oxcart.train.vla.figures import draw_prediction, joined
    from oxcart.train.vla.predict import predict as work

    target = output if output is not None else run / "predicted.png"
    check_output("--output", target, FRAME, overwrite=overwrite)
    found = work(run, image, instruction, laq, device)
    rows = []
    for place, (code, shares) in enumerate(zip(found.codes, found.probabilities, strict=True)):
        order = sorted(range(len(shares)), key=lambda i: -shares[i])
        others = ", ".join(f"{i} {shares[i]:.0%}" for i in order[1:4])
        rows.append((str(place), str(code), f"{shares[code]:.1%}", others))
    click.echo(f"codes: {joined(found.codes)}")
    click.echo(table(("place", "code", "probability", "next"), rows, width=line_width()))
    if found.frame is None:
        click.echo(f"no next frame: {found.missing}; give the run that made the codes with --laq")
    draw_prediction(target, found)
    click.echo(f"drawn: {target}")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=PathOrUrl(), metavar="RUN...")
@output_option("-o", "--output", writes=PLOT, help="Curves to write: .png, .pdf or .svg.")
@overwrite_option()
def compare(runs: tuple[str, ...], output: Path | None) -> None:
    """Compare RUNs: how their configurations differ, and how they validate.

    Or compare rollouts, by the files that oxcart rollout --json wrote: each with the first,
    by pairs of episodes from the same starts.

    \b
    Example:
      oxcart compare runs/tokens runs/head runs/parallel -o compared.png
      oxcart compare cloned.json codes.json
    """
    need_train()
    from oxcart.cli.table import line_width, table
    from oxcart.train.compare import compare_runs, draw

    paths = [Path(run) for run in runs]
    if all(path.is_file() for path in paths):
        if output is not None:
            raise ConfigError("--output: rollouts have no curves; leave it out, or name directories")
        click.echo(_compared_rollouts(paths, line_width()))
        return
    found = compare_runs(paths)
    click.echo(table(found.columns, found.rows, width=line_width()))
    if output is not None:
        draw(output, found)
        click.echo(f"curves: {output}")


def _compared_rollouts(paths: list[Path], width: int) -> str:
    from oxcart.cli.table import table, wrapped
    from oxcart.train.rollout.compare import compare_rollouts
    from oxcart.train.rollout.rates import METHOD

    found = compare_rollouts(paths)
    rows = []
    for one in found:
        rate, apart = one.rate, one.difference
        cells: tuple[str | None, ...] = (None,) * 5
        if apart is not None:
            ends = apart.interval
            cells = (
                f"{apart.value:+.1%}",
                "" if ends is None else f"{ends.low:+.1%} to {ends.high:+.1%}",
                f"{apart.only_a} : {apart.only_b}",
                f"{apart.flipped:.3g}",
                f"{apart.mcnemar:.3g}",
            )
        share = f"{rate.value:.1%}", f"{rate.interval.low:.1%} to {rate.interval.high:.1%}"
        rows.append((one.name, one.place, *share, f"{rate.successes}/{rate.episodes}", *cells))
    own = ("rollout", "where", "success", "95% interval", "episodes")
    paired = ("- first", "95% interval of that", "wins : losses", "p by environments", "p by episodes")
    said = (
        f"{METHOD}; of a difference by a jackknife. p: sign flips of whole "
        "environments; McNemar's test, which takes episodes as independent"
    )
    return "\n".join([table((*own, *paired), rows, width=width), "", *wrapped(said, width, "    ")])
