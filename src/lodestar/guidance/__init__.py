"""Guidance, one kind a file, and how the kinds are put together. The union is the list of kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from lodestar.config import Problem
from lodestar.core.estimate import Denoise
from lodestar.guidance.apg import APG
from lodestar.guidance.autoguidance import Autoguidance
from lodestar.guidance.base import Context, Guidance
from lodestar.guidance.cfg import CFG
from lodestar.guidance.cfgpp import CFGpp
from lodestar.guidance.classifier import Classifier, Critic, steer
from lodestar.guidance.clip import Clip
from lodestar.guidance.composition import Composition
from lodestar.guidance.interval import Interval
from lodestar.guidance.pag import PAG
from lodestar.guidance.sag import SAG
from lodestar.guidance.threshold import Threshold

AnyGuidance = Annotated[
    CFG | CFGpp | APG | Autoguidance | PAG | SAG | Classifier | Clip | Threshold | Interval, Field(discriminator="kind")
]

__all__ = [
    "APG", "CFG", "PAG", "SAG", "AnyGuidance", "Autoguidance", "CFGpp", "Classifier", "Clip", "Composition", "Context", "Critic",
    "Guidance", "Interval", "Threshold", "compose", "steer",
]  # fmt: skip


def compose(guidances: Sequence[Guidance], context: Context) -> Denoise:
    """`context.plain` with all of these around it, the first one innermost. Raises Problem for an order that makes no sense."""
    denoise = context.plain
    for place, guidance in enumerate(guidances):
        reason = _objection(guidance, guidances[:place], context)
        if reason:
            listed = " then ".join(each.kind for each in guidances)
            raise Problem(f"guidance {listed}: {reason}")
        denoise = guidance(denoise, context)
        if isinstance(guidance, Clip | Threshold):
            # What acts outside an interval that is listed later is limited all the same.
            context = replace(context, plain=guidance(context.plain, context))
    return denoise


def _objection(guidance: Guidance, before: Sequence[Guidance], context: Context) -> str | None:
    """Why this guidance cannot stand after those; None where it can."""
    earlier = {type(each) for each in before}
    kind = guidance.kind
    match guidance:
        case CFG() | CFGpp() | APG():
            if blends := [each.kind for each in before if isinstance(each, CFG | CFGpp | APG)]:
                if blends == [kind]:
                    return f"{kind} can be given only once, because it blends the bare model's two estimates"
                return f"{kind} and {blends[0]} blend the same two estimates: give one of them"
            if before:
                return f"{kind} has to come first, because it blends the bare model's two estimates"
            if context.pair is None:
                return f"{kind} needs a model that was also trained without its conditions, and this one was not: try classifier"
        case Autoguidance() | PAG() | SAG():
            if type(guidance) in earlier:
                return f"{kind} can be given only once: add the two scales"
            if late := [each.kind for each in before if isinstance(each, Clip | Threshold | Classifier)]:
                return f"{kind} has to come before {late[0]}, because it is the bare model that it compares with a worse one"
            return _lacking(guidance, context)
        case Classifier():
            if Classifier in earlier:
                return "classifier can be given only once: add the two scales"
            if guidance.sees == "clean" and context.clean is None:
                return "classifier needs a classifier, and none is loaded for this model: try cfg"
            if guidance.sees == "noisy" and context.critic is None:
                return "classifier needs a noise-aware classifier, and none is loaded for this model: try cfg"
        case Interval():
            limited = [each for each in before if not isinstance(each, Clip | Threshold)]
            if not limited or isinstance(limited[-1], Interval):
                return "interval limits the guidance listed before it, and there is none: write cfg or classifier in front"
        case Clip() | Threshold():
            if earlier & {Clip, Threshold}:
                return "clip and threshold limit the same estimate: give one of them, once"
            if Classifier in earlier:
                return "clip and threshold have to come before classifier, because its gradient is not clipped (as in ADM)"
    return None


def _lacking(guidance: Autoguidance | PAG | SAG, context: Context) -> str | None:
    """What a comparison with a worse model needs and has not."""
    match guidance:
        case Autoguidance():
            if context.weak is None:
                return "autoguidance needs a weaker model, and none is given: --weak MODEL, or weak=model in Python"
        case PAG(part=part):
            if not context.perturbed:
                return "pag needs a network with attention, and this model has none"
            if part not in context.perturbed:
                return f"pag cannot perturb part {part!r}: this network attends in {', '.join(context.perturbed)}"
        case SAG():
            if context.attended is None:
                return "sag needs a network with attention, and this model has none"
    return None
