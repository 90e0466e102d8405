"""The U-Net of the line: DDPM's, Improved DDPM's and ADM's by configuration (Dhariwal and Nichol 2021, section 3).

Down: at every resolution a number of stages (residual block, attention where asked), then a halving. Middle: block, attention,
block. Up: one stage more at every resolution, each fed with the matching activation from the way down, then a doubling.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lodestar.config import Channels, Problem
from lodestar.nets.attention import Attention, Gather, Layout, Masked, Watch
from lodestar.nets.base import DenoiserNetwork, DenoiserNetworkConfig, Kept, NetworkConfig, Part
from lodestar.nets.int8 import Grid, Grids, between
from lodestar.nets.layers import Conv2d, GroupNorm, Linear, Resample, Resampler, ResBlock, lower, timestep_embedding, zero

Depth = Annotated[int, Field(ge=0, le=100)]
"""Residual blocks of a resolution."""


class BackboneConfig(NetworkConfig):
    """Settings shared by the U-Net and the classifier made of its first half."""

    silent: ClassVar[tuple[str, ...]] = ("layout", "norm_groups", "rescale_residuals", "closed_frequencies", "one_sided")

    width: Channels = 64
    """Channels at multiplier 1; also the width of the sinusoidal time embedding."""
    multipliers: tuple[Annotated[float, Field(ge=0, le=64)], ...] = Field(default=(1, 2, 2), min_length=1, max_length=12)
    """Width of each resolution, from the finest, as a factor of `width`."""
    blocks: Depth | Annotated[tuple[Depth, ...], Field(max_length=12)] = 2
    """Residual blocks at each resolution on the way down; one number for all, or one each."""
    attention: tuple[Annotated[int, Field(ge=1, le=2**11)], ...] = Field(default=(2, 4), max_length=12)
    """Downsampling factors of the resolutions with attention (at 32×32, 2 and 4 mean the 16×16 and 8×8 maps)."""
    middle_attention: bool = True
    """Attention between the two blocks in the middle."""
    heads: Channels | None = None
    """Attention heads at every resolution, or None where head_channels tells."""
    head_channels: Channels | None = 32
    """Channels of an attention head; the number of heads follows."""
    layout: Layout = "qkv_first"
    """Order of q, k and v in a projection, not determined by weights."""
    resample: Resample = "residual"
    adaptive_norm: bool = True
    """The embedding scales and shifts the norms (AdaGN); otherwise it is added."""
    rescale_residuals: bool = False
    """Multiply sums of residual branches by √½."""
    norm_groups: Channels = 32
    norm_eps: float = Field(default=1e-5, gt=0, le=1)
    """Constant added to a norm's variances, against division by zero."""
    closed_frequencies: bool = False
    """The lowest frequency of the time embedding is 1/10000 itself (DDPM's TensorFlow code), not one step above (ADM's)."""
    one_sided: bool = False
    """Convolutions that halve are padded at the lower and the right edge alone (DDPM's TensorFlow code)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    checkpointing: bool = False
    """Recompute residual blocks and attention in the backward pass instead of storing their activations."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each resolution, from the finest."""
        return tuple(int(multiplier * self.width) for multiplier in self.multipliers)

    @property
    def depths(self) -> tuple[int, ...]:
        """Residual blocks of each resolution on the way down."""
        return (self.blocks,) * len(self.multipliers) if isinstance(self.blocks, int) else self.blocks

    @property
    def emb_width(self) -> int:
        """Width of the embedding of time and conditions."""
        return 4 * self.width

    @property
    def divisor(self) -> int:
        return 1 << (len(self.multipliers) - 1)

    @property
    def summary(self) -> str:
        widths, depths = (", ".join(map(str, numbers)) for numbers in (self.widths, self.depths))
        return f"channels {widths}; blocks {depths}; attention at 1/{', 1/'.join(map(str, self.attention)) or '–'}"

    @property
    def attended(self) -> tuple[int, ...]:
        """Channels of the resolutions at which attention runs, from the finest; the middle is not counted."""
        return tuple(width for level, width in enumerate(self.widths) if 2**level in self.attention)

    def heads_at(self, channels: int) -> int:
        """Attention heads at a width."""
        return self.heads if self.heads is not None else channels // (self.head_channels or channels)

    def disagreement(self, other: NetworkConfig, path: str) -> str | None:
        if (reason := super().disagreement(other, path)) is not None or not isinstance(other, BackboneConfig):
            return reason
        for width in {*other.attended, other.widths[-1]} & {*self.attended, self.widths[-1]}:
            if other.heads_at(width) != self.heads_at(width):
                return (
                    f"its attention has {other.heads_at(width)} heads at {width} channels, this run's {self.heads_at(width)}: "
                    f"set {path}.heads and .head_channels as there, {other.heads or 'null'} and {other.head_channels or 'null'}"
                )
        return None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.heads is None) == (self.head_channels is None):
            raise Problem("give exactly one of heads and head_channels (the other null)")
        if not isinstance(self.blocks, int) and len(self.blocks) != len(self.multipliers):
            raise Problem(f"blocks has {len(self.blocks)} entries, multipliers has {len(self.multipliers)}")
        if min(self.depths) < 1 or min(self.widths) < 1:
            raise Problem("every resolution needs at least one block and one channel")
        factors = [2**level for level in range(len(self.multipliers))]
        if unknown := [factor for factor in self.attention if factor not in factors]:
            raise Problem(f"attention at {unknown[0]}: this network reduces by {', '.join(map(str, factors))}")
        for channels in (*self.attended, *([self.widths[-1]] if self.middle_attention else [])):
            if channels % (self.heads or self.head_channels or 1):
                raise Problem(f"{channels} channels do not divide by {self.heads or self.head_channels} heads or head channels")
        return self


