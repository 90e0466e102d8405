"""What every sampler keeps to, the identities between them, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from lodestar.config import Problem, decode, kinds, parse
from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.exact import Gaussian
from lodestar.core.level import Level
from lodestar.core.noise import SeededNoise
from lodestar.core.plan import parse_plan
from lodestar.core.schedule import Cosine, Linear
from lodestar.core.transition import Transition, transitions
from lodestar.samplers import (
    DDIM,
    LMS,
    PLMS,
    Ancestral,
    AnySampler,
    Consistency,
    DPMAdaptive,
    DPMpp,
    DPMppSDE,
    DPMppSingle,
    EDMHeun,
    Euler,
    EulerAncestral,
    Heun,
    Own,
    PredictorCorrector,
    Sampler,
    UniPC,
    algebra,
    last,
)
from lodestar.samplers.algebra import blocks

STEPS = parse_plan("6").steps(Linear())
MODEL = Gaussian(torch.linspace(-1, 1, 12).reshape(3, 2, 2), 0.3)
START = torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
EVERY = [
    *(kind() for kind in kinds(AnySampler).values() if kind is not Own),  # which is in test_own.py: no file holds its function
    DDIM(eta=0.7),
    DPMAdaptive(order=2, pcoeff=0.2, icoeff=0.5, dcoeff=0.1),
    DPMpp(eta=1.0),
    DPMpp(solver="heun"),
    DPMpp(order=3),
    DPMpp(target="epsilon", taper=4),
    DPMppSingle(order=3, eta=1.0, solver="heun"),
    DPMppSingle(order=3, target="epsilon", solver="stages", fast=True),
    DPMppSDE(eta=0.0),
    EDMHeun(churn=0.0),
    EDMHeun(solver="euler"),
    EDMHeun(variable="time"),
    EDMHeun(reach=0.5),
    Euler(variable="time"),
    Heun(reach=0.5),
    Heun(variable="time", reach=0.5),
    LMS(variable="log"),
    PLMS(warmup="runge_kutta"),
    PredictorCorrector(corrections=2, size="level"),
    UniPC(order=3, solver="bh1", target="epsilon"),
]


def counted(denoise: Denoise) -> tuple[Denoise, list[Level]]:
    calls: list[Level] = []

    def wrapped(x: Tensor, level: Level) -> Estimate:
        calls.append(level)
        return denoise(x, level)

    return wrapped, calls


@pytest.mark.parametrize("sampler", EVERY, ids=str)
def test_contract(sampler: Sampler) -> None:
    assert decode(AnySampler, sampler.to_json()) == sampler
    assert parse("sampler", sampler.kind, AnySampler).kind == sampler.kind
    assert type(sampler).__doc__
    noise = SeededNoise([1, 2])
    x = noise.start((3, 2, 2)).requires_grad_()
    before = x.detach().clone()
    states = list(sampler(MODEL, x, STEPS, noise))
    indices, levels = [state.index for state in states], [state.estimate.level for state in states]
    if sampler.adaptive:  # as many states as it likes
        assert indices == sorted(indices)
        assert indices[-2:] == [len(STEPS) - 2, len(STEPS) - 1]
        assert levels[0] == STEPS[0].t
        assert levels[-1] == STEPS[-1].t
    else:
        assert indices == list(range(len(STEPS)))
    assert all(state.x.shape == x.shape and state.x.dtype == x.dtype and state.x.isfinite().all() for state in states)
    if not (sampler.adaptive or isinstance(sampler, EDMHeun)):  # which raises the level first
        assert levels == [step.t for step in STEPS]
    if not isinstance(sampler, LMS):  # whose polynomial goes on to clean data
        torch.testing.assert_close(states[-1].x, states[-1].estimate.x0)
    gradient = torch.autograd.grad(states[-1].x.sum(), x)[0]
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    assert torch.equal(x, before)


FIXED = [sampler for sampler in EVERY if not sampler.adaptive]
"""Those whose steps are the plan's. The others are for one picture at a time, which is what models give them."""


