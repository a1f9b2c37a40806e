"""Frames of episodes in the videos of a LeRobot dataset: found by their number, never by their time.

The n-th frame that a video shows is its n-th frame. Times are only checked: with a constant rate, frame n is
shown n / fps seconds after the first. A video where that fails, or with fewer frames than its episodes have
steps, may show another moment than its actions are of.

The census reads no packet, only the table of packets. So what identifies the frames of an episode is when
each is shown, the bytes that it takes, and whether it is a key frame.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from xxhash import xxh3_64_intdigest

from oxcart.compile.images import MAX_PIXELS, Frame, Resize, resize_into
from oxcart.compile.sources.lerobot.metadata import VideoSpan
from oxcart.compile.sources.lerobot.mp4 import CODECS, SampleTable, UnusualError, read_samples
from oxcart.compile.sources.videos.decode import Packet, Reel, VideoError
from oxcart.shards.store import Store
from oxcart.shards.video.pixels import paint

OPEN = 8
"""Videos that stay open, each with a decoder."""
IN_ORDER = ("av1", "vp9")
"""Codecs whose videos may stay open. Decoders of others guess, from what they decoded before, how many frames
to hold back."""
OFF = 0.5
"""Frames by which a time may be wrong before it means another frame."""


@dataclass(frozen=True, kw_only=True)
class VideoIndex:
    """The frames of a video, none of them decoded. Arrays are in the order in which frames are shown."""

    table: npt.NDArray[np.int64]
    """[N, 2]: time (pts) of each frame, and twice the bytes of its packet, plus 1 for a key frame."""
    bytes_before: npt.NDArray[np.int64]
    """[N + 1]: bytes of the packets of all frames before each, and of all frames."""
    heads: Sequence[int]
    """Key frames at which decoding can begin, since no frame from there on is shown before them."""
    lengths: Sequence[int]
    """Frames from each of `heads` to the next, or to the end."""
    ends: npt.NDArray[np.bool_]
    """[N + 1]: whether the packets of the frames before each come before all others in the file."""
    late: Sequence[int]
    """Frames that are shown more than `OFF` frames away from where the rate puts them."""
    time_base: Fraction
    codec: str
    height: int
    width: int


class Footage(TypedDict):
    """The frames of an episode in a video, as plain JSON."""

    file: str
    start: int
    """Time (pts) of the first frame."""
    stop: int
    """A time after the last frame, and not after the next."""
    digest: int
    """See `span_digest`."""
    codec: str
    group: int | None
    """Frames of the longest group of pictures that can be decoded alone; None if `why` is not None."""
    why: str | None
    """Reason why the packets cannot be passed through; None if they can."""


def read_index(store: Store, file: str, fps: int) -> VideoIndex:
    """The frames of a video.

    Raises:
        ValueError: the video is missing, is cut off or cannot be read.
    """
    samples = list_samples(store, file)
    count = len(samples.pts)
    shown = np.argsort(samples.pts, kind="stable")  # place in the file of each frame that is shown
    table = np.stack([samples.pts, 2 * samples.sizes + samples.keys], axis=1)[shown]
    ends = np.concatenate(([True], np.maximum.accumulate(shown) == np.arange(count)))
    heads = np.flatnonzero(samples.keys & ends[:-1] & (shown == np.arange(count)))
    seconds = (table[:, 0] - table[0, 0]) * float(samples.time_base)
    return VideoIndex(
        table=table,
        bytes_before=np.concatenate(([0], np.cumsum(table[:, 1] // 2))),
        heads=heads.tolist(),
        lengths=np.diff(heads, append=count).tolist(),
        ends=ends,
        late=np.flatnonzero(np.abs(seconds * fps - np.arange(count)) > OFF).tolist(),
        time_base=samples.time_base,
        codec=samples.codec,
        height=samples.height,
        width=samples.width,
    )


def list_samples(store: Store, file: str) -> SampleTable:
    """The packets of a video.

    Raises:
        ValueError: the video is missing, is cut off or cannot be read.
    """
    size = store.found([file]).get(file)
    if size is None:
        raise ValueError(f"{file} is missing")
    try:
        try:
            samples = read_samples(partial(store.read_range, file), size)
            if samples.height * samples.width > MAX_PIXELS:
                raise UnusualError("has large frames")
            return samples
        except UnusualError:
            return _listed(store, file)
    except (ValueError, VideoError) as error:
        raise ValueError(f"{file} {error}") from error


def _listed(store: Store, file: str) -> SampleTable:
    """The packets of a video as FFmpeg lists them, which reads them all."""
    with Reel(store, file) as reel:
        packets, context = reel.index(), reel.stream.codec_context
        if not packets:
            raise VideoError("holds no frame")
        return SampleTable(
            pts=np.array([one.pts for one in packets], np.int64),
            sizes=np.array([one.size for one in packets], np.int64),
            places=np.array([one.position for one in packets], np.int64),
            keys=np.array([one.key for one in packets], np.bool_),
            time_base=reel.time_base,
            codec=context.codec.canonical_name,
            extradata=context.extradata or b"",
            height=context.height,
            width=context.width,
        )


def find_span(index: VideoIndex, span: VideoSpan, steps: int, fps: int) -> tuple[Footage, int]:
    """The frames of an episode, and the bytes of their packets.

    Raises:
        ValueError: the metadata does not fit the video.
    """
    first, count, end = span.first, len(index.table), span.first + steps
    if end > count:
        raise ValueError(f"its frames end with number {end - 1} of {span.file}, which has {count}")
    if span.needed > count:
        raise ValueError(
            f"{span.file} has {count} frames, its episodes {span.needed} steps, so frames are missing "
            "that may lie before it"
        )
    if span.said is not None and not abs(span.said * fps - first) <= OFF:
        raise ValueError(
            f"from_timestamp {span.said:.3f} s is not at its first frame, which is number {first} of "
            f"{span.file} and shown at {first / fps:.3f} s"
        )
    late = bisect_left(index.late, first)
    if late < len(index.late) and index.late[late] < end:
        frame = index.late[late]
        seconds = float((int(index.table[frame, 0]) - int(index.table[0, 0])) * index.time_base)
        raise ValueError(
            f"frame {frame} of {span.file} is shown at {seconds:.3f} s, at {fps} fps it would be at "
            f"{frame / fps:.3f} s"
        )
    group, why = _group(index, first, end)
    part = index.table[first:end]
    footage: Footage = {
        "file": span.file,
        "start": int(part[0, 0]),
        "stop": int(part[-1, 0]) + 1,
        "digest": span_digest(part),
        "codec": index.codec,
        "group": group,
        "why": why,
    }
    return footage, int(index.bytes_before[end] - index.bytes_before[first])


def _group(index: VideoIndex, first: int, end: int) -> tuple[int | None, str | None]:
    """Frames of the longest group of pictures from frame `first` to `end`, or why there is no whole one."""
    if index.codec not in CODECS.values():
        return None, f"its codec is {index.codec}"
    begin, after = bisect_left(index.heads, first), bisect_left(index.heads, end)
    if begin == after or index.heads[begin] != first:
        return None, "it begins inside a group of pictures"
    if not index.ends[end]:
        return None, "it ends inside a group of pictures that is not shown in order"
    return max([*index.lengths[begin : after - 1], end - index.heads[after - 1]]), None


def span_digest(table: npt.NDArray[np.int64]) -> int:
    """xxh3-64 of the rows of `VideoIndex.table` of an episode, with times from its first frame on."""
    since = table.copy()
    since[:, 0] -= table[0, 0]
    return xxh3_64_intdigest(since.data)


def packets_digest(packets: Sequence[Packet], start: int, stop: int) -> int:
    """The same, of the packets with start <= pts < stop as they were read; 0 if there are none."""
    inside = sorted((one.pts, 2 * one.size + one.key) for one in packets if start <= one.pts < stop)
    return span_digest(np.array(inside, np.int64)) if inside else 0


class Reels:
    """The videos of a dataset. Those that were played last stay open, and each is played by one at a time."""

    def __init__(self, store: Store) -> None:
        self._store, self._lock = store, threading.Lock()
        self._idle: dict[str, Reel] = {}

    @contextmanager
    def reel(self, file: str) -> Iterator[Reel]:
        """An open video; it is closed if what is done with it fails.

        Raises:
            VideoError: the file is not a video.
        """
        with self._lock:
            found = self._idle.pop(file, None)
        reel = found or Reel(self._store, file)
        left: Reel | None = reel
        try:
            yield reel
            if reel.stream.codec_context.codec.canonical_name in IN_ORDER:
                reel.forget()
                with self._lock:
                    left = self._idle.pop(file, None)
                    if left is None and len(self._idle) == OPEN:
                        left = self._idle.pop(next(iter(self._idle)))
                    self._idle[file] = reel
        finally:
            if left is not None:
                left.close()


def play_span(
    reels: Reels, file: str, span: tuple[int, int], digest: int, frames: Frame, resize: Resize
) -> bool:
    """Fill `frames` [T, H, W, 3] uint8 with the frames between two times (pts).

    Returns whether the packets were those of the digest.

    Raises:
        VideoError: the file cannot be decoded.
    """
    start, stop, made = *span, 0
    with reels.reel(file) as reel:
        for frame in reel.frames(start, stop):
            if made < len(frames):
                _paint(file, frame, frames[made], resize)
            made += 1
        same = packets_digest(reel.packets, start, stop) == digest
    if same and made != len(frames):
        raise VideoError(f"{file} shows {made} frames of the episode, expected {len(frames)}")
    return same


def effort(index: VideoIndex, numbers: Sequence[int]) -> int:
    """Frames that must be decoded for some frames of a video, each from the key frame before it."""
    return sum(1 + one - index.heads[max(bisect_right(index.heads, one) - 1, 0)] for one in numbers)


def pick_frames(
    reels: Reels, file: str, index: VideoIndex, numbers: Sequence[int], frames: Frame, resize: Resize
) -> None:
    """Fill `frames` [n, H, W, 3] uint8 with some frames of a video, by their numbers.

    Raises:
        VideoError: the file cannot be decoded.
    """
    with reels.reel(file) as reel:
        for number, out in zip(numbers, frames, strict=True):
            time = int(index.table[number, 0])
            _paint(file, next(reel.frames(time, time + 1)), out, resize)


def _paint(file: str, frame: VideoFrame, out: Frame, resize: Resize) -> None:
    """Write a frame, resized, to `out` [H, W, 3] uint8."""
    if resize.output_size(frame.height, frame.width) != out.shape[:2]:
        raise VideoError(f"{file} has frames of {frame.height}x{frame.width} pixels where it declares others")
    if out.shape[:2] == (frame.height, frame.width):
        paint(frame, out)
        return
    whole = np.empty((frame.height, frame.width, 3), np.uint8)
    paint(frame, whole)
    resize_into(out, whole, resize)
