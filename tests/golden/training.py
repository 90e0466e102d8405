"""Adapters for the forward process, what a denoiser means, losses and the variational bound."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lodestar.config import decode
from lodestar.core.draws import LossSecondMoment
from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.gaussian import approximate_cdf, discretized_log_likelihood, kl
from lodestar.core.level import Level, log, spread
from lodestar.core.prediction import AnyPrediction, Epsilon, Output, Prediction, Previous
from lodestar.core.schedule import Constant, Schedule
from lodestar.core.transition import FixedVariance
from lodestar.guidance import Clamp, Context
from lodestar.objectives import Bound, Draw, Hybrid, Objective, Simple
from lodestar.objectives.bound import bits_per_dimension, reverse_logvar
from lodestar.samplers import Ancestral
from lodestar.samplers.algebra import combine

from .harness import Case, Check, Left, adapter
from .schedules import plan_of, pytorch_ddpm_schedule, schedule_of

FIXED: dict[str, FixedVariance] = {"FIXED_SMALL": "small", "FIXED_LARGE": "large", "fixedsmall": "small", "fixedlarge": "large"}


class Toy:
    """The `toy_network` of a case, and what its output means under a subcase's settings."""

    def __init__(self, case: Case, name: str) -> None:
        self.a, self.b = case.inputs[f"{name}/A"].clone(), case.inputs[f"{name}/b"]
        self.c = case.inputs.get(f"{name}/c")
        stated = re.search(r"g=([\d.]+) and tau=([\d.]+)", case.meta["toy_network"])
        assert stated, "the case states no g and tau"
        self.gain, self.tau = float(stated[1]), float(stated[2])

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Tensor:
        times = torch.as_tensor(level.time, dtype=torch.float32).expand(len(x))
        z = x.flatten(1) @ self.a.T + torch.sin(times / self.tau)[:, None] * self.b
        if label is not None:
            assert self.c is not None
            z = z + label.float()[:, None] * self.c
        return (self.gain * z.tanh()).reshape(len(x), -1, *x.shape[2:])

    def output(self, x: Tensor, level: Level, settings: dict[str, Any], label: Tensor | None = None) -> Output:
        value = self(x, level, label)
        if settings["model_var_type"] in FIXED:
            return Output(value)
        value, variance = value.chunk(2, 1)
        learned_range = settings["model_var_type"] == "LEARNED_RANGE"
        return Output(value, frac=variance) if learned_range else Output(value, logvar=variance)


def _toy(case: Case, settings: dict[str, Any]) -> Toy:
    return Toy(case, settings.get("network") or ("netC" if settings["model_var_type"] in FIXED else "net2C"))


def _prediction(settings: dict[str, Any], schedule: Schedule) -> Prediction:
    mean_type = settings["model_mean_type"]
    if mean_type == "PREVIOUS_X":
        return Previous.model_validate({"schedule": schedule})
    return decode(AnyPrediction, {"kind": {"START_X": "x0", "EPSILON": "epsilon"}[mean_type]})


def _fixed(settings: dict[str, Any]) -> FixedVariance:
    return FIXED.get(settings["model_var_type"], "small")


def _clipped(denoise: Denoise, settings: dict[str, Any]) -> Denoise:
    return Clamp()(denoise, Context(denoise)) if settings["clip_denoised"] else denoise


@adapter("gd_q")
def forward_process(case: Case) -> Iterator[Check | Left]:
    x0, noise, x = (case.inputs[name] for name in ("x_start", "noise", "x_t"))
    double = {"rtol": case.meta["tolerance"]["f64"]["rtol"]}
    for subcase, settings in case.subcases.items():
        schedule = schedule_of(settings)
        level = schedule.table[case.inputs[f"{subcase}/t"] + 1]
        step = schedule.step_down(level)
        ours = {
            "q_sample": schedule.forward(x0, level, noise),
            "q_mean": schedule.forward(x0, level, torch.zeros_like(x0)),
            "q_variance": torch.as_tensor(level.sigma**2),
            "q_log_variance": torch.as_tensor(2 * log(level.sigma)),
            "posterior_mean": step.mean(x0, x),
            "posterior_variance": torch.as_tensor(step.small),
            "posterior_log_variance_clipped": torch.as_tensor(step.logvar("small")),
            "xstart_from_eps": Epsilon().x0(noise, x, level),
            "xstart_from_xprev": _prediction({"model_mean_type": "PREVIOUS_X"}, schedule).x0(x0, x, level),
            "eps_from_xstart": Estimate(x, level, x0).eps,
        }
        # The reference rounds its coefficients to float32 even where the images are float64. So are ours, here.
        alpha, sigma, ratio, inverse = (_single(value) for value in (level.alpha, level.sigma, level.ratio, 1 / level.alpha))
        of_x0, of_x = step.coefficients()
        wide = {"x0": x0.double(), "noise": noise.double(), "x": x.double()}
        ours |= {
            "f64_q_sample": combine((alpha, wide["x0"]), (sigma, wide["noise"])),
            "f64_q_mean": combine((alpha, wide["x0"])),
            "f64_posterior_mean": combine((_single(of_x0), wide["x0"]), (_single(of_x), wide["x"])),
            "f64_xstart_from_eps": combine((inverse, wide["x"]), (-ratio, wide["noise"])),
            "f64_xstart_from_xprev": combine((_single(1 / of_x0), wide["x0"]), (-_single(of_x / of_x0), wide["x"])),
            "f64_eps_from_xstart": combine((inverse, wide["x"]), (-1.0, wide["x0"])) / spread(ratio, wide["x"]),
        }
        for name in case.under(f"{subcase}/"):
            what = name.removeprefix(f"{subcase}/")
            yield Check(name, ours[what], **(double if what.startswith("f64_") else {}))


