"""The commands on videos: sample, scan, compile, fetch-videos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oxcart.compile.sample.videos import VideoSampleConfig, write_video, write_videos
from sample_compile import cli, complaint, rows_of
from servers import Server
from video_sources import scenes


@pytest.fixture(scope="module")
def vids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = VideoSampleConfig(channels=2, videos=1, shots=1, seconds=1.2, height=32)
    return write_videos(tmp_path_factory.mktemp("cli") / "vids", config)


def test_the_sample_is_written_and_says_what_to_type_next(tmp_path: Path) -> None:
    small = ("--channels", 2, "--videos", 1, "--shots", 1, "--seconds", 0.5, "--height", 32)
    run = cli("sample", "videos", tmp_path / "vids", *small, "--quiet")
    assert run.exit_code == 0, run.output
    assert run.stdout.splitlines() == [
        f"wrote 6 videos to {tmp_path / 'vids'}",
        f"next: oxcart compile videos:{tmp_path / 'vids'} OUT --val-fraction 0.2",
    ]


def test_videos_are_compiled_cropped_and_what_is_wrong_is_listed(vids: Path, tmp_path: Path) -> None:
    run = cli("compile", f"videos:{vids}", tmp_path / "out", "--val", "none", "--size", 24, "--workers", 1)
    assert run.exit_code == 0, run.output
    assert {"A slide [slide000000].mp4", "Broken [broken00000].mp4"} == {
        row["source_file"] for row in rows_of(tmp_path / "out", "rejected.parquet")
    }
    manifest = json.loads(cli("inspect", tmp_path / "out", "--json").stdout)
    assert (manifest["pixels"]["size"], manifest["pixels"]["fit"]) == ([24, 24], "crop")
    assert manifest["dataset"] == {
        "name": "vids",
        "version": "1",
        "kind": "videos",
        "licence": None,
        "citation": None,
    }
    again = cli("compile", vids, tmp_path / "out", "--val", "none", "--size", 24, "--workers", 1)
    assert again.exit_code == 0, again.output


def test_on_error_fail_minds_what_is_broken_and_not_what_is_left_out(vids: Path, tmp_path: Path) -> None:
    run = cli("compile", vids, tmp_path / "out", "--val", "none", "--on-error", "fail", "--quiet")
    assert complaint(run).startswith("Broken [broken00000].mp4, record 0, byte 0: cannot be decoded at ")
    listed = tmp_path / "ids.txt"
    listed.write_text("# taken down\nbroken00000\n")
    options = ("--val", "none", "--on-error", "fail", "--exclude-ids", listed, "--quiet")
    for _ in range(2):
        run = cli("compile", vids, tmp_path / "out", *options)
        assert run.exit_code == 0, run.output
    reasons = [row["reason"] for row in rows_of(tmp_path / "out", "rejected.parquet")]
    assert len(reasons) == 2
    assert all(reason.startswith("left out: ") for reason in reasons)


def test_scan_lists_channels_and_its_census_is_used(vids: Path, tmp_path: Path) -> None:
    census = tmp_path / "census.parquet"
    run = cli("scan", vids, "--parquet", census, "--rate", 5, "--json", "--quiet")
    found = json.loads(run.stdout)
    assert {one["name"] for one in found["environments"]} == {
        f"UC{name}".ljust(24, "0") for name in ("kitchen", "workshop")
    }
    run = cli("compile", vids, tmp_path / "out", "--census", census, "--val", "none", "--quiet")
    assert "census: taken with control_rate" in complaint(run)
    run = cli("compile", vids, tmp_path / "out", "--census", census, "--val", "none", "--rate", 5, "--quiet")
    assert run.exit_code == 0, run.output


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--rate", "fast"), "--rate: expected steps per second like 10 or 30000/1001, got 'fast'"),
        (("--rate", "0"), "rate: expected 0 < rate <= 1000 steps per second, got 0"),
        (("--clip-seconds", "5"), "--clip-seconds: expected two numbers like 1:10, got '5'"),
        (("--clip-seconds", "9:3"), "clip length: expected 0 < shortest <= longest, got 9:3 seconds"),
        (("--where", "label"), "--where: expected COLUMN=VALUE, got 'label'"),
        (
            ("--instruction", "text"),
            "--instruction: expected one of title, chapter for videos, or none; got text",
        ),
        (("--still", "-1"), "still: expected at least 0, got -1.0"),
    ],
)
def test_an_option_that_is_wrong_is_one_line(
    vids: Path, tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    assert complaint(cli("compile", vids, tmp_path / "out", *options)).startswith(why)


def test_options_of_videos_are_refused_where_there_are_none(source: Path, tmp_path: Path) -> None:
    run = cli("compile", source, tmp_path / "out", "--still", "1")
    assert complaint(run) == "--still: expected a source of videos, got one of rlds; leave it out"


def test_fetch_videos_downloads_resumes_and_minds_the_licence(site: Server, tmp_path: Path) -> None:
    write_video(tmp_path / "site" / "clip.mp4", scenes("clip", 30))
    urls = tmp_path / "urls.txt"
    urls.write_text(f"# one\n{site.url}/clip.mp4\n")
    folder = tmp_path / "got"
    run = cli("fetch-videos", urls, folder, "--quiet")
    assert run.exit_code == 0, run.output
    assert "not downloaded, for its licence" in run.stderr
    assert list(folder.glob("*.mp4")) == []
    run = cli("fetch-videos", urls, folder, "--licence", "any")
    assert run.exit_code == 0, run.output
    assert run.stdout == (
        f"{folder}: 1 videos downloaded, 0 addresses done before, 0 refused for their licence, 0 failed\n"
    )
    assert [path.name for path in sorted(folder.glob("clip*"))] == [
        "clip [clip].info.json",
        "clip [clip].mp4",
    ]
    run = cli("fetch-videos", urls, folder, "--licence", "any")
    assert "0 videos downloaded, 1 addresses done before" in run.stdout
    run = cli("compile", f"videos:{folder}", tmp_path / "out", "--val", "none", "--quiet")
    assert run.exit_code == 0, run.output


@pytest.mark.parametrize("name", [".fetched.txt", "clip [clip].mp4.part"])
def test_a_download_does_not_go_on_through_a_link(site: Server, tmp_path: Path, name: str) -> None:
    write_video(tmp_path / "site" / "clip.mp4", scenes("clip", 30))
    urls, folder, target = tmp_path / "urls.txt", tmp_path / "got", tmp_path / "target"
    urls.write_text(f"{site.url}/clip.mp4\n")
    target.write_bytes(b"precious")
    folder.mkdir()
    (folder / name).symlink_to(target)
    run = cli("fetch-videos", urls, folder, "--licence", "any", "--quiet")
    assert complaint(run).startswith(f"{folder}/{name}: is no plain file")
    assert target.read_bytes() == b"precious"


def test_what_cannot_be_fetched_is_one_line(site: Server, tmp_path: Path) -> None:
    urls = tmp_path / "urls.txt"
    urls.write_text(f"{site.url}/none.mp4\n")
    assert "404" in complaint(cli("fetch-videos", urls, tmp_path / "got", "--licence", "any", "--quiet"))
    urls.write_text("file:///etc/passwd\n")
    run = cli("fetch-videos", urls, tmp_path / "got", "--quiet")
    assert "expected addresses that begin with https://" in complaint(run)
    urls.write_text("# nothing\n")
    assert "expected at least one address" in complaint(cli("fetch-videos", urls, tmp_path / "got"))
