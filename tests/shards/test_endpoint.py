"""Which store a URL and an environment make; nothing is sent."""

from __future__ import annotations

import base64
import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import obstore
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


@pytest.fixture
def without_boto3(cloud: Environment) -> None:
    for name in ("boto3", "botocore", "obstore.auth.boto3"):
        cloud.setitem(sys.modules, name, None)


def test_without_credentials_nothing_is_signed(cloud: Environment) -> None:
    cloud.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    for url in ("gs://bucket/a b", "s3://bucket", "az://box/x/", "https://host/x"):
        made = connect(url)
        assert made.anonymous
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
    if "GOOGLE_BEARER_TOKEN" not in values:
        assert "sig" in obstore.sign(made.reader, "GET", "x", timedelta(seconds=60)).lower()


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
    assert made.reader.config["region"] == "eu-west-1"
    keys = made.reader.credential_provider()
    assert (keys["access_key_id"], keys["secret_access_key"]) == ("id", "hush%")
    cloud.setenv("AWS_REGION", "us-west-2")
    cloud.setenv("AWS_ENDPOINT_URL_S3", "http://other:2")
    made = connect("s3://bucket")
    assert (made.reader.config["region"], made.server) == ("us-west-2", "other:2")


def test_a_profile_is_needed_only_where_nothing_else_gives_keys(cloud: Environment, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile lab]\nregion = us-west-2\n")
    cloud.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert connect("s3://bucket").anonymous
    cloud.setenv("AWS_PROFILE", "lab")
    made = connect("s3://bucket")
    assert (made.anonymous, made.reader.config["region"]) == (True, "us-west-2")
    cloud.setenv("AWS_PROFILE", "none")
    with pytest.raises(ConfigError) as caught:
        connect("s3://bucket")
    assert str(caught.value) == "AWS_PROFILE=none: The config profile (none) could not be found"
    cloud.setenv("AWS_ACCESS_KEY_ID", "id")
    cloud.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    made = connect("s3://bucket")
    assert (made.anonymous, made.reader.credential_provider) == (False, None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("aws_secret_access_key = hush", "{file}: expected a file of AWS profiles"),
        ("[default]\ncredential_process = /no/such", "[Errno 2] No such file or directory: '/no/such'"),
        (
            "[default]\ncredential_process = sh -c 'echo hush >&2; exit 1'",
            "Error when retrieving credentials from custom-process",
        ),
        (
            "[default]\ncredential_process = echo hush",
            "credential_process: expected a program that prints keys as JSON",
        ),
        (
            "[default]\ncredential_process = echo '[\"hush\"]'",
            "credential_process: expected a program that prints keys as JSON",
        ),
    ],
)
def test_a_profile_that_gives_no_keys_is_one_line_without_a_secret(
    cloud: Environment, tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    cloud.setenv("AWS_CONFIG_FILE", str(file))
    with pytest.raises(ConfigError) as caught:
        connect("s3://bucket")
    assert str(caught.value) == f"AWS_PROFILE=default: {says.format(file=file)}"
    assert "hush" not in "".join(traceback.format_exception(caught.value, limit=0))
    cloud.setenv("AWS_SKIP_SIGNATURE", "true")
    assert connect("s3://bucket").anonymous


def test_the_program_of_a_profile_runs_once_until_the_profile_changes(
    cloud: Environment, tmp_path: Path
) -> None:
    (tmp_path / "get").write_text(
        f"echo >> {tmp_path}/calls\n"
        'echo \'{"Version": 1, "AccessKeyId": "id", "SecretAccessKey": "hush"}\'\n'
    )
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = sh {tmp_path}/get\n")
    cloud.setenv("AWS_CONFIG_FILE", str(config))

    def calls() -> int:
        for _ in range(3):
            assert connect("s3://bucket").reader.credential_provider()["access_key_id"] == "id"
        return len((tmp_path / "calls").read_text())

    assert calls() == 1
    os.utime(config, (0, 0))
    assert calls() == 2
    with cloud.context() as forked:
        forked.setattr(os, "getpid", lambda: 0)
        assert calls() == 3


def test_a_role_is_not_taken_for_the_keys_beside_it(cloud: Environment, tmp_path: Path) -> None:
    keys = "aws_access_key_id = id\naws_secret_access_key = hush\n"
    (tmp_path / "credentials").write_text(
        f"[lab]\n{keys}role_arn = arn:aws:iam::123456789012:role/x\nsource_profile = own\n[own]\n{keys}"
    )
    cloud.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    methods = {}
    for name in ("lab", "own"):
        cloud.setenv("AWS_PROFILE", name)
        methods[name] = connect("s3://bucket").reader.credential_provider.credentials.method
    assert methods == {"lab": "assume-role", "own": "shared-credentials-file"}


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("lab", "region = eu-west-1"),
        ("default", "aws_access_key_id = id"),
        ("default", "credential_process = false"),
        ("default", "role_arn = arn"),
        ("default", "sso_session = x"),
    ],
)
def test_the_keys_of_a_profile_need_boto3(
    cloud: Environment, tmp_path: Path, without_boto3: None, name: str, option: str
) -> None:
    heading = name if name == "default" else f"profile {name}"
    (tmp_path / "config").write_text(f"[{heading}]\n{option}\n")
    cloud.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    if name != "default":
        cloud.setenv("AWS_PROFILE", name)
    with pytest.raises(ConfigError) as caught:
        connect("s3://bucket")
    assert str(caught.value) == (
        f"AWS_PROFILE={name}: the keys of a profile need boto3, which is not installed; "
        "pip install 'oxcart[aws]', or read a public bucket with AWS_SKIP_SIGNATURE=true"
    )
    cloud.setenv("AWS_SKIP_SIGNATURE", "true")
    assert connect("s3://bucket").anonymous


