"""What one picture is asked to be."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, JsonValue

from lodestar.conditions.composed import Label
from lodestar.config import COUNT, Config, Seed


class Ask(Config):
    """One picture that is asked for. A picture depends on its own ask alone, and not on what else is asked with it."""

    seed: Seed = 0
    label: Label = None
    """A class, several composed, or None for none (unconditional)."""
    source: int | None = Field(default=None, ge=0, lt=COUNT)
    """The number of the picture that it is made of, where it is made of one."""
    weight: float | None = Field(default=None, ge=0, le=1)
    """How far it is from one end of a path to the other, where it is on one."""
    others: Mapping[str, JsonValue] = Field(default={}, max_length=1_000)
    """What only some models know, by the names of their conditions."""

    def given(self, name: str) -> object:
        """What is asked under the name of a condition; None for nothing."""
        return getattr(self, name) if name in type(self).model_fields else self.others.get(name)
