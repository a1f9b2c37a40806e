"""Dataset cards: the README.md of a dataset on the Hugging Face Hub.

    card(Dataset.open("bridge"))                                  of a compiled dataset, as it is pushed
    card(Dataset.open("bridge"), form="lerobot", audit=report)    of its export to LeRobot

A card says what a reader must know before use: what is held out and whether it was audited, exact counts,
licence, and the fingerprint, which identifies the data. The block between the lines `---` is for the Hub: it
finds datasets by it, and shows their rows. The same dataset gives the same card.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow.compute as pc
import yaml

from oxcart.manifests.audit.result import FAILED, SUSPICIOUS, check_format
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import Manifest
from oxcart.manifests.tables import ATTRIBUTION
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError
from oxcart.shards.text import cut

NAME = "README.md"
"""Name of the file."""
FORMS = ("oxcart", "lerobot")
"""Forms of a dataset: shards and a manifest, or a LeRobot dataset per split."""
PLACE = "hf://datasets/OWNER/NAME"
"""Where a reader finds the dataset, until it is known."""
ROWS = 200
"""Maximum number of environments or licences that are listed."""

_FILES = {"oxcart": "shards/{}-*.tar", "lerobot": "{}/data/*/*.parquet"}
"""Form -> pattern of the files of a split that the Hub shows."""
_TAGS = {"oxcart": ["robotics", "oxcart", "webdataset"], "lerobot": ["LeRobot", "robotics", "oxcart"]}
_LICENCES = {
    **{one: one for one in ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0")},
    **{one: one for one in ("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0")},
    **{one: one for one in ("cc-by-sa-3.0", "cc-by-nc-3.0", "cc-by-nc-sa-3.0", "cc-by-nc-nd-3.0")},
    **{one: one for one in ("cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0")},
    **{one: one for one in ("cc-by-nd-4.0", "cdla-permissive-1.0", "cdla-permissive-2.0")},
    "odc-by-1.0": "odc-by",
    "odbl-1.0": "odbl",
    "pddl-1.0": "pddl",
}
"""SPDX identifier, in lower case -> the Hub's name of the licence. The Hub calls all others `other`."""
_MARKUP = re.compile(r"[\\`*\[\]<>|~#&]")


def card(
    dataset: Dataset,
    *,
    audit: Mapping[str, Any] | None = None,
    form: str = "oxcart",
    place: str = PLACE,
    notes: Sequence[str] = (),
) -> str:
    """The dataset card, in Markdown.

    Args:
        dataset: the compiled dataset.
        audit: the JSON of its audit, as `oxcart audit --json` writes it; None if it was not audited.
        form: one of `FORMS`.
        place: URL at which readers find it.
        notes: lines on what readers must know of this form.

    Raises:
        ConfigError: `audit` is not the JSON of an audit, or that of other datasets.
        CorruptError: the table of licences is damaged.
    """
    one_of("form", form, FORMS)
    manifest = dataset.manifest
    named = manifest.dataset
    licences = _licences(dataset)
    blocks = [
        f"---\n{_front_matter(manifest, licences, form)}---",
        f"# {_text(named['name'])}",
        f"Robot episodes, compiled with oxcart from {_text(named['name'])} {_text(named['version'])} "
        f"({_text(named['kind'])}). {_FORM[form]}",
        f"## Splits\n\n{_split_text(manifest)}",
        _table(
            ("split", "episodes", "steps", "frames"),
            [(name, *(c[what] for what in _COUNTS)) for name, c in manifest.splits.items()],
        ),
        f"## Audit\n\n{_audit_text(manifest, audit)}",
        f"## Environments\n\n{_environments(manifest)}",
        f"## Contents\n\n{_contents(manifest)}",
        *(f"Note: {_text(note, 500)}." for note in notes),
        f"## Licence\n\n{_licence_text(licences)}",
        "## Citation\n\n"
        + (_text(named["citation"], 2000) if named["citation"] else "Nothing to cite is known.")
        + f"\n\nThe data is identified by its fingerprint, `{manifest.fingerprint}`.",
        f"## Reading it\n\n{_reading(manifest, form, place)}",
    ]
    return "\n\n".join(blocks) + "\n"


