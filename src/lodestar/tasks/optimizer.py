"""The optimizer of a run, or of a single phase."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lodestar.config import Config

_Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Config):
    """An optimizer, with warm-up, constant rate and optional decay."""

    method: Literal["adamw", "muon"] = "adamw"
    """AdamW, or Muon for the matrices and kernels of hidden layers and AdamW for the other parameters, at the same rate."""
    rate: float = Field(default=1e-4, gt=0, le=1_000)
    """Learning rate after the warm-up."""
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0, le=1_000)
    warmup_images: int = Field(default=0, ge=0, le=10**12)
    """Number of images of linear warm-up."""
    fall: Literal["none", "cosine", "linear"] = "none"
    """Curve of the rate's decay to 0 at the end of the run, or none."""
    clip: float | None = Field(default=1.0, gt=0, le=1e9)
    """Maximum norm of the gradient; None is no clipping."""
