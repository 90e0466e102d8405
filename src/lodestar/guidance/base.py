"""What guidance is: a denoiser in, another denoiser out."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

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


class Guidance(Config, abc.ABC):
    """A way of changing what a denoiser believes."""

    @abc.abstractmethod
    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        """The guided denoiser around `inner`."""
