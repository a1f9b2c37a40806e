"""What becomes of failures: tried again or not, waited for, and said in one line without a secret."""

from __future__ import annotations

import os
import pickle
import tempfile
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from oxcart.shards import bucket as module
from oxcart.shards import endpoint, retry
from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.store import Store
from servers import BUCKET, Server, web

DATA = bytes(range(250)) * 4


def complaint(call: Callable[[], object]) -> str:
    """What the call fails with, which is one line and holds no secret."""
    with pytest.raises((StoreError, ConfigError)) as caught:
        call()
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    for secret in ("secret", "Signature=", "Amz", "password"):
        assert secret not in text
    return text


@pytest.fixture
def folder(bucket: Server) -> Store:
    return Store(f"s3://{BUCKET}/{uuid.uuid4().hex}")


@pytest.fixture
def page(site: Server, tmp_path: Path) -> Store:
    """A web server with `x` and `empty`."""
    (tmp_path / "site" / "x").write_bytes(DATA)
    (tmp_path / "site" / "empty").write_bytes(b"")
    return Store(site.url)


class TestWeb:
    """A web server."""

    def test_it_is_read_and_not_written(self, page: Store) -> None:
        assert page.read("x") == DATA
        assert page.read("empty") == b""
        assert page.read("x", len(DATA)) == DATA
        assert "x: read: has 1000 bytes, expected at most 999" in complaint(lambda: page.read("x", 999))
        assert page.read_range("x", 10, 20) == DATA[10:30]
        assert page.read_range("empty", 0, 0) == b""
        assert b"".join(page.stream("x", 300)) == DATA
        assert list(page.stream("empty")) == []
        assert page.sizes(["x", "empty"]) == {"x": 1000, "empty": 0}
        assert page.missing(["x", "none"]) == ["none"]
        assert (page.exists("x"), page.exists("none")) == (True, False)
        assert (page.writable, page.listable, page.remote) == (False, False, True)
        assert complaint(lambda: page.read_range("x", 990, 20)) == (
            f"{page.url}/x: read: ends at byte 1000, before 1010"
        )
        assert complaint(lambda: page.read_range("x", 5000, 1)) == (
            f"{page.url}/x: read: ends at byte 1000, before 5001"
        )
        assert complaint(page.list) == f"{page.url}: list: a web server cannot list its files"
        for write in (
            page.check_writable,
            lambda: page.put("y", b""),
            lambda: page.create("y", b""),
            lambda: page.writer("y").__enter__(),
            lambda: page.delete("x"),
            lambda: page.delete_folder("x"),
        ):
            says = f"{page.url}: a web server is for reading; expected a directory or a bucket"
            assert complaint(write) == says

    @pytest.mark.parametrize("what", ["405", "501", "sizeless"])
    def test_a_server_without_heads_is_asked_for_the_first_byte(
        self, page: Store, site: Server, what: str, waits: list[float]
    ) -> None:
        site.faults.add(what, times=99, method="HEAD")
        assert page.sizes(["x", "empty"]) == {"x": 1000, "empty": 0}
        assert page.missing(["x", "none"]) == ["none"]
        assert b"".join(page.stream("x", 300)) == DATA
        site.faults.add("403", method="GET")
        assert complaint(lambda: page.size("x")) == (
            f"{page.url}/x: stat: access denied (HTTP 403 Forbidden)"
        )
        assert waits == []

    @pytest.mark.parametrize("what", ["429", "500", "503", "cut"])
    def test_a_transient_failure_is_retried(
        self, page: Store, site: Server, what: str, waits: list[float]
    ) -> None:
        site.faults.add(what, times=2, method="GET")
        assert page.read_range("x", 10, 200) == DATA[10:210]
        assert site.faults.requests == [("GET", "/x")] * 3
        assert len(waits) == 2

    def test_a_stall_is_tried_again(
        self, page: Store, site: Server, cloud: pytest.MonkeyPatch, waits: list[float]
    ) -> None:
        cloud.setenv("OXCART_STORE_TIMEOUT_S", "0.2")
        impatient = Store(page.url)
        site.faults.add("stall", times=1)
        assert impatient.read("x") == DATA
        assert len(waits) == 1
        site.faults.add("stall", times=6)
        says = f"{page.url}/x: stat: no answer for 0.2 s, 6 attempts"
        assert complaint(lambda: impatient.size("x")) == says

    @pytest.mark.parametrize(
        ("what", "says", "attempts"),
        [
            ("403", "access denied (HTTP 403 Forbidden)", 1),
            ("404", "no such object (HTTP 404 Not Found)", 1),
            ("500", "HTTP 500 Internal Server Error, 6 attempts", 6),
            ("cut", "the connection was cut, 6 attempts", 6),
            ("shift", "the server answers with another range than it was asked for", 1),
        ],
    )
    def test_what_stays_is_said_in_one_line(
        self, page: Store, site: Server, what: str, says: str, attempts: int, waits: list[float]
    ) -> None:
        site.faults.add(what, times=100)
        assert complaint(lambda: page.read_range("x", 10, 200)) == f"{page.url}/x: read: {says}"
        assert len(site.faults.requests) == attempts
        assert len(waits) == attempts - 1

    @pytest.mark.parametrize("status", ["429", "503"])
    def test_a_busy_server_gets_the_attempts_and_no_other_request(
        self, page: Store, site: Server, status: str, waits: list[float]
    ) -> None:
        site.faults.add(status, times=100, Retry_After="7")
        for read, method in ((lambda: page.read("x"), "GET"), (lambda: page.size("x"), "HEAD")):
            site.faults.requests.clear()
            assert complaint(read).endswith(", 6 attempts")
            assert site.faults.requests == [(method, "/x")] * 6
        assert len(waits) == 10

    def test_a_host_that_is_not_there(self, cloud: pytest.MonkeyPatch, waits: list[float]) -> None:
        gone = Store("http://127.0.0.1:9")
        assert complaint(lambda: gone.read("x")) == (
            "http://127.0.0.1:9/x: read: the connection is refused, 2 attempts"
        )

    def test_a_server_that_has_answered_and_is_gone_is_given_time(
        self, cloud: pytest.MonkeyPatch, tmp_path: Path, waits: list[float]
    ) -> None:
        (tmp_path / "x").write_bytes(DATA)
        with web(tmp_path) as server:
            page = Store(server.url)
            assert page.read("x") == DATA
        server_gone = f"{server.url}/x: read: the connection is refused, 6 attempts"
        assert complaint(lambda: Store(server.url).read("x")) == server_gone

    def test_a_server_that_redirects_in_a_loop(self, page: Store, site: Server) -> None:
        site.faults.add("302", times=100, Location="/x")
        assert complaint(lambda: page.read("x")) == f"{page.url}/x: read: the server redirects in a loop"

    def test_a_server_without_ranges_and_an_object_that_changes(
        self, page: Store, site: Server, tmp_path: Path, waits: list[float]
    ) -> None:
        stream = page.stream("x", 900)
        (tmp_path / "site" / "x").write_bytes(DATA)
        assert next(stream) == DATA[:900]
        slow = module.Bucket(endpoint.connect(site.url))
        (tmp_path / "site" / "x").write_bytes(DATA + b"more")
        says = f"{site.url}/x: read: has changed from 1000 to 1004 bytes"
        assert complaint(lambda: slow._range("x", 0, 10, 1000)) == says
        site.faults.add("whole")
        assert complaint(lambda: page.read_range("x", 0, 10)) == (
            f"{site.url}/x: read: the server does not serve ranges"
        )


