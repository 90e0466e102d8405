"""Captions of scenes, and their meaning: drawn from, and parsed by, the same table of sentences."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lodestar.config import Problem, nearest, shown
from lodestar.data.shapes.scene import COLOURS, Scene, Split, Thing, clear_place, clear_relation, is_held_out

Told = tuple[int, str, int]
"""The number of a thing, its relation to another, and that one's number."""

_SHAPE_WORDS = {
    "circle": "circle", "disc": "circle", "square": "square", "box": "square", "triangle": "triangle", "star": "star",
    "cross": "cross", "plus": "cross",
}  # fmt: skip
_SIZE_WORDS = {"small": "small", "little": "small", "tiny": "small", "large": "large", "big": "large", "huge": "large"}
_PHRASES = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}
_ONE = ("{0}", "a picture of {0}", "there is {0}", "{0} on a plain background")
_LISTS = {
    2: ("{0} and {1}", "{0} with {1}", "there are {0} and {1}", "a picture of {0} and {1}"),
    3: ("{0}, {1} and {2}", "{0} with {1} and {2}", "there are {0}, {1} and {2}", "a picture of {0}, {1} and {2}"),
}
_PAIRED = ("{0} %s {1}", "{0} is %s {1}", "there is {0} %s {1}", "a picture of {0} %s {1}")
"""%s: the relation of {0} to {1}."""
_TURNED = ("%s {1} is {0}", "%s {1} there is {0}")
_THIRD = ("{0} %s {1}, and {2}", "{0} %s {1} with {2}")
_TWICE = ("{0} %s {1} and %s {2}",)
"""The relations of {0} to {1} and to {2}."""

_PLACE_WORDS = {
    "on the left": "left", "at the left": "left", "on the right": "right", "at the right": "right", "at the top": "top",
    "at the bottom": "bottom",
}  # fmt: skip

_THING = re.compile(
    rf"(?:(?:an?|the|one) )?(?:({'|'.join(_SIZE_WORDS)}) )?(?:({'|'.join(COLOURS)}) )?({'|'.join(_SHAPE_WORDS)})\b"
    rf"(?: ({'|'.join(_PLACE_WORDS)})\b(?! of))?"  # left of something is a relation
)


@dataclass(frozen=True)
class Shares:
    """Shares of captions."""

    silent: float = 0.5
    """Without sizes."""
    unplaced: float = 0.25
    """Without places, of those that have room for them."""
    related: float = 0.5
    """With a relation, of those of several things."""
    colourless: float = 0.0
    """Without colours."""


USUAL = Shares()
SHARES: Mapping[Split, Shares] = {
    "pairs": Shares(silent=0.8, unplaced=0.1, related=0.4),
    "partial": Shares(colourless=0.5),
}
"""Shares of the captions of splits with other than the usual ones: `pairs` tell where things stand and little else, and `partial`
shapes of any colour, to be told from colours in learning."""


@dataclass(frozen=True)
class Described:
    """A thing as a caption has it; None is what the caption does not tell."""

    shape: str
    colour: str | None = None
    size: str | None = None
    place: str | None = None
    """The part of the picture where it stands."""


@dataclass(frozen=True)
class Meaning:
    """The claims of a caption."""

    things: tuple[Described, ...]
    """All things of the picture."""
    relations: tuple[Told, ...] = ()


def _sentences() -> dict[str, tuple[Told, ...]]:
    """The relations of every sentence, by its words with numbers in the place of things, in the order of the words."""
    found: dict[str, tuple[Told, ...]] = dict.fromkeys((*_ONE, *_LISTS[2], *_LISTS[3]), ())
    for what, phrases in _PHRASES.items():
        for phrase in phrases:
            found |= dict.fromkeys((sentence % phrase for sentence in _PAIRED + _TURNED + _THIRD), ((0, what, 1),))
    for (first, firsts), (second, seconds) in itertools.product(_PHRASES.items(), repeat=2):
        for both in itertools.product(firsts, seconds):
            found |= dict.fromkeys((sentence % both for sentence in _TWICE), ((0, first, 1), (0, second, 2)))
    return dict(_in_order(sentence, relations) for sentence, relations in found.items())


def _in_order(sentence: str, relations: tuple[Told, ...]) -> tuple[str, tuple[Told, ...]]:
    order = {int(number): place for place, number in enumerate(re.findall(r"\{(\d)\}", sentence))}
    renamed = re.sub(r"\{(\d)\}", lambda match: f"{{{order[int(match[1])]}}}", sentence)
    return renamed, tuple((order[first], what, order[second]) for first, what, second in relations)