class UNetConfig(BackboneConfig, DenoiserNetworkConfig):
    """A U-Net. Defaults are ADM's choices at a size for 32×32 pictures."""

    kind: Literal["unet"] = "unet"
    up_heads: Channels | None = None
    """Heads on the way up, where they differ (ADM's deprecated num_heads_upsample)."""
    context: Channels | None = None
    """Width of the states of a text, whose keys and values stand before the places' in every attention; None for no text."""
    stem: Channels | None = None
    """Channels of the first convolution where they are not those of the finest resolution."""
    coordinates: bool = False
    """Tell every place where it is, its x and y from −1 to 1 (CoordConv, Liu et al. 2018), as captions of places need."""
    last_step: bool = False
    """Another network of the same settings in a chain's last step, at network time 0 (Karlo's upsampler)."""
    ranges: tuple[Annotated[float, Field(ge=0, le=1e6)], ...] = Field(default=(), max_length=1_000)
    """Network times, ascending, at which the ranges of activations are known, for sampling in int8; none: they are not known."""

    @property
    def ranged(self) -> bool:
        return len(self.ranges) > 0

    def without_ranges(self) -> Self:
        return self.replace(ranges=())

    @property
    def told(self) -> int | None:
        return self.context

    def listening(self, width: int | None) -> Self:
        return self.replace(context=width)

    @property
    def attending(self) -> tuple[Part, ...]:
        outer, middle = bool(self.attended), self.middle_attention
        return tuple(part for part, there in (("down", outer), ("middle", middle), ("up", outer)) if there)  # type: ignore[misc]

    @property
    def reuses(self) -> bool:
        return len(self.multipliers) > 1 and not self.last_step

    @model_validator(mode="after")
    def _up_heads_divide(self) -> Self:
        if undivided := [channels for channels in self.attended if channels % (self.up_heads or 1)]:
            raise Problem(f"up_heads is {self.up_heads}: {undivided[0]} channels do not divide by it")
        if len(self.ranges) == 1 or list(self.ranges) != sorted(set(self.ranges)):
            raise Problem(f"ranges are of {len(self.ranges)} times: give two or more, ascending, or none")
        if self.ranges and self.last_step:
            raise Problem("ranges are of one network: last_step asks for two")
        return self

    def build(self) -> UNet | LastStep:
        """The network; what ends its residual branches is zero."""
        return LastStep(self) if self.last_step else UNet(self)


