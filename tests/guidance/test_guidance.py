"""Guidance against exact class-conditional models, its contracts, and the orders that it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lodestar.config import Problem, decode, kinds, parse
from lodestar.core.estimate import Estimate
from lodestar.core.exact import Mixture
from lodestar.core.level import Level
from lodestar.core.noise import SeededNoise
from lodestar.core.plan import parse_plan
from lodestar.core.schedule import Linear
from lodestar.guidance import (
    APG,
    CFG,
    PAG,
    SAG,
    AnyGuidance,
    Autoguidance,
    CFGpp,
    Clamp,
    Classifier,
    Clip,
    Content,
    Context,
    Critic,
    Discriminator,
    Guidance,
    Interval,
    LogP,
    Observed,
    Observer,
    Ramp,
    Sees,
    Structure,
    Style,
    Threshold,
    compose,
    steer,
)
from lodestar.guidance.threshold import quantile
from lodestar.samplers import DDIM, last

WHOLE = Mixture(
    torch.tensor([0.5, 0.3, 0.2]),
    torch.tensor([[1.0, 0.5], [-1.2, 0.3], [0.2, -1.4]]),
    torch.tensor([0.06, 0.02, 0.12]),
    torch.tensor([0, 0, 1]),
)
LABEL = torch.tensor([0, 1, 1, 0, 1])
COND = WHOLE.given(LABEL)
LEVEL = Level(100.0, 0.8, 0.6)
X = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def critic(x: Tensor, level: Level) -> Tensor:
    return WHOLE.log_posterior(x, level, LABEL)


def pair(x: Tensor, level: Level) -> tuple[Estimate, Estimate]:
    frac = torch.ones_like(x)
    return replace(COND(x, level), frac=frac), replace(WHOLE(x, level), frac=-frac)


def cond(x: Tensor, level: Level) -> Estimate:
    return pair(x, level)[0]


def worse(x: Tensor, level: Level) -> Estimate:
    estimate = COND(x, level)
    return replace(estimate, x0=0.5 * estimate.x0)


def attended(x: Tensor, level: Level) -> tuple[Estimate, Tensor]:
    return cond(x, level), torch.tensor([0.5, 1.5, 0.5, 1.5, 1.0])[:, None, None, None]


def critics(noisy: LogP | None = None, clean: LogP | None = None) -> dict[tuple[str, Sees], LogP]:
    """What a classifier tells of noisy samples, and of clean ones."""
    told: dict[tuple[str, Sees], LogP | None] = {("classifier", "noisy"): noisy, ("classifier", "clean"): clean}
    return {key: logp for key, logp in told.items() if logp is not None}


def observe(x: Tensor, level: Level) -> Observed:
    """Features that depend on places, and whose Gram matrices tell pictures apart."""
    maps = torch.stack([x, x.square() + 0.3], dim=-1).reshape(len(x), 2, 2, 1)
    return Observed(maps.flatten(1), (maps, maps.sin()))


def observers() -> dict[tuple[str, Sees], Observer]:
    diffused = lambda level: level.alpha * torch.tensor([[0.7, -0.2]], dtype=X.dtype).expand(5, 2).view_as(X)  # noqa: E731
    return {("classifier", sees): Observer(observe, diffused) for sees in ("noisy", "clean")}


CONTEXT = Context(
    cond, WHOLE, pair, critics(critic, critic) | {(role, "noisy"): critic for role in ("clip", "discriminator")},
    {"weak": worse}, {"middle": worse}, attended, observers(),
)  # fmt: skip


def guided(*guidances: Guidance, plain: Any = cond, context: Context = CONTEXT, level: Level = LEVEL) -> Estimate:
    return compose(guidances, replace(context, plain=plain))(X, level)


def never(*_: Any) -> Any:
    raise AssertionError("evaluated")


# ---------------------------------------------------------------------------------------------------------- identities


def test_cfg_is_classifier_guidance_of_the_unconditional_model() -> None:
    for scale in (0.5, 1.0, 3.0, 7.5):
        by_cfg = guided(CFG(scale=scale))
        by_classifier = guided(Classifier(scale=scale, form="score"), plain=WHOLE)
        torch.testing.assert_close(by_cfg.x0, by_classifier.x0, rtol=1e-10, atol=1e-10)
        # From the conditional model, strength w gives scale 1 + w.
        on_top = guided(Classifier(scale=scale, form="score"))
        torch.testing.assert_close(guided(CFG(w=scale)).x0, on_top.x0, rtol=1e-10, atol=1e-10)


def test_cfg_is_linear_in_eps_too() -> None:
    expected = WHOLE(X, LEVEL).eps + 3 * (COND(X, LEVEL).eps - WHOLE(X, LEVEL).eps)
    torch.testing.assert_close(guided(CFG(scale=3.0)).eps, expected, rtol=1e-10, atol=1e-10)


def test_scale_one_is_the_model_alone_without_a_second_evaluation() -> None:
    estimate = guided(CFG(scale=1.0), context=Context(cond, never, never, critics(never)))
    assert torch.equal(estimate.x0, cond(X, LEVEL).x0)


def test_scale_zero_is_the_unconditional_model_alone() -> None:
    estimate = guided(CFG(scale=0.0), context=Context(never, WHOLE, never))
    assert torch.equal(estimate.x0, WHOLE(X, LEVEL).x0)


def test_what_cfg_does_not_guide_is_the_conditional_model_s() -> None:
    estimate = guided(CFG(scale=3.0))
    assert estimate.frac is not None
    assert (estimate.frac == 1).all()


def test_classifier_of_scale_zero_is_not_evaluated() -> None:
    estimate = guided(Classifier(scale=0.0), context=Context(cond, critics=critics(never)))
    assert torch.equal(estimate.x0, cond(X, LEVEL).x0)
    assert estimate.shift is None


def test_more_guidance_makes_the_class_surer() -> None:
    steps = parse_plan("logsnr:40").steps(Linear())
    noise = SeededNoise(range(200))
    label = torch.tensor([0, 1]).repeat(100)
    member = WHOLE.given(label)
    context = Context(
        member,
        WHOLE,
        lambda x, level: (member(x, level), WHOLE(x, level)),
        critics(lambda x, level: WHOLE.log_posterior(x, level, label)),
    )
    sure = []
    for guidance in ([CFG(scale=0.0)], [CFG(scale=1.0)], [CFG(scale=4.0)], [Classifier(scale=3.0)]):
        samples = last(DDIM()(compose(guidance, replace(context, plain=member)), noise.start((2,)).double(), steps, noise))
        sure.append(float(WHOLE.log_posterior(samples, Level(0.0, 1.0, 0.3), label).mean()))
        noise = SeededNoise(range(200))
    assert sure[0] < sure[1] < sure[2]
    assert sure[2] == pytest.approx(sure[3], rel=1e-3)


# ------------------------------------------------------------------------------------------------------------- kinds


def test_the_forms_of_the_classifier_differ_in_who_applies_the_gradient() -> None:
    x = X.clone().requires_grad_()
    gradient = torch.autograd.grad(critic(x, LEVEL).sum(), x)[0]
    mean = guided(Classifier(scale=2.0))
    assert mean.shift is not None
    torch.testing.assert_close(mean.shift, 2 * gradient)
    assert torch.equal(mean.x0, cond(X, LEVEL).x0)
    score = guided(Classifier(scale=2.0, form="score"))
    assert score.shift is None
    torch.testing.assert_close(score.x0, mean.folded().x0)


def test_log_probabilities_of_critics_add() -> None:
    other = Critic(lambda x, level: -(x**2).sum(1), 0.5)
    both = steer(cond, Critic(critic, 2.0), other)(X, LEVEL).shift
    nested = steer(steer(cond, Critic(critic, 2.0)), other)(X, LEVEL).shift
    assert both is not None
    assert nested is not None
    torch.testing.assert_close(both, nested)
    torch.testing.assert_close(both, steer(cond, Critic(critic, 2.0))(X, LEVEL).shift - X)


def test_a_critic_of_the_clean_estimate_is_differentiated_through_the_denoiser() -> None:
    def brightness(x0: Tensor, level: Level) -> Tensor:
        return -((x0 - 1) ** 2).sum(1)

    x = X.clone().requires_grad_()
    expected = torch.autograd.grad(brightness(cond(x, LEVEL).x0, LEVEL).sum(), x)[0]
    estimate = steer(cond, Critic(brightness, sees="clean"))(X, LEVEL)
    assert estimate.shift is not None
    torch.testing.assert_close(estimate.shift, expected)
    assert not estimate.x0.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_taken_where_none_are_wanted(mode: Any) -> None:
    expected = guided(Classifier(scale=2.0)).shift
    with mode():
        x = X * 1.0
        shift = compose([Classifier(scale=2.0)], replace(CONTEXT, plain=cond))(x, LEVEL).shift
    assert shift is not None
    assert torch.equal(shift, expected)


def test_clamp() -> None:
    x0 = guided(Clamp(limit=0.3)).x0
    assert float(x0.abs().max()) == 0.3
    torch.testing.assert_close(x0, cond(X, LEVEL).x0.clamp(-0.3, 0.3))


def test_threshold_divides_by_the_quantile_of_each_sample() -> None:
    x0 = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * torch.tensor([0.1, 1.0, 9.0])[:, None, None, None]

    def model(x: Tensor, level: Level) -> Estimate:
        return Estimate(x, level, x0)

    ours = Threshold(ratio=0.9, maximum=5.0)(model, CONTEXT)(x0, LEVEL).x0
    limit = x0.abs().flatten(1).quantile(0.9, dim=1).clamp(1, 5)[:, None, None, None]
    torch.testing.assert_close(ours, x0.clamp(-limit, limit) / limit)
    assert torch.equal(ours[0], x0[0])
    assert float(limit[2]) == 5


@pytest.mark.parametrize("ratio", [0.001, 0.5, 0.995, 1.0])
@pytest.mark.parametrize("size", [1, 2, 17, 300])
def test_quantile(ratio: float, size: int) -> None:
    values = torch.randn(4, size, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(quantile(values, ratio), values.quantile(ratio, dim=1))


def test_rescaling_gives_back_the_deviation_without_guidance() -> None:
    def deviation(estimate: Estimate) -> Tensor:
        return estimate.eps.flatten(1).std(1)

    plain, none, full = cond(X, LEVEL), guided(CFG(scale=5.0)), guided(CFG(scale=5.0, rescale=1.0))
    half = guided(CFG(scale=5.0, rescale=0.5))
    assert not torch.allclose(deviation(none), deviation(plain))
    torch.testing.assert_close(deviation(full), deviation(plain))
    torch.testing.assert_close(half.eps, (none.eps + full.eps) / 2)


def test_rescaling_leaves_pure_noise_alone() -> None:
    level = Level(999.0, 0.0, 1.0)
    assert torch.equal(guided(CFG(scale=5.0, rescale=0.7), level=level).x0, guided(CFG(scale=5.0), level=level).x0)


def test_outside_of_the_interval_is_the_model_alone() -> None:
    guidances = (CFG(scale=4.0), Interval(low=0.3, high=0.9))
    inside, outside = Level(1.0, 0.8, 0.6), Level(2.0, 0.6, 0.8)
    assert torch.equal(guided(*guidances, level=inside).x0, guided(CFG(scale=4.0), level=inside).x0)
    alone = Context(cond, never, never)
    for level in (outside, Level(3.0, 0.99, 0.1)):
        assert torch.equal(guided(*guidances, level=level, context=alone).x0, cond(X, level).x0)
    # Limits act everywhere, on whichever side of it they stand.
    for order in ((*guidances, Clamp(limit=0.1)), (CFG(scale=4.0), Clamp(limit=0.1), Interval(low=0.3, high=0.9))):
        for level in (inside, outside):
            assert float(guided(*order, level=level).x0.abs().max()) == 0.1


# ----------------------------------------------------------------------------------------------------- configurations


@pytest.mark.parametrize(
    "guidance",
    [
        CFG(scale=2.0, rescale=0.3),
        CFGpp(),
        APG(radius=2.5),
        Autoguidance(),
        PAG(),
        SAG(),
        Classifier(),
        Classifier(sees="clean"),
        Discriminator(),
        Clamp(),
        Threshold(),
        Clip(),
        Content(),
        Structure(),
        Style(),
        Interval(low=0.1, high=3.0),
        Ramp(start=0.2, end=1.5),
    ],
)
def test_contract(guidance: Guidance) -> None:
    assert type(guidance) in kinds(AnyGuidance).values()
    assert decode(AnyGuidance, guidance.to_json()) == guidance
    assert type(guidance).__doc__
    x = X.view(5, 2, 1, 1).clone().requires_grad_()
    first = [CFG(scale=2.0)] if isinstance(guidance, Interval | Ramp) else []
    estimate = compose([*first, guidance], CONTEXT)(x, LEVEL).folded(renoises=True)
    assert estimate.x0.shape == x.shape
    if isinstance(guidance, Classifier) and guidance.sees == "clean":
        assert not estimate.x0.requires_grad, "the graph through the model is spent"
        return
    gradient = torch.autograd.grad(estimate.x0.sum(), x)[0]
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_every_kind_has_its_contract_tested() -> None:
    blends, comparisons = {"cfg", "cfgpp", "apg"}, {"autoguidance", "pag", "sag"}
    others = {"classifier", "clip", "discriminator", "content", "structure", "style", "clamp", "threshold", "interval", "ramp"}
    # The user's own is in test_own.py: no file holds its function, so that it is not its own JSON.
    assert set(kinds(AnyGuidance)) == blends | comparisons | others | {"own"}


def test_w_is_accepted_by_that_name() -> None:
    expected = CFG(scale=3.0)
    assert CFG(w=2.0) == expected
    assert CFG(w=2) == expected
    assert parse("guidance", "cfg:3", AnyGuidance) == expected
    assert parse("guidance", "cfg:w=2", AnyGuidance) == expected
    assert decode(AnyGuidance, '{"kind": "cfg", "w": 2}') == expected
    assert decode(AnyGuidance, '{"kind": "cfg", "w": 2.0, "rescale": 0.5}') == CFG(scale=3.0, rescale=0.5)
    assert "w" not in expected.to_json().replace("rescale", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cfg:scale=3,w=2", "scale or w, not both"),
        ("cfg:w=two", "w is 'two'"),
        ("cfg:-1", "scale is -1"),
        ("cfg:w=-2", "scale"),
        ("cfg:nan", "scale"),
        ("cfg:Infinity", "scale"),
        ("cfg:3,rescale=1.5", "rescale is 1.5"),
        ("classifier:-2", "scale is -2"),
        ("classifier:2,form=men", "did you mean 'mean'"),
        ("clamp:0", "limit is 0"),
        ("threshold:1.5", "ratio is 1.5"),
        ("threshold:0.9,0.5", "maximum is 0.5"),
        ("cfgpp:1.5", "scale is 1.5"),
        ("apg:3,momentum=-1", "momentum is -1"),
        ("apg:3,radius=0", "radius is 0"),
        ("pag:1,midle", "did you mean 'middle'"),
        ("sag:1,blur=0", "blur is 0"),
        ("autoguidance:-1", "scale is -1"),
        ("autoguidence:2", "did you mean 'autoguidance'"),
        ("classifier:2,sees=celan", "did you mean 'clean'"),
        ("interval:2,1", "low 2 has to be below high 1"),
        ("interval:2", "high: a value is missing"),
        ("cgf:3", "did you mean 'cfg'"),
        ("style:1,by=clasifier", "did you mean 'classifier'"),
        ("clip:3,cuts=-1", "cuts is -1"),
        ("ramp:1", "end: a value is missing"),
    ],
)
def test_bad_text_is_one_line_that_names_the_value(text: str, message: str) -> None:
    with pytest.raises(Problem, match=message) as caught:
        parse("guidance", text, AnyGuidance)
    assert "\n" not in str(caught.value)


BAND = Interval(low=0.1, high=3.0)
REFUSED: dict[str, tuple[list[Guidance], str]] = {
    "cfg after clamp": ([Clamp(), CFG()], "cfg has to come first"),
    "cfg twice": ([CFG(), CFG()], "only once"),
    "classifier twice": ([Classifier(), Classifier()], "only once"),
    "interval alone": ([BAND], "there is none"),
    "interval of nothing but a limit": ([Clamp(), BAND], "there is none"),
    "ramp alone": ([Ramp(start=0.0, end=1.0)], "there is none"),
    "ramp of a limit": ([Clamp(), Ramp(start=0.0, end=1.0)], "there is none"),
    "style twice": ([Style(), Style()], "only once"),
    "style by a guide that is not there": ([Style(by="clip")], "give the picture with --reference"),
    "interval twice": ([CFG(), BAND, BAND], "there is none"),
    "clamp after classifier": ([Classifier(), Clamp()], "before classifier"),
    "threshold after classifier": ([Classifier(), Threshold()], "before classifier"),
    "clamp and threshold": ([Clamp(), Threshold()], "give one of them"),
    "two blends of the same estimates": ([CFG(), APG()], "apg and cfg blend the same two estimates"),
    "cfgpp twice": ([CFGpp(), CFGpp()], "only once"),
    "cfgpp after a comparison": ([PAG(), CFGpp()], "cfgpp has to come first"),
    "a comparison twice": ([SAG(), PAG(), SAG()], "sag can be given only once"),
    "a comparison after clamp": ([Clamp(), Autoguidance()], "autoguidance has to come before clamp"),
    "a comparison after classifier": ([Classifier(), PAG()], "pag has to come before classifier"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_orders_that_make_no_sense_are_refused(name: str) -> None:
    guidances, message = REFUSED[name]
    with pytest.raises(Problem, match=message) as caught:
        compose(guidances, replace(CONTEXT, plain=cond))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("guidance " + guidances[0].kind)


def test_guidance_that_the_model_cannot_have_is_refused() -> None:
    with pytest.raises(Problem, match="trained without its conditions"):
        compose([CFG()], Context(cond))
    with pytest.raises(Problem, match="noise-aware classifier"):
        compose([Classifier()], Context(cond, critics=critics(clean=critic)))
    with pytest.raises(Problem, match="needs a classifier"):
        compose([Classifier(sees="clean")], Context(cond, critics=critics(critic)))
    with pytest.raises(Problem, match="needs a weaker model"):
        compose([Autoguidance()], Context(cond))
    with pytest.raises(Problem, match="pag needs a network with attention"):
        compose([PAG()], Context(cond))
    with pytest.raises(Problem, match="cannot perturb part 'up': this network attends in middle"):
        compose([PAG(part="up")], CONTEXT)
    with pytest.raises(Problem, match="sag needs a network with attention"):
        compose([SAG()], Context(cond))


@pytest.mark.parametrize(
    "guidances",
    [
        [],
        [CFG(), Clamp(), Classifier()],
        [CFG(), BAND, Clamp()],
        [CFG(), Clamp(), BAND],
        [CFG(), Classifier(), BAND],
        [Clamp(), Classifier()],
        [CFG(), Threshold()],
        [CFG(), BAND, Classifier(), Interval(low=0.5, high=9.0)],
        [CFGpp(), PAG(), Clamp(), Classifier(form="score")],
        [APG(), BAND, Autoguidance(), SAG(), Threshold(), Classifier(sees="clean")],
        [SAG(), PAG(), Autoguidance(), BAND, Clamp()],
    ],
)
def test_orders_that_make_sense(guidances: list[Guidance]) -> None:
    assert compose(guidances, CONTEXT)(X.view(5, 2, 1, 1), LEVEL).x0.isfinite().all()


def test_a_folded_clamp_keeps_the_gradient_among_the_data() -> None:
    level = Level(999.0, 1e-4, (1 - 1e-8) ** 0.5)
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    context = Context(lambda x, level: Estimate(x, level, x), critics=critics(lambda x, level: x.sum(dim=1)))
    published, safe = ([Clamp(folded=folded), Classifier(scale=1.0)] for folded in (False, True))
    assert compose(published, context)(x, level).folded().x0.abs().min() > 1000
    assert compose(safe, context)(x, level).folded().x0.abs().max() <= 1
    assert torch.equal(compose(safe, context)(x, level).x0, x.clamp(-1, 1))