@pytest.mark.parametrize("sampler", FIXED, ids=str)
def test_a_picture_depends_on_its_own_seed_alone(sampler: Sampler) -> None:
    def run(*seeds: int) -> Tensor:
        noise = SeededNoise(seeds)
        return last(sampler(MODEL, noise.start((3, 2, 2)), STEPS, noise))

    together = run(5, 6, 7)
    for row, seed in enumerate((5, 6, 7)):
        assert torch.equal(together[row], run(seed)[0])
    assert not torch.equal(together[0], together[1])


def draws_of(sampler: Sampler) -> int:
    """How often a sampler draws on STEPS: at every step but the one to clean data, where it says nothing else."""
    match sampler:
        case EDMHeun():
            return sum(sampler.low <= step.t.ratio <= sampler.high for step in STEPS) if sampler.stochastic else 0
        case PredictorCorrector():
            return len(STEPS) - 1 + sampler.corrections * len(STEPS)
        case DPMppSingle():  # after blocks: 5 steps of 3 and 2, and the last
            return 2 if sampler.stochastic else 0
    return len(STEPS) - 1 if sampler.stochastic else 0


def evaluations_of(sampler: Sampler) -> int:
    """How many evaluations a sampler needs for STEPS: one a step, where it says nothing else."""
    match sampler:
        case Heun() | EDMHeun(solver="heun"):
            return 2 * len(STEPS) - 1
        case PLMS():
            return len(STEPS) + (1 if sampler.warmup == "heun" else 9)
        case PredictorCorrector():
            return len(STEPS) * (1 + sampler.corrections)
    return len(STEPS)


@pytest.mark.parametrize("sampler", EVERY, ids=str)
def test_only_stochastic_samplers_draw_and_as_often_as_they_should(sampler: Sampler) -> None:
    draws: list[int] = []

    def noise(x: Tensor) -> Tensor:
        draws.append(1)
        return torch.randn_like(x)

    last(sampler(MODEL, torch.randn(2, 3, 2, 2), STEPS, noise))
    assert len(draws) == draws_of(sampler)


@pytest.mark.parametrize("sampler", FIXED, ids=str)
def test_number_of_evaluations(sampler: Sampler) -> None:
    model, calls = counted(MODEL)
    last(sampler(model, torch.randn(2, 3, 2, 2), STEPS, torch.randn_like))
    assert len(calls) == evaluations_of(sampler)


def same(one: Sampler, other: Sampler, denoise: Denoise = MODEL, steps: slice = slice(None)) -> None:
    results = []
    for sampler in (one, other):
        noise = SeededNoise([3, 4])
        results.append(last(sampler(denoise, noise.start((3, 2, 2)).double(), STEPS[steps], noise)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Euler(), DDIM()),
        (DDIM(eta=1.0), Ancestral(variance="small")),
        (EulerAncestral(), DDIM(eta=1.0)),
        (Consistency(), DDIM(eta=1e9)),
        (DPMpp(order=1), DDIM()),
        (DPMpp(order=1, target="epsilon"), DDIM()),
        (DPMpp(order=1, eta=1.0), DDIM(eta=1.0)),
        (DPMppSDE(eta=0.0), DPMppSingle()),
        (EDMHeun(churn=0.0), Heun()),
        (EDMHeun(churn=0.0, solver="euler"), Euler()),
        (EDMHeun(churn=0.0, reach=0.5, variable="time"), Heun(reach=0.5, variable="time")),
        (LMS(order=1), Euler()),
        (UniPC(order=1, uncorrected=99), DDIM()),
        (UniPC(order=2, uncorrected=99, taper=4), DPMpp()),
    ],
    ids=str,
)
def test_two_names_of_one_sampler(one: Sampler, other: Sampler) -> None:
    same(one, other)


def test_lms_on_even_steps_is_adams_and_bashforth_s_method() -> None:
    even = [Level(0.0, 1.0, 8.0 - k) for k in range(6)]
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    states = list(LMS()(MODEL, x, transitions(even), torch.zeros_like))
    eps = [state.estimate.eps for state in states]
    assert len(states) == 5
    torch.testing.assert_close(states[4].x, states[3].x - (55 * eps[4] - 59 * eps[3] + 37 * eps[2] - 9 * eps[1]) / 24)
    torch.testing.assert_close(states[2].x, states[1].x - (23 * eps[2] - 16 * eps[1] + 5 * eps[0]) / 12)


