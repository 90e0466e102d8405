"""`upsample`: small pictures enlarged by a model that was trained to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar.cli.options import BatchSize, Clip, Device, Model, Out, SamplerText, Seed, Steps, ask, parse_sampler

if TYPE_CHECKING:
    from torch import Tensor


def upsample(
    model: Model,
    pictures: Annotated[str, typer.Argument(help="Pictures to enlarge: a file, a folder, what sample wrote.")],
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="A class by name or number, in turn for the pictures: dog, or dog=8. Repeatable."),
    ] = None,
    sampler: SamplerText = None,
    steps: Steps = None,
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    clip: Clip = True,
    device: Device = None,
    out: Out = None,
) -> None:
    """Enlarge pictures with an upsampler: numbered PNG files and a grid. Pictures of another size are brought to the model's."""
    import torch

    from lodestar.album import free_folder
    from lodestar.config import Problem
    from lodestar.images import save_grid, save_png
    from lodestar.library import load_diffusion
    from lodestar.models.request import Request
    from lodestar.progress import progress

    chosen = parse_sampler(sampler)
    network = load_diffusion(model, device)
    config = network.config.denoiser
    if config.low_res is None:
        raise Problem(f"{model} makes pictures from noise and enlarges none: use lodestar sample")
    low_res, classes = _read(pictures, config.low_res, config.channels)
    if config.classes is not None and label is None and classes is None:
        raise Problem(f"{model} was trained with classes, and {pictures} tells none: give them with --label")
    asked = ask(label, None) or (classes if config.classes is not None else None)
    labels = network.labels(asked, len(low_res))
    request = Request(labels=labels, seeds=tuple(range(seed, seed + len(labels))), plan=steps, sampler=chosen, clip=clip)
    network.steps(request)
    folder = out or free_folder("out", Path(model).stem)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Problem(f"{folder} exists and is not empty: choose another --out")
    large = []
    with progress("enlarging", len(labels)) as done:
        for frame in network.stream(request, batch_size=batch_size, low_res=low_res):
            done(frame.done)
            if frame.final:
                for index, image in enumerate(frame.images, start=frame.first):
                    save_png(folder / f"{index:05d}.png", image)
                    large.append(image)
    save_grid(folder / "grid.png", torch.stack(large))
    print(folder / "grid.png")


def _read(spec: str, size: tuple[int, int], channels: int) -> tuple[Tensor, list[str] | None]:
    """Pictures at a size, uint8 [N, C, h, w], and their classes where a folder tells them. Raises Problem."""
    import numpy as np
    import torch

    from lodestar.data import open_source
    from lodestar.data.pictures import read_pictures

    images = torch.from_numpy(np.stack([picture.image for picture in read_pictures([spec], channels, size)]))
    if not Path(spec).is_dir():
        return images, None
    source = open_source(spec, size=size, channels=channels)
    names = source.names
    return images, None if names is None else [names[source.label(index) or 0] for index in range(len(source))]
