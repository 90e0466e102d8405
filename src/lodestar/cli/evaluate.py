"""Measuring: `evaluate` a model or pictures, `sweep` a setting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar.cli.options import (
    BatchSize,
    DataSource,
    Device,
    ExtractorName,
    Reference,
    Sampling,
    flattened,
    show,
    tell,
)
from lodestar.cli.then import Cascading
from lodestar.config import COUNT
from lodestar.files import spelled

if TYPE_CHECKING:
    from lodestar.data import Source
    from lodestar.evaluation.extractors import Extractor
    from lodestar.evaluation.likelihood import BPD
    from lodestar.evaluation.run import Measurement
    from lodestar.generators.base import Generator


@dataclass(frozen=True)
class Measuring:
    """Options of measuring pictures."""

    reference: Reference = None
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="frechet, spatial_frechet, score (splits are shuffled, with Inception consecutive as published: "
            "score:splits=shuffled), kid:SUBSETS, precision_recall:K, density_coverage:K; nearest (copies? for a "
            "reference of training pictures), cmmd (for CLIP's features). Repeatable; default: all but these two. Of "
            "pictures and prompts: caption (the judge of shapes), clip_score. Or bpd, alone. A sweep draws frechet, score, "
            "precision_recall, caption, clip_score.",
        ),
    ] = None
    captions: Annotated[
        str | None,
        typer.Option(
            "--captions",
            help="Data whose captions are the prompts, picture k's the k-th: shapes@held_out, a parquet, a folder; default "
            "shapes@held_out for models of shapes.",
        ),
    ] = None
    caption_column: Annotated[
        str | None, typer.Option("--caption-column", help="The column of the captions, or several: 'caption_*'.")
    ] = None
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds", min=1, max=1_000, help="Number of measurements, each with new seeds, for means and 95 % intervals."
        ),
    ] = 1
    extractor: ExtractorName = None

    def measured_with(self, how: Measurement, device: str | None) -> Extractor | str | None:
        """The extractor, loaded where a metric needs features."""
        from lodestar.evaluation.reference import choose_extractor

        return choose_extractor(self.extractor, self.reference, device) if how.features else self.extractor

    def prompts(self) -> Source | str | None:
        """The data set of captions. Raises Problem."""
        from lodestar.config import Problem
        from lodestar.data import open_source

        if self.caption_column is None:
            return self.captions
        if self.captions is None:
            raise Problem(f"--caption-column {self.caption_column} has no effect without --captions")
        return open_source(self.captions, captions=True, caption_column=self.caption_column, labels=False)


@flattened
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model, as in sample, or pictures: a folder, a parquet, .npz, .zip or tar file; not with --samples."
        ),
    ] = None,
    samples: Annotated[
        str | None,
        typer.Option("--samples", help="Measure these pictures (a folder, a parquet, .npz, .zip or tar file), not a model's."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, max=COUNT, help="How many pictures to sample (5000), or for bpd to look at (256)."),
    ] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Measure OpenAI's published samples and compare with the numbers that they print.")
    ] = False,
    cascading: Cascading = Cascading(),
    measuring: Measuring = Measuring(),
    sampling: Sampling = Sampling(batch_size=64),
) -> None:
    """Measure a model, or pictures, against a reference: Fréchet distances, score, precision, recall and others; or its bpd."""
    from lodestar.config import Problem
    from lodestar.evaluation.likelihood import BPD
    from lodestar.evaluation.metrics.base import roles
    from lodestar.evaluation.run import Measurement
    from lodestar.python.evaluate import evaluate, of_pictures, opened, pictures_of, read_metrics, refuse_idle
    from lodestar.world import here

    if self_test:
        _self_test(model, samples, measuring, sampling)
        return
    if (model is None) == (samples is None):
        raise Problem("evaluate needs a model, or --samples, " + ("and not both" if model else "and has neither"))
    metrics = read_metrics(measuring.metric)
    if bpd := next((each for each in metrics or () if isinstance(each, BPD)), None):
        _bpd(model, bpd, count, samples, measuring, cascading, sampling)
        return
    how, network = Measurement(metrics=of_pictures(metrics)), None
    if model is not None:
        network = opened(model, sampling.device, sampling.precision)
    if network is None:
        refuse_idle(_sampled(sampling, count) | _guided(sampling, measuring.seeds, cascading, bool(roles(how.prompted))))
    else:
        network = cascading.onto(network, sampling)
    captions, extractor = measuring.prompts(), measuring.measured_with(how, sampling.device)
    report = evaluate(
        network or pictures_of(samples or model or "", extractor, bool(how.prompted) and captions is None), measuring.reference,
        count=count, metrics=measuring.metric, seeds=measuring.seeds, seed=sampling.seed, extractor=extractor,
        guides=sampling.guides(model or "", sampling.settings().guidance, others=roles(how.prompted)),
        batch_size=sampling.batch_size, out=sampling.out, captions=captions, **sampling.asked(),
    )  # fmt: skip
    if here().rank == 0:
        show(report.table())


def _sampled(sampling: Sampling, count: int | None) -> dict[str, object]:
    """The options of sampling, and whether each is given."""
    return {
        "--sampler": sampling.sampler, "--steps": sampling.steps, "--seed": sampling.seed, "--no-clamp": not sampling.clamp,
        "--count": count is not None,
    }  # fmt: skip


def _guided(sampling: Sampling, seeds: int, cascading: Cascading, guide: bool = False) -> dict[str, object]:
    """The options of guidance, of noise and of cascades, and whether each is given without a use; guide: --guide has one."""
    return {
        "--guidance": sampling.guidance, "--classifier": sampling.classifier, "--weak": sampling.weak,
        "--guide": sampling.guide and not guide,
        "--temperature": sampling.temperature != 1, "--reuse": sampling.reuse != 1, "--seeds": seeds > 1,
        "--top-k": sampling.top_k is not None, "--top-p": sampling.top_p is not None,
        "--truncation": sampling.truncation is not None,
        "--then": cascading.then, "--prior": cascading.prior,
    }  # fmt: skip


def _bpd(
    model: str | None,
    how: BPD,
    count: int | None,
    samples: str | None,
    measuring: Measuring,
    cascading: Cascading,
    sampling: Sampling,
) -> None:
    """Bits per dimension."""
    from lodestar.config import Problem
    from lodestar.evaluation import likelihood
    from lodestar.evaluation.likelihood import Likelihood
    from lodestar.evaluation.report import REPORT
    from lodestar.library import load
    from lodestar.python.evaluate import bpd

    beside = {
        "another --metric": len(measuring.metric or ()) > 1, "--samples": samples, "--extractor": measuring.extractor,
        "--captions": measuring.captions,
    }  # fmt: skip
    for option in (name for name, value in (beside | _guided(sampling, measuring.seeds, cascading)).items() if value):
        raise Problem(f"metric bpd looks at the reference's pictures through the model alone: leave out {option}")
    if measuring.reference is None:
        raise Problem("--reference is missing: the pictures to find likely (a parquet file, a folder, hf:owner/name)")
    assert model is not None, "--samples is left out"
    folder = sampling.out or Path("out") / f"bpd-{Path(model).stem}"
    found = bpd(
        load(model, sampling.device, dtype=sampling.precision), measuring.reference,
        count=count or likelihood.COUNT, ode=how.ode, draws=how.draws, seed=sampling.seed,
        batch_size=sampling.batch_size, out=folder, **sampling.asked(),
    )  # fmt: skip
    show(found.table())
    print(spelled(folder / ("bpd.png" if isinstance(found, Likelihood) else REPORT)))


def _self_test(model: str | None, samples: str | None, measuring: Measuring, sampling: Sampling) -> None:
    """Measure the published samples."""
    from lodestar.config import Problem
    from lodestar.evaluation.extractors import load_extractor
    from lodestar.evaluation.report import REPORT
    from lodestar.evaluation.self_test import self_test
    from lodestar.files import check_writable

    if model is not None or measuring.metric:
        idle = "--metric" if measuring.metric else f"the model {model}"
        raise Problem(f"--self-test measures published samples: leave out {idle}")
    if sampling.out is not None:
        check_writable(sampling.out / REPORT)
    inception = load_extractor(measuring.extractor or "inception", sampling.device)
    tell(self_test(samples, measuring.reference, inception, sampling.batch_size), sampling.out)


def stats(
    data: DataSource,
    out: Annotated[Path, typer.Option("--out", help="The file to write, NAME.safetensors.")],
    size: Annotated[
        int | None,
        typer.Option("--size", min=1, max=16_384, help="Side in pixels to resize and crop the pictures to, as for training."),
    ] = None,
    features_kept: Annotated[
        int | None,
        typer.Option("--keep", min=0, help="Pictures whose features are kept, evenly chosen (default all); moments are of all."),
    ] = None,
    batch_size: BatchSize = 64,
    extractor: ExtractorName = None,
    device: Device = None,
) -> None:
    """Compute the statistics of a reference's pictures once, into a file that --reference takes in their place."""
    from lodestar.config import Problem
    from lodestar.data import open_source
    from lodestar.evaluation import extractors
    from lodestar.evaluation.kept import keep
    from lodestar.evaluation.reference import collect
    from lodestar.evaluation.statistics import PARTS, Collector
    from lodestar.files import check_writable
    from lodestar.world import here

    if out.suffix != ".safetensors":
        raise Problem(f"--out {out}: the file's name has to end in .safetensors")
    check_writable(out)
    measured_with = extractors.load_extractor(extractor or extractors.DEFAULT, device)
    source = open_source(data, channels=measured_with.channels, size=size, labels=False)
    kept = len(source) if features_kept is None else min(features_kept, len(source))
    parts = PARTS if kept else PARTS - {"features", "logits"}
    known = collect(source, measured_with, Collector(parts, some=(kept, len(source)), world=here()), batch_size)
    if here().rank > 0:
        return
    keep(out, source, known, measured_with)
    print(f"{out}: {len(known)} pictures, {', '.join(f'{part} of {known.count(part)}' for part in sorted(known.parts))}")


