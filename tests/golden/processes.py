"""Adapters for processes on toy networks and exact models: sampling loops, inversion, guidance, fast samplers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.config import decode
from lodestar.core import sigmas as noise_levels
from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.exact import Mixture
from lodestar.core.level import CLEAN, Level, LevelSource, spread
from lodestar.core.likelihood import ode_log_density
from lodestar.core.plan import LogSNR, Trailing, parse_plan
from lodestar.core.prediction import EDM, X0, Epsilon
from lodestar.core.schedule import AnySchedule, Schedule
from lodestar.core.transition import Transition, transitions
from lodestar.guidance import CFG, Clamp, Classifier, Context, Guidance, Threshold, compose
from lodestar.guidance.threshold import quantile
from lodestar.samplers import (
    DDIM,
    LMS,
    PLMS,
    Ancestral,
    DPMAdaptive,
    DPMpp,
    DPMppSDE,
    DPMppSingle,
    EDMHeun,
    Euler,
    EulerAncestral,
    Heun,
    Sampler,
    State,
    UniPC,
    last,
)
from lodestar.samplers.algebra import Variable, combine, refresh, stride

from .harness import Case, Check, Left, adapter
from .schedules import edm_betas, edm_levels

OTHER = "not a setting that our samplers have"

Network = Callable[..., Tensor]


# ---------------------------------------------------------------------------------------------------- toys and tapes


def _toy(case: Case, name: str, gain: float | None = None, tau: float | None = None) -> Network:
    """f(x, time, label) of the case's `toy_network`, in float32."""
    a, b, c = case.inputs[f"{name}/A"], case.inputs[f"{name}/b"], case.inputs.get(f"{name}/c")
    stated = re.search(r"g=([\d.]+) and tau=([\d.]+)", case.meta.get("toy_network", ""))
    gain = gain or (float(stated[1]) if stated else 4.0)
    tau = tau or (float(stated[2]) if stated else 100.0)

    def network(x: Tensor, time: float | Tensor, label: Tensor | None = None) -> Tensor:
        times = torch.as_tensor(time, dtype=torch.float32).expand(len(x))
        z = x.float().flatten(1) @ a.T + torch.sin(times / tau)[:, None] * b
        if label is not None:
            assert c is not None
            z = z + label.float()[:, None] * c
        return (gain * z.tanh()).reshape(len(x), -1, *x.shape[2:])

    return network


def _classifier(case: Case, label: Tensor) -> Callable[[Tensor, Level], Tensor]:
    """log p(label | x) of the case's `toy_classifier`."""
    stated = re.search(r"sin\(t/([\d.]+)\)", case.meta["toy_classifier"])
    tau = float(stated[1]) if stated else 100.0

    def logp(x: Tensor, level: Level) -> Tensor:
        time = torch.as_tensor(level.time, dtype=torch.float32)
        logits = x.float().flatten(1) @ case.inputs["clf/W"].T + torch.sin(time / tau) * case.inputs["clf/u"]
        return logits.log_softmax(1).gather(1, label[:, None])[:, 0]

    return logp


def _epsilon(network: Network, *args: Tensor) -> Denoise:
    """A denoiser of a network that predicts ε, in coordinates x = α·x₀ + σ·ε with α² + σ² = 1."""

    def denoise(x: Tensor, level: Level) -> Estimate:
        return Estimate(x, level, Epsilon().x0(network(x, level.time, *args).to(x), x, level))

    return denoise


def _tape(noise: Tensor) -> Callable[[Tensor], Tensor]:
    """Recorded draws, one after the other."""
    draws = iter(noise)
    return lambda x: next(draws).to(x)


def _guided(denoise: Denoise, *guidances: Guidance, **context: Any) -> Denoise:
    return compose(guidances, Context(denoise, **context))


def _xs(states: Sequence[State]) -> Tensor:
    return torch.stack([state.x for state in states])


def _x0s(states: Sequence[State]) -> Tensor:
    return torch.stack([state.estimate.x0 for state in states])


# ------------------------------------------------------------------------------------------ the guided-diffusion family


def _schedule(settings: dict[str, Any]) -> Schedule:
    return decode(
        AnySchedule,
        {
            "kind": settings["noise_schedule"],
            "timesteps": settings["diffusion_steps"],
            "rescale_time": settings.get("rescale_timesteps", False),
        },
    )


def _steps(settings: dict[str, Any]) -> list[Transition]:
    return parse_plan(settings["timestep_respacing"] or settings["diffusion_steps"]).steps(_schedule(settings))


def _times(steps: Sequence[Transition], scale: float = 1.0) -> Tensor:
    """The kept steps of the chain, ascending; `scale` is the network's time per step."""
    return torch.tensor([round(float(step.t.time) / scale) for step in reversed(steps)])


def _denoiser(network: Network, settings: dict[str, Any], steps: Sequence[Transition], *args: Tensor) -> Denoise:
    """A network of any mean type and variance type."""
    step_from = {step.t.time: step for step in steps}

    def denoise(x: Tensor, level: Level) -> Estimate:
        output, values = network(x, level.time, *args).to(x), None
        if output.shape[1] == 2 * x.shape[1]:
            output, values = output.chunk(2, 1)
        match settings["model_mean_type"]:
            case "EPSILON":
                x0 = Epsilon().x0(output, x, level)
            case "START_X":
                x0 = X0().x0(output, x, level)
            case "PREVIOUS_X":  # the mean of the respaced chain's step
                of_x0, of_x = step_from[level.time].coefficients()
                x0 = (output - of_x * x) / of_x0
            case other:
                raise NotImplementedError(other)
        frac = values if settings["model_var_type"] == "LEARNED_RANGE" else None
        logvar = values if settings["model_var_type"] == "LEARNED" else None
        return Estimate(x, level, x0, frac, logvar)

    return denoise


_VARIANCE: dict[str, Literal["small", "large", "learned"]] = {
    "FIXED_SMALL": "small",
    "FIXED_LARGE": "large",
    "LEARNED": "learned",
    "LEARNED_RANGE": "learned",
}


@adapter("gd_p_sample_loop", "gd_ddim_sample_loop")
def sample_loop(case: Case) -> Iterator[Check | Left]:
    # In float64: the reference's own rounding is then the only one.
    noise, label = case.inputs["noise"].double(), case.inputs["y"]
    for name, settings in case.subcases.items():
        steps = _steps(settings)
        denoise = _denoiser(_toy(case, settings["network"]), settings, steps, label)
        # A network that predicts the previous mean has it used as it is: clipping concerns the reported x0 alone.
        previous = settings["model_mean_type"] == "PREVIOUS_X"
        guidances: list[Guidance] = []
        if settings["clip_denoised"] and not previous:
            guidances.append(Clamp())
        if settings["cond_fn"]:
            guidances.append(Classifier(scale=float(case.config["classifier_scale"])))
        denoise = _guided(denoise, *guidances, critics={("classifier", "noisy"): _classifier(case, label)})
        sampler: Sampler = Ancestral(variance=_VARIANCE[settings["model_var_type"]])
        if "eta" in settings:
            sampler = DDIM(eta=settings["eta"])
        states = list(sampler(denoise, noise[0], steps, _tape(noise[1:])))
        x0 = _x0s(states)
        yield Check(f"{name}/sample", _xs(states))
        yield Check(
            f"{name}/pred_xstart",
            x0.clamp(-1, 1) if previous and settings["clip_denoised"] else x0,
            # The tolerance that the JSON states in words: 1/of_x0 magnifies rounding.
            rtol=5e-3 if previous and settings["cond_fn"] else None,
        )
    yield Check("timestep_map", _times(steps, _schedule(settings).time_scale))


