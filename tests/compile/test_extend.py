"""What a source has got since goes into new shards; whatever the dataset has stays, byte for byte."""

from __future__ import annotations

import json
import shutil
import uuid
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grown_source import (
    HELD_OUT,
    Before,
    Growth,
    Record,
    assert_extends,
    changed,
    episodes,
    example,
    extended,
    kitchen,
    moved,
    path_of,
    prepared,
    shards,
)
from oxcart.compile import transcode
from oxcart.compile.engines import Part
from oxcart.compile.pipeline import execute_part, finish
from oxcart.compile.sample.videos import CC_BY, write_info, write_video
from oxcart.compile.transcode import TranscodeConfig
from oxcart.compile.workspace import CENSUS
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.diff import diff
from oxcart.manifests.manifest import Manifest, read_manifest
from oxcart.manifests.split import SplitRule
from oxcart.manifests.tables import VALUES
from oxcart.manifests.verify import verify
from oxcart.shards.errors import ConfigError, SourceError
from oxcart.shards.store import WORK, Store
from sample_compile import census_of, cli, compiled, complaint, config_of, lift, rows_of, stamps, tree
from servers import BUCKET, Server
from video_sources import compile_videos, scenes


class TestGrown:
    def test_old_shards_and_rows_stay_and_the_new_ones_are_there(self, before: Before, after: Path) -> None:
        manifest, growth = read_manifest(Store(after)), before.growth
        assert_extends(after, manifest, before, growth.first + growth.later)
        assert manifest.counts == {"source": 24, "compiled": 24, "rejected": 0, "limited": 0}
        assert manifest.dataset["version"] == "1.1.0"
        names = [Path(shard["name"]).stem for shard in manifest.shards]
        assert names == [*(f"train-{i:05d}" for i in range(7)), "val-00000", "val-00001"]

    def test_a_held_out_kitchen_stays_so_and_a_new_one_goes_to_train(
        self, before: Before, after: Path
    ) -> None:
        new = kitchen(before.growth.later[-1])
        split_of = {row["environment"]: row["split"] for row in episodes(after)}
        assert new not in {row["environment"] for row in rows_of(before.out)}
        assert {split_of[HELD_OUT], split_of[new]} == {"val", "train"}
        assert read_manifest(Store(after)).splits["val"]["episodes"] == 4

    def test_it_is_split_as_a_compile_under_the_frozen_rule_is(
        self, before: Before, after: Path, tmp_path: Path
    ) -> None:
        where = {split: set[str]() for split in ("train", "val")}
        for row in rows_of(before.out):
            where[row["split"]].add(row["environment"])
        rule = SplitRule(**{split: tuple(names) for split, names in where.items()})
        anew = compiled(before.grown, tmp_path / "out", rule=rule)
        splits = [
            {row["source_digest"]: row["split"] for row in episodes(out)} for out in (after, tmp_path / "out")
        ]
        assert splits[0] == splits[1]
        self.assert_same_values(read_manifest(Store(after)), anew)

    @staticmethod
    def assert_same_values(extended: Manifest, anew: Manifest) -> None:
        """Counts of values are the same bytes; moments, merged in another order, but for their last bits."""
        digests = [manifest.tables[VALUES]["blake3"] for manifest in (extended, anew)]
        assert digests[0] == digests[1]
        for one, two in zip(extended.arrays.values(), anew.arrays.values(), strict=True):
            assert one is not None
            assert two is not None
            stated, wanted = dict(one["statistics"]), dict(two["statistics"])
            for name in ("mean", "std"):
                np.testing.assert_allclose(stated.pop(name), wanted.pop(name), rtol=1e-9, atol=1e-12)
            assert stated == wanted

    def test_statistics_are_those_of_all_of_train(self, before: Before, after: Path) -> None:
        manifest = read_manifest(Store(after))
        train = [r for r in before.growth.first + before.growth.later if kitchen(r) != HELD_OUT]
        values = np.concatenate(
            [
                np.array(
                    example(r).features.feature["steps/observation/state"].float_list.value, np.float32
                ).reshape(-1, 3)
                for r in train
            ]
        ).astype(np.float64)
        stated = manifest.state["statistics"]  # type: ignore[index]
        assert stated["count"] == len(values) == manifest.splits["train"]["steps"]
        assert stated["min"] == values.min(0).tolist()
        assert stated["max"] == values.max(0).tolist()
        np.testing.assert_allclose(stated["mean"], values.mean(0), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(stated["std"], values.std(0), rtol=1e-12)

    def test_the_loader_reads_every_episode_once(self, before: Before, after: Path) -> None:
        data = pytest.importorskip("oxcart.train.data")
        for split, kitchens in (("train", 5), ("val", 1)):
            sample = data.Frames(per_episode="all")
            loader = data.Loader(str(after), split, sample=sample, batch_size=7, repeat=False)
            seen = Counter(key for batch in loader for key in batch.key)
            rows = [row for row in episodes(after) if row["split"] == split]
            assert seen == Counter({row["key"]: row["steps"] for row in rows})
            assert len(rows) == 4 * kitchens

    def test_inspect_names_the_parent_and_diff_what_came(self, before: Before, after: Path) -> None:
        said = cli("inspect", after).stdout
        manifest = read_manifest(Store(after))
        assert f"fingerprint {manifest.fingerprint}\nextends {before.manifest.fingerprint}\n" in said
        found = diff(str(before.out), str(after))
        assert not found.changed
        assert {change.before for change in found.changes} == {None}
        assert sum(change.what == "episode" for change in found.changes) == len(before.growth.later)
        settings = {name: value for name, _, value in found.configuration}
        assert settings.keys() == {"config.parents", "config.source.version"}

    def test_audit_finds_the_splits_apart(self, after: Path, tmp_path: Path) -> None:
        result = cli("audit", after, "--json", tmp_path / "audit.json", "--quiet")
        assert result.exit_code in (0, 2), result.output  # 2: too few episodes to tell
        checks = {
            one["name"]: one["status"] for one in json.loads((tmp_path / "audit.json").read_text())["checks"]
        }
        assert "failed" not in checks.values()

    def test_a_repair_without_a_pair_lists_what_is_where(self, after: Path, tmp_path: Path) -> None:
        cli("audit", after, "--json", tmp_path / "audit.json", "--quiet")
        result = cli("repair-split", after, "--report", tmp_path / "audit.json", "-o", tmp_path / "rule.yaml")
        assert result.exit_code == 0, result.output
        assert f"val:\n  - {HELD_OUT}\n" in (tmp_path / "rule.yaml").read_text()

    def test_a_transcode_has_the_same_episodes(self, after: Path, tmp_path: Path) -> None:
        config = TranscodeConfig(dataset=str(after), out=str(tmp_path / "out"), codec="zstd", workers=1)
        transcode.execute(transcode.prepare(config))
        assert verify(Dataset.open(str(tmp_path / "out")), decode=True) == []
        rows = [{row["key"]: row["split"] for row in episodes(out)} for out in (after, tmp_path / "out")]
        assert rows[0] == rows[1]
        self.assert_same_values(read_manifest(Store(after)), read_manifest(Store(tmp_path / "out")))


def test_a_rebuilt_source_may_move_its_records(before: Before, tmp_path: Path) -> None:
    growth, out = before.growth, before.copy(tmp_path)
    records = [*growth.later, *growth.first[::-1]]
    source = growth.write(tmp_path / "rebuilt", records, files=1)
    assert_extends(out, extended(source, out), before, records)
    keys = [row["key"] for row in episodes(out)]
    taken = {row["key"] for row in rows_of(before.out)}
    assert len(set(keys)) == len(keys)
    again = [key for key in keys if key.endswith("-2")]
    assert again
    assert {key.removesuffix("-2") for key in again} <= taken


def test_what_has_left_the_source_stays(before: Before, tmp_path: Path) -> None:
    growth, out = before.growth, before.copy(tmp_path)
    trained = [record for record in growth.first if kitchen(record) != HELD_OUT]
    kept = [record for record in growth.first if record not in trained[:2]]
    later = [record for record in growth.later if kitchen(record) != HELD_OUT]
    source = growth.write(tmp_path / "source", kept + later)
    plan = prepared(source, out).plan
    assert plan.extends is not None
    assert (plan.extends.known, plan.extends.gone) == (13, 2)
    manifest = extended(source, out)
    assert_extends(out, manifest, before, growth.first + later)
    assert manifest.counts["source"] == 15 + len(later)


def test_what_is_new_may_not_be_what_has_left_another_split(before: Before, tmp_path: Path) -> None:
    """A record whose metadata were edited is new: the same frames must not get into train from val."""
    growth, out = before.growth, before.copy(tmp_path)
    held = [record for record in growth.first if kitchen(record) == HELD_OUT]
    kept = [record for record in growth.first if record not in held[:1]]
    was = stamps(out)
    with pytest.raises(ConfigError, match="1 episodes of val are no longer in the source as they were"):
        prepared(growth.write(tmp_path / "source", kept + growth.later), out)
    with pytest.raises(
        ConfigError, match="so all would be new; expected the source that it was compiled from"
    ):
        prepared(growth.write(tmp_path / "other", growth.later), out)
    assert stamps(out) == was


def test_what_one_extension_lists_is_not_forgotten_by_the_next(before: Before, tmp_path: Path) -> None:
    out = before.copy(tmp_path)
    with pytest.raises(
        ConfigError, match=r"'attic': neither .* has such an environment; name it once it is there"
    ):
        prepared(before.grown, out, {"val": ("attic",)})


def test_of_records_that_are_equal_the_second_is_new(before: Before, tmp_path: Path) -> None:
    growth, out = before.growth, before.copy(tmp_path)
    records = [growth.first[0], *growth.first]
    assert_extends(out, extended(growth.write(tmp_path / "source", records), out), before, records)


def test_nothing_new_changes_nothing(before: Before, tmp_path: Path) -> None:
    growth, out = before.growth, before.copy(tmp_path)
    source = growth.write(tmp_path / "source", growth.first[:0:-1], files=3)
    was = stamps(out)
    result = cli("compile", source, out, "--extend", "--workers", 1)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: nothing new, 14 known; 1 are no longer in the source and stay\n"
    assert cli("compile", source, out, "--extend", "--part", "1/2").exit_code == 0
    assert stamps(out) == was
    assert tree(out) == tree(before.out)


def extend_twice(before: Before, folder: Path, **how: Any) -> Path:
    """By some records and then by the others."""
    growth, out = before.growth, before.copy(folder)
    for number, count in enumerate((4, 9)):
        source = growth.write(folder / str(number), growth.later[:count] + growth.first, files=2)
        extended(source, out, **how)
    return out


class TestDeterminism:
    """The same bytes for any way in which it is done."""

    @pytest.mark.system
    def test_twice_by_any_number_of_workers(self, before: Before, tmp_path: Path) -> None:
        twice, other = (extend_twice(before, tmp_path / str(n), workers=n) for n in (1, 2))
        assert tree(twice) == tree(other)
        manifest = read_manifest(Store(twice))
        first, second = manifest.config["parents"]
        assert first == before.manifest.fingerprint != second != manifest.fingerprint
        before_twice = replace(before, manifest=replace(before.manifest, fingerprint=second))
        assert_extends(twice, manifest, before_twice, before.growth.first + before.growth.later)
        assert f"extends {second}, which extends {first}\n" in cli("inspect", twice).stdout

    def test_in_parts(self, before: Before, tmp_path: Path) -> None:
        parts, whole = before.copy(tmp_path), tmp_path / "whole"
        shutil.copytree(before.out, whole)
        manifest = extended(before.grown, whole)
        # As a kill at the end of the first compile can leave it.
        Store(parts).put(CENSUS, census_of(before.growth.write(tmp_path, before.growth.first)).to_bytes())
        for number in (2, 0):
            execute_part(prepared(before.grown, parts, part=Part(number, 3)))
        with pytest.raises(ConfigError, match=r"shards are not there yet: train-00005"):
            finish(str(parts))
        assert read_manifest(Store(parts)) == before.manifest
        assert verify(Dataset.open(str(parts))) == []
        execute_part(prepared(before.grown, parts, part=Part(1, 3)))
        assert finish(str(parts)) == manifest
        assert finish(str(parts)) == manifest
        assert tree(parts) == tree(whole)

    @pytest.mark.system
    def test_in_a_bucket(self, before: Before, tmp_path: Path, bucket: Server) -> None:
        local, url = before.copy(tmp_path), f"s3://{BUCKET}/{uuid.uuid4().hex}"
        manifest = extended(before.grown, local)
        for folder, place in ((before.out, f"{url}/out"), (before.grown, f"{url}/source")):
            for name in tree(folder):
                Store(place).put(name, (folder / name).read_bytes())
        assert extended(f"{url}/source", f"{url}/out") == manifest
        store = Store(f"{url}/out")
        assert {*store.list(), *store.list(WORK)} == set(tree(local))
        assert all(store.read(name) == (local / name).read_bytes() for name in tree(local))
        assert verify(Dataset.open(f"{url}/out")) == []


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--size", 16), 'size null, not [16, 16]; fit null, not "stretch"; filter null, not "bilinear"'),
            (("--codec", "zstd"), 'codec "raw", not "zstd"'),
            (("--shard-size", "1MB"), "shard_size 40000, not 1000000"),
            (("--val-fraction", 0.3), "val 0.2, not 0.3"),
            (("--val", "none"), "val 0.2, not null"),
            (("--val-seen", 0.1), "val_seen null, not 0.1"),
            (("--split-by", "instruction"), 'by "environment", not "instruction"'),
            (("--state", "none"), 'state ["steps/observation/state"], not []; state sizes [3], not []'),
            (("--camera", "wrist"), "cameras "),
        ],
        ids=lambda value: value[0] if isinstance(value, tuple) else "",
    )
    def test_another_option_is_named(
        self, before: Before, tmp_path: Path, options: tuple[object, ...], said: str
    ) -> None:
        was = stamps(before.out)
        told = complaint(cli("compile", before.grown, before.out, "--extend", *options))
        assert f"{before.out}: was compiled with {said}" in told
        assert told.endswith("; leave such options out, or compile into another directory")
        assert stamps(before.out) == was

    def test_the_options_of_the_dataset_may_be_repeated(self, before: Before, tmp_path: Path) -> None:
        options = ("--val-fraction", 0.2, "--shard-size", 40_000, "--codec", "raw", "--camera", "image_0")
        result = cli("compile", before.grown, before.copy(tmp_path), "--extend", "--workers", 1, *options)
        assert result.exit_code == 0, result.output
        assert "out: 9 new, 15 known\n" in result.stdout

    def test_a_limit(self, before: Before, growth: Growth, tmp_path: Path) -> None:
        limited = tmp_path / "limited"
        compiled(growth.write(tmp_path / "first", growth.first), limited, limit=4)
        for out, options in ((limited, ()), (before.out, ("--limit", 4))):
            told = complaint(cli("compile", before.grown, out, "--extend", *options))
            assert told.startswith(f"{out}: expected a dataset without --limit")

    def test_what_is_no_dataset(self, before: Before, tmp_path: Path) -> None:
        told = complaint(cli("compile", before.grown, tmp_path / "none", "--extend"))
        assert told.endswith("not a compiled dataset; compile a source into it first")
        assert not (tmp_path / "none").exists()

    def test_a_dataset_that_does_not_say_how_it_was_compiled(self, before: Before, tmp_path: Path) -> None:
        out = before.copy(tmp_path)
        manifest = json.loads((out / "manifest.json").read_text())
        (out / "manifest.json").write_text(
            json.dumps({**manifest, "config": {"limit": None, "source": manifest["config"]["source"]}})
        )
        told = complaint(cli("compile", before.grown, out, "--extend"))
        assert told == f"{out}: its manifest does not say how it was compiled: KeyError('split')"
        manifest["pixels"]["size"] = [16]
        (out / "manifest.json").write_text(json.dumps(manifest))
        told = complaint(cli("compile", before.grown, out, "--extend"))
        assert told.startswith(f"{out}: its manifest does not say how it was compiled: IndexError")

    def test_another_source(self, before: Before, growth: Growth, tmp_path: Path) -> None:
        other = growth.write(tmp_path, growth.first, name="other")
        for path in other.glob("*.tfrecord*"):
            path.rename(path.with_name(path.name.replace("oxcart_kitchens", "other")))
        told = complaint(cli("compile", other, before.out, "--extend"))
        assert 'name "oxcart_kitchens", not "other"' in told

    def test_a_transcode_without_loss_is_none_of_those(self, before: Before, tmp_path: Path) -> None:
        out = tmp_path / "zstd"
        config = TranscodeConfig(dataset=str(before.out), out=str(out), codec="zstd", shard_size=40_000)
        transcode.execute(transcode.prepare(config))
        was = tree(out)
        assert extended(before.grown, out).counts["compiled"] == 24
        assert shards(was).items() <= tree(out).items()
        assert verify(Dataset.open(str(out)), decode=True) == []

    def test_frames_that_were_transcoded(self, before: Before, tmp_path: Path) -> None:
        small = config_of(Path("."), tmp_path / "small").settings.resize
        config = TranscodeConfig(
            dataset=str(before.out),
            out=str(tmp_path / "small"),
            resize=replace(small, size=(16, 16)),
            workers=1,
        )
        transcode.execute(transcode.prepare(config))
        told = complaint(cli("compile", before.grown, tmp_path / "small", "--extend"))
        assert "its frames were transcoded" in told

    def test_a_compile_that_is_not_an_extension_says_how_to_extend(self, before: Before) -> None:
        told = complaint(
            cli("compile", before.grown, before.out, "--val-fraction", 0.2, "--shard-size", 40_000, "--quiet")
        )
        assert told.endswith("or --extend if the source has grown")


