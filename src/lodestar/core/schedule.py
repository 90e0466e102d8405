"""Noise schedules: the formulas of β_1 … β_T in papers and published code. `core/chain.py` turns them into levels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lodestar.config import TIMESTEPS, Problem
from lodestar.core.chain import Schedule
from lodestar.core.level import Level
from lodestar.core.sigmas import karras

__all__ = [
    "JSD", "VP", "AnySchedule", "Constant", "Cosine", "EDMSigma", "Exponential", "Linear", "Respaced", "ScaledLinear", "Schedule",
    "Sigmoid", "SquaredCosCap", "Warmup",
]  # fmt: skip


class Linear(Schedule):
    """β from beta_start to beta_end in equal steps (DDPM), scaled by 1000/T, so any T adds as much noise as T = 1000."""

    kind: Literal["linear"] = "linear"
    beta_start: float = Field(default=1e-4, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)
    scaled: bool = True
    single: bool = False
    """Round each β to float32, as in the PyTorch port of DDPM and its many descendants."""

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
    """Constant β."""

    kind: Literal["constant"] = "constant"
    beta: float = Field(default=0.02, gt=0, lt=1)

    def raw_betas(self) -> Tensor:
        return torch.full((self.timesteps,), self.beta, dtype=torch.float64)


class VP(Schedule):
    """T steps of the process with β(t) from beta_min to beta_max, linear in time (Song et al. 2021), from the time `first` on.

    Data are clean at `first`, as in the code of denoising diffusion GANs.
    """

    kind: Literal["vp"] = "vp"
    beta_min: float = Field(default=0.1, gt=0, le=1_000)
    beta_max: float = Field(default=20.0, gt=0, le=1_000)
    first: float = Field(default=1e-3, ge=0, lt=1)

    def raw_betas(self) -> Tensor:
        time = _linspace(self.first, 1, self.timesteps + 1)
        log_alpha_bar = -0.5 * (self.beta_max - self.beta_min) * time.square() - self.beta_min * time
        return -torch.expm1(log_alpha_bar.diff())


class JSD(Schedule):
    """β_t = 1/(T − t + 1): 1/T, 1/(T − 1), …, 1 (Sohl-Dickstein et al. 2015). The last level is pure noise."""

    kind: Literal["jsd"] = "jsd"

    def raw_betas(self) -> Tensor:
        return 1.0 / _linspace(self.timesteps, 1, self.timesteps)


class EDMSigma(Schedule):
    """EDM's noise levels: equal steps of σ^(1/ρ), network time a multiple of ln σ (Karras et al. 2022, equation 5).

    The published process x₀ + σ·ε is divided by √(1 + σ²), for unit variance as in all others here; its σ is σ/α.
    """

    kind: Literal["edm"] = "edm"
    sigma_min: float = Field(default=0.002, ge=1e-6, le=1e6)
    sigma_max: float = Field(default=80.0, ge=1e-6, le=1e6)
    rho: float = Field(default=7.0, ge=0.1, le=1_000)
    log_gain: float = Field(default=250.0, ge=1e-6, le=1e6)
    """Network time is log_gain·ln σ: 1/4 in EDM, 250 in the consistency models' code."""

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

    def halfway(self, t: Level, s: Level) -> Level:
        return self.at((float(t.time) + float(s.time)) / 2)

    def raw_betas(self) -> Tensor:
        total = 1 + torch.cat([torch.zeros(1, dtype=torch.float64), self.sigmas()]).square()
        return -torch.expm1(total[:-1].log() - total[1:].log())


_Formula = Linear | ScaledLinear | Cosine | SquaredCosCap | Exponential | Sigmoid | Warmup | Constant | VP | JSD | EDMSigma


class Respaced(Schedule):
    """A chain of some levels of another, with unchanged network times, as made by `Indexed.respace`."""

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

    def halfway(self, t: Level, s: Level) -> Level:
        return self.base.halfway(t, s)

    def raw_betas(self) -> Tensor:
        alpha = self.base.table.alpha
        assert isinstance(alpha, Tensor)
        alpha_bar = torch.cat([alpha[:1], alpha[1:][list(self.kept)]]) ** 2
        return 1.0 - alpha_bar[1:] / alpha_bar[:-1]


AnySchedule = Annotated[
    Linear | ScaledLinear | Cosine | SquaredCosCap | Exponential | Sigmoid | Warmup | Constant | VP | JSD | EDMSigma | Respaced,
    Field(discriminator="kind"),
]


def _linspace(start: float, end: float, count: int) -> Tensor:
    return torch.linspace(start, end, count, dtype=torch.float64)


def _from_alpha_bar(alpha_bar: Callable[[float], float], timesteps: int, cap: float) -> Tensor:
    """β_i = 1 − ᾱ(i/T)/ᾱ((i − 1)/T), capped."""
    betas = [min(1 - alpha_bar((i + 1) / timesteps) / alpha_bar(i / timesteps), cap) for i in range(timesteps)]
    return torch.tensor(betas, dtype=torch.float64)
