"""Which kind of source a place is, and that the videos of a LeRobot dataset are no source of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.sources.kinds import recognise
from oxcart.manifests.ownership import LEROBOT, SOURCE, owners
from oxcart.shards.errors import ConfigError
from sample_compile import one_line, uploaded

LAYOUTS = {
    "v3": ("meta/info.json", "videos/observation.images.top/chunk-000/file-000.mp4"),
    "v2": ("meta/info.json", "videos/chunk-000/observation.images.top/episode_000000.mp4"),
    "v1": ("meta_data/info.json", "videos/observation.images.top_episode_000000.mp4"),
    "images": ("meta/info.json", "data/chunk-000/file-000.parquet"),
}
"""Version of LeRobot's format -> files of a dataset that tell it."""


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        lerobot = name in LEROBOT and root.name == "set"
        (root / name).write_bytes(b'{"codebase_version": "v2.1", "fps": 10}' if lerobot else b"")
    return root


def refusal(source: str) -> str:
    """What is said of a place that holds a LeRobot dataset, or lies in one."""
    kind, url = recognise(source)
    with pytest.raises(ConfigError) as caught:
        open_source(SourceConfig(url=url, kind=kind))
    said = one_line(caught.value)
    assert said.endswith(" itself")
    assert said.startswith(f"{url}: expected an RLDS dataset or a folder of videos, got a LeRobot dataset (")
    return said


@pytest.mark.parametrize("prefix", ["", "videos:"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lerobot_dataset_is_a_source_and_a_folder_of_them_is_not(
    layout: str, prefix: str, tmp_path: Path
) -> None:
    root = write(tmp_path / "all" / "of" / "set", *LAYOUTS[layout])
    assert recognise(str(root)) == ("lerobot", str(root))
    assert f"{root}/{LAYOUTS[layout][0]}" in refusal(f"videos:{root}")
    write(tmp_path / "all", "a [id000000001].mp4")
    assert f"all/of/set/{LAYOUTS[layout][0]}" in refusal(f"{prefix}{tmp_path / 'all'}")


@pytest.mark.parametrize("layout", ["v3", "v2", "v1"])
def test_the_videos_of_a_lerobot_dataset_are_refused_without_the_rest(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, video = LAYOUTS[layout]
    root = write(tmp_path / "set", file, video)
    for folder in (root / "videos", (root / video).parent):
        assert f"{root}/{file}" in refusal(str(folder))
    (tmp_path / "link").symlink_to((root / video).parent)
    assert f"{root}/{file}" in refusal(str(tmp_path / "link"))
    monkeypatch.chdir((root / video).parent)
    assert f"{root}/{file}" in refusal(".")


def test_a_lerobot_dataset_of_linked_folders_is_recognised(tmp_path: Path) -> None:
    root = write(tmp_path / "set", *LAYOUTS["v3"])
    os.rename(root / "meta", tmp_path / "elsewhere")
    (root / "meta").symlink_to(tmp_path / "elsewhere")
    assert recognise(str(root)) == ("lerobot", str(root))
    assert "set/meta/info.json" in refusal(f"videos:{root}")


def test_a_lerobot_dataset_in_a_bucket_is_recognised(remote: str, tmp_path: Path) -> None:
    url = uploaded(write(tmp_path / "set", *LAYOUTS["v3"]), remote)
    assert recognise(url) == ("lerobot", url)
    for place in (url, f"{url}/videos"):
        assert f"{url}/{LEROBOT[0]}" in refusal(f"videos:{place}")


@pytest.mark.parametrize("other", [b"", b"{}", b'{"fps": 10}', b'["codebase_version"]', b"[" * 100_000])
def test_a_folder_of_videos_beside_other_metadata_is_read(other: bytes, tmp_path: Path) -> None:
    root = write(tmp_path / "project", "meta/info.json", "videos/a.mp4", "videos/meta/info.json")
    for file in root.rglob("meta/info.json"):
        file.write_bytes(other)
    for place, found in ((root, ["videos/a.mp4"]), (root / "videos", ["a.mp4"])):
        kind, url = recognise(str(place))
        assert open_source(SourceConfig(url=url, kind=kind)).files() == found
    assert not list(owners(root))
    write(tmp_path / "set", "meta/info.json")
    assert [owner.kind for owner in owners(tmp_path / "set" / "x")] == [SOURCE]


def test_metadata_that_is_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    root = write(tmp_path / "project", "meta/other.json", "videos/a.mp4")
    os.mkfifo(root / "meta/info.json")
    assert recognise(str(root)) == ("videos", str(root))
    assert not list(owners(root))
