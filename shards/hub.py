"""Ask the Hugging Face Hub: what a URL names, which commit that is, which files it has, and why it refuses.

huggingface_hub speaks with the Hub. This module adds the retries and messages of other stores: one line that
says what to set or accept, without a token or a signed URL.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import responses
from json import JSONDecodeError
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from httpx2 import ConnectError, HTTPError, TimeoutException, TransportError
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HfUriError, OIDCError
from huggingface_hub.utils import (
    build_hf_headers,
    get_session,
    hf_raise_for_status,
    parse_hf_uri,
    parse_ratelimit_headers,
)

from oxcart.shards import retry
from oxcart.shards.bucket import Result
from oxcart.shards.endpoint import server_url, silence_s
from oxcart.shards.errors import ConfigError, StoreError

HOME = "https://huggingface.co"
"""The Hub, unless HF_ENDPOINT names another."""
_UNKNOWN_HOST = re.compile("not known|no address|name resolution|nodename", re.IGNORECASE)
"""How systems say that the name of a host has no address."""
_UNREACHED = ("the connection is refused", "the host is not known", "no connection")
"""Reasons of failures that come from the network between here and the Hub."""
_NO_HUB = "an answer that a Hub does not give"
_EXPLAINED = (400, 403, 413, 422)
"""HTTP statuses of which the Hub's own words say more: a quota, a file that it does not take."""


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A dataset repository of the Hub, and a revision of it."""

    name: str
    """`OWNER/NAME`."""
    revision: str | None = None
    """Branch, tag or commit; None is the default branch."""
    path: str = ""
    """Folder in the repository; "" is its root."""

    @property
    def url(self) -> str:
        """Its URL as a store."""
        revision = f"@{quote(self.revision, safe='')}" if self.revision else ""
        return f"hf://datasets/{self.name}{revision}{'/' if self.path else ''}{self.path}"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The Hub that the environment names, and who reads it."""

    api: HfApi
    """Client of the Hub's API."""
    token: str | None = field(repr=False)
    """The token; None if there is none."""
    timeout_s: float
    """Seconds that a connection may be silent."""

    @property
    def server(self) -> str:
        """Host and port of the Hub."""
        return urlsplit(self.api.endpoint).netloc.rpartition("@")[2]

    def page(self, name: str) -> str:
        """Web page of the repository `name`, without a user or password that the endpoint may have."""
        return f"{urlsplit(self.api.endpoint)._replace(netloc=self.server).geturl()}/datasets/{name}"

    def do(self, name: str, operation: str, call: Callable[[int], Result]) -> Result:
        """Make a call of huggingface_hub with the retries of other stores, and return its result.

        Args:
            name: `OWNER/NAME` of the repository that it is about.
            operation: what is done, for the message.
            call: takes the number of the attempt, from 1.

        Raises:
            StoreError: the call did not succeed.
        """

        def judged(attempt: int) -> Result:
            with self.judging():
                return call(attempt)

        try:
            return retry.attempt(judged, host=self.server, timeout_s=self.timeout_s)
        except retry.FailedError as error:
            reason = self.explain(error, name)
            raise StoreError(f"hf://datasets/{name}: {operation}: {reason}") from error

    @contextlib.contextmanager
    def judging(self) -> Iterator[None]:
        """Turn errors of huggingface_hub into a `JudgedError`, which has no URL in it."""
        try:
            yield
        except (JSONDecodeError, TypeError, LookupError):
            raise retry.JudgedError(retry.Failure(reason=_NO_HUB)) from None
        except (HTTPError, RuntimeError, ValueError) as error:
            raise retry.JudgedError(judge(error, self.timeout_s)) from None

    def token_for(self, url: str) -> str | None:
        """The token if a request for the URL goes to the Hub, and None if it goes elsewhere."""
        return self.token if _origin(url) == _origin(self.api.endpoint) else None

    def explain(self, error: retry.FailedError, name: str) -> str:
        """Why a request about the repository `name` failed, after how many attempts, and what can be done."""
        reason = error.failure.reason
        if error.failure.status is None:
            reason += f" by {self.server}"
        if error.attempts > 1:
            reason += f", {error.attempts} attempts"
        remedy = self._remedy(error.failure, name)
        return f"{reason}; {remedy}" if remedy else reason

    def _remedy(self, failure: retry.Failure, name: str) -> str:
        if failure.reason in _UNREACHED:
            return (
                "without internet, set HF_ENDPOINT to a mirror, or pass a directory that `hf download` has "
                "filled elsewhere"
            )
        if failure.reason == _NO_HUB:
            return "is HF_ENDPOINT right?"
        if failure.code == "GatedRepo":
            conditions = f"accept its conditions at {self.page(name)}"
            return conditions if self.token else f"{conditions}, and set HF_TOKEN"
        if failure.code == "BadToken":
            return "set HF_TOKEN to a valid one, or unset it for public repositories"
        if failure.code == "RevisionNotFound":
            return "expected a branch, a tag or a commit"
        if failure.status in (409, 412):
            return "run the command again"
        if failure.code == "RepoNotFound" or failure.status in (401, 403):
            right = "that the token has the right to it" if self.token else "set HF_TOKEN if it is private"
            return f"check the name, and {right}"
        return "with HF_TOKEN the limit is higher" if failure.status == 429 and not self.token else ""


