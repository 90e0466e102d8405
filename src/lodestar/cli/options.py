"""Common options of several commands, the parsers of their short forms, and tables."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from lodestar.config import BATCH, COUNT, SEEDS, Problem

if TYPE_CHECKING:
    from rich.table import Table

    from lodestar.evaluation.report import Report
    from lodestar.generators.guide import Guide
    from lodestar.generators.request import Asked, Prompts, Settings
    from lodestar.guidance import Guidance


class ModelNamed(TyperCommand):
    """A command whose model, if that is its first argument, may also be named anywhere by ``--model``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = [part for each in args for part in (each.split("=", 1) if each.startswith("--model=") else [each])]
        if self.params[0].name == "model" and "--model" in words:
            place = words.index("--model")
            args = [*words[place + 1 : place + 2], *words[:place], *words[place + 2 :]]
        return super().parse_args(ctx, args)


Model = Annotated[str, typer.Argument(help="An embedded model (cifar10), a run's folder or file, its address, or hf:owner/name.")]
PICTURES = "A parquet, .npz, .zip or tar file, a folder (by class), hf:owner/name, digits or shapes."
DataSource = Annotated[str, typer.Argument(help=PICTURES)]


def _placed(out: str | Path | None) -> Path | None:
    """The folder to write to, which for an address is a working folder. Raises Problem."""
    if out is None or "://" not in str(out):  # to look further takes libraries
        return None if out is None else Path(out)
    from lodestar.results import results_folder

    return results_folder(str(out))