class TestSplit:
    def test_a_new_name_may_be_held_out(self, before: Before, tmp_path: Path) -> None:
        out, new = before.copy(tmp_path), kitchen(before.growth.later[-1])
        result = cli("compile", before.grown, out, "--extend", "--val", new, "--workers", 1)
        assert result.exit_code == 0, result.output
        assert {row["split"] for row in episodes(out) if row["environment"] == new} == {"val"}
        assert_extends(out, read_manifest(Store(out)), before, before.growth.first + before.growth.later)

    def test_a_name_that_is_there_may_not(self, before: Before) -> None:
        there = next(row["environment"] for row in rows_of(before.out) if row["split"] == "train")
        told = complaint(cli("compile", before.grown, before.out, "--extend", "--val", there))
        assert told == (
            f"{before.out}: existing episodes keep their split: "
            f"{there!r} is listed in train and in val; list it once"
        )

    def test_a_new_name_goes_where_a_duplicate_ties_it(self, before: Before, tmp_path: Path) -> None:
        growth, out = before.growth, before.copy(tmp_path)
        held = next(record for record in growth.first if kitchen(record) == HELD_OUT)
        copy = moved(held, path_of(held).replace(HELD_OUT, "attic"))
        extended(growth.write(tmp_path / "source", [*growth.first, copy]), out)
        assert [row["split"] for row in episodes(out) if row["environment"] == "attic"] == ["val"]

    def test_a_duplicate_that_ties_two_splits_is_refused(self, before: Before, tmp_path: Path) -> None:
        growth = before.growth
        held = next(record for record in growth.first if kitchen(record) == HELD_OUT)
        train = next(kitchen(record) for record in growth.first if kitchen(record) != HELD_OUT)
        copy = moved(held, path_of(held).replace(HELD_OUT, train))
        source = growth.write(tmp_path / "source", [*growth.first, copy])
        told = complaint(cli("compile", source, before.out, "--extend"))
        assert "existing episodes keep their split: " in told
        assert "are duplicates" in told

    @pytest.mark.parametrize("by", ["instruction", "episode", "source"])
    def test_by_something_else(self, growth: Growth, before: Before, tmp_path: Path, by: str) -> None:
        rule = SplitRule(by=by)
        compiled(growth.write(tmp_path / "first", growth.first), tmp_path / "out", rule=rule)
        old = {row["key"]: row for row in rows_of(tmp_path / "out")}
        extended(before.grown, tmp_path / "out")
        rows = episodes(tmp_path / "out")
        assert old.items() <= {row["key"]: row for row in rows}.items()
        assert len(rows) == 24
        assert verify(Dataset.open(str(tmp_path / "out"))) == []
        if by == "instruction":
            split_of = {(row["instruction"], row["split"]) for row in rows}
            assert len(split_of) == len({text for text, _ in split_of})

    def test_the_rule_that_is_written_names_what_came_too(self, before: Before, tmp_path: Path) -> None:
        rule = tmp_path / "rule.yaml"
        arguments = ("compile", before.grown, before.out, "--extend", "--dry-run", "--write-rule", rule)
        result = cli(*arguments)
        assert result.exit_code == 0
        assert result.stdout.endswith(f"nothing was compiled\n{before.out}: 9 new, 15 known\n")
        text = rule.read_text()
        assert all(kitchen(record) in text for record in before.growth.later)
        assert "unknown, in" not in text


