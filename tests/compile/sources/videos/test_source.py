"""Videos as a source: exact clips, channels, re-uploads, what is left out and why, and the same bytes."""

from __future__ import annotations

import json
import os
import shutil
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from oxcart.compile import census as census_module
from oxcart.compile.images import Resize
from oxcart.compile.pipeline import execute, prepare
from oxcart.compile.sample.videos import (
    CC_BY,
    VideoSampleConfig,
    damage,
    draw_scene,
    variable_times,
    write_info,
    write_video,
    write_videos,
)
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import LEFT_OUT, Film, SourceConfig
from oxcart.compile.sources.kinds import recognise
from oxcart.compile.sources.videos import source as source_module
from oxcart.compile.sources.videos.config import VideoConfig
from oxcart.compile.sources.videos.files import Scene
from oxcart.compile.sources.videos.survey import survey
from oxcart.manifests.audit.episodes import open_datasets
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule
from oxcart.manifests.tables import ATTRIBUTION
from oxcart.manifests.verify import verify
from oxcart.shards.errors import ConfigError, SourceError
from oxcart.shards.store import Store
from sample_compile import rows_of, stopped, tree
from video_sources import SIZE, census_rows, compile_videos, scenes, video_census, video_compile
from worker_tasks import die

REAL = Path(__file__).parents[5] / "shared" / "data" / "youtube"


