"""Editing in a CLIP's space, by a bundle of a decoder and its CLIP: `edit vary`, `blend`, `textdiff`, `components`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar.cli.edit import Chosen, Pictures, save
from lodestar.cli.options import Count, Model, Sampling, Solving, flattened

if TYPE_CHECKING:
    from lodestar.generators.edits.request import EditRequest, Material
    from lodestar.generators.unclip import UnClip


@flattened
def vary(
    model: Model,
    pictures: Pictures,
    eta: Annotated[
        float, typer.Option("--eta", min=0, max=1, help="Noise on the way, DDIM's η: 0 gives the picture back, 1 varies most.")
    ] = 1.0,
    picture: Chosen = None,
    count: Count = None,
    sampling: Sampling = Sampling(),
) -> None:
    """Vary pictures: what a CLIP sees in them is kept, and other details are drawn."""
    from lodestar.generators import unclip_edits as edits

    _make(model, pictures, picture, sampling, lambda whole, there: edits.vary(whole, there, count, sampling.seed, eta))


@flattened
def blend(
    model: Model,
    pictures: Pictures,
    points: Annotated[int, typer.Option("--points", min=2, max=100_000, help="How many pictures, the two ends included.")] = 8,
    picture: Chosen = None,
    solving: Solving = Solving(),
) -> None:
    """Go from one picture to another, between their embeddings and between their noises."""
    from lodestar.generators import unclip_edits as edits

    _make(model, pictures, picture, solving, lambda whole, there: edits.blend(whole, there, points))


@flattened
def textdiff(
    model: Model,
    pictures: Pictures,
    origin: Annotated[str, typer.Option("--from", help="A text that tells the pictures as they are.")],
    to: Annotated[str, typer.Option("--to", help="A text that tells them as they are to be.")],
    strength: Annotated[
        float, typer.Option("--strength", help="How far to go, in [0, 1]: 0 is the picture, 1 the difference of the texts alone.")
    ] = 0.4,
    picture: Chosen = None,
    solving: Solving = Solving(),
) -> None:
    """Change pictures by the difference of two texts."""
    from lodestar.generators import unclip_edits as edits

    _make(model, pictures, picture, solving, lambda whole, there: edits.textdiff(whole, there, origin, to, strength))


@flattened
def components(
    model: Model,
    pictures: Pictures,
    components: Annotated[
        str, typer.Option("--components", help="Numbers of principal components, a result for each: 1,4,16,64.")
    ] = "1,4,16,64",
    picture: Chosen = None,
    sampling: Sampling = Sampling(),
) -> None:
    """Make pictures of what the first principal components of a CLIP's embedding tell."""
    from lodestar.config import Problem
    from lodestar.generators import unclip_edits as edits

    numbers = [part.strip() for part in components.split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in numbers):
        raise Problem(f"--components {components!r}: numbers of principal components, such as 1,4,16,64")
    counts = [int(part) for part in numbers]
    _make(model, pictures, picture, sampling, lambda whole, there: edits.components(whole, there, counts, sampling.seed))


def _make(
    model: str,
    pictures: list[str],
    picture: list[int] | None,
    options: Solving,
    request: Callable[[UnClip, Material], EditRequest],
) -> None:
    """Make the pictures of a request, and save them with their grid and manifest; prints where. Raises Problem."""
    from lodestar.config import Problem
    from lodestar.generators.edits.arrange import gather
    from lodestar.generators.unclip import UnClip
    from lodestar.library import load

    how, whole = options.settings(), load(model, options.device, dtype=options.precision)
    if not isinstance(whole, UnClip):
        raise Problem(f"{model} is no bundle of a decoder and its CLIP, which this edit needs")
    material = gather(whole.shape, whole.shape[1:], pictures, None, picture or ())
    guides = options.guides(model, how.guidance)
    asked = request(whole, material).replace(settings=whole.resolved(how))
    prepared = whole.prepare_edit(asked, material, guides)
    save(prepared.frames(options.batch_size), asked, material, whole.origin(guides), options.out)