def parse(text: str) -> Repository:
    """The repository of a URL.

    Raises:
        ConfigError: the text is not the URL of a dataset repository.
    """
    form = "hf://datasets/OWNER/NAME[@REVISION][/PATH]"
    rest = text.partition("://")[2]
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        shown = rest.partition("?")[0].partition("#")[0]
        shown = shown.rpartition("@")[2] if "@" in shown.partition("/")[0] else shown
        raise ConfigError(
            f"store 'hf://{shown}': expected {form} without user, password, ? and #; the "
            "token comes from HF_TOKEN"
        )
    try:
        uri = parse_hf_uri(f"hf://{rest.rstrip('/')}")
    except HfUriError as error:
        raise ConfigError(f"store {text!r}: expected {form}; {retry.plain(error.msg)}") from error
    if uri.type != "dataset" or not text.isprintable():
        raise ConfigError(f"store {text!r}: expected {form}, got a {uri.type}")
    return Repository(name=uri.id, revision=uri.revision, path=uri.path_in_repo)


def connection(place: str) -> Connection:
    """The Hub, as the environment says; no request is sent.

    Args:
        place: URL of what is wanted there, for the message.

    Raises:
        ConfigError: the environment says to stay offline, or holds a wrong setting or no usable token.
    """
    if constants.is_offline_mode():
        raise ConfigError(
            f"{place}: HF_HUB_OFFLINE is set; unset it, or pass a directory that `hf download` has filled"
        )
    endpoint = server_url("HF_ENDPOINT") or HOME
    try:
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    except (HTTPError, OSError, OIDCError) as error:
        raise ConfigError(f"{place}: the Hub's token cannot be read: {retry.plain(str(error))}") from None
    api = HfApi(endpoint=endpoint, token=token or False, library_name="oxcart")
    return Connection(api=api, token=token, timeout_s=silence_s())


def judge(error: Exception, timeout_s: float) -> retry.Failure:
    """Interpret an error of huggingface_hub, whose own text may hold URLs."""
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # why a file could not be uploaded
    if isinstance(error, HfHubHTTPError):
        return _of_answer(error)
    text = str(error)
    if isinstance(error, TimeoutException):
        return retry.Failure(reason=f"no answer for {timeout_s:g} s", again=True)
    if isinstance(error, ConnectError):
        if "CERTIFICATE" in text:
            return retry.Failure(reason="the server's certificate is not trusted")
        if "refused" in text:
            return retry.Failure(reason="the connection is refused", again=True, refused=True)
        reason = "the host is not known" if _UNKNOWN_HOST.search(text) else "no connection"
        return retry.Failure(reason=reason, again=True)
    if isinstance(error, TransportError):
        return retry.Failure(reason="the connection was cut", again=True)
    return retry.Failure(reason=retry.plain(" ".join(text.split())) or type(error).__name__)


