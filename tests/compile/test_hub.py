"""A compile from the Hub leaves the bytes of one from a directory, whatever happens to the repository."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lerobot_writer import IMAGES, VIDEOS, RobotTake, write_lerobot

from hub_server import HubServer
from oxcart.compile import transcode
from oxcart.compile.pipeline import execute, prepare
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.sources.kinds import recognise
from oxcart.compile.transcode import TranscodeConfig
from oxcart.manifests.annotation import beside
from oxcart.manifests.ownership import DATASET, owners
from sample_compile import Compiled, cli, compiled, complaint, config_of, tree

URL = "hf://datasets/me/data"


def files_of(directory: Path) -> dict[str, bytes]:
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def hosted(server: HubServer, directory: Path, folder: str = "") -> str:
    """The URL of the files of a directory on the Hub, in a folder there."""
    repository = server.repository("me/data")
    files = {f"{folder}{name}": data for name, data in files_of(directory).items()}
    repository.commit({**repository.files, "README.md": b"# data", **files})
    return f"{URL}/{folder}".rstrip("/")


@pytest.mark.parametrize("folder", ["", "1.0.0/"])
def test_rlds(hub_server: HubServer, whole: Compiled, tmp_path: Path, folder: str) -> None:
    url = hosted(hub_server, whole.source, folder)
    compiled(whole.source, tmp_path / "out", source=SourceConfig(url=url))
    assert tree(tmp_path / "out") == whole.tree


@pytest.mark.parametrize("cameras", [IMAGES, VIDEOS], ids=["images", "videos"])
def test_lerobot(hub_server: HubServer, tmp_path: Path, cameras: dict[str, str]) -> None:
    takes = [RobotTake(steps=5), RobotTake(steps=4), RobotTake(steps=6)]
    source = write_lerobot(tmp_path / "data", takes, cameras=cameras)
    url = hosted(hub_server, source)
    for place, out in ((source, "local"), (url, "remote")):
        result = cli("compile", place, tmp_path / out, "--val", "none", "--workers", 1, "--quiet")
        assert result.exit_code == 0, result.output
    assert tree(tmp_path / "remote") == tree(tmp_path / "local")


def test_a_repository_that_changes_meanwhile_does_not_mix(
    hub_server: HubServer, whole: Compiled, six_episodes: Compiled, tmp_path: Path
) -> None:
    repository = hub_server.repository("me/data")
    first = repository.commit(files_of(whole.source))
    assert recognise(URL) == ("rlds", f"{URL}@{first}")
    config = replace(config_of(whole.source, tmp_path / "out"), source=SourceConfig(url=URL))
    prepared = prepare(config)
    assert prepared.config.source.url == f"{URL}@{first}"  # for all processes that execute it
    repository.commit(files_of(six_episodes.source))
    execute(prepared)
    assert tree(tmp_path / "out") == whole.tree


def test_transcode(hub_server: HubServer, whole: Compiled, tmp_path: Path) -> None:
    url = hosted(hub_server, whole.out)
    for place, out in ((str(whole.out), "local"), (url, "remote")):
        prepared = transcode.prepare(
            TranscodeConfig(dataset=place, out=str(tmp_path / out), codec="zstd", workers=1)
        )
        transcode.execute(prepared)
    assert prepared.config.source.url.startswith(f"{URL}@")
    assert tree(tmp_path / "remote") == tree(tmp_path / "local")


def test_a_dataset_on_the_hub_is_read_by_command(
    hub_server: HubServer, whole: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = hosted(hub_server, whole.out)
    assert cli("inspect", url).stdout == cli("inspect", whole.out).stdout
    assert "intact" in cli("verify", url).stdout
    strips = []
    for place in (url, whole.out):
        assert cli("show", place, "-o", tmp_path / "strip.png", "--overwrite").exit_code == 0
        strips.append((tmp_path / "strip.png").read_bytes())
    assert strips[0] == strips[1]
    monkeypatch.chdir(tmp_path)
    assert cli("annotate", "action", url, "--quiet").exit_code == 0
    assert (tmp_path / beside(url, "action")).name == "data.action.parquet"
    assert (tmp_path / "data.action.parquet").is_file()


def test_nothing_is_compiled_to_the_hub(hub_server: HubServer, whole: Compiled) -> None:
    hosted(hub_server, whole.out)
    said = complaint(cli("compile", whole.source, URL, "--val", "none"))
    assert said.endswith("the Hub is for reading; expected a directory or a bucket, and then oxcart push")


def test_owners_are_sought_up_to_the_repository(hub_server: HubServer, whole: Compiled) -> None:
    hosted(hub_server, whole.out)
    found = [(owner.kind, owner.inside) for owner in owners(f"{URL}/reports/a.html")]
    assert found == [(DATASET, "reports/a.html")]
