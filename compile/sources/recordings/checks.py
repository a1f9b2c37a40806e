"""Check the arguments of `Recorder.add_episode`, before a byte is written.

Whatever is refused here would be refused by a compile, days later and without the robot. Values are converted
(a list to an array, float64 to float32), but never repaired: NaN, grey frames and frames of another size are
errors, and each message says which argument is wrong, what was expected and what came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from oxcart.compile.images import MAX_PIXELS
from oxcart.compile.sources.base import Floats
from oxcart.compile.sources.recordings.description import Description
from oxcart.compile.sources.recordings.episodes import Frames, Recorded
from oxcart.manifests.columns import Column
from oxcart.shards.choices import did_you_mean
from oxcart.shards.errors import ConfigError

Size = tuple[int, int]
"""Height and width in pixels."""


def checked(
    description: Description,
    sizes: Mapping[str, Size],
    *,
    frames: Mapping[str, Any],
    arrays: Mapping[str, Any],
    instruction: Any,
    environment: Any,
    session: Any,
    success: Any,
) -> Recorded:
    """The episode that the arguments describe.

    Args:
        description: what every episode must have.
        sizes: camera -> size of its frames in the episodes before; empty before the first.
        frames: camera -> frames [T, H, W, 3] uint8.
        arrays: `action`, `state` and `reward` -> values [T, A], or None.
        instruction: a text, (step, text) of several, or None.
        environment: text or None.
        session: text or None.
        success: true, false or None.

    Raises:
        ConfigError: an argument is wrong.
    """
    images = _frames(description, sizes, frames)
    first = next(iter(images))
    steps = len(images[first])
    if steps < 2:
        raise ConfigError(f"frames[{first!r}]: expected at least 2 steps, got {steps}")
    for camera, one in images.items():
        if len(one) != steps:
            raise ConfigError(f"frames[{camera!r}]: expected {steps} steps, as {first} has; got {len(one)}")
    if success is not None and not isinstance(success, bool | np.bool_):
        raise ConfigError(f"success: expected True, False or None, got {success!r}")
    return Recorded(
        frames=images,
        arrays={
            what: _array(what, arrays[what], columns, steps)
            for what, columns in description.columns.items()
            if _is_wanted(what, arrays[what], columns)
        },
        instructions=_instructions(instruction, steps),
        environment=_text("environment", environment),
        session=_text("session", session),
        success=None if success is None else bool(success),
    )


def _frames(
    description: Description, sizes: Mapping[str, Size], frames: Mapping[str, Any]
) -> dict[str, Frames]:
    """Camera -> frames [T, H, W, 3] uint8, in the order of the description."""
    wanted = list(description.cameras)
    if not isinstance(frames, Mapping):
        got = type(frames).__name__
        raise ConfigError(f"frames: expected frames by camera, {{{wanted[0]!r}: ...}}; got {got}")
    for camera in frames:
        if camera not in wanted:
            raise ConfigError(
                f"frames: expected the cameras {', '.join(wanted)}; got {camera!r}"
                + did_you_mean(str(camera), wanted)
            )
    for camera in wanted:
        if camera not in frames:
            raise ConfigError(
                f"frames: camera {camera!r} is missing; expected {', '.join(wanted)}, "
                f"got {', '.join(map(str, frames)) or 'none'}"
            )
    return {camera: _frames_of(camera, frames[camera], sizes.get(camera)) for camera in wanted}


def _frames_of(camera: str, given: Any, size: Size | None) -> Frames:
    found = _as_array(f"frames[{camera!r}]", given)
    shape = list(found.shape)
    if found.dtype != np.uint8 or found.ndim != 4 or shape[3] != 3:
        grey = found.dtype == np.uint8 and (found.ndim == 3 or shape[3:] == [1])
        remedy = "; repeat grey frames three times along the last axis" if grey else ""
        raise ConfigError(
            f"frames[{camera!r}]: expected uint8 [T, H, W, 3], got {found.dtype} {shape}{remedy}"
        )
    height, width = shape[1:3]
    if not 0 < height * width <= MAX_PIXELS:
        raise ConfigError(
            f"frames[{camera!r}]: expected 1 to {MAX_PIXELS} pixels per frame, got {height}x{width}"
        )
    if size is not None and (height, width) != size:
        raise ConfigError(
            f"frames[{camera!r}]: expected {size[0]}x{size[1]} pixels, as the episodes before have; "
            f"got {height}x{width}"
        )
    return found


def _is_wanted(what: str, given: Any, columns: Sequence[Column]) -> bool:
    """Whether the description has an array, which the episode must have, too; or neither has it."""
    if columns and given is None:
        names = ", ".join(one.name for one in columns)
        raise ConfigError(f"{what}: expected [T, {len(columns)}] ({names}), got none")
    if not columns and given is not None:
        declare = "reward=True" if what == "reward" else f"{what}=[...]"
        raise ConfigError(
            f"{what}: these recordings declare none; leave it out, or create others with {declare}"
        )
    return bool(columns)


def _array(what: str, given: Any, columns: Sequence[Column], steps: int) -> Floats:
    """Values [T, A] float32 of an array."""
    found = _as_array(what, given)
    if what == "reward" and found.ndim == 1:
        found = found[:, None]
    if found.dtype.kind not in "biuf" or found.ndim != 2 or found.shape[1] != len(columns):
        names = ", ".join(one.name for one in columns)
        raise ConfigError(
            f"{what}: expected numbers [T, {len(columns)}] ({names}), got {found.dtype} {list(found.shape)}"
        )
    if len(found) != steps:
        raise ConfigError(f"{what}: expected {steps} steps, as the frames have; got {len(found)}")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(found, np.float32)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        step, column = bad[0].tolist()
        value = float(found[step, column])
        why = "float32 cannot hold" if np.isfinite(value) else "expected finite numbers, got"
        raise ConfigError(f"{what}: {why} {value} at step {step}, column {columns[column].name}")
    return values


def _instructions(given: Any, steps: int) -> tuple[tuple[int, str], ...]:
    """(step at which it begins, text) of each text."""
    if given is None:
        return ()
    if isinstance(given, str):
        text = _text("instruction", given)
        return ((0, text),) if text is not None else ()
    expected = "instruction: expected a text, or (step, text) for each in the order of steps"
    if not isinstance(given, Iterable):
        raise ConfigError(f"{expected}; got {given!r}")
    runs: list[tuple[int, str]] = []
    for one in given:
        if not isinstance(one, tuple | list) or len(one) != 2 or not isinstance(one[0], int | np.integer):
            raise ConfigError(f"{expected}; got {one!r}")
        step, text = int(one[0]), _text("instruction", one[1])
        least = runs[-1][0] + 1 if runs else 0
        if not least <= step < steps:
            raise ConfigError(f"{expected}, from {least} to {steps - 1}; got step {step}")
        runs.append((step, text or ""))
    return tuple(runs)


def _text(argument: str, given: Any) -> str | None:
    """A text without the spaces around it, by which one place would become two; or None."""
    if given is None:
        return None
    if not isinstance(given, str) or not given.strip():
        raise ConfigError(f"{argument}: expected a text or None, got {given!r}"[:200])
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{argument}: expected text that UTF-8 can hold, got {given!r}"[:200]) from error
    return given.strip()


def _as_array(argument: str, given: Any) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(given)
    except ValueError as error:  # of a list whose items differ in shape
        raise ConfigError(f"{argument}: expected one array, got items of several shapes") from error
    except (TypeError, RuntimeError) as error:  # of a tensor on a GPU, or one that requires gradients
        why = " ".join(str(error).split())[:200]
        raise ConfigError(f"{argument}: NumPy cannot read {type(given).__name__}: {why}") from error