@adapter("gd_ddim_inversion")
def inversion(case: Case) -> Iterator[Check | Left]:
    x_start = case.inputs["x_start"]
    for name, settings in case.subcases.items():
        steps = _steps(settings)
        denoise = _denoiser(_toy(case, settings["network"]), settings, steps)
        if settings["clip_denoised"]:
            denoise = _guided(denoise, Clamp())
        # The picture counts as if it were at the cleanest noisy level; the last level is pure noise.
        rising = [step.t for step in reversed(steps)]
        rising.append(Level(rising[-1].time + 1, 0.0, 1.0))
        states = list(DDIM()(denoise, x_start, transitions(rising), torch.randn_like))
        every = re.search(r"every (\d+)th", case.description(f"out/{name}/reverse"))
        yield Check(f"{name}/reverse", _xs(states)[:: int(every[1]) if every else 1])
        for end, state in {"full": states[-1], "Tm1": states[-2]}.items():
            back = last(DDIM()(denoise, state.x, steps, torch.randn_like))
            yield Check(f"{name}/latent_{end}", state.x)
            yield Check(f"{name}/roundtrip_{end}", back)
            yield Check(f"{name}/roundtrip_{end}_maxerr", (back - x_start).abs().max())


# ------------------------------------------------------------------------------------------- classifier-free guidance


@adapter("cfg_glide")
def glide(case: Case) -> Iterator[Check | Left]:
    config = case.config
    base = {"noise_schedule": config["base_schedule"], "diffusion_steps": config["T"], "timestep_respacing": config["base"]}
    steps = _steps(base)
    noise = case.inputs["noise"]
    for name in case.outputs:
        subcase, _, what = name.rpartition("/")
        settings = case.subcases.get(subcase, {})
        if subcase == "up":
            continue
        if what == "timestep_map":
            yield Check(name, _times(steps))
            continue
        of_scale = re.search(r"scale([\d.]+)$", subcase)
        scale = float(of_scale[1]) if of_scale else settings["guidance_scale"]
        sampler = DDIM() if settings.get("loop") == "ddim" else Ancestral()
        known = (case.inputs["inpaint/image"], case.inputs["inpaint/mask"]) if subcase == "inpaint" else None
        denoise = _doubled(case, scale, known)
        states = list(sampler(denoise, noise[0], steps, _tape(noise[1:])))
        match what:
            case "sample":
                yield Check(name, _xs(states))
            case "pred_xstart":
                yield Check(name, _x0s(states))
            case "final":
                yield Check(name, states[-1].x.chunk(2)[0])
    yield from _upsampling(case)


def _doubled(case: Case, scale: float, known: tuple[Tensor, Tensor] | None) -> Denoise:
    """GLIDE's batch of two halves: the same guided ε for both, made from the first; a variance of its own for each."""
    network, label = _toy(case, "net6"), case.inputs["y"]

    def both(x: Tensor, level: Level) -> tuple[Estimate, Estimate]:
        wide = torch.cat([x, x])
        eps, frac = network(wide, level.time, label).chunk(2, 1)
        x0 = Epsilon().x0(eps, wide, level)
        cond, null = zip(x0.chunk(2), frac.chunk(2), strict=True)
        return Estimate(x, level, *cond), Estimate(x, level, *null)

    guided = _guided(lambda x, level: both(x, level)[0], CFG(scale=scale), pair=both)

    def denoise(x: Tensor, level: Level) -> Estimate:
        half = x.chunk(2)[0]
        one = guided(half, level)
        frac = torch.cat([estimate.frac for estimate in both(half, level) if estimate.frac is not None])
        x0 = Epsilon().x0(torch.cat([one.eps, one.eps]), x, level)
        if known is not None:
            image, mask = known
            x0 = x0 * (1 - mask) + image * mask
        return Estimate(x, level, x0, frac)

    return _guided(denoise, *_clip(case))


def _clip(case: Case) -> list[Guidance]:
    return [Clamp()] if case.config.get("clip_denoised", True) else []


def _upsampling(case: Case) -> Iterator[Check | Left]:
    settings = {"diffusion_steps": case.config["T"], **case.subcases["up"]}
    steps = _steps(settings)
    network = _toy(case, "up")
    low_res = ((case.inputs["up/samples64"] + 1) * 127.5).round() / 127.5 - 1

    def denoise(x: Tensor, level: Level) -> Estimate:
        eps = network(torch.cat([x, low_res], 1), level.time).chunk(2, 1)[0]
        return Estimate(x, level, Epsilon().x0(eps, x, level))

    start = case.inputs["up/noise"] * settings["upsample_temp"]
    states = list(DDIM(eta=settings["eta"])(_guided(denoise, *_clip(case)), start, steps, torch.randn_like))
    yield Check("up/low_res", low_res)
    yield Check("up/timestep_map", _times(steps))
    yield Check("up/sample", _xs(states))
    # Of the same sample: one that is a rounding error away could fall to either side.
    yield Check("up/uint8_trunc", pixels.decode(case.outputs["up/sample"][-1]))
    yield Left("up/uint8_round", "pictures are truncated here, as in guided-diffusion; GLIDE rounds")


@adapter("cfg_identities")
def identities(case: Case) -> Iterator[Check | Left]:
    config = case.config
    x, label, abar = case.inputs["x_t"], case.inputs["y"], case.inputs["abar"]
    level = Level(case.inputs["t"].double(), abar.sqrt(), (1 - abar).sqrt())
    model = _mixture(config)
    cond = model.given(label)
    critic = lambda x, level: model.log_posterior(x, level, label)  # noqa: E731

    def cfg(scale: float) -> Estimate:
        return _guided(cond, CFG(scale=scale), pair=lambda x, level: (cond(x, level), model(x, level)))(x, level)

    def classifier(scale: float) -> Estimate:
        return _guided(model, Classifier(scale=scale, form="score"), critics={("classifier", "noisy"): critic})(x, level)

    for name in case.outputs:
        match name.split("_"):
            case ["eps", "u"]:
                yield Check(name, model(x, level).eps)
            case ["eps", "c"]:
                yield Check(name, cond(x, level).eps)
            case ["grad", *_]:
                shift = _guided(model, Classifier(scale=1.0), critics={("classifier", "noisy"): critic})(x, level).shift
                assert shift is not None
                yield Check(name, shift)
            case ["log", *_]:
                yield Check(name, critic(x, level))
            case ["guided", scale]:
                yield Check(name, cfg(float(scale.removeprefix("s"))).eps)
            case _:  # classifier guidance in float32, at the scale that the description of ε names
                scale_of = re.search(r"scale ([\d.]+)", case.description("out/reference_condition_score_eps"))
                assert scale_of
                ours = classifier(float(scale_of[1]))
                yield Check(name, ours.eps if name.endswith("eps") else ours.x0, rtol=1e-5)


