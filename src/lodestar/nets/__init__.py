"""Networks: tensors in, tensors out. They know no noise levels, no losses and no files. `KINDS` is the list of denoisers'."""

from __future__ import annotations

from typing import Annotated

from lodestar.config import Kinds
from lodestar.nets.base import DenoiserNetwork, DenoiserNetworkConfig, Part
from lodestar.nets.prior import PriorConfig
from lodestar.nets.unet import UNetConfig

KINDS = Kinds(UNetConfig, PriorConfig, default=UNetConfig)
AnyNetwork = Annotated[DenoiserNetworkConfig, KINDS]

__all__ = ["KINDS", "AnyNetwork", "DenoiserNetwork", "DenoiserNetworkConfig", "Part", "PriorConfig", "UNetConfig"]
