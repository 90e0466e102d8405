"""Networks: tensors in, tensors out. They know no noise levels, no losses and no files.

`KINDS` is the list of denoisers', `MAPS` that of networks over maps of codes.
"""

from __future__ import annotations

from typing import Annotated

from lodestar.config import Kinds
from lodestar.nets.base import DenoiserNetwork, DenoiserNetworkConfig, Part
from lodestar.nets.maps import MapConfig
from lodestar.nets.ncsnpp import NcsnppConfig
from lodestar.nets.pixelcnn import PixelCnnConfig
from lodestar.nets.pixelsnail import PixelSnailConfig
from lodestar.nets.prior import PriorConfig
from lodestar.nets.transformer import TransformerConfig
from lodestar.nets.unet import UNetConfig

KINDS = Kinds(UNetConfig, PriorConfig, NcsnppConfig, default=UNetConfig)
AnyNetwork = Annotated[DenoiserNetworkConfig, KINDS]

MAPS = Kinds(PixelSnailConfig, PixelCnnConfig, TransformerConfig)
AnyMap = Annotated[MapConfig, MAPS]

__all__ = [
    "KINDS", "MAPS", "AnyMap", "AnyNetwork", "DenoiserNetwork", "DenoiserNetworkConfig", "MapConfig", "NcsnppConfig", "Part",
    "PixelCnnConfig", "PixelSnailConfig", "PriorConfig", "TransformerConfig", "UNetConfig",
]  # fmt: skip
