"""Edits in a CLIP's space (Ramesh et al. 2022, section 3): variations, blends of two pictures, differences of texts, and what the
first principal components of an embedding tell.

Each is a request to the decoder that tells every result's embedding, so a picture is remade without the CLIP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor

from lodestar.conditions import Ask
from lodestar.config import Problem
from lodestar.core.noise import seeds_from
from lodestar.core.slerp import slerp
from lodestar.generators.edits import AnyEdit, Interpolate, Invert, SDEdit, Vary
from lodestar.generators.edits.arrange import check_seed, gather
from lodestar.generators.edits.request import EditRequest, Material
from lodestar.generators.guide import Guide, Guides, referring
from lodestar.generators.priors import Autoregressive
from lodestar.generators.request import Frame, Prompts, Wanted
from lodestar.generators.samples import Samples
from lodestar.generators.unclip import EMBEDDING, UnClip
from lodestar.nets.clip import unit


def vary(model: UnClip, material: Material, count: int | None = None, seed: int = 0, eta: float = 1.0) -> EditRequest:
    """Variations of pictures, in turn: the same embedding, other details."""
    how, embeddings = Vary(eta=eta), model.seen(material.pictures)
    check_seed(how, len(embeddings), seed)
    asks = how.asks(len(embeddings), [Ask()], count, seed)
    return _request(how, material, asks, embeddings[[ask.source for ask in asks]], embeddings)


def asked(
    model: UnClip,
    pictures: Any,
    request: Callable[[UnClip, Material], EditRequest],
    guides: Guides | None = None,
    **how: Unpack[Wanted],
) -> tuple[EditRequest, Material, dict[str, Guide]]:
    """A request for pictures in the CLIP's space, its pictures, and the guides of its guidance. Raises Problem.

    request: `vary`, `blend`, `textdiff` or `components`, with their settings. The rest is as in `Editor.edit`, without prompts.
    """
    prompts, chosen_settings, guiding, _ = model.guided(guides, how)
    if prompts != Prompts():
        raise Problem("prompts and styles have no effect on edits in a CLIP's space, which tell embeddings: leave them out")
    material = gather(model.shape, model.shape[1:], pictures)
    wanted = referring(request(model, material), guiding)
    return wanted.replace(settings=model.resolved(chosen_settings)), material, guiding


def edited(
    model: UnClip,
    pictures: Any,
    request: Callable[[UnClip, Material], EditRequest],
    *,
    callback: Callable[[Frame], None] | None = None,
    **how: Any,
) -> Samples:
    """Pictures made of pictures in the CLIP's space: ``edited(model, ["a.png", "b.png"], partial(blend, points=8))``.

    callback: called with each `Frame`. The rest is as in `asked`. Raises Problem.
    """
    return model.edited(*asked(model, pictures, request, **how), callback=callback)


def blend(model: UnClip, material: Material, points: int = 8) -> EditRequest:
    """From one picture to another, on the sphere: between their embeddings, and between their noises. Raises Problem."""
    if len(material.pictures) != 2:
        raise Problem(f"blend goes between two pictures, and the number given is {len(material.pictures)}")
    how, embeddings = Interpolate(points=points), model.seen(material.pictures)
    asks = how.asks(2, [Ask(), Ask()], None, 0)
    weights = torch.tensor([ask.weight for ask in asks], dtype=torch.float64, device=embeddings.device)
    first, second = (each.expand(points, -1) for each in embeddings.split(1))
    return _request(how, material, asks, slerp(first, second, weights), embeddings)


def textdiff(model: UnClip, material: Material, origin: str, to: str, strength: float = 0.4) -> EditRequest:
    """Pictures changed by the difference of two texts: embeddings turned towards it by a part of the angle, from 0 to 1.

    The noise is the picture's own. Raises Problem for a text that is too long, and for two with one embedding.
    """
    if not 0 <= strength <= 1:
        raise Problem(f"strength is {strength:g}: from 0, the picture itself, to 1, the difference of the texts alone")
    how, embeddings = Invert(), model.seen(material.pictures)
    with torch.no_grad():
        before, after = unit(model.clip.text_features([origin, to]))
    if torch.equal(before, after):
        raise Problem(f"{origin!r} and {to!r} have the same embedding: give two texts that differ")
    goal = unit((after - before)[None]) * embeddings.norm(dim=1, keepdim=True)
    weights = torch.full((len(embeddings),), strength, dtype=torch.float64, device=embeddings.device)
    asks = how.asks(len(embeddings), [Ask()], None, 0)
    return _request(how, material, asks, slerp(embeddings, goal, weights), embeddings)


def components(model: UnClip, material: Material, counts: Sequence[int], seed: int = 0) -> EditRequest:
    """Pictures of embeddings as so many of their principal components tell them, for each picture every count in turn.

    Noise is drawn, the same for all pictures of a source. Components are the autoregressive prior's. Raises Problem without it,
    and for more components than it has.
    """
    prior, embeddings = model.model_of(Autoregressive()), model.seen(material.pictures)
    told = torch.stack([prior.projected(embeddings, count) for count in counts], dim=1).flatten(0, 1)
    seeds = seeds_from(seed, len(embeddings))
    asks = [Ask(seed=own, source=source) for source, own in enumerate(seeds) for _ in counts]
    return _request(SDEdit(strength=1.0), material, asks, told, embeddings)


def _request(how: AnyEdit, material: Material, asks: Sequence[Ask], told: Tensor, embeddings: Tensor) -> EditRequest:
    """The request for results with these embeddings, of pictures with those."""
    given = partial(map, lambda row: {EMBEDDING: row.tolist()})
    return EditRequest(
        asks=tuple(ask.replace(others=others) for ask, others in zip(asks, given(told), strict=True)),
        edit=how,
        pictures=material.digests,
        origins=tuple(Ask(others=others) for others in given(embeddings)),
    )
