"""`oxcart audit`, `oxcart diff` and `oxcart repair-split`: is held-out data unseen, and what to do if not."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oxcart.cli.main import CLEAN, DIFFERENT, LEAK, SUSPICIOUS, UNCLEAR, complain, explained
from oxcart.cli.options import LocalPath, PathOrUrl, json_option, quiet_option, workers_option
from oxcart.cli.outputs import AUDIT_JSON, AUDIT_PAGE, RULE, output_option, overwrite_option, report_options
from oxcart.cli.table import line_width, painter, plain, show, table, wrapped
from oxcart.shards.files import write_file
from oxcart.shards.text import cut

if TYPE_CHECKING:
    from oxcart.manifests.audit.audit import Audit
    from oxcart.manifests.diff import Change, Difference

FAIL_ON = ("leak", "failed", "suspicious", "never")
SHOWN = 20
"""Maximum number of lines of a list."""
TONES = {
    "leak": "bad",
    "failed": "bad",
    "suspicious": "odd",
    "not checked": "none",
    "clean": "good",
    "passed": "good",
}
"""Tones of verdicts and statuses."""


@contextlib.contextmanager
def _unclear() -> Iterator[None]:
    """Every error is one line and exit code 2, even if the reader of stdout has gone: 1 would mean a leak."""
    try:
        yield
    except (click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        with contextlib.suppress(BrokenPipeError):
            if isinstance(error, click.ClickException):
                error.show()
            elif not (isinstance(error, OSError) and error.errno == errno.EPIPE):
                complain(explained(error)[0])
        _leave_unread()
        raise SystemExit(UNCLEAR) from error


def _leave_unread() -> None:
    """Redirect streams that have lost their reader to nowhere; Python would fail to flush them at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Careful(click.Command):
    """A command that exits with 2 on every error, because it could not check."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Parse the command line."""
        with _unclear():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _unclear():
            return super().invoke(ctx)


@click.command(cls=Careful)
@click.argument("dataset", nargs=-1, required=True, type=PathOrUrl())
@report_options(page=AUDIT_PAGE, json=AUDIT_JSON)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    help="Episodes per split whose frames are decoded, at most.  [default: all]",
)
@click.option("--frames", type=click.IntRange(2, 64), default=8, help="Frames per episode that are decoded.")
@click.option("--seed", type=int, default=0, help="Seed of --sample and of planted leaks.")
@click.option(
    "--fail-on",
    type=click.Choice(FAIL_ON),
    default="failed",
    help="What fails. leak: a leak alone; failed: also a suspicious verdict or a failed check; suspicious: "
    "also a suspicious check. What could not be checked fails too, except with never.",
)
@workers_option()
@quiet_option
def audit(
    dataset: tuple[str, ...],
    output: Path | None,
    json_file: Path | None,
    sample: int | None,
    frames: int,
    seed: int,
    fail_on: str,
    workers: int,
    quiet: bool,
) -> None:
    """Say whether what DATASET holds out is unseen by train, and how far to believe it.

    Compares names, records, trajectories and frames of val and test with those of train,
    across all datasets that are given. Every audit also plants leaks, and reports how many
    of each kind it found.

    Exits with 0 if clean, 1 on a leak or a failed check, 2 if it could not be checked, and 3 if
    it is suspicious and a person should look (see --fail-on).

    \b
    Example:
      oxcart audit bridge -o audit.html
      oxcart audit bridge fractal -o audit.html --json audit.json --sample 500
    """
    from oxcart.cli.progress import stages
    from oxcart.manifests.audit.audit import AuditOptions
    from oxcart.manifests.audit.audit import audit as run
    from oxcart.manifests.audit.report import report_html, report_json

    options = AuditOptions(seed=seed, frames=frames, sample=sample, workers=workers)
    notice = None if quiet else lambda line: click.echo(f"audit: {line}", err=True)
    command = _command(dataset, options, fail_on)
    found = run(dataset, options, stage=stages(quiet), notice=notice, command=command)
    for path, make in ((output, report_html), (json_file, report_json)):
        if path is not None:
            write_file(path, make(found))
    if not quiet:
        show(_text(found, output, line_width()))
    code = _exit_code(found, fail_on)
    if code:
        raise SystemExit(code)


def _exit_code(found: Audit, fail_on: str) -> int:
    if fail_on == "never":
        return CLEAN
    code = {"clean": CLEAN, "leak": LEAK, "suspicious": SUSPICIOUS}.get(found.verdict.word, UNCLEAR)
    if fail_on == "leak":
        return code if code != SUSPICIOUS else CLEAN if found.verdict.complete else UNCLEAR
    statuses = {check.status for check in found.checks}
    if "failed" in statuses and code in (CLEAN, SUSPICIOUS):
        return LEAK
    if fail_on == "suspicious" and "suspicious" in statuses and code == CLEAN:
        return SUSPICIOUS
    return code


def _command(dataset: tuple[str, ...], options: Any, fail_on: str) -> str:
    """The command line that makes this report, without the files it is written to."""
    words = ["oxcart", "audit", *dataset]
    if options.sample is not None:
        words += ["--sample", str(options.sample)]
    words += ["--frames", str(options.frames), "--seed", str(options.seed), "--fail-on", fail_on]
    return shlex.join(words)


