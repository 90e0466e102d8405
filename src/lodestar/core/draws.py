"""Training levels: drawn uniformly from the chain, in proportion to past losses, or with log-normal σ/α."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.config import Config, Problem
from lodestar.core.level import Level
from lodestar.core.schedule import Schedule

Memory = Mapping[str, Tensor]
"""State of the draws, by name, on the CPU: changed in place, and saved with the run."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A batch of drawn levels."""

    level: Level
    """The levels [B]."""
    factor: Tensor | None = None
    """Importance weights 1/(T·p) [B]; None if uniform."""
    index: Tensor | None = None
    """Steps 0 … T − 1 of the chain, int64 [B], where their losses are to be remembered; None otherwise."""

    def __getitem__(self, rows: slice) -> Drawn:
        """The levels of some of the samples."""
        factor, index = (None if each is None else each[rows] for each in (self.factor, self.index))
        return Drawn(self.level[rows], factor, index)


class Levels(Config, abc.ABC):
    """A distribution of training levels. The object is its own configuration; its state is a separate argument (`Memory`)."""

    @property
    def continuous(self) -> bool:
        """True if levels between the chain's own are drawn."""
        return False

    def check(self, schedule: Schedule) -> None:
        """Raise Problem unless levels of this schedule can be drawn."""
        return

    def memory(self, schedule: Schedule) -> Memory:
        """The state at the beginning of a run; empty for distributions without one."""
        return {}

    @abc.abstractmethod
    def draw(self, schedule: Schedule, memory: Memory, count: int, rng: torch.Generator) -> Drawn:
        """Levels for `count` samples, on the generator's device."""

    def remember(self, memory: Memory, index: Tensor, losses: Tensor) -> None:
        """Record the unweighted losses [B] of the drawn steps, int64 [B]."""
        return


class Uniform(Levels):
    """The uniform distribution over the chain's T levels (DDPM)."""

    kind: Literal["uniform"] = "uniform"

    def draw(self, schedule: Schedule, memory: Memory, count: int, rng: torch.Generator) -> Drawn:
        return Drawn(schedule.draw(count, rng))


class LossSecondMoment(Levels):
    """Steps of the chain with probability ∝ √E[loss²], estimated from the latest losses of each (Improved DDPM, section 3.3).

    Uniform until every step has enough losses. Losses are multiplied by 1/(T·p), so their expectation is unchanged.
    """

    kind: Literal["loss_second_moment"] = "loss_second_moment"
    history: int = Field(default=10, ge=1, le=10_000)
    """Number of losses remembered for each step."""
    uniform: float = Field(default=0.001, ge=0, le=1)
    """Share of the draws that stays uniform."""

    def memory(self, schedule: Schedule) -> Memory:
        return {
            "history": torch.zeros(schedule.timesteps, self.history, dtype=torch.float64),  # of each step, the newest last
            "counts": torch.zeros(schedule.timesteps, dtype=torch.int64),  # how many losses each step remembers
        }

    def weights(self, memory: Memory) -> Tensor:
        """Unnormalised probabilities of the steps, float64 [T]; all 1 until every step's history is full."""
        history, counts = memory["history"], memory["counts"]
        if bool((counts < self.history).any()):
            return torch.ones(len(counts), dtype=torch.float64)
        moment = history.square().mean(1).sqrt()
        return (1 - self.uniform) * moment / moment.sum() + self.uniform / len(counts)

    def probabilities(self, memory: Memory) -> Tensor:
        """Probabilities of the steps, float64 [T]."""
        weights = self.weights(memory)
        return weights / weights.sum()

    def draw(self, schedule: Schedule, memory: Memory, count: int, rng: torch.Generator) -> Drawn:
        probabilities = self.probabilities(memory).to(rng.device)
        index = probabilities.multinomial(count, replacement=True, generator=rng)
        return Drawn(schedule.table.to(rng.device)[index + 1], self.importance(probabilities, index), index)

    @staticmethod
    def importance(probabilities: Tensor, index: Tensor) -> Tensor:
        """Importance weights 1/(T·p) of steps [N], float64."""
        return 1 / (len(probabilities) * probabilities[index])

    def remember(self, memory: Memory, index: Tensor, losses: Tensor) -> None:
        """Record the finite losses in their order; they displace the oldest of a full history."""
        history, counts = memory["history"], memory["counts"]
        for step, loss in zip(index.tolist(), losses.tolist(), strict=True):
            if not math.isfinite(loss):
                continue
            if counts[step] == self.history:
                history[step] = history[step].roll(-1)
                history[step, -1] = loss
            else:
                history[step, counts[step]] = loss
                counts[step] += 1


class LogNormal(Levels):
    """log(σ/α) ~ N(mean, std²), clamped to the chain's range (Karras et al. 2022, table 1). Network times are fractional."""

    kind: Literal["log_normal"] = "log_normal"
    mean: float = Field(default=-1.2, ge=-100, le=100)
    std: float = Field(default=1.2, gt=0, le=100)

    @property
    def continuous(self) -> bool:
        return True

    def check(self, schedule: Schedule) -> None:
        low, high = float(schedule.table[1].ratio), float(schedule.table[schedule.timesteps].ratio)
        if not math.log(low) < self.mean < math.log(high):
            raise Problem(
                f"levels 'log_normal': the median of σ/α is e^{self.mean:g}, and this schedule goes from {low:.2g} to {high:.2g}"
            )

    def draw(self, schedule: Schedule, memory: Memory, count: int, rng: torch.Generator) -> Drawn:
        normal = torch.randn(count, generator=rng, device=rng.device, dtype=torch.float64)
        return Drawn(schedule.at_ratios((self.mean + self.std * normal).exp()))


AnyLevels = Annotated[Uniform | LossSecondMoment | LogNormal, Field(discriminator="kind")]