def test_churn_raises_the_noise_within_its_bounds_and_never_above_the_schedule_s_noisiest() -> None:
    def levels(sampler: Sampler) -> list[float]:
        return [state.estimate.level.ratio for state in sampler(MODEL, torch.randn(2, 3, 2, 2), STEPS, torch.randn_like)]

    plain = [step.t.ratio for step in STEPS]
    raised = levels(EDMHeun(churn=1.0, low=0.1, high=1e6))
    assert raised[0] == pytest.approx(plain[0])
    assert raised[1:-1] == pytest.approx([(1 + 1 / 6) * ratio for ratio in plain[1:-1]])
    assert raised[-1] == plain[-1] < 0.1
    most = levels(EDMHeun(churn=1e6))
    assert [one / two for one, two in zip(most, plain, strict=True)][1:-1] == pytest.approx([2**0.5] * 4)


def test_the_order_falls_over_the_last_steps_where_it_should() -> None:
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    for steep, plain in ((DPMpp(order=3), DPMpp(order=3, taper=4)), (LMS(taper=1), LMS()), (UniPC(taper=1), UniPC())):
        one, other = (list(each(MODEL, x, STEPS[:-1], torch.zeros_like)) for each in (steep, plain))
        assert torch.equal(one[1].x, other[1].x)
        assert not torch.equal(one[-1].x, other[-1].x)


@pytest.mark.parametrize(
    ("size", "count", "plain", "tapered"),
    [
        (3, 3, [3], [2, 1]),
        (3, 9, [3, 3, 3], [3, 3, 2, 1]),
        (3, 10, [3, 3, 3, 1], [3, 3, 3, 1]),
        (3, 11, [3, 3, 3, 2], [3, 3, 3, 2]),
        (2, 6, [2, 2, 2], [2, 2, 1, 1]),
    ],
)
def test_steps_of_single_step_solvers(size: int, count: int, plain: list[int], tapered: list[int]) -> None:
    steps = parse_plan(count + 1).steps(Linear())
    pure = parse_plan(f"trailing:{count + 2}").steps(Linear(zero_terminal_snr=True))
    for taper, sizes in ((False, plain), (True, tapered)):
        assert [len(block) for block in blocks(steps[:-1], size, taper)] == sizes
        assert [len(block) for block in blocks(steps, size, taper)] == [*sizes, 1]
        assert [len(block) for block in blocks(pure, size, taper)] == [1, *sizes, 1]


def test_the_first_step_of_dpmpp_is_ddim() -> None:
    same(DPMpp(), DDIM(), steps=slice(1))
    same(DPMpp(eta=0.0, solver="heun"), DDIM(), steps=slice(1))


def shifted(x: Tensor, level: Level) -> Estimate:
    return replace(MODEL(x, level), shift=torch.ones_like(x))


def folded(x: Tensor, level: Level) -> Estimate:
    return shifted(x, level).folded()


@pytest.mark.parametrize("sampler", [one for one in EVERY if not isinstance(one, Ancestral)], ids=str)
def test_every_other_sampler_folds_the_shift(sampler: Sampler) -> None:
    outcomes = []
    for denoise in (shifted, folded):
        noise = SeededNoise([3, 4])
        outcomes.append(last(sampler(denoise, noise.start((3, 2, 2)), STEPS, noise)))
    assert torch.equal(*outcomes)


def test_the_ancestral_sampler_moves_the_mean_by_variance_times_shift() -> None:
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    for step in (STEPS[0], STEPS[-1]):
        for variance in ("small", "large"):
            plain, moved = (
                last(Ancestral(variance=variance)(denoise, x, [step], torch.zeros_like)) for denoise in (MODEL, shifted)
            )
            torch.testing.assert_close(moved - plain, torch.full_like(x, float(step.var(variance))), rtol=1e-9, atol=1e-12)
    assert STEPS[-1].var("small") == 0


def test_without_a_variance_of_its_own_a_model_gets_the_small_one() -> None:
    same(Ancestral(), Ancestral(variance="small"))
    with pytest.raises(Problem, match="learned"):
        last(Ancestral(variance="learned")(MODEL, torch.randn(1, 3, 2, 2), STEPS, torch.randn_like))


