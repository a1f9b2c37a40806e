"""Exact duplicates across splits: frames by their digests, trajectories by their rounded values.

Chunk tables hold a digest of every chunk of every camera, so equal chunks are found across *all* chunks
without decoding any. Only chunks that are found twice are decoded, once, to tell an image from a black frame.
A chunk is compressed, so a copy with another codec or size has other chunks, and so has a copy that begins
one frame later where a chunk holds two frames, or at any other frame of a video whose chunks number their
frames. The audit finds such copies by the pixels that it decodes
anyway, and the check says what it did not compare. Memory holds the digests of held-out chunks, at about
48 bytes per chunk; those of train are streamed past them.

A frame or a trajectory common to many episodes ties them together without listing all pairs: each further
episode is paired with one of those that have it, so the work grows linearly with the chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from PIL import Image
from xxhash import xxh3_64_intdigest

from oxcart.manifests.audit.episodes import Audited, AuditedEpisode
from oxcart.manifests.audit.features import Features, is_flat
from oxcart.manifests.audit.result import Check, Criterion, count, some
from oxcart.manifests.dataset import read_chunks
from oxcart.shards.codec import VIDEO_EXTENSIONS
from oxcart.shards.errors import CorruptError
from oxcart.shards.names import stem_of

DECODED = 2000
"""Maximum number of duplicate chunks decoded to see whether they show anything."""
QUANTUM = 1e-4
"""Step to which values are rounded before trajectories are compared."""
TELLING_ROWS, TELLING_VALUES = 4, 8
"""Minimum numbers of distinct rows with a fractional value, and of distinct fractional values, in a
trajectory whose copy cannot be due to chance."""
MANY = 16
"""Held-out episodes that share one frame and are all paired; beyond it, pairing with one of them suffices."""
PAIRS = 20_000
"""Pairs of episodes listed; beyond it, only pairs of environments that are not yet paired are added."""

FRAMES = Criterion("frames", "Frames, across splits")
TRAJECTORIES = Criterion("trajectories", "Trajectories of actions and states, across splits")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two episodes of different splits, as dataset and key, that share a frame or a trajectory exactly."""

    one: tuple[int, str]
    """The episode that is held out, in val_seen included."""
    other: tuple[int, str]
    """The other episode, the one in train if either is."""


class Moves(NamedTuple):
    """A trajectory as it is compared."""

    digest: int
    """xxh3-64 of the rounded values."""
    telling: bool
    """Whether enough values are distinct that two recordings do not share them by chance."""


@dataclass(frozen=True, kw_only=True)
class _ChunkDigests:
    """The chunks of one camera in a shard."""

    digest: npt.NDArray[np.uint64]
    episode: npt.NDArray[np.int64]
    """Row of the episode in the dataset's table."""
    number: npt.NDArray[np.int64]
    """Number of the chunk within the episode."""
    camera: str


