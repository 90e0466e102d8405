"""Bits per dimension of pictures under a model: the variational bound term by term, and the ODE's likelihood.

The bound (DDPM, equation 5) is of the ancestral chain through the levels of a plan: the costs of the prior, of each step, and of
the 8-bit data given the cleanest level. The likelihood of the probability-flow ODE (Song et al. 2021, section 4.3) is of the
density at the cleanest level. Its data are made continuous by uniform noise of one step of the 256, so the likelihood bounds the
bits too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.config import Config, Problem
from lodestar.core.estimate import Denoise, Estimate, Noise
from lodestar.core.level import Level
from lodestar.core.likelihood import ode_log_density
from lodestar.core.noise import SeededNoise
from lodestar.core.transition import Transition
from lodestar.data import Source, part, sequential
from lodestar.evaluation.evidence import DRAWS
from lodestar.evaluation.report import (
    Document,
    evenly,
    mean_with_error,
    measured_by,
    report_table,
    resized,
    standard_error,
    with_errors,
)
from lodestar.extras import need
from lodestar.files import atomic, write_csv
from lodestar.generators.base import Generator
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.guided import Guided
from lodestar.generators.request import Request, Settings, request
from lodestar.objectives.bound import BitsPerDimension, bits_per_dimension
from lodestar.progress import progress
from lodestar.samplers import Ancestral, Sampler

if TYPE_CHECKING:
    from rich.table import Table

PLAN = "logsnr:100"
"""Default plan. Most bits are decided in little noise, where levels even in time are few."""
COUNT = 256
"""Default number of pictures."""
_COARSE, _PROBED = 0.1, 16
"""Change of the ODE's bits with every second level beyond which the report warns, and the number of pictures in this test."""


class BPD(Config):
    """Bits per dimension, ``bpd``: a metric of a model on pictures, not of features, and so requested alone."""

    kind: Literal["bpd"] = "bpd"
    ode: bool = True
    """The ODE's likelihood too, at about six times the cost of the bound, of a diffusion model."""
    draws: int = Field(default=DRAWS, ge=1, le=100_000)
    """Number of draws of a picture's latents, of a VAE."""


@dataclass(frozen=True)
class Term:
    """One term of the bound: a line of the CSV."""

    name: str
    """"prior", "level" or "decoder"."""
    time: float
    """Network time at the level t of the term; the noisiest level's for the prior."""
    alpha: float
    sigma: float
    bits: float
    """Mean over the pictures, in bits per dimension."""
    standard_error: float
    x0_mse: float | None = None
    """Mean squared error of x̂₀ at t; None for the prior, which needs no network."""
    eps_mse: float | None = None
    """Mean squared error of ε̂ at t; None for the prior."""


@dataclass(frozen=True)
class Likelihood(Document):
    """The measured bits per dimension, with all their settings."""

    numbers: Mapping[str, float]
    """Numbers in bits per dimension: bpd (the bound) = prior + levels + decoder, and ode; names with _error are standard errors.

    ode_coarser: change of ode with every second level alone, for the first pictures; the error of ode is about a third of this
    with many levels. Missing for fewer than three levels.
    """
    terms: Sequence[Term]
    """Terms in the order of the chain: the prior, every step from the noisiest down, the decoder."""
    count: int
    """Pictures measured, spread evenly over the reference."""
    reference: str
    reference_fingerprint: str
    model_digest: str
    """SHA-256 of the model's file, as `lodestar info` shows it; of its configuration and weights if built in code."""
    model_dtype: str
    """Number format of the model's computation."""
    classes: str
    """The pictures' classes as given to the model, in words."""
    plan: str
    steps: int
    variance: str
    """Variance of the reverse chain: learned, small or large."""
    clamp: bool
    seed: int
    """Seed of the first picture's noise; picture k has seed + k."""
    seconds: float
    warnings: tuple[str, ...] = ()

    def table(self) -> Table:
        settings = {name: setting for name, setting in asdict(self).items() if name not in ("numbers", "terms", "warnings")}
        return report_table(with_errors(self.numbers), settings | {"seconds": f"{self.seconds:.1f}"}, self.warnings)

    def save(self, folder: Path) -> None:
        """Write report.json, bpd.csv (the terms) and bpd.png (their plot) into a folder. Raises Problem."""
        write_csv(folder / "bpd.csv", [asdict(term) for term in self.terms])
        super().save(folder)
        plot(folder / "bpd.png", self)


