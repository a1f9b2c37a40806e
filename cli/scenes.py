"""`oxcart scenes`: environments that are concluded from what the camera sees."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oxcart.cli.options import PathOrUrl, json_option
from oxcart.cli.outputs import SCENES, SCENES_PAGE, output_option, overwrite_option
from oxcart.cli.source import source_config, source_options, task_count
from oxcart.shards.files import write_file

if TYPE_CHECKING:
    from oxcart.compile.scenes.infer import Scenes


@click.command()
@click.argument("source", type=PathOrUrl())
@output_option(
    "-o",
    "--output",
    writes=SCENES,
    required=True,
    help="Write the scene of every episode to this Parquet or CSV file, for --environment-table.",
)
@output_option("--html", writes=SCENES_PAGE, help="Write a page to look at the scenes.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.6,
    show_default=True,
    help="Likeness of static backgrounds, from 0 to 1, above which episodes are one scene: lower for fewer "
    "scenes.",
)
@click.option("--census", type=PathOrUrl(), help="Census of the source, from scan --parquet: a file or URL.")
@json_option
@overwrite_option()
@source_options
def scenes(
    source: str,
    output: Path,
    html: Path | None,
    threshold: float,
    census: str | None,
    as_json: bool,
    workers: int | None,
    engine: str,
    ray_address: str | None,
    part: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Infer the scenes of SOURCE: episodes whose static backgrounds look alike.

    For a source that does not say where its episodes were recorded, such as most LeRobot
    datasets. A few frames of each episode are decoded. Scenes are conclusions: look at them with
    --html, correct the names in the table, and compile with it. Where SOURCE knows some
    environments, it is said how far scenes agree with them.

    \b
    Example:
      oxcart scenes aloha -o scenes.csv --html scenes.html
      oxcart compile aloha out --environment-table scenes.csv
    """
    from oxcart.cli.progress import progress
    from oxcart.compile import census as census_module
    from oxcart.compile.scenes.backgrounds import read_backgrounds
    from oxcart.compile.scenes.infer import infer_scenes
    from oxcart.compile.scenes.page import drawn_in_all, page
    from oxcart.compile.sources import open_source
    from oxcart.shards.errors import ConfigError

    if part is not None or engine != "processes":
        raise ConfigError("--part, --engine: expected neither, as all episodes are compared; leave them out")
    config = source_config(source, **options)
    opened, processes = open_source(config), task_count(workers, ray_address)
    if census is not None:
        taken = census_module.load(census, opened)
    else:
        with progress("scanning", total=opened.expected, unit="episodes", quiet=quiet) as report:
            taken = census_module.take(config, workers=processes, report=report, source=opened)
    rows = taken.usable.to_pylist()
    with progress("looking", total=len(rows), unit="episodes", quiet=quiet) as report:
        seen = read_backgrounds(config, opened, rows, processes, report)
    with progress("grouping", total=len(rows), unit="episodes", quiet=quiet) as report:
        found = infer_scenes(opened, rows, seen, threshold, processes, report)
    write_file(output, found.to_bytes(str(output)))
    if html is not None:
        with progress("drawing", total=drawn_in_all(found), unit="frames", quiet=quiet) as report:
            write_file(html, page(found, opened, " ".join(["oxcart", *sys.argv[1:]]), report))
    for reason, count in found.reasons.items():
        click.echo(f"oxcart: warning: {count:,} episodes have no scene: {reason}", err=True)
    if as_json:
        click.echo(json.dumps(_json(found), ensure_ascii=False))
    elif not quiet:
        click.echo(_text(found))


def _json(found: Scenes) -> dict[str, Any]:
    return {
        "dataset": found.dataset,
        "camera": found.camera,
        "threshold": found.threshold,
        "episodes": len(found.rows),
        "scenes": found.count,
        "unknown": int((found.labels < 0).sum()),
        "agreement": found.agreement,
    }


def _text(found: Scenes) -> str:
    lines = [
        f"{found.dataset}: {found.count:,} scenes in {len(found.rows):,} episodes, of camera {found.camera}, "
        f"at likeness above {found.threshold:g}"
    ]
    if said := found.agreement:
        measures = {"purity": "purity", "completeness": "completeness", "ari": "adjusted Rand index"}
        numbers = ", ".join(f"{words} {said[name]:.3f}" for name, words in measures.items())
        lines.append(
            f"{said['scenes']:,} scenes for the {said['environments']:,} environments that the source knows: "
            + numbers
        )
    return "\n".join(lines)
