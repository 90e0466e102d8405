"""Classifier guidance (ADM, Dhariwal and Nichol 2021, algorithms 1 and 2): the gradient of s·log p(y | x_t) at x_t.

Alternatively the gradient of s·log p(y | x̂₀(x_t)), through the denoiser, by a classifier of clean pictures (Chung et al. 2023;
Bansal et al. 2023).

Log-probabilities add, so any number of critics costs one backward pass. The gradient is collected in the estimate's shift and not
applied: the ancestral sampler moves the mean by variance·shift, every other sampler folds the shift into x̂₀.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lodestar.guidance.base import Context, Critic, Sees, Steering


class Classifier(Steering):
    """Guidance by a classifier, noise-aware if its input is the noisy sample. Scale 0 is none, and costs no evaluation."""

    role: ClassVar[str | None] = "classifier"

    kind: Literal["classifier"] = "classifier"
    scale: float = Field(default=1.0, ge=0, le=1e6)
    form: Literal["mean", "score"] = "mean"
    """Application of the gradient: "mean", by the sampler in its own way; "score", to x̂₀ immediately, with any sampler."""
    sees: Sees = "noisy"
    """Input of the classifier: the noisy sample, or the estimate x̂₀, which serves any classifier at the cost of a backward pass
    through the model."""

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
