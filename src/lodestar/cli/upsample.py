"""`upsample`: small pictures enlarged by a model that was trained to."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestar.cli.edit import Chosen, Pictures, make
from lodestar.cli.options import Count, Model, Prompting, Sampling, flattened


@flattened
def upsample(
    model: Model,
    pictures: Pictures,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            help="A class by name or number, in turn for the pictures: dog, or dog=8. Repeatable; default the classes of "
            "their folder or album.",
        ),
    ] = None,
    picture: Chosen = None,
    count: Count = None,
    augment: Annotated[
        float,
        typer.Option(
            "--augment",
            min=0,
            max=1,
            help="Noise level of the small pictures, for models trained so: more lets it change more of them, and mend faults.",
        ),
    ] = 0.0,
    fit: Annotated[
        bool, typer.Option("--fit", help="Bring pictures to the size of the model's input first, instead of keeping theirs.")
    ] = False,
    overlap: Annotated[
        float,
        typer.Option("--overlap", help="The least part of a tile's side shared with its neighbour."),
    ] = 0.25,
    prompting: Prompting = Prompting(),
    sampling: Sampling = Sampling(batch_size=8),
) -> None:
    """Enlarge pictures of any size with an upsampler, large ones in overlapping tiles: PNG files, a grid, and a manifest."""
    from lodestar.generators.edits import Upsample

    how, content = Upsample(fit=fit, overlap=overlap), (label, prompting)
    make(model, how, pictures, sampling, picture=picture, content=content, count=count, augment=augment)
