"""Write docs/steps.md and docs/steps.png: Fréchet distance against seconds a picture, of diffusers' defaults and of ours.

    python benchmarks/steps.py --count 2000 [--model cifar10] [--fast runs/fast] [--only "optimised trailing"]

The rows of diffusers are the model's own network as `lodestar export --to diffusers` writes it, as a UNet2DModel in float32
under DDPMScheduler (1000 steps) and DDIMScheduler (50); they need ``pip install diffusers``. Of these only a few steps are timed,
and their distances are those of our samplers of the same equations, on fewer pictures where --slow says so. A time is the median
of whole batches (of steps, for diffusers), taken in turn in one run, without measuring. Distances are kept in a folder, a file
each, so that an interrupted run goes on; optimised plans are those of the model's card (`lodestar plan`).
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import seconds

from lodestar import library
from lodestar.conversion import diffusers as form
from lodestar.evaluation.extractors import load_extractor
from lodestar.evaluation.measured import measured
from lodestar.evaluation.reference import open_reference
from lodestar.evaluation.run import Measurement
from lodestar.files import atomic, write_text
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.optima import optima
from lodestar.generators.request import Settings, request, settings
from lodestar.nets.native import processor
from lodestar.samplers import Ancestral

FEW = 4
"""Steps of diffusers' that are timed."""


@dataclass(frozen=True)
class Point:
    """A way to sample: a row of the table, and a dot of its curve."""

    curve: str
    model: str
    how: Settings
    precision: str | None = None
    theirs: str = ""
    """The class of diffusers' scheduler; empty for our sampling."""

    @property
    def steps(self) -> int:
        """The number of steps."""
        network: Diffusion = loaded(self.model, self.precision)
        return len(network.transitions(network.complete(self.how)))

    @property
    def file(self) -> str:
        """Name of the file with the distance."""
        parts = (
            Path(self.model).stem,
            self.how.sampler and self.how.sampler.kind,
            self.how.steps,
            self.precision,
            self.how.reuse,
        )
        return re.sub(r"\W+", "-", " ".join(str(part) for part in parts if part not in (None, 1)))[:150] + ".json"


MODELS: dict[tuple[str, str | None], Diffusion] = {}


def loaded(name: str, precision: str | None) -> Diffusion:
    """A model in a number format, loaded once."""
    if (name, precision) not in MODELS:
        MODELS[name, precision] = library.load_diffusion(name, dtype=precision)
    return MODELS[name, precision]


def points(model: str, fast: str | None) -> list[Point]:
    """Everything that is measured."""
    found = [
        Point("diffusers, DDPM", model, settings(steps=1000, sampler="ancestral"), "float32", "DDPMScheduler"),
        Point("diffusers, DDIM", model, settings(steps="leading:50", sampler="ddim"), "float32", "DDIMScheduler"),
    ]
    own = loaded(model, None)
    plans = {"trailing": "trailing:{}", "even in log σ/α": "logsnr:{}", "Karras": "karras:{}"}
    for curve, plan in plans.items():
        found += [Point(f"dpmpp, {curve}", model, settings(steps=plan.format(count))) for count in (6, 8, 10, 12, 20, 50)]
    for each in optima(own.provenance, model):
        if not each.guidance:
            curve = f"{each.sampler.kind}, optimised"
            found.append(Point(curve, model, Settings(steps=each.plan, sampler=each.sampler)))
    found += [Point("unipc, trailing", model, settings(steps=f"trailing:{count}", sampler="unipc")) for count in (6, 8, 10, 20)]
    for every in (2, 3):
        curve = f"dpmpp, trailing, reuse {every}"
        found += [Point(curve, model, settings(steps=f"trailing:{count}", reuse=every)) for count in (20, 50)]
    found += [Point("dpmpp, trailing, float32", model, settings(steps=f"trailing:{count}"), "float32") for count in (20, 50)]
    if fast is not None:
        found += [Point("distilled", fast, settings(steps=f"trailing:{count}")) for count in (1, 2, 4)]
    return found


def batch(point: Point, size: int) -> Callable[[], object]:
    """A call that samples a batch."""
    model = loaded(point.model, point.precision)
    prepared = model.prepare(request(model.labels(None, size), how=point.how))
    return lambda: [frame for frame in prepared.frames(size) if frame.final]


def theirs(point: Point, size: int) -> Callable[[], object]:
    """A call that takes `FEW` steps of diffusers' with a batch."""
    import diffusers

    with tempfile.TemporaryDirectory() as folder:
        form.export(library.load_diffusion(point.model, "cpu", "float32"), Path(folder), Ancestral(), None)
        unet = diffusers.UNet2DModel.from_pretrained(folder, subfolder="unet").eval()
        ddpm = diffusers.DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler = getattr(diffusers, point.theirs).from_config(ddpm.config)
    scheduler.set_timesteps(point.steps)
    x, labels = torch.randn(size, *loaded(point.model, None).shape), torch.arange(size) % 10

    @torch.inference_mode()
    def call() -> object:
        sample = x
        for time in scheduler.timesteps[:FEW]:
            output = unet(sample, time, class_labels=labels).sample
            # Of the schedulers, DDPM's alone knows of a learned variance.
            output = output if point.theirs == "DDPMScheduler" else output[:, : sample.shape[1]]
            sample = scheduler.step(output, time, sample).prev_sample
        return sample

    return call


