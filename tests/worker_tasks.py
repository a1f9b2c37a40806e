"""What worker processes of the tests run; they import it by name."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from oxcart.compile.engines.processes import Advance, run
from oxcart.shards.errors import SourceError


def fail_with(error: Exception) -> None:
    """Raise it."""
    raise error


def double(config: int, item: int, advance: Advance) -> int:
    """Report the item as done, in two parts, and return it doubled, plus the config."""
    advance(item, 0)
    advance(0, 10 * item)
    return 2 * item + config


def wait_for_ever(folder: str, item: int, advance: Advance) -> None:
    """Leave a file that is named after this process and never end."""
    _leave(Path(folder), f"pid-{os.getpid()}")
    threading.Event().wait()


def fail_once_all_wait(folder: str, item: int, advance: Advance) -> None:
    """Item 0 fails as soon as the other items have begun, which never end."""
    if item:
        wait_for_ever(folder, item, advance)
    await_files(Path(folder), "pid-*", 2)
    raise SourceError("is cut off", file="a.tfrecord", record=item, offset=12)


def die_first(folder: str, item: int, advance: Advance) -> int:
    """Item 1 is killed when it first runs, after it has reported; every item reports 10 and 100."""
    advance(10, 100)
    if item == 1 and _leave(Path(folder), "died"):
        os.kill(os.getpid(), signal.SIGKILL)
    _leave(Path(folder), f"ran-{item}-{os.urandom(4).hex()}")
    return item


def die_always(folder: str, item: int, advance: Advance) -> int:
    """Item 1 is killed whenever it runs."""
    if item == 1:
        _leave(Path(folder), f"died-{os.urandom(8).hex()}")
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def die_within_advance(folder: str, item: int, advance: Advance) -> int:
    """Item 1 is killed when it first runs, while another of its threads reports without end."""
    if item == 1 and _leave(Path(folder), "died"):
        begun = threading.Event()

        def report() -> None:
            while True:
                advance(1, 1)
                begun.set()

        threading.Thread(target=report, daemon=True).start()
        begun.wait()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def raise_type_error(config: None, item: int, advance: Advance) -> None:
    """A bug in a task."""
    raise TypeError("a bug")


def start_waiting(folder: str) -> None:
    """Run two tasks that never end."""
    list(run(wait_for_ever, folder, [1, 2], workers=2, report=lambda count, size: None))


def _leave(folder: Path, name: str) -> bool:
    """Make a file; whether it was not there before."""
    try:
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def await_files(folder: Path, pattern: str, count: int) -> None:
    """Return when so many files are there; what takes a minute will never come."""
    for _ in range(6000):
        if len(list(folder.glob(pattern))) >= count:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"fewer than {count} files {pattern}")


def die(*arguments: object) -> None:
    """Kill this process, as a decoder that breaks would."""
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_go(folder: str, item: int, advance: Advance) -> int:
    """Leave a file that says that the item has begun, and end when there is a file `go`."""
    _leave(Path(folder), f"begun-{item}-{os.urandom(4).hex()}")
    await_files(Path(folder), "go", 1)
    return item
