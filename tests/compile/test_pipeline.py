"""The whole compile, from a source to a dataset: what it writes, refuses, rejects and leaves alone."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from oxcart.cli.main import oxcart
from oxcart.compile import census
from oxcart.compile.census import Census
from oxcart.compile.images import Resize
from oxcart.compile.pipeline import CompileConfig, execute, prepare
from oxcart.compile.plan import Settings
from oxcart.compile.sample.rlds import SampleConfig, write_rlds
from oxcart.compile.sources import open_source, tfrecord
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import Manifest, read_manifest
from oxcart.manifests.split import SplitRule, read_rule, write_rule
from oxcart.manifests.verify import verify
from oxcart.shards.errors import ConfigError, CorruptError, OxcartError, SourceError, StoreError
from oxcart.shards.store import Store

FIRST, SECOND = (f"oxcart_kitchens-train.tfrecord-{i:05d}-of-00002" for i in range(2))
SHARD_SIZE = 40_000
"""Frame bytes: two to four episodes of the sample."""

Tree = dict[str, str]


def tree(directory: Path) -> Tree:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def stamps(directory: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of the last change of every file and folder."""
    paths = (directory, *sorted(directory.rglob("*")))
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def config_of(path: Path, out: Path, **changes: Any) -> CompileConfig:
    """A compile by one worker of a fifth of val; `changes` may be of the compile or of its settings."""
    settings = {"rule": SplitRule(val=0.2), "shard_size": SHARD_SIZE}
    settings |= {name: changes.pop(name) for name in list(changes) if name in Settings.__dataclass_fields__}
    changes = {"source": SourceConfig(url=str(path)), "workers": 1, **changes}
    return CompileConfig(out=str(out), settings=Settings(**settings), **changes)


def compiled(path: Path, out: Path, **changes: Any) -> Manifest:
    return execute(prepare(config_of(path, out, **changes)))


def census_of(source: Path, **options: Any) -> Census:
    config = SourceConfig(url=str(source), **options)
    return census.take(config, workers=1, report=lambda done, size: None)


def stopped(config: CompileConfig, frames: int) -> None:
    """A compile that ends, unfinished, after so many frames."""

    def stop(done: int, size: int) -> None:
        if done >= frames:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(prepare(config), stop)
    with pytest.raises(ConfigError, match="its compile has not finished"):
        read_manifest(Store(config.out))


def rows_of(out: Path, table: str = "episodes.parquet") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / table).to_pylist()
    return rows


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(oxcart, [str(argument) for argument in arguments])


def complaint(result: Result) -> str:
    """The one line of a command that failed."""
    assert result.exit_code == 1, result.output
    assert not isinstance(result.exception, OxcartError), "a traceback"
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("oxcart: error: ")
    return result.stderr


@dataclass(frozen=True)
class Whole:
    """A compile that nothing happened to."""

    source: Path
    out: Path
    manifest: Manifest
    tree: Tree


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    sample = SampleConfig(kitchens=5, sessions=2, episodes=2, steps=4, size=32, files=2)
    source = write_rlds(folder, sample)
    manifest = compiled(source, folder / "out")
    return Whole(source, folder / "out", manifest, tree(folder / "out"))


def test_the_sample_is_fit_for_these_tests(whole: Whole) -> None:
    assert whole.manifest.counts == {"source": 20, "compiled": 20, "rejected": 0, "limited": 0}
    assert {name: count["episodes"] for name, count in whole.manifest.splits.items()} == {
        "train": 16,
        "val": 4,
    }
    assert len(whole.manifest.shards) > 5
    assert len({row["steps"] for row in rows_of(whole.out)}) > 1
    assert verify(Dataset.open(str(whole.out))) == []
    assert not (whole.out / ".oxcart").exists()