Out = Annotated[
    Path | None,
    typer.Option(
        "--out", parser=str, callback=_placed, metavar="PATH", help="Folder to write to, or its address, as s3://bucket/run."
    ),
]
LAST_SEED = SEEDS - 1
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=LAST_SEED, help="Picture k has the seed SEED + k, whatever the batch size.")
]
Count = Annotated[int | None, typer.Option("--count", min=1, max=COUNT, help="How many pictures.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, max=BATCH, help="Pictures at once.")]
Steps = Annotated[
    str | None,
    typer.Option(
        "--steps",
        help="Sampling plan: 250, 90,60,60,20,20, ddim25, fast27, leading:20, trailing:20, linspace:20, karras:20, logsnr:20, "
        "at:39,17, sigmas:14.6,3.9,0.9, optimized:8 (of the model's card, see lodestar plan).",
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
        help="cfg:3 (1 = none; or cfg:w=2), cfgpp:0.6, apg:3, autoguidance:2, pag:1, sag:0.5, clamp:1, "
        "threshold:0.995, classifier:2 (classifier:2,sees=clean), clip:3, discriminator:1, content:1, structure:1, style:1, "
        "interval:LOW,HIGH, ramp:START,END; in this order.",
    ),
]
ClassifierName = Annotated[
    str | None,
    typer.Option(
        "--classifier", "--critic", help="The guiding classifier (a name, run or file): noise-aware, unless with sees=clean."
    ),
]
GuideNames = Annotated[
    list[str] | None,
    typer.Option("--guide", help="ROLE=MODEL: the model that guidance asks for under a role (classifier, weak). Repeatable."),
]
WeakName = Annotated[
    str | None,
    typer.Option(
        "--weak", help="The weaker model that autoguidance leads away from (a name, run or file); default the model's own."
    ),
]
Temperature = Annotated[
    float,
    typer.Option(
        "--temperature",
        help="Standard deviation of all drawn noise, or divisor of the logits of codes; below 1: likelier, less diverse.",
    ),
]
TopK = Annotated[int | None, typer.Option("--top-k", help="Draw each code of a prior of codes from so many, the likeliest.")]
TopP = Annotated[
    float | None,
    typer.Option("--top-p", help="Draw each code from the likeliest alone, the fewest with this probability together."),
]
Clamp = Annotated[bool, typer.Option("--clamp/--no-clamp", help="Clamp the estimated picture x̂₀ to the range of pictures.")]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision", help="Number format of the network: float32, bfloat16 or int8; default the fastest here, measured once."
    ),
]
Reuse = Annotated[
    int,
    typer.Option(
        "--reuse", min=1, help="The whole network in every so many steps, its finest resolution in the others (DeepCache)."
    ),
]
Truncation = Annotated[
    float | None,
    typer.Option("--truncation", help="Bound of a GAN's latent numbers, in deviations; lower: better, less diverse."),
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 …; default a GPU where there is one.")]
Reference = Annotated[
    str | None,
    typer.Option(
        "--reference",
        help="Pictures to compare with (a parquet, .npz, .zip or tar file, a folder, hf:owner/name), or a file of statistics "
        "(ours, or a published .npz); embedded models have one.",
    ),
]
ExtractorName = Annotated[
    str | None,
    typer.Option(
        "--extractor",
        "--features",
        help="The extractor of the features to compare: inception, inception:WEIGHTS, dinov2, clip, or a classifier (a name, a "
        "run or a file); default cifar10_features, and inception with a published reference.",
    ),
]


@dataclass(frozen=True)
class Solving:
    """Options of every command that runs a sampler. `flattened` adds them to a command; the values here are their defaults."""

    guidance: GuidanceTexts = None
    sampler: SamplerText = None
    steps: Steps = None
    batch_size: BatchSize = 32
    classifier: ClassifierName = None
    weak: WeakName = None
    guide: GuideNames = None
    clamp: Clamp = True
    precision: Precision = None
    device: Device = None
    out: Out = None

    def asked(self) -> Asked:
        """Settings of sampling from these options, as keywords of the functions of Python."""
        return {"steps": self.steps, "sampler": self.sampler, "guidance": self.guidance or (), "clamp": self.clamp}

    def settings(self) -> Settings:
        """Settings of sampling. Raises Problem."""
        from lodestar.generators.request import settings

        return settings(**self.asked())

    def guides(
        self, model: str | None, guidance: Sequence[Guidance], reference: Guide | None = None, others: Sequence[str] = ()
    ) -> dict[str, Guide]:
        """The guides that this guidance of a model asks for, by role: those given, else the model's own. Raises Problem.

        model: None for those that are given alone. others: further roles, whose guides are loaded if given.
        """
        from lodestar.config import Problem
        from lodestar.generators.guide import roles
        from lodestar.guidance import REFERENCE
        from lodestar.library import companions, load_guides

        asked, given = roles(guidance), self._given()
        for role, (written, _) in given.items():
            if role not in asked.union(others) - {REFERENCE}:
                such = f", such as {_ASKING[role]}" if role in _ASKING else f": it asks for {_listed(role)}"
                raise Problem(f"{written} has no effect without guidance that asks for it{such}")
        if reference is not None and REFERENCE not in asked:
            raise Problem("--reference has no effect without guidance that compares with it, such as --guidance style:SCALE")
        own = {} if model is None else companions(model)
        for each in guidance:
            for role in each.roles:
                if role == REFERENCE and reference is None:
                    raise Problem(f"guidance {each.kind}: give the picture to compare with, --reference PICTURE")
                if model is not None and role != REFERENCE and role not in own | given:
                    raise Problem(
                        f"guidance {each.kind}: {model} has no {_WORDS.get(role, role)} of its own: "
                        f"give one with {self.option(role)}"
                    )
        wanted = asked.intersection({*own, *given}).union(role for role in others if role in given) - {REFERENCE}
        names = {role: given[role][1] if role in given else own[role] for role in wanted}
        loaded = load_guides(names, self.device, self.precision)
        return loaded if reference is None else {**loaded, REFERENCE: reference}

    def option(self, role: str) -> str:
        """The option that names the guide of a role."""
        return f"--{role}" if role in _ASKING else f"--guide {role}=MODEL"

    def _given(self) -> dict[str, tuple[str, str]]:
        """The options that name guides, as they were written, and the names, by role. Raises Problem."""
        from lodestar.config import Problem

        given = {"classifier": self.classifier, "weak": self.weak}
        found = {role: (f"--{role} {name}", name) for role, name in given.items() if name is not None}
        for text in self.guide or ():
            role, separator, name = text.partition("=")
            if not (role and separator and name):
                raise Problem(f"--guide {text!r}: write it as ROLE=MODEL, such as classifier=runs/mine")
            if role in found:
                raise Problem(f"--guide {text}: {found[role][0]} is given for this role already")
            found[role] = (f"--guide {text}", name)
        return found


_ASKING = {"classifier": "--guidance classifier:SCALE", "weak": "--guidance autoguidance:SCALE"}
"""Guidance that asks for the guides which have an option of their own."""
_WORDS = {"weak": "weaker model (smaller or less trained)"}
"""Name of a guide, where its role is unclear."""


def _listed(role: str) -> str:
    """Roles of guides in guidance, and the nearest to another word."""
    from lodestar.config import nearest
    from lodestar.generators.guide import known_roles

    known = known_roles()
    return f"{', '.join(known)}{nearest(role, known)}"


@dataclass(frozen=True)
class Sampling(Solving):
    """Options of `Solving`, and of the commands that draw noise."""

    seed: Seed = 0
    temperature: Temperature = 1.0
    top_k: TopK = None
    top_p: TopP = None
    reuse: Reuse = 1
    truncation: Truncation = None

    def asked(self) -> Asked:
        noise: Asked = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p, "truncation": self.truncation}
        return super().asked() | noise | {"reuse": self.reuse}


