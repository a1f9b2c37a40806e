"""Planted leaks: copies of held-out episodes, altered as real leaks are, which the audit must find.

Each kind does one thing to the decoded frames, the same for the whole episode, drawn from the seed and the
key:

    exact         nothing
    re-encoded    JPEG of quality 30 to 70
    brightened    gain 0.7 to 1.4 and up to 20 grey levels more
    time-shifted  the first 10 to 30% of the steps are missing
    resized       35 to 70% of the pixels of a side
    cropped       5 to 15% of each side is cut off, at any place, and the rest enlarged
    shifted       moved by 5 to 15% of a side; the edge is repeated
    mirrored      left and right are swapped

A copy joins train. It counts as found if the search for its original keeps it as a candidate and its
confirmed score exceeds the threshold: the same path that a real leak takes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from oxcart.manifests.audit.episodes import Audited, AuditedEpisode
from oxcart.manifests.audit.features import (
    Features,
    describe,
    draws,
    empty,
    put,
    read_steps,
    recorded,
    spaced,
)
from oxcart.manifests.audit.match import Match, Matcher, confirm
from oxcart.manifests.audit.result import Check, Criterion
from oxcart.manifests.audit.verdict import Threshold, at_least, exceeds

Frames = npt.NDArray[np.uint8]

CRITERION = Criterion("recall", "Planted leaks, against the threshold")

KINDS = ("exact", "re-encoded", "brightened", "time-shifted", "resized", "cropped", "shifted", "mirrored")
BAR = {
    "exact": 1.0,
    "re-encoded": 0.99,
    "brightened": 0.99,
    "time-shifted": 0.99,
    "resized": 0.95,
    "cropped": 0.95,
    "shifted": 0.95,
    "mirrored": 0.9,
}
"""Share of each kind that an audit should find; below it, the audit is called blind to that kind."""
PLAIN = ("exact", "re-encoded", "brightened", "time-shifted")
"""Kinds that an audit must find before it can conclude anything."""
MOST = 64
"""Maximum number of held-out episodes copied in an audit."""


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Recall of the planted copies of one kind."""

    kind: str
    """One of `KINDS`."""
    planted: int
    """Number of copies planted."""
    found: int
    """Number of copies with a score above the threshold."""
    at_least: float
    """Lower bound of the recall, with 95% confidence."""
    weakest: float
    """Lowest score of a copy; -1 if the search already missed one."""


def plant(frames: Frames, kind: str, seed: int, key: str) -> Frames:
    """A copy [N, H', W', 3] of frames [N, H, W, 3], altered as the kind says.

    Time-shifted copies are made by choosing other frames: see `shifted_steps`.
    """
    rng = draws(seed, "plant", kind, key)
    if kind == "re-encoded":
        quality = int(rng.integers(30, 71))
        return np.stack([_encoded(frame, quality) for frame in frames])
    if kind == "brightened":
        gain, more = rng.uniform(0.7, 1.4), rng.uniform(0, 20)
        brighter: Frames = np.clip(frames * gain + more, 0, 255).astype(np.uint8)
        return brighter
    if kind == "resized":
        share = rng.uniform(0.35, 0.7)
        return _each(frames, lambda image: image.resize(_scaled(image, share), Image.Resampling.BICUBIC))
    if kind == "cropped":
        left, upper, cut_x, cut_y = rng.random(), rng.random(), *rng.uniform(0.05, 0.15, 2)

        def crop(image: Image.Image) -> Image.Image:
            wide, high = image.width * (1 - cut_x), image.height * (1 - cut_y)
            x, y = left * cut_x * image.width, upper * cut_y * image.height
            return image.resize(image.size, Image.Resampling.BICUBIC, box=(x, y, x + wide, y + high))

        return _each(frames, crop)
    if kind == "shifted":
        high, wide = frames.shape[1:3]
        down, right = (rng.uniform(0.05, 0.15, 2) * rng.choice([-1, 1], 2) * (high, wide)).round().astype(int)
        rows, columns = np.arange(high) - down, np.arange(wide) - right
        return frames[:, rows.clip(0, high - 1)][:, :, columns.clip(0, wide - 1)]
    if kind == "mirrored":
        return np.ascontiguousarray(frames[:, :, ::-1])
    return frames