def check_frames(
    datasets: Sequence[Audited],
    episodes: Sequence[AuditedEpisode],
    features: Features,
    report: Callable[[int], None] = lambda done: None,
) -> tuple[Check, list[Pair]]:
    """Check that no frame is in two splits.

    Args:
        datasets: the datasets.
        episodes: episodes whose frames were decoded.
        features: features of these episodes.
        report: called with the number of shards read so far.
    """
    shared = _Shared(datasets)
    held = _held(datasets)
    flat: dict[int, _Flat] = {}
    done = compared = 0
    for index, dataset in enumerate(datasets):
        for shard in dataset.manifest.shards:
            for chunks in _chunks(dataset, shard):
                compared += len(chunks.digest)
                for digest, one, others in _hits(chunks, index, shard["split"], held):
                    if digest not in flat and len(flat) < DECODED:
                        flat[digest] = _flatness(datasets, one)
                    if not flat.get(digest, _Flat(False, False)).flat:
                        shared.add(digest, others, (one[0], one[1]), shard["split"])
            done += 1
            report(done)
    uneven = _add_decoded(shared, episodes, features)
    codecs = sorted({camera["codec"] for dataset in datasets for camera in dataset.manifest.cameras})
    decoded = sum(len(np.unique(steps)) for steps in features.steps)
    what = (
        f"{count(compared, 'chunk digest')} of codec {' and '.join(codecs)} of all cameras, "
        f"{count(decoded, 'decoded frame')} of primary cameras"
    )
    ignored = sum(one.flat for one in flat.values())
    uneven += sum(one.flat and not one.even for one in flat.values())
    note = f"; {count(ignored, 'chunk')} of constant frames shared and ignored" if ignored else ""
    note += _not_compared(datasets, codecs)
    if shared.counts:
        rows = shared.rows("frames or chunks")
        pairs = count(len(shared.counts), "pair")
        summary = (
            f"{pairs} of episodes share frames: {_first_two(rows)}{shared.more}; compared were {what}{note}"
        )
        return FRAMES.failed(summary, rows, duplicate=True), shared.pairs()
    if uneven:
        summary = (
            f"{count(uneven, 'shared frame')} of hardly any contrast, but not of one colour, ignored: {what}"
        )
        return FRAMES.suspicious(summary + note), []
    return FRAMES.passed(f"{what}: none in two splits{note}"), []


def _not_compared(datasets: Sequence[Audited], codecs: Sequence[str]) -> str:
    """What chunk digests cannot detect, as the end of a sentence."""
    said = []
    cameras = [camera for dataset in datasets for camera in dataset.manifest.cameras]
    videos = [camera["codec"] in VIDEO_EXTENSIONS for camera in cameras]
    longest = max((one["chunk"] for one, video in zip(cameras, videos, strict=True) if not video), default=1)
    if longest == 2:
        said.append("copies shifted by an odd number of frames")
    elif longest > 2:
        said.append(f"copies shifted by a number of frames that is no multiple of {longest}")
    if any(VIDEO_EXTENSIONS.get(codec) == "ivf" for codec in codecs):  # whose chunks hold the frames' numbers
        said.append("copies of videos that begin at another frame")
    elif any(videos):
        said.append("copies that begin inside a group of pictures")
    if len(codecs) > 1:
        said.append("frames across codecs that were not decoded")
    return f"; not checked: {' and '.join(said)}" if said else ""


def check_trajectories(
    datasets: Sequence[Audited], episodes: Sequence[AuditedEpisode], moves: Sequence[Moves | None]
) -> tuple[Check, list[Pair]]:
    """Check that no trajectory is in two splits; `moves` holds the `trajectory` of each episode."""
    if all(one is None for one in moves):
        return TRAJECTORIES.unchecked("no episode has actions or states that move"), []
    members: dict[Moves, dict[str, list[tuple[int, str]]]] = {}
    for episode, one in zip(episodes, moves, strict=True):
        if one is not None:
            of_split = members.setdefault(one, {}).setdefault(episode.split, [])
            of_split.append((episode.dataset, episode.key))
    telling, chance = _Shared(datasets), _Shared(datasets)
    for one, by_split in members.items():
        for split, others in by_split.items():
            held = [at for name in sorted(by_split) if _finds(split, name) for at in by_split[name]]
            for other in others if held else ():
                (telling if one.telling else chance).add_named(one.digest, held, other, split)
    total = sum(one is not None for one in moves)
    what = count(total, "trajectory", "trajectories")
    if telling.counts:
        rows = telling.rows(None)
        pairs = count(len(telling.counts), "pair")
        summary = f"{pairs} of episodes move the same way: {_first_two(rows)}{telling.more}"
        return TRAJECTORIES.failed(summary, rows, duplicate=True), telling.pairs()
    if chance.counts:
        rows = chance.rows(None)
        pairs = count(len(chance.counts), "pair")
        summary = (
            f"{pairs} of episodes move the same way, but so coarsely that it may be chance (a copy counts "
            f"from {TELLING_ROWS} distinct rows and {TELLING_VALUES} distinct values that are no whole "
            f"numbers): {_first_two(rows)}{chance.more}"
        )
        return TRAJECTORIES.suspicious(summary, rows), []
    return TRAJECTORIES.passed(f"{what}, none in two splits"), []


