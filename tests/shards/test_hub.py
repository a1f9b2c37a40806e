"""Repositories of the Hub are read as other stores are: one commit, ranges, failures in one line."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from hub_server import TOKEN, HubServer, Repository
from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.hub import connection
from oxcart.shards.retry import FailedError, Failure
from oxcart.shards.store import Store

DATA = bytes(range(250)) * 4
URL = "hf://datasets/me/data"


def complaint(call: Callable[[], object], kind: type[Exception] = StoreError) -> str:
    """The message of a failure, which must be one line without a secret."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    for secret in (TOKEN, "signature", "a secret"):
        assert secret not in text
    return text


@pytest.fixture
def repository(hub_server: HubServer) -> Repository:
    made = hub_server.repository("me/data")
    made.commit({"manifest.json": b"{}", **{f"shards/{i}.tar": DATA[i:] for i in range(20)}})
    return made


def test_files_of_both_kinds_are_read(repository: Repository) -> None:
    store = Store(URL)
    assert store.remote
    assert store.listable
    assert not store.writable
    assert store.read("manifest.json") == b"{}"
    assert store.read("shards/3.tar") == DATA[3:]
    assert store.read_range("shards/0.tar", 7, 100) == DATA[7:107]
    assert b"".join(store.stream("shards/1.tar", 100)) == DATA[1:]
    out = bytearray(20)
    store.open("shards/0.tar").read_into([(5, memoryview(out)[:10]), (900, memoryview(out)[10:])])
    assert bytes(out) == DATA[5:15] + DATA[900:910]
    assert store.sizes(["manifest.json", "shards/2.tar"]) == {"manifest.json": 2, "shards/2.tar": 998}
    assert store.missing(["shards/0.tar", "none.tar", "manifest.json"]) == ["none.tar"]
    assert "ends at byte 1000, before 1001" in complaint(lambda: store.read_range("shards/0.tar", 0, 1001))
    assert "ends at byte 1000, before 5001" in complaint(lambda: store.read_range("shards/0.tar", 5000, 1))
    assert "no such object" in complaint(lambda: store.read("none.tar"))


def test_a_listing_has_many_pages(repository: Repository) -> None:
    store = Store(URL)
    shards = sorted(f"shards/{i}.tar" for i in range(20))
    assert store.list() == ["manifest.json", *shards]
    assert store.list("shards", limit=2) == shards[:2]
    assert store.list("nowhere") == []
    assert store.sizes(shards) == {name: len(repository.files[name]) for name in shards}


def test_a_folder_of_a_repository_is_a_store(repository: Repository) -> None:
    store = Store(URL + "/shards/")
    assert store.list() == sorted(f"{i}.tar" for i in range(20))
    assert store.sizes([f"{i}.tar" for i in range(20)])["4.tar"] == 996
    assert store.read("0.tar") == DATA
    assert (store.folder, Store(URL).folder) == ("shards", "data")
    repository.commit({"a@b/c@d/x": b"here"})
    assert Store(URL + "@main/a@b/c@d").read("x") == Store(URL + "/a@b").read("c@d/x") == b"here"
    assert Store(URL + "/a@b").folder == "a@b"


@pytest.mark.parametrize("revision", ["", "@main", "@a%2Fbranch", "@refs/pr/1"])
def test_a_revision_is_resolved_once(hub_server: HubServer, repository: Repository, revision: str) -> None:
    first = repository.branches["main"]
    repository.branches |= {"a/branch": first, "refs/pr/1": first}
    store = Store(URL + revision)
    assert store.url == f"{URL}@{first}"
    repository.commit({"manifest.json": b"changed"})
    repository.branches |= dict.fromkeys(("a/branch", "refs/pr/1"), repository.branches["main"])
    hub_server.faults.clear()
    worker = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert worker.url == store.url
    assert hub_server.faults.requests == []
    for one in (store, worker):
        assert one.read("manifest.json") == b"{}"
        assert len(one.list()) == 21
    assert Store(URL + revision).read("manifest.json") == b"changed"


def test_a_place_is_looked_up_once_and_again_when_it_has_expired(
    hub_server: HubServer, repository: Repository, waits: list[float]
) -> None:
    store = Store(URL)

    def looked_up() -> int:
        return sum("/resolve/" in path for _, path in hub_server.faults.requests)

    for offset in range(0, 900, 100):
        assert store.read_range("shards/0.tar", offset, 50) == DATA[offset : offset + 50]
    assert looked_up() == 1
    hub_server.signature += 1
    assert store.read_range("shards/0.tar", 0, 50) == DATA[:50]
    assert store.read_range("shards/0.tar", 50, 50) == DATA[50:100]
    assert looked_up() == 2
    hub_server.signature += 1
    readers = 8
    barrier = threading.Barrier(readers)

    def read(offset: int) -> bytes:
        barrier.wait()
        return store.read_range("shards/0.tar", offset, 50) + store.read_range("shards/1.tar", offset, 50)

    with ThreadPoolExecutor(readers) as pool:
        found = list(pool.map(read, range(readers)))
    assert found == [DATA[at : at + 50] + DATA[1 + at : 51 + at] for at in range(readers)]
    assert looked_up() == 4  # each of both files once, for all of its readers
    assert waits == []


