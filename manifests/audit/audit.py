"""The audit from end to end: open, check, compare, plant, conclude.

The result depends only on the inputs and the seed. Everything reported is in the `Audit`, as plain data
except for the images. It holds no time, host or rate, so the same datasets and options give the same report,
byte for byte, on one machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from oxcart.manifests.audit import (
    copy_ahead,
    exact,
    integrity,
    names,
    near,
    place,
    plant,
    records,
    repair,
)
from oxcart.manifests.audit.cost import foretold
from oxcart.manifests.audit.episodes import HELD, UNKNOWN, Audited, AuditedEpisode, draw, open_datasets
from oxcart.manifests.audit.features import FRAMES, Features, read_features
from oxcart.manifests.audit.images import ReportImages, draw_images
from oxcart.manifests.audit.match import one_thread
from oxcart.manifests.audit.result import Check, Criterion
from oxcart.manifests.audit.verdict import Threshold, Verdict, decide
from oxcart.manifests.counts import per_split
from oxcart.manifests.split import SPLITS
from oxcart.shards.errors import ConfigError

Stage = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]
"""Opens a progress bar, given its label, total and unit; yields a function that takes how much is done."""

TOP = 12
"""Pairs of episodes that are shown side by side."""
BELOW = 4
"""Minimum number of pairs below the threshold among the pairs shown, if there are any."""
KEPT = 20_000
"""Maximum number of pairs listed in the JSON, best first; the JSON says so if confirmed pairs are missing."""
LIBRARIES = ("oxcart", "numpy", "pillow", "pyarrow", "xxhash")


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """Options that change the result of an audit, and the number of its threads."""

    seed: int = 0
    """Random seed for samples, the null and planted leaks."""
    frames: int = FRAMES
    """Frames decoded per episode."""
    sample: int | None = None
    """Maximum number of episodes decoded per split of each dataset; None decodes all."""
    workers: int = 2
    """Threads that read, decode and compare."""

    def __post_init__(self) -> None:
        if self.frames < 2:
            raise ConfigError(f"frames: expected at least 2 per episode, got {self.frames}")
        if self.sample is not None and self.sample < 1:
            raise ConfigError(f"sample: expected at least 1 episode, got {self.sample}")


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The result of an audit."""

    verdict: Verdict
    """The overall answer, with its reasons."""
    checks: tuple[Check, ...]
    """Every check, including those that did not run."""
    datasets: tuple[dict[str, Any], ...]
    """Name, URL, fingerprint and counts of each dataset."""
    looked: tuple[dict[str, Any], ...]
    """Number of decoded episodes and number of all episodes, per dataset and split."""
    threshold: Threshold | None
    """Score above which a resemblance is not due to chance; None if none could be determined."""
    exceeding: int | None
    """Number of held-out episodes above the threshold."""
    allowed: int
    """Number of held-out episodes that may be above the threshold by chance."""
    gallery: tuple[int, int]
    """Number of train episodes that a held-out episode and a null episode are compared with."""
    scores: tuple[dict[str, Any], ...]
    """The best score of each held-out episode."""
    null: tuple[float, ...]
    """The null distribution, sorted."""
    pairs: tuple[dict[str, Any], ...]
    """Pairs of a held-out and a train episode, the best first, with environments, steps and score."""
    confirmed: int
    """Number of pairs above the threshold."""
    group_pairs: tuple[dict[str, Any], ...]
    """The first confirmed pair for each two environments."""
    duplicates: tuple[dict[str, Any], ...]
    """Pairs of episodes that share a frame or a trajectory exactly."""
    recall: tuple[plant.Recall, ...]
    """Recall of the planted leaks, per kind; empty if there was no threshold."""
    probe: copy_ahead.Probe | None
    """Result of the copy-ahead probe."""
    places: place.Places
    """How alike environments look."""
    options: AuditOptions
    """Options of the audit."""
    versions: dict[str, str]
    """Versions of the libraries that produced the numbers."""
    command: str
    """The command line, if there was one."""
    images: ReportImages
    """Images, shown only in the HTML page."""

    def plain(self) -> dict[str, Any]:
        """The audit as JSON values, without images."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "images"}
        return {name: _plain(value) for name, value in values.items()}


@contextlib.contextmanager
def _silent(label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


@one_thread()
def audit(
    urls: Sequence[str],
    options: AuditOptions,
    *,
    stage: Stage = _silent,
    notice: Callable[[str], None] | None = None,
    command: str = "",
) -> Audit:
    """Audit datasets together.

    Args:
        urls: directories or URLs of compiled datasets.
        options: options of the audit.
        stage: shows progress.
        notice: called before long work with a line that says how long it will take.
        command: the command line, for the report.

    Raises:
        ConfigError: one of them is not a dataset.
        CorruptError: a piece of a dataset does not match its digest.
        StoreError: a file cannot be read.
    """
    datasets = open_datasets(urls)
    episodes = draw(datasets, options.sample, options.seed)
    visible = [episode for episode in episodes if episode.split in ("train", *HELD)]
    if notice and (line := foretold(datasets, visible, options.frames, options.workers, options.sample)):
        notice(line)
    sampled = options.sample is not None
    frames = sum(shard["frames"] for dataset in datasets for shard in dataset.manifest.shards)
    with stage("hashing", frames, "frames") as report:
        intact = integrity.check_shards(datasets, options.workers, sampled=sampled, report=report)
    with stage("reading trajectories", len(episodes), "episodes") as report:
        digests, moments = integrity.read_arrays(datasets, episodes, options.workers, report)
    with stage("decoding", len(visible) * options.frames, "frames") as report:
        features = read_features(datasets, visible, options.frames, options.workers, report)
    with stage("comparing digests", sum(len(s.manifest.shards) for s in datasets), "shards") as report:
        same_frames, frame_pairs = exact.check_frames(datasets, visible, features, report)
    same_moves, move_pairs = exact.check_trajectories(datasets, episodes, digests)
    labels = [_environment(datasets, episode) for episode in visible]
    compared = compare_images(visible, labels, features, options, stage)
    found, places = compared.near, compared.places
    looked, in_all = _train_looked_at(datasets, visible)
    recall, planted = _recall(datasets, visible, features, found, options, stage, 1 - looked / max(1, in_all))
    checks = (
        intact,
        integrity.check_statistics(datasets, moments, sampled=sampled),
        names.check_environments(datasets),
        records.check_keys(datasets),
        records.check_records(datasets),
        records.check_files(datasets),
        records.check_sessions(datasets),
        records.check_instructions(datasets),
        records.check_videos(datasets),
        same_frames,
        same_moves,
        found.check,
        found.alike,
        places.check,
        compared.ahead,
        planted,
        _cameras(datasets),
        *_seen(datasets),
    )
    pairs = near.pairs(found, visible, features)
    limit = found.limit.value if found.limit else None
    confirmed = sum(pair["score"] > limit for pair in pairs) if limit is not None else 0
    top = _top(pairs, limit)
    images = draw_images(datasets, visible, top, places.ranking, options.frames)
    word = decide(
        checks,
        found.exceeding,
        found.allowed,
        len(found.units),
        groups=found.groups,
        blind=plant.blind(recall),
    )
    if looked < in_all:
        note = (
            f"images of {looked:,} of {in_all:,} train episodes were compared; a copy of another is not seen"
        )
        word = replace(word, because=(*word.because, note))
    return Audit(
        verdict=word,
        checks=checks,
        datasets=tuple(_dataset(dataset) for dataset in datasets),
        looked=tuple(_looked(datasets, episodes)),
        threshold=found.limit,
        exceeding=found.exceeding,
        allowed=found.allowed,
        gallery=found.gallery,
        scores=tuple(_scores(datasets, visible, found)),
        null=tuple(sorted(round(float(score), 4) for score in found.null)),
        pairs=tuple(_described(datasets, visible, pair) for pair in pairs[:KEPT]),
        confirmed=confirmed,
        group_pairs=tuple(
            repair.group_pairs(_described(datasets, visible, one) for one in pairs[:confirmed])
        ),
        duplicates=tuple(
            _duplicates(datasets, [*frame_pairs, *move_pairs, *records.duplicate_pairs(datasets)])
        ),
        recall=recall,
        probe=compared.probe,
        places=places,
        options=options,
        versions={name: version(name) for name in LIBRARIES},
        command=command,
        images=images,
    )


@dataclass(frozen=True, kw_only=True)
class ComparedImages:
    """What the images of held-out and of train episodes say."""

    near: near.Near
    """Near-duplicate episodes."""
    places: place.Places
    """How alike environments look."""
    probe: copy_ahead.Probe | None
    """Result of the copy-ahead probe, if it ran."""
    ahead: Check
    """Check of the copy-ahead probe."""


def compare_images(
    episodes: Sequence[AuditedEpisode],
    labels: Sequence[str],
    features: Features,
    options: AuditOptions,
    stage: Stage = _silent,
) -> ComparedImages:
    """Compare the images of what is held out with those of train.

    Args:
        episodes: train episodes first, then held-out ones.
        labels: name of each episode's environment in the report.
        features: features of these episodes.
        options: options of the audit.
        stage: shows progress.
    """
    with stage("comparing", near.compared_in_all(episodes), "episodes") as report:
        found = near.compare(episodes, features, options.seed, options.workers, report)
    held = np.array([episode.split != "train" for episode in episodes], np.bool_)
    shown = near.shown(features)
    with stage("comparing places", place.compared_in_all(episodes), "environments") as report:
        places = place.check_places(
            episodes,
            labels,
            features.thumbs,
            held,
            shown,
            seed=options.seed,
            workers=options.workers,
            report=report,
        )
    probe, ahead = _probe(
        [episode for episode, some in zip(episodes, shown, strict=True) if some],
        features if shown.all() else features.take(shown),
        options.seed,
    )
    return ComparedImages(near=found, places=places, probe=probe, ahead=ahead)


def _train_looked_at(datasets: Sequence[Audited], visible: Sequence[AuditedEpisode]) -> tuple[int, int]:
    """How many train episodes are decoded, and how many there are."""
    total = sum(s.manifest.splits.get("train", {}).get("episodes", 0) for s in datasets)
    return sum(episode.split == "train" for episode in visible), total


def _recall(
    datasets: Sequence[Audited],
    episodes: Sequence[AuditedEpisode],
    features: Features,
    found: near.Near,
    options: AuditOptions,
    stage: Stage,
    unseen: float,
) -> tuple[tuple[plant.Recall, ...], Check]:
    """Plant copies of held-out episodes, and count how many the audit would have found."""
    if found.limit is None:
        return (), plant.CRITERION.unchecked("there is no threshold to find planted leaks by")
    chosen = plant.choose([episodes[i].key for i in found.units], options.seed)
    units = found.units[chosen]
    with stage("planting leaks", len(units), "episodes") as report:
        copies = plant.copies(datasets, [episodes[i] for i in units], options.frames, options.seed, report)
    match = found.match.take(chosen)
    original = features.take(units)
    recall = tuple(
        plant.recall(kind, plant.found(original, copies[kind], match), found.limit) for kind in plant.KINDS
    )
    return recall, plant.check_recall(recall, unseen)


def _probe(
    episodes: Sequence[AuditedEpisode], features: Features, seed: int
) -> tuple[copy_ahead.Probe | None, Check]:
    train = sum(episode.split == "train" for episode in episodes)
    spot = np.array([episode.place for episode in episodes[:train]], np.int64)

    if len(episodes) == train:
        return None, copy_ahead.CRITERION.unchecked("no episode that shows anything is held out")
    if len(set(spot[spot != UNKNOWN].tolist())) < copy_ahead.FEWEST:
        why = f"train has fewer than {copy_ahead.FEWEST} environments to set the null by"
        return None, copy_ahead.CRITERION.unchecked(why)
    found = copy_ahead.probe(features.thumbs[train:], features.thumbs[:train], spot, seed)
    return found, copy_ahead.check(found)


def _cameras(datasets: Sequence[Audited]) -> Check:
    """A check that says which cameras are not decoded."""
    others = set()
    for dataset in datasets:
        others |= {*dataset.manifest.camera_names} - {dataset.manifest.camera("primary")["name"]}
    criterion = Criterion("cameras", "Images of the other cameras, across splits")
    if not others:
        return criterion.passed("every dataset has one camera")
    return criterion.unchecked(
        f"only primary cameras are decoded; of {', '.join(sorted(others))} only digests are compared"
    )


def _seen(datasets: Sequence[Audited]) -> list[Check]:
    """A check that says what is not compared of val_seen, which shares train's environments by design."""
    number = sum(dataset.manifest.splits.get("val_seen", {}).get("episodes", 0) for dataset in datasets)
    if not number:
        return []
    why = "val_seen shares environments with train by design; its duplicates and sessions alone are checked"
    return [Criterion("val_seen", "Images of val_seen, against train").unchecked(why)]


