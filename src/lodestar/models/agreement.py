"""Whether what is asked of a model suits it.

The models that guide it have to see what it makes: each check raises Problem that names the difference. A sampler for models of
another kind may be meant all the same: that is a Note.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from lodestar.config import Note, Problem
from lodestar.core.plan import parse_plan
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.labels import listed
from lodestar.samplers import AnySampler, Consistency

if TYPE_CHECKING:
    from lodestar.models.diffusion import DiffusionConfig


def check_guide(model: DiffusionConfig, guide: ClassifierModelConfig, noisy: bool) -> None:
    """A classifier of what this model makes; noisy: of what it makes on the way too, under its noise."""
    if noisy and not guide.noised:
        raise Problem("this classifier was trained on clean pictures alone, and noised ones are new to it: try sees=clean")
    _check_classes(model, "classifier", guide.names, guide.network.classes)
    if noisy and guide.schedule != model.schedule:
        raise Problem(
            f"this classifier knows another noise schedule ({guide.schedule.kind}) than the model ({model.schedule.kind})"
        )
    channels = model.denoiser.channels
    if (guide.network.in_channels, guide.size) != (channels, model.size):
        raise Problem(
            f"this classifier sees pictures of {guide.network.in_channels} channels and size {guide.size}, "
            f"the model makes {channels} and {model.size}"
        )


def check_weak(model: DiffusionConfig, weak: DiffusionConfig) -> None:
    """A weaker model that can be asked what this one is asked; its network, prediction and variance are its own."""
    theirs, ours = weak.denoiser, model.denoiser
    if (theirs.classes is None) != (ours.classes is None):
        knows = ["no classes" if each is None else f"{each} classes" for each in (theirs.classes, ours.classes)]
        raise Problem(f"this weaker model knows {knows[0]}, the model {knows[1]}")
    _check_classes(model, "weaker model", weak.names, theirs.classes)
    if weak.schedule != model.schedule:
        schedules = weak.schedule.to_json(), model.schedule.to_json()
        raise Problem(f"this weaker model has another noise schedule ({schedules[0]}) than the model ({schedules[1]})")
    if theirs.low_res != ours.low_res:
        raise Problem("of a model and a weaker one either both enlarge pictures of one size, or neither does")
    if (theirs.channels, weak.size) != (ours.channels, model.size):
        raise Problem(
            f"this weaker model makes pictures of {theirs.channels} channels and size {weak.size}, "
            f"the model {ours.channels} and {model.size}"
        )


def note_sampler(model: DiffusionConfig, sampler: AnySampler) -> None:
    """Warn by a Note of a sampler that jumps to clean data, where nothing tells that the model was trained to.

    What tells it: its own sampler, its parameterization (that of CD and CT), or its own plan, where that is a single step.
    """
    if not isinstance(sampler, Consistency):
        return
    jumps = isinstance(model.sampler, Consistency) or model.denoiser.prediction.kind == "consistency"
    if not jumps and len(parse_plan(model.plan).steps(model.schedule)) > 1:
        warnings.warn(
            "sampler consistency is for models that were trained to jump to clean data (consistency models, students of one "
            "step), and nothing tells that this one was: of others it makes blurred pictures",
            Note,
            stacklevel=2,
        )


def _check_classes(model: DiffusionConfig, what: str, names: tuple[str, ...] | None, classes: int | None) -> None:
    """Another model's classes are this one's, where it has some."""
    if model.denoiser.classes is None or (names, classes) == (model.names, model.denoiser.classes):
        return
    theirs, ours = (
        f"{number}: {listed(known)}" if known else f"{number}, without names"
        for number, known in ((classes, names), (model.denoiser.classes, model.names))
    )
    raise Problem(f"this {what} knows other classes ({theirs}) than the model ({ours})")
