"""Adapters for processes on toy networks and exact models: sampling loops, inversion, guidance, fast samplers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.config import decode
from lodestar.core import sigmas as noise_levels
from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.exact import Mixture
from lodestar.core.level import CLEAN, Level, spread
from lodestar.core.plan import LogSNR, Trailing, parse_plan
from lodestar.core.prediction import EDM, X0, Epsilon
from lodestar.core.schedule import AnySchedule, Schedule
from lodestar.core.transition import Transition, transitions
from lodestar.guidance import CFG, Classifier, Clip, Context, Guidance, Threshold, compose
from lodestar.guidance.threshold import quantile
from lodestar.samplers import DDIM, Ancestral, DPMpp, Euler, Heun, Sampler, State, last

from .harness import Case, Check, Left, adapter

LINE = 'due with "The whole line from DDPM to ADM, in breadth"'

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
    return _schedule(settings).steps(parse_plan(settings["timestep_respacing"] or settings["diffusion_steps"]))


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
            guidances.append(Clip())
        if settings["cond_fn"]:
            guidances.append(Classifier(scale=float(case.config["classifier_scale"])))
        denoise = _guided(denoise, *guidances, critic=_classifier(case, label))
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
            denoise = _guided(denoise, Clip())
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
    return [Clip()] if case.config.get("clip_denoised", True) else []


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
        return _guided(model, Classifier(scale=scale, form="score"), critic=critic)(x, level)

    for name in case.outputs:
        match name.split("_"):
            case ["eps", "u"]:
                yield Check(name, model(x, level).eps)
            case ["eps", "c"]:
                yield Check(name, cond(x, level).eps)
            case ["grad", *_]:
                shift = _guided(model, Classifier(scale=1.0), critic=critic)(x, level).shift
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
    return schedule.steps(plan)


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


class Grid:
    """The times and the σ/α that a scheduler of diffusers visits with `count` steps; `final` is the σ/α where it ends."""

    def __init__(self, schedule: Given, settings: dict[str, Any], count: int) -> None:
        self.schedule, self.settings, self.count = schedule, settings, count
        multistep = settings["scheduler"].startswith("DPMSolver")
        self.final = schedule.ratios[0] if settings.get("final_sigmas_type") == "sigma_min" else 0.0
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
        if multistep and settings["beta_schedule"] != "squaredcos_cap_v2":
            self.times = [float(round(time)) for time in self.times]

    @property
    def levels(self) -> list[Level]:
        levels = [_unit(time, ratio) for time, ratio in zip(self.times, self.ratios, strict=True)]
        return [*levels, _unit(0.0, self.final) if self.final else CLEAN]

    def _times(self) -> list[float]:
        """Of the schedulers that take `count` times; Euler's and Heun's may be fractional."""
        timesteps, offset = self.schedule.timesteps, self.settings.get("steps_offset", 0)
        default = "leading" if self.settings["scheduler"].startswith("DDIM") else "linspace"
        match self.settings.get("timestep_spacing", default):
            case "leading":
                return [float(k * (timesteps // self.count) + offset) for k in reversed(range(self.count))]
            case "trailing":
                return [float(index) for index in reversed(Trailing(count=self.count).indices(timesteps))]
            case _:
                times = torch.linspace(timesteps - 1, 0, self.count, dtype=torch.float64)
                return (times.round() if default == "leading" else times).tolist()

    def _multistep_times(self) -> list[float]:
        """Of DPM-Solver++, which counts one time more than it takes, the cleanest."""
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


def _multistep(settings: dict[str, Any], denoise: Denoise, x: Tensor, grid: Grid) -> list[State] | None:
    """A run of DPMSolverMultistepScheduler; None where it is not one of our samplers."""
    order = settings.get("solver_order", 2)
    if order > 2 or settings.get("algorithm_type", "dpmsolver++") != "dpmsolver++":
        return None
    if settings.get("thresholding"):
        denoise = _guided(denoise, _threshold(settings))
    steps = transitions(grid.levels)
    lower = settings.get("euler_at_final") or (settings.get("lower_order_final", True) and grid.count < 15)
    of_second = 0 if order == 1 else len(steps) - bool(lower and grid.final)
    solver = settings.get("solver_type", "midpoint")
    states = list(DPMpp(solver=solver)(denoise, x, steps[:of_second], torch.randn_like))
    # The first order of DPM-Solver++ is DDIM.
    return states + list(DDIM()(denoise, states[-1].x if states else x, steps[of_second:], torch.randn_like))


def _ddim_levels(schedule: Given, settings: dict[str, Any], count: int) -> list[Transition]:
    """The steps of DDIMScheduler, which go T // count down from each time, or of DDIMInverseScheduler, which arrive at it."""
    stride = schedule.timesteps // count
    inverse = settings["scheduler"] == "DDIMInverseScheduler"
    times = Grid(schedule, settings, count).times
    # At clean data there is no ε̂ to follow; so little noise stands in for none that no digit of float64 is lost.
    clean = Level(0.0, 1.0, 1e-6 if inverse else 0.0) if settings.get("set_alpha_to_one", True) else schedule.table[1]

    def at(time: float) -> Level:
        return schedule.table[int(time) + 1] if time >= 0 else clean

    if not inverse:
        return [Transition(at(time), at(time - stride)) for time in times]
    below = [(at(min(time - stride, schedule.timesteps - 1)), at(time)) for time in reversed(times)]
    return [Transition(Level(s.time, t.alpha, t.sigma), s) for t, s in below]


