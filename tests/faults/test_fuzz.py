"""Every reader gives data or an `OxcartError` of one line for any bytes, in bounded memory.

The bytes are random, or those of a valid file with bits turned, pieces cut out, repeated, or overwritten with
extreme lengths. Where a digest would stop them at the door, the forger states the digest of what he made.
The system bounds memory: two GiB more than the process has, and an allocation fails, and so does the test.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broken_dataset import seal
from oxcart.compile import census
from oxcart.compile.frames import encode_frames
from oxcart.compile.images import ImageError, Resize, decode_into
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.sources.rlds import tfrecord
from oxcart.compile.workspace import claimed_plan, read_done, unfinished_claim
from oxcart.compile.workspace import seal as sealed
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import CLAIM, NAME, read_manifest
from oxcart.manifests.tables import EPISODES, parse_table, table_bytes
from oxcart.manifests.verify import verify
from oxcart.shards.codec import CHUNK_FRAMES, IMAGE_CODECS, Encoding, decode, encode
from oxcart.shards.errors import OxcartError
from oxcart.shards.names import rows_name
from oxcart.shards.store import Store
from oxcart.train.data.loader import Loader
from oxcart.train.data.sampling import Pairs
from sample_compile import FIRST, Compiled, examples, one_line

EXTREMES = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63 - 1, 2**63, 2**64 - 1]
MEMORY = 2 << 30


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """No more memory than `MEMORY` beyond what the process has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


AMOUNTS = pytest.mark.parametrize("amount", [1, pytest.param(8, marks=pytest.mark.system)])


def fuzz(check: Callable[..., None], examples: int, **strategies: st.SearchStrategy[Any]) -> None:
    """Run a check with so many examples, the same every time."""
    options = settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    options(given(**strategies)(check))()


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Valid bytes after a few accidents; seldom quite other bytes."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=300))
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        match draw(st.sampled_from(["bits", "byte", "length", "cut", "drop", "repeat", "insert"])):
            case "bits" if changed:
                changed[at] ^= 1 << draw(st.integers(0, 7))
            case "byte" if changed:
                changed[at] = draw(st.integers(0, 255))
            case "length":
                size, order = draw(st.sampled_from(["<Q", ">Q", "<I", ">I"])), draw(st.sampled_from(EXTREMES))
                changed[at : at + struct.calcsize(size)] = struct.pack(
                    size, order % (1 << 8 * struct.calcsize(size))
                )
            case "cut":
                del changed[at:]
            case "drop":
                del changed[at : at + draw(st.integers(1, 64))]
            case "repeat":
                changed[at:at] = changed[at : at + draw(st.integers(1, 64))]
            case "insert":
                changed[at:at] = draw(st.binary(max_size=16))
    return bytes(changed)


@contextlib.contextmanager
def holding(file: Path, data: bytes) -> Iterator[None]:
    """The file holds other bytes for a while."""
    before = file.read_bytes()
    file.write_bytes(data)
    try:
        yield
    finally:
        file.write_bytes(before)


@contextlib.contextmanager
def said() -> Iterator[None]:
    """An `OxcartError` is an answer, if it is one line."""
    try:
        yield
    except OxcartError as error:
        one_line(error)


@pytest.fixture
def source(six_episodes: Compiled, tmp_path: Path) -> Path:
    """A source of a test's own."""
    whole = six_episodes.source
    return Path(shutil.copytree(whole, tmp_path / whole.parent.name / whole.name))


@AMOUNTS
def test_records(source: Path, amount: int) -> None:
    file, store = source / FIRST, Store(source)
    whole = file.read_bytes()

    def check(data: bytes) -> None:
        with holding(file, data):
            for number, record in enumerate(tfrecord.scan(store, FIRST)):
                assert record.offset + record.length <= len(data)
                if record.error is None:
                    again = tfrecord.read_record(store, FIRST, record.offset, record.length, number)
                    assert again == record.data
        with holding(file, data), said():
            tfrecord.read_record(store, FIRST, 0, struct.unpack_from("<Q", whole)[0], 0)

    fuzz(check, 150 * amount, data=mutated(whole))


