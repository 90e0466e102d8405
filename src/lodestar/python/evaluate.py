"""`lodestar.evaluate` and `lodestar.bpd`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from lodestar import bundle, library
from lodestar.config import BatchSize, Count, Problem, checked, parse, shown
from lodestar.data import Pictures, Source, ending, open_source
from lodestar.data.captions import CAPTION
from lodestar.evaluation import evidence, likelihood, rate, run
from lodestar.evaluation.captions import CaptionsOf, own_captions, read_captions
from lodestar.evaluation.extractors import Extractor
from lodestar.evaluation.kept import Kept, kept
from lodestar.evaluation.likelihood import BPD, Likelihood
from lodestar.evaluation.metrics import Metric
from lodestar.evaluation.metrics.base import BaseMetric, PromptedMetric, roles
from lodestar.evaluation.reference import Reference, choose_extractor, open_reference
from lodestar.evaluation.report import REPORT, Bits, Report
from lodestar.files import check_writable
from lodestar.generators.autoencoder import Autoencoder
from lodestar.generators.base import Generator
from lodestar.generators.code_prior import CodePrior
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.guide import Guides, check_given
from lodestar.generators.request import Asked, Settings, settings
from lodestar.generators.samples import Samples
from lodestar.results import results_folder
from lodestar.training.names import RUN
from lodestar.world import here

COUNT = 5_000
"""Default number of pictures to sample."""

AnyMetric = Metric | BPD


class Measured(Asked, total=False):
    """Settings of sampling, with captions to make pictures of."""

    captions: CaptionsOf
    """A data set whose captions are the prompts, in turn, or texts; default the held-out ones of a model of `shapes`."""


def evaluate(
    what: str | Path | Generator | Samples | Source | Pictures,
    reference: Reference = None,
    *,
    count: int | None = None,
    metrics: str | Metric | Sequence[str | Metric] | None = None,
    seeds: int = 1,
    seed: int = 0,
    extractor: str | Path | Extractor | None = None,
    guides: Guides | None = None,
    batch_size: int = 64,
    out: str | Path | None = None,
    **how: Unpack[Measured],
) -> Report:
    """Measure a model, or pictures that are there, against a reference: ``print(lodestar.evaluate("cifar10", count=500))``.

    what: a model, loaded or by its name, run or file; or pictures: `Samples`, a folder, a parquet, .npz, .zip or tar file, or
    another form of `lodestar.data.open_source`. reference: pictures in these forms, or a file of statistics; default the
    embedded model's, else the pictures of `captions`. count: number of pictures to sample from a model (default 5000), classes
    and captions in turn, picture k with the seed `seed` + k. metrics: "frechet", "kid:1000", `lodestar.metrics.KID` …, alone or
    in a list; default all that extractor and reference support. "caption" and "clip_score" compare pictures with their prompts,
    and need no reference. seeds: number of measurements, each with new seeds, for means and 95 % intervals. extractor: an
    extractor of features, or its name; default the package's, and Inception with a published reference. guides, how: as in
    `sample`, and for a model alone, but for the CLIP of "clip_score". captions: prompts of a model, or of pictures without
    their own. out: a folder, or its address, for report.json, and pictures beside their neighbours where the metric is
    "nearest". Progress goes to standard error. Raises Problem.
    """
    captions, seeds = how.pop("captions", None), checked("seeds", seeds, Count)
    chosen, asked = of_pictures(read_metrics(metrics)), settings(**how)
    check_given(guides or {}, asked.guidance, roles(chosen or ()))
    model = opened(what)
    if model is None:
        refuse_idle({"count": count is not None, "seeds": seeds > 1, "seed": seed, **settled(asked)})
    if out is not None:
        out = results_folder(out)
        check_writable(out / REPORT)
    neighbours = None if out is None or here().rank > 0 else out
    how_measured = run.Measurement(metrics=chosen, batch_size=batch_size, repeats=seeds, out=neighbours)
    check_compared(how_measured, reference, extractor)
    device = None if model is None else model.device
    measured_with = choose_extractor(extractor, reference, device) if how_measured.features else None
    if model is None:
        report = _of_pictures(what, reference, measured_with, captions, guides, how_measured)
    else:
        count = COUNT if count is None else count
        how_measured, otherwise = captioned(how_measured, captions, model, count, guides)
        source = compared_with(reference, model, measured_with, how_measured, otherwise)
        report = run.evaluate(model, source, measured_with, asked, count=count, seed=seed, guides=guides, run=how_measured)
    if out is not None and here().rank == 0:
        report.save(out)
    return report


def check_compared(how: run.Measurement, reference: Reference, extractor: str | Path | Extractor | None) -> None:
    """Raise Problem for a reference or an extractor without a metric of features."""
    for name, given in (("reference", reference), ("extractor", extractor)):
        if given is not None and not how.features:
            kinds = ", ".join(metric.kind for metric in how.prompted)
            raise Problem(f"{name} has no effect on {kinds}: pictures are compared with their prompts alone: leave it out")


def captioned(
    how: run.Measurement, captions: CaptionsOf, model: Generator, count: int, guides: Guides | None
) -> tuple[run.Measurement, CaptionsOf]:
    """Settings with captions, given ones or those of a model's training, and the captions' data set. Raises Problem."""
    captions = own_captions(model) if captions is None else captions
    if captions is None:
        return how, None
    found = read_captions(captions, checked("count", count, Count)).within(model, guides)
    return replace(how, captions=found), captions if found.spec else None


def compared_with(
    reference: Reference, model: Generator, extractor: Extractor | None, how: run.Measurement, captions: CaptionsOf
) -> Source | Kept | None:
    """The reference of a model: the one given, else its own, else the pictures of captions; None without an extractor."""
    if extractor is None:
        return None
    if reference is None and captions is not None and kept(model.name) is None:
        reference = captions
    size = (model.shape[1], model.shape[2])
    return open_reference(reference, model.name, extractor, size, metrics=how.features, batch_size=how.batch_size)


def bpd(
    model: str | Path | Diffusion | Autoencoder | CodePrior,
    pictures: str | Path | Source | Pictures,
    *,
    count: int = likelihood.COUNT,
    ode: bool = True,
    draws: int = evidence.DRAWS,
    seed: int = 0,
    batch_size: int = 64,
    out: str | Path | None = None,
    **how: Unpack[Asked],
) -> Likelihood | Bits:
    """Bits per dimension of pictures: under a diffusion model the variational bound and, if `ode`, the ODE's likelihood; under a
    VAE its evidence bound and the importance-weighted one; under a prior of codes the bits of their codes.

    model: loaded, or its name, run or file. pictures: as `lodestar.data.open_source` takes them, of which `count` are taken,
    evenly spread; picture k has the seed `seed` + k. how: of its settings, steps, sampler and clamp count
    (`lodestar.evaluation.likelihood.measure`). draws: of a VAE's latents, for each picture. out: a folder, or its address,
    for report.json, bpd.csv and bpd.png. Raises Problem.
    """
    asked = settings(**how)
    checked("batch size", batch_size, BatchSize)
    count = checked("count", count, Count)
    asked.check_effective("bits per dimension", "leave it out", "steps", "sampler", "clamp")
    if out is not None:
        out = results_folder(out)
        check_writable(out / REPORT)
    network = model if isinstance(model, Generator) else library.load_generator(model)
    told = isinstance(network, CodePrior) and network.text is not None
    source = open_source(pictures, channels=network.shape[0], labels=None, captions=told)
    found: Likelihood | Bits
    measured = f"the bits per dimension of {network.name or 'this model'}"
    if isinstance(network, Autoencoder | CodePrior):
        asked.check_effective(measured, "leave it out")
    if not isinstance(network, Autoencoder):
        refuse_idle({"draws": draws != evidence.DRAWS}, measured)
    if isinstance(network, CodePrior):
        found = rate.measure(network, source, count=count, batch_size=batch_size)
    elif isinstance(network, Autoencoder):
        found = evidence.measure(network, source, count=count, seed=seed, batch_size=batch_size, draws=draws)
    elif isinstance(network, Diffusion):
        found = likelihood.measure(network, source, count=count, seed=seed, batch_size=batch_size, how=asked, ode=ode)
    else:
        raise Problem(f"bits per dimension are of diffusion models, VAEs and priors of codes, and {network.name} is none of them")
    if out is not None:
        found.save(out)
    return found


def opened(
    what: str | Path | Generator | Samples | Source | Pictures, device: str | None = None, dtype: library.Dtype = None
) -> Generator | None:
    """The model that is meant, loaded where it is named; None where pictures are. Raises Problem where there is no such model.

    A file whose name ends as those of pictures do, and a folder that is no run's, hold pictures.
    """
    if not isinstance(what, str | Path):
        return what if isinstance(what, Generator) else None
    path = Path(what)
    if str(what) not in bundle.embedded():
        run_of = path / RUN, path / library.MODEL
        if ending(path) or (os.path.isdir(path) and not any(file.exists() for file in run_of)):
            return None
    return library.load_generator(what, device, dtype)


def settled(how: Settings) -> dict[str, bool]:
    """Settings by name, True where their values are not the defaults."""
    return {name: getattr(how, name) != getattr(Settings(), name) for name in Settings.model_fields}


def refuse_idle(given: Mapping[str, object], on: str = "pictures that are there already") -> None:
    """Raise Problem for the first setting, by name, that is given without an effect on what is measured."""
    for name in (name for name, value in given.items() if value):
        raise Problem(f"{name} has no effect on {on}: leave it out")


def read_metrics(given: str | AnyMetric | Sequence[str | AnyMetric] | None) -> list[AnyMetric] | None:
    """Metrics in the place of their short forms; None for those that can be had. Raises Problem."""
    if given is None:
        return None
    listed = [given] if isinstance(given, str) or not isinstance(given, Sequence) else given
    for each in listed:
        if not isinstance(each, str | BaseMetric | PromptedMetric | BPD):
            raise Problem(f"metric {shown(each)}: a metric, or its short form, such as frechet or kid:1000")
    return [parse("metric", each, AnyMetric) if isinstance(each, str) else each for each in listed]


def of_pictures(metrics: list[AnyMetric] | None) -> list[Metric] | None:
    """Metrics of pictures. Raises Problem for the metric bpd."""
    if any(isinstance(each, BPD) for each in metrics or ()):
        raise Problem(
            "metric bpd is of pictures under a model, and no metric of pictures alone: lodestar.bpd(model, pictures) measures it"
        )
    return metrics  # type: ignore[return-value]


def _of_pictures(
    what: str | Path | Generator | Samples | Source | Pictures,
    reference: Reference,
    extractor: Extractor | None,
    captions: CaptionsOf,
    guides: Guides | None,
    how: run.Measurement,
) -> Report:
    assert not isinstance(what, Generator)
    if captions is not None and not how.prompted:
        raise Problem("captions have no effect on pictures that are there already, but for metrics caption and clip_score")
    pictures = pictures_of(what, extractor, bool(how.prompted) and captions is None)
    if captions is not None:
        how = replace(how, captions=read_captions(captions, len(pictures)))
    made_by, against = what.origin.name if isinstance(what, Samples) else None, None
    if extractor is not None:
        against = open_reference(reference, made_by, extractor, pictures.size, metrics=how.features, batch_size=how.batch_size)
    return run.evaluate_pictures(pictures, against, extractor, guides=guides, run=how)


def pictures_of(what: str | Path | Samples | Source | Pictures, extractor: Extractor | str | None, prompts: bool) -> Source:
    """Pictures to be measured; prompts: with their captions. Raises Problem."""
    channels = extractor.channels if extractor is not None and not isinstance(extractor, str) else None
    return open_source(_with_prompts(what) if prompts else what, channels=channels, labels=False, captions=prompts)


def _with_prompts(what: str | Path | Samples | Source | Pictures) -> Any:
    """Samples as pictures with their prompts; others as they are."""
    if not isinstance(what, Samples):
        return what
    texts = (ask.text for ask in what.request.asks)
    return [{"image": picture, CAPTION: text} for picture, text in zip(what, texts, strict=True)]
