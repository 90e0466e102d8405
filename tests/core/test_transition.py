"""The Gaussian algebra of one step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lodestar.core.level import CLEAN, Level, log
from lodestar.core.plan import DDIMStride, Karras, Sections
from lodestar.core.schedule import Cosine, Linear, Schedule
from lodestar.core.transition import Transition, chain, transitions

schedules = pytest.mark.parametrize("schedule", [Linear(), Cosine(), Linear(timesteps=50)], ids=["linear", "cosine", "linear50"])


@schedules
def test_neighbours_have_ddpms_own_numbers(schedule: Schedule) -> None:
    """Ho et al. 2020, equations 6 and 7."""
    betas = schedule.betas()
    alpha_bar = (1 - betas).cumprod(0)
    before = torch.cat([torch.ones(1), alpha_bar[:-1]])
    step = chain(schedule.table, torch.arange(1, schedule.timesteps + 1))
    near = {"rtol": 1e-7, "atol": 1e-14}
    torch.testing.assert_close(step.beta, betas, **near)
    torch.testing.assert_close(step.small, betas * (1 - before) / (1 - alpha_bar), **near)
    of_x0, of_x = step.coefficients()
    torch.testing.assert_close(of_x0, before.sqrt() * betas / (1 - alpha_bar), **near)
    torch.testing.assert_close(of_x, (1 - betas).sqrt() * (1 - before) / (1 - alpha_bar), **near)


@schedules
@pytest.mark.parametrize(
    "plan", [Sections(counts=(12,)), Sections(counts=(3, 9)), DDIMStride(count=10)], ids=["12", "3,9", "ddim10"]
)
def test_a_respaced_chain_is_the_recomputed_one(schedule: Schedule, plan: Sections | DDIMStride) -> None:
    """Improved DDPM, section 4: the betas of the kept levels, and from them everything anew."""
    steps = plan.steps(schedule)
    alone = chain(plan.respace(schedule).table, torch.arange(1, len(steps) + 1))
    for place, step in enumerate(reversed(steps)):
        assert alone.t[place].time == step.t.time
        for singly, at_once in [
            (step.beta, alone.beta),
            (step.small, alone.small),
            (step.logvar("small"), alone.logvar("small")),
            (step.logvar("large"), alone.logvar("large")),
            *zip(step.coefficients(), alone.coefficients(), strict=True),
        ]:
            assert torch.as_tensor(at_once)[place].item() == pytest.approx(float(singly), rel=1e-6, abs=1e-12)


def test_scalars_and_batches_agree() -> None:
    table = Linear().table
    index = torch.tensor([1, 2, 500, 1000])
    batch = chain(table, index)
    x0, x, frac = torch.randn(3, 4, 2, 3, dtype=torch.float64).unbind()
    for row, at in enumerate(index.tolist()):
        step = Linear().step_down(table[at])
        ours = step.mean(x0[row], x[row]), step.learned_logvar(frac[row])
        theirs = batch.mean(x0, x)[row], batch.learned_logvar(frac)[row]
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)
        for kind in ("small", "large"):
            assert torch.as_tensor(batch.var(kind))[row].item() == pytest.approx(step.var(kind), rel=1e-12)


@schedules
def test_learned_variances_run_from_small_to_beta(schedule: Schedule) -> None:
    for step in (*Sections(counts=(5,)).steps(schedule), *Karras(count=7).steps(schedule)):
        low, high = (step.learned_logvar(torch.tensor(frac, dtype=torch.float64)).item() for frac in (-1.0, 1.0))
        assert low == pytest.approx(step.logvar("small"), abs=1e-12)
        assert high == pytest.approx(math.log(float(step.beta)), abs=1e-12)
        if step.s.sigma:
            assert low < high
            assert step.learned_logvar(torch.zeros(1, dtype=torch.float64)).item() == pytest.approx((low + high) / 2)


def test_the_posterior_composes_to_the_marginal() -> None:
    """x_t from q(x_t | x₀), then x_s from q(x_s | x_t, x₀): its mean and variance are those of q(x_s | x₀), exactly."""
    table = Cosine().table
    for t, s in [(1000, 999), (700, 20), (2, 1), (5, 0)]:
        step = Transition(table[t], table[s])
        of_x0, of_x = step.coefficients()
        assert of_x0 + of_x * step.t.alpha == pytest.approx(step.s.alpha, abs=1e-9)
        assert of_x**2 * step.t.sigma**2 + step.small == pytest.approx(step.s.sigma**2, abs=1e-9)


def test_the_last_step_takes_the_variance_of_the_one_before() -> None:
    steps = Sections(counts=(10,)).steps(Linear())
    assert steps[-1].s == CLEAN
    assert steps[-1].var("small") == 0
    assert steps[-1].logvar("small") == log(steps[-2].small)
    assert steps[-1].var("large") == pytest.approx(float(steps[-2].small))
    assert all(step.floor is None for step in steps[:-1])
    (only,) = transitions([Linear().table[1000], CLEAN])
    assert only.logvar("small") == pytest.approx(log(only.beta))
    assert transitions([CLEAN]) == []


def test_there_is_no_step_below_clean_data() -> None:
    with pytest.raises(AssertionError, match="clean data"):
        chain(Linear().table, torch.tensor([3, 0]))


def test_a_step_upwards_has_a_negative_beta() -> None:
    table = Linear().table
    assert Transition(table[3], table[10]).beta < 0  # what samplers with noise refuse


def test_levels_of_any_scale() -> None:
    """The algebra holds without α² + σ² = 1 too: a process that never scales its data, as EDM's."""
    t, s = Level(80.0, 1.0, 80.0), Level(2.0, 1.0, 2.0)
    step = Transition(t, s)
    assert step.beta == 80.0**2 - 2.0**2
    x0, x = torch.tensor([[1.0]]), torch.tensor([[5.0]])
    mean: Tensor = step.mean(x0, x)
    assert mean.item() == pytest.approx(1.0 + (2 / 80) ** 2 * (5.0 - 1.0))


def test_a_step_knows_the_levels_of_the_schedule_that_made_it() -> None:
    step = Sections(counts=(10,)).steps(Linear())[3]
    between = step.levels.at_ratio((step.t.ratio * step.s.ratio) ** 0.5)
    assert step.s.sigma < between.sigma < step.t.sigma
    assert step == transitions([step.t, step.s])[0], "where a step comes from does not make it another"
    with pytest.raises(AssertionError, match="without a schedule"):
        _ = transitions([step.t, step.s])[0].levels
