"""Descriptions of models, runs and files, read from their headers alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import torch
from rich.table import Table
from rich.text import Text

from lodestar import bundle, checkpoint, library
from lodestar.bundle import MAIN, Found
from lodestar.codecs import Embeddings
from lodestar.codecs.autoencoder import LatentCodec
from lodestar.conditions import LowRes
from lodestar.config import from_json
from lodestar.denoiser import DenoiserConfig
from lodestar.files import read_json, reading, regular
from lodestar.generators.optima import CARD, optima
from lodestar.models.autoregressive import AutoregressiveConfig
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.clip import ClipModelConfig
from lodestar.models.code_prior import CodePriorConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.models.discriminator import DiscriminatorModelConfig
from lodestar.models.gan import GanConfig
from lodestar.models.labels import listed
from lodestar.nets import MapConfig
from lodestar.nets.base import NetworkConfig
from lodestar.nets.native import native, processor
from lodestar.nets.probe import Purpose, probe
from lodestar.training.names import LOG, RUN, STATE

_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}


def describe(name: str) -> Table:
    """A table of facts. Raises Problem if there is nothing under that name, or it is damaged."""
    path = Path(name)
    table = Table(show_header=False, box=None, pad_edge=False)
    if os.path.isdir(path) and (path / RUN).exists():
        _run(table, path)
        if not (path / library.MODEL).exists():
            return table
    parts = library.parts(name)
    if MAIN in parts or not parts:
        _checkpoint(table, library.find(name))
    if parts:
        _bundle(table, name, parts)
    return table


def machine() -> Iterator[Table]:
    """Tables of this machine: processor, kernels and GPUs; and for sampling and for training, the speed of number formats."""
    facts = Table(show_header=False, box=None, pad_edge=False)
    kernels = native()
    _row(facts, "processor", processor().name)
    _row(facts, "torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    _row(facts, "kernels", "built here" if kernels.library is not None else f"none: {kernels.why}")
    for index in range(torch.cuda.device_count()):
        _row(facts, f"cuda:{index}", torch.cuda.get_device_name(index))
    yield facts
    for purpose in get_args(Purpose):
        found = probe(purpose)
        names = list(dict.fromkeys(name for times in found.seconds.values() for name in times))
        table = Table(
            "norm and 3×3 convolution", *(f"ms, {name}" for name in names), title=f"{purpose}: {found.fastest(*names)} by itself"
        )
        for shape, times in found.seconds.items():
            table.add_row(shape, *(f"{1e3 * times[name]:.2f}" if name in times else "–" for name in names))
        yield table


def _checkpoint(table: Table, file: Path) -> None:
    header = checkpoint.peek(file)
    size = f"{file.stat().st_size / 2**20:.1f} MiB"
    _row(table, "file", str(file))
    _row(table, "kind", header.kind)
    if header.kind == "state":
        _row(table, "size", size)
        with reading(file):
            _row(table, "run", _goal(from_json(header.config)))
    else:
        _model(table, header, file, size)
    for key, value in header.provenance.items():
        if key != CARD:
            _row(table, key.replace("_", " "), _text(value))
    for each in optima(header.provenance, str(file)):
        named = " ".join([each.sampler.kind, *(guide.kind for guide in each.guidance)])
        _row(table, f"optimized:{each.steps}", f"{named}, error {each.error:.3g} ({each.usual}: {each.usual_error:.3g})")
    _row(table, "sha256", header.digest)


def _bundle(table: Table, name: str, parts: Mapping[str, Found]) -> None:
    path = library.bundled(name)
    assert path is not None
    _row(table, "bundle", str(path))
    for number, (role, part) in enumerate(parts.items()):
        # No wider column for roles, so that a SHA-256 stays whole on 80 columns.
        _row(table, "" if number else "parts", f"{role}: {part.name} ({part.kind}, SHA-256 {part.digest[:16]}…)")
    _row(table, "bundle sha256", bundle.read(path).digest)


def _model(table: Table, header: checkpoint.Header, file: Path, size: str) -> None:
    bits = sorted({_BITS.get(dtype, 0) for dtype in header.dtypes.values()})
    _row(table, "parameters", f"{header.parameters / 1e6:.2f} million, {'/'.join(map(str, bits))} bits, {size}")
    match library.config(file):
        case DiffusionConfig() as config:
            _diffusion(table, config)
        case ClassifierModelConfig() as config:
            _pictures(table, config.size, config.names, config.network, config.network.in_channels)
            _row(table, "sees", f"noised pictures ({config.schedule.kind} schedule)" if config.noised else "clean pictures")
        case LatentCodec() as config:
            _pictures(table, config.size, None, config.network, config.channels)
            _row(table, "latents", "×".join(map(str, config.space)))
        case DiscriminatorModelConfig() as config:
            _pictures(table, config.size, config.names, config.network, config.network.in_channels)
            _row(table, "compares", f"real pictures with those of the model with SHA-256 {config.opponent or 'not known'}")
        case GanConfig() as config:
            made = config.network
            _pictures(table, made.size, config.names, made, made.in_channels)
            _row(table, "latents", f"{made.latent} numbers")
        case ClipModelConfig() as config:
            image, text = config.network.image, config.network.text
            _pictures(table, config.size, None, image, image.in_channels)
            _row(table, "sees", f"noised pictures ({config.schedule.kind} schedule)" if config.noised else "clean pictures")
            _row(table, "reads", f"texts of up to {text.context} tokens of {text.vocabulary:,} ({config.tokenizer.kind})")
        case CodePriorConfig() as config:
            _pictures(table, config.codec.size, config.names, config.networks[0], config.codec.channels)
            for network in config.networks[1:]:
                _row(table, "", network.summary)
            texts = [] if config.text is None else [f"texts of up to {config.text.context} tokens"]
            classes = [f"{config.classes} classes"] if config.classes else []
            told = " and ".join([*classes, *texts])
            _row(table, "conditional", f"{told}{'; guidance: cfg' if config.droppable else ''}" if told else "no")
        case AutoregressiveConfig() as config:
            codes = f"{config.network.codes} codes of {config.network.buckets} values"
            _row(table, "makes", f"embeddings of CLIP {config.text.space or 'not known'}, in {codes}")


def _run(table: Table, folder: Path) -> None:
    with reading(folder / RUN):
        _row(table, "run", _goal(read_json(folder / RUN)))
    if (folder / LOG).exists():
        with reading(folder / LOG):
            lines = regular(folder / LOG).read_text(encoding="utf-8").splitlines()
        for line in reversed(lines):
            # Where a run was killed, its last line may be cut; of a damaged one the time may be none.
            with contextlib.suppress(ValueError, OverflowError, OSError):
                _row(table, "last logged", _text(_with_date(from_json(line))))
                break
    if (folder / STATE).exists():
        with reading(folder / STATE):
            seen = checkpoint.peek(folder / STATE).provenance["images_seen"]
            _row(table, "checkpoint", f"of image {seen:,}; the same command goes on from it")
    else:
        _row(table, "checkpoint", "none yet")


def _with_date(logged: Any) -> Any:
    """A line of the log with its time in seconds since 1970 as the local date and time."""
    match logged:
        case {"time": int() | float() as seconds}:
            return {**logged, "time": datetime.fromtimestamp(seconds).isoformat(" ", "seconds")}
    return logged


def _goal(run: Any) -> str:
    """The task of a run, of this version or another. Raises any exception for a missing or invalid value."""
    return f"{run['task']['kind']} on {run['data']['source']}, to {run['train']['images']:,} images"


def _made(denoiser: DenoiserConfig) -> str:
    """How an upsampler's small pictures were made in training, unless as usual."""
    small = denoiser.condition("low_res")
    assert isinstance(small, LowRes)
    made = "" if small.degradation.kind == "area" else f", made by {small.degradation.kind}"
    return made + (f", with noise up to {small.augment:g}" if small.augment else "")


