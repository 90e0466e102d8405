"""Our U-Net as diffusers' UNet2DModel, out and in: settings, names and weights, without that library.

A UNet2DModel is our U-Net under other names, with one depth for all resolutions and convolutions between them. What it has no
setting for but can compute is filled in exactly: a resolution with fewer blocks gets blocks that pass their input through, and
resampling without parameters becomes a convolution with fixed weights. What it cannot compute is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lodestar.config import Problem, decode
from lodestar.nets.attention import Layout
from lodestar.nets.unet import UNetConfig

_FIXED: dict[str, Any] = {
    "center_input_sample": False, "time_embedding_type": "positional", "freq_shift": 0, "flip_sin_to_cos": True,
    "mid_block_scale_factor": 1, "downsample_padding": 1, "act_fn": "silu", "norm_eps": 1e-5, "add_attention": True,
    "class_embed_type": None, "time_embedding_dim": None, "num_train_timesteps": None, "mid_block_type": "UNetMidBlock2D",
}  # fmt: skip
"""Settings of a UNet2DModel that our U-Net does not vary."""

_BLOCK = {"norm1": "norm1", "conv1": "conv1", "emb": "time_emb_proj", "norm2": "norm2", "conv2": "conv2", "skip": "conv_shortcut"}
_ATTENTION = {"norm": "group_norm", "out": "to_out.0"}


def to_unet2d(config: UNetConfig, state: Mapping[str, Tensor], size: tuple[int, int]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A U-Net as settings and state of a UNet2DModel that computes the same. Raises Problem where none does."""
    settings = _settings(config, size)
    layers = max(config.depths)
    tensors: dict[str, Tensor] = {}
    for place in _places(config, layers):
        if place.ours is None:
            tensors |= _filler(place, config)
        elif place.kind == "attention":
            tensors |= _renamed(state, place, _ATTENTION)
            for leaf in ("weight", "bias"):
                parts = _split(state[f"{place.ours}.qkv.{leaf}"], config.heads_at(place.channels), config.layout)
                tensors |= {f"{place.theirs}.to_{part}.{leaf}": tensor for part, tensor in zip("qkv", parts, strict=True)}
        else:
            tensors |= _renamed(state, place, _BLOCK if place.kind == "block" else {"": ""})
    return settings, tensors


def unet_config(settings: Mapping[str, Any]) -> UNetConfig:
    """Ours for the settings of a UNet2DModel. Raises Problem for one that our U-Net cannot be."""
    for name, value in _FIXED.items():
        if settings.get(name, value) != value:
            raise Problem(f"UNet2DModel: {name} is {settings[name]!r}: only {value!r} is read")
    needed = ("block_out_channels", "down_block_types", "up_block_types")
    if missing := [name for name in needed if name not in settings]:
        raise Problem(f"UNet2DModel: {missing[0]} is missing")
    widths = settings["block_out_channels"]
    residual = {"resnet": True, "conv": False}
    down, up, kinds = settings["down_block_types"], settings["up_block_types"], {}
    for name in ("downsample_type", "upsample_type"):
        kinds[name] = settings.get(name, "conv")
        if kinds[name] not in residual:
            raise Problem(f"UNet2DModel: {name} is {kinds[name]!r}: choose from resnet, conv")
    plain = "Resnet{}sampleBlock2D" if residual[kinds["downsample_type"]] else "{}Block2D"
    attended = [name == "AttnDownBlock2D" for name in down]
    expected = [
        [f"Attn{side}Block2D" if flag else plain.format(side) for flag in flags]
        for side, flags in (("Down", attended), ("Up", attended[::-1]))
    ]
    if [list(down), list(up)] != expected or kinds["downsample_type"] != kinds["upsample_type"]:
        kind = ", ".join([*expected[0], *expected[1]])
        raise Problem(f"UNet2DModel: blocks {', '.join([*down, *up])} are not a U-Net of one kind, which has {kind}")
    adaptive = settings.get("resnet_time_scale_shift", "default") == "scale_shift"
    groups = settings.get("norm_num_groups", 32)
    if settings.get("attn_norm_num_groups", None if adaptive else groups) not in ((groups,) if adaptive else (groups, None)):
        raise Problem(
            f"UNet2DModel: attn_norm_num_groups is {settings.get('attn_norm_num_groups')}: it has to be norm_num_groups, {groups}"
        )
    dimension = settings.get("attention_head_dim", 8)
    fields = {
        "in_channels": settings.get("in_channels", 3),
        "out_channels": settings.get("out_channels", 3),
        "width": widths[0],
        "multipliers": [width / widths[0] for width in widths],
        "blocks": settings.get("layers_per_block", 2),
        "attention": [2**level for level, flag in enumerate(attended) if flag],
        "heads": 1 if dimension is None else None,
        "head_channels": dimension,
        "layout": "qkv_first",
        "resample": "residual" if residual[kinds["downsample_type"]] else "conv",
        "adaptive_norm": adaptive,
        "norm_groups": groups,
        "dropout": settings.get("dropout", 0.0),
    }
    return decode(UNetConfig, fields, "UNet2DModel")


