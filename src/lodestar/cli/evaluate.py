"""Measuring: `evaluate` a model or pictures, `sweep` a setting."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.options import (
    BatchSize,
    ClassifierName,
    Clip,
    Device,
    ExtractorName,
    GuidanceTexts,
    Model,
    Out,
    Reference,
    SamplerText,
    Seed,
    Steps,
    load_diffusion,
    load_guide,
    parse_guidance,
    parse_sampler,
)


def evaluate(
    model: Annotated[str | None, typer.Argument(help="As in sample; leave it out with --samples.")] = None,
    reference: Reference = None,
    samples: Annotated[str | None, typer.Option("--samples", help="Measure these pictures instead of sampling a model.")] = None,
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="How many pictures to sample (5000), or for bpd to look at (256).")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="frechet, score, kid:SUBSETS, precision_recall:K; default all. Repeatable. Or bpd, alone."),
    ] = None,
    guidance: GuidanceTexts = None,
    sampler: SamplerText = None,
    steps: Steps = None,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    classifier: ClassifierName = None,
    clip: Clip = True,
    extractor: ExtractorName = None,
    device: Device = None,
    out: Out = None,
) -> None:
    """Measure a model, or pictures, against a reference: Fréchet distance, score, KID, precision, recall; or a model's bpd."""
    from rich.console import Console

    from lodestar.config import Problem, parse
    from lodestar.data import open_source
    from lodestar.evaluate import extractors, likelihood, run
    from lodestar.evaluate.metrics import Metric
    from lodestar.files import write_text

    sampling = {"--guidance": guidance, "--sampler": sampler, "--steps": steps, "--classifier": classifier}
    for option in (name for name, value in sampling.items() if samples is not None and value):
        raise Problem(f"{option} has no effect on pictures that are there already: leave it out, or --samples")
    if (model is None) == (samples is None):
        raise Problem("evaluate needs a model, or --samples, " + ("and not both" if model else "and has neither"))
    metrics = [parse("metric", text, Metric | likelihood.BPD) for text in metric] if metric else run.METRICS
    guides, chosen = parse_guidance(guidance), parse_sampler(sampler)
    if bpd := next((each for each in metrics if isinstance(each, likelihood.BPD)), None):
        beside = {
            "another --metric": len(metrics) > 1, "--samples": samples, "--guidance": guidance, "--classifier": classifier,
            "--extractor": extractor,
        }  # fmt: skip
        for option in (name for name, value in beside.items() if value):
            raise Problem(f"metric bpd looks at the reference's pictures through the model alone: leave out {option}")
        if reference is None:
            raise Problem("--reference is missing: the pictures to find likely (a parquet file, a folder, hf:owner/name)")
        assert model is not None
        network = load_diffusion(model, device)
        found = likelihood.measure(
            network, open_source(reference, channels=network.config.denoiser.network.in_channels), ode=bpd.ode, seed=seed,
            count=count or likelihood.COUNT, batch_size=batch_size, plan=steps, sampler=chosen, clip=clip,
        )  # fmt: skip
        Console(markup=False).print(found.table())
        folder = out or Path("out") / f"bpd-{Path(model).stem}"
        found.save(folder)
        print(folder / "bpd.png")
        return
    measured_with = extractors.load_extractor(extractor or extractors.DEFAULT, device)
    if samples is not None:
        pictures = open_source(samples, channels=measured_with.channels)
        source = run.open_reference(reference, None, measured_with, pictures.size)
        report = run.evaluate_pictures(pictures, source, measured_with, batch_size=batch_size, metrics=metrics)
    else:
        assert model is not None
        network = load_diffusion(model, device)
        source = run.open_reference(reference, model, measured_with, network.config.size)
        report = run.evaluate(
            network, source, measured_with, count=count or 5_000, seed=seed, batch_size=batch_size, plan=steps, sampler=chosen,
            guidance=guides, clip=clip, classifier=load_guide(model, classifier, guides, device), metrics=metrics,
        )  # fmt: skip
    Console(markup=False).print(report.table())
    if out is not None:
        write_text(out / "report.json", report.to_json() + "\n")


def sweep(
    model: Model,
    reference: Reference = None,
    scales: Annotated[str | None, typer.Option("--scales", help="Guidance scales to go through: 0,1,5,10,30.")] = None,
    plans: Annotated[str | None, typer.Option("--plans", help="Or sampling plans, separated by spaces: '5 10 20 50'.")] = None,
    guidance: GuidanceTexts = None,
    sampler: SamplerText = None,
    steps: Steps = None,
    count: Annotated[int, typer.Option("--count", min=1, help="How many pictures to sample at each value.")] = 2_000,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    classifier: ClassifierName = None,
    clip: Clip = True,
    extractor: ExtractorName = None,
    device: Device = None,
    out: Out = None,
) -> None:
    """Measure a model at several guidance scales, or steps: a plot, its numbers as CSV, and a grid of samples for each."""
    from lodestar.evaluate import extractors
    from lodestar.evaluate.run import open_reference
    from lodestar.evaluate.sweep import parse_scales
    from lodestar.evaluate.sweep import sweep as run

    guides, chosen = parse_guidance(guidance), parse_sampler(sampler)
    values = parse_scales(scales) if scales else ()
    measured_with = extractors.load_extractor(extractor or extractors.DEFAULT, device)
    network = load_diffusion(model, device)
    source = open_reference(reference, model, measured_with, network.config.size)
    guide = load_guide(model, classifier, guides, device)
    folder = out or Path("out") / f"sweep-{Path(model).stem}"
    run(
        network, source, measured_with, folder, scales=values, steps=(plans or "").split(), guidance=guides, count=count,
        seed=seed, batch_size=batch_size, plan=steps, sampler=chosen, clip=clip, classifier=guide,
    )  # fmt: skip
    print(folder / "sweep.png")