def _mixture(config: dict[str, Any]) -> Mixture:
    labels = torch.tensor(config["component_class"]) if "component_class" in config else None
    weights, means, stds = (torch.tensor(config[name], dtype=torch.float64) for name in ("weights", "means", "stds"))
    return Mixture(weights, means, stds**2, labels)


@adapter("cfg_rescale_threshold")
def rescale_and_threshold(case: Case) -> Iterator[Check | Left]:
    scale = case.config["guidance_scale"]
    null, cond = case.inputs["rescale/noise_uncond"], case.inputs["rescale/noise_text"]
    level = Level(0.0, 0.6, 0.8)
    pair = tuple(Estimate(cond, level, Epsilon().x0(eps, cond, level)) for eps in (cond, null))
    for name in case.outputs:
        match re.split(r"[/_]", name):
            case ["rescale", *_]:
                phi = re.search(r"phi_([\d.]+)", name)
                cfg = CFG(scale=scale, rescale=float(phi[1]) if phi else 0.0)
                yield Check(name, _guided(_of(pair[0]), cfg, pair=_of(pair))(cond, level).eps)
            case ["threshold", *_] if name.removesuffix("_quantile") in case.subcases:
                x0 = case.inputs["threshold/x0"]
                rule = _threshold(case.subcases[name.removesuffix("_quantile")])
                if name.endswith("_quantile"):
                    yield Check(name, quantile(x0.abs(), rule.ratio))
                else:
                    yield Check(name, _guided(lambda x, level: Estimate(x, level, x), rule)(x0, level).x0)
            case ["loop", "timesteps"]:
                yield Check(name, _times(_loop_steps(case)).flip(0))
            case ["loop", "sample"]:
                yield Check(name, _thresholded_loop(case, scale), **case.meta["tolerance"]["loop"])
            case _:
                yield Left(name, "unknown to this adapter")


def _of(value: Any) -> Callable[[Tensor, Level], Any]:
    """The function of (x, level) that is always `value`."""
    return lambda *_: value


def _threshold(settings: dict[str, Any]) -> Threshold:
    return Threshold(ratio=settings["dynamic_thresholding_ratio"], maximum=settings["sample_max_value"])


def _loop_steps(case: Case) -> list[Transition]:
    settings = case.subcases["loop"]
    schedule = decode(AnySchedule, {"kind": settings["beta_schedule"]})
    plan = parse_plan(f"{settings['timestep_spacing']}:{settings['num_inference_steps']}")
    return plan.steps(schedule)


def _thresholded_loop(case: Case, scale: float) -> Tensor:
    settings, network, label = case.subcases["loop"], _toy(case, "net"), case.inputs["loop/y"]
    cond, null = _epsilon(network, label), _epsilon(network, torch.zeros_like(label))
    guidances = [CFG(scale=scale), _threshold(settings)]
    denoise = _guided(cond, *guidances, pair=lambda x, level: (cond(x, level), null(x, level)))
    sampler = Ancestral(variance=_VARIANCE[settings["variance_type"].upper()])
    return _xs(list(sampler(denoise, case.inputs["loop/x_T"], _loop_steps(case), _tape(case.inputs["loop/noise"]))))


# ------------------------------------------------------------------------------------------------------- fast samplers


class Given(Schedule):
    """A chain whose ᾱ are recorded."""

    kind: Literal["given"] = "given"
    alpha_bars: tuple[float, ...]

    @classmethod
    def of(cls, alpha_bars: Tensor) -> Given:
        return cls(alpha_bars=tuple(alpha_bars.double().tolist()), timesteps=len(alpha_bars))

    def raw_betas(self) -> Tensor:
        alpha_bars = torch.tensor([1.0, *self.alpha_bars], dtype=torch.float64)
        return 1 - alpha_bars[1:] / alpha_bars[:-1]

    @cached_property
    def ratios(self) -> list[float]:
        """σ/α of the noisy levels, ascending."""
        alpha_bars = torch.tensor(self.alpha_bars, dtype=torch.float64)
        return ((1 - alpha_bars) / alpha_bars).sqrt().tolist()


def _unit(time: float, ratio: float) -> Level:
    """The level of this σ/α with α² + σ² = 1."""
    alpha = (1 + ratio**2) ** -0.5
    return Level(time, alpha, ratio * alpha)


class Unclamped:
    """Levels of any σ/α, of which the network is told the nearest time of the schedule: k-diffusion's and diffusers'."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def at(self, time: float) -> Level:
        return self.schedule.at(time)

    def at_ratio(self, ratio: float) -> Level:
        return _unit(float(self.schedule.at_ratio(ratio).time), ratio)


class Grid:
    """The times and the σ/α that a scheduler of diffusers visits with `count` steps; `final` is the σ/α where it ends."""

    def __init__(self, schedule: Given, settings: dict[str, Any], count: int) -> None:
        self.schedule, self.settings, self.count = schedule, settings, count
        deis = settings["scheduler"].startswith("DEIS")
        multistep = deis or settings["scheduler"].startswith(("DPMSolver", "UniPC"))
        self.final = schedule.ratios[0] if deis or settings.get("final_sigmas_type") == "sigma_min" else 0.0
        self.times = self._multistep_times() if multistep else self._times()
        self.ratios = self._interpolated(self.times)
        high, low = (schedule.ratios[-1], schedule.ratios[0]) if multistep else (self.ratios[0], self.ratios[-1])
        if settings.get("use_karras_sigmas"):
            self.ratios = noise_levels.karras(count, low, high)
        elif settings.get("use_lu_lambdas"):
            self.ratios = [float(level.ratio) for level in LogSNR(count=count).noisy(schedule)]
        else:
            return
        self.times = [float(schedule.at_ratio(ratio).time) for ratio in self.ratios]
        if multistep:
            whole = int if settings["beta_schedule"] == "squaredcos_cap_v2" else round
            self.times = [float(whole(time)) for time in self.times]

    @property
    def levels(self) -> list[Level]:
        levels = [_unit(time, ratio) for time, ratio in zip(self.times, self.ratios, strict=True)]
        return [*levels, _unit(0.0, self.final) if self.final else CLEAN]

    def _times(self) -> list[float]:
        """Of the schedulers that take `count` times; those of the ones that work in x/α may be fractional."""
        timesteps, offset = self.schedule.timesteps, self.settings.get("steps_offset", 0)
        default = "leading" if self.settings["scheduler"].startswith(("DDIM", "DDPM", "PNDM")) else "linspace"
        match self.settings.get("timestep_spacing", default):
            case "leading":
                return [float(k * (timesteps // self.count) + offset) for k in reversed(range(self.count))]
            case "trailing":
                return [float(index) for index in reversed(Trailing(count=self.count).indices(timesteps))]
            case _:
                times = torch.linspace(timesteps - 1, 0, self.count, dtype=torch.float64)
                return (times.round() if default == "leading" else times).tolist()

    def _multistep_times(self) -> list[float]:
        """Of the exponential integrators, which count one time more than they take, the cleanest."""
        clipped = self.settings.get("lambda_min_clipped", -math.inf)
        end = sum(-math.log(ratio) >= clipped for ratio in self.schedule.ratios)
        match self.settings.get("timestep_spacing", "linspace"):
            case "leading":
                stride = end // (self.count + 1)
                return [float(k * stride + self.settings.get("steps_offset", 0)) for k in range(self.count, 0, -1)]
            case "trailing":
                return self._times()
            case _:
                return torch.linspace(end - 1, 0, self.count + 1, dtype=torch.float64).round().tolist()[:-1]

    def _interpolated(self, times: list[float]) -> list[float]:
        """σ/α, linear in time between the chain's."""
        ratios, found = self.schedule.ratios, []
        for time in times:
            below = min(int(time), len(ratios) - 2)
            found.append(ratios[below] + (time - below) * (ratios[below + 1] - ratios[below]))
        return found


