"""Settings of a foreign class, as a configuration of its own: each is used, without effect here, or refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from lodestar.config import Config, Problem, decode, shown

C = TypeVar("C", bound="Foreign")


@dataclass(frozen=True)
class Only:
    """Marks a setting of which these values alone are read, and says why others are not."""

    values: tuple[Any, ...]
    why: str


@dataclass(frozen=True)
class Idle:
    """Marks a setting without effect on a converted model, and says why."""

    why: str


class Foreign(Config):
    """The settings of a class of another library, with its own defaults for those that a file leaves out."""


def read(kind: type[C], settings: Mapping[str, Any], where: str) -> C:
    """Settings as a file of JSON has them. Raises Problem naming the file, the setting, and why its value is not read.

    Names that begin with an underscore are the library's notes about the file.
    """
    given = {name: value for name, value in settings.items() if not name.startswith("_")}
    for name, field in kind.model_fields.items():
        only = next((mark for mark in field.metadata if isinstance(mark, Only)), None)
        if only is not None and name in given and not any(_same(given[name], value) for value in only.values):
            raise Problem(f"{where}: {name} is {shown(given[name])}: {_allowed(only.values)}, because {only.why}")
    return decode(kind, given, where)


def _same(value: Any, allowed: Any) -> bool:
    """Equal, and not by Python's leave alone: False is no 0."""
    return isinstance(value, bool) == isinstance(allowed, bool) and bool(value == allowed)


def _allowed(values: tuple[Any, ...]) -> str:
    return f"only {' and '.join(shown(value) for value in values)} {'is' if len(values) == 1 else 'are'} read"
