"""The manifest is read or refused with a reason; the fingerprint depends on what it names, and no more."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from oxcart.manifests import manifest as manifest_module
from oxcart.manifests.manifest import (
    CLAIM,
    FORMAT,
    NAME,
    Manifest,
    encoded_as,
    episode_digest,
    fingerprint,
    order,
    read_claim,
    read_manifest,
)
from oxcart.manifests.schema import MANIFEST
from oxcart.shards.errors import ConfigError, CorruptError, OxcartError, StoreError
from oxcart.shards.store import Store

COUNT = {"episodes": 2, "steps": 9, "frames": 9, "bytes": 4096}
SHARD = {"name": "shards/train-00000.tar", "split": "train", **COUNT, "blake3": "b"}
SHARD |= {"chunks": "shards/train-00000.chunks.parquet", "chunks_bytes": 900, "chunks_blake3": "c"}


def column(name: str) -> dict[str, Any]:
    return {"name": name, "kind": "delta", "unit": "m", "frame": None}


STATISTICS = {"count": 9, "mean": [0.5, 1], "std": [0.0, 1.0], "min": [0.0, 0.0], "max": [1.0, 2.0]}
STATISTICS |= {name: [0.0, 1.0] for name in ("q01", "q10", "q50", "q90", "q99")}
VALUE: dict[str, Any] = {
    "format": FORMAT,
    "fingerprint": "f",
    "order": "0f" * 32,
    "dataset": {"name": "tiny", "version": "1.0.0", "kind": "rlds", "licence": None, "citation": None},
    "plan": "p",
    "counts": {"source": 2, "compiled": 2, "rejected": 0, "limited": 0},
    "splits": {"train": COUNT},
    "environments": [
        {"name": "küche", "known": "declared", "splits": {"train": COUNT}},
        {"name": None, "known": "unknown", "splits": {"val": COUNT, "val_seen": COUNT, "test": COUNT}},
    ],
    "cameras": [
        {
            "name": "front",
            "source": "steps/observation/front",
            "height": 4,
            "width": 6,
            "role": "primary",
            "channels": "rgb",
            "codec": "raw",
            "quality": None,
            "chunk": 1,
        },
        {
            "name": "wrist",
            "source": "steps/observation/wrist",
            "height": None,
            "width": None,
            "role": None,
            "channels": "bgr",
            "codec": "jpeg",
            "quality": 95,
            "chunk": 1,
        },
    ],
    "action": {
        "source": ["steps/action"],
        "sizes": [2],
        "size": 2,
        "columns": [column("dx"), column("dy")],
        "statistics": STATISTICS,
    },
    "state": {
        "source": ["steps/state"],
        "sizes": [1],
        "size": 1,
        "columns": [column("x")],
        "statistics": None,
    },
    "reward": None,
    "control_rate": {"hz": 5, "verified": True, "source": "its paper"},
    "pixels": {"cameras": ["front", "wrist"], "size": [4, 6]},
    "shards": [SHARD],
    "tables": {
        "episodes.parquet": {"rows": 2, "bytes": 900, "blake3": "d"},
        "rejected.parquet": {"rows": 0, "bytes": 900, "blake3": "e"},
        "values.parquet": {"rows": 4, "bytes": 900, "blake3": "a"},
    },
    "config": {
        "limit": None,
        "source": {
            "kind": "rlds",
            "name": "tiny",
            "version": "1.0.0",
            "source_splits": ["train"],
            "cameras": {"front": "steps/observation/front", "wrist": "steps/observation/wrist"},
            "instruction": [],
            "action": ["steps/action"],
            "state": ["steps/state"],
            "reward": [],
            "columns": {"action": [column("dx"), column("dy")], "state": [column("x")], "reward": []},
            "no_action": [],
            "licence": None,
        },
    },
    "versions": {"oxcart": "0"},
}


def read(folder: Path, data: bytes | dict[str, Any]) -> Manifest:
    (folder / NAME).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return read_manifest(Store(folder))


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = Manifest(**VALUE)
    again = read(tmp_path, manifest.to_bytes())
    assert again == manifest
    assert asdict(again) == VALUE
    assert again.to_bytes() == manifest.to_bytes()
    assert "küche" in manifest.to_bytes().decode()


def test_what_may_be_null_may_be_null(tmp_path: Path) -> None:
    changed = VALUE | {"action": None, "state": None, "control_rate": None, "shards": [], "environments": []}
    assert asdict(read(tmp_path, changed)) == changed


def test_a_manifest_may_say_more_inside_its_fields(tmp_path: Path) -> None:
    changed = copy.deepcopy(VALUE)
    changed["shards"][0]["more"] = changed["cameras"][0]["more"] = changed["pixels"]["more"] = [1]
    assert asdict(read(tmp_path, changed)) == changed


def test_every_field_has_a_type() -> None:
    assert list(MANIFEST) == [field.name for field in fields(Manifest)] == list(VALUE)


@pytest.mark.parametrize("field", list(VALUE))
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    changed = {name: value for name, value in VALUE.items() if name != field}
    with pytest.raises(CorruptError, match=field):
        read(tmp_path, changed)


def test_a_missing_field_is_named_and_an_unknown_one_ignored(tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match=r"fields missing: plan$"):
        read(tmp_path, {n: v for n, v in VALUE.items() if n != "plan"} | {"licence": 1})
    assert read(tmp_path, VALUE | {"licence": 1}) == read(tmp_path, VALUE)


def test_a_codec_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"codec 'vvc', this version reads raw, zstd, jpeg, .*; update oxcart"
    ):
        read(tmp_path, VALUE | {"cameras": [VALUE["cameras"][0], {**VALUE["cameras"][1], "codec": "vvc"}]})


WRONG: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda v: v.update(fingerprint=3), "fingerprint: expected text, got 3"),
    (lambda v: v.update(order="0f" * 31 + "0F"), 'order: expected 64 hexadecimal digits, got "0f0f'),
    (lambda v: v.update(order=""), 'order: expected 64 hexadecimal digits, got ""'),
    (lambda v: v.update(plan=None), "plan: expected text, got null"),
    (lambda v: v.update(dataset=[]), r"dataset: expected an object, got \[\]"),
    (lambda v: v["dataset"].pop("kind"), "dataset.kind: is missing"),
    (lambda v: v["counts"].update(source=True), "counts.source: expected a count, got true"),
    (lambda v: v["counts"].update(source=2.0), "counts.source: expected a count, got 2.0"),
    (lambda v: v["counts"].update(limited=-1), "counts.limited: expected a count, got -1"),
    (lambda v: v["splits"].update(train=7), "splits.train: expected an object, got 7"),
    (
        lambda v: v["splits"].update(dev=COUNT),
        "splits: expected any of train, val, test, val_seen, got 'dev'",
    ),
    (lambda v: v["splits"]["train"].pop("bytes"), "splits.train.bytes: is missing"),
    (lambda v: v.update(environments={}), "environments: expected a list, got {}"),
    (lambda v: v["environments"].append("x"), r'environments\[2\]: expected an object, got "x"'),
    (lambda v: v["environments"][1].update(name=1), r"environments\[1\].name: expected text, got 1"),
    (lambda v: v["environments"][0]["splits"].update(x=COUNT), r"environments\[0\].splits: .*got 'x'"),
    (lambda v: v["cameras"].clear(), "cameras: expected at least one, got none"),
    (lambda v: v["cameras"][1].update(width="4"), r'cameras\[1\].width: expected a count, got "4"'),
    (
        lambda v: v["action"].update(size=3, sizes=[1, 2]),
        "action.statistics.mean: expected a value for each of 3 columns, got 2",
    ),
    (lambda v: v["action"].update(size=3), "action.size: expected the sum of action.sizes, 2; got 3"),
    (lambda v: v["action"]["statistics"]["max"].pop(), "action.statistics.max: .* 2 columns, got 1"),
    (lambda v: v["action"]["statistics"].update(std=[0, -1]), r"action.statistics.std\[1\]: .*, got -1"),
    (
        lambda v: v["action"]["statistics"].update(mean=[0.5, 3]),
        r"action.statistics.mean\[1\]: .* 0.0 to 2.0",
    ),
    (lambda v: v["action"]["statistics"].update(mean=[-1, 1]), r"action.statistics.mean\[0\]: .*, got -1"),
    (lambda v: v["action"]["statistics"].update(min=[2, 0]), "action.statistics: .* of column 0 in order"),
    (lambda v: v["action"]["statistics"].update(q10=[0, 1.5]), "action.statistics: .* of column 1 in order"),
    (lambda v: v["action"]["statistics"].update(q99=[0, 2.5]), "action.statistics: .* of column 1 in order"),
    (
        lambda v: v["action"]["statistics"]["std"].append("x"),
        r"action.statistics.std\[2\]: expected a number",
    ),
    (lambda v: v["state"].update(source="x"), 'state.source: expected a list, got "x"'),
    (lambda v: v["control_rate"].update(hz=True), "control_rate.hz: expected a number, got true"),
    (lambda v: v["control_rate"].update(verified=1), "control_rate.verified: expected true or false, got 1"),
    (lambda v: v["cameras"][0].update(role="main"), r"cameras\[0\].role: expected one of primary, .*'main'"),
    (lambda v: v["cameras"][1].update(role="primary"), "cameras: expected a role of its own for each, got"),
    (lambda v: v["cameras"][1].update(channels="gbr"), r"cameras\[1\].channels: expected one of rgb, bgr"),
    (lambda v: v["dataset"].update(licence=1), "dataset.licence: expected text, got 1"),
    (lambda v: v["control_rate"].pop("source"), "control_rate.source: is missing"),
    (lambda v: v["cameras"][1].update(codec=None), r"cameras\[1\].codec: expected text, got null"),
    (lambda v: v["cameras"][1].update(chunk=0), r"cameras\[1\].chunk: expected 1 or more, .* got 0"),
    (
        lambda v: v["cameras"][1].update(chunk=2**31),
        r"cameras\[1\].chunk: .* below 2147483648; got 2147483648",
    ),
    (lambda v: v["cameras"][1].update(name="front"), "cameras: expected names that differ, .*front, front"),
    (lambda v: v["cameras"][1].update(name="action"), "cameras: expected names .* none of action, state"),
    (
        lambda v: v["shards"][0].update(name="../../etc/passwd"),
        r"shards\[0\].name: expected one like shards/",
    ),
    (lambda v: v["shards"][0].update(name="/shards/train-00000.tar"), r"shards\[0\].name: "),
    (lambda v: v["shards"][0].update(name="shards/train-00000.tar\n"), r"shards\[0\].name: "),
    (
        lambda v: v["shards"][0].update(name="shards/train-\u0661\u0661\u0661\u0661\u0661.tar"),
        r"shards\[0\].name: ",
    ),
    (
        lambda v: v["shards"][0].update(chunks="../x"),
        r"shards\[0\].chunks: expected 'shards/train-00000.chunks",
    ),
    (lambda v: v["shards"].append(v["shards"][0]), r"shards\[1\].name: expected .* once; got"),
    (lambda v: v["tables"].pop("rejected.parquet"), "tables: rejected.parquet is missing"),
    (lambda v: v["tables"].update({"../x": v["tables"]["episodes.parquet"]}), "tables: .* got '../x'"),
    (
        lambda v: v["tables"]["episodes.parquet"].update(file="../episodes.parquet"),
        'tables.episodes.parquet.file: expected a file of that table, got "../episodes.parquet"',
    ),
    (
        lambda v: v["tables"]["episodes.parquet"].update(file="rejected-0123456789abcdef.parquet"),
        "tables.episodes.parquet.file: expected a file of that table",
    ),
    (
        lambda v: v["tables"]["episodes.parquet"].update(file=None),
        "tables.episodes.parquet.file: .* got null",
    ),
    (lambda v: v["config"]["source"].pop("cameras"), "config.source.cameras: is missing"),
    (lambda v: v["config"]["source"]["cameras"].pop("wrist"), "config.source.cameras: .*, wrist, got front$"),
    (lambda v: v["config"]["source"].update(state="x"), "config.source.state: expected a list"),
    (lambda v: v["config"]["source"].update(name=3), "config.source.name: expected text, got 3"),
    (lambda v: v["config"]["source"].update(source_splits=[1]), r"config.source.source_splits\[0\]: "),
    (lambda v: v["config"]["source"]["columns"].pop("state"), "config.source.columns.state: is missing"),
    (lambda v: v["config"]["source"].update(no_action=["middle"]), "config.source.no_action: expected first"),
    (lambda v: v["config"]["source"].update(no_action=["last", "last"]), "config.source.no_action: "),
    (lambda v: v["config"]["source"].update(no_action=["last", "first"]), "config.source.no_action: "),
    (lambda v: v["config"].update(transcoded_from={}), "config.transcoded_from: expected a list, got {}"),
    (lambda v: v["config"].update(parents=[1]), r"config.parents\[0\]: expected text, got 1"),
    (lambda v: v["versions"].update(numpy=2), "versions.numpy: expected text, got 2"),
    (lambda v: v.update(config=None), "config: expected an object, got null"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_field_of_another_type_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    changed = copy.deepcopy(VALUE)
    change(changed)
    with pytest.raises(CorruptError, match=f"^{tmp_path}/manifest.json: {message}"):
        read(tmp_path, changed)


def test_a_long_value_is_not_repeated_in_full(tmp_path: Path) -> None:
    with pytest.raises(CorruptError) as caught:
        read(tmp_path, VALUE | {"plan": ["x" * 10_000]})
    assert len(str(caught.value)) < len(str(tmp_path)) + 200


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"not json",
        b"[]",
        b"3",
        b"null",
        b'"oxcart/2"',
        b"{}",
        b'{"format": "oxcart/2"',
        b"\xff\xfe\x00",
        b'{"format": "oxcart/2", "x": "\xff"}',
        json.dumps(VALUE).encode()[:-1],
        json.dumps(VALUE | {"plan": "\ud800"}).encode(),
        json.dumps(VALUE | {"config": {"x": float("nan")}}).encode(),
        json.dumps(VALUE | {"pixels": {"x": float("-inf")}}).encode(),
        b'{"format": "oxcart/2", "config": 1e999}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"format": ' + b"1" * 10_000 + b"}",
    ],
)
def test_what_cannot_be_parsed_is_corrupt(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CorruptError, match=f"^{tmp_path}/manifest.json: [^\n]+$"):
        read(tmp_path, data)


@pytest.mark.parametrize("other", ["oxcart/3", "oxcart/20", "oxcart", "", None, 1, ["oxcart/1"]])
def test_another_format_is_the_users_to_solve(tmp_path: Path, other: object) -> None:
    with pytest.raises(ConfigError, match="expected 'oxcart/2'; use the oxcart that wrote it"):
        read(tmp_path, {**VALUE, "format": other})
    with pytest.raises(ConfigError, match="use the oxcart"):
        read(tmp_path, {"format": other})


def test_the_format_before_is_refused_in_a_line_that_says_to_compile_again(tmp_path: Path) -> None:
    said = (
        f"{tmp_path}: format 'oxcart/1', expected 'oxcart/2'; "
        "compile its source again with --overwrite or into another directory; its manifest.json says under "
        '"config" with which options it was compiled, and a transcode cannot convert it'
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}$"):
        read(
            tmp_path,
            {name: value for name, value in VALUE.items() if name != "order"} | {"format": "oxcart/1"},
        )


def test_no_manifest_is_no_dataset(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            ConfigError, match=r"no manifest\.json, so not a compiled dataset; compile a source"
        ):
            read_manifest(Store(folder))
    (tmp_path / ".oxcart").mkdir()
    (tmp_path / ".oxcart/plan.json").write_text("{}")
    with pytest.raises(ConfigError, match="its compile has not finished; run it again"):
        read_manifest(Store(tmp_path))
    (tmp_path / NAME).mkdir()
    with pytest.raises(ConfigError, match=r"no manifest\.json"):
        read_manifest(Store(tmp_path))


class Contested(Store):
    """A store that another process claims after the first look at it."""

    def read(self, name: str, most: int | None = None) -> bytes:
        try:
            return super().read(name, most)
        finally:
            self.create(CLAIM, b'{"plan": "p"}')


class Unreadable(Store):
    """A store whose objects exist and cannot be read."""

    def read(self, name: str, most: int | None = None) -> bytes:
        raise StoreError(f"{name}: read: refused")


def test_a_claim_that_is_made_meanwhile_is_read(tmp_path: Path) -> None:
    assert read_claim(Contested(tmp_path)) == {"plan": "p"}


def test_a_claim_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    Store(tmp_path).put(CLAIM, b'{"plan": "p"}')
    with pytest.raises(StoreError, match=f"^{CLAIM}: read: refused$"):
        read_claim(Unreadable(tmp_path))


def test_a_claim_is_an_object_or_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert read_claim(store) is None
    store.put(CLAIM, b'{"plan": "p", "shards": ["train-00000"]}')
    assert read_claim(store) == {"plan": "p", "shards": ["train-00000"]}
    for damaged in (b"", b'{"plan": ', b"[1]", b"null", b"\xff", b"[" * 100_000):
        store.put(CLAIM, damaged)
        with pytest.raises(CorruptError, match=f"^{tmp_path}/{CLAIM}: [^\n]+$"):
            read_claim(store)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from(list(VALUE)),
)
def test_a_field_of_any_value_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, value: Any, field: str
) -> None:
    folder = tmp_path_factory.mktemp("manifest", numbered=True)
    try:
        manifest = read(folder, VALUE | {field: value})
    except OxcartError as error:
        message = str(error)
        assert message
    else:
        assert getattr(manifest, field) == value


def test_a_camera_by_name() -> None:
    manifest = Manifest(**VALUE)
    assert manifest.camera("primary") is manifest.camera("front") is manifest.cameras[0]
    assert manifest.camera("wrist") is manifest.cameras[1]
    cameras = [{**manifest.cameras[i], "role": role} for i, role in enumerate(("wrist", "secondary"))]
    manifest = replace(manifest, cameras=cameras)
    assert manifest.camera("wrist") is cameras[1]  # by its name
    assert manifest.camera("secondary") is cameras[1]
    assert manifest.camera("primary") is cameras[0]  # the first, as none is said to be
    with pytest.raises(
        ConfigError, match=r"camera 'side': the dataset has front \(wrist\), wrist \(secondary\)$"
    ):
        manifest.camera("side")


# Digests that papers cite

PIXELS = {
    "cameras": [{"name": "front", "codec": "jpeg", "quality": 95, "chunk": 1}],
    "size": None,
    "fit": "stretch",
    "filter": "bilinear",
}
EPISODES = [("a-train-00000-000000", "train", "00" * 16), ("a-train-00000-000001", "val", "ff" * 16)]


DELTAS: dict[str, Any] = {"action": {"columns": [column("dx")], "size": 1}, "state": None, "reward": None}


def mark(pixels: dict[str, Any], episodes: Iterable[tuple[str, str, str]]) -> str:
    return fingerprint(pixels, DELTAS, ["last"], episodes)


def test_the_fingerprint_is_the_sha256_of_canonical_json() -> None:
    text = (
        '{"columns":{"action":[{"frame":null,"kind":"delta","name":"dx","unit":"m"}],"reward":null,'
        '"state":null},"episodes":[["a-train-00000-000000","train","'
        + "00" * 16
        + '"],["a-train-00000-000001","val","'
        + "ff" * 16
        + '"]],"format":"oxcart/2","no_action":["last"],"pixels":{"cameras":['
        '{"chunk":1,"codec":"jpeg","name":"front","quality":95}],"filter":"bilinear",'
        '"fit":"stretch","size":null}}'
    )
    assert mark(PIXELS, EPISODES) == hashlib.sha256(text.encode()).hexdigest()
    assert mark(PIXELS, iter(EPISODES)) == mark(PIXELS, EPISODES)
    assert mark(dict(reversed(PIXELS.items())), EPISODES) == mark(PIXELS, EPISODES)


def test_the_fingerprint_covers_how_each_camera_is_stored() -> None:
    camera = {"name": "front", "source": "steps/front", "height": 4, "width": 6, "codec": "jpeg"}
    camera |= {"quality": 95, "chunk": 1}
    assert encoded_as({**PIXELS, "cameras": ["front"]}, [camera]) == PIXELS
    for name, value in (("codec", "raw"), ("quality", 90), ("chunk", 2)):
        other = encoded_as(PIXELS, [{**camera, name: value}])
        assert mark(other, EPISODES) != mark(PIXELS, EPISODES)


def test_the_fingerprint_covers_what_columns_mean_and_which_steps_hold_no_action() -> None:
    arrays = [DELTAS, {**DELTAS, "state": DELTAS["action"], "action": None}]
    arrays += [
        {**DELTAS, "action": {"columns": [{**column("dx"), name: "x"}]}}
        for name in ("name", "kind", "unit", "frame")
    ]
    changed = [(one, ends) for one in arrays for ends in ([], ["first"], ["last"], ["first", "last"])]
    assert len({fingerprint(PIXELS, *both, EPISODES) for both in changed}) == len(changed)
    other = {**DELTAS, "action": {**DELTAS["action"], "statistics": STATISTICS}}
    assert fingerprint(PIXELS, other, ["last"], EPISODES) == mark(PIXELS, EPISODES)


def test_golden_fingerprints() -> None:
    assert mark(PIXELS, EPISODES) == "de1622f0bbf5b56750c4f383f6b2fff3a22e55a5871a9ef2a4f547f8dbcec956"
    assert mark({}, []) == "259504d2c208687871df3eb258b1409ec0c68df097348b0e5aaca16c3ba0028c"
    assert (
        mark({"camera": "küche"}, [("ключ", "train", "")])
        == "b593d44fbf7446725835ba7cfd3bedbc2bd9a742cdfdcb2395d65b87ee1f6772"
    )


def test_the_fingerprint_changes_with_everything_in_it() -> None:
    one, two = EPISODES
    changed: list[tuple[dict[str, Any], list[tuple[str, str, str]]]] = [
        (PIXELS, EPISODES),
        (PIXELS, [two, one]),
        (PIXELS, [one]),
        (PIXELS, [one, two, two]),
        (PIXELS, []),
        (PIXELS, [("b" + one[0][1:], *one[1:]), two]),
        (PIXELS, [(one[0], "test", one[2]), two]),
        (PIXELS, [(*one[:2], "01" + one[2][2:]), two]),
        (PIXELS, [(one[0], two[1], one[2]), (two[0], one[1], two[2])]),
        *(({**PIXELS, name: "x"}, EPISODES) for name in PIXELS),
        *(({n: v for n, v in PIXELS.items() if n != name}, EPISODES) for name in PIXELS),
        ({**PIXELS, "more": None}, EPISODES),
        ({**PIXELS, "size": [4, 6]}, EPISODES),
        ({**PIXELS, "size": [6, 4]}, EPISODES),
    ]
    assert len({mark(*arguments) for arguments in changed}) == len(changed)


@given(st.lists(st.lists(st.tuples(*[st.text(max_size=3)] * 3), max_size=3), min_size=2, max_size=4))
def test_no_two_lists_of_episodes_share_a_fingerprint(lists: list[list[tuple[str, str, str]]]) -> None:
    for one, two in itertools.combinations(lists, 2):
        assert (mark(PIXELS, one) == mark(PIXELS, two)) == (one == two)


SAMPLES = [("a-train-00000-000000", "train", 9, 3), ("a-train-00000-000001", "val", 2, 2**64 - 1)]


def test_the_order_is_the_sha256_of_canonical_json_and_names_no_format(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = b'[["a-train-00000-000000","train",9,3],["a-train-00000-000001","val",2,18446744073709551615]]'
    golden = "6c899c273ec2b2a5b9bc91ed2ce7d7ffa4b569471828c6c12bb3c516ffe132aa"
    assert order(SAMPLES) == order(iter(SAMPLES)) == hashlib.sha256(text).hexdigest() == golden
    assert order([]) == hashlib.sha256(b"[]").hexdigest()
    before = mark(PIXELS, EPISODES)
    monkeypatch.setattr(manifest_module, "FORMAT", "oxcart/9")
    assert order(SAMPLES) == golden
    assert mark(PIXELS, EPISODES) != before


def test_the_order_changes_with_everything_in_it() -> None:
    one, two = SAMPLES
    changed: list[list[tuple[str, str, int, int]]] = [
        SAMPLES,
        [two, one],
        [one],
        [one, two, two],
        [],
        [("b" + one[0][1:], *one[1:]), two],
        [(one[0], "test", *one[2:]), two],
        [(*one[:2], 8, one[3]), two],
        [(*one[:3], 4), two],
    ]
    assert len({order(episodes) for episodes in changed}) == len(changed)


def test_the_digest_of_an_episode() -> None:
    members = {"json": [1], "action.npy": [2], "front.npy": [3, 2**64 - 1]}
    text = b'{"action.npy":[2],"front.npy":[3,18446744073709551615],"json":[1]}'
    assert episode_digest(members) == blake3(text).hexdigest()[:32] == "c038772998b4c1bc18f99cefbb5b24b8"
    assert episode_digest(dict(reversed(members.items()))) == episode_digest(members)
    others = [
        {**members, "front.npy": [2**64 - 1, 3]},
        {**members, "front.npy": [3]},
        {**members, "front.tzst": members["front.npy"], "front.npy": []},
        {**members, "json": [0]},
        {"json": [1]},
    ]
    assert len({episode_digest(other) for other in [members, *others]}) == 6
