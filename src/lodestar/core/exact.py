"""Exact denoisers of data with a known density: the ground truth in tests of samplers and guidance.

For a component N(μ, v·I) of the data, x = α·x₀ + σ·ε has the density N(α·μ, (α²·v + σ²)·I), and

    E[x₀ | x, component] = μ + α·v/(α²·v + σ²)·(x − α·μ).

Everything is computed in float64 and returned in the dtype of x. Each class is a Denoise: (x [B, ...], level) → Estimate.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level, Scalar, spread


class Gaussian:
    """The denoiser of a Gaussian with independent values."""

    def __init__(self, mean: Tensor, variance: Tensor | float) -> None:
        """mean: of a sample, [...]; variance: one number, or [...] for each value."""
        self.mean = mean.double()
        self.variance = torch.as_tensor(variance, dtype=torch.float64).expand_as(self.mean)

    def __call__(self, x: Tensor, level: Level) -> Estimate:
        alpha, total, offset = self._noised(x, level)
        return Estimate(x, level, (self.mean + alpha * self.variance / total * offset).to(x))

    def log_density(self, x: Tensor, level: Level) -> Tensor:
        """log p(x) at this level, in nats [B]."""
        _, total, offset = self._noised(x, level)
        return (-0.5 * (offset**2 / total + (2 * math.pi * total).log())).flatten(1).sum(1).to(x)

    def _noised(self, x: Tensor, level: Level) -> tuple[Scalar, Tensor, Tensor]:
        """α, the variance of x, and x − its mean."""
        wide = x.double()
        alpha, sigma = spread(level.alpha, wide), spread(level.sigma, wide)
        return alpha, alpha**2 * self.variance + sigma**2, wide - alpha * self.mean


class Mixture:
    """The denoiser of a mixture of K isotropic Gaussians; components may have class labels."""

    def __init__(self, weights: Tensor, means: Tensor, variances: Tensor, labels: Tensor | None = None) -> None:
        """weights [K] (normalised here), means [K, ...], variances [K] (0 is a point), labels [K], each component's class."""
        self.weights = weights.double() / weights.sum()
        self.means = means.double()
        self.variances = variances.double()
        self.labels = labels
        self._log_weights = self.weights.log()

    def __call__(self, x: Tensor, level: Level) -> Estimate:
        wide, alpha, sigma = self._wide(x, level)
        gain = alpha * self.variances / (alpha**2 * self.variances + sigma**2)
        share = self._log_joint(wide, alpha, sigma).softmax(1)
        # Σ_k share_k·(μ_k + gain_k·(x − α·μ_k)), without a tensor of B × K samples.
        x0 = (share * gain).sum(1, keepdim=True) * wide + (share * (1 - alpha * gain)) @ self.means.flatten(1)
        return Estimate(x, level, x0.reshape(x.shape).to(x))

    def drawing(self, rng: torch.Generator) -> Denoise:
        """The denoiser whose x̂₀ is a draw from p(x₀ | x), in the place of its expectation."""

        def denoise(x: Tensor, level: Level) -> Estimate:
            wide, alpha, sigma = self._wide(x, level)
            component = self._log_joint(wide, alpha, sigma).softmax(1).multinomial(1, generator=rng)[:, 0]
            mean, variance = self.means.flatten(1)[component], self.variances[component, None]
            total = alpha**2 * variance + sigma**2
            noise = torch.randn(wide.shape, generator=rng, dtype=wide.dtype)
            x0 = mean + alpha * variance / total * (wide - alpha * mean) + (variance * sigma**2 / total).sqrt() * noise
            return Estimate(x, level, x0.reshape(x.shape).to(x))

        return denoise

    def log_density(self, x: Tensor, level: Level) -> Tensor:
        """log p(x) at this level, in nats [B]."""
        return self._log_joint(*self._wide(x, level)).logsumexp(1).to(x)

    def log_posterior(self, x: Tensor, level: Level, label: int | Tensor) -> Tensor:
        """The exact noise-aware classifier log p(label | x) [B] at this level. label: one class, or one for each sample [B]."""
        joint = self._log_joint(*self._wide(x, level))
        return (joint.masked_fill(~self._members(label), -math.inf).logsumexp(1) - joint.logsumexp(1)).to(x)

    def given(self, label: int | Tensor) -> Mixture:
        """The mixture of one class's components; for labels [B], a denoiser of batches of B."""
        log_weights = self._log_weights.masked_fill(~self._members(label), -math.inf).log_softmax(-1)
        assert not log_weights.isnan().any(), f"no component has the label {label}"
        restricted = Mixture(self.weights, self.means, self.variances, self.labels)
        restricted._log_weights, restricted.weights = log_weights, log_weights.exp()
        return restricted

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """Random samples of the data, float64 [count, ...]."""
        component = self.weights.multinomial(count, replacement=True, generator=rng)
        noise = torch.randn(count, *self.means.shape[1:], generator=rng, dtype=torch.float64)
        return self.means[component] + spread(self.variances[component].sqrt(), noise) * noise

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean [D] and covariance [D, D] of the data, flattened."""
        means = self.means.flatten(1)
        mean = self.weights @ means
        spread_of_means = (means - mean).T @ (self.weights[:, None] * (means - mean))
        return mean, spread_of_means + (self.weights @ self.variances) * torch.eye(len(mean), dtype=torch.float64)

    def _members(self, label: int | Tensor) -> Tensor:
        """Membership of components in a class: bool [K], or [B, K] for labels [B]."""
        assert self.labels is not None, "the components have no labels"
        return self.labels == (label[:, None] if isinstance(label, Tensor) and label.ndim else label)

    def _log_joint(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Tensor:
        """log(weight_k·p(x | k)) [B, K] for x [B, D], float64."""
        means = self.means.flatten(1)
        if isinstance(alpha, Tensor):  # one level for each sample: [B, K, D]
            squared = (x[:, None] - alpha[..., None] * means).square().sum(2)
        else:
            squared = torch.cdist(x, alpha * means, compute_mode="donot_use_mm_for_euclid_dist").square()
        total = alpha**2 * self.variances + sigma**2
        return self._log_weights - 0.5 * (squared / total + x.shape[1] * (2 * math.pi * total).log())

    @staticmethod
    def _wide(x: Tensor, level: Level) -> tuple[Tensor, Scalar, Scalar]:
        """x in float64 [B, D], with α and σ broadcastable to [B, ·]."""
        wide = x.double().flatten(1)
        return wide, spread(level.alpha, wide), spread(level.sigma, wide)


class FiniteSet(Mixture):
    """The denoiser of a finite data set: the mean of its members, weighted by their posterior probability given x."""

    def __init__(self, data: Tensor, labels: Tensor | None = None) -> None:
        """data [N, ...]; labels [N]."""
        count = torch.ones(len(data), dtype=torch.float64)
        super().__init__(count, data, torch.zeros_like(count), labels)
