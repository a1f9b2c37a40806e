"""The table of samples of an MP4 file tells what FFmpeg lists by reading every packet."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import av
import lerobot_writer
import numpy as np
import pytest
from lerobot_writer import FPS, TOP, drawn, write_video

from oxcart.compile.sources.lerobot.mp4 import SampleTable, UnusualError, read_samples
from oxcart.shards.store import Store

VIDEOS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "h264": ("libx264", {"g": "2", "bf": "0"}),
    "h264 with B-frames": ("libx264", {"g": "12", "bf": "3"}),
    "h264 of open groups": ("libx264", {"g": "6", "bf": "2", "x264-params": "open-gop=1"}),
    "hevc with B-frames": ("libx265", {"g": "8", "x265-params": "log-level=none:bframes=3"}),
    "vp9": ("libvpx-vp9", {"g": "4"}),
    "av1": ("libsvtav1", {"g": "2", "crf": "30", "preset": "12"}),
}
"""What is in a file -> encoder and its options."""
MUXERS: Mapping[str, Mapping[str, str]] = {
    "moov last": {},
    "moov first": {"movflags": "faststart"},
    "no edits": {"use_editlist": "0"},
    "negative times": {"movflags": "negative_cts_offsets"},
    "other unit": {"video_track_timescale": "90000"},
}


@pytest.fixture(autouse=True)
def large_enough_for_hevc(monkeypatch: pytest.MonkeyPatch) -> None:
    """libx265 writes where it must not if frames are smaller than one of its blocks."""
    monkeypatch.setattr(lerobot_writer, "SIZE", (64, 96))


def write(path: Path, kind: str, muxer: Mapping[str, str], frames: int = 25) -> Path:
    codec, options = VIDEOS[kind]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    write_video(path, (drawn(TOP, 0, step) for step in range(frames)), FPS, options, codec, muxer)
    return path


def read(path: Path) -> tuple[SampleTable, list[tuple[int, int]]]:
    """The samples of a file, and the ranges that were read."""
    ranges = []
    store, size = Store(path.parent), path.stat().st_size

    def note(offset: int, length: int) -> bytes:
        ranges.append((offset, length))
        return store.read_range(path.name, offset, length)

    return read_samples(note, size), ranges


def assert_as_ffmpeg(samples: SampleTable, path: Path) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [one for one in container.demux(stream) if one.size]
        assert samples.pts.tolist() == [one.pts for one in packets]
        assert samples.sizes.tolist() == [one.size for one in packets]
        assert samples.keys.tolist() == [one.is_keyframe for one in packets]
        assert samples.time_base == stream.time_base
        assert samples.codec == stream.codec_context.codec.canonical_name
        assert (samples.height, samples.width) == (stream.height, stream.width) == (64, 96)


@pytest.mark.parametrize("kind", VIDEOS)
def test_each_codec_is_indexed_as_by_ffmpeg(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", kind, {})
    assert_as_ffmpeg(read(path)[0], path)


@pytest.mark.parametrize("muxer", MUXERS.values(), ids=MUXERS)
def test_each_layout_is_indexed_as_by_ffmpeg(muxer: Mapping[str, str], tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "h264 with B-frames", muxer)
    assert_as_ffmpeg(read(path)[0], path)


@pytest.mark.parametrize(("muxer", "most"), [({}, 2), ({"movflags": "faststart"}, 1)])
def test_a_file_takes_few_reads(
    muxer: Mapping[str, str], most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oxcart.compile.sources.lerobot.mp4.BLOCK_BYTES", 4096)
    path = write(tmp_path / "a.mp4", "h264", muxer, 200)
    samples, ranges = read(path)
    assert_as_ffmpeg(samples, path)
    assert len(ranges) <= most
    assert sum(length for _, length in ranges) < path.stat().st_size / 2


def test_a_stream_of_sound_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=8000)
        stream = out.add_stream("libx264", rate=FPS, options={"bf": "2"})
        stream.height, stream.width, stream.pix_fmt = *lerobot_writer.SIZE, "yuv420p"
        for step in range(20):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(drawn(TOP, 0, step))))
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate = 8000
            out.mux(sound.encode(silence))
        out.mux(stream.encode())
        out.mux(sound.encode())
    assert_as_ffmpeg(read(path)[0], path)


@pytest.mark.parametrize(
    ("muxer", "why"),
    [
        ({"movflags": "frag_keyframe+empty_moov"}, "has fragments"),
        ({"movflags": "negative_cts_offsets", "output_ts_offset": "2"}, "has edits"),
    ],
)
def test_unusual_files_are_left_to_ffmpeg(muxer: Mapping[str, str], why: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "h264 with B-frames", muxer)
    with pytest.raises(UnusualError, match=why):
        read(path)


def test_a_file_without_its_end_is_found_to_be_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "h264", {"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"is cut off: \d+ of its 25 frames lie beyond its"):
        read(path)


def test_no_change_of_a_byte_of_the_tables_ends_in_another_error(tmp_path: Path) -> None:
    """Damaged tables are left to FFmpeg, or read as far as they add up; they never take much memory."""
    path = write(tmp_path / "a.mp4", "h264 with B-frames", {"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    place = data.index(b"moov")
    (length,) = struct.unpack_from(">I", data, place - 4)
    refused = 0
    for at in range(place - 4, place - 4 + length):
        for value in (0, 0x7F, 0xFF):
            before, data[at] = data[at], value
            try:
                read_samples(lambda offset, size: bytes(data[offset : offset + size]), len(data))
            except (UnusualError, ValueError):
                refused += 1
            data[at] = before
    assert refused
