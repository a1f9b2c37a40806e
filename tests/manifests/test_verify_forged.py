"""A manifest or a table that lies, though every digest may agree: verify says so and does not fall over."""

from __future__ import annotations

import contextlib
import json
import math
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from broken_dataset import (
    MANIFEST,
    flipped,
    found,
    holding,
    names,
    read_manifest,
    reasons,
    seal,
    write_manifest,
)
from depth import depth
from oxcart.manifests.columns import ARRAYS
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import episode_digest
from oxcart.manifests.verify import Damage, verify
from oxcart.shards.errors import CorruptError, OxcartError
from oxcart.train.data.index import SplitIndex
from sample_compile import CAMERAS

# A manifest that lies

UNCHECKED = {"config", "versions", "plan", "dataset", "control_rate", *ARRAYS}
"""Statements that nothing else in the dataset bears out, but for what the fingerprint covers of them."""


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in inside:
        yield from leaves(inner, (*path, name))
    if not isinstance(value, dict | list):
        yield path, value


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        value = value[name]
    return value


def test_any_false_statement_is_found(intact: Path) -> None:
    manifest = read_manifest(intact)
    statements = list(leaves(manifest))
    assert len(statements) > 100
    for path, value in statements:
        unchecked = path[0] in UNCHECKED and path[1:2] != ("columns",)
        if unchecked or path[0] == "format" or path[-1] == "source" or path[:2] == ("shards", 1):
            continue
        lie = value + 1 if isinstance(value, int) else f"{value}x"
        changed = json.loads(json.dumps(manifest))
        at(changed, path[:-1])[path[-1]] = lie
        with holding(intact / MANIFEST, json.dumps(changed).encode()):
            try:
                said = str(found(intact) or "")
            except OxcartError as error:
                said = str(error)
        assert said, (path, lie)


def test_a_false_count_says_both_numbers(root: Path) -> None:
    manifest = read_manifest(root)
    frames = manifest["splits"]["val"]["frames"]
    manifest["splits"]["val"]["frames"] += 1
    write_manifest(root, manifest)
    (reason,) = reasons(root, MANIFEST)
    assert reason.startswith("splits: the manifest says ")
    assert f"'frames': {frames + 1}" in reason
    assert f"'frames': {frames}," in reason


def test_an_order_that_the_episodes_do_not_give_is_found(root: Path) -> None:
    manifest = read_manifest(root)
    order = manifest["order"]
    write_manifest(root, {**manifest, "order": "0" * 64})
    assert reasons(root, MANIFEST) == [f"order: the manifest says {'0' * 64}, the tables {order}"]


def test_other_steps_without_action_are_found_by_the_fingerprint_too(root: Path) -> None:
    manifest = read_manifest(root)
    manifest["config"]["source"]["no_action"] = ["first"]
    write_manifest(root, manifest)
    (reason,) = (one.reason for one in found(root) if one.file == MANIFEST)
    assert reason.startswith(f"fingerprint: the manifest says {manifest['fingerprint']}, the tables ")


@pytest.mark.parametrize("part", ["offset", "digest", "start", "stop"])
def test_an_episode_with_a_part_of_its_actions_is_refused(root: Path, part: str) -> None:
    rewrite(root, "episodes.parquet", lambda rows: rows[0].update({f"action.{part}": None}))
    seal(root)
    said = f"{root}/episodes.parquet: columns action.offset, action.digest, action.start, action.stop of an"
    assert reasons(root, "episodes.parquet")[0].startswith(said)
    with pytest.raises(CorruptError, match="of an episode are null apart"):
        SplitIndex(Dataset.open(str(root)), "train", arrays=("action",))


def test_an_episode_without_the_arrays_of_the_manifest_is_refused(root: Path) -> None:
    nothing = dict.fromkeys(f"action.{part}" for part in ("offset", "digest", "start", "stop"))
    rewrite(root, "episodes.parquet", lambda rows: rows[0].update(nothing))
    seal(root)
    count = len(pq.read_table(root / "episodes.parquet"))
    said = f"1 of {count} episodes have no action, but the manifest says that all have it"
    assert reasons(root, "episodes.parquet") == [f"{root}/episodes.parquet: {said}"]
    with pytest.raises(CorruptError, match=said):
        SplitIndex(Dataset.open(str(root)), "train", arrays=("action",))
    manifest = read_manifest(root)
    write_manifest(root, {**manifest, "action": None})
    said = f"1 of {count} episodes have no action, but the manifest says that none have it"
    assert Damage("episodes.parquet", f"{root}/episodes.parquet: {said}") in found(root)


