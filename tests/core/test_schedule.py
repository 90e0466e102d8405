"""Schedules: their tables, the levels between the entries, their steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lodestar.config import Problem, kinds
from lodestar.core.level import CLEAN, Level
from lodestar.core.plan import Linspace, Sections, parse_plan
from lodestar.core.schedule import JSD, AnySchedule, Constant, Cosine, EDMSigma, Linear, Respaced, Schedule, Sigmoid, Warmup

FORMULAS = [member() for kind, member in kinds(AnySchedule).items() if kind != "respaced"]
SCHEDULES: list[Schedule] = [
    *FORMULAS,
    Linear(timesteps=4000, rescale_time=True),
    Cosine(timesteps=50),
    Linear(zero_terminal_snr=True),
    Sections(counts=(25,)).respace(Linear()),
    Sections(counts=(9, 4)).respace(Cosine(timesteps=400, rescale_time=True)),
]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: f"{schedule.kind}-{schedule.timesteps}")


def tensors(level: Level) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.as_tensor(value) for value in (level.time, level.alpha, level.sigma))  # type: ignore[return-value]


@every_schedule
def test_the_table_runs_from_clean_data_to_noise(schedule: Schedule) -> None:
    time, alpha, sigma = tensors(schedule.table)
    assert len(time) == schedule.timesteps + 1
    assert schedule.table[0] == CLEAN
    assert (time[1:].diff() > 0).all()
    assert (alpha.diff() < 0).all()
    assert (sigma.diff() >= 0).all()  # near 1, σ may not move in float64
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha), rtol=0, atol=1e-15)
    assert ((schedule.betas() > 0) & (schedule.betas() <= 1)).all()


@every_schedule
def test_at_and_at_ratio_are_inverse(schedule: Schedule) -> None:
    time, alpha, _ = tensors(schedule.table)
    last = time[alpha > 0][-1].item()
    for share in (0.0, 0.2, 0.5003, 0.77, 1.0):
        asked = time[1].item() + share * (last - time[1].item())
        level = schedule.at(asked)
        assert level.time == asked
        assert float(level.alpha) ** 2 + float(level.sigma) ** 2 == pytest.approx(1, abs=1e-14)
        back = schedule.at_ratio(float(level.ratio))
        assert back.time == pytest.approx(asked, rel=1e-7, abs=1e-7)
        assert back.ratio == pytest.approx(level.ratio, rel=1e-10)


@every_schedule
def test_at_the_entries_it_is_the_entry(schedule: Schedule) -> None:
    for index in (1, 2, schedule.timesteps // 2, schedule.timesteps):
        assert schedule.at(float(schedule.table[index].time)) == schedule.table[index]


@every_schedule
def test_between_two_entries_the_level_lies_between(schedule: Schedule) -> None:
    low, high = schedule.table[2], schedule.table[3]
    between = schedule.at((float(low.time) + float(high.time)) / 2)
    assert low.sigma < between.sigma < high.sigma
    assert between.ratio == pytest.approx(math.sqrt(float(low.ratio) * float(high.ratio)), rel=1e-12)


@every_schedule
def test_rates_are_how_fast_the_levels_change(schedule: Schedule) -> None:
    times = schedule.times()
    for place in (0, 1, schedule.timesteps // 2, schedule.timesteps - 3):
        low, high = times[place].item(), times[place + 1].item()
        time, width = 0.7 * low + 0.3 * high, 1e-3 * (high - low)
        before, after = schedule.at(time - width), schedule.at(time + width)
        rates = schedule.rates(schedule.at(time))
        for name, rate in zip(("alpha", "sigma"), rates, strict=True):
            assert rate == pytest.approx((getattr(after, name) - getattr(before, name)) / (2 * width), rel=1e-3, abs=1e-12)


def test_at_an_entry_the_rates_are_the_mean_of_those_on_its_two_sides() -> None:
    schedule = Linear()
    below, at, above = (schedule.rates(level) for level in (schedule.at(299.999999), schedule.at(300), schedule.at(300.000001)))
    for low, mean, high in zip(below, at, above, strict=True):
        assert low != pytest.approx(high, rel=1e-4)
        assert mean == pytest.approx((low + high) / 2, rel=1e-6)
    # At the ends there is one side.
    assert schedule.rates(schedule.at(0)) == pytest.approx(schedule.rates(schedule.at(1e-9)))
    assert schedule.rates(schedule.at(999)) == pytest.approx(schedule.rates(schedule.at(999 - 1e-9)))


def test_the_rates_of_the_linear_chain_are_those_of_the_process_that_it_takes_steps_of() -> None:
    # dx = −β/2·x dt + √β dw, with β linear from 0.1 to 20 over a time of 1 (Song et al. 2021, appendix C).
    for time in (20.0, 100.0, 500.0, 990.0):
        level = Linear().at(time)
        half_beta = (0.1 + 19.9 * (time + 0.5) / 1000) / 2000
        expected = -half_beta * float(level.alpha), half_beta * float(level.alpha) ** 2 / float(level.sigma)
        assert Linear().rates(level) == pytest.approx(expected, rel=0.02)


def test_pure_noise_and_a_level_alone_have_no_rate() -> None:
    stretched = Linear(zero_terminal_snr=True)
    with pytest.raises(Problem, match="level at time 999 is pure noise and has no rate of change"):
        stretched.rates(stretched.at(999))
    # The entry below it has one side.
    assert stretched.rates(stretched.at(998)) == pytest.approx(stretched.rates(stretched.at(998 - 1e-9)))
    alone = Linear(timesteps=1, scaled=False)
    with pytest.raises(Problem, match="level at time 0 stands alone and has no rate of change"):
        alone.rates(alone.at(0))


def test_at_ratio_stays_in_the_range_of_the_chain() -> None:
    schedule = Linear()
    assert schedule.at_ratio(1e-9) == schedule.table[1]
    assert schedule.at_ratio(1e9) == schedule.table[1000]
    assert Linear(timesteps=1, scaled=False).at_ratio(3.0).time == 0


def test_a_time_outside_the_chain_is_a_problem() -> None:
    for time in (-0.5, 999.5):
        with pytest.raises(Problem, match=f"time {time:g} is outside this schedule's 0 … 999"):
            Linear().at(time)


@every_schedule
def test_steps_down_of_floats_and_of_batches_agree(schedule: Schedule) -> None:
    index = torch.tensor([1, 2, 3, schedule.timesteps // 2, schedule.timesteps])
    batch = schedule.step_down(schedule.table[index])
    for place, at in enumerate(index.tolist()):
        step = schedule.step_down(schedule.table[at])
        assert (step.t, step.s) == (schedule.table[at], schedule.table[at - 1])
        assert (batch.t[place], batch.s[place]) == (step.t, step.s)
        for kind in ("small", "large"):
            assert torch.as_tensor(batch.logvar(kind))[place].item() == pytest.approx(step.logvar(kind), abs=1e-12)


def test_the_step_to_clean_data_takes_the_variance_of_the_step_before() -> None:
    schedule = Linear()
    last = schedule.step_down(schedule.table[1])
    before = schedule.step_down(schedule.table[2])
    assert last.small == 0
    assert last.logvar("small") == last.logvar("large") == pytest.approx(math.log(float(before.small)), abs=1e-14)


def test_a_chain_of_one_step_has_only_beta() -> None:
    schedule = Linear(timesteps=1, scaled=False)
    beta = schedule.betas().log()
    assert schedule.step_down(schedule.table[1]).logvar("small") == pytest.approx(beta.item())
    torch.testing.assert_close(schedule.step_down(schedule.table[torch.tensor([1])]).logvar("large"), beta)


@pytest.mark.parametrize("schedule", [*FORMULAS, Linear(timesteps=37, scaled=False)], ids=lambda schedule: schedule.kind)
def test_zero_terminal_snr_ends_in_pure_noise_and_keeps_the_first_level(schedule: Schedule) -> None:
    stretched = schedule.replace(zero_terminal_snr=True)
    _, alpha, sigma = tensors(stretched.table)
    assert alpha[-1] == 0
    assert sigma[-1] == 1
    assert alpha[1].item() == pytest.approx(float(schedule.table[1].alpha), abs=1e-14)
    assert (alpha.diff() < 0).all()
    # What lies beyond the last finite level is pure noise too, never NaN.
    assert stretched.at(stretched.times()[-2:].mean().item()).sigma == 1


def test_zero_terminal_snr_of_one_step_is_a_problem() -> None:
    with pytest.raises(Problem, match=r"timesteps is 1: .* at least 2"):
        _ = Linear(timesteps=1, scaled=False, zero_terminal_snr=True).table


@pytest.mark.parametrize("schedule", [JSD(timesteps=1), Cosine(timesteps=1, beta_cap=1.0)])
def test_one_level_of_pure_noise_is_no_chain(schedule: Schedule) -> None:
    with pytest.raises(Problem, match="is pure noise alone: use at least 2 timesteps"):
        parse_plan("karras:2").steps(schedule)
    with pytest.raises(Problem, match="is pure noise alone"):
        _ = schedule.table


@pytest.mark.parametrize("schedule", [Constant(beta=0.999, timesteps=1000), Linear(beta_start=0.9, beta_end=0.999, scaled=False)])
def test_a_chain_that_is_pure_noise_before_its_end_is_a_problem(schedule: Schedule) -> None:
    with pytest.raises(Problem, match=r"is pure noise before its last step: use fewer timesteps or smaller betas"):
        _ = schedule.table


def test_too_few_steps_of_a_scaled_chain_are_a_problem() -> None:
    with pytest.raises(Problem, match=r"variances outside \(0, 1\]: use more timesteps"):
        _ = Linear(timesteps=10).table


def test_a_chain_of_other_length_adds_the_same_noise() -> None:
    one, four = Linear(), Linear(timesteps=4000, rescale_time=True)
    assert one.table[1000].half_logsnr == pytest.approx(four.table[4000].half_logsnr, rel=0.01)
    assert float(four.table[4000].time) == 999.75


def test_some_closed_forms() -> None:
    assert float(JSD(timesteps=10).table[10].alpha) == 0
    assert float(JSD(timesteps=10).table[4].alpha) ** 2 == pytest.approx(0.6)
    warm = Warmup(timesteps=100, fraction=0.25).betas()
    assert (warm[25:] == 0.02).all()
    assert warm[0] == 1e-4
    sigmoid = Sigmoid(timesteps=101).betas()
    assert sigmoid[50].item() == pytest.approx((1e-4 + 0.02) / 2)
    single = Linear(single=True).betas()
    assert torch.equal(single, single.float().double())
    assert not torch.equal(single, Linear().betas())


def test_respacing_keeps_levels_and_times() -> None:
    base = Linear(timesteps=500, rescale_time=True)
    kept = [0, 7, 250, 499]
    chain = Respaced(base=base, kept=tuple(kept), timesteps=4)
    index = torch.tensor([0, *(place + 1 for place in kept)])
    for ours, theirs in zip(tensors(chain.table), tensors(base.table[index]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)
    # A plan on it visits the same levels.
    levels = Sections(counts=(4,)).levels(chain)
    assert [level.time for level in levels[:-1]] == [base.table[place + 1].time for place in reversed(kept)]
    assert Linspace(count=3, whole=True).levels(chain)[0].time == base.table[500].time


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kept": (0, 1000), "timesteps": 2}, "below the 1000 timesteps"),
        ({"kept": (5, 3), "timesteps": 2}, "ascending"),
        ({"kept": (3, 5)}, "timesteps is 1000: it must be the number of kept ones, 2"),
        ({"kept": (3, 5), "timesteps": 2, "rescale_time": True}, "are the base's"),
    ],
)
def test_a_respaced_chain_that_contradicts_itself_is_a_problem(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Respaced(base=Linear(), **changes)


def test_draws_are_uniform_over_the_noisy_levels_and_repeatable() -> None:
    schedule = Linear(timesteps=20, scaled=False)
    level = schedule.draw(4000, torch.Generator().manual_seed(0))
    times = torch.as_tensor(level.time).long()
    counts = times.bincount(minlength=20)
    assert counts.min() > 130
    assert counts.max() < 270
    again = schedule.draw(4000, torch.Generator().manual_seed(0))
    assert torch.equal(times, torch.as_tensor(again.time).long())
    x = schedule.forward(torch.ones(4000, 1, dtype=torch.float64), level, torch.zeros(4000, 1, dtype=torch.float64))
    torch.testing.assert_close(x[:, 0], torch.as_tensor(schedule.table.alpha)[times + 1])


def test_edm_levels_are_the_published_ones_at_unit_variance() -> None:
    schedule = EDMSigma(timesteps=40)
    for index in (0, 17, 39):
        sigma = (80 ** (1 / 7) + (39 - index) / 39 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        level = schedule.table[index + 1]
        assert level.ratio == pytest.approx(sigma, rel=1e-9)
        assert level.time == pytest.approx(1000 * 0.25 * math.log(sigma), rel=1e-12, abs=1e-9)
    assert schedule.start_sigma == pytest.approx(80 / (1 + 80**2) ** 0.5)
    assert schedule.at_ratio(1.0).time == pytest.approx(0, abs=1e-9), "between the entries the time is exact too"
    with pytest.raises(Problem, match="sigma_min is 3: it must be below sigma_max, 2"):
        EDMSigma(sigma_min=3.0, sigma_max=2.0)
    with pytest.raises(Problem, match="schedule 'edm' has log_gain"):
        EDMSigma(rescale_time=True)


def test_half_way_between_two_entries_is_an_entry_the_lower_of_two() -> None:
    for schedule in (Linear(), Linear(timesteps=4000, rescale_time=True), Linear(timesteps=300, rescale_time=True)):
        table = schedule.table
        assert schedule.halfway(table[56], table[1]) == table[28]
        assert schedule.halfway(table[1], table[56]) == table[28]
        assert schedule.halfway(table[57], table[1]) == table[29]


def test_half_way_between_other_levels_is_half_way_in_time() -> None:
    schedule, edm = Linear(), EDMSigma()
    assert schedule.halfway(schedule.at(10.5), schedule.at(20)).time == 15.25
    assert edm.halfway(edm.table[3], edm.table[1]).time == pytest.approx((edm.table[3].time + edm.table[1].time) / 2)
    kept = Sections(counts=(3,)).respace(schedule)
    assert kept.halfway(kept.table[2], kept.table[1]) == schedule.table[250 + 1]