def _of_answer(error: HfHubHTTPError) -> retry.Failure:
    response = error.response
    status = response.status_code
    code = response.headers.get("X-Error-Code", "")
    code = code if code.isalnum() else ""
    if status == 401 and "invalid" in response.headers.get("X-Error-Message", "").lower():
        code = "BadToken"
    said = f"HTTP {status} {code or responses.get(status, '')}".rstrip()
    if status in _EXPLAINED and not code and (text := response.headers.get("X-Error-Message")):
        said += f": {retry.plain(text)}"
    meaning = {
        "GatedRepo": "access is gated",
        "RevisionNotFound": "there is no such revision",
        "BadToken": "the token is not valid",
        "EntryNotFound": "no such object",
        "RepoNotFound": "there is no such dataset, or it is private",
    }.get(code, "")
    if status in (409, 412):
        meaning = "the branch has changed meanwhile"
    if not meaning and status in (401, 403, 404):
        meaning = "access denied" if status == 403 else "there is no such dataset, or it is private"
    again = status in (408, 429) or status >= 500
    limits = parse_ratelimit_headers(response.headers)
    asked = response.headers.get("Retry-After", "")
    wait_s = float(asked) if asked.isdecimal() else 0.0
    if status == 429 and limits is not None and limits.remaining == 0:
        wait_s = max(wait_s, float(limits.reset_in_seconds))
    reason = f"{meaning} ({said})" if meaning else said
    return retry.Failure(reason=reason, again=again, status=status, code=code, wait_s=wait_s)


class ListedFile(NamedTuple):
    """A file, as the Hub lists it."""

    name: str
    """Path in the repository."""
    size: int
    """Size in bytes."""
    digest: str
    """sha256 of a large file; SHA-1 of any other as a blob of git."""
    large: bool
    """Whether the Hub stores it as a large file."""


def head_of(hub: Connection, repository: Repository) -> str:
    """The commit that a revision is now.

    Raises:
        JudgedError: the Hub does not say.
    """
    with hub.judging():
        found = hub.api.dataset_info(
            repository.name, revision=repository.revision, timeout=hub.timeout_s, expand=["sha"]
        ).sha
        if not found:
            raise LookupError("no commit")
        return found


def tree(hub: Connection, name: str, commit: str, path: str, *, recursive: bool = True) -> list[ListedFile]:
    """The files in a folder of a commit; none if there is no such folder.

    Pages are asked for here, since `HfApi.list_repo_tree` would repeat a failed one by its own rules.

    Args:
        hub: the Hub.
        name: `OWNER/NAME`.
        commit: the commit, or another revision.
        path: the folder; "" is the root.
        recursive: whether folders in it are listed as well.

    Raises:
        JudgedError: the Hub does not say.
    """
    url = f"{hub.api.endpoint}/api/datasets/{name}/tree/{quote(commit, safe='')}"
    folder = f"/{quote(path, safe='')}" if path else ""
    page: str | None = f"{url}{folder}?recursive={str(recursive).lower()}&expand=false"
    found: list[ListedFile] = []
    with hub.judging():
        while page is not None:
            headers = build_hf_headers(token=hub.token_for(page) or False, library_name="oxcart")
            response = get_session().get(page, headers=headers, timeout=hub.timeout_s)
            try:
                hf_raise_for_status(response)
            except EntryNotFoundError:
                return []
            for entry in response.json():
                if entry["type"] == "file":
                    large = entry.get("lfs")
                    digest = large["oid"] if large else entry["oid"]
                    found.append(ListedFile(entry["path"], int(entry["size"]), digest, bool(large)))
            page = response.links.get("next", {}).get("url")
    return found


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2]
