"""`oxcart annotate`: values for every step of a compiled dataset, beside it in a Parquet file."""

from __future__ import annotations

import click

from oxcart.cli.options import PathOrUrl, quiet_option, workers_option
from oxcart.cli.outputs import MOTION, check_output, output_option, overwrite_option


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
@click.option("--camera", default="primary", help="Name or role of the camera to measure.")
@output_option(
    "-o",
    "--out",
    writes=MOTION,
    remote=True,
    help="File or URL to write, for a single DATASET.  [default: DATASET.motion.parquet]",
)
@overwrite_option(exposed=True)
@workers_option()
@quiet_option
def motion(
    datasets: tuple[str, ...],
    method: str,
    camera: str,
    out: str | None,
    overwrite: bool,
    workers: int,
    quiet: bool,
) -> None:
    """Measure how much each step of each DATASET differs from the next.

    The loader leaves out samples that move less than its `min_motion`; its printed table
    says how many are left.

    \b
    Example:
      oxcart annotate motion bridge clips
      oxcart annotate motion clips --method flow -o clips.flow.parquet
    """
    import numpy as np

    from oxcart.cli.progress import progress
    from oxcart.cli.table import table
    from oxcart.manifests.annotation import motion_url, write_annotation
    from oxcart.manifests.dataset import Dataset
    from oxcart.manifests.motion import measure
    from oxcart.shards.errors import ConfigError

    if out is not None and len(datasets) > 1:
        raise ConfigError(f"--out: expected a single DATASET, got {len(datasets)}; leave it out")
    opened = [Dataset.open(url) for url in datasets]
    targets = [out or motion_url(url) for url in datasets]
    if out is None:
        for target in targets:
            check_output("--out", target, MOTION, overwrite=overwrite)
    shares = (5, 25, 50, 75, 95)
    rows = []
    for target, dataset in zip(targets, opened, strict=True):
        steps = sum(count["steps"] for count in dataset.manifest.splits.values())
        with progress("measuring", total=steps, unit="frames", quiet=quiet) as report:
            found = measure(dataset, method=method, camera=camera, workers=workers, report=report)
        write_annotation(target, found)
        values = np.concatenate([np.empty(0, np.float32), *found.values.values()])
        rows.append([target, f"{len(values):,}", *(f"{np.percentile(values, one):.3g}" for one in shares)])
    if not quiet:
        click.echo(table(("written", "steps", *(f"{one}% are below" for one in shares)), rows))
