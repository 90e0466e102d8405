"""Dropout with a mask per picture, independent of the rest of the batch.

The mask of a value is a hash of the run's key, the layer, the picture's number and the place. So pieces of a batch, and processes
that share a batch, drop the same values as the whole batch, and a repeated pass (gradient checkpointing) drops the same again.
The hash is SplitMix64's (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LANES = 2**16
"""Each hash of 64 bits decides four values: a probability is a multiple of 1/65,536."""


class Dropout(nn.Module):
    """Zeroes each value with probability p in training, and divides the others by what is left of it.

    The mask comes from torch's own generator, as that of `nn.Dropout`, until `number` says whose pictures these are.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.layer = p, 0
        self.whose: Tensor | None = None
        """See `number`."""

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, ...]; returns the same shape."""
        if not self.training or self.p == 0:
            return x
        if self.whose is None:
            return F.dropout(x, self.p)
        threshold = round(self.p * _LANES)
        kept = _noise(self.whose, self.layer, x.shape) >= threshold - _LANES // 2
        return x * (kept.to(x.dtype) * (_LANES / (_LANES - threshold)))


def number(module: nn.Module, device: torch.device) -> Tensor:
    """Have the dropout layers of a module drop by the numbers of pictures.

    Returns the int64 tensor [2] on `device` in which they read, in every pass, a key of the run and the number of the batch's
    first picture: whoever calls the module writes them there.
    """
    whose = torch.zeros(2, dtype=torch.int64, device=device)
    for index, layer in enumerate(each for each in module.modules() if isinstance(each, Dropout)):
        layer.whose, layer.layer = whose, index
    return whose


def _noise(whose: Tensor, layer: int, shape: torch.Size) -> Tensor:
    """int16 of `shape` [B, C, ...], each of its 65,536 values as likely."""
    values = math.prod(shape[1:])
    # Counters are added alone: PyTorch 2.13's compiler writes beyond its memory where one is multiplied by a number of 64 bits.
    pictures, words = (torch.arange(count, device=whose.device) for count in (shape[0], -(-values // 4)))
    first = hashed(whose[:1] + layer) + whose[1:]
    bits = hashed(hashed(first + pictures)[:, None] + words)
    # Channels last, as networks keep their values, so that the product with them walks through memory in one order.
    noise = bits.view(torch.int16)[:, :values].view(shape[0], *shape[2:], shape[1])
    return noise.movedim(-1, 1)


def hashed(number: Tensor) -> Tensor:
    """SplitMix64's hash of each number; int64, which wraps as the unsigned numbers of the paper do."""
    number = (number ^ ((number >> 30) & (2**34 - 1))) * (0xBF58476D1CE4E5B9 - 2**64)
    number = (number ^ ((number >> 27) & (2**37 - 1))) * (0x94D049BB133111EB - 2**64)
    return number ^ ((number >> 31) & (2**33 - 1))
