"""Models with settings of their own in one text: ``MODEL,steps=20,guidance=cfg:3``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lodestar.config import Problem, edit, nearest
from lodestar.generators.guide import known_roles
from lodestar.generators.request import Settings

_LISTED = ("sampler", "guidance")
"""Settings whose values may have settings of their own after commas."""
STAGED = ("clamp", "temperature", "reuse", "augment")
"""Settings of a cascade's further stage that are one number or truth value."""


@dataclass(frozen=True)
class Spelled:
    """A model in text, with what it is given."""

    model: str
    steps: str | None
    sampler: str | None
    guidance: tuple[str, ...]
    numbers: Settings
    """Settings that are one number or truth value; the others are the defaults."""
    guides: dict[str, str]
    """Names of guides, by role."""
    others: dict[str, str]
    """Values under further names."""

    @property
    def asked(self) -> dict[str, Any]:
        """The settings that are given, as keywords of the functions of Python."""
        given = {"steps": self.steps, "sampler": self.sampler, "guidance": list(self.guidance)}
        return {name: value for name, value in given.items() if value} | self.numbers.model_dump(exclude_defaults=True)

    @classmethod
    def read(cls, text: str, where: str, numbers: Sequence[str], others: Sequence[str] = ()) -> Spelled:
        """A model and its settings. where: begins the Problems that are raised. numbers: names of settings that are one number.

        others: further names.
        """
        model, given = _split(text, where, numbers, others)
        one = {name: values[0] for name, values in given.items()}
        try:
            settled = edit(Settings(), [f"{name}={one[name]}" for name in numbers if name in one])
        except Problem as problem:
            raise Problem(f"{where}{model}: {problem}") from None
        return cls(
            model, one.get("steps"), one.get("sampler"), tuple(given.get("guidance", ())), settled,
            {role: one[role] for role in known_roles() if role in one}, {name: one[name] for name in others if name in one},
        )  # fmt: skip


def _split(text: str, where: str, numbers: Sequence[str], others: Sequence[str]) -> tuple[str, dict[str, list[str]]]:
    """The model, and its settings by name. Raises Problem."""
    model, *parts = re.split(r",(?=\w+=)", text)
    known = ("steps", *_LISTED, *numbers, *known_roles(), *others)
    given: dict[str, list[str]] = {}
    last = ""
    for part in parts:
        name, _, value = part.partition("=")
        if name not in known and last in _LISTED:
            given[last][-1] += f",{part}"
            continue
        if name not in known:
            raise Problem(f"{where}{text}: unknown setting {name!r}: choose from {', '.join(known)}{nearest(name, known)}")
        if name in given and name != "guidance":
            raise Problem(f"{where}{text}: {name} is given twice")
        last = name
        given.setdefault(name, []).append(value)
    if not model:
        raise Problem(f"{where}{text!r}: write it as MODEL,steps=20,guidance=cfg:3; the model is missing")
    return model, given
