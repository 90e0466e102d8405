"""Guides: the models that steer another one, each under the role in which guidance asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from pydantic import InstanceOf
from torch import Tensor

from lodestar.conditions import Ask
from lodestar.config import Problem, checked, nearest, shown
from lodestar.denoiser import Bound
from lodestar.guidance import Guidance, LogP, Sees
from lodestar.models.diffusion import DiffusionConfig


class Guide(Protocol):
    """A model that steers another one: a `Critic` of pictures, or a `Rival`, which makes the same pictures."""

    name: str
    """What it was loaded by; empty if it was built in code."""
    digest: str
    """SHA-256 of the file that it was loaded from; empty if it was built in code."""

    @property
    def known(self) -> tuple[tuple[str, ...], int | None]:
        """The names of the classes that it knows (empty for none), and their number (None for none)."""


@runtime_checkable
class Critic(Guide, Protocol):
    """A guide that tells how likely a picture is what is asked for."""

    def agree(self, model: DiffusionConfig, sees: Sees) -> None:
        """Raise Problem unless it knows what this model makes; where it sees "noisy", also what is made on the way."""

    def logp(self, asks: Sequence[Ask], sees: Sees, device: torch.device) -> LogP:
        """Log-probabilities of what is asked, one for each picture."""


@runtime_checkable
class Rival(Guide, Protocol):
    """A guide that makes what the steered model makes."""

    def stand_beside(self, model: DiffusionConfig, asks: Sequence[Ask]) -> None:
        """Raise Problem unless it can be asked what this model is asked."""

    def bound(self, asks: Sequence[Ask], low_res: Tensor | None = None) -> Bound:
        """The denoiser of what is asked; low_res: uint8 [B, C, h, w], what an upsampler enlarges."""


Guides = Mapping[str, Guide]
"""Guides by role."""

Companions = Mapping[str, Callable[[], Guide]]
"""What loads the guides that belong to a model, by role."""


def roles(guidance: Iterable[Guidance]) -> set[str]:
    """The roles of the guides that this guidance asks for."""
    return {each.role for each in guidance if each.role is not None}


def check_given(given: Guides, guidance: Iterable[Guidance], best_of: int = 1) -> None:
    """Raise Problem for what is given as a guide and is none, and for a role in which nothing asks for one."""
    asked = roles(guidance) | ({"judge"} if best_of > 1 else set())
    for role, guide in checked("guides", given, InstanceOf[Mapping[str, Any]]).items():
        if role not in asked:
            which = f"asked for is {', '.join(map(repr, sorted(asked)))}" if asked else "it asks for none"
            raise Problem(f"guides: {role!r} has no effect with this guidance: {which}{nearest(role, asked)}")
        _check_model(role, guide)


def _check_model(role: str, guide: Guide) -> None:
    if not isinstance(guide, Critic | Rival):
        raise Problem(f"guides: {role!r} is {shown(guide)}, which is no model: load one with lodestar.load")


def chosen(guidance: Iterable[Guidance], given: Guides, companions: Companions) -> dict[str, Guide]:
    """The guides that this guidance asks for: those given, else the model's own. Raises Problem for what is no model."""
    found: dict[str, Guide] = {}
    checked("guides", given, InstanceOf[Mapping[str, Any]])
    for role in sorted(roles(guidance)):
        if role in given:
            _check_model(role, given[role])
            found[role] = given[role]
        elif role in companions:
            found[role] = companions[role]()
    return found
