"""Reproducible rows of published tables: model, sampling, and expected numbers.

All are against the reference batch named, by Inception features (`lodestar.evaluation.extractors.inception`). Sources: ADM,
Dhariwal and Nichol 2021 (arXiv:2105.05233), tables 4, 5, 12 and 14, measured with the evaluator of its code; CIFAR-10's are those
of Improved DDPM (Nichol and Dhariwal 2021) and of w86763777/pytorch-ddpm, against the training pictures. Of upsampled rows the
guidance scale is not printed: ours is that of the smaller model's own row or command.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from rich import box
from rich.table import Column, Table

from lodestar import library
from lodestar.conditions import Ask
from lodestar.config import Config, Problem
from lodestar.core.noise import generator
from lodestar.download import place
from lodestar.generators.base import Generator
from lodestar.generators.cascade import Cascade, Stage
from lodestar.generators.guide import Guide, Guides
from lodestar.generators.request import Request, Settings
from lodestar.guidance import Clamp, Classifier, Guidance
from lodestar.samplers import DDIM, Ancestral, Sampler

_BATCHES = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/"

PICTURES = 50_000
"""Number of pictures in every row."""

TOLERANCE = {"frechet": 0.04, "spatial_frechet": 0.04, "score": 0.03}
"""Relative differences explained by other seeds; our choice, as none are published."""
ABSOLUTE = 0.015
"""Absolute difference of precision and recall explained by other seeds."""


class Recipe(Config):
    """One row of a table."""

    model: str
    """A published model's short name; `lodestar convert AUTHORS/NAME` makes its file."""
    authors: str = "openai"
    """The first part of the model's published name."""
    guide: str | None = None
    """Short name of the guiding classifier; None without."""
    scale: float = Field(default=0.0, ge=0)
    """Scale of the classifier guidance; 0 without."""
    steps: str = "250"
    sampler: Literal["own", "ancestral", "ddim"] = "ancestral"
    """Sampler; ``own`` is the model's."""
    then: str | None = None
    """Short name of the upsampler that enlarges the pictures; None without."""
    then_steps: str = "250"
    """Steps of the upsampler, with DDIM where they are named after it."""
    reference: str
    """Name of the reference batch's file."""
    folder: str | None
    """Folder of the file, under the common address; None for pictures that are nobody's to publish here."""
    expected: Mapping[str, float]
    """The published numbers, by the names of our metrics."""

    @property
    def guidance(self) -> tuple[Guidance, ...]:
        """Guidance of the row: by the classifier, if there is one."""
        return (Classifier(scale=self.scale),) if self.guide else ()

    @property
    def samples_by(self) -> Sampler | None:
        """The sampler; None is the model's own."""
        return {"own": None, "ancestral": Ancestral(), "ddim": DDIM()}[self.sampler]

    @property
    def made_by(self) -> str:
        """Short name of the model with the pictures of the row: the last one."""
        return self.then or self.model


def load(recipe: Recipe, folder: Path, device: str | None = None) -> tuple[Generator, dict[str, Guide]]:
    """The model of a row, or the cascade, and its guides by role, from a folder of converted ones.

    Raises Problem where one is missing.
    """
    named = [recipe.model, *filter(None, [recipe.then])]
    paths = [_converted(name, folder, recipe.authors) for name in named]
    guides = {} if recipe.guide is None else {"classifier": str(_converted(recipe.guide, folder, recipe.authors))}
    first, *rest = (library.load_diffusion(path, device) for path in paths)
    sampler = DDIM() if recipe.then_steps.startswith("ddim") else Ancestral()
    stages = [Stage(each, steps=recipe.then_steps, sampler=sampler, guidance=Clamp()) for each in rest]
    return Cascade([first, *stages]) if stages else first, library.load_guides(guides, device)


