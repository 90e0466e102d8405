"""Reproducible rows of published tables: model, sampling, and expected numbers.

All are against the reference batch named, by Inception features (`lodestar.evaluation.extractors.inception`). Sources: ADM,
Dhariwal and Nichol 2021 (arXiv:2105.05233), tables 4, 5, 12 and 14, measured with the evaluator of its code.
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
from lodestar.config import Config, Problem
from lodestar.core.noise import generator
from lodestar.download import place
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.guide import Guide, Guides
from lodestar.generators.request import Request, Settings, request
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
    """A published model's short name; `lodestar convert openai/NAME` makes its file."""
    guide: str | None = None
    """Short name of the guiding classifier; None without."""
    scale: float = Field(default=0.0, ge=0)
    """Scale of the classifier guidance; 0 without."""
    steps: str = "250"
    sampler: Literal["ancestral", "ddim"] = "ancestral"
    reference: str
    """Name of the reference batch's file."""
    folder: str
    """Folder of the file, under the common address."""
    expected: Mapping[str, float]
    """The published numbers, by the names of our metrics."""

    @property
    def guidance(self) -> tuple[Guidance, ...]:
        """Guidance of the row: by the classifier, if there is one."""
        return (Classifier(scale=self.scale),) if self.guide else ()

    @property
    def samples_by(self) -> Sampler:
        """The sampler."""
        return Ancestral() if self.sampler == "ancestral" else DDIM()

    @property
    def address(self) -> str:
        """Address of the reference batch."""
        return f"{_BATCHES}{self.folder}/{self.reference}"


def load(recipe: Recipe, folder: Path, device: str | None = None) -> tuple[Diffusion, dict[str, Guide]]:
    """The model of a row, and its guides by role, from a folder of converted ones. Raises Problem where one is missing."""
    path = _converted(recipe.model, folder)
    guides = {} if recipe.guide is None else {"classifier": str(_converted(recipe.guide, folder))}
    return library.load_diffusion(path, device), library.load_guides(guides, device)


def reference_file(recipe: Recipe, given: str | None) -> Path:
    """The reference batch of a row: given, or in the cache folder's ``downloads``. Raises Problem naming the place for it."""
    path = place(recipe.address) if given is None else Path(given).expanduser()
    if not path.is_file():
        raise Problem(f"the reference batch {path} is missing: it is {recipe.address}")
    return path


def drawn(recipe: Recipe, model: Diffusion, guides: Guides, count: int, seed: int) -> Request:
    """Request of a row: classes drawn at random, as by its authors, and picture k with the seed seed + k."""
    classes = model.classes(guides)[1]
    labels: list[int | None] = [None] * count
    if classes is not None:
        labels = torch.randint(classes, (count,), generator=generator(seed)).tolist()
    # The published code clamps before the gradient and not after it.
    how = Settings(steps=recipe.steps, sampler=recipe.samples_by, guidance=(Clamp(), *recipe.guidance))
    return request(labels, seed, how)


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
    table = Table(Column("row", min_width=max(map(len, RECIPES))), "guided", "steps", *short.values(), box=box.SIMPLE)
    for name, recipe in RECIPES.items():
        guided = "" if recipe.guide is None else f"{recipe.scale:g}"
        printed = (f"{recipe.expected[key]:g}" if key in recipe.expected else "" for key in short)
        table.add_row(name, guided, recipe.steps, *printed)
    return table


def _converted(name: str, folder: Path) -> Path:
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise Problem(f"{path} is missing: make it with lodestar convert openai/{name} --out {folder}")
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
    "iddpm-64": _imagenet(64, 2.92, 3.79, None, 0.74, 0.62, model="iddpm-imagenet64-cond"),
    "adm-lsun-bedroom": _lsun("bedroom", 1.90, 5.59, 0.66, 0.51),
    "adm-lsun-cat": _lsun("cat", 5.57, 6.69, 0.63, 0.52),
    "adm-lsun-horse": _lsun("horse", 2.57, 6.81, 0.71, 0.55),
}
