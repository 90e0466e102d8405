"""Arranging an edit: pictures and labels in, a request out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lodestar.conditions import Ask
from lodestar.config import Problem
from lodestar.data.mask import read_mask
from lodestar.data.pictures import Picture, read_pictures
from lodestar.files import read_json, reading
from lodestar.generators.album import MANIFEST
from lodestar.generators.base import Generator
from lodestar.generators.edits import AnyEdit, Interpolate
from lodestar.generators.edits.request import EditRequest, Material
from lodestar.generators.guide import Guides, referring
from lodestar.generators.request import AskedLabel, Prompts
from lodestar.models.diffusion import DiffusionModel

_NONE = Prompts()


def gather(
    shape: tuple[int, int, int],
    size: tuple[int, int],
    pictures: Any,
    mask: Any = None,
    chosen: Sequence[int] = (),
    keeps_size: bool = False,
) -> Material:
    """The pictures, brought to a shape [C, H, W], and the mask, to a size [H, W], of an edit.

    pictures: a tensor uint8 [P, C, H, W] of this shape; a file, folder or album, a PIL picture or an array uint8 [H, W, C], or
    several of them. mask: a file, a PIL picture, or bool [H, W]. chosen: only these of the pictures, by number. keeps_size: the
    pictures keep their size, which is one for all. Raises Problem.
    """
    if isinstance(pictures, Tensor):
        return Material(pictures, _mask(mask, size, ()))
    listed_pictures = list(pictures) if isinstance(pictures, Sequence) and not isinstance(pictures, str) else [pictures]
    read = read_pictures(listed_pictures, shape[0], None if keeps_size else shape[1:], chosen)
    if other := next((each for each in read if each.size != read[0].size), None) if keeps_size else None:
        sizes = [f"{each.name} is {each.size[0]}×{each.size[1]}" for each in (read[0], other)]
        raise Problem(f"pictures of one size at a time (or --fit, fit=True in Python, for the model's): {' and '.join(sizes)}")
    images = [torch.from_numpy(picture.image.copy()) for picture in read]
    labels = tuple(picture.label for picture in read if picture.label is not None)
    return Material(
        torch.stack(images) if images else torch.empty((0, *shape), dtype=torch.uint8),
        _mask(mask, size, read),
        tuple(picture.name for picture in read),
        labels if len(labels) == len(read) else (),
        _texts([picture.name for picture in read]),
    )


def _texts(pictures: Sequence[str]) -> tuple[str | None, ...]:
    """The prompt of each picture, where it is one of an album that tells it; none where none does."""
    albums: dict[Path, dict[str, Any]] = {}
    for manifest in {Path(picture).with_name(MANIFEST) for picture in pictures}:
        if manifest.is_file():
            with reading(manifest, "is no manifest of pictures"):
                told = read_json(manifest)
                if isinstance(told, dict) and "manifest" in told:  # a file of this name may be another program's
                    albums[manifest.parent] = {each.get("file"): each.get("text") for each in told["pictures"]}
    texts = tuple(albums.get((path := Path(picture)).parent, {}).get(path.name) for picture in pictures)
    return texts if any(text is not None for text in texts) else ()


def _mask(given: Any, size: tuple[int, int], pictures: Sequence[Picture]) -> Tensor | None:
    """The mask of these pictures, of a file, of PIL or of any library's array."""
    if isinstance(given, str | Path | Image.Image):
        return torch.from_numpy(read_mask(given, size, pictures))
    with reading("the mask", "is neither a file, nor a picture, nor an array"):
        return None if given is None else torch.as_tensor(given)


def arrange(
    model: Generator, how: AnyEdit, material: Material, label: Sequence[AskedLabel] | None, origin: Sequence[AskedLabel] | None,
    count: int | None, seed: int, guides: Guides | None = None, prompts: Prompts = _NONE,
) -> EditRequest:  # fmt: skip
    """The request for what is asked, with the sampling settings of the model. Raises Problem."""
    pictures, how = len(material.pictures), _settled(model, how)
    if isinstance(how, Interpolate):
        ends = [model.labels(first or second or ["none"], None, guides) for first, second in ((origin, label), (label, origin))]
        if any(len(end) != 1 for end in ends):
            raise Problem("interpolate goes from one label to one label: give one at each end")
        if prompts.turns > 2:
            what = "prompts" if prompts.turns == len(prompts.texts) else "styles"
            raise Problem(f"interpolate goes from one prompt to one prompt, and {prompts.turns} {what} are given")
        texts = model.texts(prompts, guides)
        wanted = origins = tuple(
            Ask(label=each, text=text) for each, text in zip((*ends[0], *ends[1]), (texts[0], texts[-1]), strict=True)
        )
    else:
        if how.enlarges and label is None and model.classes(guides)[1] is not None:
            label = _told(model, material)
        if how.enlarges and not prompts.texts and model.hears(guides):
            prompts = replace(prompts, texts=material.texts, cut=True)
        wanted = model.wanted(label or ["none"], prompts, None, guides)
        origins = _origins(model, how, origin, pictures, guides)
    check_seed(how, pictures, seed)
    asked = EditRequest(
        asks=how.asks(pictures, wanted, count, seed),
        edit=how,
        pictures=material.digests,
        mask=material.mask_digest,
        origins=origins,
    )
    return referring(asked, guides or {})


def check_seed(how: AnyEdit, pictures: int, seed: int) -> None:
    """Raise Problem for a seed where no noise is drawn."""
    if seed and not how.draws(pictures):
        raise Problem(f"seed is {seed}: {how.kind} of pictures draws no noise that it could change")


def _settled(model: Generator, how: AnyEdit) -> AnyEdit:
    return how.settled(model.config) if isinstance(model, DiffusionModel) else how


def _told(model: Generator, material: Material) -> Sequence[str] | None:
    """The classes that pictures to be enlarged are known to have. Raises Problem where a model has to know and nothing tells."""
    if material.labels or model.known[1] is None:
        return material.labels or None
    try:
        model.label("none", {})
    except Problem:
        free = ""
    else:
        free = " (none is one)"
    raise Problem(f"this model knows classes, and nothing tells the pictures': --label, or label= in Python{free}")


def _origins(
    model: Generator, how: AnyEdit, origin: Sequence[AskedLabel] | None, pictures: int, guides: Guides | None
) -> tuple[Ask, ...]:
    """The class of each picture, where they are inverted. Raises Problem."""
    if not how.inverts:
        if origin:
            raise Problem(f"the class that pictures have has no effect on {how.kind}: leave it out, or invert")
        return ()
    origins = model.labels(origin or ["none"], None, guides)
    if len(origins) == 1:
        origins *= pictures
    if len(origins) != pictures:
        raise Problem(f"{len(origins)} classes are given for {pictures} pictures: give one for all of them, or one for each")
    return tuple(Ask(label=each) for each in origins)
