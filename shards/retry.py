"""Which failed requests to a bucket are retried, after what wait, and how the last failure is explained.

Transient failures are tried up to six times: HTTP 408, 429 and 5xx, a stalled, refused or dropped connection,
a body that is too short, and a body that S3 received damaged, which it answers with a 400. Everything else
would fail the same way again: 403, 404, a host that does not exist. A host that refuses the connection and
has never answered this process is tried twice: most likely its name or port is wrong. One that has answered
before may be restarting.

Waits are random up to a limit that doubles with every attempt ("full jitter"), so that many readers of one
busy server do not come back at the same moment. Only the Hub's own answers are known with their headers, so
only its `Retry-After` is respected: obstore does not return the headers of an answer.

An error of obstore runs over many lines and holds URLs, signed ones too. Only its status is shown, and its
code if that is a plain word.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.client import responses
from typing import TypeVar

from obstore.exceptions import BaseError

from oxcart.shards.prefetch import unwanted

ATTEMPTS = 6
"""Maximum number of attempts of a request, including the first."""
ATTEMPTS_UNANSWERED = 2
"""Maximum number of attempts at a host that refuses the connection and has never answered."""
FIRST_WAIT_S = 1.0
"""Longest wait before the second attempt, in seconds; it doubles with every further attempt, up to 16 s."""
LONGEST_WAIT_S = 300.0
"""Longest wait that a server may ask for, in seconds: the Hub counts requests over five minutes."""

# obstore itself raises the last one if a store lacks an operation, such as creating an object on a web server
# only if there is none. Uncaught it would be a traceback, and not a line that names the store.
ERRORS = (BaseError, OSError, ValueError, NotImplementedError)  # the last is obstore's, not a gap of ours
"""Exceptions that obstore raises."""

Result = TypeVar("Result")

_JITTER = random.SystemRandom()  # not the global one, whose state training restores, and never forked
_answered: set[str] = set()
"""Hosts that have answered this process, with an object or an error."""

_STATUS = re.compile(r"(?:status code: |status: )(\d{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_PROVIDER = re.compile(r"External \w+ credential provider: \w+: (.*)")
"""Text of obstore's error if botocore cannot provide the keys of a profile."""
_SPOILED = frozenset({"BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch"})
"""S3 error codes for a body that did not arrive as it was signed."""


_SIGNS = (
    (r"InvalidCertificate\(", "the server's certificate is not trusted", False),
    ("InvalidContentType", "the server answers without TLS; is it http:// ?", False),
    ("UnexpectedRange", "the server answers with another range than it was asked for", False),
    ("ange request not supported", "the server does not serve ranges", False),
    ("TooManyRedirects", "the server redirects in a loop", False),
    ("^Generic HTTP error.*edirect", "the server redirects and does not say where to", False),
    ("edirect", "the bucket is elsewhere; is its region (AWS_REGION) right?", False),
    ("dns error", "the host is not known", True),
    ("ConnectionRefused", "the connection is refused", True),
    ("TimedOut|kind: Timeout", "no answer for {timeout_s:g} s", True),
    ("ConnectionReset", "the connection was cut", True),
    ("kind: Connect", "no connection", True),
    ("kind: Interrupted", "the connection was cut", True),
    ("HttpError", "the connection failed", True),
)
"""Pattern in an error without a status, its meaning, and whether to retry; the first match counts."""


class CutError(ValueError):
    """A body has fewer bytes than were requested."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What is known about a failed request."""

    reason: str
    """What went wrong, in one line without a secret."""
    again: bool = False
    """Whether another attempt may succeed."""
    status: int | None = None
    """HTTP status of the response; None if there was none."""
    code: str = ""
    """Error code of the store, such as NoSuchBucket."""
    token: bool = False
    """Whether the request for a token failed, before any request for an object."""
    refused: bool = False
    """Whether the host refused the connection."""
    wait_s: float = 0.0
    """Seconds that the server wants the next attempt to wait."""


class JudgedError(Exception):
    """A request failed in another library than obstore, and its failure is already interpreted."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class FailedError(Exception):
    """A call failed: its last failure, and the number of attempts."""

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
    """Repeat a call until it succeeds, fails for good, or has failed `ATTEMPTS` times, and return its result.

    Args:
        call: takes the number of the attempt, from 1.
        host: name of the host that is called.
        timeout_s: seconds that the connection may be silent, for the message.
        jitter: source of the random waits.

    Raises:
        FailedError: the call did not succeed.
    """
    for number in range(1, ATTEMPTS + 1):
        try:
            result = call(number)
        except (JudgedError, *ERRORS) as error:
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
        wait_s = jitter.uniform(0.0, FIRST_WAIT_S * 2 ** (number - 1))
        pause(max(wait_s, min(failure.wait_s, LONGEST_WAIT_S)), ended)
        if ended is not None and ended.is_set():  # or an interrupted command would finish all attempts
            raise FailedError(failure, number)
    raise AssertionError("the last attempt returns or raises")


def pause(wait_s: float, ended: threading.Event | None) -> None:
    """Wait until `wait_s` is over or `ended` is set."""
    (ended or threading.Event()).wait(wait_s)


def judge(error: Exception, timeout_s: float) -> Failure:
    """Interpret an error of obstore."""
    if isinstance(error, JudgedError):
        return error.failure
    text = str(error)
    if isinstance(error, CutError):
        return Failure(reason=text, again=True)
    if provider := _PROVIDER.search(text):
        return Failure(reason=f"the credentials give no token ({plain(provider[1])})", token=True)
    token = "token request" in text
    found = _STATUS.search(text)
    failure = _of_status(int(found[1]), text, token) if found else _of_signs(error, text, timeout_s)
    if token:
        failure = replace(failure, reason=f"the credentials give no token ({failure.reason})", token=True)
    return failure


def _of_status(status: int, text: str, token: bool) -> Failure:
    code = _CODE.search(text)
    word = code[1] if code else ""
    reason = f"HTTP {status} {word or responses.get(status, '')}".rstrip()
    if word == "NoSuchBucket":
        reason = f"there is no such bucket ({reason})"
    elif status in (401, 403) and not token:
        reason = f"access denied ({reason})"
    elif status == 404 and not token:
        reason = f"no such object ({reason})"
    again = status in (408, 429) or status >= 500 or word in _SPOILED
    return Failure(reason=reason, again=again, status=status, code=word)


def _of_signs(error: Exception, text: str, timeout_s: float) -> Failure:
    for sign, reason, again in _SIGNS:
        if re.search(sign, text, re.DOTALL):
            refused = sign == "ConnectionRefused"
            return Failure(reason=reason.format(timeout_s=timeout_s), again=again, refused=refused)
    if isinstance(error, OSError) and error.strerror:
        return Failure(reason=error.strerror)
    return Failure(reason=plain(text) or type(error).__name__)


def headless(error: Exception) -> bool:
    """Whether a web server does not answer HEAD, or answers it without a size."""
    text = str(error)
    found = _STATUS.search(text)
    return found[1] in ("405", "501") if found else "MissingContentLength" in text


def plain(text: str) -> str:
    """The first line of an error's text, without URLs and what the program of an AWS profile prints."""
    first = text.strip().splitlines()[0] if text.strip() else ""
    first = re.sub("(custom-process):.*", r"\1", first)
    return re.sub(r"\S+://\S+", "(url)", first)[:200]