@dataclass(frozen=True)
class Prompting:
    """Options of the commands that take prompts and reference pictures."""

    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="A text to make a picture of, for models that know texts. Repeatable: in turn."),
    ] = None
    style: Annotated[
        list[str] | None,
        typer.Option("--style", help="A style that the model knows, as a word behind the prompt. Repeatable: in turn."),
    ] = None
    cut_prompt: Annotated[
        bool, typer.Option("--cut-prompt", help="Cut a prompt that is longer than the model's context, instead of refusing it.")
    ] = False
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            help="The picture that content, structure and style compare with: a file or a folder. Repeatable: in turn.",
        ),
    ] = None

    def prompts(self) -> Prompts:
        """The prompts. Raises Problem."""
        from lodestar.generators.request import Prompts

        if self.cut_prompt and not self.prompt:
            raise Problem("--cut-prompt has no effect without --prompt")
        return Prompts.of(self.prompt or None, self.cut_prompt, self.style or None)


def flattened(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each field of its dataclass of options as a parameter of its own, as typer needs.

    The parameters take the dataclass's position. Its default there is an instance, whose values are the options' defaults.
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


def ready(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with the libraries that it needs loaded first, and without looks for garbage among their million objects.

    They live as long as the process, so that no collection of the work goes through them. What is loaded later is collected at
    Python's end, or bindings made by nanobind (Triton's) tell of it as leaked.
    """

    @wraps(command)
    def run(**given: Any) -> None:
        gc.disable()
        try:
            import lodestar.library  # noqa: F401
        finally:
            gc.freeze()
            gc.enable()
        command(**given)

    return run


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


def load_judge(model: str, judge: str | None, best_of: int, sampling: Solving) -> Guide | None:
    """The judge of candidates: the one given, else the model's own; None where nothing is to be judged. Raises Problem."""
    from lodestar import library
    from lodestar.generators.rejection import JUDGES

    if best_of == 1:
        if judge is not None:
            raise Problem(f"--judge {judge} has no effect without --best-of")
        return None
    own = library.companions(model)
    name = judge or next((own[role] for role in JUDGES if role in own), None)
    if name is None:
        raise Problem(f"--best-of {best_of}: {model} has no classifier or CLIP of its own: give one with --judge")
    return library.load_guides({"judge": name}, sampling.device, sampling.precision)["judge"]


def show(table: Table) -> None:
    """Print a table without interpreting its texts: names may look like rich's markup."""
    from rich.console import Console

    from lodestar.progress import print_whole

    print_whole(Console(markup=False), table)


def tell(report: Report, out: Path | None) -> None:
    """Print a report, and write it as report.json into a folder where one is given."""
    show(report.table())
    if out is not None:
        report.save(out)
