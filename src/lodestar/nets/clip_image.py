"""Image towers of CLIP (Radford et al. 2021, section 2.4): a vision transformer and a modified ResNet, noise-aware or not."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lodestar.config import TIMESTEPS, Channels, Kinds, Problem, Side
from lodestar.nets.attention import AttentionPool
from lodestar.nets.base import Network, NetworkConfig
from lodestar.nets.blocks import Activation, LayerNorm, blocks, learned
from lodestar.nets.layers import Conv2d, Linear, zero
from lodestar.nets.unet import TimeEmbedding

Layers = Annotated[int, Field(ge=1, le=1_000)]
"""Number of blocks."""
MAPS = 4
"""Number of maps of a vision transformer, after equal parts of its blocks."""


class ImageTower(Network):
    """An image tower."""

    @abc.abstractmethod
    def forward(self, x: Tensor, time: Tensor | None, dtype: torch.dtype, maps: bool = True) -> tuple[Tensor, list[Tensor]]:
        """Embedding float32 [B, E], and feature maps float32 [B, C, H', W'], the finest first; none unless `maps`.

        x: float32 [B, C, H, W], normalised. time: network times [B], of noise-aware towers. dtype: precision of the torso.
        """


class ImageTowerConfig(NetworkConfig, abc.ABC):
    """An image tower."""

    size: tuple[Side, Side] = (224, 224)
    """Height and width of the pictures."""
    embed: Channels = 512
    """Width of the embedding."""

    @property
    @abc.abstractmethod
    def noised(self) -> bool:
        """True if it is told the noise level."""

    @abc.abstractmethod
    def build(self) -> ImageTower:
        """The tower, its weights random."""


class ViTConfig(ImageTowerConfig):
    """A vision transformer. Its head width is 64 in all published models."""

    silent: ClassVar[tuple[str, ...]] = ("heads", "activation")

    kind: Literal["vit"] = "vit"
    patch: Annotated[int, Field(ge=1, le=1_024)] = 32
    """Height and width of a patch in pixels."""
    width: Channels = 768
    layers: Layers = 12
    heads: Annotated[int, Field(ge=1, le=1_024)] = 12
    activation: Activation = "quick_gelu"
    key_bias: bool = True
    time: Literal["none", "table", "sinusoid"] = "none"
    """Noise level: not told; a vector for each step of the chain in the place of the class token (GLIDE); or a sinusoid through
    two affine maps added to the class token, zero at first, so that a clean tower can be trained on."""
    timesteps: Annotated[int, Field(ge=1, le=TIMESTEPS)] = 1_000
    """Number of vectors in the table."""

    @property
    def divisor(self) -> int:
        return self.patch

    @property
    def noised(self) -> bool:
        return self.time != "none"

    @property
    def summary(self) -> str:
        return f"vision transformer: patches of {self.patch}, width {self.width}, {self.layers} blocks of {self.heads} heads"

    def build(self) -> ViT:
        self.check_size(self.size)
        if self.width % self.heads:
            raise Problem(f"width is {self.width}: it has to be a multiple of {self.heads} heads")
        return ViT(self)


class ViT(ImageTower):
    """A vision transformer."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        width, deviation = config.width, config.width**-0.5
        self.patch = Conv2d(config.in_channels, width, config.patch, stride=config.patch, bias=False)
        rows = config.timesteps if config.time == "table" else 1
        self.start = learned(rows, width, deviation=deviation)
        self.time = TimeEmbedding(width, width) if config.time == "sinusoid" else None
        if self.time is not None:
            zero(self.time.linear2)
        self.grid = (config.size[0] // config.patch, config.size[1] // config.patch)
        self.position = learned(self.grid[0] * self.grid[1] + 1, width, deviation=deviation)
        self.norm1 = LayerNorm(width)
        self.blocks = blocks(width, config.layers, config.heads, config.activation, config.key_bias)
        self.norm2 = LayerNorm(width)
        self.out = Linear(width, config.embed, bias=False)
        nn.init.normal_(self.out.weight, std=deviation)

    def forward(self, x: Tensor, time: Tensor | None, dtype: torch.dtype, maps: bool = True) -> tuple[Tensor, list[Tensor]]:
        h = self._patches(x.to(dtype))
        h = torch.cat([self._start(len(x), time).to(dtype)[:, None], h], dim=1) + self.position.to(dtype)
        h = self.norm1(h)
        seen, count = [], len(self.blocks)
        last = {round(count * part / MAPS) for part in range(1, MAPS + 1)} if maps else set()
        for number, block in enumerate(self.blocks, start=1):
            h = block(h, first=not maps and number == count)
            if number in last:
                seen.append(h[:, 1:].transpose(1, 2).unflatten(2, self.grid).float())
        out: Tensor = self.out(self.norm2(h[:, 0].float()))
        return out, seen

    def _patches(self, x: Tensor) -> Tensor:
        """Embedded patches [B, places, width] of x [B, C, H, W]: the convolution, by a product, whose backward pass is faster."""
        side = self.config.patch
        places = x.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return F.linear(places, self.patch.weight.flatten(1).to(x.dtype))

    def _start(self, batch: int, time: Tensor | None) -> Tensor:
        """The first token [B, width] of every picture."""
        start = self.start.float()
        if not self.config.noised:
            return start.expand(batch, -1)
        assert time is not None, "a noise-aware tower is told the time"
        if self.time is not None:
            told: Tensor = self.time(time)
            return start + told
        # Between two steps of the chain, between their vectors.
        time = time.clamp(0, len(start) - 1)
        below = time.long()
        return torch.lerp(start[below], start[(below + 1).clamp(max=len(start) - 1)], (time - below)[:, None].float())

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return (self.blocks,)

    def lower(self, dtype: torch.dtype) -> None:
        for part in (self.patch, self.blocks):
            part.to(dtype)


class ResNetConfig(ImageTowerConfig):
    """CLIP's ResNet: three convolutions in front, averages before strides, attention as the pool. Its head width is 64."""

    kind: Literal["resnet"] = "resnet"
    width: Annotated[int, Field(ge=2, le=1_024)] = 64
    layers: tuple[Layers, Layers, Layers, Layers] = (3, 4, 6, 3)
    time: Literal["none", "sinusoid"] = "none"
    """Noise level: not told, or a scale and a shift of every stage's channels, one and zero at first."""

    @property
    def divisor(self) -> int:
        return 32

    @property
    def noised(self) -> bool:
        return self.time != "none"

    @property
    def summary(self) -> str:
        return f"CLIP's ResNet: width {self.width}, {', '.join(map(str, self.layers))} blocks"

    def build(self) -> ResNet:
        self.check_size(self.size)
        if self.width % 2:
            raise Problem(f"width is {self.width}: it has to be even")
        return ResNet(self)


class BatchNorm(nn.Module):
    """Batch normalisation, computed in float32; unlike PyTorch's it counts no batches."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.batch_norm(x.float(), self.running_mean, self.running_var, self.weight, self.bias, self.training)
        return y.to(x.dtype)


class Bottleneck(nn.Module):
    """A residual block of three convolutions, with an average in the place of a stride."""

    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1, self.norm1 = Conv2d(channels, inner, 1, bias=False), BatchNorm(inner)
        self.conv2, self.norm2 = Conv2d(inner, inner, 3, padding=1, bias=False), BatchNorm(inner)
        self.conv3, self.norm3 = Conv2d(inner, 4 * inner, 1, bias=False), BatchNorm(4 * inner)
        nn.init.zeros_(self.norm3.weight)
        resized = stride > 1 or channels != 4 * inner
        self.skip = Conv2d(channels, 4 * inner, 1, bias=False) if resized else None
        self.skip_norm = BatchNorm(4 * inner) if resized else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        h = F.relu(self.norm2(self.conv2(h)))
        if self.stride > 1:
            h, x = F.avg_pool2d(h, self.stride), F.avg_pool2d(x, self.stride)
        if self.skip is not None and self.skip_norm is not None:
            x = self.skip_norm(self.skip(x))
        return F.relu(x + self.norm3(self.conv3(h)))


class ResNet(ImageTower):
    """CLIP's ResNet."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv1, self.norm1 = Conv2d(config.in_channels, width // 2, 3, stride=2, padding=1, bias=False), BatchNorm(width // 2)
        self.conv2, self.norm2 = Conv2d(width // 2, width // 2, 3, padding=1, bias=False), BatchNorm(width // 2)
        self.conv3, self.norm3 = Conv2d(width // 2, width, 3, padding=1, bias=False), BatchNorm(width)
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in self._stages())
        channels = 32 * width
        height, wide = (side // 32 for side in config.size)
        self.pool = AttentionPool(height * wide, channels, min(64, channels), config.embed)
        nn.init.normal_(self.pool.qkv.weight, std=channels**-0.5)
        self.time = TimeEmbedding(width, 4 * width) if config.noised else None
        inner = [4 * width * 2**number for number in range(4)] if config.noised else []
        self.film = nn.ModuleList(zero(Linear(4 * width, 2 * each)) for each in inner)

    def _stages(self) -> Iterator[list[Bottleneck]]:
        channels = self.config.width
        for number, depth in enumerate(self.config.layers):
            inner, stride = self.config.width * 2**number, 1 if number == 0 else 2
            yield [Bottleneck(channels if k == 0 else 4 * inner, inner, stride if k == 0 else 1) for k in range(depth)]
            channels = 4 * inner

    def forward(self, x: Tensor, time: Tensor | None, dtype: torch.dtype, maps: bool = True) -> tuple[Tensor, list[Tensor]]:
        h = x.to(dtype=dtype, memory_format=torch.channels_last)
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2), (self.conv3, self.norm3)):
            h = F.relu(norm(conv(h)))
        h = F.avg_pool2d(h, 2)
        emb = None
        if self.time is not None:
            assert time is not None, "a noise-aware tower is told the time"
            emb = F.silu(self.time(time))
        seen = []
        for number, stage in enumerate(self.stages):
            h = stage(h)
            if emb is not None:
                scale, shift = self.film[number](emb)[:, :, None, None].to(dtype).chunk(2, dim=1)
                h = torch.addcmul(shift, h, 1 + scale)
            if maps:
                seen.append(h.float())
        out: Tensor = self.pool(h.float())
        return out, seen

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return self.conv2, self.conv3, self.stages

    def lower(self, dtype: torch.dtype) -> None:
        for module in self.modules():
            if isinstance(module, Conv2d):
                module.to(dtype)


KINDS = Kinds(ViTConfig, ResNetConfig)
AnyImageTower = Annotated[ImageTowerConfig, KINDS]
