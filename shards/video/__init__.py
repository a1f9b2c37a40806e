"""Videos as a codec: a source's own packets, or frames encoded here, in chunks that decode alone.

encoded = wrap("av1", packets, extradata, (256, 256), Fraction(10), most=8)    # an `Encoded`, nothing decoded
decode_group("av1", encoded.chunks[3], out)                                   # frames [n, H, W, 3] uint8

A chunk is one closed group of pictures, and a member of a tar is a file that ffmpeg plays. PyAV is an extra,
so this room is imported where a codec of videos is used.
"""

from __future__ import annotations

from oxcart.shards.errors import ConfigError

try:
    from oxcart.shards.video.decode import decode_frames, decode_group, presentation
    from oxcart.shards.video.encode import encode_av1
    from oxcart.shards.video.groups import CodedFrame, group
    from oxcart.shards.video.mp4 import write_mp4
    from oxcart.shards.video.wrap import access_units, wrap
except ModuleNotFoundError as error:
    if error.name not in ("av", "cv2"):
        raise
    raise ConfigError(
        f"codec video: needs the package {error.name}, which is not installed: pip install 'oxcart[video]'"
    ) from error

__all__ = [
    "CodedFrame",
    "access_units",
    "decode_frames",
    "decode_group",
    "encode_av1",
    "group",
    "presentation",
    "wrap",
    "write_mp4",
]
