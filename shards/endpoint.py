"""Open the obstore store of a URL, configured by the environment.

    gs://bucket/path       GOOGLE_APPLICATION_CREDENTIALS, gcloud's login, or the account of a Google machine;
                           STORAGE_EMULATOR_HOST for an emulator
    s3://bucket/path       AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile of ~/.aws (AWS_PROFILE, its
                           keys with boto3), or the role of an Amazon machine; AWS_REGION; AWS_ENDPOINT_URL
    az://container/path    AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or
                           AZURE_STORAGE_SAS_TOKEN, or AZURE_STORAGE_CONNECTION_STRING
    https://host/path      nothing

Without credentials requests are unsigned, as public buckets want them. They are also unsigned if
GOOGLE_SKIP_SIGNATURE, AWS_SKIP_SIGNATURE or AZURE_SKIP_SIGNATURE is true. Other variables that obstore reads
work as well. A URL that contains a secret is refused, since URLs are shown and stored.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from oxcart.shards.errors import ConfigError
from oxcart.shards.retry import ERRORS, plain

TIMEOUT = "OXCART_STORE_TIMEOUT_S"
"""Name of the environment variable with the seconds that a connection may be silent."""
TIMEOUT_S = 30.0
"""Seconds that a connection may be silent, by default."""
UPLOAD_FACTOR = 10
"""Factor on that time for uploads, which are answered only after all of their bytes."""
PART_RETRIES = 3
"""Retries by obstore for each part of a large object."""
SCHEMES = ("gs", "s3", "az", "https", "http")

_PRODUCT = Path("/sys/class/dmi/id/product_name")
_VENDOR = Path("/sys/class/dmi/id/sys_vendor")
_AZURITE = "http://127.0.0.1:10000"
_KEYS_TTL = timedelta(minutes=10)
"""Age at which obstore asks botocore for keys again; keys from botocore are valid for at least this long."""
_KEY_OPTIONS = ("aws_access_key_id", "credential_process", "login_session", "role_arn", "sso_")
"""Beginnings of the names of the options that give an AWS profile its keys."""
_PLAIN = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]*")
"""Lenient pattern of the names of buckets, containers, accounts and regions."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A bucket, a folder of one, or a web server."""

    url: str
    """URL without a slash at its end."""
    scheme: str
    """Scheme of the URL, one of `SCHEMES`."""
    reader: Any
    """obstore's store for requests that are answered immediately. It retries nothing."""
    writer: Any
    """obstore's store for uploads, which may be silent for longer. It retries nothing."""
    uploader: Any
    """obstore's store for uploads in parts; obstore itself retries the parts."""
    anonymous: bool
    """Whether requests are unsigned."""
    credentials: str
    """Names of the environment variables that hold credentials."""
    unsigned: str
    """Name of the environment variable that makes requests unsigned even if there are credentials."""
    server: str | None
    """Host and port of a server that the environment names instead of the cloud's own."""
    timeout_s: float
    """Seconds that a connection may be silent."""

    @property
    def host(self) -> str:
        """Host that answers: the server, or the bucket if it is the cloud's own."""
        return self.server or self.url.partition("://")[2].partition("/")[0]


def connect(text: str) -> Endpoint:
    """Open the store of a URL; no request is sent.

    Raises:
        ConfigError: the URL or the environment is not valid for a store.
    """
    scheme, host, path = _parse(text)
    url = f"{scheme}://{host}{'/' if path else ''}{path}"
    timeout_s = silence_s()
    if scheme in ("http", "https"):
        config: dict[str, Any] = {"skip_signature": True}
        credentials, unsigned = "", ""
        make: Any = partial(HTTPStore, url)
    else:
        kind, unsigned, configure = _CLOUDS[scheme]
        config, credentials = configure(host)
        config |= {"skip_signature": True} if _unsigned(unsigned) else {}
        provider = config.pop("credential_provider", None)
        make = partial(kind, host, prefix=path or None, config=config, credential_provider=provider)

    def open_(factor: int, retries: int) -> Any:
        return make(client_options=client_options(timeout_s * factor), retry_config={"max_retries": retries})

    try:
        reader, writer, uploader = open_(1, 0), open_(UPLOAD_FACTOR, 0), open_(UPLOAD_FACTOR, PART_RETRIES)
    except ERRORS as error:
        raise ConfigError(f"{url}: {plain(str(error))}") from error
    server = config.get("endpoint") or config.get("base_url")
    if config.get("use_emulator"):
        server = os.environ.get("AZURITE_BLOB_STORAGE_URL", _AZURITE)
    return Endpoint(
        url=url,
        scheme=scheme,
        reader=reader,
        writer=writer,
        uploader=uploader,
        anonymous=bool(config.get("skip_signature")),
        credentials=credentials,
        unsigned=unsigned,
        server=urllib.parse.urlsplit(server).netloc.rpartition("@")[2] if server else None,
        timeout_s=timeout_s,
    )


