"""Guidance away from something worse: a weaker model, less attention, blurred pictures; and composed labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.guidance.test_guidance import COND, CONTEXT, LEVEL, X, cond, critics, guided, never, worse
from torch import Tensor

from lodestar.core.estimate import Estimate
from lodestar.core.exact import Gaussian, Mixture
from lodestar.core.level import Level
from lodestar.guidance import CFG, PAG, SAG, Autoguidance, Clamp, Classifier, Composition, Context, Interval, compose
from lodestar.guidance.sag import blur

PICTURES = torch.randn(3, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
MODEL = Gaussian(torch.linspace(-1, 1, 128).reshape(2, 8, 8), 0.3)

# -------------------------------------------------------------------------------------------------------- a weaker model


def test_autoguidance_is_linear_between_the_two_models() -> None:
    for scale in (0.0, 0.5, 2.0, 4.0):
        expected = torch.lerp(worse(X, LEVEL).x0, cond(X, LEVEL).x0, scale)
        torch.testing.assert_close(guided(Autoguidance(scale=scale)).x0, expected)


def test_autoguidance_by_the_model_itself_is_none() -> None:
    context = replace(CONTEXT, denoisers={"weak": cond})
    assert torch.equal(compose([Autoguidance(scale=3.0)], context)(X, LEVEL).x0, cond(X, LEVEL).x0)
    both = compose([CFG(scale=2.0), Autoguidance(scale=3.0)], context)(X, LEVEL).x0
    torch.testing.assert_close(both, guided(CFG(scale=2.0)).x0)


@pytest.mark.parametrize("none", [Autoguidance(scale=1.0), PAG(scale=0.0), SAG(scale=0.0)])
def test_the_scale_of_none_evaluates_nothing_else(none: Autoguidance | PAG | SAG) -> None:
    context = Context(cond, denoisers={"weak": never}, perturbed={"middle": never}, attended=never)
    assert torch.equal(compose([none], context)(X, LEVEL).x0, cond(X, LEVEL).x0)


def test_comparisons_add_whatever_stands_before_them() -> None:
    plain, other = cond(X, LEVEL).x0, worse(X, LEVEL).x0
    expected = guided(CFG(scale=3.0)).x0 + 2 * (plain - other) + 0.5 * (plain - other)
    torch.testing.assert_close(guided(CFG(scale=3.0), Autoguidance(scale=3.0), PAG(scale=0.5)).x0, expected)
    torch.testing.assert_close(guided(CFG(scale=3.0), PAG(scale=0.5), Autoguidance(scale=3.0)).x0, expected)
    # An interval limits what is listed before it alone.
    outside = Interval(low=5.0, high=9.0)
    torch.testing.assert_close(guided(CFG(scale=3.0), outside, PAG(scale=0.5)).x0, plain + 0.5 * (plain - other))


def test_with_nothing_before_it_a_comparison_evaluates_the_model_once() -> None:
    calls: list[Level] = []

    def counted(x: Tensor, level: Level) -> Estimate:
        calls.append(level)
        return cond(x, level)

    context = replace(CONTEXT, plain=counted)
    for guidances in ([PAG()], [Autoguidance(), Clamp()]):
        calls.clear()
        compose(guidances, context)(X, LEVEL)
        assert len(calls) == 1


# ------------------------------------------------------------------------------------------------------------ attention


def attending(places: Tensor) -> Context:
    return Context(MODEL, attended=lambda x, level: (MODEL(x, level), places))


def test_sag_leads_away_from_the_estimate_where_attended_places_are_blurred() -> None:
    places = torch.zeros(3, 1, 2, 2)
    places[:, 0, 0, 1] = 4.0
    ours = compose([SAG(scale=0.7, blur=1.5)], attending(places))(PICTURES, LEVEL)
    plain = MODEL(PICTURES, LEVEL)
    mask = torch.zeros(8, 8, dtype=torch.float64)
    mask[:4, 4:] = 1
    noised = LEVEL.alpha * blur(plain.x0, 1.5) + LEVEL.sigma * plain.eps
    degraded = MODEL(mask * noised + (1 - mask) * PICTURES, LEVEL)
    torch.testing.assert_close(ours.eps, plain.eps + 0.7 * (plain.eps - degraded.eps))
    assert not torch.allclose(ours.x0, plain.x0)


def test_sag_where_nothing_is_attended_to_is_none() -> None:
    ours = compose([SAG(scale=2.0)], attending(torch.ones(3, 1, 4, 4)))(PICTURES, LEVEL)
    torch.testing.assert_close(ours.x0, MODEL(PICTURES, LEVEL).x0)
    pure = Level(999.0, 0.0, 1.0)
    ours = compose([SAG(scale=2.0)], attending(torch.full((3, 1, 4, 4), 2.0)))(PICTURES, pure)
    assert torch.equal(ours.x0, MODEL(PICTURES, pure).x0)


def test_a_blur_is_a_gaussian_that_keeps_the_mean() -> None:
    flat = torch.full((1, 3, 6, 7), 0.4)
    torch.testing.assert_close(blur(flat, 2.0), flat)
    point = torch.zeros(1, 1, 21, 21, dtype=torch.float64)
    point[0, 0, 10, 10] = 1
    spot = blur(point, 1.5)[0, 0]
    place = torch.arange(21, dtype=torch.float64) - 10
    assert float(spot.sum()) == pytest.approx(1)
    assert float((spot.sum(0) * place**2).sum()) == pytest.approx(1.5**2, rel=0.01)
    torch.testing.assert_close(spot, spot.T)


# ------------------------------------------------------------------------------------------------------- composed labels

OVERLAPPING = Mixture(
    torch.tensor([0.4, 0.35, 0.25]),
    torch.tensor([[0.8, 0.2], [-0.5, 0.6], [0.1, -0.9]]),
    torch.tensor([0.3, 0.4, 0.5]),
    torch.tensor([0, 1, 2]),
)


def parts(rows: Tensor, labels: Tensor) -> tuple[Estimate, Estimate]:
    return OVERLAPPING.given(labels)(X[rows], LEVEL), OVERLAPPING(X, LEVEL)


def test_a_single_wanted_label_is_that_label_and_none_is_unconditional() -> None:
    rows, labels = torch.tensor([0, 2, 3, 4]), torch.tensor([1, 0, 2, 2])
    each, null = parts(rows, labels)
    each, null = replace(each, frac=torch.ones_like(each.x)), replace(null, frac=torch.zeros_like(null.x))
    ours = Composition(rows, torch.ones(4))(each, null)
    assert torch.equal(ours.x0[rows], each.x0)
    assert torch.equal(ours.x0[1], null.x0[1])
    assert ours.frac is not None
    assert ours.frac[:, 0].tolist() == [1, 0, 1, 1, 1]


def test_composed_labels_are_the_classifiers_of_each_of_them() -> None:
    """Bayes: the score of p(x)·p(a | x)·p(b | x)/p(c | x), the classifier exact."""
    rows, labels, signs = torch.arange(5).repeat(3), torch.tensor([0, 1, 2]).repeat_interleave(5), torch.ones(15)
    signs[10:] = -1
    ours = Composition(rows, signs)(*parts(rows, labels))

    def logp(x: Tensor, level: Level) -> Tensor:
        a, b, c = (OVERLAPPING.log_posterior(x, level, label) for label in range(3))
        return a + b - c

    context = Context(OVERLAPPING, critics=critics(logp))
    theirs = compose([Classifier(scale=1.0, form="score")], context)(X, LEVEL)
    torch.testing.assert_close(ours.x0, theirs.x0, rtol=1e-10, atol=1e-10)
    # Around it classifier-free guidance counts every change so many times.
    composed = Context(lambda x, level: ours, pair=lambda x, level: (ours, OVERLAPPING(x, level)))
    thrice = compose([CFG(scale=3.0)], composed)(X, LEVEL)
    torch.testing.assert_close(
        thrice.x0, compose([Classifier(scale=3.0, form="score")], context)(X, LEVEL).x0, rtol=1e-10, atol=1e-10
    )


def test_what_is_not_wanted_becomes_less_likely() -> None:
    rows, labels = torch.arange(5), torch.full((5,), 2)
    ours = Composition(rows, -torch.ones(5))(*parts(rows, labels)).x0
    clean = Level(0.0, 0.999, 0.04)
    before, after = (OVERLAPPING.log_posterior(x0, clean, 2) for x0 in (OVERLAPPING(X, LEVEL).x0, ours))
    assert (after < before).all()


def test_a_clean_classifier_is_climbed_through_the_model() -> None:
    def logp(x0: Tensor, level: Level) -> Tensor:
        return -(x0**2).sum(1)

    x = X.clone().requires_grad_()
    expected = 2 * torch.autograd.grad(logp(COND(x, LEVEL).x0, LEVEL).sum(), x)[0]
    estimate = compose([Classifier(scale=2.0, sees="clean")], replace(CONTEXT, critics=critics(never, logp)))(X, LEVEL)
    assert estimate.shift is not None
    torch.testing.assert_close(estimate.shift, expected)
