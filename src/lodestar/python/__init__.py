"""Functions of Python, beside the methods of generators. Each file holds the function of the command of its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from lodestar.generators.diffusion import Diffusion
from lodestar.generators.edits import AnyEdit
from lodestar.generators.samples import Samples


class Saved(Protocol):
    """An object that can be saved: `Samples`, or a model."""

    def save(self, path: str | Path, /) -> Path:
        """Write the object; returns the path."""


def save(what: Saved, path: str | Path) -> Path:
    """Write pictures or a model; returns the path.

    Samples become a folder of numbered PNG files, a grid and a manifest. A model becomes one file for `lodestar.load`, with its
    configuration and provenance; the path ends in ``.safetensors``. The same samples or model may be there already. Raises
    Problem where anything else is, or where the path cannot be written.
    """
    return what.save(path)


def edit(model: Diffusion, how: AnyEdit, *pictures: Any, **settings: Any) -> Samples:
    """Make pictures of pictures: `Diffusion.edit` of a model."""
    return model.edit(how, *pictures, **settings)
