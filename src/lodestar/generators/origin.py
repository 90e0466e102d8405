"""Who made pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lodestar.generators.guide import Guides


@dataclass(frozen=True)
class Origin:
    """Who made pictures, as far as making them again has to know."""

    name: str
    """What the generator was loaded by; empty if it was built in code."""
    digest: str
    """SHA-256 of its file; empty if it was built in code."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The number format that it computed in, which tells on pictures."""
    names: tuple[str, ...] = field(default=(), repr=False)
    """Names of the classes that it was asked for."""
    guides: Guides = field(default_factory=dict, repr=False)
    """The guides that steered it, by role."""