class TestRejected:
    def broken(self, record: Record) -> Record:
        """A record whose second image cannot be decoded."""
        return changed(
            record, lambda feature: self._spoil(feature["steps/observation/image_0"].bytes_list.value)
        )

    def _spoil(self, images: Any) -> None:
        images[1] = images[1][:40]

    def nan(self, record: Record) -> Record:
        """A record that the census rejects."""
        return changed(
            record, lambda feature: feature["steps/action"].float_list.value.__setitem__(0, float("nan"))
        )

    def test_one_that_the_census_rejects_is_counted_whatever_else_is_new(
        self, before: Before, tmp_path: Path
    ) -> None:
        growth, out = before.growth, before.copy(tmp_path)
        source = growth.write(tmp_path / "source", [*growth.first, self.nan(growth.later[0])])
        manifest = extended(source, out, on_error="reject")
        assert manifest.counts == {"source": 16, "compiled": 15, "rejected": 1, "limited": 0}
        assert manifest.fingerprint == before.manifest.fingerprint
        assert verify(Dataset.open(str(out))) == []
        found = tree(out)
        extended(source, out, on_error="reject")
        assert tree(out) == found

    def test_new_ones_are_listed_and_do_not_come_again(self, before: Before, tmp_path: Path) -> None:
        growth, out = before.growth, before.copy(tmp_path)
        bad = [self.broken(growth.later[0]), self.nan(growth.later[1])]
        source = growth.write(tmp_path / "source", [*bad, *growth.first, *growth.later[2:]])
        with pytest.raises(SourceError, match="--on-error reject"):
            extended(source, out)
        assert tree(out) == tree(before.out)
        manifest = extended(source, out, on_error="reject")
        assert manifest.counts == {"source": 24, "compiled": 22, "rejected": 2, "limited": 0}
        assert verify(Dataset.open(str(out))) == []
        found = tree(out)
        assert extended(source, out, on_error="reject") == manifest
        assert tree(out) == found

    def test_one_that_is_mended_comes(self, before: Before, tmp_path: Path) -> None:
        growth, out = before.growth, before.copy(tmp_path)
        for number, last in enumerate((self.nan(growth.later[0]), growth.later[0])):
            source = growth.write(tmp_path / str(number), [*growth.first, *growth.later[1:], last])
            manifest = extended(source, out, on_error="reject")
            assert manifest.counts["rejected"] == 1 - number
            assert manifest.counts["compiled"] == 23 + number
        assert manifest.counts["source"] == 24

    def test_where_all_new_ones_are_broken_the_fingerprint_stays(
        self, before: Before, tmp_path: Path
    ) -> None:
        growth, out = before.growth, before.copy(tmp_path)
        source = growth.write(tmp_path / "source", [*growth.first, self.broken(growth.later[0])])
        manifest = extended(source, out, on_error="reject")
        assert manifest.fingerprint == before.manifest.fingerprint
        assert "parents" not in manifest.config
        assert manifest.counts == {"source": 16, "compiled": 15, "rejected": 1, "limited": 0}
        assert verify(Dataset.open(str(out))) == []
        found = tree(out)
        extended(source, out, on_error="reject")
        assert tree(out) == found