def trajectory(arrays: Sequence[npt.NDArray[np.float32]]) -> Moves | None:
    """Digest of rounded actions and states [T, A]; None if no value ever changes.

    Values that differ by less than `QUANTUM` are equal unless a rounding boundary lies between them: this
    finds copies, not near-copies.
    """
    whole = b""
    moving = False
    broken: set[bytes] = set()
    values_seen: set[int] = set()
    for values in arrays:
        exact = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=1e12, neginf=-1e12)
        steps = np.round(np.clip(exact, -1e12, 1e12) / QUANTUM).astype(np.int64)
        moving = moving or bool((steps != steps[:1]).any())
        whole += str(steps.shape).encode() + steps.tobytes()
        fractions = steps % round(1 / QUANTUM) != 0
        broken |= {row.tobytes() for row in steps.reshape(len(steps), -1) if (row % round(1 / QUANTUM)).any()}
        values_seen.update(np.unique(steps[fractions]).tolist())
    if not moving:
        return None
    telling = len(broken) >= TELLING_ROWS and len(values_seen) >= TELLING_VALUES
    return Moves(xxh3_64_intdigest(whole), telling)


class _Shared:
    """Pairs of episodes of two splits that have something in common, and how much of it."""

    def __init__(self, datasets: Sequence[Audited]) -> None:
        self.datasets = datasets
        self.counts: dict[tuple[tuple[int, str], tuple[int, str]], int] = {}
        self.beyond = 0
        """Number of matches that are not listed."""
        self._met: set[tuple[int, str]] = set()
        self._tied: set[tuple[Any, Any]] = set()
        self._environments: dict[tuple[int, str], Any] = {}

    def add(self, digest: int, held: Sequence[tuple[int, int]], other: tuple[int, int], split: str) -> None:
        """Do the same as `add_named`, with episodes given as rows of the datasets' tables."""
        few = held if len(held) <= MANY or (digest, split) not in self._met else held[:1]
        self.beyond += len(held) - len(few)
        named = [self._name(at) for at in few]
        self.add_named(digest, named, self._name(other), split)

    def add_named(
        self,
        digest: int,
        held: Sequence[tuple[int, str]],
        other: tuple[int, str],
        split: str,
        *,
        once: bool = False,
    ) -> None:
        """Note that `other`, in `split`, shares this digest with each of `held`, in other splits.

        With `once`, only pairs that are not listed yet are counted.
        """
        if len(held) > MANY and (digest, split) in self._met:
            self.beyond += len(held) - 1
            held = held[:1]
        self._met.add((digest, split))
        for one in held:
            pair = one, other
            if pair in self.counts:
                self.counts[pair] += not once
            elif len(self.counts) < PAIRS or self._is_new(pair):
                self.counts[pair] = 1
            else:
                self.beyond += 1

    def rows(self, what: str | None) -> list[dict[str, Any]]:
        """Evidence: one row per pair, those with most in common first."""
        splits = {
            (i, row["key"]): row["split"]
            for i, dataset in enumerate(self.datasets)
            for row in dataset.table.select(["key", "split"]).to_pylist()
        }
        return [
            {
                "episode": one[1],
                "of": splits[one],
                "also in": other[1],
                "of split": splits[other],
                **({what: number} if what else {}),
            }
            for (one, other), number in sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        ]

    def pairs(self) -> list[Pair]:
        """All pairs that are listed."""
        return [Pair(one=one, other=other) for one, other in sorted(self.counts)]

    @property
    def more(self) -> str:
        """Number of matches that are not listed, as the end of a sentence."""
        return f"; {count(self.beyond, 'more match', 'more matches')} not listed" if self.beyond else ""

    def _is_new(self, pair: tuple[tuple[int, str], tuple[int, str]]) -> bool:
        """Whether no pair of the same two environments is listed; an unknown environment counts as new."""
        if not self._environments:
            for index, dataset in enumerate(self.datasets):
                for row in dataset.table.select(["key", "environment"]).to_pylist():
                    self._environments[index, row["key"]] = row["environment"] or (row["key"],)
            self._tied = {self._groups(known) for known in self.counts}
        groups = self._groups(pair)
        new = groups not in self._tied
        self._tied.add(groups)
        return new

    def _groups(self, pair: tuple[tuple[int, str], tuple[int, str]]) -> tuple[Any, Any]:
        one, other = pair
        return (one[0], self._environments[one]), (other[0], self._environments[other])

    def _name(self, at: tuple[int, int]) -> tuple[int, str]:
        return at[0], self.datasets[at[0]].table["key"][at[1]].as_py()


