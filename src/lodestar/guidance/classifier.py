"""Classifier guidance (ADM, Dhariwal and Nichol 2021, algorithms 1 and 2): the gradient of s·log p(y | x_t) at x_t.

Or that of s·log p(y | x̂₀(x_t)), through the denoiser, by a classifier that need not know noise (Chung et al. 2023; Bansal
et al. 2023).

Log-probabilities add, so that any number of critics costs one backward pass. The gradient is collected in the estimate's
shift and not applied: the ancestral sampler moves the mean by variance·shift, every other one folds it into x̂₀.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level
from lodestar.guidance.base import Context, Guidance


@dataclass(frozen=True)
class Critic:
    """One log-probability to climb."""

    logp: Callable[[Tensor, Level], Tensor]
    """(x [B, ...], level) → log p(y | x) [B], differentiable in x."""
    scale: float = 1.0
    sees: Literal["noisy", "clean"] = "noisy"
    """x itself, or the clean estimate x̂₀; the gradient of the latter runs through the denoiser."""


class Classifier(Guidance):
    """Guidance by a classifier, noise-aware if it sees the noisy sample. Scale 0 is none, and then it is not evaluated."""

    kind: Literal["classifier"] = "classifier"
    scale: float = Field(default=1.0, ge=0, le=1e6)
    form: Literal["mean", "score"] = "mean"
    """Who applies the gradient: "mean", the sampler, in its own way; "score", x̂₀ at once, whatever the sampler."""
    sees: Literal["noisy", "clean"] = "noisy"
    """What is classified: the noisy sample, or what is believed of the clean one, at the cost of a backward pass through the
    model; then any classifier serves."""

    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        if self.scale == 0:
            return inner
        logp = context.clean if self.sees == "clean" else context.critic
        assert logp is not None
        steered = steer(inner, Critic(logp, self.scale, self.sees))
        if self.form == "mean":
            return steered
        return lambda x, level: steered(x, level).folded(renoises=True)


def steer(inner: Denoise, *critics: Critic) -> Denoise:
    """`inner` with the gradient Σ scale·∇ₓ log p of the critics added to its estimates' shift.

    The shift carries no graph of its own. With a critic that sees the clean estimate, the whole estimate carries none.
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
