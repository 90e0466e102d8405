"""Networks to be measured: ours, diffusers' of the same width and depth, and those of published code."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from lodestar.evaluation.ranges import Spread, watched
from lodestar.nets.precision import PRECISIONS, choose_dtype
from lodestar.nets.unet import UNet, UNetConfig
from lodestar.presets.adm import imagenet64

CIFAR_SIZE = UNetConfig(width=64, multipliers=(1, 2, 2), blocks=2, attention=(2, 4), head_channels=32, out_channels=6)
"""A CIFAR-size ADM: 64 channels, two blocks, attention at 16 and 8."""


TIME = 500.0
"""Network time of all pictures, as in sampling."""


def adm64() -> UNetConfig:
    """The network of the published ADM at 64×64."""
    config = imagenet64().task.model.denoiser.network
    assert isinstance(config, UNetConfig)
    return config.replace(out_channels=6)


def ours(format: str, config: UNetConfig = CIFAR_SIZE, training: bool = False) -> UNet:
    """Our network in a format; its zero-initialised layers are filled, so that errors show."""
    torch.manual_seed(0)
    network = config.replace(ranges=(0.0, 1000.0) if format == "int8" else ()).build().to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    if not training:
        choose_dtype(None, torch.device("cpu"))  # which also says where Winograd's convolutions are used
        network.eval().requires_grad_(False)
        if format == "int8":
            find(network)
        network.lower(PRECISIONS[format])
    return network


def states(config: UNetConfig, batch: int, places: int = 32) -> Tensor | None:
    """Random states of texts [B, places, width], for a network that is told them; else None."""
    return None if config.context is None else torch.randn(batch, places, config.context)


@torch.inference_mode()
def find(network: UNet) -> None:
    """The ranges of a network's activations at one time, for all times."""
    size, spreads = 8 * network.config.divisor, [(Spread(), Spread()) for _ in network.blocks]
    with watched(network, spreads):
        network(torch.randn(4, network.config.in_channels, size, size), torch.full((4,), TIME), tokens=states(network.config, 4))
    ranges = torch.tensor([[spread.best() for spread in pair] for pair in spreads])
    network.get_buffer("ranges").copy_(ranges[..., None])


def theirs() -> nn.Module:
    """diffusers' network of the width and depth of `CIFAR_SIZE`, in its default form."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=6,
        layers_per_block=2,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
        resnet_time_scale_shift="scale_shift",
        downsample_type="resnet",
        upsample_type="resnet",
    )


def published(checkout: Path) -> nn.Module:
    """The network of `adm64` by guided-diffusion's code, without classes. Raises ImportError if it is not there."""
    sys.path.insert(0, str(checkout))
    from guided_diffusion.script_util import create_model

    return create_model(
        image_size=64,
        num_channels=192,
        num_res_blocks=3,
        learn_sigma=True,
        attention_resolutions="32,16,8",
        num_head_channels=64,
        use_scale_shift_norm=True,
        resblock_updown=True,
        use_new_attention_order=True,
        dropout=0.1,
    )


def published_glide(checkout: Path) -> nn.Module:
    """GLIDE's base network by its own code, which keeps what it said of a text. Raises ImportError if it is not there."""
    sys.path.insert(0, str(checkout))
    from glide_text2im.model_creation import create_model_and_diffusion, model_and_diffusion_defaults

    network, _ = create_model_and_diffusion(**{**model_and_diffusion_defaults(), "use_fp16": False, "cache_text_emb": True})
    for parameter in network.parameters():  # some are left as memory was, and some are zero
        nn.init.normal_(parameter, std=0.02)
    return network.eval().requires_grad_(False)
