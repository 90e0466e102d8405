"""What a family of foreign checkpoints is: names that it is known by, what its weights tell, and the rules that rename them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from lodestar.config import Problem
from lodestar.conversion.rename import Rule
from lodestar.core.plan import parse_plan
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.samplers import AnySampler

Shapes = Mapping[str, Sequence[int]]
"""The shape of each tensor of a state dict by its foreign name."""

ModelConfig = DiffusionConfig | ClassifierModelConfig

M = TypeVar("M", bound=ModelConfig)

_SHOWN = 4

Facts = Mapping[str, Any]
"""Settings that weights tell, by the dotted path that they have in our configuration; values are JSON's."""


@dataclass(frozen=True)
class Family:
    """Checkpoints that share one layout of names."""

    name: str
    landmarks: frozenset[str]
    """Foreign names that every one of its files has."""
    rules: tuple[Rule, ...]
    """All the rules that a file of it may need; each met name ends as one of ours."""
    facts: Callable[[Shapes], Facts]
    """What the shapes tell of the configuration. Raises Problem where they are of no network that the family has."""
    rules_for: Callable[[ModelConfig], Sequence[Rule]]
    """The rules for the files of one configuration. They end in names of our network, or in ``label.table.weight``."""
    own: Callable[[Mapping[str, str], Facts, str, str], ModelConfig] | None = None
    """The configuration of a file that somebody trained: its flags, what its weights tell, whose defaults count, and its name."""
    inside: str | None = None
    """Under which name a file holds the state dict, if not as a whole: that of the averaged weights where it holds several."""
    fixed: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = field(default_factory=lambda: _whole)
    """A state dict without what it holds of fixed tables, which are ours too. Raises Problem where they are not."""

    def recognize(self, keys: Iterable[str]) -> bool:
        """Whether a file with these names is one of the family's."""
        keys = set(keys)
        return self.landmarks <= keys and not self.strangers(keys)

    def strangers(self, keys: Iterable[str]) -> list[str]:
        """The names that none of the rules knows."""
        patterns = [re.compile(rule.pattern) for rule in self.rules]
        return [key for key in keys if not any(pattern.search(key) for pattern in patterns)]


def recognize(families: Sequence[Family], keys: Iterable[str], what: str) -> Family:
    """The family of a file with these names. Raises Problem naming the closest ones and the names that do not fit them."""
    keys = list(keys)
    for family in families:
        if family.recognize(keys):
            return family
    raise Problem(f"{what} is of no family known here: {'; '.join(_misfits(families, keys))}")


def resampled(config: M, sampler: AnySampler | None, plan: str | None) -> M:
    """The configuration with another sampler or plan, where they are given. Raises Problem for a classifier, and a wrong plan."""
    if sampler is None and plan is None:
        return config
    if not isinstance(config, DiffusionConfig):
        raise Problem("--sampler and --steps are for diffusion models, and this is a classifier")
    parse_plan(config.steps if plan is None else plan)
    return config.replace(sampler=sampler or config.sampler, steps=plan or config.steps)


def contradictions(config: ModelConfig, facts: Facts) -> dict[str, tuple[Any, Any]]:
    """The settings in which a configuration and the weights differ: (the weights', the configuration's) by dotted path."""
    return {path: (told, set_) for path, told in facts.items() if not _same(told, set_ := _at(config, path))}


def check(config: ModelConfig, facts: Facts, what: str, name: str) -> None:
    """Raise Problem naming the settings in which the weights of `what` contradict the configuration called `name`."""
    differing = contradictions(config, facts)
    if "kind" in differing:
        told, wanted = differing["kind"]
        raise Problem(f"{what} is a {told} model, and {name} is a {wanted} model")
    if differing:
        first = "; ".join(f"{path} is {show(told)}, not {show(set_)}" for path, (told, set_) in list(differing.items())[:3])
        more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
        raise Problem(f"{what} is not {name}: {first}{more}")


def _whole(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return state


def _misfits(families: Sequence[Family], keys: list[str]) -> list[str]:
    """The families by how many of the names they know, most first, with the first few that do not fit."""
    strangers = {family.name: family.strangers(keys) for family in families}
    lines = []
    for family in sorted(families, key=lambda family: len(strangers[family.name])):
        known = len(keys) - len(strangers[family.name])
        odd = [*(f"not {name}" for name in strangers[family.name]), *(f"lacks {name}" for name in family.landmarks - set(keys))]
        shown = ", ".join(odd[:_SHOWN]) + (", …" if len(odd) > _SHOWN else "")
        lines.append(f"{family.name} knows {known} of its {len(keys)} names" + (f" ({shown})" if known else ""))
    return lines


def _at(config: ModelConfig, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name, None)
    return value


def _same(told: Any, set_: Any) -> bool:
    if isinstance(told, list | tuple) and isinstance(set_, list | tuple):
        return list(told) == list(set_)
    return bool(told == set_)


def show(value: Any) -> str:
    """A value of a setting, for a message."""
    if isinstance(value, list | tuple):
        return ",".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value) or "nowhere"
    return "none" if value is None else str(value)
