"""`lodestar.convert`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lodestar import presets
from lodestar.config import Problem, nearest, short
from lodestar.conversion import FAMILIES, OPENAI_CLIP, autoencoder_folder, clip_folder, diffusers, unclip_folder
from lodestar.conversion.flags import CODES, parse
from lodestar.conversion.published import by_name
from lodestar.conversion.run import convert as convert_file
from lodestar.files import check_writable
from lodestar.generators.request import settings
from lodestar.samplers import Sampler


def convert(
    source: str | Path,
    out: str | Path = "models",
    *,
    name: str | None = None,
    flags: str | Path | Mapping[str, Any] | None = None,
    sampler: Sampler | str | None = None,
    steps: str | int | None = None,
) -> Path:
    """Convert a foreign checkpoint into one file with its configuration, in the folder `out`; returns its path.

    source: a .pt file, a published model to fetch ("openai/adm-64"), or a folder of diffusers. name: the published model in a
    file, where its own name does not tell; with flags, the code whose defaults count, "guided-diffusion" or "improved-diffusion".
    flags: the flags of training for a file of your own, as a command line, a file with a command line, or a mapping
    (``{"image_size": 64}``). sampler, steps: settings of the model's later sampling, in the place of those in its files. A file
    that was converted before is written anew. Raises Problem, with nothing written, where the source gives no known model.
    """
    if isinstance(flags, Mapping):
        flags = parse(f"{key}={value}" for key, value in flags.items())
    elif flags is not None:
        flags = parse([], str(flags))
    return converted(source, out, name, flags, sampler, steps)[0]


def converted(
    source: str | Path,
    out: str | Path,
    name: str | None = None,
    flags: Mapping[str, str] | None = None,
    sampler: Sampler | str | None = None,
    steps: str | int | None = None,
) -> tuple[Path, str]:
    """The new file, and what it was made of, in words; see `convert`."""
    path, how = Path(source), settings(sampler=sampler, steps=None if steps is None else str(steps))
    if os.path.isdir(path):
        if name is not None:
            raise Problem(f"--as {name} is for a file whose name does not tell: a folder of diffusers tells everything")
        if unclip_folder.is_unclip(path):
            prior, decoder, upsampler = unclip_folder.convert_folder(path, Path(out))
            return decoder, f"{source} is an UnCLIPPipeline of diffusers: beside its decoder are {prior} and {upsampler}"
        if clip_folder.is_clip(path):
            return clip_folder.convert_folder(path, Path(out)), f"{source} is a CLIPModel of transformers"
        if autoencoder_folder.is_autoencoder(path):
            if how != settings():
                raise Problem(f"--sampler and --steps are for diffusion models, and {source} is an autoencoder")
            return autoencoder_folder.convert_folder(path, Path(out), flags), f"{source} is an autoencoder of diffusers"
        if flags is not None:
            raise Problem("--flag and --flags are for a file of guided-diffusion: a folder of diffusers has its own settings")
        written, model = diffusers.convert(path, Path(out), how.sampler, how.steps)
        sampled = f"sampled with {short(model.config.sampler)} in steps {model.config.steps}"
        return written, f"{source} is a UNet2DModel of diffusers, {sampled}"
    if flags is None and name in (*CODES, OPENAI_CLIP.name):
        flags = {}
    if not os.path.isfile(path):
        path, name = _fetched(str(source), Path(out), name, flags)
    made = convert_file(path, Path(out), FAMILIES, presets.PUBLISHED, name, flags, how.sampler, how.steps)
    what = made.published.name if flags is None else f"a model of {name or made.published.family.name} by its flags"
    return made.path, f"{path} is {what}, {made.parameters:,} parameters, SHA-256 {made.sha256}"


def _fetched(source: str, out: Path, name: str | None, flags: Mapping[str, str] | None) -> tuple[Path, str]:
    """The file of a published model, and its name. Raises Problem where there is none such."""
    if Path(source).suffix == ".pt":
        beside = [str(each) for each in Path(source).parent.glob("*.pt")]
        raise Problem(f"no file {source!r}{nearest(source, beside)}")
    if source.endswith(("/", os.sep)):
        raise Problem(f"no folder {source!r}")
    published = by_name(source, presets.PUBLISHED)
    if flags is not None:
        raise Problem(f"--flag and --flags are for a file of your own: {source} is published, and its flags are known")
    if name is not None:
        raise Problem(f"--as {name} is for a file whose name does not tell: {source} is a name already")
    check_writable(out / f"{published.short}.safetensors")
    return published.fetch(), published.name
