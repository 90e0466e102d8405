"""Losses: what they grade, and where their gradients go."""

from __future__ import annotations

import pytest
import torch

from lodestar.config import Problem, kinds
from lodestar.core.prediction import Epsilon, Output, Velocity
from lodestar.core.schedule import Linear
from lodestar.objectives import AnyObjective, Bound, Draw, Hybrid, Objective, Simple

SCHEDULE = Linear()
OBJECTIVES: list[Objective] = [member() for member in kinds(AnyObjective).values()]


def a_draw(index: list[int]) -> Draw:
    rng = torch.Generator().manual_seed(0)
    x0 = (torch.randint(0, 256, (len(index), 3, 4, 4), generator=rng) / 127.5 - 1).float()
    eps = torch.randn(x0.shape, generator=rng)
    level = SCHEDULE.table[torch.tensor(index)]
    return Draw(x0, eps, level, SCHEDULE.forward(x0, level, eps))


def an_output(draw: Draw) -> Output:
    rng = torch.Generator().manual_seed(1)
    value, frac = torch.randn(2, *draw.x.shape, generator=rng).unbind()
    return Output(value.requires_grad_(), (0.5 * frac).requires_grad_())


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.kind)
def test_a_loss_per_sample_that_differentiates_and_its_detached_terms(objective: Objective) -> None:
    draw = a_draw([1, 2, 500, 1000])
    output = an_output(draw)
    losses = objective(draw, output, Epsilon(), SCHEDULE)
    assert losses.total.shape == (4,)
    assert losses.total.isfinite().all()
    assert losses.terms
    assert all(term.shape == (4,) and not term.requires_grad for term in losses.terms.values())
    (gradient,) = torch.autograd.grad(losses.total.mean(), output.value)
    assert gradient.flatten(1).abs().sum(1).gt(0).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.kind)
def test_a_sample_is_graded_alone(objective: Objective) -> None:
    draw, alone = a_draw([1, 2, 500, 1000]), a_draw([1, 2])
    output = an_output(draw)
    assert output.frac is not None
    first = Draw(draw.x0[:2], draw.eps[:2], alone.level, draw.x[:2])
    some = objective(first, Output(output.value[:2], output.frac[:2]), Epsilon(), SCHEDULE)
    torch.testing.assert_close(some.total, objective(draw, output, Epsilon(), SCHEDULE).total[:2])


def test_what_is_right_costs_nothing() -> None:
    draw = a_draw([2, 500, 1000])
    for prediction in (Epsilon(), Velocity()):
        target = prediction.target(draw.x0, draw.eps, draw.level)
        assert Simple()(draw, Output(target), prediction, SCHEDULE).total.abs().max() == 0
        # With x₀ known, the true reverse variance is the lower bound.
        known = Output(target, frac=-torch.ones_like(target))
        assert Bound()(draw, known, prediction, SCHEDULE).total.abs().max() < 1e-5
        assert Hybrid()(draw, known, prediction, SCHEDULE).total.abs().max() < 1e-5


def test_the_hybrid_teaches_the_mean_by_the_simple_loss_alone() -> None:
    draw = a_draw([1, 2, 500, 1000])
    output = an_output(draw)
    assert output.frac is not None
    hybrid = Hybrid(vlb_weight=100.0)(draw, output, Epsilon(), SCHEDULE).total.sum()
    of_mean, of_variance = torch.autograd.grad(hybrid, [output.value, output.frac])
    (simple,) = torch.autograd.grad(Simple()(draw, output, Epsilon(), SCHEDULE).total.sum(), output.value)
    assert torch.equal(of_mean, simple)
    # The variance learns from the bound, which by itself would move the mean too.
    bound = Bound(weight=100.0)(draw, output, Epsilon(), SCHEDULE).total.sum()
    bound_of_mean, bound_of_variance = torch.autograd.grad(bound, [output.value, output.frac])
    torch.testing.assert_close(of_variance, bound_of_variance)
    assert of_variance.abs().sum() > 0
    assert bound_of_mean.abs().sum() > 0


def test_the_hybrid_is_the_sum_of_its_parts() -> None:
    draw = a_draw([1, 700])
    output = an_output(draw)
    losses = Hybrid(vlb_weight=3.0)(draw, output, Epsilon(), SCHEDULE)
    torch.testing.assert_close(losses.total.detach(), losses.terms["mse"] + 3 * losses.terms["vb"])


def test_the_hybrid_needs_a_learned_variance() -> None:
    draw = a_draw([5])
    with pytest.raises(Problem, match=r"objective 'hybrid' trains a learned variance.*variance='learned_range'"):
        Hybrid()(draw, Output(draw.eps), Epsilon(), SCHEDULE)


def test_a_log_variance_learned_outright_gives_what_its_fraction_gives() -> None:
    draw = a_draw([1, 2, 500, 1000])
    output = an_output(draw)
    assert output.frac is not None
    logvar = SCHEDULE.step_down(draw.level).learned_logvar(output.frac)
    outright = Bound()(draw, Output(output.value, logvar=logvar), Epsilon(), SCHEDULE)
    torch.testing.assert_close(outright.total, Bound()(draw, output, Epsilon(), SCHEDULE).total)


def test_the_fixed_variances_are_the_ends_of_the_learned_range() -> None:
    draw = a_draw([2, 500, 1000])
    value = an_output(draw).value
    for fixed, frac in (("small", -1.0), ("large", 1.0)):
        ours = Bound(fixed=fixed)(draw, Output(value), Epsilon(), SCHEDULE)  # type: ignore[arg-type]
        learned = Bound()(draw, Output(value, torch.full_like(value, frac)), Epsilon(), SCHEDULE)
        torch.testing.assert_close(ours.total, learned.total, rtol=1e-4, atol=1e-6)
