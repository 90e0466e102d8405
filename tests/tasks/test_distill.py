"""Distillation: the target is what two steps of the teacher do, and a student that does the same has nothing to learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lodestar.config import Problem, decode
from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.exact import Gaussian, Mixture
from lodestar.core.level import Level, spread
from lodestar.core.plan import parse_plan
from lodestar.core.prediction import Epsilon, Velocity
from lodestar.core.schedule import Cosine, Linear, Schedule
from lodestar.core.transition import transitions
from lodestar.data import Batch, DataFacts
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.guidance import CFG, Context, Interval, compose
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.samplers import DDIM, Consistency
from lodestar.samplers.algebra import combine, follow
from lodestar.samplers.base import last
from lodestar.tasks import AnyTask, Distill, Export, Frozen, Rng
from lodestar.tasks.distill import DistillLearner, stops, two_steps

NAMES = ("cat", "dog", "ship")
FACTS = DataFacts(1, (8, 8), NAMES)
GAUSSIAN = Gaussian(torch.tensor([0.4, -1.0]), torch.tensor([0.3, 1.5]))
MIXTURE = Mixture(torch.tensor([0.5, 0.5]), torch.tensor([[1.0, 0.5], [-1.2, 0.3]]), torch.tensor([0.06, 0.02]))
SCHEDULES = [Cosine(), Linear(timesteps=1024), Cosine(timesteps=64, zero_terminal_snr=True)]


def task(**settings: Any) -> Distill:
    network = UNetConfig(
        width=8, multipliers=(1, 2), blocks=1, attention=(), head_channels=8, norm_groups=4, in_channels=1, out_channels=2
    )
    denoiser = DenoiserConfig(network=network, prediction=Velocity(), variance="learned_range", conditions=conditions(3))
    model = DiffusionConfig(denoiser=denoiser, schedule=Cosine(timesteps=32), size=(8, 8), names=NAMES, droppable=True)
    return Distill(**{"teacher": "t", "digest": "0", "model": model, "steps": 4} | settings)


def learner(**settings: Any) -> DistillLearner:
    """A student and a teacher, each with random weights."""
    torch.manual_seed(0)
    made = task(**settings).resolve(FACTS).build(torch.device("cpu"), torch.float32)
    for model in (made.model, made.teacher):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return made


def batch(count: int = 16) -> Batch:
    rng = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=rng)
    return Batch({"image": image, "label": torch.arange(count) % 3})


def rng(seed: int = 2, count: int = 16) -> Rng:
    return Rng(torch.Generator().manual_seed(seed), count)


def plan(steps: int, schedule: Schedule) -> list[Level]:
    return parse_plan(f"trailing:{steps}").levels(schedule)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 8, 32])
@pytest.mark.parametrize("exact", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
def test_one_step_to_the_target_ends_where_two_of_the_exact_teacher_end(steps: int, schedule: Schedule, exact: Denoise) -> None:
    x = torch.randn(steps, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    target = two_steps(exact, x, *stops(schedule, steps))
    levels, halves, elsewhere = plan(steps, schedule), plan(2 * steps, schedule), False
    for k in range(steps):
        start = x[k : k + 1]
        two = last(DDIM()(exact, start, transitions(halves[2 * k : 2 * k + 3]), torch.randn_like))
        told: Denoise = lambda x, level, k=k: Estimate(x, level, target[k : k + 1])  # noqa: E731
        one = last(DDIM()(told, start, transitions(levels[k : k + 2]), torch.randn_like))
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)
        single = last(DDIM()(exact, start, transitions(levels[k : k + 2]), torch.randn_like))
        elsewhere = elsewhere or float((single - two).abs().max()) > 1e-4
    assert elsewhere, "the teacher's own single step is not its two"


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_students_steps_are_its_plans_and_every_other_stop_of_its_teachers(schedule: Schedule) -> None:
    for steps in (1, 2, 4, 8, 16, 32):
        begin, halfway, end = stops(schedule, steps)
        assert [begin[k] for k in range(steps)] == plan(steps, schedule)[:-1]
        assert [level for k in range(steps) for level in (begin[k], halfway[k])] == plan(2 * steps, schedule)[:-1]
        assert [end[k] for k in range(steps)] == plan(steps, schedule)[1:]


def test_a_student_that_does_what_the_teachers_two_steps_do_has_no_loss() -> None:
    made = learner()
    levels = [level.to("cpu") for level in stops(made.task.model.schedule, 4)]

    class Perfect(torch.nn.Module):
        """The student as a map: x̂₀ as the teacher's two steps have it."""

        config, label = made.model.denoiser.config, made.model.denoiser.label

        def encode(self, cond: Any, keep: Any) -> Any:
            return cond, keep

        def forward(self, x: torch.Tensor, level: Level, signals: Any) -> Estimate:
            bound = made.teacher.denoiser.bind(*signals)
            clamped: Denoise = lambda x, level: Estimate(x, level, bound(x, level).x0.clamp(-1, 1))  # noqa: E731
            assert isinstance(level.time, torch.Tensor)
            index = torch.stack([(levels[0].time == time).nonzero()[0, 0] for time in level.time])
            return Estimate(x, level, two_steps(clamped, x, *(each[index] for each in levels)))

    before = made.loss(batch(), rng())
    assert before.total.mean() > 1e-2
    made.model.denoiser = Perfect()
    after = made.loss(batch(), rng())
    assert after.total.max() < 1e-9
    assert after.terms["mse"].max() < 1e-9


