"""An ask: the specification of one picture."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, JsonValue

from lodestar.conditions.composed import Label
from lodestar.config import COUNT, Config, Seed


class Ask(Config):
    """The specification of one picture. A picture depends on its own ask alone, not on other asks of the request."""

    seed: Seed = 0
    label: Label = None
    """A class, several composed, or None for unconditional."""
    text: str | None = Field(default=None, max_length=100_000)
    """A prompt; None for unconditional."""
    source: int | None = Field(default=None, ge=0, lt=COUNT)
    """Number of the source picture of an edit; None without."""
    reference: int = Field(default=0, ge=0, lt=COUNT)
    """Number of the reference picture, for guidance by likeness to one."""
    weight: float | None = Field(default=None, ge=0, le=1)
    """Position between the ends of an interpolation, from 0 to 1; None without."""
    others: Mapping[str, JsonValue] = Field(default={}, max_length=1_000)
    """Values for further conditions of some models, by the conditions' names."""

    def given(self, name: str) -> object:
        """The value asked under a condition's name; None if not asked."""
        return getattr(self, name) if name in type(self).model_fields else self.others.get(name)
