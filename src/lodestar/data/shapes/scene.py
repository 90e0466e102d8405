"""Scenes of one to three coloured shapes, drawn from a seed and a number, with combinations held out of training.

Lengths are fractions of the picture's side; x is from the left, y from the top.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Literal, TypeVar

import numpy as np

from lodestar.config import Problem, choose

Split = Literal["train", "pairs", "partial", "test", "held_out"]

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = {
    "red": (225, 30, 50), "orange": (250, 120, 20), "yellow": (240, 235, 40),
    "green": (30, 175, 50), "blue": (45, 80, 225), "purple": (160, 45, 200),
}  # fmt: skip
"""RGB by name; a thing's own colour differs by `_JITTER` at most."""
SIZES = {"small": (0.092, 0.102), "large": (0.140, 0.155)}
"""Ranges of a thing's radius by the name of its size."""
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
PLACES = {"left of": "left", "right of": "right", "above": "top", "below": "bottom"}
"""The parts of a picture by their relation to its middle."""

HELD_OUT_PAIRS = frozenset(
    {("circle", "purple"), ("square", "orange"), ("triangle", "blue"), ("star", "green"), ("cross", "red")}
)
"""Combinations of shape and colour in no training scene."""
HELD_OUT_RELATIONS = frozenset(
    {
        ("circle", "left of", "triangle"), ("star", "left of", "square"), ("cross", "left of", "circle"),
        ("square", "above", "cross"), ("triangle", "above", "star"),
    }
)  # fmt: skip
"""Combinations of two shapes and their relation in no training scene, nor told the other way round: right of, below."""

EXTENT: dict[str, float] = {
    "circle": 1.0,
    "square": 0.9 * math.sqrt(2),
    "triangle": 1.3,
    "star": 1.35,
    "cross": math.hypot(1.05, 0.4),
}
"""Distance of a shape's outermost point from its centre, for radius 1."""

_COUNTS, _PAIRED = (1, 1, 1, 2, 2, 2, 2, 3, 3), (1, 2, 2, 2, 2, 2, 2, 2)
"""Numbers of things, in the shares of their scenes; of the split `pairs`."""
_GAP, _MARGIN = 0.06, 0.02
"""Least distance between two things, and of a thing from the border."""
_CLEAR = 1.5
"""A relation is clear if its direction is so many times as long as the other one."""
_NEAR = 0.1
"""A thing that is less far from the middle, in both directions, has no clear place."""
_JITTER = 8.0
_GREYS = ((30.0, 90.0), (165.0, 225.0))
"""Ranges of the grey at the middle of a scene, which is dark or light."""
_SLOPE = 25.0
"""The most that the grey changes from one side to the other."""
_ATTEMPTS = 20
_PAIRS = tuple((shape, colour) for shape in SHAPES for colour in COLOURS)
_TRAINED = tuple(pair for pair in _PAIRS if pair not in HELD_OUT_PAIRS)
_ORDERED = tuple(sorted(HELD_OUT_PAIRS)), tuple(sorted(HELD_OUT_RELATIONS))
"""Sets in an order that every process has."""
_AT_ONCE = 64
"""Random numbers drawn at once, of which a scene takes about as many."""
_STREAMS: dict[str, int] = {"train": 0, "held_out": 1, "test": 2, "pairs": 3, "partial": 4}
T = TypeVar("T")