@pytest.mark.parametrize("where", ["environment", "file"])
def test_the_token_goes_to_the_hub_and_nowhere_else(
    hub_server: HubServer, cloud: pytest.MonkeyPatch, where: str
) -> None:
    private = hub_server.repository("me/data", private=True)
    private.commit({"a.tar": DATA, "b.json": b"{}"})
    if where == "environment":
        cloud.setenv("HF_TOKEN", TOKEN)
    else:
        from huggingface_hub import constants

        with open(constants.HF_TOKEN_PATH, "w") as file:
            file.write(TOKEN + "\n")
    store = Store(URL)
    assert (store.read("a.tar"), store.read("b.json"), store.list()) == (DATA, b"{}", ["a.tar", "b.json"])
    assert {sent for name, sent in hub_server.tokens if name == "hub"} == {f"Bearer {TOKEN}"}
    assert {sent for name, sent in hub_server.tokens if name == "cdn"} == {""}
    assert TOKEN.encode() not in pickle.dumps(store) + repr(vars(store._place)).encode()


class TestFailures:
    def test_a_transient_failure_is_tried_again(
        self, hub_server: HubServer, repository: Repository, waits: list[float]
    ) -> None:
        for what in ("500", "503", "drop", "429"):
            hub_server.faults.add(what)
        store = Store(URL)
        assert len(waits) == 4
        hub_server.faults.add("503", name="/tree/")
        assert len(store.list()) == 21
        for faults in (hub_server.faults, hub_server.cdn_faults):
            faults.add("503", times=2)
            assert store.read("shards/3.tar") == DATA[3:]
        assert len(waits) == 9

    def test_the_hub_says_how_long_to_wait(
        self, hub_server: HubServer, repository: Repository, waits: list[float]
    ) -> None:
        hub_server.faults.add("429", Retry_After="40")
        hub_server.faults.add("429", RateLimit='"api";r=0;t=55')
        hub_server.faults.add("429", Retry_After="100000")
        Store(URL)
        assert waits == [40, 55, 300]

    def test_a_busy_hub_gets_the_attempts_and_no_other_request(
        self, hub_server: HubServer, repository: Repository, waits: list[float]
    ) -> None:
        store = Store(URL)
        hub_server.faults.clear()
        hub_server.faults.add("429", times=99)
        said = complaint(lambda: store.list("shards"))
        assert said.endswith(
            "/shards: list: HTTP 429 Too Many Requests, 6 attempts; with HF_TOKEN the limit is higher"
        )
        assert len(hub_server.faults.requests) == 6

    @pytest.mark.parametrize(
        ("url", "token", "said"),
        [
            (
                "hf://datasets/me/none",
                "",
                "hf://datasets/me/none: open: there is no such dataset, or it is private (HTTP 401 "
                "Unauthorized); check the name, and set HF_TOKEN if it is private",
            ),
            (
                "hf://datasets/me/none",
                TOKEN,
                "hf://datasets/me/none: open: there is no such dataset, or it is private (HTTP 404 "
                "RepoNotFound); check the name, and that the token has the right to it",
            ),
            (
                URL,
                "hf_wrong",
                f"{URL}: open: the token is not valid (HTTP 401 BadToken); set HF_TOKEN to a valid one, or "
                "unset it for public repositories",
            ),
            (
                URL + "@v9",
                "",
                f"{URL}@v9: open: there is no such revision (HTTP 404 RevisionNotFound); expected a branch, "
                "a tag or a commit",
            ),
        ],
    )
    def test_what_cannot_be_opened_says_what_to_do(
        self,
        hub_server: HubServer,
        repository: Repository,
        cloud: pytest.MonkeyPatch,
        url: str,
        token: str,
        said: str,
    ) -> None:
        cloud.setenv("HF_TOKEN", token)
        assert complaint(lambda: Store(url)) == said

    def test_a_gated_repository_asks_for_its_conditions(
        self, hub_server: HubServer, cloud: pytest.MonkeyPatch
    ) -> None:
        hub_server.repository("me/data", gated=True).commit({"a.tar": DATA})
        page = f"accept its conditions at {hub_server.url}/datasets/me/data"
        page = f"access is gated (HTTP 401 GatedRepo); {page}"
        assert complaint(lambda: Store(URL).read("a.tar")).endswith(f"/a.tar: read: {page}, and set HF_TOKEN")
        cloud.setenv("HF_TOKEN", TOKEN)
        said = complaint(lambda: Store(URL).read("a.tar"))
        assert said.endswith(page.replace("401", "403"))

    def test_a_password_of_the_endpoint_is_not_shown(
        self, hub_server: HubServer, cloud: pytest.MonkeyPatch
    ) -> None:
        cloud.setenv("HF_ENDPOINT", hub_server.url.replace("//", "//me:secret@"))
        hub = connection(URL)
        gated = FailedError(Failure(reason="access is gated", status=403, code="GatedRepo"), 1)
        for text in (hub.page("me/data"), hub.explain(gated, "me/data")):
            assert text.endswith((f"{hub_server.url}/datasets/me/data", ", and set HF_TOKEN"))
            assert "secret" not in text

    def test_a_place_that_stays_refused_is_an_error(
        self, hub_server: HubServer, repository: Repository, waits: list[float]
    ) -> None:
        hub_server.cdn_faults.add("403", times=99)
        said = complaint(lambda: Store(URL).read("shards/0.tar"))
        assert "/shards/0.tar: read: access denied (HTTP 403 Forbidden)" in said
        assert len(hub_server.cdn_faults.requests) == 2

    def test_offline_is_said_with_what_to_unset(
        self, hub_server: HubServer, cloud: pytest.MonkeyPatch
    ) -> None:
        cloud.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        said = complaint(lambda: Store(URL), ConfigError)
        assert (
            said
            == f"{URL}: HF_HUB_OFFLINE is set; unset it, or pass a directory that `hf download` has filled"
        )
        assert hub_server.faults.requests == []

    def test_a_hub_that_is_not_there(
        self, cloud: pytest.MonkeyPatch, hub_server: HubServer, waits: list[float]
    ) -> None:
        cloud.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        assert complaint(lambda: Store(URL)) == (
            f"{URL}: open: the connection is refused by 127.0.0.1:9, 2 attempts; without internet, set "
            "HF_ENDPOINT to a mirror, or pass a directory that `hf download` has filled elsewhere"
        )

    def test_a_server_that_is_no_hub(self, hub_server: HubServer, cloud: pytest.MonkeyPatch) -> None:
        hub_server.repository("me/data").branches["main"] = ""
        hub_server.repositories["me/data"].commits[""] = {}
        said = complaint(lambda: Store(URL))
        host = hub_server.url.removeprefix("http://")
        assert said == (f"{URL}: open: an answer that a Hub does not give by {host}; is HF_ENDPOINT right?")

    def test_a_stall_is_tried_again(
        self,
        hub_server: HubServer,
        repository: Repository,
        cloud: pytest.MonkeyPatch,
        waits: list[float],
    ) -> None:
        cloud.setenv("OXCART_STORE_TIMEOUT_S", "0.3")
        hub_server.faults.add("stall")
        store = Store(URL)
        for faults in (hub_server.faults, hub_server.cdn_faults):
            faults.add("stall")
            assert store.read("shards/0.tar") == DATA
        hub_server.faults.add("stall", times=9, name="none")
        said = complaint(lambda: store.exists("none"))
        assert said.endswith(f"/none: stat: no answer for 0.3 s by {hub_server.url[7:]}, 6 attempts")

    def test_nothing_is_written(self, repository: Repository) -> None:
        said = complaint(lambda: Store(URL).put("x", b""), ConfigError)
        assert said.endswith("the Hub is for reading; expected a directory or a bucket, and then oxcart push")

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("hf://datasets/me", "store 'hf://datasets/me': expected hf://datasets/OWNER/NAME"),
            ("hf://me/data", "got a model"),
            ("hf://spaces/me/data", "got a space"),
            (f"hf://me:{TOKEN}@datasets/me/data", "store 'hf://datasets/me/data': expected"),
            (f"hf://datasets/me/data?token={TOKEN}", "store 'hf://datasets/me/data': expected"),
            ("hf://datasets/me/data@", "Empty revision"),
            ("hf:/datasets/me/data", "a URL has two slashes"),
        ],
    )
    def test_another_url_is_refused(self, url: str, said: str) -> None:
        assert said in complaint(lambda: Store(url), ConfigError)


def test_a_process_without_huggingface_hub_is_told_what_to_install(cloud: pytest.MonkeyPatch) -> None:
    cloud.setitem(sys.modules, "oxcart.shards.hub_files", None)
    assert "pip install 'oxcart[hub]'" in complaint(lambda: Store(URL), ConfigError)
