"""A small set of web videos as yt-dlp leaves them, drawn and encoded here: `oxcart sample videos DIR`.

    DIR/
      Cooking 0 [ckitchen000].mp4            three shots of things that move, with the .info.json beside it
      Cooking 0 [ckitchen000].info.json
      ...
      Best of cooking [reupload000].mp4      the first video again by another channel, cropped, encoded anew
      A slide [slide000000].mp4              nothing moves
      Phone video [variable000].mp4          frames come at irregular times, as from a phone
      Broken [broken00000].mp4               damaged in the middle

    write_videos(Path("vids"), VideoSampleConfig(channels=4))

A scene is a soft background of a few colours, with discs that fly about and bounce. Each scene has low
frequencies of its own, which is what perceptual hashes see, and a cut between two scenes changes most pixels.
Every scene's random stream is a PCG64 whose key is the sha256 of the scene's name, and one thread encodes, so
the same configuration writes the same bytes with the same versions of the encoder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.codec.context import Flags
from PIL import Image, ImageDraw

from oxcart.compile.images import Frame
from oxcart.compile.sources.videos.config import LICENCES
from oxcart.manifests.ownership import VIDEOS, check_directory
from oxcart.shards.errors import ConfigError
from oxcart.shards.files import naming, replacing, write_file

CHANNELS = ("kitchen", "workshop", "garden", "diner", "studio", "farm", "office", "garage")
TITLES = ("Cooking", "Repairing a chair", "Planting", "Serving", "Painting", "Milking", "Filing", "Welding")
CC_BY = LICENCES["cc-by"]
FPS = 24
SPECIAL = 4
"""Additional videos: a re-upload, a slide, one with a variable frame rate, a damaged one."""


@dataclass(frozen=True, kw_only=True)
class VideoSampleConfig:
    """Configuration of the sample; every setting changes the bytes.

    Raises:
        ConfigError: a value is invalid.
    """

    channels: int = 5
    """Number of channels, which are the environments; at most one per name in CHANNELS."""
    videos: int = 2
    """Number of videos per channel."""
    shots: int = 3
    """Number of shots per video."""
    seconds: float = 2.0
    """Length of each shot, in seconds."""
    height: int = 96
    """Height of the frames, in pixels; the width is a third larger."""
    seed: int = 0
    """Random seed; another seed draws other scenes."""

    def __post_init__(self) -> None:
        limits = {"channels": (2, len(CHANNELS)), "videos": (1, 10), "shots": (1, 100), "height": (32, 1080)}
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{name}: expected {least} to {most}, got {getattr(self, name)}")
        if not 0.5 <= self.seconds <= 600:
            raise ConfigError(f"seconds: expected 0.5 to 600, got {self.seconds}")

    @property
    def total(self) -> int:
        """Total number of videos."""
        return self.channels * self.videos + SPECIAL


def write_videos(
    directory: Path, config: VideoSampleConfig, report: Callable[[int], None] = lambda done: None
) -> Path:
    """Write the videos, each with its `info.json`, and return the directory.

    Args:
        directory: folder to write into.
        config: what to write.
        report: called after each video with the number of videos written so far.
    """
    check_directory("directory", directory, VIDEOS)
    directory.mkdir(parents=True, exist_ok=True)
    size = config.height, config.height * 4 // 3 // 2 * 2
    length = round(config.seconds * FPS)
    done = 0

    def shots(name: str, count: int = config.shots) -> Iterator[Frame]:
        for shot in range(count):
            yield from draw_scene(f"{config.seed} {name} {shot}", length, size)

    def write(
        title: str, video: str, channel: str, licence: str | None, frames: Iterable[Frame], **how: Any
    ) -> Path:
        nonlocal done
        path = directory / f"{title} [{video}].mp4"
        with naming(path), replacing(path) as file:
            write_video(file, frames, kind="mp4", **how)
        write_info(path, video, title, channel, licence)
        done += 1
        report(done)
        return path

    for i, channel in enumerate(CHANNELS[: config.channels]):
        for number in range(config.videos):
            video = f"c{channel[:7]}{number}".ljust(11, "0")
            licence = CC_BY if i % 3 != 2 else None
            write(f"{TITLES[i]} {number}", video, channel, licence, shots(video))
    first, last = CHANNELS[0], CHANNELS[config.channels - 1]
    again = list(shots(f"c{first[:7]}0".ljust(11, "0")))
    copied = [_cropped(again[i * FPS // 30]) for i in range(len(again) * 30 // FPS)]
    write(f"Best of {TITLES[0].lower()}", "reupload000", CHANNELS[1], None, copied, fps=30, crf=30)
    still = [next(draw_scene(f"{config.seed} slide", 1, size))] * (2 * length)
    write("A slide", "slide000000", last, CC_BY, still)
    times = variable_times(f"{config.seed} times", 2 * length)
    write("Phone video", "variable000", last, CC_BY, shots("variable", 2), times_ms=times)
    damage(write("Broken", "broken00000", first, CC_BY, shots("broken")))
    return directory


def draw_scene(name: str, frames: int, size: tuple[int, int]) -> Iterator[Frame]:
    """Frames [H, W, 3] uint8 of discs that fly over a background; the same name gives the same scene."""
    height, width = size
    random = _stream(name)
    colours = random.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    ground = Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
    count, fine = 4, 256
    radius = random.integers(height // 12, height // 5, count)
    place = random.integers(0, (width * fine, height * fine), (count, 2))
    speed = random.integers(width * fine // 90, width * fine // 30, (count, 2))
    speed *= random.choice((-1, 1), (count, 2))
    paint = [tuple(colour) for colour in random.integers(0, 256, (count, 3)).tolist()]
    ends = np.array((width * fine, height * fine))
    for _ in range(frames):
        image = ground.copy()
        draw = ImageDraw.Draw(image)
        for (x, y), reach, colour in zip((place // fine).tolist(), radius.tolist(), paint, strict=True):
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
        yield np.asarray(image)
        place = place + speed
        speed = np.where((place < 0) | (place > ends), -speed, speed)
        place = np.clip(place, 0, ends)


def variable_times(name: str, frames: int) -> list[int]:
    """Time of each frame in milliseconds: 15 to 99 after the frame before."""
    return [0, *np.cumsum(_stream(name).integers(15, 100, frames - 1)).tolist()]


def write_video(
    place: Path | BinaryIO,
    frames: Iterable[Frame],
    *,
    fps: int | Fraction = FPS,
    times_ms: Sequence[int] | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    crf: int = 20,
    keys: int = 250,
    options: dict[str, str] | None = None,
    kind: str | None = None,
) -> None:
    """Encode frames [H, W, 3] uint8 into a file.

    Args:
        place: path of the file, or an open file.
        frames: frames of one size.
        fps: frames per second.
        times_ms: time of each frame in milliseconds, instead of `fps`.
        codec: FFmpeg's name of the encoder.
        pixels: FFmpeg's name of the pixel format.
        crf: quality; larger is worse.
        keys: maximum number of frames from one key frame to the next.
        options: options of the encoder.
        kind: FFmpeg's name of the container; None follows the suffix of the path.
    """
    base = Fraction(1, 1000) if times_ms is not None else 1 / Fraction(fps)
    target = str(place) if isinstance(place, Path) else place
    with av.open(target, "w", format=kind, options={"fflags": "+bitexact"}) as container:
        stream: Any = None
        for i, pixels_of in enumerate(frames):
            if stream is None:
                stream = container.add_stream(codec, rate=Fraction(fps) if times_ms is None else 1000)
                stream.height, stream.width, stream.pix_fmt = *pixels_of.shape[:2], pixels
                stream.codec_context.time_base = base
                stream.codec_context.thread_count = 1
                stream.codec_context.flags |= Flags.bitexact
                given = dict(options or {})
                if codec == "libx264":
                    # Its assembly is not deterministic on every CPU: the same frames gave two files.
                    asked = [given["x264-params"]] if "x264-params" in given else []
                    given["x264-params"] = ":".join([*asked, "asm=0"])
                    given = {"crf": str(crf), "g": str(keys), "keyint_min": "1", **given}
                stream.options = given
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_of), format="rgb24")
            frame.pts, frame.time_base = (i if times_ms is None else times_ms[i]), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_info(path: Path, video: str, title: str, channel: str, licence: str | None, **more: Any) -> Path:
    """Write the `info.json` that yt-dlp would write beside a video; returns its path."""
    value = {
        "id": video,
        "title": title,
        "channel": channel,
        "channel_id": f"UC{channel}".ljust(24, "0"),
        "uploader_id": f"@{channel}",
        "license": licence,
        "webpage_url": f"https://video.example/watch?v={video}",
        "upload_date": "20240229",
        "extractor": "example",
        **more,
    }
    info = path.with_suffix(".info.json")
    write_file(info, json.dumps(value, indent=1, sort_keys=True).encode())
    return info


def damage(path: Path) -> None:
    """Overwrite an eighth of a file in its middle, as a bad disk does.

    This destroys several packets and their lengths: H.264 has no checksums, and a few wrong bytes within one
    packet may decode to a wrong image without an error.
    """
    data = bytearray(path.read_bytes())
    middle, count = len(data) // 2, len(data) // 8
    junk = b"".join(hashlib.sha512(f"{path.name} {i}".encode()).digest() for i in range(count // 64 + 1))
    data[middle : middle + count] = junk[:count]
    write_file(path, bytes(data))


def _cropped(frame: Frame) -> Frame:
    """A frame without a twelfth of each side, of even size, as re-uploads often are."""
    height, width = (side // 12 for side in frame.shape[:2])
    inner = frame[height:-height, width:-width]
    return inner[: len(inner) // 2 * 2, : inner.shape[1] // 2 * 2]


def _stream(name: str) -> np.random.Generator:
    """The random number generator for a name, the same on every machine."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(name.encode()).digest(), "big")))
