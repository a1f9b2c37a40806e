"""What a compile knows of its cameras: their roles, and the order in which their source holds colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxcart.compile import transcode
from oxcart.compile.images import Resize
from oxcart.compile.pipeline import execute, prepare
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.transcode import TranscodeConfig
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import Manifest
from oxcart.manifests.split import SplitRule
from oxcart.manifests.verify import verify
from oxcart.shards.codec import IMAGE_CODECS, Encoding
from oxcart.shards.errors import ConfigError
from oxcart.shards.jpeg import encode_jpeg
from rlds_builder import Image, jpeg, noisy_frame, png, write_dataset
from sample_compile import CAMERAS, Compiled, cli, compiled, complaint, config_of, tree

SIZE = (12, 16)
STEPS = 3
KINDS = ("photo", "drawing", "grey")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of cameras that hold colour JPEGs, colour PNGs and grey JPEGs."""
    images = dict.fromkeys(KINDS, Image(shape=(*SIZE, 3))) | {"grey": Image(shape=(*SIZE, 1))}
    episodes = [
        {
            "steps": [
                {
                    "observation": {
                        "photo": jpeg(noisy_frame(10 * seed + t)),
                        "drawing": png(noisy_frame(20 * seed + t)),
                        "grey": jpeg(noisy_frame(30 * seed + t)[:, :, 0]),
                    }
                }
                for t in range(STEPS)
            ]
        }
        for seed in range(4)
    ]
    return write_dataset(tmp_path_factory.mktemp("source"), {"steps": {"observation": images}}, episodes)


def made(source: Path, out: Path, *bgr: str, **settings: Any) -> tuple[Manifest, list[str]]:
    """The manifest and the warnings of a compile of all cameras."""
    options = SourceConfig(url=str(source), cameras=KINDS, bgr=bgr)
    warnings: list[str] = []
    config = config_of(source, out, source=options, rule=SplitRule(by="episode", val=0.2), **settings)
    return execute(prepare(config), warn=warnings.append), warnings


def frames_of(out: Path, camera: str) -> Any:
    """Every frame of a camera, by key."""
    dataset = Dataset.open(str(out))
    return {episode.key: episode.frames(camera)[:] for episode in dataset}


def swapped(frames: Any) -> Any:
    return frames[..., ::-1]


@pytest.mark.parametrize("codec", ["raw", "zstd"])
@pytest.mark.parametrize("size", [None, (8, 10)])
def test_frames_of_a_camera_that_holds_bgr_are_rgb(
    source: Path, tmp_path: Path, codec: str, size: tuple[int, int] | None
) -> None:
    settings = {"encoding": Encoding(codec=codec), "resize": Resize(size=size)}
    made(source, tmp_path / "rgb", **settings)
    manifest, warnings = made(source, tmp_path / "bgr", *KINDS, **settings)
    assert [camera["channels"] for camera in manifest.cameras] == ["bgr"] * 3
    assert warnings == []
    for camera in KINDS:
        rgb, bgr = frames_of(tmp_path / "rgb", camera), frames_of(tmp_path / "bgr", camera)
        for key, frames in bgr.items():
            np.testing.assert_array_equal(frames, swapped(rgb[key]))
            assert np.array_equal(frames, rgb[key]) == (camera == "grey")
    assert verify(Dataset.open(str(tmp_path / "bgr")), decode=True) == []


def test_jpegs_that_hold_bgr_are_encoded_again_and_grey_ones_pass_through(
    source: Path, tmp_path: Path
) -> None:
    made(source, tmp_path / "rgb", encoding=Encoding(codec="jpeg", quality=90))
    _, warnings = made(source, tmp_path / "bgr", *KINDS, encoding=Encoding(codec="jpeg", quality=90))
    assert warnings == [
        "12 frames are JPEG in the source, but hold BGR, and were encoded again as RGB, at quality 90"
    ]
    plain, found = Dataset.open(str(tmp_path / "rgb")), Dataset.open(str(tmp_path / "bgr"))
    for episode in found:
        before = plain[episode.key]
        sources = before.frames("photo")
        for t, piece in enumerate(episode.frames("photo").pieces(0, STEPS)):
            assert bytes(piece) == encode_jpeg(swapped(sources[t]), 90)
        same = [one.frames("grey").track.digests.tolist() for one in (before, episode)]
        assert same[0] == same[1]