@pytest.fixture(scope="module")
def vids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample: two channels and what is special."""
    config = VideoSampleConfig(channels=3, videos=1, shots=2, seconds=1.5, height=48)
    return write_videos(tmp_path_factory.mktemp("vids") / "vids", config)


def reasons(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["source_file"]: row["rejected"] for row in rows if row["rejected"] is not None}


def spans(rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    found = [json.loads(row["detail"]) for row in rows]
    return [(one["start_s"], one["stop_s"]) for one in found]


def played(film: Film, size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint8]:
    """The frames [T, H, W, 3] of a clip."""
    frames = np.zeros((film.steps, *size, 3), np.uint8)
    film.play(frames, Resize())
    return frames


def test_clips_begin_and_end_at_the_drawn_cuts_with_exact_counts(tmp_path: Path) -> None:
    write_video(tmp_path / "Three [id000000001].mp4", scenes("three", 24, 36, 60), fps=24)
    rows = census_rows(tmp_path)
    assert spans(rows) == [(0.0, 1.0), (1.0, 2.5), (2.5, 5.0)]
    assert [row["steps"] for row in rows] == [10, 15, 25]
    assert [row["rejected"] for row in rows] == [None] * 3
    assert [row["key"].rpartition("-")[2] for row in rows] == ["0000", "0001", "0002"]
    assert {row["session"] for row in rows} == {"id000000001"}


def test_the_steps_show_the_frames_that_a_player_would(tmp_path: Path) -> None:
    ramp = [np.full((*SIZE, 3), 10 + 3 * i, np.uint8) for i in range(48)]
    write_video(tmp_path / "ramp.mp4", ramp, fps=24, crf=1)
    config = SourceConfig(url=str(tmp_path), kind="videos")
    (row,) = video_census(tmp_path).table.to_pylist()
    film = open_source(config).read(row).images["video"]
    assert isinstance(film, Film)
    shown = [round((float(frame.mean()) - 10) / 3) for frame in played(film)]
    assert shown == [int(k * 2.4 + 1e-9) for k in range(20)]


def test_variable_rate_is_resampled_by_timestamps(tmp_path: Path) -> None:
    times = variable_times("times", 40)
    ramp = [np.full((*SIZE, 3), 10 + 5 * i, np.uint8) for i in range(40)]
    write_video(tmp_path / "phone.mp4", ramp, times_ms=times, crf=1)
    config = SourceConfig(url=str(tmp_path), kind="videos")
    (row,) = video_census(tmp_path).table.to_pylist()
    film = open_source(config).read(row).images["video"]
    assert isinstance(film, Film)
    shown = [round((float(frame.mean()) - 10) / 5) for frame in played(film)]
    assert shown == [max(i for i, t in enumerate(times) if t <= 100 * k) for k in range(len(shown))]
    assert len(shown) == row["steps"] >= times[-1] // 100


@pytest.mark.parametrize(
    ("rate", "steps"), [(Fraction(5), 10), (Fraction(30000, 1001), 60), (Fraction(24), 48)]
)
def test_a_declared_rate_decides_how_many_steps(tmp_path: Path, rate: Fraction, steps: int) -> None:
    write_video(tmp_path / "two.mp4", scenes("two", 48), fps=24)
    assert [row["steps"] for row in census_rows(tmp_path, rate=rate)] == [steps]


def test_a_long_shot_is_cut_at_key_frames_where_there_are_some(tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", scenes("long", 24 * 7), fps=24, keys=48, options={"sc_threshold": "0"})
    rows = census_rows(tmp_path, max_s=3.0)
    assert spans(rows) == [(0.0, 2.0), (2.0, 4.0), (4.0, 7.0)]
    assert all(start == stop for (_, stop), (start, _) in pairwise(spans(rows)))
    assert [row["steps"] for row in rows] == [20, 20, 30]


def test_stills_black_and_short_shots_are_left_out_with_reason_and_score(tmp_path: Path) -> None:
    still = [next(draw_scene("slide", 1, SIZE))] * 48
    black = [np.zeros((*SIZE, 3), np.uint8)] * 36
    write_video(tmp_path / "slide.mp4", still)
    write_video(tmp_path / "mixed.mp4", [*scenes("mixed", 36), *black, *scenes("after", 36, 12)])
    rows = census_rows(tmp_path)
    found = [(row["source_file"], row["rejected"]) for row in rows]
    assert [name for name, _ in found] == ["mixed.mp4"] * 4 + ["slide.mp4"]
    assert [why is None for _, why in found] == [True, False, True, False, False]
    assert found[1][1] == f"{LEFT_OUT}black for 1.50 s (no grey level is above 32)"
    assert found[3][1] == f"{LEFT_OUT}a shot of 0.50 s is shorter than 1 s"
    assert found[4][1].startswith(f"{LEFT_OUT}nothing moves for 2.00 s (steps differ by 0.0")


def test_a_frozen_run_is_cut_out_of_its_shot(tmp_path: Path) -> None:
    moving = list(scenes("freeze", 72))
    write_video(tmp_path / "freeze.mp4", [*moving[:36], *[moving[36]] * 48, *moving[36:]])
    rows = census_rows(tmp_path)
    assert [row["rejected"] is None for row in rows] == [True, False, True]
    (_, first), (begins, ends), (last, _) = spans(rows)
    assert first == begins
    assert ends == last
    assert ends - begins == pytest.approx(2.0, abs=0.2)


def test_the_channel_is_the_environment_and_that_of_a_video_without_one_is_unknown(tmp_path: Path) -> None:
    for i, more in enumerate(({}, {"channel_id": None}, {"channel_id": None, "uploader_id": "@lonely"})):
        path = tmp_path / "deep" / f"V {i} [id00000000{i}].mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, scenes(str(i), 30))
        write_info(path, f"id00000000{i}", f"V {i}", "home", CC_BY, **more)
    write_video(tmp_path / "plain [id000000009].mp4", scenes("plain", 30))
    rows = {row["session"]: row for row in census_rows(tmp_path)}
    home = "UChome".ljust(24, "0")
    # The second names its channel by a uploader_id that the first has, too.
    assert {name: (row["environment"], row["environment_known"]) for name, row in rows.items()} == {
        "id000000000": (home, "declared"),
        "id000000001": (home, "declared"),
        "id000000002": ("@lonely", "declared"),
        "id000000009": (None, "unknown"),
    }


def test_a_reupload_joins_its_channels_and_nothing_else_is_joined(vids: Path, tmp_path: Path) -> None:
    rows = [row for row in census_rows(vids) if row["rejected"] is None]
    tied: dict[int, set[str]] = {}
    for row in rows:
        tied.setdefault(row["duplicate"], set()).add(row["session"])
    assert [sessions for sessions in tied.values() if len(sessions) > 1] == [{"ckitchen000", "reupload000"}]
    apart = [row["duplicate"] for row in census_rows(vids, reuploads=False)]
    assert len(set(apart)) == len(apart)
    manifest = compile_videos(vids, tmp_path / "out", rule=SplitRule(val=("UCkitchen".ljust(24, "0"),)))
    held = {one["name"] for one in manifest.environments if "val" in one["splits"]}
    assert held == {f"UC{name}".ljust(24, "0") for name in ("kitchen", "workshop")}
    (source,) = open_datasets([str(tmp_path / "out")])
    owners = source.opened.table(ATTRIBUTION).to_pylist()
    assert {(one["video"], one["same_as"]) for one in owners if one["same_as"]} == {
        ("ckitchen000", "reupload000"),
        ("reupload000", "reupload000"),
    }
    # An audit takes the two channels for one place.
    assert len({source.environment(name) for name in held}) == 1
    assert (
        len({source.environment(one["name"]) for one in manifest.environments})
        == len(manifest.environments) - 1
    )


CAMERAS_OF_A_RECORDING = ("rec_front.mp4", "rec_wrist.mp4", "episode_000/cam0.mp4", "front/episode_000.mp4")


def test_cameras_of_one_recording_are_not_told_apart_as_environments(tmp_path: Path) -> None:
    for i, name in enumerate(CAMERAS_OF_A_RECORDING):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_video(tmp_path / name, scenes(str(i), 30))
    said = (
        r"all 4 episodes have an unknown environment; put a \.info\.json with a channel_id beside each "
        r"video, or use --split-by instruction with --instruction title, or --val none$"
    )
    with pytest.raises(ConfigError, match=said):
        compile_videos(tmp_path, tmp_path / "out")
    home = tmp_path / "home [id000000000].mp4"
    write_video(home, scenes("home", 30))
    write_info(home, "id000000000", "Home", "home", CC_BY)
    away = tmp_path / "away [id000000001].mp4"
    write_video(away, scenes("away", 30))
    write_info(away, "id000000001", "Away", "away", CC_BY)
    compile_videos(tmp_path, tmp_path / "out", rule=SplitRule(val=0.9, val_seen=0.5))
    splits = {row["source_file"]: row["split"] for row in rows_of(tmp_path / "out")}
    assert {splits[name] for name in CAMERAS_OF_A_RECORDING} == {"train"}
    assert {splits[home.name], splits[away.name]} == {"train", "val"}


def test_a_channel_is_never_in_two_splits(vids: Path, tmp_path: Path) -> None:
    manifest = compile_videos(vids, tmp_path / "out")
    assert all(len(one["splits"]) == 1 for one in manifest.environments)
    assert set(manifest.splits) == {"train", "val"}


def test_the_sample_is_compiled_with_what_is_wrong_listed(vids: Path, tmp_path: Path) -> None:
    manifest = compile_videos(vids, tmp_path / "out")
    assert manifest.counts == {"source": 12, "compiled": 10, "rejected": 2, "limited": 0}
    assert manifest.control_rate == {
        "hz": 10.0,
        "verified": True,
        "source": "Frames are sampled at this rate",
    }
    listed = {row["source_file"]: row["reason"] for row in rows_of(tmp_path / "out", "rejected.parquet")}
    assert "nothing moves" in listed["A slide [slide000000].mp4"]
    assert listed["Broken [broken00000].mp4"].startswith("cannot be decoded at ")
    dataset = Dataset.open(str(tmp_path / "out"))
    assert verify(dataset, decode=True) == []
    owners = rows_of(tmp_path / "out", ATTRIBUTION)
    assert [row["key"] for row in owners] == [row["key"] for row in rows_of(tmp_path / "out")]
    garden = next(row for row in owners if row["video"] == "cgarden0000")
    assert garden["licence"] == "unknown"
    assert garden["url"] == "https://video.example/watch?v=cgarden0000"
    assert manifest.tables[ATTRIBUTION]["rows"] == 10
    assert manifest.versions["scenedetect"]
    assert manifest.config["source"]["video"]["shots"] == {"detector": "content", "threshold": 27.0}


@pytest.mark.system
def test_any_number_of_workers_gives_the_same_bytes(
    vids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_videos(vids, tmp_path / "one")
    monkeypatch.setattr(census_module, "WORKER_BYTES", 1)
    compile_videos(vids, tmp_path / "two", workers=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_compile_that_was_cut_off_goes_on_to_the_same_bytes(vids: Path, tmp_path: Path) -> None:
    compile_videos(vids, tmp_path / "whole")
    stopped(video_compile(vids, tmp_path / "out"), 40)
    execute(prepare(video_compile(vids, tmp_path / "out")))
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_transcode_there_and_back_keeps_every_byte(vids: Path, tmp_path: Path) -> None:
    from oxcart.compile import transcode

    compile_videos(vids, tmp_path / "raw")
    for source, target, codec in (("raw", "zstd", "zstd"), ("zstd", "back", "raw")):
        config = transcode.TranscodeConfig(
            dataset=str(tmp_path / source),
            out=str(tmp_path / target),
            codec=codec,
            shard_size=1_000_000,
            on_error="reject",
            workers=1,
        )
        transcode.execute(transcode.prepare(config))
    assert tree(tmp_path / "back") == tree(tmp_path / "raw")


def test_scenes_csv_says_which_frames_are_compiled(tmp_path: Path) -> None:
    write_video(tmp_path / "cut.mp4", scenes("cut", 240), fps=24, keys=24)
    table = "start_frame,end_frame,label,contains_hand\n120,168,stir,true\n24,72,cut,true\n0,24,talk,false\n"
    (tmp_path / "scenes.csv").write_text(table)
    rows = census_rows(tmp_path)
    assert spans(rows) == [(0.0, 1.0), (1.0, 3.0), (5.0, 7.0)]
    rows = census_rows(tmp_path, where=(("contains_hand", ("true",)),))
    assert spans(rows) == [(1.0, 3.0), (5.0, 7.0)]
    assert [row["steps"] for row in rows] == [20, 20]
    rows = census_rows(tmp_path, where=(("label", ("nothing",)),))
    assert reasons(rows) == {"cut.mp4": f"{LEFT_OUT}scenes.csv has 3 rows, none of them wanted"}


def test_scenes_that_share_what_is_read_on_the_way_to_them_are_compiled(tmp_path: Path) -> None:
    folder = tmp_path / "vids"
    folder.mkdir()
    write_video(folder / "cut.mp4", scenes("cut", 240), fps=24, keys=240, options={"sc_threshold": "0"})
    (folder / "scenes.csv").write_text("start_frame,end_frame\n30,70\n70,110\n200,240\n")
    compile_videos(folder, tmp_path / "some", rule=SplitRule(val=None), on_error="fail")
    (folder / "scenes.csv").unlink()
    compile_videos(folder, tmp_path / "all", rule=SplitRule(val=None), on_error="fail")
    some, whole = (Dataset.open(str(tmp_path / name)) for name in ("some", "all"))
    (key,) = [row["key"] for row in rows_of(tmp_path / "all")]
    keys = sorted(row["key"] for row in rows_of(tmp_path / "some"))
    assert len(keys) == 3
    for one, step in zip(keys, (13, 30, 84), strict=True):  # frames 31.2, 72 and 201.6 of 24 a second
        shown = some[one].frames("video")[[0, 5]]
        near = whole[key].frames("video")[[step, step + 5]]
        assert np.abs(shown.astype(np.int16) - near).mean() < 12


def test_scenes_csv_alone_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "cut.mp4", scenes("cut", 480), fps=24, keys=24)
    (tmp_path / "scenes.csv").write_text("start_frame,end_frame\n240,288\n")
    seen = survey(Store(tmp_path), "cut.mp4", VideoConfig(), [Scene(start=240, stop=288)])
    assert len(seen.pts) == 48
    assert len(seen.packets) < 80


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("a,b\n1,2\n", "scenes.csv: has no column start_frame, end_frame, but a, b"),
        ("start_frame,end_frame\n5,5\n", "line 2: expected 0 <= start_frame < end_frame, got 5 and 5"),
        ("start_frame,end_frame\nx,5\n", "line 2: expected two frame numbers"),
        ("start_frame,end_frame\n0,30\n20,40\n", "scenes overlap: 0 to 30 and 20 to 40"),
        ("start_frame,end_frame\n0,900\n", "has 48 frames; scenes.csv has a scene from 0 to 900"),
    ],
)
def test_a_table_of_scenes_that_is_wrong_rejects_its_videos(tmp_path: Path, table: str, why: str) -> None:
    write_video(tmp_path / "cut.mp4", scenes("cut", 48))
    (tmp_path / "scenes.csv").write_text(table)
    (reason,) = reasons(census_rows(tmp_path)).values()
    assert why in reason


def test_licences_and_take_downs_leave_videos_out(vids: Path) -> None:
    found = reasons(census_rows(vids, licences=("cc-by",), exclude=frozenset({"ckitchen000"})))
    assert found["Planting 0 [cgarden0000].mp4"] == (
        f"{LEFT_OUT}its licence is 'unknown', which --licence does not name"
    )
    assert found["Cooking 0 [ckitchen000].mp4"] == (
        f"{LEFT_OUT}its id ckitchen000 is on the list of those to exclude"
    )
    found = reasons(census_rows(vids, licences=("unknown",)))
    assert "Planting 0 [cgarden0000].mp4" not in found


def test_the_title_or_the_chapter_is_the_instruction(tmp_path: Path) -> None:
    path = tmp_path / "V [id000000001].mp4"
    write_video(path, scenes("chapters", 72), fps=24)
    chapters = [{"start_time": 0, "title": "wash"}, {"start_time": 1.5, "title": "cut"}]
    write_info(path, "id000000001", "How to cook", "home", CC_BY, chapters=chapters)
    assert [row["instructions"] for row in census_rows(tmp_path)] == [[]]
    assert [row["instructions"] for row in census_rows(tmp_path, instruction=("title",))] == [["How to cook"]]
    census = video_census(tmp_path, instruction=("chapter",))
    (row,) = census.table.to_pylist()
    assert row["instructions"] == ["wash", "cut"]
    source = open_source(SourceConfig(url=str(tmp_path), kind="videos", instruction=("chapter",)))
    assert source.read(row).instructions == {"chapter": [(0, "wash"), (15, "cut")]}


def _write_bad(folder: Path) -> dict[str, str]:
    """Files that cannot be compiled -> what must be said of them."""
    whole = folder / "whole.mkv"
    write_video(whole, scenes("whole", 60))
    data = whole.read_bytes()
    (folder / "truncated.mkv").write_bytes(data[: len(data) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("not a video at all\n" * 50)
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    (folder / "late.mp4.part").write_bytes(data)
    (folder / "renamed.avi").write_bytes(data)
    write_video(folder / "broken.mp4", scenes("broken", 60))
    damage(folder / "broken.mp4")
    _write_sound(folder / "sound.mp4")
    write_video(folder / "moment.mp4", scenes("moment", 1))
    return {
        "truncated.mkv": "cut off",
        "empty.mp4": "is empty",
        "text.mp4": "is not a video that FFmpeg can open",
        "list.mp4": "is not a video that FFmpeg can open",
        "late.mp4.part": "is an unfinished download",
        "broken.mp4": "cannot be decoded at ",
        "sound.mp4": "has no video stream, only audio",
        "moment.mp4": "is shorter than 1 s",
    }


def _write_sound(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_every_bad_file_is_a_row_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    expected = _write_bad(tmp_path)
    rows = census_rows(tmp_path)
    found = reasons(rows)
    assert set(found) == set(expected)
    for name, why in expected.items():
        assert why in found[name], name
    assert {row["source_file"] for row in rows if row["rejected"] is None} == {"whole.mkv", "renamed.avi"}


@pytest.mark.parametrize(("size", "pixels"), [((50, 66), "yuv420p10le"), ((49, 65), "yuv444p")])
def test_ten_bits_and_odd_sizes_are_decoded(tmp_path: Path, size: tuple[int, int], pixels: str) -> None:
    write_video(tmp_path / "odd.mp4", scenes("odd", 30, size=size), pixels=pixels)
    (row,) = census_rows(tmp_path)
    assert (row["video.height"], row["video.width"], row["rejected"]) == (*size, None)
    compile_videos(tmp_path, tmp_path / "out", rule=SplitRule(val=None))


def test_an_image_that_is_to_be_turned_is_turned(tmp_path: Path) -> None:
    plain, turned = tmp_path / "a" / "plain.mp4", tmp_path / "b" / "turned.mp4"
    for path in (plain, turned):
        path.parent.mkdir()
        write_video(path, scenes("turn", 30), crf=1)
    data = turned.read_bytes()
    matrix = b"".join(n.to_bytes(4, "big", signed=True) for n in (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30))
    quarter = b"".join(n.to_bytes(4, "big", signed=True) for n in (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))
    at = data.rindex(matrix)  # of the track, behind that of the movie
    turned.write_bytes(data[:at] + quarter + data[at + 36 :])
    frames = {}
    for path in (plain, turned):
        compile_videos(path.parent, tmp_path / path.stem, rule=SplitRule(val=None))
        dataset = Dataset.open(str(tmp_path / path.stem))
        frames[path.stem] = dataset[0].frames("video")[0]
    assert frames["turned"].shape == (SIZE[1], SIZE[0], 3)
    assert np.array_equal(frames["turned"], np.rot90(frames["plain"], -1))


def test_what_lies_beside_a_video_may_be_hostile(tmp_path: Path) -> None:
    texts = {
        "bad": "{not json",
        "list": "[1, 2]",
        "deep": "[" * 100_000,
        "odd": json.dumps(
            {"id": "odd", "title": "a\x00b\n\ud800 c" + "x" * 9999, "channel_id": ["x"], "license": 5}
        ),
        "path": json.dumps({"id": "../../etc/passwd", "channel_id": "../x"}),
    }
    for name, text in texts.items():
        write_video(tmp_path / f"{name}.mp4", scenes(name, 30))
        (tmp_path / f"{name}.info.json").write_text(text)
    rows = {row["source_file"]: row for row in census_rows(tmp_path)}
    for name in ("bad", "list", "deep"):
        assert rows[f"{name}.mp4"]["rejected"].startswith(f"{name}.info.json: is not ")
    odd = json.loads(rows["odd.mp4"]["detail"])
    assert odd["title"].startswith("a b ? cx")
    assert len(odd["title"]) == 300
    assert (odd["licence"], odd["channel_id"], rows["odd.mp4"]["environment"]) == ("unknown", None, None)
    assert rows["path.mp4"]["key"].endswith("-______etc_passwd-0000")
    compile_videos(tmp_path, tmp_path / "out", rule=SplitRule(val=None))


def test_names_of_files_may_be_hostile_too(tmp_path: Path) -> None:
    write_video(tmp_path / "a\nb\x1b[31m [i d\t].mp4", scenes("name", 30))
    (row,) = census_rows(tmp_path)
    detail = json.loads(row["detail"])
    assert (detail["title"], detail["video"], row["environment"]) == ("a b [31m", "i d", None)
    shutil.copy(next(tmp_path.glob("*.mp4")), os.fsencode(tmp_path) + b"/no\xfftext.mp4")
    with pytest.raises(SourceError, match=r"the name of 'no\\udcfftext.mp4' is not UTF-8; rename it"):
        census_rows(tmp_path)


def test_of_two_files_with_one_id_the_second_is_rejected(tmp_path: Path) -> None:
    for name in ("a [same0000001].mp4", "b [same0000001].mkv"):
        write_video(tmp_path / name, scenes(name, 30, 30))
    rows = census_rows(tmp_path)
    assert reasons(rows) == {"b [same0000001].mkv": "has the id of a [same0000001].mp4; keep one of the two"}
    assert len({row["key"] for row in rows}) == len(rows) == 3


def test_a_file_that_breaks_the_decoder_is_rejected_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", scenes(name, 30))
    monkeypatch.setattr(source_module, "survey", die)
    source = open_source(SourceConfig(url=str(tmp_path), kind="videos"))
    (row,) = source.census("a.mp4")
    assert row.rejected == "crashes the decoder, whose process died of SIGKILL"
    monkeypatch.undo()
    (row,) = source.census("b.mp4")
    assert row.rejected is None


def test_a_source_that_changed_since_the_census_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "vids"
    folder.mkdir()
    write_video(folder / "a.mp4", scenes("a", 30))
    prepared = prepare(video_compile(folder, tmp_path / "out", rule=SplitRule(val=None)))
    data = bytearray((folder / "a.mp4").read_bytes())
    write_video(folder / "a.mp4", scenes("another", 30))
    assert bytes(data) != (folder / "a.mp4").read_bytes()
    with pytest.raises(SourceError, match=r"changed since the census|cannot be decoded"):
        execute(prepared)


def test_options_of_robot_data_are_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", scenes("a", 4))
    with pytest.raises(ConfigError, match="--camera: videos have none to choose from"):
        open_source(SourceConfig(url=str(tmp_path), kind="videos", cameras=("front",)))
    with pytest.raises(ConfigError, match="--instruction: expected one of title, chapter"):
        open_source(SourceConfig(url=str(tmp_path), kind="videos", instruction=("text",)))


def test_a_plain_folder_of_videos_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    assert recognise(str(tmp_path)) == ("rlds", str(tmp_path))
    (tmp_path / "deep" / "a.MP4").write_bytes(b"")
    assert recognise(str(tmp_path)) == ("videos", str(tmp_path))
    assert recognise("videos:s3://bucket/x") == ("videos", "s3://bucket/x")
    with pytest.raises(SourceError, match="holds no video"):
        open_source(
            SourceConfig(
                url=str(shutil.copytree(tmp_path, tmp_path / "none", ignore=lambda *_: ["deep"])),
                kind="videos",
            )
        )


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data is not here")
def test_real_clips_are_compiled_and_the_damaged_one_is_listed(tmp_path: Path) -> None:
    manifest = compile_videos(REAL, tmp_path / "out", rule=SplitRule(val=None))
    assert {one["name"] for one in manifest.environments} == {
        "UCdiner000000000000000001",
        "UCkitchen0000000000000001",
        None,
    }
    listed = {row["source_file"]: row["reason"] for row in rows_of(tmp_path / "out", "rejected.parquet")}
    assert listed["Broken upload [broken00001].mp4"].startswith("cannot be decoded at 2.700 s")
    owners = {row["video"]: row["licence"] for row in rows_of(tmp_path / "out", ATTRIBUTION)}
    assert owners == {"armwrestle1": "unknown", "hoops000001": "unknown", "pancake0001": CC_BY}
    assert verify(Dataset.open(str(tmp_path / "out"))) == []