def reference_file(recipe: Recipe, given: str | None) -> Path:
    """The reference batch of a row: given, or in the cache folder's ``downloads``. Raises Problem naming the place for it."""
    if given is None and recipe.folder is None:
        raise Problem(f"this row is measured against the pictures that its model was trained on: --reference {recipe.reference}")
    address = f"{_BATCHES}{recipe.folder}/{recipe.reference}"
    path = place(address) if given is None else Path(given).expanduser()
    if not path.is_file():
        raise Problem(f"the reference batch {path} is missing{'' if recipe.folder is None else f': it is {address}'}")
    return path


def drawn(recipe: Recipe, model: Generator, guides: Guides, count: int, seed: int) -> Request:
    """Request of a row: classes drawn at random, as by its authors, and picture k with the seed seed + k."""
    classes = model.classes(guides)[1]
    labels: list[int | None] = [None] * count
    if classes is not None:
        labels = torch.randint(classes, (count,), generator=generator(seed)).tolist()
    # The published code clamps before the gradient and not after it.
    how = Settings(steps=recipe.steps, sampler=recipe.samples_by, guidance=(Clamp(), *recipe.guidance))
    return model.request([Ask(label=label) for label in labels], seed, how)


def within(name: str, measured: float, expected: float) -> bool:
    """True if a measured number agrees with the published one, up to the seeds."""
    if name in TOLERANCE:
        return abs(measured - expected) <= TOLERANCE[name] * expected
    return abs(measured - expected) <= ABSOLUTE


def comparison(recipe: Recipe, numbers: Mapping[str, float], count: int) -> Table:
    """The measured numbers beside the printed ones."""
    table = Table("", "measured", "printed", "within what seeds explain", box=box.SIMPLE)
    for name, printed in recipe.expected.items():
        told = "yes" if within(name, numbers[name], printed) else "no"
        table.add_row(name.replace("_", " "), f"{numbers[name]:.4g}", f"{printed:g}", told)
    if count != PICTURES:
        table.caption = f"{count:,} pictures, and the printed numbers are of {PICTURES:,}: distances are biased upwards by fewer"
    return table


def listing() -> Table:
    """All rows: their requirements and the printed numbers."""
    short = {"frechet": "Fréchet", "spatial_frechet": "spatial", "score": "score", "precision": "precision", "recall": "recall"}
    table = Table(Column("row", no_wrap=True), "guided", "steps", *short.values(), box=box.SIMPLE)
    for name, recipe in RECIPES.items():
        guided = "" if recipe.guide is None else f"{recipe.scale:g}"
        printed = (f"{recipe.expected[key]:g}" if key in recipe.expected else "" for key in short)
        steps = recipe.steps if recipe.then is None else f"{recipe.steps}, {recipe.then_steps}"
        table.add_row(name, guided, steps, *printed)
    return table


def _converted(name: str, folder: Path, authors: str) -> Path:
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise Problem(f"{path} is missing: make it with lodestar convert {authors}/{name} --out {folder}")
    return path


def _imagenet(size: int, *numbers: float | None, **settings: object) -> Recipe:
    """numbers: Fréchet distance, spatial one, score, precision, recall; None where the table has none."""
    names = ("frechet", "spatial_frechet", "score", "precision", "recall")
    expected = {name: number for name, number in zip(names, numbers, strict=True) if number is not None}
    file = "VIRTUAL_imagenet512.npz" if size == 512 else f"VIRTUAL_imagenet{size}_labeled.npz"
    fields = {"model": f"adm-{size}", "reference": file, "folder": f"imagenet/{size}", "expected": expected, **settings}
    return Recipe.model_validate(fields)


def _guided(size: int, scale: float, *numbers: float | None, **settings: object) -> Recipe:
    return _imagenet(size, *numbers, guide=f"adm-{size}-classifier", scale=scale, **settings)


def _fast(size: int, scale: float, *numbers: float | None) -> Recipe:
    return _guided(size, scale, *numbers, steps="ddim25", sampler="ddim")


def _enlarged(size: int, small: int, *numbers: float, **settings: object) -> Recipe:
    return _imagenet(size, *numbers, model=f"adm-{small}", then=f"adm-{small}-{size}", **settings)


