"""The command line. Commands import what they need when they run, so that help is there at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lodestar.guidance import AnyGuidance
    from lodestar.models.classifier import PictureClassifier
    from lodestar.models.diffusion import Diffusion
    from lodestar.samplers import AnySampler

app = typer.Typer(
    help="Guided diffusion of images: train, sample, guide and measure.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Model = Annotated[str, typer.Argument(help="An embedded model (cifar10), a run's folder, a file, or hf:owner/repository.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder to write to.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Picture k has the seed SEED + k, whatever the batch size.")]
Count = Annotated[int | None, typer.Option("--count", min=1, help="How many pictures.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Pictures at once.")]
Steps = Annotated[
    str | None,
    typer.Option(
        "--steps", help="Sampling plan: 250, 90,60,60,20,20, ddim25, fast27, leading:20, trailing:20, karras:20, logsnr:20."
    ),
]
SamplerText = Annotated[str | None, typer.Option("--sampler", help="ancestral, ddim, euler, heun, dpmpp; ddim:eta=0.5.")]
GuidanceTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--guidance", help="cfg:3 (1 = none; or cfg:w=2), classifier:2, threshold:0.995, interval:LOW,HIGH; in this order."
    ),
]
ClassifierName = Annotated[
    str | None, typer.Option("--classifier", help="The noise-aware classifier that guides (a name, run or file).")
]
Clip = Annotated[bool, typer.Option("--clip/--no-clip", help="Clamp what the model believes to the range of pictures.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 …; a GPU where there is one.")]


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from lodestar import __version__

        print(f"lodestar {__version__}")
        raise typer.Exit


@app.command()
def sample(
    model: Model,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="A class by name or number, with a count: dog=8. Repeatable.")
    ] = None,
    count: Count = None,
    guidance: GuidanceTexts = None,
    sampler: SamplerText = None,
    steps: Steps = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    classifier: ClassifierName = None,
    clip: Clip = True,
    device: Device = None,
    out: Out = None,
) -> None:
    """Sample pictures: numbered PNG files, a grid, and a manifest."""
    from lodestar.album import Album, Manifest, free_folder
    from lodestar.models.diffusion import Request
    from lodestar.progress import progress

    guides, chosen = parse_guidance(guidance), parse_sampler(sampler)
    network = load_diffusion(model, device)
    guide = load_guide(model, classifier, guides, device)
    labels = network.labels(ask(label, count), count, guide)
    request = Request(
        labels=labels, seeds=tuple(range(seed, seed + len(labels))), plan=steps, sampler=chosen, guidance=guides, clip=clip
    )
    network.check(request, guide)
    folder = out or free_folder("out", Path(model).stem)
    album = Album(folder, Manifest.of(request, network, guide), network.classes(guide)[0])
    with progress("sampling", len(labels)) as done:
        for frame in network.stream(request, batch_size=batch_size, classifier=guide):
            done(frame.first + len(frame.x) * frame.step / frame.steps)
            if frame.final:
                album.add(frame)
    print(album.finish())


@app.command()
def remake(
    manifest: Annotated[Path, typer.Argument(help="A manifest, or the folder that holds it.")],
    picture: Annotated[int, typer.Option("--picture", min=0, help="The number of the picture.")],
    out: Out = None,
    device: Device = None,
) -> None:
    """Make one picture of a manifest again, alone."""
    from lodestar.album import Manifest, free_folder
    from lodestar.config import Problem
    from lodestar.images import save_png

    known = Manifest.read(manifest)
    if picture >= len(known.request.labels):
        raise Problem(f"picture {picture}: this manifest has 0 to {len(known.request.labels) - 1}")
    network, guide = known.load(device)
    path = (out or free_folder("out", "remake")) / f"{picture:05d}.png"
    for frame in network.stream(known.request.only(picture), classifier=guide):
        if frame.final:
            save_png(path, frame.images[0])
    print(path)


@app.command()
def demo(
    out: Out = Path("out"),
    steps: Annotated[str, typer.Option("--steps", help="Sampling plan.")] = "20",
    seed: Seed = 0,
) -> None:
    """Draw one picture of what guidance does, from the embedded model."""
    import time

    from lodestar.demo import count, demo
    from lodestar.progress import progress

    began = time.perf_counter()
    with progress("sampling", count()) as done:
        path = demo((out or Path("out")) / "demo.png", steps=steps, seed=seed, done=done)
    print(f"{path}  ({count()} pictures in {time.perf_counter() - began:.0f} s)")


@app.command()
def train(
    run: Annotated[str, typer.Argument(help="A preset: cifar10, cifar10_classifier, digits, …")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings to change: train.optimizer.rate=2e-4 …")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="A parquet file, a folder (by class), hf:owner/name, or digits.")
    ] = None,
    validation: Annotated[str | None, typer.Option("--validation", help="Held-out pictures to report numbers on.")] = None,
    images: Annotated[
        int | None, typer.Option("--images", min=1, help="Images to see before the run ends, repeats counted.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Pictures at once.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of weights, data order and noise.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip and count pictures that cannot be decoded.")] = False,
    device: Device = None,
    out: Out = None,
) -> None:
    """Train a preset on your pictures. The same command again resumes."""
    import json

    from lodestar.config import choose, edit
    from lodestar.presets import RUNS
    from lodestar.train.loop import train as loop

    given = {
        "data.source": data,
        "data.validation": validation,
        "data.held_out": None if validation is None else 0.0,
        "train.images": images,
        "train.batch_size": batch_size,
        "train.seed": seed,
    }
    settings = [f"{path}={json.dumps(value)}" for path, value in given.items() if value is not None]
    if skip_bad:
        settings.append("data.skip_bad=true")
    loop(edit(choose("run", run, RUNS)(), [*settings, *(overrides or [])]), out or Path("runs") / run, device=device)


Reference = Annotated[
    str | None,
    typer.Option(
        "--reference", help="Pictures to compare with: a parquet file, a folder, hf:owner/name; an embedded model has its own."
    ),
]
ExtractorName = Annotated[
    str | None,
    typer.Option(
        "--extractor", help="The classifier whose features are compared (a name, run or file); default cifar10_features."
    ),
]


@app.command()
def evaluate(
    model: Annotated[str | None, typer.Argument(help="As in sample; leave it out with --samples.")] = None,
    reference: Reference = None,
    samples: Annotated[str | None, typer.Option("--samples", help="Measure these pictures instead of sampling a model.")] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="How many pictures to sample.")] = 5_000,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="frechet, score, kid:SUBSETS, precision_recall:K; default all. Repeatable."),
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
    """Measure a model, or pictures, against a reference: Fréchet distance, score, KID, precision and recall."""
    from rich.console import Console

    from lodestar.config import Problem, parse
    from lodestar.data import open_source
    from lodestar.evaluate import extractors, run
    from lodestar.evaluate.metrics import Metric
    from lodestar.files import write_text

    sampling = {"--guidance": guidance, "--sampler": sampler, "--steps": steps, "--classifier": classifier}
    for option in (name for name, value in sampling.items() if samples is not None and value):
        raise Problem(f"{option} has no effect on pictures that are there already: leave it out, or --samples")
    if (model is None) == (samples is None):
        raise Problem("evaluate needs a model, or --samples, " + ("and not both" if model else "and has neither"))
    metrics = [parse("metric", text, Metric) for text in metric] if metric else run.METRICS
    guides, chosen = parse_guidance(guidance), parse_sampler(sampler)
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
            network, source, measured_with, count=count, seed=seed, batch_size=batch_size, plan=steps, sampler=chosen,
            guidance=guides, clip=clip, classifier=load_guide(model, classifier, guides, device), metrics=metrics,
        )  # fmt: skip
    Console(markup=False).print(report.table())
    if out is not None:
        write_text(out / "report.json", report.to_json() + "\n")


@app.command()
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


@app.command()
def info(name: Annotated[str, typer.Argument(help="An embedded model, a run's folder, or a file.")]) -> None:
    """Tell what a model or a run is, without loading it."""
    from rich.console import Console

    from lodestar.info import describe

    Console(markup=False).print(describe(name))


def ask(labels: list[str] | None, count: int | None) -> list[str] | None:
    """Labels of the command line, ``dog=8`` repeated as often as it says. Raises Problem."""
    from lodestar.config import Problem

    if not labels:
        return None
    asked: list[str] = []
    for text in labels:
        name, separator, number = text.rpartition("=")
        if not separator:
            asked.append(text)
            continue
        if not number.isdecimal() or int(number) < 1:
            raise Problem(f"label {text!r}: {number!r} is not a count of at least 1")
        if count is not None:
            raise Problem(f"label {text!r} has a count and --count is {count}: give one of them")
        asked += [name] * int(number)
    return asked


def parse_guidance(texts: list[str] | None) -> tuple[AnyGuidance, ...]:
    """Guidance in its short form. Raises Problem."""
    from lodestar.config import parse
    from lodestar.guidance import AnyGuidance

    return tuple(parse("guidance", text, AnyGuidance) for text in texts or [])


def parse_sampler(text: str | None) -> AnySampler | None:
    """A sampler in its short form. Raises Problem."""
    from lodestar.config import parse
    from lodestar.samplers import AnySampler

    return None if text is None else parse("sampler", text, AnySampler)


def load_diffusion(name: str, device: str | None) -> Diffusion:
    """A diffusion model by name. Raises Problem."""
    from lodestar import library

    return library.load(name, device, "diffusion")  # type: ignore[return-value]


def load_guide(
    model: str, classifier: str | None, guidance: tuple[AnyGuidance, ...], device: str | None
) -> PictureClassifier | None:
    """The classifier that guides: the one given, else the model's companion; None where no guidance asks for one."""
    from lodestar import library
    from lodestar.config import Problem

    if not any(each.kind == "classifier" for each in guidance):
        if classifier is not None:
            raise Problem(f"--classifier {classifier} has no effect without --guidance classifier:SCALE")
        return None
    name = classifier or library.companion(model)
    if name is None:
        raise Problem(f"guidance classifier: {model} has no classifier of its own: give one with --classifier")
    loaded: Any = library.load(name, device, "classifier")
    return loaded
