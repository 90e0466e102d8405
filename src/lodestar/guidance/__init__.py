"""Guidance, one kind a file, and how the kinds are put together. The union is the list of kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from lodestar.config import Problem
from lodestar.core.estimate import Denoise
from lodestar.guidance.base import Context, Guidance
from lodestar.guidance.cfg import CFG
from lodestar.guidance.classifier import Classifier, Critic, steer
from lodestar.guidance.clip import Clip
from lodestar.guidance.interval import Interval
from lodestar.guidance.threshold import Threshold

AnyGuidance = Annotated[CFG | Classifier | Clip | Threshold | Interval, Field(discriminator="kind")]

__all__ = [
    "CFG", "AnyGuidance", "Classifier", "Clip", "Context", "Critic", "Guidance", "Interval", "Threshold", "compose", "steer",
]  # fmt: skip


def compose(guidances: Sequence[Guidance], context: Context) -> Denoise:
    """`context.plain` with all of these around it, the first one innermost. Raises Problem for an order that makes no sense."""
    denoise = context.plain
    for place, guidance in enumerate(guidances):
        reason = _objection(guidance, guidances[:place], context)
        if reason:
            listed = " then ".join(each.kind for each in guidances)  # type: ignore[attr-defined]
            raise Problem(f"guidance {listed}: {reason}")
        denoise = guidance(denoise, context)
        if isinstance(guidance, Clip | Threshold):
            # What acts outside an interval that is listed later is limited all the same.
            context = replace(context, plain=guidance(context.plain, context))
    return denoise


def _objection(guidance: Guidance, before: Sequence[Guidance], context: Context) -> str | None:
    """Why this guidance cannot stand after those; None where it can."""
    earlier = {type(each) for each in before}
    match guidance:
        case CFG():
            if CFG in earlier:
                return "cfg can be given only once, because it blends the bare model's two estimates"
            if before:
                return "cfg has to come first, because it blends the bare model's two estimates"
            if context.pair is None:
                return "cfg needs a model that was also trained without its conditions, and this one was not: try classifier"
        case Classifier():
            if Classifier in earlier:
                return "classifier can be given only once: add the two scales"
            if context.critic is None:
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