def _finds(split: str, other: str) -> bool:
    """Whether `split` is searched for what the held-out split `other` has; each two splits meet only once."""
    return other not in (split, "train") and (split == "train" or other > split)


def _first_two(rows: Sequence[dict[str, Any]]) -> str:
    return some(
        [f"{row['episode']} ({row['of']}) and {row['also in']} ({row['of split']})" for row in rows], 2
    )


def _chunks(dataset: Audited, shard: dict[str, Any]) -> Iterator[_ChunkDigests]:
    """The chunks of a shard, camera by camera."""
    table = read_chunks(dataset.store, shard)
    stem = stem_of(shard["name"])
    rows = np.flatnonzero(pc.equal(dataset.table["shard"], stem).to_numpy())
    row_of = dict(zip(dataset.table["key"].take(rows).to_pylist(), rows.tolist(), strict=True))
    for camera in (camera["name"] for camera in dataset.manifest.cameras):
        mine = table.filter(pc.equal(table["camera"], camera))
        if not mine.num_rows:
            continue
        lengths = pc.list_value_length(mine["digests"]).to_numpy()
        keys = mine["key"].to_pylist()
        if any(key not in row_of for key in keys):
            raise CorruptError(f"{shard['chunks']}: lists an episode that is not in the episode table")
        yield _ChunkDigests(
            digest=pc.list_flatten(mine["digests"]).to_numpy(),
            episode=np.repeat(np.array([row_of[key] for key in keys], np.int64), lengths),
            number=np.concatenate([np.arange(n) for n in lengths]) if len(lengths) else np.zeros(0, np.int64),
            camera=camera,
        )


class _Held:
    """Sorted chunk digests of all held-out episodes, once per episode, and where each is."""

    def __init__(self, found: Sequence[tuple[int, str, _ChunkDigests]]) -> None:
        self.splits = sorted({split for _, split, _ in found})
        sizes = [len(chunks.digest) for _, _, chunks in found]
        digest = np.concatenate([c.digest for _, _, c in found]) if found else np.zeros(0, np.uint64)
        dataset = np.repeat(np.array([s for s, _, _ in found], np.int64), sizes)
        split = np.repeat(np.array([self.splits.index(s) for _, s, _ in found], np.int64), sizes)
        episode = np.concatenate([c.episode for _, _, c in found]) if found else dataset
        order = np.lexsort((episode, dataset, split, digest))
        digest, split, dataset, episode = digest[order], split[order], dataset[order], episode[order]
        new = np.ones(len(digest), np.bool_)
        new[1:] = (digest[1:] != digest[:-1]) | (dataset[1:] != dataset[:-1]) | (episode[1:] != episode[:-1])
        self.digest, self.split, self.dataset, self.episode = (
            digest[new],
            split[new],
            dataset[new],
            episode[new],
        )


