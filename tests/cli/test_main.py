"""The `oxcart` command as a whole: what it imports, how it fails, and that every command explains itself."""

from __future__ import annotations

import atexit
import os
import runpy
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from oxcart.cli import main as cli
from oxcart.shards.errors import ConfigError, CorruptError, SourceError, StoreError
from sample_compile import Compiled
from servers import LONGEST_S, web

ROOT = Path(__file__).parents[2]
HEAVY = {"numpy", "pyarrow", "PIL", "obstore", "tensorflow_datasets", "rich", "yaml", "torch"}

Explode = Callable[[BaseException], "tuple[int, str, str]"]


def walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """A command and every command below it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, f"{path} {name}")


@pytest.fixture
def explode(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Explode:
    """Run `oxcart explode`, a command that raises the given error: exit code, stdout, stderr."""
    monkeypatch.delenv("OXCART_DEBUG", raising=False)

    def run(error: BaseException) -> tuple[int, str, str]:
        @click.command()
        def command() -> None:
            raise error

        planted = types.ModuleType("planted")
        planted.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "planted", planted)
        monkeypatch.setitem(cli.COMMANDS, "explode", cli.Lazy("planted", "command", ""))
        monkeypatch.setattr(sys, "argv", ["/somewhere/oxcart", "explode"])
        monkeypatch.setattr(atexit, "_run_exitfuncs", lambda: None)
        monkeypatch.setattr(os, "_exit", sys.exit)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert isinstance(stop.value.code, int)
        return stop.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("argument", ["--help", "--version", "--no-such-option"])
def test_the_root_command_imports_no_command_and_nothing_heavy(argument: str) -> None:
    code = (
        "import sys; from oxcart.cli.main import main; sys.argv[1:] = [%r]\n"
        "try: main()\n"
        "except SystemExit: print('MODULES', *sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code % argument], capture_output=True, text=True, check=True)
    modules = set(run.stdout.rpartition("MODULES")[2].split())
    assert "oxcart.cli.main" in modules
    assert not {name.partition(".")[0] for name in modules} & HEAVY
    assert not {name for name in modules if name.startswith("oxcart.")} - {
        "oxcart.cli",
        "oxcart.cli.main",
        "oxcart.shards",
        "oxcart.shards.errors",
    }


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("val 1.5: expected a share"), "val 1.5: expected a share"),
        (
            SourceError("cut off", file="a.tfrecord", record=3, offset=120),
            "a.tfrecord, record 3, byte 120: cut off",
        ),
        (CorruptError("two\n  lines\r\nof it\n"), "two lines of it"),
        (StoreError("s3://b: put: no"), "s3://b: put: no"),
        (OSError(28, "No space left on device", "/out/x.tar"), "No space left on device: /out/x.tar"),
        (PermissionError(13, "Permission denied", Path("/out")), "Permission denied: /out"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (OSError("image file is truncated"), "image file is truncated"),
        (TimeoutError(), "TimeoutError"),
        (OSError(18, "Invalid cross-device link", "a", None, "b"), "Invalid cross-device link: a: b"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_exit_1(explode: Explode, error: Exception, line: str) -> None:
    assert explode(error) == (1, "", f"oxcart: error: {line}\n")


def test_debug_shows_the_traceback_above_the_line(explode: Explode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OXCART_DEBUG", "1")
    code, out, err = explode(ConfigError("no"))
    assert (code, out) == (1, "")
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith("ConfigError: no\noxcart: error: no\n")


def test_an_interrupt_is_one_line_and_exit_130(explode: Explode) -> None:
    assert explode(KeyboardInterrupt()) == (130, "", "oxcart: interrupted\n")


@pytest.mark.parametrize(
    ("arguments", "stalled"),
    [
        (["scan", "{source}"], "dataset_info.json"),
        (["scan", "{source}", "--workers", "1"], ".tfrecord"),
        (["compile", "{source}", "{out}", "--workers", "1"], ".tfrecord"),
        (["compile", "{source}", "{out}", "--workers", "2"], ".tfrecord"),
        (["verify", "{dataset}"], ".tar"),
    ],
)
def test_an_interrupt_does_not_wait_for_a_server_that_hangs(
    arguments: list[str],
    stalled: str,
    source: Path,
    whole: Compiled,
    cloud: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    cloud.setenv("OXCART_STORE_TIMEOUT_S", "600")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "source").symlink_to(source)
    (tmp_path / "site" / "dataset").symlink_to(whole.out)
    with web(tmp_path / "site") as server:
        server.faults.add("stall", times=99, method="GET", name=stalled)
        places = {name: f"{server.url}/{name}" for name in ("source", "dataset")}
        filled = [argument.format(out=tmp_path / "out", **places) for argument in arguments]
        command = [sys.executable, "-m", "oxcart.cli.main", *filled, "--quiet"]
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" has it ignored
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            signal.signal(signal.SIGINT, before)
            try:
                assert server.faults.stalled.wait(60)
                process.send_signal(signal.SIGINT)
                said = process.communicate(timeout=LONGEST_S * 0.75)[1]
            finally:
                process.kill()
    assert (process.returncode, said) == (130, "oxcart: interrupted\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("by\nnothing"), "ZeroDivisionError: by nothing"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_a_bug_is_one_line_and_exit_70(explode: Explode, error: Exception, said: str) -> None:
    line = f"oxcart: error: {said} (a bug of oxcart: OXCART_DEBUG=1 shows where)\n"
    assert explode(error) == (70, "", line)


def test_no_memory_is_one_line_and_exit_1(explode: Explode) -> None:
    of_a_gpu = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate")
    for error in (MemoryError(), of_a_gpu):
        code, out, err = explode(error)
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert err.startswith("oxcart: error: out of memory; try fewer --workers")


def test_the_page_has_every_exit_code() -> None:
    assert {code for code, _, _ in cli.EXIT_CODES} == {0, 1, 2, 3, 70, 130, 143}
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for code, commands, meaning in cli.EXIT_CODES:
        assert f"| {code} | {commands} | {meaning} |\n" in page


def test_a_wrong_command_line_is_exit_2(explode: Explode) -> None:
    code, out, err = explode(click.UsageError("no such thing"))
    assert (code, out) == (2, "")
    assert "no such thing" in err


def test_a_reader_that_went_away_is_no_news() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        run = subprocess.run(
            [sys.executable, "-m", "oxcart.cli.main", "--help"],
            stdout=write,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(write)
    assert (run.returncode, run.stderr) == (1, b"")


def test_every_command_of_the_table_has_its_name_and_a_help_in_one_line() -> None:
    context = click.Context(cli.oxcart)
    for name, lazy in cli.COMMANDS.items():
        command = cli.oxcart.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert lazy.help.endswith(".")
        assert len(lazy.help) <= 60


def test_every_command_has_help_with_an_example_and_every_option_has_help() -> None:
    missing = []
    for path, command in walk(cli.oxcart, "oxcart"):
        text = command.get_help(click.Context(command, info_name=path))
        if not command.help:
            missing.append(f"{path}: no help")
        elif "Example:\n" not in text or f"  {path} " not in text:
            missing.append(f"{path}: no 'Example:' block with a line that calls it")
        missing += [
            f"{path} {parameter.opts[0]}: no help"
            for parameter in command.params
            if isinstance(parameter, click.Option) and not parameter.help
        ]
    assert not missing


def test_the_generated_page_is_current() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "docs" / "generate_cli.py"))["render"]() == page, "run `make docs`"


def test_the_generated_page_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    render = runpy.run_path(str(ROOT / "docs" / "generate_cli.py"))["render"]
    page = render()
    monkeypatch.setenv("COLUMNS", "40")
    assert render() == page
