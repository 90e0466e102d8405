"""A scheduler of diffusers as a configuration: the process that a network was trained on, and how it is sampled."""

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
    """The settings of one class of schedulers. What a method cannot answer with what we have, it refuses with a Problem."""

    @abc.abstractmethod
    def schedule(self) -> AnySchedule:
        """The chain of levels that the network was trained on."""

    @abc.abstractmethod
    def prediction(self) -> AnyPrediction:
        """What the network predicts."""

    @abc.abstractmethod
    def sampler(self) -> AnySampler:
        """The algorithm that samples as this class does."""

    @abc.abstractmethod
    def plan(self) -> str:
        """The levels that the class visits, in text, with the number of steps that diffusers takes unless told."""

    def limit(self) -> Limit:
        """How x̂₀ is kept in the range of pictures."""
        return None

    def variance(self) -> Variance | None:
        """What the network says of the reverse variance; None where the class has no setting for it."""
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
    """Classes that choose their steps of the chain by a spacing."""

    timestep_spacing: Literal["linspace", "leading", "trailing"] = "linspace"
    steps_offset: int = Field(default=0, ge=0)


def spaced(scheduler: Scheduler, count: int, *, whole: bool, skip: bool = False, clean: bool = True) -> str:
    """The plan of `count` steps, spaced in time as a class is set, or evenly where there is no such setting.

    whole: evenly spaced times are rounded. skip: one more is spaced, and the last of them left out. clean: where the steps end.
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
            return Clamp(folded=True)  # which is what it comes to
        if self.thresholding:
            return Threshold(ratio=self.dynamic_thresholding_ratio, maximum=self.sample_max_value)
        return super().limit()


class Sigmas(Scheduler):
    """Classes that may space levels by σ instead of time."""

    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: bool | None = False
    use_beta_sigmas: NoBeta = False

    def by_sigma(self, count: int, clean: bool = True, spans: bool = False) -> str | None:
        """The plan of `count` levels by σ, or None where they are spaced in time.

        spans: they span the whole chain whatever the spacing, and the network is told whole times (DPM-Solver's classes). Raises
        Problem where both ways are set, and for a span that no plan has.
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
        # Times of a cosine chain, and of use_exponential_sigmas, are cut off to whole ones there, off σ by up to one: not copied.
        whole = spans and chosen[0] != "use_exponential_sigmas" and getattr(self, "beta_schedule", "") != "squaredcos_cap_v2"
        kind = "karras" if chosen[0] == "use_karras_sigmas" else "logsnr"
        return f"{kind}:{count}" + ("" if clean else ",clean=false") + (",whole=true" if whole else "")


class Flow(Scheduler):
    """Classes that may run flow matching's process instead of the chain."""

    use_flow_sigmas: NoFlow = False
    flow_shift: Annotated[float | None, OfFlow] = 1.0
    use_dynamic_shifting: NoFlow = False
    time_shift_type: Annotated[str, OfFlow] = "exponential"


def as_sampler(where: str, **fields: Any) -> AnySampler:
    """A sampler by its kind and settings. Raises Problem naming the class where there is none such."""
    sampler: AnySampler = decode(AnySampler, fields, where)
    return sampler
