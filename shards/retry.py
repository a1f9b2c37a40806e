"""Which failures of a bucket are tried again, after how long, and what to say of the last one.

Tried again: 408, 429 and 5xx, a stall, a connection that is refused or cut, a body that is too short, and one
that reached the store otherwise than it was sent, which S3 answers with a 400.
Everything else is the same the next time: 403, 404, a name that does not exist. A host that has never
answered this process and refuses the connection is tried twice and no more: most likely its name or port is
wrong, or nothing runs there. One that has answered may be starting anew.

Waits double from half a second and have no jitter. Where the server is too busy (429, 503) and says in
`Retry-After` how long it wants to be left alone, that is the wait, up to a minute. obstore drops the headers
of an answer, so the server is asked again at once, with a request of our own of the same kind; a server that
is not busy any more, or that cannot be asked (a URL that cannot be signed), is met again after half a second.

What obstore says of an error runs over many lines and holds URLs, signed ones too. Nothing of it is shown but
the status, and the error's code where that is a plain word.
"""

from __future__ import annotations

import email.utils
import http.client
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TypeVar

from obstore.exceptions import BaseError

from oxcart.shards.prefetch import unwanted

ATTEMPTS = 6
ATTEMPTS_UNANSWERED = 2
"""At a host that refuses the connection and has never answered."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
"""The most that a `Retry-After` is believed."""

ERRORS = (BaseError, OSError, ValueError, NotImplementedError)
"""What obstore raises; not all is of its own class: what a store cannot do is a NotImplementedError."""

Result = TypeVar("Result")

_answered: set[str] = set()
"""Hosts that have answered this process, be it with an error."""

_STATUS = re.compile(r"(?:status code: |status: )(\d{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_SPOILED = frozenset({"BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch"})
"""What S3 calls a body that did not arrive, or not as it was signed."""


class CutError(ValueError):
    """A body that has fewer bytes than its range."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What is known of a request that failed."""

    reason: str
    """One line without a secret."""
    again: bool = False
    """Another attempt may succeed."""
    status: int | None = None
    code: str = ""
    """The store's own word for it, such as NoSuchBucket."""
    token: bool = False
    """It was the request for a token that failed, before any for an object."""
    refused: bool = False
    """The host takes no connection."""

    @property
    def busy(self) -> bool:
        """Whether the server may have said when to come again."""
        return self.status in (429, 503)


class FailedError(Exception):
    """The last failure of a call, and how many attempts it took."""

    def __init__(self, failure: Failure, attempts: int) -> None:
        super().__init__(failure.reason)
        self.failure, self.attempts = failure, attempts


def attempt(
    call: Callable[[int], Result],
    *,
    host: str,
    timeout_s: float,
    ask: Callable[[], str | None] = lambda: None,
) -> Result:
    """Call until it succeeds, fails for good, or has failed `ATTEMPTS` times.

    Args:
        call: given the number of the attempt, from 1.
        host: whom it calls.
        timeout_s: how long the connection may be silent; only to say so.
        ask: asks a server that is busy for its `Retry-After`.

    Raises:
        FailedError: it did not succeed.
    """
    for number in range(1, ATTEMPTS + 1):
        try:
            result = call(number)
        except ERRORS as error:
            failure = judge(error, timeout_s)
            if failure.status is not None:
                _answered.add(host)
            attempts = ATTEMPTS_UNANSWERED if failure.refused and host not in _answered else ATTEMPTS
            if not failure.again or number >= attempts:
                raise FailedError(failure, number) from None  # its text may hold a signed URL
        else:
            _answered.add(host)
            return result
        ended = unwanted()
        wait_s = FIRST_WAIT_S * 2 ** (number - 1)
        if failure.busy:
            wait_s = max(wait_s, min(seconds(ask()) or 0.0, LONGEST_WAIT_S))
        pause(wait_s, ended)
        if ended is not None and ended.is_set():  # or an interrupted command would go on until all is tried
            raise FailedError(failure, number)
    raise AssertionError("the last attempt returns or raises")


def pause(wait_s: float, ended: threading.Event | None) -> None:
    """Wait, but no longer than somebody wants to know how it goes on."""
    (ended or threading.Event()).wait(wait_s)


