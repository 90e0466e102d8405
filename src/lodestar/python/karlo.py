"""Karlo in a folder: its published files, or diffusers' folders of it, are converted where they lie, once, and made a bundle."""

from __future__ import annotations

import os
from pathlib import Path

from lodestar import bundle
from lodestar.config import Problem
from lodestar.conversion import unclip_folder
from lodestar.conversion.karlo import FILES
from lodestar.python.convert import convert

NAME = "karlo"
"""Name of the model, and of the bundle in its folder."""
PRIOR, GUIDANCE, THEN = "diffusion:scale=4,best_of=1", "cfg:8", "upsampler"
"""Settings of sampling as published, and the part that enlarges."""
_CLIP = "clip-ViT-L-14"
_ROLES = {"prior": "prior", "decoder": bundle.MAIN, THEN: THEN}
"""Parts but for the CLIP, and their roles."""


def karlo(folder: str | Path) -> Path:
    """The bundle of a folder's prior, decoder, upsampler and CLIP, made if it is not there; `lodestar.load` takes it.

    Each part is a converted file, or a published one; prior, decoder and upsampler may be folders of diffusers, and the CLIP one
    of transformers, ``clip``. Raises Problem naming the part that is missing, before any is converted.
    """
    folder = Path(folder)
    path = folder / f"{NAME}{bundle.SUFFIX}"
    if path.exists():
        return path
    if not os.path.isdir(folder):
        raise Problem(f"{NAME}: no folder {folder} with its files: name it with --models")
    found = {"clip": _source(folder, "clip", [folder / "clip", folder / FILES["clip"]], folder / f"{_CLIP}.safetensors")}
    whole = unclip_folder.is_unclip(folder)
    made = {part: folder / f"{folder.resolve().name if whole else NAME}-{part}.safetensors" for part in _ROLES}
    for part in _ROLES:
        found[_ROLES[part]] = _source(folder, part, [folder if whole else folder / FILES[part]], made[part])
    if whole and folder in found.values():
        convert(folder, folder)
        found |= {_ROLES[part]: file for part, file in made.items()}
    bundle.save(path, {role: each if each.suffix == ".safetensors" else convert(each, folder) for role, each in found.items()})
    return path


def _source(folder: Path, part: str, sources: list[Path], made: Path) -> Path:
    """The converted file of a part, else what it is made of. Raises Problem where neither is there."""
    found = next((each for each in (made, *sources) if each.exists()), None)
    if found is None:
        raise Problem(f"{folder} has no part {part}: {' and '.join(map(str, (made, *sources)))} are missing")
    return found
