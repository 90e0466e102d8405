"""An eye for scenes: the things in a picture, found in its pixels alone.

The ground of a scene is grey, so a pixel's colourfulness (its distance from the axis of greys) tells which share of it a thing
covers. Shares that hang together are a thing; its outline is compared with that of each shape of the same area.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from lodestar.config import Problem
from lodestar.data.shapes.render import AREA, coverage
from lodestar.data.shapes.scene import COLOURS, SIZES, place

_AXES = np.array([[2**0.5] * 3, [2, -1, -1], [0, 3**0.5, -(3**0.5)]], np.float32).T / 6**0.5
"""From RGB to the grey and two coordinates that are 0 for grey; lengths stay."""
_COLOURFUL = 45.0
"""Least length of the colour of a thing's pixel: noise of 8 levels reaches 45 once in ten million pixels."""
_SPECK = 0.006
"""Smaller parts of the picture's area are no things; the smallest thing has twice as much."""
_FAR = 60.0
"""A colour further than this from all named ones has no name."""
_UNLIKE = 0.35
"""Squared difference from a shape, relative to its area, from which on a thing has no shape."""
_MIDDLE = math.sqrt(SIZES["small"][1] * SIZES["large"][0])
_SMALLEST, _LARGEST = 0.75 * SIZES["small"][0], 1.25 * SIZES["large"][1]
"""Limits of the radius; a thing beyond them is neither small nor large."""
_CORE = 0.8
"""Pixels with this share of a thing's colourfulness show its colour."""

_AROUND = 3
"""Pixels around a thing that are looked at with it."""
_TRUST = np.array([4, 1, 1], np.float32)
"""Weights of the differences from the ground in grey and in colour, which photographs blur."""
_BLURS = (0.2, 0.33)
"""Shares of a pixel given to each of its neighbours in blurred pictures; sharp ones give none."""

_NAMES = tuple(COLOURS)
_NAMED = (np.array(list(COLOURS.values()), np.float32) @ _AXES)[:, 1:]


@dataclass(frozen=True)
class Seen:
    """A thing seen in a picture; None is what cannot be told."""

    shape: str | None
    colour: str | None
    size: str | None
    x: float
    y: float
    """The centre, from the left and from the top, in sides of the picture (the shorter one)."""
    place: str | None = None
    """The part of the picture where it stands: left, right, top or bottom of the middle."""


def look(picture: np.ndarray) -> tuple[Seen, ...]:
    """The things in a picture, uint8 [H, W, 3] or [3, H, W], the largest first. Raises Problem for what is no picture."""
    colours = _channels_last(picture).astype(np.float32) @ _AXES
    side = min(colours.shape[:2])
    middle = colours.shape[1] / side / 2, colours.shape[0] / side / 2
    labels, boxes = _parts((colours[:, :, 1:] ** 2).sum(2) > _COLOURFUL**2)
    # What is a speck belongs to the thing beside it, or to the ground.
    things = [number for number, pixels in enumerate(np.bincount(labels.ravel())) if number and pixels >= _SPECK * side**2]
    labels = np.where(np.isin(labels, things), labels, 0)
    found = []
    for number in things:
        top, bottom, left, right = boxes[number - 1]
        window = slice(max(top - _AROUND, 0), bottom + _AROUND), slice(max(left - _AROUND, 0), right + _AROUND)
        area, seen = _thing(colours[window], labels[window], number, (window[0].start, window[1].start), side)
        found.append((area, replace(seen, place=place((seen.x, seen.y), middle))))
    return tuple(thing for _, thing in sorted(found, key=lambda each: -each[0]))


def _channels_last(picture: np.ndarray) -> np.ndarray:
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or 3 not in (picture.shape[0], picture.shape[2]) or not picture.size:
        raise Problem(f"the picture is {picture.dtype} {list(picture.shape)}, and not uint8 [3, H, W] or [H, W, 3]")
    return picture if picture.shape[2] == 3 else picture.transpose(1, 2, 0)


