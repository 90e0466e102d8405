"""Noise schedules: which levels there are, and what the network is told at each.

A discrete schedule is a chain of T steps defined by β_1 … β_T (variances of q(x_t | x_{t−1})); ᾱ_t = Π (1 − β_i), α = √ᾱ,
σ = √(1 − ᾱ). Its table has T + 1 entries, of which entry 0 is clean data. The network is told k − 1 at entry k, as all the
published code has it. Between the entries, log(σ/α) is interpolated linearly in time (as k-diffusion does), so that
samplers may stop at any level.
"""

from __future__ import annotations

import abc
import bisect
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lodestar.config import TIMESTEPS, Config, Problem
from lodestar.core.level import CLEAN, Level, spread
from lodestar.core.sigmas import karras
from lodestar.core.transition import Transition, chain, transitions

if TYPE_CHECKING:
    from lodestar.core.plan import Indexed, Plan


class Schedule(Config, abc.ABC):
    """A chain of T noise levels."""

    timesteps: int = Field(default=1000, ge=1, le=TIMESTEPS)
    """T, the number of steps of the chain."""
    rescale_time: bool = False
    """Tell the network t·1000/T instead of t (Improved DDPM's rescale_timesteps)."""
    zero_terminal_snr: bool = False
    """Stretch the chain so that its last level is pure noise (Lin et al. 2023, algorithm 1)."""

    @abc.abstractmethod
    def raw_betas(self) -> Tensor:
        """β_1 … β_T in float64, before any stretching to zero terminal signal."""

    def betas(self) -> Tensor:
        """β_1 … β_T, float64 [T], each in (0, 1]."""
        betas = self.raw_betas()
        if not bool(((betas > 0) & (betas <= 1)).all()):
            raise Problem(f"the schedule {self.to_json()} has variances outside (0, 1]: use more timesteps or smaller betas")
        if not torch.cumprod(1 - betas, 0)[:-1].all():
            raise Problem(
                f"the schedule {self.to_json()} is pure noise before its last step: use fewer timesteps or smaller betas"
            )
        if self.zero_terminal_snr and self.timesteps == 1:
            raise Problem("timesteps is 1: zero_terminal_snr stretches a chain between two levels and needs at least 2")
        return _stretched(betas) if self.zero_terminal_snr else betas

    @property
    def table(self) -> Level:
        """The T + 1 levels of the chain, entry 0 clean; tensors [T + 1]."""
        return _table(self)

    @property
    def time_scale(self) -> float:
        """Network time per index of the chain."""
        return 1000.0 / self.timesteps if self.rescale_time else 1.0

    def times(self) -> Tensor:
        """What the network is told at the T noisy entries, float64 [T], ascending."""
        return torch.arange(self.timesteps, dtype=torch.float64) * self.time_scale

    @property
    def start_sigma(self) -> float:
        """Standard deviation of the noise that sampling begins with: 1 in all published chains, though their last σ is below."""
        return 1.0

    def draw(self, count: int, rng: torch.Generator) -> Level:
        """Levels for `count` samples, uniform over the chain's T noisy ones; tensors [count] on the generator's device."""
        index = torch.randint(1, self.timesteps + 1, (count,), generator=rng, device=rng.device)
        return _table_on(self, rng.device)[index]

    def at(self, time: float) -> Level:
        """The level at a network time in [0, time of the last entry], fractional ones included."""
        table = self.table
        assert isinstance(table.time, Tensor)
        first, last = table.time[1].item(), table.time[-1].item()
        if not first <= time <= last:
            raise Problem(f"time {time:g} is outside this schedule's {first:g} … {last:g}")
        above = 1 + int(torch.searchsorted(table.time[1:], time))
        high = table.time[above].item()
        if high == time:
            return table[above]
        low, logs = table.time[above - 1].item(), _log_ratios(self)
        fraction = (time - low) / (high - low)
        return _from_ratio(time, math.exp((1 - fraction) * logs[above - 2].item() + fraction * logs[above - 1].item()))

    def at_ratio(self, ratio: float) -> Level:
        """The level whose σ/α is `ratio`, clamped to the chain's range; its time is fractional."""
        logs, table = _log_ratios(self), self.table
        assert isinstance(table.time, Tensor)
        target = min(max(math.log(ratio), logs[0].item()), logs[-1].item())
        above = int(torch.searchsorted(logs, target))
        high = logs[above].item()
        if high == target:
            return table[above + 1]
        low = logs[above - 1].item()
        fraction = (target - low) / (high - low)
        time = (1 - fraction) * table.time[above].item() + fraction * table.time[above + 1].item()
        return _from_ratio(time, math.exp(target))

    def at_ratios(self, ratio: Tensor) -> Level:
        """The levels whose σ/α are those of a tensor, float64 [B] on any device; see `at_ratio`."""
        logs, table = _log_ratios(self).to(ratio.device), _table_on(self, ratio.device)
        assert isinstance(table.time, Tensor)
        target = ratio.log().clamp(logs[0], logs[-1])
        above = torch.searchsorted(logs, target).clamp(min=1)
        fraction = (target - logs[above - 1]) / (logs[above] - logs[above - 1])
        time = table.time[above] + fraction * (table.time[above + 1] - table.time[above])
        alpha = 1 / (1 + (2 * target).exp()).sqrt()
        return Level(time, alpha, 1 / (1 + (-2 * target).exp()).sqrt())

    def rates(self, level: Level) -> tuple[float, float]:
        """(α̇, σ̇), the changes of α and σ per unit of network time at a noisy scalar level.

        They are those of `at`; at an entry, where it has a kink, the mean of those on its two sides, or the one that there is.
        Raises Problem where there is none: in a chain of one step, and at pure noise.
        """
        time, (times, slopes) = float(level.time), _slopes(self)
        sides = slopes[max(bisect.bisect_left(times, time) - 1, 0) : bisect.bisect_right(times, time)]
        sides = [slope for slope in sides if math.isfinite(slope)]
        if not sides:
            what = "is pure noise" if level.alpha == 0 else "stands alone"
            raise Problem(f"this schedule's level at time {time:g} {what} and has no rate of change: solve in variable ratio")
        # Where α² + σ² = 1, a slope c of log(σ/α) turns (α, σ) by the angle c·α·σ.
        turn = sum(sides) / len(sides) * float(level.alpha) * float(level.sigma)
        return -turn * float(level.sigma), turn * float(level.alpha)

    def respaced(self, plan: Indexed) -> Respaced:
        """The chain of a plan's levels alone, with the same times for the network (Improved DDPM, section 4)."""
        kept = tuple(plan.indices(self.timesteps))
        return Respaced.model_validate({"base": self, "kept": kept, "timesteps": len(kept)})

    def steps(self, plan: Plan) -> list[Transition]:
        """The steps of a sampling plan, noisy to clean."""
        return transitions(plan.levels(self), self)

    def step_down(self, level: Level) -> Transition:
        """The step of the chain from `level` (an entry of the chain: a float level, or [B]) to the next cleaner entry."""
        if isinstance(level.time, Tensor):
            table = _table_on(self, level.time.device)
            return chain(table, _nearest(table, level.time))
        index = int(_nearest(self.table, torch.tensor(level.time, dtype=torch.float64)))
        # One entry above comes along, because at the last step of the chain its variance stands in for 0.
        return transitions([self.table[place] for place in range(min(index + 1, self.timesteps), index - 2, -1)])[-1]

    def forward(self, x0: Tensor, level: Level, eps: Tensor) -> Tensor:
        """Noise clean data: x = α·x0 + σ·eps, all [B, ...]."""
        return spread(level.alpha, x0) * x0 + spread(level.sigma, x0) * eps


