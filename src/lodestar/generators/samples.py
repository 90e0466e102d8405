"""Pictures that were made, and what made them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, overload

from torch import Tensor

from lodestar.generators.album import Album, Manifest
from lodestar.generators.edits.request import Material
from lodestar.generators.origin import Origin
from lodestar.generators.request import Request
from lodestar.guidance import REFERENCE
from lodestar.images import png, sheet, to_pil
from lodestar.models.labels import listed, spell

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, repr=False)
class Samples:
    """Samples: pictures with their request and origin, a sequence of PIL pictures, shown as a grid by notebooks."""

    images: Tensor = field(repr=False)
    """uint8 [N, C, H, W]."""
    request: Request = field(repr=False)
    origin: Origin
    material: Material | None = field(default=None, repr=False)
    """Sources of edited pictures; None otherwise."""

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

    def _repr_png_(self) -> bytes:
        """The PNG for a notebook."""
        return png(sheet(self.images))
