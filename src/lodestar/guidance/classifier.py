"""Classifier guidance (ADM, Dhariwal and Nichol 2021, algorithms 1 and 2): the gradient of s·log p(y | x_t) at x_t.

Or that of s·log p(y | x̂₀(x_t)), through the denoiser, by a classifier that need not know noise (Chung et al. 2023; Bansal
et al. 2023).

Log-probabilities add, so that any number of critics costs one backward pass. The gradient is collected in the estimate's
shift and not applied: the ancestral sampler moves the mean by variance·shift, every other one folds it into x̂₀.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lodestar.guidance.base import Context, Critic, Sees, Steering


class Classifier(Steering):
    """Guidance by a classifier, noise-aware if it sees the noisy sample. Scale 0 is none, and then it is not evaluated."""

    role: ClassVar[str | None] = "classifier"

    kind: Literal["classifier"] = "classifier"
    scale: float = Field(default=1.0, ge=0, le=1e6)
    form: Literal["mean", "score"] = "mean"
    """Who applies the gradient: "mean", the sampler, in its own way; "score", x̂₀ at once, whatever the sampler."""
    sees: Sees = "noisy"
    """What is classified: the noisy sample, or what is believed of the clean one, at the cost of a backward pass through the
    model; then any classifier serves."""

    @property
    def active(self) -> bool:
        return self.scale != 0

    @property
    def looks_at(self) -> Sees:
        return self.sees

    @property
    def at_once(self) -> bool:
        return self.form == "score"

    def critic(self, context: Context) -> Critic:
        return Critic(context.critics["classifier", self.sees], self.scale, self.sees)
