"""`lodestar.quantize`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from lodestar import __version__, checkpoint, library
from lodestar.config import BatchSize, Count, Problem, checked
from lodestar.core.noise import seeds_from
from lodestar.data import Pictures, Source, open_source
from lodestar.evaluation.ranges import batches, find_errors, find_ranges, network_of
from lodestar.files import check_writable
from lodestar.generators.unclip import join_text
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.int8 import between
from lodestar.nets.precision import name_of
from lodestar.progress import progress

COUNT = 256
STEPS = "linspace:11"
RANGES = "denoiser.network.ranges"
"""Name of the ranges among a model's tensors."""


def quantize(
    model: str | Path,
    data: str | Path | Source | Pictures,
    out: str | Path,
    *,
    count: int = COUNT,
    steps: str | int = STEPS,
    seed: int = 0,
    batch_size: int = 32,
    device: str | None = None,
) -> Path:
    """Write a model with the ranges of its activations, with which it can sample in int8; returns the file's path.

    model: a diffusion model with a U-Net, by name, run or file. data: pictures, as for `lodestar.train`, with captions where the
    model knows texts, of which `count` are taken, the seed `seed` telling which, and noised to the levels of the plan `steps`;
    between them ranges are linear in network time. out: the new file, ending in .safetensors; weights are copied as they are, and
    in the other number formats its pictures are the same. Raises Problem: a model that has ranges, another kind of network, a
    file that is there already.
    """
    return quantized(model, data, out, count=count, steps=steps, seed=seed, batch_size=batch_size, device=device)[0]


def quantized(
    name: str | Path, data: Any, out: str | Path, *, count: int, steps: str | int, seed: int, batch_size: int, device: str | None
) -> tuple[Path, Table]:
    """The new file, and a table of errors by level; see `quantize`."""
    out, steps = Path(out), str(steps)
    count, batch_size = checked("count", count, Count), checked("batch size", batch_size, BatchSize)
    seeds_from(seed, count)
    if out.suffix != ".safetensors":
        raise Problem(f"{out}: the name of a model's file ends in .safetensors")
    if os.path.exists(out):
        raise Problem(f"{out} exists: choose another name, or remove it")
    check_writable(out)
    exact = library.load_diffusion(name, device, "float32")
    network_of(exact)
    channels, *size = exact.shape
    captioned = exact.config.denoiser.text is not None
    source = open_source(data, size=(size[0], size[1]), channels=channels, labels=None, captions=captioned)
    with progress(f"quantizing {name}", count) as tick:
        times, ranges = find_ranges(exact, source, steps, count=count, seed=seed, batch_size=batch_size, tick=tick)
    header, tensors = checkpoint.load(library.find(name))
    network = exact.config.denoiser.network.replace(ranges=times)
    config: DiffusionConfig = exact.config.replace(denoiser=exact.config.denoiser.replace(network=network))
    # A card goes wherever the model goes, and says nothing of this machine's folders.
    told = {"ranges": f"of {count:,} pictures of {Path(source.spec).name}, steps {steps}, seed {seed}"}
    origin = {"saved_from": str(name), "saved_from_sha256": header.digest, "lodestar": __version__, "torch": torch.__version__}
    checkpoint.save(out, header.kind, config.to_json(), {**tensors, RANGES: ranges}, {**header.provenance, **told, **origin})
    others = [library.load_diffusion(out, device, dtype) for dtype in (between(), torch.int8)]
    for other in others:
        other.companions = exact.companions  # a CLIP that tells texts is in no file of the model
        join_text(other)
    batch = next(batches(exact, source, batch_size, seed + count, batch_size))
    table = Table("network time", "σ/α", f"error of {name_of(between())}", "error of int8")
    for level, errors in find_errors(exact, others, batch, steps, seed):
        table.add_row(f"{float(level.time):.0f}", f"{float(level.ratio):.3g}", *(f"{error:.1e}" for error in errors))
    return out, table