def _single(value: float | Tensor) -> Tensor:
    return torch.as_tensor(value).float().double()


@adapter("gd_p_mean_variance")
@torch.no_grad()
def mean_and_variance(case: Case) -> Iterator[Check | Left]:
    x, label = case.inputs["x"], case.inputs.get("y")
    for subcase, own in case.subcases.items():
        settings = {**case.config, **own}
        schedule = schedule_of(settings)
        level = schedule.table[case.inputs["t"] + 1]
        step = schedule.step_down(level)
        prediction = _prediction(settings, schedule)
        raw = _toy(case, settings).output(x, level, settings, label).estimate(x, level, prediction)
        changed = replace(raw, x0=_denoised_fn(settings["denoised_fn"], raw.x0))
        estimate = _clipped(lambda x, level, changed=changed: changed, settings)(x, level)
        logvar = reverse_logvar(step, estimate, _fixed(settings))
        learned = settings["model_var_type"] not in FIXED
        ours = {
            # The reference lets nothing that is done to x̂₀ reach the mean where the network says the mean itself.
            "mean": step.mean(raw.x0 if settings["model_mean_type"] == "PREVIOUS_X" else estimate.x0, x),
            "variance": logvar.exp() if learned else torch.as_tensor(spread(step.var(_fixed(settings)), x)),
            "log_variance": logvar,
            "pred_xstart": estimate.x0,
        }
        for name in case.under(f"{subcase}/"):
            yield Check(name, ours[name.removeprefix(f"{subcase}/")])


def _denoised_fn(text: str | None, x0: Tensor) -> Tensor:
    if text is None:
        return x0
    stated = re.fullmatch(r"x -> ([-\d.]+)\*x([-+][\d.]+)", text.replace(" + ", "+").replace(" - ", "-"))
    assert stated, text
    return float(stated[1]) * x0 + float(stated[2])


@adapter("gd_losses")
def losses(case: Case) -> Iterator[Check | Left]:
    x0, noise, label = case.inputs["x_start"], case.inputs["noise"], case.inputs.get("y")
    for subcase, settings in case.subcases.items():
        schedule = schedule_of(settings)
        level = schedule.table[case.inputs[f"{subcase.partition('-')[0]}/t"] + 1]
        draw = Draw(x0, noise, level, schedule.forward(x0, level, noise))
        toy = _toy(case, settings)
        toy.a.requires_grad_()
        objective = _objective(settings)
        objective.check(learned=settings["model_var_type"] not in FIXED)
        loss = objective(draw, toy.output(draw.x, level, settings, label), _prediction(settings, schedule), schedule)
        for name in case.under(f"{subcase}/"):
            what = name.removeprefix(f"{subcase}/")
            if what == "loss":
                yield Check(name, loss.total)
            elif what == "grad_A":
                yield Check(name, torch.autograd.grad(loss.total.mean(), toy.a, retain_graph=True)[0])
            else:  # the reference's vb has its weight already
                weight = schedule.timesteps / 1000 if settings["loss_type"] == "RESCALED_MSE" and what == "vb" else 1.0
                yield Check(name, weight * loss.terms[what])


def _objective(settings: dict[str, Any]) -> Objective:
    learned, rescaled = settings["model_var_type"] not in FIXED, settings["loss_type"].startswith("RESCALED_")
    match settings["loss_type"].removeprefix("RESCALED_"):
        case "MSE":
            return Hybrid(rescaled=rescaled) if learned else Simple()
        case "KL":
            return Bound(rescaled=rescaled, fixed=_fixed(settings))
    raise AssertionError(settings["loss_type"])