class Stage(nn.Module):
    """A residual block (or a resampling), attention where asked, and at the end of a resolution on the way up a doubling."""

    def __init__(self, block: nn.Module, attention: nn.Module | None = None, resample: nn.Module | None = None) -> None:
        super().__init__()
        self.block, self.attention, self.resample = block, attention, resample

    def forward(
        self,
        x: Tensor,
        emb: Tensor | None,
        gather: Gather | None = None,
        grids: Grids | None = None,
        tokens: Tensor | None = None,
    ) -> Tensor:
        x = self.block(x, emb, grids)
        if self.attention is not None:
            x = self.attention(x, gather, tokens)
        return x if self.resample is None else self.resample(x, emb, grids)


class Builder:
    """Makes the parts of a backbone in the order in which they stand, and remembers what the way down hands over."""

    def __init__(self, config: BackboneConfig, context: int | None = None, told: bool = True) -> None:
        """context: width of the states of a text, for attention that is told one. told: blocks are told an embedding."""
        self.config, self.context = config, context
        self.emb_width = config.emb_width if told else None

    def block(self, channels: int, out_channels: int, direction: Literal["up", "down"] | None = None) -> nn.Module:
        """A residual block, resampling or not."""
        config = self.config
        return ResBlock(
            channels,
            out_channels,
            self.emb_width,
            groups=config.norm_groups,
            eps=config.norm_eps,
            dropout=config.dropout,
            adaptive=config.adaptive_norm,
            direction=direction,
            rescale=config.rescale_residuals,
        )

    def attention(self, channels: int, heads: int | None = None) -> Attention:
        """Attention at a width, with the configured heads unless given others."""
        config = self.config
        heads = heads or config.heads_at(channels)
        return Attention(
            channels,
            heads,
            layout=config.layout,
            groups=config.norm_groups,
            eps=config.norm_eps,
            rescale=config.rescale_residuals,
            context=self.context,
        )

    def resampling(self, channels: int, direction: Literal["up", "down"]) -> nn.Module:
        """A module that doubles or halves height and width between two resolutions."""
        if self.config.resample == "residual":
            return self.block(channels, channels, direction)
        return Resampler(channels, direction, conv=self.config.resample == "conv", one_sided=self.config.one_sided)

    def down(self, stem: int) -> tuple[nn.ModuleList, list[int]]:
        """The encoder's stages, and the channels of the skip connections: the stem's output, then every stage's."""
        stages, handed, channels = nn.ModuleList(), [stem], stem
        for level, (width, depth) in enumerate(zip(self.config.widths, self.config.depths, strict=True)):
            for _ in range(depth):
                attention = self.attention(width) if 2**level in self.config.attention else None
                stages.append(Stage(self.block(channels, width), attention))
                handed.append(channels := width)
            if level + 1 < len(self.config.widths):
                stages.append(Stage(self.resampling(channels, "down")))
                handed.append(channels)
        return stages, handed

    def middle(self) -> nn.ModuleList:
        """Block, attention where asked, block, at the coarsest resolution."""
        width = self.config.widths[-1]
        # In the order in which they stand: a seed's initial weights depend on it.
        first = Stage(self.block(width, width), self.attention(width) if self.config.middle_attention else None)
        return nn.ModuleList([first, Stage(self.block(width, width))])

    def up(self, handed: list[int], heads: int | None) -> nn.ModuleList:
        """The way up, taking what was handed over in the opposite order."""
        stages, handed, channels = nn.ModuleList(), list(handed), self.config.widths[-1]
        for level in reversed(range(len(self.config.widths))):
            width, depth = self.config.widths[level], self.config.depths[level]
            for number in range(depth + 1):
                attention = self.attention(width, heads) if 2**level in self.config.attention else None
                last = number == depth and level > 0
                stages.append(
                    Stage(self.block(channels + handed.pop(), width), attention, self.resampling(width, "up") if last else None)
                )
                channels = width
        return stages