@pytest.mark.parametrize("heading", ["profile lab", 'profile "lab"', "default", "profile default"])
def test_the_region_and_endpoint_of_a_profile_do_not(
    cloud: Environment, tmp_path: Path, without_boto3: None, heading: str
) -> None:
    (tmp_path / "config").write_text(f"[{heading}]\nregion = eu-west-1\nendpoint_url = http://host:1/\n")
    cloud.setenv("HOLDER", str(tmp_path))
    cloud.setenv("AWS_CONFIG_FILE", "$HOLDER/config")
    if "lab" in heading:
        cloud.setenv("AWS_PROFILE", "lab")
        cloud.setenv("AWS_ACCESS_KEY_ID", "id")
        cloud.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    made = connect("s3://bucket")
    assert (made.anonymous, made.server) == ("lab" not in heading, "host:1")
    assert made.reader.config["region"] == "eu-west-1"
    assert made.credentials == "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


def test_a_machine_of_the_cloud_has_credentials_of_its_own(cloud: Environment, tmp_path: Path) -> None:
    (tmp_path / "product").write_text("Google Compute Engine\n")
    (tmp_path / "vendor").write_text("Amazon EC2\n")
    assert not connect("gs://bucket").anonymous
    assert connect("s3://bucket").anonymous, "AWS_EC2_METADATA_DISABLED"
    cloud.delenv("AWS_EC2_METADATA_DISABLED")
    assert not connect("s3://bucket").anonymous


