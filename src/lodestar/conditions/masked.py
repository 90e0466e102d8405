"""A picture with parts masked out as a condition, beside x as further planes (GLIDE, section 2.4, Nichol et al. 2022).

A network so conditioned fills in what is masked. Without a picture everything is masked, and it makes pictures of nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lodestar.conditions.ask import Ask
from lodestar.conditions.base import Condition, Encoder, Fields
from lodestar.conditions.signals import Signals


class Masked(Condition):
    """The known part of a picture, provided by an edit, not by an ask."""

    kind: Literal["masked"] = "masked"

    @property
    def optional(self) -> bool:
        return False

    def planes(self, channels: int) -> int:
        return channels + 1

    def build(self, width: int) -> MaskedEncoder:
        return MaskedEncoder()

    def asked(self, asks: Sequence[Ask]) -> tuple[Tensor, Tensor | None]:
        raise AssertionError("pictures are handed over, not asked for")

    def seen(self, fields: Fields, x0: Tensor) -> Tensor:
        """The pictures with their known places, drawn in training: `fields` has a mask bool [B, 1, H, W], True where unknown."""
        mask = fields["mask"]
        assert isinstance(mask, Tensor), "a mask is no text"
        return known(x0, mask.to(x0.device))


def known(x0: Tensor, mask: Tensor) -> Tensor:
    """Planes [B, C + 1, H, W]: pictures [B, C, H, W], 0 where masked, then 1 where known.

    mask: bool, broadcast over [B, 1, H, W], True where masked.
    """
    seen = (~mask).to(x0).expand(len(x0), 1, *x0.shape[2:])
    return torch.cat([x0 * seen, seen], dim=1)


class MaskedEncoder(Encoder):
    """The known part as planes, beside x at the network's input."""

    def forward(self, given: Tensor, keep: Tensor | None = None) -> Signals:
        """The signals of known parts, float32 [B, C + 1, H, W]; see `known`."""
        return Signals(planes=given)

    def null(self, count: int) -> Signals:
        raise AssertionError("guidance drops the text, and not the picture")
