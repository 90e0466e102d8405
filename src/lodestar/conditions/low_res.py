"""A smaller picture as a condition, enlarged to the size of the output and concatenated as further planes.

ADM, section 5.1 and Improved DDPM, appendix C: a diffusion model of large pictures conditional on the small one throughout. In
training the small picture is made of the large one by a degradation. With conditioning augmentation (Ho et al. 2022, cascaded
diffusion) it also has noise of a random level, told to the network, which learns to mend the faults of generated pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from lodestar.conditions.ask import Ask
from lodestar.conditions.base import Condition, Encoder, Fields
from lodestar.conditions.signals import Signals, enlarged
from lodestar.config import Problem, Side
from lodestar.degradations import AnyDegradation, Area
from lodestar.degradations.base import area
from lodestar.nets.layers import zero
from lodestar.nets.unet import TimeEmbedding


def beside(x: Tensor, planes: Tensor) -> Tensor:
    """Input of the network [B, C + P, H, W]: x [B, C, H, W], then planes [B, P, h, w], enlarged."""
    return torch.cat([x, enlarged(planes, x.shape[-2:])], dim=1)


class LowRes(Condition):
    """A picture to be enlarged, provided by an edit, not by an ask."""

    kind: Literal["low_res"] = "low_res"
    size: tuple[Side, Side]
    """Height and width of the small picture."""
    degradation: AnyDegradation = Area()
    """Degradation of large pictures to small ones, in training."""
    augment: float = Field(default=0.0, ge=0, le=1)
    """Largest noise level of the small picture in training, the noise's standard deviation; the network is told each picture's.
    0: no noise, and no level is told."""
    tells: Literal["level", "logsnr"] = "level"
    """Form of the told noise level: itself, or log(α²/σ²), in which small levels differ more (Imagen)."""
    enlarging: Literal["bilinear", "bicubic"] = "bilinear"
    """Enlargement to the size of the output; bicubic is that of a = −0.5 (Karlo's)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.augment and self.enlarging == "bicubic":
            raise Problem(
                "enlarging 'bicubic' cuts values off where pictures end, and with augment they have noise: take 'bilinear'"
            )
        return self

    @property
    def optional(self) -> bool:
        return False

    def planes(self, channels: int) -> int:
        return channels

    def build(self, width: int) -> LowResEncoder:
        return LowResEncoder(width if self.augment else None, self.tells == "logsnr")

    def asked(self, asks: Sequence[Ask]) -> tuple[Tensor, Tensor | None]:
        raise AssertionError("pictures are handed over, not asked for")

    def seen(self, fields: Fields, x0: Tensor) -> Tensor:
        """The small pictures as `noised` has them: those of `fields`, made in training, else clean means over areas."""
        made = fields.get("low_res")
        small = made if isinstance(made, Tensor) else self.noised(area(x0, self.size))
        return small if self.enlarging == "bilinear" else self.enlarge(small, x0.shape[2:])

    def noised(self, small: Tensor, level: Tensor | None = None, eps: Tensor | None = None) -> Tensor:
        """Small pictures [B, C, h, w] for the encoder: with noise eps at levels [B], each told by a further plane.

        Variances are preserved: √(1 − level²)·small + level·eps. None is no noise. Without augmentation, pictures as they are.
        """
        if not self.augment:
            return small
        level = small.new_zeros(len(small)) if level is None else level
        told = level.to(small)[:, None, None, None]
        seen = small if eps is None else (1 - told.square()).sqrt() * small + told * eps
        return torch.cat([seen, told.expand_as(seen[:, :1])], dim=1)

    def enlarge(self, small: Tensor, size: Sequence[int]) -> Tensor:
        """Small pictures [B, C, h, w] enlarged to a height and width."""
        if self.enlarging == "bilinear":
            return enlarged(small, size)
        large: Tensor = F.interpolate(small.clamp(-1, 1), size=tuple(size), mode="bicubic", antialias=True)
        return large


_SCALE = 1000.0
"""Times of a level's embedding for levels from 0 to 1, as of chains."""
_WIDEST = 20.0
"""Largest log-SNR that is told, and the least is its negative."""


class LowResEncoder(Encoder):
    """The small picture as planes, beside x at the network's input; its noise level as an embedding, if there is one."""

    def __init__(self, width: int | None = None, logsnr: bool = False) -> None:
        """width: of the network's embeddings, for pictures with noise. logsnr: tell log-SNRs, and not levels."""
        super().__init__()
        self.logsnr = logsnr
        self.level = None if width is None else TimeEmbedding(max(width // 4, 2), width)
        if self.level is not None:
            # At first, a network that knows no levels is not changed by them.
            zero(self.level.linear2)

    def forward(self, given: Tensor, keep: Tensor | None = None) -> Signals:
        """The signals of small pictures as `LowRes.noised` has them, float32 [B, C, h, w], or [B, C + 1, h, w] with levels."""
        if self.level is None:
            return Signals(planes=given)
        level = given[:, -1, 0, 0]
        return Signals(self.level(_SCALE * (_in_logsnr(level) if self.logsnr else level)), given[:, :-1])

    def null(self, count: int) -> Signals:
        raise AssertionError("an upsampler has to have a picture")


def _in_logsnr(level: Tensor) -> Tensor:
    """Levels as their log-SNR, evenly from 0 (clean) to 1 (noise); float32."""
    variance = level.double().square()
    logsnr = ((1 - variance).log() - variance.log()).clamp(-_WIDEST, _WIDEST)
    return (0.5 - logsnr / (2 * _WIDEST)).to(level)