def test_the_weight_is_the_signal_to_noise_ratio_and_at_least_one() -> None:
    made = learner()
    drawn: list[Level] = []
    student = made.model.denoiser.forward
    made.model.denoiser.forward = lambda x, level, signals: (drawn.append(level), student(x, level, signals))[1]  # type: ignore
    losses = made.loss(batch(64), rng(count=64))
    snr = (drawn[0].alpha / drawn[0].sigma) ** 2  # type: ignore[operator]
    assert snr.min() < 1 < snr.max()
    torch.testing.assert_close(losses.total, losses.terms["mse"] * snr.clamp(min=1).float())
    assert len(drawn[0].time.unique()) == 4, "all steps are drawn"  # type: ignore[union-attr]


def test_a_student_that_jumps_to_the_end_of_the_teachers_path_has_no_loss() -> None:
    made = learner(jump=True)
    levels = [level.to("cpu") for level in stops(made.task.model.schedule, 4)]

    class Perfect(torch.nn.Module):
        """The student as a map: the end of the teacher's steps of two, from any stop on."""

        config, label = made.model.denoiser.config, made.model.denoiser.label

        def encode(self, cond: Any, keep: Any) -> Any:
            return cond, keep

        def forward(self, x: torch.Tensor, level: Level, signals: Any) -> Estimate:
            assert isinstance(level.time, torch.Tensor)
            cond, keep = signals
            return Estimate(
                x,
                level,
                torch.cat(
                    [
                        self.end(x[k : k + 1], float(time), cond["label"][k : k + 1], keep["label"][k : k + 1])
                        for k, time in enumerate(level.time)
                    ]
                ),
            )

        def end(self, x: torch.Tensor, time: float, label: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
            bound = made.teacher.denoiser.bind({"label": label}, {"label": keep})
            clamped: Denoise = lambda x, level: Estimate(x, level, bound(x, level).x0.clamp(-1, 1))  # noqa: E731
            for k in [k for k, begin in enumerate(levels[0].time.tolist()) if begin <= time]:  # type: ignore[union-attr]
                t, halfway, s = (each[torch.tensor([k])] for each in levels)
                of_x0, of_x = follow(t, s)
                x = combine((of_x0, two_steps(clamped, x, t, halfway, s)), (of_x, x))
            return x

    before = made.loss(batch(), rng())
    assert before.total.mean() > 1e-2
    made.model.denoiser = Perfect()
    after = made.loss(batch(), rng())
    assert after.total.max() < 1e-4 and after.terms["mse"].max() < 1e-8


def test_the_teacher_may_be_guided_in_an_interval_of_levels() -> None:
    scale, low, high = 3.0, 0.5, 2.0
    made = learner(scale=scale, low=low, high=high)
    cond, keep = {"label": torch.arange(4) % 3}, {"label": torch.tensor([True, True, True, False])}
    levels, x = [made.task.model.schedule.table[k] for k in (2, 10, 20, 30)], torch.randn(4, 1, 8, 8)
    assert [low < float(level.ratio) <= high for level in levels] == [False, True, True, False]
    values = torch.tensor([(level.time, level.alpha, level.sigma) for level in levels], dtype=torch.float64)
    each = made._guided(cond, keep)(x, Level(*values.unbind(1))).x0
    bound = made.teacher.denoiser.bind(cond, keep, made.teacher.denoiser.null({}, 4))
    context = Context(plain=bound, null=bound.unconditional(), pair=bound.pair)
    guided = compose([CFG(scale=scale), Interval(low=low, high=high)], context)
    for row, level in enumerate(levels):
        torch.testing.assert_close(each[row], guided(x, level).x0[row], rtol=1e-4, atol=1e-5)
        assert torch.allclose(each[row], bound(x, level).x0[row], atol=1e-4) == (row in (0, 3))


def test_the_student_learns_and_the_teacher_does_not() -> None:
    made = learner()
    made.module.train()
    made.loss(batch(), rng()).total.mean().backward()
    assert any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in made.module.parameters())
    assert all(parameter.grad is None for parameter in made.teacher.parameters())
    assert not any(module.training for module in made.teacher.modules())
    mine = {id(parameter) for parameter in made.module.parameters()}
    assert not mine & {id(parameter) for parameter in made.teacher.parameters()}
    assert made.frozen == {"t": Frozen(made.teacher, "diffusion", "0")}


