"""Likeness to a reference picture, cut-outs for a clean CLIP, and weights of guidance by noise level."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.guidance.test_guidance import CONTEXT, LEVEL, X, cond, never
from torch import Tensor

from lodestar.core.estimate import Estimate
from lodestar.core.level import CLEAN, Level
from lodestar.guidance import (
    CFG,
    Clamp,
    Classifier,
    Clip,
    Content,
    Context,
    Guidance,
    Observed,
    Observer,
    Ramp,
    Structure,
    Style,
    compose,
)
from lodestar.guidance.clip import averaged, cut
from lodestar.guidance.semantic import Likeness, gram

PICTURES = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
OTHERS = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def seen(x: Tensor, level: Level) -> Observed:
    return Observed(x.mean(dim=(2, 3)), (x, x[:, :, ::2, ::2]))


def shuffled(x: Tensor) -> Tensor:
    """The same values in other places."""
    return x.flatten(2)[:, :, torch.randperm(16, generator=torch.Generator().manual_seed(0))].view_as(x)


@pytest.mark.parametrize("kind", [Content, Structure, Style])
def test_a_picture_is_most_like_itself(kind: type[Likeness]) -> None:
    itself = kind().likeness(seen(PICTURES, LEVEL), seen(PICTURES, LEVEL))
    torch.testing.assert_close(itself, torch.ones(3, dtype=torch.float64))
    assert (kind().likeness(seen(PICTURES, LEVEL), seen(OTHERS, LEVEL)) < 1).all()


def test_structure_knows_places_and_style_does_not() -> None:
    whole = lambda x, level: Observed(x.mean(dim=(2, 3)), (x,))  # noqa: E731
    mine, reference = whole(shuffled(PICTURES), LEVEL), whole(PICTURES, LEVEL)
    torch.testing.assert_close(Style().likeness(mine, reference), torch.ones(3, dtype=torch.float64))
    assert (Structure().likeness(mine, reference) < 0.5).all()


def test_gram_is_the_mean_product_of_channels() -> None:
    expected = torch.einsum("bchw,bdhw->bcd", PICTURES, PICTURES) / 16
    torch.testing.assert_close(gram(PICTURES), expected)


@pytest.mark.parametrize("sees", ["noisy", "clean"])
def test_reference_is_diffused_to_the_level_of_what_is_seen(sees: Any) -> None:
    levels: list[Level] = []

    def diffused(level: Level) -> Tensor:
        levels.append(level)
        return OTHERS

    context = Context(lambda x, level: Estimate(x, level, x), observers={("classifier", sees): Observer(seen, diffused)})
    shift = compose([Content(sees=sees)], context)(PICTURES, LEVEL).shift
    assert shift is not None
    assert levels == [LEVEL if sees == "noisy" else CLEAN]


def test_several_likenesses_share_a_pass() -> None:
    passes: list[int] = []

    def counted(x: Tensor, level: Level) -> Observed:
        passes.append(len(x))
        return seen(x, level)

    observers = {("classifier", "noisy"): Observer(counted, lambda level: OTHERS)}
    context = Context(lambda x, level: Estimate(x, level, x), observers=observers)  # type: ignore[arg-type]
    guidance = [Content(scale=2.0), Structure(scale=0.5), Style()]
    together = compose(guidance, context)(PICTURES, LEVEL).shift
    assert passes == [3, 3], "one of the pictures, one of the references"
    alone = [compose([each], context)(PICTURES.clone(), LEVEL).shift for each in guidance]
    assert together is not None
    torch.testing.assert_close(together, sum(shift for shift in alone if shift is not None))


def test_likeness_rises_along_its_gradient() -> None:
    def likeness(kind: type[Likeness], x: Tensor) -> Tensor:
        return kind().likeness(seen(x, LEVEL), seen(OTHERS, LEVEL))

    observers = {("classifier", "noisy"): Observer(seen, lambda level: OTHERS)}
    context = Context(lambda x, level: Estimate(x, level, x), observers=observers)  # type: ignore[arg-type]
    for kind in (Content, Structure, Style):
        shift = compose([kind()], context)(PICTURES, LEVEL).shift
        assert shift is not None
        assert (likeness(kind, PICTURES + 1e-5 * shift) > likeness(kind, PICTURES)).all()


def test_cut_outs_depend_on_a_picture_s_own_seed_and_level() -> None:
    def sum_of(x: Tensor, level: Level) -> Tensor:
        return x.square().sum(dim=(1, 2, 3))

    pictures = PICTURES.float()
    all_of = averaged(sum_of, [7, 8, 7], 4)(pictures, LEVEL)
    torch.testing.assert_close(averaged(sum_of, [8], 4)(pictures[1:2], LEVEL), all_of[1:2])
    assert not torch.allclose(averaged(sum_of, [9], 4)(pictures[1:2], LEVEL), all_of[1:2])
    assert not torch.allclose(averaged(sum_of, [8], 4)(pictures[1:2], Level(99.0, 0.8, 0.6)), all_of[1:2])
    assert not torch.allclose(averaged(sum_of, [7], 4)(pictures[:1], LEVEL), sum_of(pictures[:1], LEVEL))


def test_the_whole_picture_is_a_cut_out() -> None:
    whole = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]], dtype=torch.float64).expand(3, 2, 3)
    torch.testing.assert_close(cut(PICTURES, whole), PICTURES)
    corner = torch.tensor([[[0.5, 0, -0.5], [0, 0.5, -0.5]]], dtype=torch.float64).expand(3, 2, 3)
    slope = torch.arange(4.0, dtype=torch.float64).expand(3, 1, 4, 4)
    torch.testing.assert_close(cut(slope, corner)[0, 0, 0, 1:], torch.tensor([0.25, 0.75, 1.25], dtype=torch.float64))


def test_clip_looks_at_cut_outs_of_the_estimate() -> None:
    prompt: dict[Any, Any] = {("clip", "clean"): lambda x, level: x.sum(dim=(1, 2, 3))}
    context = Context(lambda x, level: Estimate(x, level, 0.5 * x), critics=prompt, seeds=(1, 2, 3))
    whole = compose([Clip(sees="clean")], context)(PICTURES, LEVEL).shift
    cuts = compose([Clip(sees="clean", cuts=8)], context)(PICTURES, LEVEL).shift
    assert whole is not None
    assert cuts is not None
    torch.testing.assert_close(whole, torch.full_like(whole, 1.5))
    assert cuts.std() > 0.1 * cuts.mean() > 0


# --------------------------------------------------------------------------------------------------------------- ramps


def run(*guidance: Guidance, level: Level = LEVEL, context: Context = CONTEXT) -> Estimate:
    return compose(guidance, replace(context, plain=cond))(X, level)


def test_a_weight_is_a_factor_of_the_scale() -> None:
    weight = Ramp(start=0.3, end=2.0).weight(LEVEL)
    torch.testing.assert_close(run(CFG(scale=3.0), Ramp(start=0.3, end=2.0)).x0, run(CFG(w=2 * weight)).x0)
    of_classifier = run(Classifier(scale=2.0), Ramp(start=0.3, end=2.0)).shift
    torch.testing.assert_close(of_classifier, run(Classifier(scale=2 * weight)).shift)
    assert torch.equal(run(CFG(scale=3.0), Ramp(start=1.0, end=1.0)).x0, run(CFG(scale=3.0)).x0)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_a_weight_goes_from_start_at_pure_noise_to_end_at_clean_data(shape: Any) -> None:
    ramp = Ramp(start=3.0, end=0.5, shape=shape)
    assert ramp.weight(Level(0.0, 0.0, 1.0)) == pytest.approx(3.0)
    assert ramp.weight(CLEAN) == pytest.approx(0.5)
    assert ramp.weight(Level(0.0, 1.0, 1.0)) == pytest.approx(1.75)


def test_each_guidance_has_its_own_weight() -> None:
    both = run(CFG(scale=3.0), Ramp(start=0.0, end=1.0), Classifier(scale=2.0), Ramp(start=1.0, end=0.0))
    down, up = Ramp(start=0.0, end=1.0).weight(LEVEL), Ramp(start=1.0, end=0.0).weight(LEVEL)
    torch.testing.assert_close(both.x0, run(CFG(w=2 * down)).x0)
    torch.testing.assert_close(both.shift, run(Classifier(scale=2 * up)).shift)
    # Of two neighbours, only the last is weighted.
    last = run(Clip(scale=1.0), Classifier(scale=2.0), Ramp(start=1.0, end=0.0)).shift
    assert last is not None
    torch.testing.assert_close(last, run(Classifier(scale=1 + 2 * up)).shift)


@pytest.mark.parametrize("guidance", [[CFG(scale=3.0)], [Clamp(), Classifier()], [CFG(scale=3.0), Clamp(), Style()]])
def test_a_weight_costs_no_evaluation(guidance: list[Guidance]) -> None:
    calls: list[str] = []

    def counted(name: str, denoise: Any) -> Any:
        return lambda x, level: (calls.append(name), denoise(x, level))[1]

    assert CONTEXT.pair is not None
    context = replace(CONTEXT, plain=counted("plain", cond), pair=counted("pair", CONTEXT.pair), null=never)
    compose(guidance, context)(X.view(5, 2, 1, 1), LEVEL)
    plainly, calls[:] = list(calls), []
    compose([*guidance, Ramp(start=0.5, end=1.0)], context)(X.view(5, 2, 1, 1), LEVEL)
    assert calls == plainly
