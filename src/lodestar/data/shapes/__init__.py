"""Shapes: pictures of one to three coloured shapes with captions, drawn without end, and an exact judge of such pictures."""

from lodestar.data.shapes.eye import Seen, look
from lodestar.data.shapes.grammar import Described, Meaning, caption, parse
from lodestar.data.shapes.judging import Verdict, compare, judge
from lodestar.data.shapes.render import render
from lodestar.data.shapes.rows import SPLITS, ShapeRows
from lodestar.data.shapes.scene import (
    COLOURS,
    HELD_OUT_PAIRS,
    HELD_OUT_RELATIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    scene,
)

__all__ = [
    "COLOURS", "HELD_OUT_PAIRS", "HELD_OUT_RELATIONS", "RELATIONS", "SHAPES", "SIZES", "SPLITS", "Described", "Meaning", "Scene",
    "Seen", "ShapeRows", "Thing", "Verdict", "caption", "compare", "judge", "look", "parse", "render", "scene",
]  # fmt: skip
