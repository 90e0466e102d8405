"""Requests to generators that make a picture in one pass, without noise levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lodestar.conditions import Ask
from lodestar.config import Problem, shown
from lodestar.generators.request import Frame, Request


@dataclass(frozen=True)
class Decoding:
    """A checked request to a generator of one pass."""

    length: ClassVar[int] = 1
    asks: Sequence[Ask]
    pictures: Callable[[slice, Tensor | None], Tensor]
    """Pictures float32 [B, C, H, W] in [−1, 1] of some of the asks, given their noise or drawing it."""

    @torch.inference_mode()
    def frames(self, batch_size: int = 32, start: Tensor | None = None) -> Iterator[Frame]:
        """The answer, a frame for every batch; see `Prepared`."""
        for first in range(0, len(self.asks), batch_size):
            rows = slice(first, first + batch_size)
            yield Frame(first, 1, 1, self.pictures(rows, None if start is None else start[rows]))


def check_settings(asked: Request, name: str, why: str, *effective: str) -> None:
    """Raise Problem for settings without effect, for stages and for texts. name: the generator's; why: reason for the user."""
    name = name or "this model"
    asked.settings.check_effective(name, why, *effective)
    if asked.later:
        raise Problem(f"settings are given for {1 + len(asked.later)} stages: {name} is one")
    for ask in asked.asks:
        if ask.text is not None:
            raise Problem(f"prompt {shown(ask.text)}: {name} knows no text")
