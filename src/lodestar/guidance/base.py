"""Guidance: a denoiser in, another denoiser out; and the relations between kinds of guidance."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.config import Config
from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level

Sees = Literal["noisy", "clean"]
"""Input of a critic: x itself ("noisy"), or the clean estimate x̂₀."""

LogP = Callable[[Tensor, Level], Tensor]
"""A log-probability (x [B, ...], level) → log p(y | x) [B], differentiable in x."""


@dataclass(frozen=True)
class Observed:
    """Features of pictures, float32."""

    embedding: Tensor
    """[B, D]."""
    maps: tuple[Tensor, ...]
    """Feature maps [B, C, H, W] of every resolution, the finest first."""


class Observer:
    """A guide's features of pictures, and of the reference of each.

    The last ones are kept: guidance of several kinds at one level shares their passes.
    """

    def __init__(self, observe: Callable[[Tensor, Level], Observed], reference: Callable[[Level], Tensor]) -> None:
        """reference: the reference pictures [B, ...] diffused to a level."""
        self._observe, self._diffused = observe, reference
        self._mine: tuple[Tensor, Level, Observed] | None = None
        self._reference: tuple[Level, Observed] | None = None

    def __call__(self, x: Tensor, level: Level) -> Observed:
        """Features of pictures [B, ...], differentiable in x."""
        if self._mine is None or self._mine[0] is not x or self._mine[1] != level:
            self._mine = x, level, self._observe(x, level)
        return self._mine[2]

    def reference(self, level: Level) -> Observed:
        """Features of the reference pictures, diffused to a level."""
        if self._reference is None or self._reference[0] != level:
            with torch.no_grad():
                self._reference = level, self._observe(self._diffused(level), level)
        return self._reference[1]


@dataclass(frozen=True)
class Context:
    """Everything a guidance may need besides the wrapped denoiser, bound to the asks of one batch."""

    plain: Denoise
    """The conditional denoiser before any guidance."""
    null: Denoise | None = None
    """The unconditional denoiser; None if the model has none."""
    pair: Callable[[Tensor, Level], tuple[Estimate, Estimate]] | None = None
    """Conditional and unconditional estimates, from one doubled batch; None if `null` is None."""
    critics: Mapping[tuple[str, Sees], LogP] = field(default_factory=dict)
    """Log-probabilities by role of the critic and by its input."""
    denoisers: Mapping[str, Denoise] = field(default_factory=dict)
    """Other models of the same data under the same conditions, by role of the guide."""
    perturbed: Mapping[str, Denoise] = field(default_factory=dict)
    """Perturbed `plain`s by part of the network, for every part with attention: attention maps replaced by the identity (PAG)."""
    attended: Callable[[Tensor, Level], tuple[Estimate, Tensor]] | None = None
    """`plain`, and how much each place is attended to in the middle of its network: float32 [B, 1, h, w] of mean 1; None where
    there is no attention."""
    observers: Mapping[tuple[str, Sees], Observer] = field(default_factory=dict)
    """Features beside those of a reference picture, by role of the guide and by its input."""
    seeds: Sequence[int] = ()
    """Seed of each picture of the batch."""
    before: Denoise | None = None
    """The denoiser before the guidance listed last, for a ramp of its effect."""


@dataclass(frozen=True)
class Critic:
    """A log-probability whose gradient guides."""

    logp: LogP
    scale: float = 1.0
    sees: Sees = "noisy"
    """Input: x itself, or the clean estimate x̂₀; the latter's gradient runs through the denoiser."""


class Guidance(Config, abc.ABC):
    """A change of a denoiser's estimates."""

    kind: str
    role: ClassVar[str | None] = None
    """Role of the required guide, such as "classifier"; None for none."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of all required guides."""
        return () if self.role is None else (self.role,)

    @abc.abstractmethod
    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        """The guided denoiser around `inner`."""

    @property
    def active(self) -> bool:
        """False where the scale is 0: the guidance then asks for no critic and no gradient."""
        return True

    @property
    def renoises(self) -> bool:
        """True if a step adds back another estimate's noise (`Estimate.renoise`), which not all samplers support."""
        return False

    @property
    def reuses(self) -> bool:
        """True if a step evaluates the model once, at its own x and without gradients, so that deep features can be reused."""
        return False

    def objection(self, before: Sequence[Guidance], context: Context) -> str | None:
        """Reason why this guidance cannot follow the guidance listed before, or lacks something; None if valid."""
        return None


class Blend(Guidance):
    """A guidance by a blend of the conditional and the unconditional estimate of the bare model."""

    @property
    def reuses(self) -> bool:
        return True

    def objection(self, before: Sequence[Guidance], context: Context) -> str | None:
        if blends := [each.kind for each in before if isinstance(each, Blend)]:
            if blends == [self.kind]:
                return f"{self.kind} can be given only once, because it blends the bare model's two estimates"
            return f"{self.kind} and {blends[0]} blend the same two estimates: give one of them"
        if before:
            return f"{self.kind} has to come first, because it blends the bare model's two estimates"
        if context.pair is None:
            return f"{self.kind} needs a model that was also trained without its conditions, and this one was not: try classifier"
        return None


