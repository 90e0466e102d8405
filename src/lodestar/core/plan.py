"""Sampling plans: the levels of a schedule that a sampler visits, from noisy to clean data.

In text (command line, `parse_plan`): ``250`` or ``90,60,60,20,20`` (numbers of steps in equal sections of the chain, as in
Improved DDPM and ADM), ``ddim25`` (every N-th), ``fast27`` (GLIDE's), and ``leading:20``, ``trailing:20``, ``linspace:20``,
``karras:20``, ``logsnr:20``. Further settings follow by name: ``leading:20,skip_zero=true``. With ``clean=false`` the last step
leads to the cleanest noisy level of the chain, where the picture is taken. ``at:39,17`` names steps of the chain itself,
``sigmas:14.6,3.9,0.9`` noise levels by their σ/α, and ``optimized:8`` the model's own plan of so many steps.
"""

from __future__ import annotations

import abc
import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from lodestar.config import TIMESTEPS, Config, Problem, decode, kinds, nearest, parse, short
from lodestar.core import sigmas
from lodestar.core.drawing import curve, points, svg
from lodestar.core.level import CLEAN, Level
from lodestar.core.schedule import Linear, Respaced, Schedule
from lodestar.core.transition import Transition, transitions


class Plan(Config, abc.ABC):
    """A sampling plan: a choice of levels."""

    @abc.abstractmethod
    def noisy(self, schedule: Schedule) -> list[Level]:
        """The noisy levels, from the noisiest to the cleanest."""

    def levels(self, schedule: Schedule) -> list[Level]:
        """The levels, from the noisiest to clean data, one more than steps. Raises Problem for too short a schedule."""
        return [*self.noisy(schedule), CLEAN]

    def steps(self, schedule: Schedule) -> list[Transition]:
        """The steps, noisy to clean. Raises Problem for too short a schedule."""
        return transitions(self.levels(schedule), schedule)

    def drawn(self, schedule: Schedule) -> str:
        """The plan's levels on the curve of a schedule's log-SNR, as SVG. Raises Problem as `levels` does."""
        levels = self.levels(schedule)
        title = (
            f"{len(levels) - 1} steps, {getattr(self, 'kind', type(self).__name__)}, on {getattr(schedule, 'kind', 'a schedule')}"
        )
        return svg(title, curve(schedule.table), points(levels))

    def _repr_html_(self) -> str | None:
        """The drawing for a notebook, on the linear chain of 1000 steps; None where the plan does not fit it."""
        try:
            return self.drawn(Linear())
        except Problem:
            return None


class Ended(Plan, abc.ABC):
    """A plan whose last step may stop at the cleanest noisy level. Its kinds declare `clean` themselves, after their count."""

    if TYPE_CHECKING:
        clean: bool

    def levels(self, schedule: Schedule) -> list[Level]:
        noisy, cleanest = self.noisy(schedule), schedule.table[1]
        if self.clean:
            return [*noisy, CLEAN]
        # A list with the cleanest noisy level already ends there.
        levels = noisy if math.isclose(noisy[-1].ratio, cleanest.ratio) else [*noisy, cleanest]
        if len(levels) == 1:
            raise Problem(f"steps {short(self)!r}: they begin and end at the cleanest noisy level, and take no step")
        return levels


class Indexed(Plan, abc.ABC):
    """A plan of some of the chain's own steps."""

    @abc.abstractmethod
    def indices(self, timesteps: int) -> list[int]:
        """The kept steps of 0 … timesteps − 1, ascending."""

    def noisy(self, schedule: Schedule) -> list[Level]:
        table = schedule.table
        return [table[index + 1] for index in reversed(self.indices(schedule.timesteps))]

    def respace(self, schedule: Schedule) -> Respaced:
        """The chain of these levels alone, with unchanged network times (Improved DDPM, section 4)."""
        kept = tuple(self.indices(schedule.timesteps))
        return Respaced.model_validate({"base": schedule, "kept": kept, "timesteps": len(kept)})


class Sections(Indexed):
    """Evenly spaced steps, a number in each of several equal sections of the chain, the section's first and last included."""

    kind: Literal["sections"] = "sections"
    counts: tuple[Annotated[int, Field(ge=1, le=TIMESTEPS)], ...] = Field(min_length=1, max_length=TIMESTEPS)

    def indices(self, timesteps: int) -> list[int]:
        size, extra = divmod(timesteps, len(self.counts))
        start, kept = 0, []
        for number, count in enumerate(self.counts):
            length = size + (number < extra)
            if count > length:
                text = ",".join(map(str, self.counts))
                raise Problem(f"steps {text!r}: {count} of them from a section of {length} (the schedule has {timesteps})")
            stride = 1.0 if count == 1 else (length - 1) / (count - 1)
            position = 0.0
            for _ in range(count):
                # Accumulated, not multiplied, and rounded half to even: the published lists depend on it.
                kept.append(start + round(position))
                position += stride
            start += length
        return sorted(set(kept))


