"""Editing without training: `edit sdedit`, `edit invert`, `edit interpolate`, `edit inpaint`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar.cli.options import (
    BatchSize,
    ClassifierName,
    Clip,
    Count,
    Device,
    GuidanceTexts,
    Model,
    Out,
    SamplerText,
    Seed,
    Steps,
    WeakName,
    ask,
    load_guide,
    load_weak,
    parse_guidance,
    parse_sampler,
)

if TYPE_CHECKING:
    from lodestar.models.edits import AnyEdit

app = typer.Typer(
    help="Make pictures of pictures, without training: numbered PNG files, a grid beside what they are made of, a manifest."
)

Pictures = Annotated[
    list[str], typer.Argument(help="Picture files of any size, folders of them, albums of samples, or parquet files.")
]
Chosen = Annotated[list[int] | None, typer.Option("--picture", min=0, help="Only this one of them, by number. Repeatable.")]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label", help="What to make of them: a class by name or number, with a count: dog=8. Repeatable; default none."
    ),
]
Origin = Annotated[
    list[str] | None,
    typer.Option("--from", help="The class that the pictures have; once for all of them, or once for each. Default none."),
]
Guided = Annotated[bool, typer.Option("--guided", help="Guide the inversion too (it is then harder to undo).")]


def sdedit(
    model: Model,
    pictures: Pictures,
    strength: Annotated[float, typer.Option("--strength", help="In (0, 1]: near 0 the picture comes back, 1 ignores it.")] = 0.5,
    picture: Chosen = None,
    label: Labels = None,
    count: Count = None,
    guidance: GuidanceTexts = None,
    sampler: SamplerText = None,
    steps: Steps = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    classifier: ClassifierName = None,
    weak: WeakName = None,
    clip: Clip = True,
    device: Device = None,
    out: Out = None,
) -> None:
    """Noise pictures part of the way and sample from there (SDEdit)."""
    from lodestar.models.edits import SDEdit

    _edit(
        model, SDEdit(strength=strength), pictures, picture=picture, label=label, count=count, guidance=guidance, sampler=sampler,
        steps=steps, seed=seed, batch_size=batch_size, classifier=classifier, weak=weak, clip=clip, device=device, out=out,
    )  # fmt: skip


def invert(
    model: Model,
    pictures: Pictures,
    origin: Origin = None,
    guided: Guided = False,
    picture: Chosen = None,
    label: Labels = None,
    guidance: GuidanceTexts = None,
    sampler: SamplerText = None,
    steps: Steps = None,
    batch_size: BatchSize = 32,
    classifier: ClassifierName = None,
    weak: WeakName = None,
    clip: Clip = True,
    device: Device = None,
    out: Out = None,
) -> None:
    """Find the noise that pictures are made of, and sample from it under another label (DDIM inversion)."""
    from lodestar.models.edits import Invert

    _edit(
        model, Invert(guided=guided), pictures, origin=origin, picture=picture, label=label, guidance=guidance, sampler=sampler,
        steps=steps, batch_size=batch_size, classifier=classifier, weak=weak, clip=clip, device=device, out=out,
    )  # fmt: skip


def interpolate(
    model: Model,
    pictures: Annotated[list[str] | None, typer.Argument(help="Two pictures, as in the other edits; or none.")] = None,
    points: Annotated[int, typer.Option("--points", min=2, help="How many pictures, the two ends included.")] = 8,
    origin: Annotated[str | None, typer.Option("--from", help="The label at the first end; default that of the other.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="The label at the other end; default that of the first.")] = None,
    seed: Seed = 0,
    to_seed: Annotated[int | None, typer.Option("--to-seed", min=0, help="The seed at the other end, without pictures.")] = None,
    guided: Guided = False,
    picture: Chosen = None,
    guidance: GuidanceTexts = None,
    sampler: SamplerText = None,
    steps: Steps = None,
    batch_size: BatchSize = 32,
    classifier: ClassifierName = None,
    weak: WeakName = None,
    clip: Clip = True,
    device: Device = None,
    out: Out = None,
) -> None:
    """Go from one picture to another, from one seed to another, from one label to another, or both."""
    from lodestar.models.edits import Interpolate

    _edit(
        model, Interpolate(points=points, to_seed=to_seed, guided=guided), pictures or [], picture=picture,
        origin=None if origin is None else [origin], label=None if to is None else [to], guidance=guidance, sampler=sampler,
        steps=steps, seed=seed, batch_size=batch_size, classifier=classifier, weak=weak, clip=clip, device=device, out=out,
    )  # fmt: skip


def inpaint(
    model: Model,
    pictures: Pictures,
    mask: Annotated[
        Path, typer.Option("--mask", help="PNG of the pictures' size, or the model's: white is filled in, black is kept.")
    ],
    resamples: Annotated[int, typer.Option("--resamples", help="RePaint's r: how often each stretch of steps is taken.")] = 10,
    jump: Annotated[int, typer.Option("--jump", help="RePaint's j: how many steps long a stretch is.")] = 10,
    picture: Chosen = None,
    label: Labels = None,
    count: Count = None,
    guidance: GuidanceTexts = None,
    sampler: SamplerText = None,
    steps: Steps = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    classifier: ClassifierName = None,
    weak: WeakName = None,
    clip: Clip = True,
    device: Device = None,
    out: Out = None,
) -> None:
    """Fill in what a mask shows white, and keep the rest as it is (RePaint); the usual sampler is ancestral."""
    from lodestar.models.edits import Inpaint

    _edit(
        model, Inpaint(resamples=resamples, jump=jump), pictures, mask=mask, picture=picture, label=label, count=count,
        guidance=guidance, sampler=sampler, steps=steps, seed=seed, batch_size=batch_size, classifier=classifier, weak=weak,
        clip=clip, device=device, out=out,
    )  # fmt: skip


def _edit(
    model: str,
    how: AnyEdit,
    pictures: list[str],
    *,
    mask: Path | None = None,
    origin: list[str] | None = None,
    picture: list[int] | None = None,
    label: list[str] | None = None,
    count: int | None = None,
    guidance: list[str] | None = None,
    sampler: str | None = None,
    steps: str | None = None,
    seed: int = 0,
    batch_size: int = 32,
    classifier: str | None = None,
    weak: str | None = None,
    clip: bool = True,
    device: str | None = None,
    out: Path | None = None,
) -> None:
    """Do what every edit does."""
    from lodestar.album import Album, Manifest, free_folder
    from lodestar.editor import arrange, gather
    from lodestar.library import load_diffusion
    from lodestar.models.editing import check, stream
    from lodestar.progress import progress

    guides, chosen = parse_guidance(guidance), parse_sampler(sampler)
    network = load_diffusion(model, device)
    guide, worse = load_guide(model, classifier, guides, device), load_weak(weak, guides, device)
    material = gather(network, pictures, mask, picture or ())
    asked = arrange(network, how, material, ask(label, count), origin, count, seed, guide)
    request = asked.replace(plan=steps, sampler=chosen, guidance=guides, clip=clip)
    check(network, request, material, guide, worse)
    folder = out or free_folder("out", how.kind)
    album = Album(folder, Manifest.of(request, network, guide, worse), network.classes(guide)[0], material)
    with progress("editing", len(request.labels)) as done:
        for frame in stream(network, request, material, batch_size=batch_size, classifier=guide, weak=worse):
            done(frame.done)
            if frame.final:
                album.add(frame)
    print(album.finish())


for _command in (sdedit, invert, interpolate, inpaint):
    app.command()(_command)