def _text(found: Audit, output: Path | None, width: int) -> str:
    paint = painter(TONES)
    checks = sorted(found.checks, key=lambda check: _ORDER.index(check.status))
    lines = [
        f"verdict: {paint(found.verdict.word)}",
        # Whole words, since a line for a split rule is there to be copied.
        *(
            line
            for why in found.verdict.because
            for line in wrapped(f"  {why}", width, "    ", break_words=False)
        ),
        "",
        table(
            ("status", "check", "found"),
            [(check.status, check.name, check.summary) for check in checks],
            width=width,
            paint={"status": paint},
        ),
    ]
    if found.recall:
        rows = [
            (one.kind, one.planted, one.found, f"{one.found / one.planted:.1%}", f"{one.at_least:.1%}")
            for one in found.recall
        ]
        lines += [
            "",
            table(("planted leak", "planted", "found", "recall", "at least (95%)"), rows, width=width),
        ]
    if output is not None:
        lines += ["", f"report: {plain(str(output))}"]
    return "\n".join(lines)


_ORDER = ("failed", "suspicious", "not checked", "passed")


@click.command()
@click.argument("a", type=PathOrUrl())
@click.argument("b", type=PathOrUrl())
@json_option
@click.option("--exit-code", is_flag=True, help="Exit with 1 if they differ.")
def diff(a: str, b: str, as_json: bool, exit_code: bool) -> None:
    """Say what differs between the datasets A and B, or between the split rules A and B.

    Lists the environments and episodes that moved, appeared or vanished, and what was
    configured differently. A rule is a YAML file.

    \b
    Example:
      oxcart diff bridge bridge-2
      oxcart diff split.yaml split-2.yaml --exit-code
    """
    from dataclasses import asdict

    from oxcart.manifests.diff import diff as compare

    found = compare(a, b)
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        click.echo(_difference(found))
    if exit_code and not found.identical:
        raise SystemExit(DIFFERENT)


def _difference(found: Difference) -> str:
    if found.identical:
        return plain(
            f"identical{': fingerprint ' + found.a['fingerprint'] if 'fingerprint' in found.a else ''}"
        )
    splits = list(dict.fromkeys([*found.a["splits"], *found.b["splits"]]))
    blocks = [
        table(
            ("episodes" if "fingerprint" in found.a else "names", "A", "B"),
            [(split, found.a["splits"].get(split, 0), found.b["splits"].get(split, 0)) for split in splits],
        )
    ]
    for what in ("environment", "name", "episode"):
        changes = [change for change in found.changes if change.what == what]
        if not changes:
            continue
        moved, appeared, vanished = _kinds(changes)
        title = f"{what}s: {moved:,} moved, {appeared:,} appeared, {vanished:,} vanished"
        rows = [(change.name, change.before, change.after) for change in changes[:SHOWN]]
        more = f"\n... and {len(changes) - SHOWN:,} more; --json lists them" if len(changes) > SHOWN else ""
        blocks.append(f"{title}\n{table((what, 'in A', 'in B'), rows)}{more}")
    if found.changed:
        keys = ", ".join(found.changed[:3]) + (", …" if len(found.changed) > 3 else "")
        blocks.append(f"episodes that stayed and have other bytes: {len(found.changed):,} ({plain(keys)})")
    if found.configuration:
        rows = [(name, cut(_value(one), 60), cut(_value(two), 60)) for name, one, two in found.configuration]
        blocks.append(f"configured differently\n{table(('setting', 'A', 'B'), rows)}")
    return "\n\n".join(blocks)


def _kinds(changes: list[Change]) -> tuple[int, int, int]:
    appeared = sum(change.before is None for change in changes)
    vanished = sum(change.after is None for change in changes)
    return len(changes) - appeared - vanished, appeared, vanished


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@click.command("repair-split")
@click.argument("out", type=PathOrUrl())
@click.option(
    "--report", type=LocalPath(dir_okay=False), required=True, help="The JSON report of an audit of OUT."
)
@output_option("-o", "--output", writes=RULE, required=True, help="Split rule to write, a YAML file.")
@overwrite_option()
def repair_split(out: str, report: Path, output: Path) -> None:
    """Write a split rule for OUT in which every pair that an audit confirmed shares a split.

    The environments of such pairs become one group, which goes to train. If nothing would
    be left to validate on, the smallest groups are held out as a whole.

    \b
    Example:
      oxcart audit bridge --json audit.json
      oxcart repair-split bridge --report audit.json -o split.yaml
      oxcart compile bridge_dataset/1.0.0 bridge-2 --split split.yaml
    """
    from oxcart.manifests.audit.repair import read_report, repair
    from oxcart.manifests.split import write_rule

    rule, pairs = repair(out, read_report(report))
    write_file(output, write_rule(rule).encode())
    held = len(rule.val) if isinstance(rule.val, tuple) else 0
    said = (
        f"{pairs:,} confirmed pairs share a split; by {rule.by}, {held:,} held out for val"
        if pairs
        else "no pair is confirmed, so the rule stays as it was; what is suspicious, a person must settle"
    )
    click.echo(plain(f"{output}: {said}"))
    if pairs:
        click.echo(plain(f"next: oxcart compile SOURCE OUT --split {shlex.quote(str(output))}"))
