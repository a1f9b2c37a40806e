"""Every frame of a source's video is found by itself, whatever the codec."""

from __future__ import annotations

import numpy as np
import pytest

from films import CODECS, RATE, Shot, decoded, shoot
from oxcart.shards.video import access_units, wrap

MOST = 8


@pytest.fixture(scope="module", params=CODECS)
def case(request: pytest.FixtureRequest) -> tuple[str, Shot]:
    encoder, options, container = CODECS[request.param]
    return request.param, shoot(encoder, options, count=20, container=container)


def test_every_frame_is_decoded_alone_as_in_sequence(case: tuple[str, Shot]) -> None:
    codec, shot = case
    encoded = wrap(codec, shot.packets, shot.extradata, shot.size, RATE, MOST)
    assert encoded.frames is not None
    assert len(encoded.chunks) >= 3
    assert sum(encoded.frames) == len(shot.frames)
    start = 0
    for chunk, count in zip(encoded.chunks, encoded.frames, strict=True):
        for wanted in range(1, count + 1):
            found = decoded(codec, bytes(chunk), wanted, shot.size)
            assert np.array_equal(found, shot.frames[start : start + wanted])
        assert len(access_units(codec, chunk)) == count
        start += count
