"""The protocol of feature extractors."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from lodestar.config import Problem
from lodestar.data.transforms import show
from lodestar.evaluation.statistics import FeatureSet, Part

SPATIAL_CHANNELS = 7
"""Number of a map's first channels used as spatial features: at Inception's 17 × 17 places about as many numbers as pooled
features (Nash et al. 2021, arXiv:2103.03841, section 5.1)."""


class Extractor(Protocol):
    """A network from pictures to features. Numbers are comparable only for the same extractor, so every result names its own."""

    @property
    def name(self) -> str:
        """Name of the extractor, as asked for."""

    @property
    def digest(self) -> str:
        """SHA-256 of the configuration, the weights, and all else with an influence on the features."""

    @property
    def dtype(self) -> str:
        """Number format of the computation ("float32"); other formats give slightly other numbers."""

    @property
    def channels(self) -> int:
        """Colour channels of the network's input: 1 (grey) or 3."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the network's input; None if resizing is a published part of the extractor."""

    @property
    def resizing(self) -> str:
        """Method of resizing pictures, in words: "bilinear, antialiased". Reported unless `size` is None."""

    def __call__(self, pictures: Tensor) -> FeatureSet:
        """Features of pictures uint8 [B, C, H, W], C = 1 or `channels`, of any size; float32, on the CPU.

        Raises Problem if any is not finite.
        """


def gives(extractor: Extractor) -> frozenset[Part]:
    """Parts of the statistics given by an extractor, found by a trial picture."""
    return extractor(torch.zeros(1, extractor.channels, *(extractor.size or (64, 64)), dtype=torch.uint8)).parts


def note(extractor: Extractor, what: str, channels: int, size: tuple[int, int]) -> str | None:
    """Description of the preprocessing of pictures of `size` (height, width), None if unchanged.

    what: names the pictures. Raises Problem for colour pictures with a grey extractor: their colours would go unmeasured.
    """
    if channels not in (1, extractor.channels):
        raise Problem(
            f"{what}: pictures of {channels} channels, and the extractor {extractor.name} sees {extractor.channels} (grey)"
        )
    done = [] if channels == extractor.channels else ["taken as colour pictures"]
    if extractor.size not in (None, size):
        done += [f"resized from {show(size)} to {show(extractor.size)} ({extractor.resizing})"]
    return f"{what}: {' and '.join(done)} for the extractor" if done else None
