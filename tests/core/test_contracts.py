"""What every schedule, plan, prediction, level draw and objective owes: it builds, is documented, and survives JSON."""

from __future__ import annotations

from typing import Any

import pytest

from lodestar.config import Config, Problem, decode, kinds, parse
from lodestar.core.draws import AnyLevels
from lodestar.core.plan import AnyPlan
from lodestar.core.prediction import AnyPrediction
from lodestar.core.schedule import AnySchedule, Linear
from lodestar.objectives import AnyObjective, AnyWeighting

UNIONS = {
    "schedule": AnySchedule,
    "plan": AnyPlan,
    "prediction": AnyPrediction,
    "levels": AnyLevels,
    "objective": AnyObjective,
    "weighting": AnyWeighting,
}
MEMBERS = [
    pytest.param(union, member, id=f"{what}-{kind}") for what, union in UNIONS.items() for kind, member in kinds(union).items()
]

# What has no default.
REQUIRED: dict[str, dict[str, Any]] = {
    "respaced": {"base": Linear(), "kept": (0, 400, 999), "timesteps": 3},
    "previous": {"schedule": Linear()},
    "sections": {"counts": (3, 2)},
    "ddim": {"count": 20},
    "leading": {"count": 20},
    "trailing": {"count": 20},
    "at": {"kept": (39, 17)},
    "linspace": {"count": 20},
    "karras": {"count": 20},
    "logsnr": {"count": 20},
    "sigmas": {"ratios": (80.0, 9.0, 0.5)},
    "optimized": {"count": 8},
}


def build(member: type[Config]) -> Config:
    return member(**REQUIRED.get(member.model_fields["kind"].default, {}))


@pytest.mark.parametrize(("union", "member"), MEMBERS)
def test_json_gives_back_an_equal_one(union: Any, member: type[Config]) -> None:
    config = build(member)
    assert decode(union, config.to_json()) == config
    assert hash(decode(union, config.to_json())) == hash(config)


@pytest.mark.parametrize(("union", "member"), MEMBERS)
def test_it_is_documented(union: Any, member: type[Config]) -> None:
    assert vars(member).get("__doc__"), f"{member.__name__} has no docstring of its own"


@pytest.mark.parametrize(("union", "member"), MEMBERS)
def test_it_is_frozen_and_refuses_an_unknown_field(union: Any, member: type[Config]) -> None:
    config = build(member)
    with pytest.raises(ValueError, match="frozen"):
        config.kind = "other"  # type: ignore[attr-defined]
    with pytest.raises(Problem, match=r"unknown field '.*colour'"):
        config.replace(colour="red")


@pytest.mark.parametrize("what", UNIONS)
def test_an_unknown_kind_is_named_with_the_nearest(what: str) -> None:
    union = UNIONS[what]
    for kind in kinds(union):
        with pytest.raises(Problem, match=rf"unknown {what} '{kind}z': choose from .*; did you mean '{kind}'\?"):
            parse(what, f"{kind}z", union)
