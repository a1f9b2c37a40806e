"""A bucket or a web server gives the batches that a directory gives, whatever it does meanwhile."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import servers
from depth import few
from oxcart.shards import retry
from oxcart.shards.errors import CorruptError, OxcartError
from oxcart.shards.store import Store
from oxcart.train.data import Batch, Frames, Loader, Pairs
from oxcart.train.data.cache import FOLDER, Cache
from servers import Server

SAMPLES = {"all": Pairs(frames=2, per_episode="all"), "one": Pairs(frames=2)}


def content(batch: Batch) -> tuple[list[str], list[int], bytes]:
    return batch.key, batch.t.tolist(), batch.frames.numpy().tobytes()


def batches(url: str, sample: str = "all", count: int = 25, **options: Any) -> list[Any]:
    loader = Loader(url, sample=SAMPLES[sample], batch_size=8, lanes=4, block=8, **options)
    return [content(batch) for batch in itertools.islice(loader, count)]


@pytest.fixture(scope="module")
def expected(datasets: Mapping[str, Path]) -> Mapping[tuple[str, str], list[Any]]:
    return {
        (codec, sample): batches(str(datasets[codec]), sample)
        for codec in ("raw", "zstd", "jpeg")
        for sample in SAMPLES
    }


@pytest.fixture
def web(datasets: Mapping[str, Path]) -> Iterator[Server]:
    with servers.web(datasets["raw"].parent) as server:
        yield server


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_dense_samples_are_read_in_few_requests_and_once_whatever_the_ranks(
    web: Server, codec: str, world: int
) -> None:
    read = []
    for rank in range(world):
        loader = Loader(
            f"{web.url}/{codec}",
            sample=SAMPLES["all"],
            batch_size=8,
            lanes=4,
            block=16,
            repeat=False,
            rank=rank,
            world_size=world,
            memory=1_000_000 // world,  # enough for the blocks of a rank's own lanes, not of all ranks'
        )
        web.faults.clear()
        run = iter(loader)
        for _ in range(len(loader)):
            next(run)
        assert loader._budget.used == 0
        assert not loader.streams[0].views[0].reader.reuse.expects
        asked = sum(path.endswith(".tar") for _, path in web.faults.requests)
        chunks = loader.streams[0].views[0].camera.bases[-1] / world
        assert asked < chunks / 2
        read.append(loader.bytes_read)
        run.close()
    whole = Loader(f"{web.url}/{codec}", sample=SAMPLES["all"], batch_size=8, repeat=False, memory=1 << 28)
    for _ in whole:
        pass
    assert sum(read) < 1.6 * whole.bytes_read  # blocks share the episodes at their edges


@pytest.mark.parametrize("sample", few(SAMPLES, "all"))
@pytest.mark.parametrize("codec", few(["raw", "zstd", "jpeg"], "zstd"))
def test_a_web_server_and_a_bucket_give_the_batches_of_a_directory(
    datasets: Mapping[str, Path], bucket: Server, web: Server, expected: Any, codec: str, sample: str
) -> None:
    source, target = Store(str(datasets[codec])), Store(f"s3://{servers.BUCKET}/{codec}")
    for name in source.list():
        target.put(name, source.read(name))
    for url in (f"{web.url}/{codec}", f"s3://{servers.BUCKET}/{codec}"):
        assert batches(url, sample) == expected[codec, sample]
        assert batches(url, sample, read_mode="sequential", memory=1 << 20) == expected[codec, sample]
        assert batches(url, sample, read_mode="sparse", threads=3) == expected[codec, sample]


@pytest.mark.parametrize("codec", ["raw", "zstd", "jpeg"])
def test_dense_samples_of_a_remote_dataset_fetch_each_chunk_about_once(
    datasets: Mapping[str, Path], web: Server, codec: str
) -> None:
    for read_mode in ("auto", "sparse"):
        loader = Loader(
            f"{web.url}/{codec}",
            sample=SAMPLES["all"],
            batch_size=8,
            lanes=4,
            block=64,
            read_mode=read_mode,
            repeat=False,
        )
        for _ in loader:
            pass
        index = loader.streams[0].index
        shards = set(index.shards.tolist())
        total = sum(int(loader.streams[0].views[0].camera.chunks(shard).sizes.sum()) for shard in shards)
        between = sum(index.dataset.manifest.shards[shard]["bytes"] for shard in shards) - total
        most = 1.1 * total if read_mode == "sparse" else 1.1 * total + between
        assert total <= loader.bytes_read <= most


class Flaky:
    """Lets some requests of shards fail, the first time that a range is asked for: which is in their hash."""

    def __init__(self, server: Server, share: float) -> None:
        self.seen: set[str] = set()
        self.share = share
        self.found: dict[str, int] = {}

    def what(self, method: str, path: str) -> str:
        if path in self.seen or not re.search(r"\.tar", path):
            return ""
        self.seen.add(path)
        draw = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big") / 2**32
        kinds = ("503", "stall", "cut", "flip")
        kind = kinds[int(draw / self.share)] if draw < self.share * len(kinds) else ""
        self.found[kind] = self.found.get(kind, 0) + 1
        return kind


@pytest.mark.parametrize("codec", few(["raw", "zstd", "jpeg"], "jpeg"))
@pytest.mark.parametrize("read_mode", ["sparse", "sequential"])
def test_a_server_that_fails_in_every_way_changes_no_byte(
    datasets: Mapping[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    expected: Any,
    codec: str,
    read_mode: str,
) -> None:
    """Each range fails at most once: in 5% of them each with 503, silence, a cut body and a flipped bit."""
    monkeypatch.setenv("OXCART_STORE_TIMEOUT_S", "0.5")
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.01, raising=True)
    share = 0.05 if read_mode == "sparse" else 0.2  # there are few spans
    with servers.web(datasets["raw"].parent) as server:
        flaky = Flaky(server, share)
        server.faults.every = flaky.what
        assert batches(f"{server.url}/{codec}", read_mode=read_mode) == expected[codec, "all"]
    assert sum(flaky.found.get(kind, 0) for kind in ("503", "stall", "cut", "flip")) >= 2


def test_bytes_that_stay_wrong_are_an_error_that_names_them(
    datasets: Mapping[str, Path], web: Server
) -> None:
    web.faults.every = lambda method, path: "flip" if ".tar" in path else ""
    with pytest.raises(CorruptError, match=r"train-\d+: \S+, camera image_0, chunk \d+ does not match"):
        batches(f"{web.url}/raw")


@pytest.mark.parametrize("what", ["403", "404", "500", "503", "cut"])
def test_a_server_that_refuses_is_one_error(
    datasets: Mapping[str, Path], web: Server, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.001, raising=True)
    web.faults.every = lambda method, path: what if ".tar" in path else ""
    with pytest.raises(OxcartError, match=r"train-\d+.tar: read: ") as caught:
        batches(f"{web.url}/raw")
    assert "\n" not in str(caught.value)


def test_a_cache_is_filled_once_checked_bounded_and_removes_its_own_files_alone(
    datasets: Mapping[str, Path], web: Server, tmp_path: Path, expected: Any
) -> None:
    url, cache = f"{web.url}/raw", tmp_path / "cache"
    (cache / "oxcart-cache-1").mkdir(parents=True)
    mine = [cache / "mine.tar", cache / "oxcart-cache-1" / "mine.part", cache / "oxcart-cache-1" / ("0" * 64)]
    for path in mine:
        path.write_bytes(bytes(1 << 20))
    loader = Loader(url, sample=SAMPLES["all"], batch_size=8, lanes=4, block=8, cache=cache)
    assert [content(b) for b in itertools.islice(loader, 25)] == expected["raw", "all"]
    assert loader.bytes_read > 0
    again = Loader(url, sample=SAMPLES["all"], batch_size=8, lanes=4, block=8, cache=cache)
    assert [content(b) for b in itertools.islice(again, 25)] == expected["raw", "all"]
    assert again.bytes_read == 0
    for path in (cache / "oxcart-cache-1").glob("?" * 64 + ".part"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data[: 3 * len(data) // 4])
    third = Loader(url, sample=SAMPLES["all"], batch_size=8, lanes=4, block=8, cache=cache)
    assert [content(b) for b in itertools.islice(third, 25)] == expected["raw", "all"]
    assert third.bytes_read > 0
    small = Loader(
        url, sample=SAMPLES["all"], batch_size=8, lanes=4, block=8, cache=cache, cache_bytes=150_000
    )
    assert [content(b) for b in itertools.islice(small, 25)] == expected["raw", "all"]
    held = sum(path.stat().st_blocks * 512 for path in (cache / "oxcart-cache-1").glob("?" * 64 + ".part"))
    assert held < 300_000
    assert all(path.stat().st_size == 1 << 20 for path in mine)


EVERYTHING: dict[str, Any] = {"action": "steps", "state": True, "instructions": True}


def everything(url: str, cache: Path, sample: Pairs | Frames, **options: Any) -> list[Any]:
    """All that the samples of an epoch hold."""
    asked = {**EVERYTHING, **options}
    loader = Loader(url, sample=sample, batch_size=8, lanes=4, block=8, repeat=False, cache=cache, **asked)
    found = []
    for batch in loader:
        arrays = (getattr(batch, name) for name in ("action", "action_is_pad", "state"))
        found.append((content(batch), batch.instructions, *(one.numpy().tobytes() for one in arrays)))
    return found


def asked_for(server: Server, *endings: str) -> list[str]:
    """Requests of objects whose names end so."""
    return [path for _, path in server.faults.requests if path.endswith(endings)]


SOME = Pairs(frames=2, per_episode=3)
KINDS = {"pairs": SOME, "windows": Pairs(frames=4, per_episode="all"), "frames": Frames(leave=3)}


@pytest.mark.parametrize("codec", ["raw", "zstd"])
@pytest.mark.parametrize("sample", KINDS)
def test_a_second_pass_asks_for_the_manifest_alone(
    datasets: Mapping[str, Path], web: Server, tmp_path: Path, codec: str, sample: str
) -> None:
    url = f"{web.url}/{codec}"
    first = everything(url, tmp_path, KINDS[sample])
    assert asked_for(web, ".tar")
    web.faults.clear()
    assert everything(url, tmp_path, KINDS[sample]) == first
    assert {Path(path).name for _, path in web.faults.requests} == {"manifest.json"}
    assert first == everything(str(datasets[codec]), tmp_path, KINDS[sample])


@pytest.mark.system
def test_a_pass_in_a_new_process_reads_what_another_has_kept(web: Server, tmp_path: Path) -> None:
    url = f"{web.url}/raw"
    first = everything(url, tmp_path, SOME)
    web.faults.clear()
    code = (
        "import sys, test_remote\n"
        "from pathlib import Path\n"
        "found = test_remote.everything(sys.argv[1], Path(sys.argv[2]), test_remote.SOME)\n"
        "sys.stdout.buffer.write(repr(found).encode())\n"
    )
    path = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    command = [sys.executable, "-c", code, url, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONPATH": path}, check=True)
    assert done.stdout == repr(first).encode()
    assert asked_for(web, ".tar", ".parquet") == []


def test_every_bit_that_flips_in_the_cache_is_found_and_fetched_again(
    datasets: Mapping[str, Path], web: Server, tmp_path: Path
) -> None:
    url = f"{web.url}/raw"
    first = everything(url, tmp_path, SOME)
    kept = sorted((tmp_path / "oxcart-cache-1").iterdir())
    for path in kept:
        path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    web.faults.clear()
    assert everything(url, tmp_path, SOME) == first
    assert asked_for(web, ".tar")
    assert asked_for(web, "episodes.parquet")
    assert asked_for(web, ".chunks.parquet")
    web.faults.clear()
    assert everything(url, tmp_path, SOME) == first
    assert asked_for(web, ".tar", ".parquet") == []


def test_the_size_limit_counts_arrays_texts_and_tables(
    datasets: Mapping[str, Path], web: Server, tmp_path: Path
) -> None:
    limit = 60_000
    first = everything(f"{web.url}/raw", tmp_path / "all", SOME)
    assert everything(f"{web.url}/raw", tmp_path / "some", SOME, cache_bytes=limit) == first
    Cache(tmp_path / "some", limit)  # brings it below the limit; between two looks it may be above
    held = {
        name: sum(path.stat().st_blocks * 512 for path in (tmp_path / name / FOLDER).iterdir())
        for name in ("all", "some")
    }
    assert held["some"] <= limit < held["all"]


def test_what_is_not_checked_is_not_kept(web: Server, tmp_path: Path) -> None:
    everything(f"{web.url}/raw", tmp_path, SOME, check=False)
    web.faults.clear()
    everything(f"{web.url}/raw", tmp_path, SOME, check=False)
    assert asked_for(web, ".tar")


@pytest.mark.system
def test_ctrl_c_ends_a_loader_that_waits_for_a_silent_server(
    datasets: Mapping[str, Path], web: Server
) -> None:
    web.faults.every = lambda method, path: "stall" if ".tar" in path else ""
    code = (
        "import signal, sys\n"
        "from oxcart.train.data import Loader, Pairs\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it\n"
        "loader = Loader(sys.argv[1], sample=Pairs(frames=2), batch_size=8)\n"
        "print('reading', flush=True)\n"
        "next(iter(loader))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, f"{web.url}/raw"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OXCART_STORE_TIMEOUT_S": "300"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    assert web.faults.stalled.wait(30)
    process.send_signal(2)
    _, err = process.communicate(timeout=servers.LONGEST_S - 5)  # before the server gives up
    assert process.returncode != 0
    assert err.splitlines()[-1] == "KeyboardInterrupt"
