"""Which failed requests to a bucket are retried, after what wait, and how the last failure is explained.

Transient failures are tried up to six times: HTTP 408, 429 and 5xx, a stalled, refused or dropped connection,
a body that is too short, and a body that S3 received damaged, which it answers with a 400. Everything else
would fail the same way again: 403, 404, a host that does not exist. A host that refuses the connection and
has never answered this process is tried twice: most likely its name or port is wrong. One that has answered
before may be restarting.

Waits are random up to a limit that doubles with every attempt ("full jitter"), so that many readers of one
busy server do not come back at the same moment. The price is that a `Retry-After` is ignored: obstore does
not return the headers of an answer.

An error of obstore runs over many lines and holds URLs, signed ones too. Only its status is shown, and its
code if that is a plain word.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TypeVar

from obstore.exceptions import BaseError

from oxcart.shards.prefetch import unwanted

ATTEMPTS = 6
"""Attempts of a request, the first one included."""
ATTEMPTS_UNANSWERED = 2
"""Attempts at a host that refuses the connection and has never answered."""
FIRST_WAIT_S = 1.0
"""Longest wait before the second attempt, in seconds; it doubles with every further attempt, up to 16 s."""

ERRORS = (BaseError, OSError, ValueError, NotImplementedError)
"""Exceptions that obstore raises; a store raises NotImplementedError for what it cannot do."""

Result = TypeVar("Result")

_JITTER = random.SystemRandom()  # not the global one, whose state training restores, and never forked
_answered: set[str] = set()
"""Hosts that have answered this process, be it with an error."""

_STATUS = re.compile(r"(?:status code: |status: )(\d{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_PROVIDER = re.compile(r"External \w+ credential provider: \w+: (.*)")
"""What obstore says where botocore cannot renew the keys of a profile."""
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
    jitter: random.Random = _JITTER,
) -> Result:
    """Call until it succeeds, fails for good, or has failed `ATTEMPTS` times.

    Args:
        call: given the number of the attempt, from 1.
        host: whom it calls.
        timeout_s: how long the connection may be silent; only to say so.
        jitter: the source of random waits.

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
        pause(jitter.uniform(0.0, FIRST_WAIT_S * 2 ** (number - 1)), ended)
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
    if provider := _PROVIDER.search(text):
        return Failure(reason=f"the credentials give no token ({plain(provider[1])})", token=True)
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