_COUNTS = ("episodes", "steps", "frames")
_FORM = {
    "oxcart": "Each episode is one WebDataset sample; `manifest.json` names all files by their digests.",
    "lerobot": "Each split is a LeRobot dataset (v3.0) in a folder of its own.",
}


def _front_matter(manifest: Manifest, licences: Mapping[str | None, int], form: str) -> str:
    """What the Hub reads, as YAML."""
    names = [_hub_licence(one) for one in licences]
    about: dict[str, Any] = {"pretty_name": cut(manifest.dataset["name"], 100)}
    about["license"] = names[0] if len(names) == 1 else list(dict.fromkeys(names))
    if names == ["other"]:
        (licence,) = licences
        assert licence is not None, "an unknown licence is `unknown`, not `other`"
        about["license_name"] = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
        if "://" in licence:
            about["license_link"] = licence
    rows = sum(c["episodes" if form == "oxcart" else "steps"] for c in manifest.splits.values())
    about["task_categories"] = ["robotics"]
    about["tags"] = _TAGS[form]
    about["size_categories"] = [_size(rows)]
    files = [{"split": split, "path": _FILES[form].format(split)} for split in manifest.splits]
    about["configs"] = [{"config_name": "default", "data_files": files}]
    return yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=1000)


def _licences(dataset: Dataset) -> dict[str | None, int]:
    """Each licence -> its number of episodes, most frequent first; None is an unknown one."""
    manifest = dataset.manifest
    if ATTRIBUTION not in manifest.tables:
        return {manifest.dataset["licence"]: manifest.counts["compiled"]}
    counted = pc.value_counts(dataset.table(ATTRIBUTION, ["licence"])["licence"]).to_pylist()
    found = {one["values"] or None: one["counts"] for one in counted}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0] or "")))


def _hub_licence(licence: str | None) -> str:
    return "unknown" if licence is None else _LICENCES.get(licence.lower(), "other")


def _size(rows: int) -> str:
    """The Hub's name of a number of rows: `n<1K`, `1K<n<10K`, ..., `n>1T`."""
    names = [*(f"{digit}{unit}" for unit in "KMB" for digit in (1, 10, 100)), "1T"]
    place = max(0, len(str(rows)) - 3)  # 0 below a thousand, 1 below ten thousand
    if place >= len(names):
        return f"n>{names[-1]}"
    return f"n<{names[0]}" if place == 0 else f"{names[place - 1]}<n<{names[place]}"


def _licence_text(licences: Mapping[str | None, int]) -> str:
    if len(licences) == 1:
        (licence,) = licences
        return "The licence is unknown: ask the authors of the data." if licence is None else _text(licence)
    rows = [(licence or "unknown", count) for licence, count in licences.items()]
    return f"`{ATTRIBUTION}` names the licence and the author of each episode.\n\n" + _table(
        ("licence", "episodes"), rows
    )


def _split_text(manifest: Manifest) -> str:
    """What was held out, by the rule, and whether that kept environments apart, by the counts."""
    by = manifest.config["split"]["by"] if "split" in manifest.config else None
    held = [split for split in ("val", "test") if split in manifest.splits]
    if not held:
        said = "Nothing is held out from train."
    elif by == "source":
        said = "The splits are those of the source."
    else:
        said = f"Split by {by or 'a rule that is not recorded'}."
    if held:
        known = [
            one["splits"].keys() - {"val_seen"} for one in manifest.environments if one["name"] is not None
        ]
        shared = sum(len(splits) > 1 for splits in known)
        if not known:
            said += " Environments are unknown."
        elif shared:
            said += f" {shared:,} of {len(known):,} environments are in more than one of train, val and test."
        else:
            said += " No environment is in two of train, val and test."
    if "val_seen" in manifest.splits:
        said += " `val_seen` holds recordings from environments of train."
    return said


def _audit_text(manifest: Manifest, audit: Mapping[str, Any] | None) -> str:
    if audit is None:
        return "Not audited. `oxcart audit` says whether what is held out is unseen by train."
    found = check_format(audit, "audit")
    try:
        return _verdict_text(manifest, found)
    except KeyError as error:
        raise ConfigError(f"audit: expected the JSON of an audit, got one without {error}") from error
    except (TypeError, AttributeError) as error:
        raise ConfigError(
            f"audit: expected the JSON of an audit, got a field of another type: {error}"
        ) from error