@pytest.mark.parametrize("sampler", EVERY, ids=str)
def test_pure_noise_at_the_start(sampler: Sampler) -> None:
    steps = parse_plan("trailing:6").steps(Linear(zero_terminal_snr=True))
    assert steps[0].t.alpha == 0
    run = sampler(MODEL, torch.randn(2, 3, 2, 2), steps, torch.randn_like)
    if sampler.adaptive:
        with pytest.raises(Problem, match=f"{sampler.kind} cannot begin at pure noise"):
            last(run)
    elif getattr(sampler, "variable", None) == "time":
        with pytest.raises(Problem, match="at time 999 is pure noise and has no rate of change"):
            last(run)
    else:
        assert last(run).isfinite().all()


@pytest.mark.parametrize(
    "sampler", [one for one in FIXED if not one.stochastic and getattr(one, "variable", "") != "time"], ids=str
)
def test_from_noise_that_hides_the_picture_the_first_step_is_ddim_s_in_one_evaluation(sampler: Sampler) -> None:
    steps = parse_plan("10").steps(Cosine())
    assert steps[0].t.ratio > 10_000
    expected = next(DDIM()(MODEL, START, steps, torch.zeros_like))
    model, calls = counted(MODEL)
    torch.testing.assert_close(next(sampler(model, START, steps, torch.zeros_like)).x, expected.x, rtol=1e-9, atol=1e-9)
    assert len(calls) == 1


def test_what_was_believed_in_such_noise_is_not_extrapolated() -> None:
    # With weights of even steps as if this one were as wide as the first, ε̂ there would count in full.
    steps = parse_plan("10").steps(Cosine())
    one, two = (list(sampler(MODEL, START, steps[:2], torch.zeros_like)) for sampler in (PLMS(), Heun()))
    torch.testing.assert_close(one[1].x, two[1].x)


@pytest.mark.parametrize(
    ("t", "s", "others", "steady"),
    [
        (20_000, 10, [(-1000, 10)], False),  # Heun's method on a cosine chain
        (1000, 800, [(-100, 800)], False),
        (1000, 800, [(-0.125, 800)], True),
        (10.3, 0.006, [(-5.15, 0.006)], False),  # on five of Karras's levels
        (0.3, 0.01, [(-0.145, 0.01)], True),
        (0.2, 0.1, [(1.0, 0.21), (-1.0, 0.22)], False),  # a short step before a long one
        (math.inf, 10, [], False),
        (10, 5, [], True),
    ],
)
def test_when_a_step_may_take_in_other_levels(t: float, s: float, others: list[tuple[float, float]], steady: bool) -> None:
    def unit(ratio: float) -> Level:
        return Level(0.0, 1 / math.hypot(1, ratio), 1 / math.hypot(1, 1 / ratio))

    assert algebra.steady(unit(t), unit(s), *((weight, unit(ratio)) for weight, ratio in others)) == steady


def test_pndm_visits_the_levels_of_the_published_table() -> None:
    """With 18 of 1,000 steps its stride is 55, and half of that, rounded down, goes up from the end of a step."""
    model, calls = counted(MODEL)
    last(PLMS(warmup="runge_kutta")(model, START, parse_plan("leading:18").steps(Linear()), torch.zeros_like))
    table = [935, 907, 907, 880, 880, 852, 852, 825, 825, 797, 797, 770]
    assert [level.time for level in calls] == [*table, *range(770, -1, -55)]
    assert all(level in [Linear().table[index + 1] for index in range(1000)] for level in calls[:2])


def test_a_gradient_at_pure_noise_is_the_ancestral_sampler_s_alone() -> None:
    steps = parse_plan("trailing:6").steps(Linear(zero_terminal_snr=True))
    assert last(Ancestral()(shifted, torch.randn(2, 3, 2, 2), steps, torch.randn_like)).isfinite().all()
    with pytest.raises(Problem, match="pure noise"):
        last(DDIM()(shifted, torch.randn(2, 3, 2, 2), steps, torch.randn_like))


