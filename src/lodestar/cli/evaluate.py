"""Measuring: `evaluate` a model or pictures, `sweep` a setting."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.options import (
    BatchSize,
    DataSource,
    Device,
    ExtractorName,
    Model,
    Reference,
    Sampling,
    flattened,
    show,
    tell,
)
from lodestar.config import COUNT

Seeds = Annotated[
    int,
    typer.Option("--seeds", min=1, max=1_000, help="Measure so often, each time with new seeds, for means and 95 % intervals."),
]


@flattened
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(help="As in sample, or pictures: a parquet, .npz, .zip or tar file; leave it out with --samples."),
    ] = None,
    reference: Reference = None,
    samples: Annotated[
        str | None,
        typer.Option("--samples", help="Measure these pictures (a folder, a parquet, .npz, .zip or tar file), not a model's."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, max=COUNT, help="How many pictures to sample (5000), or for bpd to look at (256)."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="frechet, spatial_frechet, score (splits are shuffled, with Inception consecutive as published: "
            "score:splits=shuffled), kid:SUBSETS, precision_recall:K, density_coverage:K; nearest (copies? for a "
            "reference of training pictures), cmmd (for CLIP's features). Repeatable; default: all but these two. Or bpd, alone.",
        ),
    ] = None,
    seeds: Seeds = 1,
    extractor: ExtractorName = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Measure OpenAI's published samples and compare with the numbers that they print.")
    ] = False,
    sampling: Sampling = Sampling(batch_size=64),
) -> None:
    """Measure a model, or pictures, against a reference: Fréchet distances, score, precision, recall and others; or its bpd."""
    from lodestar.config import Problem, parse
    from lodestar.data import ending, open_source
    from lodestar.evaluation import extractors, likelihood, run
    from lodestar.evaluation.metrics import Metric
    from lodestar.evaluation.published import is_published
    from lodestar.evaluation.reference import open_reference
    from lodestar.evaluation.self_test import self_test as measure_published
    from lodestar.files import check_writable
    from lodestar.library import load_diffusion

    if samples is None and model is not None and ending(Path(model)):
        model, samples = None, model
    guided: dict[str, object] = {
        "--guidance": sampling.guidance, "--classifier": sampling.classifier, "--weak": sampling.weak,
        "--temperature": sampling.temperature != 1, "--seeds": seeds > 1,
    }  # fmt: skip
    sampled = {"--sampler": sampling.sampler, "--steps": sampling.steps, **guided}
    for option in (name for name, value in sampled.items() if samples is not None and value):
        raise Problem(f"{option} has no effect on pictures that are there already: leave it out, or --samples")
    if sampling.out is not None:
        check_writable(sampling.out / "report.json")
    if self_test:
        if model is not None or metric:
            raise Problem(f"--self-test measures published samples: leave out {'--metric' if metric else f'the model {model}'}")
        inception = extractors.load_extractor(extractor or "inception", sampling.device)
        tell(measure_published(samples, reference, inception, sampling.batch_size), sampling.out)
        return
    if (model is None) == (samples is None):
        raise Problem("evaluate needs a model, or --samples, " + ("and not both" if model else "and has neither"))
    metrics = [parse("metric", text, Metric | likelihood.BPD) for text in metric] if metric else None
    how, batch_size, device, out = sampling.settings(), sampling.batch_size, sampling.device, sampling.out
    if bpd := next((each for each in metrics or () if isinstance(each, likelihood.BPD)), None):
        beside = {"another --metric": len(metrics or ()) > 1, "--samples": samples, "--extractor": extractor, **guided}
        for option in (name for name, value in beside.items() if value):
            raise Problem(f"metric bpd looks at the reference's pictures through the model alone: leave out {option}")
        if reference is None:
            raise Problem("--reference is missing: the pictures to find likely (a parquet file, a folder, hf:owner/name)")
        assert model is not None
        folder = out or Path("out") / f"bpd-{Path(model).stem}"
        check_writable(folder / "report.json")
        network = load_diffusion(model, device)
        pictures = open_source(reference, channels=network.config.denoiser.channels, labels=None)
        found = likelihood.measure(
            network, pictures, ode=bpd.ode, seed=sampling.seed, count=count or likelihood.COUNT, batch_size=batch_size, how=how,
        )  # fmt: skip
        found.save(folder)
        show(found.table())
        print(folder / "bpd.png")
        return
    default = "inception" if reference is not None and is_published(reference) else extractors.DEFAULT
    measured_with = extractors.load_extractor(extractor or default, device)
    if samples is not None:
        pictures = open_source(samples, channels=measured_with.channels, labels=False)
        source = open_reference(reference, None, measured_with, pictures.size, metrics=metrics, batch_size=batch_size)
        report = run.evaluate_pictures(pictures, source, measured_with, batch_size=batch_size, metrics=metrics, out=out)
    else:
        assert model is not None
        network = load_diffusion(model, device)
        source = open_reference(reference, model, measured_with, network.config.size, metrics=metrics, batch_size=batch_size)
        measurement = run.Measurement(metrics=metrics, batch_size=batch_size, repeats=seeds, out=out)
        report = run.evaluate(
            network, source, measured_with, how, count=count or 5_000, seed=sampling.seed, run=measurement,
            guides=sampling.guides(model, how.guidance),
        )  # fmt: skip
    tell(report, out)


def stats(
    data: DataSource,
    out: Annotated[Path, typer.Option("--out", help="The file to write, NAME.safetensors.")],
    size: Annotated[
        int | None,
        typer.Option("--size", min=1, max=16_384, help="Resize and crop the pictures to so many pixels, as for training."),
    ] = None,
    features_kept: Annotated[
        int | None,
        typer.Option(
            "--keep", min=0, help="Keep the features of so many pictures, evenly chosen (default all); moments are of all."
        ),
    ] = None,
    batch_size: BatchSize = 64,
    extractor: ExtractorName = None,
    device: Device = None,
) -> None:
    """Find out once what a reference's pictures are like: a file that --reference takes in their place."""
    from lodestar.config import Problem
    from lodestar.data import open_source
    from lodestar.evaluation import extractors
    from lodestar.evaluation.kept import keep
    from lodestar.evaluation.reference import collect
    from lodestar.evaluation.statistics import PARTS, Collector
    from lodestar.files import check_writable

    if out.suffix != ".safetensors":
        raise Problem(f"--out {out}: the file's name has to end in .safetensors")
    check_writable(out)
    measured_with = extractors.load_extractor(extractor or extractors.DEFAULT, device)
    source = open_source(data, channels=measured_with.channels, size=size, labels=False)
    kept = len(source) if features_kept is None else min(features_kept, len(source))
    parts = PARTS if kept else PARTS - {"features", "logits"}
    known = collect(source, measured_with, Collector(parts, some=(kept, len(source))), batch_size)
    keep(out, source, known, measured_with)
    print(f"{out}: {len(known)} pictures, {', '.join(f'{part} of {known.count(part)}' for part in sorted(known.parts))}")


