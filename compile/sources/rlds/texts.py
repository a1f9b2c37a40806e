"""Features of an RLDS dataset that become text: instructions, and the names of environments.

This is the one place where a value of a record becomes text. `features.json` says how a feature is stored, so
a feature of anything else (an image, an embedding, tokens) is refused before a record is read, whether it was
named or only has a usual name. Text is stored in one of three ways:

    text     a string
    utf-8    bytes of UTF-8 as whole numbers, padded with zeros (language_table); taken only where the option
             or the catalog names the feature, because tokens look the same
    number   one whole number, which becomes its decimal, or a boolean (True or False); for environments
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tensorflow_datasets.core import features as tfds_features

from oxcart.compile.sources.base import SuccessRule
from oxcart.compile.sources.rlds.directory import TfdsDirectory
from oxcart.compile.sources.rlds.features import (
    choose_flag,
    described,
    is_there,
    last_flag,
    packing,
    resolve,
    shape_of,
)
from oxcart.shards.errors import ConfigError

INSTRUCTIONS = (
    "steps/language_instruction",
    "steps/language_instruction_2",
    "steps/language_instruction_3",
    "steps/observation/natural_language_instruction",
    "steps/observation/instruction",
)
"""Features that hold instructions in datasets that are not in the catalog."""

SHOWN = 3
"""Features that an error offers as alternatives: texts first, and no flags."""
_FORMS = {"text": "text", "utf-8": "text", "number": "a whole number"}
"""How a feature is stored -> the expectation stated in errors."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A feature whose values are text."""

    path: str
    stored: str
    """How the feature is stored: `text`, `utf-8` or `number`."""

    def of_step(self, value: Any) -> str:
        """The text of one value.

        Raises:
            ValueError: the record does not match its description.
        """
        if self.stored == "text":
            if not isinstance(value, bytes):
                raise ValueError(f"{self.path} holds numbers where text is expected")
            data = value
        elif self.stored == "number":
            if not isinstance(value, int | np.integer | np.bool_):
                raise ValueError(f"{self.path} holds other than a whole number")
            return str(value)
        else:
            codes = value[value != 0]
            wrong = codes[(codes < 9) | (codes > 255) | ((codes > 13) & (codes < 32))]
            if wrong.size:
                raise ValueError(f"{self.path} holds {wrong[0]} where bytes of UTF-8 text are expected")
            data = bytes(codes.tolist())
        return data.decode("utf-8", "replace").strip()

    def of_episode(self, found: Any) -> str:
        """The text of an episode: that of its first step in a feature of steps, "" without steps."""
        if not self.path.startswith("steps/"):
            return self.of_step(found)
        return self.of_step(found[0]) if len(found) else ""

    def runs(self, found: Any) -> list[tuple[int, str]]:
        """(step at which it begins, text), one per change of the text.

        Raises:
            ValueError: the record does not match its description.
        """
        if not self.path.startswith("steps/"):
            return [(0, self.of_step(found))]
        runs: list[tuple[int, str]] = []
        last = None
        for i, value in enumerate(found):
            if isinstance(value, bytes) and value == last:  # nearly always, so a text is decoded once
                continue
            last, text = value, self.of_step(value)
            if not runs or text != runs[-1][1]:
                runs.append((i, text))
        return runs


@dataclass(frozen=True, kw_only=True)
class Success:
    """The feature that tells whether an episode succeeded."""

    rule: SuccessRule
    """The rule, with the path of the feature."""
    text: Text | None
    """The feature as text, in which the pattern of the rule is searched; None if it is a flag."""

    @property
    def path(self) -> str:
        """Path of the feature."""
        return self.rule.field

    def of_episode(self, found: Any) -> bool | None:
        """Whether an episode succeeded: the flag, or that of its last step; None if it does not say.

        Raises:
            ValueError: the record does not match its description.
        """
        if self.text is None:
            return last_flag(self.path, found)
        text = self.text.of_episode(found)
        return re.search(self.rule.pattern or "", text) is not None if text else None


def choose_success(
    directory: TfdsDirectory, given: SuccessRule | None, known: SuccessRule | None
) -> Success | None:
    """The feature that tells whether an episode succeeded; None if nothing does.

    Args:
        directory: the dataset's description of itself.
        given: the rule that is asked for.
        known: the rule of the catalog, which counts where the dataset has the feature.

    Raises:
        ConfigError: there is no such feature, or it is neither a flag nor, with a pattern, text.
    """
    rule = given or (known if known and is_there(directory, known.field) else None)
    if rule is None:
        return None
    if rule.pattern is None:
        return Success(rule=SuccessRule(field=choose_flag(directory, "success", rule.field)), text=None)
    text = _text(directory, "success", rule.field, ("text", "number"))
    return Success(rule=replace(rule, field=text.path), text=text)


def choose_instruction(directory: TfdsDirectory, fields: tuple[str, ...] | None) -> tuple[Text, ...]:
    """The features that hold instructions: the named ones, else those with usual names.

    Raises:
        ConfigError: there is no such feature, or it does not hold text.
    """
    forms = ("text",) if fields is None else ("text", "utf-8")
    if fields is None:
        fields = tuple(field for field in INSTRUCTIONS if is_there(directory, field))
    return tuple(_text(directory, "instruction", field, forms) for field in fields)


def choose_environment(directory: TfdsDirectory, field: str, optional: bool) -> Text | None:
    """The feature that names the environment; None if it is optional and the dataset lacks it.

    Raises:
        ConfigError: there is no such feature, or it holds neither text nor one whole number.
    """
    if optional and not is_there(directory, field):
        return None
    return _text(directory, "environment", field, ("text", "number"))


def _text(directory: TfdsDirectory, option: str, field: str, forms: Collection[str]) -> Text:
    path = resolve(directory, option, field)
    stored = _stored(directory, path)
    if stored in forms:
        return Text(path=path, stored=stored)
    expected = " or ".join(dict.fromkeys(_FORMS[form] for form in forms))
    fit = [
        other
        for sure in ("text", "number")
        for other in sorted(directory.specs)
        if sure in forms and _stored(directory, other) == sure and directory.specs[other].np_dtype != np.bool_
    ]
    more = [f"one of {len(fit) - SHOWN} more"] if len(fit) > SHOWN else []
    remedies = [*fit[:SHOWN], *more, *(["none"] if option == "instruction" else [])]
    if stored == "utf-8" and option == "instruction":
        remedies.insert(0, f"{path} itself where it holds bytes of UTF-8")
    remedy = f"; pass --{option} with {', or '.join(remedies)}" if remedies else ""
    raise ConfigError(
        f"{option} {path!r}: expected {expected}, the source has {described(directory, path)}{remedy}"
    )


def _stored(directory: TfdsDirectory, path: str) -> str:
    """How a feature is stored: a key of _FORMS, or "" if it cannot become text."""
    leaf, shape = directory.leaves.get(path), shape_of(directory, path)
    kind = np.dtype(directory.specs[path].np_dtype).kind
    if packing(directory, path):
        return ""
    if shape == () and isinstance(leaf, tfds_features.Tensor):
        return "text" if kind == "O" else "number" if kind in "iub" else ""
    encoded = isinstance(leaf, tfds_features.Text)  # by an encoder of TFDS, so not UTF-8
    return "utf-8" if len(shape) == 1 and shape != (0,) and kind in "iu" and not encoded else ""