def _diffusion(table: Table, config: DiffusionConfig) -> None:
    denoiser, schedule = config.denoiser, config.schedule
    _pictures(table, config.size, config.names, denoiser.network, denoiser.channels)
    if denoiser.low_res:
        _row(table, "enlarges", f"pictures of {denoiser.low_res[0]}×{denoiser.low_res[1]}{_made(denoiser)}")
    if (text := denoiser.text) is not None:
        kind, context = text.tokenizer.kind, text.context
        _row(table, "prompts", f"of at most {context} tokens, tokenizer {kind}")
        if text.styles:
            _row(table, "styles", listed(text.styles))
    if (told := denoiser.embedding) is not None:
        _row(table, "decodes", f"embeddings of {told.embed} channels, of CLIP {told.space or 'not known'}")
    if isinstance(config.codec, Embeddings):
        _row(table, "makes", f"embeddings of CLIP {config.codec.space or 'not known'}")
    if denoiser.condition("masked") is not None:
        _row(table, "inpaints", "trained to, with the known part as its input")
    guides = {f"{denoiser.classes} classes": "classifier"} if denoiser.classes else {}
    guides |= {"texts": "clip"} if denoiser.text is not None else {}
    guided = ", ".join([*(["cfg"] if config.droppable else []), *(f"{guide} with one" for guide in guides.values())])
    _row(table, "conditional", f"{' and '.join(guides)}; guidance: {guided}" if guides else "no")
    _row(table, "predicts", f"{denoiser.prediction.kind}, variance {denoiser.variance}")
    _row(table, "schedule", f"{schedule.kind}, {schedule.timesteps} steps")
    if denoiser.network.ranged:
        _row(table, "in int8 too", "the ranges of its activations are known")
    _row(table, "sampled with", f"{config.sampler.kind}, steps {config.steps}, unless told otherwise")


def _pictures(
    table: Table, size: tuple[int, int], names: tuple[str, ...] | None, network: NetworkConfig | MapConfig, channels: int
) -> None:
    _row(table, "pictures", f"{size[0]}×{size[1]}, {channels} channels")
    if names:
        _row(table, "classes", listed(names))
    _row(table, "network", network.summary)


def _row(table: Table, name: str, value: str) -> None:
    table.add_row(name, Text(value))  # as it is: what a user has named may look like rich's markup


def _text(value: object) -> str:
    match value:
        case float():
            return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:,.4g}"
        case int():
            return f"{value:,}"
        case dict():
            return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items() if inner is not None)
        case _:
            return str(value)