def _held(datasets: Sequence[Audited]) -> _Held:
    return _Held(
        [
            (index, shard["split"], chunks)
            for index, dataset in enumerate(datasets)
            for shard in dataset.manifest.shards
            if shard["split"] != "train"
            for chunks in _chunks(dataset, shard)
        ]
    )


_At = tuple[int, int, str, int]
"""Dataset, row of its table, camera, chunk."""


def _hits(
    chunks: _ChunkDigests, dataset: int, split: str, held: _Held
) -> Iterator[tuple[int, _At, list[tuple[int, int]]]]:
    """Chunks that held-out episodes of other splits have too: digest, place here, and those episodes.

    A digest that an episode has several times is yielded once. Of two held-out splits, the earlier one in
    sorting order finds the later one.
    """
    if not len(held.digest):
        return
    order = np.lexsort((chunks.episode, chunks.digest))
    digest, episode = chunks.digest[order], chunks.episode[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (digest[1:] != digest[:-1]) | (episode[1:] != episode[:-1])
    order = order[new]
    first = np.searchsorted(held.digest, chunks.digest[order], "left")
    last = np.searchsorted(held.digest, chunks.digest[order], "right")
    wanted = np.array([_finds(split, other) for other in held.splits], np.bool_)
    before, others = -1, list[tuple[int, int]]()
    for at in np.flatnonzero(last > first):
        i, start = order[at], int(first[at])
        if start != before:
            before = start
            found = start + np.flatnonzero(wanted[held.split[start : last[at]]])
            others = list(zip(held.dataset[found].tolist(), held.episode[found].tolist(), strict=True))
        if others:
            here = dataset, int(chunks.episode[i]), chunks.camera, int(chunks.number[i])
            yield int(chunks.digest[i]), here, others


class _Flat(NamedTuple):
    """How little contrast the frames of a chunk have."""

    flat: bool
    """Whether none of the frames has noticeable contrast."""
    even: bool
    """Whether each frame has exactly one colour."""


def _flatness(datasets: Sequence[Audited], at: _At) -> _Flat:
    """Decode all frames of a chunk and measure their contrast."""
    index, row, camera, number = at
    dataset = datasets[index]
    values = dataset.table.slice(row, 1).to_pylist()[0]
    frames = dataset.frames(values, camera)
    start, stop = frames.track.starts[number : number + 2].tolist()
    some = frames[start:stop]
    flat = all(
        is_flat(np.asarray(Image.fromarray(frame).resize((32, 32), Image.Resampling.BOX))) for frame in some
    )
    return _Flat(flat, bool((some == some[:, :1, :1]).all()))


def _add_decoded(shared: _Shared, episodes: Sequence[AuditedEpisode], features: Features) -> int:
    """Add episodes of different splits that share a decoded frame with noticeable contrast.

    Returns:
        Number of shared frames ignored for lack of contrast although their thumbnails have several colours.
    """
    owners: dict[int, dict[str, list[tuple[int, str]]]] = {}
    uneven: set[int] = set()
    for i, episode in enumerate(episodes):
        if episode.split != "train":
            for digest in dict.fromkeys(features.digests[i].tolist()):
                owners.setdefault(digest, {}).setdefault(episode.split, []).append(
                    (episode.dataset, episode.key)
                )
    known: dict[tuple[int, str], list[tuple[int, str]]] = {}
    for i, episode in enumerate(episodes):
        digests = features.digests[i].tolist()
        for digest, n in {digest: n for n, digest in enumerate(digests) if digest in owners}.items():
            if (digest, episode.split) not in known:
                names = [name for name in sorted(owners[digest]) if _finds(episode.split, name)]
                known[digest, episode.split] = [at for name in names for at in owners[digest][name]]
            held = known[digest, episode.split]
            if held and not features.flat[i, n]:
                shared.add_named(digest, held, (episode.dataset, episode.key), episode.split, once=True)
            elif held:
                thumb = features.thumbs[i, n]
                if (thumb != thumb[:1, :1]).any():
                    uneven.add(digest)
    return len(uneven)