def _ddim_levels(schedule: Given, settings: dict[str, Any], count: int) -> list[Transition]:
    """The steps of DDIM and PNDM, which go T // count down from each time, or of DDIMInverseScheduler, which arrive at it."""
    stride = schedule.timesteps // count
    inverse = settings["scheduler"] == "DDIMInverseScheduler"
    times = Grid(schedule, settings, count).times
    # At clean data there is no ε̂ to follow; so little noise stands in for none that no digit of float64 is lost.
    to_one = settings.get("set_alpha_to_one", settings["scheduler"].startswith("DDIM"))
    clean = Level(0.0, 1.0, 1e-6 if inverse else 0.0) if to_one else schedule.table[1]

    def at(time: float) -> Level:
        return schedule.table[int(time) + 1] if time >= 0 else clean

    if not inverse:
        return [Transition(at(time), at(time - stride), schedule=schedule) for time in times]
    below = [(at(min(time - stride, schedule.timesteps - 1)), at(time)) for time in reversed(times)]
    return [Transition(Level(s.time, t.alpha, t.sigma), s) for t, s in below]


@adapter("fast_diffusers_deterministic", "fast_diffusers_stochastic")
def diffusers(case: Case) -> Iterator[Check | Left]:
    unit = case.inputs["x_T"].double()
    for name, settings in case.subcases.items():
        if settings["scheduler"] == "UnCLIPScheduler":
            yield from _unclip(case, name, settings, unit)
            continue
        schedule, learned = _recorded_schedule(case, settings), settings.get("variance_type") == "learned_range"
        network = _toy(case, next(one for one in ("net", "net2C" if learned else "netC") if f"{one}/A" in case.inputs))
        kinds = {"model_mean_type": "EPSILON", "model_var_type": "LEARNED_RANGE" if learned else "FIXED_SMALL"}
        runs = {one.rpartition("/")[0] for one in case.under(f"{name}/")}
        for run in sorted(runs):
            tape = _tape(case.inputs[f"{run}/noise"]) if f"{run}/noise" in case.inputs else torch.randn_like
            denoise = _denoiser(network, kinds, ())
            outputs = _diffusers_run(settings, schedule, denoise, unit, int(run.rpartition("/n")[2]), tape)
            for one in case.under(f"{run}/"):
                ours = outputs.get(one.rpartition("/")[2])
                yield Left(one, OTHER) if ours is None else Check(one, ours)


def _unclip(case: Case, name: str, settings: dict[str, Any], unit: Tensor) -> Iterator[Check | Left]:
    """UnCLIPScheduler: ancestral sampling by a network that predicts x₀."""
    schedule = Given.of(case.inputs["alphas_cumprod/cosine"])
    steps = parse_plan(f"linspace:{settings['num_inference_steps']},whole=true").steps(schedule)
    kinds = {"model_mean_type": {"sample": "START_X", "epsilon": "EPSILON"}[settings["prediction_type"]]}
    denoise = _denoiser(_toy(case, "netC"), {**kinds, "model_var_type": "FIXED_SMALL"}, ())
    denoise = _guided(denoise, Clamp(limit=settings["clip_sample_range"]))
    states = list(Ancestral(variance="small")(denoise, unit, steps, _tape(case.inputs[f"{name}/noise"])))
    xs = _xs(states)
    # At time 0 the factor of x̂₀ is β/(1 − ᾱ), which is 1, but for the rounding of 1 − ᾱ to float32.
    alpha_bar = case.inputs["alphas_cumprod/cosine"][0]
    beta = decode(AnySchedule, {"kind": "squaredcos_cap_v2", "timesteps": schedule.timesteps}).betas()[0].float()
    xs[-1] *= (beta / (1 - alpha_bar)).double()
    yield Check(f"{name}/timesteps", _times(steps).flip(0))
    yield Check(f"{name}/sample", xs)


def _recorded_schedule(case: Case, settings: dict[str, Any]) -> Given:
    """The float32 table of the case where it holds this schedule, else ours."""
    kind, start, end = (settings[name] for name in ("beta_schedule", "beta_start", "beta_end"))
    if kind == "squaredcos_cap_v2":
        return Given.of(case.inputs["alphas_cumprod/cosine"])
    if (kind, start, end) == tuple(case.config[f"default_{name}"] for name in ("beta_schedule", "beta_start", "beta_end")):
        return Given.of(case.inputs["alphas_cumprod/base"])
    unscaled = {"scaled": False} if kind == "linear" else {}
    timesteps = case.config["num_train_timesteps"]
    ours: Schedule = decode(AnySchedule, {"kind": kind, "timesteps": timesteps, "beta_start": start, "beta_end": end, **unscaled})
    return Given.of((1 - ours.betas()).cumprod(0))


def _diffusers_sampler(settings: dict[str, Any], count: int, clean: bool) -> Sampler | None:
    """Our sampler for one of diffusers', in so many steps, to clean data or not; None where there is none."""
    given, order = settings.get("step_kwargs", {}), settings.get("solver_order", 2)
    # Its last step is of first order, wherever that ends.
    fall, falls = (2 if clean else 1), settings.get("lower_order_final", True)
    few = fall if falls and count < 15 else 4
    algorithm = settings.get("algorithm_type", "dpmsolver++")
    match settings["scheduler"]:
        case "DDPMScheduler":
            variance = settings.get("variance_type", "fixed_small").removeprefix("fixed_").removesuffix("_log")
            return Ancestral(variance="learned" if variance == "learned_range" else variance)
        case "DDIMScheduler" | "DDIMInverseScheduler":
            return DDIM(eta=given.get("eta", 0.0), clipped=given.get("use_clipped_model_output", False))
        case "PNDMScheduler":
            return PLMS(warmup="heun" if settings.get("skip_prk_steps") else "runge_kutta")
        case "EulerDiscreteScheduler" if given.get("s_churn"):
            return _churned("euler", given["s_churn"], given.get("s_tmin"), given.get("s_tmax"), given.get("s_noise"))
        case "EulerDiscreteScheduler":
            return Euler()
        case "EulerAncestralDiscreteScheduler":
            return EulerAncestral()
        case "HeunDiscreteScheduler":
            return Heun()
        case "LMSDiscreteScheduler":
            return LMS(order=given.get("order", 4))
        case "DEISMultistepScheduler":
            return LMS(order=order, variable="log", taper=few)
        case "UniPCMultistepScheduler":
            disabled = settings.get("disable_corrector", [])
            if disabled != list(range(len(disabled))):
                return None
            return UniPC(
                order=order,
                solver=settings.get("solver_type", "bh2"),
                target="x0" if settings.get("predict_x0", True) else "epsilon",
                taper=fall if falls else 4,
                uncorrected=len(disabled),
            )
        case "DPMSolverMultistepScheduler" if algorithm in ("dpmsolver", "dpmsolver++", "sde-dpmsolver++"):
            if settings.get("euler_at_final") and order > 2:
                return None
            return DPMpp(
                eta=float(algorithm.startswith("sde")),
                solver=settings.get("solver_type", "midpoint"),
                order=order,
                target="epsilon" if algorithm == "dpmsolver" else "x0",
                taper=fall if settings.get("euler_at_final") else few,
            )
    return None


