"""The frames of one camera of an episode: a sequence that reads what is asked for, when it is asked for.

    frames = dataset["KEY"].frames("wrist")
    frames[3]                one frame, [H, W, 3] uint8; frames[-1] is the last one
    frames[10:20]            a range, [10, H, W, 3], read in one request
    frames[[0, 5, 5]]        the frames of given steps, [3, H, W, 3]
    np.asarray(frames)       all of them, [T, H, W, 3]

Nothing is kept: each access reads the chunks that it needs and checks them against their digests. Raw frames
are read straight into the array, so that the digest is all that a frame costs beside the read.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from oxcart.manifests.episode import Track
from oxcart.shards.text import cut

if TYPE_CHECKING:
    from oxcart.manifests.dataset import Dataset

Pixels = npt.NDArray[np.uint8]

AT_ONCE = 8 << 20
"""Bytes of decoded frames that iteration reads at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraFrames:
    """The frames of one camera of an episode, [T, H, W, 3] uint8."""

    dataset: Dataset
    """The dataset that holds them."""
    track: Track
    """Where they are."""

    @property
    def key(self) -> str:
        """Key of the episode."""
        return self.track.key

    @property
    def camera(self) -> str:
        """Name of the camera."""
        return self.track.camera

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all frames, [T, H, W, 3]."""
        return self.track.shape

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """The type of a pixel's values."""
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.track.shape[0]

    def __repr__(self) -> str:
        track = self.track
        return f"CameraFrames({track.camera} of {track.key}: uint8 {list(track.shape)}, {track.codec})"

    def __getitem__(self, steps: int | slice | list[int] | range | npt.NDArray[np.integer]) -> Pixels:
        """Read the frame of a step, [H, W, 3], or of several steps, [n, H, W, 3].

        Raises:
            IndexError: there is no such step.
            TypeError: that is neither a step, a slice nor a list of steps. To take rows of a frame, read it
                first: `frames[3][10:20]`. Of a mask, take the steps: `frames[np.flatnonzero(mask)]`.
            CorruptError: a chunk does not match its digest, or cannot be decoded.
            StoreError: the shard cannot be read.
        """
        if isinstance(steps, slice):
            run = range(len(self))[steps]
            return self._read(run.start, run.stop) if run.step == 1 else self._each(run)
        if isinstance(steps, list | range) or (isinstance(steps, np.ndarray) and steps.ndim == 1):
            return self._each([self._step(one) for one in steps])
        step = self._step(steps)
        frame: Pixels = self._read(step, step + 1)[0]
        return frame

    def __iter__(self) -> Iterator[Pixels]:
        """Every frame [H, W, 3] in order, read a few megabytes at a time."""
        starts = self.track.starts
        chunk_bytes = int(np.diff(starts).max()) * math.prod(self.shape[1:])
        for start, stop in pairwise([*starts[: -1 : max(1, AT_ONCE // chunk_bytes)].tolist(), len(self)]):
            yield from self[start:stop]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Read all frames: `np.asarray(frames)`."""
        if copy is False:
            raise ValueError("frames: are read from a store, so that copy=False is impossible; leave it out")
        frames = self[:]
        return frames if dtype is None else frames.astype(dtype, copy=False)

    def pieces(self, first: int, stop: int) -> list[memoryview]:
        """Read chunks `first` to `stop - 1` as they are stored, in one request, and check them.

        Raises:
            CorruptError: one does not match its digest.
            StoreError: the shard cannot be read.
        """
        begin, end = int(self.track.offsets[first]), int(self.track.offsets[stop])
        data = self.dataset.store.read_range(self.track.shard, begin, end - begin)
        return self.track.checked(memoryview(data), first, stop)

    def _step(self, given: object) -> int:
        """A step, of which a negative one counts from the end."""
        count = self.track.shape[0]
        try:
            if isinstance(given, bool):  # a list of them is a mask, not the steps 0 and 1
                raise TypeError
            step = operator.index(given)  # type: ignore[arg-type]
        except TypeError:
            got = cut(repr(given), 60)
            raise TypeError(f"frames: expected a step, a slice or a list of steps, got {got}") from None
        if not -count <= step < count:
            raise IndexError(f"frame {step}: episode {self.track.key} has frames 0 to {count - 1}")
        return step % count

    def _read(self, start: int, stop: int) -> Pixels:
        """Frames `start` to `stop - 1`, in one request."""
        frames = np.empty((max(0, stop - start), *self.track.shape[1:]), np.uint8)
        if len(frames):
            self._fill(start, stop, frames)
        return frames

    def _each(self, steps: Sequence[int]) -> Pixels:
        """The frames of given steps, each read alone."""
        frames = np.empty((len(steps), *self.track.shape[1:]), np.uint8)
        for frame, step in zip(frames, steps, strict=True):
            self._fill(step, step + 1, frame[None])
        return frames

    def _fill(self, start: int, stop: int, out: Pixels) -> None:
        """Read frames `start` to `stop - 1` into contiguous `out` [stop - start, H, W, 3]."""
        track = self.track
        if track.codec == "raw" and len(track.digests) == len(self):
            data = out.reshape(-1).data
            self.dataset.reader(track.shard).read_into([(int(track.offsets[start]), data)])
            track.checked(data, start, stop)
            return
        first, end = track.find(start, stop)
        pieces = self.pieces(first, end)
        skipped = start - int(track.starts[first])
        frames = out if not skipped else np.empty((stop - start + skipped, *self.track.shape[1:]), np.uint8)
        track.decode(pieces, frames, first)
        if skipped:
            out[:] = frames[skipped:]