class TestBucket:
    """An S3."""

    def test_wrong_credentials(self, folder: Store, bucket: Server, waits: list[float]) -> None:
        bucket.faults.add("403", times=9, Code="SignatureDoesNotMatch")
        said = "access denied (HTTP 403 SignatureDoesNotMatch); the credentials do not allow it"
        assert complaint(lambda: folder.read("x")) == f"{folder.url}/x: read: {said}"
        assert complaint(lambda: folder.put("x", b"")) == f"{folder.url}/x: write: {said}"
        assert complaint(lambda: folder.create("x", b"")) == f"{folder.url}/x: create: {said}"
        assert complaint(lambda: folder.list("a")) == f"{folder.url}/a: list: {said}"
        assert complaint(lambda: folder.delete("x")) == f"{folder.url}/x: delete: {said}"
        stat = (
            "access denied (HTTP 403 Forbidden); the credentials do not allow it; "
            "without s3:ListBucket it may be missing as well"
        )
        assert complaint(lambda: folder.exists("x")) == f"{folder.url}/x: stat: {stat}"
        assert waits == []

    def test_no_credentials(self, bucket: Server, cloud: pytest.MonkeyPatch) -> None:
        cloud.delenv("AWS_ACCESS_KEY_ID")
        cloud.delenv("AWS_SECRET_ACCESS_KEY")
        private = Store(f"s3://{BUCKET}/folder")
        bucket.faults.add("403", Code="AccessDenied")
        assert complaint(lambda: private.read("x")) == (
            f"s3://{BUCKET}/folder/x: read: access denied (HTTP 403 AccessDenied); "
            "no credentials were found, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )

    def test_a_bucket_that_is_not_there(self, bucket: Server) -> None:
        gone = Store("s3://no-such-bucket/folder")
        said = "there is no such bucket (HTTP 404 NoSuchBucket)"
        assert complaint(lambda: gone.read("x")) == f"{gone.url}/x: read: {said}"
        assert complaint(gone.list) == f"{gone.url}: list: {said}"
        assert complaint(gone.check_writable).endswith(f": write: {said}")

    def test_a_failure_crosses_a_process_boundary(self, folder: Store, bucket: Server) -> None:
        bucket.faults.add("403", Code="AccessDenied")
        with pytest.raises(StoreError) as caught:
            folder.read("x")
        crossed = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
        assert (type(crossed), str(crossed)) == (StoreError, str(caught.value))

    def test_an_upload_that_is_gone(self, folder: Store, bucket: Server) -> None:
        bucket.faults.add("404", method="PUT", Code="NoSuchUpload")
        assert complaint(lambda: folder.put("x", b"")) == (
            f"{folder.url}/x: write: there is no such bucket or upload (HTTP 404 NoSuchUpload)"
        )

    def test_credentials_that_give_no_token(
        self, bucket: Server, cloud: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        denied = retry.Failure(reason="the credentials give no token (HTTP 400)", token=True)
        cloud.setenv("GOOGLE_BEARER_TOKEN", "hush")
        public = module.Bucket(endpoint.connect("gs://bucket"))
        assert str(public._explain("read", "x", retry.FailedError(denied, 1))) == (
            "gs://bucket/x: read: the credentials give no token (HTTP 400); "
            "GOOGLE_SKIP_SIGNATURE=true reads a public bucket without"
        )

    def test_a_profile_that_cannot_renew_its_keys_is_one_line(
        self, bucket: Server, cloud: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        cloud.delenv("AWS_ACCESS_KEY_ID")
        sso = "sso_start_url = https://host/start\nsso_region = x\nsso_account_id = 1\nsso_role_name = r\n"
        (tmp_path / "config").write_text(f"[profile lab]\n{sso}")
        cloud.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        cloud.setenv("AWS_PROFILE", "lab")
        assert complaint(lambda: Store(f"s3://{BUCKET}").read("x")) == (
            f"s3://{BUCKET}/x: read: the credentials give no token (Error loading SSO Token: Token for (url) "
            "does not exist); AWS_SKIP_SIGNATURE=true reads a public bucket without"
        )
        assert bucket.faults.requests == []

    def test_the_keys_of_a_profile_are_renewed(
        self, bucket: Server, cloud: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        cloud.delenv("AWS_ACCESS_KEY_ID")
        (tmp_path / "get").write_text(
            f"echo >> {tmp_path}/calls; n=$(wc -l < {tmp_path}/calls)\n"
            'echo "{\\"Version\\": 1, \\"AccessKeyId\\": \\"key-$n\\", \\"SecretAccessKey\\": \\"hush\\",'
            ' \\"Expiration\\": \\"$(date -u -d +60sec +%Y-%m-%dT%H:%M:%SZ)\\"}"\n'
        )
        (tmp_path / "config").write_text(f"[default]\ncredential_process = sh {tmp_path}/get\n")
        cloud.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        cloud.setattr(endpoint, "_KEYS_TTL", timedelta(0))
        store = Store(f"s3://{BUCKET}/{uuid.uuid4().hex}")
        for _ in range(3):
            store.put("x", DATA)
            assert store.read("x") == DATA
        used = bucket.faults.signed_by
        assert len(used) == 6
        assert all(key.startswith("key-") for key in used)
        assert len(set(used)) > 1, "botocore is asked again"

    def test_a_role_is_assumed(self, bucket: Server, cloud: pytest.MonkeyPatch, tmp_path: Path) -> None:
        cloud.delenv("AWS_ACCESS_KEY_ID")
        (tmp_path / "config").write_text(
            "[profile lab]\nrole_arn = arn:aws:iam::123456789012:role/lab\nsource_profile = own\n"
            "region = us-east-1\n[profile own]\naws_access_key_id = own\naws_secret_access_key = hush\n"
        )
        cloud.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        cloud.setenv("AWS_PROFILE", "lab")
        Store(f"s3://{BUCKET}/{uuid.uuid4().hex}").put("x", DATA)
        asked, used = bucket.faults.signed_by
        assert asked == "own"
        assert used.startswith("ASIA"), "temporary keys, which STS gave"

    def test_a_bucket_for_reading(self, folder: Store, bucket: Server) -> None:
        folder.put("x", DATA)
        bucket.faults.add("403", times=9, method="PUT", Code="AccessDenied")
        said = complaint(folder.check_writable)
        assert said.startswith(f"{folder.url}/.oxcart/probe-")
        assert said.endswith(
            ": write: access denied (HTTP 403 AccessDenied); the credentials do not allow it"
        )
        assert folder.read("x") == DATA

    def test_an_endpoint_that_is_not_there_is_named(
        self, bucket: Server, cloud: pytest.MonkeyPatch, waits: list[float]
    ) -> None:
        cloud.setenv("AWS_ENDPOINT_URL", "http://me:password@127.0.0.1:9")
        gone = Store(f"s3://{BUCKET}/folder")
        assert complaint(lambda: gone.read("x")) == (
            f"s3://{BUCKET}/folder/x: read: the connection is refused by 127.0.0.1:9, 2 attempts"
        )

    @pytest.mark.parametrize("what", ["500", "503"])
    def test_every_operation_is_tried_again(
        self, folder: Store, bucket: Server, what: str, waits: list[float]
    ) -> None:
        calls: list[tuple[Callable[[], object], object]] = [
            (lambda: folder.put("x", DATA), None),
            (lambda: folder.create("y", DATA), True),
            (lambda: folder.size("x"), 1000),
            (lambda: folder.read("x"), DATA),
            (lambda: folder.read_range("x", 0, 5), DATA[:5]),
            (lambda: folder.list(), ["x", "y"]),
            (lambda: folder.delete("x", "y"), None),
        ]
        for call, expected in calls:
            bucket.faults.clear()
            bucket.faults.add(what)
            assert call() == expected
        assert len(waits) == len(calls)
        assert folder.list() == []

    @pytest.mark.parametrize("status", ["429", "503"])
    def test_a_busy_bucket_gets_the_attempts_and_no_other_request(
        self, folder: Store, bucket: Server, status: str, waits: list[float]
    ) -> None:
        calls: list[Callable[[], object]] = [
            lambda: folder.put("x", DATA),
            lambda: folder.create("x", DATA),
            lambda: folder.size("x"),
            lambda: folder.read("x"),
            lambda: folder.list(),
            lambda: folder.delete("x", "y"),
        ]
        bucket.faults.add(status, times=100, Retry_After="7")
        for call in calls:
            bucket.faults.requests.clear()
            assert complaint(call).endswith(", 6 attempts")
            assert len(bucket.faults.requests) == 6
            assert len(set(bucket.faults.requests)) == 1
        assert len(waits) == 5 * len(calls)

    def test_a_creation_whose_answer_was_lost_has_succeeded(
        self, folder: Store, bucket: Server, waits: list[float]
    ) -> None:
        bucket.faults.add("lost", method="PUT")
        assert folder.create("x", b"mine") is True
        bucket.faults.add("500", method="PUT")
        assert folder.create("x", b"other") is False
        assert folder.read("x") == b"mine"

    def test_a_large_object_goes_up_in_parts_that_are_cleared_away_after_a_failure(
        self, folder: Store, bucket: Server, waits: list[float]
    ) -> None:
        data = os.urandom(1 << 20) * 33

        def write() -> None:
            with folder.writer("x") as file:
                file.write(data)

        bucket.faults.add("403", times=1, method="PUT", name="partNumber=2", Code="AccessDenied")
        assert complaint(write) == (
            f"{folder.url}/x: write: access denied (HTTP 403 AccessDenied); the credentials do not allow it"
        )
        assert bucket.faults.requests[-1][0] == "DELETE"
        assert "uploadId=" in bucket.faults.requests[-1][1]
        assert folder.list() == []
        bucket.faults.clear()
        bucket.faults.add("500", times=2, method="PUT", name="partNumber=3")
        write()
        assert folder.read("x") == data
        begun = [path for method, path in bucket.faults.requests if method == "POST" and "uploads" in path]
        assert len(begun) == 1, "the part is retried alone"
        assert waits == []
        bucket.faults.clear()
        bucket.faults.add("400", method="PUT", name="partNumber=3", Code="BadDigest")
        write()
        assert len(waits) == 1, "what obstore does not retry is retried as a whole"

    def test_an_exception_sends_nothing(self, folder: Store, bucket: Server) -> None:
        def fail_within() -> None:
            with folder.writer("x") as file:
                file.write(bytes(40 << 20))
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fail_within()
        assert bucket.faults.requests == []

    def test_a_temporary_folder_that_is_not_there(
        self, folder: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", "/none")
        assert complaint(lambda: folder.writer("x").__enter__()) == (
            f"{folder.url}/x: write: No such file or directory in /none, where it is put together; set TMPDIR"
        )

    def test_many_names_take_few_round_trips(self, folder: Store, bucket: Server) -> None:
        names = [f"a/{i:04d}" for i in range(60)]
        for name in names:
            folder.put(name, b"12")
        bucket.faults.clear()
        assert folder.missing([*names, "a/none"]) == ["a/none"]
        assert folder.sizes(names) == dict.fromkeys(names, 2)
        assert [method for method, _ in bucket.faults.requests] == ["GET", "GET"]
        bucket.faults.clear()
        bucket.faults.add("403", method="GET")  # listing may be forbidden where reading is not
        assert folder.sizes(names) == dict.fromkeys(names, 2)
        assert [method for method, _ in bucket.faults.requests] == ["GET", *["HEAD"] * 60]

    def test_a_name_that_is_none(self, folder: Store) -> None:
        assert complaint(lambda: folder.read("a//b")).startswith(
            f"{folder.url}/a//b: read: Could not parse path"
        )


def test_a_server_without_tls_is_not_tried_again(site: Server, waits: list[float]) -> None:
    url = site.url.replace("http://", "https://")
    says = f"{url}/x: read: the server answers without TLS; is it http:// ?"
    assert complaint(lambda: Store(url).read("x")) == says
    assert waits == []


def test_a_short_body_is_tried_again(
    page: Store, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the connection does not notice it."""
    short = [True, True]

    def body(result: object, length: int) -> bytes:
        if short:
            short.pop()
            raise retry.CutError(f"the body has 3 of {length} bytes")
        return real(result, length)

    real = module._body
    monkeypatch.setattr(module, "_body", body)
    assert page.read_range("x", 10, 200) == DATA[10:210]
    assert len(waits) == 2
    short += [True] * 6
    says = f"{page.url}/x: read: the body has 3 of 200 bytes, 6 attempts"
    assert complaint(lambda: page.read_range("x", 10, 200)) == says
