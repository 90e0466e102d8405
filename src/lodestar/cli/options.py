"""What several commands have in common: options of one meaning everywhere, the readers of their short forms, and tables."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from lodestar.config import COUNT, SEEDS, Problem

if TYPE_CHECKING:
    from rich.table import Table

    from lodestar.evaluate.report import Report
    from lodestar.guidance import AnyGuidance
    from lodestar.models.classifier import PictureClassifier
    from lodestar.models.diffusion import Diffusion
    from lodestar.samplers import AnySampler

Model = Annotated[str, typer.Argument(help="An embedded model (cifar10), a run's folder, a file, or hf:owner/repository.")]
PICTURES = "A parquet, .npz or .zip file, a folder (by class), hf:owner/name, or digits."
DataSource = Annotated[str, typer.Argument(help=PICTURES)]
BATCH = 100_000
"""Pictures at once: more than any memory takes."""
Out = Annotated[Path | None, typer.Option("--out", help="Folder to write to.")]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=SEEDS // 2 - 1, help="Picture k has the seed SEED + k, whatever the batch size.")
]
Count = Annotated[int | None, typer.Option("--count", min=1, max=COUNT, help="How many pictures.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, max=BATCH, help="Pictures at once.")]
Steps = Annotated[
    str | None,
    typer.Option(
        "--steps",
        help="Sampling plan: 250, 90,60,60,20,20, ddim25, fast27, leading:20, trailing:20, linspace:20, karras:20, logsnr:20, "
        "at:39,17.",
    ),
]
SamplerText = Annotated[
    str | None,
    typer.Option(
        "--sampler",
        help="ancestral, ddim, plms, euler, euler_ancestral, heun, edm, dpmpp, dpmpp_single, dpmpp_sde, dpm_adaptive, unipc, "
        "lms, predictor_corrector, consistency; ddim:eta=0.5.",
    ),
]
GuidanceTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--guidance",
        help="cfg:3 (1 = none; or cfg:w=2), cfgpp:0.6, apg:3, autoguidance:2, pag:1, sag:0.5, clip:1, "
        "threshold:0.995, classifier:2 (classifier:2,sees=clean), interval:LOW,HIGH; in this order.",
    ),
]
ClassifierName = Annotated[
    str | None,
    typer.Option(
        "--classifier", "--critic", help="The classifier that guides (a name, run or file): noise-aware, but for sees=clean."
    ),
]
WeakName = Annotated[
    str | None,
    typer.Option(
        "--weak", help="The weaker model that autoguidance leads away from (a name, run or file); default the model's own."
    ),
]
Temperature = Annotated[
    float, typer.Option("--temperature", help="Deviation of all noise that is drawn; below 1 is likelier, less diverse.")
]
Clip = Annotated[bool, typer.Option("--clip/--no-clip", help="Clamp what the model believes to the range of pictures.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 …; a GPU where there is one.")]
Reference = Annotated[
    str | None,
    typer.Option(
        "--reference",
        help="Pictures to compare with (a parquet, .npz or .zip file, a folder, hf:owner/name), or a file of statistics (ours, "
        "or a published .npz); embedded models have one.",
    ),
]
ExtractorName = Annotated[
    str | None,
    typer.Option(
        "--extractor",
        "--features",
        help="What makes the features that are compared: inception, inception:WEIGHTS, dinov2, clip, or a classifier (a name, a "
        "run or a file); default cifar10_features, and inception with a published reference.",
    ),
]


@dataclass(frozen=True)
class Solving:
    """The options of every command that runs a sampler. `flattened` makes them a command's; what each has here is its default."""

    guidance: GuidanceTexts = None
    sampler: SamplerText = None
    steps: Steps = None
    batch_size: BatchSize = 32
    classifier: ClassifierName = None
    weak: WeakName = None
    clip: Clip = True
    device: Device = None
    out: Out = None

    def settings(self) -> dict[str, Any]:
        """What they say of a `Request`, by the names of its fields. Raises Problem."""
        guidance, sampler = parse_guidance(self.guidance), parse_sampler(self.sampler)
        return {"plan": self.steps, "sampler": sampler, "guidance": guidance, "clip": self.clip}

    def guides(self, model: str, guidance: tuple[AnyGuidance, ...]) -> dict[str, Any]:
        """The classifier and the weaker model that this guidance of a model asks for, by these names. Raises Problem."""
        return {
            "classifier": load_guide(model, self.classifier, guidance, self.device),
            "weak": load_weak(model, self.weak, guidance, self.device),
        }