@adapter("fast_diffusers_deterministic")
def diffusers(case: Case) -> Iterator[Check | Left]:
    network, unit = _toy(case, "net"), case.inputs["x_T"].double()
    denoise = _epsilon(network)
    for name, settings in case.subcases.items():
        schedule = _recorded_schedule(case, settings)
        runs = {one.rpartition("/")[0] for one in case.under(f"{name}/")}
        for run in sorted(runs):
            outputs = _diffusers_run(settings, schedule, denoise, unit, int(run.rpartition("/n")[2]))
            for one in case.under(f"{run}/"):
                ours = outputs.get(one.rpartition("/")[2])
                yield Left(one, outputs.get("reason", LINE)) if ours is None else Check(one, ours)


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


def _diffusers_run(settings: dict[str, Any], schedule: Given, denoise: Denoise, unit: Tensor, count: int) -> dict[str, Any]:
    """Everything recorded of one run, by its name; what our samplers do not do is absent."""
    scheduler = settings["scheduler"]
    if scheduler in ("DDIMScheduler", "DDIMInverseScheduler"):
        steps = _ddim_levels(schedule, settings, count)
        times = torch.tensor([int(step.t.time) for step in steps])
        if settings.get("clip_sample", True):
            return {"timesteps": times, "reason": "diffusers keeps ε̂ from before clipping; here it follows from the clipped x̂₀"}
        return {"timesteps": times, "sample": _xs(list(DDIM()(denoise, unit, steps, torch.randn_like)))}
    if scheduler not in ("DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"):
        return {}
    grid = Grid(schedule, settings, count)
    times, ratios = torch.tensor(grid.times), torch.tensor([*grid.ratios, grid.final])
    if scheduler == "DPMSolverMultistepScheduler":
        states = _multistep(settings, denoise, unit, grid)
        return {} if states is None else {"timesteps": times.long(), "sigmas": ratios, "sample": _xs(states)}
    # These work in x/α, and begin a little noisier where the spacing does not reach the noisiest level.
    high = grid.ratios[0]
    start = (high**2 + 1) ** 0.5 if settings.get("timestep_spacing") == "leading" else high
    x = unit * start * float(grid.levels[0].alpha)
    seen: list[Tensor] = []

    def watched(x: Tensor, level: Level) -> Estimate:
        seen.append(x / level.alpha)
        return denoise(x, level)

    steps = transitions(grid.levels)
    if scheduler == "EulerDiscreteScheduler":
        last(Euler()(watched, x, steps, torch.randn_like))
        final = last(Euler()(denoise, seen[-1] * float(steps[-1].t.alpha), steps[-1:], torch.randn_like))
    else:
        final = last(Heun()(watched, x, steps, torch.randn_like))
        times, ratios = _repeated(times), torch.cat([_repeated(ratios[:-1]), ratios[-1:]])
    return {
        "timesteps": times,
        "sigmas": ratios,
        "init_noise_sigma": torch.tensor(start),
        "sample": torch.stack([*seen[1:], final]),
    }