class Linear(Schedule):
    """β from beta_start to beta_end in equal steps (DDPM), scaled by 1000/T so that any T adds the noise that T = 1000 does."""

    kind: Literal["linear"] = "linear"
    beta_start: float = Field(default=1e-4, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)
    scaled: bool = True
    single: bool = False
    """Round each β to float32, as the PyTorch port of DDPM that much code descends from does."""

    def raw_betas(self) -> Tensor:
        scale = 1000 / self.timesteps if self.scaled else 1.0
        start, end = scale * self.beta_start, scale * self.beta_end
        if self.single:
            return torch.linspace(start, end, self.timesteps, dtype=torch.float32).double()
        return _linspace(start, end, self.timesteps)


class ScaledLinear(Schedule):
    """√β in equal steps (latent diffusion; GLIDE's "quad")."""

    kind: Literal["scaled_linear"] = "scaled_linear"
    beta_start: float = Field(default=0.00085, gt=0, lt=1)
    beta_end: float = Field(default=0.012, gt=0, lt=1)

    def raw_betas(self) -> Tensor:
        return _linspace(self.beta_start**0.5, self.beta_end**0.5, self.timesteps) ** 2


class Cosine(Schedule):
    """ᾱ(u) ∝ cos²((u + offset)/(1 + offset)·π/2), β capped (Improved DDPM, equation 17). See SquaredCosCap."""

    kind: Literal["cosine"] = "cosine"
    offset: float = Field(default=0.008, ge=0, le=1)
    beta_cap: float = Field(default=0.999, gt=0, le=1)

    def raw_betas(self) -> Tensor:
        def alpha_bar(u: float) -> float:
            return math.cos((u + self.offset) / (1 + self.offset) * math.pi / 2) ** 2

        return _from_alpha_bar(alpha_bar, self.timesteps, self.beta_cap)


