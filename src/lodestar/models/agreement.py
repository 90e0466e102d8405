"""Whether the models that guide a model see what it makes; each raises Problem that names the difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar.config import Problem
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.labels import listed

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


def _check_classes(model: DiffusionConfig, what: str, names: tuple[str, ...] | None, classes: int | None) -> None:
    """Another model's classes are this one's, where it has some."""
    if model.denoiser.classes is None or (names, classes) == (model.names, model.denoiser.classes):
        return
    theirs, ours = (
        f"{number}: {listed(known)}" if known else f"{number}, without names"
        for number, known in ((classes, names), (model.denoiser.classes, model.names))
    )
    raise Problem(f"this {what} knows other classes ({theirs}) than the model ({ours})")