_SENTENCES = _sentences()
_WORDS = set(re.findall("[a-z]+", " ".join((*_SENTENCES, *_SHAPE_WORDS, *_SIZE_WORDS, *COLOURS, *_PLACE_WORDS, "an the one"))))


def parse(caption: str) -> Meaning:
    """The meaning of a caption of the grammar; case, blanks and a full stop are free. Raises Problem for another text."""
    things: list[Described] = []

    def number(match: re.Match[str]) -> str:
        size, colour, shape, place = match.groups()
        things.append(Described(_SHAPE_WORDS[shape], colour, _SIZE_WORDS.get(size), _PLACE_WORDS.get(place)))
        return f"{{{len(things) - 1}}}"

    if not isinstance(caption, str):
        raise Problem(f"caption {shown(caption)} is no text")
    words = " ".join(caption.lower().split()).removesuffix(".")
    sentence = _THING.sub(number, words)
    if sentence in _SENTENCES:
        return Meaning(tuple(things), _SENTENCES[sentence])
    strange = next((word for word in re.findall(r"[^\s,]+", words) if word not in _WORDS), None)
    why = "" if strange is None else f": {strange!r} is not a word of theirs{nearest(strange, _WORDS)}"
    example = "'a large red circle left of a small blue square'"
    raise Problem(f"caption {shown(caption)} is no sentence about shapes, as {example} is{why}")


def caption(scene: Scene, rng: np.random.Generator, shares: Shares = USUAL) -> str:
    """A true caption of a scene, drawn from all sentences and words. It tells a held-out relation if there is one.

    Shapes are told of all things, colours and sizes of all or none, relations and places only where they are clear, and places
    only without a relation.
    """
    things = list(scene.things)
    rng.shuffle(things)
    held = next(
        (
            (first, second)
            for first, second in itertools.permutations(things, 2)
            if (what := clear_relation(first, second)) and is_held_out(first.shape, what, second.shape)
        ),
        None,
    )
    if held is not None:
        things = [*held, *(thing for thing in things if thing not in held)]
    sentence = _drawn(things, 1.0 if held is not None else shares.related, rng)
    sized = rng.random() >= shares.silent
    placed = sentence in (*_ONE, *_LISTS[2], *_LISTS[3]) and rng.random() >= shares.unplaced
    # No number is drawn for a share of none, so captions of the other splits stay as they were.
    coloured = shares.colourless == 0 or rng.random() >= shares.colourless
    told = (_words(thing, sized, coloured, rng) + (_standing(thing, rng) if placed else "") for thing in things)
    return sentence.format(*told)


def _drawn(things: list[Thing], related: float, rng: np.random.Generator) -> str:
    """A sentence that is true of things in this order; related: how probably it tells the relation of the first two."""

    def one(values: tuple[str, ...]) -> str:
        return values[int(rng.random() * len(values))]

    if len(things) == 1:
        return one(_ONE)
    clear = [clear_relation(things[0], other) for other in things[1:]]
    if clear[0] is None or (related < 1 and rng.random() >= related):
        return one(_LISTS[len(things)])
    phrase = one(_PHRASES[clear[0]])
    if len(things) == 2:
        return one(_PAIRED + _TURNED) % phrase
    if clear[1] is not None and rng.random() < 0.5:
        return one(_TWICE) % (phrase, one(_PHRASES[clear[1]]))
    return one(_THIRD) % phrase


def _standing(thing: Thing, rng: np.random.Generator) -> str:
    """The place of a thing in words, with a blank before; nothing where it is not clear."""
    place = clear_place(thing)
    return "" if place is None else f" {_one_of(_PLACE_WORDS, place, rng)}"


def _one_of(words: dict[str, str], meant: str, rng: np.random.Generator) -> str:
    """A word of a meaning, or words."""
    found = [each for each, meaning in words.items() if meaning == meant]
    return found[int(rng.random() * len(found))]


def _words(thing: Thing, sized: bool, coloured: bool, rng: np.random.Generator) -> str:
    """A thing in words, the usual ones in half of the cases."""

    def word(words: dict[str, str], meant: str) -> str:
        return meant if rng.random() < 0.5 else _one_of(words, meant, rng)

    parts = [word(_SIZE_WORDS, thing.size)] if sized else []
    parts += [*([thing.colour] if coloured else []), word(_SHAPE_WORDS, thing.shape)]
    return f"{'an' if parts[0][0] in 'aeiou' else 'a'} {' '.join(parts)}"
