"""The demo picture of guidance: rows are scales, columns are classes with fixed seeds.

On the left the unconditional model steered by the noise-aware classifier, on the right classifier-free guidance. At scale 0 both
are the unconditional model, at 1 both aim at the conditional distribution, above 1 at less diversity and more class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lodestar import library
from lodestar.files import atomic
from lodestar.guidance import CFG, Classifier, Guidance
from lodestar.images import enlarge, grid

SCALES = (0.0, 1.0, 3.0, 10.0)
FACTOR = 2
"""Factor of enlarging the pixels."""


def guidances(scale: float) -> dict[str, tuple[Guidance, ...]]:
    """The two kinds at a scale, by title."""
    return {
        "classifier guidance": (CFG(scale=0.0), Classifier(scale=scale)),
        "classifier-free guidance": (CFG(scale=scale),),
    }


def demo(
    out: Path,
    name: str = "cifar10",
    *,
    steps: str | None = None,
    seed: int = 0,
    done: Callable[[int], None] = lambda pictures: None,
) -> Path:
    """Draw the picture. done: called with the number of pictures made so far."""
    model = library.load_diffusion(name)
    names = model.config.names or ()
    blocks: dict[str, list[Tensor]] = {title: [] for title in guidances(1.0)}
    for scale in SCALES:
        for title, guidance in guidances(scale).items():
            samples = model.sample(range(len(names)), seed=seed, steps=steps, guidance=guidance)
            blocks[title].append(samples.images)
            done(sum(len(row) for rows in blocks.values() for row in rows))
    _draw(out, {title: torch.cat(rows) for title, rows in blocks.items()}, names)
    return out


def count(name: str = "cifar10") -> int:
    """Number of pictures in the demo."""
    return len(SCALES) * len(guidances(1.0)) * len(library.config(name).names or ())


def _draw(out: Path, blocks: dict[str, Tensor], names: Sequence[str]) -> None:
    """Lay the blocks side by side, with titles, class names and scales."""
    from PIL import Image, ImageDraw, ImageFont

    gap, margin, top, between = 2, 56, 46, 24
    sheets = {title: grid(enlarge(images, FACTOR), columns=len(names), gap=gap) for title, images in blocks.items()}
    _, height, width = next(iter(sheets.values())).shape
    pitch = (width + gap) // len(names)
    page = Image.new("RGB", (margin + len(sheets) * (width + between), top + height + 8), "white")
    draw, small, large = ImageDraw.Draw(page), ImageFont.load_default(11), ImageFont.load_default(15)
    for row, scale in enumerate(SCALES):
        draw.text((8, top + row * (height + gap) // len(SCALES) + pitch // 2 - 8), f"s = {scale:g}", "black", small)
    for number, (title, sheet) in enumerate(sheets.items()):
        left = margin + number * (width + between)
        draw.text((left, 4), title, "black", large)
        for column, name in enumerate(names):
            draw.text((left + column * pitch, 28), name[:10], "gray", small)
        page.paste(Image.fromarray(sheet.permute(1, 2, 0).numpy()), (left, top))
    with atomic(out) as file:
        page.save(file, format="PNG")
