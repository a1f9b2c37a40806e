"""Find names of a dataset that may mean one place, and write the line of a split rule that joins them.

Names are alike if they differ only in case, Unicode form, white space, `_` and `-`: `Kitchen` and `kitchen`,
`toy_kitchen` and `toy kitchen`, and `café` in its two Unicode forms (one letter, or a letter and an accent).
Every other symbol is significant: `C`, `C#` and `C++` are three places, and `10%` is not `10`. Numbers are,
too: `lab 1 1` is not `lab 11`, and `lab -1` has a sign.

Names are also alike if they become equal when a word beside the environment is taken away:

    word                              is taken away if
    camera: cam2, camera_a            a letter is left
    robot: franka, robot_3, datacol1  what is left is a name of the dataset, or has a number (`toykitchen2`)
    room: room8052                    what is left is a name, and no other room stands beside that name
    any other: deepthought            what is left is a name with a number, and no other word stands beside it

Robots and cameras move, so several may serve one place. Two rooms beside one name tell two places apart:
`toykitchen2_room8052` and `toykitchen2_room9000` are not alike. Neither are `berkeley_kitchen1` and
`stanford_kitchen1`, even where `kitchen1` is a name. The number of an environment always stays: `toykitchen1`
is not `toykitchen2`, and `kitchen_2` is not `kitchen`. `tabletop_white` is not `tabletop`, which may be any.
Other words with a number stay (`house2_sink1`), as do short ones and those that describe (`toy_kitchen1`).

Similar names may still mean two places, so nothing is joined here. Time is close to linear in the number of
names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from itertools import chain
from typing import TypeAlias

from oxcart.manifests.split import connected, scalar

_Words: TypeAlias = tuple[str, ...]

SHOWN = 5
"""Maximum number of places whose names are listed in one line."""

SPELLING = "case, Unicode form, white space, _ or -"
"""What names of equal form differ in."""
BESIDE = "a word that may name a robot, a room or a camera"
"""What the other names of a place differ in."""

_GAP = re.compile(r"(?:(?!(?<!\S)-\d)[\s_-])+")
"""White space, `_` and `-`, except a `-` that is a sign: at the start of a word, before a digit."""
_TIGHT = re.compile(r" (?:(?<!\d )|(?!\d))")
"""A space that is not between two digits."""

_NUMBER = r"(?:\d+[a-z]?|[a-h])"
"""What tells robots or rooms apart: 8052, 12b, a."""
_ROOM = re.compile(rf"(?:room|rm){_NUMBER}")
_CAMERA = re.compile(rf"(?:cam|camera){_NUMBER}")
# Models with an everyday name (Stretch, Spot, Fetch, Pepper) are left out: they may well describe a place.
_ROBOT = re.compile(
    rf"(?:robot|arm|datacol){_NUMBER}|ur(?:3|5|7|10|15|16|20|30)e?|so10[01]|[wv]x\d+s?|fr3|pr2|gen3|"
    r"(?:aloha|baxter|emika|fanuc|flexiv|franka|iiwa|jaco|kinova|kuka|lerobot|panda|sawyer|tiago|trossen|"
    rf"viperx|widowx|xarm|yumi){_NUMBER}?"
)
_TAG = re.compile(
    "(?<!\\S)(robot|arm|datacol|cam|camera|room|rm|lab|bldg|building|site|station|house|scene) ?"
    rf"({_NUMBER})(?!\S)"
)
"""A word and the number that tells what it names from others of its kind, together or apart."""
_CERTAIN = re.compile(r"(?=.*\d).*[^\W\d_]{3}", re.DOTALL)
"""A form with a number and a word: `toykitchen2`, but not `v2`, which counts anything."""
_DESCRIBING = re.compile(
    "real|sim|simulated|toy|mock|fake|left|right|front|back|rear|upper|lower|top|bottom|inner|outer|inside|"
    "outside|north|south|east|west|small|large|big|little|mini|old|new|main|other|first|second|third|light|"
    "dark|black|white|grey|gray|red|green|blue|yellow|orange|brown|wood|wooden|metal|kitchen|office|bath|"
    "bathroom|bed|bedroom|living|dining|laundry|coffee|folding|side|work|lab"
)
"""Words that say which of several places is meant, or make another noun of a name: a folding table."""


def words(name: str) -> _Words:
    """The folded words of a name. `room 8052`, `room_8052` and `room8052` are one word."""
    text = seen = name.casefold()
    if not name.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
        # Nobody sees a zero-width space or a soft hyphen.
        seen = "".join(one for one in text if unicodedata.category(one) != "Cf")
    return tuple(_TAG.sub(r"\1\2", _GAP.sub(" ", seen)).split()) or (text,)


def folded(name: str) -> str:
    """The form that names of one spelling share, never empty. A gap between two digits is one space."""
    return _form(words(name))


def identifies(word: str) -> bool:
    """Whether a word says which: it has letters and a number (`toykitchen1`), or is one such as `labA`."""
    numbered = any(letter.isdigit() for letter in word) and any(letter.isalpha() for letter in word)
    return numbered or _TAG.fullmatch(word) is not None


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """The names of each place that has several, the plainest first, in the order of the first names."""
    of = {name: words(name) for name in sorted(set(names))}
    place = dict(zip(of, _ties(of.values()), strict=True))
    found: dict[int, list[str]] = {}
    for name in sorted(of, key=lambda name: (len(_form(of[name])), name)):
        found.setdefault(place[name], []).append(name)
    return sorted((first, *sorted(rest)) for first, *rest in found.values() if rest)


def apart(places: Iterable[tuple[str, ...]], joined: Mapping[str, Hashable]) -> list[tuple[str, ...]]:
    """The places that are not joined yet, without names that are joined to an earlier one.

    Args:
        places: names of each place, from `alike`.
        joined: name -> a value that all names share that are joined to it; its own if it is joined to none.
    """
    found = []
    for names in places:
        first: dict[Hashable, str] = {}
        for name in names:
            first.setdefault(joined.get(name, name), name)
        found.append(tuple(first.values()))
    return [names for names in found if len(names) > 1]


def said_alike(places: Collection[tuple[str, ...]]) -> str:
    """One line that says what the names of the places differ in, and ends with what joins them."""
    forms = [(len(names), len({folded(name) for name in names})) for names in places]
    kinds = [SPELLING] * any(few < many for many, few in forms) + [BESIDE] * any(few > 1 for _, few in forms)
    more = len(places) - SHOWN
    them = (
        f"the first {SHOWN} (and {more} more {'place' if more == 1 else 'places'} next)"
        if more > 0
        else "them"
    )
    return (
        f"environments that may be one place, because their names differ only in {', or in '.join(kinds)}; "
        f"to join {them} in a split rule: {aliases(places)}"
    )


def aliases(places: Collection[tuple[str, ...]]) -> str:
    """The line of a split rule that joins the names of each place, for the first few places at most."""
    rows = [(scalar(first), ", ".join(map(scalar, rest))) for first, *rest in list(places)[:SHOWN]]
    return "aliases: {" + ", ".join(f"{first}: [{rest}]" for first, rest in rows) + "}"


def _form(of: _Words) -> str:
    text = " ".join(of)
    return _TIGHT.sub("", text) or text


def _ties(names: Collection[_Words]) -> list[int]:
    """A number for each name, equal for names that may mean one place."""
    seen = [_without(_CAMERA, name) for name in names]
    forms = {_form(name) for name in seen}
    # Names without their robots, where what is left is enough to tell a place.
    stems = []
    for name in seen:
        form = _form(stem := _without(_ROBOT, name))
        stems.append(stem if form in forms or _CERTAIN.match(form) else name)
    plain = {_form(stem) for stem in stems}
    found = [list(_beside(stem, plain)) for stem in stems]
    # A word beside a name says nothing of its own only where no other stands there.
    others: dict[tuple[str, str], set[str]] = {}
    for what, rest, word in chain.from_iterable(found):
        others.setdefault((what, rest), set()).add(word)
    return connected(
        (_form(stem), *(rest for what, rest, _ in beside if len(others[what, rest]) == 1))
        for stem, beside in zip(stems, found, strict=True)
    )


def _without(kind: re.Pattern[str], name: _Words) -> _Words:
    """The name without the words of a kind, if a letter is left."""
    rest = tuple(word for word in name if not kind.fullmatch(word))
    return rest if any(letter.isalpha() for word in rest for letter in word) else name


def _beside(stem: _Words, plain: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """A room or another word that stands beside one of the plain names: what it is, the name, the word."""
    rooms = [at for at, word in enumerate(stem) if _ROOM.fullmatch(word)]
    if len(rooms) == 1 and (rest := _rest(stem, rooms[0])) in plain:
        yield "room", rest, stem[rooms[0]]
    for at in (0, len(stem) - 1) if len(stem) > 1 else ():
        word = stem[at]
        if len(word) < 3 or not word.isalpha() or _DESCRIBING.fullmatch(word) or identifies(word):
            continue
        if (rest := _rest(stem, at)) in plain and _CERTAIN.match(rest):
            yield "word", rest, word


def _rest(stem: _Words, at: int) -> str:
    """The form of a name without one of its words."""
    return _form(stem[:at] + stem[at + 1 :])
