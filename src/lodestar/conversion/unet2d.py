"""Our U-Net as diffusers' UNet2DModel, export and import: settings, names and weights, without that library.

A UNet2DModel is our U-Net under other names, with one depth for all resolutions and convolutions between them. Features without a
setting there are emulated exactly if possible: a resolution with fewer blocks gets blocks that pass their input through, and
resampling without parameters becomes a convolution with fixed weights. Other features are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lodestar.config import Problem, decode
from lodestar.conversion.settings import Foreign, Idle, Only
from lodestar.nets.attention import Layout
from lodestar.nets.unet import UNetConfig

Side = Literal["Down", "Up"]
Pixels = Annotated[int, Field(ge=1, le=65536)]


class UNet2DModel(Foreign):
    """The settings of diffusers' UNet2DModel, with its defaults."""

    sample_size: Pixels | tuple[Pixels, Pixels] | None = None
    in_channels: int = Field(default=3, ge=1)
    out_channels: int = Field(default=3, ge=1)
    center_input_sample: Annotated[bool, Only((False,), "networks here see pictures in [−1, 1]")] = False
    time_embedding_type: Annotated[
        str, Only(("positional", "learned"), "the random frequencies of 'fourier' are no time embedding here")
    ] = "positional"
    time_embedding_dim: int | None = None
    freq_shift: Annotated[int, Only((0, 1), "the lowest frequency here is that of ADM or that of DDPM")] = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    mid_block_type: Annotated[str | None, Only(("UNetMidBlock2D",), "the middle here is two blocks with attention")] = (
        "UNetMidBlock2D"
    )
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: tuple[int, ...] = Field(default=(224, 448, 672, 896), min_length=1)
    layers_per_block: int = Field(default=2, ge=1)
    mid_block_scale_factor: Annotated[float, Only((1,), "residuals here are scaled everywhere or nowhere")] = 1
    downsample_padding: Annotated[int, Only((0, 1), "other paddings change the size")] = 1
    downsample_type: Literal["conv", "resnet"] = "conv"
    upsample_type: Literal["conv", "resnet"] = "conv"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    act_fn: Annotated[str, Only(("silu", "swish"), "networks here have no other")] = "silu"
    attention_head_dim: int | None = Field(default=8, ge=1)
    norm_num_groups: int = Field(default=32, ge=1)
    attn_norm_num_groups: int | None = None
    norm_eps: float = Field(default=1e-5, gt=0)
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    add_attention: bool = True
    """Attention in the middle."""
    class_embed_type: Annotated[None, Only((None,), "classes here have a table")] = None
    num_class_embeds: int | None = Field(default=None, ge=1)
    num_train_timesteps: Annotated[int | None, Idle("the table of learned times tells")] = None

    @model_validator(mode="after")
    def _reads_as_ours(self) -> Self:
        width, groups = self.block_out_channels[0], self.norm_num_groups
        if self.time_embedding_dim not in (None, 4 * width):
            raise Problem(f"time_embedding_dim is {self.time_embedding_dim}: only {4 * width}, four times the width, is read")
        if self.sample_size is None:
            raise Problem("sample_size is not given, and weights do not tell the size of pictures: write it there")
        if width % 2 and not self.flip_sin_to_cos:
            raise Problem(f"flip_sin_to_cos is False with the odd width {width}")
        if self.attn_norm_num_groups not in ((groups,) if self.adaptive else (groups, None)):
            raise Problem(f"attn_norm_num_groups is {self.attn_norm_num_groups}: it has to be norm_num_groups, {groups}")
        self._check_blocks()
        return self

    def _check_blocks(self) -> None:
        """Raise Problem unless the blocks are a U-Net of one kind, with attention at the same resolutions both ways."""
        sides: tuple[tuple[Side, str, tuple[str, ...]], ...] = (
            ("Down", self.downsample_type, self.down_block_types),
            ("Up", self.upsample_type, self.up_block_types),
        )
        flags = self.attended
        for side, kind, blocks in sides:
            expected = block_types(side, flags if side == "Down" else flags[::-1], kind == "resnet")
            if list(blocks) != expected or len(flags) != len(self.block_out_channels):
                raise Problem(
                    f"{side.lower()}_block_types is {', '.join(blocks)}: with {len(self.block_out_channels)} resolutions and "
                    f"{side.lower()}sample_type {kind!r} a U-Net of one kind has {', '.join(expected)}"
                )
        if self.downsample_type != self.upsample_type:
            raise Problem(
                f"downsample_type is {self.downsample_type!r} and upsample_type {self.upsample_type!r}: only one for both is read"
            )

    @property
    def adaptive(self) -> bool:
        """True if time scales and shifts the norms."""
        return self.resnet_time_scale_shift == "scale_shift"

    @property
    def attended(self) -> list[bool]:
        """Flags of the resolutions with attention, from the finest."""
        return [name == "AttnDownBlock2D" for name in self.down_block_types]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        assert self.sample_size is not None
        return (self.sample_size, self.sample_size) if isinstance(self.sample_size, int) else self.sample_size