def _top(pairs: Sequence[dict[str, Any]], limit: float | None) -> list[dict[str, Any]]:
    """The best pair of each held-out episode, the highest first; some of them below the threshold."""
    best = [pair for pair in pairs if pair["rank"] == 0]
    if limit is None or len(best) <= TOP:
        return best[:TOP]
    below = [pair for pair in best if pair["score"] <= limit][:BELOW]
    above = [pair for pair in best if pair["score"] > limit]
    top = above[: TOP - len(below)]
    return [*top, *[pair for pair in best if pair not in top and pair["score"] <= limit][: TOP - len(top)]]


def _described(
    datasets: Sequence[Audited], episodes: Sequence[AuditedEpisode], pair: dict[str, Any]
) -> dict[str, Any]:
    held, train = episodes[pair["held"]], episodes[pair["train"]]
    rest = {name: value for name, value in pair.items() if name not in ("held", "train")}
    return {
        **{f"held_{name}": value for name, value in _who(datasets, held).items()},
        **{f"train_{name}": value for name, value in _who(datasets, train).items()},
        **rest,
    }


def _who(datasets: Sequence[Audited], episode: AuditedEpisode) -> dict[str, Any]:
    return {
        "dataset": datasets[episode.dataset].url,
        "episode": episode.key,
        "split": episode.split,
        "environment": episode.row["environment"],
    }


