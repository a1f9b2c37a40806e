"""`oxcart catalog`: what is known about each dataset before a byte of it is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from oxcart.compile.catalog import Entry
    from oxcart.manifests.columns import Column


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the entry, or a list of all.")
def catalog(name: str | None, as_json: bool) -> None:
    """List the datasets in the catalog, or say what is known about NAME.

    NAME is the name in the dataset's dataset_info.json, or the repo id of a LeRobot dataset
    that was converted from it. A dataset that is not listed
    compiles too: options of `oxcart compile` say where its cameras and features are.

    \b
    Example:
      oxcart catalog
      oxcart catalog bridge_dataset
      oxcart catalog lerobot/viola
      oxcart catalog --json | jq -r '.[] | select(.control_rate.verified).name'
    """
    from oxcart.compile.catalog import lookup, names, ported
    from oxcart.shards.choices import nearest
    from oxcart.shards.errors import ConfigError

    known = names()
    if name is None:
        entries = {one: lookup(one) for one in known}
        shown = [_json(one, entry) for one, entry in entries.items()]
        click.echo(json.dumps(shown, ensure_ascii=False) if as_json else _table(entries))
        return
    name = ported(name) or name
    if name not in known:
        near = nearest(name, known) or next((one for one in known if name and _begins_so(one, name)), None)
        hint = f"did you mean {near}? " if near else ""
        raise ConfigError(f"{name!r} is not in the catalog; {hint}oxcart catalog lists all of them")
    entry = lookup(name)
    click.echo(json.dumps(_json(name, entry), ensure_ascii=False) if as_json else _text(name, entry))


def _begins_so(one: str, other: str) -> bool:
    """Whether one name begins with the other: only some copies end in `_converted_externally_to_rlds`."""
    return one.startswith(other) or other.startswith(one)


def _json(name: str, entry: Entry) -> dict[str, Any]:
    return {"name": name, **asdict(entry)}


def _table(entries: dict[str, Entry]) -> str:
    from oxcart.cli.table import table

    rows = [
        (
            name,
            len(entry.cameras or ()),
            entry.environment.known if entry.environment else None,
            _hertz(entry) + ("" if _verified(entry) else " ?") if entry.control_rate else None,
            entry.about,
        )
        for name, entry in entries.items()
    ]
    header = ("name", "cameras", "environment", "rate", "about")
    return f"{table(header, rows)}\n\nenvironment: how it is known; - is unknown. rate: ? is not verified."


def _text(name: str, entry: Entry) -> str:
    rows = [("version", entry.version or "-")]
    for key in ("cameras", "instruction", "action", "state"):
        fields = getattr(entry, key)
        rows.append((key, "-" if fields is None else ", ".join(fields) or "none"))
    rows += _named("columns", _described(entry.columns))
    for key in ("roles", "channels"):
        rows += _named(key, [f"{camera}: {word}" for camera, word in getattr(entry, key).items()])
    if entry.success:
        pattern = f", where {entry.success.pattern} matches" if entry.success.pattern else ""
        rows.append(("success", f"in {entry.success.field}{pattern}"))
    rows += _named("no action", [f"at the {end} step" for end in entry.no_action])
    verified = "" if _verified(entry) else " (not verified)"
    rows.append(("control rate", _hertz(entry) + verified if entry.control_rate else "-"))
    rows += _named("", [entry.control_rate["source"]] if entry.control_rate else [])
    rows += _named("environment", _environment(entry))
    rows += _named("aliases", [f"{place}: {', '.join(others)}" for place, others in entry.aliases.items()])
    rows += [("licence", entry.licence or "-"), ("citation", entry.citation or "-")]
    rows += _named("LeRobot ports", _ports(entry))
    rows += _named("notes", entry.notes)
    return "\n".join([f"{name}: {entry.about}", "", *(f"{key:13} {value}" for key, value in rows)])


def _named(key: str, lines: Iterable[str]) -> list[tuple[str, str]]:
    """Rows of which the first has the key."""
    return [(key if i == 0 else "", line) for i, line in enumerate(lines)]


def _described(features: Mapping[str, Sequence[Column]]) -> Iterator[str]:
    """A line for each run of columns that differ in name alone."""
    for feature, columns in features.items():
        for (kind, unit, frame), run in groupby(columns, lambda one: (one.kind, one.unit, one.frame)):
            names = " ".join(one.name for one in run)
            yield f"{feature}: {names}: {', '.join(filter(None, (kind, unit, frame and f'{frame} frame')))}"


def _ports(entry: Entry) -> list[str]:
    """A line for each port, with the cameras of which it holds BGR, and one for each feature."""
    bgr = [camera for camera, order in entry.channels.items() if order == "bgr"]
    lines = [
        repo + (f", {', '.join(bgr)} as BGR" if bgr and repo not in entry.ports.rgb else "")
        for repo in entry.ports.repos
    ]
    return [*lines, *_described(entry.ports.columns)]


def _environment(entry: Entry) -> list[str]:
    rule = entry.environment
    if rule is None:
        return ["unknown"]
    if rule.whole is not None:
        return [f"{rule.known}: all of it is {rule.whole}"]
    copies = ", which not every copy has" if rule.optional else ""
    return [f"{rule.known}, in {rule.field}{copies}", *rule.patterns]


def _hertz(entry: Entry) -> str:
    return f"{entry.control_rate['hz']:g} Hz" if entry.control_rate else ""


def _verified(entry: Entry) -> bool:
    return bool(entry.control_rate and entry.control_rate["verified"])
