"""How weights are moved: the optimizer of a run, and of a phase that has its own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lodestar.config import Config

_Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Config):
    """AdamW, with a rate that rises, stays and may fall."""

    rate: float = Field(default=1e-4, gt=0, le=1_000)
    """Learning rate after the warm-up."""
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0, le=1_000)
    warmup_images: int = Field(default=0, ge=0, le=10**12)
    """The rate rises linearly over so many images."""
    fall: Literal["none", "cosine", "linear"] = "none"
    """The rate falls to 0 at the end of the run along this curve, or stays."""
    clip: float | None = Field(default=1.0, gt=0, le=1e9)
    """Largest norm of the gradient, or None."""
