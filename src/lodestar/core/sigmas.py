"""Lists of noise levels σ (of processes with unscaled data), from the noisiest to the cleanest, without the final 0."""

from __future__ import annotations

import math


def karras(count: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> list[float]:
    """Karras et al.'s levels, σ_k = (max^(1/ρ) + k/(count − 1)·(min^(1/ρ) − max^(1/ρ)))^ρ (2022, equation 5)."""
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(high + k / max(count - 1, 1) * (low - high)) ** rho for k in range(count)]


def polyexponential(count: int, sigma_min: float, sigma_max: float, rho: float = 1.0) -> list[float]:
    """log σ along ramp^ρ, ramp falling evenly from 1 to 0."""
    high, low = math.log(sigma_max), math.log(sigma_min)
    return [math.exp((1 - k / max(count - 1, 1)) ** rho * (high - low) + low) for k in range(count)]


def exponential(count: int, sigma_min: float, sigma_max: float) -> list[float]:
    """Even steps of log σ."""
    return polyexponential(count, sigma_min, sigma_max)


def vp(count: int, beta_d: float = 19.9, beta_min: float = 0.1, eps_s: float = 1e-3) -> list[float]:
    """σ(t) of the variance-preserving SDE at even t from 1 to eps_s (Song et al. 2021)."""
    return [vp_sigma(1 + k / max(count - 1, 1) * (eps_s - 1), beta_d, beta_min) for k in range(count)]


def vp_sigma(time: float, beta_d: float = 19.9, beta_min: float = 0.1) -> float:
    """σ(t) = √(exp(β_d·t²/2 + β_min·t) − 1): Karras et al. 2022, table 1."""
    return math.sqrt(math.expm1(0.5 * beta_d * time * time + beta_min * time))


def vp_time(sigma: float, beta_d: float = 19.9, beta_min: float = 0.1) -> float:
    """The inverse of `vp_sigma`."""
    return (math.sqrt(beta_min * beta_min + 2 * beta_d * math.log1p(sigma * sigma)) - beta_min) / beta_d


def vp_betas(sigma_min: float, sigma_max: float, eps_s: float = 1e-3) -> tuple[float, float]:
    """(β_d, β_min) of the process with σ(eps_s) = sigma_min and σ(1) = sigma_max."""
    low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
    beta_d = 2 * (low / eps_s - high) / (eps_s - 1)
    return beta_d, high - 0.5 * beta_d


def iddpm(count: int, sigma_min: float = 0.002, sigma_max: float = 81.0) -> list[float]:
    """Evenly chosen levels of `iddpm_chain` between two bounds (Karras et al. 2022, table 1)."""
    chain = [sigma for sigma in iddpm_chain() if sigma_min <= sigma <= sigma_max]
    gap = (len(chain) - 1) / max(count - 1, 1)
    return [chain[round(gap * k)] for k in range(count)]


def iddpm_chain(steps: int = 1000, ratio_min: float = 0.001, offset: float = 0.008) -> list[float]:
    """The steps + 1 levels of Improved DDPM's cosine chain, the last of them 0; no step shrinks ᾱ below ratio_min of itself."""

    def alpha_bar(step: int) -> float:
        return math.sin(0.5 * math.pi * step / steps / (offset + 1)) ** 2

    levels = [0.0]
    for step in range(steps, 0, -1):
        ratio = max(alpha_bar(step - 1) / alpha_bar(step), ratio_min)
        levels.append(math.sqrt((levels[-1] ** 2 + 1) / ratio - 1))
    return levels[::-1]
