"""How episodes end: their rewards, whether they succeeded, and whether the last step is terminal."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from oxcart.compile import transcode
from oxcart.compile.transcode import TranscodeConfig
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.episode import read_arrays
from oxcart.manifests.verify import verify
from oxcart.shards.names import tar_name
from rlds_builder import Tensor, Text, record, write_dataset
from sample_compile import Compiled, cli, complaint, examples, rows_of, tree
from toy_rlds import FEATURES, changed, episode

OUTCOME = changed(
    FEATURES,
    reward=np.float32,
    is_terminal=np.bool_,
    done=np.float32,
    tokens=Tensor(shape=(3,), dtype=np.float32),
)
"""Features of episodes that say how they end."""


def ending(seed: int, *, reward: Any = 0.0, terminal: bool = True, done: Any = 1.0) -> dict[str, Any]:
    """An episode of three steps, whose rewards are as given on the last step and 0 before."""
    return episode(
        seed,
        reward=lambda t: reward if t == 2 else 0.0,
        is_terminal=lambda t: terminal and t == 2,
        done=lambda t: done if t == 2 else 0.0,
        tokens=[1, 2, 3],
    )


def made(root: Path, out: Path, *options: object) -> list[dict[str, Any]]:
    """The rows of a compile of all episodes as train."""
    result = cli("compile", root, out, "--val", "none", "--quiet", *options)
    assert result.exit_code == 0, result.output
    assert verify(Dataset.open(str(out)), decode=True) == []
    return sorted(rows_of(out), key=lambda row: row["source_record"])


def test_rewards_are_an_array_like_any_other(whole: Compiled, tmp_path: Path) -> None:
    dataset = Dataset.open(str(whole.out))
    assert dataset.manifest.widths["reward"] == 1
    entry = dataset.manifest.reward
    assert entry is not None
    assert entry["source"] == ["steps/reward"]
    assert [(one["name"], one["kind"]) for one in entry["columns"]] == [("reward", "other")]
    assert (entry["statistics"]["min"], entry["statistics"]["max"]) == ([0.0], [1.0])
    for row in rows_of(whole.out):
        shard = whole.out / tar_name(row["shard"])
        example = examples(whole.source / row["source_file"])[row["source_record"]]
        expected = np.array(example.features.feature["steps/reward"].float_list.value, np.float32)[:, None]
        with tarfile.open(shard) as tar:
            names = [one.name.partition(".")[2] for one in tar if one.name.startswith(row["key"])]
            member = tar.extractfile(f"{row['key']}.reward.npy")
            assert member is not None
            np.testing.assert_array_equal(np.load(io.BytesIO(member.read())), expected)
        assert names[:4] == ["json", "action.npy", "state.npy", "reward.npy"]
        data = shard.read_bytes()
        assert row["reward.digest"] == xxh3_64_intdigest(expected.tobytes())
        read = read_arrays(lambda at, n, data=data: data[at : at + n], row, dataset.manifest.widths)
        np.testing.assert_array_equal(read["reward"], expected)
    for codec, source in (("zstd", whole.out), ("raw", tmp_path / "zstd")):
        config = TranscodeConfig(
            dataset=str(source), out=str(tmp_path / codec), codec=codec, shard_size=40_000, workers=1
        )
        transcode.execute(transcode.prepare(config))
    assert tree(tmp_path / "raw") == whole.tree


def test_a_reward_may_be_left_out_or_named(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, OUTCOME, [ending(0), ending(1)])
    rows = made(root, tmp_path / "none", "--reward", "none")
    assert Dataset.open(str(tmp_path / "none")).manifest.reward is None
    assert [row["reward.offset"] for row in rows] == [None, None]
    made(root, tmp_path / "part", "--reward", "tokens[1:2]")
    entry = Dataset.open(str(tmp_path / "part")).manifest.reward
    assert entry is not None
    assert (entry["source"], entry["statistics"]["mean"]) == (["steps/tokens[1:2]"], [2.0])
    said = complaint(cli("compile", root, tmp_path / "out", "--reward", "tokens"))
    assert said.startswith("reward: expected one number per step, got 3; ")


@pytest.mark.parametrize("kind", [Text(), Tensor(shape=(2,), dtype=np.float32)], ids=["text", "two numbers"])
def test_a_usual_reward_that_is_no_number_is_left_out(tmp_path: Path, kind: Any) -> None:
    value = "good" if isinstance(kind, Text) else [1, 2]
    features = changed(FEATURES, reward=kind)
    rows = made(write_dataset(tmp_path, features, [episode(0, reward=value)]), tmp_path / "out")
    assert rows[0]["reward.offset"] is None


def test_an_episode_whose_reward_is_nan_is_rejected(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, OUTCOME, [ending(0), ending(1, reward=float("nan"))])
    made(root, tmp_path / "out", "--on-error", "reject")
    (rejected,) = rows_of(tmp_path / "out", "rejected.parquet")
    assert rejected["reason"] == "reward is NaN or infinite at step 2"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("done", [True, False, None]),
        ("steps/is_last", [True, True, True]),
        ("file_path~kitchen[02]", [True, False, True]),
    ],
)
def test_success_is_a_flag_or_a_text_that_matches(
    tmp_path: Path, rule: str, expected: list[bool | None]
) -> None:
    episodes = [ending(0, done=1.0), ending(1, done=0.0, terminal=False), ending(2, done=float("nan"))]
    rows = made(write_dataset(tmp_path, OUTCOME, episodes), tmp_path / "out", "--success", rule)
    assert [row["success"] for row in rows] == expected
    assert [row["terminal"] for row in rows] == [True, False, True]
    config = TranscodeConfig(dataset=str(tmp_path / "out"), out=str(tmp_path / "again"), workers=1)
    transcode.execute(transcode.prepare(config))
    assert sorted(rows_of(tmp_path / "again"), key=lambda row: row["source_record"]) == rows


def test_what_the_source_does_not_say_is_null(tmp_path: Path) -> None:
    (row,) = made(write_dataset(tmp_path, FEATURES, [episode(0)]), tmp_path / "out")
    assert (row["success"], row["terminal"], row["reward.digest"]) == (None, None, None)


def test_a_record_without_its_terminal_flag_is_compiled(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, OUTCOME, [record(OUTCOME, ending(0), without=["steps/is_terminal"])])
    (row,) = made(root, tmp_path / "out")
    assert row["terminal"] is None


def test_the_rule_of_an_extension_is_that_of_the_dataset(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, OUTCOME, [ending(0), ending(1)])
    options = ("--success", "file_path~kitchen0", "--reward", "done")
    made(root, tmp_path / "out", *options)
    before = tree(tmp_path / "out")
    result = cli("compile", root, tmp_path / "out", "--extend", "--quiet")
    assert result.exit_code == 0, result.output
    assert tree(tmp_path / "out") == before
    said = complaint(cli("compile", root, tmp_path / "out", "--extend", "--success", "done"))
    assert 'success {"field": "episode_metadata/file_path", "pattern": "kitchen0"}, not {' in said


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("doen", "success 'doen': no such feature; "),
        ("tokens", "success 'steps/tokens': expected a flag, the source has "),
        ("file_path", "success 'episode_metadata/file_path': expected a flag, "),
        ("file_path~(", "success pattern '(': not a regular expression: "),
        ("tokens~x", "success 'steps/tokens': expected text or a whole number, "),
    ],
)
def test_a_wrong_rule_is_one_line(tmp_path: Path, rule: str, said: str) -> None:
    root = write_dataset(tmp_path, OUTCOME, [ending(0)])
    assert complaint(cli("compile", root, tmp_path / "out", "--success", rule)).startswith(said)


def test_a_camera_cannot_be_called_like_an_array(tmp_path: Path) -> None:
    call: Callable[..., Any] = changed
    features = call(FEATURES, reward=FEATURES["steps"]["observation"]["image"])
    first = episode(0)
    image = first["steps"][0]["observation"]["image"]
    root = write_dataset(tmp_path, features, [episode(0, reward=image)])
    said = complaint(cli("compile", root, tmp_path / "out", "--camera", "reward"))
    assert said.startswith("camera 'reward': the name is taken")
