"""Inception-v3 for FID, Inception score, precision and recall: TensorFlow's graph of 2015-12-05.

Szegedy et al. 2016, arXiv:1512.00567, figures 5, 6, 7 and 10. Differences from today's usual network: local means leave out the
padding, the last block takes a local maximum, there are 1008 classes, and logits have no bias. Parameters are named as in the
weights' port (``pt_inception-2015-12-05-6726825d.pth``), so they load unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 299
"""Height and width of the pictures that it sees."""
FEATURES = 2048
CLASSES = 1008

Kernel = int | tuple[int, int]
Step = tuple[int, Kernel] | tuple[int, Kernel, Kernel]
"""A convolution's width and kernel; with a second kernel, two side by side, both of this width."""


class Convolution(nn.Module):
    """Convolution without a bias, norm with fixed statistics, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, stride: int = 1, *, same: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding="same" if same else 0, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H', W']."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Mixed(nn.Module):
    """Paths of convolutions side by side, and a pool, joined along the channels."""

    def __init__(
        self,
        inputs: int,
        paths: Mapping[str, Sequence[Step]],
        pool: Literal["mean", "max", "halve"] = "mean",
        pooled: int = 192,
    ) -> None:
        """pool: the mean or the maximum around a place, passed on in `pooled` channels; or the map and its maximum halved."""
        super().__init__()
        self.pool, self.outputs = pool, inputs if pool == "halve" else pooled
        self._paths: list[list[tuple[str, ...]]] = []
        for path, steps in paths.items():
            width, names = inputs, []
            for number, (outputs, *kernels) in enumerate(steps, start=1):
                name = path if len(steps) == 1 else f"{path}_{number}"
                forks = [name] if len(kernels) == 1 else [f"{name}{letter}" for letter in "ab"]
                halve = pool == "halve" and number == len(steps)
                for fork, kernel in zip(forks, kernels, strict=True):
                    self.add_module(fork, Convolution(width, outputs, kernel, 2 if halve else 1, same=not halve))
                width = outputs * len(forks)
                names.append(tuple(forks))
            self._paths.append(names)
            self.outputs += width
        if pool != "halve":
            self.branch_pool = Convolution(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H', W']."""
        return torch.cat([*(self._follow(path, x) for path in self._paths), self._pooled(x)], 1)

    def _follow(self, path: Sequence[tuple[str, ...]], x: Tensor) -> Tensor:
        for forks in path:
            x = torch.cat([self.get_submodule(fork)(x) for fork in forks], 1)
        return x

    def _pooled(self, x: Tensor) -> Tensor:
        match self.pool:
            case "halve":
                return F.max_pool2d(x, 3, 2)
            case "max":
                pooled = F.max_pool2d(x, 3, 1, padding=1)
            case _:
                pooled = F.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)
        out: Tensor = self.branch_pool(pooled)
        return out


class Inception(nn.Module):
    """Features, spatial features and logits of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2, same=False)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, same=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, same=False)
        double: list[Step] = [(64, 1), (96, 3), (96, 3)]
        width = 192
        for letter, pooled in zip("bcd", (32, 64, 64), strict=True):
            paths: dict[str, list[Step]] = {"branch1x1": [(64, 1)], "branch5x5": [(48, 1), (64, 5)], "branch3x3dbl": double}
            width = self._append(f"Mixed_5{letter}", Mixed(width, paths, pooled=pooled))
        width = self._append("Mixed_6a", Mixed(width, {"branch3x3": [(384, 3)], "branch3x3dbl": double}, "halve"))
        row, column = (1, 7), (7, 1)
        for letter, c in zip("bcde", (128, 160, 160, 192), strict=True):
            paths = {
                "branch1x1": [(192, 1)],
                "branch7x7": [(c, 1), (c, row), (192, column)],
                "branch7x7dbl": [(c, 1), (c, column), (c, row), (c, column), (192, row)],
            }
            width = self._append(f"Mixed_6{letter}", Mixed(width, paths))
        paths = {"branch3x3": [(192, 1), (320, 3)], "branch7x7x3": [(192, 1), (192, row), (192, column), (192, 3)]}
        width = self._append("Mixed_7a", Mixed(width, paths, "halve"))
        fork: Step = (384, (1, 3), (3, 1))
        paths = {"branch1x1": [(320, 1)], "branch3x3": [(384, 1), fork], "branch3x3dbl": [(448, 1), (384, 3), fork]}
        width = self._append("Mixed_7b", Mixed(width, paths))
        width = self._append("Mixed_7c", Mixed(width, paths, "max"))
        assert width == FEATURES
        self.fc = nn.Linear(FEATURES, CLASSES)

    def _append(self, name: str, block: Mixed) -> int:
        self.add_module(name, block)
        return block.outputs

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features [B, 2048], logits [B, 1008], and the first maps of Mixed_6d [B, 192, 17, 17], of what `prepare` made.

        They are TensorFlow's pool_3, softmax/logits/MatMul and mixed_6/conv.
        """
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        blocks = {name: block for name, block in self.named_children() if isinstance(block, Mixed)}
        maps = x
        for name, block in blocks.items():
            if name == "Mixed_6d":
                maps = block.get_submodule("branch1x1")(x)
            x = block(x)
        features = x.mean(dim=(2, 3))
        return features, features @ self.fc.weight.T, maps


def prepare(pictures: Tensor) -> Tensor:
    """Pictures uint8 [B, 3, H, W] as the network sees them, float32 [B, 3, 299, 299]."""
    return normalise(resize(pictures.float(), (SIDE, SIDE)))


def normalise(x: Tensor) -> Tensor:
    """From 0 … 255 to −1 … 0.992."""
    return (x - 128) / 128


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """TensorFlow 1's ResizeBilinear: floats [B, C, H, W] to [B, C, *size].

    Pixel i of n stands at i · N / n of N, and not at (i + ½) · N / n − ½; it is between its two neighbours there, however much
    the picture shrinks.
    """
    for dim, side in zip((-2, -1), size, strict=True):
        place = torch.arange(side, device=x.device, dtype=x.dtype) * (x.shape[dim] / side)
        before = place.long()
        after = (before + 1).clamp(max=x.shape[dim] - 1)
        share = (place - before).unsqueeze(-1) if dim == -2 else place - before
        x = x.index_select(dim, before).lerp(x.index_select(dim, after), share)
    return x