class SquaredCosCap(Cosine):
    """`Cosine` under the name that GLIDE, Karlo and diffusers give it."""

    kind: Literal["squaredcos_cap_v2"] = "squaredcos_cap_v2"  # type: ignore[assignment]


class Exponential(Schedule):
    """ᾱ(u) = exp(−rate·u), β capped."""

    kind: Literal["exponential"] = "exponential"
    rate: float = Field(default=12.0, gt=0, le=600)
    beta_cap: float = Field(default=0.999, gt=0, le=1)

    def raw_betas(self) -> Tensor:
        return _from_alpha_bar(lambda u: math.exp(-self.rate * u), self.timesteps, self.beta_cap)


class Sigmoid(Schedule):
    """β along a sigmoid from beta_start to beta_end (GeoDiff)."""

    kind: Literal["sigmoid"] = "sigmoid"
    beta_start: float = Field(default=1e-4, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)

    def raw_betas(self) -> Tensor:
        return torch.sigmoid(_linspace(-6, 6, self.timesteps)) * (self.beta_end - self.beta_start) + self.beta_start


class Warmup(Schedule):
    """β rises linearly over the first `fraction` of the chain and stays (the first DDPM code's warmup10 and warmup50)."""

    kind: Literal["warmup"] = "warmup"
    fraction: float = Field(default=0.1, gt=0, le=1)
    beta_start: float = Field(default=1e-4, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)

    def raw_betas(self) -> Tensor:
        betas = torch.full((self.timesteps,), self.beta_end, dtype=torch.float64)
        count = int(self.timesteps * self.fraction)
        betas[:count] = _linspace(self.beta_start, self.beta_end, count)
        return betas


class Constant(Schedule):
    """The same β at every step."""

    kind: Literal["constant"] = "constant"
    beta: float = Field(default=0.02, gt=0, lt=1)

    def raw_betas(self) -> Tensor:
        return torch.full((self.timesteps,), self.beta, dtype=torch.float64)


class JSD(Schedule):
    """β_t = 1/(T − t + 1): 1/T, 1/(T − 1), …, 1 (Sohl-Dickstein et al. 2015). The last level is pure noise."""

    kind: Literal["jsd"] = "jsd"

    def raw_betas(self) -> Tensor:
        return 1.0 / _linspace(self.timesteps, 1, self.timesteps)


