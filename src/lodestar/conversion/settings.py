"""Settings of a foreign class, as a configuration: each is used, without effect here, or refused with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from lodestar.config import Config, Problem, decode, shown

C = TypeVar("C", bound="Foreign")


@dataclass(frozen=True)
class Only:
    """A marker of a setting with these supported values alone, and the reason."""

    values: tuple[Any, ...]
    why: str


@dataclass(frozen=True)
class Idle:
    """A marker of a setting without effect on a converted model, and the reason."""

    why: str


class Foreign(Config):
    """The settings of another library's class, with its own defaults for missing ones."""


def read(kind: type[C], settings: Mapping[str, Any], where: str) -> C:
    """Read settings of a JSON file. Raises Problem naming the file, the setting, and the reason of its refusal.

    Names that begin with an underscore are the library's notes about the file.
    """
    given = {name: value for name, value in settings.items() if not name.startswith("_")}
    for name, field in kind.model_fields.items():
        only = next((mark for mark in field.metadata if isinstance(mark, Only)), None)
        if only is not None and name in given and not any(_same(given[name], value) for value in only.values):
            raise Problem(f"{where}: {name} is {shown(given[name])}: {_allowed(only.values)}, because {only.why}")
    return decode(kind, given, where)


def flagged(kind: type[C], flags: Mapping[str, str]) -> C:
    """The settings that flags tell, as texts. Raises Problem as `read` does."""
    return read(kind, typed(kind, flags), "flags")


def typed(kind: type[Foreign], flags: Mapping[str, str]) -> dict[str, Any]:
    """The values of flags, converted from text; unchanged if impossible, or for unknown flags."""
    return {name: _typed(kind, name, text) for name, text in flags.items()}


def _typed(kind: type[Foreign], name: str, text: str) -> Any:
    default = kind.model_fields[name].default if name in kind.model_fields else ""
    if isinstance(default, bool):
        words = {"true": True, "t": True, "yes": True, "y": True, "1": True}
        words |= {"false": False, "f": False, "no": False, "n": False, "0": False}
        return words.get(text.lower(), text)
    if default is None or isinstance(default, int | float):
        try:
            return float(text) if isinstance(default, float) else int(text)
        except ValueError:
            return text
    return text


def _same(value: Any, allowed: Any) -> bool:
    """Equality of values that does not equate False and 0."""
    return isinstance(value, bool) == isinstance(allowed, bool) and bool(value == allowed)


def _allowed(values: tuple[Any, ...]) -> str:
    return f"only {' and '.join(shown(value) for value in values)} {'is' if len(values) == 1 else 'are'} read"
