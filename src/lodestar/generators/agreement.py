"""Checks of requests and guides against a model."""

from __future__ import annotations

import warnings

from lodestar.config import Note, Problem
from lodestar.core import prediction
from lodestar.core.plan import parse_plan
from lodestar.models.diffusion import DiffusionConfig
from lodestar.models.labels import check_classes
from lodestar.samplers import Consistency, Sampler


def check_rival(model: DiffusionConfig, rival: DiffusionConfig) -> None:
    """Raise Problem unless a weaker model can answer the model's asks; its network and prediction may differ."""
    theirs, ours = rival.denoiser, model.denoiser
    if (theirs.classes is None) != (ours.classes is None):
        knows = ["no classes" if each is None else f"{each} classes" for each in (theirs.classes, ours.classes)]
        raise Problem(f"this weaker model knows {knows[0]}, the model {knows[1]}")
    check_classes("weaker model", (rival.names or (), theirs.classes), (model.names or (), ours.classes))
    if rival.schedule != model.schedule:
        schedules = rival.schedule.to_json(), model.schedule.to_json()
        raise Problem(f"this weaker model has another noise schedule ({schedules[0]}) than the model ({schedules[1]})")
    if theirs.low_res != ours.low_res:
        raise Problem("of a model and a weaker one either both enlarge pictures of one size, or neither does")
    if (theirs.channels, rival.size) != (ours.channels, model.size):
        raise Problem(
            f"this weaker model makes pictures of {theirs.channels} channels and size {rival.size}, "
            f"the model {ours.channels} and {model.size}"
        )


def note_sampler(model: DiffusionConfig, sampler: Sampler) -> None:
    """Warn by a Note of a sampler that jumps to clean data, unless the model looks like a consistency model.

    Signs of such a model are its own sampler, its prediction or a plan of one step.
    """
    if not isinstance(sampler, Consistency):
        return
    jumps = isinstance(model.sampler, Consistency) or isinstance(model.denoiser.prediction, prediction.Consistency)
    if not jumps and len(parse_plan(model.steps).steps(model.schedule)) > 1:
        warnings.warn(
            "sampler consistency is for models that were trained to jump to clean data (consistency models, students of one "
            "step), and nothing tells that this one was: of others it makes blurred pictures",
            Note,
            stacklevel=2,
        )
