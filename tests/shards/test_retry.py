"""What is tried again, after how long, and what is said."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from oxcart.shards.prefetch import prefetch
from oxcart.shards.retry import ATTEMPTS, CutError, FailedError, attempt, judge, plain


def test_it_is_tried_until_it_succeeds(waits: list[float]) -> None:
    numbers: list[int] = []

    def call(number: int) -> str:
        numbers.append(number)
        if number < 4:
            raise CutError("short")
        return "done"

    assert attempt(call, host="h", timeout_s=1) == "done"
    assert numbers == [1, 2, 3, 4]
    assert len(waits) == 3


def test_waits_are_random_below_a_limit_that_doubles(waits: list[float]) -> None:
    def call(number: int) -> None:
        raise CutError("short")

    for seed in range(50):
        with pytest.raises(FailedError):
            attempt(call, host="h", timeout_s=1, jitter=Random(seed))
    rounds = [waits[i : i + ATTEMPTS - 1] for i in range(0, len(waits), ATTEMPTS - 1)]
    for limit, waited in zip((1, 2, 4, 8, 16), zip(*rounds, strict=True), strict=True):
        assert 0 <= min(waited) < limit / 4
        assert limit * 3 / 4 < max(waited) <= limit
    del waits[:]
    with pytest.raises(FailedError):
        attempt(call, host="h", timeout_s=1, jitter=Random(7))
    assert waits == rounds[7], "the same seed waits as long"


@pytest.mark.parametrize(("error", "attempts"), [(CutError("x"), ATTEMPTS), (ValueError("x"), 1)])
def test_the_last_failure_counts_the_attempts(error: Exception, attempts: int, waits: list[float]) -> None:
    def call(number: int) -> None:
        raise error

    with pytest.raises(FailedError) as caught:
        attempt(call, host="h", timeout_s=1)
    assert caught.value.attempts == attempts
    assert len(waits) == attempts - 1


def test_what_nobody_waits_for_is_not_tried_again() -> None:
    failed, numbers = threading.Event(), []

    def call(number: int) -> None:
        numbers.append(number)
        failed.set()
        raise CutError("short")

    def stop() -> None:
        failed.wait(10)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool, pytest.raises(KeyboardInterrupt):
        list(prefetch(pool, [stop, lambda: attempt(call, host="h", timeout_s=1)]))
    assert len(numbers) < ATTEMPTS


def refuse(number: int) -> None:
    raise ValueError("kind: Connect, Os { kind: ConnectionRefused }")


def test_a_refusal_by_a_host_that_never_answered_is_tried_once_more_and_no_more(waits: list[float]) -> None:
    for _ in range(2):  # a refusal is no answer
        with pytest.raises(FailedError, match="the connection is refused") as caught:
            attempt(refuse, host="never-answered", timeout_s=1)
        assert caught.value.attempts == 2
    assert len(waits) == 2


@pytest.mark.parametrize("answer", ["", "status code: 404 Not Found", "status code: 503 Busy"])
def test_a_refusal_by_a_host_that_has_answered_is_tried_to_the_end(answer: str, waits: list[float]) -> None:
    def call(number: int) -> None:
        if number == 1 and answer:
            raise ValueError(answer)

    host = f"answered {answer}"
    with contextlib.suppress(FailedError):
        attempt(call, host=host, timeout_s=1)
    with pytest.raises(FailedError) as caught:
        attempt(refuse, host=host, timeout_s=1)
    assert caught.value.attempts == ATTEMPTS


def test_a_bug_is_not_tried_again(waits: list[float]) -> None:
    with pytest.raises(ZeroDivisionError):
        attempt(lambda number: 1 // 0, host="h", timeout_s=1)
    assert waits == []


@pytest.mark.parametrize(
    ("text", "reason", "again"),
    [
        ("non-2xx status code: 408 Request Timeout", "HTTP 408 Request Timeout", True),
        ("non-2xx status code: 429 Too Many", "HTTP 429 Too Many Requests", True),
        ("status code: 502 Bad: <Code>Slow</Code><Message>hush</Message>", "HTTP 502 Slow", True),
        ("status code: 599 What", "HTTP 599", True),
        ("status code: 400 Bad: <Code>Odd</Code>", "HTTP 400 Odd", False),
        ("status code: 401 No", "access denied (HTTP 401 Unauthorized)", False),
        ("token request: status code: 403", "the credentials give no token (HTTP 403 Forbidden)", False),
        ("kind: Timeout, source: TimedOut", "no answer for 3 s", True),
        ('kind: Connect, "dns error"', "the host is not known", True),
        ("kind: Connect", "no connection", True),
        ("kind: Interrupted, Os { kind: ConnectionReset }", "the connection was cut", True),
        (
            "kind: Connect, InvalidMessage( InvalidContentType",
            "the server answers without TLS; is it http:// ?",
            False,
        ),
        ("kind: Connect, InvalidCertificate( Expired", "the server's certificate is not trusted", False),
        ("token request: kind: Connect", "the credentials give no token (no connection)", True),
        (
            "Generic S3 error: Received redirect without LOCATION",
            "the bucket is elsewhere; is its region (AWS_REGION) right?",
            False,
        ),
        (
            "Generic HTTP error: Received redirect without LOCATION",
            "the server redirects and does not say where to",
            False,
        ),
        ("Generic HTTP error: kind: Redirect, TooManyRedirects", "the server redirects in a loop", False),
        ("Odd thing at https://x/y?sig=hush of it\nmore", "Odd thing at (url) of it", False),
        ("", "ValueError", False),
    ],
)
def test_what_an_error_means(text: str, reason: str, again: bool) -> None:
    failure = judge(ValueError(text), 3.0)
    assert (failure.reason, failure.again) == (reason, again)


def test_what_the_system_says() -> None:
    assert judge(OSError(28, "No space left on device"), 1).reason == "No space left on device"
    assert plain("") == ""