def client_options(timeout_s: float) -> dict[str, Any]:
    """obstore's options of a client whose connections may be silent for `timeout_s` seconds."""
    return {
        "allow_http": True,  # where the URL or the endpoint says http
        "connect_timeout": timedelta(seconds=min(timeout_s, 10.0)),
        "read_timeout": timedelta(seconds=timeout_s),
        "timeout": timedelta(days=1),  # a slow connection is not a broken one
    }


def _parse(text: str) -> tuple[str, str, str]:
    """Scheme, host or bucket, and path without leading and trailing slashes."""
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    safe = f"{scheme}://{rest.partition('?')[0].partition('#')[0].rpartition('@')[2]}"
    if scheme == "file" and rest:
        raise ConfigError(f"store {safe!r}: unknown scheme 'file'; expected a directory, so {rest!r}")
    if scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in (*SCHEMES, "hf"))
        raise ConfigError(f"store {safe!r}: unknown scheme {scheme!r}; expected a directory or {known}")
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        raise ConfigError(
            f"store {safe!r}: expected a URL without user, password, ? and #; "
            "credentials come from the environment"
        )
    host, _, path = rest.partition("/")
    if not host or not rest.isprintable():
        raise ConfigError(
            f"store {safe!r}: expected {scheme}://{'host' if 'http' in scheme else 'bucket'}/path"
        )
    if not (scheme in ("http", "https") or _PLAIN.fullmatch(host)):
        raise ConfigError(
            f"store {safe!r}: expected {scheme}://bucket/path with letters, digits, '.', '-' and '_' in the "
            f"name of the bucket, got {host!r}"
        )
    return scheme, host, path.strip("/")


def _first(*names: str) -> str | None:
    """Value of the first of these environment variables that is set."""
    return next((text for name in names if (text := os.environ.get(name))), None)


def server_url(*names: str) -> str | None:
    """Value of the first of these environment variables that is set: a URL, without a slash at its end.

    Raises:
        ConfigError: it is not a URL of a server.
    """
    return next((_checked(name, text) for name in names if (text := os.environ.get(name))), None)


def _checked(name: str, text: str) -> str:
    """An endpoint without a slash at its end, checked because obstore panics if it is not a URL."""
    with contextlib.suppress(ValueError):
        parts = urllib.parse.urlsplit(text)
        fits = parts.scheme in ("http", "https") and parts.hostname and not parts.query + parts.fragment
        if fits and (parts.port is None or parts.port > 0) and text.isprintable() and " " not in text:
            return text.rstrip("/")
    raise ConfigError(f"{name}: expected a URL like https://host:9000, got {text.rpartition('@')[2]!r}")


def _checked_name(name: str, text: str) -> str:
    if not _PLAIN.fullmatch(text):
        raise ConfigError(f"{name}: expected letters, digits, '.', '-' and '_', got {text!r}")
    return text


def silence_s() -> float:
    """Seconds that a connection may be silent, from the environment.

    Raises:
        ConfigError: the environment holds something else.
    """
    text = os.environ.get(TIMEOUT, "")
    try:
        value = float(text or TIMEOUT_S)
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= 86_400:
        raise ConfigError(f"{TIMEOUT}: expected seconds like {TIMEOUT_S:g}, got {text!r}")
    return value


