"""Functions for Python, beside the methods of generators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lodestar.generators.diffusion import Diffusion
from lodestar.generators.edits import AnyEdit
from lodestar.generators.samples import Samples


def save(samples: Samples, folder: str | Path) -> Path:
    """Write samples as numbered PNG files, a grid and a manifest; returns the folder.

    Raises Problem if the folder holds anything but these pictures.
    """
    return samples.save(folder)


def edit(model: Diffusion, how: AnyEdit, *pictures: Any, **settings: Any) -> Samples:
    """Make pictures of pictures: `Diffusion.edit` of a model."""
    return model.edit(how, *pictures, **settings)