def _duplicates(datasets: Sequence[Audited], pairs: Sequence[exact.Pair]) -> Iterator[dict[str, Any]]:
    wanted = {(at[0], at[1]) for pair in pairs for at in (pair.one, pair.other)}
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for index, dataset in enumerate(datasets):
        if wanted:
            for row in dataset.table.select(["key", "split", "environment"]).to_pylist():
                if (index, row["key"]) in wanted:
                    rows[index, row["key"]] = row
    for pair in dict.fromkeys((p.one, p.other) for p in pairs):
        sides = {}
        for side, at in zip(("held", "train"), pair, strict=True):
            sides[f"{side}_dataset"] = datasets[at[0]].url
            sides[f"{side}_episode"] = at[1]
            sides[f"{side}_split"] = rows[at]["split"]
            sides[f"{side}_environment"] = rows[at]["environment"]
        yield sides


def _scores(
    datasets: Sequence[Audited], episodes: Sequence[AuditedEpisode], found: near.Near
) -> Iterator[dict[str, Any]]:
    for unit, score in zip(found.units.tolist(), found.match.best.tolist(), strict=True):
        yield {**_who(datasets, episodes[unit]), "score": round(score, 4)}


def _environment(datasets: Sequence[Audited], episode: AuditedEpisode) -> str:
    name = episode.row["environment"] or "(unknown)"
    return name if len(datasets) == 1 else f"{name} · {datasets[episode.dataset].label}"


def _dataset(dataset: Audited) -> dict[str, Any]:
    manifest = dataset.manifest
    counts = per_split(dataset.table, len(manifest.cameras))
    return {
        "name": dataset.label,
        "url": dataset.url,
        "version": manifest.dataset["version"],
        "fingerprint": manifest.fingerprint,
        "codec": manifest.camera("primary")["codec"],
        "camera": manifest.camera("primary")["name"],
        "environments": len({entry["name"] for entry in manifest.environments if entry["name"] is not None}),
        "episodes": {split: count["episodes"] for split, count in counts.items()},
        "unknown": records.unknown(dataset),
        "rejected": manifest.counts["rejected"],
        "split_by": (manifest.config.get("split") or {}).get("by"),
    }


def _looked(datasets: Sequence[Audited], episodes: Sequence[AuditedEpisode]) -> Iterator[dict[str, Any]]:
    for index, dataset in enumerate(datasets):
        for split in SPLITS:
            total = dataset.manifest.splits.get(split, {}).get("episodes", 0)
            if total:
                number = sum(e.dataset == index and e.split == split for e in episodes)
                yield {"dataset": dataset.label, "split": split, "looked": number, "episodes": total}


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return round(value, 6)
    return value
