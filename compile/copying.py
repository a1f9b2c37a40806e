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
from oxcart.manifests.tables import rows_of
from oxcart.shards.codec import VIDEO, Encoding
from oxcart.shards.errors import ConfigError

INSTEAD = "use --codec jpeg --jpeg-quality 85 or --codec av1, which encode frames anew"


def copying(census: Census, source: Source, settings: Settings) -> tuple[Census, Settings]:
    """Settle the codec of each camera whose videos are to be copied, and reject episodes that cannot be.

    Where no codec is asked for, it is that of the first video that can be copied.

    Args:
        census: census of the source.
        source: the source.
        settings: how frames are to be stored; unless videos are to be copied, nothing changes.

    Raises:
        ConfigError: the source has no such videos, or their size cannot be kept.
    """
    asked = {camera.name: settings.encoding_of(camera.name) for camera in source.cameras}
    wanted = {name: encoding for name, encoding in asked.items() if encoding.copies}
    if not wanted:
        return census, settings
    rejected = census.table["rejected"].to_pylist()
    codecs = {name: encoding.codec for name, encoding in wanted.items() if encoding.codec != VIDEO}
    for i, row in enumerate(rows_of(census.table)):
        if rejected[i] is None:
            videos = source.videos(row)
            for camera in wanted:
                if camera not in videos:
                    raise ConfigError(
                        f"codec video: the source has no videos of camera {camera} to copy; {INSTEAD}"
                    )
                check_size(camera, row, settings.resize)
                if videos[camera].group is not None:
                    codecs.setdefault(camera, videos[camera].codec)
            rejected[i] = next(_reasons(wanted, videos, codecs), None)
    place = census.table.schema.get_field_index("rejected")
    table = census.table.set_column(place, "rejected", pa.array(rejected, pa.string()))
    encodings = {name: replace(wanted[name], codec=codec) for name, codec in codecs.items()}
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


def _reasons(
    wanted: Mapping[str, Encoding], videos: Mapping[str, CodedVideo], codecs: Mapping[str, str]
) -> Iterator[str]:
    """Why an episode cannot be copied."""
    for camera, encoding in wanted.items():
        video = videos[camera]
        if video.group is None:
            yield f"camera {camera}: its video cannot be copied: {video.why}; {INSTEAD}"
        elif video.codec != codecs[camera]:
            yield (
                f"camera {camera}: is {video.codec}, expected {codecs[camera]} as in all episodes; {INSTEAD}"
            )
        elif encoding.group is not None and video.group > encoding.group:
            yield (
                f"camera {camera}: a key frame only every {video.group} frames, --max-gop is "
                f"{encoding.group}; {INSTEAD}"
            )