def _diffusers_run(
    settings: dict[str, Any],
    schedule: Given,
    denoise: Denoise,
    unit: Tensor,
    count: int,
    noise: Callable[[Tensor], Tensor] = torch.randn_like,
) -> dict[str, Any]:
    """Everything recorded of one run, by its name; what our samplers do not do is absent."""
    scheduler, grid = settings["scheduler"], Grid(schedule, settings, count)
    if scheduler in ("DDIMScheduler", "DDIMInverseScheduler", "PNDMScheduler"):
        steps = _ddim_levels(schedule, settings, count)
    elif scheduler == "DDPMScheduler":
        steps = transitions([*(schedule.table[int(time) + 1] for time in grid.times), CLEAN])
    else:
        steps = transitions(grid.levels, Unclamped(schedule))
    clips = scheduler in ("DDPMScheduler", "DDIMScheduler", "DDIMInverseScheduler")
    if settings.get("thresholding"):
        denoise = _guided(denoise, _threshold(settings))
    elif clips and settings.get("clip_sample", True):
        denoise = _guided(denoise, Clamp(limit=settings.get("clip_sample_range", 1.0)))
    # These work in x/α, and begin a little noisier where the spacing does not reach the noisiest level.
    scales = scheduler.startswith(("Euler", "Heun", "LMS"))
    start = (grid.ratios[0] ** 2 + 1) ** 0.5 if settings.get("timestep_spacing") == "leading" else grid.ratios[0]
    x = unit * start * float(steps[0].t.alpha) if scales else unit
    sampler = _diffusers_sampler(settings, count, steps[-1].s.sigma == 0)
    if isinstance(sampler, EDMHeun):
        denoise, noise = _asked_before_churn(denoise, noise, steps)
    seen: list[tuple[Tensor, Level]] = []

    def watched(x: Tensor, level: Level) -> Estimate:
        estimate = denoise(x, level)
        seen.append((x / level.alpha if scales else x, level))
        return estimate

    if scheduler == "DPMSolverSinglestepScheduler":
        final = _singlestep(settings, watched, x, steps, count)
    elif sampler is not None:
        states = list(sampler(watched, x, steps, noise))
        final = states[-1].x
    else:
        return {}
    samples = [*(x for x, _ in seen[1:]), final]
    if isinstance(sampler, EDMHeun):
        samples = [state.x / step.s.alpha for state, step in zip(states, steps, strict=True)]
        seen = [(x, step.t) for step in steps]
    return {
        "timesteps": torch.tensor([float(level.time) for _, level in seen]),
        "sigmas": torch.tensor([*(float(level.ratio) for _, level in seen), grid.final]),
        "init_noise_sigma": torch.tensor(start),
        "sample": torch.stack(samples),
    }


def _singlestep(settings: dict[str, Any], denoise: Denoise, x: Tensor, steps: Sequence[Transition], count: int) -> Tensor:
    """DPMSolverSinglestepScheduler: one step of the solver after the other, of the orders that the case lists."""
    orders = settings.get(f"order_list_n{count}") or _order_list(settings.get("solver_order", 2), count)
    target = "epsilon" if settings.get("algorithm_type") == "dpmsolver" else "x0"
    for place, order in enumerate(orders):
        if place + 1 == len(orders) or orders[place + 1] <= order:
            sampler = DPMppSingle(order=max(order, 2), solver=settings.get("solver_type", "midpoint"), target=target)
            x = last(sampler(denoise, x, steps[place + 1 - order : place + 1], torch.randn_like))
    return x


def _order_list(order: int, count: int) -> list[int]:
    """Whole blocks of 1 … order, then what is left, then the first order for the step to clean data."""
    return [*(place % order + 1 for place in range(count - 1)), 1]


def _asked_before_churn(
    denoise: Denoise, noise: Callable[[Tensor], Tensor], steps: Sequence[Transition]
) -> tuple[Denoise, Callable[[Tensor], Tensor]]:
    """diffusers asks the network before it raises the noise, algorithm 2 after it: so ε̂ is the one of the x below."""
    below: list[Tensor] = []
    levels = (step.t for step in steps)

    def watched(x: Tensor) -> Tensor:
        below.append(x)
        return noise(x)

    def asked(x: Tensor, level: Level) -> Estimate:
        before = next(levels)
        eps = denoise(below.pop() if below else x, before).eps
        return Estimate(x, level, (x - level.sigma * eps) / level.alpha)

    return asked, watched


def _churned(
    solver: Literal["heun", "euler"], churn: float, low: float | None, high: float | None, spread: float | None
) -> EDMHeun:
    """The fields of EDM's churn under their published defaults."""
    return EDMHeun(churn=churn, low=low or 0.0, high=min(float(high or math.inf), 1e9), spread=spread or 1.0, solver=solver)


def _k_sampler(settings: dict[str, Any]) -> Sampler | None:
    """Our sampler for one of k-diffusion's; None where there is none."""
    eta = settings.get("eta", 1.0)
    match settings.get("sampler", "").removeprefix("sample_"):
        case ("euler" | "heun") as solver if settings.get("s_churn"):
            return _churned(solver, *(settings.get(name) for name in ("s_churn", "s_tmin", "s_tmax", "s_noise")))
        case "euler":
            return Euler()
        case "heun":
            return Heun()
        case "lms":
            return LMS(order=settings.get("order", 4))
        case "dpm_2":
            return DPMppSingle(target="epsilon")
        case "dpm_2_ancestral":
            return DPMppSingle(target="epsilon", eta=eta)
        case "euler_ancestral":
            return EulerAncestral(eta=eta)
        case "dpm_adaptive" if not settings.get("eta"):
            return DPMAdaptive(**{name: value for name, value in settings.items() if name in DPMAdaptive.model_fields})
        case "dpm_fast" if not settings.get("eta"):
            return DPMppSingle(order=3, target="epsilon", solver="stages", fast=True)
        case "dpmpp_2s_ancestral":
            return DPMppSingle(eta=eta)
        case "dpmpp_sde":
            return DPMppSDE(eta=eta)
        case "dpmpp_2m":
            return DPMpp()
        case "dpmpp_2m_sde":
            return DPMpp(eta=eta, solver=settings.get("solver_type", "midpoint"))
        case "dpmpp_3m_sde":
            return DPMpp(order=3, eta=eta, solver="heun", taper=4)
    return None


def _with_stages(sampler: Sampler, levels: Sequence[Level], of: LevelSource) -> list[Level]:
    """The levels, and for samplers of two stages the one between, half-way in log σ/α to where the ODE's part goes."""
    if not isinstance(sampler, DPMppSingle | DPMppSDE):
        return list(levels)
    path = [levels[0]]
    for t, s in pairwise(levels):
        goal = float(s.ratio)
        if isinstance(sampler, DPMppSingle) and goal > 0:
            goal *= refresh(Transition(t, s), sampler.eta)[1] / float(s.sigma)
        path += [of.at_ratio((float(t.ratio) * goal) ** 0.5), s] if goal > 0 else [s]
    return path


