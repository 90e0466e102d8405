"""Networks: tensors in, tensors out. They know no noise levels, no losses and no files.

`KINDS` is the list of denoisers', `GENERATORS` that of GANs' generators, `MAPS` that of networks over maps of codes.
"""

from __future__ import annotations

from typing import Annotated

from lodestar.config import Kinds
from lodestar.nets.base import DenoiserNetwork, DenoiserNetworkConfig, Part
from lodestar.nets.biggan import BigGanConfig
from lodestar.nets.gan import DcganGeneratorConfig, GeneratorConfig, ResidualGeneratorConfig
from lodestar.nets.maps import MapConfig
from lodestar.nets.ncsnpp import NcsnppConfig
from lodestar.nets.pixelcnn import PixelCnnConfig
from lodestar.nets.pixelsnail import PixelSnailConfig
from lodestar.nets.prior import PriorConfig
from lodestar.nets.transformer import TransformerConfig
from lodestar.nets.unet import UNetConfig

KINDS = Kinds(UNetConfig, PriorConfig, NcsnppConfig, default=UNetConfig)
AnyNetwork = Annotated[DenoiserNetworkConfig, KINDS]

GENERATORS = Kinds(DcganGeneratorConfig, ResidualGeneratorConfig, BigGanConfig)
AnyGenerator = Annotated[GeneratorConfig, GENERATORS]

MAPS = Kinds(PixelSnailConfig, PixelCnnConfig, TransformerConfig)
AnyMap = Annotated[MapConfig, MAPS]

__all__ = [
    "GENERATORS", "KINDS", "MAPS", "AnyGenerator", "AnyMap", "AnyNetwork", "BigGanConfig", "DcganGeneratorConfig",
    "DenoiserNetwork", "DenoiserNetworkConfig", "GeneratorConfig", "MapConfig", "NcsnppConfig", "Part", "PixelCnnConfig",
    "PixelSnailConfig", "PriorConfig", "ResidualGeneratorConfig", "TransformerConfig", "UNetConfig",
]  # fmt: skip
