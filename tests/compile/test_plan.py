"""Which episodes a dataset has, in which split and shard, and in which order."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from broken_dataset import found
from oxcart.compile import plan
from oxcart.compile.pipeline import execute, prepare
from oxcart.compile.plan import MAX_NAME, Settings, plan_compile
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.canonical import pretty_json
from oxcart.manifests.manifest import read_manifest
from oxcart.manifests.split import SplitRule, read_rule, write_rule
from oxcart.shards.errors import ConfigError
from oxcart.shards.store import Store
from sample_compile import SHARD_SIZE, Compiled, census_of, cli, compiled, config_of, edited, rows_of, tree


class TestPacking:
    """What goes into which shard, and whether it goes at all."""

    def test_a_limit_is_part_of_a_larger_one(self, whole: Compiled, tmp_path: Path) -> None:
        keys: list[set[str]] = []
        for limit in (1, 3, 10):
            manifest = compiled(whole.source, tmp_path / str(limit), limit=limit)
            assert manifest.counts == {
                "source": 20,
                "compiled": limit + 4,
                "rejected": 0,
                "limited": 16 - limit,
            }
            rows = rows_of(tmp_path / str(limit))
            keys.append({row["key"] for row in rows if row["split"] == "train"})
            assert len(keys[-1]) == limit
            unlimited = [row for row in rows_of(whole.out) if row["split"] == "val"]
            assert [row for row in rows if row["split"] == "val"] == unlimited
            for name in ("shards/val-00000.tar", "shards/val-00000.chunks.parquet"):
                assert tree(tmp_path / str(limit))[name] == whole.tree[name]
        assert keys[0] < keys[1] < keys[2]

    def test_a_limit_moves_no_episode_to_another_split(self, whole: Compiled) -> None:
        census = census_of(whole.source)
        all_of, few_of = (
            {
                key: shard.split
                for shard in plan_compile(census, Settings(rule=SplitRule(val=0.2), limit=limit), {}).shards
                for key in shard.rows["key"].to_pylist()
            }
            for limit in (None, 6)
        )
        assert few_of.items() < all_of.items()
        assert Counter(few_of.values()) == {"train": 6, "val": 4}

    @pytest.mark.parametrize(
        ("what", "why"),
        [
            ("FILE_BYTES", r"^20 episodes: episodes\.parquet would have about"),
            ("MOST_BYTES", r"environments and \d+ shards: manifest\.json would have about"),
        ],
    )
    def test_what_could_not_be_read_again_is_refused_before_a_shard_is_written(
        self, whole: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, why: str
    ) -> None:
        monkeypatch.setattr(plan, what, 2000)
        with pytest.raises(ConfigError, match=why):
            compiled(whole.source, tmp_path / "out")
        assert not list(tmp_path.rglob("*.tar"))

    def test_what_is_told_of_its_size_is_near_what_it_takes(self) -> None:
        count = {"episodes": 345, "steps": 12345, "frames": 12345, "bytes": 1 << 30}
        shard: dict[str, object] = {"name": "shards/train-00000.tar", "split": "train", **count}
        shard |= {"blake3": "0" * 64, "chunks": "shards/train-00000.chunks.parquet", "chunks_bytes": 123456}
        shard |= {"chunks_blake3": "0" * 64}
        place = {"name": "", "known": "declared", "splits": {"train": count}}
        lengths = [
            len(pretty_json({"all": [one] * 2})) - len(pretty_json({"all": [one]})) for one in (shard, place)
        ]
        assert pytest.approx(lengths[0], rel=0.1) == plan.ENTRY_BYTES
        assert pytest.approx(lengths[1], rel=0.1) == plan.PLACE_BYTES + plan.COUNTS_BYTES

    def test_a_limit_beyond_the_source(self, whole: Compiled, tmp_path: Path) -> None:
        manifest = compiled(whole.source, tmp_path / "out", limit=1000)
        assert manifest.counts == whole.manifest.counts
        assert manifest.fingerprint == whole.manifest.fingerprint

    @pytest.mark.parametrize("budget", [1, 12_288, 24_576, SHARD_SIZE, 123_456, 1 << 30])
    def test_shards_keep_their_budget(self, whole: Compiled, tmp_path: Path, budget: int) -> None:
        manifest = compiled(whole.source, tmp_path / "out", shard_size=budget)
        assert manifest.fingerprint == whole.manifest.fingerprint  # packing is not content
        sizes: dict[str, list[int]] = defaultdict(list)
        for row in rows_of(tmp_path / "out"):
            sizes[row["shard"]].append(row["steps"] * 32 * 32 * 3)
        assert [f"shards/{name}.tar" for name in sizes] == [shard["name"] for shard in manifest.shards]
        assert all(sum(frames) <= budget or len(frames) == 1 for frames in sizes.values())
        for before, after in zip(sizes, list(sizes)[1:], strict=False):
            if before.rpartition("-")[0] == after.rpartition("-")[0]:
                assert sum(sizes[before]) + sizes[after][0] > budget  # the next one did not fit

    def test_episodes_stand_in_the_order_of_their_hashes(self, whole: Compiled) -> None:
        rows = rows_of(whole.out)
        assert [row["split"] for row in rows] == ["train"] * 16 + ["val"] * 4
        for split in ("train", "val"):
            keys = [row["key"] for row in rows if row["split"] == split]
            assert keys == sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())
        shards = list(dict.fromkeys(row["shard"] for row in rows))
        assert shards == sorted(shards)
        offsets = defaultdict(list)
        for row in rows:
            offsets[row["shard"]].append(row["offset"])
        assert all(found == sorted(found) for found in offsets.values())


@pytest.fixture(scope="session")
def doubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes in each of ten kitchens, and three that repeat one of another kitchen."""
    sample = RldsSampleConfig(kitchens=10, sessions=2, episodes=1, steps=2, size=32, files=2, duplicates=3)
    return write_rlds(tmp_path_factory.mktemp("doubled"), sample)