@pytest.mark.parametrize("length", EXTREMES)
def test_no_length_of_a_record_takes_memory_or_time(source: Path, length: int) -> None:
    """Its own checksum bears it out."""
    header = struct.pack("<Q", length)
    framed = io.BytesIO()
    tfrecord.write_record(framed, header)
    checksum = framed.getvalue()[-4:]  # of those eight bytes
    (source / FIRST).write_bytes(header + checksum + bytes(100))
    found = list(tfrecord.scan(Store(source), FIRST))
    assert all(record.error for record in found[1:])
    with said():
        tfrecord.read_record(Store(source), FIRST, 0, length, 0)


@AMOUNTS
@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_the_json_of_a_source(source: Path, name: str, amount: int) -> None:
    def check(data: bytes) -> None:
        with holding(source / name, data), said():
            found = open_source(SourceConfig(url=str(source)))
            for file in found.files():
                for row in found.census(file):
                    assert row.rejected is None or row.rejected

    fuzz(check, 60 * amount, data=mutated((source / name).read_bytes()))


@AMOUNTS
def test_what_records_hold(source: Path, amount: int) -> None:
    """A record that is damaged under a right checksum is rejected, or read."""
    config = SourceConfig(url=str(source))
    whole = examples(source / FIRST)[0].SerializeToString(deterministic=True)
    others = examples(source / FIRST)[1:]

    def check(data: bytes) -> None:
        framed = io.BytesIO()
        for record in (data, *(one.SerializeToString(deterministic=True) for one in others)):
            tfrecord.write_record(framed, record)
        with holding(source / FIRST, framed.getvalue()), said():
            found = open_source(config)
            taken = census.take(config, workers=1, report=lambda count, size: None, source=found)
            for row in taken.usable.to_pylist():
                if (row["source_file"], row["source_record"]) != (FIRST, 0):
                    continue
                episode = found.read(row)
                for camera, images in episode.images.items():
                    for encoding in (Encoding(), Encoding(codec="jpeg")):
                        with contextlib.suppress(ImageError):
                            made = encode_frames(camera, images, row, Resize(), encoding, {})
                            assert made.shape[0] == row["steps"]

    fuzz(check, 40 * amount, data=mutated(whole))


@AMOUNTS
def test_the_manifest(root: Path, amount: int) -> None:
    def check(data: bytes) -> None:
        with holding(root / NAME, data), said():
            read_manifest(Store(root))

    fuzz(check, 200 * amount, data=mutated((root / NAME).read_bytes()))


@AMOUNTS
@pytest.mark.parametrize("name", ["episodes.parquet", "shards/train-00000.chunks.parquet"])
def test_the_bytes_of_tables(root: Path, name: str, amount: int) -> None:
    def check(data: bytes) -> None:
        with said():
            parse_table(data, name).to_pylist()

    fuzz(check, 150 * amount, data=mutated((root / name).read_bytes()))


@AMOUNTS
def test_a_census(six_episodes: Compiled, amount: int) -> None:
    config = SourceConfig(url=str(six_episodes.source))
    whole = census.take(config, workers=1, report=lambda count, size: None).to_bytes()

    def check(data: bytes) -> None:
        with said():
            census.check(census.read(data, "census"), open_source(config))

    fuzz(check, 60 * amount, data=mutated(whole))


@AMOUNTS
def test_work_in_progress(tmp_path: Path, six_episodes: Compiled, amount: int) -> None:
    """Of another program, another version or a forger: under a right digest."""
    store = Store(tmp_path)
    whole = json.dumps({"plan": "p", "shards": ["train-00000"], "limited": 0}).encode()
    rows = (six_episodes.out / EPISODES).read_bytes()

    def check(claim: bytes, data: bytes) -> None:
        store.put(CLAIM, claim)
        store.put(rows_name("train-00000"), sealed(data))
        found = claimed_plan(store)
        assert found is None or isinstance(found, str)
        with said():
            unfinished_claim(store)
        assert read_done(store, "train-00000", "p") is None

    fuzz(check, 100 * amount, claim=mutated(whole), data=mutated(rows))


