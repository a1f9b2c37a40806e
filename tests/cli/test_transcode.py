"""`oxcart transcode` and `--codec`: options become settings, and slips are refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oxcart.manifests.dataset import Dataset
from sample_compile import Compiled, cli, complaint, tree


def test_there_and_back_by_command(whole: Compiled, tmp_path: Path) -> None:
    result = cli("transcode", whole.out, tmp_path / "zstd", "--codec", "zstd", "--shard-size", "40kB")
    assert result.exit_code == 0, result.output
    manifest = Dataset.open(str(tmp_path / "zstd")).manifest
    assert f"{manifest.counts['compiled']} episodes" in result.stdout
    assert result.stdout.endswith(f"fingerprint {manifest.fingerprint}\n")
    assert "transcoding: " in result.stderr
    back = cli(
        "transcode", tmp_path / "zstd", tmp_path / "raw", "--codec", "raw", "--shard-size", "40kB", "--quiet"
    )
    assert (back.exit_code, back.output) == (0, "")
    assert tree(tmp_path / "raw") == whole.tree


def test_without_a_codec_only_the_size_changes(whole: Compiled, tmp_path: Path) -> None:
    assert cli("transcode", whole.out, tmp_path / "out", "--size", "16x24", "--fit", "crop").exit_code == 0
    manifest = Dataset.open(str(tmp_path / "out")).manifest
    assert manifest.cameras[0]["codec"] == "raw"
    assert (manifest.pixels["size"], manifest.pixels["fit"]) == ([16, 24], "crop")


def test_compile_takes_a_codec_and_inspect_and_verify_know_it(whole: Compiled, tmp_path: Path) -> None:
    options = ("--codec", "jpeg", "--jpeg-quality", 80, "--camera", "wrist", "--val-fraction", 0.2)
    assert cli("compile", whole.source, tmp_path / "out", *options).exit_code == 0
    (camera,) = json.loads(cli("inspect", tmp_path / "out", "--json").stdout)["cameras"]
    assert (camera["codec"], camera["quality"], camera["chunk"]) == ("jpeg", 80, 1)
    assert "  jpeg  " in cli("inspect", tmp_path / "out").stdout
    assert "intact" in cli("verify", "--decode", tmp_path / "out").stdout
    assert cli("show", tmp_path / "out", "-o", tmp_path / "strip.png").exit_code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jpeg-quality", "80"], "--jpeg-quality: expected with --codec jpeg, got alone"),
        (
            ["--codec", "zstd", "--jpeg-quality", "80"],
            "--jpeg-quality: expected with --codec jpeg, got --codec zstd",
        ),
        (["--size", "0"], "size: expected 1 to 8192 pixels per side, got 0x0"),
        (["--shard-size", "many"], "--shard-size: expected bytes like 256MiB or 1GB, got 'many'"),
    ],
)
def test_an_impossible_option_is_refused(
    whole: Compiled, tmp_path: Path, options: list[str], message: str
) -> None:
    assert complaint(cli("transcode", whole.out, tmp_path / "out", *options)).startswith(message)
    assert not (tmp_path / "out").exists()


def test_help_says_that_damage_is_not_rejected() -> None:
    said = " ".join(cli("transcode", "--help").stdout.split())
    assert "Bytes that do not match their digest always fail." in said


def test_what_is_no_dataset_or_the_same_one_is_refused(whole: Compiled, tmp_path: Path) -> None:
    said = complaint(cli("transcode", tmp_path, tmp_path / "out"))
    assert said.startswith(f"{tmp_path}: no manifest.json, so not a compiled dataset")
    said = complaint(cli("transcode", whole.out, whole.out, "--overwrite"))
    assert said == f"{whole.out}: is the dataset itself; choose another directory"
    assert tree(whole.out) == whole.tree