def _google(bucket: str) -> tuple[dict[str, Any], str]:
    names = (
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_PATH",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_BEARER_TOKEN",
        "GCE_METADATA_HOST",
    )
    config: dict[str, Any] = {}
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if emulator:
        base = _checked("STORAGE_EMULATOR_HOST", emulator if "://" in emulator else f"http://{emulator}")
        # A token without meaning: unsigned writes would still fetch one from a Google machine.
        return {"base_url": base, "bearer_token": "emulator"}, names[0]
    login = Path(os.environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config" / "gcloud")
    logged_in = (login / "application_default_credentials.json").is_file()
    if not (_first(*names) or logged_in or _holds(_PRODUCT, "Google")):
        config["skip_signature"] = True
    if server := server_url("GOOGLE_BASE_URL", "GOOGLE_STORAGE_BASE_URL"):
        config["base_url"] = server
    return config, names[0]


def _amazon(bucket: str) -> tuple[dict[str, Any], str]:
    names = (
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    )
    config: dict[str, Any] = {}
    own_machine = _holds(_VENDOR, "Amazon EC2") and not os.environ.get("AWS_EC2_METADATA_DISABLED")
    signs = not (_first(*names) or _unsigned("AWS_SKIP_SIGNATURE"))
    profile, provider = _amazon_profile(signs)
    if provider is not None:
        config["credential_provider"] = provider
    elif signs and not own_machine:
        config["skip_signature"] = True
    region = _first("AWS_REGION", "AWS_DEFAULT_REGION") or profile.get("region") or "us-east-1"
    config["region"] = _checked_name("AWS_REGION", region)
    endpoint = server_url("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    if not endpoint and profile.get("endpoint_url"):
        endpoint = _checked("endpoint_url of the profile of AWS", profile["endpoint_url"])
    if endpoint:
        config["endpoint"] = endpoint
    return config, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


def _amazon_profile(signs: bool) -> tuple[Mapping[str, str], Any]:
    """Settings of the AWS profile in use, and the source of its keys: the file, a login, a role or a program.

    Args:
        signs: whether the keys are needed; if not, a file that cannot be read counts as empty.

    Raises:
        ConfigError: the keys are needed, and a file cannot be read, the profile does not exist or gives no
            keys although it should, or boto3 is not installed.
    """
    chosen = _first("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
    name = chosen or "default"
    paths = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
    config, credentials = (
        os.path.expanduser(os.path.expandvars(os.environ.get(variable, path)))
        for variable, path in paths.items()
    )
    profile: dict[str, str] = {}
    headings = [f"profile {name}", f'profile "{name}"', *(["default"] if name == "default" else [])]
    for file, sections in ((config, headings), (credentials, [name])):
        parser = configparser.RawConfigParser()
        try:
            parser.read(file)
        except (configparser.Error, UnicodeDecodeError):
            if signs:  # the error itself may show a line with a secret
                raise ConfigError(f"AWS_PROFILE={name}: {file}: expected a file of AWS profiles") from None
        else:
            for section in filter(parser.has_section, sections):
                profile |= parser[section]
    if not signs or not (chosen or any(option.startswith(_KEY_OPTIONS) for option in profile)):
        return profile, None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise ConfigError(
            f"AWS_PROFILE={name}: the keys of a profile need boto3, which is not installed; "
            "pip install 'oxcart[aws]', or read a public bucket with AWS_SKIP_SIGNATURE=true"
        ) from error
    state = tuple((file, os.path.getmtime(file)) for file in (config, credentials) if os.path.isfile(file))
    session = _amazon_session(name, state, os.getpid())
    return profile, session and Boto3CredentialProvider(session, ttl=_KEYS_TTL)


@lru_cache(maxsize=8)
def _amazon_session(name: str, state: tuple[tuple[str, float], ...], process: int) -> Any:
    """botocore's session of a profile, None if the profile gives no keys.

    All stores of a process share it, so that a program or a role is asked once.

    Args:
        name: of the profile.
        state: paths and times of the files that it is read from; changed files are read again.
        process: number of this process; a forked one asks for itself, as locks may be held at the fork.

    Raises:
        ConfigError: the profile does not exist or cannot give its keys.
    """
    from botocore.exceptions import BotoCoreError  # of the extra `aws`
    from botocore.session import Session  # of the extra `aws`

    try:
        session = Session(profile=name)
        session.get_component("credential_provider").remove("iam-role")  # obstore asks the machine
        return session if session.get_credentials() else None
    except (BotoCoreError, OSError) as error:
        reason = plain(str(error))
    except (ValueError, TypeError, AttributeError):  # their texts may show what the program printed
        reason = "credential_process: expected a program that prints keys as JSON"
    raise ConfigError(f"AWS_PROFILE={name}: {reason}")


def _azure(container: str) -> tuple[dict[str, Any], str]:
    names = (
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_ACCESS_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_SAS_KEY",
        "AZURE_STORAGE_TOKEN",
        "AZURE_STORAGE_CLIENT_ID",
        "AZURE_CLIENT_ID",
        "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_STORAGE_USE_EMULATOR",
        "IDENTITY_ENDPOINT",
    )
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    string = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    values = {
        "account_name": string.get("AccountName")
        or _first("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
        "account_key": string.get("AccountKey") or os.environ.get("AZURE_STORAGE_KEY"),
        "sas_key": string.get("SharedAccessSignature"),
        "endpoint": _checked("BlobEndpoint of AZURE_STORAGE_CONNECTION_STRING", string["BlobEndpoint"])
        if string.get("BlobEndpoint")
        else server_url("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    }
    config: dict[str, Any] = {name: value for name, value in values.items() if value}
    server_url("AZURITE_BLOB_STORAGE_URL")
    if string.get("UseDevelopmentStorage", "").lower() == "true":  # obstore knows Azurite's account and key
        return {"use_emulator": True}, names[0]
    account = config.get("account_name")
    if not account and not os.environ.get("AZURE_STORAGE_USE_EMULATOR"):
        raise ConfigError(
            f"az://{container}: expected the storage account in AZURE_STORAGE_ACCOUNT_NAME or in "
            "AZURE_STORAGE_CONNECTION_STRING"
        )
    if account:
        _checked_name("AZURE_STORAGE_ACCOUNT_NAME", account)
    server_url("IDENTITY_ENDPOINT")
    if not (_first(*names) or "account_key" in config or "sas_key" in config):
        config["skip_signature"] = True
    return config, "AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN"


def _unsigned(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "on", "yes", "y")


def _holds(file: Path, word: str) -> bool:
    """Whether a system file exists and contains a word."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return word in file.read_text()
    return False


_CLOUDS = {
    "gs": (GCSStore, "GOOGLE_SKIP_SIGNATURE", _google),
    "s3": (S3Store, "AWS_SKIP_SIGNATURE", _amazon),
    "az": (AzureStore, "AZURE_SKIP_SIGNATURE", _azure),
}
"""Scheme -> obstore's store, the variable that makes requests unsigned, and the reader of the environment."""