def block_types(side: Side, attended: Sequence[bool], residual: bool) -> list[str]:
    """The names of the blocks of encoder or decoder, from their attention and resampling."""
    plain = f"Resnet{side}sampleBlock2D" if residual else f"{side}Block2D"
    return [f"Attn{side}Block2D" if flag else plain for flag in attended]


_BLOCK = {"norm1": "norm1", "conv1": "conv1", "emb": "time_emb_proj", "norm2": "norm2", "conv2": "conv2", "skip": "conv_shortcut"}
_ATTENTION = {"norm": "group_norm", "out": "to_out.0"}


def to_unet2d(config: UNetConfig, state: Mapping[str, Tensor], size: tuple[int, int]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A U-Net as settings and state of an equivalent UNet2DModel. Raises Problem if there is none."""
    settings = _settings(config, size)
    layers = max(config.depths)
    tensors: dict[str, Tensor] = {}
    for place in _places(config, layers):
        if place.ours is None:
            tensors |= _filler(place, config)
        elif place.kind == "attention":
            tensors |= _renamed(dict(state), place, _ATTENTION)
            for leaf in ("weight", "bias"):
                parts = _split(state[f"{place.ours}.qkv.{leaf}"], config.heads_at(place.channels), config.layout)
                tensors |= {f"{place.theirs}.to_{part}.{leaf}": tensor for part, tensor in zip("qkv", parts, strict=True)}
        else:
            tensors |= _renamed(dict(state), place, _BLOCK if place.kind == "block" else {"": ""})
    return settings, tensors


def unet_config(settings: UNet2DModel, where: str = "UNet2DModel") -> UNetConfig:
    """Our configuration for the settings of a UNet2DModel. Raises Problem if unsupported."""
    width, dimension = settings.block_out_channels[0], settings.attention_head_dim
    fields = {
        "in_channels": settings.in_channels,
        "out_channels": settings.out_channels,
        "width": width,
        "multipliers": [channels / width for channels in settings.block_out_channels],
        "blocks": settings.layers_per_block,
        "attention": [2**level for level, flag in enumerate(settings.attended) if flag],
        "heads": 1 if dimension is None else None,
        "head_channels": dimension,
        "middle_attention": settings.add_attention,
        "layout": "qkv_first",
        "resample": "residual" if settings.downsample_type == "resnet" else "conv",
        "adaptive_norm": settings.adaptive,
        "norm_groups": settings.norm_num_groups,
        "norm_eps": settings.norm_eps,
        "closed_frequencies": settings.freq_shift == 1,
        "one_sided": settings.downsample_padding == 0,
        "dropout": settings.dropout,
    }
    return decode(UNetConfig, fields, where)


_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the attention's maps before diffusers 0.15."""


def from_unet2d(config: UNetConfig, tensors: Mapping[str, Tensor], sines_first: bool = False) -> dict[str, Tensor]:
    """The state of our U-Net from a UNet2DModel's state, in names of today or of before 0.15; `config` is from its settings.

    sines_first: its time embedding has the sines before the cosines. Raises Problem for a missing or unknown name.
    """
    old = re.compile(rf"(\.attentions\.\d+)\.({'|'.join(_OLD_ATTENTION)})\.")
    tensors = {old.sub(lambda match: f"{match[1]}.{_OLD_ATTENTION[match[2]]}.", name): tensor for name, tensor in tensors.items()}
    left = dict(tensors)
    state: dict[str, Tensor] = {}
    for place in _places(config, max(config.depths)):
        assert place.ours is not None
        known = {"block": _BLOCK, "attention": _ATTENTION}.get(place.kind, {"": ""})
        state |= _renamed(left, place.reversed(), {theirs: ours for ours, theirs in known.items()}, taken=True)
        if place.kind == "attention":
            for leaf in ("weight", "bias"):
                names = [f"{place.theirs}.to_{part}.{leaf}" for part in "qkv"]
                if missing := [name for name in names if name not in left]:
                    raise Problem(f"UNet2DModel: {missing[0]} is missing")
                state[f"{place.ours}.qkv.{leaf}"] = torch.cat([left.pop(name) for name in names])
                if config.context is not None:
                    names = [f"{place.theirs}.add_{part}_proj.{leaf}" for part in "kv"]
                    if missing := [name for name in names if name not in left]:
                        raise Problem(f"UNet2DModel: {missing[0]} is missing")
                    state[f"{place.ours}.text.{leaf}"] = torch.cat([left.pop(name) for name in names])
    if left:
        shown = ", ".join(list(left)[:3]) + (", …" if len(left) > 3 else "")
        raise Problem(f"UNet2DModel: {len(left)} of the tensors have no place in the network of its settings ({shown})")
    if sines_first:
        state["time.linear1.weight"] = torch.cat(state["time.linear1.weight"].chunk(2, dim=1)[::-1], dim=1)
    return state


@dataclass(frozen=True)
class _Place:
    """A module under its two names; ours is None for modules of diffusers alone."""

    theirs: str
    ours: str | None
    kind: Literal["block", "attention", "down", "up", "other"]
    channels: int = 0
    """Number of output channels."""
    doubled: bool = False
    """True if the input has twice as many channels: a block of the decoder."""

    def reversed(self) -> _Place:
        assert self.ours is not None
        return _Place(self.ours, self.theirs, self.kind)


def _places(config: UNetConfig, layers: int) -> Iterator[_Place]:
    """Modules of a UNet2DModel with `layers` blocks a resolution, each paired with ours."""
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
    if config.middle_attention:
        yield _Place("mid_block.attentions.0", "middle.0.attention", "attention", last)
    yield _Place("mid_block.resnets.1", "middle.1.block", "block", last)
    number = 0
    for place, level in enumerate(reversed(range(levels))):
        width, padding = config.widths[level], layers - config.depths[level]
        for layer in range(layers + 1):
            # The first block narrows the input from below; pass-through blocks come right after it.
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


def _renamed(state: dict[str, Tensor], place: _Place, leaves: Mapping[str, str], taken: bool = False) -> dict[str, Tensor]:
    """The parameters of our module under diffusers' names (or, of a reversed place, the other way).

    taken: they leave `state`.
    """
    found = {}
    for ours, theirs in leaves.items():
        for leaf in ("weight", "bias"):
            source = ".".join(filter(None, [place.ours, ours, leaf]))
            if source in state:
                found[".".join(filter(None, [place.theirs, theirs, leaf]))] = state.pop(source) if taken else state[source]
            elif ours not in ("skip", "conv_shortcut"):
                raise Problem(f"UNet2DModel: {source} is missing")
    return found


def _filler(place: _Place, config: UNetConfig) -> dict[str, Tensor]:
    """Identity weights for a module that diffusers has and we do not."""
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
    """Rows of a joint projection as separate q, k and v."""
    if layout == "qkv_first":
        return qkv.chunk(3)
    return tuple(part.flatten(0, 1) for part in qkv.unflatten(0, (heads, 3, -1)).unbind(1))


def _settings(config: UNetConfig, size: tuple[int, int]) -> dict[str, Any]:
    """The settings of the UNet2DModel equivalent to a U-Net. Raises Problem if there is none."""
    attended = [2**level in config.attention for level in range(len(config.widths))]
    channels = sorted({*config.attended, *([config.widths[-1]] if config.middle_attention else [])})
    dimensions = sorted({width // config.heads_at(width) for width in channels})
    single = all(config.heads_at(width) == 1 for width in channels)
    reasons = {
        "its first multiplier is not 1, and UNet2DModel takes the width of the time embedding from the first resolution":
            config.widths[0] != config.width or config.stem not in (None, config.width),
        f"channels per attention head differ between resolutions ({', '.join(map(str, dimensions))}), UNet2DModel has one number":
            len(dimensions) > 1 and not single,
        "it has other heads on the way up": config.up_heads not in (None, config.heads),
        "it rescales its residuals": config.rescale_residuals,
        "it is told coordinates": config.coordinates,
        "its last step has a network of its own": config.last_step,
        f"{config.norm_groups} groups do not divide all of its channels":
            any(width % config.norm_groups for width in config.widths),
    }  # fmt: skip
    for reason, holds in reasons.items():
        if holds:
            raise Problem(f"diffusers has no network for this model: {reason}")
    residual = config.resample == "residual"
    settings = UNet2DModel(
        sample_size=size[0] if size[0] == size[1] else size,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        layers_per_block=max(config.depths),
        block_out_channels=config.widths,
        attention_head_dim=None if single else dimensions[0],
        add_attention=config.middle_attention,
        down_block_types=tuple(block_types("Down", attended, residual)),
        up_block_types=tuple(block_types("Up", attended[::-1], residual)),
        resnet_time_scale_shift="scale_shift" if config.adaptive_norm else "default",
        norm_num_groups=config.norm_groups,
        attn_norm_num_groups=config.norm_groups,
        norm_eps=config.norm_eps,
        freq_shift=int(config.closed_frequencies),
        downsample_padding=int(not (config.one_sided and config.resample == "conv")),
        downsample_type="resnet" if residual else "conv",
        upsample_type="resnet" if residual else "conv",
        dropout=config.dropout,
    )
    return {"_class_name": "UNet2DModel", **settings.model_dump(mode="json")}