def _repeated(values: Tensor) -> Tensor:
    """Each but the first twice: Heun's second evaluation is at the next time."""
    return torch.cat([values[:1], values[1:].repeat_interleave(2)])


def _k_sampler(settings: dict[str, Any]) -> Sampler | None:
    """Our sampler for one of k-diffusion's; None where there is none yet."""
    if settings.get("s_churn"):
        return None
    match settings.get("sampler"):
        case "sample_euler":
            return Euler()
        case "sample_heun":
            return Heun()
        case "sample_euler_ancestral":  # DDIM's η, in x/α
            return DDIM(eta=settings.get("eta", 1.0))
        case "sample_dpmpp_2m":
            return DPMpp()
        case "sample_dpmpp_2m_sde":
            return DPMpp(eta=settings.get("eta", 1.0), solver=settings.get("solver_type", "midpoint"))
    return None


@adapter("fast_k_diffusion")
def k_diffusion(case: Case) -> Iterator[Check | Left]:
    schedule = Given.of(case.inputs["alphas_cumprod"])
    denoise = _epsilon(_toy(case, "net"))
    for name, settings in case.subcases.items():
        sampler = _k_sampler(settings)
        if sampler is None:
            yield from (Left(one, LINE) for one in case.under(f"{name}/"))
            continue
        ratios = case.inputs[settings["sigmas"].removeprefix("in/")].double().tolist()
        levels = [_unit(float(schedule.at_ratio(ratio).time), ratio) if ratio else CLEAN for ratio in ratios]
        # k-diffusion's x is ours over α.
        start = case.inputs["noise"].double() * ratios[0]
        tape = _tape(case.inputs[f"{name}/noise"]) if sampler.stochastic else torch.randn_like
        states = list(sampler(denoise, start * levels[0].alpha, transitions(levels), tape))
        xs = [state.x / level.alpha for state, level in zip(states, levels[1:], strict=True)]
        yield Check(f"{name}/x", torch.stack([start, *xs]))
        yield Check(f"{name}/denoised", _x0s(states))


# ----------------------------------------------------------------------------------------------------------------- EDM


def _edm(network: Network) -> Denoise:
    """EDM's denoiser, in x = x₀ + σ·ε."""
    prediction = EDM()

    def denoise(x: Tensor, level: Level) -> Estimate:
        output = network(spread(prediction.input_scale(level), x) * x, level.time).to(x)
        return Estimate(x, level, prediction.x0(output, x, level))

    return denoise


def _edm_levels(settings: dict[str, Any]) -> list[Level]:
    """Karras levels with EDM's c_noise = ln(σ)/4 for the network's time."""
    ratios = noise_levels.karras(settings["num_steps"], settings.get("sigma_min", 0.002), settings.get("sigma_max", 80.0))
    return [*(Level(float(torch.tensor(ratio).log() / 4), 1.0, ratio) for ratio in ratios), CLEAN]


@adapter("fast_edm")
def edm(case: Case) -> Iterator[Check | Left]:
    network = _toy(case, "edm", gain=1.0, tau=1.0)
    done: set[str] = set()
    for name, settings in case.subcases.items():
        sampler = _edm_sampler(settings)
        if sampler is None:
            continue
        seen: list[tuple[Tensor, float]] = []
        inner = _edm(network)

        def watched(x: Tensor, level: Level, seen: list = seen, inner: Denoise = inner) -> Estimate:
            seen.append((x, float(level.sigma)))
            return inner(x, level)

        levels = _edm_levels(settings)
        start = case.inputs["latents"].double() * levels[0].sigma
        final = last(sampler(watched, start, transitions(levels), torch.randn_like))
        ours = {
            "net_x": torch.stack([x for x, _ in seen]),
            "net_sigma": torch.tensor([sigma for _, sigma in seen], dtype=torch.float64),
            "final": final,
        }
        for one in case.under(f"{name}/"):
            done.add(one)
            yield Check(one, ours[one.rpartition("/")[2]])
    for name in sorted(case.outputs.keys() - done):
        if name.startswith("precond/"):
            yield Check(name, _preconditioned(case, name.removeprefix("precond/")))
        elif name == "loss/edm":
            yield Check(name, _edm_loss(case, network))
        else:
            yield Left(name, LINE)