def _fast_ratios(settings: dict[str, Any]) -> list[float]:
    """DPM-Solver-fast's σ/α: steps even in λ, each cut into as many parts as its order."""
    high, low, (whole, left) = settings["sigma_max"], settings["sigma_min"], divmod(settings["n"], 3)
    orders = [3] * (whole - 1) + [2, 1] if left == 0 else [3] * whole + [left]
    places = [k + part / order for k, order in enumerate(orders) for part in range(order)]
    return [high * (low / high) ** (place / len(orders)) for place in [*places, len(orders)]]


@adapter("fast_k_diffusion")
def k_diffusion(case: Case) -> Iterator[Check | Left]:
    levels_of = Unclamped(Given.of(case.inputs["alphas_cumprod"]))
    denoise = _epsilon(_toy(case, "net"))
    for name, settings in case.subcases.items():
        sampler = _k_sampler(settings)
        if settings.get("function") == "log_likelihood":
            within = re.search(r"([\d.e-]+) relative", case.description(f"out/{name}/log_likelihood"))
            rtol = float(within[1]) if within else 1e-3
            yield Check(f"{name}/log_likelihood", _log_likelihood(case, name, settings, denoise, levels_of), rtol=rtol)
            continue
        if sampler is None:
            yield from (Left(one, OTHER) for one in case.under(f"{name}/"))
            continue
        if "sigmas" in settings:
            ratios = case.inputs[settings["sigmas"].removeprefix("in/")].double().tolist()
        else:
            ratios = [settings["sigma_max"], settings["sigma_min"]] if sampler.adaptive else _fast_ratios(settings)
        levels = [levels_of.at_ratio(ratio) if ratio else CLEAN for ratio in ratios]
        # k-diffusion's x is ours over α.
        start = case.inputs["noise"].double() * ratios[0]
        tape = torch.randn_like
        if sampler.stochastic:
            tape = _tape(_drawn(sampler, case.inputs[f"{name}/noise"], ratios))
        path = _with_stages(sampler, levels, levels_of) if "sigmas" in settings else levels
        states = list(sampler(denoise, start * levels[0].alpha, transitions(path, levels_of), tape))
        if "sigmas" not in settings:
            yield Check(f"{name}/final", states[-1].x / levels[-1].alpha)
            continue
        # A step of theirs begins where one of ours does, raised by the churn if there is one.
        begun = states if len(path) == len(levels) else states[::2]
        xs = [state.estimate.x / state.estimate.level.alpha for state in begun]
        yield Check(f"{name}/x", torch.stack([*xs, states[-1].x]))
        yield Check(f"{name}/denoised", _x0s(begun))


def _log_likelihood(case: Case, name: str, settings: dict[str, Any], denoise: Denoise, of: LevelSource) -> Tensor:
    """log p of x₀ + σ·ε at the lowest σ, in nats [B]. Theirs has adaptive steps: ours are small."""
    x, signs = case.inputs[f"{name}/x"].double(), case.inputs[f"{name}/v"].double()
    low, high, count = settings["sigma_min"], settings["sigma_max"], 400
    levels = [of.at_ratio(low * (high / low) ** (k / count)) for k in range(count + 1)]
    alpha = float(levels[0].alpha)
    return ode_log_density(denoise, levels, alpha * x, lambda _: signs) + x[0].numel() * math.log(alpha)


def _drawn(sampler: Sampler, noise: Tensor, ratios: Sequence[float]) -> Tensor:
    """The recorded draws that are used: k-diffusion and EDM draw at every step, for the churn of some."""
    if not isinstance(sampler, EDMHeun):
        return noise
    return noise[torch.tensor([sampler.low <= ratio <= sampler.high for ratio in ratios[: len(noise)]])]


# ----------------------------------------------------------------------------------------------------------------- EDM


def _edm(network: Network) -> Denoise:
    """EDM's denoiser, in x = x₀ + σ·ε."""
    prediction = EDM()

    def denoise(x: Tensor, level: Level) -> Estimate:
        output = network(spread(prediction.input_scale(level), x) * x, level.time).to(x)
        return Estimate(x, level, prediction.x0(output, x, level))

    return denoise


_CHAIN = noise_levels.iddpm_chain()
_NETS: dict[str, tuple[float, float]] = {
    "EDMPrecond": (0.0, math.inf),
    "VPPrecond": (noise_levels.vp_sigma(1e-5), noise_levels.vp_sigma(1.0)),
    "VEPrecond": (0.02, 100.0),
    "iDDPMPrecond": (_CHAIN[-2], _CHAIN[0]),
}
"""EDM's preconditioned networks, and the σ/α that they allow."""


def _place(ratio: float) -> int:
    """The place in Improved DDPM's chain, counted from its noisiest level, whose σ/α is nearest."""
    return min(range(len(_CHAIN)), key=lambda place: abs(_CHAIN[place] - ratio))


def _wrapped(case: Case, net: str) -> Denoise:
    """One of these networks, as a denoiser at any level: they take x/α, and are told what follows from σ/α."""
    inner = _edm(_toy(case, "edm", gain=1.0, tau=1.0))

    def denoise(x: Tensor, level: Level) -> Estimate:
        ratio, unscaled = float(level.ratio), x / level.alpha
        if net == "EDMPrecond":
            x0 = inner(unscaled, Level(float(torch.tensor(ratio).log() / 4), 1.0, ratio)).x0
        else:
            which = net.removesuffix("Precond").lower()
            times = {
                "vp": lambda: 999 * noise_levels.vp_time(ratio),
                "ve": lambda: math.log(0.5 * ratio),
                "iddpm": lambda: float(len(_CHAIN) - 2 - _place(ratio)),
            }
            sigma, time = (torch.full((len(x),), value, dtype=torch.float64) for value in (ratio, times[which]()))
            x0 = _score_based(case, which, unscaled, sigma, time).x0
        return Estimate(x, level, x0)

    return denoise


