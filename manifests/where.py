"""Choose episodes by an expression over the columns of `episodes.parquet`.

    where = Where("success and steps >= 20 and environment ~ 'toy' and not instruction ~ 'put|place'")
    mask = where.holds(table)

    either = both {"or" both}
    both   = one {"and" one}
    one    = "not" one | "(" either ")" | test
    test   = COLUMN                                          a column of true and false
           | COLUMN ("==" | "!=" | "<" | "<=" | ">" | ">=") VALUE
           | COLUMN ("~" | "!~") TEXT                        whether a regular expression is found in it
           | COLUMN "in" "(" VALUE {"," VALUE} ")"
           | COLUMN "is" ["not"] "known"                     whether the episode has a value
    VALUE  = number | TEXT | "true" | "false"
    TEXT   = 'text' or "text", without escapes

A test of a value that an episode lacks is neither true nor false, as in SQL: neither it nor its `not` chooses
the episode. Nothing is executed: the expression is parsed here, and evaluated by pyarrow. Regular expressions
are RE2's, which take time in proportion to the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from oxcart.shards.choices import did_you_mean
from oxcart.shards.errors import ConfigError

LONGEST = 10_000
"""Maximum length of an expression, in characters."""
DEEPEST = 100
"""Maximum depth of parentheses and `not`."""

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>'[^']*'|"[^"]*")
    |(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<name>[A-Za-z_][\w.-]*)
    |(?P<sign>==|!=|<=|>=|!~|[<>~(),])""",
    re.VERBOSE,
)
_WORDS = ("and", "or", "not", "in", "is", "known", "true", "false")
_COMPARE: dict[str, Callable[..., Any]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_KINDS = {"text": pa.types.is_string, "number": lambda t: pa.types.is_int32(t) or pa.types.is_float32(t)}


Evaluate = Callable[[pa.Table], Any]
"""Gives one of true, false and null for each row."""


class _Token(NamedTuple):
    kind: str
    """`text`, `number`, `name`, `sign` or `end`."""
    text: str
    place: int


@dataclass(frozen=True)
class Where:
    """An expression that chooses episodes.

    Args:
        text: the expression.

    Raises:
        ConfigError: the text is not of the grammar; the message says where it stops.
    """

    text: str

    def __post_init__(self) -> None:
        _Parser(self.text, None)

    def columns(self, schema: pa.Schema) -> list[str]:
        """Columns that the expression looks at.

        Args:
            schema: the columns that there are.

        Raises:
            ConfigError: a column does not exist, or is compared with a value of another kind.
        """
        return list(dict.fromkeys(_Parser(self.text, schema).columns))

    def holds(self, table: pa.Table) -> pa.BooleanArray:
        """For each row whether the expression is true, false or (null) neither.

        Args:
            table: the columns that the expression looks at; texts may be dictionaries.

        Raises:
            ConfigError: a column does not exist, or is compared with a value of another kind.
        """
        schema = pa.schema([(field.name, _plain(field.type)) for field in table.schema])
        found: pa.BooleanArray = _Parser(self.text, schema).evaluate(table)
        return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


class _Parser:
    """Parses an expression, and keeps what evaluates it.

    Args:
        text: the expression.
        schema: the columns that there are; None checks the grammar alone.
    """

    def __init__(self, text: str, schema: pa.Schema | None) -> None:
        if len(text) > LONGEST:
            raise ConfigError(f"where: {len(text):,} characters; expected at most {LONGEST:,}")
        self._text, self._schema = text, schema
        self._tokens = list(self._split())
        self._next = 0
        self.columns: list[str] = []
        self.evaluate = self._either(0)
        if self._peek.kind != "end":
            self._stop("expected and, or, or the end")

    def _split(self) -> Iterator[_Token]:
        place = 0
        while place < len(self._text):
            match = _TOKEN.match(self._text, place)
            if match is None:
                hint = "; did you mean ==?" if self._text[place] == "=" else ""
                raise ConfigError(self._message("cannot be read", place) + hint)
            kind = str(match.lastgroup)
            if kind != "space":
                yield _Token(kind, match.group(), place)
            place = match.end()
        yield _Token("end", "", place)

    def _message(self, problem: str, place: int) -> str:
        rest = self._text[place : place + 20]
        return f"where: {problem}, at character {place + 1}" + (f": {rest!r}" if rest else ", where it ends")

    def _stop(self, problem: str, token: _Token | None = None) -> None:
        raise ConfigError(self._message(problem, (token or self._peek).place))

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> str | None:
        """The next word or sign, if it is one of these."""
        token = self._peek
        if token.kind not in ("name", "sign") or token.text not in texts:
            return None
        self._next += 1
        return token.text

    def _expect(self, text: str) -> None:
        if not self._take(text):
            self._stop(f"expected {text}")

    def _either(self, depth: int) -> Evaluate:
        return self._joined("or", pc.or_kleene, self._both, depth)

    def _both(self, depth: int) -> Evaluate:
        return self._joined("and", pc.and_kleene, self._one, depth)

    def _joined(
        self,
        word: str,
        join: Callable[..., Any],
        part: Callable[[int], Evaluate],
        depth: int,
    ) -> Evaluate:
        parts = [part(depth)]
        while self._take(word):
            parts.append(part(depth))

        def evaluate(table: pa.Table) -> Any:
            found = parts[0](table)
            for one in parts[1:]:
                found = join(found, one(table))
            return found

        return evaluate

    def _one(self, depth: int) -> Evaluate:
        if depth > DEEPEST:
            self._stop(f"expected at most {DEEPEST} parentheses and nots in each other")
        if self._take("not"):
            inner = self._one(depth + 1)
            return lambda table: pc.invert(inner(table))
        if self._take("("):
            inner = self._either(depth + 1)
            self._expect(")")
            return inner
        return self._test()

    def _test(self) -> Evaluate:
        token = self._peek
        if token.kind != "name" or token.text in _WORDS:
            self._stop("expected a column, not, or (")
        self._next += 1
        name = token.text
        kind = self._kind(token)
        self.columns.append(name)
        if self._take("is"):
            negated = self._take("not")
            self._expect("known")
            return _on(name, pc.is_null if negated else pc.is_valid)
        if self._take("in"):
            self._expect("(")
            values = [self._value(name, kind)]
            while self._take(","):
                values.append(self._value(name, kind))
            self._expect(")")
            return _on(name, lambda column: _is_in(_comparable(column), values))
        sign = self._take("~", "!~")
        if sign:
            return self._matching(name, kind, negated=sign == "!~")
        if sign := self._take(*_COMPARE):
            value = self._value(name, kind)
            compare = _COMPARE[sign]

            def evaluate(column: Any) -> Any:
                column = _comparable(column)
                return compare(column, pa.scalar(value, column.type))

            return _on(name, evaluate)
        if kind not in ("truth", None):
            self._stop(f"{name} holds {kind}s; expected ==, ~, <, in or is known after it")
        return _on(name, lambda column: column)

    def _kind(self, token: _Token) -> str | None:
        """What a column holds: `text`, `number`, `truth`; None if no columns are given."""
        if self._schema is None:
            return None
        there = {field.name: _kind_of(field.type) for field in self._schema}
        usable = [name for name, kind in there.items() if kind is not None]
        if there.get(token.text) is None:
            known = ", ".join(usable)
            hint = did_you_mean(token.text, usable) or f"; there are {known}"
            raise ConfigError(f"where: there is no column {token.text!r} to choose by{hint}")
        return there[token.text]

    def _value(self, name: str, kind: str | None) -> Any:
        token = self._peek
        found: Any = None
        if token.kind == "text":
            given, found = "text", token.text[1:-1]
        elif token.kind == "number":
            given = "number"
            found = float(token.text)
        elif token.kind == "name" and token.text in ("true", "false"):
            given, found = "truth", token.text == "true"
        else:
            self._stop("expected a number, 'text', true or false")
        if kind not in (given, None):
            self._stop(
                f"{name} holds {kind}s, not {given}s" if kind != "truth" else f"{name} is true or false"
            )
        self._next += 1
        return found

    def _matching(self, name: str, kind: str | None, *, negated: bool) -> Evaluate:
        token = self._peek
        if token.kind != "text":
            self._stop("expected a regular expression in quotes")
        if kind not in ("text", None):
            self._stop(f"{name} holds no texts")
        pattern = token.text[1:-1]
        try:
            pc.match_substring_regex(pa.array([""]), pattern)
        except pa.ArrowInvalid as error:
            reason = str(error).splitlines()[0].removeprefix("Invalid regular expression: ")
            self._stop(f"not a regular expression ({reason})")
        self._next += 1

        def evaluate(column: Any) -> Any:
            found = pc.match_substring_regex(column, pattern)
            return pc.invert(found) if negated else found

        return _on(name, evaluate)


def _on(name: str, test: Callable[[Any], Any]) -> Evaluate:
    """A test of a column; of texts that are a dictionary, each is tested once."""

    def evaluate(table: pa.Table) -> Any:
        column = table[name]
        if not pa.types.is_dictionary(column.type):
            return test(column)
        whole = column.unify_dictionaries().combine_chunks()
        if isinstance(whole, pa.ChunkedArray):
            whole = whole.chunk(0) if whole.num_chunks else pa.array([], column.type)
        if test in (pc.is_null, pc.is_valid):
            return test(whole.indices)
        return test(whole.dictionary).take(whole.indices)

    return evaluate


def _is_in(column: Any, values: list[Any]) -> Any:
    found = pc.is_in(column, value_set=pa.array(values, column.type))
    return pc.if_else(pc.is_valid(column), found, pa.scalar(None, pa.bool_()))


def _comparable(column: Any) -> Any:
    """A column as values compare with it: whole numbers as fractions, and these as they are stored."""
    return column.cast(pa.float64()) if pa.types.is_int32(column.type) else column


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _kind_of(kind: pa.DataType) -> str | None:
    if pa.types.is_boolean(kind):
        return "truth"
    return next((name for name, holds in _KINDS.items() if holds(kind)), None)
