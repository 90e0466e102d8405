"""Optimised plans: the levels for which a few steps end nearest to where many steps end, from the same noise.

The search is a damped Gauss-Newton method (Levenberg and Marquardt) over log σ/α of the levels. The residuals are the values
of pictures, of seeds apart from the usual ones, against those of a fine plan with the same sampler and guidance. So the error of
the sampler as a whole is minimised (as by Tong et al. 2024, "Learning to Discretize Denoising Diffusion ODEs"), and neither a
bound of it (Sabour et al. 2024, Xue et al. 2024) nor a sum over steps (Watson et al. 2021). Searches begin at the best of the
usual plans and at the one that is even in network time; the better end counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lodestar.config import Problem
from lodestar.core.plan import bounds, parse_plan
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.guide import Guides, referring
from lodestar.generators.optima import Optimum
from lodestar.generators.request import Prompts, Request, Settings, seeded

USUAL = ("{}", "trailing:{}", "linspace:{}", "logsnr:{}", "karras:{}")
"""The usual plans, the best of which a search begins at."""
EVEN = "trailing:{}"
"""The plan, even in network time, that every search also begins at."""
FINE = "trailing:100"
"""The plan whose pictures are to be met."""
SEED = 2**40
"""First seed of a search: usual seeds, from 0, are for measuring."""
ROUNDS = 12
"""Derivatives are taken at most so often."""
NUDGE, LEAST, MOST = 0.1, 0.02, 0.2
"""A derivative is a difference quotient over this share of the gap below a level, within these bounds, in log σ/α."""
DAMPING, EASE, TRIALS = 1e-2, 5.0, 4
"""Damping at first, its change by success and failure, and the trials of one derivative."""
ENOUGH = 0.02
"""A round that lowers the mean square by a smaller fraction is the last."""


@dataclass
class Search:
    """A search for plans of one model, sampler and guidance."""

    model: Diffusion
    how: Settings
    """Settings with the sampler; its steps are those of the fine plan."""
    tell: Callable[[str], None]
    """Told of every round, in a line."""
    guides: Guides = field(default_factory=dict)
    prompts: Prompts = Prompts()
    """Prompts of the pictures, in turn."""
    count: int = 64
    """Number of pictures to fit; half as many more are held apart, to measure."""
    seed: int = SEED
    batch_size: int = 32

    def __post_init__(self) -> None:
        self.apart = max(self.count // 2, 1)
        wanted = self.model.wanted(None, self.prompts, self.count + self.apart, self.guides)
        self.fitted = referring(seeded(wanted[: self.count], self.seed, self.how), self.guides)
        self.held = referring(seeded(wanted[self.count :], self.seed + self.count, self.how), self.guides)

    def check(self, steps: Sequence[int]) -> None:
        """Raise Problem, before any work, where plans of so many steps cannot be found."""
        how = self.model.complete(self.how)
        sampler = how.sampler
        assert sampler is not None
        if sampler.adaptive:
            raise Problem(f"sampler {sampler.kind} chooses its own steps: there is no plan of them to optimise")
        if sampler.stochastic:
            raise Problem(
                f"sampler {sampler.kind} draws noise in its steps, so few of them end elsewhere than many by chance: "
                "optimise a plan for one that draws none, such as ddim, dpmpp or unipc"
            )
        chain = self.model.config.schedule.timesteps
        for count in steps:
            if not 2 <= count <= chain:
                raise Problem(f"steps {count}: a plan to optimise has 2 steps at least, and the chain's {chain} at most")
        fine = len(self.model.transitions(how))
        if fine <= max(steps):
            raise Problem(f"fine plan {how.steps!r} has {fine} steps: it needs more than the plan of {max(steps)} to optimise")
        self.model.check(self.fitted, self.guides)

    def run(self, steps: Sequence[int]) -> list[Optimum]:
        """An optimised plan for each of these numbers of steps. Raises Problem."""
        self.check(steps)
        self.tell(f"pictures of the fine plan {self.how.steps}, {self.count} to fit and {self.apart} apart")
        target, held = (self.ends(asked, self.how.steps or FINE) for asked in (self.fitted, self.held))
        found = list[Optimum]()
        for count in sorted(steps):
            found.append(self._optimum(count, target, held, found[-1] if found else None))
        return found

    def ends(self, asked: Request, plan: str) -> Tensor:
        """Ends of sampling by a plan, before they become pictures: float32 [N, C, H, W]."""
        prepared = self.model.prepare(asked.replace(settings=asked.settings.replace(steps=plan)), self.guides)
        return torch.cat([frame.x for frame in prepared.frames(self.batch_size) if frame.final])

    def _optimum(self, count: int, target: Tensor, held: Tensor, fewer: Optimum | None) -> Optimum:
        """The optimised plan of `count` steps; fewer: that of the number before, which the search may begin at as well."""

        def error_of(plan: str, asked: Request = self.fitted, target: Tensor = target) -> float:
            return math.sqrt(_mean_square(self.ends(asked, plan) - target))

        errors = {plan: error_of(plan) for plan in (text.format(count) for text in USUAL)}
        start = usual = min(errors, key=lambda plan: errors[plan])
        self.tell(f"{count} steps: {usual} is the best of the usual plans, error {errors[usual]:.4f}")
        if fewer is not None and error_of(more := _text(_stretched(self._logs(fewer.plan), count))) < errors[usual]:
            start = more
        # The nearest start is not always in the deepest valley: plans even in log σ/α waste levels on what is nearly pure noise.
        starts = dict.fromkeys((start, EVEN.format(count)))
        plan = min((self._descend(each, target) for each in starts), key=error_of)
        error, usual_error = (error_of(each, self.held, held) for each in (plan, usual))
        if error > usual_error:  # by the seeds apart there is nothing to gain
            plan, error = _text(self._logs(usual)), usual_error
        self.tell(f"{count} steps: {plan}, error {error:.4f} apart, and {usual_error:.4f} of {usual}")
        how = self.model.complete(self.how)
        assert how.sampler is not None
        return Optimum(
            steps=count, plan=plan, sampler=how.sampler, guidance=how.guidance, error=error, usual=usual,
            usual_error=usual_error, fine=self.how.steps or FINE, pictures=self.count,
        )  # fmt: skip

    def _descend(self, start: str, target: Tensor) -> str:
        """The plan at the end of a search that begins at another."""

        def residuals(logs: Tensor) -> Tensor:
            return (self.ends(self.fitted, _text(logs)) - target).flatten().double()

        logs, damping = self._logs(start), DAMPING
        now = residuals(logs)
        for number in range(ROUNDS):
            slopes = self._slopes(logs, now, residuals)
            before = _mean_square(now)
            for _ in range(TRIALS):
                there = self._ordered(logs, logs - _damped(slopes, now, damping))
                then = residuals(there)
                if _mean_square(then) < before:
                    logs, now, damping = there, then, damping / EASE
                    break
                damping *= EASE
            after = _mean_square(now)
            self.tell(f"{len(logs)} steps, round {number + 1} of {ROUNDS} at most: error {after**0.5:.4f}")
            if after > (1 - ENOUGH) * before:
                break
        return _text(logs)

    def _slopes(self, logs: Tensor, now: Tensor, residuals: Callable[[Tensor], Tensor]) -> Tensor:
        """Derivatives of the residuals by each level, [values, levels]."""
        low, high = self._range
        above, below = (
            (logs.new_tensor([high, *logs[:-1]]) - logs).tolist(),
            (logs - logs.new_tensor([*logs[1:], low])).tolist(),
        )
        columns = []
        for place, (up, down) in enumerate(zip(above, below, strict=True)):
            width = min(max(NUDGE * max(up, down), LEAST), MOST)
            nudge = width if up > down else -width
            moved = logs.clone()
            moved[place] += nudge
            columns.append((residuals(moved) - now) / nudge)
        return torch.stack(columns, dim=1)

    def _ordered(self, logs: Tensor, moved: Tensor) -> Tensor:
        """Levels moved at most half way to their neighbours, and within the chain."""
        low, high = self._range
        middle, rest = (logs[:-1] + logs[1:]) / 2, 1e-3
        upper = torch.cat([logs.new_tensor([high]), middle - rest])
        lower = torch.cat([middle + rest, logs.new_tensor([low])])
        return moved.minimum(upper).maximum(lower)

    def _logs(self, plan: str) -> Tensor:
        """log σ/α of a plan's noisy levels, float64; of pure noise, that of the chain's next level."""
        levels = parse_plan(plan).noisy(self.model.config.schedule)
        return torch.tensor([math.log(level.ratio) for level in levels], dtype=torch.float64).clamp(max=self._range[1])

    @property
    def _range(self) -> tuple[float, float]:
        """log σ/α of the chain's cleanest and noisiest levels."""
        high, low = map(math.log, bounds(self.model.config.schedule))
        return low, high


def _stretched(logs: Tensor, count: int) -> Tensor:
    """Levels of a longer plan, linear in log σ/α between those of a shorter one; its wide first step stays one step."""
    first, rest = logs[:1], logs[1:] if len(logs) > 2 else logs
    place = torch.linspace(0, len(rest) - 1, count - 1 if len(logs) > 2 else count, dtype=logs.dtype)
    below = place.floor().long().clamp(max=len(rest) - 2)
    between = torch.lerp(rest[below], rest[below + 1], place - below)
    return torch.cat([first, between]) if len(logs) > 2 else between


def _damped(slopes: Tensor, now: Tensor, damping: float) -> Tensor:
    """The damped Gauss-Newton step, in the scale of each level's own curvature."""
    square = slopes.T @ slopes
    own = square.diagonal()
    step: Tensor = torch.linalg.solve(square + damping * torch.diag(own + 1e-9 * own.max()), slopes.T @ now)
    return step


def _mean_square(values: Tensor) -> float:
    return float(values.double().square().mean())


def _text(logs: Tensor) -> str:
    """The plan with levels of these log σ/α, rounded."""
    return f"sigmas:{','.join(f'{math.exp(log):.5g}' for log in logs.tolist())}"