@flattened
def sweep(
    model: Model,
    reference: Reference = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            "--over",
            help="A setting to go through, or two: scale=0,1,5; steps=5,10,20; sampler=ddim,heun; guidance='cfg:2 "
            "cfg:2+interval:0.3,5'; clamp; temperature; a field such as interval.low=0.1,0.3 or sampler.eta=0,1.",
        ),
    ] = None,
    scales: Annotated[str | None, typer.Option("--scales", help="Short for --over scale=…: 0,1,5,10,30.")] = None,
    plans: Annotated[str | None, typer.Option("--plans", help="Short for --over 'steps=…': '5 10 20 50'.")] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=COUNT, help="How many pictures to sample at each value.")] = 2_000,
    seeds: Seeds = 1,
    extractor: ExtractorName = None,
    sampling: Sampling = Sampling(batch_size=64),
) -> None:
    """Measure a model over one or two settings, such as guidance scale and steps: a plot, a CSV, and grids of samples."""
    from lodestar.evaluation import extractors
    from lodestar.evaluation.axes import axis, parse_axis, parse_guidances
    from lodestar.evaluation.reference import open_reference
    from lodestar.evaluation.run import Measurement
    from lodestar.evaluation.sweep import sweep as run
    from lodestar.library import load_diffusion

    how = sampling.settings()
    axes = [parse_axis(text) for text in over or []]
    axes += [parse_axis(f"scale={scales}")] if scales else []
    axes += [axis("steps", plans.split())] if plans else []
    listed = [each for one in axes if one.name == "guidance" for value in one.values for each in parse_guidances(value)]
    measured_with = extractors.load_extractor(extractor or extractors.DEFAULT, sampling.device)
    network = load_diffusion(model, sampling.device)
    source = open_reference(reference, model, measured_with, network.config.size)
    guides = sampling.guides(model, (*how.guidance, *listed))
    folder = sampling.out or Path("out") / f"sweep-{Path(model).stem}"
    run(
        network, source, measured_with, folder, over=axes, how=how, count=count, seed=sampling.seed, guides=guides,
        run=Measurement(batch_size=sampling.batch_size, repeats=seeds),
    )  # fmt: skip
    print(folder / "sweep.png")
