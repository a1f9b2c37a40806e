"""Frames of a video file, with the times at which they are shown: the one place where PyAV decodes.

One thread decodes, and it stops at the first error: with more threads, what a damaged stream shows would
depend on their number, and a concealed error would be a frame that nobody recorded. FFmpeg is told which
containers it may take a file for, so a playlist that is called `.mp4` opens no other file.

Times are the container's own integers (`pts`, in units of `time_base`) and the rate of steps is a fraction,
so nothing is ever rounded. Step k of a clip shows the latest frame whose time is at most k / rate after the
clip's beginning, as a player would.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from xxhash import xxh3_64_intdigest

from oxcart.compile.images import MAX_PIXELS, Frame, Resize
from oxcart.compile.sources.videos.pixels import Painter
from oxcart.shards.prefetch import spans
from oxcart.shards.store import Store

Int64 = npt.NDArray[np.int64]

FORMATS = "mov,matroska,webm,avi,flv,live_flv,mpegts,mpeg,ogg,asf,gif,m4v,nut"
"""Containers that FFmpeg may take a file for."""
SPARED = ("h264",)
"""Codecs whose decoder knows which frames no other frame refers to, and can skip work on them."""
SHORT_S, SHORT = 1.0, 0.05
"""A stream is cut off if it ends earlier than its container says by more than both (seconds, share)."""


class VideoError(Exception):
    """A video cannot be decoded; the caller adds its name."""


class Packet(NamedTuple):
    """One packet of the stream, without its bytes."""

    pts: int
    digest: int
    """xxh3-64 of the packet's bytes."""
    position: int
    """Offset of the packet's first byte in the file; -1 if the container does not say."""
    size: int
    key: bool
    """Whether decoding can start at this packet."""