def measure(
    model: Diffusion,
    reference: Source,
    *,
    count: int = COUNT,
    seed: int = 0,
    batch_size: int = 64,
    how: Settings | None = None,
    ode: bool = True,
) -> Likelihood:
    """Bits per dimension of `count` pictures of the reference, resized and cropped to the model's size.

    how: of its settings, steps are the levels (default: `PLAN`, or the whole chain where the model has learned its variances
    outright), the sampler an `Ancestral` with the variance of the reverse chain (by default the model's own, else β̃), and clamp
    whether x̂₀ is clamped, as in sampling. A model of classes is told those of the pictures where they have the same. Progress
    goes to standard error. Raises Problem.
    """
    need("matplotlib")
    how, config = how or Settings(), model.config
    if model.space != model.shape:
        raise Problem("bits per dimension are of pixels, and this model makes latents")
    if model.config.denoiser.latent is not None:
        raise Problem("bits per dimension need an expectation of the picture, and this model draws with a latent")
    places, variance = evenly(reference, count), _variance(model, how.sampler)
    own = config.denoiser.variance == "learned" and variance == "learned"
    plan = how.steps or (str(config.schedule.timesteps) if own else PLAN)
    labels, classes = labels_of(model, reference, places)
    asked = request(labels, seed, Settings(steps=plan, clamp=how.clamp))
    steps = model.transitions(asked.settings)
    if own and len(steps) != config.schedule.timesteps:
        raise Problem(
            f"steps {plan!r}: this model has learned the variances of its chain's own {config.schedule.timesteps} steps: "
            "leave --steps out, or take --sampler ancestral:small"
        )
    start = time.perf_counter()
    found = _bits(model, asked, steps, part(reference, places, config.size), variance, ode, batch_size)
    numbers, terms = _numbers(found, steps)
    return Likelihood(
        numbers=numbers,
        terms=terms,
        count=count,
        **measured_by(model, reference),
        classes=classes,
        plan=plan,
        steps=len(steps),
        variance=variance,
        clamp=how.clamp,
        seed=seed,
        seconds=time.perf_counter() - start,
        warnings=tuple(_warnings(model, reference, steps, numbers)),
    )


@dataclass(frozen=True)
class _Found:
    """Bits of pictures, batch by batch."""

    bounds: list[BitsPerDimension] = field(default_factory=list)
    flows: list[Tensor] = field(default_factory=list)
    """Those of the ODE [B]."""
    changes: list[Tensor] = field(default_factory=list)
    """What they change by on every second level [B], of the first pictures."""


def _bits(
    model: Diffusion,
    asked: Request,
    steps: Sequence[Transition],
    pictures: Source,
    variance: str,
    ode: bool,
    batch_size: int,
) -> _Found:
    """The bits of all pictures, one for each of a request, with a progress bar."""
    guided, found = Guided(model, asked.settings.complete(model.limit)), _Found()
    levels = [step.t for step in reversed(steps)]
    coarser = [*levels[:-1:2], levels[-1]]
    calls = len(steps) + (2 * (len(steps) - 1) if ode else 0)
    model.eval()
    with progress("likelihood", len(pictures) * calls) as tick:
        for number, batch in enumerate(sequential(pictures, batch_size)):
            rows = slice(number * batch_size, number * batch_size + len(batch.image))
            denoise = _counting(guided.denoise(asked.asks[rows]), tick, rows.start * calls)
            noise, x0 = SeededNoise(asked.seeds[rows]), pixels.encode(batch.image.to(model.device))
            chain = denoise if variance == "learned" else _fixed(denoise)
            found.bounds.append(bits_per_dimension(chain, steps, x0, noise, "large" if variance == "large" else "small"))
            if ode:
                found.flows.append(ode_bits(denoise, levels, x0, noise))
            if ode and len(levels) > 2 and rows.start < _PROBED:
                few = slice(rows.start, min(rows.stop, _PROBED))
                seeds, plain = asked.seeds[few], guided.denoise(asked.asks[few])
                again = ode_bits(plain, coarser, x0[: len(seeds)], SeededNoise(seeds))
                found.changes.append(again - found.flows[-1][: len(seeds)])
    return found


def ode_bits(denoise: Denoise, levels: Sequence[Level], x0: Tensor, noise: Noise) -> Tensor:
    """Bits per dimension [B] of 8-bit data x0 [B, ...] in [−1, 1] by the ODE through levels, the cleanest first.

    Uniform noise as wide as a step of the 256 makes the data continuous; they stand for x/α at the first level.
    """
    width = 2 / 255
    continuous = x0 + width * (torch.special.ndtr(noise(x0)) - 0.5)
    dimension, alpha = x0[0].numel(), float(levels[0].alpha)
    log_density = ode_log_density(denoise, levels, alpha * continuous, noise) + dimension * math.log(alpha)
    return -(log_density / dimension + math.log(width)) / math.log(2.0)


