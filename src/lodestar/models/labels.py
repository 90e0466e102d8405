"""Class names as asked for: exact, in other case, or by a synonym; and composed labels of wanted and unwanted classes.

A name may be followed by its synonyms, separated by ", ", as ImageNet's are: "tabby, tabby cat".
"""

from __future__ import annotations

from collections.abc import Sequence

from lodestar.conditions import Composed, Label, signs
from lodestar.config import CLASSES, Problem, nearest, shown

_SHOWN = 20


def class_number(asked: str | int, names: Sequence[str], classes: int) -> int:
    """The number of a class asked for by name, synonym or number; names precede synonyms, synonyms precede numbers.

    names: of all classes, or empty. Raises Problem for a missing class, and for a word with several meanings.
    """
    if asked in names:
        return names.index(str(asked))
    if isinstance(asked, str):
        word, words = asked.lower(), [name.lower().split(", ") for name in names]
        for heard in (words, [each[:1] for each in words], [[name.lower()] for name in names]):
            found = [number for number, each in enumerate(heard) if word in each]
            if len(found) == 1:
                return found[0]
        if several := [number for number, each in enumerate(words) if word in each]:
            raise Problem(f"label {asked!r} means several classes: choose from {listed([names[k] for k in several])}")
    text = _text(asked)
    if text.isdecimal() and len(text) <= len(str(CLASSES)) and int(text) < classes:
        return int(text)
    choices, spoken = listed(names) if names else f"0 to {classes - 1}", [word for name in names for word in name.split(", ")]
    raise Problem(f"unknown label {text!r}: choose from {choices}{nearest(text, spoken)}")


def read_label(asked: str | int, names: Sequence[str], classes: int) -> int | Composed:
    """A class (`class_number`), or several composed: ``dog+ship``, ``not cat``, ``dog+not cat``. Raises Problem.

    A class name that contains these words is still a name.
    """
    text = _text(asked)
    if text in names or not (text.startswith("not ") or "+" in text):
        return class_number(asked, names, classes)
    wanted: list[int] = []
    unwanted: list[int] = []
    for term in (each.strip() for each in text.split("+")):
        plain = term if term in names else term.removeprefix("not ").strip()
        number = class_number(plain, names, classes)
        if number in wanted + unwanted:
            raise Problem(f"label {text!r}: {plain} is in it twice")
        (wanted if plain == term else unwanted).append(number)
    return Composed(wanted=tuple(wanted), unwanted=tuple(unwanted))


def _text(asked: str | int) -> str:
    """A label as text; of a number that is too long for one, its kind."""
    return asked if isinstance(asked, str) else shown(asked)


def spell(label: Label, names: Sequence[str] | None) -> str | int | None:
    """A label as text for `read_label`; a single class without a name is its number."""
    if isinstance(label, Composed):
        return "+".join(f"{'' if sign > 0 else 'not '}{spell(number, names)}" for number, sign in signs(label).items())
    return names[label] if names and label is not None else label


def listed(names: Sequence[str]) -> str:
    """Names without their synonyms, for messages: all of a few, else their number and the first."""
    short = ", ".join(name.split(", ")[0] for name in names[:_SHOWN])
    return short if len(names) <= _SHOWN else f"{len(names)} names ({short}, …)"


def check_classes(what: str, theirs: tuple[tuple[str, ...], int | None], ours: tuple[tuple[str, ...], int | None]) -> None:
    """Raise Problem unless a guide knows a model's classes, each given as names (empty for none) and number; what: the guide."""
    if theirs == ours:
        return
    told = [f"{number}: {listed(names)}" if names else f"{number}, without names" for names, number in (theirs, ours)]
    raise Problem(f"this {what} knows other classes ({told[0]}) than the model ({told[1]})")
