"""Pictures that were made, and what made them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.config import Config, Problem, short
from lodestar.display import caption, picture, table
from lodestar.generators.album import IN_GRID, Album, Manifest, arranged, in_grid
from lodestar.generators.edits.request import Material
from lodestar.generators.origin import Origin
from lodestar.generators.request import Frame, Request, Settings
from lodestar.guidance import REFERENCE
from lodestar.images import png, sheet, to_pil
from lodestar.models.labels import listed, spell

if TYPE_CHECKING:
    from PIL.Image import Image

_DIGITS = 16
"""Number of digits shown of a digest."""
_LISTED = 20
"""Maximum number of prompts shown."""
_COLUMNS = 10
"""Maximum number of steps shown."""


@dataclass(frozen=True, repr=False)
class Samples:
    """Samples: pictures with their request and origin, a sequence of PIL pictures, shown as a grid by notebooks."""

    images: Tensor = field(repr=False)
    """uint8 [N, C, H, W]."""
    request: Request = field(repr=False)
    origin: Origin
    material: Material | None = field(default=None, repr=False)
    """Sources of edited pictures; None otherwise."""
    again: Callable[[], Iterator[Frame]] | None = field(default=None, repr=False)
    """The way to make the pictures again, a frame for every step; None for those of an unknown model."""

    def __repr__(self) -> str:
        count, channels, height, width = self.images.shape
        spelled = (spell(label, self.origin.names) for label in self.request.labels if label is not None)
        labels = list(dict.fromkeys(map(str, spelled)))
        told = [f"{count} of {listed(labels)}" if labels else str(count), f"{height}×{width}", "grey" if channels == 1 else "RGB"]
        return f"Samples({', '.join(told)}, by {self.origin.name or 'a model built in code'})"

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image]: ...
    def __getitem__(self, index: int | slice) -> Image | list[Image]:
        return self.pil()[index] if isinstance(index, slice) else to_pil(self.images[index])

    def __iter__(self) -> Iterator[Image]:
        return map(to_pil, self.images)

    def pil(self) -> list[Image]:
        """The pictures as PIL images."""
        return list(self)

    def save(self, folder: str | Path) -> Path:
        """Write numbered PNG files, a grid and a manifest; returns the folder.

        Raises Problem if the folder holds anything but these pictures.
        """
        manifest, reference = Manifest.of(self.request, self.origin), self.origin.guides.get(REFERENCE)
        album = Album(folder, manifest, self.origin.names, self.material, reference)
        album.write(range(len(self.images)), self.images)
        album.finish()
        return album.folder

    def steps(self) -> Steps:
        """The pictures after every step on the way to them, made again. Raises Problem where their model is not known."""
        if self.again is None:
            raise Problem("these samples do not know the model that made them: their steps cannot be made again")
        return Steps.of(self.again())

    def _repr_png_(self) -> bytes:
        """The grid as PNG, for a notebook; of many pictures, the first."""
        count = in_grid(len(self), self.images[0].numel())
        return png(sheet(*arranged(self.images[:count], self.request, self.material)))

    def _repr_html_(self) -> str:
        """The grid with what made it, for a notebook."""
        seeds, texts = self.request.seeds, dict.fromkeys(ask.text for ask in self.request.asks if ask.text is not None)
        rows = [
            ("model", " ".join(filter(None, (self.origin.name, self.origin.digest[:_DIGITS], self.origin.dtype)))),
            *(("prompt", text) for text in list(texts)[:_LISTED]),
            ("seeds", f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])),
            *_told(self.request.settings),
            *(row for later in self.request.later for row in _told(later)),
        ]
        return caption(repr(self)) + picture(self._repr_png_(), repr(self)) + table(rows)


def _told(how: Settings) -> list[tuple[str, str]]:
    """The settings that were given, by name."""
    return [(name, _spelled(getattr(how, name))) for name in how.model_dump(exclude_defaults=True)]


def _spelled(value: object) -> str:
    """A setting in its short form."""
    if isinstance(value, tuple):
        return " ".join(map(_spelled, value))
    return short(value) if isinstance(value, Config) else str(value)


@dataclass(frozen=True, repr=False)
class Steps:
    """The way of pictures: how they are estimated after every step, a sequence of lists of PIL pictures."""

    images: tuple[Tensor, ...]
    """uint8 [N, C, H, W] after each step; the stages of a cascade have sizes of their own."""

    @classmethod
    def of(cls, frames: Iterable[Frame]) -> Self:
        """The steps of a stream. A picture with fewer than others, by a sampler that chooses them, waits for these."""
        ways: dict[int, list[Tensor]] = {}
        for frame in frames:
            for number, image in enumerate(frame.images, frame.first):
                ways.setdefault(number, []).append(image)
        longest = max(map(len, ways.values()))
        return cls(tuple(torch.stack([way[min(step, len(way) - 1)] for way in ways.values()]) for step in range(longest)))

    def __repr__(self) -> str:
        return f"Steps({len(self)} of {len(self.images[-1])} pictures)"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Image]:
        return list(map(to_pil, self.images[index]))

    def _repr_png_(self) -> bytes:
        """The way of each picture as a row, for a notebook: of many steps some, evenly, and of many pictures the first."""
        chosen = torch.linspace(0, len(self) - 1, min(len(self), _COLUMNS)).round().long().tolist()
        last = self.images[-1]
        rows = min(len(last), in_grid(IN_GRID, last[0].numel()) // len(chosen) or 1)
        columns = [F.interpolate(self.images[step][:rows], last.shape[-2:]) for step in chosen]
        return png(sheet(torch.stack(columns, dim=1).flatten(0, 1), len(chosen)))