class TestSameBytes:
    """The tree depends on the source's bytes and the settings, and on nothing else."""

    def test_a_census_by_several_workers(self, whole: Whole) -> None:
        source = SourceConfig(url=str(whole.source))
        taken = census.take(source, workers=3, report=lambda done, size: None)
        assert taken == census_of(whole.source)
        assert taken.to_bytes() == census_of(whole.source).to_bytes()

    @pytest.mark.parametrize("workers", [2, 4])
    def test_any_number_of_workers(self, whole: Whole, tmp_path: Path, workers: int) -> None:
        (tmp_path / "census").write_bytes(census_of(whole.source).to_bytes())
        compiled(whole.source, tmp_path / "out", workers=workers, census=str(tmp_path / "census"))
        assert tree(tmp_path / "out") == whole.tree

    def test_the_command(self, whole: Whole, tmp_path: Path) -> None:
        options = ("--val-fraction", 0.2, "--shard-size", SHARD_SIZE, "--workers", 1)
        assert cli("compile", whole.source, tmp_path / "out", *options).exit_code == 0
        assert tree(tmp_path / "out") == whole.tree

    @pytest.mark.parametrize(("seed", "workers"), [("0", "1"), ("1", "2")])
    def test_another_place_and_another_hash_seed(
        self, whole: Whole, tmp_path: Path, seed: str, workers: str
    ) -> None:
        shutil.copytree(whole.source, tmp_path / f"here {seed}/source")
        (tmp_path / "there").mkdir()
        command = [sys.executable, "-m", "oxcart.cli.main", "compile", f"../here {seed}/source/", "./out/"]
        command += ["--val-fraction", "0.2", "--shard-size", "40kB", "--workers", workers]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo", "LC_ALL": "C"}
        subprocess.run(command, cwd=tmp_path / "there", env=environment, capture_output=True, check=True)
        assert tree(tmp_path / "there/out") == whole.tree

    def test_a_relative_path(self, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copytree(whole.source, tmp_path / "source")
        monkeypatch.chdir(tmp_path)
        compiled(Path("source"), Path("out"))
        assert tree(tmp_path / "out") == whole.tree

    def test_resumed_after_any_shard(self, whole: Whole, tmp_path: Path) -> None:
        config = config_of(whole.source, tmp_path / "out")
        for frames in (8, 32, 56):
            stopped(config, frames)
        execute(prepare(config))
        assert tree(tmp_path / "out") == whole.tree

    def test_two_compiles_of_one_plan_join(self, whole: Whole, tmp_path: Path) -> None:
        """Both were prepared before either wrote anything."""
        one, two = (prepare(config_of(whole.source, tmp_path / "out")) for _ in range(2))
        assert execute(one) == execute(two) == whole.manifest
        assert tree(tmp_path / "out") == whole.tree

    def test_the_tree_tells_no_place(self, whole: Whole) -> None:
        files = [path.read_bytes() for path in whole.out.rglob("*") if path.is_file()]
        assert not any(str(whole.source.parent).encode() in data for data in files)


class TestOut:
    """What a compile makes of an output directory that is not empty."""

    def test_running_again_changes_nothing(self, whole: Whole, tmp_path: Path) -> None:
        compiled(whole.source, tmp_path / "out")
        before = stamps(tmp_path / "out")
        assert compiled(whole.source, tmp_path / "out", on_error="reject") == whole.manifest
        options = ("--val-fraction", 0.2, "--shard-size", SHARD_SIZE, "--workers", 1)
        result = cli("compile", whole.source, tmp_path / "out", *options)
        assert result.exit_code == 0
        assert whole.manifest.fingerprint in result.stdout
        assert stamps(tmp_path / "out") == before

    @pytest.mark.parametrize("change", ["split", "size", "camera", "limit", "shard size", "source"])
    def test_another_plan_into_a_finished_dataset(self, whole: Whole, tmp_path: Path, change: str) -> None:
        compiled(whole.source, tmp_path / "out")
        before = stamps(tmp_path / "out")
        with pytest.raises(ConfigError) as refused:
            execute(prepare(changed(whole, tmp_path, change)))
        assert re.fullmatch(
            rf"{tmp_path}/out: holds another compile \(oxcart_kitchens, plan \w{{12}}, this is \w{{12}}\); "
            r"choose another directory or pass --overwrite",
            str(refused.value),
        )
        assert stamps(tmp_path / "out") == before
        assert tree(tmp_path / "out") == whole.tree

    @pytest.mark.parametrize("change", ["split", "size", "limit", "shard size"])
    def test_another_plan_into_an_unfinished_one(self, whole: Whole, tmp_path: Path, change: str) -> None:
        config = config_of(whole.source, tmp_path / "out")
        stopped(config, 30)
        before = tree(tmp_path / "out")
        assert [name for name in before if name.endswith(".tar")]
        with pytest.raises(ConfigError) as refused:
            execute(prepare(changed(whole, tmp_path, change)))
        assert re.fullmatch(
            rf"{tmp_path}/out: holds an unfinished compile of another plan \(\w{{12}}, this is \w{{12}}\); "
            r"finish that one, choose another directory or pass --overwrite",
            str(refused.value),
        )
        assert tree(tmp_path / "out") == before
        execute(prepare(config))
        assert tree(tmp_path / "out") == whole.tree

    @pytest.mark.parametrize("finished", [True, False])
    def test_overwrite_replaces_what_oxcart_wrote_alone(
        self, whole: Whole, tmp_path: Path, finished: bool
    ) -> None:
        first = config_of(whole.source, tmp_path / "out", shard_size=1)
        execute(prepare(first)) if finished else stopped(first, 50)
        foreign = ("README.md", "annotations/motion.parquet", "shards/notes.txt")
        for name in foreign:
            (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "out" / name).write_text("mine")
        manifest = compiled(whole.source, tmp_path / "out", overwrite=True)
        assert manifest == whole.manifest
        found = tree(tmp_path / "out")
        assert {found.pop(name) for name in foreign} == {hashlib.sha256(b"mine").hexdigest()}
        assert found == whole.tree

    def test_overwrite_of_nothing(self, whole: Whole, tmp_path: Path) -> None:
        compiled(whole.source, tmp_path / "out", overwrite=True)
        assert tree(tmp_path / "out") == whole.tree

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_directory_of_something_else_is_refused(
        self, whole: Whole, tmp_path: Path, overwrite: bool
    ) -> None:
        (tmp_path / "out/photos").mkdir(parents=True)
        (tmp_path / "out/photos/cat.jpg").write_bytes(b"cat")
        before = stamps(tmp_path / "out")
        with pytest.raises(
            ConfigError, match=r"out: holds photos/cat.jpg, which is not oxcart's; choose an empty"
        ):
            prepare(config_of(whole.source, tmp_path / "out", overwrite=overwrite))
        assert stamps(tmp_path / "out") == before

    def test_an_empty_directory_is_fine(self, whole: Whole, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        compiled(whole.source, tmp_path / "out")
        assert tree(tmp_path / "out") == whole.tree

    def test_a_source_is_no_place_for_its_dataset(self, whole: Whole) -> None:
        before = stamps(whole.source)
        with pytest.raises(ConfigError, match="which is not oxcart's"):
            prepare(config_of(whole.source, whole.source))
        assert stamps(whole.source) == before

    def test_prepare_writes_nothing(self, whole: Whole, tmp_path: Path) -> None:
        prepare(config_of(whole.source, tmp_path / "out"))
        assert list(tmp_path.iterdir()) == []

    def test_a_damaged_shard_of_an_unfinished_compile_is_written_again(
        self, whole: Whole, tmp_path: Path
    ) -> None:
        config = config_of(whole.source, tmp_path / "out")
        stopped(config, 40)
        one, two = sorted((tmp_path / "out/shards").glob("*.chunks.parquet"))[:2]
        one.unlink()
        shard = two.with_name(two.name.replace(".chunks.parquet", ".tar"))
        shard.write_bytes(shard.read_bytes()[:-1])
        execute(prepare(config))
        assert tree(tmp_path / "out") == whole.tree


def changed(whole: Whole, folder: Path, change: str) -> CompileConfig:
    """The compile of `whole` into `folder`/out, but for one thing."""
    config = config_of(whole.source, folder / "out")
    if change == "source":
        return replace(config, source=SourceConfig(url=str(edited(whole.source, folder / "source", lift))))
    if change == "camera":
        return replace(config, source=replace(config.source, cameras=("wrist",)))
    settings = {
        "split": {"rule": SplitRule(val=0.4)},
        "size": {"resize": Resize(size=(16, 16))},
        "limit": {"limit": 3},
        "shard size": {"shard_size": 80_000},
    }[change]
    return replace(config, settings=replace(config.settings, **settings))


class TestSettings:
    """What decides the bytes."""

    def test_a_limit_is_part_of_a_larger_one(self, whole: Whole, tmp_path: Path) -> None:
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

    def test_a_limit_beyond_the_source(self, whole: Whole, tmp_path: Path) -> None:
        manifest = compiled(whole.source, tmp_path / "out", limit=1000)
        assert manifest.counts == whole.manifest.counts
        assert manifest.fingerprint == whole.manifest.fingerprint

    @pytest.mark.parametrize(
        ("resize", "expected"),
        [
            (Resize(), lambda image: image),
            (Resize(size=(32, 32), fit="crop"), lambda image: image),
            (Resize(size=(16, 24)), lambda image: image.resize((24, 16), Image.Resampling.BILINEAR)),
            (
                Resize(size=(16, 24), fit="crop"),  # 21 of 32 rows have the aspect ratio
                lambda image: image.crop((0, 5, 32, 26)).resize((24, 16), Image.Resampling.BILINEAR),
            ),
            (Resize(size=(48, 48)), lambda image: image.resize((48, 48), Image.Resampling.BILINEAR)),
        ],
    )
    def test_frames_are_the_images_of_the_source(
        self, whole: Whole, tmp_path: Path, resize: Resize, expected: Callable[[Image.Image], Image.Image]
    ) -> None:
        manifest = compiled(whole.source, tmp_path / "out", resize=resize)
        height, width = resize.size or (32, 32)
        camera = {"name": "image_0", "source": "steps/observation/image_0", "height": height, "width": width}
        assert manifest.cameras == [camera]
        assert manifest.pixels == {
            "cameras": ["image_0"],
            "size": list(resize.size) if resize.size else None,
            "fit": resize.fit,
            "filter": "bilinear",
            "codec": "raw",
            "quality": None,
        }
        assert (manifest.fingerprint == whole.manifest.fingerprint) == (resize == Resize())
        dataset = Dataset.open(str(tmp_path / "out"))
        for row in rows_of(tmp_path / "out")[::7]:
            example = examples(whole.source / row["source_file"])[row["source_record"]]
            images = example.features.feature["steps/observation/image_0"].bytes_list.value
            assert len(images) == row["steps"]
            frames = dataset.frames(row, "image_0", range(row["steps"]))
            assert frames.shape == (row["steps"], height, width, 3)
            for frame, image in zip(frames, images, strict=True):
                np.testing.assert_array_equal(frame, np.asarray(expected(Image.open(io.BytesIO(image)))))

    def test_two_cameras(self, whole: Whole, tmp_path: Path) -> None:
        source = SourceConfig(url=str(whole.source), cameras=("wrist", "image_0"))
        manifest = compiled(whole.source, tmp_path / "out", source=source)
        assert [(c["name"], c["height"], c["width"]) for c in manifest.cameras] == [
            ("wrist", 16, 16),
            ("image_0", 32, 32),
        ]
        steps = sum(count["steps"] for count in manifest.splits.values())
        assert sum(count["frames"] for count in manifest.splits.values()) == 2 * steps
        dataset = Dataset.open(str(tmp_path / "out"))
        assert verify(dataset) == []
        row = dataset.episode(None)
        assert dataset.frames(row, "wrist", [0]).shape == (1, 16, 16, 3)
        np.testing.assert_array_equal(
            dataset.frames(row, "image_0", [1]),
            Dataset.open(str(whole.out)).frames(find(whole, row), "image_0", [1]),
        )

    @pytest.mark.parametrize("budget", [1, 12_288, 24_576, SHARD_SIZE, 123_456, 1 << 30])
    def test_shards_keep_their_budget(self, whole: Whole, tmp_path: Path, budget: int) -> None:
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

    def test_episodes_stand_in_the_order_of_their_hashes(self, whole: Whole) -> None:
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

    def test_statistics_are_of_train_alone(self, whole: Whole) -> None:
        rows = rows_of(whole.out)
        for what, feature in (("action", "steps/action"), ("state", "steps/observation/state")):
            values: dict[str, list[Any]] = defaultdict(list)
            for row in rows:
                example = examples(whole.source / row["source_file"])[row["source_record"]]
                floats = example.features.feature[feature].float_list.value
                values[row["split"]].append(np.array(floats, np.float64).reshape(row["steps"], 3))
            train, everything = (
                np.concatenate(v) for v in (values["train"], values["train"] + values["val"])
            )
            entry = getattr(whole.manifest, what)
            assert (entry["source"], entry["size"]) == ([feature], 3)
            found = entry["statistics"]
            assert found["count"] == len(train) == whole.manifest.splits["train"]["steps"]
            for name in ("mean", "std", "min", "max"):
                np.testing.assert_allclose(found[name], getattr(train, name)(axis=0), rtol=1e-12, atol=1e-15)
            assert not np.allclose(found["mean"], everything.mean(axis=0), rtol=1e-6, atol=0)

    def test_arrays_are_those_of_the_source(self, whole: Whole) -> None:
        for row in rows_of(whole.out)[::5]:
            example = examples(whole.source / row["source_file"])[row["source_record"]]
            data = (whole.out / f"shards/{row['shard']}.tar").read_bytes()
            for what, feature in (("action", "steps/action"), ("state", "steps/observation/state")):
                expected = np.array(example.features.feature[feature].float_list.value, np.float32)
                found = np.frombuffer(data, np.float32, len(expected), row[f"{what}.offset"])
                np.testing.assert_array_equal(found, expected)

    def test_without_action_and_state(self, whole: Whole, tmp_path: Path) -> None:
        source = SourceConfig(url=str(whole.source), action=(), state=())
        manifest = compiled(whole.source, tmp_path / "out", source=source)
        assert (manifest.action, manifest.state) == (None, None)
        assert {row["action.offset"] for row in rows_of(tmp_path / "out")} == {None}
        assert verify(Dataset.open(str(tmp_path / "out"))) == []


def find(whole: Whole, row: dict[str, Any]) -> dict[str, Any]:
    return next(other for other in rows_of(whole.out) if other["key"] == row["key"])


class TestCensusFile:
    """`scan --parquet` and `compile --census`."""

    @pytest.fixture
    def kept(self, whole: Whole, tmp_path: Path) -> Path:
        assert (
            cli(
                "scan", whole.source, "--workers", 1, "--quiet", "--parquet", tmp_path / "census.parquet"
            ).exit_code
            == 0
        )
        return tmp_path / "census.parquet"

    def test_it_is_used(self, whole: Whole, tmp_path: Path, kept: Path) -> None:
        scanned: list[int] = []
        config = config_of(whole.source, tmp_path / "out", census=str(kept))
        execute(prepare(config, lambda done, size: scanned.append(done)))
        assert scanned == []
        assert tree(tmp_path / "out") == whole.tree

    def test_it_joins_and_repeats_a_compile_without_it(
        self, whole: Whole, tmp_path: Path, kept: Path
    ) -> None:
        config = config_of(whole.source, tmp_path / "out")
        stopped(config, 30)
        execute(prepare(replace(config, census=str(kept))))
        assert tree(tmp_path / "out") == whole.tree
        before = stamps(tmp_path / "out")
        execute(prepare(replace(config, census=str(kept))))
        assert stamps(tmp_path / "out") == before

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"cameras": ("wrist",)}, r'taken with cameras {"image_0": .*}, expected {"wrist": .*}'),
            (
                {"source_splits": ("train",)},
                r'taken with source_splits \["train", "val"\], expected \["train"\]',
            ),
            ({"action": ()}, r'taken with action \["steps/action"\], expected \[\]'),
        ],
    )
    def test_taken_with_other_options(
        self, whole: Whole, tmp_path: Path, kept: Path, options: dict[str, Any], says: str
    ) -> None:
        source = SourceConfig(url=str(whole.source), **options)
        with pytest.raises(ConfigError, match=f"^census: {says}; take it again with the same options$"):
            prepare(config_of(whole.source, tmp_path / "out", source=source, census=str(kept)))
        assert not (tmp_path / "out").exists()

    def test_a_file_of_another_size(self, whole: Whole, tmp_path: Path, kept: Path) -> None:
        source = shutil.copytree(whole.source, tmp_path / "source")
        with open(source / SECOND, "ab") as file:
            file.write(b"more")
        size = (whole.source / SECOND).stat().st_size
        with pytest.raises(SourceError) as refused:
            prepare(config_of(source, tmp_path / "out", census=str(kept)))
        says = f"{SECOND}: has changed since the census: {size} bytes then, {size + 4} now"
        assert str(refused.value).startswith(says)

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_record_replaced_by_one_of_its_length(
        self, whole: Whole, tmp_path: Path, kept: Path, workers: int
    ) -> None:
        source = edited(whole.source, tmp_path / "source", lift, (SECOND, 2))
        assert (source / SECOND).stat().st_size == (whole.source / SECOND).stat().st_size
        compiled(source, tmp_path / "new")  # nothing is wrong with the source itself
        config = config_of(source, tmp_path / "out", census=str(kept), workers=workers, on_error="reject")
        with pytest.raises(
            SourceError, match=rf"^{SECOND}, record 2, byte \d+: has changed since the census"
        ):
            execute(prepare(config))
        with pytest.raises(ConfigError, match="its compile has not finished"):
            read_manifest(Store(tmp_path / "out"))

    def test_a_source_that_changed_while_it_was_compiled(self, whole: Whole, tmp_path: Path) -> None:
        """The census in OUT is believed by a resume, and not by --overwrite."""
        source = shutil.copytree(whole.source, tmp_path / "source")
        config = config_of(source, tmp_path / "out")
        stopped(config, 8)
        edited(whole.source, source, lift, (FIRST, 0), (FIRST, 1), (SECOND, 0), (SECOND, 1))
        with pytest.raises(SourceError, match="has changed since the census"):
            execute(prepare(config))
        execute(prepare(replace(config, overwrite=True)))
        compiled(source, tmp_path / "fresh")
        assert tree(tmp_path / "out") == tree(tmp_path / "fresh") != whole.tree

    def test_what_is_no_census(self, whole: Whole, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("text")
        pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
        for name, kind in (("text", CorruptError), ("other.parquet", ConfigError), ("missing", StoreError)):
            with pytest.raises(kind, match=name):
                prepare(config_of(whole.source, tmp_path / "out", census=str(tmp_path / name)))


Feature = Any
Edit = Callable[[Feature], None]


def examples(file: Path) -> list[tf_example_pb2.Example]:
    found = list(tfrecord.scan(Store(file.parent), file.name))
    return [tf_example_pb2.Example.FromString(record.data) for record in found]


def edited(source: Path, target: Path, edit: Edit, *where: tuple[str, int]) -> Path:
    """A copy of `source` in which `edit` has changed these records, by default one of them."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    wanted = where or ((FIRST, 3),)
    for name in sorted({name for name, _ in wanted}):
        with open(target / name, "wb") as file:
            for index, example in enumerate(examples(source / name)):
                if (name, index) in wanted:
                    edit(example.features.feature)
                tfrecord.write_record(file, example.SerializeToString(deterministic=True))
    return target


def lift(feature: Feature) -> None:
    """Other actions, in as many bytes."""
    feature["steps/action"].float_list.value[0] += 1.0


def no_image(feature: Feature) -> None:
    feature["steps/observation/image_0"].bytes_list.value[1] = b"GIF89a"


def cut_image(feature: Feature) -> None:
    images = feature["steps/observation/image_0"].bytes_list.value
    images[1] = images[1][: len(images[1]) * 7 // 8]


def small_image(feature: Feature) -> None:
    file = io.BytesIO()
    Image.new("RGB", (24, 16)).save(file, "PNG")
    feature["steps/observation/image_0"].bytes_list.value[2] = file.getvalue()


def nan_action(feature: Feature) -> None:
    feature["steps/action"].float_list.value[4] = math.nan


def infinite_state(feature: Feature) -> None:
    feature["steps/observation/state"].float_list.value[0] = math.inf


def one_step(feature: Feature) -> None:
    count = len(feature["steps/is_first"].int64_list.value)
    for name, value in feature.items():
        if name.startswith("steps/"):
            values = getattr(value, value.WhichOneof("kind")).value
            del values[len(values) // count :]


def fewer_actions(feature: Feature) -> None:
    del feature["steps/action"].float_list.value[-3:]


def flipped_data_bit(file: Path, offset: int, length: int) -> None:
    flip(file, offset + 12 + length // 2)


def flipped_length_bit(file: Path, offset: int, length: int) -> None:
    flip(file, offset)


def cut_within(file: Path, offset: int, length: int) -> None:
    os.truncate(file, offset + 12 + length // 2)


def cut_between(file: Path, offset: int, length: int) -> None:
    os.truncate(file, offset)


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 0x10
    file.write_bytes(data)


class Broken(NamedTuple):
    """A way to break record 3 of the first file."""

    do: Callable[..., None]
    reason: str
    """What is wrong with it, as a pattern."""
    late: bool = False
    """It is noticed when images are decoded, and not by the census."""
    rest: bool = False
    """What follows in the file is lost as well."""


BROKEN = [
    Broken(
        no_image, r"camera image_0: the image of step 1 is neither JPEG nor PNG \(6 bytes, .*\)", late=True
    ),
    Broken(cut_image, r"camera image_0: the image of step 1 cannot be decoded: .*truncated.*", late=True),
    Broken(
        small_image,
        "camera image_0: the image of step 2 is 16x24 pixels where the episode has 32x32",
        late=True,
    ),
    Broken(nan_action, "action is NaN or infinite at step 1"),
    Broken(infinite_state, "state is NaN or infinite at step 0"),
    Broken(one_step, "has 1 steps?; at least 2 are needed"),
    Broken(fewer_actions, r".*steps/action.*"),
    Broken(flipped_data_bit, "checksum of the record's data does not match"),
    Broken(flipped_length_bit, "checksum of the record's length does not match", rest=True),
    Broken(cut_within, r"cut off: the record has \d+ bytes, the file \d+ more", rest=True),
    Broken(cut_between, "the file ends after 3 of 9 records", rest=True),
]
LATE = [broken for broken in BROKEN if broken.late]


def name_of(broken: Broken) -> str:
    return broken.do.__name__


def broken_source(whole: Whole, target: Path, how: Broken) -> Path:
    if how.do in (flipped_data_bit, flipped_length_bit, cut_within, cut_between):
        shutil.copytree(whole.source, target)
        row = next(r for r in rows_of(whole.out) if (r["source_file"], r["source_record"]) == (FIRST, 3))
        how.do(target / FIRST, row["source_offset"], row["source_length"])
        return target
    return edited(whole.source, target, how.do)


class TestBroken:
    """A source in which something is wrong."""

    @pytest.mark.parametrize("how", BROKEN, ids=name_of)
    def test_rejected(self, whole: Whole, tmp_path: Path, how: Broken) -> None:
        source = broken_source(whole, tmp_path / "source", how)
        manifest = compiled(source, tmp_path / "out", on_error="reject")
        before = {row["key"]: row for row in rows_of(whole.out)}
        in_file = sorted(row["source_record"] for row in before.values() if row["source_file"] == FIRST)
        assert in_file == list(range(9))
        lost = in_file[3:] if how.rest else [3]

        rejected = rows_of(tmp_path / "out", "rejected.parquet")
        assert [(row["source_file"], row["source_record"]) for row in rejected] == [(FIRST, i) for i in lost]
        for row in rejected:
            assert re.fullmatch(how.reason, row["reason"])
            assert row["key"] == f"oxcart_kitchens-train-00000-{row['source_record']:06d}"
        compiled_rows = {row["key"]: row for row in rows_of(tmp_path / "out")}
        assert compiled_rows.keys() == before.keys() - {row["key"] for row in rejected}
        assert all(row["digest"] == before[key]["digest"] for key, row in compiled_rows.items())
        assert manifest.counts == {
            "source": 20,
            "compiled": 20 - len(lost),
            "rejected": len(lost),
            "limited": 0,
        }
        assert verify(Dataset.open(str(tmp_path / "out"))) == []

    @pytest.mark.parametrize("how", BROKEN, ids=name_of)
    def test_fails_by_default(self, whole: Whole, tmp_path: Path, how: Broken) -> None:
        source = broken_source(whole, tmp_path / "source", how)
        options = ("--val-fraction", 0.2, "--shard-size", SHARD_SIZE, "--workers", 1, "--quiet")
        line = complaint(cli("compile", source, tmp_path / "out", *options))
        assert re.match(rf"oxcart: error: {FIRST}, record 3(, byte \d+)?: {how.reason}", line)
        assert "--on-error reject" in line
        assert not (tmp_path / "out/manifest.json").exists()
        # What was decoded before is kept, and the same command with --on-error reject goes on from there.
        assert (tmp_path / "out").exists() == how.late
        result = cli("compile", source, tmp_path / "out", *options, "--on-error", "reject")
        assert (result.exit_code, result.output) == (0, "")
        compiled(source, tmp_path / "fresh", on_error="reject")
        assert tree(tmp_path / "out") == tree(tmp_path / "fresh")

    def test_fails_in_a_worker_process(self, whole: Whole, tmp_path: Path) -> None:
        source = broken_source(whole, tmp_path / "source", BROKEN[0])
        (tmp_path / "census").write_bytes(census_of(source).to_bytes())
        options = ("--val-fraction", 0.2, "--census", tmp_path / "census", "--workers", 2, "--quiet")
        line = complaint(cli("compile", source, tmp_path / "out", *options))
        assert f"{FIRST}, record 3, byte " in line

    def test_every_kind_at_once_under_a_limit(self, whole: Whole, tmp_path: Path) -> None:
        """Whatever the census rejects does not count for the limit, and what turns out later does."""
        edits = (no_image, cut_image, small_image, nan_action, infinite_state, one_step, fewer_actions)
        source = whole.source
        for index, edit in enumerate(edits):
            source = edited(source, tmp_path / f"source{index}", edit, (FIRST, index))
        rows = census_of(source).table.to_pylist()
        at = next(row for row in rows if (row["source_file"], row["source_record"]) == (SECOND, 0))
        flipped_data_bit(source / SECOND, at["source_offset"], at["source_length"])
        manifest = compiled(source, tmp_path / "out", on_error="reject", limit=7)
        rejected = rows_of(tmp_path / "out", "rejected.parquet")
        late = [row for row in rejected if row["reason"].startswith("camera")]
        assert len(rejected) - len(late) == 5
        assert manifest.counts["rejected"] == len(rejected)
        limited = manifest.counts["limited"]
        assert limited > 0
        assert manifest.counts["compiled"] == 20 - len(rejected) - limited
        train = sum(row["split"] == "train" for row in rows_of(tmp_path / "out"))
        assert 7 - len(late) <= train <= 7
        assert verify(Dataset.open(str(tmp_path / "out"))) == []

    def test_all_episodes_of_a_shard(self, whole: Whole, tmp_path: Path) -> None:
        source = broken_source(whole, tmp_path / "source", BROKEN[0])
        clean = compiled(whole.source, tmp_path / "clean", shard_size=1)
        manifest = compiled(source, tmp_path / "out", shard_size=1, on_error="reject")
        gone = {s["name"] for s in clean.shards} - {s["name"] for s in manifest.shards}
        assert len(gone) == 1
        assert len(clean.shards) == len(manifest.shards) + 1 == 20
        assert {path.name for path in (tmp_path / "out/shards").glob("*.tar")} == {
            Path(shard["name"]).name for shard in manifest.shards
        }
        assert verify(Dataset.open(str(tmp_path / "out"))) == []
        before = stamps(tmp_path / "out")
        compiled(source, tmp_path / "out", shard_size=1, on_error="reject")
        assert stamps(tmp_path / "out") == before

    @pytest.mark.parametrize("edit", [nan_action, no_image])
    def test_every_episode(self, whole: Whole, tmp_path: Path, edit: Edit) -> None:
        everywhere = [(row["source_file"], row["source_record"]) for row in rows_of(whole.out)]
        source = edited(whole.source, tmp_path / "source", edit, *everywhere)
        options = ("--val-fraction", 0.2, "--on-error", "reject", "--workers", 1, "--quiet")
        line = complaint(cli("compile", source, tmp_path / "out", *options))
        assert "of 20 episodes" in line
        assert f"{FIRST}, record 0, byte 0: " in line
        assert not (tmp_path / "out/manifest.json").exists()

    def test_what_is_rejected_has_no_part_in_the_split(self, whole: Whole, tmp_path: Path) -> None:
        """The share of val is one of the episodes that the census found usable."""
        source = broken_source(whole, tmp_path / "source", BROKEN[-1])
        manifest = compiled(source, tmp_path / "out", on_error="reject", rule=SplitRule(val=0.5))
        assert manifest.counts["compiled"] == 14
        assert 0 < manifest.splits["val"]["episodes"] <= 7


@pytest.fixture(scope="session")
def doubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes in each of ten kitchens, and three that repeat one of another kitchen."""
    sample = SampleConfig(kitchens=10, sessions=2, episodes=1, steps=2, size=32, files=2, duplicates=3)
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
        second = cli(
            "compile", doubled, tmp_path / "two", "--workers", 1, "--split", rule, "--write-rule", rule
        )
        assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
        one, two = (read_manifest(Store(tmp_path / out)) for out in ("one", "two"))
        assert one.fingerprint == two.fingerprint
        assert one.splits == two.splits
        assert rows_of(tmp_path / "one") == rows_of(tmp_path / "two")
        assert [path.name for path in rule.parent.iterdir()] == ["split.yaml"]
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

    def test_no_val(self, whole: Whole, tmp_path: Path) -> None:
        manifest = compiled(whole.source, tmp_path / "out", rule=SplitRule(val=None))
        assert list(manifest.splits) == ["train"]
        assert manifest.action is not None
        steps = manifest.splits["train"]["steps"]
        assert manifest.action["statistics"]["count"] == steps

    def test_no_train(self, whole: Whole, tmp_path: Path) -> None:
        """A dataset to evaluate on: nothing to take statistics of."""
        names = tuple(sorted({row["environment"] for row in rows_of(whole.out)}))
        manifest = compiled(whole.source, tmp_path / "out", rule=SplitRule(val=names))
        assert list(manifest.splits) == ["val"]
        assert manifest.action is not None
        assert manifest.action["statistics"] is None
        assert verify(Dataset.open(str(tmp_path / "out"))) == []

    def test_unknown_environments_stay_in_train(self, whole: Whole, tmp_path: Path) -> None:
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


GUARD = """
import atexit, os, sys

folder = os.environ["GUARD_FOLDER"]


def note():
    loaded = sorted({"tensorflow", "torch", "jax"} & set(sys.modules))
    with open(os.path.join(folder, f"{os.getpid()}.txt"), "w") as file:
        file.write(" ".join(["--multiprocessing-fork" in sys.orig_argv and "worker" or "parent", *loaded]))


atexit.register(note)
"""


def test_no_process_imports_tensorflow_or_torch(whole: Whole, tmp_path: Path) -> None:
    """They are there to be imported, whether or not they are installed here."""
    (tmp_path / "noted").mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(GUARD)
    for name in ("tensorflow", "torch", "jax"):
        (tmp_path / f"site/{name}.py").write_text("__version__ = '2.18.0'\n")
    command = [sys.executable, "-m", "oxcart.cli.main", "compile", str(whole.source), "out", "--workers", "2"]
    paths = [str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "GUARD_FOLDER": str(tmp_path / "noted"),
    }
    subprocess.run([*command, "--quiet"], cwd=tmp_path, env=environment, check=True)
    noted = [path.read_text() for path in (tmp_path / "noted").iterdir()]
    assert set(noted) == {"parent", "worker"}
    assert noted.count("worker") >= 2


def test_the_source_is_only_read(whole: Whole, tmp_path: Path) -> None:
    before = stamps(whole.source)
    compiled(whole.source, tmp_path / "out")
    assert stamps(whole.source) == before


def test_progress_ends_at_the_total(whole: Whole, tmp_path: Path) -> None:
    episodes: list[int] = []
    frames: list[tuple[int, int]] = []
    prepared = prepare(config_of(whole.source, tmp_path / "out"), lambda done, size: episodes.append(done))
    assert prepared.frames_done == 0
    execute(prepared, lambda done, size: frames.append((done, size)))
    assert episodes == list(range(1, open_source(prepared.config.source).expected + 1))
    assert frames == sorted(frames)
    assert frames[-1][0] == prepared.frames == sum(c["frames"] for c in whole.manifest.splits.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"on_error": "ignore"}, "on error: expected one of fail, reject, got 'ignore'"),
        ({"workers": 0}, "workers: expected at least 1, got 0"),
        ({"limit": 0}, "limit: expected at least 1 episode, got 0"),
        ({"shard_size": 0}, "shard size: expected at least 1 byte, got 0"),
    ],
)
def test_impossible_values(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        config_of(tmp_path, tmp_path / "out", **values)


def test_no_records_at_all(whole: Whole, tmp_path: Path) -> None:
    source = shutil.copytree(whole.source, tmp_path / "source")
    for name in (FIRST, SECOND):
        (source / name).write_bytes(b"")
    info = (source / "dataset_info.json").read_text()
    (source / "dataset_info.json").write_text(re.sub(r'"\d+"', '"0"', info))
    val = SourceConfig(url=str(source), source_splits=("train",))
    with pytest.raises(SourceError, match="holds no episode"):
        prepare(config_of(source, tmp_path / "out", source=val))
    (source / "dataset_info.json").write_text(
        re.sub(r'"shardLengths": \[[^]]*\]', '"shardLengths": []', info)
    )
    with pytest.raises(SourceError, match="holds no episode"):
        prepare(config_of(source, tmp_path / "out"))


def test_keys_that_collide(tmp_path: Path, whole: Whole) -> None:
    """Two splits whose names differ in what a key cannot hold."""
    source = shutil.copytree(whole.source, tmp_path / "source")
    info = (source / "dataset_info.json").read_text()
    (source / "dataset_info.json").write_text(info.replace('"train"', '"a.b"').replace('"val"', '"a_b"'))
    for path in list(source.iterdir()):
        path.rename(source / path.name.replace("-train.", "-a.b.").replace("-val.", "-a_b."))
    with pytest.raises(ConfigError, match=r"^key oxcart_kitchens-a_b-00000-000000: \d+ keys are not unique"):
        prepare(config_of(source, tmp_path / "out"))
