"""Annex B members: a delimiter before every access unit, and the parameter sets in every group."""

from __future__ import annotations

import io
import re

import av
import numpy as np
import pytest

from films import CODECS, RATE, Shot, decoded, read, shoot
from oxcart.shards.codec import Encoded
from oxcart.shards.video import CodedFrame, access_units, wrap
from oxcart.shards.video.annexb import SYNTAX, split_units

START = b"\0\0\0\1"


@pytest.fixture(scope="module", params=("h264", "hevc"))
def codec(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shot(codec: str) -> Shot:
    encoder, options, container = CODECS[codec]
    return shoot(encoder, options, count=20, container=container)


def kinds(codec: str, data: bytes) -> list[int]:
    syntax = SYNTAX[codec]
    return [unit[0] >> syntax.shift & syntax.mask for unit in split_units(data)]


def wrapped(codec: str, shot: Shot) -> Encoded:
    return wrap(codec, shot.packets, shot.extradata, shot.size, RATE, 8)


def test_every_group_begins_with_all_parameter_sets_and_every_packet_with_a_delimiter(
    codec: str, shot: Shot
) -> None:
    sets, delimiter = list(SYNTAX[codec].sets), {"h264": 9, "hevc": 35}[codec]
    encoded = wrapped(codec, shot)
    assert encoded.header == b""
    for chunk in encoded.chunks:
        first, *rest = access_units(codec, chunk)
        assert kinds(codec, first)[: 1 + len(sets)] == [delimiter, *sets]
        for unit in rest:
            assert kinds(codec, unit).count(delimiter) == 1
            assert not set(kinds(codec, unit)) & set(sets)
        assert b"".join((first, *rest)) == chunk


def test_coded_pictures_stay_as_they_are(codec: str, shot: Shot) -> None:
    pictures = [unit for frame in shot.packets for unit in by_length(frame.data)]
    member = b"".join(map(bytes, wrapped(codec, shot).chunks))
    stored = split_units(member)
    syntax = SYNTAX[codec]
    own = [
        unit
        for unit in pictures
        if unit[0] >> syntax.shift & syntax.mask not in (*syntax.sets, {"h264": 9, "hevc": 35}[codec])
    ]
    assert own == [unit for unit in stored if unit in set(own)]


@pytest.mark.parametrize("layer", [1, 2])
def test_delimiters_of_a_source_may_be_of_a_temporal_layer(layer: int, codec: str, shot: Shot) -> None:
    """As HEVC has it; in H.264 that byte says which pictures follow, and the first one is always 9."""
    own = {"h264": bytes([9 | layer << 5, 0xF0]), "hevc": bytes([0x46, layer + 1, 0x50])}[codec]
    packets = [frame._replace(data=len(own).to_bytes(4, "big") + own + frame.data) for frame in shot.packets]
    encoded = wrap(codec, packets, shot.extradata, shot.size, RATE, 8)
    place = 0
    for chunk, count in zip(encoded.chunks, encoded.frames or (), strict=True):
        assert len(access_units(codec, chunk)) == count
        found = decoded(codec, bytes(chunk), count, shot.size)
        assert np.array_equal(found, shot.frames[place : place + count])
        place += count


def by_length(data: bytes) -> list[bytes]:
    units = []
    while data:
        size = int.from_bytes(data[:4], "big")
        units.append(data[4 : 4 + size])
        data = data[4 + size :]
    return units


def test_the_container_makes_no_difference(codec: str, shot: Shot) -> None:
    assert wrapped(codec, remuxed(shot, "matroska")) == wrapped(codec, shot)
    stream = wrapped(codec, remuxed(shot, "mpegts"))  # has delimiters of its own
    assert stream.frames == wrapped(codec, shot).frames
    assert all(
        np.array_equal(decoded(codec, bytes(one), 4, shot.size), decoded(codec, bytes(other), 4, shot.size))
        for one, other in zip(stream.chunks, wrapped(codec, shot).chunks, strict=True)
    )


def remuxed(shot: Shot, container: str) -> Shot:
    """The same packets in another container."""
    file = io.BytesIO()
    with av.open(io.BytesIO(shot.file)) as source, av.open(file, "w", format=container) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return read(file.getvalue())


def test_lengths_of_two_bytes_are_read(codec: str, shot: Shot) -> None:
    place = {"h264": 4, "hevc": 21}[codec]
    short = shot.extradata[:place] + bytes([shot.extradata[place] & ~2]) + shot.extradata[place + 1 :]
    packets = [
        frame._replace(data=b"".join(len(one).to_bytes(2, "big") + one for one in by_length(frame.data)))
        for frame in shot.packets
    ]
    assert wrap(codec, packets, short, shot.size, RATE, 8) == wrapped(codec, shot)


def test_parameter_sets_that_change_are_refused(codec: str, shot: Shot) -> None:
    other = bytes([SYNTAX[codec].sets[-1] << SYNTAX[codec].shift, 1, 2, 3])
    packets = list(shot.packets)
    packets[9] = packets[9]._replace(data=len(other).to_bytes(4, "big") + other + packets[9].data)
    with pytest.raises(ValueError, match="parameter sets that change"):
        wrap(codec, packets, shot.extradata, shot.size, RATE, 8)


def test_parameter_sets_of_the_first_packet_go_before_those_of_the_container(codec: str, shot: Shot) -> None:
    units = split_units(bytes(wrapped(codec, shot).chunks[0]))
    stream = [
        frame._replace(data=b"".join(START + one for one in by_length(frame.data))) for frame in shot.packets
    ]
    sets = b"".join(START + one for one in units[1 : 1 + len(SYNTAX[codec].sets)])
    stream[0] = stream[0]._replace(data=sets + stream[0].data)
    assert wrap(codec, stream, b"", shot.size, RATE, 8) == wrapped(codec, shot)
    with pytest.raises(ValueError, match="no parameter sets"):
        wrap(codec, [*stream[8:]], b"", shot.size, RATE, 8)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty packet"),
        (b"\0\0\0\7\x65", "ends inside a unit"),
        (b"\0\0\0\0", "ends inside a unit"),
        (b"\0\0\0\2\x4e\x01", "without a picture"),
    ],
)
def test_damaged_packets_are_refused(data: bytes, said: str, codec: str, shot: Shot) -> None:
    if codec == "h264":
        data = data.replace(b"\x4e", b"\x06")
    frames = [shot.packets[0], CodedFrame(data, shot.packets[0].pts + 1, False)]
    with pytest.raises(ValueError, match=said):
        wrap(codec, frames, shot.extradata, shot.size, RATE, 8)


@pytest.mark.parametrize("size", [1, 5, 8, 20, 30])
def test_a_damaged_header_of_the_stream_is_refused(size: int, codec: str, shot: Shot) -> None:
    with pytest.raises(ValueError, match=re.compile("damaged header|no parameter sets")):
        wrap(codec, shot.packets, shot.extradata[:size], shot.size, RATE, 8)


def test_a_chunk_that_does_not_begin_with_a_delimiter_is_refused(codec: str, shot: Shot) -> None:
    chunk = bytes(wrapped(codec, shot).chunks[0])
    with pytest.raises(ValueError, match="does not begin with an access unit delimiter"):
        access_units(codec, chunk[1:])


@pytest.mark.parametrize("data", [b"", b"\1\2\3", b"\2\0\0\1\x65"])
def test_what_is_no_stream_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="without a start code"):
        split_units(data)