def times(found: list[Point], size: int, repeats: int) -> dict[Point, float]:
    """Seconds a picture of each point, all taken in turn."""
    calls: dict[str, Callable[[], object]] = {}
    share: dict[str, float] = {}
    for number, point in enumerate(found):
        try:
            calls[str(number)] = theirs(point, size) if point.theirs else batch(point, size)
        except ImportError:
            print(f"{point.curve}: left out, diffusers is not installed")
            continue
        share[str(number)] = (point.steps / FEW if point.theirs else 1.0) / size
    taken = seconds(calls, repeats)
    return {found[int(name)]: share[name] * value for name, value in taken.items()}


def distance(point: Point, count: int, kept: Path, batch_size: int, reference: Any, known: bool) -> float | None:
    """The Fréchet distance of a point's pictures; None where only what is `known` is asked for, and this is not."""
    file = kept / point.file
    if known and not file.exists():
        return None
    how = loaded(point.model, point.precision).complete(point.how)
    report = measured(
        file, point.model, reference, load_extractor(), count=count, how=how, dtype=point.precision,
        run=Measurement(batch_size=batch_size, title=f"{point.curve}, {point.steps} steps"),
    )  # fmt: skip
    return float(report["numbers"]["frechet"])


def draw(path: Path, title: str, rows: list[tuple[Point, float, float]]) -> None:
    """The curves, as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(9, 6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for number, curve in enumerate(dict.fromkeys(point.curve for point, _, _ in rows)):
        mine = sorted((time, value, point.steps) for point, time, value in rows if point.curve == curve)
        style = {"marker": "s", "markersize": 7} if curve.startswith("diffusers") else {"marker": "o", "markersize": 4}
        line = "-" if number < 10 else "--"
        axes.plot([time for time, _, _ in mine], [value for _, value, _ in mine], linestyle=line, label=curve, **style)
        for time, value, steps in mine:
            axes.annotate(str(steps), (time, value), xytext=(3, 3), textcoords="offset points", fontsize=7)
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for each in (axes.xaxis, axes.yaxis):
        each.set_major_formatter(plain)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(plain)
    axes.set_xlabel("seconds a picture, on one core")
    axes.set_ylabel("Fréchet distance")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    with atomic(path) as file:
        figure.savefig(file, format="png")


def page(options: argparse.Namespace, rows: list[tuple[Point, float, float]], picture: str) -> str:
    """The text of the page."""
    slowest, steps = max(((time, point.steps) for point, time, _ in rows if point.theirs), default=(None, 0))
    column = f" times as fast as {steps} steps of diffusers |" if slowest else ""
    lines = [
        f"| | steps | seconds a picture | Fréchet distance |{column}",
        f"|---|---|---|---|{'---|' if slowest else ''}",
    ]
    given = {"slow": options.slow, "fast": options.fast}
    how = "".join(f" --{name} {value}" for name, value in given.items() if value is not None)
    larger = ", of which distances are larger" if options.slow else ""
    about_theirs = [
        f"The network in the rows of diffusers is the same one, exported; {FEW} of their steps were timed, and their distances,",
        f"of {options.slow or options.count} pictures{larger}, are those of our samplers of the same equations.",
    ]
    for point, time, value in rows:
        faster = f" {slowest / time:.0f} |" if slowest else ""
        lines.append(f"| {point.curve} | {point.steps} | {time:.3g} | {value:.2f} |{faster}")
    return "\n".join(
        [
            "# Fewer steps",
            "",
            f"Made by `python benchmarks/steps.py --count {options.count}{how}`: Fréchet distance of {options.count} pictures of",
            f"`{options.model}`, without guidance, the same seeds for all, and the seconds that a picture takes on one thread of",
            f"{processor().name}, in batches of {options.batch_size}. Our rows are in {loaded(options.model, None).precision}",
            "unless they say float32.",
            *([] if slowest is None else about_theirs),
            "",
            f"![Fréchet distance against seconds a picture; the numbers are steps]({picture})",
            "",
            *lines,
            "",
        ]
    )


def main() -> None:
    """Measure what is asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--fast", help="a model of 1, 2 and 4 steps")
    parser.add_argument("--only", default="", help="words, of which a curve's name has one")
    parser.add_argument("--count", type=int, default=2_000, help="pictures for each distance")
    parser.add_argument("--slow", type=int, help="pictures for the distances of diffusers' rows, where fewer")
    parser.add_argument("--known", action="store_true", help="measure no distance: draw those that are kept")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kept", type=Path, default=Path("out/steps"), help="where distances are kept")
    parser.add_argument("--out", type=Path, default=Path("docs/steps.md"), help="the page; its picture lies beside it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    words = options.only.split()
    found = [point for point in points(options.model, options.fast) if not words or any(word in point.curve for word in words)]
    reference = open_reference(None, "cifar10", load_extractor(), library.config(options.model).size)
    distances = {
        point: distance(
            point, options.slow or options.count if point.theirs else options.count, options.kept, options.batch_size, reference,
            options.known,
        )
        for point in sorted(found, key=lambda point: point.steps)
    }  # fmt: skip
    taken = times([point for point in found if distances[point] is not None], options.batch_size, options.repeats)
    rows = [(point, taken[point], value) for point in found if point in taken and (value := distances[point]) is not None]
    picture = options.out.with_suffix(".png")
    draw(picture, f"Fréchet distance of {options.model}, {options.count} pictures, no guidance; steps beside the dots", rows)
    write_text(options.out, page(options, rows, picture.name))
    print(options.out)


if __name__ == "__main__":
    main()