class TestSplits:
    """Who ends up where."""

    @pytest.mark.parametrize(
        "rule",
        [
            SplitRule(),
            SplitRule(val=0.3, test=0.3),
            SplitRule(val=0.2, val_seen=0.2),
            SplitRule(val=0.4, salt="another"),
        ],
    )
    def test_no_environment_is_in_two_splits(self, doubled: Path, tmp_path: Path, rule: SplitRule) -> None:
        manifest = compiled(doubled, tmp_path / "out", rule=rule)
        places: dict[str, set[str]] = defaultdict(set)
        for row in rows_of(tmp_path / "out"):
            places[row["environment"]].add(row["split"].replace("val_seen", "train"))
        assert len(places) == 10
        assert {len(splits) for splits in places.values()} == {1}
        wanted = {"train"} | {split for split in ("val", "test", "val_seen") if getattr(rule, split)}
        assert set(manifest.splits) == wanted

    def test_duplicates_share_a_split(self, doubled: Path, tmp_path: Path) -> None:
        compiled(doubled, tmp_path / "out", rule=SplitRule(val=0.4))
        rows = {row["key"]: row for row in rows_of(tmp_path / "out")}
        same: dict[int, list[str]] = defaultdict(list)
        for row in census_of(doubled).table.to_pylist():
            same[row["duplicate"]].append(row["key"])
        pairs = [keys for keys in same.values() if len(keys) > 1]
        assert len(pairs) == 3
        for keys in pairs:
            assert len({rows[key]["environment"] for key in keys}) == len(keys)
            assert len({rows[key]["split"] for key in keys}) == 1

    @pytest.mark.parametrize(
        "options",
        [
            ("--val-fraction", 0.3),
            ("--val-fraction", 0.2, "--val-seen", 0.2),
            ("--val", "toykitchen1", "--val", "toysink2"),
            ("--split-by", "instruction", "--val-fraction", 0.3),
            ("--split-by", "episode"),
            ("--val", "none"),
        ],
        ids=lambda options: " ".join(map(str, options)),
    )
    def test_a_rule_that_was_written_gives_the_same_splits(
        self, doubled: Path, tmp_path: Path, options: tuple[object, ...]
    ) -> None:
        rule = tmp_path / "rules/split.yaml"
        first = cli("compile", doubled, tmp_path / "one", "--workers", 1, *options, "--write-rule", rule)
        again = rule.with_name("again.yaml")
        second = cli(
            "compile", doubled, tmp_path / "two", "--workers", 1, "--split", rule, "--write-rule", again
        )
        assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
        one, two = (read_manifest(Store(tmp_path / out)) for out in ("one", "two"))
        assert one.fingerprint == two.fingerprint
        assert one.splits == two.splits
        assert rows_of(tmp_path / "one") == rows_of(tmp_path / "two")
        assert sorted(path.name for path in rule.parent.iterdir()) == ["again.yaml", "split.yaml"]
        assert again.read_bytes() == rule.read_bytes()
        frozen = read_rule(rule)
        assert write_rule(frozen) == rule.read_text()
        assert not isinstance(frozen.val, float)

    @pytest.mark.parametrize(
        ("by", "says"),
        [
            ("source", "the source's own splits are kept, and environments and duplicates can be in both"),
            ("episode", "episodes of one environment are in both train and val"),
        ],
    )
    def test_a_split_that_leaks_says_so(self, doubled: Path, tmp_path: Path, by: str, says: str) -> None:
        result = cli("compile", doubled, tmp_path / "out", "--workers", 1, "--quiet", "--split-by", by)
        assert result.exit_code == 0
        assert re.fullmatch(rf"oxcart: warning: split by {by}: .*{says}.*\n", result.stderr)
        rows = rows_of(tmp_path / "out")
        assert {row["split"] for row in rows} == {"train", "val"}
        if by == "source":
            assert all(row["split"] == row["source_split"] for row in rows)

    def test_unknown_environments_stay_in_train(self, whole: Compiled, tmp_path: Path) -> None:
        """Of three kitchens the pattern knows, and of two it does not."""
        rows = rows_of(whole.out)
        names = sorted({row["environment"] for row in rows})
        options = (
            "--environment",
            f"file_path~bridge_data_v2/({'|'.join(names[:3])})/",
            "--val-fraction",
            0.3,
        )
        result = cli("compile", whole.source, tmp_path / "out", "--workers", 1, "--quiet", *options)
        assert result.exit_code == 0
        assert result.stderr == "oxcart: warning: 8 episodes have an unknown environment and stay in train\n"
        found = rows_of(tmp_path / "out")
        assert Counter(row["environment_known"] for row in found) == {"declared": 12, "unknown": 8}
        assert {row["split"] for row in found if row["environment"] is None} == {"train"}
        assert {row["split"] for row in found} == {"train", "val"}


