"""Guidance, one kind a file, and its composition. `KINDS` lists the kinds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Annotated

from lodestar.config import Kinds, Problem
from lodestar.core.estimate import Denoise
from lodestar.guidance.apg import APG
from lodestar.guidance.autoguidance import Autoguidance
from lodestar.guidance.base import (
    Blend,
    Comparison,
    Context,
    Critic,
    Guidance,
    Limit,
    LogP,
    Observed,
    Observer,
    Sees,
    Steering,
    steer,
    steered,
)
from lodestar.guidance.cfg import CFG
from lodestar.guidance.cfgpp import CFGpp
from lodestar.guidance.clamp import Clamp
from lodestar.guidance.classifier import Classifier
from lodestar.guidance.clip import Clip
from lodestar.guidance.composition import Composition
from lodestar.guidance.discriminator import Discriminator
from lodestar.guidance.interval import Interval
from lodestar.guidance.own import Own
from lodestar.guidance.pag import PAG
from lodestar.guidance.ramp import Ramp, remembered, remembering
from lodestar.guidance.sag import SAG
from lodestar.guidance.semantic import REFERENCE, Content, Likeness, Structure, Style
from lodestar.guidance.threshold import Threshold

KINDS = Kinds(
    CFG, CFGpp, APG, Autoguidance, PAG, SAG, Classifier, Discriminator, Clip, Content, Structure, Style, Clamp, Threshold,
    Interval, Ramp, Own,
)  # fmt: skip
AnyGuidance = Annotated[Guidance, KINDS]

__all__ = [
    "APG", "CFG", "KINDS", "PAG", "REFERENCE", "SAG", "AnyGuidance", "Autoguidance", "Blend", "CFGpp", "Clamp", "Classifier",
    "Clip", "Comparison", "Composition", "Content", "Context", "Critic", "Discriminator", "Guidance", "Interval", "Likeness",
    "Limit", "LogP", "Observed", "Observer", "Own", "Ramp", "Sees", "Steering", "Structure", "Style", "Threshold", "compose",
    "steer",
]  # fmt: skip


def compose(guidances: Sequence[Guidance], context: Context) -> Denoise:
    """The guided denoiser: `context.plain` with the guidance applied in order, the first innermost. Raises Problem for an
    impossible order."""
    for place, guidance in enumerate(guidances):
        if reason := guidance.objection(guidances[:place], context):
            raise Problem(f"guidance {' then '.join(each.kind for each in guidances)}: {reason}")
    ramped = any(isinstance(each, Ramp) for each in guidances)
    context = remembering(context) if ramped else context
    denoise = before = context.plain
    for group in _grouped(guidances):
        (guidance, *_) = group
        if isinstance(guidance, Ramp):
            denoise = remembered(guidance(denoise, replace(context, before=before)))
            continue
        before = denoise = remembered(denoise) if ramped else denoise
        if isinstance(guidance, Steering):
            denoise = steered(denoise, [each for each in group if isinstance(each, Steering)], context)
            continue
        denoise = guidance(denoise, context)
        if isinstance(guidance, Limit):
            # Guidance outside of an interval listed later is limited all the same.
            context = replace(context, plain=guidance(context.plain, context))
    return denoise


def _grouped(guidances: Sequence[Guidance]) -> Iterator[list[Guidance]]:
    """Groups of guidance: neighbours whose gradients are applied alike together, all others, and what a ramp weights, alone."""
    group: list[Guidance] = []
    for guidance, following in zip_longest(guidances, guidances[1:]):
        if group and (isinstance(following, Ramp) or not _alike(group[-1], guidance)):
            yield group
            group = []
        group.append(guidance)
    if group:
        yield group


def _alike(one: Guidance, other: Guidance) -> bool:
    return isinstance(one, Steering) and isinstance(other, Steering) and one.at_once == other.at_once
