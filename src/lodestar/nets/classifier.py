"""The classifier of noised pictures: the downward half of the U-Net and a pool (ADM, section 4 and table 11)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from lodestar.config import CLASSES, Side
from lodestar.nets.attention import AttentionPool
from lodestar.nets.base import Network
from lodestar.nets.layers import Conv2d, GroupNorm, Linear, lower, zero
from lodestar.nets.unet import BackboneConfig, Builder, TimeEmbedding, run

Pool = Literal["adaptive", "attention", "spatial", "spatial_v2"]
"""adaptive: mean over places, then an affine map. attention: CLIP's pool. spatial: the means of every stage, through two affine
maps with a ReLU between them; spatial_v2: the same with a norm and SiLU."""

SPATIAL_WIDTH = 2048
"""Hidden width of the spatial pools, as published."""


class ClassifierConfig(BackboneConfig):
    """A classifier of pictures at a noise level."""

    kind: Literal["classifier"] = "classifier"
    classes: int = Field(default=10, ge=1, le=CLASSES)
    pool: Pool = "attention"
    size: tuple[Side, Side] = (32, 32)
    """Height and width of the pictures; the attention pool has a vector for every place of its map."""

    @model_validator(mode="after")
    def _size_divides(self) -> Self:
        self.check_size(self.size)
        return self

    def build(self) -> Classifier:
        return Classifier(self)


class Classifier(Network):
    """Logits of classes of a noised picture."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        builder, stem = Builder(config), config.widths[0]
        self.time = TimeEmbedding(config.width, config.emb_width, config.closed_frequencies)
        self.stem = Conv2d(config.in_channels, stem, 3, padding=1)
        self.down, handed = builder.down(stem)
        self.middle = builder.middle()
        channels, total = config.widths[-1], sum(handed) + config.widths[-1]
        normed = config.pool in ("adaptive", "attention")
        self.norm = GroupNorm(channels, config.norm_groups, config.norm_eps) if normed else None
        match config.pool:
            case "adaptive":
                self.head: nn.Module = zero(Linear(channels, config.classes))
            case "attention":
                height, width = (side // config.divisor for side in config.size)
                head_channels = config.head_channels or channels // config.heads_at(channels)
                self.head = AttentionPool(height * width, channels, head_channels, config.classes)
            case "spatial":
                self.head = nn.Sequential(Linear(total, SPATIAL_WIDTH), nn.ReLU(), Linear(SPATIAL_WIDTH, config.classes))
            case "spatial_v2":
                self.head = nn.Sequential(
                    Linear(total, SPATIAL_WIDTH), GroupNorm(SPATIAL_WIDTH, 32), nn.SiLU(), Linear(SPATIAL_WIDTH, config.classes)
                )

    def features(self, x: Tensor, time: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Input of the pool. x: float32 [B, C, H, W]; time: [B].

        Returns float32: [B, channels, H', W'] for the adaptive and attention pools, [B, total] for the spatial ones.
        """
        return self._pooled(self._stages(x, time, dtype), x.dtype)

    def maps(self, x: Tensor, time: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Input of the pool, and the last map of every resolution, the finest first, float32 [B, channels, H', W']."""
        stages = list(self._stages(x, time, dtype))
        last = {h.shape[-2:]: h for h in stages}
        return self._pooled(stages, x.dtype), tuple(h.to(x.dtype) for h in last.values())

    def _stages(self, x: Tensor, time: Tensor, dtype: torch.dtype | None) -> Iterator[Tensor]:
        """Maps behind the stem and every stage."""
        e = F.silu(self.time(time)).to(dtype or x.dtype)
        h = self.stem(x.to(dtype=dtype or x.dtype, memory_format=torch.channels_last))
        yield h
        for stage in [*self.down, *self.middle]:
            h = run(stage, h, e, checkpointing=self.config.checkpointing)
            yield h

    def _pooled(self, stages: Iterable[Tensor], dtype: torch.dtype) -> Tensor:
        """Input of the pool, of the maps of all stages."""
        if self.norm is None:
            means = [h.mean(dim=(2, 3)) for h in stages]
            # All but the first half of the middle, as published.
            return torch.cat([*means[:-2], means[-1]], dim=-1).to(dtype)
        (last,) = deque(stages, maxlen=1)
        out: Tensor = self.norm(last, silu=True, wide=True)
        return out

    def classify(self, features: Tensor) -> Tensor:
        """Logits, float32 [B, classes], of what `features` returned."""
        out: Tensor = self.head(features.mean(dim=(2, 3)) if self.config.pool == "adaptive" else features)
        return out

    def forward(self, x: Tensor, time: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Logits, float32 [B, classes]."""
        return self.classify(self.features(x, time, dtype))

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return self.down, self.middle

    def lower(self, dtype: torch.dtype) -> None:
        for part in (self.stem, *self.hidden):
            lower(part, dtype)
