"""What every feature extractor has in common."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from lodestar.config import Problem
from lodestar.data.transforms import show
from lodestar.evaluation.statistics import FeatureSet, Part

SPATIAL_CHANNELS = 7
"""Channels of a map, the first ones, that its spatial features are: with Inception's 17 × 17 places about as many numbers as
pooled features (Nash et al. 2021, arXiv:2103.03841, section 5.1)."""


class Extractor(Protocol):
    """A network that turns pictures into features. Numbers compare only where it is the same, so every result names it."""

    @property
    def name(self) -> str:
        """What it was asked for by."""

    @property
    def digest(self) -> str:
        """SHA-256 of its configuration and weights, and of all else that its features depend on."""

    @property
    def dtype(self) -> str:
        """The number format that it computes in ("float32"): the same extractor in another one gives slightly other numbers."""

    @property
    def channels(self) -> int:
        """Colour channels of the pictures that it sees: 1 (grey) or 3."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the pictures that it sees; None where resizing any to its own is a published part of it."""

    @property
    def resizing(self) -> str:
        """How it resizes pictures of other sizes, in words: "bilinear, antialiased". A reader is told unless `size` is None."""

    def __call__(self, pictures: Tensor) -> FeatureSet:
        """Features of pictures uint8 [B, C, H, W], C = 1 or `channels`, of any size; float32, on the CPU.

        Raises Problem if any is not finite.
        """


def gives(extractor: Extractor) -> frozenset[Part]:
    """What it can tell of pictures, found by showing it one."""
    return extractor(torch.zeros(1, extractor.channels, *(extractor.size or (64, 64)), dtype=torch.uint8)).parts


def note(extractor: Extractor, what: str, channels: int, size: tuple[int, int]) -> str | None:
    """What is done to pictures of `size` (height, width) before they are seen, in words; None for nothing.

    what: names the pictures. Raises Problem for colour pictures where it sees grey ones: their colours would go unmeasured.
    """
    if channels not in (1, extractor.channels):
        raise Problem(
            f"{what}: pictures of {channels} channels, and the extractor {extractor.name} sees {extractor.channels} (grey)"
        )
    done = [] if channels == extractor.channels else ["taken as colour pictures"]
    if extractor.size not in (None, size):
        done += [f"resized from {show(size)} to {show(extractor.size)} ({extractor.resizing})"]
    return f"{what}: {' and '.join(done)} for the extractor" if done else None