def test_aliases_of_the_rule_come_to_those_of_the_catalog(whole: Compiled, tmp_path: Path) -> None:
    prepared = prepare(config_of(whole.source, tmp_path / "out"))
    names = sorted({row["environment"] for row in rows_of(whole.out)})
    known = {names[0]: (names[1],)}
    rule = SplitRule(val=(names[0],), aliases={names[0]: (names[2],)})
    settings = replace(prepared.config.settings, rule=rule)
    made = plan_compile(prepared.census, settings, known)
    held = {
        row["environment"] for shard in made.shards if shard.split == "val" for row in shard.rows.to_pylist()
    }
    assert held == set(names[:3])


def test_a_name_too_long_for_a_tar_is_refused_before_anything_is_written(
    whole: Compiled, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    edited(whole.source, source, lambda feature: None)
    info = json.loads((source / "dataset_info.json").read_text())
    longest = "oxcart_kitchens-train-00000-000000.image_0.mjpeg"
    for length in (MAX_NAME, MAX_NAME + 1):
        name = "n" * (length - len(longest) + len("oxcart_kitchens"))
        for file in source.glob("*.tfrecord*"):
            file.rename(source / f"{name}-{file.name.partition('-')[2]}")
        (source / "dataset_info.json").write_text(json.dumps({**info, "name": name}))
        config = config_of(
            source, tmp_path / str(length), rule=SplitRule(val=None), source=SourceConfig(url=str(source))
        )
        if length == MAX_NAME:
            prepared = prepare(config)
            assert len(prepared.plan.shards[0].rows["key"][0].as_py()) + len(".image_0.mjpeg") == MAX_NAME
            execute(prepared)
            assert found(tmp_path / str(length)) == []
        else:
            with pytest.raises(ConfigError, match=f"{length} characters, a tar header holds {MAX_NAME}"):
                prepare(config)
            assert not (tmp_path / str(length)).exists()