class EDMSigma(Schedule):
    """EDM's noise levels, σ^(1/ρ) in equal steps, the network being told a multiple of ln σ (Karras et al. 2022, equation 5).

    The published process x₀ + σ·ε is divided by √(1 + σ²), so that it has unit variance as all others here; σ/α is its σ.
    """

    kind: Literal["edm"] = "edm"
    sigma_min: float = Field(default=0.002, ge=1e-6, le=1e6)
    sigma_max: float = Field(default=80.0, ge=1e-6, le=1e6)
    rho: float = Field(default=7.0, ge=0.1, le=1_000)
    log_gain: float = Field(default=250.0, ge=1e-6, le=1e6)
    """The network is told log_gain·ln σ: 1/4 in EDM, a thousand times that in the consistency models' code."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise Problem(f"sigma_min is {self.sigma_min:g}: it must be below sigma_max, {self.sigma_max:g}")
        if self.rescale_time:
            raise Problem("rescale_time is for times that are counted: schedule 'edm' has log_gain")
        return self

    @property
    def start_sigma(self) -> float:
        return float(self.table[self.timesteps].sigma)

    def sigmas(self) -> Tensor:
        """σ of the T noisy entries, float64 [T], ascending."""
        return torch.tensor(karras(self.timesteps, self.sigma_min, self.sigma_max, self.rho)[::-1], dtype=torch.float64)

    def times(self) -> Tensor:
        return self.log_gain * self.sigmas().log()

    def raw_betas(self) -> Tensor:
        total = 1 + torch.cat([torch.zeros(1, dtype=torch.float64), self.sigmas()]).square()
        return -torch.expm1(total[:-1].log() - total[1:].log())


_Formula = Linear | ScaledLinear | Cosine | SquaredCosCap | Exponential | Sigmoid | Warmup | Constant | JSD | EDMSigma


class Respaced(Schedule):
    """Some levels of another chain, as a chain of its own, under their old times. `Schedule.respaced` makes one."""

    kind: Literal["respaced"] = "respaced"
    base: Annotated[_Formula, Field(discriminator="kind")]
    kept: tuple[Annotated[int, Field(ge=0, lt=TIMESTEPS)], ...] = Field(min_length=1, max_length=TIMESTEPS)
    """The kept steps of 0 … T − 1, ascending."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.kept) != sorted(set(self.kept)) or self.kept[-1] >= self.base.timesteps:
            raise Problem(f"kept must be ascending and below the {self.base.timesteps} timesteps of the base")
        if self.timesteps != len(self.kept):
            raise Problem(f"timesteps is {self.timesteps}: it must be the number of kept ones, {len(self.kept)}")
        if self.rescale_time or self.zero_terminal_snr:
            raise Problem("rescale_time and zero_terminal_snr are the base's: set them there")
        return self

    def times(self) -> Tensor:
        return self.base.times()[list(self.kept)]

    def raw_betas(self) -> Tensor:
        alpha = self.base.table.alpha
        assert isinstance(alpha, Tensor)
        alpha_bar = torch.cat([alpha[:1], alpha[1:][list(self.kept)]]) ** 2
        return 1.0 - alpha_bar[1:] / alpha_bar[:-1]


AnySchedule = Annotated[
    Linear | ScaledLinear | Cosine | SquaredCosCap | Exponential | Sigmoid | Warmup | Constant | JSD | EDMSigma | Respaced,
    Field(discriminator="kind"),
]


@functools.lru_cache(maxsize=32)
def _table_on(schedule: Schedule, device: torch.device) -> Level:
    return schedule.table.to(device)


@functools.lru_cache(maxsize=32)
def _table(schedule: Schedule) -> Level:
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1.0 - schedule.betas(), 0)])
    time = torch.cat([torch.tensor([CLEAN.time], dtype=torch.float64), schedule.times()])
    return Level(time, alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt())


@functools.lru_cache(maxsize=32)
def _log_ratios(schedule: Schedule) -> Tensor:
    """log(σ/α) of the T noisy entries, ascending."""
    table = schedule.table
    assert isinstance(table.sigma, Tensor) and isinstance(table.alpha, Tensor)
    return table.sigma[1:].log() - table.alpha[1:].log()


@functools.lru_cache(maxsize=32)
def _slopes(schedule: Schedule) -> tuple[list[float], list[float]]:
    """The times of the T noisy entries, and the T − 1 slopes of log(σ/α) between them."""
    times = schedule.times()
    return times.tolist(), (_log_ratios(schedule).diff() / times.diff()).tolist()


def _nearest(table: Level, time: Tensor) -> Tensor:
    """The index of the noisy entry whose time is nearest, for each of the times."""
    times = table.time
    assert isinstance(times, Tensor)
    return torch.searchsorted((times[1:-1] + times[2:]) / 2, time.to(times)) + 1


def _from_ratio(time: float, ratio: float) -> Level:
    # Both by a division, so that an infinite ratio is pure noise.
    return Level(time, 1.0 / math.hypot(1.0, ratio), 1.0 / math.hypot(1.0, 1.0 / ratio))


def _linspace(start: float, end: float, count: int) -> Tensor:
    return torch.linspace(start, end, count, dtype=torch.float64)


def _from_alpha_bar(alpha_bar: Callable[[float], float], timesteps: int, cap: float) -> Tensor:
    """β_i = 1 − ᾱ(i/T)/ᾱ((i − 1)/T), capped."""
    betas = [min(1 - alpha_bar((i + 1) / timesteps) / alpha_bar(i / timesteps), cap) for i in range(timesteps)]
    return torch.tensor(betas, dtype=torch.float64)


def _stretched(betas: Tensor) -> Tensor:
    """Shift and scale √ᾱ so that the first entry stays and the last becomes 0 (Lin et al. 2023, algorithm 1)."""
    root = torch.cumprod(1.0 - betas, 0).sqrt()
    first, last = root[0].clone(), root[-1].clone()
    root = (root - last) * first / (first - last)
    alpha_bar = root**2
    return 1.0 - torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])
