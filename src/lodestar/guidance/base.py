"""What guidance is: a denoiser in, another denoiser out."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from lodestar.config import Config
from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level


@dataclass(frozen=True)
class Context:
    """What a guidance may need besides the denoiser that it wraps. All are bound to the conditions of one batch."""

    plain: Denoise
    """The conditional denoiser before any guidance."""
    null: Denoise | None = None
    """The unconditional denoiser; None where the model cannot be unconditional."""
    pair: Callable[[Tensor, Level], tuple[Estimate, Estimate]] | None = None
    """Conditional and unconditional estimates, from one doubled batch; None where `null` is."""
    critic: Callable[[Tensor, Level], Tensor] | None = None
    """log p(y | x_t) per sample [B] of a noise-aware classifier, for x [B, ...]; None where none is loaded."""
    clean: Callable[[Tensor, Level], Tensor] | None = None
    """log p(y | x₀) per sample [B] of any classifier, told that x₀ [B, ...] has no noise; None where none is loaded."""
    weak: Denoise | None = None
    """A worse model of the same data under the same conditions; None where none is loaded."""
    perturbed: Mapping[str, Denoise] = field(default_factory=dict)
    """`plain` with the attention maps of one part of its network replaced by the identity, for every part that attends."""
    attended: Callable[[Tensor, Level], tuple[Estimate, Tensor]] | None = None
    """`plain`, and how much each place is attended to in the middle of its network: float32 [B, 1, h, w] of mean 1; None where
    it is no network of pictures."""


class Guidance(Config, abc.ABC):
    """A way of changing what a denoiser believes."""

    kind: str

    @abc.abstractmethod
    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        """The guided denoiser around `inner`."""


def away(inner: Denoise, context: Context, worse: Denoise, weight: float) -> Denoise:
    """x̂₀ of `inner` + weight·(x̂₀ of the plain model − x̂₀ of a worse one).

    With nothing guided before it, the plain model is evaluated once.
    """

    def denoise(x: Tensor, level: Level) -> Estimate:
        estimate = inner(x, level)
        plain = estimate if inner is context.plain else context.plain(x, level)
        return replace(estimate, x0=estimate.x0 + weight * (plain.x0 - worse(x, level).x0))

    return denoise
