"""Exact duplicates across splits: frames by their digests, trajectories by their rounded values.

Chunk tables hold a digest of every chunk of every camera, so equal chunks are found over *all* of them
without decoding any; each digest that is found is decoded once, to tell an image from a black frame. A chunk
is compressed bytes: another codec, another size or, where a chunk is two frames, a copy that begins one frame
later has other chunks. Such copies are found by the pixels that the audit decoded anyway, and the check says
what it did not compare. Memory holds the digests of what is held out, about 48 bytes a chunk; those of train
pass by.

A frame or a trajectory that is common to many episodes ties them together without listing all pairs: each
further episode is paired with one of those that have it, so the work grows as the chunks do.
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
from oxcart.shards.errors import CorruptError
from oxcart.shards.names import stem_of

DECODED = 2000
"""Most chunks found twice that are decoded to see whether they show anything."""
QUANTUM = 1e-4
"""Trajectories are equal where all their values, rounded to this, are."""
TELLING_ROWS, TELLING_VALUES = 4, 8
"""Distinct rows with a value that is no whole number, and distinct such values: what a trajectory must have
for its copy to be no chance."""
MANY = 16
"""Held-out episodes that all have one frame: beyond them each further episode is paired with one of them."""
PAIRS = 20_000
"""Pairs of episodes that are kept; beyond them, those of environments that are not paired yet."""

FRAMES = Criterion("frames", "No frame that was compared stands in two splits")
TRAJECTORIES = Criterion("trajectories", "No trajectory of actions and states stands in two splits")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two episodes of different splits that share something exactly; by dataset and key."""

    one: tuple[int, str]
    """The one that is held out, or val_seen's."""
    other: tuple[int, str]
    """The other one, of train where there is one."""


class Moves(NamedTuple):
    """What a trajectory is compared by."""

    digest: int
    """xxh3-64 of the rounded values."""
    telling: bool
    """Whether so many of them are distinct that two recordings do not share them by chance."""


@dataclass(frozen=True, kw_only=True)
class _ChunkDigests:
    """Chunks of one camera."""

    digest: npt.NDArray[np.uint64]
    episode: npt.NDArray[np.int64]
    """Row in the dataset's table."""
    number: npt.NDArray[np.int64]
    """Which chunk of the episode."""
    camera: str


def check_frames(
    datasets: Sequence[Audited],
    episodes: Sequence[AuditedEpisode],
    features: Features,
    report: Callable[[int], None] = lambda done: None,
) -> tuple[Check, list[Pair]]:
    """Frames that stand in two splits.

    Args:
        datasets: the datasets.
        episodes: those whose frames were decoded.
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
    codecs = sorted({dataset.manifest.pixels["codec"] for dataset in datasets})
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
    """What the digests of chunks cannot tell, as the end of a sentence."""
    said = []
    longest = max((dataset.manifest.pixels["chunk"] for dataset in datasets), default=1)
    if longest == 2:
        said.append("copies shifted by an odd number of frames")
    elif longest > 2:
        said.append(f"copies shifted by a number of frames that is no multiple of {longest}")
    if len(codecs) > 1:
        said.append("frames across codecs that were not decoded")
    return f"; not checked: {' and '.join(said)}" if said else ""


def check_trajectories(
    datasets: Sequence[Audited], episodes: Sequence[AuditedEpisode], moves: Sequence[Moves | None]
) -> tuple[Check, list[Pair]]:
    """Trajectories that stand in two splits; `moves` are `trajectory`'s, None where there is none."""
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
    """Rounded actions and states [T, A], None where nothing in them ever changes.

    Values that differ by less than `QUANTUM` are the same unless the border of rounding is between them: this
    finds copies, not what is nearly one.
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
        """What was found and is not listed."""
        self._met: set[tuple[int, str]] = set()
        self._tied: set[tuple[Any, Any]] = set()
        self._environments: dict[tuple[int, str], Any] = {}

    def add(self, digest: int, held: Sequence[tuple[int, int]], other: tuple[int, int], split: str) -> None:
        """The same as `add_named`, with episodes given as rows of the datasets' tables."""
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
        """`other`, of `split`, has something of this digest, and so has each of `held`, of other splits.

        With `once`, it is only noted for pairs that nothing is known of.
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
        """Evidence, those that have most in common first."""
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
        """All that are listed."""
        return [Pair(one=one, other=other) for one, other in sorted(self.counts)]

    @property
    def more(self) -> str:
        """How many are not listed, as the end of a sentence."""
        return f"; {count(self.beyond, 'more match', 'more matches')} not listed" if self.beyond else ""

    def _is_new(self, pair: tuple[tuple[int, str], tuple[int, str]]) -> bool:
        """Whether no pair of the same two environments is listed yet; an unknown one is its episode."""
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
    """Whether an episode of `split` looks for what `other`, which is held out, has: each two splits once."""
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
    """Digests of all that is not in train, sorted; each once an episode, and where."""

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
    """Digest, place here and episodes there of each chunk that something held out of another split has too.

    A digest that an episode has several times comes once. Of two splits that are both held out, the earlier
    one in sorting order finds the later one.
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
    """How little the frames of a chunk show."""

    flat: bool
    """Whether none of its frames has any contrast to speak of."""
    even: bool
    """Whether each is of exactly one colour."""


def _flatness(datasets: Sequence[Audited], at: _At) -> _Flat:
    """Decode all frames of a chunk and look."""
    index, row, camera, number = at
    dataset = datasets[index]
    values = dataset.table.slice(row, 1).to_pylist()[0]
    found = dataset.opened.track(values, camera)
    start = number * found.chunk
    stop = min(start + found.chunk, values["steps"])
    frames = np.empty((stop - start, *found.shape[1:]), np.uint8)
    found.read(dataset.store, start, stop, frames)
    flat = all(
        is_flat(np.asarray(Image.fromarray(frame).resize((32, 32), Image.Resampling.BOX))) for frame in frames
    )
    return _Flat(flat, bool((frames == frames[:, :1, :1]).all()))


def _add_decoded(shared: _Shared, episodes: Sequence[AuditedEpisode], features: Features) -> int:
    """Add episodes of different splits that have a decoded frame in common which shows something.

    Returns:
        Frames in common that were ignored for want of contrast, but whose thumbnails are not of one colour.
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