@pytest.mark.parametrize("sampler", [one for one in EVERY if one.stochastic], ids=str)
def test_fresh_noise_cannot_be_inverted(sampler: Sampler) -> None:
    rising = transitions([step.t for step in reversed(STEPS)])
    with pytest.raises(Problem, match="inversion"):
        last(sampler(MODEL, torch.randn(1, 3, 2, 2), rising, torch.randn_like))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ddimm", "did you mean 'ddim'"),
        ("ddim:eta=-1", "eta"),
        ("ddim:etta=1", "did you mean 'eta'"),
        ("ddim:clipped=no_more", "clipped"),
        ("dpmpp:solver=mid", "solver"),
        ("ancestral:variance=smal", "did you mean 'small'"),
        ("dpmpp:eta=1,target=epsilon", "only target 'x0' draws noise"),
        ("dpmpp:order=4", "order"),
        ("dpmpp_single:order=1", "order"),
        ("dpmpp_single:solver=stage", "did you mean 'stages'"),
        ("dpm_adaptive:order=4", "order"),
        ("dpm_adaptive:atol=0", "atol"),
        ("dpm_adaptive:accept_safety=1.1", "accept_safety"),
        ("dpm_adaptive:h_init=0", "h_init"),
        ("dpm_adaptive:icoeff=0", "icoeff"),
        ("lms:order=5", "order"),
        ("edm:churn=-1", "churn"),
        ("edm:reach=0.5,solver=euler", "only solver 'heun' evaluates twice"),
        ("euler:variable=tme", "did you mean 'time'"),
        ("heun:variable=log", "variable"),
        ("plms:warmup=runge", "did you mean 'runge_kutta'"),
        ("predictor_corrector:snr=0", "snr"),
        ("dpmpp_3m", "did you mean"),
    ],
)
def test_bad_text_is_one_line_that_helps(text: str, message: str) -> None:
    with pytest.raises(Problem, match=message) as caught:
        parse("sampler", text, AnySampler)
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------- what is refused before any work is done

RISING = transitions([step.t for step in reversed(STEPS)], Linear())
PURE = parse_plan("trailing:6").steps(Linear(zero_terminal_snr=True))
ALONE = parse_plan("1").steps(Linear(timesteps=1))
CROSSED = transitions([Linear().table[k] for k in (900, 400, 500, 100)], Linear())
"""The second of three steps rises."""
CASES = {"falling": STEPS, "rising": RISING, "from pure noise": PURE, "one": ALONE, "crossed": CROSSED}


def carrying(renoiser: str | None, shifted: bool, learned: bool) -> Denoise:
    """An exact model whose estimates carry what guidance and a learned variance add."""

    def denoise(x: Tensor, level: Level) -> Estimate:
        estimate = MODEL(x, level)
        frac, shift = torch.zeros_like(x) if learned else None, torch.ones_like(x) if shifted else None
        renoise = None if renoiser is None else estimate.x0
        return replace(estimate, frac=frac, shift=shift, renoise=renoise, renoiser=renoiser or "")

    return denoise


def problem(run: Callable[..., object], *arguments: Any, **settings: Any) -> str | None:
    """What a call is refused for."""
    try:
        run(*arguments, **settings)
    except Problem as refused:
        return str(refused)
    return None


@pytest.mark.parametrize("steps", CASES.values(), ids=CASES)
@pytest.mark.parametrize("sampler", [*EVERY, Ancestral(variance="learned")], ids=str)
def test_check_refuses_what_a_run_would_refuse_and_nothing_else(sampler: Sampler, steps: list[Transition]) -> None:
    for renoiser, shifted, learned in product((None, "guidance cfgpp"), (False, True), (False, True)):
        said = problem(sampler.check, steps, renoiser=renoiser, shifted=shifted, learned=learned)
        states = sampler(carrying(renoiser, shifted, learned), START, steps, torch.randn_like)
        happened = problem(list, states)
        assert (said is None) == (happened is None), (said, happened, renoiser, shifted, learned)
        if renoiser is None or not shifted:  # of two reasons either may come first
            assert said == happened


def test_a_run_refuses_its_steps_before_the_model_is_asked() -> None:
    for sampler, steps in ((DDIM(eta=0.5), RISING), (Euler(variable="time"), PURE), (DPMAdaptive(), PURE)):
        model, calls = counted(MODEL)
        with pytest.raises(Problem):
            next(iter(sampler(model, START, steps, torch.randn_like)))
        assert not calls