class Comparison(Guidance):
    """A guidance away from a worse model."""

    def objection(self, before: Sequence[Guidance], context: Context) -> str | None:
        if any(type(each) is type(self) for each in before):
            return f"{self.kind} can be given only once: add the two scales"
        if late := [each.kind for each in before if isinstance(each, Limit | Steering)]:
            return f"{self.kind} has to come before {late[0]}, because it is the bare model that it compares with a worse one"
        return self.lacking(context)

    @abc.abstractmethod
    def lacking(self, context: Context) -> str | None:
        """Description of the missing requirement; None if complete."""


class Limit(Guidance):
    """A guidance that keeps x̂₀ within limits."""

    @property
    def reuses(self) -> bool:
        return True

    def objection(self, before: Sequence[Guidance], context: Context) -> str | None:
        if any(isinstance(each, Limit) for each in before):
            return "clamp and threshold limit the same estimate: give one of them, once"
        if steering := [each.kind for each in before if isinstance(each, Steering)]:
            return f"clamp and threshold have to come before {steering[0]}, because its gradient is not clipped (as in ADM)"
        return None


class Steering(Guidance):
    """A guidance by the gradient of a log-probability from a guide of its role.

    Neighbours in the order of guidance whose gradients are applied alike share one backward pass.
    """

    compares: ClassVar[bool] = False
    """The log-probability is a log ratio of real pictures' density and of made ones'."""
    prompted: ClassVar[bool] = False
    """The log-probability is that of prompts, which the guide reads; otherwise of classes."""

    @property
    def reuses(self) -> bool:
        return self.looks_at == "noisy"

    @property
    @abc.abstractmethod
    def looks_at(self) -> Sees:
        """Input of the guide."""

    @property
    def at_once(self) -> bool:
        """True if the gradient moves x̂₀ immediately, with any sampler."""
        return False

    @abc.abstractmethod
    def critic(self, context: Context) -> Critic:
        """The critic with its scale."""

    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        return steered(inner, [self], context)

    def objection(self, before: Sequence[Guidance], context: Context) -> str | None:
        if any(type(each) is type(self) for each in before):
            return f"{self.kind} can be given only once: add the two scales"
        return self.lacking(context)

    def lacking(self, context: Context) -> str | None:
        """Description of the missing guide; None if complete."""
        if (self.role, self.looks_at) in context.critics:
            return None
        what = f"noise-aware {self.role}" if self.looks_at == "noisy" else f"{self.role}"
        return f"{self.kind} needs a {what}, and none is loaded for this model: try cfg"


class Scaled(Steering):
    """A guidance by the gradient of a log-probability, with a scale. Scale 0 is none, and costs no evaluation."""

    scale: float = Field(default=1.0, ge=0, le=1e6)
    form: Literal["mean", "score"] = "mean"
    """Application of the gradient: "mean", by the sampler in its own way; "score", to x̂₀ immediately, with any sampler."""
    sees: Sees = "noisy"
    """Input of the guide: the noisy sample, or the estimate x̂₀, which serves any guide at the cost of a backward pass through the
    model."""

    @property
    def active(self) -> bool:
        return self.scale != 0

    @property
    def looks_at(self) -> Sees:
        return self.sees

    @property
    def at_once(self) -> bool:
        return self.form == "score"


def steered(inner: Denoise, steerings: Sequence[Steering], context: Context) -> Denoise:
    """`inner` steered by all of these, whose gradients are applied alike, in one backward pass."""
    critics = [each.critic(context) for each in steerings if each.active]
    if not critics:
        return inner
    moved = steer(inner, *critics)
    if not steerings[0].at_once:
        return moved
    return lambda x, level: moved(x, level).folded(renoises=True)


def away(inner: Denoise, context: Context, worse: Denoise, weight: float) -> Denoise:
    """The guidance x̂₀ of `inner` + weight·(x̂₀ of the plain model − x̂₀ of a worse one).

    With nothing guided before, the plain model is evaluated once.
    """

    def denoise(x: Tensor, level: Level) -> Estimate:
        estimate = inner(x, level)
        plain = estimate if inner is context.plain else context.plain(x, level)
        return replace(estimate, x0=estimate.x0 + weight * (plain.x0 - worse(x, level).x0))

    return denoise


def steer(inner: Denoise, *critics: Critic) -> Denoise:
    """The denoiser `inner` with the gradient Σ scale·∇ₓ log p of the critics added to its estimates' shift.

    The shift has no graph of its own. With a critic of the clean estimate, the whole estimate has none.
    """
    through = any(critic.sees == "clean" for critic in critics)

    def denoise(x: Tensor, level: Level) -> Estimate:
        estimate = None if through else inner(x, level)
        # A copy made outside of inference mode is an ordinary tensor, which may require gradients.
        with torch.inference_mode(False), torch.enable_grad():
            z = x.clone().detach().requires_grad_()
            believed = inner(z, level) if estimate is None else estimate
            total = torch.stack(
                [critic.scale * critic.logp(believed.x0 if critic.sees == "clean" else z, level).sum() for critic in critics]
            ).sum()
            shift = torch.autograd.grad(total, z)[0]
        if estimate is None:
            estimate = _detached(believed, x)
        return replace(estimate, shift=shift if estimate.shift is None else estimate.shift + shift)

    return denoise


def _detached(estimate: Estimate, x: Tensor) -> Estimate:
    def cut(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.detach()

    return replace(
        estimate,
        x=x,
        x0=estimate.x0.detach(),
        frac=cut(estimate.frac),
        logvar=cut(estimate.logvar),
        shift=cut(estimate.shift),
        renoise=cut(estimate.renoise),
        unclipped=cut(estimate.unclipped),
    )