def judge(error: Exception, timeout_s: float) -> Failure:
    """What an error of obstore means."""
    text = str(error)
    if isinstance(error, CutError):
        return Failure(reason=text, again=True)
    if "token request" in text:
        failure = _judge(error, text, timeout_s)
        answer = failure.reason.removeprefix("access denied (").removeprefix("no such object (").rstrip(")")
        return replace(failure, reason=f"the credentials give no token ({answer})", token=True)
    return _judge(error, text, timeout_s)


def _judge(error: Exception, text: str, timeout_s: float) -> Failure:
    found = _STATUS.search(text)
    if found:
        return _of_status(int(found[1]), text)
    elsewhere = "the bucket is elsewhere; is its region (AWS_REGION) right?"
    if text.startswith("Generic HTTP error"):  # a web server has no regions
        elsewhere = "the server redirects and does not say where to"
    for sign, reason in (
        ("InvalidCertificate(", "the server's certificate is not trusted"),
        ("InvalidContentType", "the server answers without TLS; is it http:// ?"),
        ("UnexpectedRange", "the server answers with another range than it was asked for"),
        ("ange request not supported", "the server does not serve ranges"),
        ("TooManyRedirects", "the server redirects in a loop"),
        ("edirect", elsewhere),
    ):
        if sign in text:
            return Failure(reason=reason)
    for sign, reason in (
        ("dns error", "the host is not known"),
        ("ConnectionRefused", "the connection is refused"),
        ("TimedOut", f"no answer for {timeout_s:g} s"),
        ("kind: Timeout", f"no answer for {timeout_s:g} s"),
        ("ConnectionReset", "the connection was cut"),
        ("kind: Connect", "no connection"),
        ("kind: Interrupted", "the connection was cut"),
        ("HttpError", "the connection failed"),
    ):
        if sign in text:
            return Failure(reason=reason, again=True, refused=sign == "ConnectionRefused")
    if isinstance(error, OSError) and error.strerror:
        return Failure(reason=error.strerror)
    return Failure(reason=plain(text) or type(error).__name__)


def _of_status(status: int, text: str) -> Failure:
    code = _CODE.search(text)
    word = code[1] if code else ""
    known = HTTPStatus(status).phrase if status in {one.value for one in HTTPStatus} else ""
    answer = f"HTTP {status} {word or known}".rstrip()
    again = status in (408, 429) or status >= 500 or word in _SPOILED
    if word == "NoSuchBucket":
        reason = f"there is no such bucket ({answer})"
    elif status in (401, 403):
        reason = f"access denied ({answer})"
    elif status == 404:
        reason = f"no such object ({answer})"
    else:
        reason = answer
    return Failure(reason=reason, again=again, status=status, code=word)


def headless(error: Exception) -> bool:
    """Whether a web server serves no HEAD, or one that says no size."""
    text = str(error)
    found = _STATUS.search(text)
    return found[1] in ("405", "501") if found else "MissingContentLength" in text


def plain(text: str) -> str:
    """The first line of what obstore says, without URLs."""
    first = text.strip().splitlines()[0] if text.strip() else ""
    return re.sub(r"\S+://\S+", "(url)", first)[:200]


def seconds(value: str | None) -> float | None:
    """What a `Retry-After` says, a number of seconds or a date; None where it says nothing."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def retry_after(url: str, timeout_s: float, method: str = "GET") -> tuple[str | None, bool]:
    """The `Retry-After` of a server that is asked for the first byte of `url`, or with another method.

    Args:
        url: signed where need be; a PUT writes an object of no bytes there.
        timeout_s: how long the server may be silent.
        method: GET, PUT or DELETE.

    Returns:
        What it says, if it does, and whether it did what it was asked.
    """
    headers = {
        "GET": {"Range": "bytes=0-0"},
        "PUT": {"Content-Type": "application/octet-stream", "x-ms-blob-type": "BlockBlob"},
    }
    request = urllib.request.Request(
        url, method=method, headers=headers.get(method, {}), data=b"" if method == "PUT" else None
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s):
            return None, True
    except urllib.error.HTTPError as error:
        with error:
            found: str | None = error.headers.get("Retry-After")
            return found, False
    except (OSError, http.client.HTTPException):
        return None, False