def test_a_false_row_of_a_list_is_said_alone(root: Path) -> None:
    manifest = read_manifest(root)
    manifest["environments"][1]["name"] = "moon"
    write_manifest(root, manifest)
    (reason,) = reasons(root, MANIFEST)
    assert reason.startswith("environments[1]: the manifest says {'name': 'moon'")
    assert manifest["environments"][0]["name"] not in reason


def test_an_environment_too_few_is_found(root: Path) -> None:
    manifest = read_manifest(root)
    del manifest["environments"][-1]
    write_manifest(root, manifest)
    (reason,) = reasons(root, MANIFEST)
    assert reason.startswith("environments[2]: the manifest says nothing, the tables {")


def test_a_shard_that_is_gone_from_manifest_and_folder_is_found(root: Path) -> None:
    manifest = read_manifest(root)
    gone = manifest["shards"].pop()
    write_manifest(root, manifest)
    for what in ("name", "chunks"):
        (root / gone[what]).unlink()
    (reason,) = reasons(root, MANIFEST)
    assert reason.startswith("shards[2]: the manifest says nothing, the tables {'shard': 'val-00000'")


def test_shards_in_another_order_are_found(root: Path) -> None:
    manifest = read_manifest(root)
    manifest["shards"].reverse()
    write_manifest(root, manifest)
    assert reasons(root, MANIFEST)[0].startswith("shards[0]: ")


def test_cameras_in_another_order_or_of_another_name_are_found(root: Path) -> None:
    manifest = read_manifest(root)

    def write() -> None:
        """The source is said to have been read for these cameras, or the manifest itself is refused."""
        cameras = {camera["name"]: camera["source"] for camera in manifest["cameras"]}
        manifest["config"]["source"]["cameras"] = cameras
        write_manifest(root, manifest)

    manifest["cameras"].reverse()
    write()
    assert found(root)
    manifest["cameras"][0]["name"] = "moon"
    write()
    assert "episodes.parquet" in names(found(root))
    del manifest["cameras"][0]
    write()
    assert "episodes.parquet" in names(found(root))


# Files whose digests were forged


