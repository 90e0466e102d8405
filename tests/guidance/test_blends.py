"""CFG++ and adaptive projected guidance: what they share with classifier-free guidance, and what they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.guidance.test_guidance import COND, CONTEXT, LABEL, LEVEL, WHOLE, X, cond, guided, never, pair
from torch import Tensor

from lodestar.config import Problem, kinds
from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level
from lodestar.core.noise import SeededNoise
from lodestar.core.plan import parse_plan
from lodestar.core.schedule import Linear
from lodestar.core.transition import transitions
from lodestar.guidance import APG, CFG, PAG, Autoguidance, CFGpp, Clamp, Classifier, Context, Guidance, Threshold, compose
from lodestar.guidance.apg import along
from lodestar.samplers import DDIM, Ancestral, AnySampler, DPMpp, Euler, Heun, Own, Sampler, last

STEPS = parse_plan("6").steps(Linear())
NOISE = SeededNoise(range(5)).start((2,)).double()


def run(sampler: Sampler, guidance: list[Guidance], steps: slice = slice(None), context: Context = CONTEXT) -> Tensor:
    return last(sampler(compose(guidance, context), NOISE, STEPS[steps], SeededNoise(range(5, 10))))


# ------------------------------------------------------------------------------------------------------------- CFG++


@pytest.mark.parametrize("sampler", [DDIM(), Euler(), DPMpp()], ids=str)
@pytest.mark.parametrize("index", [0, 3, 5])
def test_a_step_of_cfgpp_is_one_of_cfg_at_a_scale_that_depends_on_the_step(sampler: Sampler, index: int) -> None:
    step = STEPS[index]
    scale = 0.6 / (1 - step.s.ratio / step.t.ratio)
    one = slice(index, index + 1)
    torch.testing.assert_close(run(sampler, [CFGpp(scale=0.6)], one), run(sampler, [CFG(scale=scale)], one))


def test_the_last_step_of_cfgpp_is_cfg() -> None:
    assert STEPS[-1].s.sigma == 0
    torch.testing.assert_close(run(DDIM(), [CFGpp(scale=0.3)], slice(5, 6)), run(DDIM(), [CFG(scale=0.3)], slice(5, 6)))


def test_cfgpp_puts_the_unconditional_noise_back() -> None:
    for sampler, deviation in ((DDIM(), STEPS[2].s.sigma), (Ancestral(variance="small"), None)):
        x = last(sampler(compose([CFGpp(scale=0.7)], CONTEXT), NOISE, [STEPS[2]], torch.zeros_like))
        s, null = STEPS[2].s, WHOLE(NOISE, STEPS[2].t)
        deviation = deviation or (s.sigma**2 - STEPS[2].small) ** 0.5
        x0 = torch.lerp(null.x0, COND(NOISE, STEPS[2].t).x0, 0.7)
        torch.testing.assert_close(x, s.alpha * x0 + deviation * null.eps)


def test_cfgpp_where_the_condition_says_nothing_is_no_guidance() -> None:
    same = replace(CONTEXT, pair=lambda x, level: (cond(x, level), cond(x, level)))
    for sampler in (DDIM(), DDIM(eta=0.5), Euler(), Euler(variable="time"), Ancestral(), DPMpp(), DPMpp(eta=1.0)):
        for limits in ([], [Clamp(limit=0.8)], [Threshold(ratio=0.5)]):
            ours = run(sampler, [CFGpp(scale=0.4), *limits], context=same)
            torch.testing.assert_close(ours, run(sampler, limits, context=same))


def test_cfgpp_of_scale_zero_is_the_unconditional_model_alone() -> None:
    assert torch.equal(run(DPMpp(), [CFGpp(scale=0.0)], context=Context(never, WHOLE, never)), run(DPMpp(), [CFG(scale=0.0)]))


@pytest.mark.parametrize("kind", kinds(AnySampler))
def test_every_sampler_keeps_to_the_noise_that_is_put_back_or_refuses(kind: str) -> None:
    sampler = Own.of(DDIM()) if kind == "own" else kinds(AnySampler)[kind]()
    assert isinstance(sampler, Sampler)

    def other(x: Tensor, level: Level) -> Estimate:
        return replace(COND(x, level), renoise=WHOLE(x, level).x0)

    def own(x: Tensor, level: Level) -> Estimate:
        return replace(COND(x, level), renoise=COND(x, level).x0)

    def sample(denoise: Denoise) -> Tensor:
        return last(sampler(denoise, NOISE, STEPS, SeededNoise(range(5, 10))))

    try:
        found = sample(own)
    except Problem as problem:
        assert "which this sampler cannot" in str(problem)
        return
    torch.testing.assert_close(found, sample(COND))
    assert not torch.allclose(sample(other), sample(COND), rtol=1e-3)


def test_heun_refuses_at_its_first_step() -> None:
    with pytest.raises(Problem, match="cfgpp puts back other noise"):
        next(iter(Heun()(compose([CFGpp()], CONTEXT), NOISE, STEPS, torch.zeros_like)))


def test_what_follows_cfgpp_keeps_the_noise() -> None:
    estimate = guided(CFGpp(scale=0.5), PAG(scale=1.0))
    assert estimate.renoise is not None
    torch.testing.assert_close(estimate.renoise, WHOLE(X, LEVEL).x0)
    clipped = guided(CFGpp(scale=0.5), Clamp(limit=0.3)).renoise
    assert clipped is not None
    assert float(clipped.abs().max()) == pytest.approx(0.3)


# ------------------------------------------------------------------------------------------- noise from before clipping

FIRST: list[list[Guidance]] = [[], [CFG(scale=4.0)], [APG(scale=4.0)], [CFG(), PAG(), Autoguidance()], [CFGpp(scale=0.9)]]
AFTER: list[list[Guidance]] = [[], [Classifier(scale=0.5)], [Classifier(scale=0.5, form="score")]]


@pytest.mark.parametrize("after", AFTER, ids=str)
@pytest.mark.parametrize("first", FIRST, ids=str)
@pytest.mark.parametrize("limit", [Clamp(limit=0.3), Clamp(limit=0.3, folded=True), Threshold(ratio=0.5)], ids=str)
def test_ddim_can_put_back_the_noise_of_before_clipping(limit: Guidance, first: list[Guidance], after: list[Guidance]) -> None:
    step = STEPS[2]
    limited, free = (compose([*first, *between, *after], CONTEXT)(NOISE, step.t).folded(True) for between in ([limit], []))
    noise = free.eps if free.renoise is None else replace(free, x0=free.renoise).eps
    for eta in (0.0, 0.5):
        std = eta * step.small**0.5
        deviation = (step.s.sigma**2 - std**2) ** 0.5
        drawn = SeededNoise(range(5, 10))(NOISE)
        found, usual = (run(DDIM(eta=eta, clipped=clipped), [*first, limit, *after], slice(2, 3)) for clipped in (False, True))
        torch.testing.assert_close(found, step.s.alpha * limited.x0 + deviation * noise + std * drawn)
        if isinstance(limit, Clamp):  # the unconditional model alone has little to threshold
            assert not torch.allclose(found, usual, rtol=1e-3)


def test_what_is_clipped_away_is_all_that_the_two_noises_of_ddim_differ_in() -> None:
    for guidance in ([], [CFG()], [CFG(), Clamp(limit=100.0)], [CFGpp(), Clamp(limit=100.0), Classifier()]):
        torch.testing.assert_close(run(DDIM(clipped=False), guidance), run(DDIM(), guidance))
    # To clean data there is no noise to put back.
    clamp: list[Guidance] = [Clamp(limit=0.3)]
    assert torch.equal(run(DDIM(clipped=False), clamp, slice(5, 6)), run(DDIM(), clamp, slice(5, 6)))


# --------------------------------------------------------------------------------------------------------------- APG


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 4.0])
def test_apg_of_eta_one_without_momentum_and_radius_is_cfg(scale: float) -> None:
    ours, theirs = (run(DDIM(), [kind]) for kind in (APG(scale=scale, eta=1.0, momentum=0.0), CFG(scale=scale)))
    torch.testing.assert_close(ours, theirs)


def test_apg_of_scale_one_is_the_model_alone() -> None:
    estimate = compose([APG(scale=1.0)], Context(cond, never, never))(X, LEVEL)
    assert torch.equal(estimate.x0, cond(X, LEVEL).x0)


def test_without_eta_the_change_is_orthogonal_to_the_conditional_estimate() -> None:
    conditional, unconditional = (each.x0 for each in pair(X, LEVEL))
    change = guided(APG(scale=3.0, momentum=0.0)).x0 - conditional
    assert change.norm() > 0.1
    torch.testing.assert_close((change * conditional).sum(1), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)
    half = guided(APG(scale=3.0, momentum=0.0, eta=0.5)).x0 - conditional
    torch.testing.assert_close(half - change, along(conditional - unconditional, conditional))


def test_the_radius_limits_the_length_of_the_change() -> None:
    conditional, unconditional = (each.x0 for each in pair(X, LEVEL))
    lengths = (conditional - unconditional).norm(dim=1)
    radius = float(lengths.median())
    change = guided(APG(scale=2.0, eta=1.0, momentum=0.0, radius=radius)).x0 - conditional
    torch.testing.assert_close(change.norm(dim=1), lengths.clamp(max=radius))


def test_momentum_adds_what_was_said_at_the_level_before() -> None:
    denoise = compose([APG(scale=2.0, eta=1.0, momentum=-0.5)], CONTEXT)
    total = torch.zeros_like(X)
    for level in (Level(2.0, 0.6, 0.8), LEVEL, Level(0.0, 0.96, 0.28)):
        conditional, unconditional = (each.x0 for each in pair(X, level))
        total = conditional - unconditional - 0.5 * total
        for _ in range(2):  # asked again, it has the same past
            torch.testing.assert_close(denoise(X, level).x0, conditional + total)


@pytest.mark.parametrize("sampler", [DDIM(), DPMpp(), Heun()], ids=str)
def test_nothing_is_remembered_from_one_sampling_to_the_next(sampler: Sampler) -> None:
    denoise = compose([APG(scale=4.0)], CONTEXT)
    first, again = (last(sampler(denoise, NOISE, STEPS, torch.zeros_like)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(first, run(sampler, [APG(scale=4.0)]))
    # Nor between batches of another size.
    few = WHOLE.given(LABEL[:2])
    context = replace(CONTEXT, plain=few, pair=lambda x, level: (WHOLE.given(LABEL[: len(x)])(x, level), WHOLE(x, level)))
    shared = compose([APG(scale=4.0)], context)
    last(sampler(shared, NOISE, STEPS[:2], torch.zeros_like))
    ours, alone = (last(sampler(d, NOISE[:2], STEPS[1:], torch.zeros_like)) for d in (shared, compose([APG(scale=4.0)], context)))
    assert torch.equal(ours, alone)


def test_a_sampling_upwards_in_noise_remembers_nothing() -> None:
    rising = transitions([step.t for step in reversed(STEPS)])
    ours, plain = (
        last(DDIM()(compose([APG(scale=2.0, momentum=momentum)], CONTEXT), X, rising, torch.zeros_like))
        for momentum in (-0.5, 0.0)
    )
    assert torch.equal(ours, plain)