@pytest.mark.parametrize("codec", IMAGE_CODECS)
def test_a_transcode_does_not_swap_again(source: Path, tmp_path: Path, codec: str) -> None:
    made(source, tmp_path / "one", *KINDS, encoding=Encoding(codec="jpeg"))
    warnings: list[str] = []
    config = TranscodeConfig(
        dataset=str(tmp_path / "one"), out=str(tmp_path / "two"), codec=codec, workers=1, shard_size=40_000
    )
    manifest = transcode.execute(transcode.prepare(config), warn=warnings.append)
    assert [camera["channels"] for camera in manifest.cameras] == ["bgr"] * 3
    assert warnings == []
    for camera in KINDS:
        for key, frames in frames_of(tmp_path / "one", camera).items():
            np.testing.assert_array_equal(frames_of(tmp_path / "two", camera)[key], frames)


def test_the_first_camera_is_primary_unless_another_is_said_to_be(source: Path) -> None:
    def roles(**options: Any) -> list[str | None]:
        config = SourceConfig(url=str(source), cameras=KINDS, **options)
        return [camera.role for camera in open_source(config).cameras]

    assert roles() == ["primary", None, None]
    assert roles(roles={"drawing": "primary"}) == [None, "primary", None]
    assert roles(roles={"photo": "wrist"}) == ["wrist", "primary", None]
    assert roles(roles={"steps/observation/grey": "wrist"}) == ["primary", None, "wrist"]
    with pytest.raises(ConfigError, match=r"^camera role: expected one of .*; did you mean wrist\?$"):
        roles(roles={"photo": "wirst"})
    with pytest.raises(ConfigError, match=r"^--camera: expected a role of its own for each camera"):
        roles(roles={"photo": "wrist", "grey": "wrist"})
    with pytest.raises(ConfigError, match=r"^--bgr gray: expected a camera that is compiled: .*mean grey\?$"):
        roles(bgr=("gray",))


def test_a_camera_is_found_by_its_name_and_then_by_its_role(whole: Compiled, tmp_path: Path) -> None:
    order = ("wrist", "image_0")
    manifest = compiled(
        whole.source, tmp_path / "out", source=SourceConfig(url=str(whole.source), cameras=order)
    )
    assert [camera["role"] for camera in manifest.cameras] == ["wrist", "primary"]  # as the catalog says
    assert manifest.camera("primary")["name"] == "image_0"
    alone = SourceConfig(url=str(whole.source), cameras=("wrist",))
    assert compiled(whole.source, tmp_path / "one", source=alone).camera("primary")["name"] == "wrist"
    given = SourceConfig(url=str(whole.source), cameras=CAMERAS, roles={"image_0": "wrist"})
    manifest = compiled(whole.source, tmp_path / "two", source=given)
    assert [camera["role"] for camera in manifest.cameras] == ["wrist", "primary"]
    assert manifest.camera("wrist")["name"] == "wrist"  # the name comes first


@pytest.mark.system
def test_roles_channels_and_licence_are_options_that_an_extension_keeps(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--camera", "grey=wrist", "--camera", "photo", "--bgr", "photo", "--licence", "cc-by-4.0")
    assert cli("compile", source, out, *options, "--split-by", "episode").exit_code == 0
    before = Dataset.open(str(out)).manifest
    assert [(one["name"], one["role"], one["channels"]) for one in before.cameras] == [
        ("grey", "wrist", "rgb"),
        ("photo", "primary", "bgr"),
    ]
    assert before.dataset["licence"] == "CC-BY-4.0"
    files = tree(out)
    result = cli("compile", source, out, "--extend")
    assert result.exit_code == 0, result.output
    assert tree(out) == files
    wrong = complaint(cli("compile", source, out, "--extend", "--bgr", "none"))
    assert 'channels {"grey": "rgb", "photo": "bgr"}, not {"grey": "rgb", "photo": "rgb"}' in wrong


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--camera", "photo=wirst"), "--camera photo=wirst: expected one of primary, secondary, wrist; "),
        (
            ("--licence", "cc by 4"),
            "licence: expected an SPDX licence expression such as CC-BY-4.0, or a URL",
        ),
        (("--licence", "MIT", "--licence", "0BSD"), "--licence: expected the one of the dataset, got 2"),
    ],
)
def test_a_wrong_option_is_one_line(
    source: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    assert complaint(cli("compile", source, tmp_path / "out", *options)).startswith(said)