@pytest.mark.parametrize(
    ("url", "values"),
    [
        ("s3://bucket", {"AWS_SKIP_SIGNATURE": "true", "AWS_PROFILE": "none"}),
        (
            "s3://bucket",
            {"AWS_SKIP_SIGNATURE": "true", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "hush"},
        ),
        ("gs://bucket", {"GOOGLE_SKIP_SIGNATURE": "1", "GOOGLE_BEARER_TOKEN": "hush"}),
        (
            "az://box",
            {
                "AZURE_SKIP_SIGNATURE": "TRUE",
                "AZURE_STORAGE_ACCOUNT_NAME": "account",
                "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            },
        ),
    ],
)
def test_whoever_wants_nothing_signed_gets_it(cloud: Environment, url: str, values: dict[str, str]) -> None:
    for name, value in values.items():
        cloud.setenv(name, value)
    made = connect(url)
    assert made.anonymous
    assert values[made.unsigned]


def test_the_string_of_azurite(cloud: Environment) -> None:
    cloud.setenv("AZURE_STORAGE_CONNECTION_STRING", "UseDevelopmentStorage=true")
    made = connect("az://box/x")
    assert (made.anonymous, made.server) == (False, "127.0.0.1:10000")
    signed = obstore.sign(made.reader, "GET", "y", timedelta(seconds=60))
    assert signed.startswith("http://127.0.0.1:10000/devstoreaccount1/box/x/y?")
    cloud.setenv("AZURITE_BLOB_STORAGE_URL", "http://azurite:1")
    assert connect("az://box").server == "azurite:1"


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


@pytest.mark.parametrize(
    "value",
    [
        "localhost:9",
        "http://",
        "http://a b:9",
        "ftp://host",
        "host",
        "http://host:port",
        "http://host/?x",
        "::",
    ],
)
@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://bucket", "AWS_ENDPOINT_URL_S3"),
        ("s3://bucket", "AWS_ENDPOINT_URL"),
        ("s3://bucket", "AWS_ENDPOINT"),
        ("gs://bucket", "GOOGLE_BASE_URL"),
        ("az://box", "AZURE_STORAGE_ENDPOINT"),
        ("az://box", "AZURE_ENDPOINT"),
        ("az://box", "IDENTITY_ENDPOINT"),
    ],
)
def test_an_endpoint_that_is_no_url_is_refused(cloud: Environment, url: str, name: str, value: str) -> None:
    cloud.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    cloud.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        connect(url)
    assert str(caught.value) == f"{name}: expected a URL like https://host:9000, got {value!r}"


@pytest.mark.parametrize("value", ["a b", "ftp://host", "host:port", "http://"])
def test_an_emulator_that_is_no_host_is_refused(cloud: Environment, value: str) -> None:
    cloud.setenv("STORAGE_EMULATOR_HOST", value)
    with pytest.raises(
        ConfigError, match=r"^STORAGE_EMULATOR_HOST: expected a URL like https://host:9000, got "
    ):
        connect("gs://bucket")


def test_endpoints_of_files_and_strings_are_checked_and_show_no_password(
    cloud: Environment, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[default]\nendpoint_url = me:hush@host:1\n")
    cloud.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(ConfigError, match=r"^endpoint_url of the profile of AWS: .*, got 'host:1'$"):
        connect("s3://bucket")
    cloud.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=account;BlobEndpoint=host:1")
    with pytest.raises(
        ConfigError, match=r"^BlobEndpoint of AZURE_STORAGE_CONNECTION_STRING: .*, got 'host:1'$"
    ):
        connect("az://box")


@pytest.mark.parametrize("bucket", ["buck et", "b:c", "b%20", "-b", "ü", "b^", ".."])
@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_a_bucket_of_odd_letters_is_refused(cloud: Environment, scheme: str, bucket: str) -> None:
    cloud.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    with pytest.raises(ConfigError) as caught:
        connect(f"{scheme}://{bucket}/x")
    assert str(caught.value) == (
        f"store '{scheme}://{bucket}/x': expected {scheme}://bucket/path with letters, digits, '.', '-' and "
        f"'_' in the name of the bucket, got {bucket!r}"
    )
    for name in ("$web", "a.b-c_d", "UPPER", "9"):
        assert connect(f"{scheme}://{name}").url == f"{scheme}://{name}"


def test_a_region_and_an_account_of_odd_letters_are_refused(cloud: Environment) -> None:
    cloud.setenv("AWS_REGION", "us east")
    with pytest.raises(ConfigError, match=r"^AWS_REGION: expected letters, .*, got 'us east'$"):
        connect("s3://bucket")
    cloud.setenv("AZURE_STORAGE_ACCOUNT_NAME", "a b")
    with pytest.raises(ConfigError, match=r"^AZURE_STORAGE_ACCOUNT_NAME: expected letters, .*, got 'a b'$"):
        connect("az://box")
