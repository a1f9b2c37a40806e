"""`oxcart`: the table of all commands, and how an error becomes one line.

A command's module is imported when that command is called and not before. What the command works with is
imported inside its function. So `oxcart --help` and a mistyped option answer at once, however heavy the
commands are. The price is an import block in most functions of this room, and a one-line help that stands
here as well as in the command.

Every failure is one line on stderr, with the traceback above it under OXCART_DEBUG=1; `EXIT_CODES` says what
a command's exit code means.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import importlib
import os
import sys
import traceback
from typing import Any, NamedTuple

import click

from oxcart.shards.errors import OxcartError

FAILED, WRONG, BUG, INTERRUPTED, TERMINATED = 1, 2, 70, 130, 143
"""Exit codes: 70 is EX_SOFTWARE of sysexits.h, 130 and 143 are 128 and the number of the signal."""
CLEAN, LEAK, UNCLEAR, SUSPICIOUS = 0, 1, 2, 3
"""Exit codes of `oxcart audit`."""
DIFFERENT, DAMAGED = 1, 1
"""Exit codes of `oxcart diff --exit-code` and `oxcart verify`."""

EXIT_CODES: tuple[tuple[int, str, str], ...] = (
    (0, "all", "Done."),
    (CLEAN, "audit", "Clean, or nothing that `--fail-on` names."),
    (FAILED, "all but audit", "Failed, as one line on stderr says; or the reader of stdout has gone."),
    (LEAK, "audit", "There is a leak, or a check failed."),
    (DIFFERENT, "diff --exit-code", "A and B differ, as stdout says."),
    (DAMAGED, "verify", "The dataset is damaged, as stdout lists."),
    (WRONG, "all", "The command line is wrong."),
    (
        UNCLEAR,
        "audit",
        "It could not be checked, or the reader of stdout has gone: there may or may not be a leak.",
    ),
    (
        SUSPICIOUS,
        "audit",
        "No leak is proved, but evidence speaks against the split: look at it.",
    ),
    (BUG, "all but audit", "An unexpected error, which is a bug; one line on stderr names it."),
    (INTERRUPTED, "all", "Interrupted by Ctrl-C."),
    (TERMINATED, "train", "Stopped by SIGTERM or SIGUSR1 and saved; `--resume auto` continues."),
)
"""Exit code, commands, what it means there; also shown in docs/cli.md."""


class Lazy(NamedTuple):
    """The location of a command, and its line in `oxcart --help`."""

    module: str
    attribute: str
    help: str


SECTIONS: dict[str, dict[str, Lazy]] = {
    "Make a dataset": {
        "sample": Lazy("oxcart.cli.sample", "sample", "Write a small synthetic source to try things on."),
        "fetch-videos": Lazy(
            "oxcart.cli.video", "fetch_videos", "Download videos under licences that allow it."
        ),
        "catalog": Lazy("oxcart.cli.catalog", "catalog", "Say what is known about each dataset."),
        "scan": Lazy("oxcart.cli.compile", "scan", "Take the census of a source: what it holds."),
        "scenes": Lazy("oxcart.cli.scenes", "scenes", "Infer environments from what the camera sees."),
        "compile": Lazy("oxcart.cli.compile", "compile_", "Compile a source into a dataset."),
        "commit": Lazy("oxcart.cli.compile", "commit", "Finish a compile whose parts are all there."),
        "export": Lazy("oxcart.cli.export", "export", "Write a dataset in the format of another program."),
        "transcode": Lazy("oxcart.cli.transcode", "transcode", "Store a dataset's frames in another way."),
        "push": Lazy("oxcart.cli.push", "push", "Upload a dataset to the Hugging Face Hub."),
    },
    "Look at a dataset": {
        "inspect": Lazy("oxcart.cli.inspect", "inspect", "Say what a dataset holds, and how it is split."),
        "show": Lazy("oxcart.cli.inspect", "show", "Draw the frames of an episode."),
        "verify": Lazy("oxcart.cli.inspect", "verify", "Check every byte of a dataset against its digests."),
    },
    "Trust a split": {
        "audit": Lazy("oxcart.cli.audit", "audit", "Say whether what is held out is unseen by train."),
        "diff": Lazy("oxcart.cli.audit", "diff", "Say what differs between two datasets or split rules."),
        "repair-split": Lazy("oxcart.cli.audit", "repair_split", "Write a rule without the leaks found."),
    },
    "Read a dataset": {
        "annotate": Lazy(
            "oxcart.cli.annotate", "annotate", "Measure something at every step, such as motion."
        ),
        "bench": Lazy("oxcart.cli.bench", "bench", "Measure reading and shuffling on this machine."),
    },
    "Train from it": {
        "train": Lazy("oxcart.cli.train", "train", "Train a model from compiled datasets."),
        "import": Lazy("oxcart.cli.imports", "import_", "Import a model that another program trained."),
        "evaluate": Lazy("oxcart.cli.evaluate", "evaluate", "Say what the codes of a trained model mean."),
        "label": Lazy("oxcart.cli.train", "label", "Write latent-action labels: the codes of every step."),
        "predict": Lazy(
            "oxcart.cli.train", "predict", "Predict latent codes for an image and an instruction."
        ),
        "rollout": Lazy("oxcart.cli.rollout", "rollout", "Let a policy act, and count its successes."),
        "serve": Lazy("oxcart.cli.serve", "serve", "Answer observations with actions, over HTTP."),
        "compare": Lazy("oxcart.cli.train", "compare", "Compare training runs, or rollouts."),
    },
}
"""Every command, by section, in the order in which a newcomer needs them."""

COMMANDS: dict[str, Lazy] = {name: lazy for section in SECTIONS.values() for name, lazy in section.items()}
"""Every command by its name."""


class LazyGroup(click.Group):
    """The commands of SECTIONS, imported when called; an error that they raise ends as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        lazy = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(lazy.module), lazy.attribute)
        assert isinstance(command, click.Command), f"{lazy.module}:{lazy.attribute} is no command"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections, from the table alone."""
        width = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), lazy.help) for name, lazy in commands.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; the docstring of the module says what happens to its errors."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of our output has gone; click ends quietly
            message, code = explained(error)
            complain(message)
            ctx.exit(code)


def explained(error: Exception | KeyboardInterrupt) -> tuple[str, int]:
    """The message about an error that ends a command, and the exit code."""
    kind = type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, OxcartError):
        return f"error: {error}", FAILED
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":  # torch's own, of a GPU
        less = "fewer --workers, a smaller batch, or fewer or smaller frames (--camera, --size)"
        return f"error: out of memory; try {less}", FAILED
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or kind
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return f"error: {': '.join([reason, *names])}", FAILED
    said = f"{kind}: {error}" if str(error) else kind
    return f"error: {said} (a bug of oxcart: OXCART_DEBUG=1 shows where)", BUG


def complain(message: str) -> None:
    """One line on stderr, and the traceback above it under OXCART_DEBUG=1."""
    from oxcart.cli.table import plain

    if os.environ.get("OXCART_DEBUG") == "1":
        traceback.print_exc()
    click.echo("oxcart: " + plain(" ".join(line.strip() for line in message.splitlines())), err=True)


@click.group(cls=LazyGroup, context_settings={"show_default": True})
@click.version_option(
    None,
    "--version",
    package_name="oxcart",
    message="%(prog)s %(version)s",
    help="Show the version and exit.",
)
def oxcart() -> None:
    """Compile robot episodes once into tar shards whose held-out split holds out whole environments.

    \b
    Example:
      oxcart sample rlds source
      oxcart compile source/oxcart_kitchens/1.0.0 dataset --val-fraction 0.2
      oxcart inspect dataset

    OXCART_DEBUG=1 shows the traceback of an error.
    """


def main() -> None:
    """Entry point of the `oxcart` command.

    At exit Python waits for every thread, and one may hang in a request. So an interrupted command runs its
    exit functions and leaves without waiting.
    """
    try:
        oxcart(prog_name="oxcart")
    except SystemExit as stop:
        if stop.code != INTERRUPTED:
            raise
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
