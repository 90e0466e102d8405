"""A chain of noise levels: its table, and the levels between its entries.

A chain of T steps is defined by β_1 … β_T (variances of q(x_t | x_{t−1})); ᾱ_t = Π (1 − β_i), α = √ᾱ, σ = √(1 − ᾱ). The table has
T + 1 entries; entry 0 is clean data. Network time at entry k is k − 1, as in all published code. Between the entries, log(σ/α) is
interpolated linearly in time (as in k-diffusion), so samplers may stop at any level.
"""

from __future__ import annotations

import abc
import bisect
import functools
import math

import torch
from pydantic import Field
from torch import Tensor

from lodestar.config import TIMESTEPS, Config, Problem
from lodestar.core.drawing import curve, svg
from lodestar.core.level import CLEAN, Level, spread
from lodestar.core.transition import Transition, chain, transitions


class Schedule(Config, abc.ABC):
    """A chain of T noise levels."""

    timesteps: int = Field(default=1000, ge=1, le=TIMESTEPS)
    """T, the number of steps of the chain."""
    rescale_time: bool = False
    """Tell the network t·1000/T instead of t (Improved DDPM's rescale_timesteps)."""
    zero_terminal_snr: bool = False
    """Stretch the chain so that its last level is pure noise (Lin et al. 2023, algorithm 1)."""

    def _repr_html_(self) -> str:
        """The curve of log-SNR for a notebook."""
        return svg(f"{getattr(self, 'kind', type(self).__name__)}, {self.timesteps} steps", curve(self.table))

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
        if self.timesteps == 1 and float(betas[0]) == 1:
            raise Problem(f"the schedule {self.to_json()} is pure noise alone: use at least 2 timesteps, or a smaller beta")
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
        """Network times at the T noisy entries, float64 [T], ascending."""
        return torch.arange(self.timesteps, dtype=torch.float64) * self.time_scale

    @property
    def start_sigma(self) -> float:
        """Standard deviation of the initial noise of sampling: 1 in all published chains, though their last σ is below."""
        return 1.0

    def draw(self, count: int, rng: torch.Generator) -> Level:
        """Random levels for `count` samples, uniform over the chain's T noisy ones; tensors [count] on the generator's device."""
        index = torch.randint(1, self.timesteps + 1, (count,), generator=rng, device=rng.device)
        return _table_on(self, rng.device)[index]

    def at(self, time: float) -> Level:
        """The level at a network time in [0, time of the last entry]; the time may be fractional."""
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
        """The levels with the σ/α of a tensor, float64 [B] on any device; see `at_ratio`."""
        logs, table = _log_ratios(self).to(ratio.device), _table_on(self, ratio.device)
        assert isinstance(table.time, Tensor)
        target = ratio.log().clamp(logs[0], logs[-1])
        above = torch.searchsorted(logs, target).clamp(min=1)
        fraction = (target - logs[above - 1]) / (logs[above] - logs[above - 1])
        time = table.time[above] + fraction * (table.time[above + 1] - table.time[above])
        alpha = 1 / (1 + (2 * target).exp()).sqrt()
        return Level(time, alpha, 1 / (1 + (-2 * target).exp()).sqrt())

    def halfway(self, t: Level, s: Level) -> Level:
        """The level half way between two in network time.

        Between two entries of the chain, an entry of mean index, rounded down, as in PNDM's published table.
        """
        places = [float(level.time) / self.time_scale for level in (t, s)]
        if all(abs(place - round(place)) < 1e-6 for place in places):
            return self.table[sum(map(round, places)) // 2 + 1]
        return self.at((float(t.time) + float(s.time)) / 2)

    def rates(self, level: Level) -> tuple[float, float]:
        """Derivatives (α̇, σ̇) of α and σ by network time, at a noisy scalar level.

        The derivatives of `at`; at an entry, where α and σ have a kink, the mean of both sides, or the single finite side. Raises
        Problem where no derivative exists: in a chain of one step, and at pure noise.
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

    def step_down(self, level: Level) -> Transition:
        """The step of the chain from `level` (an entry of the chain: a float level, or [B]) to the next cleaner entry."""
        if isinstance(level.time, Tensor):
            table = _table_on(self, level.time.device)
            return chain(table, _nearest(table, level.time))
        index = int(_nearest(self.table, torch.tensor(level.time, dtype=torch.float64)))
        # One entry above comes along: at the last step of the chain, its variance stands in for 0.
        return transitions([self.table[place] for place in range(min(index + 1, self.timesteps), index - 2, -1)])[-1]

    def forward(self, x0: Tensor, level: Level, eps: Tensor) -> Tensor:
        """Noise clean data: x = α·x0 + σ·eps, all [B, ...]."""
        return spread(level.alpha, x0) * x0 + spread(level.sigma, x0) * eps


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
    """The index of the noisy entry nearest in time, for each time."""
    times = table.time
    assert isinstance(times, Tensor)
    return torch.searchsorted((times[1:-1] + times[2:]) / 2, time.to(times)) + 1


def _from_ratio(time: float, ratio: float) -> Level:
    # Both by a division, so that an infinite ratio is pure noise.
    return Level(time, 1.0 / math.hypot(1.0, ratio), 1.0 / math.hypot(1.0, 1.0 / ratio))


def _stretched(betas: Tensor) -> Tensor:
    """Shift and scale √ᾱ so that the first entry stays and the last becomes 0 (Lin et al. 2023, algorithm 1)."""
    root = torch.cumprod(1.0 - betas, 0).sqrt()
    first, last = root[0].clone(), root[-1].clone()
    root = (root - last) * first / (first - last)
    alpha_bar = root**2
    return 1.0 - torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])