@adapter("gd_bpd")
def bits(case: Case) -> Iterator[Check | Left]:
    x0 = case.inputs["x_start"]
    for subcase, settings in case.subcases.items():
        schedule = schedule_of(settings)
        steps = plan_of(str(schedule.timesteps)).steps(schedule)
        toy, prediction = _toy(case, settings), _prediction(settings, schedule)

        def denoise(x: Tensor, level: Level, toy=toy, prediction=prediction, settings=settings) -> Estimate:
            return toy.output(x, level, settings).estimate(x, level, prediction)

        def measured(denoise: Denoise, subcase=subcase, settings=settings, steps=steps):
            tape = iter(case.inputs[f"{subcase}/noise"])
            return bits_per_dimension(denoise, steps, x0, lambda x: next(tape).to(x), _fixed(settings))

        clipped = measured(_clipped(denoise, settings))
        # Where the network says the mean itself, clipping x̂₀ does not change the mean (gd_p_mean_variance's conventions).
        bound = measured(denoise) if settings["model_mean_type"] == "PREVIOUS_X" else clipped
        ours = {
            "total_bpd": bound.total,
            "prior_bpd": bound.prior,
            "vb": bound.terms,
            "xstart_mse": clipped.x0_mse,
            "mse": clipped.eps_mse,
        }
        for name in case.under(f"{subcase}/"):
            yield Check(name, ours[name.removeprefix(f"{subcase}/")])


@adapter("gd_likelihood_kl")
def likelihoods(case: Case) -> Iterator[Check | Left]:
    for name in case.outputs:
        dtype = torch.float64 if name.endswith("f64") else torch.float32
        part, what = name.removesuffix("_f64").split("/")
        given = {
            key.removeprefix(f"{part}/"): value.to(dtype) for key, value in case.inputs.items() if key.startswith(f"{part}/")
        }
        match part, what:
            case "dgll", _:
                yield Check(name, discretized_log_likelihood(given["x"], given["means"], given["log_scales"]))
            case "cdf", _:
                yield Check(name, approximate_cdf(given["z"]))
            case _, "kl_std_normal":
                mean = given["mean1"]
                yield Check(name, kl(mean, given["logvar1"], torch.zeros_like(mean), 0.0))
            case _:
                yield Check(name, kl(given["mean1"], given["logvar1"], given["mean2"], given["logvar2"]))


@adapter("gd_loss_second_moment_resampler")
def loss_second_moment(case: Case) -> Iterator[Check | Left]:
    config = case.config
    levels = LossSecondMoment(history=config["history_per_term"], uniform=config["uniform_prob"])
    schedule = Constant(timesteps=config["num_timesteps"])
    memory, weights = levels.memory(schedule), []
    for steps, values in zip(case.inputs["ts"], case.inputs["losses"], strict=True):
        levels.remember(memory, steps, values)
        weights.append(levels.weights(memory))
    yield Check("weights", torch.stack(weights))
    yield Check("final_history", memory["history"])
    yield Check("final_counts", memory["counts"])
    yield Check("p", levels.probabilities(memory))
    ours = levels.importance(levels.probabilities(memory), case.inputs["sampled_idx"])
    yield Check("importance_weights", ours, rtol=1e-6)


@adapter("pytorch_ddpm_train_sample")
def pytorch_ddpm(case: Case) -> Iterator[Check | Left]:
    assert case.config["mean_type"] == "epsilon", "the reference accepts nothing else"
    schedule, toy = pytorch_ddpm_schedule(case.config), Toy(case, "netC")
    x0, noise = case.inputs["train/x_0"], case.inputs["train/noise"]
    level = schedule.table[case.inputs["train/t"] + 1]
    draw = Draw(x0, noise, level, schedule.forward(x0, level, noise))
    yield Check("train/loss", Simple().distances(draw, Output(toy(draw.x, level)), Epsilon()))

    def denoise(x: Tensor, level: Level) -> Estimate:
        return Output(toy(x, level)).estimate(x, level, Epsilon())

    steps = plan_of(str(schedule.timesteps)).steps(schedule)
    for subcase, settings in case.subcases.items():
        tape, start = iter(case.inputs["sample/noise"]), case.inputs["sample/x_T"]
        sampler = Ancestral(variance=FIXED[settings["var_type"]])
        states = list(sampler(denoise, start, steps, lambda x, tape=tape: next(tape).to(x)))
        yield Check(f"{subcase}/trajectory", torch.stack([start, *(state.x for state in states[:-1])]))
        yield Check(f"{subcase}/x_0", states[-1].x.clamp(-1, 1))
