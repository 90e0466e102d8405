"""What a model, a run or a file is, told from its header alone."""

from __future__ import annotations

import json
from pathlib import Path

from rich.table import Table

from lodestar import checkpoint, library
from lodestar.config import Problem
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import BackboneConfig
from lodestar.train.names import LOG, RUN, STATE

_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}


def describe(name: str) -> Table:
    """A table of facts. Raises Problem if there is nothing under that name, or it is damaged."""
    path = Path(name)
    table = Table(show_header=False, box=None, pad_edge=False)
    if path.is_dir() and (path / RUN).exists():
        _run(table, path)
        if not (path / library.MODEL).exists():
            return table
    file = library.find(name)
    header = checkpoint.peek(file)
    bits = sorted({_BITS.get(dtype, 0) for dtype in header.dtypes.values()})
    size = f"{file.stat().st_size / 2**20:.1f} MiB"
    table.add_row("file", str(file))
    table.add_row("kind", header.kind)
    table.add_row("parameters", f"{header.parameters / 1e6:.2f} million, {'/'.join(map(str, bits))} bits, {size}")
    match library.config(file):
        case DiffusionConfig() as config:
            _diffusion(table, config)
        case ClassifierModelConfig() as config:
            _pictures(table, config.size, config.names, config.network)
            table.add_row("sees", f"noised pictures ({config.schedule.kind} schedule)" if config.noised else "clean pictures")
    for key, value in header.provenance.items():
        table.add_row(key.replace("_", " "), _text(value))
    table.add_row("sha256", header.digest)
    return table


def _run(table: Table, folder: Path) -> None:
    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
        table.add_row("run", f"{run['task']['kind']} on {run['data']['source']}, to {run['train']['images']:,} images")
        lines = (folder / LOG).read_text(encoding="utf-8").splitlines() if (folder / LOG).exists() else []
        if lines:
            table.add_row("last logged", _text(json.loads(lines[-1])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Problem(f"{folder} is damaged: {error}") from None
    if (folder / STATE).exists():
        table.add_row(
            "checkpoint",
            f"of image {checkpoint.peek(folder / STATE).provenance['images_seen']:,}; the same command goes on from it",
        )
    else:
        table.add_row("checkpoint", "none yet")


def _diffusion(table: Table, config: DiffusionConfig) -> None:
    denoiser, schedule = config.denoiser, config.schedule
    _pictures(table, config.size, config.names, denoiser.network)
    guided = "cfg, and classifier with one" if config.droppable else "classifier, with one"
    table.add_row("conditional", f"{denoiser.classes} classes; guidance: {guided}" if denoiser.classes else "no")
    table.add_row("predicts", f"{denoiser.prediction.kind}, variance {denoiser.variance}")
    table.add_row("schedule", f"{schedule.kind}, {schedule.timesteps} steps")
    table.add_row("sampled with", f"{config.sampler.kind}, {config.plan} steps, unless told otherwise")


def _pictures(table: Table, size: tuple[int, int], names: tuple[str, ...] | None, network: BackboneConfig) -> None:
    table.add_row("pictures", f"{size[0]}×{size[1]}, {network.in_channels} channels")
    if names:
        table.add_row("classes", ", ".join(names))
    widths, depths = (", ".join(map(str, numbers)) for numbers in (network.widths, network.depths))
    table.add_row(
        "network", f"channels {widths}; blocks {depths}; attention at 1/{', 1/'.join(map(str, network.attention)) or '–'}"
    )


def _text(value: object) -> str:
    match value:
        case float():
            return f"{value:,.4g}"
        case int():
            return f"{value:,}"
        case dict():
            return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items() if inner is not None)
        case _:
            return str(value)
