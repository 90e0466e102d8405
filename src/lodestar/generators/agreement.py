"""Checks of requests and guides against a model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from lodestar.conditions import Ask, LowRes
from lodestar.config import Note, Problem
from lodestar.core import prediction
from lodestar.core.estimate import Estimate
from lodestar.core.level import Level
from lodestar.core.plan import parse_plan
from lodestar.core.transition import Transition
from lodestar.generators.guide import Handed
from lodestar.guidance import Blend, Guidance
from lodestar.models.diffusion import DiffusionConfig
from lodestar.models.labels import check_classes
from lodestar.nets.base import DenoiserNetworkConfig
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
    if augmented(rival) != augmented(model):
        raise Problem(
            "of a model and a weaker one either both are told one range of noise levels of small pictures, or neither is"
        )
    if (theirs.channels, rival.size) != (ours.channels, model.size):
        raise Problem(
            f"this weaker model makes pictures of {theirs.channels} channels and size {rival.size}, "
            f"the model {ours.channels} and {model.size}"
        )


def augmented(model: DiffusionConfig) -> float | None:
    """Largest noise level of the small pictures in an upsampler's training; None for other models."""
    small = model.denoiser.condition("low_res")
    return small.augment if isinstance(small, LowRes) else None


def check_augment(level: float, model: DiffusionConfig) -> None:
    """Raise Problem unless a model can enlarge pictures with noise of this level."""
    largest = augmented(model)
    if level > (largest or 0.0):
        why = (
            "this model makes pictures from noise and enlarges none" if largest is None
            else f"this model was trained with levels up to {largest:g}" if largest
            else "this model was trained without noise on its small pictures"
        )  # fmt: skip
        raise Problem(f"augment is {level:g}: {why}{'' if largest else ': leave it out'}")


def check_reuse(
    every: int, network: DenoiserNetworkConfig, sampler: Sampler, steps: Sequence[Transition], guidance: Sequence[Guidance]
) -> None:
    """Raise Problem unless deep features can be reused, in all but one of `every` steps."""
    if every == 1:
        return
    if not network.reuses:
        raise Problem(f"reuse is {every}: this network ({network.summary}) has no deeper resolutions to be kept")
    for each in guidance:
        if each.active and not each.reuses:
            raise Problem(
                f"reuse is {every}, and guidance {each.kind} evaluates the network more than once a step, or its gradient: "
                "leave one of them out"
            )
    if sampler.adaptive or not _once(sampler, steps):
        raise Problem(
            f"reuse is {every}, and sampler {sampler.kind} does not evaluate the network once a step, at the step's level: "
            "use one that does, such as dpmpp, unipc or ddim"
        )


def _once(sampler: Sampler, steps: Sequence[Transition]) -> bool:
    """True if a sampler evaluates a denoiser at the levels of the steps, once each and in their order: it is tried out."""
    levels: list[Level] = []

    def denoise(x: Tensor, level: Level) -> Estimate:
        levels.append(level)
        return Estimate(x, level, torch.zeros_like(x))

    for _ in sampler(denoise, torch.zeros(1, 1), steps, torch.zeros_like):
        pass
    return levels == [step.t for step in steps]


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


def note_unasked(guidance: Sequence[Guidance], asks: Sequence[Ask], handed: Handed) -> None:
    """Warn by a Note of classifier-free guidance where nothing is asked for that it could strengthen."""
    blend = next((each.kind for each in guidance if isinstance(each, Blend)), None)
    told = handed or any(ask.label is not None or (ask.text or "").strip() or ask.others for ask in asks)
    if blend is not None and not told:
        warnings.warn(f"guidance {blend} has no effect: no label and no prompt is asked for", Note, stacklevel=2)