class Process:
    """The processes of EDM's table 1, x = α·x₀ + σ·ε in a time of their own: `schedule` says what σ/α is, `scaling` what α is."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.schedule, self.scaling = settings.get("schedule", "linear"), settings.get("scaling", "none")
        self.betas = edm_betas(settings)
        self.chained = settings.get("net", "").startswith("iDDPMPrecond")

    def at(self, time: float) -> Level:
        match self.schedule:
            case "vp":
                return self._level(time, noise_levels.vp_sigma(time, *self.betas))
            case "ve":
                return self._level(time, time**0.5)
        return self._level(time, time)

    def at_ratio(self, ratio: float) -> Level:
        if self.chained:
            ratio = _CHAIN[_place(ratio)]
        times = {"vp": lambda: noise_levels.vp_time(ratio, *self.betas), "ve": lambda: ratio**2, "linear": lambda: ratio}
        return self._level(times[self.schedule](), ratio)

    def rates(self, level: Level) -> tuple[float, float]:
        time, alpha, ratio = (float(value) for value in (level.time, level.alpha, level.ratio))
        beta_d, beta_min = self.betas
        rate = {"vp": 0.5 * (beta_d * time + beta_min) * (ratio + 1 / ratio), "ve": 0.5 / ratio, "linear": 1.0}[self.schedule]
        # α = 1, or α = 1/√(1 + (σ/α)²).
        return (-(alpha**3) * ratio * rate, alpha**3 * rate) if self.scaling == "vp" else (0.0, rate)

    def _level(self, time: float, ratio: float) -> Level:
        return _unit(time, ratio) if self.scaling == "vp" else Level(time, 1.0, ratio)


def _edm_run(settings: dict[str, Any], denoise: Denoise, unit: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
    """Everything recorded of one of EDM's runs, by its name."""
    sampler, process = _edm_sampler(settings), Process(settings)
    seen: list[tuple[Tensor, float]] = []

    def watched(x: Tensor, level: Level) -> Estimate:
        seen.append((x / level.alpha, float(level.ratio)))
        return denoise(x, level)

    levels = [process.at_ratio(ratio) for ratio in edm_levels(settings)]
    tape = torch.randn_like if noise is None else _tape(_drawn(sampler, noise, [float(level.ratio) for level in levels]))
    *_, state = sampler(watched, unit * levels[0].sigma, transitions([*levels, CLEAN], process), tape)
    final, end = state.x, state.estimate
    if _in_time(settings):
        # Published runs end with Euler's step to time 0, which leaves some of the noise, where ours end with x̂₀.
        of_x0, of_x = stride(Transition(end.level, Level(0.0, 1.0, 0.0), schedule=process))
        final = combine((of_x0, end.x0), (of_x, end.x))
    xs, ratios = zip(*seen, strict=True)
    return {"net_x": torch.stack(xs), "net_sigma": torch.tensor(ratios, dtype=torch.float64), "final": final}


def _in_time(settings: dict[str, Any]) -> bool:
    return settings["sampler"] == "ablation_sampler"


@adapter("fast_edm")
def edm(case: Case) -> Iterator[Check | Left]:
    done: set[str] = set()
    for name, settings in case.subcases.items():
        if "sampler" not in settings:
            continue
        net = settings["net"].split()[0]
        low, high = _NETS[net]
        bounded = {**settings, "net_sigma_min": low, "net_sigma_max": high}
        noise = case.inputs.get(f"{name}/noise")
        ours = _edm_run(bounded, _wrapped(case, net), case.inputs["latents"].double(), noise)
        for one in case.under(f"{name}/"):
            done.add(one)
            yield Check(one, ours[one.rpartition("/")[2]])
    for name in sorted(case.outputs.keys() - done):
        if name.startswith("precond/"):
            yield Check(name, _preconditioned(case, name.removeprefix("precond/")))
        elif name == "loss/edm":
            yield Check(name, _edm_loss(case, _toy(case, "edm", gain=1.0, tau=1.0)))
        elif name.startswith("loss/"):
            yield Check(name, _score_loss(case, name.removeprefix("loss/")))
        else:
            yield Left(name, "unknown to this adapter")


def _edm_sampler(settings: dict[str, Any]) -> Sampler:
    """Our sampler for one of EDM's runs."""
    solver, reach = settings.get("solver", "heun"), float(settings.get("alpha", 1.0))
    variable: Variable = "time" if _in_time(settings) else "ratio"
    if settings.get("S_churn"):
        churned = _churned(solver, *(settings.get(name) for name in ("S_churn", "S_min", "S_max", "S_noise")))
        return churned.replace(reach=reach if solver == "heun" else 1.0, variable=variable)
    return Heun(reach=reach, variable=variable) if solver == "heun" else Euler(variable=variable)


def _preconditioned(case: Case, which: str) -> Tensor:
    """D(x·σ/3; σ) of each of the four preconditionings, as a Prediction at its level."""
    sigma = case.inputs["precond/sigma"].double()
    x = case.inputs["precond/x"].double() * spread(sigma, case.inputs["precond/x"].double()) / 3
    time = torch.tensor(case.subcases[f"precond_{which}"]["c_noise"], dtype=torch.float64)
    if which == "edm":
        return _edm(_toy(case, "edm", gain=1.0, tau=1.0))(x, Level(time, torch.ones_like(sigma), sigma)).x0
    return _score_based(case, which, x, sigma, time).x0


def _score_based(case: Case, which: str, x: Tensor, sigma: Tensor, time: Tensor) -> Estimate:
    """What the networks of score-based models believe of x = x₀ + σ·ε: they predict ε, VE's −ε."""
    if which == "ve":
        level = Level(time, torch.ones_like(sigma), sigma)
        return Estimate(x, level, Epsilon().x0(-_toy(case, "ve", gain=1.0, tau=1.0)(x, time).to(x), x, level))
    alpha = (1 + sigma**2).rsqrt()
    x, level = x * spread(alpha, x), Level(time, alpha, sigma * alpha)
    output = _toy(case, which, gain=1.0, tau=100.0)(x, time)[:, : x.shape[1]]
    return Estimate(x, level, Epsilon().x0(output.to(x), x, level))


def _score_loss(case: Case, which: str) -> Tensor:
    """The losses of score-based models weigh the error of x̂₀ by 1/σ²: it is the plain error of ε̂."""
    x0, eps = case.inputs["loss/images"].double(), case.inputs["loss/noise"].double()
    u = case.inputs["loss/rnd_uniform"].double().flatten()
    if which == "vp":
        t = 1 + u * (1e-5 - 1)
        sigma, time = (0.5 * 19.9 * t**2 + 0.1 * t).expm1().sqrt(), 999 * t
    else:
        sigma = 0.02 * (100 / 0.02) ** u
        time = (0.5 * sigma).log()
    return (_score_based(case, which, x0 + spread(sigma, x0) * eps, sigma, time).eps - eps) ** 2


def _edm_loss(case: Case, network: Network) -> Tensor:
    """EDM's weight is 1/c_out², so that the weighted error of D is the plain error of F."""
    x0, eps = case.inputs["loss/images"].double(), case.inputs["loss/noise"].double()
    sigma = (case.inputs["loss/rnd_normal"].double().flatten() * 1.2 - 1.2).exp()
    level = Level(sigma.log() / 4, torch.ones_like(sigma), sigma)
    x = x0 + spread(sigma, x0) * eps
    output = network(spread(EDM().input_scale(level), x) * x, level.time)
    return (output - EDM().target(x0, eps, level)) ** 2


# ------------------------------------------------------------------------------------------------------ exact mixture


