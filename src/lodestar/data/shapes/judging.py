"""An exact judge of pictures of shapes: which claims of a caption hold, told from the pixels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lodestar.data.shapes.eye import Seen, look
from lodestar.data.shapes.grammar import Meaning, parse
from lodestar.data.shapes.scene import relation


@dataclass(frozen=True)
class Verdict:
    """The claims of a caption that hold in a picture. None is a claim that the caption does not make."""

    seen: tuple[Seen, ...]
    """The things in the picture, those of the caption first, in its order."""
    count: bool
    """There are as many things as the caption tells, no more and no fewer."""
    shapes: tuple[bool, ...]
    colours: tuple[bool | None, ...]
    sizes: tuple[bool | None, ...]
    """For each thing of the caption."""
    places: tuple[bool | None, ...]
    """For each thing of the caption: it stands in the part of the picture that is told."""
    relations: tuple[bool, ...]
    """For each relation of the caption."""

    @property
    def attributes(self) -> bool:
        """True if the number of things is right, and so are the shape, colour and size of each."""
        return self.count and False not in (*self.shapes, *self.colours, *self.sizes)

    @property
    def place(self) -> bool | None:
        """True if all things stand in the parts of the picture that are told; None where the caption tells none."""
        told = [each for each in self.places if each is not None]
        return all(told) if told else None

    @property
    def relation(self) -> bool | None:
        """True if all relations are right; None where the caption tells none."""
        return all(self.relations) if self.relations else None

    @property
    def right(self) -> bool:
        """True if the whole caption holds."""
        return self.attributes and self.place is not False and self.relation is not False


def judge(picture: np.ndarray, caption: str) -> Verdict:
    """The verdict on a picture, uint8 [H, W, 3] or [3, H, W], for a caption of the grammar. Raises Problem for another one."""
    return compare(look(picture), parse(caption))


def compare(seen: Sequence[Seen], meaning: Meaning) -> Verdict:
    """The verdict on things that are seen: of all ways to match them with those of the caption, the most favourable."""
    count = len(meaning.things)
    # A thing of the caption without one in the picture is matched with nothing.
    candidates: list[Seen | None] = [*seen[: count + 3], *[None] * max(count - len(seen), 0)]
    verdicts = (_verdict(meaning, order, seen) for order in itertools.permutations(candidates, count))
    return max(
        verdicts, key=lambda each: sum(map(bool, (*each.shapes, *each.colours, *each.sizes, *each.places, *each.relations)))
    )


def _verdict(meaning: Meaning, order: Sequence[Seen | None], seen: Sequence[Seen]) -> Verdict:
    def holds(told: str | None, thing: Seen | None, what: str) -> bool | None:
        return None if told is None else thing is not None and getattr(thing, what) == told

    pairs = list(zip(meaning.things, order, strict=True))
    named = [thing for thing in order if thing is not None]
    return Verdict(
        (*named, *(thing for thing in seen if thing not in named)),
        len(seen) == len(pairs),
        tuple(bool(holds(told.shape, thing, "shape")) for told, thing in pairs),
        tuple(holds(told.colour, thing, "colour") for told, thing in pairs),
        tuple(holds(told.size, thing, "size") for told, thing in pairs),
        tuple(holds(told.place, thing, "place") for told, thing in pairs),
        tuple(_stands(order[first], what, order[second]) for first, what, second in meaning.relations),
    )


def _stands(first: Seen | None, what: str, second: Seen | None) -> bool:
    return first is not None and second is not None and relation((first.x, first.y), (second.x, second.y)) == what