def from_unet2d(config: UNetConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of our U-Net from that of the UNet2DModel whose settings gave `config`. Raises Problem if a name is missing."""
    state: dict[str, Tensor] = {}
    for place in _places(config, max(config.depths)):
        assert place.ours is not None
        known = {"block": _BLOCK, "attention": _ATTENTION}.get(place.kind, {"": ""})
        state |= _renamed(tensors, place.reversed(), {theirs: ours for ours, theirs in known.items()})
        if place.kind == "attention":
            for leaf in ("weight", "bias"):
                names = [f"{place.theirs}.to_{part}.{leaf}" for part in "qkv"]
                if missing := [name for name in names if name not in tensors]:
                    raise Problem(f"UNet2DModel: {missing[0]} is missing")
                state[f"{place.ours}.qkv.{leaf}"] = torch.cat([tensors[name] for name in names])
    return state


@dataclass(frozen=True)
class _Place:
    """A module by its two names; ours is None where diffusers' network has one and ours has none."""

    theirs: str
    ours: str | None
    kind: Literal["block", "attention", "down", "up", "other"]
    channels: int = 0
    """What it gives out."""
    doubled: bool = False
    """It takes twice as many: a block on the way up."""

    def reversed(self) -> _Place:
        assert self.ours is not None
        return _Place(self.ours, self.theirs, self.kind)


def _places(config: UNetConfig, layers: int) -> Iterator[_Place]:
    """Every module of a UNet2DModel with `layers` blocks a resolution, and the one of ours that it is."""
    yield _Place("time_embedding.linear_1", "time.linear1", "other")
    yield _Place("time_embedding.linear_2", "time.linear2", "other")
    yield _Place("conv_in", "stem", "other")
    yield _Place("conv_norm_out", "norm", "other")
    yield _Place("conv_out", "head", "other")
    resampling: dict[str, Any] = {"residual": ("block", ""), "conv": ("other", ".conv"), "plain": (None, ".conv")}
    kind, leaf = resampling[config.resample]
    number, levels = 0, len(config.widths)
    for level, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
        for layer in range(layers):
            ours = f"down.{number}" if layer < depth else None
            yield from _stage(config, f"down_blocks.{level}", layer, ours, level, width)
            number += layer < depth
        if level + 1 < levels:
            yield _Place(
                f"down_blocks.{level}.downsamplers.0{leaf}", kind and f"down.{number}.block{leaf}", kind or "down", width
            )
            number += 1
    last = config.widths[-1]
    yield _Place("mid_block.resnets.0", "middle.0.block", "block", last)
    yield _Place("mid_block.attentions.0", "middle.0.attention", "attention", last)
    yield _Place("mid_block.resnets.1", "middle.1.block", "block", last)
    number = 0
    for place, level in enumerate(reversed(range(levels))):
        width, padding = config.widths[level], layers - config.depths[level]
        for layer in range(layers + 1):
            # The first block narrows what comes from below; those that only pass on come right after it.
            ours = None if 0 < layer <= padding else f"up.{number}"
            yield from _stage(config, f"up_blocks.{place}", layer, ours, level, width, doubled=True)
            number += ours is not None
        if level > 0:
            yield _Place(f"up_blocks.{place}.upsamplers.0{leaf}", kind and f"up.{number - 1}.resample{leaf}", kind or "up", width)


def _stage(
    config: UNetConfig, where: str, layer: int, ours: str | None, level: int, width: int, doubled: bool = False
) -> Iterator[_Place]:
    yield _Place(f"{where}.resnets.{layer}", ours and f"{ours}.block", "block", width, doubled)
    if 2**level in config.attention:
        yield _Place(f"{where}.attentions.{layer}", ours and f"{ours}.attention", "attention", width)


def _renamed(state: Mapping[str, Tensor], place: _Place, leaves: Mapping[str, str]) -> dict[str, Tensor]:
    """The parameters of a module of ours under diffusers' names (or, of a reversed place, the other way)."""
    found = {}
    for ours, theirs in leaves.items():
        for leaf in ("weight", "bias"):
            source = ".".join(filter(None, [place.ours, ours, leaf]))
            if source in state:
                found[".".join(filter(None, [place.theirs, theirs, leaf]))] = state[source]
            elif ours not in ("skip", "conv_shortcut"):
                raise Problem(f"UNet2DModel: {source} is missing")
    return found


def _filler(place: _Place, config: UNetConfig) -> dict[str, Tensor]:
    """Parameters with which a module that ours lacks does what ours does there without one."""
    width, zeros = place.channels, torch.zeros
    identity = torch.eye(width)
    match place.kind:
        case "down":  # the mean of 2×2, in the last four of nine places
            kernel = zeros(3, 3)
            kernel[1:, 1:] = 0.25
            parts = {"weight": identity[:, :, None, None] * kernel, "bias": zeros(width)}
        case "up":  # the doubled picture as it is
            kernel = zeros(3, 3)
            kernel[1, 1] = 1
            parts = {"weight": identity[:, :, None, None] * kernel, "bias": zeros(width)}
        case "attention":  # a residual branch that ends in zero
            parts = {f"{name}.bias": zeros(width) for name in ("group_norm", "to_q", "to_k", "to_v", "to_out.0")}
            parts |= {f"{name}.weight": zeros(width, width) for name in ("to_q", "to_k", "to_v", "to_out.0")}
            parts["group_norm.weight"] = torch.ones(width)
        case _:  # likewise
            inside = width * (2 if place.doubled else 1)
            embedding = width * (2 if config.adaptive_norm else 1)
            parts = {"norm1.weight": torch.ones(inside), "norm1.bias": zeros(inside)}
            parts |= {"norm2.weight": torch.ones(width), "norm2.bias": zeros(width)}
            parts |= {"conv1.weight": zeros(width, inside, 3, 3), "conv1.bias": zeros(width)}
            parts |= {"conv2.weight": zeros(width, width, 3, 3), "conv2.bias": zeros(width)}
            parts |= {"time_emb_proj.weight": zeros(embedding, config.emb_width), "time_emb_proj.bias": zeros(embedding)}
            if place.doubled:  # what comes from below stands first, what was handed over second
                shortcut = torch.cat([identity, zeros(width, width)], dim=1)
                parts |= {"conv_shortcut.weight": shortcut[:, :, None, None], "conv_shortcut.bias": zeros(width)}
    return {f"{place.theirs}.{name}": tensor for name, tensor in parts.items()}


def _split(qkv: Tensor, heads: int, layout: Layout) -> tuple[Tensor, ...]:
    """Rows of a joint projection as those of q, k and v."""
    if layout == "qkv_first":
        return qkv.chunk(3)
    return tuple(part.flatten(0, 1) for part in qkv.unflatten(0, (heads, 3, -1)).unbind(1))


def _settings(config: UNetConfig, size: tuple[int, int]) -> dict[str, Any]:
    """The settings of the UNet2DModel that computes what a U-Net does. Raises Problem where none does."""
    attended = [2**level in config.attention for level in range(len(config.widths))]
    channels = sorted({*config.attended, config.widths[-1]})
    dimensions = sorted({width // config.heads_at(width) for width in channels})
    single = all(config.heads_at(width) == 1 for width in channels)
    reasons = {
        "its first multiplier is not 1, and UNet2DModel takes the width of the time embedding from the first resolution":
            config.widths[0] != config.width or config.stem not in (None, config.width),
        f"channels per attention head differ between resolutions ({', '.join(map(str, dimensions))}), UNet2DModel has one number":
            len(dimensions) > 1 and not single,
        "it has other heads on the way up": config.up_heads not in (None, config.heads),
        "it rescales its residuals": config.rescale_residuals,
        f"{config.norm_groups} groups do not divide all of its channels":
            any(width % config.norm_groups for width in config.widths),
    }  # fmt: skip
    for reason, holds in reasons.items():
        if holds:
            raise Problem(f"diffusers has no network for this model: {reason}")
    residual = config.resample == "residual"
    plain = "Resnet{}sampleBlock2D" if residual else "{}Block2D"
    down, up = (
        [f"Attn{side}Block2D" if flag else plain.format(side) for flag in flags]
        for side, flags in (("Down", attended), ("Up", attended[::-1]))
    )
    resample = "resnet" if residual else "conv"
    return {
        "_class_name": "UNet2DModel",
        "sample_size": size[0] if size[0] == size[1] else list(size),
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "layers_per_block": max(config.depths),
        "block_out_channels": list(config.widths),
        "attention_head_dim": None if single else dimensions[0],
        "down_block_types": down,
        "up_block_types": up,
        "resnet_time_scale_shift": "scale_shift" if config.adaptive_norm else "default",
        "norm_num_groups": config.norm_groups,
        "attn_norm_num_groups": config.norm_groups,
        "downsample_type": resample,
        "upsample_type": resample,
        "num_class_embeds": None,
        "dropout": config.dropout,
        **{name: value for name, value in _FIXED.items() if name not in ("mid_block_type", "time_embedding_dim")},
    }