@adapter("analytic_gmm2d")
def gmm(case: Case) -> Iterator[Check | Left]:
    model = _mixture(case.config)
    stated = case.meta["tolerance"]["sampler_results"]
    exact = {"rtol": stated["rtol"], "atol": stated["atol"]}
    single = re.search(r"atol ([\d.e-]+\d)", stated["note"])
    x, sigma = case.inputs["pointwise/x"], case.inputs["pointwise/sigma"]
    level = Level(sigma, torch.ones_like(sigma), sigma)
    pointwise = {"denoised": model(x, level).x0, "score": model(x, level).score, "logp": model.log_density(x, level)}
    solutions = _gmm_solutions(case, model)
    within = re.search(r"< ([\d.e-]+\d)", case.meta["tolerance"]["exact_solution"])
    solved = {"atol": float(within[1]) if within else 1e-9}
    for name in case.outputs:
        family, _, what = name.partition("/")
        count = re.match(r"n(\d+)", what)
        if family == "pointwise":
            yield Check(name, pointwise[what], **exact)
        elif name == "exact/logp0":
            yield Check(name, model.log_density(case.outputs["exact/x0"], CLEAN), **exact)
        elif count is None:
            yield Check(name, solutions[name], **solved)
        elif family.startswith("diffusers_"):
            ours = _gmm_diffusers(case, model, case.subcases[family], int(count[1]))
            if ours is None:
                yield Left(name, OTHER)
            else:
                times, sample = ours
                tolerance = {"atol": float(single[1]) if single else 2e-5}
                if case.subcases[family]["scheduler"] == "PNDMScheduler":
                    # It combines ε̂ in float32, and 1/α of the first step magnifies their rounding: in float64 its own formula
                    # is as far from the recorded values as ours.
                    tolerance["atol"] += 4 * 2.0**-24 * (1 + float(case.inputs["vp/sigma_t"][-1]) ** 2) ** 0.5
                yield Check(name, times) if what.endswith("_timesteps") else Check(name, sample, **tolerance)
        else:
            if family.startswith("edm_"):
                end = _gmm_edm(case, model, family, int(count[1]))
            else:
                end = _gmm_float64(case, model, family, what)
            yield Left(name, OTHER) if end is None else Check(name, end, **exact)


class UnscaledLevels:
    """Levels of any σ, in x = x₀ + σ·ε, for models that are told no time."""

    def at(self, time: float) -> Level:
        raise NotImplementedError

    def at_ratio(self, ratio: float) -> Level:
        return Level(0.0, 1.0, ratio)


def _gmm_edm(case: Case, model: Mixture, family: str, count: int) -> Tensor | None:
    """The end point of one of EDM's runs; None where we have no such sampler."""
    named = re.fullmatch(r"edm_(?:(vp|ve)_)?(heun|euler|midpoint)(?:_alpha([\d.]+))?", family)
    if named is None:
        return None
    settings = {name: case.config[name] for name in ("sigma_min", "sigma_max")} | {"num_steps": count, "sampler": "edm_sampler"}
    if named[1]:
        settings |= {"sampler": "ablation_sampler", "discretization": named[1], "schedule": named[1]}
        settings["scaling"] = "vp" if named[1] == "vp" else "none"
    settings["solver"] = "euler" if named[2] == "euler" else "heun"
    settings["alpha"] = float(named[3] or (0.5 if named[2] == "midpoint" else 1.0))
    return _edm_run(settings, model, case.inputs["unit_noise"])["final"]


def _gmm_solutions(case: Case, model: Mixture) -> dict[str, Tensor]:
    """The solution of the ODE at all the levels of a case, by the names of its outputs."""
    unit, found = case.inputs["unit_noise"], {}
    low, high = case.config["sigma_min"], case.config["sigma_max"]
    if "exact/sigmas" in case.outputs:
        ratios = noise_levels.exponential(len(case.outputs["exact/sigmas"]), low, high)
        *trajectory, x0 = _solved(model, unit * high, [*ratios, 0.0])
        found |= {"exact/sigmas": torch.tensor(ratios, dtype=torch.float64), "exact/trajectory": torch.stack(trajectory)}
        found |= {"exact/x_sigma_min": trajectory[-1], "exact/x0": x0}
    if "vp/exact_t" in case.outputs:
        # The times are those that the case chose: what is ours is that their levels are found again.
        schedule = Given.of(1 / (1 + case.inputs["vp/sigma_t"] ** 2))
        levels = [schedule.at_ratio(ratio) for ratio in case.inputs["vp/sigma_t"][case.outputs["vp/exact_t"]].tolist()]
        *xs, x0 = _solved(model, unit / levels[0].alpha, [*(float(level.ratio) for level in levels), 0.0])
        found["vp/exact_t"] = torch.tensor([round(float(level.time)) for level in levels])
        found["vp/exact_x"] = torch.stack([level.alpha * x for level, x in zip(levels, xs, strict=True)])
        found["vp/exact_x0"] = x0
    return found


def _solved(model: Mixture, x: Tensor, ratios: Sequence[float], width: float = 0.003) -> list[Tensor]:
    """The solution of dx/dσ = ε̂ from x at the first of the falling σ, at each of them.

    By Runge and Kutta's method of fourth order, in even steps of asinh(σ/scale): of log σ where the noise is wider than a
    component, of σ where it is not.
    """
    scale = float(model.variances.min().sqrt())

    def slope(x: Tensor, place: float) -> Tensor:
        # The score is finite at clean data, and ε̂ = −σ·score vanishes.
        sigma = scale * math.sinh(place)
        return scale * math.cosh(place) * model(x, Level(0.0, 1.0, sigma)).eps if place > 0 else torch.zeros_like(x)

    found = [x]
    for begin, end in pairwise(math.asinh(ratio / scale) for ratio in ratios):
        count = math.ceil((begin - end) / width)
        for k in range(count):
            step, place = (end - begin) / count, begin + (end - begin) * k / count
            after = begin + (end - begin) * (k + 1) / count
            first = slope(x, place)
            second = slope(x + step / 2 * first, (place + after) / 2)
            third = slope(x + step / 2 * second, (place + after) / 2)
            x = x + step / 6 * (first + 2 * second + 2 * third + slope(x + step * third, after))
        found.append(x)
    return found


def _gmm_float64(case: Case, model: Mixture, family: str, what: str) -> Tensor | None:
    """The end point of one of k-diffusion's runs; None where we have no such sampler."""
    method, _, grid = family.removeprefix("k_").rpartition("_")
    known: dict[str, Sampler] = {
        "euler": Euler(),
        "heun": Heun(),
        "dpm_2": DPMppSingle(target="epsilon"),
        "lms4": LMS(),
        "dpmpp_2m": DPMpp(taper=4),
        "dpmpp_2s": DPMppSingle(),
        "dpmpp_2m_sde_eta0_midpoint": DPMpp(taper=4),
        "dpmpp_2m_sde_eta0_heun": DPMpp(solver="heun", taper=4),
        "dpmpp_3m_sde_eta0": DPMpp(order=3, solver="heun", taper=4),
    }
    sampler = known.get(method)
    if sampler is None:
        return None
    ratios = case.inputs[f"sigmas/{grid}_{what}"].tolist()
    levels_of = UnscaledLevels()
    levels = _with_stages(sampler, [levels_of.at_ratio(ratio) for ratio in ratios], levels_of)
    return last(sampler(model, case.inputs["unit_noise"] * ratios[0], transitions(levels, levels_of), torch.randn_like))


def _gmm_diffusers(case: Case, model: Mixture, settings: dict[str, Any], count: int) -> tuple[Tensor, Tensor] | None:
    """Times and end point of one of the runs in α² + σ² = 1; None where we have no such sampler."""
    schedule = Given.of(1 / (1 + case.inputs["vp/sigma_t"] ** 2))
    outputs = _diffusers_run(settings, schedule, model, case.inputs["unit_noise"], count)
    return (outputs["timesteps"], outputs["sample"][-1]) if "sample" in outputs else None
