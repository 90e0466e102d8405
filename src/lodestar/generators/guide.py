"""Guides: models that steer another one, each under the role named by guidance."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from pydantic import InstanceOf
from torch import Tensor

from lodestar.conditions import Ask
from lodestar.config import Problem, checked, nearest, shown
from lodestar.core.level import Level
from lodestar.denoiser import Bound
from lodestar.generators.request import Request
from lodestar.guidance import KINDS, REFERENCE, Guidance, LogP, Observed, Sees
from lodestar.models.diffusion import DiffusionConfig

R = TypeVar("R", bound=Request)

Handed = Mapping[str, Tensor]
"""Pictures handed over to conditions, by the conditions' names, a row for each ask.

"low_res" are to be enlarged, uint8 [B, C, h, w]; "masked" are known parts, float32 [B, C + 1, H, W], as by
`lodestar.conditions.masked.known`. Beside them may be `AUGMENT`
and `EPS`.
"""

AUGMENT = "augment"
"""Name among what is handed over of the noise levels of "low_res", float32 [B]; none is 0."""
EPS = "augment_noise"
"""Name of the noise of "low_res", float32 [B, C, h, w], where pictures are parts of larger ones; else it is drawn by seeds."""

NOTHING: Handed = MappingProxyType({})


class Guide(Protocol):
    """A model that steers another: a `Critic` of pictures, or a `Rival`, which generates the same pictures."""

    name: str
    """Name or path of the guide; empty if built in code."""
    digest: str
    """SHA-256 of the guide's file; empty if built in code."""

    @property
    def known(self) -> tuple[tuple[str, ...], int | None]:
        """Names of the guide's classes (empty for none), and their number (None for none)."""


@runtime_checkable
class Critic(Guide, Protocol):
    """A guide with the log-probability of asks given a picture."""

    def agree(self, model: DiffusionConfig, sees: Sees) -> None:
        """Raise Problem unless this model's pictures suit the critic; sees "noisy": also its noised pictures."""

    def logp(self, asks: Sequence[Ask], sees: Sees, device: torch.device) -> LogP:
        """Log-probabilities of the asks, one for each picture."""


@runtime_checkable
class Comparing(Critic, Protocol):
    """A critic whose log-probability is a log ratio of densities, of real pictures and of those that a model makes."""

    opponent: str
    """SHA-256 of the model with those pictures; empty if unknown."""


@runtime_checkable
class Featured(Guide, Protocol):
    """A guide with features of pictures, for comparisons with a reference picture."""

    def suit(self, model: DiffusionConfig, sees: Sees) -> None:
        """Raise Problem unless this model's pictures suit the guide; sees "noisy": also its noised pictures."""

    def observe(self, x: Tensor, level: Level) -> Observed:
        """Features of pictures [B, C, H, W] at a level, differentiable in x."""


@runtime_checkable
class Reader(Guide, Protocol):
    """A guide that reads prompts."""

    def prompt(self, asked: str, cut: bool = False) -> str:
        """A prompt as it is to be asked for. cut: shorten one that is too long. Raises Problem."""


@runtime_checkable
class Rival(Guide, Protocol):
    """A guide that generates the steered model's pictures."""

    def stand_beside(self, model: DiffusionConfig, asks: Sequence[Ask]) -> None:
        """Raise Problem unless this model's asks can be answered."""

    def bound(self, asks: Sequence[Ask], handed: Handed = NOTHING) -> Bound:
        """The denoiser of the asks, with the pictures that are handed over."""


class Reference:
    """Reference pictures for guidance by likeness: a guide under the role "reference"."""

    known: tuple[tuple[str, ...], int | None] = ((), None)
    """No classes."""

    def __init__(self, pictures: Tensor, name: str = "") -> None:
        """pictures: uint8 [R, C, H, W], of the guided model's shape. name: their sources; empty if given as values."""
        self.pictures, self.name, self.digest = pictures, name, digest(pictures)


def digest(values: Tensor) -> str:
    """SHA-256 of the shape and values of pictures or masks."""
    return hashlib.sha256(str(tuple(values.shape)).encode() + values.cpu().contiguous().numpy().tobytes()).hexdigest()


Guides = Mapping[str, Guide]
"""Guides by role."""

Companions = Mapping[str, Callable[[], Guide]]
"""Loaders of a model's own guides, by role."""


def roles(guidance: Iterable[Guidance]) -> set[str]:
    """The roles of guides that this guidance needs."""
    return {role for each in guidance for role in each.roles}


def known_roles() -> list[str]:
    """The roles of guides that guidance asks for."""
    return sorted({each.role for each in KINDS.members if issubclass(each, Guidance) and each.role is not None})


def check_given(given: Guides, guidance: Iterable[Guidance], others: Iterable[str] = ()) -> None:
    """Raise Problem for an argument that is no guide, and for a role without a use. others: further roles in use."""
    asked = roles(guidance).union(others)
    for role, guide in checked("guides", given, InstanceOf[Mapping[str, Any]]).items():
        if role not in asked:
            which = f"asked for is {', '.join(map(repr, sorted(asked)))}" if asked else "it asks for none"
            raise Problem(f"guides: {role!r} has no effect with this guidance: {which}{nearest(role, asked)}")
        _check_model(role, guide)


def _check_model(role: str, guide: Guide) -> None:
    if role == REFERENCE and not isinstance(guide, Reference):
        raise Problem(f"guides: {role!r} is {shown(guide)}: pictures are given as reference=…")
    if not isinstance(guide, Critic | Featured | Rival | Reference):
        raise Problem(f"guides: {role!r} is {shown(guide)}, which is no model: load one with lodestar.load")


def given_guides(guides: Guides | None, reference: Reference | None) -> Guides:
    """The guides with reference pictures among them, if given. Raises Problem where they are given twice."""
    if reference is None:
        return guides or {}
    checked("guides", guides, InstanceOf[Mapping[str, Any]] | None)
    if REFERENCE in (guides or {}):
        raise Problem("the reference is given twice, as reference= and among the guides: give one of them")
    return {**(guides or {}), REFERENCE: reference}


def referring(asked: R, guides: Guides, candidates: int = 1) -> R:
    """The request with reference pictures in turn; all candidates of a picture have the same reference."""
    reference = guides.get(REFERENCE)
    if not isinstance(reference, Reference) or len(reference.pictures) == 1:
        return asked
    there = len(reference.pictures)
    return asked.replace(asks=[ask.replace(reference=number // candidates % there) for number, ask in enumerate(asked.asks)])


def chosen(guidance: Iterable[Guidance], given: Guides, companions: Companions, either: Sequence[str] = ()) -> dict[str, Guide]:
    """The guides that this guidance asks for: those given, else the model's own. Raises Problem for what is no model.

    either: further roles, of which the first that there is is needed too.
    """
    found: dict[str, Guide] = {}
    checked("guides", given, InstanceOf[Mapping[str, Any]])
    first = next((role for role in either if role in given or role in companions), None)
    for role in sorted(roles(guidance).union([] if first is None else [first])):
        if role in given:
            _check_model(role, given[role])
            found[role] = given[role]
        elif role in companions:
            found[role] = companions[role]()
    return found
