"""Optimised plans in a model's card (its provenance): `lodestar plan` finds them, ``--steps optimized:8`` asks for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from lodestar.config import COUNT, TIMESTEPS, Config, Problem, decode
from lodestar.core.plan import PlanText
from lodestar.guidance import AnyGuidance, Guidance
from lodestar.samplers import AnySampler, Sampler

CARD = "plans"
"""Name of the plans in a model's provenance."""

Error = Field(ge=0, le=1e9)


class Optimum(Config):
    """An optimised plan with the settings that it was optimised for, and its distance from a fine plan's pictures."""

    steps: int = Field(ge=1, le=TIMESTEPS)
    plan: PlanText
    """The levels, ``sigmas:…``."""
    sampler: AnySampler
    guidance: tuple[AnyGuidance, ...] = Field(default=(), max_length=100)
    error: float = Error
    """Root mean square difference from the fine plan's pictures, of other seeds than those of the search."""
    usual: PlanText
    """The best of the usual plans of as many steps."""
    usual_error: float = Error
    fine: PlanText
    pictures: int = Field(ge=1, le=COUNT)
    """Number of pictures in the search."""

    def fits(self, sampler: Sampler, guidance: Sequence[Guidance]) -> bool:
        """True if the plan was optimised for this sampler and this guidance."""
        return self.sampler == sampler and self.guidance == tuple(guidance)


class _Optima(Config):
    plans: tuple[Optimum, ...] = Field(default=(), max_length=10_000)


def optima(card: Mapping[str, Any], name: str = "") -> tuple[Optimum, ...]:
    """The optimised plans of a card. Raises Problem where the card holds something else in their place."""
    return decode(_Optima, {"plans": card.get(CARD, [])}, f"the card of {name}" if name else "the card").plans


def noted(card: Mapping[str, Any], found: Sequence[Optimum]) -> dict[str, Any]:
    """The card with further plans, in the place of those for the same steps, sampler and guidance."""
    new = {each.steps: each for each in found}
    kept = [
        each for each in optima(card) if each.steps not in new or not each.fits(new[each.steps].sampler, new[each.steps].guidance)
    ]
    whole = sorted((*kept, *found), key=lambda each: (each.sampler.to_json(), len(each.guidance), each.steps))
    return {**card, CARD: [each.model_dump(mode="json") for each in whole]}


def best(card: Mapping[str, Any], steps: int, sampler: Sampler, guidance: Sequence[Guidance], name: str) -> Optimum:
    """The optimised plan of so many steps for a sampler and this guidance, or without guidance where there is none for it.

    Raises Problem where the card of the model `name` has none.
    """
    known = optima(card, name)
    for wanted in (guidance, ()):
        for each in known:
            if each.steps == steps and each.fits(sampler, wanted):
                return each
    mine = sorted({each.steps for each in known if each.fits(sampler, ())})
    told = f", only those of {', '.join(map(str, mine))} steps" if mine else ""
    raise Problem(
        f"steps 'optimized:{steps}': {name or 'this model'} has no such plan for sampler {sampler.kind}{told}; "
        f"lodestar plan {name or 'MODEL'} --steps {steps} finds one"
    )
