"""Pictures on disk: PNG files and grids of them."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lodestar.files import atomic, reading, regular

if TYPE_CHECKING:
    from PIL import Image

_SMALL = 128
"""Side below which pictures are enlarged in a grid, to be visible."""


def grid(pictures: Tensor, columns: int | None = None, gap: int = 1, background: int = 255) -> Tensor:
    """uint8 pictures [N, C, H, W] as one, uint8 [3, H', W']: row by row, as square as it gets unless `columns` says otherwise."""
    count, channels, height, width = pictures.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = torch.full((3, rows * (height + gap) - gap, columns * (width + gap) - gap), background, dtype=torch.uint8)
    for index, picture in enumerate(pictures.cpu()):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = picture if channels == 3 else picture[:1]
    return sheet


def enlarge(picture: Tensor, factor: int) -> Tensor:
    """Every pixel repeated factor × factor times; [..., H, W]."""
    return picture.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


def sheet(pictures: Tensor, columns: int | None = None) -> Tensor:
    """A `grid` of uint8 pictures [N, C, H, W], enlarged by a whole factor where they are small."""
    factor = max(_SMALL // max(pictures.shape[-2:]), 1)
    return grid(enlarge(pictures, factor), columns, gap=factor)


def save_grid(path: str | Path, pictures: Tensor, columns: int | None = None) -> Tensor:
    """Write the `sheet` of uint8 pictures [N, C, H, W]; returns it."""
    drawn = sheet(pictures, columns)
    save_png(path, drawn)
    return drawn


def to_pil(picture: Tensor) -> Image.Image:
    """A PIL picture of uint8 [3, H, W] or [1, H, W]."""
    from PIL import Image

    array = picture.cpu().permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def save_png(path: str | Path, picture: Tensor) -> None:
    """Write uint8 [3, H, W] or [1, H, W] atomically."""
    with atomic(path) as file:
        file.write(png(picture))


def png(picture: Tensor) -> bytes:
    """A PNG file of uint8 [3, H, W] or [1, H, W]."""
    buffer = io.BytesIO()
    to_pil(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def load_png(path: str | Path) -> Tensor:
    """Read a picture as uint8 [3, H, W], or [1, H, W] if it is grey. Raises Problem if it cannot be decoded."""
    from PIL import Image

    with reading(path), Image.open(regular(Path(path))) as picture:
        mode = "L" if picture.mode == "L" else "RGB"
        array = np.array(picture.convert(mode))
    return torch.from_numpy(array if array.ndim == 3 else array[:, :, None]).permute(2, 0, 1)
