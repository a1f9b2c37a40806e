"""Which videos of a source can be stored as they are: those of closed groups of pictures, short enough.

A chunk is one group, and a reader decodes a group to get one frame of it. So an episode must begin with a
group, and no group may be longer than asked for. Nothing is decoded to find out: the census has seen the
videos' packets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from oxcart.compile.census import Census
from oxcart.compile.images import Resize
from oxcart.compile.plan import Settings
from oxcart.compile.sources.base import CodedVideo, Source
from oxcart.shards.codec import VIDEO, VIDEO_EXTENSIONS, Encoding
from oxcart.shards.errors import ConfigError

INSTEAD = "use --codec jpeg --jpeg-quality 85 or --codec av1, which encode frames anew"


def copying(census: Census, source: Source, settings: Settings) -> tuple[Census, Settings]:
    """Settle the codec of each camera whose videos are to be copied, and reject episodes that cannot be.

    Args:
        census: census of the source.
        source: the source.
        settings: how frames are to be stored; unless videos are to be copied, nothing changes.

    Raises:
        ConfigError: the source has no such videos, or their codec or size cannot be kept.
    """
    asked = {camera.name: settings.encoding_of(camera.name) for camera in source.cameras}
    wanted = {name: encoding for name, encoding in asked.items() if encoding.copies}
    if not wanted:
        return census, settings
    rejected = census.table["rejected"].to_pylist()
    codecs: dict[str, str] = {}
    for i, row in enumerate(census.table.to_pylist()):
        if rejected[i] is None:
            videos = source.videos(row)
            for camera, encoding in wanted.items():
                codecs.setdefault(camera, _codec(camera, videos, encoding))
                check_size(camera, row, settings.resize)
            reasons = _reasons(wanted, videos, codecs)
            rejected[i] = next(reasons, None)
    place = census.table.schema.get_field_index("rejected")
    table = census.table.set_column(place, "rejected", pa.array(rejected, pa.string()))
    encodings = {name: replace(encoding, codec=codecs[name]) for name, encoding in wanted.items() if codecs}
    return replace(census, table=table), replace(settings, encodings={**settings.encodings, **encodings})


def check_size(camera: str, row: Mapping[str, Any], resize: Resize) -> None:
    """Refuse to copy a video that is to get another size.

    Raises:
        ConfigError: the size is another.
    """
    size = row[f"{camera}.height"], row[f"{camera}.width"]
    if (to := resize.output_size(*size)) != size:
        raise ConfigError(
            f"size {to[0]}x{to[1]}: the videos of camera {camera} are {size[0]}x{size[1]} and would be "
            f"copied; for another size {INSTEAD}"
        )


def _codec(camera: str, videos: Mapping[str, CodedVideo], encoding: Encoding) -> str:
    """The codec of the first video of a camera, which all others must have."""
    if camera not in videos:
        raise ConfigError(f"codec video: the source has no videos of camera {camera} to copy; {INSTEAD}")
    codec = videos[camera].codec
    if codec not in VIDEO_EXTENSIONS:
        raise ConfigError(
            f"codec video: camera {camera} is {codec}, expected one of {', '.join(VIDEO_EXTENSIONS)}; "
            f"{INSTEAD}"
        )
    if encoding.codec not in (VIDEO, codec):
        raise ConfigError(f"codec {encoding.codec}: the videos of camera {camera} are {codec}; {INSTEAD}")
    return codec


def _reasons(
    wanted: Mapping[str, Encoding], videos: Mapping[str, CodedVideo], codecs: Mapping[str, str]
) -> Iterator[str]:
    """Why an episode cannot be copied."""
    for camera, encoding in wanted.items():
        video = videos.get(camera)
        if video is None or video.codec != codecs[camera]:
            found = video.codec if video else "no video"
            yield f"camera {camera}: is {found}, the first episode {codecs[camera]}; {INSTEAD}"
        elif video.group is None:
            yield f"camera {camera}: its video cannot be copied: {video.why}; {INSTEAD}"
        elif encoding.group is not None and video.group > encoding.group:
            yield (
                f"camera {camera}: a key frame only every {video.group} frames, --max-gop is "
                f"{encoding.group}; {INSTEAD}"
            )
