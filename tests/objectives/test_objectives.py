"""Losses: what they grade, and where their gradients go."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from lodestar.config import Problem, kinds
from lodestar.core.estimate import Estimate
from lodestar.core.plan import Sections
from lodestar.core.prediction import EDM, X0, Epsilon, Flow, Output, Previous, Velocity
from lodestar.core.schedule import Linear
from lodestar.objectives import L1, P2, AnyObjective, Bound, Draw, Huber, Hybrid, MinSNR, Objective, Simple
from lodestar.objectives.weighting import Weighting

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
    bound = 100.0 * Bound()(draw, output, Epsilon(), SCHEDULE).total.sum()
    bound_of_mean, bound_of_variance = torch.autograd.grad(bound, [output.value, output.frac])
    torch.testing.assert_close(of_variance, bound_of_variance)
    assert of_variance.abs().sum() > 0
    assert bound_of_mean.abs().sum() > 0


def test_the_hybrid_is_the_sum_of_its_parts() -> None:
    draw = a_draw([1, 700])
    output = an_output(draw)
    losses = Hybrid(vlb_weight=3.0)(draw, output, Epsilon(), SCHEDULE)
    torch.testing.assert_close(losses.total.detach(), losses.terms["mse"] + 3 * losses.terms["vb"])


def test_rescaled_losses_take_the_length_of_the_chain() -> None:
    draw = a_draw([1, 700])
    output = an_output(draw)
    assert output.frac is not None
    chain = Sections(counts=(250,)).respace(SCHEDULE)
    level = chain.table[torch.tensor([3, 250])]
    draw = Draw(draw.x0, draw.eps, level, chain.forward(draw.x0, level, draw.eps))
    losses = Hybrid(rescaled=True, vlb_weight=2.0)(draw, output, Epsilon(), chain)
    torch.testing.assert_close(losses.total.detach(), losses.terms["mse"] + 0.5 * losses.terms["vb"])
    losses = Bound(rescaled=True)(draw, output, Epsilon(), chain)
    torch.testing.assert_close(losses.total.detach(), 250 * losses.terms["vb"])


def test_distances_of_known_errors() -> None:
    draw = a_draw([500])
    errors = torch.linspace(-2, 3, draw.x0.numel()).reshape(draw.x0.shape)
    output = Output(draw.eps - errors)
    for objective, expected in (
        (Simple(), errors**2),
        (L1(), errors.abs()),
        (Huber(delta=0.7), torch.where(errors.abs() < 0.7, 0.5 * errors**2, 0.7 * (errors.abs() - 0.35))),
    ):
        torch.testing.assert_close(objective.distances(draw, output, Epsilon()), expected, rtol=1e-4, atol=1e-5)
        losses = objective(draw, output, Epsilon(), SCHEDULE)
        torch.testing.assert_close(losses.total, expected.mean().reshape(1))
        assert losses.terms.keys() == {objective.name}


@pytest.mark.parametrize("weighting", [MinSNR(), MinSNR(gamma=1.0), P2(), P2(gamma=0.5, k=2.0)], ids=str)
def test_weights_are_the_published_ones(weighting: Weighting) -> None:
    level = SCHEDULE.table[torch.tensor([1, 30, 200, 600, 1000])]
    snr = torch.as_tensor(level.alpha / level.sigma) ** 2
    if isinstance(weighting, MinSNR):
        least = snr.clamp(max=weighting.gamma)
        published = {Epsilon(): least / snr, X0(): least, Velocity(): least / (snr + 1)}
    else:
        published = {Epsilon(): 1 / (weighting.k + snr) ** weighting.gamma}  # type: ignore[attr-defined]
    for prediction, expected in published.items():
        torch.testing.assert_close(weighting(level, prediction), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("weighting", [MinSNR(), P2()], ids=str)
def test_a_weighted_loss_is_the_same_whatever_the_network_predicts(weighting: Weighting) -> None:
    draw = a_draw([2, 100, 500, 1000])
    x0, eps = draw.x0.double(), draw.eps.double()
    draw = Draw(x0, eps, draw.level, SCHEDULE.forward(x0, draw.level, eps))
    guess = 0.8 * draw.x0 + 0.1
    eps = Estimate(draw.x, draw.level, guess).eps
    losses = [
        Simple(weighting=weighting)(draw, Output(prediction.target(guess, eps, draw.level)), prediction, SCHEDULE).total
        for prediction in (Epsilon(), X0(), Velocity(), Flow(), EDM(), Previous(schedule=SCHEDULE))
    ]
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0], rtol=1e-6, atol=0)


def test_pure_noise_weighs_nothing_and_gives_no_nan() -> None:
    schedule = Linear(zero_terminal_snr=True)
    level = schedule.table[torch.tensor([1000, 500])]
    for weighting, prediction in product((MinSNR(), P2()), (X0(), Velocity(), Flow())):
        weights = weighting(level, prediction)
        assert weights[0] == 0
        assert weights[1] > 0


def test_losses_that_cannot_teach_are_refused() -> None:
    with pytest.raises(Problem, match=r"objective 'hybrid' trains a learned variance.*variance='learned_range'"):
        Hybrid().check(learned=False)
    with pytest.raises(Problem, match=r"objective 'l1' teaches nothing to the variance .* take 'hybrid' or 'bound'"):
        L1().check(learned=True)
    with pytest.raises(Problem, match=r"objective 'bound': fixed='large' has no effect"):
        Bound(fixed="large").check(learned=True)


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
