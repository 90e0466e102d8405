"""3×3 convolution by Winograd's minimal filtering F(4×4, 3×3) (Lavin and Gray 2016, arXiv:1509.09308, section 4).

Every 4×4 tile of the output needs 36 multiplications a channel pair instead of 144: Y = Aᵀ[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)]A, in which the
products over channels are 36 matrix products. It can pay on CPUs in float32, where libraries convolve directly and arithmetic is
what takes the time; GPUs and processors with matrix tiles have faster ways. Whether it does depends on the processor: it is used
for the shapes in `wins`. The result is that of the direct convolution but for
rounding: a relative error of about 2e-6 where the direct one has 5e-7.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _exact(rows: list[list[int]]) -> Tensor:
    """A matrix on the CPU, whatever the default device at import."""
    return torch.tensor(rows, dtype=torch.float64, device="cpu")


_B = _exact([
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
])  # fmt: skip
_G = _exact([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_A = _exact([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
# Both dimensions at once: [36, 36], [36, 9] and [16, 36].
_INPUT, _KERNEL, _OUTPUT = (torch.kron(each, each).float() for each in (_B, _G, _A))

wins: frozenset[tuple[int, int]] = frozenset()
"""Channels and size of the classes of shapes in which Winograd's convolution is faster here; `lodestar.nets.probe` measures."""
CHANNELS = 128
"""Least number of channels, in and out, for a gain: with fewer, the transforms cost as much as the products save."""
TILES = 128
"""Fewest tiles in a batch at which it pays; a quarter of the channels at least: the kernel's transform is spread over them."""
_CACHED = 2**21
"""Bytes of transformed input that are worked on at once, about what a core's own cache holds."""


def fits(x: Tensor, weight: Tensor) -> bool:
    """True if x [B, C, H, W] can be convolved so with a kernel [O, C, 3, 3], wide enough to be worth the transforms."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or x.shape[2] % 4 or x.shape[3] % 4:
        return False
    tiles = len(x) * (x.shape[2] // 4) * (x.shape[3] // 4)
    return min(weight.shape[:2]) >= CHANNELS and tiles >= max(TILES, max(weight.shape[:2]) / 4)


def pays(x: Tensor, weight: Tensor) -> bool:
    """True if the convolution of x [B, C, H, W] with a kernel [O, C, 3, 3] fits, and its class of shapes is one of `wins`."""
    if not wins or torch.is_grad_enabled() or not fits(x, weight):
        return False
    channels, size = min(weight.shape[:2]), min(x.shape[2:])
    return any(channels >= least and size <= most for least, most in wins)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of x [B, C, H, W] (H and W multiples of 4) with [O, C, 3, 3], stride 1, padding 1, plus bias [O].

    Channels-last, in and out: the channels of a pixel are gathered and scattered as one piece.
    """
    batch, channels, height, width = x.shape
    outputs, down, across = len(weight), height // 4, width // 4
    kernel = (_KERNEL @ weight.permute(2, 3, 0, 1).reshape(9, -1)).view(36, outputs, channels).transpose(1, 2)
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    image, row, column, _ = padded.stride()
    answer = x.new_empty(batch, height, width, outputs)
    at_once = max(1, _CACHED // (down * across * channels * 36 * x.element_size()))
    for first in range(0, batch, at_once):
        part = padded[first : first + at_once]
        count = len(part)
        shape, strides = (6, 6, count, down, across, channels), (row, column, image, 4 * row, 4 * column, 1)
        tiles = part.as_strided(shape, strides, part.storage_offset()).reshape(36, -1)
        products = torch.bmm((_INPUT @ tiles).view(36, -1, channels), kernel)
        pixels = (_OUTPUT @ products.view(36, -1)).view(4, 4, count, down, across, outputs).permute(2, 3, 0, 4, 1, 5)
        place = answer[first : first + at_once].view(count, down, 4, across, 4, outputs)
        if bias is None:
            place.copy_(pixels)
        else:
            torch.add(pixels, bias, out=place)
    return answer.permute(0, 3, 1, 2)
