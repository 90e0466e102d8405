"""Axes of a sweep: a setting by name, and its values as text.

``scale=0,1,5``, ``steps=5,10,20``, ``sampler=ddim,heun``, ``sampler.eta=0,0.5,1``, ``guidance=cfg:2 cfg:2+interval:0.3,5``,
``interval.low=0.1,0.3``, ``clamp=true,false``, ``truncation=0.5,1,none``, ``prior=diffusion,text``,
``model=runs/a,runs/b``. Values are separated by commas, or by spaces if any; commas may then be part of values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lodestar.config import Config, Problem, edit, nearest, parse, short, shown
from lodestar.generators.request import Settings
from lodestar.guidance import AnyGuidance, Guidance
from lodestar.samplers import AnySampler

C = TypeVar("C", bound=Config)

WHO = ("model", "prior")
"""Settings of who makes the pictures: a model by name, and the prior of a bundle (`lodestar.generators.priors`)."""
EDITED = ("clamp", "temperature", "reuse", "truncation", "top_k", "top_p")
"""Settings of sampling that are a number or a truth value, or none."""
_WHOLE = (*WHO, "guidance", "sampler", "steps", *EDITED)
"""Whole settings, in the order of effect: fields of guidance and sampler are set afterwards."""


_MOST = 1_000
"""Maximum number of values of an axis."""


@dataclass(frozen=True)
class Axis:
    """A swept setting."""

    name: str
    """A whole setting; "scale", of the only guidance with a scale; or KIND.FIELD of a guidance, sampler.FIELD."""
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise Problem(f"sweep over {self.name}: there are no values to go through")
        if len(self.values) > _MOST:
            raise Problem(
                f"sweep over {self.name}: {len(self.values):,} values are given, and at most {_MOST:,} are gone through"
            )
        for value in self.values:
            if self.values.count(value) > 1:
                raise Problem(f"sweep over {self.name}: {value} is given twice")

    @property
    def whole(self) -> bool:
        """True for a whole setting, false for a number within one."""
        return self.name in _WHOLE

    def place(self, how: Settings, value: str) -> Settings:
        """The settings with this value. Raises Problem if the setting is missing or the value invalid."""
        if self.name in WHO:
            return how
        match self.name:
            case "guidance":
                return how.replace(guidance=parse_guidances(value))
            case "sampler":
                return how.replace(sampler=parse("sampler", value, AnySampler))
            case "steps":
                return how.replace(steps=value)
        if self.name in EDITED:
            return edit(how, [f"{self.name}={'null' if value == 'none' else value}"])
        owner, _, field = self.name.rpartition(".")
        if owner == "sampler":
            assert how.sampler is not None, "a sweep names it"
            return how.replace(sampler=_with(how.sampler, field, value))
        place = self._owner(how.guidance)
        changed = _with(how.guidance[place], field, value)
        return how.replace(guidance=(*how.guidance[:place], changed, *how.guidance[place + 1 :]))

    def within(self, how: Settings) -> tuple[Config | None, str]:
        """The guidance or sampler with the swept field, and the field; None for a whole setting."""
        owner, _, field = self.name.rpartition(".")
        if self.whole:
            return None, ""
        return (how.sampler if owner == "sampler" else how.guidance[self._owner(how.guidance)]), field

    def _owner(self, guidance: Sequence[Guidance]) -> int:
        """The index of the guidance with this setting. Raises Problem unless there is exactly one."""
        given = " ".join(each.kind for each in guidance) or "none"
        owner, _, field = self.name.rpartition(".")
        if not owner and field != "scale":
            known = [*_WHOLE, "scale", *(f"{each.kind}.{name}" for each in guidance for name in _fields(each)), "sampler.FIELD"]
            raise Problem(
                f"unknown setting {self.name!r} to sweep over: choose from {', '.join(known)}{nearest(self.name, known)}"
            )
        places = [k for k, each in enumerate(guidance) if each.kind == owner or (not owner and "scale" in _fields(each))]
        if len(places) == 1:
            return places[0]
        if owner:
            raise Problem(f"sweep over {self.name}: it needs one guidance {owner}, and guidance is {given}")
        raise Problem(f"sweep over scale: it needs exactly one guidance that has a scale, such as cfg, and guidance is {given}")


def axis(name: str, values: Iterable[Any]) -> Axis:
    """An axis, its numbers written in one way. Raises Problem.

    values: texts, numbers, truth values, samplers, and guidance (one, several in a list, None).
    """
    if not isinstance(name, str):
        raise Problem(f"sweep over {shown(name)}: the name of a setting, such as steps")
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise Problem(f"sweep over {name}: its values are {shown(values)}: give a list of them")
    return Axis(name, tuple(each if name in _WHOLE else _number(each) for each in map(_written, values)))


def parse_axis(text: str) -> Axis:
    """Read ``name=value,value`` or ``name=value value``. Raises Problem."""
    name, separator, values = text.partition("=")
    if not separator or not name:
        raise Problem(f"sweep over {text!r}: write it as setting=values, such as scale=0,1,5 or steps=5,10,20")
    # A space after a comma is no separator.
    joined = re.sub(r"\s*,\s+", ",", values.strip())
    parts = joined.split() if re.search(r"\s", joined) else joined.split(",")
    if "" in parts:
        raise Problem(f"sweep over {name}: one of the values {values!r} is empty")
    return axis(name, parts)


def parse_guidances(text: str) -> tuple[Guidance, ...]:
    """Read ``cfg:2+interval:0.3,5``, or ``none``. Raises Problem."""
    return () if text == "none" else tuple(parse("guidance", part, AnyGuidance) for part in text.split("+"))


def _written(value: Any) -> str:
    """A value as the text that is read."""
    match value:
        case bool():
            return json.dumps(value)
        case Config():
            return short(value)
        case list() | tuple():
            return "+".join(map(_written, value)) or "none"
        case _:
            return "none" if value is None else str(value)


def _number(text: str) -> str:
    try:
        return f"{float(text):.12g}"
    except ValueError:
        return text


def _fields(config: Config) -> list[str]:
    return [name for name in type(config).model_fields if name != "kind"]


def _with(config: C, field: str, value: str) -> C:
    try:
        return edit(config, [f"{field}={value}"])
    except Problem as problem:
        raise Problem(f"sweep over {field} of {config.model_dump()['kind']}: {problem}") from None
