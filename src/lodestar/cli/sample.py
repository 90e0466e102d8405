"""Sampling: `sample`, and `remake` of one picture of a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    ask,
    load_diffusion,
    load_guide,
    parse_guidance,
    parse_sampler,
)


def sample(
    model: Model,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="A class by name or number, with a count: dog=8. Repeatable.")
    ] = None,
    count: Count = None,
    guidance: GuidanceTexts = None,
    sampler: SamplerText = None,
    steps: Steps = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    classifier: ClassifierName = None,
    clip: Clip = True,
    device: Device = None,
    out: Out = None,
    npz: Annotated[bool, typer.Option("--npz", help="One samples.npz, as published evaluators read it, no PNG files.")] = False,
) -> None:
    """Sample pictures: numbered PNG files, a grid, and a manifest."""
    from contextlib import nullcontext

    from lodestar.album import Album, Manifest, free_folder
    from lodestar.models.diffusion import Request
    from lodestar.progress import progress

    guides, chosen = parse_guidance(guidance), parse_sampler(sampler)
    network = load_diffusion(model, device)
    guide = load_guide(model, classifier, guides, device)
    labels = network.labels(ask(label, count), count, guide)
    request = Request(
        labels=labels, seeds=tuple(range(seed, seed + len(labels))), plan=steps, sampler=chosen, guidance=guides, clip=clip
    )
    network.check(request, guide)
    folder = out or free_folder("out", Path(model).stem)
    album = Album(folder, Manifest.of(request, network, guide), network.classes(guide)[0])
    with progress("sampling", len(labels)) as done, album.npz() if npz else nullcontext(album.add) as add:
        for frame in network.stream(request, batch_size=batch_size, classifier=guide):
            done(frame.first + len(frame.x) * frame.step / frame.steps)
            if frame.final:
                add(frame)
    print(album.npz_path if npz else album.finish())


def remake(
    manifest: Annotated[Path, typer.Argument(help="A manifest, or the folder that holds it.")],
    picture: Annotated[int, typer.Option("--picture", min=0, help="The number of the picture.")],
    out: Out = None,
    device: Device = None,
) -> None:
    """Make one picture of a manifest again, alone."""
    from lodestar.album import Manifest, free_folder, read_material
    from lodestar.config import Problem
    from lodestar.images import save_png
    from lodestar.models.editing import EditRequest, stream

    known = Manifest.read(manifest)
    if picture >= len(known.request.labels):
        raise Problem(f"picture {picture}: this manifest has 0 to {len(known.request.labels) - 1}")
    network, guide = known.load(device)
    path = (out or free_folder("out", "remake")) / f"{picture:05d}.png"
    request = known.request.only(picture)
    if isinstance(request, EditRequest):
        frames = stream(network, request, read_material(manifest, request), classifier=guide)
    else:
        frames = network.stream(request, classifier=guide)
    for frame in frames:
        if frame.final:
            save_png(path, frame.images[0])
    print(path)