@dataclass(frozen=True)
class Thing:
    """A shape in a scene."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    rgb: tuple[float, float, float]

    @property
    def extent(self) -> float:
        """The distance of the outermost point from the centre."""
        return EXTENT[self.shape] * self.radius


@dataclass(frozen=True)
class Scene:
    """One to three things on a grey ground. No two have both shape and colour in common, and none touch."""

    things: tuple[Thing, ...]
    grey: float
    slope: tuple[float, float]
    """Change of the grey from left to right, and from top to bottom."""


def scene(seed: int, number: int, split: Split = "train") -> Scene:
    """The scene of a number, 0 and up without end: a function of seed, number and split alone.

    train, partial, test: without the held-out combinations, from different draws; pairs: the same, seven of eight with two
    things; held_out: each has a held-out combination. Raises Problem for a negative seed or number, and an unknown split.
    """
    if min(seed, number) < 0:
        raise Problem(f"scene {number} of seed {seed}: both are 0 or more")
    draw = _Draw((seed, choose("split", split, _STREAMS), number))
    count = draw.one(_PAIRED if split == "pairs" else _COUNTS)
    held_out = split == "held_out"
    by_relation = held_out and count > 1 and draw.one((True, False))
    while (things := draw.things(count, held_out, by_relation)) is None:
        pass
    slope = draw.between(-_SLOPE, _SLOPE), draw.between(-_SLOPE, _SLOPE)
    return Scene(things, draw.between(*draw.one(_GREYS)), slope)


def relation(first: tuple[float, float], second: tuple[float, float], clear: float = 1.0) -> str | None:
    """The place of a point (x, y) relative to another: the longer direction, if it is `clear` times as long as the other."""
    dx, dy = first[0] - second[0], first[1] - second[1]
    if abs(dx) > clear * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) > clear * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def clear_relation(first: Thing, second: Thing) -> str | None:
    """The relation of a thing to another where no eye would doubt it, else None."""
    return relation((first.x, first.y), (second.x, second.y), _CLEAR)


def place(point: tuple[float, float], middle: tuple[float, float] = (0.5, 0.5), clear: float = 1.0) -> str | None:
    """The part of a picture where a point (x, y) stands: left, right, top or bottom of its middle."""
    what = relation(point, middle, clear)
    return None if what is None else PLACES[what]


def clear_place(thing: Thing) -> str | None:
    """The part of its picture where a thing stands, where no eye would doubt it, else None."""
    near = max(abs(thing.x - 0.5), abs(thing.y - 0.5)) < _NEAR
    return None if near else place((thing.x, thing.y), clear=_CLEAR)


def is_held_out(first: str, what: str, second: str) -> bool:
    """True for two shapes in a relation that is held out of training, told either way round."""
    return (first, what, second) in HELD_OUT_RELATIONS or (second, OPPOSITE[what], first) in HELD_OUT_RELATIONS


def _is_trained(pairs: Sequence[tuple[str, str]], places: Sequence[tuple[float, float]]) -> bool:
    """True if no two of the things are in a relation that is held out."""
    for i, (shape, _) in enumerate(pairs):
        for j in range(i):
            what = relation(places[i], places[j])
            if what is None or is_held_out(shape, what, pairs[j][0]):
                return False
    return True


class _Draw:
    """Draws of one scene."""

    def __init__(self, seed: tuple[int, ...]) -> None:
        rng = np.random.default_rng(seed)
        self._numbers: Iterator[float] = chain.from_iterable(rng.random(_AT_ONCE).tolist() for _ in repeat(None))

    def one(self, values: Sequence[T]) -> T:
        return values[int(next(self._numbers) * len(values))]

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._numbers)

    def things(self, count: int, held_out: bool, by_relation: bool) -> tuple[Thing, ...] | None:
        """Things that are as asked; None if this draw is of no use."""
        told = self.one(_ORDERED[1]) if by_relation else None
        pairs: list[tuple[str, str]] = [self.one(_ORDERED[0])] if held_out and told is None else []
        while len(pairs) < count:
            pair = self.one(_PAIRS if held_out and told is None else _TRAINED)
            if told is None or len(pairs) > 1 or pair[0] == told[2 * len(pairs)]:
                pairs.append(pair)
        # Of three things, one at most is large: there is no room for more.
        large = self.one((*range(count), -1)) if count > 2 else None
        sizes = [self.one(tuple(SIZES)) if large is None else "large" if k == large else "small" for k in range(count)]
        radii = [self.between(*SIZES[size]) for size in sizes]
        places = self._places([EXTENT[shape] * radius for (shape, _), radius in zip(pairs, radii, strict=True)], told)
        if len(set(pairs)) < count or places is None or not (held_out or _is_trained(pairs, places)):
            return None
        made = []
        for (shape, colour), size, radius, (x, y) in zip(pairs, sizes, radii, places, strict=True):
            r, g, b = (min(value + self.between(-_JITTER, _JITTER), 255) for value in COLOURS[colour])
            made.append(Thing(shape, colour, size, x, y, radius, (r, g, b)))
        return tuple(made)

    def _places(self, extents: list[float], told: tuple[str, str, str] | None) -> list[tuple[float, float]] | None:
        """Centres of things that do not touch; the first two in a clear relation, which may be told. None if none were found."""
        if len(extents) == 1:
            return [(self._free(extents[0]), self._free(extents[0]))]
        places = self._two(extents[0], extents[1], told[1] if told is not None else self.one(RELATIONS))
        for extent in extents[2:]:
            for _ in range(_ATTEMPTS):
                x, y = self._free(extent), self._free(extent)
                if all(
                    (x - a) ** 2 + (y - b) ** 2 > (extent + other + _GAP) ** 2
                    for (a, b), other in zip(places, extents, strict=False)
                ):
                    places.append((x, y))
                    break
            else:
                return None
        return places

    def _free(self, extent: float) -> float:
        return self.between(extent + _MARGIN, 1 - extent - _MARGIN)

    def _two(self, first: float, second: float, what: str) -> list[tuple[float, float]]:
        """Centres of two things of these extents in a clear relation."""
        if what in ("right of", "below"):
            return self._two(second, first, OPPOSITE[what])[::-1]
        apart, last = first + second + _GAP, 1 - second - _MARGIN
        a = self.between(first + _MARGIN, last - apart)
        b = self.between(a + apart, last)
        c = self._free(first)
        aside = (b - a) / _CLEAR
        d = self.between(max(second + _MARGIN, c - aside), min(last, c + aside))
        return [(a, c), (b, d)] if what == "left of" else [(c, a), (d, b)]
