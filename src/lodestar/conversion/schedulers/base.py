"""A scheduler of diffusers as a configuration: the process of training, and its sampling."""

from __future__ import annotations

import abc
from typing import Annotated, Any, Literal

from pydantic import Field

from lodestar.config import Problem, decode
from lodestar.conversion.settings import Foreign, Idle, Only
from lodestar.core.prediction import X0, AnyPrediction, Epsilon, Velocity
from lodestar.core.schedule import AnySchedule, Exponential, Linear, ScaledLinear, Sigmoid, SquaredCosCap
from lodestar.denoiser import Variance
from lodestar.guidance import Clamp, Threshold
from lodestar.samplers import AnySampler

Limit = Clamp | Threshold | None

FORMULAS = "only chains with a formula are read"
NO_BETA = "levels along a beta distribution are no plan here"
NO_FLOW = "the straight process of flow matching is none of the chains here"
UNCLEAR = "diffusers takes it for the variance itself, models here for its logarithm"

NoBeta = Annotated[bool | None, Only((False, None), NO_BETA)]
NoFlow = Annotated[bool | None, Only((False, None), NO_FLOW)]
OfFlow = Idle("it belongs to use_flow_sigmas")
PREDICTIONS: dict[str, AnyPrediction] = {"epsilon": Epsilon(), "sample": X0(), "v_prediction": Velocity()}


class Scheduler(Foreign, abc.ABC):
    """The settings of a scheduler class. Methods raise Problem for anything without an equivalent here."""

    @abc.abstractmethod
    def schedule(self) -> AnySchedule:
        """The training chain of levels."""

    @abc.abstractmethod
    def prediction(self) -> AnyPrediction:
        """The network's prediction."""

    @abc.abstractmethod
    def sampler(self) -> AnySampler:
        """The sampler equivalent to this class."""

    @abc.abstractmethod
    def plan(self) -> str:
        """The plan of the class's levels, in text, with diffusers' default number of steps."""

    def limit(self) -> Limit:
        """The limit of x̂₀ to the range of pictures."""
        return None

    def variance(self) -> Variance | None:
        """The reverse variance predicted by the network; None if the class has no setting for it."""
        return None


class Chained(Scheduler):
    """Classes whose process is a chain of variances β."""

    num_train_timesteps: int = Field(default=1000, ge=1, le=1_000_000)
    beta_start: float = Field(default=1e-4, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)
    beta_schedule: Annotated[str, Only(("linear", "scaled_linear", "squaredcos_cap_v2"), FORMULAS)] = "linear"
    trained_betas: Annotated[None, Only((None,), FORMULAS)] = None
    prediction_type: Annotated[str, Only(tuple(PREDICTIONS), "networks here predict ε, x₀ or v of a chain")] = "epsilon"

    def schedule(self) -> AnySchedule:
        zero = getattr(self, "rescale_betas_zero_snr", False)
        common: dict[str, Any] = {"timesteps": self.num_train_timesteps, "zero_terminal_snr": zero}
        ends: dict[str, Any] = {"beta_start": self.beta_start, "beta_end": self.beta_end}
        match self.beta_schedule:
            case "linear":
                return Linear(**common, **ends, scaled=False)
            case "scaled_linear":
                return ScaledLinear(**common, **ends)
            case "sigmoid":
                return Sigmoid(**common, **ends)
            case "exp":
                return Exponential(**common)
            case _:
                return SquaredCosCap(**common)

    def prediction(self) -> AnyPrediction:
        return PREDICTIONS[self.prediction_type]


class Spaced(Scheduler):
    """Classes with a spacing of the chain's steps."""

    timestep_spacing: Literal["linspace", "leading", "trailing"] = "linspace"
    steps_offset: int = Field(default=0, ge=0)


def spaced(scheduler: Scheduler, count: int, *, whole: bool, skip: bool = False, clean: bool = True) -> str:
    """The plan of `count` steps, spaced in time by the class's setting, or evenly without such a setting.

    whole: evenly spaced times are rounded. skip: count + 1 steps are spaced, and the last left out. clean: the plan ends at clean
    data.
    """
    spacing, offset = getattr(scheduler, "timestep_spacing", "linspace"), getattr(scheduler, "steps_offset", 0)
    settings = [
        ("whole=true", whole and spacing == "linspace"),
        ("skip_zero=true", skip and spacing != "trailing"),
        (f"offset={offset}", offset and spacing == "leading"),
        ("clean=false", not clean),
    ]
    return ",".join([f"{spacing}:{count}", *(text for text, holds in settings if holds)])


class Clipped(Scheduler):
    """Classes that clamp x̂₀."""

    clip_sample: bool = True
    clip_sample_range: float = Field(default=1.0, gt=0)

    def limit(self) -> Limit:
        return Clamp(limit=self.clip_sample_range, folded=True) if self.clip_sample else super().limit()


class Thresholded(Scheduler):
    """Classes that threshold x̂₀ (Saharia et al. 2022)."""

    thresholding: bool = False
    dynamic_thresholding_ratio: float = Field(default=0.995, gt=0, le=1)
    sample_max_value: float = Field(default=1.0, ge=1)

    def limit(self) -> Limit:
        if self.thresholding and self.sample_max_value == 1:
            return Clamp(folded=True)  # the same result
        if self.thresholding:
            return Threshold(ratio=self.dynamic_thresholding_ratio, maximum=self.sample_max_value)
        return super().limit()


class Sigmas(Scheduler):
    """Classes with optional spacing of levels by σ instead of time."""

    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: bool | None = False
    use_beta_sigmas: NoBeta = False

    def by_sigma(self, count: int, clean: bool = True, spans: bool = False) -> str | None:
        """The plan of `count` levels by σ, or None if spaced in time.

        spans: the plan covers the whole chain for any spacing, with whole network times (DPM-Solver's classes). Raises Problem if
        both spacings are set, and for an unsupported span.
        """
        chosen = [
            name for name in ("use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas") if getattr(self, name, False)
        ]
        if len(chosen) > 1:
            raise Problem(f"{' and '.join(chosen)} are both true: diffusers takes one of them")
        if not chosen:
            return None
        if not spans and (spacing := getattr(self, "timestep_spacing", "linspace")) != "linspace":
            raise Problem(
                f"{chosen[0]} is true and timestep_spacing {spacing!r}: only the span of 'linspace', the whole chain, is read; "
                "name levels with --steps"
            )
        # Times of a cosine chain, and of use_exponential_sigmas, are truncated there, off σ by up to one: not copied.
        whole = spans and chosen[0] != "use_exponential_sigmas" and getattr(self, "beta_schedule", "") != "squaredcos_cap_v2"
        kind = "karras" if chosen[0] == "use_karras_sigmas" else "logsnr"
        return f"{kind}:{count}" + ("" if clean else ",clean=false") + (",whole=true" if whole else "")


class Flow(Scheduler):
    """Classes with optional flow matching, in place of the chain."""

    use_flow_sigmas: NoFlow = False
    flow_shift: Annotated[float | None, OfFlow] = 1.0
    use_dynamic_shifting: NoFlow = False
    time_shift_type: Annotated[str, OfFlow] = "exponential"


def as_sampler(where: str, **fields: Any) -> AnySampler:
    """A sampler by its kind and settings. Raises Problem naming the class where there is none such."""
    sampler: AnySampler = decode(AnySampler, fields, where)
    return sampler