@dataclass(frozen=True)
class Sampling(Solving):
    """Those of `Solving`, and of the commands that draw noise."""

    seed: Seed = 0
    temperature: Temperature = 1.0

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"temperature": self.temperature}


def flattened(command: Callable[..., None]) -> Callable[..., None]:
    """A command that takes a dataclass of options, as one that takes each of them by itself, which is how typer reads it.

    They stand where the dataclass stood. Its default there is an instance, whose values are the options' defaults.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        kind = hints[name]
        if not is_dataclass(kind):
            parameters.append(parameter.replace(annotation=kind))
            continue
        assert isinstance(kind, type)
        groups[name], kinds = kind, get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            value = getattr(parameter.default, field.name)
            parameters.append(parameter.replace(name=field.name, default=value, annotation=kinds[field.name]))

    @wraps(command)
    def whole(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        command(**given)

    whole.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    whole.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return whole


def ask(labels: list[str] | None, count: int | None) -> list[str] | None:
    """Labels of the command line, ``dog=8`` repeated as often as it says. Raises Problem."""
    if not labels:
        return None
    asked: list[str] = []
    for text in labels:
        name, separator, number = text.rpartition("=")
        if not separator:
            asked.append(text)
            continue
        times = int(number) if number.isdecimal() and len(number) < 20 else 0
        if not 1 <= times <= COUNT - len(asked):
            raise Problem(f"label {text!r}: {number!r} is not a count of at least 1, with all others of {COUNT:,} at most")
        if count is not None:
            raise Problem(f"label {text!r} has a count and --count is {count}: give one of them")
        asked += [name] * times
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


def load_guide(
    model: str, classifier: str | None, guidance: tuple[AnyGuidance, ...], device: str | None
) -> PictureClassifier | None:
    """The classifier that guides: the one given, else the model's companion; None where no guidance asks for one."""
    asks = "guidance classifier" if any(each.kind == "classifier" for each in guidance) else None
    return _classifier(model, "--classifier", classifier, asks, "--guidance classifier:SCALE", device)


def load_judge(model: str, judge: str | None, best_of: int, device: str | None) -> PictureClassifier | None:
    """The classifier that judges candidates: the one given, else the model's companion; None where there is nothing to judge."""
    asks = f"--best-of {best_of}" if best_of > 1 else None
    return _classifier(model, "--judge", judge, asks, "--best-of", device)


def _classifier(
    model: str, option: str, given: str | None, asks: str | None, asked_by: str, device: str | None
) -> PictureClassifier | None:
    """The classifier of an option, else the model's companion; None where nothing `asks` for one. Raises Problem."""
    from lodestar import library

    if asks is None:
        if given is not None:
            raise Problem(f"{option} {given} has no effect without {asked_by}")
        return None
    name = given or library.companion(model)
    if name is None:
        raise Problem(f"{asks}: {model} has no classifier of its own: give one with {option}")
    return library.load_classifier(name, device)


def load_weak(model: str, weak: str | None, guidance: tuple[AnyGuidance, ...], device: str | None) -> Diffusion | None:
    """Autoguidance's weaker model: the one given, else the model's companion; None where none is asked for. Raises Problem."""
    from lodestar import library

    if any(each.kind == "autoguidance" for each in guidance):
        name = weak or library.companion(model, "weak")
        if name is None:
            raise Problem("guidance autoguidance: give a smaller or less trained model with --weak")
        return library.load_diffusion(name, device)
    if weak is not None:
        raise Problem(f"--weak {weak} has no effect without --guidance autoguidance:SCALE")
    return None


def show(table: Table) -> None:
    """Print a table, what stands in it as it is: names may look like rich's markup."""
    from rich.console import Console

    Console(markup=False).print(table)


def tell(report: Report, out: Path | None) -> None:
    """Print a report, and write it as report.json into a folder where one is given."""
    from lodestar.files import write_text

    show(report.table())
    if out is not None:
        write_text(out / "report.json", report.to_json() + "\n")
