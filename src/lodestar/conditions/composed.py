"""Labels in asks: a class, or several composed."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from lodestar.config import ClassNumber, Config, Problem


class Composed(Config):
    """Several classes at once, ``dog+ship``, and classes that are not wanted, ``not cat`` (`lodestar.guidance.composition`)."""

    wanted: tuple[ClassNumber, ...] = Field(default=(), max_length=1_000)
    unwanted: tuple[ClassNumber, ...] = Field(default=(), max_length=1_000)

    @model_validator(mode="after")
    def _different(self) -> Self:
        numbers = (*self.wanted, *self.unwanted)
        if not numbers:
            raise Problem("a composed label needs a class, wanted or unwanted")
        if twice := [number for number in numbers if numbers.count(number) > 1]:
            raise Problem(f"class {twice[0]} is in a composed label twice")
        return self


Label = ClassNumber | Composed | None
"""Content of a picture: a class, several composed, or nothing in particular (unconditional)."""


def signs(label: Label) -> dict[int, float]:
    """The classes of a label with their signs: 1 if wanted, −1 if unwanted."""
    if isinstance(label, Composed):
        return {**dict.fromkeys(label.wanted, 1.0), **dict.fromkeys(label.unwanted, -1.0)}
    return {} if label is None else {label: 1.0}