def masking(gather: Mapping[Part, Gather], mask: Tensor) -> dict[Part, Gather]:
    """Attention by part, in which the tokens of a mask bool [B, L] alone count. Replacements that look at no text stay."""
    masked = Masked(mask)
    for each in gather.values():
        if isinstance(each, Watch):
            each.masked = masked
    return {"down": masked, "middle": masked, "up": masked, **gather}


class TimeEmbedding(nn.Module):
    """Sinusoid of the time, then two affine maps."""

    def __init__(self, width: int, out_width: int, closed: bool = False) -> None:
        super().__init__()
        self.width, self.closed = width, closed
        self.linear1, self.linear2 = Linear(width, out_width), Linear(out_width, out_width)

    def forward(self, time: Tensor) -> Tensor:
        """Times [B] to float32 [B, out_width]."""
        out: Tensor = self.linear2(F.silu(self.linear1(timestep_embedding(time, self.width, closed=self.closed))))
        return out


def run(stage: nn.Module, *inputs: Tensor | Gather | Grids | None, checkpointing: bool) -> Tensor:
    """Call a stage, storing its activations or not."""
    storing = not (checkpointing and torch.is_grad_enabled())
    out: Tensor = stage(*inputs) if storing else checkpoint(stage, *inputs, use_reentrant=False)
    return out


class UNet(DenoiserNetwork):
    """See the module's docstring."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        builder, stem = Builder(config, config.context), config.stem or config.widths[0]
        self.time = TimeEmbedding(config.width, config.emb_width, config.closed_frequencies)
        self.stem = Conv2d(config.in_channels, stem, 3, padding=1)
        # A stem of its own, so that the network begins as one without coordinates, and goes on from the weights of one.
        self.coordinates = zero(Conv2d(2, stem, 3, padding=1)) if config.coordinates else None
        self.down, handed = builder.down(stem)
        self.middle = builder.middle()
        self.up = builder.up(handed, config.up_heads)
        self.norm = GroupNorm(config.widths[0], config.norm_groups, config.norm_eps)
        self.head = zero(Conv2d(config.widths[0], config.out_channels, 3, padding=1))
        for number, block in enumerate(self.blocks):
            block.number = number
        if config.ranges:
            self.register_buffer("ranges", torch.ones(len(self.blocks), 2, len(config.ranges)))

    @property
    def blocks(self) -> list[ResBlock]:
        """The residual blocks, in their order."""
        return [module for module in self.modules() if isinstance(module, ResBlock)]

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        emb: Tensor | None = None,
        dtype: torch.dtype | None = None,
        gather: Mapping[Part, Gather] | None = None,
        kept: Kept | None = None,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Predict from a noisy picture; see `DenoiserNetwork.forward`. Deep are all resolutions but the finest.

        In 8 bits where there is no gradient.
        """
        assert (tokens is None) == (self.config.context is None), "a network is told a text exactly if it takes one"
        gather = gather if mask is None else masking(gather or {}, mask)
        if dtype == torch.int8:
            if not torch.is_grad_enabled():
                return self._in_8_bits(x, time, emb, gather, kept, tokens)
            dtype = between()
        return self._forward(x, time, emb, dtype, gather, kept, tokens)

    def _in_8_bits(
        self,
        x: Tensor,
        time: Tensor,
        emb: Tensor | None,
        gather: Mapping[Part, Gather] | None,
        kept: Kept | None,
        tokens: Tensor | None,
    ) -> Tensor:
        """Predict pictures of the same time together, since ranges depend on it."""
        times = time.unique()
        if len(times) == 1:
            return self._forward(x, time, emb, between(), gather, kept, tokens, self._grids(float(times)))
        assert gather is None and kept is None, "attention is replaced, and features are kept, in pictures of one time"
        out = x.new_empty(len(x), self.config.out_channels, *x.shape[2:])
        for each in times:
            rows = time == each
            of_emb, of_text = (None if given is None else given[rows] for given in (emb, tokens))
            out[rows] = self._in_8_bits(x[rows], time[rows], of_emb, None, None, of_text)
        return out

    def _grids(self, time: float) -> Grids:
        """The grids at a time, from ranges linear between those that are known."""
        known, ranges = self.config.ranges, self.get_buffer("ranges")
        after = min(max(bisect.bisect(known, time), 1), len(known) - 1)
        low, high = known[after - 1], known[after]
        share = min(max((time - low) / (high - low), 0.0), 1.0)
        here = ranges[..., after - 1].lerp(ranges[..., after], share)
        return [(Grid.to(first), Grid.to(second)) for first, second in here.tolist()]

    def _forward(
        self,
        x: Tensor,
        time: Tensor,
        emb: Tensor | None,
        dtype: torch.dtype | None,
        gather: Mapping[Part, Gather] | None,
        kept: Kept | None,
        tokens: Tensor | None,
        grids: Grids | None = None,
    ) -> Tensor:
        gather = gather or {}
        finest = len(self.up) if kept is None else self.config.depths[0] + 1
        down, ups = [*self.down], [*self.up]
        e = self.time(time)
        e = F.silu(e if emb is None else e + emb).to(dtype or x.dtype)
        h = self.stem(x.to(dtype=dtype or x.dtype, memory_format=torch.channels_last))
        if self.coordinates is not None:
            h = h + self.coordinates(_coordinates(h))
        handed = [h]
        tokens = None if tokens is None else tokens.to(h.dtype)

        def through(stage: nn.Module, h: Tensor, part: Part) -> Tensor:
            return run(stage, h, e, gather.get(part), grids, tokens, checkpointing=self.config.checkpointing)

        def up(stages: Sequence[nn.Module], h: Tensor) -> Tensor:
            for stage in stages:
                h = torch.cat([h, handed.pop()], dim=1)  # by itself, so that what was joined is not kept while the stage runs
                h = through(stage, h, "up")
            return h

        for stage in down[: finest - 1]:
            handed.append(h := through(stage, h, "down"))
        if kept is None or kept.deep is None:
            for stage in down[finest - 1 :]:
                handed.append(h := through(stage, h, "down"))
            for stage in self.middle:
                h = through(stage, h, "middle")
            h = up(ups[:-finest], h)
            if kept is not None:
                kept.deep = h
        else:
            h = kept.deep
        h = up(ups[-finest:], h)
        # The last convolution is kept in float32: it has few channels, and its rounding would be seen in the picture.
        out: Tensor = self.head(self.norm(h, silu=True, wide=True))
        return out

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return self.down, self.middle, self.up

    def lower(self, dtype: torch.dtype) -> None:
        for part in (self.stem, *([] if self.coordinates is None else [self.coordinates]), *self.hidden):
            lower(part, between() if dtype == torch.int8 else dtype)
        if dtype == torch.int8:
            for block in self.blocks:
                block.pack()


