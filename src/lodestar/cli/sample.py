"""Sampling: `sample`, and `remake` of one picture of a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar.cli.options import Count, Device, Model, Out, Prompting, Sampling, ask, flattened, load_judge
from lodestar.cli.then import Cascading
from lodestar.config import CANDIDATES, Problem
from lodestar.files import spelled

JudgeName = Annotated[
    str | None, typer.Option("--judge", help="The classifier or CLIP of --best-of (name, run or file); default its own.")
]

Models = Annotated[
    Path | None,
    typer.Option("--models", help="Of the model karlo: the folder of its files, or of diffusers'; default models/karlo."),
]

if TYPE_CHECKING:
    from lodestar.generators.album import Album
    from lodestar.generators.base import Generator
    from lodestar.generators.guide import Guides
    from lodestar.world import World


@flattened
def sample(
    model: Model,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label", help="A class by name or number, or several (dog+ship, 'not cat'), with a count: dog=8. Repeatable."
        ),
    ] = None,
    count: Count = None,
    best_of: Annotated[
        int,
        typer.Option("--best-of", min=1, max=CANDIDATES, help="Candidates for each picture; the judge's surest is kept."),
    ] = 1,
    judge: JudgeName = None,
    npz: Annotated[bool, typer.Option("--npz", help="One samples.npz, as published evaluators read it; no PNG files.")] = False,
    models: Models = None,
    prompting: Prompting = Prompting(),
    cascading: Cascading = Cascading(),
    sampling: Sampling = Sampling(),
) -> None:
    """Sample pictures: numbered PNG files, a grid, and a manifest. The same command again resumes."""
    from functools import partial

    from lodestar.generators.album import MANIFEST, Album, Chosen, Manifest, chosen_before
    from lodestar.generators.guide import referring
    from lodestar.generators.rejection import candidates
    from lodestar.library import load_generator
    from lodestar.world import here

    model, cascading, sampling = _published(model, models, cascading, sampling)
    world, how = here(), sampling.settings()
    network = cascading.onto(load_generator(model, sampling.device, sampling.precision), sampling)
    reference = network.reference(prompting.reference) if prompting.reference else None
    guides = sampling.guides(model, how.guidance, reference)
    judging = load_judge(cascading.last(model), judge, best_of, sampling)
    wanted = candidates(network.wanted(ask(label, count), prompting.prompts(), count, guides), best_of)
    asked = referring(network.request(wanted, sampling.seed, how), guides, best_of)
    origin = network.origin(guides)
    album, whole = partial(Album, names=origin.names, reference=reference), Manifest.of(asked, origin)
    folder, apart = _folders(sampling.out, model, best_of, world)
    with world.in_turn():  # nobody writes before all know what is missing
        choice = None if best_of == 1 else Chosen.of(network.check_judge(judging, asked, best_of), asked)
        before = None if choice is None else chosen_before(folder, origin, choice)
        drawn = album(folder, before or whole, packed=npz and (choice is None or before is not None))
        choosing = choice is not None and (before is None or (apart / MANIFEST).exists() or drawn.missing() != [])
        if choosing:
            drawn = album(apart, whole)
        missing = drawn.missing()
    _make(drawn, missing, network, guides, sampling.batch_size, world)
    if world.rank > 0:
        return
    if choosing:
        images, kept = network.surest(drawn.frames(), asked, best_of, judging)
        chosen = album(folder, Manifest.of(kept, origin, choice), packed=npz)
        chosen.write(missing := chosen.missing(), images[missing])
        drawn.discard()
        drawn = chosen
    print(spelled(drawn.finish()))


def _folders(given: Path | None, model: str, best_of: int, world: World) -> tuple[Path, Path]:
    """The folder of the pictures, the same on all processes, and that of their candidates.

    These are kept until the judge has seen all of them, in an album of their own, so that none is made twice.
    """
    from lodestar.generators.album import free_folder
    from lodestar.results import beside

    with world.in_turn():  # nobody writes before all know the folder
        folder = given or free_folder("out", Path(model).stem)
    return folder, folder if best_of == 1 else beside(folder, "-candidates")


def _make(album: Album, missing: Sequence[int], network: Generator, guides: Guides, batch_size: int, world: World) -> None:
    """Sample the missing pictures of an album, this process its share of them; ends when all processes have."""
    from lodestar.generators.request import Request
    from lodestar.progress import error_console, progress
    from lodestar.results import bring

    asked, mine = album.manifest.request, missing[world.share(len(missing))]
    assert isinstance(asked, Request)
    before = len(asked.asks) - len(missing)
    console = error_console(world.rank > 0)
    with progress("sampling", len(asked.asks), done=before, console=console) as done:
        for frame in network.stream(asked.only(*mine), batch_size=batch_size, guides=guides) if mine else ():
            done(min(before + frame.done * world.size, len(asked.asks)))
            if frame.final:
                images = frame.images
                album.write(mine[frame.first : frame.first + len(images)], images)
    world.any(False)
    if world.rank == 0 and world.size > 1:
        bring(album.folder)


def _published(model: str, models: Path | None, cascading: Cascading, sampling: Sampling) -> tuple[str, Cascading, Sampling]:
    """The model karlo in its folder, with its upsampler, and with its published settings where no others are given.

    Other models as they are. Raises Problem.
    """
    if model != "karlo":
        if models is not None:
            raise Problem(f"--models {models} is the folder of the model karlo, and the model is {model}")
        return model, cascading, sampling
    from lodestar.python import karlo

    path = str(karlo.karlo(models or Path("models") / karlo.NAME))
    staged = replace(cascading, then=cascading.then or [karlo.THEN], prior=cascading.prior or karlo.PRIOR)
    return path, staged, replace(sampling, guidance=sampling.guidance or [karlo.GUIDANCE])


def remake(
    manifest: Annotated[Path, typer.Argument(help="A manifest, or the folder that holds it.")],
    picture: Annotated[int, typer.Option("--picture", min=0, help="The number of the picture.")],
    out: Out = None,
    device: Device = None,
) -> None:
    """Make one picture of a manifest again, alone."""
    from lodestar.files import check_writable
    from lodestar.generators.album import Manifest, free_folder, read_material, read_reference
    from lodestar.generators.editor import Editor
    from lodestar.generators.edits.request import EditRequest
    from lodestar.guidance import REFERENCE
    from lodestar.images import save_png
    from lodestar.library import load_origin

    known = Manifest.read(manifest)
    if picture >= len(known.request.asks):
        raise Problem(f"picture {picture}: this manifest has 0 to {len(known.request.asks) - 1}")
    path = (out or free_folder("out", "remake")) / f"{picture:05d}.png"
    check_writable(path)
    network, guides = load_origin(known, device)
    if REFERENCE in known.guides:
        guides[REFERENCE] = read_reference(manifest, known.guides[REFERENCE])
    asked = known.request.only(picture)
    if isinstance(asked, EditRequest):
        if not isinstance(network, Editor):
            raise Problem(f"{known.model} edits no pictures")
        frames = network.prepare_edit(asked, read_material(manifest, asked), guides).frames()
    else:
        frames = network.stream(asked, guides=guides)
    for frame in frames:
        if frame.final:
            save_png(path, frame.images[0])
    print(spelled(path))