@flattened
def sweep(
    model: Annotated[str | None, typer.Argument(help="A model, as in sample; or none, with --over model=A,B.")] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            "--over",
            help="A setting to go through, or two: scale=0,1,5; steps=5,10,20; sampler=ddim,heun; guidance='cfg:2 "
            "cfg:2+interval:0.3,5'; clamp; temperature; reuse=1,2,3; truncation=0.5,1,none; top_k; top_p; a field such as "
            "interval.low=0.1,0.3 or sampler.eta=0,1; prior=diffusion,autoregressive,text; model=A,B.",
        ),
    ] = None,
    scales: Annotated[str | None, typer.Option("--scales", help="Short for --over scale=…: 0,1,5,10,30.")] = None,
    plans: Annotated[str | None, typer.Option("--plans", help="Short for --over 'steps=…': '5 10 20 50'.")] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=COUNT, help="How many pictures to sample at each value.")] = 2_000,
    cascading: Cascading = Cascading(),
    measuring: Measuring = Measuring(),
    sampling: Sampling = Sampling(batch_size=64),
) -> None:
    """Measure a model over one or two settings, such as guidance scale and steps: a plot, a CSV, and grids of samples."""
    from lodestar.config import Problem
    from lodestar.evaluation.axes import axis
    from lodestar.evaluation.metrics.base import roles
    from lodestar.evaluation.run import Measurement
    from lodestar.library import load_generator
    from lodestar.python.evaluate import of_pictures, read_metrics
    from lodestar.python.sweep import axes, sweep, swept_guidance

    swept = axes(over or []) + (axes(f"scale={scales}") if scales else [])
    swept += [axis("steps", plans.split())] if plans else []
    how = Measurement(metrics=of_pictures(read_metrics(measuring.metric)))
    if cascading.prior is not None and any(one.name == "prior" for one in swept):
        raise Problem("--prior is what this sweep goes over, so it cannot be given as well")

    def network(name: str) -> Generator:
        return cascading.onto(load_generator(name, sampling.device, sampling.precision), sampling)

    found = sweep(
        network if model is None else network(model), measuring.reference, over=swept,
        count=count, seeds=measuring.seeds, seed=sampling.seed,
        extractor=measuring.measured_with(how, sampling.device),
        guides=sampling.guides(
            model, (*sampling.settings().guidance, *swept_guidance(swept)), others=roles(how.prompted)
        ),
        batch_size=sampling.batch_size, out=sampling.out or Path("out") / f"sweep-{Path(model or 'models').stem}",
        captions=measuring.prompts(), metrics=measuring.metric, **sampling.asked(),
    )  # fmt: skip
    show(found.table())
    print(spelled(found.folder / "sweep.png"))
