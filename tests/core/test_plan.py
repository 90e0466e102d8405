"""Plans: what their texts mean, which levels they visit, and what is wrong with the wrong ones."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from lodestar.config import Problem, decode
from lodestar.core.level import CLEAN, Level
from lodestar.core.plan import (
    AnyPlan,
    AtSteps,
    DDIMStride,
    Fast27,
    Indexed,
    Karras,
    Leading,
    Linspace,
    LogSNR,
    Optimized,
    Plan,
    Sections,
    Sigmas,
    Trailing,
    parse_plan,
)
from lodestar.core.schedule import Cosine, Linear, Schedule

TEXTS: dict[str, Plan] = {
    "250": Sections(counts=(250,)),
    "90,60,60,20,20": Sections(counts=(90, 60, 60, 20, 20)),
    "ddim25": DDIMStride(count=25),
    "ddim:25": DDIMStride(count=25),
    "fast27": Fast27(),
    "leading:20": Leading(count=20),
    "trailing:20": Trailing(count=20),
    "linspace:20": Linspace(count=20),
    "karras:20": Karras(count=20),
    "logsnr:20": LogSNR(count=20),
    "leading:20,skip_zero=true": Leading(count=20, skip_zero=True),
    "karras:20,rho=3": Karras(count=20, rho=3.0),
}


NAMED: dict[str, Plan] = {
    "sigmas:80,20.5,1e0": Sigmas(ratios=(80.0, 20.5, 1.0)),
    "at:39,17": AtSteps(kept=(39, 17)),
    "optimized:8": Optimized(count=8),
}


def indices(text: str, timesteps: int) -> list[int]:
    plan = parse_plan(text)
    assert isinstance(plan, Indexed)
    return plan.indices(timesteps)


@pytest.mark.parametrize(("text", "plan"), (TEXTS | NAMED).items())
def test_a_text_means_a_plan_that_survives_json(text: str, plan: Plan) -> None:
    assert parse_plan(text) == plan
    assert parse_plan(f" {text} ") == plan
    assert decode(AnyPlan, plan.to_json()) == plan


def test_levels_are_named_by_their_ratio() -> None:
    schedule = Linear()
    levels = parse_plan("sigmas:1e9,20.5,1").levels(schedule)
    assert levels[0] == schedule.table[1000], "beyond the chain is its noisiest level"
    assert [level.ratio for level in levels[1:-1]] == pytest.approx([20.5, 1.0])
    assert levels[-1] == CLEAN
    for wrong in ("sigmas:20,20", "sigmas:1,2", "sigmas:1e9,1e8", "sigmas:1,0.001,0.0001"):
        with pytest.raises(Problem, match=r"steps 'sigmas': .* follows .*: they fall, to 0.01 at the cleanest"):
            parse_plan(wrong).levels(schedule)
    with pytest.raises(Problem, match="such a plan is a model's own, and here is no model"):
        parse_plan("optimized:8").levels(schedule)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "schedule", [Linear(), Cosine(), Linear(timesteps=4000, rescale_time=True)], ids=["linear", "cosine", "4000"]
)
def test_levels_fall_from_noise_to_clean_data(text: str, schedule: Schedule) -> None:
    plan: Any = parse_plan(text)
    levels = plan.levels(schedule)
    count = plan.count if hasattr(plan, "count") else sum(plan.counts) if hasattr(plan, "counts") else 27
    assert len(levels) == count + 1
    assert levels[-1] == CLEAN
    assert all(t.time > s.time for t, s in pairwise(levels))
    assert all(t.sigma / t.alpha > s.sigma / s.alpha for t, s in pairwise(levels))
    steps = plan.steps(schedule)
    assert [step.t for step in steps] == levels[:-1]
    assert [step.s for step in steps] == levels[1:]


@pytest.mark.parametrize("text", ["250", "linspace:20", "trailing:20", "karras:20", "logsnr:20"])
def test_these_begin_at_the_noisiest_level(text: str) -> None:
    first = parse_plan(text).levels(Cosine())[0]
    assert first.time == pytest.approx(999)
    assert first.ratio == pytest.approx(Cosine().table[1000].ratio)


def test_indices() -> None:
    assert indices("4", 10) == [0, 3, 6, 9]
    assert indices("2,3", 11) == [0, 5, 6, 8, 10]
    assert indices("1,2", 10) == [0, 5, 9]
    assert indices("ddim4", 10) == [0, 3, 6, 9]
    assert indices("ddim5", 10) == [0, 2, 4, 6, 8]
    assert indices("leading:3", 10) == [0, 3, 6]
    assert indices("leading:3,skip_zero=true", 10) == [2, 4, 6]
    assert indices("trailing:3", 10) == [2, 6, 9]
    fast, plain = set(indices("fast27", 1000)), set(indices("10,10,3,2,2", 1000))
    assert (plain - fast, fast - plain) == ({999}, {997})
    assert indices("1000", 1000) == list(range(1000))
    assert indices("at:39,17", 40) == [17, 39]


def test_linspace() -> None:
    def times(plan: Linspace) -> list[float]:
        return [float(level.time) for level in plan.levels(Linear())[:-1]]

    assert times(Linspace(count=5)) == [999, 749.25, 499.5, 249.75, 0]
    assert times(Linspace(count=5, whole=True)) == [999, 749, 500, 250, 0]
    assert times(Linspace(count=4, whole=True, skip_zero=True)) == [999, 749, 500, 250]


def test_spacings_of_the_noise_level() -> None:
    ratios = [float(level.ratio) for level in LogSNR(count=5).levels(Linear())[:-1]]
    assert all(a / b == pytest.approx(ratios[0] / ratios[1]) for a, b in pairwise(ratios))
    ratios = [float(level.ratio) ** (1 / 3) for level in Karras(count=5, rho=3.0).levels(Linear())[:-1]]
    assert all(a - b == pytest.approx(ratios[0] - ratios[1]) for a, b in pairwise(ratios))


def test_a_chain_that_ends_in_pure_noise_begins_at_its_noisiest_finite_level() -> None:
    schedule = Linear(zero_terminal_snr=True)
    for text in ("karras:10", "logsnr:10"):
        assert parse_plan(text).levels(schedule)[0].ratio == pytest.approx(schedule.table[999].ratio)
    for text in ("trailing:10", "10", "linspace:10"):
        assert parse_plan(text).levels(schedule)[0].alpha == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "steps '0': every count is at least 1"),
        ("20,0", "steps '20,0': every count is at least 1"),
        ("ddim0", "steps ddim count is 0: input should be greater than or equal to 1"),
        ("", "steps '': write a number (250), numbers (90,60,60), ddimN, fast27, leading:N, "),
        ("-3", "steps '-3': write a number"),
        ("2.5", "steps '2.5': write a number"),
        ("kerras:20", "did you mean 'karras'?"),
        ("fast72", "did you mean 'fast27'?"),
        ("karras", "steps karras count: a value is missing"),
        ("sigmas:80,,1", "steps 'sigmas:80,,1' is '{\"ratios\": [80,,1]}': invalid JSON"),
        ("sigmas:80,0", "steps 'sigmas:80,0' ratios.1 is 0: input should be greater than 0"),
        ("optimised:8", "did you mean 'optimized'?"),
        ("karras:x", "steps karras count is 'x': input should be a valid integer"),
        ("karras:20,rho=0", "steps karras rho is 0: input should be greater than or equal to 0.1"),
        ("karras:20,1e-308", "steps karras rho is 1e-308: input should be greater than or equal to 0.1"),
        ("karras:20,7,true,true,3", "karras takes only count, rho, clean, whole, and '3' is one more"),
        ("karras:20,roh=3", "unknown field 'steps karras roh': choose from kind, count, rho, clean, whole; did you mean 'rho'?"),
    ],
)
def test_a_wrong_text_is_a_problem_of_one_line(text: str, message: str) -> None:
    with pytest.raises(Problem) as raised:
        parse_plan(text)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("101", "steps '101': 101 of them from a section of 100 (the schedule has 100)"),
        ("60,40", "steps '60,40': 60 of them from a section of 50"),
        ("ddim30", "steps 'ddim30': no whole stride through 100 gives 30 of them; try '30'"),
        ("leading:101", "steps 'leading': 101 of them, and the schedule has only 100"),
        ("leading:100,skip_zero=true", "steps 'leading': 101 of them"),
        ("trailing:200", "steps 'trailing': 200 of them"),
        ("linspace:200,whole=true", "steps 'linspace': 200 of them"),
        ("sigmas:" + ",".join(f"{200 - k}" for k in range(101)), "steps 'sigmas': 101 of them, and the schedule has only 100"),
        ("at:3,100", "steps 'at': there is no 100, the schedule's are 0 to 99"),
    ],
)
def test_more_steps_than_the_schedule_has_are_a_problem(text: str, message: str) -> None:
    with pytest.raises(Problem) as raised:
        parse_plan(text).levels(Linear(timesteps=100))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("plan", "times", "ends"),
    [
        ("leading:4,offset=1", [751, 501, 251, 1], CLEAN),
        ("leading:4,offset=1,clean=false", [751, 501, 251, 1], Linear().table[1]),
        ("trailing:4,clean=false", [999, 749, 499, 249], Linear().table[1]),
        ("linspace:4,whole=true,skip_zero=true,clean=false", [999, 749, 500, 250], Linear().table[1]),
    ],
)
def test_a_plan_may_end_before_clean_data(plan: str, times: list[int], ends: Level) -> None:
    *noisy, end = parse_plan(plan).levels(Linear())
    assert [level.time for level in noisy] == times and end == ends


@pytest.mark.parametrize("plan", ["leading:4,clean=false", "karras:5,clean=false", "logsnr:5,clean=false"])
def test_the_cleanest_noisy_level_is_not_visited_twice(plan: str) -> None:
    levels = parse_plan(plan).levels(Linear())
    assert levels[-1].ratio == pytest.approx(Linear().table[1].ratio)
    assert levels[-2].ratio > 2 * levels[-1].ratio


@pytest.mark.parametrize("plan", ["karras:7", "logsnr:7"])
def test_whole_times_are_told_at_the_same_levels(plan: str) -> None:
    ours, whole = (parse_plan(f"{plan}{more}").noisy(Linear()) for more in ("", ",whole=true"))
    assert [level.time for level in whole] == [round(float(level.time)) for level in ours]
    assert [level.ratio for level in whole] == [level.ratio for level in ours]
    assert any(level.time != other.time for level, other in zip(ours, whole, strict=True))


@pytest.mark.parametrize(
    ("plan", "said"), [("leading:4,offset=500", "there is no 1250"), ("leading:1,clean=false", "and take no step")]
)
def test_a_plan_without_steps_or_beyond_the_chain_is_a_problem(plan: str, said: str) -> None:
    with pytest.raises(Problem, match=said):
        parse_plan(plan).levels(Linear())