class Reel:
    """An open video file.

    Args:
        store: the store that holds the file.
        name: name of the file.
        glance: whether frames are only seen small; the decoder then skips the smoothing of blocks in frames
            that no other frame refers to.

    Raises:
        VideoError: the file is not a video.
    """

    def __init__(self, store: Store, name: str, *, glance: bool = False) -> None:
        self.packets: list[Packet] = []
        """Packets that were read since the last seek."""
        try:
            file: Any = f"{store.url}/{name}"
            if store.remote:
                file = io.BufferedReader(RemoteFile(store, name), 4 << 20)
            options = {"format_whitelist": FORMATS}
            self._container: InputContainer = av.open(file, options=options, metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError, UnicodeError) as error:
            raise VideoError(f"is not a video that FFmpeg can open: {_reason(error)}") from error
        try:
            self.stream = self._choose()
            self.time_base = self.stream.time_base or Fraction(1, av.time_base)
            context = self.stream.codec_context
            if not context.width or not context.height:
                raise VideoError("its video stream has no size")
            if context.width * context.height > MAX_PIXELS:
                raise VideoError(
                    f"claims {context.height}x{context.width} pixels; more than {MAX_PIXELS} are refused"
                )
            context.thread_count = 1
            context.options = {"err_detect": "explode"}
            if glance and context.name in SPARED:
                context.options |= {"skip_loop_filter": "noref"}
        except VideoError:
            self.close()
            raise
        except (av.FFmpegError, ValueError, AttributeError) as error:
            self.close()
            raise VideoError(f"cannot be decoded: {_reason(error)}") from error
        self._begin = min(0, self.stream.start_time or 0)
        self._sparing = False
        self.forget()

    def __enter__(self) -> Reel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def forget(self) -> None:
        """Forget what frames looked like, so that others may look different."""
        self._size: tuple[int, int] | None = None
        self.rotation = 0
        """Degrees by which frames are turned to be shown, counter-clockwise."""

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width of the frames as they are shown; known once a frame was decoded."""
        assert self._size is not None
        height, width = self._size
        return (width, height) if self.rotation % 180 else (height, width)

    def index(self) -> list[Packet]:
        """Every packet that is shown, in the order of the file, without decoding."""
        self._seek(None)
        try:
            return [
                _packet(one) for one in self._container.demux(self.stream) if one.size and not one.is_discard
            ]
        except av.FFmpegError as error:
            raise VideoError(f"cannot be read: {_reason(error)}") from error

    def frames(
        self,
        start: int | None = None,
        stop: int | None = None,
        wanted: Callable[[int], bool] | None = None,
    ) -> Iterator[VideoFrame]:
        """Frames with start <= pts < stop, in order; the frame at `start` must exist.

        Args:
            start: pts of the first frame; None starts at the beginning of the file.
            stop: pts after the last frame; None continues to the end of the file.
            wanted: whether the frame of a pts is needed. Other frames come only if they have to be decoded
                because a frame refers to them.

        Raises:
            VideoError: the stream is damaged, or its frames differ in size or go back in time.
        """
        if self.stream.codec_context.name not in SPARED:
            wanted = None
        if start is None:
            yield from self._decode(None, None, stop, wanted)
            return
        second = max(1, round(1 / self.time_base))
        why = VideoError(f"has no frame at {float(start * self.time_base):.3f} s")
        for goal in (start, start - second, start - 10 * second, self._begin):
            found = self._decode(goal, start, stop, wanted)
            try:
                first = next(found, None)
            except VideoError as error:
                why = error  # a key frame that needs what is before it: begin there
                continue
            if first is not None and first.pts == start:
                yield first
                yield from found
                return
        raise why

    def _choose(self) -> VideoStream:
        cover = av.stream.Disposition.attached_pic
        streams = [one for one in self._container.streams.video if not one.disposition & cover]
        if not streams:
            kinds = sorted({one.type or "unknown" for one in self._container.streams})
            raise VideoError(f"has no video stream, only {', '.join(kinds) or 'nothing'}")
        return streams[0]

    def _seek(self, goal: int | None) -> None:
        self.packets = []
        try:
            goal = self._begin if goal is None else max(goal, self._begin)
            self._container.seek(goal, stream=self.stream)
        except av.FFmpegError as error:
            raise VideoError(f"cannot be searched: {_reason(error)}") from error

    def _decode(
        self, goal: int | None, start: int | None, stop: int | None, wanted: Callable[[int], bool] | None
    ) -> Iterator[VideoFrame]:
        """Frames from `start` on, decoded from the last key frame before `goal`."""
        if goal is not None or self.packets:
            self._seek(goal)
        last: int | None = None
        try:
            for packet in self._container.demux(self.stream):
                if packet.size:
                    self.packets.append(_packet(packet))
                    if packet.is_corrupt:
                        raise VideoError(f"is damaged {_at(packet.pts, self.time_base)}")
                if wanted is not None:
                    self._spare(packet.pts is not None and not wanted(packet.pts))
                for frame in packet.decode():
                    stamp = frame.pts
                    if stamp is None:
                        raise VideoError("has frames without a time")
                    if last is not None and stamp <= last:
                        raise VideoError(f"goes back in time {_at(stamp, self.time_base)}")
                    last = stamp
                    if start is not None and stamp < start:
                        continue
                    if stop is None or stamp < stop:
                        self._check(frame)
                        yield frame
                    if stop is not None and stamp >= stop - 1:  # no other frame can be before it
                        self._read_until(stop, packet.dts)
                        return
        except (av.FFmpegError, ValueError) as error:
            raise VideoError(f"cannot be decoded {_at(last, self.time_base)}: {_reason(error)}") from error

    def _spare(self, needless: bool) -> None:
        """Make the decoder skip, or stop skipping, packets whose frames no other frame refers to."""
        if needless != self._sparing:
            self._sparing = needless
            self.stream.codec_context.skip_frame = "NONREF" if needless else "DEFAULT"

    def _read_until(self, stop: int, reached: int | None) -> None:
        """Read on, without decoding, until no packet before `stop` can follow.

        The packet of a frame that was not wanted may still be to come, and belongs to the clip's digest.
        """
        if reached is None or reached >= stop:
            return
        for packet in self._container.demux(self.stream):
            if packet.size:
                self.packets.append(_packet(packet))
            if packet.dts is None or packet.dts >= stop:
                return

    def _check(self, frame: VideoFrame) -> None:
        size = frame.height, frame.width
        if self._size is None:
            if size[0] * size[1] > MAX_PIXELS:
                raise VideoError(
                    f"has frames of {size[0]}x{size[1]} pixels; more than {MAX_PIXELS} are refused"
                )
            self._size, self.rotation = size, round(frame.rotation) % 360
            if self.rotation % 90:
                raise VideoError(f"is turned by {self.rotation} degrees; only quarter turns can be shown")
        elif size != self._size:
            was, at = self._size, _at(frame.pts, self.time_base)
            raise VideoError(f"changes from {was[0]}x{was[1]} to {size[0]}x{size[1]} pixels {at}")
        if frame.is_corrupt:
            raise VideoError(f"has a damaged frame {_at(frame.pts, self.time_base)}")

    def check_whole(self, frames: int, end: int) -> None:
        """Refuse a file that ends before its container says.

        Args:
            frames: frames that were decoded from beginning to end.
            end: pts at which the last frame ends.
        """
        stated = self.stream.frames
        if stated and len(self.packets) < stated:
            raise VideoError(f"is cut off: holds {len(self.packets)} of {stated} frames")
        if stated:
            return  # the last frame may be held for long
        seconds = self._stated_s()
        # Some containers count from the first frame, and some from 0.
        ends = float((end - self._begin) * self.time_base)
        if frames and seconds is not None and seconds - ends > max(SHORT_S, SHORT * seconds):
            raise VideoError(f"is cut off: ends after {ends:.1f} of {seconds:.1f} s")

    def _stated_s(self) -> float | None:
        """Length of the stream in seconds, as its container says."""
        if self.stream.duration:
            return float(self.stream.duration * self.time_base)
        text = next((v for k, v in self.stream.metadata.items() if k.upper().startswith("DURATION")), "")
        try:
            hours, minutes, seconds = text.split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        except ValueError:
            whole = self._container.duration if len(self._container.streams) == 1 else None
            return whole / av.time_base if whole else None


def clip_digest(packets: Sequence[Packet], start: int, stop: int) -> int:
    """xxh3-64 over the digests of the packets with start <= pts < stop, in the order of the file."""
    inside = [one for one in packets if start <= one.pts < stop]
    table = np.array([(one.pts - start, one.digest) for one in inside], np.uint64)
    return xxh3_64_intdigest(table.tobytes())


def play(reel: Reel, start: int, stop: int, gap: int, rate: Fraction, resize: Resize, frames: Frame) -> None:
    """Fill `frames` [T, H, W, 3] uint8 with the frames of a clip, one per step.

    Args:
        reel: the open file.
        start: pts of the clip's first frame.
        stop: pts of the first frame after the clip.
        gap: largest difference of pts from one frame to the next; 0 where it is unknown.
        rate: steps per second.
        resize: how frames get their size.
        frames: array to fill.

    Raises:
        VideoError: the file cannot be decoded.
    """
    painter, pace = Painter(), rate * reel.time_base  # steps per unit of pts
    shown: VideoFrame | None = None
    steps, made = len(frames), 0

    def wanted(pts: int) -> bool:
        """Whether any step may show the frame at `pts`."""
        first, after = (math.ceil((stamp - start) * pace) for stamp in (pts, pts + gap))
        return max(first, 0) < min(after, steps)

    def show(until: int) -> None:
        """Write the current frame to all steps before `until` that have no frame yet."""
        nonlocal made
        assert shown is not None
        if made < until:
            painter.paint(shown, reel.rotation, resize, frames[made])
            frames[made + 1 : until] = frames[made]
            made = until

    for frame in reel.frames(start, stop, wanted if gap else None):
        assert frame.pts is not None
        if shown is not None:
            show(min(steps, math.ceil((frame.pts - start) * pace)))
        shown = frame
    show(steps)


def decoder_versions() -> dict[str, str]:
    """Versions of the libraries that determine the pixels of a frame."""
    libraries = {name: av.library_versions[name] for name in ("libavcodec", "libavformat", "libswscale")}
    return {
        "av": av.__version__,
        **{name: ".".join(map(str, numbers)) for name, numbers in libraries.items()},
        "opencv": cv2.__version__,
    }


class RemoteFile(io.RawIOBase):
    """A remote object as a readable and seekable file.

    Args:
        store: the store that holds the object.
        name: name of the object.
        size: bytes of the object; None asks the store.
    """

    def __init__(self, store: Store, name: str, size: int | None = None) -> None:
        self._store, self._name, self._place = store, name, 0
        self._size = store.size(name) if size is None else size
        self._fetched: list[tuple[int, bytes]] = []

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Read ranges (offset, length) that will be wanted, in few requests, and keep them in memory."""
        self._fetched = [
            (one.start, self._store.read_range(self._name, one.start, one.end - one.start))
            for one in spans(ranges)
        ]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), max(0, self._size - self._place))
        if count:
            buffer[:count] = self._read_range(self._place, count)
            self._place += count
        return count

    def _read_range(self, offset: int, length: int) -> bytes | memoryview:
        for start, data in self._fetched:
            if start <= offset and offset + length <= start + len(data):
                return memoryview(data)[offset - start : offset - start + length]
        return self._store.read_range(self._name, offset, length)


def _packet(packet: Any) -> Packet:
    stamp = packet.pts if packet.pts is not None else packet.dts
    position = packet.pos if packet.pos is not None else -1
    return Packet(stamp or 0, xxh3_64_intdigest(packet), position, packet.size, packet.is_keyframe)


def _at(stamp: int | None, time_base: Fraction) -> str:
    return "at its beginning" if stamp is None else f"at {float(stamp * time_base):.3f} s"


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