def test_teacher_and_student_lose_the_same_labels() -> None:
    made, seen = learner(label_drop=0.5), []
    for model in (made.model, made.teacher):
        encode = model.denoiser.encode
        model.denoiser.encode = lambda cond, keep, encode=encode: (seen.append(keep["label"]), encode(cond, keep))[1]  # type: ignore
    made.loss(batch(), rng())
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[1])
    assert 0 < seen[0].sum() < 16


def test_the_student_is_the_teacher_with_its_own_sampler_and_plan() -> None:
    resolved = task(steps=8).resolve(FACTS)
    assert (resolved.model.sampler, resolved.model.steps) == (DDIM(), "trailing:8")
    assert resolved.model.denoiser == task().model.denoiser
    assert resolved.resolve(FACTS) == resolved
    assert decode(AnyTask, resolved.to_json()) == resolved
    made = learner(steps=8)
    assert made.exports() == {"model": Export(made.module, "diffusion", resolved.model.to_json())}
    bare = task(model=task().model.replace(droppable=False)).resolve(FACTS)
    assert bare.label_drop == 0
    jumps = task(steps=8, jump=True).resolve(FACTS)
    assert (jumps.model.sampler, jumps.model.steps) == (Consistency(), "trailing:1")
    assert jumps.resolve(FACTS) == jumps


def test_what_cannot_be_distilled_is_refused() -> None:
    model = task().model
    with pytest.raises(Problem, match="teacher t predicts 'epsilon', which few steps cannot do with: train one that predicts"):
        task(model=model.replace(denoiser=model.denoiser.replace(prediction=Epsilon()))).resolve(FACTS)
    with pytest.raises(Problem, match=r"makes pictures of 1 channels and size \(8, 8\), the data has 3 and \(8, 8\)"):
        task().resolve(DataFacts(3, (8, 8), NAMES))
    with pytest.raises(Problem, match="knows other classes"):
        task().resolve(DataFacts(1, (8, 8), ("a", "b", "c")))
    with pytest.raises(Problem, match="knows other classes"):  # without names, numbers are all that there is to go by
        task(model=model.replace(names=None)).resolve(DataFacts(1, (8, 8), ("0", "5")))
    with pytest.raises(Problem, match="knows other classes"):
        task().resolve(DataFacts(1, (8, 8), None))
    with pytest.raises(Problem, match="scale is 2, and teacher t was not trained without its classes as well"):
        task(model=model.replace(droppable=False), scale=2.0).resolve(FACTS)
    with pytest.raises(Problem, match="64 of them, and the schedule has only 32"):
        task(steps=32).resolve(FACTS)


def test_validation_and_previews_are_the_students() -> None:
    made = learner()
    made.module.eval()
    assert made.validate(lambda: [batch()]).keys() == {"held_out/mse"}
    pictures = made.preview()
    assert pictures is not None and pictures.shape[1:] == (1, 8, 8)


def test_the_weights_of_two_steps_add_up_to_one() -> None:
    begin, halfway, end = stops(Cosine(), 16)
    same: Denoise = lambda x, level: Estimate(x, level, torch.ones_like(x))  # noqa: E731
    x = torch.randn(16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(two_steps(same, x, begin, halfway, end), torch.ones_like(x), rtol=1e-12, atol=1e-12)
    assert spread(begin.alpha, x).shape == (16, 1)  # type: ignore[union-attr]