class DDIMStride(Indexed):
    """Steps at a constant stride from 0, the smallest whole stride giving exactly `count` steps (DDIM's spacing)."""

    kind: Literal["ddim"] = "ddim"
    count: int = Field(ge=1, le=TIMESTEPS)

    def indices(self, timesteps: int) -> list[int]:
        for stride in range(1, timesteps + 1):
            if len(range(0, timesteps, stride)) == self.count:
                return list(range(0, timesteps, stride))
        raise Problem(
            f"steps 'ddim{self.count}': no whole stride through {timesteps} gives {self.count} of them; try '{self.count}'"
        )


class Fast27(Indexed):
    """GLIDE's 27 steps for its upsampler: "10,10,3,2,2" with the last step T − 1 replaced by T − 3."""

    kind: Literal["fast27"] = "fast27"

    def indices(self, timesteps: int) -> list[int]:
        kept = set(Sections(counts=(10, 10, 3, 2, 2)).indices(timesteps))
        return sorted(kept - {timesteps - 1} | {timesteps - 3})


class Leading(Ended, Indexed):
    """Steps k·(T // count) for k = 0 … count − 1; begins below the noisiest level."""

    kind: Literal["leading"] = "leading"
    count: int = Field(ge=1, le=TIMESTEPS)
    skip_zero: bool = False
    """Space count + 1 steps, and leave out 0 (diffusers' DPM-Solver)."""
    offset: int = Field(default=0, ge=0, lt=TIMESTEPS)
    """Number added to each step (diffusers' steps_offset; 1 in latent diffusion)."""
    clean: bool = True

    def indices(self, timesteps: int) -> list[int]:
        spaced = self.count + self.skip_zero
        _check(spaced, timesteps, "leading")
        steps = [self.offset + k * (timesteps // spaced) for k in range(self.skip_zero, spaced)]
        if steps[-1] >= timesteps:
            raise Problem(f"steps {short(self)!r}: there is no {steps[-1]}, the schedule's are 0 to {timesteps - 1}")
        return steps


class Trailing(Ended, Indexed):
    """Steps T − 1 − k·T/count, rounded; begins at the noisiest level (Lin et al. 2023)."""

    kind: Literal["trailing"] = "trailing"
    count: int = Field(ge=1, le=TIMESTEPS)
    clean: bool = True

    def indices(self, timesteps: int) -> list[int]:
        _check(self.count, timesteps, "trailing")
        # The rounding error of the first gap is part of the published lists: it decides ties.
        gap = timesteps - (timesteps - timesteps / self.count)
        return sorted(round(timesteps - k * gap) - 1 for k in range(self.count))


class AtSteps(Indexed):
    """Named steps of the chain, as in the published few-step samplers."""

    kind: Literal["at"] = "at"
    kept: tuple[Annotated[int, Field(ge=0, lt=TIMESTEPS)], ...] = Field(min_length=1, max_length=TIMESTEPS)
    """The steps, of 0 … T − 1, in any order."""

    def indices(self, timesteps: int) -> list[int]:
        if max(self.kept) >= timesteps:
            raise Problem(f"steps 'at': there is no {max(self.kept)}, the schedule's are 0 to {timesteps - 1}")
        return sorted(set(self.kept))


LARGEST_RATIO = 1e12
"""σ/α at which nothing is left of a picture."""


class Sigmas(Plan):
    """Named noise levels, σ/α from the noisiest to the cleanest, as optimised plans are published (Sabour et al. 2024)."""

    kind: Literal["sigmas"] = "sigmas"
    ratios: tuple[Annotated[float, Field(gt=0, le=LARGEST_RATIO)], ...] = Field(min_length=1, max_length=TIMESTEPS)
    """σ/α of the levels; a first one above the chain's range is the chain's noisiest level."""

    def noisy(self, schedule: Schedule) -> list[Level]:
        _check(len(self.ratios), schedule.timesteps, "sigmas")
        levels = [schedule.at_ratio(ratio) for ratio in self.ratios]
        for (before, level), ratio in zip(pairwise(levels), self.ratios[1:], strict=True):
            if level.ratio >= before.ratio:
                low, high = float(schedule.table[1].ratio), float(before.ratio)
                raise Problem(f"steps 'sigmas': {ratio:g} follows {high:.4g}: they fall, to {low:.3g} at the cleanest")
        return levels


class Optimized(Plan):
    """The plan of so many steps that was optimised for a model (`lodestar plan`); the model puts its levels in the place."""

    kind: Literal["optimized"] = "optimized"
    count: int = Field(ge=1, le=TIMESTEPS)

    def noisy(self, schedule: Schedule) -> list[Level]:
        raise Problem(f"steps 'optimized:{self.count}': such a plan is a model's own, and here is no model to ask")


class Linspace(Ended):
    """Evenly spaced times, both ends included; fractional times are kept."""

    kind: Literal["linspace"] = "linspace"
    count: int = Field(ge=2, le=TIMESTEPS)
    whole: bool = False
    """Round to the chain's own steps."""
    skip_zero: bool = False
    """Space count + 1 times, and leave out the cleanest (diffusers' DPM-Solver)."""
    clean: bool = True

    def noisy(self, schedule: Schedule) -> list[Level]:
        spaced, times = self.count + self.skip_zero, schedule.times()
        chosen = range(spaced - 1, self.skip_zero - 1, -1)
        if self.whole:
            _check(spaced, schedule.timesteps, "linspace")
            gap = (schedule.timesteps - 1) / (spaced - 1)
            return [schedule.table[round(k * gap) + 1] for k in chosen]
        first, last = times[0].item(), times[-1].item()
        return [schedule.at(first + (last - first) * (k / (spaced - 1))) for k in chosen]


class Karras(Ended):
    """σ/α = (max^(1/ρ) + k/(count − 1)·(min^(1/ρ) − max^(1/ρ)))^ρ over the schedule's range (Karras et al. 2022, eq. 5)."""

    kind: Literal["karras"] = "karras"
    count: int = Field(ge=2, le=TIMESTEPS)
    rho: float = Field(default=7.0, ge=0.1, le=1_000)
    clean: bool = True
    whole: bool = False
    """Round the network time to a whole number (diffusers' DPM-Solver); σ/α stays unrounded."""

    def noisy(self, schedule: Schedule) -> list[Level]:
        high, low = bounds(schedule)
        return _at_ratios(schedule, sigmas.karras(self.count, low, high, self.rho), self.whole)


class LogSNR(Ended):
    """Even steps of log σ/α over the schedule's own range (DPM-Solver's uniform λ)."""

    kind: Literal["logsnr"] = "logsnr"
    count: int = Field(ge=2, le=TIMESTEPS)
    clean: bool = True
    whole: bool = False
    """Round the network time to a whole number; see `Karras`."""

    def noisy(self, schedule: Schedule) -> list[Level]:
        high, low = bounds(schedule)
        return _at_ratios(schedule, sigmas.exponential(self.count, low, high), self.whole)


AnyPlan = Annotated[
    Sections | DDIMStride | Fast27 | Leading | Trailing | AtSteps | Sigmas | Optimized | Linspace | Karras | LogSNR,
    Field(discriminator="kind"),
]


PlanText = Annotated[str, BeforeValidator(lambda given: str(given) if type(given) is int else given)]
"""A plan as text in a configuration; a bare number is a number of steps."""


def parse_plan(text: str | int) -> Plan:
    """Read a plan from its text: ``250``, ``90,60,60,20,20``, ``ddim25``, ``fast27``, ``karras:20`` and so on. Raises Problem."""
    text = str(text).strip()
    if re.fullmatch(r"\d+(,\d+)*", text):
        counts = tuple(int(count) for count in text.split(","))
        if min(counts) < 1:
            raise Problem(f"steps {text!r}: every count is at least 1")
        return Sections(counts=counts)
    if match := re.fullmatch(r"ddim(\d+)", text):
        text = f"ddim:{match[1]}"
    if match := re.fullmatch(r"at:(\d+(?:,\d+)*)", text):
        return AtSteps(kept=tuple(int(step) for step in match[1].split(",")))
    if match := re.fullmatch(r"sigmas:([\d.,e+-]+)", text):
        return decode(Sigmas, f'{{"ratios": [{match[1]}]}}', f"steps {text!r}")
    if text.split(":")[0] in _NAMES:
        plan: Plan = parse("steps", text, AnyPlan)
        return plan
    spaced = [f"{name}:N" for name in _NAMES if name not in ("ddim", "fast27", "at", "sigmas")]
    close = nearest(text.split(":")[0], _NAMES)
    raise Problem(
        f"steps {text!r}: write a number (250), numbers (90,60,60), ddimN, fast27, {', '.join(spaced)}, at:N,N, sigmas:S,S{close}"
    )


def _check(count: int, timesteps: int, name: str) -> None:
    if count > timesteps:
        raise Problem(f"steps '{name}': {count} of them, and the schedule has only {timesteps}")


def _at_ratios(schedule: Schedule, ratios: list[float], whole: bool) -> list[Level]:
    levels = [schedule.at_ratio(ratio) for ratio in ratios]
    return [replace(level, time=float(round(float(level.time)))) for level in levels] if whole else levels


def bounds(schedule: Schedule) -> tuple[float, float]:
    """The largest and the smallest σ/α of a schedule. Pure noise has none; there the next level serves."""
    table = schedule.table
    last = table[schedule.timesteps]
    top = last if last.alpha > 0 else table[schedule.timesteps - 1]
    return float(top.ratio), float(table[1].ratio)


_NAMES = [name for name in kinds(AnyPlan) if name != "sections"]
