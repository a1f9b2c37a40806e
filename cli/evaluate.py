"""`oxcart evaluate`: what the codes of a trained model mean, and whether they mean the same everywhere."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oxcart.cli.options import LocalPath, PathOrUrl, model_options, need_train, quiet_option, read_text
from oxcart.cli.outputs import ANALYSIS_JSON, ANALYSIS_PAGE, report_options
from oxcart.shards.files import write_file

if TYPE_CHECKING:
    from oxcart.train.evaluate.analysis import Analysis


@click.group()
def evaluate() -> None:
    """Say what the codes of a trained model mean.

    \b
    Example:
      oxcart evaluate laq runs/first bridge -o analysis.html
    """


@evaluate.command()
@click.argument("run", type=LocalPath(file_okay=False))
@click.argument("datasets", nargs=-1, required=True, type=PathOrUrl(), metavar="DATASET...")
@report_options(page=ANALYSIS_PAGE, json=ANALYSIS_JSON)
@click.option(
    "--strategies", metavar="NAME,...", help="Questions to ask, such as compass,transfer.  [default: all]"
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=2048,
    help="Pairs per dataset and split, at most, drawn at random.",
)
@click.option(
    "--frames",
    type=click.IntRange(min=0),
    default=256,
    help="Pairs whose frames are kept in memory, for strategies that decode.",
)
@click.option(
    "--subsets",
    type=LocalPath(exists=True, dir_okay=False),
    help="YAML of subsets of the pairs to report as well, one per line: `new: held out`, "
    "`bridge: dataset=bridge`, `toys: environment~toy`.  [default: each dataset]",
)
@model_options
@click.option(
    "--flow",
    type=click.Choice(["dis", "raft", "none"]),
    default="dis",
    help="Optical flow: OpenCV's DIS, torchvision's RAFT, or none.",
)
@click.option(
    "--flow-weights",
    type=LocalPath(exists=True, dir_okay=False),
    help="File with weights of RAFT.  [default: torchvision's]",
)
@click.option(
    "--text-model",
    metavar="DIR|NAME",
    help="Language model of transformers that embeds instructions: a directory, or an id of the Hugging Face "
    "hub.  [default: none: words are compared, not meaning]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of everything that is drawn.")
@quiet_option
def laq(
    run: Path,
    datasets: tuple[str, ...],
    output: Path | None,
    json_file: Path | None,
    strategies: str | None,
    samples: int,
    frames: int,
    subsets: Path | None,
    checkpoint: str,
    flow: str,
    flow_weights: Path | None,
    text_model: str | None,
    batch_size: int,
    device: str,
    seed: int,
    quiet: bool,
) -> None:
    """Say whether the codes of RUN mean the same in every environment of every DATASET.

    Numbers are of environments that RUN was not trained on. Beside them stand those of
    environments that it was trained on, those of shuffled codes and those of the same model
    before training, with confidence intervals over environments (over episodes, if there are
    fewer than five). What cannot be measured is listed with the reason.

    \b
    Example:
      oxcart evaluate laq runs/first bridge -o analysis.html --json analysis.json
      oxcart evaluate laq runs/first bridge droid -o analysis.html --strategies compass,transfer
    """
    need_train()
    from oxcart.cli.progress import stages
    from oxcart.manifests.dataset import Dataset
    from oxcart.train.device import pick_device
    from oxcart.train.evaluate import strategies as known
    from oxcart.train.evaluate.gather import Draw, name_datasets
    from oxcart.train.evaluate.laq import EvaluateOptions, analyse
    from oxcart.train.evaluate.subsets import parse
    from oxcart.train.laq.label import open_run
    from oxcart.train.ranks import join

    chosen = () if strategies is None else tuple(name.strip() for name in strategies.split(","))
    known.check(chosen, "--strategies")
    options = EvaluateOptions(
        strategies=chosen,
        draw=Draw(samples=samples, frames=frames, batch_size=batch_size, seed=seed),
        flow=flow,
        flow_weights=None if flow_weights is None else str(flow_weights),
        text_model=text_model,
        subsets=None if subsets is None else tuple(parse(read_text(subsets), str(subsets))),
    )

    ranks = join(gpu=pick_device(device).type == "cuda")
    quiet = quiet or not ranks.is_main_process
    opened = name_datasets([Dataset.open(url) for url in datasets])
    labeller = open_run(run, checkpoint, device)
    command = click.get_current_context().params
    about = {
        "run": str(run),
        "step": labeller.step,
        "model": labeller.fingerprint,
        "command": _command(run, datasets, command),
    }
    found = analyse(
        labeller.model,
        labeller.config,
        opened,
        options,
        labeller.device,
        record=labeller.record,
        stage=stages(quiet),
        about=about,
        ranks=ranks,
    )
    if not ranks.is_main_process:
        return
    if output is not None or json_file is not None:
        from oxcart.train.evaluate.report import report_html, report_json

        for path, make in ((output, report_html), (json_file, report_json)):
            if path is not None:
                write_file(path, make(found))
    if not quiet:
        from oxcart.cli.table import line_width, show

        show(_text(found, output, line_width()))


def _command(run: Path, datasets: tuple[str, ...], given: dict[str, Any]) -> str:
    """The command line that makes this report, without the files it is written to."""
    words = ["oxcart", "evaluate", "laq", str(run), *datasets]
    for name in ("strategies", "samples", "frames", "subsets", "checkpoint", "flow", "text_model", "seed"):
        if given[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(given[name])]
    return shlex.join(words)


def _text(found: Analysis, output: Path | None, width: int) -> str:
    from oxcart.cli.table import painter, plain, table, wrapped
    from oxcart.train.evaluate.analysis import TONES
    from oxcart.train.evaluate.report import say, say_interval, say_told

    rows = [
        (
            f"{row.strategy}/{row.number.name}",
            row.verdict,
            say(row.number.value, row.number.unit),
            say_interval(row.number),
            say(row.seen.value) if row.seen else None,
            say(row.null.value) if row.null else None,
            say(row.untrained.value) if row.untrained else None,
        )
        for row in found.rows()
    ]
    header = ("number", "verdict", found.place, "95% interval", "seen", "shuffled", "untrained")
    lines = (
        [table(header, rows, width=width, paint={"verdict": painter(TONES)})]
        if rows
        else ["no number could be taken"]
    )
    if any(row.number.over == "episodes" for row in found.rows()):
        few = "intervals are over episodes: there are too few environments to speak of others than these"
        lines += wrapped(few, width, "    ")
    for section in found.sections:
        for skip in section.skips:
            said = f"{section.name}: {skip.what}: skipped, because {skip.because}"
            lines += wrapped(said, width, "    ")
    for sentence in say_told(found.rows()):
        lines += wrapped(sentence, width, "    ")
    if output is not None:
        lines += ["", f"report: {plain(str(output))}"]
    return "\n".join(lines)