def _both(size: int, small: int, scale: float, *numbers: float, **settings: object) -> Recipe:
    return _enlarged(size, small, *numbers, guide=f"adm-{small}-classifier", scale=scale, **settings)


def _cifar(model: str, steps: str, **expected: float) -> Recipe:
    return Recipe(model=model, steps=steps, reference="cifar10-train.parquet", folder=None, expected=expected)


def _lsun(name: str, *numbers: float) -> Recipe:
    expected = dict(zip(("frechet", "spatial_frechet", "precision", "recall"), numbers, strict=True))
    file = f"VIRTUAL_lsun_{name}256.npz"
    return Recipe(model=f"adm-lsun-{name}", steps="1000", reference=file, folder=f"lsun/{name}", expected=expected)


RECIPES: Mapping[str, Recipe] = {
    "adm-64": _imagenet(64, 2.07, 4.29, None, 0.74, 0.63),
    "adm-128": _imagenet(128, 5.91, 5.09, None, 0.70, 0.65),
    "adm-256": _imagenet(256, 10.94, 6.02, 100.98, 0.69, 0.63),
    "adm-512": _imagenet(512, 23.24, 10.19, 58.06, 0.73, 0.60),
    "adm-256-uncond": _imagenet(256, 26.21, 6.35, 39.70, 0.61, 0.63, model="adm-256-uncond"),
    "adm-g-128": _guided(128, 0.5, 2.97, 5.09, None, 0.78, 0.59),
    "adm-g-256": _guided(256, 1.0, 4.59, 5.25, 186.70, 0.82, 0.52),
    "adm-g-512": _guided(512, 4.0, 7.72, 6.57, 172.71, 0.87, 0.42),
    "adm-g-256-uncond": _guided(256, 10.0, 12.00, 10.40, 95.41, 0.76, 0.44, model="adm-256-uncond"),
    "adm-g-128-ddim25": _fast(128, 1.25, 5.98, 7.04, None, 0.78, 0.51),
    "adm-g-256-ddim25": _fast(256, 2.5, 5.44, 5.32, None, 0.81, 0.49),
    "adm-g-512-ddim25": _fast(512, 9.0, 8.41, 9.67, None, 0.83, 0.47),
    "adm-u-256": _enlarged(256, 64, 7.49, 5.13, 127.49, 0.72, 0.63),
    "adm-u-512": _enlarged(512, 128, 9.96, 5.62, 121.78, 0.75, 0.64),
    "adm-gu-256": _both(256, 64, 1.0, 3.94, 6.14, 215.84, 0.83, 0.53),
    "adm-gu-512": _both(512, 128, 0.5, 3.85, 5.86, 221.72, 0.84, 0.53),
    "adm-gu-512-then25": _both(512, 128, 0.5, 4.11, 9.57, 219.29, 0.83, 0.55, then_steps="ddim25"),
    "adm-gu-512-ddim25": _both(
        512, 128, 1.25, 5.96, 12.10, 187.87, 0.81, 0.54, steps="ddim25", sampler="ddim", then_steps="ddim25"
    ),
    "iddpm-256": _imagenet(256, 12.26, 5.42, None, 0.70, 0.62, model="iddpm-imagenet64-cond", then="iddpm-64-256"),
    "iddpm-cifar10": _cifar("iddpm-cifar10", "4000", frechet=3.19),
    "iddpm-cifar10-vlb": _cifar("iddpm-cifar10-vlb", "4000", frechet=11.47),
    "ddpm-cifar10": _cifar("ddpm-cifar10", "1000", frechet=3.249, score=9.475).replace(authors="w86763777", sampler="own"),
    "iddpm-64": _imagenet(64, 2.92, 3.79, None, 0.74, 0.62, model="iddpm-imagenet64-cond"),
    "adm-lsun-bedroom": _lsun("bedroom", 1.90, 5.59, 0.66, 0.51),
    "adm-lsun-cat": _lsun("cat", 5.57, 6.69, 0.63, 0.52),
    "adm-lsun-horse": _lsun("horse", 2.57, 6.81, 0.71, 0.55),
}
