"""`oxcart annotate`: values for every step of a compiled dataset, beside it in a Parquet file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from oxcart.cli.options import PathOrUrl, quiet_option, workers_option
from oxcart.cli.outputs import (
    ACTION_FILE,
    MOTION_FILE,
    Output,
    check_output,
    output_option,
    overwrite_option,
)

if TYPE_CHECKING:
    from oxcart.manifests.annotation import Annotation
    from oxcart.manifests.dataset import Dataset


@click.group()
def annotate() -> None:
    """Measure something at every step of compiled datasets.

    The values go into a Parquet file beside each dataset, which stays as it is. What to
    make of them, such as a threshold, is an option of the loader.

    \b
    Example:
      oxcart annotate motion bridge
    """


@annotate.command()
@click.argument("datasets", metavar="DATASET...", nargs=-1, required=True, type=PathOrUrl())
@click.option(
    "--method",
    type=click.Choice(["difference", "flow"]),
    default="difference",
    help="Mean difference of grey levels (0 to 255), or mean optical flow (DIS) in percent of the "
    "longer side; flow needs OpenCV, of the extra `video`.",
)
@click.option(
    "--camera", multiple=True, help="Name or role of a camera to measure; may be repeated.  [default: all]"
)
@output_option(
    "-o",
    "--out",
    writes=MOTION_FILE,
    remote=True,
    help="File or URL to write, for a single DATASET.  [default: DATASET.motion.parquet]",
)
@overwrite_option(exposed=True)
@workers_option()
@quiet_option
def motion(
    datasets: tuple[str, ...],
    method: str,
    camera: tuple[str, ...],
    out: str | None,
    overwrite: bool,
    workers: int,
    quiet: bool,
) -> None:
    """Measure how much each step of each DATASET differs from the next.

    The loader leaves out samples that move less than its `min_motion`, as the cameras that
    they read see it; its printed table says how many are left.

    \b
    Example:
      oxcart annotate motion bridge clips
      oxcart annotate motion clips --method flow -o clips.flow.parquet
    """
    from oxcart.manifests.annotation import MOTION
    from oxcart.manifests.motion import measure

    def make(dataset: Dataset, report: Callable[[int], None]) -> Annotation:
        return measure(dataset, method=method, cameras=camera, workers=workers, report=report)

    def frames(dataset: Dataset) -> int:
        return _steps(dataset) * (len(camera) or len(dataset.manifest.cameras))

    _annotate(datasets, MOTION, MOTION_FILE, out, make, frames, overwrite=overwrite, quiet=quiet)


@annotate.command()
@click.argument("datasets", metavar="DATASET...", nargs=-1, required=True, type=PathOrUrl())
@click.option(
    "--leave-out", multiple=True, metavar="COLUMN", help="A column that does not count; may be repeated."
)
@output_option(
    "-o",
    "--out",
    writes=ACTION_FILE,
    remote=True,
    help="File or URL to write, for a single DATASET.  [default: DATASET.action.parquet]",
)
@overwrite_option(exposed=True)
@workers_option()
@quiet_option
def action(
    datasets: tuple[str, ...],
    leave_out: tuple[str, ...],
    out: str | None,
    overwrite: bool,
    workers: int,
    quiet: bool,
) -> None:
    """Measure how far the action of each step of each DATASET moves.

    The value is the norm of what the columns change, in their own units: deltas and
    velocities as they are, absolute values and grippers by their difference to the step
    before. The loader leaves out samples that move less than its `min_action`.

    \b
    Example:
      oxcart annotate action bridge --leave-out gripper
    """
    from oxcart.manifests.action_norm import measure_actions
    from oxcart.manifests.annotation import ACTION

    def make(dataset: Dataset, report: Callable[[int], None]) -> Annotation:
        return measure_actions(dataset, leave_out=leave_out, workers=workers, report=report)

    _annotate(datasets, ACTION, ACTION_FILE, out, make, _steps, overwrite=overwrite, quiet=quiet)


def _annotate(
    datasets: tuple[str, ...],
    name: str,
    kind: Output,
    out: str | None,
    make: Callable[[Dataset, Callable[[int], None]], Annotation],
    size: Callable[[Dataset], int],
    *,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Make an annotation of each dataset, write it, and say what its values are."""
    import numpy as np

    from oxcart.cli.progress import progress
    from oxcart.cli.table import table
    from oxcart.manifests.annotation import beside, write_annotation
    from oxcart.manifests.dataset import Dataset
    from oxcart.shards.errors import ConfigError

    if out is not None and len(datasets) > 1:
        raise ConfigError(f"--out: expected a single DATASET, got {len(datasets)}; leave it out")
    opened = [Dataset.open(url) for url in datasets]
    targets = [out or beside(url, name) for url in datasets]
    if out is None:
        for target in targets:
            check_output("--out", target, kind, overwrite=overwrite)
    shares = (5, 25, 50, 75, 95)
    rows = []
    for target, dataset in zip(targets, opened, strict=True):
        with progress("measuring", total=size(dataset), unit="steps", quiet=quiet) as report:
            found = make(dataset, report)
        write_annotation(target, found)
        values = [one.reshape(len(one), -1) for one in found.values.values()]
        for i, camera in enumerate(found.parameters.get("cameras", [""])):
            column = np.concatenate([np.empty(0, np.float32), *(one[:, i] for one in values)])
            said = f"{target}, {camera}" if camera else target
            rows.append([said, f"{len(column):,}", *(f"{np.percentile(column, p):.3g}" for p in shares)])
    if not quiet:
        click.echo(table(("written", "steps", *(f"{one}% are below" for one in shares)), rows))


def _steps(dataset: Dataset) -> int:
    return sum(count["steps"] for count in dataset.manifest.splits.values())
