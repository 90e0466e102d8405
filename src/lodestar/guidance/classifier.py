"""Classifier guidance (ADM, Dhariwal and Nichol 2021, algorithms 1 and 2): the gradient of s·log p(y | x_t) at x_t.

Alternatively the gradient of s·log p(y | x̂₀(x_t)), through the denoiser, by a classifier of clean pictures (Chung et al. 2023;
Bansal et al. 2023).

Log-probabilities add, so any number of critics costs one backward pass. The gradient is collected in the estimate's shift and not
applied: the ancestral sampler moves the mean by variance·shift, every other sampler folds the shift into x̂₀.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from lodestar.guidance.base import Context, Critic, Scaled


class Classifier(Scaled):
    """Guidance by a classifier, noise-aware if its input is the noisy sample. Scale 0 is none, and costs no evaluation."""

    role: ClassVar[str | None] = "classifier"

    kind: Literal["classifier"] = "classifier"

    def critic(self, context: Context) -> Critic:
        return Critic(context.critics["classifier", self.sees], self.scale, self.sees)