def shifted_steps(steps: int, frames: int, seed: int, key: str) -> list[int]:
    """Evenly spaced steps of an episode without its first 10 to 30%, and without at least one step."""
    share = draws(seed, "plant", "time-shifted", key).uniform(0.1, 0.3)
    return spaced(min(max(1, round(share * steps)), steps - 1), steps, frames)


def copies(
    datasets: Sequence[Audited],
    episodes: Sequence[AuditedEpisode],
    frames: int,
    seed: int,
    report: Callable[[int], None] = lambda done: None,
) -> dict[str, Features]:
    """The features of a copy of each kind of each episode."""
    planted = {kind: empty(len(episodes), frames) for kind in KINDS}
    for done, (i, there) in enumerate(recorded(datasets, episodes), 1):
        key = episodes[i].key
        steps = spaced(0, len(there), frames)
        late = shifted_steps(len(there), frames, seed, key)
        original = read_steps(there, steps)
        for kind in KINDS:
            if kind == "time-shifted":
                put(planted[kind], i, late, describe(read_steps(there, late)))
            else:
                put(planted[kind], i, steps, describe(plant(original, kind, seed, key)))
        report(done)
    return planted


def found(original: Features, copy: Features, match: Match) -> npt.NDArray[np.float32]:
    """Score of each episode's copy once it has joined train; -1 if the search misses it.

    Args:
        original: features of P held-out episodes.
        copy: features of their copies of one kind.
        match: candidates of the originals in train without the copies.
    """
    scores = np.full(len(original.thumbs), -1, np.float32)
    for i in range(len(scores)):
        alone = Matcher(copy.thumbs[i : i + 1]).scores(original.thumbs[i : i + 1])
        passes = any(
            found[0, 0] >= least for found, least in zip(alone, match.search[i].tolist(), strict=True)
        )
        if passes:
            scores[i] = confirm(original.thumbs[i], copy.thumbs[i : i + 1])[0][0]
    return scores


def recall(kind: str, scores: npt.NDArray[np.float32], limit: Threshold) -> Recall:
    """Count the copies that exceed the threshold."""
    over = int(exceeds(scores, limit.value).sum())
    return Recall(
        kind=kind,
        planted=len(scores),
        found=over,
        at_least=at_least(over, len(scores)),
        weakest=float(scores.min()),
    )


def blind(found: Sequence[Recall]) -> list[str]:
    """The kinds of `PLAIN` that an audit misses."""
    return [one.kind for one in found if one.kind in PLAIN and one.found < BAR[one.kind] * one.planted]


def check_recall(found: Sequence[Recall], unseen: float = 0) -> Check:
    """Check that planted leaks are found; suspicious if the recall of a kind is too low.

    Args:
        found: per kind.
        unseen: share of train that a sample left out, where no copy would be found.
    """
    text = ", ".join(f"{one.kind} {one.found / one.planted:.0%}" for one in found)
    if unseen:
        text += f"; no copy is found in the {unseen:.0%} of train that the sample leaves out"
    missed = [one for one in found if one.found < BAR[one.kind] * one.planted]
    rows = [
        {"kind": one.kind, "planted": one.planted, "found": one.found, "95% sure of": f"{one.at_least:.1%}"}
        for one in found
    ]
    if missed:
        return CRITERION.suspicious(f"this audit could miss leaks here: {text}", rows)
    return CRITERION.passed(text, rows)


def choose(keys: Sequence[str], seed: int, most: int = MOST) -> list[int]:
    """Episodes to copy: all of them, or a random draw, in order."""
    if len(keys) <= most:
        return list(range(len(keys)))
    return sorted(draws(seed, "planted episodes", len(keys)).permutation(len(keys))[:most].tolist())


def _encoded(frame: Frames, quality: int) -> Frames:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _scaled(image: Image.Image, share: float) -> tuple[int, int]:
    return max(1, round(image.width * share)), max(1, round(image.height * share))


def _each(frames: Frames, change: Callable[[Image.Image], Image.Image]) -> Frames:
    return np.stack([np.asarray(change(Image.fromarray(frame))) for frame in frames])
