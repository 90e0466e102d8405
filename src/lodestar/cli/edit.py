"""Editing without training: `edit sdedit`, `edit invert`, `edit interpolate`, `edit inpaint`, `edit reconstruct`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar.cli.options import LAST_SEED, Count, Model, ModelNamed, Prompting, Sampling, Solving, ask, flattened, ready
from lodestar.files import spelled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar.generators.edits import AnyEdit
    from lodestar.generators.edits.request import EditRequest, Material
    from lodestar.generators.guide import Guide
    from lodestar.generators.origin import Origin as Maker
    from lodestar.generators.request import Frame

app = typer.Typer(
    help="Make pictures of pictures, without training: numbered PNG files, a grid beside what they are made of, a manifest."
)

Pictures = Annotated[
    list[str], typer.Argument(help="Picture files of any size, folders of them, albums of samples, or parquet files.")
]
Chosen = Annotated[
    list[int] | None, typer.Option("--picture", min=0, help="Use only the picture of this number, from 0. Repeatable.")
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", help="The class to make, by name or number, with a count: dog=8. Repeatable; default none."),
]
Origin = Annotated[
    list[str] | None,
    typer.Option("--from", help="The class that the pictures have; once for all of them, or once for each. Default none."),
]
Guided = Annotated[bool, typer.Option("--guided", help="Guide the inversion too (it is then harder to undo).")]


@flattened
def sdedit(
    model: Model,
    pictures: Pictures,
    strength: Annotated[
        float, typer.Option("--strength", help="Part of the steps, in (0, 1]: near 0 keeps the picture, 1 ignores it.")
    ] = 0.5,
    picture: Chosen = None,
    label: Labels = None,
    count: Count = None,
    prompting: Prompting = Prompting(),
    sampling: Sampling = Sampling(),
) -> None:
    """Noise pictures part of the way and sample from there (SDEdit)."""
    from lodestar.generators.edits import SDEdit

    make(model, SDEdit(strength=strength), pictures, sampling, picture=picture, content=(label, prompting), count=count)


@flattened
def invert(
    model: Model,
    pictures: Pictures,
    origin: Origin = None,
    guided: Guided = False,
    picture: Chosen = None,
    label: Labels = None,
    prompting: Prompting = Prompting(),
    solving: Solving = Solving(),
) -> None:
    """Find the noise that pictures are made of, and sample from it under another label (DDIM inversion)."""
    from lodestar.generators.edits import Invert

    make(model, Invert(guided=guided), pictures, solving, origin=origin, picture=picture, content=(label, prompting))


@flattened
def interpolate(
    model: Model,
    pictures: Annotated[list[str] | None, typer.Argument(help="Two pictures, as in the other edits; or none.")] = None,
    points: Annotated[int, typer.Option("--points", min=2, max=100_000, help="How many pictures, the two ends included.")] = 8,
    origin: Annotated[str | None, typer.Option("--from", help="The label at the first end; default that of the other.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="The label at the other end; default that of the first.")] = None,
    to_seed: Annotated[
        int | None, typer.Option("--to-seed", min=0, max=LAST_SEED, help="The seed at the other end, without pictures.")
    ] = None,
    guided: Guided = False,
    picture: Chosen = None,
    prompting: Prompting = Prompting(),
    sampling: Sampling = Sampling(),
) -> None:
    """Interpolate between two pictures, two seeds, two labels, two prompts, or several of these."""
    from lodestar.generators.edits import Interpolate

    make(
        model, Interpolate(points=points, to_seed=to_seed, guided=guided), pictures or [], sampling,
        picture=picture, origin=None if origin is None else [origin], content=(None if to is None else [to], prompting),
    )  # fmt: skip


@flattened
def inpaint(
    model: Model,
    pictures: Pictures,
    mask: Annotated[
        Path, typer.Option("--mask", help="PNG of the pictures' size, or the model's: any place with white in it is filled in.")
    ],
    resamples: Annotated[
        int | None,
        typer.Option(
            "--resamples", help="RePaint's r: how often each stretch of steps is taken; default 10, 1 for a model that inpaints."
        ),
    ] = None,
    jump: Annotated[int, typer.Option("--jump", help="RePaint's j: how many steps long a stretch is.")] = 10,
    picture: Chosen = None,
    label: Labels = None,
    count: Count = None,
    prompting: Prompting = Prompting(),
    sampling: Sampling = Sampling(),
) -> None:
    """Fill in the white places of a mask and keep the rest (RePaint); the usual sampler is ancestral.

    A prompt tells of the whole picture, of what is kept too.
    """
    from lodestar.generators.edits import Inpaint

    how = Inpaint(resamples=resamples, jump=jump)
    make(model, how, pictures, sampling, mask=mask, picture=picture, content=(label, prompting), count=count)


@flattened
def reconstruct(
    model: Model,
    pictures: Pictures,
    level: Annotated[
        str | None, typer.Option("--level", help="Finest level of codes to decode (bottom, middle, top); default all of them.")
    ] = None,
    picture: Chosen = None,
    solving: Solving = Solving(),
) -> None:
    """Encode and decode pictures, by an autoencoder or by a diffusion model's codec."""
    from lodestar.config import decode
    from lodestar.generators.edits import Reconstruct

    make(model, decode(Reconstruct, {"level": level}, "reconstruct"), pictures, solving, picture=picture)


def make(
    model: str,
    how: AnyEdit,
    pictures: list[str],
    options: Solving,
    *,
    mask: Path | None = None,
    origin: list[str] | None = None,
    picture: list[int] | None = None,
    content: tuple[list[str] | None, Prompting] = (None, Prompting()),
    count: int | None = None,
    augment: float = 0.0,
) -> None:
    """Make the pictures of an edit, and save them with their grid and manifest; prints where. content: labels and prompts.

    augment: noise level of small pictures. Raises Problem.
    """
    from lodestar.generators.edits.arrange import arrange, gather
    from lodestar.library import load_editor

    seed = options.seed if isinstance(options, Sampling) else 0
    how_made = options.settings().replace(augment=augment)
    network = load_editor(model, options.device, options.precision)
    reference = network.reference(content[1].reference) if content[1].reference else None
    guides = options.guides(model, how_made.guidance, reference)
    material = gather(network.source_shape(how), network.shape[1:], pictures, mask, picture or (), how.keeps_size)
    prompts = content[1].prompts()
    asked = arrange(network, how, material, ask(content[0], count), origin, count, seed, guides, prompts).replace(
        settings=network.resolved(how_made)
    )
    frames = network.prepare_edit(asked, material, guides).frames(options.batch_size)
    save(frames, asked, material, network.origin(guides), options.out, reference)


def save(
    frames: Iterator[Frame],
    asked: EditRequest,
    material: Material,
    made_by: Maker,
    out: Path | None,
    reference: Guide | None = None,
) -> None:
    """Save the pictures of an edit as they come, with their grid and manifest; prints where. Raises Problem."""
    from lodestar.generators.album import Album, Manifest, free_folder
    from lodestar.progress import progress

    how = asked.edit
    album = Album(out or free_folder("out", how.kind), Manifest.of(asked, made_by), made_by.names, material, reference)
    with progress("enlarging" if how.enlarges else "editing", len(asked.asks)) as done:
        for frame in frames:
            done(frame.done)
            if frame.final:
                images = frame.images
                album.write(range(frame.first, frame.first + len(images)), images)
    print(spelled(album.finish()))


for _command in (sdedit, invert, interpolate, inpaint, reconstruct):
    app.command(cls=ModelNamed)(ready(_command))