def _verdict_text(manifest: Manifest, found: Mapping[str, Any]) -> str:
    audited = [one["fingerprint"] for one in found["datasets"]]
    if manifest.fingerprint not in audited:
        raise ConfigError(
            f"audit: expected one of the dataset with fingerprint {manifest.fingerprint[:12]}, got one of "
            f"{', '.join(one[:12] for one in audited)}; audit this dataset"
        )
    verdict = found["verdict"]
    lines = [f"**{_text(verdict['word'])}** (`oxcart audit`, {_text(found['versions']['oxcart'])})", ""]
    lines += [f"- {_text(reason, 500)}" for reason in verdict["because"]]
    if not verdict["complete"]:
        lines.append("- Not everything was compared that a clean verdict needs.")
    for status in (FAILED, SUSPICIOUS):
        for check in found["checks"]:
            if check["status"] == status:
                lines.append(f"- {status}: {_text(check['title'])}: {_text(check['summary'], 500)}")
    return "\n".join(lines)


def _environments(manifest: Manifest) -> str:
    rows = [
        (one["name"] if one["name"] is not None else "(unknown)", one["known"], split, count["episodes"])
        for one in manifest.environments
        for split, count in one["splits"].items()
    ]
    return _table(("environment", "known", "split", "episodes"), rows)


def _contents(manifest: Manifest) -> str:
    rows: list[tuple[Any, ...]] = []
    for camera in manifest.cameras:
        size = "of several sizes" if camera["height"] is None else f"{camera['width']}x{camera['height']}"
        rows.append((f"camera {camera['name']}", f"{camera['role'] or 'no role'}, {size}"))
    for name, array in manifest.arrays.items():
        if array is not None:
            rows.append((name, ", ".join(f"{one['name']} ({one['kind']})" for one in array["columns"])))
    rate = manifest.control_rate
    if rate is not None:
        rows.append(("control rate", f"{rate['hz']:g} Hz{'' if rate['verified'] else ' (unverified)'}"))
    counts = manifest.counts
    left_out = ", ".join(f"{counts[what]:,} {what}" for what in ("rejected", "limited") if counts[what])
    if left_out:
        rows.append(("episodes left out", left_out))
    return _table(("what", "is"), rows, most=2000)


def _reading(manifest: Manifest, form: str, place: str) -> str:
    split = next(iter(manifest.splits), "train")
    repo = place.removeprefix("hf://datasets/")
    if form == "oxcart":
        code = (
            "from oxcart import Loader, Pairs\n\n"
            f'for batch in Loader("{place}", "{split}", sample=Pairs(frames=5), batch_size=64):\n'
            "    batch.frames  # uint8 [64, 2, H, W, 3]"
        )
        return f"```python\n{code}\n```\n\n`oxcart verify {place}` checks every byte."
    return (
        f"```\nhf download {repo} --repo-type dataset --local-dir data\n```\n\n"
        "```python\nfrom lerobot.datasets import LeRobotDataset\n\n"
        f'dataset = LeRobotDataset("{repo}", root="data/{split}")\n```\n\n'
        "In the table of episodes, `oxcart/environment`, `oxcart/split` and `oxcart/key` say where each was "
        "recorded and which it is. `oxcart compile data OUT` reads all splits back."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], most: int = 200) -> str:
    """A table of Markdown, of the first `ROWS` rows."""
    rows = list(rows)
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for row in rows[:ROWS]:
        cells = (f"{cell:,}" if isinstance(cell, int) else _text(cell, most) for cell in row)
        lines.append(f"| {' | '.join(cells)} |")
    if len(rows) > ROWS:
        lines.append(f"\nand {len(rows) - ROWS:,} more.")
    return "\n".join(lines)


def _text(value: object, most: int = 200) -> str:
    """A text on one line that Markdown shows as it is."""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(value))
    return _MARKUP.sub(r"\\\g<0>", cut(shown, most))
