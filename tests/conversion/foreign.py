"""State dicts as the reference projects name and shape them, written down from their constructors, not from our rules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lodestar.conversion import ADM
from lodestar.conversion.adm import classifier_config, unet_config
from lodestar.conversion.published import Published
from lodestar.core.schedule import Linear
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.samplers import DDIM

Shapes = dict[str, tuple[int, ...]]

SMALL: dict[str, Any] = {
    "in_channels": 3,
    "model_channels": 8,
    "out_channels": 6,
    "num_res_blocks": 1,
    "attention_resolutions": [2],
    "channel_mult": [1, 2],
    "num_heads": 2,
}


def affine(name: str, outputs: int, inputs: int, *kernel: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, *kernel), f"{name}.bias": (outputs,)}


def norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


class Builder:
    """Collects what the constructors of guided-diffusion's networks make, in their order."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        defaults = {"resblock_updown": False, "conv_resample": True, "use_scale_shift_norm": False, "num_classes": None}
        given = {**defaults, **arguments}
        self.given, self.shapes = given, Shapes()
        self.width, self.ssn = given["model_channels"], given["use_scale_shift_norm"]
        self.widths = [int(mult * self.width) for mult in given["channel_mult"]]
        self.emb = 4 * self.width

    def block(self, name: str, channels: int, out: int) -> None:
        self.shapes |= norm(f"{name}.in_layers.0", channels) | affine(f"{name}.in_layers.2", out, channels, 3, 3)
        self.shapes |= affine(f"{name}.emb_layers.1", 2 * out if self.ssn else out, self.emb)
        self.shapes |= norm(f"{name}.out_layers.0", out) | affine(f"{name}.out_layers.3", out, out, 3, 3)
        if channels != out:
            self.shapes |= affine(f"{name}.skip_connection", out, channels, 1, 1)

    def attention(self, name: str, channels: int) -> None:
        self.shapes |= norm(f"{name}.norm", channels) | affine(f"{name}.qkv", 3 * channels, channels, 1)
        self.shapes |= affine(f"{name}.proj_out", channels, channels, 1)

    def resample(self, name: str, channels: int, conv: str) -> None:
        if self.given["resblock_updown"]:
            self.block(name, channels, channels)
        elif self.given["conv_resample"]:
            self.shapes |= affine(f"{name}.{conv}", channels, channels, 3, 3)

    def down(self) -> list[int]:
        self.shapes |= affine("time_embed.0", self.emb, self.width) | affine("time_embed.2", self.emb, self.emb)
        if self.given["num_classes"]:
            self.shapes["label_emb.weight"] = (self.given["num_classes"], self.emb)
        channels, number = self.widths[0], 1
        self.shapes |= affine("input_blocks.0.0", channels, self.given["in_channels"], 3, 3)
        handed = [channels]
        for level, out in enumerate(self.widths):
            for _ in range(self.given["num_res_blocks"]):
                self.block(f"input_blocks.{number}.0", channels, out)
                if 2**level in self.given["attention_resolutions"]:
                    self.attention(f"input_blocks.{number}.1", out)
                channels, number = out, number + 1
                handed.append(channels)
            if level + 1 < len(self.widths):
                self.resample(f"input_blocks.{number}.0", channels, "op")
                number += 1
                handed.append(channels)
        self.block("middle_block.0", channels, channels)
        self.attention("middle_block.1", channels)
        self.block("middle_block.2", channels, channels)
        return handed


def unet_shapes(arguments: dict[str, Any]) -> Shapes:
    """Names and shapes of UNetModel."""
    builder = Builder(arguments)
    handed, channels, number = builder.down(), builder.widths[-1], 0
    for level in reversed(range(len(builder.widths))):
        out = builder.widths[level]
        for index in range(builder.given["num_res_blocks"] + 1):
            builder.block(f"output_blocks.{number}.0", channels + handed.pop(), out)
            channels, place = out, 1
            if 2**level in builder.given["attention_resolutions"]:
                builder.attention(f"output_blocks.{number}.1", out)
                place = 2
            if level and index == builder.given["num_res_blocks"]:
                builder.resample(f"output_blocks.{number}.{place}", out, "conv")
            number += 1
    return builder.shapes | norm("out.0", channels) | affine("out.2", builder.given["out_channels"], builder.widths[0], 3, 3)


def classifier_shapes(arguments: dict[str, Any]) -> Shapes:
    """Names and shapes of EncoderUNetModel with the attention or the adaptive pool."""
    builder = Builder(arguments)
    builder.down()
    channels, classes = builder.widths[-1], arguments["out_channels"]
    shapes = builder.shapes | norm("out.0", channels)
    if arguments["pool"] == "adaptive":
        return shapes | affine("out.3", classes, channels, 1, 1)
    places = (arguments["image_size"] // 2 ** (len(builder.widths) - 1)) ** 2
    shapes["out.2.positional_embedding"] = (channels, places + 1)
    return shapes | affine("out.2.qkv_proj", 3 * channels, channels, 1) | affine("out.2.c_proj", classes, channels, 1)


def state(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random values of these shapes."""
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=rng) * 0.2 for name, shape in shapes.items()}


MODEL = {**SMALL, "resblock_updown": True, "use_scale_shift_norm": True, "num_classes": 3}
UPSAMPLER = {**SMALL, "in_channels": 6, "channel_mult": [1, 1], "attention_resolutions": [1]}
GUIDE = {**SMALL, "out_channels": 3, "image_size": 8, "pool": "attention", "num_head_channels": 8, "resblock_updown": True}


def _model() -> DiffusionConfig:
    denoiser = DenoiserConfig(
        network=unet_config({**MODEL, "num_classes": None}), variance="learned_range", conditions=conditions(3)
    )
    return DiffusionConfig(denoiser=denoiser, schedule=Linear(timesteps=50), size=(8, 8), sampler=DDIM(), steps="3")


def _upsampler() -> DiffusionConfig:
    denoiser = DenoiserConfig(network=unet_config(UPSAMPLER), variance="learned_range", conditions=conditions(low_res=(4, 4)))
    return DiffusionConfig(denoiser=denoiser, schedule=Linear(timesteps=50), size=(8, 8), sampler=DDIM(), steps="3")


def _guide() -> ClassifierModelConfig:
    return ClassifierModelConfig(network=classifier_config(GUIDE), schedule=Linear(timesteps=50))


PUBLISHED = (
    Published("ada/tiny", "tiny.pt", _model, ADM, "https://localhost/tiny.pt"),
    Published("ada/tiny-guide", "tiny_guide.pt", _guide, ADM, "https://localhost/tiny_guide.pt"),
    Published("ada/tiny-up", "tiny_up.pt", _upsampler, ADM, page="https://localhost/"),
    Published("ada/twin", "twin.pt", _model, ADM, "https://localhost/twin.pt"),
)
"""Published models of 8×8 pictures, for the tests."""

STATES = {"tiny.pt": unet_shapes(MODEL), "tiny_guide.pt": classifier_shapes(GUIDE), "tiny_up.pt": unet_shapes(UPSAMPLER)}
