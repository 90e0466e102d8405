"""Families of foreign checkpoints: recognised by their names, with facts from shapes, and rules of renaming."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from lodestar.codecs import AutoencoderCodec, VQVAECodec
from lodestar.config import Problem
from lodestar.conversion.rename import Rule
from lodestar.core.plan import parse_plan
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.clip import ClipModelConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.models.gan import GanConfig
from lodestar.samplers import AnySampler

Shapes = Mapping[str, Sequence[int]]
"""Shape of each tensor of a state dict by foreign name."""

ModelConfig = DiffusionConfig | ClassifierModelConfig | ClipModelConfig | AutoencoderCodec | VQVAECodec | GanConfig

M = TypeVar("M", bound=ModelConfig)

_SHOWN = 4

Facts = Mapping[str, Any]
"""Settings determined by weights, by their dotted path in our configuration; values are JSON's."""


@dataclass(frozen=True)
class Family:
    """A family of checkpoints with one layout of names."""

    name: str
    landmarks: frozenset[str]
    """Foreign names contained in every file of the family."""
    rules: tuple[Rule, ...]
    """Rules for all files of the family; each matched name ends as one of ours."""
    facts: Callable[[Shapes], Facts]
    """Settings determined by the shapes. Raises Problem for shapes of no network of the family."""
    rules_for: Callable[[ModelConfig], Sequence[Rule]]
    """Rules for the files of one configuration. They end in names of our network, or in ``label.table.weight``."""
    own: Callable[[Mapping[str, str], Facts, str, str], ModelConfig] | None = None
    """Configuration of a user-trained file, from its flags, its weights' facts, the code with the defaults, and a name."""
    silent: str = "attention heads, noise schedule"
    """Settings not determined by weights, in words."""
    flags: str = "--flags '--image_size 64 --num_channels 128 …', or --flags FILE"
    """An example of a user's flags."""
    inside: str | None = None
    """Name of the entry with the state dict in a file: with several, the averaged weights; None for the whole file."""
    fixed: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = field(default_factory=lambda: _whole)
    """Function of a state dict before renaming, which removes fixed tables and joins the parts of one tensor of ours. Raises
    Problem if a table differs from ours."""
    beside: Callable[[ModelConfig], Mapping[str, Tensor]] = field(default_factory=lambda: _nothing)
    """Tensors of our model that files of the family do not hold, by our names."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Files of a model of several, which lie beside each other, and the prefixes of their names; empty for one file."""

    def recognize(self, keys: Iterable[str]) -> bool:
        """True if the names of a file are of this family."""
        keys = set(keys)
        return self.landmarks <= keys and not self.strangers(keys)

    def strangers(self, keys: Iterable[str]) -> list[str]:
        """Names without a rule."""
        patterns = [re.compile(rule.pattern) for rule in self.rules]
        return [key for key in keys if not any(pattern.search(key) for pattern in patterns)]


def recognize(families: Sequence[Family], keys: Iterable[str], what: str) -> Family:
    """The family of a file with these names. Raises Problem naming the closest families and the unknown names."""
    keys = list(keys)
    for family in families:
        if family.recognize(keys):
            return family
    raise Problem(f"{what} is of no family known here: {'; '.join(_misfits(families, keys))}")


def resampled(config: M, sampler: AnySampler | None, plan: str | None) -> M:
    """The configuration with another sampler or plan, if given. Raises Problem for a classifier, and an invalid plan."""
    if sampler is None and plan is None:
        return config
    if not isinstance(config, DiffusionConfig):
        raise Problem(f"--sampler and --steps are for diffusion models, and this is a {config.kind}")
    parse_plan(config.steps if plan is None else plan)
    return config.replace(sampler=sampler or config.sampler, steps=plan or config.steps)


def contradictions(config: ModelConfig, facts: Facts) -> dict[str, tuple[Any, Any]]:
    """Contradictions between a configuration and the weights: (the weights' value, the configuration's) by dotted path."""
    return {path: (told, set_) for path, told in facts.items() if not _same(told, set_ := _at(config, path))}


def check(config: ModelConfig, facts: Facts, what: str, name: str) -> None:
    """Raise Problem naming the settings contradicted by the weights of `what`, in the configuration called `name`."""
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


def moments(config: ModelConfig, mean: Tensor | float = 0.0, std: Tensor | float = 1.0) -> Mapping[str, Tensor]:
    """The moments of an autoencoder's latents, by which a diffusion model in them has them scaled; by channel, or of all."""
    assert isinstance(config, AutoencoderCodec | VQVAECodec)
    told = {"mean": mean, "std": std}
    filled = {name: torch.as_tensor(value).reshape(-1, 1, 1).expand(config.space).clone() for name, value in told.items()}
    return {**filled, "steps": torch.tensor(0.0)}


def _nothing(config: ModelConfig) -> Mapping[str, Tensor]:
    return {}


def _misfits(families: Sequence[Family], keys: list[str]) -> list[str]:
    """The families by number of known names, most first, with the first few unknown names."""
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
    """A setting's value as text, for messages."""
    if isinstance(value, list | tuple):
        return ",".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value) or "nowhere"
    return "none" if value is None else str(value)
