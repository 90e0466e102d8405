"""Small networks for the tests, every switch among them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lodestar.config import decode
from lodestar.nets.classifier import ClassifierConfig
from lodestar.nets.unet import UNetConfig

# Two channels and more in a group: a norm of single channels hides what is added before it.
SMALL: dict[str, Any] = {"width": 16, "multipliers": [1, 2], "blocks": 1, "attention": [2], "head_channels": 8, "norm_groups": 4}

BACKBONES: dict[str, dict[str, Any]] = {
    "plain choices": {},
    "three resolutions": {"multipliers": [1, 2, 2], "attention": [2, 4]},
    "one resolution": {"multipliers": [1], "attention": []},
    "fractional widths": {"multipliers": [0.5, 1.5]},
    "a depth each": {"blocks": [2, 1]},
    "heads": {"heads": 4, "head_channels": None},
    "attention nowhere but in the middle": {"attention": []},
    "attention everywhere": {"attention": [1, 2]},
    "old layout": {"layout": "heads_first"},
    "resampling by convolution": {"resample": "conv"},
    "resampling without parameters": {"resample": "plain"},
    "added embedding": {"adaptive_norm": False},
    "added embedding, convolution": {"adaptive_norm": False, "resample": "conv"},
    "rescaled residuals": {"rescale_residuals": True},
    "groups that do not divide": {"width": 12, "norm_groups": 8, "head_channels": 4},
    "dropout": {"dropout": 0.3},
    "checkpointing": {"checkpointing": True},
    "one channel": {"in_channels": 1},
}

UNETS = {
    **BACKBONES,
    "learned variance": {"out_channels": 6},
    "heads on the way up": {"up_heads": 4},
    "another stem": {"stem": 8},
    "coordinates": {"coordinates": True},
}

CLASSIFIERS = {
    **BACKBONES,
    "adaptive": {"pool": "adaptive"},
    "attention, not square": {"pool": "attention", "size": [8, 16]},
    "spatial": {"pool": "spatial"},
    "spatial_v2": {"pool": "spatial_v2"},
}


def unet_config(**changes: Any) -> UNetConfig:
    return decode(UNetConfig, {**SMALL, **changes})


def classifier_config(**changes: Any) -> ClassifierConfig:
    return decode(ClassifierConfig, {**SMALL, "classes": 5, "size": [8, 8], **changes})


def randomized(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter, also those that begin as zero, random values of a size that keeps activations near one."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=rng)
            if parameter.dim() > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
    return network


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