def _thing(colours: np.ndarray, labels: np.ndarray, number: int, corner: tuple[int, int], side: int) -> tuple[float, Seen]:
    """Area and description of a thing, in a window around it with its corner (top, left)."""
    inside = labels == number
    strength = np.sqrt((colours[:, :, 1:] ** 2).sum(2))
    strongest = np.sort(strength[inside])
    colour = colours[inside & (strength >= _CORE * strongest[int(0.9 * (len(strongest) - 1))])].mean(0)
    near = _grown(inside)
    around = colours[(labels == 0) & ~near][:, 0]
    ground = np.array([np.median(around) if len(around) else 0, 0, 0], np.float32)
    weighted = (colour - ground) * _TRUST
    whole = max(float((colour - ground) @ weighted), 1.0)  # of colours that cancel, as in noise, nothing is left
    share = (colours - ground) @ weighted / whole * (_grown(near) & (inside | (labels == 0)))
    area = max(float(share.sum()), 1.0)
    lines, columns = np.arange(len(share)) + 0.5, np.arange(share.shape[1]) + 0.5
    y, x = float(share.sum(1) @ lines) / area, float(share.sum(0) @ columns) / area
    shape, radius = _shape(share, area, columns - x, (lines - y)[:, None])
    away = np.sqrt(((_NAMED - colour[1:]) ** 2).sum(1))
    nearest = int(away.argmin())
    radius /= side
    size = None if not _SMALLEST <= radius <= _LARGEST else "small" if radius < _MIDDLE else "large"
    name = _NAMES[nearest] if away[nearest] <= _FAR else None
    return area, Seen(shape if size else None, name, size, (corner[1] + x) / side, (corner[0] + y) / side)


def _shape(share: np.ndarray, area: float, x: np.ndarray, y: np.ndarray) -> tuple[str | None, float]:
    """The shape that is most like the shares of pixels, None where none is like them, and its radius in pixels."""
    radii = {shape: math.sqrt(area / unit) for shape, unit in AREA.items()}
    unlike: dict[str, float] = {}
    for shape, radius in radii.items():
        sharp = coverage(shape, x, y, radius)
        unlike[shape] = min(float(((share - each) ** 2).sum()) for each in (sharp, *map(partial(_blurred, sharp), _BLURS))) / area
    best = min(unlike, key=unlike.__getitem__)
    return best if unlike[best] <= _UNLIKE else None, radii[best]


def _blurred(share: np.ndarray, aside: float) -> np.ndarray:
    """Shares of which each pixel gives a part to each of the pixels beside it."""
    for _ in range(2):
        spread = (1 - 2 * aside) * share
        spread[1:] += aside * share[:-1]
        spread[:-1] += aside * share[1:]
        share = spread.T
    return share


def _grown(inside: np.ndarray) -> np.ndarray:
    """The pixels, and those beside them."""
    grown = inside.copy()
    grown[1:] |= inside[:-1]
    grown[:-1] |= inside[1:]
    lines = grown.copy()
    grown[:, 1:] |= lines[:, :-1]
    grown[:, :-1] |= lines[:, 1:]
    return grown


def _parts(mask: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """The parts of a mask that hang together: their numbers from 1 [H, W], and top, bottom, left, right of each.

    Lines of pixels are joined with those above them, so that the work is one step for each.
    """
    labels = np.zeros(mask.shape, int)
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    runs = list(zip(*np.nonzero(edges == 1), np.nonzero(edges == -1)[1], strict=True))
    parent = list(range(len(runs)))

    def root(k: int) -> int:
        while parent[k] != k:
            parent[k] = k = parent[parent[k]]
        return k

    above: list[int] = []
    line: list[int] = []
    current = -2
    for k, (y, left, right) in enumerate(runs):
        if y != current:
            above, line, current = (line if y == current + 1 else []), [], y
        for other in above:
            if runs[other][1] < right and left < runs[other][2]:
                parent[root(k)] = root(other)
        line.append(k)
    boxes: dict[int, list[int]] = {}
    numbers: dict[int, int] = {}
    for k, (y, left, right) in enumerate(runs):
        r = root(k)
        box = boxes.setdefault(r, [y, y + 1, left, right])
        box[1], box[2], box[3] = y + 1, min(box[2], left), max(box[3], right)
        labels[y, left:right] = numbers.setdefault(r, len(numbers) + 1)
    return labels, [(int(a), int(b), int(c), int(d)) for a, b, c, d in boxes.values()]
