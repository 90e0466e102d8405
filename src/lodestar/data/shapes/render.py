"""Pictures of scenes at any resolution, with smooth edges: a pixel's share of a shape, from its distance to the outline."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from lodestar.config import Problem
from lodestar.data.shapes.scene import EXTENT, Scene

_TIP, _NOTCH = 1.35, 0.6
"""Distances of a star's tips and notches from its centre."""
_TURN = math.pi / 5
_EDGE = math.hypot(_TIP - _NOTCH * math.cos(_TURN), _NOTCH * math.sin(_TURN))
_NORMAL = (_NOTCH * math.sin(_TURN) / _EDGE, (_TIP - _NOTCH * math.cos(_TURN)) / _EDGE)


def _circle(x: np.ndarray, y: np.ndarray) -> Any:
    return np.sqrt(x * x + y * y) - 1


def _square(x: np.ndarray, y: np.ndarray) -> Any:
    return np.maximum(np.abs(x), np.abs(y)) - 0.9


def _triangle(x: np.ndarray, y: np.ndarray) -> Any:
    return np.maximum(y, math.sqrt(0.75) * np.abs(x) - 0.5 * y) - 0.65


def _star(x: np.ndarray, y: np.ndarray) -> Any:
    # Ten equal edges: folded onto one of them, whose tip is on the positive axis.
    angle, distance = np.arctan2(x, -y), np.sqrt(x * x + y * y)
    angle = np.abs(angle - 2 * _TURN * np.rint(angle / (2 * _TURN)))
    return (distance * np.cos(angle) - _TIP) * _NORMAL[0] + distance * np.sin(angle) * _NORMAL[1]


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 1.05, y - 0.4), np.maximum(x - 0.4, y - 1.05))


_DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "circle": _circle, "square": _square, "triangle": _triangle, "star": _star, "cross": _cross,
}  # fmt: skip
"""Signed distances to the outlines of shapes of radius 1, negative inside."""


def coverage(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """The share in [0, 1] of each pixel that a shape covers. x, y: distances from its centre in pixels, radius likewise."""
    share: np.ndarray = 0.5 - radius * _DISTANCES[shape](x / radius, y / radius)
    return share.clip(0, 1)


def render(scene: Scene, size: int) -> np.ndarray:
    """The picture of a scene, uint8 [size, size, 3]. Raises Problem for a size below 1."""
    if size < 1:
        raise Problem(f"size {size} of a picture: 1 or more pixels")
    middle = _middle(size)
    ground = (scene.grey + scene.slope[0] * middle) + scene.slope[1] * middle[:, None]
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = ground[:, :, None]
    for thing in scene.things:
        reach = thing.extent * size + 1
        x, y = thing.x * size, thing.y * size
        left, right = max(math.floor(x - reach), 0), min(math.ceil(x + reach), size)
        top, bottom = max(math.floor(y - reach), 0), min(math.ceil(y + reach), size)
        columns, lines = np.arange(left, right, dtype=np.float32), np.arange(top, bottom, dtype=np.float32)
        share = coverage(thing.shape, columns + (0.5 - x), lines[:, None] + (0.5 - y), thing.radius * size)
        part = picture[top:bottom, left:right]
        part += share[:, :, None] * (np.array(thing.rgb, np.float32) - part)
    return (picture + 0.5).astype(np.uint8)


@lru_cache(maxsize=8)
def _middle(size: int) -> np.ndarray:
    """Places of pixels from the middle, in sides of the picture."""
    return ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)


AREA = {
    "circle": math.pi, "square": 1.8**2, "triangle": 0.75 * math.sqrt(3) * EXTENT["triangle"] ** 2,
    "star": 10 * 0.5 * _TIP * _NOTCH * math.sin(_TURN), "cross": 4 * 2.1 * 0.4 - 0.8**2,
}  # fmt: skip
"""Areas of shapes of radius 1."""
