"""The audit as a whole: its verdicts, its determinism, and what it says of data that it cannot judge."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from audited import SAMPLE, audited, check, everywhere, status
from oxcart.compile.images import Resize
from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.manifests.audit.audit import Audit, AuditOptions
from oxcart.manifests.audit.report import report_html, report_json
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule
from oxcart.shards.errors import ConfigError, CorruptError
from sample_compile import compile_sample, compiled, edited, rows_of


def test_held_out_kitchens_are_clean(clean_audit: Audit) -> None:
    assert clean_audit.verdict.word == "clean", clean_audit.verdict
    assert clean_audit.exceeding == 0
    assert not [one for one in clean_audit.checks if one.status == "failed"]
    assert len(clean_audit.scores) == 4
    assert len(clean_audit.null) == 20


def test_held_out_episodes_are_a_leak(leaky_audit: Audit) -> None:
    assert leaky_audit.verdict.word == "leak"
    assert leaky_audit.exceeding == len(leaky_audit.scores) == 4
    assert status(leaky_audit, "near") == "failed"


def test_the_mixture_is_one_thing(mixed_audit: Audit) -> None:
    assert mixed_audit.verdict.word == "leak"
    for name in ("environments", "keys", "records", "sessions", "frames", "trajectories", "near"):
        assert status(mixed_audit, name) == "failed", name
    assert len(mixed_audit.datasets) == 2
    assert {row["held_dataset"] != row["train_dataset"] for row in mixed_audit.duplicates} == {True}


def test_the_same_seed_gives_the_same_report(clean: Path, clean_audit: Audit) -> None:
    again = audited(clean, workers=1)
    plain, other = clean_audit.plain(), again.plain()
    assert plain["options"].pop("workers") != other["options"].pop("workers")
    assert plain == other
    assert [one.found for one in again.recall] == [one.found for one in clean_audit.recall]
    assert [one.weakest for one in again.recall] == [one.weakest for one in clean_audit.recall]
    assert again.images == clean_audit.images


def test_every_check_is_there_whatever_it_came_to(clean_audit: Audit) -> None:
    names = [one.name for one in clean_audit.checks]
    assert len(names) == len(set(names))
    assert set(names) >= {
        *("shards", "statistics", "environments", "keys", "records", "files", "sessions", "instructions"),
        *("videos", "frames", "trajectories", "near", "places", "copy-ahead", "recall"),
    }


def test_without_val_it_says_so(whole_audit: Audit) -> None:
    assert whole_audit.verdict.word == "not checked"
    assert whole_audit.verdict.because[0].startswith("nothing is held out")
    assert b"Not checked" in report_html(whole_audit)


@pytest.mark.parametrize(
    ("sample", "rule", "reason"),
    [
        (
            RldsSampleConfig(kitchens=1, sessions=2, episodes=3, steps=4, size=32, files=2),
            SplitRule(by="episode", val=0.4),
            "train has one environment",
        ),
        (
            RldsSampleConfig(kitchens=1, sessions=1, episodes=2, steps=4, size=32, files=1),
            SplitRule(val=None),
            "nothing is held out",
        ),
        (
            RldsSampleConfig(kitchens=3, sessions=1, episodes=1, steps=4, size=32, files=1),
            SplitRule(val=0.4),
            "too few",
        ),
    ],
    ids=["one environment", "two episodes", "three episodes"],
)
def test_too_little_to_judge_is_not_checked(
    tmp_path: Path, sample: RldsSampleConfig, rule: SplitRule, reason: str
) -> None:
    found = audited(compile_sample(tmp_path, sample, rule=rule).out)
    assert found.verdict.word == "not checked"
    assert reason in found.verdict.because[0]
    json.loads(report_json(found))
    report_html(found)


def test_black_frames_are_no_duplicates(kitchens: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (SAMPLE.size, SAMPLE.size)).save(buffer, "JPEG")

    def blacken(feature: Any) -> None:
        images = feature["steps/observation/image_0"].bytes_list.value
        images[:] = [buffer.getvalue()] * len(images)

    source = edited(kitchens, tmp_path / "source", blacken, *everywhere(kitchens))
    compiled(source, tmp_path / "out", rule=SplitRule(val=0.2))
    found = audited(tmp_path / "out")
    assert status(found, "frames") == "passed"
    assert "constant frame" in check(found, "frames").summary
    assert found.verdict.word == "not checked"
    assert "black" in found.verdict.because[0]


@pytest.mark.system
def test_datasets_of_other_sizes_and_cameras(clean: Path, kitchens: Path, tmp_path: Path) -> None:
    from oxcart.compile.sources.base import SourceConfig

    wrist = SourceConfig(url=str(kitchens), cameras=("wrist", "image_0"))
    compiled(kitchens, tmp_path / "wrist", source=wrist, rule=SplitRule(val=0.2))
    compiled(kitchens, tmp_path / "wide", rule=SplitRule(val=0.2), resize=Resize(size=(40, 64)))
    found = audited(clean, tmp_path / "wrist", tmp_path / "wide")
    assert found.verdict.word == "clean", found.verdict
    assert status(found, "cameras") == "not checked"


def test_a_copy_in_another_size_and_codec_is_found(kitchens: Path, clean: Path, tmp_path: Path) -> None:
    from oxcart.shards.codec import Encoding

    rule = SplitRule(val=0.2, salt="another")
    settings = {"resize": Resize(size=(40, 40)), "encoding": Encoding(codec="jpeg", quality=60)}
    compiled(kitchens, tmp_path / "out", rule=rule, **settings)
    found = audited(clean, tmp_path / "out")
    assert status(found, "frames") == "passed"
    assert status(found, "near") == "failed"
    assert found.verdict.word == "leak"


def test_a_damaged_shard_is_an_error_that_names_it(clean: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(clean, tmp_path / "copy"))
    row = next(row for row in rows_of(root) if row["split"] == "val")
    shard = root / f"shards/{row['shard']}.tar"
    data = bytearray(shard.read_bytes())
    data[row["image_0.offset"]] ^= 1
    shard.write_bytes(data)
    with pytest.raises(
        CorruptError, match=rf"{row['shard']}: {row['key']}, camera image_0, chunk 0 does not match"
    ):
        audited(root)


def test_damage_that_is_not_read_makes_it_unclear(clean: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(clean, tmp_path / "copy"))
    shard = sorted((root / "shards").glob("*.tar"))[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    found = audited(root)
    assert status(found, "shards") == "failed"
    assert found.verdict.word == "not checked"


def test_a_sample_is_bounded_and_says_so(clean: Path, sampled_audit: Audit) -> None:
    found = sampled_audit
    assert {(row["split"], row["looked"]) for row in found.looked} == {("train", 3), ("val", 3)}
    assert status(found, "statistics") == "not checked"
    assert status(found, "shards") == "not checked"
    assert b"This is a sample" in report_html(found)
    share = 3 / Dataset.open(str(clean)).manifest.splits["train"]["episodes"]
    recall = next(check for check in found.checks if check.name == "recall")
    assert recall.status == "not checked" or f"no copy is found in the {1 - share:.0%}" in recall.summary
    assert audited(clean, sample=3).plain() == found.plain()
    assert len(audited(clean, sample=3, seed=1).scores) == 3


def test_val_seen_is_checked_for_duplicates_and_sessions_alone(kitchens: Path, tmp_path: Path) -> None:
    compiled(kitchens, tmp_path / "out", rule=SplitRule(val=0.2, val_seen=0.1))
    found = audited(tmp_path / "out")
    assert Dataset.open(str(tmp_path / "out")).manifest.splits["val_seen"]["episodes"]
    assert found.verdict.word == "clean", found.verdict
    assert status(found, "val_seen") == "not checked"
    assert status(found, "sessions") == "passed"
    assert {row["split"] for row in found.scores} == {"val"}


def test_val_and_test_are_both_compared_with_train(kitchens: Path, tmp_path: Path) -> None:
    compiled(kitchens, tmp_path / "out", rule=SplitRule(by="episode", val=0.1, test=0.1))
    found = audited(tmp_path / "out")
    assert {row["split"] for row in found.scores} == {"val", "test"}
    assert found.exceeding == len(found.scores) == 4
    held = {row["environment"] for row in rows_of(tmp_path / "out") if row["split"] != "train"}
    assert check(found, "environments").summary.startswith(f"{len(held)} environments in train and held out")


def test_options_and_names_that_mean_nothing_are_refused(clean: Path) -> None:
    with pytest.raises(ConfigError, match="is given twice"):
        audited(clean, clean)
    with pytest.raises(ConfigError, match="frames: expected at least 2"):
        AuditOptions(frames=1)
    with pytest.raises(ConfigError, match="sample: expected at least 1"):
        AuditOptions(sample=0)
