"""Sampling by every kind of guidance and label, and what is refused before any work."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from lodestar.conditions import Ask, Composed
from lodestar.config import Note, Problem, decode
from lodestar.core import prediction
from lodestar.core.schedule import EDMSigma, Linear
from lodestar.denoiser import Denoiser
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.edits import SDEdit
from lodestar.generators.guide import Guide
from lodestar.generators.guided import bind
from lodestar.generators.request import Request, request, settings
from lodestar.guidance import APG, CFG, PAG, SAG, AnyGuidance, Autoguidance, CFGpp, Clamp, Classifier, Clip, Interval, Threshold
from lodestar.models.classifier import PictureClassifier
from lodestar.samplers import DDIM, Ancestral, Consistency, DPMAdaptive, DPMpp, Heun
from tests.evaluation import tiny

BAND = Interval(low=0.5, high=50.0)


def plain_classifier() -> PictureClassifier:
    """A classifier of clean pictures alone."""
    model = tiny.classifier()
    model.config = model.config.replace(noised=False, schedule=Linear(timesteps=7))
    return model


def floats(model: Diffusion, request: Request, **more: Any) -> torch.Tensor:
    """The pictures before they are rounded."""
    return torch.cat([frame.x for frame in model.stream(request, **more) if frame.final])


def ask(*labels: Any, **more: Any) -> Request:
    return request(labels, how=settings(**{"steps": 4, **more}))


def changed(asked: Request, **more: Any) -> Request:
    """The request with other settings."""
    return asked.replace(settings=asked.settings.replace(**more))


@pytest.mark.parametrize(
    "guidance",
    [
        [CFGpp()],
        [APG(scale=3.0)],
        [Autoguidance(scale=2.0)],
        [PAG(scale=2.0)],
        [SAG(scale=2.0, threshold=0.9)],
        [Classifier(scale=20.0, sees="clean")],
        [CFG(scale=2.0), PAG(), BAND, SAG(threshold=0.9), Autoguidance(), Classifier(scale=2.0)],
        [APG(), PAG(), Classifier(scale=2.0, sees="clean", form="score"), BAND],
    ],
    ids=lambda guidance: " ".join(each.kind for each in guidance),
)
def test_guidance_guides_and_a_picture_depends_on_its_seed_alone(guidance: list[AnyGuidance]) -> None:
    model, weak, classifier = tiny.diffusion(), tiny.diffusion(seed=3), tiny.classifier()
    asked = ask(0, 1, None, Composed(wanted=(0, 2)), guidance=guidance, sampler=DDIM())
    helped = {"guides": {"weak": weak, "classifier": classifier}}
    together = floats(model, asked, **helped)
    assert together.isfinite().all()
    assert not torch.allclose(together[:2], floats(model, changed(asked, guidance=()))[:2], atol=1e-3)
    for index in (0, 3):
        torch.testing.assert_close(together[index], floats(model, asked.only(index), **helped)[0], atol=1e-4, rtol=1e-4)


def test_adaptive_steps_are_of_one_picture_alone() -> None:
    model = tiny.diffusion()
    asked = ask(0, 1, None, 2, 0, guidance=CFG(scale=3.0), sampler=DPMAdaptive(), steps=3)
    every, *others = ([*model.stream(asked, batch_size=size)] for size in (1, 2, 32))
    for frames in others:
        assert [(frame.first, frame.step) for frame in frames] == [(frame.first, frame.step) for frame in every]
        assert all(torch.equal(one.x, other.x) for one, other in zip(frames, every, strict=True))
    assert [frame.first for frame in every if frame.final] == [0, 1, 2, 3, 4]
    done = [frame.done for frame in every]
    assert done == sorted(done)
    assert done[-1] == 5
    assert len({sum(frame.first == k for frame in every) for k in range(5)}) > 1, "pictures differ in how many steps they take"
    alone = floats(model, asked.only(3))
    assert torch.equal(alone[0], every[-1 - sum(frame.first == 4 for frame in every)].x[0])
    # And they are the pictures that many steps make.
    many = floats(model, changed(asked, sampler=DPMpp(), steps="50"))
    assert float((floats(model, asked) - many).abs().mean()) < 0.02


def test_an_interval_between_the_steps_of_the_plan_is_none_for_a_sampler_that_chooses_its_own() -> None:
    model = tiny.diffusion()
    band, fixed = (CFG(scale=5.0), Interval(low=0.3, high=0.4)), ask(0, sampler=DDIM(), steps=2)
    with pytest.raises(Problem, match="no step inside"):
        model.prepare(changed(fixed, guidance=band))
    adaptive = changed(fixed, sampler=DPMAdaptive(rtol=0.005))
    assert not torch.equal(floats(model, changed(adaptive, guidance=band)), floats(model, adaptive))
    with pytest.raises(Problem, match="no step inside"):
        model.prepare(changed(adaptive, guidance=(CFG(), Interval(low=1e4, high=1e5))))


def test_a_plain_classifier_guides_what_is_believed_to_be_clean() -> None:
    model, plain = tiny.diffusion(classes=None), plain_classifier()
    asked = ask(*[2] * 8, guidance=(Classifier(scale=1e4, sees="clean"),), sampler=DDIM())
    logp = [
        plain.logits(floats(model, each, guides={"classifier": plain})).log_softmax(1)[:, 2]
        for each in (changed(asked, guidance=(Classifier(scale=0.0, sees="clean"),)), asked)
    ]
    assert (logp[1] > logp[0]).all()


def test_autoguidance_by_the_model_itself_is_none() -> None:
    model = tiny.diffusion()
    asked = ask(0, 1)
    ours = floats(model, changed(asked, guidance=(Autoguidance(scale=3.0),)), guides={"weak": model})
    torch.testing.assert_close(ours, floats(model, asked))


# ---------------------------------------------------------------------------------------------------- composed labels


def test_a_request_with_composed_labels_survives_json() -> None:
    asked = ask(0, None, Composed(wanted=(1,), unwanted=(0,)), temperature=0.9, guidance=(CFGpp(), PAG(part="up")))
    assert decode(Request, asked.to_json()) == asked


def test_labels_beside_a_composed_one_are_what_they_are_alone() -> None:
    model = tiny.diffusion()
    both = floats(model, ask(1, Composed(unwanted=(0,)), None, guidance=(CFG(scale=2.0),)))
    torch.testing.assert_close(both[0], floats(model, ask(1, guidance=(CFG(scale=2.0),)))[0], atol=1e-5, rtol=1e-4)
    alone = request([None], 2, settings(steps=4, guidance=CFG(scale=2.0)))
    torch.testing.assert_close(both[2], floats(model, alone)[0], atol=1e-5, rtol=1e-4)


def test_a_composed_estimate_is_that_of_its_labels() -> None:
    model, x, level = tiny.diffusion(), torch.randn(1, 3, 8, 8), Linear(timesteps=50).at(30)

    def x0(*labels: Any) -> torch.Tensor:
        return bind(model, [Ask(label=label) for label in labels])(x, level).x0

    expected = x0(None) + (x0(0) - x0(None)) + (x0(2) - x0(None)) - (x0(1) - x0(None))
    torch.testing.assert_close(x0(Composed(wanted=(0, 2), unwanted=(1,))), expected, atol=1e-4, rtol=1e-4)


def test_labels_are_asked_for_in_text() -> None:
    samples = tiny.diffusion().sample(["cat+ship", "not dog", "dog"], steps=2)
    assert samples.request.labels == [Composed(wanted=(0, 2)), Composed(unwanted=(1,)), 1]


def test_composed_labels_steer_by_a_classifier_too() -> None:
    model, classifier = tiny.diffusion(classes=None), tiny.classifier()
    asked = ask(Composed(wanted=(0,), unwanted=(1,)), guidance=(Classifier(scale=20.0),))
    guides = {"classifier": classifier}
    unguided = changed(asked, guidance=(Classifier(scale=0.0),))
    assert not torch.allclose(floats(model, asked, guides=guides), floats(model, unguided, guides=guides))


# ---------------------------------------------------------------------------------------------------------------- notes


def test_a_model_that_was_not_trained_to_jump_is_sampled_by_jumps_with_a_note() -> None:
    model = tiny.diffusion()
    with pytest.warns(Note, match="trained to jump to clean data"):
        model.sample(0, sampler=Consistency())
    with pytest.warns(Note, match="trained to jump to clean data"):
        model.edit(SDEdit(), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 0, sampler=Consistency())


@pytest.mark.parametrize(
    ("changes", "sampler"),
    [
        ({}, None),
        ({"sampler": Consistency()}, None),
        ({"steps": "trailing:1"}, Consistency()),
        (
            {"denoiser": tiny.diffusion().config.denoiser.replace(prediction=prediction.Consistency()), "schedule": EDMSigma()},
            Consistency(),
        ),
    ],
)
def test_there_is_no_note_of_one_that_was(changes: dict[str, Any], sampler: Consistency | None) -> None:
    model = tiny.diffusion()
    model.config = model.config.replace(**changes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.prepare(ask(0, sampler=sampler))


# ---------------------------------------------------------------------------------------------------------------- limits


def test_x0_is_limited_as_the_model_says_unless_the_request_does() -> None:
    model = tiny.diffusion()
    whole, free = (floats(model, ask(0, clamp=clamp)) for clamp in (True, False))
    assert whole.abs().max() <= 1 < free.abs().max()
    model.config = model.config.replace(limit=None)
    assert torch.equal(floats(model, ask(0)), free)
    assert torch.equal(floats(model, ask(0, guidance=(Clamp(folded=True),))), whole)
    model.config = model.config.replace(limit=Clamp(limit=0.25, folded=True))
    assert floats(model, ask(0)).abs().max() == 0.25
    model.config = model.config.replace(limit=Threshold(ratio=0.5, maximum=2.0))
    assert floats(model, ask(0)).abs().max() <= 1


# --------------------------------------------------------------------------------------------------------- temperature


def test_temperature_scales_all_noise() -> None:
    """The samplers are linear in the noise where the model is, and so is what becomes of it."""
    model = tiny.diffusion()
    for parameter in model.denoiser.network.parameters():
        parameter.zero_()
    one, half = (floats(model, ask(0, sampler=Ancestral(), clamp=False, temperature=temperature)) for temperature in (1.0, 0.5))
    torch.testing.assert_close(half, one / 2)
    with pytest.raises(Problem, match="temperature is 0"):
        ask(0, temperature=0.0)


# -------------------------------------------------------------------------------------------------------- what is refused


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("evaluated")


@pytest.mark.parametrize(
    ("asked", "guides", "message"),
    [
        (
            ask(0, guidance=(CFG(), Interval(low=0.001, high=0.002))),
            {},
            r"interval:0.001,0.002 has no step inside: those of plan '4' have σ/α from 0.\d+ to ",
        ),
        (ask(0, guidance=(CFGpp(),), sampler=Heun()), {}, "which this sampler cannot: use ddim"),
        (ask(0, sampler=Ancestral(variance="learned")), {}, "this model has none"),
        (ask(0, guidance=(PAG(part="up"),)), {}, "attends in middle"),
        (ask(0, guidance=(Autoguidance(),)), {}, "needs a weaker model"),
        (ask(0, guidance=(Autoguidance(),)), {"weak": tiny.diffusion(classes=None)}, "knows no classes, the model 3 classes"),
        (ask(0, guidance=(Autoguidance(),)), {"weak": tiny.diffusion(channels=1)}, "pictures of 1 channels"),
        (
            ask(0, Composed(unwanted=(1,)), guidance=(Autoguidance(),)),
            {"weak": tiny.diffusion(droppable=False)},
            "composed labels need a model that was also trained without",
        ),
        (ask(0, guidance=(Autoguidance(),)), {"weak": tiny.classifier()}, "a model that was built in code makes no pictures"),
        (
            ask(0, guidance=(Classifier(),)),
            {"classifier": tiny.diffusion()},
            "guidance classifier: .* of another kind: give a classifier",
        ),
        (ask(0, guidance=(Clip(),)), {"clip": tiny.diffusion()}, "guidance clip: .* of another kind: give a CLIP"),
        (ask(0, guidance=(Classifier(),)), {"classifier": plain_classifier()}, "clean pictures alone.*sees=clean"),
        (ask(0, guidance=(Clip(),)), {"clip": tiny.classifier()}, "guidance clip: .* of another kind: give a CLIP"),
        (ask(7), {}, "label 7: this model knows classes 0 to 2"),
        (ask(Composed(wanted=(0, 5))), {}, "label 5: this model knows classes 0 to 2"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_any_work(
    asked: Request, guides: dict[str, Guide], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Denoiser, "output", never)
    for answer in (tiny.diffusion().check, tiny.diffusion().prepare, tiny.diffusion().stream):
        with pytest.raises(Problem, match=message) as caught:
            answer(asked, guides=guides)
        assert "\n" not in str(caught.value)


def test_a_gradient_at_pure_noise_is_refused_before_any_work_where_no_step_could_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Denoiser, "output", never)
    model, classifier, schedule = tiny.diffusion(), tiny.classifier(), Linear(timesteps=50, zero_terminal_snr=True)
    denoiser = model.config.denoiser.replace(prediction=prediction.Velocity())
    model.config = model.config.replace(schedule=schedule, denoiser=denoiser)
    classifier.config = classifier.config.replace(schedule=schedule)

    def check(*guidance: AnyGuidance, **more: Any) -> None:
        model.prepare(ask(0, guidance=guidance, steps="trailing:4", **more), {"classifier": classifier})

    with pytest.raises(Problem, match="a gradient cannot move x0 at pure noise"):
        check(Classifier(), sampler=DDIM())
    with pytest.raises(Problem, match="a gradient cannot move x0 at pure noise"):
        check(Classifier(form="score"), sampler=Ancestral())
    check(Classifier(), sampler=Ancestral())
    check(Classifier(scale=0.0), sampler=DDIM())
    check(Classifier(), BAND, sampler=DDIM())  # pure noise is in no interval


def test_guidance_of_no_scale_puts_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Denoiser, "output", never)
    tiny.diffusion().prepare(ask(0, guidance=(CFGpp(scale=0.0),), sampler=Heun()))


@pytest.mark.parametrize("sees", ["noisy", "clean"])
@pytest.mark.parametrize("names", [("cat", "dog", "boat"), None])
def test_helpers_have_the_classes_of_the_model(sees: str, names: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Denoiser, "output", never)
    classifier, weak = tiny.classifier(), tiny.diffusion()
    classifier.config, weak.config = classifier.config.replace(names=names), weak.config.replace(names=names)
    with pytest.raises(Problem, match=r"this classifier knows other classes \(3.* than the model \(3: cat, dog, ship\)"):
        tiny.diffusion().prepare(ask(0, guidance=(Classifier(sees=sees),)), {"classifier": classifier})
    with pytest.raises(Problem, match=r"this weaker model knows other classes \(3"):
        tiny.diffusion().prepare(ask(0, guidance=(Autoguidance(),)), {"weak": weak})


def test_the_number_of_classes_counts_where_they_have_no_names() -> None:
    model, classifier = tiny.diffusion(), tiny.classifier()
    network = classifier.config.network.replace(classes=4)
    classifier.config = classifier.config.replace(names=None, network=network)
    model.config = model.config.replace(names=None)
    with pytest.raises(Problem, match=r"other classes \(4, without names\) than the model \(3, without names\)"):
        model.prepare(ask(0, guidance=(Classifier(),)), {"classifier": classifier})


def test_a_weaker_model_of_another_schedule_is_refused() -> None:
    weak = tiny.diffusion()
    weak.config = weak.config.replace(schedule=Linear(timesteps=40))
    with pytest.raises(Problem, match=r"another noise schedule .*40.* than the model .*50"):
        tiny.diffusion().prepare(ask(0, guidance=(Autoguidance(),)), {"weak": weak})


def test_composed_labels_need_a_model_that_can_be_unconditional() -> None:
    with pytest.raises(Problem, match=r"label 'cat\+dog': composed labels need"):
        tiny.diffusion(droppable=False).sample("cat+dog", steps=2)


@pytest.mark.parametrize(("role", "guidance", "best_of"), [("weak", "autoguidance:2", 1), ("judge", None, 2)])
def test_a_guide_is_a_model(role: str, guidance: str | None, best_of: int) -> None:
    with pytest.raises(Problem, match=f"^guides: '{role}' is 3, which is no model: load one with lodestar.load$"):
        tiny.diffusion().sample(count=1, guidance=guidance, guides={role: 3}, best_of=best_of)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("role", "guidance", "said"),
    [("weaker", "autoguidance:2", "asked for is 'weak'; did you mean 'weak'\\?"), ("judge", None, "it asks for none")],
)
def test_a_guide_that_nothing_asks_for(role: str, guidance: str | None, said: str) -> None:
    model = tiny.diffusion()
    message = f"^guides: '{role}' has no effect with this guidance: {said}$"
    with pytest.raises(Problem, match=message):
        model.sample(count=1, guidance=guidance, guides={role: model})
    with pytest.raises(Problem, match=message):
        model.edit(SDEdit(), [np.zeros((8, 8, 3), np.uint8)], guidance=guidance, guides={role: model})
