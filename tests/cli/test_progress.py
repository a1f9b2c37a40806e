"""The one progress display."""

from __future__ import annotations

import io
import sys

import pytest

from oxcart.cli import progress as module
from oxcart.cli.progress import progress


class Clock:
    """Stands in for the time module."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_lines_come_every_ten_seconds_and_at_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("compiling", total=4000, unit="frames") as report:
        for second in range(1, 21):
            clock.now = 100 + second
            report(second * 200, second * 3_000_000)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "compiling: 2,000/4,000 frames, 200 frames/s, 3.0 MB/s, 0:00:10 left",
        "compiling: 4,000/4,000 frames, 200 frames/s, 3.0 MB/s",
        "compiling: 4,000/4,000 frames, 200 frames/s, 3.0 MB/s, 0:00:20 in all",
    ]


def test_work_of_an_earlier_run_is_not_in_the_rate(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("compiling", total=1000, unit="frames", start=900) as report:
        clock.now += 10
        report(950)
        clock.now += 1
    assert "950/1,000 frames, 5.0 frames/s, 0:00:10 left" in capsys.readouterr().err


def test_more_than_a_day_is_said_in_hours(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("compiling", total=10_001, unit="frames") as report:
        clock.now += 10
        report(1)
    assert "27:46:40 left" in capsys.readouterr().err


def test_the_total_may_be_unknown_and_nothing_may_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("scanning", total=None, unit="episodes"):
        pass
    assert capsys.readouterr().err == "scanning: 0 episodes, 0:00:00 in all\n"


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("compiling", total=10, unit="frames", quiet=True) as report:
        report(5)
        report(10, 100)
    assert capsys.readouterr() == ("", "")


def test_an_error_passes_and_no_line_says_that_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with progress("compiling", total=10, unit="frames") as report:
            report(5)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_on_stderr_and_stdout_keeps_its_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("compiling", total=10, unit="frames") as report:
        report(5, 1_000_000)
        print("a result")
        report(10, 2_000_000)
    assert capsys.readouterr().out == "a result\n"
    assert "compiling" in terminal.getvalue()
    assert "10/10 frames" in terminal.getvalue()