def _edm_sampler(settings: dict[str, Any]) -> Sampler | None:
    """Our sampler for a run that is deterministic and linear in σ; None for every other."""
    if settings.get("S_churn") or settings.get("alpha", 1) != 1 or "EDMPrecond" not in settings.get("net", ""):
        return None
    if settings["sampler"] == "edm_sampler":
        return Heun()
    grid = (settings["discretization"], settings["schedule"], settings["scaling"])
    if grid != ("edm", "linear", "none"):
        return None
    return Heun() if settings["solver"] == "heun" else Euler()


def _preconditioned(case: Case, which: str) -> Tensor:
    """D(x·σ/3; σ) of each of the four preconditionings, as a Prediction at its level."""
    sigma = case.inputs["precond/sigma"].double()
    x = case.inputs["precond/x"].double() * spread(sigma, case.inputs["precond/x"].double()) / 3
    time = torch.tensor(case.subcases[f"precond_{which}"]["c_noise"], dtype=torch.float64)
    one = torch.ones_like(sigma)
    if which == "edm":
        return _edm(_toy(case, "edm", gain=1.0, tau=1.0))(x, Level(time, one, sigma)).x0
    if which == "ve":  # F is −ε
        return Epsilon().x0(-_toy(case, "ve", gain=1.0, tau=1.0)(x, time).to(x), x, Level(time, one, sigma))
    alpha = (1 + sigma**2).rsqrt()
    x = x * spread(alpha, x)
    output = _toy(case, which, gain=1.0, tau=100.0)(x, time)[:, : x.shape[1]]
    return Epsilon().x0(output.to(x), x, Level(time, alpha, sigma * alpha))


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
    for name in case.outputs:
        family, _, what = name.partition("/")
        count = re.match(r"n(\d+)", what)
        if family == "pointwise":
            yield Check(name, pointwise[what], **exact)
        elif name == "exact/logp0":
            yield Check(name, model.log_density(case.outputs["exact/x0"], CLEAN), **exact)
        elif count is None:
            yield Left(name, "the ODE's own solution: no sampler is that exact; their order is tested in tests/samplers")
        elif family.startswith("diffusers_"):
            ours = _gmm_diffusers(case, model, case.subcases[family], int(count[1]))
            if ours is None:
                yield Left(name, LINE)
            else:
                times, sample = ours
                tolerance = {"atol": float(single[1]) if single else 2e-5}
                yield Check(name, times) if what.endswith("_timesteps") else Check(name, sample, **tolerance)
        else:
            end = _gmm_float64(case, model, family, what)
            yield Left(name, LINE) if end is None else Check(name, end, **exact)


def _gmm_float64(case: Case, model: Mixture, family: str, what: str) -> Tensor | None:
    """The end point of one of the runs in x = x₀ + σ·ε; None where we have no such sampler."""
    if family in ("edm_heun", "edm_euler"):
        sampler: Sampler = Heun() if family == "edm_heun" else Euler()
        ratios = [*noise_levels.karras(int(what[1:]), case.config["sigma_min"], case.config["sigma_max"]), 0.0]
    else:
        method, _, grid = family.removeprefix("k_").rpartition("_")
        known: dict[str, Sampler] = {
            "euler": Euler(),
            "heun": Heun(),
            "dpmpp_2m": DPMpp(),
            "dpmpp_2m_sde_eta0_midpoint": DPMpp(),
            "dpmpp_2m_sde_eta0_heun": DPMpp(solver="heun"),
        }
        if method not in known:
            return None
        sampler = known[method]
        ratios = case.inputs[f"sigmas/{grid}_{what}"].tolist()
    levels = [Level(0.0, 1.0, ratio) for ratio in ratios]
    return last(sampler(model, case.inputs["unit_noise"] * ratios[0], transitions(levels), torch.randn_like))


def _gmm_diffusers(case: Case, model: Mixture, settings: dict[str, Any], count: int) -> tuple[Tensor, Tensor] | None:
    """Times and end point of one of the runs in α² + σ² = 1; None where we have no such sampler."""
    schedule = Given.of(1 / (1 + case.inputs["vp/sigma_t"] ** 2))
    outputs = _diffusers_run(settings, schedule, model, case.inputs["unit_noise"], count)
    return (outputs["timesteps"], outputs["sample"][-1]) if "sample" in outputs else None
