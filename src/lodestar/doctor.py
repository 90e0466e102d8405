"""The state of an installation: device, number formats and their speed, data that are read, checkpoints that are whole."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import torch

from lodestar import checkpoint, library
from lodestar.config import Problem
from lodestar.data import open_source
from lodestar.files import cache_folder, check_writable
from lodestar.nets.native import native, processor
from lodestar.nets.precision import VARIABLE, choose_device, choose_dtype, name_of
from lodestar.nets.probe import Purpose, probe
from lodestar.training.names import RUN, STATE

_MODEL, _PICTURES, _STEPS, _ROUNDS = "cifar10", 8, 4, 3
"""The embedded model whose speed is measured, its pictures and steps, and how often each format has its turn."""
_SIZE = 64
"""Side that pictures are brought to, which may be of any."""
_FAR = 16.0
"""Mean difference of pictures in two formats, of 255, beyond which one of them is wrong."""


@dataclass(frozen=True)
class Finding:
    """A finding about one part."""

    part: str
    told: str
    broken: bool = False

    def __str__(self) -> str:
        return f"{'BROKEN' if self.broken else 'ok':6} {self.part}: {self.told}"


def examine(device: str | None, data: Sequence[str], paths: Sequence[str | Path], pictures: int = 100) -> Iterator[Finding]:
    """Findings about this machine, about data (so many pictures of each, evenly), and about the files of models and runs."""
    yield _tried("device", lambda: _device(choose_device(device)))
    yield _tried("cache", _cache)
    kernels = native()
    yield Finding("kernels", "built here" if kernels.library is not None else f"PyTorch's own are used: {kernels.why}")
    for purpose in get_args(Purpose):
        yield _tried(f"precision in {purpose}", partial(_precision, device, purpose))
    yield from _speed(device)
    for spec in data:
        yield _tried(f"data {spec}", partial(_data, spec, pictures))
    for path in paths:
        yield from _files(path)


def _tried(part: str, look: Callable[[], str]) -> Finding:
    """What `look` tells; a Problem that it raises tells that the part is broken."""
    try:
        return Finding(part, look())
    except Problem as problem:
        return Finding(part, str(problem), broken=True)


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info(device)
        return f"{device}, {torch.cuda.get_device_name(device)}, {free / 2**30:.1f} of {whole / 2**30:.1f} GiB free"
    return f"{device}, {processor().name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _cache() -> str:
    check_writable(cache_folder() / "doctor")
    return f"{cache_folder()} can be written"


def _precision(device: str | None, purpose: Purpose) -> str:
    place = choose_device(device)
    chosen = name_of(choose_dtype(None, place, purpose, ranged=purpose == "sampling"))
    if os.environ.get(VARIABLE):
        return f"{chosen}, of {VARIABLE}"
    if place.type == "cuda":
        return chosen
    ratio = probe(purpose).ratio(chosen)
    assert ratio is not None
    return f"{chosen}, measured as {1 / ratio:.2f} times as fast as float32 where it gains least"


def _speed(device: str | None) -> Iterator[Finding]:
    """The speed of a forward pass of an embedded model in the chosen format and in float32, and whether both agree."""
    part = "forward pass"
    try:
        models = {name: library.load_diffusion(_MODEL, device, name) for name in (None, "float32")}
    except Problem as problem:
        yield Finding(part, str(problem), broken=True)
        return
    made, best = {}, dict.fromkeys(models, float("inf"))
    for _ in range(_ROUNDS):
        for name, model in models.items():
            began = time.perf_counter()
            made[name] = model.sample(count=_PICTURES, steps=f"trailing:{_STEPS}", batch_size=_PICTURES, seed=0).images.float()
            best[name] = min(best[name], (time.perf_counter() - began) / _STEPS)
    chosen, gain = models[None].precision, best["float32"] / best[None]
    told = f"{_PICTURES} pictures of {_MODEL} in {1e3 * best[None]:.1f} ms, {chosen}"
    if chosen != "float32":
        told += f", {gain:.2f} times as fast as float32"
        if gain < 1:
            told += f": the probe of this machine does not hold; remove {cache_folder() / 'probe'}, to measure again"
    yield Finding(part, told)
    far = (made[None] - made["float32"]).abs().mean().item()
    yield Finding("pictures", f"{chosen} and float32 differ by {far:.2f} of 255 in the mean", broken=not far <= _FAR)


def _data(spec: str, pictures: int) -> str:
    source = open_source(spec, size=_SIZE, skip_bad=True)
    looked = range(0, len(source), -(-len(source) // pictures))
    bad = [source.bad[index] for index in looked if source.row(index) is None]
    if bad:
        raise Problem(f"{len(bad):,} of {len(looked):,} pictures cannot be read, the first: {bad[0]}")
    classes = "no classes" if source.names is None else f"{len(source.names)} classes"
    return f"{len(source):,} pictures, {source.channels} channels, {classes}; {len(looked):,} of them were read"


def _files(path: str | Path) -> Iterator[Finding]:
    """Findings about the files of a model or of a run."""
    folder = Path(path)
    if folder.is_dir() and (folder / RUN).exists():
        found = sorted(each for each in folder.glob("*.safetensors") if not each.name.startswith("."))
        if not (folder / STATE).exists():
            yield Finding(f"run {path}", "no checkpoint yet")
        files = {str(each): each for each in found}
    else:
        try:
            parts = library.parts(path)
            files = {each.name: each.file for each in parts.values()} if parts else {str(path): library.find(path)}
        except Problem as problem:
            yield Finding(f"checkpoint {path}", str(problem), broken=True)
            return
    for name, file in files.items():
        yield _tried(f"checkpoint {name}", partial(_whole, file))


def _whole(file: Path) -> str:
    header, tensors = checkpoint.load(file)
    if odd := [name for name, each in tensors.items() if each.is_floating_point() and not each.isfinite().all()]:
        raise Problem(f"{file} is as it was written, and {odd[0]!r} has numbers that are not finite")
    seen = header.provenance.get("images_seen")
    told = f", of image {seen:,}" if isinstance(seen, int) else ""
    return f"{header.kind}, {header.parameters / 1e6:.2f} million numbers{told}, whole"
