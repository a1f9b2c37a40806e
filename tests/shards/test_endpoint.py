"""Which store a URL and an environment make; nothing is sent."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from oxcart.shards import endpoint
from oxcart.shards.endpoint import connect
from oxcart.shards.errors import ConfigError

Environment = pytest.MonkeyPatch
KEY = base64.b64encode(b"the key").decode()


@pytest.fixture(autouse=True)
def elsewhere(cloud: Environment, tmp_path: Path) -> None:
    """This machine is nobody's."""
    cloud.setattr(endpoint, "_PRODUCT", tmp_path / "product")
    cloud.setattr(endpoint, "_VENDOR", tmp_path / "vendor")


def test_without_credentials_nothing_is_signed(cloud: Environment) -> None:
    cloud.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    for url, public in {
        "gs://bucket/a b": "https://storage.googleapis.com/bucket/a b",
        "s3://bucket": "https://s3.us-east-1.amazonaws.com/bucket",
        "az://box/x/": "https://account.blob.core.windows.net/box/x",
        "https://host/x": "https://host/x",
    }.items():
        made = connect(url)
        assert made.anonymous
        assert made.public == public
        assert made.address("c d") == f"{public}/c%20d"
        assert made.server is None
        assert made.url == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "values"),
    [
        ("s3://bucket", {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "hush"}),
        ("az://box", {"AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_STORAGE_ACCOUNT_KEY": KEY}),
        ("az://box", {"AZURE_STORAGE_ACCOUNT": "account", "AZURE_STORAGE_KEY": KEY}),
        ("az://box", {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=account;AccountKey={KEY};"}),
        ("gs://bucket", {"GOOGLE_BEARER_TOKEN": "hush"}),
    ],
)
def test_with_credentials_it_is(cloud: Environment, url: str, values: dict[str, str]) -> None:
    for name, value in values.items():
        cloud.setenv(name, value)
    made = connect(url)
    assert not made.anonymous
    assert made.public is None
    if "GOOGLE_BEARER_TOKEN" not in values:
        address = made.address("x")
        assert address is not None
        assert "sig" in address.lower()


def test_the_files_of_the_aws_command_line(cloud: Environment, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile lab]\nregion = eu-west-1\nendpoint_url = http://host:1/\n")
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = no\naws_secret_access_key = no\n"
        "[lab]\naws_access_key_id = id\naws_secret_access_key = hush%\n"
    )
    cloud.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    cloud.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    cloud.setenv("AWS_PROFILE", "lab")
    made = connect("s3://bucket")
    assert not made.anonymous
    assert made.server == "host:1"
    found = made.reader.config
    assert (found["region"], found["access_key_id"]) == ("eu-west-1", "id")
    cloud.setenv("AWS_REGION", "us-west-2")
    cloud.setenv("AWS_ENDPOINT_URL_S3", "http://other:2")
    made = connect("s3://bucket")
    assert (made.reader.config["region"], made.server) == ("us-west-2", "other:2")


def test_a_machine_of_the_cloud_has_credentials_of_its_own(cloud: Environment, tmp_path: Path) -> None:
    (tmp_path / "product").write_text("Google Compute Engine\n")
    (tmp_path / "vendor").write_text("Amazon EC2\n")
    assert not connect("gs://bucket").anonymous
    assert connect("s3://bucket").anonymous, "AWS_EC2_METADATA_DISABLED"
    cloud.delenv("AWS_EC2_METADATA_DISABLED")
    assert not connect("s3://bucket").anonymous


def test_an_emulator_of_google(cloud: Environment) -> None:
    for value in ("127.0.0.1:9", "http://127.0.0.1:9/"):
        cloud.setenv("STORAGE_EMULATOR_HOST", value)
        assert connect("gs://bucket/x").server == "127.0.0.1:9"


def test_a_key_file_that_is_not_there_is_one_line(cloud: Environment, tmp_path: Path) -> None:
    cloud.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(ConfigError) as caught:
        connect("gs://bucket/x")
    assert str(caught.value).startswith("gs://bucket/x: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_a_timeout_that_is_none(cloud: Environment, text: str) -> None:
    cloud.setenv("OXCART_STORE_TIMEOUT_S", text)
    with pytest.raises(ConfigError) as caught:
        connect("s3://bucket")
    assert str(caught.value) == f"OXCART_STORE_TIMEOUT_S: expected seconds like 30, got {text!r}"
    cloud.setenv("OXCART_STORE_TIMEOUT_S", "2.5")
    assert connect("s3://bucket").timeout_s == 2.5