def _coordinates(h: Tensor) -> Tensor:
    """x and y of each place of a map [B, C, H, W], from −1 to 1: [1, 2, H, W]."""
    y, x = (torch.linspace(-1, 1, size, device=h.device, dtype=h.dtype) for size in h.shape[2:])
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]


class LastStep(DenoiserNetwork):
    """Two U-Nets of the same settings: one for the last step of a chain, at network time 0, the other for all steps before."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.first, self.last = UNet(config), UNet(config)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        emb: Tensor | None = None,
        dtype: torch.dtype | None = None,
        gather: Mapping[Part, Gather] | None = None,
        kept: Kept | None = None,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Predict from a noisy picture; see `DenoiserNetwork.forward`. In a batch of several times, rows go to their network."""
        ends = time == 0
        if ends.all() or not ends.any():
            network = self.last if bool(ends.all()) else self.first
            out: Tensor = network(x, time, emb, dtype, gather, kept, tokens, mask)
            return out
        assert gather is None, "attention is replaced in pictures of one time"
        out = x.new_empty(len(x), self.config.out_channels, *x.shape[2:])
        for rows in (ends, ~ends):
            given = (None if each is None else each[rows] for each in (emb, tokens, mask))
            of_emb, of_text, of_mask = given
            out[rows] = self(x[rows], time[rows], of_emb, dtype, None, None, of_text, of_mask)
        return out

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return *self.first.hidden, *self.last.hidden

    def lower(self, dtype: torch.dtype) -> None:
        for network in (self.first, self.last):
            network.lower(dtype)
