"""The origin of generated pictures."""

from __future__ import annotations

from dataclasses import dataclass, field

from lodestar.generators.guide import Guides
from lodestar.nets.precision import Precision


@dataclass(frozen=True)
class Origin:
    """The generator of pictures, as needed to make them again."""

    name: str
    """Name or path of the generator; empty if built in code."""
    digest: str
    """SHA-256 of the generator's file; empty if built in code."""
    dtype: Precision = "float32"
    """Number format of the computation, which affects pixels."""
    names: tuple[str, ...] = field(default=(), repr=False)
    """Names of the generator's classes."""
    guides: Guides = field(default_factory=dict, repr=False)
    """The guides, by role."""
    later: tuple[Origin, ...] = field(default=(), repr=False)
    """Origins of the further stages of a cascade."""