def rewrite(root: Path, name: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the rows of a table."""
    table = pq.read_table(root / name)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), root / name)


FREE = {
    "environment_known",
    "session",
    "instruction",
    "control_rate",
    "success",
    "terminal",
    "source_split",
    "source_file",
    "source_record",
    "source_offset",
    "source_length",
    "source_digest",
}
"""Columns that verify cannot hold against anything but the digest of their table (the environment's counts
also show how it is known)."""


@pytest.mark.system
def test_a_forged_episode_table_is_found_wherever_shards_speak_against_it(intact: Path) -> None:
    schema = pq.read_schema(intact / "episodes.parquet")
    kept = {name: (intact / name).read_bytes() for name in ("episodes.parquet", MANIFEST)}
    for field in schema:
        now = pq.read_table(intact / "episodes.parquet")[field.name].to_pylist()[-1]
        forged: list[Any] = [None]
        if pa.types.is_integer(field.type) and field.name not in FREE:
            forged += [0, now + 1, 2 ** (field.type.bit_width - 1) - 1]
            forged += [-1] if pa.types.is_signed_integer(field.type) else []
        elif pa.types.is_string(field.type):
            forged += ["", now + "x"]
        for value in [value for value in forged if value != now]:
            rewrite(intact, "episodes.parquet", lambda rows, f=field.name, v=value: rows[-1].update({f: v}))  # type: ignore[misc]
            with contextlib.suppress(TypeError, UnicodeError):  # no fingerprint of nothing
                seal(intact)
            damage = found(intact)
            assert damage or field.name in FREE, (field.name, value)
            for name, data in kept.items():
                (intact / name).write_bytes(data)
    assert found(intact) == []


def test_a_table_with_other_columns_is_found(root: Path) -> None:
    for name in ("episodes.parquet", "rejected.parquet", "values.parquet"):
        table = pq.read_table(root / name)
        for other in (
            table.drop_columns(table.column_names[:1]),
            table.append_column("more", pa.nulls(table.num_rows, pa.int32())),
            table.select(table.column_names[::-1]),
            pa.table({"x": [1, 2]}),
        ):
            kept = (root / name).read_bytes(), (root / MANIFEST).read_bytes()
            pq.write_table(other, root / name)
            seal(root, fingerprinted=False)
            reason = f"{root}/{name}: its columns are not those of the format"
            assert Damage(name, reason) in found(root)
            (root / name).write_bytes(kept[0])
            (root / MANIFEST).write_bytes(kept[1])


def test_what_is_no_table_is_found(root: Path) -> None:
    for name, digest in (("episodes.parquet", "blake3"), ("rejected.parquet", "blake3")):
        (root / name).write_bytes(b"PAR1 but no more")
        manifest = read_manifest(root)
        manifest["tables"][name] |= {digest: blake3(b"PAR1 but no more").hexdigest(), "bytes": 16}
        write_manifest(root, manifest)
    assert names(found(root)) == {"episodes.parquet", "rejected.parquet"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: rows.clear(), "its columns are not those that have statistics"),
        (lambda rows: rows.append({**rows[-1], "column": 3}), "its columns are not those that"),
        (lambda rows: rows.append({**rows[-1], "column": 2**31 - 1}), "its columns are not those that"),
        (lambda rows: rows.append(rows[-1]), "its bins are not sorted, or one has two rows"),
        (lambda rows: rows.reverse(), "its bins are not sorted"),
        (lambda rows: rows[-1].update(array="value"), "column array: expected only action, state, reward"),
        (lambda rows: rows[-1].update(array=None), "column array lacks values"),
        (lambda rows: rows[0].update(column=-1), "column column holds -1 to 2, an impossible number"),
        (lambda rows: rows[0].update(count=0), "column count holds 0 to .* an impossible number"),
        (lambda rows: rows[0].update(count=2**60), "column count holds 1 to .* an impossible number"),
        (lambda rows: [row.update(count=2**60 - 1) for row in rows], "its counts are impossible numbers"),
        (lambda rows: rows[0].update(least=math.nan), "holds a value that is NaN or infinite"),
        (lambda rows: rows[0].update(least=-math.inf, greatest=-math.inf), "NaN or infinite"),
        (lambda rows: rows[-1].update(greatest=math.inf), "NaN or infinite"),
        (lambda rows: rows[0].update(least=rows[0]["least"] - 1), "not those of one bin"),
        (lambda rows: rows[-1].update(least=1.0001, greatest=1.0), "not those of one bin"),
        (lambda rows: rows.pop(0), "contradicts action.statistics.count of the manifest"),
        (lambda rows: rows[-1].update(count=9), "contradicts reward.statistics.count of the manifest"),
        (lambda rows: rows[0].update(count=9), "contradicts action.statistics.count of the manifest"),
        (lambda rows: rows[0].update(least=-5, greatest=-5), r"contradicts action.statistics.min\[0\] of"),
    ],
)
def test_a_forged_table_of_values_is_found(
    root: Path, change: Callable[[list[dict[str, Any]]], object], why: str
) -> None:
    rewrite(root, "values.parquet", change)
    seal(root)
    (damage,) = found(root)
    assert damage.file == "values.parquet" or damage.reason.startswith("values.parquet: ")
    with pytest.raises(CorruptError, match=rf"/values.parquet: .*{why}"):
        Dataset.open(str(root)).values()


@pytest.mark.parametrize("name", ["count", "min", "q01", "q10", "q50", "q90", "q99", "max"])
def test_statistics_that_contradict_the_values_are_found(root: Path, name: str) -> None:
    manifest = read_manifest(root)
    stated = manifest["state"]["statistics"]
    if name == "count":
        stated[name] += 1
    else:
        stated[name][1] += -6e-4 if name in ("min", "q90", "q99") else 6e-4  # the order stays
    write_manifest(root, manifest)
    where = name if name == "count" else f"{name}[1]"
    reason = f"values.parquet: contradicts state.statistics.{where} of the manifest"
    assert reasons(root, MANIFEST) == [reason]


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.clear(),
        lambda rows: rows.pop(),
        lambda rows: rows.append(rows[0]),
        lambda rows: rows.append({**rows[0], "camera": "moon"}),
        lambda rows: rows.__setitem__(1, rows[0]),
        lambda rows: rows[0].update(key="moon"),
        lambda rows: rows[0].update(camera="moon"),
        lambda rows: rows[0].update(key=None),
        lambda rows: rows[0].update(camera=None),
        lambda rows: rows[0].update(digests=None),
        lambda rows: rows[0].update(digests=[]),
        lambda rows: rows[0]["digests"].pop(),
        lambda rows: rows[0]["digests"].append(0),
        lambda rows: rows[0]["digests"].reverse(),
        lambda rows: rows[0]["digests"].__setitem__(1, None),
        lambda rows: rows[0].update(sizes=[]),
        lambda rows: rows[0].update(sizes=[None] * 4),
        lambda rows: rows[0].update(sizes=[0] * 1000),
        lambda rows: rows[0].update(sizes=[2**32 - 1]),
        lambda rows: rows[0].update(sizes=[1] * 4),
    ],
)
def test_a_forged_chunk_table_is_found(root: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    rewrite(root, "shards/val-00000.chunks.parquet", change)
    seal(root)
    assert names(found(root)) & {"shards/val-00000.chunks.parquet", "shards/val-00000.tar"}


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE, form: Any = tarfile.USTAR_FORMAT) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = (
        size,
        kind,
        "x" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else "",
    )
    return info.tobuf(form, "utf-8", "surrogateescape")


@pytest.mark.parametrize(
    "forge",
    [
        lambda key, size: header(f"{key}.moon.npy", size),
        lambda key, size: header(f"{key}.json.npy", size),
        lambda key, size: header(f"{key}.", size),
        lambda key, size: header(key, size),
        lambda key, size: header(f"{key}x.json", size),
        lambda key, size: header(f"x/{key}.json", size),
        lambda key, size: header(f"{key}.action.npy", size),
        lambda key, size: header(f"{key}.json", size - 1),
        lambda key, size: header(f"{key}.json", size + 1),
        lambda key, size: header(f"{key}.json", 0),
        lambda key, size: header(f"{key}.json", 8**11 - 1),
        lambda key, size: header(f"{key}.json", 2**63, form=tarfile.GNU_FORMAT),
        lambda key, size: header(f"{key}.json", 2**87, form=tarfile.GNU_FORMAT),
        lambda key, size: header(f"{key}.json", -512, form=tarfile.GNU_FORMAT),
        lambda key, size: header(f"{key}.json", size, tarfile.DIRTYPE),
        lambda key, size: header(f"{key}.json", size, tarfile.SYMTYPE),
        lambda key, size: header(f"{key}.json", size, tarfile.LNKTYPE),
        lambda key, size: header(f"{key}.json", size, tarfile.XHDTYPE),
        lambda key, size: header(f"{key}.json", size, tarfile.GNUTYPE_LONGNAME),
        lambda key, size: header(f"{key}.json", size, tarfile.GNUTYPE_SPARSE),
        lambda key, size: header(f"{key}.json", size, b"\xff"),
        lambda key, size: header(f"{key}\udcff.json", size),
        lambda key, size: bytes(512),
    ],
)
def test_a_forged_tar_header_is_found(root: Path, forge: Callable[[str, int], bytes]) -> None:
    row = pq.read_table(root / "episodes.parquet").to_pylist()[0]
    path = root / f"shards/{row['shard']}.tar"
    data = path.read_bytes()
    assert row["offset"] == 0
    with tarfile.open(path) as tar:
        first = tar.getmembers()[0]
    forged = forge(row["key"], first.size)
    assert len(forged) == 512
    path.write_bytes(forged + data[512:])
    assert len(reasons(root, f"shards/{row['shard']}.tar")) == 1
    seal(root)
    assert len(reasons(root, f"shards/{row['shard']}.tar")) == 1


def insert(root: Path, extra: bytes, *, owned: bool) -> list[dict[str, Any]]:
    """Put bytes between the two episodes of a shard, of which all tables know; returns the episodes."""
    table = pq.read_table(root / "episodes.parquet").to_pylist()
    first, second = (row for row in table if row["shard"] == "val-00000")
    path = root / "shards/val-00000.tar"
    data = path.read_bytes()
    path.write_bytes(data[: second["offset"]] + extra + data[second["offset"] :])

    def grow(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["key"] == first["key"] and owned:
                row["bytes"] += len(extra)
            elif row["key"] == second["key"]:
                for what in ("offset", *(f"{name}.offset" for name in (*ARRAYS, *CAMERAS))):
                    row[what] += len(extra)

    rewrite(root, "episodes.parquet", grow)
    seal(root)
    return [first, second]


def test_bytes_that_belong_to_no_episode_are_found(root: Path) -> None:
    _, second = insert(root, bytes(512), owned=False)
    assert reasons(root, "shards/val-00000.tar") == [
        f"{second['key']}: begins at {second['offset'] + 512}, expected {second['offset']}"
    ]


def test_a_member_too_many_is_found(root: Path) -> None:
    row = pq.read_table(root / "episodes.parquet").to_pylist()[-2]
    insert(root, header(f"{row['key']}.moon.npy", 512) + bytes(512), owned=True)
    (reason,) = (one.reason for one in found(root) if one.file == "shards/val-00000.tar")
    assert reason == (
        f"{row['key']}: expected json, action.npy, state.npy, reward.npy, image_0.npy, wrist.npy; "
        "has json, action.npy, state.npy, reward.npy, image_0.npy, wrist.npy, moon.npy"
    )


def test_a_forgery_that_changes_a_digest_changes_the_fingerprint(root: Path) -> None:
    """Metadata changed together with every digest but the fingerprint."""
    row = pq.read_table(root / "episodes.parquet").to_pylist()[0]
    path = root / f"shards/{row['shard']}.tar"
    with tarfile.open(path) as tar:
        first = tar.getmembers()[0]
    path.write_bytes(flipped(path.read_bytes(), first.offset_data + 30))
    rewrite(root, "episodes.parquet", lambda rows: rows[0].update(digest=episode_digest({"json": [1]})))
    seal(root, fingerprinted=False)
    assert MANIFEST in names(found(root))


# A manifest that is none


def mutations(manifest: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Where and what: the manifest with a value dropped, or of another type."""

    def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        if path:
            yield path
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from paths(inner, (*path, name))
        elif isinstance(value, list) and value:
            yield from paths(value[-1], (*path, len(value) - 1))

    for path in paths(manifest):
        change: Any
        for change in ("drop", None, -1, "x", [[]], {"x": {}}):
            changed = json.loads(json.dumps(manifest))
            inside = at(changed, path[:-1])
            if change == "drop":
                del inside[path[-1]]
            else:
                inside[path[-1]] = change
            yield f"{path} {change!r}", changed


@pytest.mark.system
def test_a_mutated_manifest_is_refused_or_found_or_harmless(intact: Path) -> None:
    refused = []
    for what, changed in mutations(read_manifest(intact)):
        with holding(intact / MANIFEST, json.dumps(changed).encode()):
            try:
                dataset = Dataset.open(str(intact))
            except OxcartError as error:
                refused.append(str(error))
                continue
            if not what.startswith(("('config'", "('versions'")):
                verify(dataset)
    assert len(refused) > 300
    assert not [message for message in refused if "\n" in message or str(intact) not in message]


@depth(100)
@given(share=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), cut=st.booleans())
def test_any_bytes_of_a_manifest_are_refused_or_held_against_the_files(
    intact: Path, share: float, bits: int, cut: bool
) -> None:
    data = (intact / MANIFEST).read_bytes()
    position = int(share * len(data))
    with (
        holding(intact / MANIFEST, data[:position] if cut else flipped(data, position, bits)),
        contextlib.suppress(OxcartError),
    ):
        found(intact)