def test_a_record_that_was_changed_is_new_and_the_old_one_stays(before: Before, tmp_path: Path) -> None:
    growth, out = before.growth, before.copy(tmp_path)
    records = [changed(growth.first[0], lift), *growth.first[1:]]
    manifest = extended(growth.write(tmp_path / "source", records), out)
    assert_extends(out, manifest, before, [*growth.first, records[0]])


def test_size_and_codec_are_those_of_the_dataset(growth: Growth, before: Before, tmp_path: Path) -> None:
    first = growth.write(tmp_path / "first", growth.first)
    options = ("--size", "16x24", "--fit", "crop", "--codec", "jpeg", "--jpeg-quality", 80, "--val-seen", 0.1)
    assert cli("compile", first, tmp_path / "out", *options, "--workers", 1).exit_code == 0
    old = tree(tmp_path / "out")
    result = cli("compile", before.grown, tmp_path / "out", "--extend", "--workers", 1)
    assert result.exit_code == 0, result.output
    assert shards(old).items() <= tree(tmp_path / "out").items()
    assert verify(Dataset.open(str(tmp_path / "out")), decode=True) == []
    assert {(row["image_0.height"], row["image_0.width"]) for row in episodes(tmp_path / "out")} == {(16, 24)}


def test_a_dataset_that_is_encoded_as_videos_grows_at_its_own_quality(
    growth: Growth, before: Before, tmp_path: Path
) -> None:
    first, out = growth.write(tmp_path / "first", growth.first), tmp_path / "out"
    assert cli("compile", first, out, "--codec", "av1", "--crf", 40, "--workers", 1).exit_code == 0
    wrong = complaint(cli("compile", before.grown, out, "--extend", "--crf", 50, "--workers", 1))
    assert "was compiled with quality 40, not 50; leave such options out" in wrong
    result = cli("compile", before.grown, out, "--extend", "--crf", 40, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert verify(Dataset.open(str(out)), decode=True) == []


def test_steps_without_action_are_those_of_the_dataset(
    growth: Growth, before: Before, tmp_path: Path
) -> None:
    first, out = growth.write(tmp_path / "first", growth.first), tmp_path / "out"
    made = cli("compile", first, out, "--no-action", "first", "--no-action", "last", "--workers", 1)
    assert made.exit_code == 0, made.output
    told = complaint(cli("compile", before.grown, out, "--extend", "--no-action", "none"))
    assert 'was compiled with no_action ["first", "last"], not []; leave such options out' in told
    result = cli("compile", before.grown, out, "--extend", "--workers", 1)
    assert result.exit_code == 0, result.output
    assert {row["action.start"] for row in episodes(out)} == {1}
    assert read_manifest(Store(out)).no_action == ["first", "last"]


class TestVideos:
    def write(self, folder: Path, channel: str, number: int) -> None:
        video = f"{channel}{number}".ljust(11, "0")
        path = folder / f"{channel} {number} [{video}].mp4"
        write_video(path, scenes(video, 36, 30))
        write_info(path, video, f"{channel} {number}", channel, CC_BY)

    def test_clips_and_whose_they_are(self, tmp_path: Path) -> None:
        folder, out = tmp_path / "clips", tmp_path / "out"
        folder.mkdir()
        for channel in ("attic", "barn", "cellar"):
            self.write(folder, channel, 1)
        video = {"rate": Fraction(8), "exclude": frozenset(["no-such-one"])}
        compile_videos(folder, out, video=video, rule=SplitRule(val=0.34))
        was, old = tree(out), {row["key"]: row for row in rows_of(out)}
        (held,) = {row["environment"] for row in old.values() if row["split"] == "val"}
        self.write(folder, held.removeprefix("UC").rstrip("0"), 2)
        self.write(folder, "dairy", 1)
        arguments = ["compile", f"videos:{folder}", out, "--extend", "--workers", 1, "--quiet"]
        assert "was compiled with --exclude-ids" in complaint(cli(*arguments))
        assert "rate [8, 1], not [5, 1]" in complaint(
            cli(*arguments, "--rate", 5, "--exclude-ids", self.ids(tmp_path))
        )
        assert tree(out) == was
        result = cli(*arguments, "--exclude-ids", self.ids(tmp_path))
        assert result.exit_code == 0, result.output
        assert shards(was).items() <= tree(out).items()
        dataset = Dataset.open(str(out))
        assert verify(dataset, decode=True) == []
        rows = episodes(out)
        assert old.items() <= {row["key"]: row for row in rows}.items()
        new = {row["environment"]: row["split"] for row in rows if row["key"] not in old}
        assert new == {held: "val", "UCdairy".ljust(24, "0"): "train"}
        owners = dataset.table("attribution.parquet").to_pylist()
        assert [(one["key"], one["channel_id"]) for one in owners] == [
            (r["key"], r["environment"]) for r in rows
        ]

    def ids(self, folder: Path) -> Path:
        """A longer list of those to leave out."""
        (folder / "ids").write_text("no-such-one\nand-another\n")
        return folder / "ids"


def test_a_compile_that_overwrites_it_leaves_nothing_of_it(
    before: Before, after: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(after, tmp_path / "out"))
    first = before.growth.write(tmp_path / "first", before.growth.first)
    assert compiled(first, out, overwrite=True) == before.manifest
    assert tree(out) == tree(before.out)
