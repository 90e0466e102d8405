"""What is called from Python, beside the methods of generators. A file for each function that has a command of its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from lodestar.generators.diffusion import Diffusion
from lodestar.generators.edits import AnyEdit
from lodestar.generators.samples import Samples


class Saved(Protocol):
    """What can be saved: `Samples`, or a model."""

    def save(self, path: str | Path, /) -> Path:
        """Write it; returns where."""


def save(what: Saved, path: str | Path) -> Path:
    """Write pictures or a model; returns the path.

    Samples become a folder of numbered PNG files, a grid and a manifest; a model one file that ends in ``.safetensors``, with its
    configuration and provenance, which `lodestar.load` loads. What is there already is written again where it is the same. Raises
    Problem where it is anything else, or cannot be written.
    """
    return what.save(path)


def edit(model: Diffusion, how: AnyEdit, *pictures: Any, **settings: Any) -> Samples:
    """Make pictures of pictures: `Diffusion.edit` of a model."""
    return model.edit(how, *pictures, **settings)
