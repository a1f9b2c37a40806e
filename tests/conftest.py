"""Compiled samples that several modules read; each is made once, by whichever process needs it first.

    make test           pytest -m "not system"
    make test-system    pytest -m "system or hypothesis" --hypothesis-profile full

Hypothesis marks every property itself, so that the second tier tries those of the first at full depth.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

# One thread of BLAS, OpenMP and torch in each process, before anything loads them: as many as there are cores
# in each of as many processes take several times the CPU. What tests start inherits it.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from huggingface_hub import close_session
from hypothesis import settings
from pages import headless

import depth
from grown_source import HELD_OUT, Before, Growth, extended, kitchen
from hub_server import HubServer, hub
from once import Once
from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.manifests.split import SplitRule
from sample_compile import CAMERAS, Compiled, compile_lerobot, compile_sample, compiled, rows_of
from servers import BUCKET, Server, s3, web
from window_datasets import compile_windowed

settings.load_profile(depth.QUICK)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    base = tmp_path_factory.getbasetemp()
    return Once((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once")


@pytest.fixture
def browser(tmp_path: Path) -> list[str]:
    """The command that starts a headless browser."""
    return headless(tmp_path / "profile")


@pytest.fixture(scope="session")
def whole(once: Once) -> Compiled:
    """Four episodes in each of five kitchens, one of which is val; one camera."""
    sample = RldsSampleConfig(kitchens=5, sessions=2, episodes=2, steps=4, size=32, files=2)
    return once("whole", lambda folder: compile_sample(folder, sample))


@pytest.fixture(scope="session")
def robots(once: Once) -> Compiled:
    """A LeRobot dataset of ten episodes in three places, one of which is val; one camera of videos, which are
    copied, and one of images."""
    return once("robots", compile_lerobot)


@pytest.fixture(params=["whole", "robots"])
def each(request: pytest.FixtureRequest) -> Compiled:
    """A compiled sample of each kind of source whose bytes must be the same wherever they are made."""
    made: Compiled = request.getfixturevalue(request.param)
    return made


@pytest.fixture(scope="session")
def six_episodes(once: Once) -> Compiled:
    """Two episodes in each of three kitchens, one of which is val; two cameras, three shards."""
    sample = RldsSampleConfig(kitchens=3, sessions=1, episodes=2, steps=4, size=32, files=2)
    rule = SplitRule(val=0.34)
    return once("six", lambda folder: compile_sample(folder, sample, cameras=CAMERAS, rule=rule))


@pytest.fixture(scope="session")
def windowed(once: Once) -> Mapping[str, Path]:
    """`raw`, `zstd`, `jpeg`: one dataset in each codec; `legged`: another, of other columns and cameras."""
    found: Mapping[str, Path] = once("windowed", compile_windowed)
    return found


@pytest.fixture(scope="session")
def growth(once: Once) -> Growth:
    """Records of a source that grows."""
    return once("growth", Growth.of)


@pytest.fixture(scope="session")
def before(growth: Growth, once: Once) -> Before:
    return once("before", lambda folder: before_it_grew(growth, folder))


def before_it_grew(growth: Growth, folder: Path) -> Before:
    source = growth.write(folder / "first", growth.first)
    manifest = compiled(source, folder / "out")
    grown = growth.write(folder / "grown", growth.first + growth.later, files=3, version="1.1.0")
    held = {row["environment"] for row in rows_of(folder / "out") if row["split"] == "val"}
    assert held == {HELD_OUT} == {kitchen(growth.later[0])}
    return Before(growth, folder / "out", manifest, grown)


@pytest.fixture(scope="session")
def after(before: Before, once: Once) -> Path:
    """The dataset when it is extended; not to be changed."""

    def extend(folder: Path) -> Path:
        out = before.copy(folder)
        extended(before.grown, out)
        return out

    return once("after", extend)


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
def hub_server(cloud: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A Hub without repositories, at HF_ENDPOINT; there is no token."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING_FACE_")):
            cloud.delenv(name)
    cloud.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    cloud.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # its protocol has no server here
    cloud.setattr("huggingface_hub.utils._detect_agent._registry", {})  # it would be asked for once a process
    with hub() as server:
        cloud.setenv("HF_ENDPOINT", server.url)
        yield server
    close_session()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited before each new attempt, which come at once."""
    found: list[float] = []
    monkeypatch.setattr("oxcart.shards.retry.pause", lambda wait_s, ended: found.append(wait_s))
    return found
