"""The packets of an episode as a video holds them, without decoding.

The table of samples says where the packets lie. Those of an episode follow each other in the file, so they
take one read, however many there are.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from oxcart.compile.sources.lerobot.films import span_digest
from oxcart.compile.sources.lerobot.mp4 import SampleTable
from oxcart.shards.codec import Encoded
from oxcart.shards.prefetch import GAP_BYTES, spans
from oxcart.shards.store import Store
from oxcart.shards.video import CodedFrame, wrap


def copy_span(
    store: Store, file: str, samples: SampleTable, span: tuple[int, int], digest: int, fps: int, most: int
) -> Encoded | None:
    """The video between two times (pts), one closed group per chunk.

    Args:
        store: the store of the dataset.
        file: name of the video.
        samples: its packets.
        span: times of the first frame, and after the last one.
        digest: `span_digest` of the frames at the census.
        fps: frames per second.
        most: most frames of a group.

    Returns:
        The member; None if the packets are not those of the digest.

    Raises:
        ValueError: the video cannot be divided into such groups.
    """
    inside = np.flatnonzero((samples.pts >= span[0]) & (samples.pts < span[1]))
    pts, sizes, keys = samples.pts[inside], samples.sizes[inside], samples.keys[inside]
    shown = np.argsort(pts, kind="stable")
    if not inside.size or span_digest(np.stack([pts, 2 * sizes + keys], axis=1)[shown]) != digest:
        return None
    places = samples.places[inside]
    if (places < 0).any():
        raise ValueError("its container does not say where packets lie")
    ranges = list(zip(places.tolist(), sizes.tolist(), strict=True))
    packets = [b""] * len(ranges)
    for joined in spans(ranges, GAP_BYTES):
        data = store.read_range(file, joined.start, joined.end - joined.start)
        for i in joined.ranges:
            place, length = ranges[i]
            packets[i] = data[place - joined.start : place - joined.start + length]
    frames = list(map(CodedFrame, packets, pts.tolist(), keys.tolist()))
    size = samples.height, samples.width
    return wrap(samples.codec, frames, samples.extradata, size, Fraction(fps), most)
