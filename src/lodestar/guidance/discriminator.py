"""Discriminator guidance (Kim et al. 2023, "Refining Generative Process with Discriminator Guidance …").

A discriminator of real pictures against a model's own, both noised, tells the log ratio of their densities, log D/(1 − D), whose
gradient is the error of the model's score.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from lodestar.guidance.base import Context, Critic, Scaled


class Discriminator(Scaled):
    """Guidance by a discriminator: scale times the gradient of its log ratio. Scale 0 is none."""

    role: ClassVar[str | None] = "discriminator"
    compares: ClassVar[bool] = True

    kind: Literal["discriminator"] = "discriminator"

    def critic(self, context: Context) -> Critic:
        return Critic(context.critics["discriminator", self.sees], self.scale, self.sees)
