"""Compiled samples that several modules read; each is made once a session (once a process of xdist)."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from grown_source import HELD_OUT, Before, Growth, extended, kitchen
from oxcart.compile.sample.rlds import SampleConfig
from oxcart.manifests.split import SplitRule
from sample_compile import CAMERAS, Compiled, compile_sample, compiled, rows_of
from servers import BUCKET, Server, s3, web


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Four episodes in each of five kitchens, one of which is val; one camera."""
    sample = SampleConfig(kitchens=5, sessions=2, episodes=2, steps=4, size=32, files=2)
    return compile_sample(tmp_path_factory.mktemp("whole"), sample)


@pytest.fixture(scope="session")
def six_episodes(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Two episodes in each of three kitchens, one of which is val; two cameras, three shards."""
    sample = SampleConfig(kitchens=3, sessions=1, episodes=2, steps=4, size=32, files=2)
    folder = tmp_path_factory.mktemp("six")
    return compile_sample(folder, sample, cameras=CAMERAS, rule=SplitRule(val=0.34))


@pytest.fixture(scope="session")
def growth(tmp_path_factory: pytest.TempPathFactory) -> Growth:
    """Records of a source that grows."""
    return Growth.of(tmp_path_factory.mktemp("growth"))


@pytest.fixture(scope="session")
def before(growth: Growth, tmp_path_factory: pytest.TempPathFactory) -> Before:
    folder = tmp_path_factory.mktemp("before")
    source = growth.write(folder / "first", growth.first)
    manifest = compiled(source, folder / "out")
    grown = growth.write(folder / "grown", growth.first + growth.later, files=3, version="1.1.0")
    held = {row["environment"] for row in rows_of(folder / "out") if row["split"] == "val"}
    assert held == {HELD_OUT} == {kitchen(growth.later[0])}
    return Before(growth, folder / "out", manifest, grown)


@pytest.fixture(scope="session")
def after(before: Before, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset when it is extended; not to be changed."""
    out = before.copy(tmp_path_factory.mktemp("after"))
    extended(before.grown, out)
    return out


@pytest.fixture(scope="module")
def intact(six_episodes: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of six episodes, a module's own: whoever breaks it mends it again."""
    return Path(shutil.copytree(six_episodes.out, tmp_path_factory.mktemp("intact") / "dataset"))


@pytest.fixture
def root(six_episodes: Compiled, tmp_path: Path) -> Path:
    """The dataset of six episodes, a test's own: to break."""
    return Path(shutil.copytree(six_episodes.out, tmp_path / "copy"))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    """One for all tests; each takes a folder of its own in the bucket."""
    with s3() as server:
        yield server


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without credentials, endpoints and proxies, in which silence ends early."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_", "STORAGE_", "GCE_")) or name.lower().endswith(
            "_proxy"
        ):
            monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "CLOUDSDK_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("OXCART_STORE_TIMEOUT_S", "5")
    return monkeypatch


@pytest.fixture
def bucket(s3_server: Server, cloud: pytest.MonkeyPatch) -> Server:
    """The S3 server without faults, with credentials for it in the environment."""
    s3_server.faults.clear()
    cloud.setenv("AWS_ENDPOINT_URL", s3_server.url)
    cloud.setenv("AWS_ACCESS_KEY_ID", "id")
    cloud.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-key")
    return s3_server


@pytest.fixture
def remote(bucket: Server) -> str:
    """The URL of a folder of the bucket that is not there yet."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def site(cloud: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A web server of the folder `tmp_path / "site"`."""
    (tmp_path / "site").mkdir()
    with web(tmp_path / "site") as server:
        yield server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited before each new attempt, which come at once."""
    found: list[float] = []
    monkeypatch.setattr("oxcart.shards.retry.pause", lambda wait_s, ended: found.append(wait_s))
    return found