def plot(path: Path, report: Likelihood) -> None:
    """Draw the bound's terms, and the errors of x̂₀ and ε̂, against σ/α, as a PNG. Raises Problem without matplotlib."""
    need("matplotlib")
    from matplotlib.figure import Figure

    prior, *rest = report.terms
    # Pure noise has no place on a logarithmic axis.
    steps, decoder = [term for term in rest if term.alpha > 0], rest[-1]
    ratios = [term.sigma / term.alpha for term in steps]
    figure = Figure(figsize=(10, 4.2), dpi=110, layout="constrained")
    numbers = report.numbers
    title = f"{numbers['bpd']:.3f} ± {numbers['bpd_error']:.3f} bits per dimension ({report.count} pictures, plan {report.plan})"
    if "ode" in numbers:
        title += f"; ODE {numbers['ode']:.3f} ± {numbers['ode_error']:.3f}"
    figure.suptitle(title, fontsize=10)
    left, right = figure.subplots(1, 2)
    left.errorbar(
        ratios[:-1], [term.bits for term in steps[:-1]], yerr=[term.standard_error for term in steps[:-1]],
        marker="o", markersize=3, linewidth=1, label="levels",
    )  # fmt: skip
    left.plot(ratios[-1], decoder.bits, "s", color="C1", label=f"decoder {decoder.bits:.3f}")
    left.plot(ratios[0], prior.bits, "^", color="C2", label=f"prior {prior.bits:.2g}")
    # The prior is often next to nothing; its number in the legend is enough then.
    left.set_ylim(bottom=0.5 * max(min(term.bits for term in steps), 1e-6))
    left.set_title("terms of the bound, bits per dimension", fontsize=10)
    right.plot(ratios, [term.x0_mse for term in steps], marker="o", markersize=3, linewidth=1, label="of x̂₀")
    right.plot(ratios, [term.eps_mse for term in steps], marker="o", markersize=3, linewidth=1, label="of ε̂")
    right.set_title("mean squared error", fontsize=10)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("σ/α")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    with atomic(path) as file:
        figure.savefig(file, format="png")


def _variance(model: Diffusion, sampler: Sampler | None) -> str:
    """Variance of the reverse chain: "learned", "small" or "large". Raises Problem."""
    if sampler is not None and not isinstance(sampler, Ancestral):
        raise Problem(
            f"metric bpd bounds the ancestral chain, and sampler {sampler.kind!r} has none: take ancestral, or leave it out"
        )
    learns, asked = model.config.denoiser.variance != "fixed", None if sampler is None else sampler.variance
    if asked == "learned" and not learns:
        raise Problem("sampler ancestral: variance is 'learned', and this model has none: choose from 'small', 'large'")
    return asked or ("learned" if learns else "small")


def labels_of(model: Generator, reference: Source, places: np.ndarray) -> tuple[tuple[int | None, ...], str]:
    """The class of each picture, and what they are in words. Raises Problem where a model needs them and they are not there."""
    names, classes = model.known
    if classes is not None and names and names == reference.names:
        return tuple(reference.label(place) for place in places), "those of the pictures"
    if classes is not None and not model.droppable:
        raise Problem(
            f"this model was never trained without its classes ({', '.join(names or ('without names',))}), "
            f"and {reference.spec} has {', '.join(reference.names) if reference.names else 'none'}"
        )
    return (None,) * len(places), "none"


def _counting(denoise: Denoise, tick: Callable[[float], None], done: int) -> Denoise:
    """The denoiser, reporting every picture to the progress bar, `done` before."""

    def counted(x: Tensor, level: Level) -> Estimate:
        nonlocal done
        done += len(x)
        tick(done)
        return denoise(x, level)

    return counted


def _fixed(denoise: Denoise) -> Denoise:
    """The denoiser without its learned variance."""
    return lambda x, level: replace(denoise(x, level), frac=None, logvar=None)


def _numbers(found: _Found, steps: Sequence[Transition]) -> tuple[dict[str, float], tuple[Term, ...]]:
    prior, terms, x0_mse, eps_mse = (
        torch.cat([getattr(bound, name) for bound in found.bounds]).double().cpu()
        for name in ("prior", "terms", "x0_mse", "eps_mse")
    )
    total = prior + terms.sum(1)
    numbers = {
        **mean_with_error("bpd", total),
        "prior": prior.mean().item(),
        "levels": terms[:, :-1].sum(1).mean().item(),
        "decoder": terms[:, -1].mean().item(),
    }
    if found.flows:
        flow = torch.cat(found.flows).cpu()
        numbers |= mean_with_error("ode", flow)
        numbers |= {"ode_coarser": torch.cat(found.changes).mean().item()} if found.changes else {}
    rows = [_term("prior", steps[0].t, prior)]
    for index, step in enumerate(steps):
        name = "decoder" if index == len(steps) - 1 else "level"
        term = _term(name, step.t, terms[:, index])
        rows.append(replace(term, x0_mse=x0_mse[:, index].mean().item(), eps_mse=eps_mse[:, index].mean().item()))
    return numbers, tuple(rows)


def _term(name: str, level: Level, bits: Tensor) -> Term:
    return Term(name, float(level.time), float(level.alpha), float(level.sigma), bits.mean().item(), standard_error(bits))


def _warnings(model: Diffusion, reference: Source, steps: Sequence[Transition], numbers: Mapping[str, float]) -> Iterator[str]:
    config = model.config
    yield from resized(reference, config.size)
    if steps[-1].t.ratio > 1.01 * config.schedule.table[1].ratio:
        yield "the plan ends above the chain's cleanest level, which costs the decoder and the ODE bits"
    if "ode" in numbers:
        change = numbers.get("ode_coarser", math.inf)
        if abs(change) > _COARSE:
            without = "cannot be checked" if change == math.inf else f"changes by {change:.2g} where every second is left out"
            yield f"{len(steps)} steps are too few for the ODE, whose figure {without}: take more, such as --steps {PLAN}"