NUMBERS = [-(2**62), -1, 0, 1, 3, 2**15, 2**31 - 1, 2**40, 2**60]
VALUES = st.sampled_from([None, *NUMBERS, "", "x", "../x", [], [1], [2**31]])


def use(root: Path) -> None:
    """Read a dataset in every way there is."""
    with said():
        verify(Dataset.open(str(root)))
    with said():
        dataset = Dataset.open(str(root))
        for episode in dataset:
            with said():
                _ = episode.frames()[[0, -1]]
            with said():
                _ = episode.action, episode.state, episode.reward
            with said():
                _ = episode.instructions
    options: dict[str, Any] = {"size": (16, 16), "repeat": False, "lanes": 2, "block": 4, "threads": 1}
    for split in ("train", "val"):
        with said():
            loader = Loader([str(root)], split, sample=Pairs(frames=1), batch_size=2, **options)
            assert sum(len(batch.frames) for batch in loader) > 0


@AMOUNTS
@pytest.mark.parametrize("name", ["episodes.parquet", "shards/train-00000.chunks.parquet"])
def test_values_of_tables(root: Path, name: str, amount: int) -> None:
    """Any cell or column has another value of its type, and the manifest bears it out."""
    table = pq.read_table(root / name)
    manifest = (root / NAME).read_bytes()
    data = (root / name).read_bytes()

    def check(column: str, value: Any, row: int, drop: bool) -> None:
        if drop:
            changed = table.drop_columns([column])
        else:
            values = table[column].to_pylist()
            values[row % len(values)] = value
            try:
                cells = pa.array(values, table.schema.field(column).type)
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                return  # no value of that type
            place = table.schema.get_field_index(column)
            changed = table.set_column(place, table.schema.field(column), cells)
        with holding(root / name, table_bytes(changed)), holding(root / NAME, manifest):
            with contextlib.suppress(KeyError, TypeError):
                seal(root)
            use(root)

    strategies = {
        "column": st.sampled_from(table.column_names),
        "value": VALUES,
        "row": st.integers(0, table.num_rows - 1),
        "drop": st.sampled_from([False] * 9 + [True]),
    }
    fuzz(check, 25 * amount, **strategies)
    assert (root / name).read_bytes() == data


@AMOUNTS
def test_a_shard(root: Path, amount: int) -> None:
    """Tar headers and frames of any bytes, and the manifest bears them out."""
    name = "shards/train-00000.tar"
    manifest = (root / NAME).read_bytes()

    def check(data: bytes) -> None:
        with holding(root / name, data), holding(root / NAME, manifest):
            seal(root)
            use(root)

    fuzz(check, 20 * amount, data=mutated((root / name).read_bytes()))


@AMOUNTS
@pytest.mark.parametrize("codec", IMAGE_CODECS)
def test_codecs(codec: str, amount: int) -> None:
    frames = np.random.default_rng(0).integers(0, 9, (CHUNK_FRAMES, 12, 16, 3), np.uint8)
    (chunk,) = encode(frames, Encoding(codec=codec)).chunks

    def check(data: bytes) -> None:
        out = np.empty_like(frames)
        with said():
            decode(codec, [data], CHUNK_FRAMES, out)

    fuzz(check, 200 * amount, data=mutated(bytes(chunk)))


@AMOUNTS
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_images(kind: str, amount: int) -> None:
    from PIL import Image

    frame = np.random.default_rng(0).integers(0, 9, (12, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(frame).save(file, kind)

    def check(data: bytes) -> None:
        with contextlib.suppress(ImageError):
            decode_into(np.empty_like(frame), data, (12, 16), Resize())

    fuzz(check, 200 * amount, data=mutated(file.getvalue()))
